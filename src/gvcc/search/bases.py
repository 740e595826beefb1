"""The base of a GOP that has a given size in bytes: codec, size of the pictures, and quantiser."""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass
from fractions import Fraction
from itertools import pairwise
from typing import NamedTuple

from gvcc.errors import ConfigError
from gvcc.format.base import HEAD, BaseRecord
from gvcc.pictures import base
from gvcc.pictures.basecodecs import BaseCodec, Spool

UNDER, FEW = 0.99, 64  # a base may be this part of its room, or this many bytes less
MOST = 7  # encodes of one GOP by the codec's own preset
AIM = 0.996  # of the room; and what is sure to be within, if what fits is less than POOR of it
SAFE, POOR = 0.97, 0.9
GOOD = 0.98  # of the room: enough where only a jump between neighbours would come nearer
_FAST = "9"  # preset of AV1 for a first look
_SCOUTED = 0.1  # of a scout's size, in ratio
_SAME = 0.15  # a base nearer by less, in ratio, has about the same beside it


@dataclass
class Found:
    """What is known of the sizes of one GOP's bases by one preset: index of quality -> bytes."""

    codec: BaseCodec
    sizes: dict[int, int]

    def around(self, target: float) -> list[tuple[int, int]]:
        """Indices that are neighbours among those tried, with `target` bytes between their sizes,
        whichever is the larger."""
        sizes = self.sizes
        return [p for p in pairwise(sorted(sizes)) if len({sizes[q] > target for q in p}) == 2]

    def exhausted(self, target: float) -> bool:
        """Whether `target` bytes lie between those of two indices with none between them."""
        return any(b == a + 1 and self.sizes[a] > target for a, b in self.around(target))

    def next(self, target: float) -> int | None:
        """The next index to try for `target` bytes: on a line through the logarithms of two sizes
        on either side of it whose indices are neighbours among those tried or, where all are on one
        side, of the two nearest ones; None where nothing is left to try.

        Sizes jump by some percent either way from an index to the next: where one is between
        neighbours that it should not be between, the others around the nearest one are tried.
        """
        codec, sizes = self.codec, self.sizes
        off = {q: math.log2(size / target) for q, size in sizes.items()}
        nearest = sorted(off, key=lambda q: abs(off[q]))
        at = nearest[0]
        if sizes.get(codec.coarsest, 0) > target or sizes.get(codec.finest, target) < target:
            return None
        pairs = self.around(target)
        if inside := [p for p in pairs if p[1] - p[0] > 1]:
            low, high = min(inside, key=lambda p: min(abs(off[q]) for q in p))
            asked = round(low + (high - low) * off[low] / (off[low] - off[high]))
            return min(max(asked, low + 1), high - 1)
        if not pairs:
            slope = codec.slope
            if len(nearest) > 1:  # not believed far beyond what was seen
                own = (off[at] - off[nearest[1]]) / (nearest[1] - at)
                slope = min(max(own, slope / 3), 3 * slope)
            at += round(off[at] / slope)
        at = min(max(at, codec.finest), codec.coarsest)
        left = (q for step in range(MOST + 1) for q in (at - step, at + step) if q not in sizes)
        return next((q for q in left if codec.finest <= q <= codec.coarsest), None)


def first_guess(codec: BaseCodec, spool: Spool, room: int) -> int:
    """An index to begin with, from bits per coded pixel alone."""
    rate = 8 * room / (spool.count * spool.height * spool.width)
    asked = codec.start - round(math.log2(rate / 0.01) / codec.slope)
    return min(max(asked, codec.finest), codec.coarsest)


class Fit(NamedTuple):
    """A base, None if there is none so small, and the index of quality it has."""

    record: BaseRecord | None
    quality: int


