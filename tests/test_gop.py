"""How a clip is cut: every frame once, in order, from what is decoded before it."""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from gvcc.errors import ConfigError, Corrupt
from gvcc.format.gop import Gop, dependents, legal_length, needed
from gvcc.search.plan import MODES, SHARING, plan, variants

strides = st.integers(1, 8)


@dataclass
class Planned:
    frames: int
    gop: int
    stride: int
    mode: str
    overlap: int
    alignment: str
    refresh: int
    cuts: set[int]
    gops: list[Gop]


@st.composite
def planned(draw: st.DrawFn, modes: tuple[str, ...] = MODES, choose: bool = False) -> Planned:
    """The GOPs of a clip; with `choose` those that `auto` picks, at random."""
    frames, stride, mode = draw(st.integers(1, 500)), draw(strides), draw(st.sampled_from(modes))
    gop = stride * draw(st.integers(0 if mode == "t2v" else 1, 12)) + 1
    overlap, alignment = draw(st.integers(0, gop // 2)) if mode == "t2v" else 0, "fade"
    if mode == "overlap":
        overlap = 1 + stride * draw(st.integers(0, (gop // 2 - 1) // stride))
        alignment = draw(st.sampled_from(SHARING))
    chained = mode in ("i2v", "auto") or alignment == "pin"
    refresh = draw(st.integers(0, 3)) if chained else 0
    cuts = draw(st.sets(st.integers(-3, 510), max_size=6))
    gops = list(plan(frames, gop, stride, mode, overlap=overlap, refresh=refresh, cuts=cuts,
                     alignment=alignment))  # fmt: skip
    if choose and mode == "auto":
        for i, g in enumerate(gops):
            gops[i] = draw(st.sampled_from(variants(g, gops[i - 1] if i else None, False)))
    cuts = {c for c in cuts if 0 < c < frames}
    return Planned(frames, gop, stride, mode, overlap, alignment, refresh, cuts, gops)


def shown(g: Gop) -> range:
    """The frames that a GOP is the first to show."""
    return range(g.start + g.skip + g.fade, g.end)


# -- plan and what auto makes of it -----------------------------------------------------------


@settings(deadline=None)
@given(planned(choose=True))
def test_every_frame_once_in_order_and_only_references_backwards(p: Planned) -> None:
    assert [f for g in p.gops for f in shown(g)] == list(range(p.frames))
    before = None
    for g in p.gops:
        g.check(before, p.frames, p.gop, p.overlap)  # what a reader of the file will check
        length = g.length(p.stride)
        assert length % p.stride == 1 % p.stride and length >= g.frames
        assert g.length(p.stride) <= p.gop + p.stride * g.last
        before = g


@settings(deadline=None)
@given(planned())
def test_no_gop_crosses_a_cut(p: Planned) -> None:
    starts = {shown(g).start for g in p.gops}
    assert p.cuts <= starts
    for g in p.gops:
        # Not even a reference does; a cross-fade is between GOPs of one scene.
        assert not p.cuts & set(range(g.start + 1, g.end))
        if g.start + g.skip in p.cuts and p.mode not in ("t2v", "v2v"):
            assert g.first == ("none" if p.mode == "overlap" else "still") and not g.fade


@settings(deadline=None)
@given(planned())
def test_modes(p: Planned) -> None:
    firsts = {g.first for g in p.gops}
    if p.mode in ("t2v", "v2v"):
        assert firsts == {"none"} and not any(g.last for g in p.gops)
        assert all(g.base == (p.mode == "v2v") for g in p.gops)
    elif p.mode == "flf2v":
        assert firsts <= {"still", "shared"}
        assert all(g.last == (g.frames > 1) for g in p.gops)
        assert not any(g.chained for g in p.gops)
    elif p.mode == "overlap":
        assert not any(g.stills or g.chained for g in p.gops)
        number = 0  # within the scene
        for g in p.gops:
            number = 0 if shown(g).start in p.cuts else number
            fresh = number % p.refresh == 0 if p.refresh else number == 0
            pinned = p.alignment == "pin" and not fresh
            assert g.first == ("previous" if pinned else "none")
            assert g.skip == (p.overlap if pinned else 0)
            assert g.fade == (0 if fresh or pinned else p.overlap)
            number += 1
    else:
        assert firsts <= {"still", "previous"} and not any(g.last for g in p.gops)
        nexts = [*p.gops[1:], None]
        for g, after in zip(p.gops, nexts, strict=True):
            assert g.chained == (after is not None and after.first == "previous")


@pytest.mark.parametrize("mode", ["i2v", "flf2v", "auto"])
@pytest.mark.parametrize("count", [1, 2, 5])
def test_full_gops_of_a_chain_add_32_frames_each(mode: str, count: int) -> None:
    gops = list(plan(32 * count + 1, 33, 4, mode))
    assert [g.frames for g in gops] == [33] * count
    assert len(list(plan(32 * count + 2, 33, 4, mode))) == count + 1


def test_one_still_for_each_boundary() -> None:
    for count in (1, 2, 5):
        gops = list(plan(32 * count + 1, 33, 4, "flf2v"))
        assert sum(g.stills for g in gops) == count + 1


def test_stills_are_refreshed() -> None:
    for refresh, stills in ((0, [0]), (1, list(range(6))), (2, [0, 2, 4]), (3, [0, 3])):
        gops = list(plan(6 * 32, 33, 4, "i2v", refresh=refresh))
        assert [i for i, g in enumerate(gops) if g.first == "still"] == stills


@settings(deadline=None)
@given(planned(("auto",)), st.booleans())
def test_variants_are_the_published_modes_for_the_same_frames(p: Planned, shared: bool) -> None:
    for i, g in enumerate(p.gops):
        before = replace(p.gops[i - 1], last=shared) if i else None
        options = variants(g, before, True)
        assert [o.mode for o in options] == [
            "t2v",
            "i2v",
            *(["flf2v"] if g.frames > 1 else []),
            "v2v",
        ]
        assert {(o.start + o.skip, o.end) for o in options} == {(g.start + g.skip, g.end)}
        assert all((o.first == "shared") == (o.skip > 0 and shared) for o in options)
        assert not any(o.chained for o in options if o.last)


@settings(deadline=None)
@given(st.integers(1, 2000), strides)
def test_legal_length(frames: int, stride: int) -> None:
    length = legal_length(frames, stride)
    assert (length - 1) % stride == 0 and frames <= length < frames + stride
    assert legal_length(length, stride) == length


def test_a_last_still_has_a_latent_frame_of_its_own() -> None:
    for frames, length in ((2, 5), (3, 9), (6, 9), (7, 13), (32, 37), (33, 37), (34, 37)):
        assert Gop(0, frames, "still", True).length(4) == length
        assert (length - 1) // 4 - 1 == -(-(frames - 2) // 4)  # latent frames in between


def test_examples() -> None:
    assert list(plan(7, 5, 4)) == [Gop(0, 5), Gop(5, 2)]
    assert list(plan(6, 5, 4)) == [Gop(0, 5), Gop(5, 1)]
    assert list(plan(1, 33, 4)) == [Gop(0, 1)]
    assert list(plan(12, 5, 4, overlap=2)) == [Gop(0, 5), Gop(3, 5, fade=2), Gop(6, 5, fade=2),
                                               Gop(9, 3, fade=2)]  # fmt: skip
    still, rest = Gop(0, 5, "still"), Gop(4, 3, "previous")
    assert list(plan(7, 5, 4, "i2v")) == [still, rest]
    assert list(plan(7, 5, 4, "i2v", cuts=[3, 3, 0, 7])) == [Gop(0, 3, "still"), Gop(3, 4, "still")]
    fade = list(plan(20, 13, 4, "overlap", overlap=5, alignment="blend"))
    assert fade == [Gop(0, 13), Gop(8, 12, fade=5)]
    assert list(plan(20, 13, 4, "overlap", overlap=5, alignment="blend")) == fade
    pin = Gop(8, 12, "previous", context=5)
    assert list(plan(20, 13, 4, "overlap", overlap=5, alignment="pin")) == [Gop(0, 13), pin]
    assert list(plan(20, 13, 4, "overlap", overlap=5, alignment="pin", refresh=1)) == [
        Gop(0, 13), Gop(13, 7)]  # fmt: skip
    assert list(plan(7, 5, 4, "flf2v")) == [replace(still, last=True), Gop(4, 3, "shared", True)]
    assert list(plan(6, 5, 4, "flf2v", cuts=[5])) == [replace(still, last=True), Gop(5, 1, "still")]


@settings(deadline=None)
@given(st.integers(-5, 60), strides)
def test_illegal_gop_lengths(gop: int, stride: int) -> None:
    if gop >= 1 and (gop - 1) % stride == 0:
        assert list(plan(3, gop, stride))
    else:
        with pytest.raises(ConfigError, match="GOP length"):
            plan(3, gop, stride)


@pytest.mark.parametrize(
    ("frames", "mode", "more", "says"),
    [
        (0, "t2v", {}, "at least one frame"),
        (3, "i9v", {}, "unknown mode 'i9v'.*did you mean 'i2v'"),
        (3, "t2v", {"overlap": 3}, "overlap is 3, expected 0 to 2"),
        (3, "t2v", {"overlap": -1}, "overlap is -1"),
        (3, "i2v", {"overlap": 1}, "overlap is for modes t2v and overlap, not i2v"),
        (3, "t2v", {"refresh": 1}, "refresh is for modes i2v and auto"),
        (3, "flf2v", {"refresh": 1}, "refresh is for modes i2v and auto"),
        (3, "i2v", {"refresh": -1}, "refresh"),
        (3, "overlap", {"overlap": 0, "alignment": "blend"}, "overlap is 0, expected 1 modulo 4"),
        (3, "overlap", {"overlap": 2, "alignment": "blend"}, "overlap is 2, expected 1 modulo 4"),
        (3, "overlap", {"overlap": 3, "alignment": "blend"}, "overlap is 3, expected 1 to 2"),
        (3, "overlap", {"overlap": 1, "alignment": "glue"}, "unknown alignment 'glue'"),
        (3, "overlap", {"overlap": 1}, "unknown alignment 'fade'; known: blend, pin"),
        (3, "overlap", {"overlap": 1, "refresh": 1, "alignment": "blend"}, "refresh is for"),
        (3, "overlap", {"overlap": 1, "refresh": 1, "alignment": "blend"}, "refresh is for"),
        (3, "t2v", {"overlap": 1, "alignment": "blend"}, "alignment blend is for mode overlap"),
        (3, "i2v", {"alignment": "pin"}, "alignment pin is for mode overlap, not i2v"),
    ],
)
def test_other_illegal_arguments(frames: int, mode: str, more: dict[str, Any], says: str) -> None:
    with pytest.raises(ConfigError, match=says):
        plan(frames, 5, 4, mode, **more)


def test_gops_of_one_frame_have_no_references() -> None:
    for mode in ("i2v", "overlap"):
        with pytest.raises(ConfigError, match="more than one frame"):
            plan(3, 1, 4, mode)


# -- what a reader refuses --------------------------------------------------------------------


@pytest.mark.parametrize(
    ("g", "before"),
    [
        (Gop(0, 0), None),
        (Gop(0, 34), None),
        (Gop(0, 21), None),
        (Gop(1, 5), None),
        (Gop(0, 5, "previous"), None),
        (Gop(0, 5, "shared"), None),
        (Gop(0, 5, "none", True), None),
        (Gop(0, 1, "still", True), None),
        (Gop(4, 5), Gop(0, 5)),
        (Gop(6, 5), Gop(0, 5)),
        (Gop(5, 5, "previous"), Gop(0, 5)),
        (Gop(4, 1, "previous"), Gop(0, 5)),
        (Gop(4, 5, "shared"), Gop(0, 5, "still")),
        (Gop(0, 5, fade=4), None),
        (Gop(2, 5, fade=3), Gop(0, 5)),
        (Gop(1, 4, fade=4), Gop(0, 5)),
        (Gop(-1, 6, fade=4), Gop(0, 3)),
        (Gop(1, 6, "still", fade=4), Gop(0, 5)),
        (Gop(0, 6, "previous", fade=4), Gop(0, 5)),
        (Gop(0, 9, "previous", context=5), None),
        (Gop(4, 5, "previous", context=5), Gop(0, 9)),
        (Gop(8, 9, "previous", context=5), Gop(0, 9)),
        (Gop(3, 9, "previous", context=5), Gop(4, 4)),
    ],
    ids=str,
)
def test_gops_that_do_not_fit_are_corrupt(g: Gop, before: Gop | None) -> None:
    with pytest.raises(Corrupt):
        g.check(before, 20, 33, 4)


def test_gops_that_fit() -> None:
    for g, before in (
        (Gop(0, 20), None),
        (Gop(1, 6, fade=4), Gop(0, 5)),
        (Gop(4, 2, "previous"), Gop(0, 5)),
        (Gop(4, 6, "previous", context=5), Gop(0, 9)),
        (Gop(4, 9, "previous", True, context=5), Gop(4, 5)),
        (Gop(4, 2, "shared", True), Gop(0, 5, "still", True)),
        (Gop(5, 1, "still"), Gop(0, 5)),
    ):
        g.check(before, 20, 33, 4)


# -- random access and loss -------------------------------------------------------------------


def decodable(gops: list[Gop], whole: set[int], stills: set[int]) -> set[int]:
    """GOPs of `whole` that can be decoded, by following what they refer to."""
    done: set[int] = set()
    for i, g in enumerate(gops):
        ready = {"none": True, "still": True, "previous": i - 1 in done,
                 "shared": i - 1 in whole | stills}[g.first]  # fmt: skip
        if i in whole and ready:
            done.add(i)
    return done


def exact(gops: list[Gop], whole: set[int], stills: set[int], blended: bool) -> set[int]:
    """GOPs whose pictures are right: where latents are blended, with the GOP before at hand. (The
    one after changes only frames that both have, and is asked for with them.)"""
    done = decodable(gops, whole, stills)
    if not blended:
        return done
    joined = {i for i, g in enumerate(gops) if g.fade}  # with the GOP before
    return {i for i in done if i not in joined or i - 1 in done}


@settings(deadline=None)
@given(planned(choose=True), st.data())
def test_what_is_needed_gives_the_frames_asked_for_and_no_less_does(
    p: Planned, data: st.DataObject
) -> None:
    start = data.draw(st.integers(0, p.frames - 1))
    end = data.draw(st.integers(start + 1, p.frames))
    blended = p.alignment == "blend"
    decode, stills = needed(p.gops, start, end, blended)
    asked = set(range(start, end))
    # Cross-faded frames need both GOPs that have them.
    wanted = {i for i, g in enumerate(p.gops) if asked & set(range(g.start + g.skip, g.end))}
    assert wanted <= exact(p.gops, decode, stills, blended)
    assert not decode & stills
    for i in decode:
        assert not wanted <= exact(p.gops, decode - {i}, stills, blended)
    for i in stills:
        assert not wanted <= exact(p.gops, decode, stills - {i}, blended)


@settings(deadline=None)
@given(planned(choose=True), st.data())
def test_dependents_are_those_that_are_lost_with_a_record(p: Planned, data: st.DataObject) -> None:
    lost = data.draw(st.integers(0, len(p.gops) - 1))
    everything = set(range(len(p.gops)))
    gone = everything - decodable(p.gops, everything - {lost}, set())
    assert gone == {lost, *dependents(p.gops, lost)}


def test_a_lost_gop_costs_a_chain_its_rest_and_flf2v_one_more() -> None:
    frames = 5 * 32 + 1
    gops = {mode: list(plan(frames, 33, 4, mode)) for mode in ("t2v", "i2v", "flf2v")}
    assert {mode: dependents(g, 1) for mode, g in gops.items()} == {
        "t2v": [], "i2v": [2, 3, 4], "flf2v": [2]}  # fmt: skip
    assert needed(gops["flf2v"], 70, 71) == ({2}, {1})
    assert needed(gops["i2v"], 70, 71) == ({0, 1, 2}, set())
    assert needed(gops["t2v"], 70, 71) == ({2}, set())
    assert needed(gops["flf2v"], 64, 65) == ({1}, {0})
    refreshed = list(plan(frames, 33, 4, "i2v", refresh=2))
    assert dependents(refreshed, 0) == [1] and dependents(refreshed, 1) == []
    assert needed(refreshed, 70, 71) == ({2}, set())
    pinned = list(plan(frames, 33, 4, "overlap", overlap=5, alignment="pin", refresh=3))
    assert needed(pinned, 80, 81) == ({0, 1, 2}, set()) and dependents(pinned, 0) == [1, 2]
    assert needed(pinned, 90, 91) == ({3}, set())
    # GOPs start at 0, 28, 56, ...
    faded = list(plan(frames, 33, 4, "overlap", overlap=5, alignment="blend"))
    assert needed(faded, 40, 41) == ({1}, set()) and needed(faded, 57, 58) == ({1, 2}, set())
    assert needed(faded, 40, 41, blended=True) == ({0, 1}, set())
    assert needed(faded, 57, 58, blended=True) == ({0, 1, 2}, set())
