"""A stream's GOPs decoded one after another by the codec's own calls."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any, NamedTuple

import numpy as np
from torch import Tensor

from gvcc.decode.session import References, Session
from gvcc.decoder import decode_record
from gvcc.format.bitstream import GopRecord, Stream


class Made(NamedTuple):
    """A GOP's record, its latent, its pictures, and what the GOP before left."""

    record: GopRecord
    latent: Tensor
    pictures: np.ndarray
    before: References


def made(stream: Stream, prior: Any) -> Iterator[Made]:
    """Every GOP of a stream that is whole, without blending or fading."""
    session, before = Session(stream.header, prior), References()
    for i, record in enumerate(stream.gops):
        latent, given = decode_record(session, i, record, before, lambda *_: None)
        pictures = session.render(record, latent)
        yield Made(record, latent, pictures, before)
        before = session.after(record.gop, given, pictures)
