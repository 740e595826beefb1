"""Codes a GOP as a base: its size and quantiser for the bytes it may have, or for a quality."""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Iterable, Iterator
from dataclasses import replace
from itertools import islice
from typing import NamedTuple

import numpy as np

from gvcc.decode.session import Session
from gvcc.format import bitstream
from gvcc.format.base import HEAD, SIZES, BaseRecord
from gvcc.format.bitstream import GopRecord
from gvcc.format.gop import Gop
from gvcc.pictures import base
from gvcc.pictures.basecodecs import Spool
from gvcc.records import Pictures
from gvcc.search import bases
from gvcc.search.config import Parameters
from gvcc.search.pacer import Look
from gvcc.search.quality import Goal
from gvcc.search.textures import TextureMeter

_SMALLEST = 16  # pixels a side of a coded picture, where there is a choice
_PROBES = 8  # of a GOP's quality
_TOGETHER = 32  # pictures that are measured together
_MORE = 4  # bytes that a base's texture may have more than that of one of about its size


def _around(gop: Gop) -> int:
    """Bytes of a record besides its base; lengths grow, that of its texture among them."""
    return bitstream.gop_size(bitstream.empty_gop(gop)) + 10


class CodedBase(NamedTuple):
    """A GOP's record, the quality that was asked for, and the digest of the clip's own pictures."""

    record: GopRecord
    quality: float | None
    digest: str


