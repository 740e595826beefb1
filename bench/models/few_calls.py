"""x0hat kept between network calls, prior nano -> docs/results/models/few_calls.json.

`--reuse p` calls the network at every p-th coded step only. The evaluation clips at 128 px height,
33 frames, preset default, mode t2v, at equal file size; beside it fewer steps with a call at each,
which is the other way to save calls (published: 20 -> 9 calls, GVCCTurbo). Calls and seconds of
the whole decode are counted in this process, on one thread.
"""

from __future__ import annotations

import argparse
import multiprocessing
import sys
import time
from pathlib import Path
from typing import Any

sys.path.insert(0, str(Path(__file__).resolve().parents[2]))

import numpy as np
import torch

from bench.common import CLIPS, clip, save
from gvcc import codec
from gvcc.metrics import metrics
from gvcc.priors import nano
from gvcc.search.config import EncodeConfig

HEIGHT, FRAMES, BPP = 128, 33, (0.02, 0.05, 0.1)
CASES: dict[str, dict[str, int]] = {
    "20 steps": {}, "reuse 2": {"reuse": 2}, "reuse 3": {"reuse": 3}, "reuse 4": {"reuse": 4},
    "12 steps": {"steps": 12}, "10 steps": {"steps": 10}, "8 steps": {"steps": 8},
    "28 steps, reuse 3": {"steps": 28, "reuse": 3},
}  # fmt: skip


class Counted(nano.NanoPrior):
    """nano, counting its calls."""

    calls = 0

    def denoise(self, x: Any, t: float, known: Any = None) -> Any:
        self.calls += 1
        return super().denoise(x, t, known)


def measure(cell: tuple[str, str, float]) -> dict[str, Any]:
    name, case, bpp = cell
    torch.set_num_threads(1)
    video = clip(name, FRAMES, HEIGHT)
    prior = nano.load()
    prior.__class__ = Counted
    data = codec.encode(
        video, EncodeConfig(mode="t2v", bpp=bpp, audio=False, **CASES[case]), prior
    ).data
    prior.calls, begin = 0, time.monotonic()
    shown = codec.decode(data, prior).frames
    seconds = time.monotonic() - begin
    return {
        "clip": name, "case": case, "bpp": bpp, "bytes": len(data), "calls": prior.calls,
        "decode_s": round(seconds, 2), "psnr_db": metrics.psnr(video.frames, shown),
    }  # fmt: skip


def gain(of: list[dict[str, Any]], over: list[dict[str, Any]]) -> float:
    """Mean difference of PSNR, clip by clip."""
    pairs = zip(of, over, strict=True)
    return float(np.mean([a["psnr_db"] - b["psnr_db"] for a, b in pairs]))


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--jobs", type=int, default=2)
    cells = [(c, case, b) for c in CLIPS for case in CASES for b in BPP]
    with multiprocessing.get_context("spawn").Pool(parser.parse_args().jobs) as pool:
        rows = pool.map(measure, cells, chunksize=1)
    means = []
    for case in CASES:
        for b in BPP:
            of = [r for r in rows if (r["case"], r["bpp"]) == (case, b)]
            full = [r for r in rows if (r["case"], r["bpp"]) == ("20 steps", b)]
            means.append({
                "case": case, "bpp": b, "calls": of[0]["calls"],
                "decode_s": round(float(np.mean([r["decode_s"] for r in of])), 2),
                "psnr_db": round(float(np.mean([r["psnr_db"] for r in of])), 3),
                "over_20_steps_db": round(gain(of, full), 3),
            })  # fmt: skip
    save("models/few_calls", {
        "prior": "nano", "height": HEIGHT, "frames": FRAMES, "means": means, "rows": rows,
    })  # fmt: skip
