"""From a target to budgets: nothing is spent that is not there, and little is left over."""

import dataclasses
import itertools
import math
from fractions import Fraction

import numpy as np
import pytest
import tiny_prior
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from gvcc import codec
from gvcc.decode import times as timing
from gvcc.errors import ConfigError, TargetUnreachable
from gvcc.format import bitstream, entropy, schedules
from gvcc.format.bitstream import GopRecord, Header
from gvcc.format.gop import Gop
from gvcc.pictures.media import Video
from gvcc.priors import References
from gvcc.records import Audio, Colour, Packet
from gvcc.search import config as conf
from gvcc.search import pacer as pacing
from gvcc.search import plan as planning
from gvcc.search.allocation import Profile
from gvcc.search.config import EncodeConfig
from gvcc.search.pacer import Pacer
from gvcc.search.plan import MODES

CLIP = (33, 480, 848, Fraction(24))
SPEC = tiny_prior.load().spec
STRIDE = SPEC.stride[0]

# -- what is asked for ------------------------------------------------------------------------


def test_targets_in_bytes():
    assert EncodeConfig().target(*CLIP) is None
    assert EncodeConfig(size=12345).target(*CLIP) == 12345
    assert EncodeConfig(bpp=0.05).target(*CLIP) == int(0.05 * 33 * 480 * 848 / 8)
    # 33 frames at 24 a second are 1.375 s.
    assert EncodeConfig(kbps=80).target(*CLIP) == 13750
    assert EncodeConfig(kbps=80).target(33, 480, 848, Fraction(30000, 1001)) == 11011
    assert EncodeConfig(bpp=1e-9).target(*CLIP) == 0


@pytest.mark.parametrize(
    "asked", [{"bpp": 0.1, "kbps": 9}, {"size": 9, "kbps": 9}, {"bpp": 1, "kbps": 1, "size": 1}]
)
def test_two_targets_contradict_each_other(asked):
    with pytest.raises(ConfigError) as caught:
        EncodeConfig(**asked).target(*CLIP)
    assert all(name in str(caught.value) for name in asked)


@pytest.mark.parametrize("name", ["bpp", "kbps", "size"])
@pytest.mark.parametrize("value", [0, -1, math.inf, math.nan])
def test_a_target_is_a_number_above_zero(name, value):
    with pytest.raises(ConfigError, match=f"{name} is {value}"):
        EncodeConfig(**{name: value}).target(*CLIP)


def test_presets():
    paper = EncodeConfig(preset="paper").resolved()
    want = dict(coder="gaussian", rule="em", allocation="uniform", steps=20, ode_steps=3, shift=3.0,
                g_scale=3.0, multistep=False, seed=42, atoms=64, tail_atoms=128,
                codebook_size=16384,
                knob=1.0, metric=False, mode="t2v", overlap=0, alignment="fade",
                scheduled=False, base_share=1.0, restorer="", cuts=False)  # fmt: skip
    assert {k: v for k, v in vars(paper).items() if k not in ("asked", "goal")} == want
    default = EncodeConfig().resolved()
    assert (default.coder, default.allocation) == ("hadamard", "matched")


def test_own_settings_replace_the_presets_and_leave_the_table_alone():
    before = dict(conf.PRESETS)
    got = EncodeConfig(preset="paper", atoms=8, codebook=256, seed=0, steps=30).resolved()
    assert (got.atoms, got.codebook_size, got.seed, got.steps) == (8, 256, 0, 30)
    assert EncodeConfig(atoms=9).resolved().allocation == "uniform"
    assert EncodeConfig(atoms=9).resolved().tail_atoms is None
    assert EncodeConfig("paper", atoms=9).resolved().tail_atoms == 128  # as published
    assert not EncodeConfig("paper").resolved().cuts and EncodeConfig().resolved().cuts
    i2v = EncodeConfig("paper", mode="i2v", tail_atoms=9).resolved()
    assert (i2v.atoms, i2v.tail_atoms) == (64, 9)
    assert before == conf.PRESETS


