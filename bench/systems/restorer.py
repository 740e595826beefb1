"""Where nano's restorer makes a base look better, and whether a smaller base is better ->
docs/results/systems/restorer.json.

    python bench/systems/restorer.py ../shared/data/train .runs/cache

Held-out clips of the training data and pictures of it under a moving camera (256x256, 17 frames),
by both codecs at three sizes over their quantisers: bytes; LPIPS (alex) and DISTS, on which nothing
is trained, and PSNR, of the base and of what is shown at k = 1 (realism) and k = 2 (fidelity),
two frames of them. Rows are kept as they come: a run that is broken off goes on.
"""

from __future__ import annotations

import argparse
import csv
import math
import sys
from collections import defaultdict
from fractions import Fraction
from pathlib import Path
from typing import Any

import numpy as np

sys.path.insert(0, str(Path(__file__).resolve().parents[2]))

from bench.common import save
from gvcc.decode import restore
from gvcc.decode.anchored import AnchoredNoise
from gvcc.format import texture
from gvcc.format.base import SIZES, BaseRecord
from gvcc.metrics import metrics, perceptual
from gvcc.pictures import base, enlarge
from gvcc.pictures.basecodecs import PARTS
from gvcc.priors import restorers
from gvcc.priors.texture import lost
from gvcc.search.textures import lacking
from gvcc.train.dataset import Dataset

FRAMES, SIDE, EVERY = 17, 256, 8
SEED = 97  # of the pictures
INDICES = {  # of quality: from where a base is nearly the clip to the coarsest that one would show
    ("vvc", 1): (30 * PARTS, 36 * PARTS, 41 * PARTS, 46 * PARTS, 51 * PARTS),
    ("vvc", 2): (22 * PARTS, 29 * PARTS, 36 * PARTS, 43 * PARTS),
    ("vvc", 4): (16 * PARTS, 24 * PARTS, 33 * PARTS),
    ("av1", 1): (4 * 150, 4 * 200, 4 * 250), ("av1", 2): (4 * 90, 4 * 160, 4 * 235),
    ("av1", 4): (4 * 60, 4 * 160),
}  # fmt: skip
FIELDS = ("clip", "codec", "size", "index", "quantiser", "bytes", "what", "psnr", "alex", "dists")


