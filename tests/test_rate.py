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

from gvcc import bitstream, codec, entropy, flow, rate
from gvcc.bitstream import GopRecord, Header
from gvcc.errors import ConfigError, TargetUnreachable
from gvcc.media import Video
from gvcc.rate import EncodeConfig, Matched, Pacer, Profile
from gvcc.records import Audio, Colour, Packet

RF, VP = flow.PATHS["rf"], flow.PATHS["vp"]
CLIP = (33, 480, 848, Fraction(24))
NODES = [2.0**k for k in range(-8, 9)]  # where a profile is measured: sqrt(SNR)
power_law = st.tuples(st.floats(1, 1e4), st.floats(0.1, 1.5))


def fading(scale, slope):
    """A profile of errors that fall with the signal-to-noise ratio, as a denoiser's do."""
    return Profile(tuple(scale * (1 + root**2) ** -slope for root in NODES))


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
    paper = EncodeConfig(preset="paper").parameters()
    want = dict(coder="gaussian", rule="em", allocation="uniform", steps=20, tail=3, shift=3.0,
                g_scale=3.0, multistep=False, seed=42, atoms=64, size=16384, knob=1.0,
                metric=False)  # fmt: skip
    assert paper == want
    default = EncodeConfig().parameters()
    assert (default["coder"], default["allocation"]) == ("hadamard", "matched")
    assert paper.keys() == default.keys()


def test_own_settings_replace_the_presets_and_leave_the_table_alone():
    before = {name: dict(p) for name, p in rate.PRESETS.items()}
    got = EncodeConfig(preset="paper", atoms=8, codebook=256, seed=0, steps=30).parameters()
    assert (got["atoms"], got["size"], got["seed"], got["steps"]) == (8, 256, 0, 30)
    assert EncodeConfig(atoms=9).parameters()["allocation"] == "uniform"
    assert before == rate.PRESETS


@pytest.mark.parametrize(
    ("asked", "says"),
    [
        ({"preset": "papr"}, "did you mean 'paper'"),
        ({"codebook": 1024}, "K belongs to the gaussian codebook"),
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
        ({"knob": 0.0}, "knob is 0.0"),
        ({"knob": 2.1}, "knob is 2.1"),
        ({"knob": math.nan}, "knob is nan"),
    ],
)
def test_settings_out_of_range(asked, says):
    with pytest.raises(ConfigError, match=says):
        EncodeConfig(**asked).parameters()


# -- uniform allocation -----------------------------------------------------------------------


@given(st.integers(0, 5000), st.integers(1, 30), st.integers(1, 20))
def test_atoms_are_dealt_evenly_and_the_first_get_more(atoms, stop, frames):
    dealt = rate.uniform_counts(atoms, stop, frames)
    assert [len(row) for row in dealt] == [frames] * stop
    flat = list(itertools.chain(*dealt))
    assert sum(flat) == atoms
    assert flat == sorted(flat, reverse=True) and flat[0] - flat[-1] <= 1


def test_without_coded_steps_no_atoms_are_dealt():
    assert rate.uniform_counts(0, 0, 9) == []


COSTS = {
    "fixed length": lambda m: 15 * m,
    "subsets": lambda m: entropy.subset_bits(64, m) + m,
}


@pytest.mark.parametrize("cost", COSTS.values(), ids=COSTS)
@settings(deadline=None)
@given(st.integers(0, 30000), st.integers(1, 12), st.integers(1, 9), st.integers(1, 31))
def test_uniform_atoms_are_the_most_that_fit(cost, bits, stop, frames, most):
    def spent(n):
        return sum(cost(m) for m in itertools.chain(*rate.uniform_counts(n, stop, frames)))

    n = rate.uniform_atoms(bits, stop, frames, cost, most)
    assert 0 <= n <= stop * frames * most
    assert spent(n) <= bits
    assert n == stop * frames * most or spent(n + 1) > bits


# -- profiles and the schedule ----------------------------------------------------------------


