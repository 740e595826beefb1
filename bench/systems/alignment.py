"""Inter-GOP alignment: off, fade, blend, pin -> docs/results/systems/alignment.json and .png.

The evaluation clips, 41 frames at 128 px height, GOPs of 17 with an overlap of 5 frames, prior
nano, preset free-gvc with coder rcc; real files, at one common stop (every GOP codes the same
steps: what an overlap costs shows in the bytes) and at one common size.

e_t is the mean absolute error of the change from frame t - 1 to t (eval/temporal.py), in grey
levels, and tOF is taken of the same pairs of frames. With fade and blend a boundary is OVERLAP + 1
changes long (a cross-fade has no single joint), so every variant is judged by the worst of so many
changes around its boundaries. `excess`: that worst change less the median of those near it, NEAR
on each side, that belong to no boundary (motion, and e_t with it, comes and goes along a clip).
The worst of six changes is above the median anywhere, because a latent frame is four pictures:
`control` is the same of every six changes that touch no boundary, and `net` is what the excess is
above that. `mean_excess`: as `excess`, of the mean of the six. `at_joint`: as `excess`, of the one
change at which the pictures of a new GOP start, where there is one (off, pin).

Cells that are in the file already, made with the same weights, are kept.
"""

from __future__ import annotations

import argparse
import itertools
import json
import os
import sys
from pathlib import Path
from typing import Any

sys.path.insert(0, str(Path(__file__).resolve().parents[2]))

os.environ.setdefault("OMP_WAIT_POLICY", "PASSIVE")
import matplotlib
import numpy as np
import torch
from numpy.typing import NDArray

from bench import passes
from bench.common import CLIPS, RESULTS, clip, save
from gvcc import codec
from gvcc.eval.temporal import profile
from gvcc.format import parser
from gvcc.metrics import metrics
from gvcc.priors import Prior, nano
from gvcc.search.config import EncodeConfig

HEIGHT, FRAMES, GOP, OVERLAP, STOP, BPP = 128, 41, 17, 5, 12, 0.06
NEAR = 6
VARIANTS: dict[str, dict[str, Any]] = {
    "off": {"mode": "t2v"},
    "fade": {"mode": "t2v", "overlap": OVERLAP},
    "blend": {"alignment": "blend", "overlap": OVERLAP},
    "pin": {"alignment": "pin", "overlap": OVERLAP},
}
TARGETS: dict[str, dict[str, Any]] = {"stop": {"stop": STOP}, "size": {"bpp": BPP}}
Floats = NDArray[np.float64]


