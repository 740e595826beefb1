"""Bits against MSE and output power on a Gaussian source with the exact denoiser, presets paper and
default, against the Shannon bound -> docs/results/codebooks/gaussian_rd.json and .png.

Source: D = 16384 independent coefficients, variance proportional to 1/i, mean 1 (the sorted
spectrum of a picture with power 1/f^2); 20 network calls; bits are those of a whole GOP record.
The coders of a trajectory (curves `exact`, `rcc`, `hadamard`): the same 16 posterior steps from
noise to each of several times, then four of ODE; `exact` draws z ~ N(mu, I) itself and counts
|mu|^2 / (2 ln 2), the others count every bit of their symbols.
The bound at full power: the least bits of any code whose output has the source's own variance in
every coefficient, minimum over q_i = 2^(-2 R_i) of sum R_i with sum 2 S_i (1 - sqrt(1 - q_i)) = D.
"""

from __future__ import annotations

import argparse
import dataclasses
import json
import math
import sys
from fractions import Fraction
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parents[2]))

import numpy as np
import torch
from torch import Tensor

from bench.common import RESULTS, ExactChannel, diagonal_header, save, water_filling
from gvcc import flow
from gvcc.decode import times as timing
from gvcc.decode import trajectory
from gvcc.format import bitstream
from gvcc.format.bitstream import GopRecord, Header
from gvcc.format.gop import Gop
from gvcc.priors import Condition, Spec
from gvcc.records import Colour
from gvcc.search import allocation, steer
from gvcc.search import config as conf
from gvcc.search import pacer as pacing

DIM, MSE = 16384, 0.35


class Diagonal:
    """The exact denoiser of independent Gaussians with variances s [D], as a prior."""

    def __init__(self, s: Tensor) -> None:
        self.s = s.reshape(-1, 1, 1, 1)
        self.spec = Spec("diagonal", bytes(8), DIM, (4, 8, 8), 1, "rf", 1.0, self.metric)

    def denoise(self, x: Tensor, t: float) -> Tensor:
        return x * ((1 - t) * self.s / ((1 - t) ** 2 * self.s + t * t))

    def metric(self, r: Tensor, snr: float) -> Tensor:
        return r * (snr * self.s / (1 + snr * self.s)) ** 0.25  # as GaussPrior.metric


