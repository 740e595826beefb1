"""Bjontegaard rates, the warnings that go with them, and intervals over clips."""

from __future__ import annotations

import json
import math
import warnings

import bjontegaard
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from gvcc.errors import ConfigError
from gvcc.eval import bd
from gvcc.eval.bd import bd_rate, clean, curves, matrix, over_clips

Points = list[tuple[float, float]]
RATES = (0.02, 0.04, 0.08, 0.16, 0.3, 0.5)
CURVE: Points = [(r, 30 + 6 * math.log10(r / 0.02) ** 0.8) for r in RATES]


def times(factor: float, curve: Points = CURVE) -> Points:
    """A curve that needs `factor` times the rate at any quality."""
    return [(factor * r, q) for r, q in curve]


@st.composite
def rising(draw: st.DrawFn, least: int) -> Points:
    """A curve whose quality grows with its rate."""
    n = draw(st.integers(least, 8))
    steps = st.lists(st.floats(0.1, 1), min_size=n, max_size=n)
    rates, qualities = np.cumsum(draw(steps)), np.cumsum(draw(steps))
    scale, base = draw(st.floats(0.02, 1)), draw(st.floats(-0.5, 0.5))
    return [(float(scale * r), float(q + base)) for r, q in zip(rates, qualities, strict=True)]


# -- one clip ---------------------------------------------------------------------------------


@settings(max_examples=60, deadline=None)
@given(st.sampled_from(bd.METHODS), rising(5), rising(5), st.randoms())
def test_it_is_what_the_package_says(
    method: str, anchor: Points, test: Points, chance: object
) -> None:
    """In whatever order the points come, where the curves overlap enough."""
    (a, qa), (t, qt) = zip(*anchor, strict=True), zip(*test, strict=True)
    shared = min(qa[-1], qt[-1]) - max(qa[0], qt[0])
    mixed = [list(anchor), list(test)]
    for points in mixed:
        chance.shuffle(points)  # type: ignore[attr-defined]
    value, said = bd_rate(*mixed, method)
    if shared <= 0:
        assert value is None and said == ["the curves have no quality in common"]
        return
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        expected = bjontegaard.bd_rate(a, qa, t, qt, method=method, require_matching_points=False)
    assert value == pytest.approx(expected)
    assert bool(said) == (shared / min(qa[-1] - qa[0], qt[-1] - qt[0]) < bd.LEAST_OVERLAP)


@pytest.mark.parametrize("method", bd.METHODS)
@pytest.mark.parametrize("factor", [1, 0.5, 2, 0.93])
def test_a_multiple_of_the_rate_is_that_many_percent(method: str, factor: float) -> None:
    value, said = bd_rate(CURVE, times(factor), method)
    assert value == pytest.approx(100 * (factor - 1), abs=1e-9) and said == []


def test_by_hand() -> None:
    """Straight lines in log10 of the rate, which pchip keeps: 10 (q - 1) / 10 (q - 1) + log 2."""
    anchor = [(0.01, 1.0), (0.1, 2.0), (1.0, 3.0)]
    test = [(0.01, 1.0), (0.1, 1.5), (1.0, 2.0)]  # log10 of the rate is twice as far from -2
    # Over 1..2 the logs differ by (q - 1), 0.5 in the mean.
    assert bd_rate(anchor, test)[0] == pytest.approx(100 * (10**0.5 - 1))


def test_a_method_that_is_none() -> None:
    with pytest.raises(ValueError):
        bd_rate(CURVE, CURVE, "linear")


# -- curves that are doubtful -----------------------------------------------------------------


def test_points_that_are_no_better_than_a_cheaper_one_are_left_out() -> None:
    worse = [*CURVE, (0.1, CURVE[2][1] - 1)]
    assert clean(worse) == CURVE == clean(CURVE[::-1])
    value, said = bd_rate(CURVE, worse)
    assert value == pytest.approx(0, abs=1e-9)
    assert said == ["the codec's curve is not monotone: 1 left out"]
    value, said = bd_rate([*worse, (0.9, 0.0)], CURVE)
    assert said == ["the anchor's curve is not monotone: 2 left out"]


@pytest.mark.parametrize(
    ("points", "left"),
    [
        ([(1, 1), (1, 1)], [(1, 1)]),  # the same twice
        ([(1, 1), (2, 1), (3, 1)], [(1, 1)]),  # of equal qualities the cheapest
        ([(2, 1), (1, 1)], [(1, 1)]),
        ([(1, 1), (1, 2), (1, 3)], [(1, 3)]),  # of equal rates the best
        ([(0.5, 0), (1, 3), (1, 1), (2, 4)], [(0.5, 0), (1, 3), (2, 4)]),
        ([(1, 3), (2, 2), (3, 1)], [(1, 3)]),  # falling
        ([], []),
    ],
)
def test_clean(points: Points, left: Points) -> None:
    assert clean(points) == left


