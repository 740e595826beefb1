"""How many bits a value of the latent can use: quality against rate, far beyond what anybody asks.

    python bench/systems/usable.py        some 15 minutes; writes docs/results/systems/usable.json

Decides pacing.USABLE_BITS: above it an encode is refused. Four eval clips, 9 frames of 96 lines.
"""

from __future__ import annotations

import math
import sys
from pathlib import Path
from typing import Any

sys.path.insert(0, str(Path(__file__).resolve().parents[2]))

import numpy as np

from bench.common import CLIPS, clip, save
from gvcc import codec, priors
from gvcc.search import pacer as pacing
from gvcc.search.config import EncodeConfig

RATES = (0.2, 0.4, 0.8, 1.2)  # bits per pixel; a pixel has an eighth of a value, and a little


def main() -> None:
    pacing.USABLE_BITS = 10**6
    prior = priors.load("nano")
    rows: list[dict[str, Any]] = []
    for name in CLIPS[:4]:
        video = clip(name, 9, 96)
        h, w = prior.spec.latent_sides(video.height, video.width)
        values = prior.spec.channels * h * w * 3
        for bpp in RATES:
            made = codec.encode(video, EncodeConfig(mode="t2v", bpp=bpp, audio=False), prior)
            mse = float(np.mean((made.frames.astype(float) - video.frames) ** 2))
            rows.append({
                "clip": name, "bits_per_pixel": 8 * len(made.data) / video.frames[..., 0].size,
                "bits_per_value": 8 * len(made.data) / values,
                "psnr_db": 10 * math.log10(255**2 / mse),
            })  # fmt: skip
            print(rows[-1], flush=True)
    save("systems/usable", {"prior": "nano", "weights": prior.spec.digest.hex(), "frames": 9,
                    "height": 96, "rows": rows})  # fmt: skip


if __name__ == "__main__":
    main()
