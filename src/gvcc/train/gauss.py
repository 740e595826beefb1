"""Fit the `gauss` prior: two Karhunen-Loeve bases and a power spectrum, in one or two minutes.

Pass 1 accumulates the covariance of 4x8x8x3 blocks and of 8x8x3 blocks, pass 2 the mean square of
the latents' 3-D DCT coefficients. The crops of both passes are the same.
"""

from __future__ import annotations

from pathlib import Path

import numpy as np
import torch
from safetensors.torch import save as save_safetensors
from torch import Tensor

from gvcc.errors import ConfigError
from gvcc.priors.gauss import GaussPrior
from gvcc.priors.spectrum import dct3
from gvcc.train import data
from gvcc.train.loop import Progress


def bases(cov_group: Tensor, cov_first: Tensor, channels: int) -> tuple[Tensor, Tensor]:
    """Covariances [768,768] and [192,192] -> orthonormal rows: group [C,768], first [C,192].

    The group basis is the top of the Karhunen-Loeve transform. The first frame's spans the top of
    its own, rotated (orthogonal Procrustes) so that channel c agrees as well as it can with what
    channel c of the group basis makes of the same frame repeated four times.
    """
    group = torch.linalg.eigh(cov_group).eigenvectors.flip(1)[:, :channels].T
    span = torch.linalg.eigh(cov_first).eigenvectors.flip(1)[:, :channels].T
    # Signs of eigenvectors are arbitrary; fixing them makes the fit repeatable across machines.
    group = group * torch.sign(group.gather(1, group.abs().argmax(1, keepdim=True)))
    still = group.reshape(channels, 4, 192).sum(1) / 2
    u, _, v = torch.linalg.svd(still @ cov_first @ span.T)
    return group, u @ v @ span


def fit(
    folder: Path,
    channels: int = 32,
    seed: int = 1,
    limit: int | None = None,
    progress: Progress | None = None,
) -> bytes:
    """Fit on the clips below `folder` (at most `limit` crops); returns the safetensors file.

    `progress(stage, done, total)` is called after each clip. Raises ConfigError if no clip fits.
    """
    paths = data.clips(folder)
    report = progress or (lambda stage, done, total: None)
    crops: list[np.ndarray] = []
    group, first = torch.zeros(768, 768).double(), torch.zeros(192, 192).double()
    colour = torch.zeros(3).double()
    total = limit or len(paths)
    for crop in data.crops(paths, 33, 256, seed):
        x = torch.from_numpy(crop).float() / 127.5 - 1
        colour += x.mean((0, 1, 2)).double()
        x = x.reshape(33, 32, 8, 32, 8, 3).permute(0, 1, 3, 2, 4, 5).reshape(33, 1024, 192)
        blocks = x[1:].reshape(8, 4, 1024, 192).permute(0, 2, 1, 3).reshape(-1, 768)
        group += (blocks.T @ blocks).double() / len(blocks)
        still = x[::8].reshape(-1, 192)
        first += (still.T @ still).double() / len(still)
        crops.append(crop)
        report("covariance", len(crops), total)
        if len(crops) == total:
            break
    if not crops:
        raise ConfigError(f"no clip below {folder} has 33 frames of 256x256")
    colour /= len(crops)
    mean = colour.repeat(256)
    g, f = bases(
        group / len(crops) - torch.outer(mean, mean),
        first / len(crops) - torch.outer(mean[:192], mean[:192]),
        channels,
    )
    tensors = {"group": g.float(), "first": f.float(), "colour": colour.float()}
    tensors["power"] = torch.zeros(channels, 9, 32, 32)
    prior = GaussPrior(tensors, bytes(8), gain=torch.ones(channels))
    power = torch.zeros(channels, 9, 32, 32).double()
    for i, crop in enumerate(crops):
        power += dct3(prior.encode(torch.from_numpy(crop))).double() ** 2
        report("spectrum", i + 1, len(crops))
    tensors["power"] = (power / len(crops)).log().half()
    out: bytes = save_safetensors(tensors)
    return out
