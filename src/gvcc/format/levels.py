"""How much texture a base has lost, as its record says it: a level for each block of every
sixteenth picture. docs/format.md section 16.6."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

BLOCK = 32  # pixels a side
EVERY = 16  # pictures; between them it changes evenly
LEVELS = 14
_ONE = 3  # the level of a deviation of 1
Levels = NDArray[np.uint8]
"""[maps,rows,columns], below LEVELS: 0 is no texture, q a standard deviation of
2^((q - 3) / 2), of 255."""


def shape(frames: int, height: int, width: int) -> tuple[int, int, int]:
    """Maps, rows and columns of a GOP's levels."""
    return 1 - (1 - frames) // EVERY, -(-height // BLOCK), -(-width // BLOCK)


def fraction(deviation: NDArray[np.float32]) -> NDArray[np.float32]:
    """Levels of standard deviations, not rounded."""
    least = np.float32(2 ** (-_ONE / 2))
    return (_ONE + 2 * np.log2(np.maximum(deviation, least))).clip(0, LEVELS - 1)


def deviation(levels: Levels) -> NDArray[np.float32]:
    """The standard deviations that levels stand for."""
    return np.where(levels > 0, 2 ** ((levels - float(_ONE)) / 2), 0).astype(np.float32)
