"""The autoencoders of `gauss` and `nano` alone -> docs/results/priors/autoencoder.json.

For each evaluation clip (256 px height, 33 frames): PSNR, MS-SSIM and VMAF of decode(encode(clip)),
and the best PSNR that any linear basis of so many channels could reach on the groups of four
frames, by a Karhunen-Loeve basis fitted to that very clip (a bound, not a codec). For nano also
the picture's response to noise in single channels, and the decoder's floating-point operations.
"""

from __future__ import annotations

import sys
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parents[2]))

import numpy as np
import torch
from torch.utils.flop_counter import FlopCounterMode

from bench.common import CLIPS, clip, save
from gvcc import priors
from gvcc.metrics import metrics
from gvcc.priors import nano
from gvcc.train.autoencoder import isometry


def bound(frames: np.ndarray, channels: int) -> float:
    """PSNR in dB, mean over groups, of the clip's own best linear basis of 4x8x8 RGB blocks."""
    x = torch.from_numpy(frames[1:]).double()
    t, h, w = x.shape[0] // 4, x.shape[1] // 8, x.shape[2] // 8
    x = x.reshape(t, 4, h, 8, w, 8, 3).permute(0, 2, 4, 1, 3, 5, 6).reshape(t, h * w, 768)
    y = x - x.mean((0, 1))
    basis = torch.linalg.eigh(torch.einsum("tbi,tbj->ij", y, y)).eigenvectors[:, -channels:]
    mse = ((y - y @ basis @ basis.T) ** 2).mean((1, 2))
    return float((10 * torch.log10(255**2 / mse)).mean())


rows = []
for name in CLIPS:
    video = clip(name)
    row = {"clip": name}
    row |= {f"bound_groups_{c}_channels_db": bound(video.frames, c) for c in (32, 48, 64)}
    for kind in priors.EMBEDDED:
        prior = priors.load(kind)
        back = prior.decode(prior.encode(torch.from_numpy(video.frames))).numpy()
        figures = metrics.compare(video.frames, back, video.fps)
        row |= {f"{kind}_{k}": figures[k] for k in ("psnr_rgb_db", "ms_ssim", "vmaf")}
        row[f"{kind}_psnr_first_frame_db"] = metrics.psnr(video.frames[:1], back[:1])
    rows.append(row)
    print(row, flush=True)
mean = {k: float(np.mean([r[k] for r in rows])) for k in rows[0] if k != "clip"}

prior = nano.load()
z = prior.encode(torch.from_numpy(clip("davis_blackswan", 17, 128).frames))
with torch.no_grad():
    response = isometry(prior.autoencoder, z.permute(1, 2, 3, 0)[None])
with FlopCounterMode(display=False) as counter:
    prior.decode(torch.zeros(prior.spec.channels, 9, 32, 32))
save(
    "priors/autoencoder",
    {
        "height": 256,
        "frames": 33,
        "nano_weights": prior.spec.digest.hex(),
        "mean": mean,
        "nano_channel_response": {"min": response.min().item(), "max": response.max().item()},
        "nano_decoder_gflop_per_256x256_frame": counter.get_total_flops() / 33 / 1e9,
        "clips": rows,
    },
)