def run(prior: Diagonal, x0: Tensor, preset: str, seed: int, bits: int | None, m: int | None):
    """One GOP record: (bits of the record, MSE, output power over source power)."""
    p = conf.PRESETS[preset]
    header = Header(
        prior="diagonal", digest=bytes(8), width=16, height=16, frames=1, fps=Fraction(1),
        colour=Colour(), gop=1, overlap=0, path="rf", rule=p.rule, coder=p.coder,
        allocation=p.allocation, codebook_size=p.codebook_size, seed=seed,
        steps=p.steps, ode_steps=p.ode_steps,
        shift=p.shift or 1.0, g_scale=p.g_scale, knob=1.0, multistep=p.multistep,
        audio=False,
    )  # fmt: skip
    coder = trajectory.make_coder(header, DIM, "cpu")
    config = conf.EncodeConfig(preset=preset, atoms=m if preset == "paper" else None,
                               size=None if bits is None else 200 + bits // 8)  # fmt: skip
    metric, gop, free = prior.metric if p.metric else None, Gop(0, 1), [0]
    pacer = pacing.Pacer(header, config.resolved(), [gop], None, prior.spec, coder.bits)
    shape = (DIM, 1, 1, 1)
    eps = coder.initial(shape, 0)
    profile = allocation.profile(prior.denoise, flow.PATHS["rf"], x0, eps, metric, free)
    header = pacer.solve(header, [profile])
    record = GopRecord(gop, 0, 0, 0, (0, 0, 0, 0), (), b"", b"")
    empty = len(bitstream.write_gop(record, 0, bitstream.write_header(header)))
    room = pacer.grant(0, gop).record
    allotment = pacer.allot(0, gop, None if room is None else room - empty, 1)
    stop = allotment.stop
    dealt = timing.uniform_counts(allotment.atoms, 0, stop, 1)
    scheme = coder.scheme(header, 0, free, shape, dealt)
    noise = steer.Choose(scheme, steer.Aim(x0, metric, allotment.budget), stop)
    at = timing.times(header, stop)
    x = trajectory.run(
        Condition(prior.denoise, {}), header, 0, shape, coder, at, noise, lambda i, x: None
    )
    record = dataclasses.replace(record, stop=allotment.stop, atoms=allotment.atoms,
                                 symbols=noise.writer.finish())  # fmt: skip
    size = 8 * len(bitstream.write_gop(record, 0, bitstream.write_header(header)))
    return size, float(((x - x0) ** 2).mean()), float((x**2).mean() / (x0**2).mean())


def steered(prior: Diagonal, x0: Tensor, name: str, seed: int, end: float):
    """16 steps from t = 1 to `end` and 4 of ODE: (bits, MSE, output power over source power)."""
    header = diagonal_header(name, seed, 16, 4, 1.0)
    coder, stop, shape = trajectory.make_coder(header, DIM, "cpu"), 16, (DIM, 1, 1, 1)
    at = [1 - (1 - end) * i / stop for i in range(stop + 1)] + [end * i / 4 for i in (3, 2, 1, 0)]
    exact = ExactChannel(x0, torch.Generator().manual_seed(seed))
    scheme = coder.scheme(header, 0, [0], shape, ())
    budget = None if name == "rcc" else allocation.Proportional(coder.bits(1))
    coded = steer.Choose(scheme, steer.Aim(x0, None, budget), stop)
    noise = exact if name == "exact" else coded

    def coded_steps(step: int, t: float, s: float, x0hat: Tensor) -> Tensor | None:
        return noise(step, t, s, x0hat) if step < stop else None

    condition = Condition(prior.denoise, {})
    x = trajectory.walk(condition, header, coder.initial(shape, 0), at, coded_steps)
    bits = exact.bits if name == "exact" else 8 * len(coded.writer.finish())
    return bits, float(((x - x0) ** 2).mean()), float((x**2).mean() / (x0**2).mean())


def full_power(s: Tensor, mse: float) -> float:
    """Bits of the bound at full power: S q / sqrt(1 - q) is equal for all coefficients."""
    low, high = 1e-9, 1e9
    for _ in range(200):
        level = math.sqrt(low * high)
        k = (level / s) ** 2
        q = (torch.sqrt(k * k + 4 * k) - k) / 2
        got = float((2 * s * (1 - (1 - q).clamp(min=0).sqrt())).mean())
        low, high = (level, high) if got < mse else (low, level)
    return float((-0.5 * torch.log2(q)).sum())


def at_mse(rows: list[dict], key: str) -> float:
    """Interpolate `key` (its logarithm for bits) at the MSE of the bar."""
    rows = sorted(rows, key=lambda r: r["mse"])
    x = [r["mse"] for r in rows]
    if not x[0] <= MSE <= x[-1]:
        raise SystemExit(f"MSE {MSE} is not between {x[0]} and {x[-1]}")
    if key.startswith("bits"):
        return math.exp(np.interp(MSE, x, [math.log(r[key]) for r in rows]))
    return float(np.interp(MSE, x, [r[key] for r in rows]))


parser = argparse.ArgumentParser(description=__doc__)
parser.add_argument("--draws", type=int, default=4, help="sources for preset default")
parser.add_argument("--keep-paper", action="store_true", help="keep the (slow) curve of paper")
args = parser.parse_args()
s = 1 / torch.arange(1, DIM + 1).double()
s = (s / s.mean())[torch.randperm(DIM, generator=torch.Generator().manual_seed(5))]
prior = Diagonal(s.float())
sources = [
    torch.randn(DIM, generator=torch.Generator().manual_seed(100 + k)).reshape(-1, 1, 1, 1)
    * prior.s.sqrt()
    for k in range(args.draws)
]
curves: dict[str, list[dict]] = {"default": [], "paper": []}
for bits in (700, 1200, 1800, 2400, 2800, 3300, 4200, 6500, 10000):
    got = np.mean([run(prior, x0, "default", 1 + k, bits, None) for k, x0 in enumerate(sources)], 0)
    curves["default"].append(dict(zip(("bits", "mse", "power"), map(float, got), strict=True)))
    print("default", curves["default"][-1], flush=True)
if args.keep_paper:
    curves["paper"] = json.loads((RESULTS / "codebooks/gaussian_rd.json").read_text())["curves"][
        "paper"
    ]
for m in () if args.keep_paper else (10, 20, 28, 64):
    got = run(prior, sources[0], "paper", 42, None, m)
    row = dict(zip(("bits", "mse", "power"), map(float, got), strict=True))
    curves["paper"].append(row | {"M": m, "bits_as_published": 17 * m * 15})
    print("paper", curves["paper"][-1], flush=True)
for name in ("exact", "rcc", "hadamard"):
    curves[name] = []
    for end in (0.9, 0.85, 0.8, 0.75, 0.7, 0.6, 0.5, 0.4):
        got = np.mean([steered(prior, x0, name, 1 + k, end) for k, x0 in enumerate(sources)], 0)
        curves[name].append(dict(zip(("bits", "mse", "power"), map(float, got), strict=True)))
        print(name, end, curves[name][-1], flush=True)


def against_exact(name: str) -> list[dict[str, float]]:
    """At each point of a curve: its bits over those of the exact channel at that MSE."""
    exact = sorted(curves["exact"], key=lambda r: r["mse"])
    x, y = [r["mse"] for r in exact], [math.log(r["bits"]) for r in exact]
    return [{"mse": r["mse"], "ratio": r["bits"] / math.exp(np.interp(r["mse"], x, y)),
             "power": r["power"]} for r in curves[name] if x[0] <= r["mse"] <= x[-1]]  # fmt: skip


ours, paper = (at_mse(curves[c], "bits") for c in ("default", "paper"))
published = at_mse(curves["paper"], "bits_as_published")
result = {
    "coders_over_exact": {name: against_exact(name) for name in ("rcc", "hadamard")},
    "D": DIM, "spectrum": "1/i", "calls": 20, "mse": MSE, "curves": curves,
    "at_mse": {
        "default_bits": ours, "paper_bits": paper, "paper_bits_as_published": published,
        "default_over_paper": ours / paper, "default_over_paper_as_published": ours / published,
        "default_power": at_mse(curves["default"], "power"),
        "paper_power": at_mse(curves["paper"], "power"),
        "shannon_bits": water_filling(s, MSE), "full_power_bound_bits": full_power(s, MSE),
    },
}  # fmt: skip
save("codebooks/gaussian_rd", result)

import matplotlib  # noqa: E402

matplotlib.use("Agg")
from matplotlib import pyplot as plt  # noqa: E402

fig, (left, right) = plt.subplots(1, 2, figsize=(10, 4))
grid = np.geomspace(0.15, 0.8, 40)
left.plot([water_filling(s, e) for e in grid], grid, "k--", label="Shannon bound")
left.plot([full_power(s, e) for e in grid], grid, "k:", label="bound at full power")
for name, rows in curves.items():
    left.plot([r["bits"] for r in rows], [r["mse"] for r in rows], "o-", label=name)
    right.plot([r["mse"] for r in rows], [r["power"] for r in rows], "o-", label=name)
rows = curves["paper"]
published_x = [r["bits_as_published"] for r in rows]
left.plot(published_x, [r["mse"] for r in rows], "x-", label="paper, bits as published")
left.set(xscale="log", xlabel="bits", ylabel="MSE", xlim=(200, 2e4), title="D = 16384, S = 1/i")
right.axhline(1, color="k", lw=0.5)
right.set(xlabel="MSE", ylabel="output power / source power")
left.legend()
right.legend()
fig.tight_layout()
fig.savefig(RESULTS / "codebooks/gaussian_rd.png", dpi=110)
