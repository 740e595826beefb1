"""PSNR through the autoencoder of `gauss` alone -> docs/results/gauss_autoencoder.json.

For each evaluation clip (256 px height, 33 frames): the prior's basis; and the best that any linear
basis of so many channels could do on the groups of four frames, by a Karhunen-Loeve basis fitted to
that very clip (a bound, not a codec).
"""

from __future__ import annotations

import numpy as np
import torch
from common import CLIPS, clip, save

from gvcc import priors
from gvcc.eval import metrics


def bound(frames: np.ndarray, channels: int) -> float:
    """PSNR in dB, mean over groups, of the clip's own best linear basis of 4x8x8 RGB blocks."""
    x = torch.from_numpy(frames[1:]).double()
    t, h, w = x.shape[0] // 4, x.shape[1] // 8, x.shape[2] // 8
    x = x.reshape(t, 4, h, 8, w, 8, 3).permute(0, 2, 4, 1, 3, 5, 6).reshape(t, h * w, 768)
    y = x - x.mean((0, 1))
    basis = torch.linalg.eigh(torch.einsum("tbi,tbj->ij", y, y)).eigenvectors[:, -channels:]
    mse = ((y - y @ basis @ basis.T) ** 2).mean((1, 2))
    return float((10 * torch.log10(255**2 / mse)).mean())


prior = priors.load("gauss")
rows = []
for name in CLIPS:
    frames = clip(name).frames
    back = prior.decode(prior.encode(torch.from_numpy(frames))).numpy()
    rows.append({
        "clip": name,
        "psnr_db": metrics.psnr(frames, back),
        "psnr_first_frame_db": metrics.psnr(frames[:1], back[:1]),
        "psnr_groups_db": metrics.psnr(frames[1:], back[1:]),
        **{f"bound_groups_{c}_channels_db": bound(frames, c) for c in (32, 48, 64)},
    })  # fmt: skip
    print(rows[-1], flush=True)
mean = {k: float(np.mean([r[k] for r in rows])) for k in rows[0] if k != "clip"}
save("gauss_autoencoder", {"height": 256, "frames": 33, "clips": rows, "mean": mean})
