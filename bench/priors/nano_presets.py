"""Presets default and paper with nano -> docs/results/priors/nano_presets.json.

At 96 px height and 9 frames, because paper draws 16384 atoms of D normals for every step and latent
frame: at 256 px and 33 frames one encode of one clip is hours on two cores. Bits of the real files;
the ratio is taken at the latent error of paper, default's curve interpolated in the logarithms.
The published count is M (log2 K + 1) bits per frame-step, in place of the size of a file.
"""

from __future__ import annotations

import argparse
import math
import multiprocessing
import sys
from pathlib import Path
from typing import Any

sys.path.insert(0, str(Path(__file__).resolve().parents[2]))

import numpy as np
import torch

from bench.common import CLIPS, clip, save
from bench.priors.nano_rd import Tap, bits_at
from gvcc import codec
from gvcc.format import parser as streams
from gvcc.priors import nano
from gvcc.search.config import EncodeConfig

FRAMES, HEIGHT = 9, 96
ATOMS = (8, 32)
BPP = (0.01, 0.02, 0.04, 0.08, 0.16)


def measure(cell: tuple[str, dict[str, Any]]) -> dict[str, Any]:
    """One encode: size and latent error."""
    name, asked = cell
    torch.set_num_threads(1)
    video, tap = clip(name, FRAMES, HEIGHT), Tap(nano.load())
    made = codec.encode(video, EncodeConfig(mode="t2v", audio=False, **asked), tap)
    pixels = video.frames[..., 0].size
    row = asked | {
        "clip": name, "bytes": len(made.data), "bits_per_pixel": 8 * len(made.data) / pixels,
        "latent_mse": float(((tap.x - tap.x0) ** 2).mean()),
        "power": float((tap.x**2).mean() / (tap.x0**2).mean()),
    }  # fmt: skip
    if "atoms" in asked:
        header = streams.parse(made.data).header
        count = (header.steps - header.ode_steps) * tap.x.shape[1]
        published = asked["atoms"] * (math.log2(header.codebook_size) + 1) * count
        row["published_bits_per_pixel"] = published / pixels
    return row


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--jobs", type=int, default=2)
    cells = [(c, {"preset": "paper", "atoms": m}) for c in CLIPS for m in ATOMS]
    cells += [(c, {"preset": "default", "bpp": b}) for c in CLIPS for b in BPP]
    with multiprocessing.get_context("spawn").Pool(parser.parse_args().jobs) as pool:
        rows = pool.map(measure, cells, chunksize=1)
    ratios, published = {}, {}
    for r in (r for r in rows if r["preset"] == "paper"):
        same = [o for o in rows if o["preset"] == "default" and o["clip"] == r["clip"]]
        if (bits := bits_at(same, r["latent_mse"])) is not None:
            ratios[f"{r['clip']} M={r['atoms']}"] = bits / r["bits_per_pixel"]
            published[f"{r['clip']} M={r['atoms']}"] = bits / r["published_bits_per_pixel"]
    save(
        "priors/nano_presets",
        {
            "height": HEIGHT,
            "frames": FRAMES,
            "weights": nano.load().spec.digest.hex(),
            "bits_of_default_over_paper_at_equal_latent_mse": {
                "geometric_mean": float(np.exp(np.mean(np.log(list(ratios.values()))))),
                "geometric_mean_of_published_count": float(
                    np.exp(np.mean(np.log(list(published.values()))))
                ),
                "cells": ratios,
            },
            "rows": rows,
        },
    )
