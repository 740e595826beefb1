"""The texture that a base has lost: how strong it was, block by block, as an encoder measures it
and as a restorer is told it.

That is what is wrong all over a block in the band of the finest detail that pictures of a few
hundred lines have. It needs no place, so that a level for each 32x32 pixels says it; what it is to
look like is the restorer's to say.
"""

from __future__ import annotations

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor
from torch.nn import functional

from gvcc.format.levels import BLOCK, EVERY, Levels, deviation
from gvcc.records import Pictures

SIDE = 4  # pixels of the picture to one of what a restorer is told
_FINE, _COARSE = 0.6, 2.4  # Gaussians between which the band is, in pixels
_LUMA = (0.299, 0.587, 0.114)


@torch.inference_mode()
def lost(pictures: Pictures, shown: Pictures) -> NDArray[np.float32]:
    """Deviation [n,rows,columns], in levels of 255, of what `shown` lacks of pictures [n,H,W,3] in
    the blocks of each: twice the root of the mean square below which a quarter of its cells are.

    The error at an edge is as large as that of lost gravel, but it is in few cells, and noise would
    be wrong there. Of even noise it is 1.6 times the deviation.
    """
    off = pictures.astype(np.float32) - shown
    luma = (torch.from_numpy(off) @ torch.tensor(_LUMA))[:, None]
    band = (blurred(luma, _FINE) - blurred(luma, _COARSE)).square()
    n, _, h, w = band.shape
    band = functional.pad(band, (0, -w % BLOCK, 0, -h % BLOCK), mode="replicate")
    cells = functional.avg_pool2d(band, SIDE)
    side = BLOCK // SIDE
    rows, columns = (x // side for x in cells.shape[2:])
    each = cells.reshape(n, rows, side, columns, side).transpose(2, 3).flatten(3)
    return 2 * each.kthvalue(side**2 // 4, -1).values.sqrt().numpy()


def strength(levels: Levels, picture: int, height: int, width: int) -> NDArray[np.float32]:
    """What a restorer is told for a picture [height,width] of a GOP: standard deviations of pixels
    in [0,1], [height/4,width/4]."""
    k, part = divmod(picture, EVERY)
    now, after = (deviation(levels[min(i, len(levels) - 1)]) for i in (k, k + 1))
    mixed = torch.from_numpy(now + part / EVERY * (after - now))[None, None] / 255
    scale = BLOCK // SIDE
    plane = functional.interpolate(mixed, scale_factor=scale, mode="bilinear", align_corners=False)
    h, w = height // SIDE, width // SIDE  # a base's sides, multiples of 8, may go beyond the blocks
    missing = max(0, h - plane.shape[2]), max(0, w - plane.shape[3])
    plane = functional.pad(plane, (0, missing[1], 0, missing[0]), mode="replicate")
    return plane[0, 0, :h, :w].numpy()


def kernel(sigma: float) -> Tensor:
    """A Gaussian cut at three times its standard deviation, 1 in sum."""
    reach = int(3 * sigma + 1)
    k = torch.exp(-0.5 * (torch.arange(-reach, reach + 1) / sigma) ** 2)
    return k / k.sum()


def blurred(x: Tensor, sigma: float) -> Tensor:
    """Planes [B,1,H,W] through a Gaussian."""
    k = kernel(sigma).to(x)
    pad = len(k) // 2
    x = functional.pad(x, (pad, pad, pad, pad), mode="replicate")
    x = functional.conv2d(x, k.reshape(1, 1, 1, -1))
    return functional.conv2d(x, k.reshape(1, 1, -1, 1))