@given(st.lists(st.tuples(st.integers(1, 6), st.integers(0, 6))))
def test_clean_curves_rise_and_keep_the_best(points: list[tuple[int, int]]) -> None:
    left = clean(points)
    for (r, q), (s, p) in zip(left, left[1:], strict=False):
        assert r < s and q < p
    # The very points that no other is as cheap and as good as.
    best = {(r, q) for r, q in points
            if not any(s <= r and p >= q and (s, p) != (r, q) for s, p in points)}  # fmt: skip
    assert set(left) == best


@pytest.mark.parametrize(
    ("anchor", "test", "method", "says"),
    [
        (CURVE[:1], CURVE, "pchip", "fewer than 2 points"),
        (CURVE, [], "pchip", "fewer than 2 points"),
        (CURVE, CURVE[:4], "akima", "fewer than 5 points"),
        (CURVE, [(r, q + 99) for r, q in CURVE], "pchip", "the curves have no quality in common"),
        (CURVE[:3], CURVE[2:], "pchip", "the curves have no quality in common"),  # only a point
        ([(0.0, 29.0), *CURVE], CURVE, "pchip", "not a finite number"),
        ([(-1.0, 29.0), *CURVE], CURVE, "pchip", "not a finite number"),
    ],
)
def test_curves_that_cannot_be_compared(
    anchor: Points, test: Points, method: str, says: str
) -> None:
    value, said = bd_rate(anchor, test, method)
    assert value is None and said[-1] == says
    assert over_clips({"a": anchor}, {"a": test}, method) == bd.Bd(None, None, (f"a: {says}",))


def test_points_lost_to_cleaning_count_as_lost() -> None:
    value, said = bd_rate(CURVE, [(1, 30.5), (2, 30.5), (3, 30.2)])
    assert value is None
    assert said == ["the codec's curve is not monotone: 2 left out", "fewer than 2 points"]


@pytest.mark.parametrize(("up", "share"), [(0.0, None), (0.49, None), (0.51, 49), (0.9, 10)])
def test_little_overlap_is_told_of(up: float, share: int | None) -> None:
    """Of the narrower curve's range."""
    anchor = [(0.1, 0.0), (1.0, 1.0)]
    value, said = bd_rate(anchor, [(0.1, up), (1.0, up + 1)])
    assert value == pytest.approx(100 * (10**-up - 1))
    assert said == ([] if share is None else [f"the curves overlap by only {share}%"])
    wide = [(1e-9, up - 20), (0.1, up), (1.0, up + 1)]
    assert bd_rate(anchor, wide)[1] == []  # all of the narrower


# -- many clips -------------------------------------------------------------------------------


def test_the_mean_is_of_logarithms_over_the_clips_that_both_have() -> None:
    anchor = {n: CURVE for n in "abcd"}
    found = over_clips(anchor, {"a": times(0.5), "b": times(2), "x": times(9)})
    assert found.percent == pytest.approx(0, abs=1e-9) and found.interval is None
    assert found.warnings == ("2 clips are too few for an interval",)
    found = over_clips(anchor, {"a": times(0.5), "b": times(0.5), "c": times(0.5), "d": [(1, 1)]})
    assert found.percent == pytest.approx(-50) and found.interval is not None
    assert found.warnings == ("d: fewer than 2 points",)
    assert over_clips(anchor, {}) == bd.Bd(None, None, ())


def spread(logs: np.ndarray) -> tuple[dict[str, Points], dict[str, Points]]:
    """Clips of very different curves, and a codec that needs exp(log) times as much on each."""
    anchor, test = {}, {}
    for i, log in enumerate(logs):
        anchor[f"c{i:03}"] = [(r * 1.5**i, q - i) for r, q in CURVE]
        test[f"c{i:03}"] = times(math.exp(log), anchor[f"c{i:03}"])
    return anchor, test


def test_the_interval_covers_the_mean_and_narrows_with_clips() -> None:
    rng = np.random.default_rng(1)
    logs = rng.normal(-0.2, 0.3, 8)
    one = over_clips(*spread(logs))
    assert one.percent == pytest.approx(100 * math.expm1(logs.mean())) and one.interval
    assert one.interval[0] < one.percent < one.interval[1]
    assert over_clips(*spread(logs)) == one  # the same draws each time
    other = over_clips(*spread(logs), seed=1)
    assert other.percent == one.percent and other.interval != one.interval
    assert other.interval == pytest.approx(one.interval, abs=3)
    # The same eight clips four times: half as wide.
    many = over_clips(*spread(np.tile(logs, 4)))
    assert many.percent == pytest.approx(one.percent) and many.interval
    low, high = (np.log1p(np.array(b.interval) / 100) for b in (one, many))
    assert np.diff(high)[0] == pytest.approx(np.diff(low)[0] / 2, rel=0.1)
    # About as wide as theory has it: 2 * 1.96 standard errors.
    assert np.diff(low)[0] == pytest.approx(3.92 * logs.std() / 8**0.5, rel=0.1)


def test_it_is_paired() -> None:
    """Clips that differ by far more than the codecs do: a constant ratio has no width."""
    found = over_clips(*spread(np.full(5, math.log(0.8))))
    assert found.percent == pytest.approx(-20)
    assert found.interval == pytest.approx((-20, -20))