class BaseCoder:
    """Codes one GOP after another; `recall` says which base is in the file, so that the next search
    begins where that one's ended."""

    def __init__(self, session: Session, parameters: Parameters) -> None:
        self.session, self.header, self.parameters = session, session.header, parameters
        header = session.header
        asked = parameters.asked
        size, least = asked.base_size or "auto", min(header.height, header.width)
        possible = [s for s in SIZES if s == 1 or least >= s * _SMALLEST]
        self.sizes = possible if size == "auto" else [int(size)]
        if size == "auto" and session.restorer is not None:  # it needs a size that it takes
            self.sizes = [s for s in possible if s in session.restorer.sizes] or possible
        self.codecs = bases.chosen(asked.base or "auto")
        self.reached: dict[tuple[str, int], int] = {}  # index of the GOP before, about
        self.meter: TextureMeter | None = None  # of the GOP that is coded

    def look(self, gop: Gop, pictures: Iterable[Pictures]) -> Look:
        """What a GOP asks for, by its bytes at a fixed quality and a fast preset, and the smallest
        record that it may have. Raises Refused where no encoder takes its pictures."""
        spools = base.spooled(pictures, self.header.height, self.header.width, self.sizes)
        try:
            size = self.sizes[-1]
            weight = float(len(bases.weighed(spools[size], size, self.header.fps).stream))
            least = self._smallest(spools)
        finally:
            for spool in spools.values():
                spool.close()
        return Look(weight, _around(gop) + HEAD + len(least.stream))

    def code(
        self, gop: Gop, pictures: Iterable[Pictures], room: int | None, most: int | None,
        tell: Callable[[int], None], share: float = 1.0,
    ) -> CodedBase | None:  # fmt: skip
        """A GOP whose record has at most `room` bytes (None: a goal of quality says). Where no base
        is so small it is the smallest one, if it has at most `most` (None: any), else None.
        `tell(n)` after the n-th encode. With a goal the base has a `share` of the bytes by which it
        would reach it alone."""
        header, seen = self.header, hashlib.sha256()

        def noted() -> Iterator[Pictures]:
            for picture in pictures:
                seen.update(np.ascontiguousarray(picture).data)
                yield picture

        goal, quality = self.parameters.goal, None
        restorer = self.session.restorer if share == 1 else None
        textured = restorer is not None and restorer.textured
        kept = Spool(header.height, header.width, rgb=True) if goal or textured else None
        self.meter = TextureMeter(kept) if kept and textured else None
        spools = base.spooled(noted(), header.height, header.width, self.sizes, kept)
        try:
            empty = bitstream.empty_gop(gop)
            if goal is None:
                assert room is not None
                room -= _around(gop)
                found = self._within(spools, room, tell)
                if found is None:
                    least = self._smallest(spools)
                    room = None if most is None else most - _around(gop)
                    fits = room is None or HEAD + len(least.stream) <= room
                    found = least if fits else None
                if found is not None and share == 1:
                    found = self._restored(found, room)
            else:
                assert kept is not None
                found, quality = self._good(gop, spools, kept, goal, tell)
                if share < 1:
                    part, quality = int(share * (HEAD + len(found.stream))), None
                    found = self._within(spools, part, tell) or self._smallest(spools)
            if found is None:
                return None
            return CodedBase(replace(empty, base=found), quality, seen.hexdigest())
        finally:
            for spool in (*spools.values(), *([kept] if kept else [])):
                spool.close()

    def _restored(self, found: BaseRecord, room: int | None) -> BaseRecord:
        """The base with the mark that it is to be restored, if the restorer takes its size, and the
        texture that it lacks; `room` as for a base, None if it may have any."""
        restorer = self.session.restorer
        if restorer is None or found.size not in restorer.sizes:
            return found
        left = None if room is None else room - HEAD - len(found.stream)
        lost = self.meter.lost(found, left) if self.meter else b""
        return replace(found, restored=True, texture=lost)

    def recall(self, record: GopRecord) -> None:
        """Begin the next search where this GOP's ended, by what is in the file alone: an encoding
        that goes on after a break makes the same file."""
        made = record.base
        assert made is not None
        index = base.codec(made.codec).asked(made.quantiser)
        self.reached = {(made.codec, made.size): index}

    def _within(
        self, spools: dict[int, Spool], room: int, tell: Callable[[int], None]
    ) -> BaseRecord | None:
        """The first codec by which a base fits, at the largest size at which it is not very rough;
        None if none is so small. Raises Refused where the encoders take no such pictures."""
        refused: base.Refused | None = None
        asked, fps = False, self.header.fps
        for name in self.codecs:
            best = None
            for size, spool in spools.items():
                start = self.reached.get((name, size))
                try:
                    found = bases.fit(spool, name, size, fps, room, start, tell, self._beside)
                except base.Refused as e:
                    refused = e
                    continue
                asked, best = True, found.record or best
                if found.record is not None and found.quality <= base.codec(name).rough:
                    break
            if best is not None:
                return best
        if refused is not None and not asked:
            raise refused
        return None

    def _beside(self, made: BaseRecord) -> int:
        """Bytes of the texture that goes with a base of about this one's size."""
        return 0 if self.meter is None else len(self.meter.lost(made)) + _MORE

    def _smallest(self, spools: dict[int, Spool]) -> BaseRecord:
        """The smallest base that there is. Raises Refused where the encoders take no such
        pictures."""
        refused: base.Refused | None = None
        found = list[BaseRecord]()
        for name in self.codecs:
            for size in reversed(self.sizes):
                try:
                    found.append(base.coded(
                        spools[size], name, size, self.header.fps, base.codec(name).coarsest
                    ))  # fmt: skip
                    break
                except base.Refused as e:
                    refused = e
        if refused is not None and not found:
            raise refused
        return min(found, key=lambda b: len(b.stream))

    def _good(
        self, gop: Gop, spools: dict[int, Spool], wanted: Spool, goal: Goal,
        tell: Callable[[int], None],
    ) -> tuple[BaseRecord, float]:  # fmt: skip
        """A base, with the mark that it is restored, whose quality is as near to the goal's as half
        its tolerance; else the nearest one found within its tolerance, above it, or at all. At full
        size unless another is asked for."""
        refused: base.Refused | None = None
        for name in self.codecs:
            try:
                return self._near(name, gop, spools, wanted, goal, tell)
            except base.Refused as e:
                refused = e
        assert refused is not None
        raise refused

    def _near(
        self, name: str, gop: Gop, spools: dict[int, Spool], wanted: Spool, goal: Goal,
        tell: Callable[[int], None],
    ) -> tuple[BaseRecord, float]:  # fmt: skip
        """The same by one codec."""
        size, spool = next(iter(spools.items()))
        codec, header = base.codec(name), self.header
        low, high = codec.finest, codec.coarsest
        best: tuple[BaseRecord, float] | None = None
        asked = self.reached.get((name, size), codec.start)
        for n in range(_PROBES):
            made = base.coded(spool, name, size, header.fps, asked)
            tell(n + 1)
            made = self._restored(made, None)
            value = self._measured(gop, made, wanted, goal)
            if best is None or _miss(value, goal) < _miss(best[1], goal):
                best = made, value
            if abs(value - goal.value) <= goal.tolerance / 2:
                break
            low, high = (asked + 1, high) if value > goal.value else (low, asked - 1)
            if low > high:
                break
            asked = (low + high) // 2
        assert best is not None
        return best

    def _measured(self, gop: Gop, made: BaseRecord, wanted: Spool, goal: Goal) -> float:
        """The quality of a base, in the mean over parts of the GOP."""
        own, total = iter(wanted), 0.0
        shown = self.session.base_pictures(gop, made)
        for at in range(0, wanted.count, _TOGETHER):
            n = min(_TOGETHER, wanted.count - at)
            ref, out = (np.stack([*islice(pictures, n)]) for pictures in (own, shown))
            total += n * goal.measure(ref, out, self.header.fps)
        return total / wanted.count


def _miss(value: float, goal: Goal) -> tuple[bool, bool, float]:
    """How bad it is to end at a quality: outside the tolerance worse than inside, and there below
    the goal worse than above."""
    off = value - goal.value
    outside = abs(off) > goal.tolerance
    return outside, outside and off < 0, abs(off)
