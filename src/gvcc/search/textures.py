"""The texture that a base lacks, measured for its record."""

from __future__ import annotations

from collections.abc import Iterable

import numpy as np
from numpy.typing import NDArray

from gvcc.format import levels, texture
from gvcc.format.base import BaseRecord
from gvcc.format.levels import EVERY, Levels
from gvcc.pictures import base
from gvcc.pictures.basecodecs import Spool
from gvcc.priors.texture import lost

_STAYS = 0.9  # levels by which a block may be off before it changes from one map to the next


class TextureMeter:
    """What bases of a GOP lack of its pictures [height,width,3], which are in a spool."""

    def __init__(self, pictures: Spool) -> None:
        self.own = pictures

    def lost(self, coded: BaseRecord, most: int | None = None) -> bytes:
        """The symbols of what a base lacks, of at most so many bytes: if need be without changes
        in time, or none."""
        own = self.own
        shown = base.decode(coded, own.height, own.width, own.count)
        found = lacking(lost(a[None], b[None])[0] for a, b in zip(own, shown, strict=True))
        for tried in (found, np.repeat(found[:1], len(found), 0)):
            data = texture.write(tried)
            if most is None or len(data) <= most:
                return data
        return b""


def lacking(deviations: Iterable[NDArray[np.float32]]) -> Levels:
    """Levels [maps,rows,columns] of what is lost of each picture, [rows,columns]."""
    power = np.square(np.stack([*deviations]))
    maps = levels.shape(len(power), 1, 1)[0]
    at = EVERY * np.arange(maps)[:, None]
    near = np.maximum(EVERY - np.abs(np.arange(len(power)) - at), 0)
    means = np.einsum("kt,tyx->kyx", near, power) / near.sum(1)[:, None, None]
    wanted = levels.fraction(np.sqrt(means).astype(np.float32))
    out = np.rint(wanted).astype(np.uint8)
    for before, now, exact in zip(out, out[1:], wanted[1:], strict=False):
        now[:] = np.where(np.abs(exact - before) < _STAYS, before, now)
    return out
