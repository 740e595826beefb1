"""Target qualities, and the rate-quality curve that Adaptive Quality Control learns as it goes.

Free-GVC (arXiv 2602.09868) predicts where a GOP must stop by a surrogate of quality against rate
that is kept up to date from GOP to GOP. Its form is not published; the forms and the choice between
them are ours.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from fractions import Fraction
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from gvcc.errors import ConfigError, unknown
from gvcc.metrics import metrics, perceptual

Frames = NDArray[np.uint8]
Floats = NDArray[np.float64]


class QualityMetric(NamedTuple):
    """A measure of two clips [T,H,W,3] at a rate; how near to its target a GOP must come, and the
    range of a target. `sign` is -1 where lower is better."""

    measure: Callable[[Frames, Frames, Fraction], float | None]
    tolerance: float
    low: float
    high: float
    sign: int = 1


METRICS: dict[str, QualityMetric] = {
    "psnr": QualityMetric(lambda ref, out, fps: metrics.psnr(ref, out), 0.2, 5, 60),
    "ms-ssim": QualityMetric(lambda ref, out, fps: metrics.ms_ssim(ref, out), 0.004, 0.1, 0.999),
    "vmaf": QualityMetric(metrics.vmaf, 1.0, 1, 99),
    "lpips": QualityMetric(lambda ref, out, fps: perceptual.lpips(ref, out), 0.01, 0.001, 1, -1),
    "dists": QualityMetric(lambda ref, out, fps: perceptual.dists(ref, out), 0.01, 0.001, 1, -1),
}


@dataclass(frozen=True)
class Goal:
    """A quality that every GOP should have. `value` and what `measure` finds are turned so that
    higher is better; `shown` turns them back."""

    name: str
    value: float

    @property
    def tolerance(self) -> float:
        return METRICS[self.name].tolerance

    def measure(self, ref: Frames, out: Frames, fps: Fraction) -> float:
        """The quality of `out`; ConfigError where it is not defined for clips of this size, or
        its weights are not here."""
        found = METRICS[self.name].measure(ref, out, fps)
        if found is None:
            height, width = ref.shape[1:3]
            raise ConfigError(f"{self.name} is not defined for pictures of {width}x{height}")
        return METRICS[self.name].sign * found

    def shown(self, quality: float) -> float:
        """A quality as the metric has it."""
        return METRICS[self.name].sign * quality


def goal(text: str) -> Goal:
    """A goal from "vmaf:60"; ConfigError if it is none, or out of range."""
    name, _, number = text.partition(":")
    if name not in METRICS:
        raise unknown("quality metric", name, METRICS)
    try:
        value = float(number)
    except ValueError:
        raise ConfigError(f"quality {text!r}: expected {name}:NUMBER") from None
    if not METRICS[name].low <= value <= METRICS[name].high:
        low, high = METRICS[name].low, METRICS[name].high
        raise ConfigError(f"quality {name} is {value}, expected {low} to {high}")
    return Goal(name, METRICS[name].sign * value)


class Sample(NamedTuple):
    """A probe: bits per pixel, quality, weight."""

    rate: float
    quality: float
    weight: float


class Curve(NamedTuple):
    """quality = a + b f(rate), f by the name of the form; `shape` is f's own parameter."""

    form: str
    shape: float
    a: float
    b: float

    def quality(self, rate: float) -> float:
        return self.a + self.b * float(_basis(self.form, self.shape, np.array([rate]))[0])

    def rate(self, quality: float) -> float:
        """The rate of a quality; infinite, or 0, where the curve never reaches it."""
        if self.b == 0:
            return math.inf
        y = (quality - self.a) / self.b
        if self.form == "log":
            return math.exp(min(y, 50.0))
        if self.form == "power":  # -r^-shape, below 0
            return math.inf if y >= 0 else (-y) ** (-1 / self.shape)
        return math.inf if y >= 0 else max(0.0, -math.log(-y) / self.shape)


_SHAPES = {
    "log": (0.0,),
    "power": (0.25, 0.5, 1.0, 2.0),
    "exponential": (5.0, 10.0, 20.0, 40.0, 80.0),
}
FORMS = tuple(_SHAPES)
"""a + b ln r, a - b r^-c and a - b exp(-c r)."""


def _basis(form: str, shape: float, rate: Floats) -> Floats:
    if form == "log":
        return np.log(rate)
    out: Floats = -(rate**-shape) if form == "power" else -np.exp(-shape * rate)
    return out


def fit(form: str, samples: Sequence[Sample]) -> tuple[Curve, float]:
    """The curve of a form through samples, by weighted least squares, with b >= 0; and the root
    mean square of what it misses a sample by if that is left out (infinite below four samples)."""
    r, p, w = (np.array(v, dtype=np.float64) for v in zip(*samples, strict=True))
    best: tuple[Curve, float, float] | None = None
    for shape in _SHAPES[form]:
        f = _basis(form, shape, r)
        curve = _line(form, shape, f, p, w)
        squares = float((w * (curve.a + curve.b * f - p) ** 2).sum())
        left_out = math.inf
        if len(r) > 3:
            missed = []
            for i in range(len(r)):
                keep = np.arange(len(r)) != i
                other = _line(form, shape, f[keep], p[keep], w[keep])
                missed.append(w[i] * (other.a + other.b * f[i] - p[i]) ** 2)
            left_out = math.sqrt(sum(missed) / w.sum())
        if best is None or (left_out, squares) < best[1:]:
            best = curve, left_out, squares
    assert best is not None
    return best[0], best[1]


def _line(form: str, shape: float, f: Floats, p: Floats, w: Floats) -> Curve:
    mean_f, mean_p = (w * f).sum() / w.sum(), (w * p).sum() / w.sum()
    spread = (w * (f - mean_f) ** 2).sum()
    b = max(0.0, float((w * (f - mean_f) * (p - mean_p)).sum() / spread)) if spread > 0 else 0.0
    return Curve(form, shape, float(mean_p - b * mean_f), b)


class Surrogate:
    """Quality against rate, from the probes of this GOP and of those before it, the weight of each
    0.8^age."""

    FADE, OLDEST = 0.8, 8

    def __init__(self) -> None:
        self._probes: list[tuple[int, float, float]] = []  # age, bits per pixel, quality

    def add(self, rate: float, quality: float) -> None:
        """A probe of the GOP under way."""
        self._probes.append((0, max(rate, 1e-6), quality))

    def next_gop(self) -> None:
        """The probes so far are of GOPs before."""
        older = ((age + 1, r, p) for age, r, p in self._probes)
        self._probes = [probe for probe in older if probe[0] <= self.OLDEST]

    def curve(self) -> Curve | None:
        """The form with the least leave-one-out error; None before two rates have been probed."""
        if len({r for _, r, _ in self._probes}) < 2:
            return None
        samples = [Sample(r, p, self.FADE**age) for age, r, p in self._probes]
        fits = [fit(form, samples) for form in FORMS]
        return min(fits, key=lambda found: found[1])[0]
