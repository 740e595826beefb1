"""Target qualities, and the curve that is learned: what it recovers, chooses and forgets."""

import dataclasses
import math
from fractions import Fraction

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from gvcc.errors import ConfigError
from gvcc.metrics import metrics
from gvcc.search import quality
from gvcc.search.quality import Curve, Goal, Sample, Surrogate, fit, goal

RATES = (0.004, 0.01, 0.02, 0.05, 0.1, 0.2)
CURVES = [
    Curve("log", 0.0, 38.0, 2.5), Curve("power", 0.5, 45.0, 1.2), Curve("power", 0.25, 60.0, 9.0),
    Curve("exponential", 20.0, 0.97, 0.2), Curve("exponential", 80.0, 90.0, 50.0),
]  # fmt: skip


def truth(curve, r):
    """By hand: a + b ln r, a - b r^-c, a - b exp(-c r)."""
    return {
        "log": curve.a + curve.b * math.log(r), "power": curve.a - curve.b * r**-curve.shape,
        "exponential": curve.a - curve.b * math.exp(-curve.shape * r),
    }[curve.form]  # fmt: skip


# -- goals ------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("text", "want", "tolerance"),
    [("vmaf:60", ("vmaf", 60), 1), ("psnr:28.5", ("psnr", 28.5), 0.2),
     ("ms-ssim:.95", ("ms-ssim", 0.95), 0.004)],
)  # fmt: skip
def test_goals(text, want, tolerance):
    got = goal(text)
    assert dataclasses.astuple(got) == want and got.tolerance == tolerance


@pytest.mark.parametrize(
    ("text", "says"),
    [
        ("vmag:60", "did you mean 'vmaf'"), ("", "quality metric"), ("lpips:0", "lpips is 0.0"),
        ("vmaf", "expected vmaf:NUMBER"), ("vmaf:", "expected vmaf:NUMBER"),
        ("vmaf:sixty", "expected vmaf:NUMBER"), ("psnr:4", "psnr is 4.0, expected 5 to 60"),
        ("psnr:61", "psnr is 61.0"), ("psnr:nan", "psnr is nan"), ("psnr:inf", "psnr is inf"),
        ("ms-ssim:1", "ms-ssim is 1.0, expected 0.1 to 0.999"), ("vmaf:-3", "vmaf is -3.0"),
    ],
)  # fmt: skip
def test_goals_that_are_none(text, says):
    with pytest.raises(ConfigError, match=says):
        goal(text)


