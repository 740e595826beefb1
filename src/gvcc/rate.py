"""From what a user asks (preset, size, bit rate) to parameters and budgets.

`matched` allocation places the steps where the bits are: a profile measures the denoiser's error
along the path, the schedule's shift is solved so that the coded steps ask for the bits at hand, and
each frame-step then gets atoms in proportion to its information.
"""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from fractions import Fraction
from typing import Any

import torch
from torch import Tensor

from gvcc import bitstream, flow, priors
from gvcc.bitstream import GopRecord, Header
from gvcc.codebook import MOST_OF_SUBSET
from gvcc.errors import ConfigError, TargetUnreachable, unknown
from gvcc.priors import Metric
from gvcc.records import Audio

DEFAULT_BPP = 0.05
PRESETS: dict[str, dict[str, Any]] = {
    "default": dict(
        coder="hadamard", rule="posterior", allocation="matched", steps=20, tail=4, shift=None,
        g_scale=0.0, multistep=True, seed=1, atoms=None, size=0, knob=None, metric=True,
    ),
    "paper": dict(
        coder="gaussian", rule="em", allocation="uniform", steps=20, tail=3, shift=3.0,
        g_scale=3.0, multistep=False, seed=42, atoms=64, size=16384, knob=1.0, metric=False,
    ),
}  # fmt: skip


@dataclass(frozen=True)
class EncodeConfig:
    """What an encoder is asked to do; never written to the file.

    At most one of `bpp` (bits per pixel), `kbps` (at the clip's true frame rate) and `size` (bytes)
    is the target; all count the whole file. Without one, `paper` uses its M and `default`
    aims at 0.05 bits per pixel. `atoms` is M, the same for every frame-step (uniform allocation);
    `codebook` is K of the gaussian codebook. None means: as the preset or the prior has it.
    """

    preset: str = "default"
    prior: str = priors.DEFAULT
    bpp: float | None = None
    kbps: float | None = None
    size: int | None = None
    atoms: int | None = None
    codebook: int | None = None
    seed: int | None = None
    steps: int | None = None
    gop: int | None = None
    knob: float | None = None
    audio: bool = True
    device: str = "cpu"

    def target(self, frames: int, height: int, width: int, fps: Fraction) -> int | None:
        """The file size asked for in bytes, None without a target; ConfigError if ill-posed."""
        asked = {n: v for n in ("bpp", "kbps", "size") if (v := getattr(self, n)) is not None}
        if len(asked) > 1:
            raise ConfigError(f"give one target, not {' and '.join(asked)}")
        for name, value in asked.items():
            if not 0 < value < math.inf:
                raise ConfigError(f"{name} is {value}, expected a number above 0")
        if self.bpp is not None:
            return int(self.bpp * frames * height * width / 8)
        if self.kbps is not None:
            return int(self.kbps * 1000 * float(frames / fps) / 8)
        return self.size

    def parameters(self) -> dict[str, Any]:
        """The preset with this configuration's own settings put in; ConfigError if out of range."""
        if self.preset not in PRESETS:
            raise unknown("preset", self.preset, PRESETS)
        p = dict(PRESETS[self.preset])
        if self.codebook is not None:
            if p["coder"] != "gaussian":
                raise ConfigError("K belongs to the gaussian codebook: use it with preset 'paper'")
            p["size"] = self.codebook
        if self.atoms is not None:
            p["atoms"], p["allocation"] = self.atoms, "uniform"
        if self.atoms is not None and (self.bpp or self.kbps or self.size):
            raise ConfigError("M fixes the size of the file: give either M or a target")
        gaussian = p["coder"] == "gaussian"
        most = min(p["size"], MOST_OF_SUBSET) if gaussian else 2**16
        p |= {n: v for n in ("seed", "steps") if (v := getattr(self, n)) is not None}
        for name, value, low, high in (
            ("K", p["size"], 1 if gaussian else 0, 2**16),
            ("M", 1 if p["atoms"] is None else p["atoms"], 1, most),
            ("steps", p["steps"], p["tail"] + 1, 255),
            ("seed", p["seed"], 0, 2**31 - 1 if gaussian else 2**64 - 1),
            ("knob", self.knob if self.knob is not None else 1, 1, 2),
        ):
            if not low <= value <= high:
                raise ConfigError(f"{name} is {value}, expected {low} to {high}")
        return p


