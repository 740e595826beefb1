"""Priors: the frozen generators that a stream steers. One protocol, one explicit table.

A prior is an autoencoder and a denoiser of its latents on a Gaussian path. Nothing outside this
folder knows which one is running.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Protocol

from gvcc.errors import ConfigError, unknown

if TYPE_CHECKING:
    import torch


Metric = Callable[["torch.Tensor", float], "torch.Tensor"]
"""A steering metric: (r [C,F,h,w], SNR at the end of the step) -> W r. The encoder chooses atoms
against W r instead of r; file and decoder never see it (design.md, "What the steering serves")."""


@dataclass(frozen=True)
class Spec:
    """What the codec must know of a prior.

    `digest` is the first 8 bytes of the SHA-256 of weights and configuration, as written in the
    header. `stride` is (time, height, width): pixels per latent; L frames, L = 1 mod time stride,
    give (L-1)/stride + 1 latent frames. `gop` is the default GOP length in frames. `path` names a
    Gaussian path of flow.py. `knob` is the default k of the decoder. `metric` is the steering
    metric; None is the identity.
    """

    id: str
    digest: bytes
    channels: int
    stride: tuple[int, int, int]
    gop: int
    path: str
    knob: float
    metric: Metric | None = None


class Prior(Protocol):
    """A generator. All tensors are float32 on the prior's device."""

    spec: Spec

    def encode(self, frames: torch.Tensor) -> torch.Tensor:
        """uint8 [T,H,W,3], legal sizes (see Spec.stride) -> latent [C,F,h,w]."""
        ...

    def decode(self, latent: torch.Tensor) -> torch.Tensor:
        """Latent [C,F,h,w] -> uint8 [T,H,W,3], rounded to the nearest level."""
        ...

    def denoise(self, x: torch.Tensor, t: float) -> torch.Tensor:
        """x0hat(x_t, t), the posterior mean of the latent: [C,F,h,w] -> [C,F,h,w]."""
        ...


def _gauss(device: str, path: Path | None) -> Prior:
    from gvcc.priors import gauss

    return gauss.load(device, path)


def _nano(device: str, path: Path | None) -> Prior:
    from gvcc.priors import nano

    return nano.load(device, path)


_TABLE: dict[str, Callable[[str, Path | None], Prior]] = {"nano": _nano, "gauss": _gauss}
NAMES = tuple(_TABLE)
DEFAULT = "nano"


def load(name: str, device: str = "cpu") -> Prior:
    """The prior called `name`, or "name:file" with weights of one's own (`gvcc train`).

    ConfigError if there is none of that name, or the file is not what it should be.
    """
    kind, colon, file = name.partition(":")
    if kind not in _TABLE:
        raise unknown("prior", kind, NAMES)
    if colon and not file:
        raise ConfigError(f"prior {name!r}: a file is expected after the colon")
    return _TABLE[kind](device, Path(file) if file else None)
