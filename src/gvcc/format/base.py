"""The base of a GOP in mode v2v: what its record says of it. docs/format.md section 16."""

from __future__ import annotations

import math
from dataclasses import dataclass

from gvcc.errors import Corrupt
from gvcc.format.cursor import Cursor

CODECS = ("av1", "vvc")  # positions are the numbers in the file; only ever append
SIZES = (1, 2, 4)
RESTORED, SAMPLED, DIFFERENCE = 1, 2, 4
SPREAD_UNIT, SPREAD_LOWEST = 8, -24  # S = 2^(b / 8 - 24)


@dataclass(frozen=True)
class BaseRecord:
    """A coarse version of a GOP's pictures, and what is done with it.

    `size`: it is coded at 1/size of each side. `quantiser`, 0 to 255, is what the restorer is told;
    `restored`: it is used. `start` and `spread` are there if a trajectory follows: the coded step
    with which it begins, and the variance of the base's error in each latent channel, in units of
    SPREAD_UNIT to an octave; `difference`: the pictures are base + D(z) - D(y), else D(z).
    """

    codec: str
    size: int
    quantiser: int
    stream: bytes
    restored: bool = False
    start: int | None = None
    spread: bytes = b""
    difference: bool = False

    @property
    def sampled(self) -> bool:
        """Whether a trajectory follows."""
        return self.start is not None

    @property
    def variances(self) -> list[float]:
        """Of the base's error, by channel."""
        return [2.0 ** (b / SPREAD_UNIT + SPREAD_LOWEST) for b in self.spread]


def spread_of(variance: float) -> int:
    """The byte that stands for a variance."""
    exponent = math.log2(max(variance, 1e-30)) - SPREAD_LOWEST
    return min(255, max(0, round(exponent * SPREAD_UNIT)))


def write_base(b: BaseRecord) -> bytes:
    """What is in the blob."""
    use = RESTORED * b.restored | SAMPLED * b.sampled | DIFFERENCE * b.difference
    head = bytes([CODECS.index(b.codec), SIZES.index(b.size), b.quantiser, use])
    if b.start is not None:
        head += bytes([b.start, len(b.spread)]) + b.spread
    return head + b.stream


def read_base(data: bytes) -> BaseRecord:
    """The inverse; Corrupt or Unsupported for what is none."""
    c = Cursor(data, Corrupt)
    codec = c.name(CODECS, "base codec")
    size, quantiser, use = (c.byte("the base") for _ in range(3))
    if size >= len(SIZES) or use >= 2 * DIFFERENCE:
        raise Corrupt(f"a base of size number {size}, use {use:#x}")
    if use & DIFFERENCE and not use & SAMPLED or use & RESTORED and use & SAMPLED:
        raise Corrupt(f"a base that is used in ways that exclude each other: {use:#x}")
    start, spread = None, b""
    if use & SAMPLED:
        start = c.byte("the first step")
        spread = c.take(c.byte("the base's error"), "the base's error")
    stream = c.rest()
    if not stream:
        raise Corrupt("an empty base")
    return BaseRecord(codec, SIZES[size], quantiser, stream, bool(use & RESTORED), start, spread,
                      bool(use & DIFFERENCE))  # fmt: skip