def windows(variant: str, gops: list[list[int]]) -> tuple[list[list[int]], list[int]]:
    """For each boundary the changes that belong to it, OVERLAP + 1 of them, and the joints; a
    change is numbered by the frame that it leads to. A GOP is its first frame, its frames, ..."""
    fades = variant in ("fade", "blend")
    joints = [g[0] + (OVERLAP if variant == "pin" else 0) for g in gops[1:]]
    firsts = [t if fades else t - OVERLAP // 2 for t in joints]
    end = min(FRAMES, sum(gops[-1][:2]))
    return [list(range(f, min(f + OVERLAP + 1, end))) for f in firsts], [] if fades else joints


def flicker(series: Floats, spans: list[list[int]], joints: list[int]) -> dict[str, Any]:
    """What a series of one value for each change (the first leads to frame 1) has at boundaries."""
    taken = {t for span in spans for t in span}

    def off(span: list[int], at: list[int]) -> tuple[float, float]:
        """The worst of the changes `at`, and their mean, less the median around `span`."""
        free = [t for t in range(1, len(series) + 1) if t not in span and t not in taken]
        around = [t for t in free if t < span[0]][-NEAR:] + [t for t in free if t > span[-1]][:NEAR]
        own = float(np.median(series[np.array(around) - 1]))
        here = series[np.array(at) - 1]
        return float(here.max()) - own, float(here.mean()) - own

    free = [list(range(f, f + OVERLAP + 1)) for f in range(1, len(series) - OVERLAP + 1)]
    controls = [off(span, span)[0] for span in free if taken.isdisjoint(span)]
    found = [off(span, span) for span in spans]
    return {
        "excesses": [f[0] for f in found], "excess": float(np.mean([f[0] for f in found])),
        "mean_excess": float(np.mean([f[1] for f in found])),
        "control": float(np.mean(controls)),
        "at_joint": [off(spans[i], [t])[0] for i, t in enumerate(joints)],
    }  # fmt: skip


def judge(cells: list[dict[str, Any]]) -> None:
    """Put into each cell what its profiles say of its boundaries."""
    for c in cells:
        spans, joints = windows(c["variant"], c["gops"])
        c["boundaries"] = spans
        for key, series in (("error", "error_profile"), ("motion", "tof_profile")):
            c[key] = flicker(np.array(c[series]), spans, joints)


def cell(name: str, variant: str, target: str, prior: Prior) -> dict[str, Any]:
    """One real file."""
    video = clip(name, FRAMES, HEIGHT)
    asked = EncodeConfig("free-gvc", coder="rcc", gop=GOP, audio=False,
                         **VARIANTS[variant], **TARGETS[target])  # fmt: skip
    made = codec.encode(video, asked, prior)
    stream = parser.parse(made.data)
    ref, out = video.frames, made.frames
    starts = [g.gop.start + g.gop.skip for g in stream.gops[1:]]
    seen = profile(ref, out, starts)
    motion = np.array([metrics.tof(ref[t : t + 2], out[t : t + 2]) for t in range(len(ref) - 1)])
    return {
        "clip": name, "variant": variant, "target": target, "width": ref.shape[2],
        "bytes": len(made.data), "bits_per_pixel": 8 * len(made.data) / ref[..., 0].size,
        "gops": [[g.gop.start, g.gop.frames, g.stop, g.fraction] for g in stream.gops],
        "psnr_rgb_db": metrics.psnr(ref, out), "tof": float(motion.mean()),
        "error_spikes": seen["error_spikes"], "error_profile": seen["error_profile"],
        "tof_profile": [round(float(v), 4) for v in motion],
    }  # fmt: skip


def bars(cells: list[dict[str, Any]]) -> dict[str, Any]:
    """Means over the clips that have every variant, and what the issue asks of them."""
    out: dict[str, Any] = {}
    for target in TARGETS:
        of = {(c["clip"], c["variant"]): c for c in cells if c["target"] == target}
        whole = [n for n in CLIPS if all((n, v) in of for v in VARIANTS)]
        if not whole:
            continue
        means = {}
        for v in VARIANTS:
            rows = [of[n, v] for n in whole]
            keys = ("bytes", "bits_per_pixel", "psnr_rgb_db", "tof")
            means[v] = {k: float(np.mean([r[k] for r in rows])) for k in keys}
            for series in ("error", "motion"):
                for k in ("excess", "control", "mean_excess"):
                    values = [r[series][k] for r in rows]
                    means[v][f"{series}_{k}"] = float(np.mean(values))
                net = means[v][f"{series}_excess"] - means[v][f"{series}_control"]
                means[v][f"{series}_net"] = net
        pairs = {}
        for one, other in (("blend", "off"), ("pin", "blend"), ("pin", "off")):
            for key in ("error_excess", "motion_excess", "bytes"):
                pairs[f"{one}_over_{other}_{key}"] = means[one][key] / means[other][key]
        out[target] = {"clips": len(whole), "means": means, "ratios": pairs}
    return out


def plot(cells: list[dict[str, Any]]) -> None:
    matplotlib.use("Agg")
    from matplotlib import pyplot as plt

    figure, axes = plt.subplots(len(CLIPS), 2, figsize=(12, 2.2 * len(CLIPS)), sharex=True)
    for row, name in zip(axes, CLIPS, strict=True):
        for c in cells:
            if c["clip"] == name and c["target"] == "size":
                for ax, key in zip(row, ("error_profile", "tof_profile"), strict=True):
                    ax.plot(range(1, FRAMES), c[key], lw=1, label=c["variant"])
                    ax.set_ylim(0, None)
        row[0].set(title=name, ylabel="grey levels")
        row[1].set(title=name, ylabel="pixels")
    axes[0, 0].legend(ncol=4, fontsize=8)
    axes[-1, 0].set_xlabel("frame; error of the change to it")
    axes[-1, 1].set_xlabel("frame; tOF of the pair")
    figure.suptitle(f"nano, free-gvc, rcc, {BPP} bits per pixel, {HEIGHT} px height, GOPs of {GOP}")
    figure.tight_layout()
    figure.savefig(RESULTS / "systems/alignment.png", dpi=75)
    plt.close(figure)


def main() -> None:
    asked = argparse.ArgumentParser(description=__doc__)
    asked.add_argument("--fresh", action="store_true", help="measure every cell anew")
    asked.add_argument("--judge", action="store_true", help="measure nothing, judge what is there")
    given = asked.parse_args()
    torch.set_num_threads(1)
    passes.install()
    prior = nano.load()
    digest, path = prior.spec.digest.hex(), RESULTS / "systems/alignment.json"
    cells: list[dict[str, Any]] = []
    if path.exists() and not given.fresh:
        old = json.loads(path.read_text())
        cells = old["cells"] if old["weights"] == digest else []
    done = {(c["clip"], c["variant"], c["target"]) for c in cells}

    def keep() -> None:
        judge(cells)
        save("systems/alignment", {
            "prior": "nano", "weights": digest, "preset": "free-gvc", "coder": "rcc",
            "height": HEIGHT, "frames": FRAMES, "gop": GOP, "overlap": OVERLAP, "stop": STOP,
            "bpp": BPP, "bars": bars(cells), "cells": cells,
        })  # fmt: skip

    for name in CLIPS:
        passes.forget()
        for target, variant in itertools.product(TARGETS, VARIANTS):
            if (name, variant, target) not in done and not given.judge:
                cells.append(cell(name, variant, target, prior))
                shown = {k: v for k, v in cells[-1].items() if "profile" not in k}
                print(shown, file=sys.stderr, flush=True)
                keep()
    keep()
    plot(cells)


if __name__ == "__main__":
    main()
