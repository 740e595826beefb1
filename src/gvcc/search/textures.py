"""The texture that a base lacks, measured for its record."""

from __future__ import annotations

from collections.abc import Iterable

import numpy as np
from numpy.typing import NDArray

from gvcc.format import levels, texture
from gvcc.format.base import BaseRecord
from gvcc.format.levels import EVERY, Levels
from gvcc.pictures import base
from gvcc.priors.texture import energy
from gvcc.records import Pictures

_STAYS = 0.9  # levels by which a block may be off before it changes from one map to the next
_EXPECTED = 0.22  # bytes of a level, where no GOP before says it


class TextureMeter:
    """What the pictures of a GOP have of texture, taken down as they go by; then, for a base of
    theirs, what it lacks. `expected` bytes are kept for what says so."""

    def __init__(self, height: int, width: int) -> None:
        self.sides = height, width
        self.own = list[NDArray[np.float32]]()

    def add(self, picture: Pictures) -> None:
        """The next picture [H,W,3]."""
        self.own.append(energy(picture[None])[0])

    def expected(self, a_level: float | None) -> int:
        """Bytes that the levels will take, about: `a_level` of each in a GOP before."""
        count = np.prod(levels.shape(len(self.own), *self.sides))
        return 8 + round(count * (_EXPECTED if a_level is None else a_level))

    def lost(self, coded: BaseRecord, most: int | None = None) -> bytes:
        """The symbols of what a base lacks, of at most so many bytes: if need be without changes
        in time, or none."""
        h, w = self.sides
        shown = (energy(p[None])[0] for p in base.decode(coded, h, w, len(self.own)))
        found = lacking(self.own, shown)
        for tried in (found, np.repeat(found[:1], len(found), 0)):
            data = texture.write(tried)
            if most is None or len(data) <= most:
                return data
        return b""


def lacking(own: Iterable[NDArray[np.float32]], shown: Iterable[NDArray[np.float32]]) -> Levels:
    """Levels [maps,rows,columns] of energies [rows,columns] of each picture and its base."""
    lost = np.stack([np.maximum(a - b, 0) for a, b in zip(own, shown, strict=True)])
    maps = levels.shape(len(lost), 1, 1)[0]
    at = EVERY * np.arange(maps)[:, None]
    near = np.maximum(EVERY - np.abs(np.arange(len(lost)) - at), 0)
    means = np.einsum("kt,tyx->kyx", near, lost) / near.sum(1)[:, None, None]
    wanted = levels.fraction(np.sqrt(means).astype(np.float32))
    out = np.rint(wanted).astype(np.uint8)
    for before, now, exact in zip(out, out[1:], wanted[1:], strict=False):
        now[:] = np.where(np.abs(exact - before) < _STAYS, before, now)
    return out
