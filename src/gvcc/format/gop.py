"""How a clip is cut into groups of pictures: every mode is one list of GOPs. Integers only.

Legend of `Gop.first`, where the picture comes from that conditions a GOP's first frame:

    none      no condition
    still     a picture coded in this GOP
    previous  the last decoded picture of the GOP before (or the last few, `Gop.context`); both
              GOPs have those frames
    shared    the last still of the GOP before; both GOPs have that frame
"""

from __future__ import annotations

import bisect
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, field, replace

import numpy as np
from numpy.typing import NDArray

from gvcc.errors import ConfigError, Corrupt, unknown

MODES = ("t2v", "i2v", "flf2v", "auto", "overlap")
FIRSTS = ("none", "still", "previous", "shared")
ALIGNMENTS = ("fade", "blend", "pin")
"""What is done with the frames that overlapping GOPs share: both GOPs code them and their pictures
are cross-faded; their latents are blended too, before the autoencoder decodes; or the second GOP
does not code them, but starts from the latents of the decoded pictures."""


@dataclass(frozen=True)
class Gop:
    """Frames start .. end - 1 of the clip, coded together.

    `last`: the last frame is coded as a still too, which conditions this GOP and may condition the
    next. `fade`: so many frames at the start are in the GOP before as well, and are cross-faded.
    `context`: how many pictures `first` = previous stands for.
    `tail`: the next GOP may start from the last decoded picture, so its quality counts more (the
    encoder's business; not in the file).
    """

    start: int
    frames: int
    first: str = "none"
    last: bool = False
    fade: int = 0
    context: int = 1
    tail: bool = field(default=False, compare=False)

    @property
    def end(self) -> int:
        return self.start + self.frames

    @property
    def skip(self) -> int:
        """Frames at the start that are not shown: the GOP before has shown them."""
        return {"previous": self.context, "shared": 1}.get(self.first, 0)

    @property
    def stills(self) -> int:
        """Pictures coded in this GOP's record."""
        return (self.first == "still") + self.last

    @property
    def mode(self) -> str:
        """The published mode it belongs to."""
        if self.fade or self.skip > 1:
            return "overlap"
        return "flf2v" if self.last else "t2v" if self.first == "none" else "i2v"

    def length(self, stride: int, alone: bool = True) -> int:
        """Frames it is coded as, 1 modulo `stride`; those past its own repeat the last one.

        `alone`: a last still gets a latent frame of its own, made of nothing but that picture, for
        the frames before it in its group of `stride` are not known from it. Without (a prior that
        was trained on the last picture of a group, see priors.Spec) it is in the last group.
        """
        if self.last and alone:
            return legal_length(self.frames - 1, stride) + stride
        return legal_length(self.frames, stride)

    def latent_frames(self, stride: int, alone: bool = True) -> int:
        """Latent frames it is coded as."""
        return (self.length(stride, alone) - 1) // stride + 1

    def known_frames(self, stride: int, alone: bool = True) -> int:
        """Latent frames that its pictures fix, if all of them are given."""
        start = 0 if self.first == "none" else (max(1, self.skip) - 1) // stride + 1
        return start + (self.last and alone)

    def check(self, before: Gop | None, frames: int, gop: int, overlap: int) -> None:
        """Corrupt unless this GOP may follow `before` in a clip of so many frames.

        `gop` is the most frames of a GOP, `overlap` the clip's number of cross-faded frames.
        """
        low = self.skip + self.fade + 1
        if not low <= self.frames <= gop or self.end > frames:
            raise Corrupt(f"a GOP of {self.frames} frames from {self.start} of {frames}")
        if self.skip and before is None:
            raise Corrupt("the first GOP refers to one before it")
        if self.start != (0 if before is None else before.end - self.skip - self.fade):
            raise Corrupt(f"a GOP starts at frame {self.start}, not where the last one ended")
        if self.first == "shared" and not (before is not None and before.last):
            raise Corrupt("a GOP shares a still that the GOP before does not have")
        if self.first == "previous" and before is not None and before.frames < self.context:
            raise Corrupt(f"a GOP starts from {self.context} frames of one of {before.frames}")
        if self.last and (self.first == "none" or self.frames < 2):
            raise Corrupt("a last still without a first picture")
        if self.fade:
            fits = before is not None and before.frames >= overlap
            if self.fade != overlap or self.first != "none" or not fits:
                raise Corrupt(f"a cross-fade of {self.fade} frames does not fit")


