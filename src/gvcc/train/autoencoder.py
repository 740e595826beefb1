"""Train the autoencoder of `nano`: from the exact linear one, for PSNR and for the eye.

The loss of a sample is its error relative to what the linear autoencoder does on the same sample:

    MSE / MSE_linear + structure * sum over scales of (1 - SSIM) / (1 - SSIM_linear)

so that a hard clip weighs no more than an easy one. Half of the samples get white noise on their
latents, and the picture to aim at is then the original plus what the linear autoencoder makes of
that noise: this keeps the latent isometric, a perturbation of any channel costs the picture what
it costs in the orthonormal basis.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import torch
from pytorch_msssim import ssim
from torch import Tensor
from torch.nn import functional

from gvcc.priors.autoencoder import Autoencoder
from gvcc.train.dataset import Dataset
from gvcc.train.loop import Recipe

_VALIDATION = 12  # samples
_SCALES = 3


@dataclass(frozen=True)
class AutoencoderRecipe(Recipe):
    """`frames`, `side`: size of a crop. `structure`: weight of the structural loss. `noise`: the
    largest standard deviation of the latent noise. The other names are the AutoencoderShape's."""

    frames: int = 17
    side: int = 96
    structure: float = 0.5
    noise: float = 0.2
    channels: int = 32
    width: int = 192
    encoder_blocks: int = 3
    decoder_blocks: int = 6


class AutoencoderTask:
    """See the module."""

    def __init__(
        self,
        model: Autoencoder,
        data: Dataset,
        recipe: AutoencoderRecipe,
        device: torch.device | str,
    ) -> None:
        self.model, self.data, self.recipe = model.to(device), data, recipe
        self.device = torch.device(device)

    def loss(self, step: int) -> Tensor:
        """See the module. Random numbers come from (seed, step)."""
        r = self.recipe
        frames = self.data.batch(r.seed, step * r.batch, r.batch, r.frames, r.side)
        x = frames.to(self.device).float() / 127.5 - 1
        random = torch.Generator().manual_seed(r.seed * 2**32 + step)
        noisy = torch.rand(r.batch, generator=random) < 0.5
        level = torch.where(noisy, torch.rand(r.batch, generator=random) * r.noise, 0.0)
        with torch.autocast(self.device.type, torch.bfloat16, enabled=r.bf16):
            z = self.model.encode(x)
            eps = torch.randn(z.shape, generator=random) * level[:, None, None, None, None]
            eps = eps.to(self.device)
            y = self.model.decode(z + eps)
        with torch.no_grad():
            base = self.model.linear(x)
            moved = self.model.linear(x, eps) - base
            x, base = x + moved, base + moved
        mse = _mse(y.float(), x) / _mse(base, x).clamp(min=1e-5)
        structure = _structure(y.float(), x) / _structure(base, x).clamp(min=1e-3)
        return (mse + r.structure * structure).mean()

    def validate(self) -> dict[str, float]:
        """PSNR gained over the linear autoencoder and 1 - SSIM relative to its, on fixed samples;
        the spread of the picture's response to noise in single channels (see `isometry`)."""
        gain, structure = [], []
        for i in range(_VALIDATION):
            x = self.data.held_out(i, self.recipe.frames, 128)[None].to(self.device)
            x = x.float() / 127.5 - 1
            z = self.model.encode(x)
            y, base = self.model.decode(z).clamp(-1, 1), self.model.linear(x)
            gain.append(10 * math.log10(_mse(base, x).item() / _mse(y, x).item()))
            structure.append((_structure(y, x) / _structure(base, x)).item())
        response = isometry(self.model, z)
        return {
            "PSNR over linear, dB": sum(gain) / len(gain),
            "1-SSIM / linear": sum(structure) / len(structure),
            "channel response, max/min": (response.max() / response.min()).item(),
        }


def isometry(model: Autoencoder, z: Tensor, noise: float = 0.1) -> Tensor:
    """The picture's squared response to white noise in one latent channel at a time, relative to
    the linear autoencoder's: [C]; all ones is an isometry. z [1,F,h,w,C] is a clip's latent."""
    random = torch.Generator().manual_seed(0)
    eps = noise * torch.randn(z.shape[:-1], generator=random).to(z.device)
    at = model.decode(z)
    out = []
    for c in range(z.shape[-1]):
        moved = z.clone()
        moved[..., c] += eps
        linear = (eps[:, :1] ** 2).sum() * (model.unfirst[c] ** 2).sum()
        linear = linear + (eps[:, 1:] ** 2).sum() * (model.ungroup[c] ** 2).sum()
        out.append(((model.decode(moved) - at) ** 2).sum() / linear)
    return torch.stack(out)


def _mse(x: Tensor, y: Tensor) -> Tensor:
    """[B]"""
    return ((x - y) ** 2).flatten(1).mean(1)


def _structure(x: Tensor, y: Tensor) -> Tensor:
    """Mean of 1 - SSIM of the luma of every second frame over three scales: [B]."""
    weights = torch.tensor([0.299, 0.587, 0.114], device=x.device)
    b, t, h, w, _ = x[:, ::2].shape
    u, v = ((255 * (c[:, ::2] @ weights + 1) / 2).reshape(b * t, 1, h, w) for c in (x, y))
    total = torch.zeros(b, device=x.device)
    for scale in range(_SCALES):
        if scale:
            u, v = functional.avg_pool2d(u, 2), functional.avg_pool2d(v, 2)
        s = ssim(u, v, data_range=255, win_size=7, size_average=False)
        total = total + (1 - s).reshape(b, t).mean(1)
    return total / _SCALES