# -- where the bits go ------------------------------------------------------------------------


def uniform_counts(atoms: int, stop: int, frames: int) -> list[list[int]]:
    """`atoms` dealt evenly to stop x frames frame-steps; the first ones get one more."""
    pairs = max(1, stop * frames)
    return [
        [atoms // pairs + (step * frames + f < atoms % pairs) for f in range(frames)]
        for step in range(stop)
    ]


def uniform_atoms(bits: int, stop: int, frames: int, cost: Callable[[int], int], most: int) -> int:
    """The most atoms whose uniform allocation costs at most `bits`; `cost(m)` is a frame-step's."""
    pairs, low, high = stop * frames, 0, stop * frames * most + 1
    while high - low > 1:
        n = (low + high) // 2
        m, more = divmod(n, pairs)
        spent = more * cost(m + 1) + (pairs - more) * cost(m) if more else pairs * cost(m)
        low, high = (n, high) if spent <= bits else (low, n)
    return low


_PROFILE = [2.0 ** (k / 2) for k in range(-16, 17, 2)]  # sqrt(SNR), 1/256 to 256
BITS_PER_INFORMATION = 1.8  # keeps the output power on Gaussians; hardly matters on clips


def steering(
    x0: Tensor, h: Tensor, metric: Metric | None, path: flow.Path, s: float
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
    metric: Metric | None,
) -> Profile:
    """Measure the denoiser on x0 noised with eps at each point of the profile."""
    errors = []
    for root in _PROFILE:
        t = _time_of(path, root)
        alpha, sigma = path(t)
        h = denoise(alpha * x0 + sigma * eps, t)
        # A step's metric looks at its end; a typical step multiplies the SNR by about 1.6.
        errors.append(sum(steering(x0, h, metric, path, _time_of(path, 1.26 * root))[1]))
    return Profile(tuple(errors))


def _time_of(path: flow.Path, root_snr: float) -> float:
    """The t with sqrt(SNR_t) = root_snr, by bisection."""
    low, high = 0.0, 1.0
    for _ in range(50):
        t = (low + high) / 2
        low, high = (t, high) if flow.snr(path, t) > root_snr**2 else (low, t)
    return (low + high) / 2


def solve_shift(
    profiles: Sequence[Profile], path: flow.Path, steps: int, tail: int, bits: float
) -> float:
    """The shift, a multiple of 1/256, whose coded steps ask for about `bits` in all GOPs."""
    low, high = 1, 255 * 256
    while high - low > 1:
        mid = (low + high) // 2
        times = flow.schedule(steps, mid / 256)[: steps - tail + 1]
        asked = sum(sum(p.bits(path, times)) for p in profiles)
        low, high = (mid, high) if asked > bits else (low, mid)
    return high / 256


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
        budget = max(0.0, self.left - _SIDE_BITS * len(information) * steps)
        atoms = budget * asked / (asked + rest) / self.atom_bits
        exact = [atoms * BITS_PER_INFORMATION * i / asked for i in information]
        counts = [math.floor(e) for e in exact]
        by_remainder = sorted(range(len(exact)), key=lambda f: counts[f] - exact[f])
        for f in by_remainder[: math.floor(atoms + 1e-6) - sum(counts)]:
            counts[f] += 1
        while sum(counts) and side(counts, steps - 1) + sum(counts) * self.atom_bits > self.left:
            counts[counts.index(max(counts))] -= 1
        return counts

    def spend(self, bits: float) -> None:
        """Take what a step cost, side information included, from the budget."""
        self.left -= bits


@dataclass(frozen=True)
class Grant:
    """What one GOP may do: coded steps, and atoms in all (uniform) or a matched budget."""

    stop: int
    atoms: int = 0
    matched: Matched | None = None


class Pacer:
    """Shares a file's bytes among its GOPs and keeps the account.

    Every GOP gets the bits that the common schedule asks for on its content, so that all end at
    the same noise level (about the same quality); what one leaves over goes to those after it.
    """

    def __init__(
        self,
        header: Header,
        config: EncodeConfig,
        latent_frames: Sequence[int],
        audio: Audio | None,
        cost: Callable[[int], int],
    ) -> None:
        self.header, self.latent_frames, self.cost = header, latent_frames, cost
        self.stop = header.steps - header.tail
        self.atoms = config.parameters()["atoms"]
        head = bitstream.write_header(header)
        fixed = len(head)
        if audio is not None:
            fixed += len(bitstream.write_audio(audio, len(latent_frames), head))
        empty = bitstream.write_gop(GopRecord(0, 0, (0,) * bitstream.CHECKS, b""), 0, head)
        self.empty = len(empty)
        smallest = fixed + self.empty * len(latent_frames)
        target = config.target(header.frames, header.height, header.width, header.fps)
        if target is None and header.allocation == "matched":
            pixels = header.frames * header.height * header.width
            target = max(int(DEFAULT_BPP * pixels / 8), smallest + 64 * len(latent_frames))
        if target is not None and target < smallest:
            sound = f", {fixed - len(head)} of them audio" if audio is not None else ""
            raise TargetUnreachable(
                f"{target} bytes cannot be reached; the smallest file is {smallest} bytes{sound}",
                smallest,
            )
        self.left = None if target is None else target - fixed
        self.predicted: list[list[float]] = []

    def solve(self, header: Header, profile: Callable[[int], Profile]) -> Header:
        """The header with its final shift; measures the profile of each GOP if it is needed."""
        path, gops = flow.PATHS[header.path], range(len(self.latent_frames))
        if header.allocation == "uniform" or self.left is None:
            self.predicted = [[float(f)] for f in self.latent_frames]
            return header
        profiles = [profile(i) for i in gops]
        side = sum(self.stop * f * _SIDE_BITS for f in self.latent_frames)
        symbols = len(gops) * _symbol_bits(self.left // len(gops)) - side
        shift = solve_shift(profiles, path, header.steps, header.tail, max(1.0, symbols))
        times = flow.schedule(header.steps, shift)[: self.stop + 1]
        self.predicted = [p.bits(path, times) for p in profiles]
        return dataclasses.replace(header, shift=shift)

    def grant(self, i: int) -> Grant:
        """What GOP number i, the next one, may spend."""
        if self.left is None:
            return Grant(self.stop, self.atoms * self.stop * self.latent_frames[i])
        weights = [sum(p) for p in self.predicted[i:]]
        # Every GOP still to come needs at least an empty record.
        spare = self.left - self.empty * len(weights)
        bits = _symbol_bits(self.empty + math.floor(spare * weights[0] / sum(weights)))
        frames = self.latent_frames[i]
        if bits < _LEAST * self.stop * frames + _FIRST:
            return Grant(0)
        if self.header.allocation == "uniform":
            # Beyond half a codebook a larger subset hardly steers better.
            most = min(self.header.size // 2 + 1, MOST_OF_SUBSET) if self.header.size else 2**16
            return Grant(self.stop, uniform_atoms(bits, self.stop, frames, self.cost, most))
        return Grant(self.stop, 0, Matched(self.predicted[i], bits, self.cost(1)))

    def spent(self, size: int) -> None:
        """Take the bytes of a finished record from the account."""
        if self.left is not None:
            self.left -= size


_SIDE_BITS = 2  # what a count costs on average, and
_LEAST = 2  # bits per frame-step below which coding none of it is the better choice;
_FIRST = 4  # a GOP's first count needs a few more


def _symbol_bits(record: int) -> int:
    """Bits of symbols that fit into a record of so many bytes, whatever its other fields hold."""
    words = (record - 10 - len(bitstream.varint(max(0, record))) - 4) // 4
    return max(0, 32 * words - 1)
