"""The analytic prior: a linear block autoencoder and a stationary Gaussian model of its latents.

Autoencoder: Karhunen-Loeve basis of 4x8x8 space-time RGB blocks; the first frame stands alone (a
basis of 8x8 blocks of its own), as in causal 3-D autoencoders. Latents keep the orthonormal scale
of the basis times one global factor, so white noise in the latent is white noise in the picture.
The first frame's coefficients are doubled: a still block repeated over four frames has twice the
coefficient of one frame, so a still scene has equal latents in all latent frames.

Model: independent Gaussian coefficients in the 3-D DCT of each channel, variance = power spectrum.
Its denoiser is exact (a Wiener filter), so everything the loop does has a known right answer.
"""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from functools import partial
from importlib.resources import files
from pathlib import Path

import torch
from safetensors import SafetensorError
from safetensors.torch import load as load_safetensors
from torch import Tensor

from gvcc import flow
from gvcc.errors import ConfigError
from gvcc.priors import Condition, References, Spec, devices, known_latents, levels, soft
from gvcc.priors.autoencoder import FIRST
from gvcc.priors.spectrum import StationaryGaussian, dct3

STRIDE = (4, 8, 8)
GOP = 33
KNOB = 1.5  # a Gaussian's "realistic" detail is noise: half of it is enough
_SHAPES = {"group": (768,), "first": (192,), "power": (9, 32, 32)}


class GaussPrior:
    """The prior made of `tensors` (see train/gauss.py); a wrong set raises ConfigError.

    `gain` multiplies each channel's latent, float [C]; the default is one global factor that gives
    the latents unit mean variance. Anything else makes the latents anisotropic: for experiments
    (bench/codebooks/steering_metric.py).
    """

    def __init__(
        self,
        tensors: dict[str, Tensor],
        digest: bytes,
        device: str = "cpu",
        gain: Tensor | None = None,
    ) -> None:
        channels = (tensors["group"].shape or (0,))[0] if "group" in tensors else 0
        for name, shape in _SHAPES.items():
            if name not in tensors or tensors[name].shape != (channels, *shape) or channels == 0:
                got = tuple(tensors[name].shape) if name in tensors else "missing"
                raise ConfigError(f"gauss weights: {name} is {got}, expected (C, *{shape})")
        if "colour" not in tensors or tensors["colour"].shape != (3,):
            raise ConfigError("gauss weights: colour must be 3 numbers")
        if not all(torch.isfinite(v).all() for v in tensors.values()):
            raise ConfigError("gauss weights: not all numbers are finite")
        power = tensors["power"].double()
        if gain is None:
            gain = power.exp().mean().rsqrt().expand(channels)
        if not (torch.isfinite(gain) & (gain > 0)).all():
            raise ConfigError("gauss weights: the power spectrum is out of range")
        log_power = power + 2 * gain.double()[:, None, None, None].log()
        self.device = at = devices.ready(device)
        self.model = StationaryGaussian(log_power, at)
        self.spec = Spec("gauss", digest, channels, STRIDE, GOP, "rf", KNOB, self.model.metric, 2)
        self._group = tensors["group"].float().to(at)
        self._first = tensors["first"].float().to(at)
        self._colour = tensors["colour"].float().to(at)
        self._gain = gain.float().to(at)[:, None, None, None]
        self._path = flow.PATHS["rf"]

    def encode(self, frames: Tensor) -> Tensor:
        """uint8 [T,H,W,3], T = 1 mod 4, H and W multiples of 8 -> latent [C,F,h,w]."""
        x = frames.to(self.device).float() / 127.5 - 1 - self._colour
        t, h, w = x.shape[0], x.shape[1] // 8, x.shape[2] // 8
        x = x.reshape(t, h, 8, w, 8, 3).permute(0, 1, 3, 2, 4, 5)  # T h w 8 8 3
        first = x[:1].reshape(1, h, w, 192) @ self._first.T * FIRST
        rest = x[1:].reshape(-1, 4, h, w, 192).permute(0, 2, 3, 1, 4).reshape(-1, h, w, 768)
        return (
            torch.cat([first, rest @ self._group.T]).permute(3, 0, 1, 2).contiguous() * self._gain
        )

    def decode(self, latent: Tensor) -> Tensor:
        """Latent [C,F,h,w] -> uint8 [4(F-1)+1, 8h, 8w, 3]."""
        return levels(self.render(latent))

    def render(self, latent: Tensor) -> Tensor:
        """See priors.Prior."""
        _, f, h, w = latent.shape
        y = (latent / self._gain).permute(1, 2, 3, 0)  # F h w C
        first = (y[:1] / FIRST) @ self._first
        rest = (y[1:] @ self._group).reshape(f - 1, h, w, 4, 192).permute(0, 3, 1, 2, 4)
        x = torch.cat([first, rest.reshape(-1, h, w, 192)]).reshape(-1, h, w, 8, 8, 3)
        return x.permute(0, 1, 3, 2, 4, 5).reshape(-1, 8 * h, 8 * w, 3) + self._colour

    def denoise(self, x: Tensor, t: float, known: dict[int, Tensor] | None = None) -> Tensor:
        """E[x0 | x_t, and the latent frames [C,h,w] in `known`] under the model."""
        if known:
            return self.model.denoise_known(x, *self._path(t), known)
        return self.model.denoise(x, *self._path(t))

    def condition(self, references: References, frames: int) -> Condition:
        """See priors.Prior. With a base it is exact: V_t is known for each frequency."""
        known = known_latents(self, references, frames)
        made = Condition(partial(self.denoise, known=known), known)
        return soft.over(made, references.base, self._path, dct3, partial(dct3, inverse=True))

    def variances(self, size: tuple[int, ...], codes: Sequence[int]) -> soft.Variance:
        """See priors.Prior; for each frequency, whatever a header says."""
        s = self.model.spectrum(size)

        def at(t: float) -> Tensor:
            alpha, sigma = self._path(t)
            return s * sigma**2 / (alpha**2 * s + sigma**2)

        return at


def load(device: str = "cpu", path: Path | None = None) -> GaussPrior:
    """The fitted prior that ships in the package, or the one in a file of `gvcc train gauss`."""
    if path is None:
        return from_bytes((files("gvcc.priors") / "weights/gauss.safetensors").read_bytes(), device)
    try:
        return from_bytes(path.read_bytes(), device)
    except OSError as e:
        raise ConfigError(f"gauss weights {path}: {e.strerror}") from e
    except ConfigError as e:
        raise ConfigError(f"{path}: {e}") from e


def from_bytes(data: bytes, device: str = "cpu") -> GaussPrior:
    """The prior in a safetensors file that `gvcc train gauss` wrote; ConfigError if it is none."""
    try:
        tensors = load_safetensors(data)
    except SafetensorError as e:
        raise ConfigError(f"gauss weights: not a safetensors file: {e}") from e
    return GaussPrior(tensors, hashlib.sha256(data).digest()[:8], device)