@given(st.lists(st.floats(1e-6, 1e9), min_size=17, max_size=17), st.floats(-12, 12))
def test_profiles_are_interpolated_between_what_was_measured(errors, x):
    p = Profile(tuple(errors))
    for root, error in zip(NODES, errors, strict=True):
        assert p.error(root) == pytest.approx(error, rel=1e-9)
    low = min(max(math.floor(x), -8), 7)
    a = min(max(x - low, 0), 1)
    want = errors[low + 8] ** (1 - a) * errors[low + 9] ** a
    assert p.error(2.0**x) == pytest.approx(want, rel=1e-6)
    assert p.error(0) == pytest.approx(errors[0]) and p.error(1e9) == pytest.approx(errors[-1])


@pytest.mark.parametrize("path", [RF, VP], ids=["rf", "vp"])
def test_the_profile_of_a_gaussian_source_is_the_known_one(path):
    s = torch.logspace(-2, 2, 4096).double().reshape(4, 2, 16, 32)
    g = torch.Generator().manual_seed(1)
    x0, eps = (torch.randn(s.shape, generator=g).sign().double() for _ in range(2))

    def denoise(x, t):
        alpha, sigma = path(t)
        return x * (alpha * s / (alpha**2 * s + sigma**2))

    # Opposite noises make the mean of the two errors exact.
    both = [rate.profile(denoise, path, s.sqrt() * x0, sign * eps, None) for sign in (1, -1)]
    for root, *errors in zip(NODES, *(p.errors for p in both), strict=True):
        assert sum(errors) / 2 == pytest.approx(float((s / (root**2 * s + 1)).sum()), rel=1e-6)


def test_a_profile_predicts_the_information_of_each_step():
    p, times = fading(100.0, 1.0), flow.schedule(20, 3)[:17]
    bits = p.bits(RF, times)
    assert len(bits) == 16
    for got, t, s in zip(bits, times, times[1:], strict=False):
        error = p.error((1 - t) / t)
        asked = ((1 - s) ** 2 / s**2 - (1 - t) ** 2 / t**2) * error / (2 * math.log(2))
        assert got == pytest.approx(rate.BITS_PER_INFORMATION * asked, rel=1e-9)


@pytest.mark.parametrize("path", [RF, VP], ids=["rf", "vp"])
@settings(deadline=None, max_examples=20)
@given(st.lists(power_law, min_size=1, max_size=3), st.lists(st.floats(0.1, 1e7), min_size=2))
def test_more_bits_take_the_coded_steps_further(path, laws, budgets):
    profiles = [fading(*law) for law in laws]

    def asked(shift):
        times = flow.schedule(20, shift)[:17]
        return sum(sum(p.bits(path, times)) for p in profiles)

    shifts = []
    for bits in sorted(budgets):
        shift = rate.solve_shift(profiles, path, 20, 4, bits)
        assert shift * 256 == round(shift * 256) and 0 < shift <= 255
        assert asked(shift) <= bits or shift == 255
        assert asked(shift - 1 / 256) > bits or shift <= 2 / 256
        shifts.append(shift)
    assert shifts == sorted(shifts, reverse=True)


# -- matched allocation -----------------------------------------------------------------------


def levels(n):
    return st.lists(st.floats(0.01, 1e4), min_size=n, max_size=n)


@st.composite
def gops(draw):
    """What a GOP's steps were foretold to ask for, and what their frames ask for in fact."""
    steps, frames = draw(st.integers(1, 8)), draw(st.integers(1, 5))
    return draw(levels(steps)), [draw(levels(frames)) for _ in range(steps)]


def run(predicted, asked, bits, atom_bits):
    """Step after step as the encoder goes: the counts and what is left after each step."""
    matched, model = Matched(predicted, bits, atom_bits), entropy.Counts()
    writer, out = entropy.Counter(), []
    for step, information in enumerate(asked):
        counts, before = matched.counts(step, information, model.cost), writer.total
        assert len(counts) == len(information) and all(m >= 0 for m in counts)
        model.write(counts, writer)
        matched.spend(writer.total - before + sum(counts) * atom_bits)
        out.append((counts, matched.left))
    return out


@settings(deadline=None, max_examples=60)
@given(gops(), st.integers(0, 3000), st.integers(2, 25))
def test_matched_never_spends_more_than_there_is(gop, bits, atom_bits):
    """However little is granted, and however wrong the profile was."""
    predicted, asked = gop
    least = rate._LEAST * len(asked) * len(asked[0]) + rate._FIRST
    assert all(left >= 0 for _, left in run(predicted, asked, bits + least, atom_bits))


