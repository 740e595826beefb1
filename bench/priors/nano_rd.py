"""Rate and distortion of gauss and nano, preset default -> docs/results/priors/nano_rd.json.

Five evaluation clips (256 px height, 33 frames, T2V) at four rates. `gauss on nano's latents` is
nano's autoencoder with its exact Gaussian denoiser instead of the transformer: at equal latent
error it shows what the transformer saves. Finished cells are kept unless --all is given.
"""

from __future__ import annotations

import argparse
import dataclasses
import json
import math
import multiprocessing
import os
import sys
import time
from pathlib import Path
from typing import Any

sys.path.insert(0, str(Path(__file__).resolve().parents[2]))

os.environ.setdefault("OMP_WAIT_POLICY", "PASSIVE")
import numpy as np
import torch
from torch import Tensor

from bench.common import CLIPS, RESULTS, clip, save
from gvcc import codec, priors
from gvcc.metrics import metrics
from gvcc.priors import Condition, Prior, nano
from gvcc.priors.gauss import KNOB
from gvcc.search.config import EncodeConfig

BPP = (0.01, 0.02, 0.05, 0.1)
CHECKED = 0.02  # at this rate the file is decoded as well, and must give the encoder's pictures
MODELS = ("nano", "gauss on nano's latents", "gauss")


class Tap:
    """A prior that remembers the latents that passed."""

    def __init__(self, prior: Prior) -> None:
        self.prior, self.spec = prior, prior.spec
        self.x0 = self.x = torch.zeros(0)

    def encode(self, frames: Tensor) -> Tensor:
        self.x0 = self.prior.encode(frames)
        return self.x0

    def decode(self, latent: Tensor) -> Tensor:
        self.x = latent
        return self.prior.decode(latent)

    def denoise(self, x: Tensor, t: float) -> Tensor:
        return self.prior.denoise(x, t)

    def condition(self, *_: object) -> Condition:
        """T2V: no picture is known."""
        return Condition(self.denoise, {})


class Linear(Tap):
    """nano with the Gaussian denoiser; its digest is that of the autoencoder alone."""

    def __init__(self, prior: nano.NanoPrior) -> None:
        super().__init__(prior)
        self.model = prior.model
        data = nano.pack(*nano.parts(prior.autoencoder))
        digest = nano.unpack(data, "autoencoder")[2]
        self.spec = dataclasses.replace(prior.spec, digest=digest, knob=KNOB)

    def denoise(self, x: Tensor, t: float) -> Tensor:
        return self.model.denoise(x, 1 - t, t)


def make(model: str) -> Tap:
    return Linear(nano.load()) if model == MODELS[1] else Tap(priors.load(model))


def measure(cell: tuple[str, str, float]) -> dict[str, Any]:
    """One encode: size, latent error, picture quality, and the time of encoder and decoder."""
    model, name, bpp = cell
    torch.set_num_threads(1)
    video = clip(name)
    tap = make(model)
    begin = time.monotonic()
    made = codec.encode(video, EncodeConfig(mode="t2v", bpp=bpp, audio=False), tap)
    encoded = time.monotonic()
    mse = float(((tap.x - tap.x0) ** 2).mean())
    decode_s = None
    if bpp == CHECKED:
        back = codec.decode(made.data, tap).frames
        decode_s = round(time.monotonic() - encoded, 1)
        assert np.array_equal(back, made.frames), "decoder and encoder differ"
    figures = metrics.compare(video.frames, made.frames, video.fps)
    return {
        "model": model, "weights": tap.spec.digest.hex(), "clip": name, "target_bpp": bpp,
        "bytes": len(made.data),
        "bits_per_pixel": 8 * len(made.data) / video.frames[..., 0].size, "latent_mse": mse,
        **{k: figures[k] for k in ("psnr_rgb_db", "ms_ssim", "vmaf")},
        "encode_s": round(encoded - begin, 1), "decode_s": decode_s,
        "power": float((tap.x**2).mean() / (tap.x0**2).mean()),
    }  # fmt: skip


def bits_at(rows: list[dict[str, Any]], mse: float) -> float | None:
    """Bits per pixel at which a clip's curve reaches an error: interpolated in the logarithms;
    None outside the curve."""
    curve = sorted((math.log(r["latent_mse"]), math.log(r["bits_per_pixel"])) for r in rows)
    x, y = zip(*curve, strict=True)
    if not x[0] <= math.log(mse) <= x[-1]:
        return None
    return float(np.exp(np.interp(math.log(mse), x, y)))


def savings(rows: list[dict[str, Any]]) -> dict[str, Any]:
    """nano's bits over those of the Gaussian on the same latents at equal latent error."""
    ratios = {}
    for r in (r for r in rows if r["model"] == "nano"):
        same = [o for o in rows if o["model"] == MODELS[1] and o["clip"] == r["clip"]]
        other = bits_at(same, r["latent_mse"]) if len(same) == len(BPP) else None
        if other is not None:
            ratios[f"{r['clip']} {r['target_bpp']}"] = r["bits_per_pixel"] / other
    mean = math.exp(np.mean(np.log(list(ratios.values())))) if ratios else None
    return {"geometric_mean": mean, "cells": ratios}


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--all", action="store_true", help="measure finished cells again")
    parser.add_argument("--jobs", type=int, default=2)
    parser.add_argument("--models", nargs="+", default=MODELS, choices=MODELS)
    asked = parser.parse_args()
    file = RESULTS / "priors/nano_rd.json"
    current = {(m, make(m).spec.digest.hex()) for m in MODELS}
    rows = []
    if file.exists() and not asked.all:
        old = json.loads(file.read_text())["rows"]
        rows = [r for r in old if (r["model"], r["weights"]) in current]
    done = {(r["model"], r["clip"], r["target_bpp"]) for r in rows}
    cells = [(m, c, b) for m in asked.models for b in BPP for c in CLIPS if (m, c, b) not in done]
    with multiprocessing.get_context("spawn").Pool(asked.jobs) as pool:
        for row in pool.imap_unordered(measure, cells):
            rows.append(row)
            result = {"height": 256, "frames": 33, "preset": "default",
                      "weights": dict(current)["nano"],
                      "bits_of_nano_over_gauss_at_equal_latent_mse": savings(rows),
                      "rows": rows}  # fmt: skip
            save("priors/nano_rd", result)
