"""Seconds of each metric on two cores -> docs/results/anchors/metric_speed.json.

33 frames of 456x256 (the built-in clip beside itself with noise), the networks' weights by `gvcc
eval weights`.
"""

from __future__ import annotations

import sys
import time
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parents[2]))

import numpy as np
import torch

from bench.common import save
from gvcc.eval import every
from gvcc.eval.clips import demo_clip

NAMES = ("psnr_rgb_db", "ms_ssim", "vmaf", "tof", "temporal_error", "lpips_alex", "lpips_vgg",
         "dists")  # fmt: skip

if __name__ == "__main__":
    torch.set_num_threads(2)
    ref = demo_clip(33, 256, 456)
    noise = np.random.default_rng(0).normal(0, 8, ref.shape)
    out = (ref + noise).clip(0, 255).astype(np.uint8)
    every.measure(ref[:2], out[:2], 25, which=NAMES)  # weights and libraries are loaded
    seconds = {}
    for name in NAMES:
        begin = time.monotonic()
        found = every.measure(ref, out, 25, which=(name,))
        if found.values[name] is None:
            raise SystemExit(f"{name}: {found.not_computed[name]}")
        seconds[name] = round(time.monotonic() - begin, 1)
    save("anchors/metric_speed", {"frames": 33, "width": 456, "height": 256, "seconds": seconds})
