"""Train the denoiser of `nano` on the latents of its autoencoder, encoded once.

The loss of a sample at time t is a weighted error of x0hat over the unknown latent frames, divided
by the Gaussian denoiser's (the geometric mean of what it makes of this sample and of all samples
at this t): (1 - whitened) * plain error + whitened * error with every channel at unit variance.
The plain error is the picture's, since the latent is isometric.
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from statistics import NormalDist

import numpy as np
import torch
from torch import Tensor

from gvcc import files
from gvcc.errors import ConfigError
from gvcc.priors.autoencoder import Autoencoder
from gvcc.priors.spectrum import StationaryGaussian, dct3
from gvcc.priors.transformer import PATCH, Transformer, denoise
from gvcc.train.dataset import Dataset
from gvcc.train.loop import Progress, Recipe

_TIMES = (0.3, 0.5, 0.7)
_VALIDATION = 16  # samples
_CHUNK = 8  # of them at once


@dataclass(frozen=True)
class FlowRecipe(Recipe):
    """`batch` counts patches: each step has one random size and as many samples as it holds.

    `pool` samples of `pool_frames` x `pool_side` pixels are encoded once; training sees random
    pieces of them. `whitened` as in the module. `width`, `layers`: the TransformerShape's.
    """

    pool: int = 4000
    pool_frames: int = 33
    pool_side: int = 192
    whitened: float = 0.2
    width: int = 256
    layers: int = 6


def to_latent(autoencoder: Autoencoder, frames: Tensor) -> Tensor:
    """uint8 [B,T,H,W,3] -> latent [B,C,F,h,w]."""
    device = autoencoder.colour.device
    with torch.no_grad():
        z = autoencoder.encode(frames.to(device).float() / 127.5 - 1)
    return z.permute(0, 4, 1, 2, 3).contiguous()


def fit_spectrum(
    autoencoder: Autoencoder, data: Dataset, seed: int, progress: Progress | None = None
) -> Tensor:
    """Log of the mean square of the latents' 3-D DCT coefficients [C,9,32,32], over one crop
    33x256x256 of each clip that is large enough, or enlarged if none is."""
    large = [c for c in data.clips if min(c.frames.shape[1:3]) >= 256 and len(c.frames) >= 33]
    total: Tensor | None = None
    chosen = large or data.clips[:64]
    for i, clip in enumerate(chosen):
        rng = np.random.default_rng([seed, 2**31, i])
        z = to_latent(autoencoder, data.cut(clip, 33, 256, rng)[None])[0]
        power = dct3(z).double() ** 2
        total = power if total is None else total + power
        if progress is not None:
            progress("spectrum", i + 1, len(chosen))
    assert total is not None
    return (total / len(chosen)).clamp(min=1e-8).log().float().cpu()


def encode_pool(
    autoencoder: Autoencoder,
    data: Dataset,
    recipe: FlowRecipe,
    path: Path,
    progress: Progress | None = None,
) -> np.ndarray:
    """The pool of latents, float16 [N,C,F,h,w], memory-mapped from `path`; made if missing."""
    if not path.exists():
        f, s = (recipe.pool_frames - 1) // 4 + 1, recipe.pool_side // 8
        size = (recipe.pool, autoencoder.shape.channels, f, s, s)
        with files.aside(path) as part:
            pool = np.lib.format.open_memmap(part, "w+", np.float16, size)
            for i in range(recipe.pool):
                sample = data.sample(recipe.seed, 2**31 + i, recipe.pool_frames, recipe.pool_side)
                pool[i] = to_latent(autoencoder, sample[None])[0].cpu().half().numpy()
                if progress is not None:
                    progress("latents", i + 1, recipe.pool)
            pool.flush()
    out: np.ndarray = np.load(path, mmap_mode="r")
    if out.shape[0] != recipe.pool:
        raise ConfigError(f"{path}: {out.shape[0]} latents, expected {recipe.pool}; delete it")
    return out


def draw_mask(rng: np.random.Generator, frames: int) -> np.ndarray:
    """Which latent frames are known, float32 [F]: none, first, first and last, or any."""
    mask = np.zeros(frames, np.float32)
    kind = rng.choice(4, p=(0.5, 0.2, 0.15, 0.15))
    if frames == 1 or kind == 0:
        return mask
    if kind in (1, 2):
        mask[0] = 1
    if kind == 2:
        mask[-1] = 1
    if kind == 3:
        mask[:] = rng.random(frames) < rng.random()
    if mask.all():
        mask[rng.integers(frames)] = 0
    return mask


class FlowTask:
    """See the module. `pool` float16 [N,C,F,h,w]; `held_out` [M,C,F,h,w] for validation."""

    def __init__(
        self,
        model: Transformer,
        gauss: StationaryGaussian,
        pool: np.ndarray,
        held_out: Tensor,
        recipe: FlowRecipe,
        device: torch.device | str,
    ) -> None:
        self.model, self.gauss, self.pool = model.to(device), gauss, pool
        self.held_out, self.recipe = held_out.to(device), recipe
        self.device = torch.device(device)
        self._w = gauss.scale()[:, None, None, None]

    def _size(self, rng: np.random.Generator) -> tuple[int, int]:
        """Latent frames and latent side of a step: mostly the codec's, sometimes any."""
        _, _, most, largest, _ = self.pool.shape
        kind = rng.random()
        f = min(most, 5) if kind < 0.4 else most if kind < 0.75 else int(rng.integers(1, most + 1))
        kind = rng.random()
        s = min(16, largest) if kind < 0.55 else largest
        return f, s if kind < 0.8 else int(rng.integers(min(8, largest), largest + 1))

    def loss(self, step: int) -> Tensor:
        """See the module. Random numbers come from (seed, step)."""
        r = self.recipe
        rng = np.random.default_rng([r.seed, step])
        f, s = self._size(rng)
        b = max(1, round(r.batch / (f * (-(-s // PATCH)) ** 2)))
        side = self.pool.shape[-1]
        pieces = []
        for i in rng.integers(0, len(self.pool), b):
            y, x = rng.integers(0, side - s + 1, 2)
            pieces.append(self.pool[i][:, :f, y : y + s, x : x + s])
        x0 = torch.from_numpy(np.stack(pieces)).to(self.device).float()
        # Stratified times: half uniform, half logit-normal (Esser et al. 2024).
        u = (np.arange(b) + rng.random(b)) / b
        z = np.array([NormalDist().inv_cdf(v) for v in u])
        times = np.where(rng.random(b) < 0.5, u, 1 / (1 + np.exp(-z - 0.2)))
        t = torch.from_numpy(times).float().clamp(0.01, 0.999).to(self.device)
        mask = torch.from_numpy(np.stack([draw_mask(rng, f) for _ in range(b)])).to(self.device)
        random = torch.Generator().manual_seed(r.seed * 2**32 + step)
        eps = torch.randn(x0.shape, generator=random).to(self.device)
        at = t[:, None, None, None, None]
        with torch.autocast(self.device.type, torch.bfloat16, enabled=r.bf16):
            h = denoise(self.model, self.gauss, (1 - at) * x0 + at * eps, t, x0, mask)
        with torch.no_grad():
            g = self.gauss.denoise((1 - at) * x0 + at * eps, 1 - at, at)
            power = self.gauss.spectrum(tuple(x0.shape[2:]))
            typical = power * at**2 / ((1 - at) ** 2 * power + at**2)
        left = (1 - mask)[:, None, :, None, None]
        total = x0.new_zeros(())
        for share, w in ((1 - r.whitened, torch.ones_like(self._w)), (r.whitened, self._w)):
            error = _mean(((h - x0) / w) ** 2 * left)
            base = _mean(((g - x0) / w) ** 2 * left) * _mean(typical / w**2) * _mean(left)
            total = total + share * (error / base.sqrt().clamp(min=1e-6)).mean()
        return total

    def validate(self) -> dict[str, float]:
        """Error of x0hat relative to the Gaussian's on the held-out latents, at three times, and
        the same of latent frames 1.. with the first one known."""
        out = {}
        for t in _TIMES:
            for name, known in ((f"t={t}", False), (f"t={t}, first known", True)):
                out[name] = relative_error(self.model, self.gauss, self.held_out, t, known)
        return out


def relative_error(
    model: Transformer, gauss: StationaryGaussian, x0: Tensor, t: float, first_known: bool
) -> float:
    """|x0hat - x0|^2 of the model over that of the (unconditioned) Gaussian, on x0 [B,C,F,h,w].

    Over all latent frames, or over the others where the first one is known.
    """
    random = torch.Generator().manual_seed(0)
    ours = theirs = 0.0
    for part in torch.split(x0, _CHUNK):
        mask = torch.zeros(part.shape[0], part.shape[2], device=part.device)
        mask[:, 0] = first_known
        eps = torch.randn(part.shape, generator=random).to(part.device)
        x = (1 - t) * part + t * eps
        times = torch.full((len(part),), t, device=part.device)
        left = (1 - mask)[:, None, :, None, None]
        h = denoise(model, gauss, x, times, part, mask)
        ours += (((h - part) ** 2) * left).sum().item()
        theirs += (((gauss.denoise(x, 1 - t, t) - part) ** 2) * left).sum().item()
    return ours / theirs


def held_out_latents(autoencoder: Autoencoder, data: Dataset) -> Tensor:
    """Validation latents [16,C,5,16,16]."""
    clips = torch.stack([data.held_out(i, 17, 128) for i in range(_VALIDATION)])
    return torch.cat([to_latent(autoencoder, c[None]) for c in clips])


def _mean(x: Tensor) -> Tensor:
    return x.flatten(1).mean(1)
