"""Scene cuts: which frames of a clip start a new scene.

The usual two features of shot boundary detection, differences of pixels and of histograms, against
their surroundings (see Hanjalic, "Shot-boundary detection: unraveled and resolved?", IEEE Trans.
CSVT 12(2), 2002).
Only the encoder looks, so nothing here has to be exact. bench/systems/scenes.py measures it.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Iterable
from itertools import chain
from statistics import median
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

ROWS, COLUMNS, BINS = 18, 32, 16

# A cut differs from all frames this near on its other side; so a flash this short, less one, is
# none, nor is what follows it.
_REACH = 3
_AROUND = 6  # frames to each side that tell how much changes anyway

_CHANGE = 15.0  # levels, luma and chroma summed
_TIMES = 2.0  # so much more than the median around it
_SHIFT = 0.075  # part of the pixels that move to other bins of the histogram

_YCBCR = np.array([[0.299, 0.587, 0.114], [-0.169, -0.331, 0.5], [0.5, -0.419, -0.081]], np.float32)


class _Look(NamedTuple):
    """A frame's block means [rows,columns,3] and its histograms [3,BINS], both Y, Cb, Cr."""

    blocks: NDArray[np.float32]
    bins: NDArray[np.float64]


def cuts(pictures: Iterable[NDArray[np.uint8]]) -> list[int]:
    """The numbers, never 0, of the `pictures` (RGB, uint8 [H,W,3], of one size) that start a scene.

    Frame t is a cut if block means and histograms of every frame from t to t + 2 differ from those
    of every frame from t - 3 to t - 1, and t differs from t - 1 by far more than the frames around
    differ from their predecessors. So flashes of one or two frames, fades, dissolves and motion are
    no cuts; of a cut that is smeared over some frames, the first one counts.

    Memory: a thumbnail of a few frames, and three numbers of every frame.
    """
    window: deque[_Look | None] = deque([None] * (2 * _REACH), maxlen=2 * _REACH)
    steps, changes, shifts = [], [], []
    for look in chain(map(_look, pictures), [None] * (_REACH - 1)):
        window.append(look)
        looks = list(window)
        here = looks[_REACH]
        if here is None:
            continue
        before = [other for other in looks[:_REACH] if other is not None]
        after = [other for other in looks[_REACH:] if other is not None]
        pairs = [(a, b) for a in before for b in after]
        steps.append(_change(before[-1], here) if before else 0.0)
        changes.append(min((_change(a, b) for a, b in pairs), default=0.0))
        shifts.append(min((_shift(a, b) for a, b in pairs), default=0.0))
    found: list[int] = []
    for t in range(1, len(steps)):
        around = steps[max(1, t - _AROUND) : t] + steps[t + 1 : t + 1 + _AROUND]
        # 1 level is added since still pictures, too, change a little.
        usual = median(around or [0.0]) + 1
        smeared = bool(found) and t - found[-1] < _REACH
        if changes[t] > max(_CHANGE, _TIMES * usual) and shifts[t] > _SHIFT and not smeared:
            found.append(t)
    return found


def _look(pixels: NDArray[np.uint8]) -> _Look:
    # At most 8x8 samples of each block, whatever the size.
    down, right = (-(-n // (8 * m)) for n, m in zip(pixels.shape, (ROWS, COLUMNS), strict=False))
    pixels = pixels[::down, ::right]
    height, width, _ = pixels.shape
    colour = pixels.astype(np.float32) @ _YCBCR.T
    top = np.linspace(0, height, min(ROWS, height) + 1).astype(int)
    left = np.linspace(0, width, min(COLUMNS, width) + 1).astype(int)
    sums = np.add.reduceat(np.add.reduceat(colour, top[:-1], 0), left[:-1], 1)
    blocks = sums / (np.diff(top)[:, None] * np.diff(left))[..., None]
    level = ((colour + (0, 128, 128)) * (BINS / 256)).astype(int).clip(0, BINS - 1).reshape(-1, 3)
    counts = [np.bincount(part, minlength=BINS) for part in level.T]
    return _Look(blocks.astype(np.float32), np.stack(counts) / len(level))


def _change(a: _Look, b: _Look) -> float:
    """Mean absolute difference of the block means, Y, Cb and Cr summed, in levels of 255."""
    return float(np.abs(a.blocks - b.blocks).sum(-1).mean())


def _shift(a: _Look, b: _Look) -> float:
    """Total variation between the histograms, 0 to 1, the mean of Y, Cb and Cr."""
    return float(np.abs(a.bins - b.bins).sum() / 6)
