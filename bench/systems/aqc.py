"""Adaptive Quality Control -> docs/results/systems/aqc.json and .png (coder rcc) or aqc_codebook.*.

The whole evaluation clips, and all of them joined to one programme, at 96 px height, cropped to 120
px width and to whole GOPs of 9 frames: prior nano, preset free-gvc, mode t2v, which has no
condition, so that a GOP's qualities at several stops are exactly those of files at those stops.
LPIPS and DISTS need `gvcc eval weights`. For each clip and metric:

- goal: the mean quality at a middle stop, or what the worst GOP has at the deepest stop that was
  looked at, if that is less; a real file with that goal, and how near each GOP came to it;
- fixed stop: mean rate and variance of quality over GOPs, interpolated in the logarithm of the rate
  between two stops to the rate of the file with the goal;
- surrogate: the forms of quality.FORMS, fitted to each GOP's (rate, quality) points, and the error
  at a point that is left out (Fig. 5 of Free-GVC, arXiv 2602.09868).

Parts that are in the file already, made with the same weights, are kept.
"""

from __future__ import annotations

import argparse
import json
import math
import os
import sys
from fractions import Fraction
from pathlib import Path
from typing import Any

sys.path.insert(0, str(Path(__file__).resolve().parents[2]))

os.environ.setdefault("OMP_WAIT_POLICY", "PASSIVE")
import matplotlib
import numpy as np
import torch

from bench import passes
from bench.common import CLIPS, RESULTS, clip, save
from gvcc import encoder
from gvcc.format import parser
from gvcc.pictures.media import Video
from gvcc.priors import Prior, nano
from gvcc.search import config, quality
from gvcc.search import stops as aqc
from gvcc.search.config import EncodeConfig

HEIGHT, WIDTH, GOP, FIRST = 96, 120, 9, 3
STOPS, MIDDLE = (6, 8, 10, 12, 14, 16), 12
MEASURED = ("psnr", "vmaf", "lpips", "dists")  # the last two are negated: higher is better
PROGRAMME = "programme"


