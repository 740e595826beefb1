"""Which share of a GOP's bytes a still and the tail residual get
-> docs/results/systems/shares.json.

Prior nano, 0.05 bits per pixel, three evaluation clips at 96 px height, three GOPs of 17 frames
(two of calendar), modes i2v and flf2v; PSNR of all frames (RGB), real sizes. pacing.STILL_SHARE and
pacing.RESIDUAL_SHARE were set by this.
"""

from __future__ import annotations

import sys
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parents[2]))

import numpy as np
import torch

from bench.common import clip, save
from gvcc import codec, priors
from gvcc.metrics import metrics
from gvcc.search import config as conf
from gvcc.search import pacer as pacing

BPP, HEIGHT, GOP = 0.05, 96, 17
STILLS, RESIDUALS = (0.1, 0.25, 0.4), (0.0, 0.08, 0.2)
CLIPS = ("akiyo_cif", "davis_bmx-trees", "vid4_calendar")


def main() -> None:
    torch.set_num_threads(1)
    prior, rows = priors.load("nano"), []
    cells = [("i2v", 0.25, r) for r in RESIDUALS]
    cells += [("i2v", s, 0.08) for s in STILLS if s != 0.25]
    cells += [("flf2v", s, 0.08) for s in STILLS]
    for mode, still, residual in cells:
        pacing.STILL_SHARE, pacing.RESIDUAL_SHARE = still, residual
        quality, sizes = [], []
        for name in CLIPS:
            video = clip(name, 33 if name == "vid4_calendar" else 49, HEIGHT)
            config = conf.EncodeConfig(mode=mode, bpp=BPP, gop=GOP)
            made = codec.encode(video, config, prior)
            quality.append(round(metrics.psnr(video.frames, made.frames), 3))
            sizes.append(len(made.data))
        rows.append({"mode": mode, "still_share": still, "residual_share": residual,
                     "psnr_rgb_db": dict(zip(CLIPS, quality, strict=True)),
                     "mean_db": round(float(np.mean(quality)), 3), "bytes": sizes})  # fmt: skip
        print(rows[-1], file=sys.stderr, flush=True)
    save(
        "systems/shares", {"prior": "nano", "bpp": BPP, "height": HEIGHT, "gop": GOP, "rows": rows}
    )


if __name__ == "__main__":
    main()