def measured(clip: np.ndarray, shown: np.ndarray) -> dict[str, float]:
    some = slice(EVERY // 2, None, EVERY)
    return {"psnr": metrics.psnr(clip, shown), "alex": perceptual.lpips(clip[some], shown[some]),
            "dists": perceptual.dists(clip[some], shown[some])}  # fmt: skip


def rows(number: int, clip: np.ndarray, codec: str, size: int, index: int) -> list[dict[str, Any]]:
    """Base, and restored at both ends of the knob."""
    spool = base.spooled(clip, SIDE, SIDE, (size,))[size]
    try:
        made: BaseRecord = base.coded(spool, codec, size, Fraction(25), index)
    finally:
        spool.close()
    small = [*base.small(made, SIDE, SIDE, FRAMES)]
    what = {"base": enlarge.enlarged(np.stack(small), SIDE, SIDE, size)}
    levels = lacking(lost(clip, what["base"]))
    for name, knob in (("realism", 1.0), ("fidelity", 2.0)):
        net, noise = restorers.load("nano", knob), AnchoredNoise(1, 0, size)
        shown = restore.restored(small, made, SIDE, SIDE, noise, levels, net)
        what[name] = np.stack([*shown])
    about = {"clip": number, "codec": codec, "size": size, "index": index,
             "quantiser": made.quantiser,
             "bytes": len(made.stream) + len(texture.write(levels))}  # fmt: skip
    return [about | {"what": k} | measured(clip, v) for k, v in what.items()]


def mean(values: list[float]) -> float:
    """Geometric."""
    return math.exp(sum(map(math.log, values)) / len(values))


def summary(found: list[dict[str, Any]]) -> dict[str, Any]:
    """By codec, size and index: bits per pixel, and what is shown over the base."""
    cells: dict[Any, dict[str, list[dict[str, Any]]]] = defaultdict(lambda: defaultdict(list))
    for r in found:
        cells[r["codec"], int(r["size"]), int(r["index"])][r["what"]].append(r)
    out = []
    for (codec, size, index), by in sorted(cells.items()):
        plain = by["base"]
        line: dict[str, Any] = {
            "codec": codec, "size": size, "index": index, "quantiser": int(plain[0]["quantiser"]),
            "bpp": mean([8 * int(r["bytes"]) / (FRAMES * SIDE**2) for r in plain]),
        }  # fmt: skip
        for what in ("realism", "fidelity"):
            line[what] = {
                "psnr": sum(float(a["psnr"]) - float(b["psnr"])
                            for a, b in zip(by[what], plain, strict=True)) / len(plain),
                **{m: mean([float(a[m]) / float(b[m])
                            for a, b in zip(by[what], plain, strict=True)])
                   for m in ("alex", "dists")},
            }  # fmt: skip
        out.append(line)
    return {"clips": len({r["clip"] for r in found}), "cells": out, "sizes": sizes(found)}


def sizes(found: list[dict[str, Any]]) -> list[dict[str, Any]]:
    """What a smaller base costs or gains at the bytes of each full-size one, at k = 1: the ratio of
    sqrt(alex * dists), interpolated in log bytes, where the smaller one has such bytes."""
    curves: dict[Any, list[tuple[float, float]]] = defaultdict(list)
    for r in found:
        if r["what"] == "realism":
            score = 0.5 * math.log(float(r["alex"]) * float(r["dists"]))
            curves[r["codec"], r["clip"], int(r["size"])].append((math.log(int(r["bytes"])), score))
    out: dict[Any, list[float]] = defaultdict(list)
    full = [r for r in found if r["what"] == "realism" and int(r["size"]) == 1]
    for r in full:
        own = 0.5 * math.log(float(r["alex"]) * float(r["dists"]))
        for size in SIZES[1:]:
            x, y = zip(*sorted(curves[r["codec"], r["clip"], size]), strict=True)
            at = math.log(int(r["bytes"]))
            if x[0] <= at <= x[-1]:
                gain = float(np.interp(at, x, y)) - own
                out[r["codec"], size, int(r["index"])].append(gain)
    quantisers = {(r["codec"], int(r["index"])): int(r["quantiser"]) for r in reversed(full)}
    return [
        {"codec": c, "size": s, "index": i, "quantiser": quantisers[c, i], "clips": len(v),
         "ratio": math.exp(np.mean(v)), "better": sum(g < 0 for g in v)}
        for (c, s, i), v in sorted(out.items())
    ]  # fmt: skip


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("data", type=Path)
    parser.add_argument("cache", type=Path)
    parser.add_argument("--clips", type=int, default=6)
    parser.add_argument("--rows", type=Path, default=Path(".runs/restorer.csv"))
    asked = parser.parse_args()
    source = Dataset(asked.data, asked.cache, pictures=1)
    kept: list[dict[str, Any]] = []
    if asked.rows.exists():
        kept = list(csv.DictReader(asked.rows.open()))
    done = {(int(r["clip"]), r["codec"], int(r["size"]), int(r["index"])) for r in kept}
    with asked.rows.open("a") as file:
        writer = csv.DictWriter(file, FIELDS)
        if not kept:
            writer.writeheader()
        for number in range(asked.clips):
            drawn = source.held_out(number // 2, FRAMES, SIDE) if number % 2 else \
                source.sample(SEED, number // 2, FRAMES, SIDE)  # fmt: skip
            clip = drawn.numpy()
            for (codec, size), indices in INDICES.items():
                for index in indices:
                    if (number, codec, size, index) not in done:
                        found = rows(number, clip, codec, size, index)
                        writer.writerows(found)
                        file.flush()
                        kept += found
            print(number, file=sys.stderr)
    save("systems/restorer", summary(kept))


if __name__ == "__main__":
    main()