@pytest.mark.parametrize(
    ("asked", "says"),
    [
        ({"preset": "papr"}, "did you mean 'paper'"),
        ({"codebook": 1024}, "K is for preset 'paper' and for coder rcc"),
        ({"preset": "paper", "codebook": 2**16 + 1}, "K is 65537"),
        ({"preset": "paper", "codebook": -1}, "K is -1"),
        ({"preset": "paper", "codebook": 0}, "K is 0"),
        ({"preset": "paper", "codebook": 16, "atoms": 17}, "M is 17"),
        ({"atoms": 2**16 + 1}, "M is 65537"),
        ({"atoms": -1}, "M is -1"),
        ({"atoms": 0}, "M is 0"),
        ({"steps": 3}, "steps is 3"),
        ({"steps": 256}, "steps is 256"),
        ({"seed": -1}, "seed is -1"),
        ({"seed": 2**64}, "seed is 18446744073709551616"),
        ({"preset": "paper", "seed": 2**31}, "seed is 2147483648"),
        ({"mode": "i3v"}, "did you mean 'i2v'"),
        (
            {"preset": "paper", "tail_atoms": 9},
            r"M_tail \(tail atoms\) goes with M, in modes i2v and auto",
        ),
        ({"mode": "i2v", "tail_atoms": 9}, r"M_tail \(tail atoms\) goes with M"),
        ({"mode": "i2v", "atoms": 4, "tail_atoms": 0}, "M_tail is 0"),
        ({"preset": "paper", "mode": "auto", "codebook": 64, "tail_atoms": 65}, "M_tail is 65"),
        ({"knob": 0.0}, "knob is 0.0"),
        ({"knob": 2.1}, "knob is 2.1"),
        ({"knob": math.nan}, "knob is nan"),
    ],
)
def test_settings_out_of_range(asked, says):
    with pytest.raises(ConfigError, match=says):
        EncodeConfig(**asked).resolved()


def test_free_gvc_as_far_as_it_is_published() -> None:
    p = EncodeConfig(preset="free-gvc-paper").resolved()
    assert (p.coder, p.mode, p.alignment, p.overlap) == ("rcc", "overlap", "blend", 5)
    assert p.scheduled and not p.metric and p.knob == 1 and p.codebook_size == 2**14


def test_calls_behind_the_coded_ones() -> None:
    assert EncodeConfig(mode="t2v", steps=12, ode_steps=5).resolved().ode_steps == 5
    assert EncodeConfig(preset="free-gvc", ode_steps=9).resolved().ode_steps == 9
    for asked in (dict(mode="t2v", steps=5, ode_steps=5), dict(mode="t2v", ode_steps=0)):
        with pytest.raises(ConfigError, match="steps is"):
            EncodeConfig(**asked).resolved()
    with pytest.raises(ConfigError, match="of a trajectory"):
        EncodeConfig(mode="v2v", base_share=1.0, ode_steps=5).resolved()


# -- the file's account -----------------------------------------------------------------------


def header(preset="default", frames=99, height=64, width=64, **more):
    p = EncodeConfig(preset=preset).resolved()
    names = {f.name for f in dataclasses.fields(Header)}
    known = {k: v for k, v in vars(p).items() if k in names}
    if p.scheduled:
        known |= {"schedule": 1, "steps": len(schedules.SCHEDULES[0]) + p.ode_steps}
    return Header(**{
        **known, "shift": p.shift or 3.0, "prior": "tiny", "digest": bytes(8), "width": width,
        "height": height, "frames": frames, "fps": Fraction(25), "colour": Colour(), "gop": 33,
        "overlap": 0, "path": "rf", "knob": 1.0, "audio": False, "restorer": None, **more,
    })  # fmt: skip


def size_of(record):
    return len(bitstream.write_gop(record, 0, bytes(4)))


def record_of(g, still=0, residual=0):
    """A record with nothing coded, but for stills and residual of so many bytes."""
    check = (-1,) * bitstream.CHECKS
    return GopRecord(g, 0, 0, 0, check, (bytes(still),) * g.stills, bytes(residual), b"")


