"""White noise that moves with the pictures of a base, for the restorer's textures.

Integers alone, so that it is the same on every machine (docs/format.md section 16.5): blocks of 8x8
coded samples take their noise from where they came from in the picture before, and get new noise
where nothing there is like them.
"""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from gvcc.format import rng
from gvcc.records import Pictures

BLOCK = 8  # coded samples
REACH = 6  # of the search at half of each side
_STILL = 64  # what a block must gain by moving
_LIKE = 8 * BLOCK**2  # sum of absolute differences up to which a block is the same
_Plane = NDArray[np.int16]


class AnchoredNoise:
    """The noise of one GOP, picture by picture, the first of them number `start` of the clip.
    `size`: the base is at 1/size of each side."""

    def __init__(self, seed: int, start: int, size: int) -> None:
        self.seed, self.start, self.size = seed, start, size
        self.count = 0
        self.before: _Plane | None = None
        self.noise = np.empty((0, 0), np.float32)

    def next(self, picture: Pictures) -> NDArray[np.float32]:
        """White noise of unit variance for the next picture [h,w,3] of the base, as it is coded:
        [size h,size w]."""
        luma = _luma(picture)
        h, w = luma.shape
        fresh = self._fresh(self.size * h, self.size * w)
        if self.before is None:
            self.noise = fresh
        else:
            dy, dx, found = motion(luma, self.before)
            self.noise = _moved(self.noise, fresh, self.size * dy, self.size * dx, found,
                                BLOCK * self.size)  # fmt: skip
        self.before, self.count = luma, self.count + 1
        return self.noise

    def _fresh(self, height: int, width: int) -> NDArray[np.float32]:
        key = rng.derive(self.seed, self.start, self.count, 0, rng.Purpose.TEXTURE)
        return rng.normals(key, height * width).reshape(height, width)


def _luma(picture: Pictures) -> _Plane:
    r, g, b = (picture[..., c].astype(np.int16) for c in range(3))
    return (r + 2 * g + b) >> 2


def motion(
    luma: _Plane, before: _Plane
) -> tuple[NDArray[np.int64], NDArray[np.int64], NDArray[np.bool_]]:
    """Where each block [h / 8,w / 8] of a plane comes from in the one before: dy, dx, and whether
    it is found there at all."""
    h, w = luma.shape
    half, old = (x.reshape(h // 2, 2, w // 2, 2).sum((1, 3), dtype=np.int16) >> 2
                 for x in (luma, before))  # fmt: skip
    padded = np.pad(old, REACH, mode="edge")
    best = np.full((h // BLOCK, w // BLOCK), 2**30)
    coarse = np.zeros((2, *best.shape), np.int64)
    for dy in range(-REACH, REACH + 1):
        for dx in range(-REACH, REACH + 1):
            there = padded[REACH + dy :, REACH + dx :][: h // 2, : w // 2]
            cost = 4 * _blocks(np.abs(half - there), BLOCK // 2)
            cost += _STILL * (dy != 0 or dx != 0)
            better = cost < best
            best = np.where(better, cost, best)
            coarse[:, better] = np.array([[2 * dy], [2 * dx]])
    return _refined(luma, before, coarse)


def _refined(
    luma: _Plane, before: _Plane, coarse: NDArray[np.int64]
) -> tuple[NDArray[np.int64], NDArray[np.int64], NDArray[np.bool_]]:
    """The best of no motion at all and of the coarse one and its eight neighbours."""
    h, w = luma.shape
    rows, columns = np.arange(h)[:, None], np.arange(w)
    best = _blocks(np.abs(luma - before), BLOCK)
    moved = np.zeros_like(coarse)
    wanted = best - _STILL
    for dy in (-1, 0, 1):
        for dx in (-1, 0, 1):
            try_y, try_x = coarse[0] + dy, coarse[1] + dx
            y = (rows + _spread(try_y)).clip(0, h - 1)
            x = (columns + _spread(try_x)).clip(0, w - 1)
            cost = _blocks(np.abs(luma - before[y, x]), BLOCK)
            better = cost < wanted
            wanted, best = np.where(better, cost, wanted), np.where(better, cost, best)
            moved[:, better] = np.stack([try_y, try_x])[:, better]
    return moved[0], moved[1], best <= _LIKE


def _blocks(x: NDArray[np.int16], side: int) -> NDArray[np.int64]:
    h, w = x.shape
    out: NDArray[np.int64] = x.reshape(h // side, side, w // side, side).sum((1, 3), dtype=np.int64)
    return out


def _spread(x: NDArray[np.int64], side: int = BLOCK) -> NDArray[np.int64]:
    """A value for each block -> for each of its samples."""
    return x.repeat(side, 0).repeat(side, 1)


def _moved(
    noise: NDArray[np.float32], fresh: NDArray[np.float32], dy: NDArray[np.int64],
    dx: NDArray[np.int64], found: NDArray[np.bool_], side: int,
) -> NDArray[np.float32]:  # fmt: skip
    """The noise of the picture before, moved; new where a block is not found, or came from
    outside."""
    h, w = noise.shape
    top, left = np.arange(0, h, side)[:, None] + dy, np.arange(0, w, side) + dx
    inside = found & (top >= 0) & (left >= 0) & (top <= h - side) & (left <= w - side)
    y = np.arange(h)[:, None] + _spread(np.where(inside, dy, 0), side)
    x = np.arange(w) + _spread(np.where(inside, dx, 0), side)
    return np.where(_spread(inside, side), noise[y, x], fresh)
