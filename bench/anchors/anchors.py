"""x265, SVT-AV1 and VVenC at given rates, the anchors of gvcc -> docs/results/anchors/anchors.json.

For each evaluation clip (256 px height, 33 frames) and rate: the quality setting whose file is
nearest to the rate, and PSNR, MS-SSIM and VMAF of what ffmpeg decodes from it. The encoders are
imageio-ffmpeg's: slow presets, tuned for PSNR, 10 bit, one closed GOP, its only keyframe first.
Finished (codec, clip) cells are kept unless their command changed or --all.
"""

from __future__ import annotations

import argparse
import contextlib
import json
import math
import sys
import time
from pathlib import Path
from typing import Any

sys.path.insert(0, str(Path(__file__).resolve().parents[2]))

import numpy as np

from bench.common import CLIPS, RESULTS, clip, save
from gvcc.eval.baselines import (
    BASELINES,
    CONVERTED,
    DECODE,
    RAW_RGB,
    SIZE_RULE,
    TO_RGB,
    TO_YUV,
    Baseline,
    Coded,
    ffmpeg,
    fields,
)
from gvcc.metrics import metrics
from gvcc.pictures.media import Video

TARGETS = (0.01, 0.02, 0.05, 0.1)
CODECS = {name: BASELINES[code] for name, code in
          (("x265", "x265"), ("svt-av1", "svt-av1"), ("vvenc", "vvc"))}  # fmt: skip


def rgb(video: Video, pictures: bytes) -> np.ndarray:
    return np.frombuffer(pictures, np.uint8).reshape(video.frames.shape)


def cell(name: str, codec: Baseline, clip_name: str, video: Video) -> list[dict[str, Any]]:
    """The rows of one codec on one clip."""
    coded, pixels = Coded(codec, video.frames, video.fps), math.prod(video.frames.shape[:3])

    def tell(q: int, size: int) -> None:
        print(f"  {name} {clip_name}: {codec.unit * q:g} -> {8 * size / pixels:.4f} bpp",
              file=sys.stderr)  # fmt: skip

    rows = []
    for bpp in TARGETS:
        q, stream = coded.at(bpp * pixels / 8, tell)
        size = coded.sizes[q]
        figures = metrics.compare(video.frames, coded.decoded(stream), video.fps)
        if None in (figures["vmaf"], figures["ms_ssim"]):
            raise SystemExit(f"{figures['notes']}")
        rows.append({
            "codec": name, "clip": clip_name, "target_bpp": bpp,
            "bytes": size, "bits_per_pixel": 8 * size / pixels,
            "quality": codec.unit * q, "psnr_db": figures["psnr_rgb_db"],
            "ms_ssim": figures["ms_ssim"], "vmaf": figures["vmaf"],
            "reachable": coded.sizes.get(codec.worst, 0) <= 1.1 * bpp * pixels / 8,
        })  # fmt: skip
    return rows


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--all", action="store_true", help="measure every cell again")
    commands = {name: f"ffmpeg -v error {codec.command}" for name, codec in CODECS.items()}
    commands["decode"] = f"ffmpeg -v error {DECODE}"
    old: dict[str, Any] = {"rows": [], "commands": {}}
    if not parser.parse_args().all and (RESULTS / "anchors/anchors.json").exists():
        old = json.loads((RESULTS / "anchors/anchors.json").read_text())
    cells: dict[tuple[str, str], list[dict[str, Any]]] = {}
    for row in old["rows"]:
        if all(old["commands"][key] == commands.get(key) for key in (row["codec"], "decode")):
            cells.setdefault((row["codec"], row["clip"]), []).append(row)

    conversion: dict[str, float] = {}
    result = {
        "height": 256, "frames": 33, "ffmpeg": "imageio-ffmpeg", "commands": commands,
        "size_rule": SIZE_RULE, "conversion_psnr_db": conversion,
    }  # fmt: skip
    videos = {name: clip(name) for name in CLIPS}
    for name, video in videos.items():
        given = fields(video.frames, video.fps)
        yuv = ffmpeg(f"{RAW_RGB} {TO_YUV} -f rawvideo -", video.frames.tobytes(), **given)
        back = ffmpeg(f"{CONVERTED} {TO_RGB} -f rawvideo -", yuv, **given)
        conversion[name] = metrics.psnr(video.frames, rgb(video, back))
    order = [(codec, name) for name in CLIPS for codec in CODECS]
    missing = [key for key in order if key not in cells]
    begin = time.monotonic()
    for done, key in enumerate([None, *missing]):
        if key:
            cells[key] = cell(key[0], CODECS[key[0]], key[1], videos[key[1]])
            eta = (time.monotonic() - begin) / done * (len(missing) - done)
            print(f"{done}/{len(missing)} cells, ETA {eta / 60:.0f} min", file=sys.stderr)
        result["rows"] = [r for codec in CODECS for n in CLIPS for r in cells.get((codec, n), [])]
        with contextlib.redirect_stdout(sys.stdout if done == len(missing) else None):
            save("anchors/anchors", result)


if __name__ == "__main__":
    main()
