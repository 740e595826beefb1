"""Symbols of the texture that a base has lost (format/levels.py). docs/format.md section 16.6."""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np
from numpy.typing import NDArray

from gvcc.format import entropy
from gvcc.format.levels import LEVELS, Levels

_FIRST = 7  # what the first block is expected to have
_SURE, _LEARNS = 6, 16  # log2 of the first count of what is expected; what a symbol adds to its own


def write(levels: Levels) -> bytes:
    """Levels as symbols."""
    symbols = entropy.SymbolWriter()
    for counts, at in _expected(levels):
        symbols.table(levels[at].astype(np.int64)[None], entropy.frequencies(counts))
    return symbols.finish()


def read(data: bytes, shape: tuple[int, int, int]) -> Levels:
    """Levels of this shape from symbols, 0 if there are none. Raises Corrupt for too few."""
    symbols, levels = entropy.SymbolReader(data), np.zeros(shape, np.uint8)
    if not data:
        return levels
    for counts, at in _expected(levels):
        levels[at] = symbols.table(entropy.frequencies(counts))[0]
    return levels


def _expected(levels: Levels) -> Iterator[tuple[entropy.Ints, tuple[int, int, int]]]:
    """For each level in turn the counts [1,LEVELS] of its table, and where it is; when the next one
    is asked for it must be there, and is counted.

    The first map's are expected to be the mean of those to the left and above, later ones to be as
    in the map before.
    """
    off = np.abs(np.arange(LEVELS)[:, None] - np.arange(LEVELS))
    start = 1 + 2 ** np.maximum(_SURE - 2 * off, 0)
    tables = np.stack([start, start])[:, :, None].astype(np.int64)
    for k, y, x in np.ndindex(levels.shape):
        near = levels[k - 1, y : y + 1, x] if k else _near(levels[0], y, x)
        guess = (int(near.sum()) + len(near) - 1) // len(near) if len(near) else _FIRST
        counts = tables[min(k, 1), guess]
        yield counts, (k, y, x)
        counts[0, levels[k, y, x]] += _LEARNS


def _near(level: NDArray[np.uint8], y: int, x: int) -> NDArray[np.uint8]:
    """Those to the left and above, of which there may be none."""
    return np.concatenate([level[y, max(x - 1, 0) : x], level[max(y - 1, 0) : y, x]])
