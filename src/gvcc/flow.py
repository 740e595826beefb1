"""Gaussian paths, schedules, step rules, and the one sampling loop of the package.

Legend: t runs from 1 (noise) to 0 (clean); x_t = alpha_t x0 + sigma_t eps; SNR = (alpha/sigma)^2;
h = x0hat(x_t, t) is the denoiser's output; s < t is the next time; rho = SNR_t / SNR_s. Every rule
is linear, x_s = A x_t + B h + C z with z the step's noise, so a rule is three numbers.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from typing import NamedTuple, Protocol

from torch import Tensor

from gvcc.errors import ConfigError

Path = Callable[[float], tuple[float, float]]
PATHS: dict[str, Path] = {
    "rf": lambda t: (1.0 - t, t),
    "vp": lambda t: (math.cos(math.pi / 2 * t), math.sin(math.pi / 2 * t)),
}
"""(alpha, sigma) at time t: rectified flow, and variance preserving with a cosine angle."""

RULES = ("em", "ou", "posterior")


class Step(NamedTuple):
    """x_s = A x_t + B h + C z."""

    a: float
    b: float
    c: float


def schedule(steps: int, shift: float) -> list[float]:
    """steps + 1 times from 1 to 0: t_i = shift tau / (1 + (shift - 1) tau), tau = 1 - i/steps."""
    taus = [1 - i / steps for i in range(steps + 1)]
    return [shift * tau / (1 + (shift - 1) * tau) for tau in taus]


def snr(path: Path, t: float) -> float:
    """(alpha_t / sigma_t)^2; infinite at t = 0."""
    alpha, sigma = path(t)
    return math.inf if sigma == 0 else (alpha / sigma) ** 2


def time_of(path: Path, root_snr: float) -> float:
    """The t with sqrt(SNR_t) = root_snr, by bisection."""
    low, high = 0.0, 1.0
    for _ in range(50):
        t = (low + high) / 2
        low, high = (t, high) if snr(path, t) > root_snr**2 else (low, t)
    return (low + high) / 2


def information(path: Path, t: float, s: float, error: float) -> float:
    """Bits that the exact posterior step t -> s carries when |x0 - h|^2 = error.

    The step's noise is N(mu, I) given x0 and N(0, I) without, |mu|^2 = (SNR_s - SNR_t) error; the
    Kullback-Leibler divergence is |mu|^2 / 2 nats.
    """
    return (snr(path, s) - snr(path, t)) * error / (2 * math.log(2))


def noisy_step(rule: str, path: Path, t: float, s: float, g_scale: float) -> Step:
    """The stochastic step t -> s > 0.

    `em`: Euler-Maruyama with g = g_scale t^2 as published for GVCC (arXiv 2603.26571); leaves too
    much noise at these step sizes. `ou`: the exact solution for the same g with h held fixed.
    `posterior`: q(x_s | x_t, x0 = h), exact for any path, and the variance that costs the least
    information. `em` and `ou` are defined for rectified flow only (ConfigError).
    """
    (alpha_t, sigma_t), (alpha_s, sigma_s) = path(t), path(s)
    if rule == "posterior":
        rho = snr(path, t) / snr(path, s)
        return Step(
            alpha_t * sigma_s**2 / (alpha_s * sigma_t**2),
            alpha_s * (1 - rho),
            sigma_s * math.sqrt(1 - rho),
        )
    if path is not PATHS["rf"]:
        raise ConfigError(f"step rule {rule!r} is defined for rectified flow only; use 'posterior'")
    if rule == "ou":
        r = math.exp(-(g_scale**2) * (t**3 - s**3) / 6)
        a = s * r / t
        return Step(a, (1 - s) - (1 - t) * a, s * math.sqrt(1 - r * r))
    if rule == "em":
        dt, g = t - s, g_scale * t * t
        drift = (1 + g * g / (2 * t)) / t  # of eps = (x - (1-t) h)/t, per unit of x
        return Step(1 - dt * drift, dt * (1 + drift * (1 - t)), g * math.sqrt(dt))
    raise ConfigError(f"unknown step rule {rule!r}; known: {', '.join(RULES)}")


def ode_step(path: Path, t: float, s: float, knob: float) -> Step:
    """The deterministic step t -> s >= 0 with h held fixed, and the decoder's knob k.

    dx/dt = v + (k-1)(x/(1-t) - h)/t for rectified flow; with d = x - alpha h its solution is
    d_s = d_t (sigma_s/sigma_t) rho^((k-1)/2), which holds for any path. k = 1 is the probability
    flow (realism), k = 2 goes to the conditional mean (fidelity).
    """
    (alpha_t, sigma_t), (alpha_s, sigma_s) = path(t), path(s)
    if s == 0:
        return Step(0.0, alpha_s, 0.0)
    rho = snr(path, t) / snr(path, s)
    shrink = 1.0 if knob == 1 else rho ** ((knob - 1) / 2)  # 0 ** 0 at t = 1 is not wanted
    a = sigma_s / sigma_t * shrink
    return Step(a, alpha_s - alpha_t * a, 0.0)


class Noise(Protocol):
    """Where a step's noise comes from: the only thing in which encoder and decoder differ."""

    def __call__(self, step: int, t: float, s: float, x0hat: Tensor) -> Tensor | None:
        """z for step number `step` from t to s, shaped like x0hat; None makes it an ODE step."""
        ...


def sample(
    denoise: Callable[[Tensor, float], Tensor],
    x: Tensor,
    times: Sequence[float],
    noise: Noise,
    *,
    rule: str,
    path: Path,
    g_scale: float = 3.0,
    knob: float = 1.0,
    multistep: bool = False,
    observe: Callable[[int, Tensor], None] | None = None,
) -> Tensor:
    """Integrate x from times[0] to times[-1]; returns the last x.

    `denoise(x, t)` returns x0hat. `multistep` makes ODE steps second order at no further call:
    h is extrapolated from the step before (the data-prediction 2M rule of DPM-Solver++, Lu et al.
    2022, eq. 12); only between ODE steps, since a noisy step breaks the trajectory, and not into
    s = 0, where log SNR is infinite. `observe(i, x)` is called after step i.
    """
    before: tuple[Tensor, float] | None = None  # h and lambda of the last ODE step
    for i, (t, s) in enumerate(zip(times, times[1:], strict=False)):
        h = denoise(x, t)
        z = noise(i, t, s, h)
        if z is None:
            step = ode_step(path, t, s, knob)
            lam = 0.5 * math.log(snr(path, t)) if t < 1 else -math.inf
            target = h
            if multistep and before is not None and s > 0 and math.isfinite(before[1]):
                ratio = (lam - before[1]) / (0.5 * math.log(snr(path, s)) - lam)
                target = h + (h - before[0]) / (2 * ratio)
            x = step.a * x + step.b * target
            before = (h, lam)
        else:
            step = noisy_step(rule, path, t, s, g_scale)
            x = step.a * x + step.b * h + step.c * z
            before = None
        if observe is not None:
            observe(i, x)
    return x
