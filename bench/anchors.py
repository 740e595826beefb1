"""x265, SVT-AV1 and VVenC at given rates, the anchors of gvcc -> docs/results/anchors.json.

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
import subprocess
import sys
import time
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import imageio_ffmpeg
import numpy as np
from common import CLIPS, RESULTS, clip, save

from gvcc.eval import metrics
from gvcc.media import Video

TARGETS = (0.01, 0.02, 0.05, 0.1)
NEAR = 0.06  # a size this near, in ratio, needs no further encode: half a step of CRF or QP
FFMPEG = imageio_ffmpeg.get_ffmpeg_exe()

# With swscale's default flags the conversion alone ends at 39 dB in place of 50.
FLAGS = "flags=lanczos+accurate_rnd+full_chroma_int+full_chroma_inp"
RAW_RGB = "-f rawvideo -pix_fmt rgb24 -video_size {width}x{height} -framerate {fps} -i -"
FORMAT = "yuv420p10le"
TO_YUV = f"-vf scale=in_range=full:out_range=limited:out_color_matrix=bt709:{FLAGS},format={FORMAT}"
TO_RGB = f"-vf scale=in_range=limited:out_range=full:in_color_matrix=bt709:{FLAGS},format=rgb24"
# passthrough: the clocks that ffmpeg makes up for a raw stream must not drop or double frames.
DECODE = f"-f {{form}} -i - -fps_mode passthrough {TO_RGB} -f rawvideo -"
CONVERTED = f"-f rawvideo -pix_fmt {FORMAT} -video_size {{width}}x{{height}} -i -"


@dataclass(frozen=True)
class Codec:
    """An encoder of ffmpeg; its quality is `unit` times an integer index, larger for fewer bits."""

    form: str  # ffmpeg's name of the elementary stream
    options: str
    best: int
    worst: int
    start: int  # about right for the first target
    slope: float  # log2 of the size per index, roughly
    unit: float = 1

    @property
    def command(self) -> str:
        return f"{RAW_RGB} {TO_YUV} {self.options} -f {self.form} -"


CODECS = {
    # Above CRF 48 the QP of every frame ends at 51: worse pictures, hardly smaller files.
    "x265": Codec(
        "hevc",
        "-c:v libx265 -preset veryslow -tune psnr -crf {quality} -g 1024 -threads 1"
        " -x265-params info=0:scenecut=0:open-gop=0:pools=2",
        *(1, 48, 40, 0.16),
    ),
    # The encoder takes CRF up to 70 in quarters; ffmpeg's own -crf whole numbers up to 63.
    "svt-av1": Codec(
        "obu",
        "-c:v libsvtav1 -preset 2 -g 1024 -svtav1-params crf={quality}:tune=1:lp=2",
        *(4, 280, 244, 0.05, 0.25),
    ),
    # -g does nothing here. Without poc0idr the keyframe is frame 31 and the rest leads to it;
    # without qpa=0 the QP follows the eye instead of PSNR.
    "vvenc": Codec(
        "vvc",
        "-c:v libvvenc -preset slow -qp {quality} -qpa 0 -period 1000 -threads 2"
        " -vvenc-params accessunitdelimiter=0:poc0idr=1",
        *(1, 63, 42, 0.2),
    ),
}
SIZE_RULE = (
    "bytes of the elementary stream (HEVC and VVC Annex B with start codes, AV1 low-overhead OBUs "
    "with temporal delimiters), parameter sets included; no container. SEI text and access unit "
    "delimiters are off. The conversion to 4:2:0 BT.709 limited range and back belongs to the "
    "codec's loss: conversion_psnr_db is what it costs without any codec."
)


def ffmpeg(command: str, data: bytes, **fields: Any) -> bytes:
    """What ffmpeg makes of `data`. Louder than "error", VVenC would log into the stream."""
    arguments = ["-v", "error", "-nostdin", *command.format(**fields).split()]
    run = subprocess.run([FFMPEG, *arguments], input=data, capture_output=True)
    if run.returncode or not run.stdout:
        raise SystemExit(f"ffmpeg {' '.join(arguments)}: {run.stderr.decode(errors='replace')}")
    return run.stdout


def fields(video: Video) -> dict[str, Any]:
    return {"width": video.frames.shape[2], "height": video.frames.shape[1], "fps": video.fps}


def rgb(video: Video, pictures: bytes) -> np.ndarray:
    return np.frombuffer(pictures, np.uint8).reshape(video.frames.shape)


def guess(codec: Codec, sizes: dict[int, int], target: float) -> int:
    """The next index to try for `target` bytes; one of `sizes` if there is none better.

    Bisection, but where a straight line through the logarithms of the bracket's ends says.
    """
    if not sizes:
        return codec.start
    near = nearest(sizes, target)
    if abs(math.log(sizes[near] / target)) < NEAR:
        return near
    large = max((q for q, size in sizes.items() if size > target), default=None)
    small = min((q for q, size in sizes.items() if size <= target), default=None)
    if large is None or small is None:
        slope = codec.slope
        if len(sizes) > 1:
            a, b = sorted(sorted(sizes, key=lambda q: abs(q - near))[:2])
            slope = max(math.log2(sizes[a] / sizes[b]) / (b - a), slope / 4)
        step = round(math.log2(sizes[near] / target) / slope) or (1 if small is None else -1)
        return min(max(near + step, codec.best), codec.worst)
    if small - large < 2:
        return near
    part = math.log(sizes[large] / target) / math.log(sizes[large] / sizes[small])
    return min(max(large + round(part * (small - large)), large + 1), small - 1)


def nearest(sizes: dict[int, int], target: float) -> int:
    return min(sizes, key=lambda q: abs(math.log(sizes[q] / target)))


def cell(name: str, codec: Codec, clip_name: str, video: Video) -> list[dict[str, Any]]:
    """The rows of one codec on one clip; the targets share their encodes, ten at most."""
    streams: dict[int, bytes] = {}
    sizes: dict[int, int] = {}
    pixels = math.prod(video.frames.shape[:3])
    for i, bpp in enumerate(TARGETS):
        while len(sizes) < 4 + 2 * i and (q := guess(codec, sizes, bpp * pixels / 8)) not in sizes:
            begin = time.monotonic()
            given = fields(video) | {"quality": codec.unit * q}
            streams[q] = ffmpeg(codec.command, video.frames.tobytes(), **given)
            sizes[q] = len(streams[q])
            took = f"{8 * sizes[q] / pixels:.4f} bpp for {bpp}, {time.monotonic() - begin:.0f} s"
            print(f"  {name} {clip_name}: {codec.unit * q:g} -> {took}", file=sys.stderr)
    rows = []
    for bpp in TARGETS:
        target = bpp * pixels / 8
        q = nearest(sizes, target)
        back = rgb(video, ffmpeg(DECODE, streams[q], form=codec.form))
        figures = metrics.compare(video.frames, back, video.fps)
        if None in (figures["vmaf"], figures["ms_ssim"]):
            raise SystemExit(f"{figures['notes']}")
        rows.append({
            "codec": name, "clip": clip_name, "target_bpp": bpp,
            "bytes": sizes[q], "bits_per_pixel": 8 * sizes[q] / pixels,
            "quality": codec.unit * q, "psnr_db": figures["psnr_rgb_db"],
            "ms_ssim": figures["ms_ssim"], "vmaf": figures["vmaf"],
            "reachable": sizes.get(codec.worst, 0) <= 1.1 * target,
        })  # fmt: skip
    return rows


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--all", action="store_true", help="measure every cell again")
    commands = {name: f"ffmpeg -v error {codec.command}" for name, codec in CODECS.items()}
    commands["decode"] = f"ffmpeg -v error {DECODE}"
    old: dict[str, Any] = {"rows": [], "commands": {}}
    if not parser.parse_args().all and (RESULTS / "anchors.json").exists():
        old = json.loads((RESULTS / "anchors.json").read_text())
    cells: dict[tuple[str, str], list[dict[str, Any]]] = {}
    for row in old["rows"]:
        if all(old["commands"][key] == commands.get(key) for key in (row["codec"], "decode")):
            cells.setdefault((row["codec"], row["clip"]), []).append(row)

    conversion: dict[str, float] = {}
    result = {
        "height": 256, "frames": 33, "ffmpeg": Path(FFMPEG).name, "commands": commands,
        "size_rule": SIZE_RULE, "conversion_psnr_db": conversion,
    }  # fmt: skip
    videos = {name: clip(name) for name in CLIPS}
    for name, video in videos.items():
        yuv = ffmpeg(f"{RAW_RGB} {TO_YUV} -f rawvideo -", video.frames.tobytes(), **fields(video))
        back = ffmpeg(f"{CONVERTED} {TO_RGB} -f rawvideo -", yuv, **fields(video))
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
            save("anchors", result)


if __name__ == "__main__":
    main()