def test_matched_spends_all_but_an_atom_of_its_budget():
    """Where the profile is about right and a frame-step has 20 atoms or more; what is kept for
    writing the counts may be left too, and now and then the code word of a count that shrank."""
    rng, left = np.random.default_rng(1), []
    for _ in range(150):
        steps, frames, atom_bits = (int(rng.integers(*r)) for r in ((3, 17), (1, 10), (8, 25)))
        level = rng.uniform(5, 500) * rng.uniform(0.8, 1.6) ** np.arange(steps)
        asked = level[:, None] * rng.lognormal(0, 0.1, (steps, frames))
        predicted = rate.BITS_PER_INFORMATION * asked.sum(1) * rng.lognormal(0, 0.3, steps)
        budget = int(steps * frames * rng.integers(20, 200) * atom_bits)
        (*_, (_, rest)) = run(predicted.tolist(), asked.tolist(), budget, atom_bits)
        left.append(rest - atom_bits - 2 * frames)
    assert np.mean(np.array(left) < 0) > 0.95
    assert max(left) < 57  # the longest code word


def test_matched_follows_the_information():
    matched = Matched([100.0, 100.0], 12000, 12)
    counts = matched.counts(0, [10.0, 30.0, 40.0], lambda _, n: 6)
    assert counts[1] / counts[0] == pytest.approx(3, abs=0.1)
    assert counts[2] / counts[0] == pytest.approx(4, abs=0.1)
    foretold = 25 / rate.BITS_PER_INFORMATION
    even = [
        Matched([50.0] * 4, 6000, 12).counts(0, [f * foretold] * 2, lambda c, n: len(c))
        for f in (1, 4)
    ]
    # As foretold: a quarter of the budget. Asked for four times as much, believed by half.
    assert [sum(c) * 12 / 6000 for c in even] == pytest.approx([1 / 4, 2 / 5], abs=0.02)


def test_matched_can_do_without_atoms():
    assert Matched([1.0, 1.0], 0, 12).counts(0, [5.0, 5.0], lambda _, n: 0) == [0, 0]
    assert Matched([1.0, 1.0], 11, 12).counts(0, [5.0, 5.0], lambda _, n: 0) == [0, 0]
    assert sum(Matched([1.0], 1000, 12).counts(0, [0.0, 0.0], lambda _, n: 0)) * 12 <= 1000


# -- steering ---------------------------------------------------------------------------------


def test_steering_towards_x0_and_what_a_metric_makes_of_it():
    g = torch.Generator().manual_seed(2)
    x0, h = torch.randn(2, 4, 3, 5, 6, generator=g)
    s = 0.7
    target, lengths = rate.steering(x0, h, None, RF, s)
    assert target.shape == (3, 4 * 5 * 6)
    for f in range(3):
        r = (x0 - h)[:, f].flatten()
        assert torch.equal(target[f], r)
        assert lengths[f] == pytest.approx(float(r @ r), rel=1e-5)
    same, equal = rate.steering(x0, h, lambda r, snr: 7 * r, RF, s)
    assert torch.allclose(same, 7 * target) and equal == pytest.approx(lengths, rel=1e-5)

    def metric(r, snr):
        assert snr == pytest.approx(flow.snr(RF, s))
        return r * torch.tensor([0.0, 1.0, 2.0, 0.0])[:, None, None, None]

    weighted, less = rate.steering(x0, h, metric, RF, s)
    for f in range(3):
        r, w = (x0 - h)[:, f].flatten(), metric(x0 - h, flow.snr(RF, s))[:, f].flatten()
        assert torch.equal(weighted[f], w)
        v = metric(metric(x0 - h, flow.snr(RF, s)), flow.snr(RF, s))[:, f].flatten()
        along = float((w @ w) ** 3 / (w @ v) ** 2)
        # The length is where the error measured by W is least.
        weight = (v / w).nan_to_num(0)
        error = [float((weight * (c * w - r) ** 2).sum()) for c in np.linspace(0, 2, 401)]
        assert np.argmin(error) / 200 == pytest.approx((along / float(w @ w)) ** 0.5, abs=0.01)
        assert less[f] == pytest.approx(along, rel=1e-5)
        assert less[f] < lengths[f]
    assert rate.steering(x0, x0, metric, RF, s)[1] == [0, 0, 0]


