"""Where bits go within a GOP: nothing is spent that is not there, and little is left over."""

import itertools
import math

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from gvcc import flow
from gvcc.decode import times as timing
from gvcc.format import entropy
from gvcc.search import allocation
from gvcc.search import pacer as pacing
from gvcc.search.allocation import Matched, Profile

RF, VP = flow.PATHS["rf"], flow.PATHS["vp"]
NODES = [2.0**k for k in range(-8, 9)]  # where a profile is measured: sqrt(SNR)
power_law = st.tuples(st.floats(1, 1e4), st.floats(0.1, 1.5))


def fading(scale, slope):
    """A profile of errors that fall with the signal-to-noise ratio, as a denoiser's do."""
    return Profile(tuple(scale * (1 + root**2) ** -slope for root in NODES))


# -- uniform allocation -----------------------------------------------------------------------


@given(st.integers(0, 5000), st.integers(1, 30), st.integers(1, 20))
def test_atoms_are_dealt_evenly_and_the_first_get_more(atoms, stop, frames):
    dealt = timing.uniform_counts(atoms, 0, stop, frames)
    assert [len(row) for row in dealt] == [frames] * stop
    flat = list(itertools.chain(*dealt))
    assert sum(flat) == atoms
    assert flat == sorted(flat, reverse=True) and flat[0] - flat[-1] <= 1


@given(st.integers(0, 5000), st.integers(1, 5000), st.integers(1, 30), st.integers(1, 20))
def test_tail_atoms_are_dealt_to_the_last_two_frames(atoms, tail_atoms, stop, frames):
    dealt = timing.uniform_counts(atoms, tail_atoms, stop, frames)
    assert [len(row) for row in dealt] == [frames] * stop
    for part, total in (
        ([row[:-2] for row in dealt], atoms if frames > 2 else 0),
        ([row[-2:] for row in dealt], tail_atoms),
    ):
        flat = list(itertools.chain(*part))
        assert sum(flat) == total
        assert flat == sorted(flat, reverse=True) and (not flat or flat[0] - flat[-1] <= 1)


def test_without_coded_steps_no_atoms_are_dealt():
    assert timing.uniform_counts(0, 0, 0, 9) == []


COSTS = {
    "fixed length": lambda m: 15 * m,
    "subsets": lambda m: entropy.subset_bits(64, m) + m,
}


@pytest.mark.parametrize("cost", COSTS.values(), ids=COSTS)
@settings(deadline=None)
@given(
    st.integers(0, 30000), st.integers(1, 12), st.integers(1, 9), st.integers(1, 31), st.booleans()
)
def test_uniform_atoms_are_the_most_that_fit(cost, bits, stop, frames, most, tail):
    apart = min(2, frames) if tail else 0  # latent frames that count twice

    def split(n):
        at_tail = 2 * apart * n // (frames + apart)
        return n - at_tail, at_tail

    def spent(pair):
        return sum(cost(m) for m in itertools.chain(*timing.uniform_counts(*pair, stop, frames)))

    got = allocation.uniform_atoms(bits, stop, frames, cost, most, tail)
    dealt = list(itertools.chain(*timing.uniform_counts(*got, stop, frames)))
    assert got == split(sum(got)) and max(dealt) <= most
    assert spent(got) <= bits
    highest = stop * (frames + apart) * (most // 2 if tail else most)
    assert sum(got) == highest or spent(split(sum(got) + 1)) > bits


def test_a_frame_step_of_the_tail_gets_twice_the_atoms():
    front, tail = allocation.uniform_atoms(10**6, 10, 8, lambda m: 15 * m, 10**4, True)
    assert tail / (10 * 2) == pytest.approx(2 * front / (10 * 6), rel=0.01)


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
    for free in ([0, 1], [1]):
        both = [
            allocation.profile(denoise, path, s.sqrt() * x0, sign * eps, None, free)
            for sign in (1, -1)
        ]
        for root, *errors in zip(NODES, *(p.errors for p in both), strict=True):
            want = float((s / (root**2 * s + 1))[:, free].sum())
            assert sum(errors) / 2 == pytest.approx(want, rel=1e-6)


def test_a_profile_predicts_the_information_of_each_step():
    p, times = fading(100.0, 1.0), flow.schedule(20, 3)[:17]
    bits = p.bits(RF, times)
    assert len(bits) == 16
    for got, t, s in zip(bits, times, times[1:], strict=False):
        error = p.error((1 - t) / t)
        asked = ((1 - s) ** 2 / s**2 - (1 - t) ** 2 / t**2) * error / (2 * math.log(2))
        assert got == pytest.approx(allocation.BITS_PER_INFORMATION * asked, rel=1e-9)


@pytest.mark.parametrize("path", [RF, VP], ids=["rf", "vp"])
@settings(deadline=None, max_examples=30)
@given(st.floats(1, 1e4), st.floats(0.3, 1.5), st.floats(0.1, 0.9))
def test_the_slope_is_the_error_that_one_more_bit_takes_away(path, scale, fall, t):
    """By finite differences: bits of a short step, and how much less error there is after it."""
    p = Profile(tuple(scale * root**-fall for root in NODES))
    root = math.sqrt(flow.snr(path, t))
    times = [flow.time_of(path, root * f) for f in np.geomspace(0.99, 1.01, 20)]
    drop = p.error(0.99 * root) - p.error(1.01 * root)
    assert p.slope(path, t) == pytest.approx(drop / sum(p.bits(path, times)), rel=0.01)


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
        shift = allocation.solve_shift(profiles, path, 20, 4, bits)
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
    least = pacing._LEAST * len(asked) * len(asked[0]) + pacing._FIRST
    assert all(left >= 0 for _, left in run(predicted, asked, bits + least, atom_bits))


def test_matched_spends_all_but_an_atom_of_its_budget():
    """Where the profile is about right and a frame-step has 20 atoms or more; what is kept for
    writing the counts may be left too, and now and then the code word of a count that shrank."""
    rng, left = np.random.default_rng(1), []
    for _ in range(150):
        steps, frames, atom_bits = (int(rng.integers(*r)) for r in ((3, 17), (1, 10), (8, 25)))
        level = rng.uniform(5, 500) * rng.uniform(0.8, 1.6) ** np.arange(steps)
        asked = level[:, None] * rng.lognormal(0, 0.1, (steps, frames))
        predicted = allocation.BITS_PER_INFORMATION * asked.sum(1) * rng.lognormal(0, 0.3, steps)
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
    foretold = 25 / allocation.BITS_PER_INFORMATION
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
    target, lengths = allocation.steering(x0, h, None, RF, s)
    assert target.shape == (3, 4 * 5 * 6)
    for f in range(3):
        r = (x0 - h)[:, f].flatten()
        assert torch.equal(target[f], r)
        assert lengths[f] == pytest.approx(float(r @ r), rel=1e-5)
    same, equal = allocation.steering(x0, h, lambda r, snr: 7 * r, RF, s)
    assert torch.allclose(same, 7 * target) and equal == pytest.approx(lengths, rel=1e-5)

    def metric(r, snr):
        assert snr == pytest.approx(flow.snr(RF, s))
        return r * torch.tensor([0.0, 1.0, 2.0, 0.0])[:, None, None, None]

    weighted, less = allocation.steering(x0, h, metric, RF, s)
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
    assert allocation.steering(x0, x0, metric, RF, s)[1] == [0, 0, 0]
