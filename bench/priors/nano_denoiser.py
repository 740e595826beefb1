"""Error of nano's x0hat relative to the Gaussian's on the same latents
-> docs/results/priors/nano_denoiser.json.

Five evaluation clips, 17 and 33 frames, 128 and 256 px height, five noise seeds. Without condition;
with the first latent frame known, over latent frames 1..4; with both ends known, over the frames
between. The Gaussian is never conditioned. `relative` is the mean of nano's squared errors over
that of the Gaussian's; `mean_of_ratios` weighs the clips alike.
"""

from __future__ import annotations

import itertools
import sys
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parents[2]))

import torch

from bench.common import CLIPS, clip, save
from gvcc.priors import nano

SEEDS = range(5)
PARTS = {"all": (0, None), "1-4": (1, 5), "between": (1, -1)}  # of the latent frames
prior = nano.load()
rows = []
for frames, height, name in itertools.product((17, 33), (128, 256), CLIPS):
    x0 = prior.encode(torch.from_numpy(clip(name, frames, height).frames))
    last = x0.shape[1] - 1
    for t in (0.3, 0.5, 0.7):
        row = {"clip": name, "frames": frames, "height": height, "t": t}
        sums: dict[str, float] = {}
        for seed in SEEDS:
            eps = torch.randn(x0.shape, generator=torch.Generator().manual_seed(seed))
            x = (1 - t) * x0 + t * eps
            ways = {
                "gauss": prior.model.denoise(x, 1 - t, t),
                "none": prior.denoise(x, t),
                "first": prior.denoise(x, t, {0: x0[:, 0]}),
                "both": prior.denoise(x, t, {0: x0[:, 0], last: x0[:, last]}),
            }
            for way, h in ways.items():
                error = ((h - x0) ** 2).mean((0, 2, 3))
                for part, (a, b) in PARTS.items():
                    key = f"{way} {part}"
                    sums[key] = sums.get(key, 0.0) + error[a:b].mean().item() / len(SEEDS)
        rows.append(row | sums)
    print(rows[-1], flush=True)


def relative(t: float, way: str, part: str) -> dict[str, float]:
    """Error of one way over the Gaussian's on the same frames."""
    at = [r for r in rows if r["t"] == t]
    ours, theirs = ([r[f"{w} {part}"] for r in at] for w in (way, "gauss"))
    ratios = [a / b for a, b in zip(ours, theirs, strict=True)]
    return {"relative": sum(ours) / sum(theirs), "mean_of_ratios": sum(ratios) / len(ratios)}


summary = {
    f"t={t}": {
        "none": relative(t, "none", "all"),
        "none, frames 1-4": relative(t, "none", "1-4"),
        "first known, frames 1-4": relative(t, "first", "1-4"),
        "first known, frames between": relative(t, "first", "between"),
        "both known, frames between": relative(t, "both", "between"),
    }
    for t in (0.3, 0.5, 0.7)
}
save("priors/nano_denoiser", {"weights": prior.spec.digest.hex(), "summary": summary, "rows": rows})
