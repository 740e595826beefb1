"""Pictures at a half or a quarter of each side, and back: the way back is part of the format.

A picture of H x W is extended on the right and below, by repetition, to multiples of 8 s, s = 1, 2
or 4, and coded at 1/s of each side. A decoder enlarges by 2, once for s = 2 and twice for s = 4,
and cuts to H x W: all in integers, so that the picture is the same on every machine. Of rows, then
of columns, with edges repeated (Lanczos' kernel of three lobes at a quarter of a sample):

    u[2i]   = 2 c[i-3] - 17 c[i-2] + 69 c[i-1] + 229 c[i] - 34 c[i+1] + 7 c[i+2]
    u[2i+1] = 7 c[i-2] - 34 c[i-1] + 229 c[i] + 69 c[i+1] - 17 c[i+2] + 2 c[i+3]

A level c enters as 16 c; after rows and columns a value is (u + 2^15) >> 16, which enters as it is
if it is enlarged once more; at the end a level is clip((v + 8) >> 4) to [0, 255].
"""

from __future__ import annotations

import math

import numpy as np
from numpy.typing import NDArray

from gvcc.records import Pictures

TAPS = (2, -17, 69, 229, -34, 7)
_LOBES = 3


def coded_sides(height: int, width: int, size: int) -> tuple[int, int]:
    """Height and width of the coded picture at 1/`size` of each side."""
    h, w = (-(-n // (8 * size)) * 8 for n in (height, width))
    return h, w


def shrunk(picture: Pictures, size: int) -> Pictures:
    """A picture [H,W,3], extended and at 1/`size` of each side. The decoder does not depend on how
    this is done: Lanczos, three lobes."""
    height, width = picture.shape[:2]
    h, w = coded_sides(height, width, size)
    grow = ((0, size * h - height), (0, size * w - width), (0, 0))
    padded = np.pad(picture, grow, mode="edge")
    if size == 1:
        return padded
    rows = _fewer(padded.astype(np.float32), size)
    both = _fewer(rows.swapaxes(0, 1), size).swapaxes(0, 1)
    return np.asarray(np.rint(both).clip(0, 255), np.uint8)


def _fewer(x: NDArray[np.float32], size: int) -> NDArray[np.float32]:
    """[N,...] -> [N / size,...]."""
    reach = _LOBES * size
    at = (np.arange(-reach, reach) + 0.5) / size
    kernel = np.sinc(at) * np.sinc(at / _LOBES)
    kernel = (kernel / kernel.sum()).astype(np.float32)
    first = reach - size // 2
    padded = np.pad(x, [(first, reach), *[(0, 0)] * (x.ndim - 1)], mode="edge")
    count = len(x) // size
    out = np.zeros((count, *x.shape[1:]), np.float32)
    for k, weight in enumerate(kernel):
        out += weight * padded[k : k + size * count : size]
    return out


def enlarged(picture: Pictures, height: int, width: int, size: int) -> Pictures:
    """The inverse, by the format's formula: [h,w,3] at 1/`size` of each side -> [height,width,3].
    The same for a stack [n,h,w,3]."""
    if size == 1:
        return picture[..., :height, :width, :]
    planes = np.moveaxis(picture, (-3, -2), (0, 1)).astype(np.int32) << 4
    for _ in range(int(math.log2(size))):
        rows = _doubled(planes)
        planes = (_doubled(rows.swapaxes(0, 1)).swapaxes(0, 1) + (1 << 15)) >> 16
    levels = ((planes[:height, :width] + 8) >> 4).clip(0, 255).astype(np.uint8)
    return np.ascontiguousarray(np.moveaxis(levels, (0, 1), (-3, -2)))


def _doubled(c: NDArray[np.int32]) -> NDArray[np.int32]:
    """[N,...] -> [2 N,...], 256 times as large in value."""
    n = len(c)
    p = np.pad(c, [(3, 3), *[(0, 0)] * (c.ndim - 1)], mode="edge")
    out = np.zeros((n, 2, *c.shape[1:]), np.int32)
    for k, tap in enumerate(TAPS):
        out[:, 0] += tap * p[k : k + n]
        out[:, 1] += tap * p[6 - k : 6 - k + n]
    return out.reshape(2 * n, *c.shape[1:])