def test_a_goal_measures_as_compare_does_and_says_where_it_cannot():
    rng = np.random.default_rng(1)
    ref = rng.integers(0, 256, (3, 192, 176, 3), np.uint8)
    out = (ref // 2 + 60).astype(np.uint8)
    assert Goal("psnr", 30).measure(ref, out, Fraction(25)) == metrics.psnr(ref, out)
    assert Goal("ms-ssim", 0.9).measure(ref, out, Fraction(25)) == metrics.ms_ssim(ref, out)
    small = ref[:, :64, :48]
    with pytest.raises(ConfigError, match="ms-ssim is not defined for pictures of 48x64"):
        Goal("ms-ssim", 0.9).measure(small, small, Fraction(25))


# -- curves -----------------------------------------------------------------------------------


@pytest.mark.parametrize("curve", CURVES)
def test_a_form_recovers_its_own_curve(curve):
    samples = [Sample(r, truth(curve, r), w) for r, w in zip(RATES, (1, 0.8, 1, 0.5, 1, 0.3),
                                                             strict=True)]  # fmt: skip
    got, missed = fit(curve.form, samples)
    assert (got.form, got.shape) == (curve.form, curve.shape)
    assert (got.a, got.b) == pytest.approx((curve.a, curve.b), rel=1e-6)
    assert missed < 1e-6 * curve.a
    for r in (0.003, 0.03, 0.3):
        assert got.quality(r) == pytest.approx(truth(curve, r), rel=1e-6)


@pytest.mark.parametrize("curve", CURVES)
def test_the_form_is_chosen_by_what_is_left_out(curve):
    """Against the other forms, with noise of a hundredth of the range."""
    hits = 0
    spread = truth(curve, RATES[-1]) - truth(curve, RATES[0])
    for seed in range(20):
        noise = np.random.default_rng(seed).normal(0, 0.01 * spread, len(RATES))
        surrogate = Surrogate()
        for r, e in zip(RATES, noise, strict=True):
            surrogate.add(r, truth(curve, r) + e)
        hits += surrogate.curve().form == curve.form
    assert hits >= 14


@given(st.sampled_from(CURVES), st.floats(0.001, 0.3))
def test_the_rate_of_a_quality_is_where_the_curve_has_it(curve, r):
    assert curve.rate(curve.quality(r)) == pytest.approx(r, rel=1e-4)


def test_rates_that_a_curve_never_reaches():
    log, power, exponential = CURVES[0], CURVES[1], CURVES[3]
    assert power.rate(45.0) == power.rate(99) == exponential.rate(0.98) == math.inf
    assert exponential.rate(0.1) == 0 and 0 < power.rate(-1e9) < 1e-9
    assert log.rate(1e9) > 1e20 and log.rate(-1e9) == 0
    assert Curve("log", 0.0, 30.0, 0.0).rate(30) == math.inf  # flat: more bits do nothing


def test_more_bits_are_never_thought_to_be_worse():
    for form in quality.FORMS:
        got = fit(form, [Sample(r, -r, 1.0) for r in RATES])[0]
        assert got.b == 0 and got.a == pytest.approx(-np.mean(RATES))


@pytest.mark.parametrize("form", quality.FORMS)
def test_what_a_sample_left_out_is_missed_by(form):
    """Against numpy's weighted least squares for the best of the form's shapes."""
    rng = np.random.default_rng(3)
    samples = [Sample(r, 40 + 3 * math.log(r) + rng.normal(0, 0.5), w)
               for r, w in zip(RATES, (1, 0.8, 0.64, 1, 0.8, 1), strict=True)]  # fmt: skip
    got, missed = fit(form, samples)
    r, p, w = (np.array(v) for v in zip(*samples, strict=True))
    basis = {"log": np.log(r), "power": -(r ** -(got.shape or 1)),
             "exponential": -np.exp(-got.shape * r)}[form]  # fmt: skip
    errors = []
    for i in range(len(r)):
        keep = np.arange(len(r)) != i
        b, a = np.polyfit(basis[keep], p[keep], 1, w=np.sqrt(w[keep]))
        assert b > 0
        errors.append(w[i] * (a + b * basis[i] - p[i]) ** 2)
    assert missed == pytest.approx(math.sqrt(sum(errors) / sum(w)), rel=1e-6)
    b, a = np.polyfit(basis, p, 1, w=np.sqrt(w))
    assert (got.a, got.b) == pytest.approx((a, b), rel=1e-6)
    assert fit(form, samples[:3])[1] == math.inf


# -- what is kept -----------------------------------------------------------------------------


def test_there_is_no_curve_before_two_rates():
    surrogate = Surrogate()
    assert surrogate.curve() is None
    surrogate.add(0.05, 30)
    surrogate.add(0.05, 31)
    assert surrogate.curve() is None
    surrogate.add(0.1, 32)
    assert surrogate.curve().quality(0.1) > surrogate.curve().quality(0.05)


def test_probes_fade_and_are_forgotten():
    """Two GOPs at odds: their mean weighs the newer one, by 0.8 for each GOP between."""
    for age in (1, 3, 8):
        surrogate = Surrogate()
        surrogate.add(0.05, 20.0)
        for _ in range(age):
            surrogate.next_gop()
        surrogate.add(0.05, 30.0)
        surrogate.add(0.1, 33.0)
        curve = surrogate.curve()
        weight = 0.8**age
        assert curve.quality(0.05) == pytest.approx((20 * weight + 30) / (1 + weight), abs=0.01)
    surrogate = Surrogate()
    surrogate.add(0.05, 20.0)
    surrogate.add(0.1, 25.0)
    for _ in range(8):
        surrogate.next_gop()
    assert surrogate.curve() is not None
    surrogate.next_gop()
    assert surrogate.curve() is None
