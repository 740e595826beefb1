"""Bjontegaard rates, with what makes them doubtful, and intervals over clips."""

from __future__ import annotations

import itertools
import warnings
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from gvcc.errors import ConfigError

METHODS = ("pchip", "akima")
LEAST_OVERLAP = 0.5  # of the narrower curve's range of quality; below, a warning
Curve = Sequence[tuple[float, float]]
"""(rate, quality, higher is better) of one codec on one clip."""


@dataclass(frozen=True)
class Bd:
    """Rate of one codec over an anchor's at equal quality, in percent less (negative) or more; None
    if the curves cannot be compared. `interval` is a 95 % bootstrap interval over clips, `p_value`
    that of a paired test over them (sign_flips)."""

    percent: float | None
    interval: tuple[float, float] | None
    warnings: tuple[str, ...]
    p_value: float | None = None


def sign_flips(logs: Sequence[float], draws: int = 20000, seed: int = 0) -> float:
    """p of a paired permutation test, two sides, of a mean of 0: the share of all choices of signs
    whose mean is at least as far from 0. All of them for up to 14 values, else `draws` at random.
    With n values it is at least 2^(1 - n)."""
    x = np.array(logs)
    if len(x) <= 14:
        signs = np.array(list(itertools.product((-1, 1), repeat=len(x))))
        own = 0
    else:
        signs = np.random.default_rng(seed).choice((-1, 1), (draws, len(x)))
        own = 1  # what was seen is one of them
    far = np.abs(signs @ x) >= abs(x.sum()) * (1 - 1e-9) - 1e-12
    return float((far.sum() + own) / (len(signs) + own))


def clean(curve: Curve) -> list[tuple[float, float]]:
    """The points sorted by rate, of equal qualities or rates the cheaper, and without those that
    are no better than a cheaper one: what interpolation needs."""
    out: list[tuple[float, float]] = []
    for rate, quality in sorted(curve):
        if not out or quality > out[-1][1]:
            if out and rate == out[-1][0]:
                out.pop()
            out.append((rate, quality))
    return out


def bd_rate(anchor: Curve, test: Curve, method: str = "pchip") -> tuple[float | None, list[str]]:
    """BD-rate in percent of `test` over `anchor` on one clip, by the package `bjontegaard`, and
    warnings. `method`: pchip or akima."""
    try:
        import bjontegaard
    except ImportError:
        raise ConfigError("bjontegaard is missing: pip install 'gvcc[eval]'") from None
    said, curves = [], [clean(anchor), clean(test)]
    for name, curve, raw in zip(("anchor", "codec"), curves, (anchor, test), strict=True):
        if lost := len(set(raw)) - len(curve):
            said.append(f"the {name}'s curve is not monotone: {lost} left out")
        if twice := len(raw) - len(set(raw)):
            said.append(f"the {name} has one file for several rates: {twice} left out")
    least = 5 if method == "akima" else 2
    if min(map(len, curves)) < least:
        return None, [*said, f"fewer than {least} points"]
    if min(c[0][0] for c in curves) <= 0:  # has no logarithm
        return None, [*said, "not a finite number"]
    (low_a, high_a), (low_t, high_t) = ((c[0][1], c[-1][1]) for c in curves)
    shared = min(high_a, high_t) - max(low_a, low_t)
    if shared <= 0:
        return None, [*said, "the curves have no quality in common"]
    overlap = shared / min(high_a - low_a, high_t - low_t)
    if overlap < LEAST_OVERLAP:
        said.append(f"the curves overlap by only {overlap:.0%}")
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        rates = [[p[i] for p in c] for c in curves for i in (0, 1)]
        value = float(bjontegaard.bd_rate(
            *rates, method=method, require_matching_points=False, min_overlap=0
        ))  # fmt: skip
    return (value, said) if np.isfinite(value) else (None, [*said, "not a finite number"])


def over_clips(
    anchor: Mapping[str, Curve], test: Mapping[str, Curve], method: str = "pchip",
    draws: int = 2000, seed: int = 0,
) -> Bd:  # fmt: skip
    """The mean BD-rate over the clips that both have, in the logarithm of the ratio, and a paired
    bootstrap over these clips: each draw takes clips, with both their curves, anew."""
    logs, said = [], list[str]()
    for name in sorted(anchor.keys() & test.keys()):
        value, notes = bd_rate(anchor[name], test[name], method)
        said += [f"{name}: {n}" for n in notes]
        if value is not None:
            logs.append(np.log1p(value / 100))
    if not logs:
        return Bd(None, None, tuple(said))

    def percent(log: Any) -> float:
        return float(100 * np.expm1(log))

    if len(logs) < 3:
        said.append(f"{len(logs)} clips are too few for an interval")
        return Bd(percent(np.mean(logs)), None, tuple(said))
    rng = np.random.default_rng(seed)
    means = np.array(logs)[rng.integers(0, len(logs), (draws, len(logs)))].mean(1)
    low, high = np.quantile(means, (0.025, 0.975))
    within = percent(low), percent(high)
    return Bd(percent(np.mean(logs)), within, tuple(said), sign_flips(logs))


LOWER = ("lpips_alex", "lpips_vgg", "dists", "tof", "ewarp", "temporal_error", "fid_256", "kid_256")
"""Metrics that are better when lower."""


def curves(cells: Sequence[Mapping[str, Any]], metric: str) -> dict[str, list[tuple[float, float]]]:
    """Clip -> (bits per pixel, quality turned so that higher is better) of a codec's cells."""
    out: dict[str, list[tuple[float, float]]] = {}
    for c in cells:
        value = c.get("metrics", {}).get(metric)
        if value is not None:
            sign = -1 if metric in LOWER else 1
            out.setdefault(c["clip"], []).append((c["bits_per_pixel"], sign * value))
    return out


def matrix(
    codecs: Mapping[str, Sequence[Mapping[str, Any]]], metrics: Sequence[str]
) -> dict[str, Any]:
    """For each metric that two codecs have: by each of METHODS the BD-rate of each codec (row) over
    each (column), its interval, the p of a paired test over clips, and warnings."""
    names, out = list(codecs), dict[str, Any]()
    for metric in metrics:
        found = {n: curves(codecs[n], metric) for n in names}
        if sum(1 for c in found.values() if c) < 2:
            continue
        out[metric] = {"codecs": names}
        for method in METHODS:
            table = [[over_clips(found[b], found[a], method) for b in names] for a in names]
            out[metric][method] = {
                "rate_percent": [[c.percent for c in row] for row in table],
                "interval": [[c.interval for c in row] for row in table],
                "p_value": [[c.p_value for c in row] for row in table],
                "warnings": [[list(c.warnings) for c in row] for row in table],
            }
    return out
