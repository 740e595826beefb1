"""The base of a GOP in mode v2v: what its record says of it. docs/format.md section 16."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import NamedTuple

from gvcc.errors import Corrupt, Unsupported
from gvcc.format.cursor import Cursor, blob

CODECS = ("av1", "vvc")  # positions are the numbers in the file; only ever append
KNOWN_SETS = {"av1": 4, "vvc": 2}  # how many sets of each a decoder can derive
SIZES = (1, 2, 4)
HEAD = 4  # bytes of a base without a trajectory that are not its stream
# Bits of a base's use
_NUMBER, KNOWN, TRAJECTORY, DIFFERENCE, RESTORED = 3, 4, 8, 16, 32
START_UNIT = 2**16
# Variances are bytes: eighths of a power of two, from 2^-24.
_EIGHTHS, _ZERO = 8, 192
GRID = tuple(range(-12, 13, 3))  # log2 of the SNRs at which a header has variances


class RestorerId(NamedTuple):
    """What restores the pictures of a stream's bases, and the digest of its weights."""

    name: str
    digest: bytes


@dataclass(frozen=True)
class Over:
    """How a trajectory goes on from a base: it begins at time `start` / START_UNIT; `errors` are
    the variances of the base's latent around the clip's, a byte for each channel. `difference`: the
    pictures are the base's and what the trajectory changes, not the latent's own."""

    start: int
    errors: tuple[int, ...]
    difference: bool


@dataclass(frozen=True)
class BaseRecord:
    """A coarse version of a GOP's pictures by a classical codec.

    `size`: it is coded at 1/size of each side. `quantiser`, 0 to 255, is how coarse it is, for a
    restorer. `sets` is the number of the codec's sets (pictures/basesets.py; None: they are in the
    stream). `over` None: the base alone is shown, `restored` by the header's restorer or as it is;
    `texture` are then the symbols of format/texture.py, or none.
    """

    codec: str
    size: int
    quantiser: int
    sets: int | None
    stream: bytes
    over: Over | None = None
    restored: bool = False
    texture: bytes = b""


def variance(code: int) -> float:
    """What a byte stands for."""
    return float(2 ** ((code - _ZERO) / _EIGHTHS))


def variance_code(value: float) -> int:
    """The byte next to a variance."""
    return min(max(round(_EIGHTHS * math.log2(max(value, 1e-30))) + _ZERO, 0), 255)


def write_base(b: BaseRecord) -> bytes:
    """What is in the blob."""
    use = (0 if b.sets is None else KNOWN | b.sets) | RESTORED * b.restored
    over = b""
    if b.over is not None:
        use |= TRAJECTORY | DIFFERENCE * b.over.difference
        over = b.over.start.to_bytes(2, "little") + bytes([len(b.over.errors), *b.over.errors])
    head = bytes([CODECS.index(b.codec), SIZES.index(b.size), b.quantiser, use])
    texture = blob(b.texture) if b.restored else b""
    return head + over + texture + b.stream


def read_base(data: bytes) -> BaseRecord:
    """The inverse; Corrupt or Unsupported for what is none."""
    c = Cursor(data, Corrupt)
    codec = c.name(CODECS, "base codec")
    size, quantiser, use = (c.byte("the base") for _ in range(3))
    if size >= len(SIZES):
        raise Corrupt(f"a base of size number {size}")
    own, number, over = not use & KNOWN, use & _NUMBER, None
    known = use & ~(_NUMBER | KNOWN | TRAJECTORY | DIFFERENCE | RESTORED) == 0
    if not known or (number if own else number >= KNOWN_SETS[codec]):
        raise Unsupported(f"a base's use {use:#x} is not known to this version")
    if use & TRAJECTORY:
        start = int.from_bytes(c.take(2, "the base"), "little")
        errors = tuple(c.take(c.byte("the base"), "the base"))
        if not start:
            raise Corrupt("a trajectory over a base that starts at its end")
        over = Over(start, errors, bool(use & DIFFERENCE))
    elif use & DIFFERENCE:
        raise Corrupt("a base and what a trajectory changes, without one")
    restored = bool(use & RESTORED)
    if restored and over:
        raise Corrupt("a base is restored, and a trajectory goes on from it")
    texture = c.blob("the base") if restored else b""
    if len(texture) % 4:
        raise Corrupt("symbols are not whole 32-bit words")
    stream = c.rest()
    if not stream:
        raise Corrupt("an empty base")
    sets = None if own else number
    return BaseRecord(codec, SIZES[size], quantiser, sets, stream, over, restored, texture)
