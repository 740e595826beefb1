"""Where the coded steps of a trajectory lie -> docs/results/systems/schedule.json; the times
printed there are those of src/gvcc/format/schedules.py.

A table of KL(i -> j), the information of one posterior step between any two of 193 noise levels, is
measured on training clips (never those of evaluation): the denoiser's error at level i, times the
growth of the SNR. A path of N steps from pure noise to the deepest level is then found by dynamic
programming (as DiffC's, arXiv 2412.12108). Since a GOP may stop anywhere, the cost of a step is not
its information but its loss, relative to all information up to there: (KL(i -> j) - I(i, j)) /
(I(0, j) + FLOOR), with I the integral that infinitely many steps would need; FLOOR, because nobody
stops at rates far below it.
"""

from __future__ import annotations

import argparse
import json
import math
import sys
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parents[2]))

import numpy as np
import torch
from PIL import Image

from bench.common import DATA, RESULTS, save
from gvcc import flow, priors
from gvcc.pictures import media

FLOOR = 0.002  # bits per pixel
STEPS, DEEPEST = 24, 0.25  # coded steps; bits per pixel of information at the last of them
GRID = [2.0 ** (k / 4) for k in range(-28, 25)]  # sqrt(SNR) at which the denoiser is measured
NODES = 4  # for each interval of the grid
HEIGHT, FRAMES, CLIPS = 160, 17, 20


def errors(prior: priors.Prior) -> np.ndarray:
    """Squared error of x0hat per pixel, mean over the clips, at t = 1 and along the grid."""
    path = flow.PATHS[prior.spec.path]
    total, pixels = np.zeros(len(GRID) + 1), 0
    names = sorted((DATA / "train/video").glob("*.mp4"))
    for n, name in enumerate(names[:: len(names) // CLIPS][:CLIPS]):
        video = media.read(name, frames=FRAMES, audio=False)
        h, w = video.frames.shape[1:3]
        size = round(w * HEIGHT / h / 8) * 8, HEIGHT
        if len(video.frames) < FRAMES or size[0] > 320:
            continue
        scaled = [Image.fromarray(f).resize(size, Image.Resampling.LANCZOS) for f in video.frames]
        x0 = prior.encode(torch.from_numpy(np.stack([np.asarray(f) for f in scaled])))
        eps = torch.randn(x0.shape, generator=torch.Generator().manual_seed(n))
        for k, t in enumerate([1.0] + [1 / (1 + root) for root in GRID]):
            alpha, sigma = path(t)
            total[k] += float(((prior.denoise(alpha * x0 + sigma * eps, t) - x0) ** 2).sum())
        pixels += FRAMES * size[0] * size[1]
        print(name.name, flush=True)
    return total / pixels


def solve(error: np.ndarray) -> dict:
    """The times, and the information at each of them."""
    fine = np.geomspace(GRID[0], GRID[-1], NODES * (len(GRID) - 1) + 1)
    e = np.exp(np.interp(np.log(fine), np.log(GRID), np.log(error[1:])))
    unit = 1 / (2 * math.log(2))
    snr, e = np.concatenate([[0], fine**2]), np.concatenate([[error[0]], e])
    ideal = np.concatenate([[0], np.cumsum(np.diff(snr) * (e[:-1] + e[1:]) / 2 * unit)])
    last = int(np.searchsorted(ideal, DEEPEST))
    kl = (snr[None, :] - snr[:, None]) * e[:, None] * unit  # from row to column
    loss = (kl - (ideal[None, :] - ideal[:, None])) / (ideal[None, :] + FLOOR)
    best = np.full((STEPS + 1, last + 1), np.inf)
    came = np.zeros((STEPS + 1, last + 1), dtype=int)
    best[0, 0] = 0
    for n in range(1, STEPS + 1):
        for j in range(n, last + 1):
            costs = best[n - 1, :j] + loss[:j, j]
            came[n, j] = int(np.argmin(costs))
            best[n, j] = costs[came[n, j]]
    route = [last]
    for n in range(STEPS, 0, -1):
        route.insert(0, came[n, route[0]])
    times = [1 / (1 + math.sqrt(snr[j])) for j in route]
    spent = np.cumsum([0] + [kl[i, j] for i, j in zip(route, route[1:], strict=False)])
    return {
        "times_in_65536ths": [round(t * 65536) for t in times],
        "information_bpp": [round(float(v), 5) for v in spent],
        "ideal_bpp": [round(float(ideal[j]), 5) for j in route],
    }


def main() -> None:
    asked = argparse.ArgumentParser(description=__doc__)
    asked.add_argument("--keep-errors", action="store_true", help="only find the path anew")
    old = {}
    if asked.parse_args().keep_errors:
        old = json.loads((RESULTS / "systems/schedule.json").read_text())["priors"]
    out = {}
    for name in ("nano", "gauss"):
        prior = priors.load(name)
        error = np.array(old[name]["errors"]) if name in old else errors(prior)
        out[name] = {"weights": prior.spec.digest.hex(), "errors": error.tolist()}
    result = {"height": HEIGHT, "frames": FRAMES, "steps": STEPS, "deepest_bpp": DEEPEST}
    save("systems/schedule", result | {"priors": out})
    for name in out:
        out[name] |= solve(np.array(out[name]["errors"]))
    save("systems/schedule", result | {"priors": out})


if __name__ == "__main__":
    with torch.inference_mode():
        main()