# -- the file's account -----------------------------------------------------------------------


def header(preset="default", frames=99, height=64, width=64, **more):
    p = EncodeConfig(preset=preset).parameters()
    names = {f.name for f in dataclasses.fields(Header)}
    known = {k: v for k, v in p.items() if k in names}
    return Header(**{
        **known, "shift": p["shift"] or 3.0, "prior": "tiny", "digest": bytes(8), "width": width,
        "height": height, "frames": frames, "fps": Fraction(25), "colour": Colour(), "gop": 33,
        "mode": "t2v", "path": "rf", "knob": 1.0, "audio": False, **more,
    })  # fmt: skip


@given(st.integers(0, 70000), st.integers(0, 255), st.integers(0, 2**21 - 1))
def test_symbols_of_the_granted_bits_fit_into_their_record(size, stop, atoms):
    if bits := rate._symbol_bits(size):
        record = GopRecord(stop, atoms, (-1,) * bitstream.CHECKS, bytes(4 * -(-bits // 32)))
        assert len(bitstream.write_gop(record, 0, bytes(4))) <= size


@pytest.mark.parametrize("preset", ["default", "paper"])
@settings(deadline=None, max_examples=15)
@given(st.integers(2000, 30000), st.lists(st.sampled_from([1, 3, 9]), min_size=1, max_size=6))
def test_a_file_lands_just_under_its_target(preset, target, latent_frames):
    """Each GOP spends what it is granted to the last bit, and the file holds."""
    head = header(preset)
    atom = {"default": lambda m: 14 * m, "paper": lambda m: entropy.subset_bits(16384, m) + m}
    cost = atom[preset]
    pacer = Pacer(head, EncodeConfig(preset, size=target), latent_frames, None, cost)
    head = pacer.solve(head, lambda i: fading(100.0 * (1 + i % 3), 0.8))
    size = len(bitstream.write_header(head))
    for i, frames in enumerate(latent_frames):
        grant, writer = pacer.grant(i), entropy.Writer()
        if grant.matched is not None:
            bits = int(grant.matched.left)
        else:
            counts = rate.uniform_counts(grant.atoms, grant.stop, frames)
            bits = sum(cost(m) for m in itertools.chain(*counts))
        writer.bits(0, bits)
        record = GopRecord(grant.stop, grant.atoms, (0,) * bitstream.CHECKS, writer.finish())
        data = bitstream.write_gop(record, i, bitstream.write_header(head))
        pacer.spent(len(data))
        size += len(data)
    assert target - max(64, target // 100) <= size <= target


def test_without_a_target_paper_spends_its_m_and_default_its_rate():
    pacer = Pacer(header("paper"), EncodeConfig("paper"), [9, 9, 3], None, lambda m: 15 * m)
    pacer.solve(pacer.header, lambda i: pytest.fail("no profile is needed"))
    assert [pacer.grant(i).atoms for i in range(3)] == [64 * 17 * 9, 64 * 17 * 9, 64 * 17 * 3]
    head = header()
    pacer = Pacer(head, EncodeConfig(), [9, 9, 9], None, lambda m: 14 * m)
    fixed = len(bitstream.write_header(head))
    assert pacer.left == int(rate.DEFAULT_BPP * 99 * 64 * 64 / 8) - fixed


SOUND = Audio("flac", 8000, "mono", Fraction(1, 8000), b"", (Packet(0, 800, bytes(500)),))


@pytest.mark.parametrize("preset", ["default", "paper"])
@pytest.mark.parametrize("audio", [None, SOUND])
@pytest.mark.parametrize("frames", [1, 20])
def test_below_the_smallest_file_its_size_is_told(preset, audio, frames):
    """And that size can be reached."""
    pixels = np.random.default_rng(1).integers(0, 256, (frames, 17, 33, 3), np.uint8)
    video, prior = Video(pixels, Fraction(25), Colour(), audio), tiny_prior.load()

    def encode(size):
        return codec.encode(video, EncodeConfig(preset, size=size), prior).data

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
