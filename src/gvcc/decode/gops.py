"""One GOP's record -> its latent; of a GOP that is nothing but a base the pictures, a few at a
time."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import NamedTuple

import numpy as np
import torch
from torch import Tensor

from gvcc.decode import trajectory as track
from gvcc.decode.session import Given, Left, Session
from gvcc.decode.times import times
from gvcc.errors import Corrupt
from gvcc.format.base import BaseRecord
from gvcc.format.bitstream import GopRecord
from gvcc.format.gop import Gop
from gvcc.records import Pictures

AT_ONCE = 8  # pictures of a base that are held together


class Decoded(NamedTuple):
    """A GOP's final latent, and the pictures that it was conditioned on."""

    latent: Tensor
    given: Given


def decode_record(
    session: Session, index: int, record: GopRecord, before: Left,
    observe: Callable[[int, Tensor], None], most: int | None = None,
) -> Decoded:  # fmt: skip
    """GOP number `index`, after what the one before left; of one that is nothing but a base the
    latent is empty. Of the coded steps `most` are taken (None: all); with fewer than there are the
    ODE goes on from there, and no residual is added. Raises FormatError for fields that are no
    such."""
    g, header = record.gop, session.header
    given = session.given(g, record.stills, before, record.base)
    if given.base is not None and given.base.soft is None:
        return Decoded(torch.empty(0), given)
    condition = session.condition(g, given)
    shape, coder = session.shape(g), session.coder()
    free = track.free_of(condition.known, shape[1])
    noise = track.Read(coder, header, index, record, shape, free, most)
    at = times(header, *stops(record, most), condition.start)
    latent = track.run(condition, header, index, shape, coder, at, noise, observe)
    if noise.stop < track.coded_steps(record):
        return Decoded(latent, given)
    return Decoded(session.corrected(latent, record.residual), given)


def stops(record: GopRecord, most: int | None) -> tuple[int, int]:
    """Coded steps and 256ths of one that are taken, if `most` are to be (None: all)."""
    if most is None or most >= track.coded_steps(record):
        return record.stop, record.fraction
    return most, 0


def base_pictures(session: Session, gop: Gop, coded: BaseRecord) -> Iterator[Pictures]:
    """The pictures of a GOP by its base alone, a few at a time [n,H,W,3]. Raises Corrupt, as soon
    as what is wrong with it is met."""
    held: list[Pictures] = []
    try:
        for picture in session.base_pictures(gop, coded):
            held.append(picture)
            if len(held) == AT_ONCE:
                yield np.stack(held)
                held = []
    except Corrupt:
        if held:  # they came before what is wrong
            yield np.stack(held)
        raise
    if held:
        yield np.stack(held)