def cropped(name: str) -> Video:
    """A whole clip, scaled, cropped around its middle, without the last frames of no whole GOP."""
    video = clip(name, 1000, HEIGHT)
    left = (video.frames.shape[2] - WIDTH) // 2
    frames = video.frames[: len(video.frames) // GOP * GOP, :, left : left + WIDTH]
    return Video(np.ascontiguousarray(frames), video.fps, video.colour)


class Every:
    """A goal that measures every metric; `last` has them, and the first one is returned."""

    name, value, tolerance = "psnr", 0.0, 0.0

    def __init__(self) -> None:
        self.last: dict[str, float] = {}

    def measure(self, ref: Any, out: Any, fps: Fraction) -> float:
        for name in MEASURED:
            found = quality.METRICS[name].measure(ref, out, fps)
            assert found is not None
            self.last[name] = quality.METRICS[name].sign * found
        return self.last["psnr"]


def sweep(video: Video, prior: Prior, coder: str) -> list[dict[str, Any]]:
    """Each GOP at each of STOPS: bytes of its record and all qualities."""
    every, out = Every(), list[dict[str, Any]]()

    def look(
        coded: aqc.Pass, goal: Any, surrogate: Any, pixels: int, probe: Any, before: Any
    ) -> Any:
        points = []
        for n in STOPS:
            stop = coded.stop(n, 0)
            probe(stop)
            size = len(coded.symbols(stop))
            points.append({"stop": n, "bytes": size, **every.last})
        out.append({"pixels": pixels, "points": points})
        return coded.stop(MIDDLE, 0), 0.0

    real, name = encoder.reach, config.goal
    encoder.reach, config.goal = look, lambda text: every  # type: ignore[assignment,return-value]
    try:
        asked = EncodeConfig(
            "free-gvc", coder=coder, mode="t2v", gop=GOP, quality="psnr:30", audio=False
        )
        parts = list(encoder.encode_parts(video, asked, prior))[1:]
    finally:
        encoder.reach, config.goal = real, name
    middle = STOPS.index(MIDDLE)
    for row, part in zip(out, parts, strict=True):
        rest = len(part.data) - row["points"][middle]["bytes"]  # what else its record holds
        for p in row["points"]:
            p["bytes"] += rest
            p["bits_per_pixel"] = 8 * p["bytes"] / row["pixels"]
    return out


def towards(video: Video, metric: str, value: float, prior: Prior, coder: str) -> dict[str, Any]:
    """A real file with a goal: what each GOP has of it, and after how many probes."""
    probes: list[int] = []
    real = encoder.reach

    def counted(coded: Any, goal: Any, surrogate: Any, pixels: int, probe: Any, before: Any) -> Any:
        probes.append(0)

        def counting(stop: aqc.Stop) -> float:
            probes[-1] += 1
            return float(probe(stop))

        return real(coded, goal, surrogate, pixels, counting, before)

    encoder.reach = counted
    try:
        asked = EncodeConfig("free-gvc", coder=coder, mode="t2v", gop=GOP,
                             quality=f"{metric}:{quality.METRICS[metric].sign * value}",
                             audio=False)  # fmt: skip
        parts = list(encoder.encode_parts(video, asked, prior))
    finally:
        encoder.reach = real
    data = b"".join(p.data for p in parts)
    stream = parser.parse(data)
    gops = [
        {
            "stop": g.stop,
            "part": g.fraction,
            "bytes": len(p.data),
            "quality": p.quality,
            "probes": n,
        }
        for g, p, n in zip(stream.gops, parts[1:], probes, strict=True)
    ]
    pixels = video.frames[..., 0].size
    return {
        "goal": value, "tolerance": quality.METRICS[metric].tolerance, "bytes": len(data),
        "gop_bits_per_pixel": 8 * sum(g["bytes"] for g in gops) / pixels, "gops": gops,
    }  # fmt: skip


def goal_of(swept: list[dict[str, Any]], metric: str) -> float:
    """A goal that every GOP can reach."""
    middle = np.mean([g["points"][STOPS.index(MIDDLE)][metric] for g in swept])
    fine = 100 if metric in ("psnr", "vmaf") else 10000
    return math.floor(fine * min(middle, *(g["points"][-1][metric] for g in swept))) / fine


def judged(swept: list[dict[str, Any]], metric: str, made: dict[str, Any]) -> dict[str, Any]:
    """A file with a goal against the bars."""
    found = np.array([g["quality"] for g in made["gops"]])
    late = np.abs(found[FIRST:] - made["goal"]) <= made["tolerance"]
    rate = [np.mean([g["points"][i]["bits_per_pixel"] for g in swept]) for i in range(len(STOPS))]
    spread = [np.var([g["points"][i][metric] for g in swept]) for i in range(len(STOPS))]
    asked = made["gop_bits_per_pixel"]
    fixed = float(np.interp(math.log(asked), np.log(rate), spread))
    return {
        "goal": made["goal"], "tolerance": made["tolerance"], "gops": len(found),
        "after_third": len(late), "within": int(late.sum()), "share_within": float(late.mean()),
        "probes_per_gop": float(np.mean([g["probes"] for g in made["gops"][FIRST:]])),
        "bytes": made["bytes"], "bits_per_pixel": asked,
        "inside_swept_rates": bool(rate[0] <= asked <= rate[-1]),
        "variance": float(found.var()), "variance_fixed_stop": fixed,
        "variance_ratio": float(found.var()) / fixed,
    }  # fmt: skip


def surrogates(swept: list[dict[str, Any]], metric: str) -> dict[str, float]:
    """Root mean square over GOPs of each form's error at points left out; `best`: the form chosen
    anew for each GOP, as the encoder does."""
    left: dict[str, list[float]] = {form: [] for form in (*quality.FORMS, "best")}
    for g in swept:
        samples = [quality.Sample(p["bits_per_pixel"], p[metric], 1.0) for p in g["points"]]
        errors = {form: quality.fit(form, samples)[1] for form in quality.FORMS}
        for form, e in (errors | {"best": min(errors.values())}).items():
            left[form].append(e)
    return {form: float(np.sqrt(np.mean(np.square(e)))) for form, e in left.items()}


def plot(result: dict[str, Any], name: str) -> None:
    matplotlib.use("Agg")
    from matplotlib import pyplot as plt

    figure, axes = plt.subplots(len(MEASURED), 2, figsize=(11, 3.5 * len(MEASURED)))
    for m, metric in enumerate(MEASURED):
        made = result["files"].get(f"{PROGRAMME} {metric}")
        row = axes[m]
        if made:
            swept = [g for n in CLIPS for g in result["swept"][n]]
            for stop in (8, 12):
                fixed = [g["points"][STOPS.index(stop)][metric] for g in swept]
                row[0].plot(fixed, lw=0.8, ls="--", label=f"every GOP stops after {stop} steps")
            row[0].plot([g["quality"] for g in made["gops"]], lw=1.5, label="with the goal")
            row[0].axhline(made["goal"], color="k", lw=0.5)
            row[0].set(xlabel="GOP of the programme", ylabel=metric)
            row[0].legend(fontsize=8)
        forms = (*quality.FORMS, "best")
        for i, n in enumerate(CLIPS):
            if n in result["surrogate"]:
                e = [result["surrogate"][n][metric][f] for f in forms]
                row[1].bar(np.arange(len(forms)) + 0.16 * (i - 2), e, 0.15, label=n)
        row[1].set_xticks(range(len(forms)), forms)
        row[1].set_ylabel(f"leave-one-out error, {metric}")
        row[1].legend(fontsize=7)
    figure.suptitle(f"nano, free-gvc, {result['coder']}, {WIDTH}x{HEIGHT}, GOPs of {GOP} frames")
    figure.tight_layout()
    figure.savefig(RESULTS / f"{name}.png", dpi=90)
    plt.close(figure)


def main() -> None:
    asked = argparse.ArgumentParser(description=__doc__)
    asked.add_argument("--fresh", action="store_true", help="measure everything anew")
    asked.add_argument("--files", action="store_true", help="keep what is known of fixed stops")
    asked.add_argument("--coder", choices=("rcc", "codebook"), default="rcc")
    given = asked.parse_args()
    coder = given.coder
    out = "systems/aqc" if coder == "rcc" else "systems/aqc_codebook"
    torch.set_num_threads(1)
    passes.install()
    prior = nano.load()
    digest, path = prior.spec.digest.hex(), RESULTS / f"{out}.json"
    result: dict[str, Any] = {}
    if path.exists() and not given.fresh:
        result = json.loads(path.read_text())
    if result.get("weights") != digest:
        result = {"prior": "nano", "weights": digest, "preset": "free-gvc", "coder": coder,
                  "mode": "t2v", "height": HEIGHT, "width": WIDTH, "gop": GOP,
                  "stops": list(STOPS), "judged": {}, "surrogate": {}, "swept": {},
                  "files": {}}  # fmt: skip
    if given.files:
        result["files"], result["judged"] = {}, {}
    videos = {name: cropped(name) for name in CLIPS}
    videos[PROGRAMME] = Video(
        np.concatenate([videos[n].frames for n in CLIPS]), Fraction(24), videos[CLIPS[0]].colour
    )
    result["frames"] = {n: len(v.frames) for n, v in videos.items()}
    for name, video in videos.items():
        passes.forget()
        if name != PROGRAMME and name not in result["swept"]:
            result["swept"][name] = sweep(video, prior, coder)
            save(out, result)
        of = CLIPS if name == PROGRAMME else (name,)
        swept = [g for n in of for g in result["swept"][n]]
        for metric in MEASURED:
            key = f"{name} {metric}"
            if name != PROGRAMME:
                result["surrogate"].setdefault(name, {})[metric] = surrogates(swept, metric)
            if key not in result["files"]:
                value = goal_of(swept, metric)
                result["files"][key] = towards(video, metric, value, prior, coder)
            result["judged"][key] = judged(swept, metric, result["files"][key])
            print(key, result["judged"][key], file=sys.stderr, flush=True)
            save(out, result)
    plot(result, out)


if __name__ == "__main__":
    main()
