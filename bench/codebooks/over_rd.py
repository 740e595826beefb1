"""Bits of a trajectory over a base against the Gaussian's conditional rate-distortion bound ->
docs/results/codebooks/over_rd.json and .png.

Source: D = 16384 independent coefficients, variance P_i proportional to 1/i, mean 1. The base says
y = x0 + e, e ~ N(0, S): what is left to say of coefficient i has the variance P_i S / (P_i + S),
and the bound is reverse water-filling of those. Steered by 24 posterior steps from the time at
which a trajectory over this base begins, then four of ODE with the knob at 2 (conditional mean);
`exact` draws its noise from the channel itself and counts its information, the others count every
bit of their symbols.
"""

from __future__ import annotations

import math
import sys
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parents[2]))

import matplotlib
import numpy as np
import torch
from torch import Tensor

matplotlib.use("Agg")
from matplotlib import pyplot as plt

from bench.common import RESULTS, ExactChannel, diagonal_header, save, water_filling
from gvcc import flow
from gvcc.decode import trajectory
from gvcc.priors import Condition, soft
from gvcc.priors.soft import SoftBase
from gvcc.search import allocation, steer

DIM, STEPS, TAIL = 16384, 24, 4
PATH = flow.PATHS["rf"]
ENDS = (0.5, 0.4, 0.32, 0.26, 0.21, 0.17, 0.14)  # of the start: where the coded steps end
BASES = (0.3, 0.05)  # S
AT = (0.3, 0.18)  # of the error that the base leaves: where bits are compared


def condition(power: Tensor, base: SoftBase) -> Condition:
    """The exact denoiser of independent Gaussians, given a base."""

    def denoise(x: Tensor, t: float) -> Tensor:
        alpha, sigma = PATH(t)
        return x * (alpha * power / (alpha**2 * power + sigma**2))

    return soft.over(Condition(denoise, {}), base, PATH)


def steered(power: Tensor, s: float, name: str, seed: int, end: float) -> tuple[float, float]:
    """Bits and MSE of one source."""
    random = torch.Generator().manual_seed(seed)
    x0 = torch.randn(power.shape, generator=random) * power.sqrt()
    y = x0 + s**0.5 * torch.randn(power.shape, generator=random)

    def variances(t: float) -> Tensor:
        alpha, sigma = PATH(t)
        return power * sigma**2 / (alpha**2 * power + sigma**2)

    errors = torch.full((DIM,), s)
    begin = soft.start(variances, errors, PATH)
    told = condition(power, SoftBase(y, errors, begin, variances))
    header = diagonal_header(name, seed, STEPS, TAIL, 2.0)
    coder, shape = trajectory.make_coder(header, DIM, "cpu"), (DIM, 1, 1, 1)
    at = [begin * (1 - (1 - end) * i / STEPS) for i in range(STEPS + 1)]
    at += [begin * end * (1 - i / TAIL) for i in range(1, TAIL + 1)]
    budget = None if name == "rcc" else allocation.Proportional(coder.bits(1))
    scheme = coder.scheme(header, 0, [0], shape, ())
    left = power * s / (power + s)

    def metric(r: Tensor, snr: float) -> Tensor:
        return r * (snr * left / (1 + snr * left)) ** 0.25  # as GaussPrior.metric

    aim = steer.Aim(x0, None if name == "rcc" else metric, budget)
    coded, exact = steer.Choose(scheme, aim, STEPS), ExactChannel(x0, random)
    channel = exact if name == "exact" else coded

    def noise(step: int, t: float, to: float, x0hat: Tensor) -> Tensor | None:
        return channel(step, t, to, x0hat) if step < STEPS else None

    x = trajectory.walk(told, header, told.begin(coder.initial(shape, 0)), at, noise)
    bits = exact.bits if name == "exact" else 8 * len(coded.writer.finish())
    return bits, float(((x - x0) ** 2).mean())


if __name__ == "__main__":
    power = 1 / torch.arange(1, DIM + 1).double()
    power = (power / power.mean())[torch.randperm(DIM, generator=torch.Generator().manual_seed(5))]
    cells = power.float().reshape(-1, 1, 1, 1)
    result = {"D": DIM, "spectrum": "1/i", "bases": []}
    fig, axes = plt.subplots(1, len(BASES), figsize=(10, 4))
    for s, axis in zip(BASES, axes, strict=True):
        left = power * s / (power + s)
        mse = float(left.mean())
        curves = {
            name: [
                np.mean([steered(cells, s, name, 1 + k, e) for k in range(3)], 0).tolist()
                for e in ENDS
            ]
            for name in ("exact", "rcc", "hadamard")
        }
        over = []
        for name, points in curves.items():
            points = sorted(points, key=lambda p: p[1])
            for part in AT:
                bits = math.exp(np.interp(
                    part * mse, [p[1] for p in points], [math.log(p[0]) for p in points]
                ))  # fmt: skip
                inside = points[0][1] <= part * mse <= points[-1][1]
                ratio = bits / water_filling(left, part * mse) if inside else None
                over.append({"coder": name, "part": part, "bits": bits, "over_bound": ratio})
                print(s, name, part, round(bits), ratio, flush=True)
        result["bases"].append({"S": s, "mse_of_base": mse, "curves": curves, "at": over})
        grid = np.geomspace(0.2, 0.98, 40) * mse
        axis.plot([water_filling(left, e) for e in grid], grid, "k--", label="conditional bound")
        for name, points in curves.items():
            axis.plot([p[0] for p in points], [p[1] for p in points], "o-", label=name)
        axis.axhline(mse, color="k", lw=0.5)
        axis.set(xscale="log", xlabel="bits", ylabel="MSE", title=f"S = {s}")
        axis.legend()
    save("codebooks/over_rd", result)
    fig.tight_layout()
    fig.savefig(RESULTS / "codebooks/over_rd.png", dpi=110)