def legal_length(frames: int, stride: int) -> int:
    """The smallest L >= frames with L = 1 mod stride."""
    return -(-(frames - 1) // stride) * stride + 1


def plan(
    frames: int, gop: int, stride: int, mode: str = "t2v", *,
    overlap: int = 0, refresh: int = 0, cuts: Iterable[int] = (), alignment: str = "fade",
) -> Iterator[Gop]:  # fmt: skip
    """GOPs of a clip of `frames` >= 1 frames, in decode order.

    `gop` is the GOP length in frames, 1 modulo `stride`; the last GOP is as short as what is left.
    t2v: end to end, or with `overlap` frames cross-faded. i2v: each starts from the last decoded
    picture before it, a still every `refresh` GOPs (0: only the first). flf2v: a still at each
    boundary, shared by both sides. auto: as i2v; `variants` has the choice. overlap: no stills;
    `overlap` frames are shared as `alignment` says, but every `refresh`-th GOP with "pin" starts
    from nothing. No GOP crosses a cut; `cuts` are numbers of frames that start a new scene. Raises
    ConfigError for illegal arguments, at once.

    A chained GOP repeats one frame of the GOP before it (GVCC's I2V does not: there the condition
    is a picture one frame too early), so N GOPs of 33 have 32 N + 1 frames in i2v and flf2v.
    """
    if mode not in MODES:
        raise unknown("mode", mode, MODES)
    if frames < 1:
        raise ConfigError(f"a clip needs at least one frame, got {frames}")
    if gop < 1 or gop != legal_length(gop, stride):
        raise ConfigError(f"GOP length {gop} is not 1 modulo {stride}")
    if gop == 1 and mode != "t2v":
        raise ConfigError(f"mode {mode} needs GOPs of more than one frame")
    if not 0 <= overlap <= gop // 2:
        low = 1 if mode == "overlap" else 0
        raise ConfigError(f"overlap is {overlap}, expected {low} to {gop // 2}, half a GOP")
    if overlap and mode not in ("t2v", "overlap"):
        raise ConfigError(f"overlap is for modes t2v and overlap, not {mode}")
    if alignment not in ALIGNMENTS:
        raise unknown("alignment", alignment, ALIGNMENTS)
    if mode != "overlap" and alignment != "fade":
        raise ConfigError(f"alignment {alignment} is for mode overlap, not {mode}")
    if mode == "overlap" and (overlap < 1 or overlap != legal_length(overlap, stride)):
        raise ConfigError(f"overlap is {overlap}, expected 1 modulo {stride} in mode overlap")
    chained = mode in ("i2v", "auto") or alignment == "pin"
    if refresh < 0:
        raise ConfigError(f"refresh is {refresh}, expected a number of GOPs")
    if refresh and not chained:
        raise ConfigError("refresh is for modes i2v and auto and alignment pin")
    edges = [0, *sorted({c for c in cuts if 0 < c < frames}), frames]
    if mode == "overlap":
        return _overlapped(edges, gop, overlap, refresh, alignment)
    return _plan(edges, gop, mode, overlap, refresh)


def _overlapped(
    edges: list[int], gop: int, overlap: int, refresh: int, alignment: str
) -> Iterator[Gop]:
    for begin, end in zip(edges, edges[1:], strict=False):
        at, number = begin, 0
        while at < end:
            fresh = number % refresh == 0 if refresh else number == 0
            start = at if fresh else at - overlap
            pinned, size = alignment == "pin" and not fresh, min(gop, end - start)
            yield Gop(
                start, size, "previous" if pinned else "none", context=overlap if pinned else 1,
                fade=0 if fresh or pinned else overlap,
            )  # fmt: skip
            at, number = start + size, number + 1


def _plan(edges: list[int], gop: int, mode: str, overlap: int, refresh: int) -> Iterator[Gop]:
    for begin, end in zip(edges, edges[1:], strict=False):
        at, number = begin, 0
        while at < end:
            if mode == "t2v":
                fade = overlap if number else 0
                g = Gop(at - fade, min(gop, end - at + fade), fade=fade)
            else:
                fresh = number % refresh == 0 if refresh else number == 0
                start = at if fresh else at - 1
                size = min(gop, end - start)
                last = mode == "flf2v" and size > 1
                first = "still" if fresh else "shared" if mode == "flf2v" else "previous"
                renewed = refresh and (number + 1) % refresh == 0
                tail = mode != "flf2v" and start + size < end and not renewed
                g = Gop(start, size, first, last, tail=tail)
            yield g
            at, number = g.end, number + 1


def variants(planned: Gop, before: Gop | None) -> tuple[Gop, ...]:
    """The modes among which `auto` chooses for the frames of a planned i2v GOP: t2v, i2v, flf2v,
    given the GOP that was chosen before it."""
    if planned.skip and before is not None and before.last:
        planned = replace(planned, first="shared")
    alone = replace(planned, start=planned.start + planned.skip,
                    frames=planned.frames - planned.skip, first="none")  # fmt: skip
    if planned.frames < 2:
        return alone, planned
    return alone, planned, replace(planned, last=True, tail=False)


def needed(
    gops: Sequence[Gop], start: int, end: int, blended: bool = False, causal: bool = True
) -> tuple[set[int], set[int]]:
    """Numbers of the GOPs to decode for frames start .. end - 1, and of those of which only the
    last still is wanted. `blended`: latents are, so that pictures depend on the GOPs before, and
    those of an autoencoder that is not `causal` on the GOP after. (With a causal one that changes
    none but the shared frames.)"""
    first = bisect.bisect_right([g.end for g in gops], start)
    if first == len(gops):  # of a stream that breaks off
        return set(), set()
    # Not the first that starts later: one that repeats much may be followed by one that fades more.
    last = max(i for i in range(first, len(gops)) if gops[i].start + gops[i].skip < end)
    while gops[first].first == "previous":
        first -= 1
    decode = set(range(first, last + 1))
    if blended:
        if not causal and last + 1 < len(gops) and gops[last + 1].fade:
            decode |= {last + 1}
        while gops[first].fade:
            first -= 1
            decode.add(first)
            if gops[first].frames >= gops[first].fade + gops[first + 1].fade:
                break  # else what it was blended with goes on into the next blend
    stills = {i - 1 for i in decode if gops[i].first == "shared"}
    return decode, stills - decode


def dependents(gops: Sequence[Gop], lost: int) -> list[int]:
    """Numbers of the later GOPs that cannot be decoded without GOP number `lost`."""
    out: list[int] = []
    for i in range(lost + 1, len(gops)):
        # A still stays readable where only the GOP around it cannot be decoded.
        if gops[i].first != "previous" and not (gops[i].first == "shared" and i == lost + 1):
            break
        out.append(i)
    return out


Pictures = NDArray[np.uint8]


class Assembler:
    """Decoded GOPs in, the clip's pictures out, each frame once."""

    def __init__(self, overlap: int) -> None:
        self.overlap = overlap
        self._held: Pictures | None = None  # frames that the next GOP may fade into

    def add(self, gop: Gop, pictures: Pictures) -> Pictures:
        """The pictures [n,H,W,3] that are final once GOP `gop` is decoded to [frames,H,W,3]."""
        held, new = self._held, pictures[gop.skip :]
        if gop.fade and held is not None:
            # Fewer than are faded only where the first GOP that is decoded repeats some of them.
            there = min(gop.fade, len(held))
            old = new[: gop.fade].copy()
            old[gop.fade - there :] = held[len(held) - there :]
            faded = cross_fade(old, new[: gop.fade])[gop.fade - there :]
            new, held = np.concatenate([faded, new[gop.fade :]]), held[: len(held) - there]
        if held is not None and len(held):
            new = np.concatenate([held, new])
        keep = min(self.overlap, len(new))
        self._held = new[len(new) - keep :].copy() if keep else None
        return new[: len(new) - keep]

    def flush(self) -> Pictures | None:
        """What was held back, at the end of the clip."""
        held, self._held = self._held, None
        return held


def cross_fade(old: Pictures, new: Pictures) -> Pictures:
    """Linear cross-fade of o frames, weight (j+1)/(o+1) for new frame j, rounded: integers only."""
    o = len(old)
    w = np.arange(1, o + 1, dtype=np.int32)[:, None, None, None]
    mixed = old * (o + 1 - w) + new * w + (o + 1) // 2
    return (mixed // (o + 1)).astype(np.uint8)