def fit(
    spool: Spool, name: str, size: int, fps: Fraction, room: int, start: int | None = None,
    tell: Callable[[int], None] = lambda _: None,
    beside: Callable[[BaseRecord], int] = lambda _: 0,
) -> Fit:  # fmt: skip
    """The largest base of at most `room` bytes that MOST encodes come by, with its head and with
    what a record holds `beside` a base: so many bytes for one that is about as large. `start` is an
    index to begin with; `tell(n)` is called after encode n."""
    codec = base.codec(name)
    whole = max(1, room - HEAD)
    aside = _Beside(beside, whole)
    if start is None:
        start = first_guess(codec, spool, whole)
        if codec.scout is not None:
            start, scout = _scouted(spool, codec, name, size, fps, whole, start)
            aside.see(scout, len(scout.stream) / codec.scout_ratio)
    found = Found(codec, {})
    best: BaseRecord | None = None
    index = start
    asked: int | None = start
    for n in range(MOST):
        if asked is None:
            break
        made = base.coded(spool, name, size, fps, asked)
        found.sizes[asked] = length = len(made.stream)
        tell(n + 1)
        aside.see(made, length)
        room = max(1, whole - aside.bytes)
        aim = AIM * room
        if length <= room and (best is None or length > len(best.stream)):
            best, index = made, asked
        if best is not None and len(best.stream) >= min(UNDER * room, room - FEW):
            break
        if best is not None and len(best.stream) >= GOOD * room and found.exhausted(aim):
            break
        # What lands must not be missed by a byte again and again.
        poor = best is None or len(best.stream) < POOR * room
        asked = found.next(SAFE * room if poor and n >= MOST - 3 else aim)
        if n >= MOST - 3 and best is None and asked is not None:
            asked = min(codec.coarsest, asked + round(0.2 / codec.slope))  # something must fit
    if best is None and codec.coarsest not in found.sizes:
        made, index = base.coded(spool, name, size, fps, codec.coarsest), codec.coarsest
        best = made if len(made.stream) <= whole else None
    return Fit(best, index)


class _Beside:
    """What a record holds beside a base of a wanted size, in bytes, by what it is for the base
    nearest to it so far."""

    def __init__(self, measure: Callable[[BaseRecord], int], wanted: int) -> None:
        self.measure, self.wanted = measure, wanted
        self.off, self.bytes = math.inf, 0

    def see(self, made: BaseRecord, size: float) -> None:
        """Measure a base of about `size` bytes, if it says more than the one before."""
        off = abs(math.log(size / self.wanted))
        if off < self.off - _SAME:
            self.off, self.bytes = off, self.measure(made)


def weighed(spool: Spool, size: int, fps: Fraction) -> BaseRecord:
    """A base at a middling quality by a fast preset."""
    codec = base.codec("av1")
    return base.coded(spool, "av1", size, fps, codec.start - round(1 / codec.slope), _FAST)


def _scouted(
    spool: Spool, codec: BaseCodec, name: str, size: int, fps: Fraction, room: int, start: int
) -> tuple[int, BaseRecord]:
    """About the index at which the codec's own preset makes a base of `room` bytes, and a base near
    it by a faster one."""
    target = room * codec.scout_ratio
    found, asked, made = Found(codec, {}), start, dict[int, BaseRecord]()
    while len(made) < 5:
        made[asked] = scout = base.coded(spool, name, size, fps, asked, codec.scout)
        found.sizes[asked] = length = len(scout.stream)
        further = found.next(target)
        if abs(math.log(length / target)) < _SCOUTED or further is None:
            break
        asked = further
    near = min(found.sizes, key=lambda q: abs(math.log(found.sizes[q] / target)))
    index = near + round(math.log2(found.sizes[near] / target) / codec.slope)
    return min(max(index, codec.finest), codec.coarsest), made[near]


def chosen(asked: str) -> list[str]:
    """The codecs that `auto` or a name stands for on this machine, the best first; ConfigError for
    one that cannot be had."""
    if asked == "auto":
        return ["vvc", "av1"] if base.available("vvc") else ["av1"]
    if not base.available(asked):
        raise ConfigError(f"base {asked} needs an encoder: pip install 'gvcc[eval]'")
    return [asked]
