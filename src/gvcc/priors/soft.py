"""A coarse version of a GOP's pictures as a soft condition: the denoiser given x_t and the base.

Legend: y = x0 + e is the latent of the base's pictures, e ~ N(0, S), S per channel. V_t is the
variance of x0 around h = x0hat(x_t, t). Given both,

    h' = (S h + V_t y) / (S + V_t),

exact for a Gaussian prior where S and V_t are diagonal (`gauss`: in frequency). A trajectory begins
at a time t_b < 1 from the law of x_t given y: with m = V_1 y / (S + V_1) and 1/P = 1/V_1 + 1/S,

    x = alpha m + sqrt(alpha^2 P + sigma^2) eps,

so that (x_t, y) are drawn from their joint law and nothing is counted twice.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING, NamedTuple

import torch

from gvcc import flow
from gvcc.format.base import GRID, variance, variance_code
from gvcc.priors import unchanged

if TYPE_CHECKING:
    from torch import Tensor

    from gvcc.priors import Condition, Prior

Variance = Callable[[float], "Tensor"]
"""V_t by time, [C,1,1,1] or [C,F,h,w]."""
_TELLS = 4  # a trajectory begins where V_t is so many times S: earlier x0hat says next to nothing


class SoftBase(NamedTuple):
    """The base of a GOP: its latent y [C,F,h,w], the variances S of its error [C], the time at
    which a trajectory begins, and the prior's V_t."""

    latent: Tensor
    errors: Tensor
    start: float
    variances: Variance


def over(
    condition: Condition, base: SoftBase | None, path: flow.Path,
    forward: Callable[[Tensor], Tensor] = unchanged,
    inverse: Callable[[Tensor], Tensor] = unchanged,
) -> Condition:  # fmt: skip
    """The condition given the base as well, if there is one. `forward` and `inverse` are an
    orthonormal transform in which the prior's variances are diagonal."""
    if base is None:
        return condition
    y, s, variances = forward(base.latent), base.errors[:, None, None, None], base.variances

    def denoise(x: Tensor, t: float) -> Tensor:
        v = variances(t)
        return inverse((s * forward(condition.denoise(x, t)) + v * y) / (s + v))

    def begin(eps: Tensor) -> Tensor:
        v, (alpha, sigma) = variances(1.0), path(base.start)
        spread = (alpha**2 * v * s / (v + s) + sigma**2).sqrt()
        return inverse(alpha * v * y / (s + v) + spread * forward(eps))

    return condition._replace(denoise=denoise, start=base.start, begin=begin)


def table(codes: Sequence[int], path: flow.Path, device: torch.device | str) -> Variance:
    """V_t as a header has it (Header.variances): 1 / V_t = 1 / v + 1 / u_t, v of each channel and u
    at the SNRs of GRID, linear in the logarithms between them and as 1 / SNR beyond. With v = 1 and
    u = 1 / SNR it is that of independent latents of variance 1."""
    logs = [math.log2(variance(c)) for c in codes[: len(GRID)]]
    own = torch.tensor([variance(c) for c in codes[len(GRID) :]], device=device)
    own = own[:, None, None, None]

    def at(t: float) -> Tensor:
        alpha, sigma = path(t)
        if alpha <= 0:
            return own
        x = 2 * math.log2(alpha / max(sigma, 1e-9))
        if x <= GRID[0]:
            log = logs[0] + GRID[0] - x
        elif x >= GRID[-1]:
            log = logs[-1] + GRID[-1] - x
        else:
            i = max(i for i, g in enumerate(GRID) if g <= x)
            share = (x - GRID[i]) / (GRID[i + 1] - GRID[i])
            log = logs[i] + share * (logs[i + 1] - logs[i])
        out: Tensor = 1 / (1 / own + 2.0**-log)
        return out

    return at


def usual(channels: int) -> tuple[int, ...]:
    """The codes for a prior of which nothing is measured: independent latents of variance 1, which
    is more than any network leaves, so that the base counts for more than it should."""
    return (*(variance_code(2.0**-g) for g in GRID), *[variance_code(1.0)] * channels)


def fitted(measured: Tensor) -> tuple[int, ...]:
    """The codes of variances measured at the SNRs of GRID, [SNRs, C]: v a little above those at the
    lowest SNR, u by least squares of the logarithms."""
    values = measured.double().clamp(min=2.0**-24)
    own = [variance_code(v) for v in (1.1 * values[0]).tolist()]
    v = torch.tensor([variance(c) for c in own]).double()
    u = torch.tensor([variance(c) for c in range(256)]).double()
    made = 1 / (1 / v + 1 / u[:, None])  # [256, C]
    off = (made.log2() - values.log2()[:, None]).square().mean(2)
    return (*off.argmin(1).tolist(), *own)


def measure(prior: Prior, clips: Sequence[Tensor]) -> Tensor:
    """V_t of a prior at the SNRs of GRID, [SNRs, C], on pictures uint8 [T,H,W,3] of legal size."""
    path, generator = flow.PATHS[prior.spec.path], torch.Generator().manual_seed(1)
    out = torch.zeros(len(GRID), prior.spec.channels, dtype=torch.float64)
    for clip in clips:
        x0 = prior.encode(clip)
        for i, g in enumerate(GRID):
            t = flow.time_of(path, 2.0 ** (g / 2))
            alpha, sigma = path(t)
            eps = torch.randn(x0.shape, generator=generator).to(x0.device)
            off = x0 - prior.denoise(alpha * x0 + sigma * eps, t)
            out[i] += off.double().square().mean((1, 2, 3)).cpu() / len(clips)
    return out


def start(variances: Variance, errors: Tensor, path: flow.Path) -> float:
    """The time at which a trajectory begins: the latest noise at which x0hat still tells something
    beside a base with these error variances [C]."""
    s = float(errors.mean())
    low, high = 0.0, 1.0
    for _ in range(30):
        t = (low + high) / 2
        low, high = (t, high) if float(variances(t).mean()) < _TELLS * s else (low, t)
    return low
