"""The texture that a base has lost: how strong it was, block by block, as an encoder measures it
and as a restorer is told it.

That is the variance that the base lacks in the band of the finest detail that pictures of a few
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
def energy(pictures: Pictures) -> NDArray[np.float32]:
    """Mean square of the band of each block of pictures [n,H,W,3]: [n,rows,columns]."""
    luma = torch.from_numpy(pictures).float() @ torch.tensor(_LUMA)
    band = (blurred(luma[:, None], _FINE) - blurred(luma[:, None], _COARSE)).square()
    h, w = luma.shape[1:]
    band = functional.pad(band, (0, -w % BLOCK, 0, -h % BLOCK), mode="replicate")
    return functional.avg_pool2d(band, BLOCK)[:, 0].numpy()


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
