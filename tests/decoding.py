"""A stream's GOPs decoded one after another by the codec's own calls."""

from __future__ import annotations

from collections.abc import Iterator
from types import SimpleNamespace
from typing import Any, NamedTuple

import numpy as np
from torch import Tensor

from gvcc.decode.assemble import Assembler
from gvcc.decode.session import Left, Session
from gvcc.decoder import decode_record
from gvcc.format import bitstream
from gvcc.format.bitstream import GopRecord, Stream
from gvcc.format.gop import Gop


class Made(NamedTuple):
    """A GOP's record, its latent, its pictures, and what the GOP before left."""

    record: GopRecord
    latent: Tensor
    pictures: np.ndarray
    before: Left


def made(stream: Stream, prior: Any) -> Iterator[Made]:
    """Every GOP of a stream that is whole, without blending or fading."""
    session, before = Session(stream.header, prior), Left()
    for i, record in enumerate(stream.gops):
        latent, given = decode_record(session, i, record, before, lambda *_: None)
        pictures = session.render(record, latent, given.base)
        yield Made(record, latent, pictures, before)
        before = session.after(record.gop, given, pictures)


class Pictured:
    """An assembler of GOPs whose latents are their pictures; nothing is blended."""

    def __init__(self, overlap: int) -> None:
        header: Any = SimpleNamespace(overlap=overlap, alignment="fade", height=2, width=2)
        render: Any = lambda record, latent, base: latent  # noqa: E731
        self._assembler = Assembler(header, 4, render)

    def add(self, gop: Gop, pictures: np.ndarray) -> np.ndarray:
        latent: Any = pictures
        return self._assembler.add(bitstream.empty_gop(gop), latent)

    def finish(self) -> np.ndarray:
        return self._assembler.finish()
