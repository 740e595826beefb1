"""A bench's way to code a GOP once for many stops: a pass of the encoder is kept and used again.

`aqc.Pass` codes a GOP step by step as deep as somebody asks, and where the encoder stops does not
change what it codes. So the same GOP, under the same condition, at another rate or goal needs no
second pass; with `rcc` the pass is nearly all of an encoder's time. The files are the same in every
byte. `install` once, before the first encode.
"""

from __future__ import annotations

import hashlib
from typing import Any

from gvcc import encoder
from gvcc.search import stops as aqc

_KEPT: dict[bytes, aqc.Pass] = {}


def _pass(condition: Any, header: Any, gop: int, shape: Any, coder: Any, aim: Any, free: Any,
          deepest: int, dealt: Any, observe: Any) -> aqc.Pass:  # fmt: skip
    """The pass of a GOP, kept from before if there is one of the same GOP: its number, its latent,
    what it knows already, and how it is coded are the same."""
    known = hashlib.sha256()
    for f in sorted(condition.known):
        known.update(bytes([f]) + condition.known[f].contiguous().numpy().tobytes())
    how = (
        header.seed, header.coder, header.size, header.table, header.rule, header.knob,
        header.digest, header.allocation, type(aim.budget).__name__, gop, tuple(shape),
    )  # fmt: skip
    key = hashlib.sha256(repr(how).encode() + known.digest())
    key.update(aim.x0.contiguous().numpy().tobytes())
    name = key.digest()
    if name not in _KEPT:
        _KEPT[name] = aqc.Pass(
            condition, header, gop, shape, coder, aim, free, deepest, dealt, observe
        )
    return _KEPT[name]


def install() -> None:
    """From now on the encoder keeps its passes."""
    encoder.Pass = _pass  # type: ignore[assignment,misc]


def forget() -> None:
    """Drop what is kept: another clip is next."""
    _KEPT.clear()
