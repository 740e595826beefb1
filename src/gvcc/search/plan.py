"""How a clip is cut into groups of pictures: every mode is one list of GOPs. Integers only."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from dataclasses import replace

from gvcc.errors import ConfigError, unknown
from gvcc.format.gop import Gop, legal_length

MODES = ("t2v", "i2v", "flf2v", "auto", "overlap", "v2v")
SHARING = ("blend", "pin")
"""Alignments (gop.ALIGNMENTS) of mode overlap; cross-fades alone are t2v with an overlap."""


def plan(
    frames: int, gop: int, stride: int, mode: str = "t2v", *,
    overlap: int = 0, refresh: int = 0, cuts: Iterable[int] = (), alignment: str = "fade",
    outside: bool = False,
) -> Iterator[Gop]:  # fmt: skip
    """GOPs of a clip of `frames` >= 1 frames, in decode order.

    `gop` is the GOP length in frames, 1 modulo `stride`; the last GOP is as short as what is left.
    t2v: end to end, or with `overlap` frames cross-faded. i2v: each starts from the last decoded
    picture before it, a still every `refresh` GOPs (0: only the first). flf2v: a still at each
    boundary, shared by both sides. auto: as i2v; `variants` has the choice. overlap: no stills;
    `overlap` frames are shared as `alignment` says, but every `refresh`-th GOP with "pin" starts
    from nothing. v2v: GOPs with a base, end to end. No GOP crosses a cut; `cuts` are numbers of
    frames that start a new scene. Raises ConfigError for illegal arguments, at once.

    A chained GOP repeats one frame of the GOP before it, so N GOPs of 33 have 32 N + 1 frames in
    i2v and flf2v. In i2v with `outside` it does not, as in GVCC: there the condition is a picture
    one frame too early, and N GOPs have 33 N frames.
    """
    if mode not in MODES:
        raise unknown("mode", mode, MODES)
    if frames < 1:
        raise ConfigError(f"a clip needs at least one frame, got {frames}")
    if gop < 1 or gop != legal_length(gop, stride):
        raise ConfigError(f"GOP length {gop} is not 1 modulo {stride}")
    if gop == 1 and mode not in ("t2v", "v2v"):
        raise ConfigError(f"mode {mode} needs GOPs of more than one frame")
    if not 0 <= overlap <= gop // 2:
        low = 1 if mode == "overlap" else 0
        raise ConfigError(f"overlap is {overlap}, expected {low} to {gop // 2}, half a GOP")
    if overlap and mode not in ("t2v", "overlap"):
        raise ConfigError(f"overlap is for modes t2v and overlap, not {mode}")
    if mode == "overlap" and alignment not in SHARING:
        raise unknown("alignment", alignment, SHARING)
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
    if mode == "v2v":
        return (
            Gop(at, min(gop, end - at), base=True)
            for begin, end in zip(edges, edges[1:], strict=False) for at in range(begin, end, gop)
        )  # fmt: skip
    if mode == "overlap":
        return _overlapped(edges, gop, overlap, refresh, alignment)
    if outside and mode != "i2v":
        raise ConfigError(f"a reference before the GOP is for mode i2v, not {mode}")
    return _plan(edges, gop, mode, overlap, refresh, outside)


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


def _plan(
    edges: list[int], gop: int, mode: str, overlap: int, refresh: int, outside: bool
) -> Iterator[Gop]:
    for begin, end in zip(edges, edges[1:], strict=False):
        at, number = begin, 0
        while at < end:
            if mode == "t2v":
                fade = overlap if number else 0
                g = Gop(at - fade, min(gop, end - at + fade), fade=fade)
            else:
                fresh = number % refresh == 0 if refresh else number == 0
                start = at if fresh or outside else at - 1
                size = min(gop, end - start)
                last = mode == "flf2v" and size > 1
                first = "still" if fresh else "shared" if mode == "flf2v" else "previous"
                renewed = refresh and (number + 1) % refresh == 0
                chained = mode != "flf2v" and start + size < end and not renewed
                g = Gop(start, size, first, last, outside=outside, chained=chained)
            yield g
            at, number = g.end, number + 1


def variants(planned: Gop, before: Gop | None, bases: bool) -> tuple[Gop, ...]:
    """The modes among which `auto` chooses for the frames of a planned i2v GOP: t2v, i2v, flf2v
    and, where there may be `bases`, v2v, given the GOP that was chosen before it."""
    if planned.skip and before is not None and before.last:
        planned = replace(planned, first="shared")
    alone = replace(planned, start=planned.start + planned.skip,
                    frames=planned.frames - planned.skip, first="none")  # fmt: skip
    out = [alone, planned]
    if planned.frames > 1:
        out.append(replace(planned, last=True, chained=False))
    if bases:
        out.append(replace(alone, base=True, chained=False))
    return tuple(out)
