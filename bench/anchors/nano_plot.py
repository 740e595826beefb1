"""nano_rd.json and anchors.json -> docs/results/anchors/nano_rd.png: mean over the five clips."""

from __future__ import annotations

import json
import sys
from pathlib import Path
from typing import Any

sys.path.insert(0, str(Path(__file__).resolve().parents[2]))

import numpy as np
from matplotlib.figure import Figure

from bench.common import CLIPS, RESULTS

METRICS = {"psnr_rgb_db": "PSNR (RGB), dB", "ms_ssim": "MS-SSIM", "vmaf": "VMAF"}


def curves() -> dict[str, list[dict[str, Any]]]:
    """Codec or prior -> one row per target that all clips were measured at: means over them."""
    ours = json.loads((RESULTS / "priors/nano_rd.json").read_text())["rows"]
    theirs = json.loads((RESULTS / "anchors/anchors.json").read_text())["rows"]
    groups: dict[tuple[str, float], list[dict[str, Any]]] = {}
    for r in ours:
        if r["model"] in ("nano", "gauss") and r["target_bpp"] <= 0.1:
            groups.setdefault((f"gvcc {r['model']}", r["target_bpp"]), []).append(r)
    for r in theirs:
        r["psnr_rgb_db"] = r["psnr_db"]
        groups.setdefault((r["codec"], r["target_bpp"]), []).append(r)
    out: dict[str, list[dict[str, Any]]] = {}
    for (name, target), rows in sorted(groups.items()):
        if {r["clip"] for r in rows} != set(CLIPS):
            continue
        keys = ("bits_per_pixel", *METRICS)
        mean = {k: float(np.mean([r[k] for r in rows])) for k in keys}
        out.setdefault(name, []).append({"target_bpp": target, **mean})
    return out


if __name__ == "__main__":
    figure = Figure(figsize=(13, 4), layout="constrained")
    for axes, (key, label) in zip(figure.subplots(1, 3), METRICS.items(), strict=True):
        for name, rows in curves().items():
            style = "o-" if name.startswith("gvcc") else "s--"
            axes.plot([r["bits_per_pixel"] for r in rows], [r[key] for r in rows], style,
                      label=name, markersize=4)  # fmt: skip
        axes.set(xscale="log", xlabel="bits per pixel", ylabel=label)
        axes.grid(alpha=0.3, which="both")
    axes.legend()
    figure.suptitle("five evaluation clips, 256 px height, 33 frames; gvcc: preset default, T2V")
    figure.savefig(RESULTS / "anchors/nano_rd.png", dpi=110)
