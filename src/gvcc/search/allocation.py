"""Where the bits of a GOP go: atoms for each coded step and latent frame.

`matched` allocation places the steps where the bits are: a profile measures the denoiser's error
along the path, the schedule's shift is solved so that the coded steps ask for the bits at hand, and
each frame-step then gets atoms in proportion to its information.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Protocol

import torch
from torch import Tensor

from gvcc import flow
from gvcc.decode.times import TAIL, uniform_counts
from gvcc.priors import SteeringMetric

SIDE_BITS = 2  # what a count of the matched allocation costs on average


def uniform_atoms(
    bits: int, stop: int, frames: int, cost: Callable[[int], int], most: int, tail: bool
) -> tuple[int, int]:
    """The most (atoms, tail atoms) whose uniform allocation costs at most `bits`; `cost(m)` is a
    frame-step's. With `tail` a frame-step of the tail gets twice the atoms of another."""
    apart = min(TAIL, frames) if tail else 0
    units = frames + apart  # a tail frame counts twice

    def split(n: int) -> tuple[int, int]:
        at_tail = 2 * apart * n // units
        return n - at_tail, at_tail

    def spent(n: int) -> int:
        return sum(cost(m) for step in uniform_counts(*split(n), stop, frames) for m in step)

    low, high = 0, stop * units * (most // 2 if apart else most) + 1
    while high - low > 1:
        n = (low + high) // 2
        low, high = (n, high) if spent(n) <= bits else (low, n)
    return split(low)


_PROFILE = [2.0 ** (k / 2) for k in range(-16, 17, 2)]  # sqrt(SNR), 1/256 to 256
BITS_PER_INFORMATION = 1.8  # keeps the output power on Gaussians; hardly matters on clips


def steering(
    x0: Tensor, h: Tensor, metric: SteeringMetric | None, path: flow.Path, s: float
) -> tuple[Tensor, list[float]]:
    """The target of each latent frame for a step to time s, [F, D], and its squared length.

    With a steering metric W the atoms are chosen against w = W r. How far to go along w: to where
    the error measured by W, <c w - r, W (c w - r)>, is least: c = <w, w> / <w, W w>, at length
    c |w|. (The plain projection of r on w, <r, w> / |w|, goes too far in the values of high
    weight: W = sd on whitened latents then loses what it could gain.)
    """
    w = v = x0 - h
    if metric is not None:
        w = metric(w, flow.snr(path, s))
        v = metric(w, flow.snr(path, s))
    w, v = w.transpose(0, 1).flatten(1), v.transpose(0, 1).flatten(1)
    energy = (w * w).sum(1)
    c = energy / (w * v).sum(1).clamp(min=torch.finfo(torch.float32).tiny)
    return w, (c * c * energy).tolist()


@dataclass(frozen=True)
class Profile:
    """What is left to steer in a GOP, the sum of `steering`'s lengths, at sqrt(SNR) = _PROFILE."""

    errors: tuple[float, ...]

    def error(self, root_snr: float) -> float:
        """Interpolated, linear in the logarithms; constant outside the measured range."""
        x = (math.log2(max(root_snr, 2.0**-16)) + 8) / (16 / (len(_PROFILE) - 1))
        i = min(max(math.floor(x), 0), len(_PROFILE) - 2)
        a = min(max(x - i, 0.0), 1.0)
        low, high = (math.log(max(e, 1e-9)) for e in self.errors[i : i + 2])
        return math.exp(low + a * (high - low))

    def slope(self, path: flow.Path, t: float) -> float:
        """-dD/dR at time t: squared latent error that one more bit takes away.

        A bit buys dSNR = 2 ln 2 / (E BITS_PER_INFORMATION), and E falls along the profile.
        """
        root = math.sqrt(flow.snr(path, t))
        fall = math.log(self.error(root / 1.1) / self.error(root * 1.1)) / (2 * math.log(1.21))
        return max(0.0, fall) * 2 * math.log(2) / (BITS_PER_INFORMATION * max(root**2, 1e-9))

    def bits(self, path: flow.Path, times: Sequence[float]) -> list[float]:
        """Bits that each posterior step along `times` will ask for."""
        return [
            BITS_PER_INFORMATION
            * flow.information(path, t, s, self.error(math.sqrt(flow.snr(path, t))))
            for t, s in zip(times, times[1:], strict=False)
        ]


def profile(
    denoise: Callable[[Tensor, float], Tensor],
    path: flow.Path,
    x0: Tensor,
    eps: Tensor,
    metric: SteeringMetric | None,
    free: Sequence[int],
) -> Profile:
    """Measure the denoiser on x0 noised with eps at each point of the profile, on the latent
    frames `free` that no condition fixes."""
    errors = []
    for root in _PROFILE:
        t = flow.time_of(path, root)
        alpha, sigma = path(t)
        h = denoise(alpha * x0 + sigma * eps, t)
        # A step's metric looks at its end; a typical step multiplies the SNR by about 1.6.
        lengths = steering(x0, h, metric, path, flow.time_of(path, 1.26 * root))[1]
        errors.append(sum(lengths[f] for f in free))
    return Profile(tuple(errors))


def solve_shift(
    profiles: Sequence[Profile], path: flow.Path, steps: int, ode_steps: int, bits: float
) -> float:
    """The shift, a multiple of 1/256, whose coded steps ask for about `bits` in all GOPs."""
    low, high = 1, 255 * 256
    while high - low > 1:
        mid = (low + high) // 2
        times = flow.schedule(steps, mid / 256)[: steps - ode_steps + 1]
        asked = sum(sum(p.bits(path, times)) for p in profiles)
        low, high = (mid, high) if asked > bits else (low, mid)
    return high / 256


class Budget(Protocol):
    """How many atoms an encoder takes."""

    def counts(
        self, step: int, information: Sequence[float], side: Callable[[list[int], int], int]
    ) -> list[int]: ...
    def spend(self, bits: float) -> None: ...


class Proportional:
    """As many atoms as the information at each step asks for, wherever the GOP will stop."""

    def __init__(self, atom_bits: int) -> None:
        self.atom_bits = atom_bits

    def counts(
        self, step: int, information: Sequence[float], side: Callable[[list[int], int], int]
    ) -> list[int]:
        """Atoms for each latent frame at this step; `information` in bits, per frame."""
        exact = [BITS_PER_INFORMATION * i / self.atom_bits for i in information]
        return _whole(exact, sum(exact))

    def spend(self, bits: float) -> None:
        """Nothing runs out."""


def _whole(exact: Sequence[float], total: float) -> list[int]:
    """Whole numbers next to the exact ones that add up to `total`, rounded down."""
    counts = [math.floor(e) for e in exact]
    by_remainder = sorted(range(len(exact)), key=lambda f: counts[f] - exact[f])
    for f in by_remainder[: math.floor(total + 1e-6) - sum(counts)]:
        counts[f] += 1
    return counts


class Matched:
    """Atoms in proportion to information, until the GOP's budget of `bits` is spent.

    `predicted[i]` is what step i was profiled to ask for; what is asked in fact corrects it as the
    GOP goes, and the last coded step spends what is left.
    """

    def __init__(self, predicted: Sequence[float], bits: float, atom_bits: int) -> None:
        self.predicted, self.left, self.atom_bits = list(predicted), bits, atom_bits

    def counts(
        self, step: int, information: Sequence[float], side: Callable[[list[int], int], int]
    ) -> list[int]:
        """Atoms for each latent frame at this step; `information` in bits, per frame.

        `side(counts, n)` is what writing these counts costs, and n steps without atoms after them:
        so much must be left.
        """
        asked = BITS_PER_INFORMATION * max(sum(information), 1e-9)
        # The ratio to the prediction is noisy and fades along the path: half of it is believed.
        ratio = math.sqrt(asked / max(self.predicted[step], 1e-9))
        rest = ratio * sum(self.predicted[step + 1 :])
        steps = len(self.predicted) - step
        budget = max(0.0, self.left - SIDE_BITS * len(information) * steps)
        atoms = budget * asked / (asked + rest) / self.atom_bits
        exact = [atoms * BITS_PER_INFORMATION * i / asked for i in information]
        counts = _whole(exact, atoms)
        while sum(counts) and side(counts, steps - 1) + sum(counts) * self.atom_bits > self.left:
            counts[counts.index(max(counts))] -= 1
        return counts

    def spend(self, bits: float) -> None:
        """Take what a step cost, side information included, from the budget."""
        self.left -= bits