def test_the_interval_covers_the_truth_as_often_as_it_says() -> None:
    rng, hits = np.random.default_rng(5), 0
    anchor = {f"c{i:02}": CURVE for i in range(20)}
    for seed in range(60):
        test = {n: times(math.exp(rng.normal(-0.1, 0.2))) for n in anchor}
        found = over_clips(anchor, test, draws=400, seed=seed)
        assert found.interval
        hits += found.interval[0] < 100 * math.expm1(-0.1) < found.interval[1]
    assert 50 <= hits <= 60  # 95 % would be 57; a bootstrap of 20 has a little less


# -- tables -----------------------------------------------------------------------------------


def result(clip: str, rate: float, **values: float | None) -> dict:
    return {"clip": clip, "bits_per_pixel": rate, "metrics": values}


def codec(factor: float, only: tuple[str, ...] = ("vmaf", "dists"), clips: int = 3) -> list[dict]:
    """Cells of a codec whose rates are `factor` times CURVE's; `dists` falls where it gets good."""
    return [
        result(f"clip{i}", r * 1.3**i,
               **{k: {"vmaf": q, "dists": (40 - q) / 50}[k] for k in only})
        for i in range(clips) for r, q in times(factor)
    ]  # fmt: skip


def test_one_file_for_several_rates_is_no_break_of_order() -> None:
    value, said = bd_rate([CURVE[0], *CURVE], times(2))
    assert value == pytest.approx(100)
    assert said == ["the anchor has one file for several rates: 1 left out"]


def test_metrics_that_are_better_when_lower_are_turned() -> None:
    cells = [result("a", 0.1, dists=0.3, vmaf=50.0), result("a", 0.2, dists=0.1, vmaf=None)]
    assert curves(cells, "dists") == {"a": [(0.1, -0.3), (0.2, -0.1)]}
    assert curves(cells, "vmaf") == {"a": [(0.1, 50.0)]}
    assert curves([{"clip": "a", "bits_per_pixel": 1}], "vmaf") == {}
    from gvcc.eval import every

    assert set(bd.LOWER) <= {*every.NAMES, *every.SET_NAMES}
    better_high = {n for n in every.NAMES if "psnr" in n or n in ("ms_ssim", "vmaf", "vmaf_neg")}
    known = {"temporal_activity_ratio"}  # neither
    assert {*every.NAMES, *every.SET_NAMES} - set(bd.LOWER) - better_high == known


def test_the_table_of_codecs() -> None:
    codecs = {"x": codec(1), "half": codec(0.5), "other": codec(1.7)}
    found = matrix(codecs, ("vmaf", "dists", "ms_ssim"))
    assert list(found) == ["vmaf", "dists"]  # no codec has MS-SSIM
    for metric in found.values():
        assert list(metric) == ["codecs", *bd.METHODS]
        assert metric["codecs"] == ["x", "half", "other"]
    for table in (metric[m] for metric in found.values() for m in bd.METHODS):
        rates = np.array(table["rate_percent"])
        assert rates.shape == (3, 3) and np.allclose(np.diag(rates), 0)
        # Row over column: half over x is -50 %.
        assert rates[1, 0] == pytest.approx(-50) and rates[0, 1] == pytest.approx(100)
        assert np.allclose((1 + rates / 100) * (1 + rates.T / 100), 1)
        assert np.array(table["interval"]).shape == (3, 3, 2)
        assert table["warnings"] == [[[]] * 3] * 3
    again = json.loads(json.dumps(found, allow_nan=False))
    assert again["vmaf"]["akima"]["rate_percent"] == found["vmaf"]["akima"]["rate_percent"]
    short = {n: [c for c in cs if c["clip"] != "clip0"][:4] for n, cs in codecs.items()}
    few = matrix(short, ("vmaf",))["vmaf"]
    assert few["pchip"]["rate_percent"][1][0] == pytest.approx(-50)
    assert few["akima"]["rate_percent"][1][0] is None
    assert few["akima"]["warnings"][1][0] == ["clip1: fewer than 5 points"]


def test_a_codec_without_a_metric_has_empty_places() -> None:
    codecs = {"x": codec(1), "y": codec(2, ("vmaf",)), "z": codec(2), "failed": []}
    table = matrix(codecs, ("dists",))["dists"]["pchip"]
    assert table["rate_percent"][2][0] == pytest.approx(100)
    assert [table["rate_percent"][n][0] for n in (1, 3)] == [None, None]
    assert table["interval"][0][1] is None and table["rate_percent"][3][3] is None
    json.dumps(table, allow_nan=False)
    assert matrix({"x": codec(1), "y": codec(2, ("vmaf",))}, ("dists",)) == {}  # nothing to compare
    few = matrix({"x": codec(1, clips=2), "y": codec(2, clips=2)}, ("vmaf",))["vmaf"]["pchip"]
    assert few["warnings"][0][1] == ["2 clips are too few for an interval"]


def test_without_the_package(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(__import__("sys").modules, "bjontegaard", None)
    with pytest.raises(ConfigError, match=r"bjontegaard is missing: pip install 'gvcc\[eval\]'"):
        bd_rate(CURVE, CURVE)