@given(st.integers(0, 70000), st.integers(0, 255), st.integers(0, 300), st.data())
def test_symbols_of_the_granted_bits_fit_into_their_record(room, stop, still, data):
    """Even where an atom costs no more than 3 bits, as in a codebook of 256."""
    empty = record_of(Gop(0, 33, "still", True), still)
    if bits := pacing.symbol_bits(room):
        atoms = data.draw(st.integers(0, bits // 3))
        tail_atoms = data.draw(st.integers(0, bits // 3 - atoms))
        full = dataclasses.replace(empty, stop=stop, atoms=atoms, tail_atoms=tail_atoms,
                                   symbols=bytes(4 * -(-bits // 32)))  # fmt: skip
        assert size_of(full) <= size_of(empty) + room


def fading(scale):
    """A profile of errors that fall with the signal-to-noise ratio, as a denoiser's do."""
    return Profile(tuple(scale * (1 + 4.0**k) ** -0.8 for k in range(-8, 9)))


def spend(pacer, head, i, g, cost):
    """The size of a record that spends what it is granted to the last bit."""
    grant, writer, stills = pacer.grant(i, g), entropy.SymbolWriter(), []
    for _ in range(g.stills):
        left = grant.record - size_of(record_of(g)) - sum(map(len, stills)) - 5
        stills.append(bytes(max(0, min(grant.still, left))))
    record = dataclasses.replace(record_of(g), stills=tuple(stills))
    frames = pacing.free_frames(g, SPEC)
    got = pacer.allot(i, g, grant.record - size_of(record), frames)
    part = 0
    if head.schedule:  # at worst the GOP stops inside a step
        bits, part = got.bits or 0, int(frames > 0)
    elif got.budget is not None:
        bits = int(got.budget.left)
    else:
        counts = timing.uniform_counts(got.atoms, got.tail_atoms, got.stop, frames)
        bits = sum(cost(m) for m in itertools.chain(*counts))
    writer.bits(0, bits)
    record = dataclasses.replace(record, stop=got.stop, fraction=part, atoms=got.atoms,
                                 tail_atoms=got.tail_atoms, symbols=writer.finish())  # fmt: skip
    room = pacer.residual_room(g, grant.record, size_of(record), len(record.symbols))
    record = dataclasses.replace(record, residual=bytes(max(0, room)))
    data = bitstream.write_gop(record, i, bitstream.write_header(head))
    pacer.spent(len(data))
    return len(data)


@pytest.mark.parametrize("mode", [m for m in MODES if m != "v2v"])  # tests/test_v2v.py has it
@pytest.mark.parametrize("preset", ["default", "paper", "free-gvc"])
@settings(deadline=None, max_examples=10)
@given(
    st.integers(2000, 16000),
    st.integers(1, 170),
    st.integers(0, 2),
    st.sampled_from(["coded", "off"]),
    st.data(),
)
def test_a_file_lands_just_under_its_target(preset, mode, target, frames, refresh, residual, data):
    """Whatever `auto` chooses, and however far predictions are off."""
    refresh = refresh if mode in ("i2v", "auto") else 0
    shared = {"overlap": 5, "alignment": "pin"} if mode == "overlap" else {}
    plans = list(planning.plan(frames, 33, STRIDE, mode, refresh=refresh, **shared))
    cost = {
        "default": lambda m: 14 * m, "paper": lambda m: entropy.subset_bits(16384, m) + m,
        "free-gvc": lambda m: 14 * m,
    }[preset]  # fmt: skip
    head = header(preset, frames, **({"overlap": 0, "alignment": "fade"} | shared))
    config = EncodeConfig(preset, mode=mode, size=target, refresh=refresh, residual=residual)
    pacer = Pacer(head, config.resolved(), plans, None, SPEC, cost)
    head = pacer.solve(head, [fading(100.0 * (1 + i % 3)) for i in range(len(plans))])
    size, before = len(bitstream.write_header(head)), None
    for i, planned in enumerate(plans):
        options = planning.variants(planned, before, False) if mode == "auto" else (planned,)
        before = data.draw(st.sampled_from(options))
        size += spend(pacer, head, i, before, cost)
    assert target - max(64, target // 100) <= size <= target


def pacer_of(preset, frames, mode="t2v", cost=15, **more):
    plans = list(planning.plan(frames, 33, STRIDE, mode))
    head = header(preset, frames)
    return Pacer(head, EncodeConfig(preset, mode=mode, **more).resolved(), plans, None, SPEC,
                 lambda m: cost * m)  # fmt: skip


def test_without_a_target_paper_spends_its_m_and_default_its_rate():
    pacer = pacer_of("paper", 75)
    assert pacer.solve(pacer.header, []) is pacer.header  # no profile is needed
    assert all(pacer.grant(i, g).record is None for i, g in enumerate(pacer.gops))
    got = [
        pacer.allot(i, g, None, f)
        for i, (g, f) in enumerate(zip(pacer.gops, (9, 9, 3), strict=True))
    ]
    assert [a.atoms for a in got] == [64 * 17 * 9, 64 * 17 * 9, 64 * 17 * 3]
    assert [(a.stop, a.tail_atoms, a.budget) for a in got] == [(17, 0, None)] * 3
    pacer = pacer_of("default", 99)
    fixed = len(bitstream.write_header(pacer.header))
    assert pacer.left == int(pacing.DEFAULT_BPP * 99 * 64 * 64 / 8) - fixed


@pytest.mark.parametrize(
    ("more", "front", "tail"),
    [({}, 64, 128), ({"atoms": 8}, 8, 128), ({"atoms": 8, "tail_atoms": 5}, 8, 5)],
)
def test_m_tail_is_for_the_last_two_latent_frames_of_i2v(more, front, tail):
    pacer = pacer_of("paper", 33 + 32, "i2v", **more)
    got = pacer.allot(1, pacer.gops[1], None, 8)
    apart = got.tail_atoms or 2 * tail * 17
    assert got.atoms + got.tail_atoms == 17 * (front * 6 + tail * 2) and apart == 17 * 2 * tail


def test_bytes_of_stills_and_residual_are_set_apart():
    pacer = pacer_of("default", 65, "i2v", 14, size=8000)
    first, grant = pacer.gops[0], pacer.grant(0, pacer.gops[0])
    share = pacing.STILL_SHARE * (pacer.left - sum(pacer.empty)) * 33 / 65
    assert grant.still == pytest.approx(share, abs=1)
    room = grant.record - grant.still - pacer.empty[0]
    with_residual, without = (
        pacer.allot(0, dataclasses.replace(first, chained=t), room, 8).budget.left
        for t in (True, False)
    )
    assert with_residual / without == pytest.approx(1 - pacing.RESIDUAL_SHARE, abs=0.01)
    assert pacer.residual_room(pacer.gops[1], grant.record, 100, 50) == 0  # nothing follows
    assert pacer.residual_room(first, 1000, 900, 50) == 95


def test_a_gop_of_references_alone_gives_all_to_its_still():
    pacer = pacer_of("default", 34, "flf2v", 14, size=3000)
    assert [pacing.free_frames(g, SPEC) for g in pacer.gops] == [8, 0]
    grant = pacer.grant(1, pacer.gops[1])
    assert grant.still == grant.record
    assert pacer.allot(1, pacer.gops[1], 500, 0) == pacing.Allotment(0)


@pytest.mark.parametrize(("start", "stop"), [(1, 33), (2, 30), (33, 97)])
def test_free_frames_are_those_that_no_condition_fixes(start, stop):
    """As the priors' conditions have it."""
    prior = tiny_prior.load()
    for frames in range(start, stop):
        for g in (
            Gop(0, frames), Gop(0, frames, "previous"), Gop(0, frames, "still", True),
            Gop(0, frames, "previous", context=5), Gop(0, frames, "previous", context=9),
        ):  # fmt: skip
            if frames < max(1 + g.last, g.skip + 1):
                continue
            latents = (g.length(STRIDE) - 1) // STRIDE + 1
            picture = torch.zeros(8, 8, 3, dtype=torch.uint8)
            before = picture.expand(max(1, g.skip), 8, 8, 3)
            ends = (before if g.first != "none" else None, picture if g.last else None)
            known = prior.condition(References(*ends), latents).known
            assert pacing.free_frames(g, SPEC) == latents - len(known)


SOUND = Audio("flac", 8000, "mono", Fraction(1, 8000), b"", (Packet(0, 800, bytes(500)),))


@pytest.mark.parametrize("preset", ["default", "paper"])
@pytest.mark.parametrize("audio", [None, SOUND])
@pytest.mark.parametrize(("frames", "mode"), [(1, "t2v"), (20, "t2v"), (20, "i2v"), (20, "flf2v")])
def test_below_the_smallest_file_its_size_is_told(preset, audio, frames, mode):
    """And that size can be reached."""
    pixels = np.random.default_rng(1).integers(0, 256, (frames, 17, 33, 3), np.uint8)
    video, prior = Video(pixels, Fraction(25), Colour(), audio), tiny_prior.load()

    def encode(size):
        return codec.encode(video, EncodeConfig(preset, mode=mode, size=size), prior).data

    with pytest.raises(TargetUnreachable, match="1 bytes cannot be reached") as caught:
        encode(1)
    smallest = caught.value.smallest
    assert str(smallest) in str(caught.value)
    assert ("audio" in str(caught.value)) == (audio is not None)
    assert len(encode(smallest)) == smallest
    with pytest.raises(TargetUnreachable):
        encode(smallest - 1)


def test_the_smallest_targets_are_kept_too():
    """A still of 16x16, where a handful of bits decides."""
    pixels = np.random.default_rng(1).integers(0, 256, (1, 4, 4, 3), np.uint8)
    video = Video(pixels.repeat(4, 1).repeat(4, 2), Fraction(25))
    for size in range(70, 230, 5):
        data = codec.encode(video, EncodeConfig(size=size), tiny_prior.load()).data
        assert size - 64 <= len(data) <= size
