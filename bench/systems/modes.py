"""Mode x clip x rate -> docs/results/systems/modes.json: real bytes by kind, quality, temporal
profile.

`gvcc encode --mode` and `gvcc decode`, each in a process of its own, on the evaluation clips at 176
px height, 33 frames in GOPs of 17, prior nano. Cells that are in the file already, made with the
same weights, are kept: the run may be broken off.
"""

from __future__ import annotations

import argparse
import itertools
import json
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

sys.path.insert(0, str(Path(__file__).resolve().parents[2]))

from bench.common import CLIPS, RESULTS, clip, save
from gvcc import priors
from gvcc.eval.temporal import profile
from gvcc.format import parser
from gvcc.metrics import metrics
from gvcc.pictures import media

HEIGHT, FRAMES, GOP = 176, 33, 17
RATES, MODES = (0.05, 0.02, 0.1), ("t2v", "i2v", "flf2v", "auto")
NAME = "systems/modes"


def gvcc(*arguments: str) -> None:
    """Run a command; an exception with what it said if it fails."""
    run = subprocess.run([sys.executable, "-m", "gvcc", *arguments], capture_output=True, text=True)
    if run.returncode:
        raise SystemExit(f"gvcc {' '.join(arguments)}: {run.stderr}")


def cell(source: Path, name: str, mode: str, bpp: float, work: Path) -> dict[str, Any]:
    """One clip, one mode, one rate."""
    coded, shown, begin = work / "a.gvcc", work / "out.y4m", time.monotonic()
    gvcc("encode", str(source), "-o", str(coded), "-y", "--mode", mode, "--bpp", str(bpp),
         "--gop", str(GOP))  # fmt: skip
    middle = time.monotonic()
    gvcc("decode", str(coded), "-o", f"{shown}/", "-y")
    end, data = time.monotonic(), coded.read_bytes()
    video, got = media.read(f"{source}/"), media.read(f"{shown}/")
    stream = parser.parse(data)
    figures = metrics.compare(video.frames, got.frames, video.fps)
    starts = [g.gop.start + g.gop.skip for g in stream.gops[1:]]
    kinds = {
        "stills": sum(len(s) for g in stream.gops for s in g.stills),
        "residual": sum(len(g.residual) for g in stream.gops),
        "symbols": sum(len(g.symbols) for g in stream.gops),
    }
    t, h, w, _ = video.frames.shape
    return {
        "clip": name, "mode": mode, "target_bpp": bpp, "frames": t, "height": h, "width": w,
        "bytes": len(data), "bits_per_pixel": round(8 * len(data) / (t * h * w), 5), **kinds,
        "psnr_rgb_db": round(figures["psnr_rgb_db"], 3), "ms_ssim": round(figures["ms_ssim"], 4),
        "vmaf": round(figures["vmaf"], 2), "gop_modes": [g.gop.mode for g in stream.gops],
        **profile(video.frames, got.frames, starts),
        "encode_s": round(middle - begin, 1), "decode_s": round(end - middle, 1),
    }  # fmt: skip


def order(row: dict[str, Any]) -> tuple[str, float, int]:
    """Sorting of the cells."""
    return row["clip"], row["target_bpp"], MODES.index(row["mode"])


def main() -> None:
    asked = argparse.ArgumentParser(description=__doc__)
    asked.add_argument("--fresh", action="store_true", help="measure every cell anew")
    fresh = asked.parse_args().fresh
    digest = priors.load("nano").spec.digest.hex()
    path, rows = RESULTS / f"{NAME}.json", []
    if path.exists() and not fresh:
        old = json.loads(path.read_text())
        rows = old["cells"] if old["weights"] == digest else []
    done = {(r["clip"], r["mode"], r["target_bpp"]) for r in rows}
    with tempfile.TemporaryDirectory() as folder:
        work = Path(folder)
        for name in CLIPS:
            media.write(clip(name, FRAMES, HEIGHT), f"{work / name}/")
        # The three modes first; auto takes as long as all of them.
        for mode, bpp, name in itertools.product(MODES, RATES, CLIPS):
            if (name, mode, bpp) in done:
                continue
            rows.append(cell(work / name, name, mode, bpp, work))
            print(rows[-1], file=sys.stderr, flush=True)
            rows.sort(key=order)
            save(NAME, {"prior": "nano", "weights": digest, "preset": "default",
                        "height": HEIGHT, "frames": FRAMES, "gop": GOP, "cells": rows})  # fmt: skip


if __name__ == "__main__":
    main()
