"""What the benches share: the evaluation clips at one height, and where results go."""

from __future__ import annotations

import json
import zlib
from typing import Any

import numpy as np
from PIL import Image
from torch import Tensor

from bench.pages import RESULTS, ROOT
from gvcc.pictures import media
from gvcc.pictures.media import Video

DATA = ROOT.parent / "shared/data"
CLIPS = ("akiyo_cif", "davis_blackswan", "davis_bmx-trees", "davis_dog", "vid4_calendar")


def clip(name: str, frames: int = 33, height: int = 256) -> Video:
    """The first frames of an evaluation clip, Lanczos-scaled to `height`, width a multiple of 8."""
    video = media.read(DATA / f"eval/{name}.mp4", frames=frames, audio=False)
    h, w = video.frames.shape[1:3]
    size = (round(w * height / h / 8) * 8, height)
    scaled = [Image.fromarray(f).resize(size, Image.Resampling.LANCZOS) for f in video.frames]
    return Video(np.stack([np.asarray(f) for f in scaled]), video.fps, video.colour)


def published(r: Tensor) -> tuple[int, Tensor]:
    """Bytes and decoded residual of the published scheme for r [C,1,h,w]."""
    scale = r.abs().amax((1, 2, 3), keepdim=True).clamp(min=1e-6).half().float()
    q = ((r / scale + 1) * 255 / 2).round().clamp(0, 255)
    data = zlib.compress(q.byte().numpy().tobytes(), 9)
    return len(data) + 2 * len(r), (2 * q / 255 - 1) * scale


def save(name: str, result: dict[str, Any]) -> None:
    """Write docs/results/<name>.json, and print it; `name` is the topic's folder and a word."""
    text, path = json.dumps(result, indent=1), RESULTS / f"{name}.json"
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(text + "\n")
    print(text)
