"""What VVenC gains by single tools of preset `slow` -> docs/results/systems/base_depth.json.

    python bench/systems/base_depth.py

Five evaluation clips, 33 frames of 256 lines, three QPs around .02 bit/pixel. PSNR and VMAF at
equal bytes: each encode against a line through the three of preset `medium`, over the logarithm of
their sizes. Seconds as ratios to `medium` in the same run.
"""

from __future__ import annotations

import os
import sys
import time
from pathlib import Path
from typing import Any

import numpy as np

sys.path.insert(0, str(Path(__file__).resolve().parents[2]))

from bench.common import CLIPS, clip, save
from gvcc.metrics import metrics
from gvcc.pictures import base, basecodecs, stills
from gvcc.records import Video

QP = {"akiyo_cif": 32, "davis_blackswan": 39, "davis_bmx-trees": 39, "davis_dog": 39,
      "vid4_calendar": 40}  # fmt: skip
WAYS = {
    "medium": ("medium", "poc0idr=1"),  # what is set anyway
    "depth": ("medium", "MaxMTTDepth=2"),
    "depth, also of keyframes": ("medium", "MaxMTTDepth=2:MaxMTTDepthI=3"),
    "merge and AMVR": ("medium", "FastMrg=2:AMVR=1"),
    "slow": ("slow", "poc0idr=1"),
}


def measured(video: Video, spool: basecodecs.Spool, way: str, qp: int) -> list[float]:
    """Bytes, seconds, PSNR and VMAF of one encode."""
    preset, more = WAYS[way]
    begin = time.perf_counter()
    kept = basecodecs.vvc_stream(basecodecs.vvc_units(spool, video.fps, preset, qp, more))
    seconds = time.perf_counter() - begin
    n, h, w, _ = video.frames.shape
    planes = basecodecs.decode(base.codec("vvc"), None, kept, spool.height, spool.width, n)
    shown = np.stack([stills.to_rgb(p, 10)[:h, :w] for p in planes])
    found = metrics.vmafs(video.frames, shown, video.fps)
    assert found is not None
    return [float(len(kept)), seconds, metrics.psnr(video.frames, shown), found[0]]


def main() -> None:
    out: dict[str, Any] = {"frames": 33, "cores": os.cpu_count(), "clips": {}}
    for name in CLIPS:
        video = clip(name)
        spool = base.spooled(video.frames, *video.frames.shape[1:3], [1])[1]
        qps = [QP[name] - 3, QP[name], QP[name] + 3]
        found = {way: np.array([measured(video, spool, way, q) for q in qps]) for way in WAYS}
        own = found["medium"]
        lines = [np.polyfit(np.log(own[:, 0]), own[:, k], 1) for k in (2, 3)]
        gains = {}
        for way, rows in found.items():
            psnr, vmaf = (
                float((rows[:, k] - np.polyval(line, np.log(rows[:, 0]))).mean())
                for k, line in zip((2, 3), lines, strict=True)
            )
            seconds = float(rows[:, 1].sum() / own[:, 1].sum())
            gains[way] = {"psnr_db": psnr, "vmaf": vmaf, "seconds": seconds}
        out["clips"][name] = {"qp": qps, "over_medium": gains}
        print(name, gains, file=sys.stderr)
    out["mean"] = {
        way: {k: float(np.mean([c["over_medium"][way][k] for c in out["clips"].values()]))
              for k in ("psnr_db", "vmaf", "seconds")}
        for way in WAYS
    }  # fmt: skip
    save("systems/base_depth", out)


if __name__ == "__main__":
    main()
