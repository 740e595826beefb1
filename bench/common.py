"""What the benches share: the evaluation clips at one height, Gaussian sources and their bounds,
and where results go."""

from __future__ import annotations

import json
import math
import time
import zlib
from collections.abc import Callable
from fractions import Fraction
from typing import Any

import numpy as np
import torch
from PIL import Image
from torch import Tensor

from bench.pages import RESULTS, ROOT
from gvcc import flow
from gvcc.format.bitstream import Header
from gvcc.pictures import media
from gvcc.pictures.media import Video
from gvcc.records import Colour

DATA = ROOT.parent / "shared/data"
CLIPS = ("akiyo_cif", "davis_blackswan", "davis_bmx-trees", "davis_dog", "vid4_calendar")


def clip(name: str, frames: int = 33, height: int = 256) -> Video:
    """The first frames of an evaluation clip, Lanczos-scaled to `height`, width a multiple of 8."""
    video = media.read(DATA / f"eval/{name}.mp4", frames=frames, audio=False)
    h, w = video.frames.shape[1:3]
    size = (round(w * height / h / 8) * 8, height)
    scaled = [Image.fromarray(f).resize(size, Image.Resampling.LANCZOS) for f in video.frames]
    return Video(np.stack([np.asarray(f) for f in scaled]), video.fps, video.colour)


def least(run: Callable[[], Any], times: int = 3) -> float:
    """The least seconds of so many runs."""
    found = []
    for _ in range(times):
        begin = time.perf_counter()
        run()
        found.append(time.perf_counter() - begin)
    return min(found)


def published(r: Tensor) -> tuple[int, Tensor]:
    """Bytes and decoded residual of the published scheme for r [C,1,h,w]."""
    scale = r.abs().amax((1, 2, 3), keepdim=True).clamp(min=1e-6).half().float()
    q = ((r / scale + 1) * 255 / 2).round().clamp(0, 255)
    data = zlib.compress(q.byte().numpy().tobytes(), 9)
    return len(data) + 2 * len(r), (2 * q / 255 - 1) * scale


def diagonal_header(coder: str, seed: int, steps: int, ode_steps: int, knob: float) -> Header:
    """A stream of one latent frame of independent Gaussians, by posterior steps and a coder."""
    return Header(
        prior="diagonal", digest=bytes(8), width=16, height=16, frames=1, fps=Fraction(1),
        colour=Colour(), gop=1, overlap=0, path="rf", rule="posterior",
        coder="rcc" if coder == "rcc" else "hadamard", allocation="matched",
        codebook_size=2**14 if coder == "rcc" else 0, seed=seed, steps=steps + ode_steps,
        ode_steps=ode_steps, shift=1.0, g_scale=0.0, knob=knob, multistep=True, audio=False,
    )  # fmt: skip


class ExactChannel:
    """A step's noise z ~ N(mu, I) itself, at its information: `bits` so far."""

    def __init__(self, x0: Tensor, random: torch.Generator) -> None:
        self.x0, self.bits, self.random = x0, 0.0, random

    def __call__(self, step: int, t: float, s: float, x0hat: Tensor) -> Tensor:
        path = flow.PATHS["rf"]
        mu = math.sqrt(flow.snr(path, s) - flow.snr(path, t)) * (self.x0 - x0hat)
        self.bits += float((mu**2).sum()) / (2 * math.log(2))
        return mu + torch.randn(mu.shape, generator=self.random)


def water_filling(variances: Tensor, mse: float) -> float:
    """Bits of Shannon's bound for independent Gaussians at a mean squared error."""
    low, high = 1e-9, 1e9
    for _ in range(200):
        level = math.sqrt(low * high)
        below = float(variances.clamp(max=level).mean()) < mse
        low, high = (level, high) if below else (low, level)
    return float((0.5 * torch.log2(variances / level)).clamp(min=0).sum())


def save(name: str, result: dict[str, Any]) -> None:
    """Write docs/results/<name>.json, and print it; `name` is the topic's folder and a word."""
    text, path = json.dumps(result, indent=1), RESULTS / f"{name}.json"
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(text + "\n")
    print(text)
