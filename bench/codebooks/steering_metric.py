"""What the steering metric is worth -> docs/results/codebooks/steering_metric.json.

A variant of `gauss` with whitened channels stands for priors whose latent scale is not ours to
choose: there a latent error costs the picture sd^2, so W = sd^p per channel should pay. For `gauss`
itself: the identity against its own metric. Same clips, same file sizes, PSNR and MS-SSIM.
"""

from __future__ import annotations

import dataclasses
import sys
from importlib.resources import files
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parents[2]))

import numpy as np
from safetensors.torch import load

from bench.common import CLIPS, clip, save
from gvcc import codec
from gvcc.metrics import metrics
from gvcc.priors.gauss import GaussPrior
from gvcc.search.config import EncodeConfig

tensors = load((files("gvcc.priors") / "weights/gauss.safetensors").read_bytes())
deviation = tensors["power"].double().exp().mean((1, 2, 3)).sqrt()
FRAMES, HEIGHT = 17, 256


def variant(whiten: bool, metric: str) -> GaussPrior:
    """gauss or its whitened variant, with metric 'none', 'own', or the exponent p of sd^p."""
    prior = GaussPrior(tensors, bytes(8), gain=1 / deviation if whiten else None)
    if metric == "none":
        chosen = None
    elif metric == "own":
        chosen = prior.spec.metric
    else:
        weight = (deviation ** float(metric)).float()[:, None, None, None]
        chosen = lambda r, snr: r * weight  # noqa: E731
    prior.spec = dataclasses.replace(prior.spec, metric=chosen)
    return prior


clips = {name: clip(name, FRAMES, HEIGHT) for name in CLIPS}
rows = []
for bpp in (0.02, 0.05):
    for whiten, metric in ((True, "none"), (True, "0.5"), (True, "0.75"), (True, "1"),
                           (False, "none"), (False, "own")):  # fmt: skip
        prior = variant(whiten, metric)
        psnr, ssim, size = [], [], 0
        for video in clips.values():
            made = codec.encode(video, EncodeConfig(bpp=bpp), prior=prior)
            psnr.append(metrics.psnr(video.frames, made.frames))
            ssim.append(metrics.ms_ssim(video.frames, made.frames))
            size += len(made.data)
        rows.append({
            "prior": "gauss whitened" if whiten else "gauss", "metric": metric, "bpp": bpp,
            "bytes": size, "psnr_db": float(np.mean(psnr)), "ms_ssim": float(np.mean(ssim)),
        })  # fmt: skip
        print(rows[-1], flush=True)
best = {}
for bpp in (0.02, 0.05):
    at = {r["metric"]: r["psnr_db"] for r in rows if r["bpp"] == bpp and "white" in r["prior"]}
    best[str(bpp)] = max(v for k, v in at.items() if k != "none") - at["none"]
save("codebooks/steering_metric", {
    "frames": FRAMES, "height": HEIGHT, "clips": list(CLIPS), "rows": rows,
    "gain_on_whitened_db": best,
})  # fmt: skip
