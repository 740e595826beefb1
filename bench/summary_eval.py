"""The part of the results page that `gvcc eval` fills: where we stand."""

from __future__ import annotations

from typing import Any

import numpy as np
from pages import load, table

METRICS = (("psnr_rgb_db", "PSNR (RGB), dB"), ("ms_ssim", "MS-SSIM"), ("vmaf", "VMAF"),
           ("tof", "tOF"), ("temporal_error", "temporal error"))  # fmt: skip


def _rows(d: dict[str, Any]) -> list[list[Any]]:
    rows = []
    for c in sorted(d["codecs"], key=lambda c: d["setup"]["codecs"].index(c["codec"])):
        for rate in d["setup"]["rates"]:
            cells = [x for x in c["cells"] if x["rate"] == rate and x["status"] == "ok"]
            if not cells:
                continue
            means = [float(np.mean([x["metrics"][m] for x in cells])) for m, _ in METRICS]
            size = float(np.mean([x["bits_per_pixel"] for x in cells]))
            rows.append([c["codec"], f"{rate:g}", f"{size:.4f}", *means])
    return rows


def _standing(d: dict[str, Any], anchor: str = "x265") -> str:
    """BD-rates over the anchor, with intervals."""
    lines = []
    for metric, label in METRICS[:3]:
        if metric not in d["bd"]:
            continue
        m = d["bd"][metric]
        at = m["codecs"].index(anchor)
        for i, codec in enumerate(m["codecs"]):
            percent, interval = m["rate_percent"][i][at], m["interval"][i][at]
            if i == at or percent is None:
                continue
            span = "-" if interval is None else f"{interval[0]:+.0f} to {interval[1]:+.0f}"
            lines.append([label, codec, f"{percent:+.0f}", span, len(m["warnings"][i][at])])
    return table(["equal", "codec", f"rate over {anchor}, %", "95 % interval", "warnings"], lines)


def _section(name: str, title: str) -> str:
    d = load(f"eval_{name}")
    s = d["setup"]
    return (
        f"## {title}\n\n`gvcc eval`, {len(s['clips'])} evaluation clips, {s['frames']} frames, "
        f"{s['height']} px height, prior nano; sizes of real files, the others at the size nearest "
        "to the target (vp9 cannot go low enough on every clip), means over clips (bench/"
        f"eval_results.py). **Classical codecs are ahead of gvcc with nano at every rate.** What "
        "it costs in bits, by Bjontegaard (PCHIP; bootstrap over clips):\n\n"
        + _standing(d)
        + "\n\n"
        + table(["codec", "asked", "bits/pixel", *(label for _, label in METRICS)], _rows(d))
    )


def quick() -> str:
    return _section("quick", "Where we stand, 176 lines")


def larger() -> str:
    return _section("256", "Where we stand, 256 lines")
