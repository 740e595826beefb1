"""The base of a GOP in mode v2v: what its record says of it. docs/format.md section 16."""

from __future__ import annotations

from dataclasses import dataclass

from gvcc.errors import Corrupt, Unsupported
from gvcc.format.cursor import Cursor

CODECS = ("av1", "vvc")  # positions are the numbers in the file; only ever append
SIZES = (1, 2, 4)
HEAD = 4  # bytes of a base that are not its stream


@dataclass(frozen=True)
class BaseRecord:
    """A coarse version of a GOP's pictures by a classical codec.

    `size`: it is coded at 1/size of each side. `quantiser`, 0 to 255, is how coarse it is, for a
    restorer.
    """

    codec: str
    size: int
    quantiser: int
    stream: bytes


def write_base(b: BaseRecord) -> bytes:
    """What is in the blob."""
    return bytes([CODECS.index(b.codec), SIZES.index(b.size), b.quantiser, 0]) + b.stream


def read_base(data: bytes) -> BaseRecord:
    """The inverse; Corrupt or Unsupported for what is none."""
    c = Cursor(data, Corrupt)
    codec = c.name(CODECS, "base codec")
    size, quantiser, use = (c.byte("the base") for _ in range(3))
    if size >= len(SIZES):
        raise Corrupt(f"a base of size number {size}")
    if use:
        raise Unsupported(f"a base's use {use:#x} is not known to this version")
    stream = c.rest()
    if not stream:
        raise Corrupt("an empty base")
    return BaseRecord(codec, SIZES[size], quantiser, stream)
