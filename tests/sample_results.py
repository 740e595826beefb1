"""A small folder of results, as an evaluation leaves it, for tests of what is made of one."""

from __future__ import annotations

import json
import re
from fractions import Fraction
from pathlib import Path
from typing import Any

import numpy as np

from gvcc.pictures import media
from gvcc.records import Video

CODECS = ("gvcc:default", "x265")
CLIPS = ("first", "</script><b>bold")
RATES = (0.02, 0.1)
FRAMES, HEIGHT, WIDTH = 9, 64, 96
FAILED = ("x265", CLIPS[1], 0.02)
ERROR = "the smallest file of 123 bytes is above <the> target"


def picture(error: int) -> np.ndarray:
    """A clip [9,64,96,3] whose left half has the grey level 20 + 25 n in frame n; the right half is
    off by `error` grey levels."""
    n, y, x = np.ogrid[:FRAMES, :HEIGHT, :WIDTH]
    grey = np.where(x < WIDTH // 2, 20 + 25 * n + 0 * y, 60 + y + error + 0 * n)
    return np.repeat(grey[..., None], 3, -1).astype(np.uint8)


def make(folder: Path) -> Path:
    """Two codecs, two clips, two rates, one failed cell."""
    for clip in CLIPS:
        _write(folder / f"media/original/{clip}.mp4", 0)  # a "/" in a name makes a folder
    for number, codec in enumerate(CODECS):
        cells = [_cell(folder, codec, number, clip, rate) for clip in CLIPS for rate in RATES]
        result = {"codec": codec, "set": "eval", "prior": None if number else "nano",
                  "command": f"run {codec}", "notes": ["a note"], "cells": cells,
                  "set_metrics": {"0.02": {}, "0.1": {"fid_256": 31.5 + number}}}  # fmt: skip
        _json(folder / f"results/{_safe(codec)}__eval.json", result)
    clips = [{"name": c, "frames": FRAMES, "width": WIDTH, "height": HEIGHT, "fps": "25",
              "video": f"media/original/{c}.mp4"} for c in CLIPS]  # fmt: skip
    _json(folder / "setup.json", {"set": "eval", "height": HEIGHT, "frames": FRAMES,
          "rates": RATES, "codecs": CODECS, "clips": clips})  # fmt: skip
    pchip = {"rate_percent": [[None, -23.4], [30.5, None]],
             "interval": [[None, [-30.0, -15.0]], [None, None]],
             "warnings": [[[], []], [["first: the curves overlap by only 20%"], []]]}  # fmt: skip
    akima = pchip | {"rate_percent": [[None, -21.7], [None, None]]}
    table = {"codecs": CODECS, "pchip": pchip, "akima": akima}
    _json(folder / "bd.json", {"anchor": "x265", "vmaf": table})
    return folder


def _cell(folder: Path, codec: str, number: int, clip: str, rate: float) -> dict[str, Any]:
    if (codec, clip, rate) == FAILED:
        return {"clip": clip, "rate": rate, "status": "failed", "error": ERROR}
    at = f"media/{_safe(codec)}/{clip}-{rate:g}.mp4"
    error = 10 + 20 * number
    _write(folder / at, error)
    size = round(rate * FRAMES * HEIGHT * WIDTH / 8)
    return {
        "clip": clip, "rate": rate, "status": "ok", "bytes": size, "bits_per_pixel": rate * 0.99,
        "kbps": 33.1, "encode_s": 3.2, "decode_s": 1.1,
        "metrics": {"psnr_rgb_db": 30 + 40 * rate - number, "vmaf": 50 + 100 * rate - 5 * number,
                    "tof": 0.8 - rate, "lpips_alex": None},
        "not_computed": {"lpips_alex": "needs alexnet.pth in $GVCC_METRICS"},
        "profile": {"psnr_db": [30.0 + n for n in range(FRAMES)],
                    "change": [12.0 + number] * (FRAMES - 1),
                    "change_source": [12.5] * (FRAMES - 1)},
        "video": at,
    }  # fmt: skip


def _safe(name: str) -> str:
    return re.sub(r"[^A-Za-z0-9.-]", "_", name)


def _write(path: Path, error: int) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    media.write(Video(picture(error), Fraction(25)), path)


def _json(path: Path, data: Any) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(json.dumps(data))
