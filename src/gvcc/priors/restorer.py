"""The generator over a base: one network, one call a picture, no trajectory (mode v2v).

From three neighbouring pictures of the base, as they are coded, the quantiser, white noise and the
strength of the texture that the base has lost (priors/texture.py) it predicts at a quarter of each
side what is to be added to the enlarged base, and how much of that texture the same noise, in
three bands, is to be:

    picture = enlarged base + correction + strength * sum over bands of share * noise

Trunk of plain 3x3 convolutions; an entry for each of the three sizes of a base, one exit. Without
noise (fidelity) it is zero.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import NamedTuple

import torch
from torch import Tensor, nn
from torch.nn import functional

from gvcc.format.base import CODECS, SIZES
from gvcc.priors.texture import SIDE, blurred, kernel

BANDS = ((0.6, 1.2), (1.2, 2.4), (2.4, 4.8))  # Gaussians whose difference a band of noise is
_SHARES = (0.25, 0.25, 0.05)  # of a network that is not trained
_STRONG = 16.0  # what a strength is multiplied with where it is an input


class Inputs(NamedTuple):
    """Of pictures t in [0,1]: t-1, t and t+1 of a base as they are coded [B,9,h,w], those at t
    enlarged [B,3,H,W], white noise [B,1,H,W], and the strength of lost texture [B,1,H/4,W/4]
    (texture.strength)."""

    base: Tensor
    enlarged: Tensor
    white: Tensor
    strength: Tensor


@dataclass(frozen=True)
class RestorerShape:
    """Channels of the trunk and number of its blocks, of two convolutions each."""

    width: int = 80
    blocks: int = 8

    @property
    def reach(self) -> int:
        """Values of the trunk around one that it depends on."""
        return 2 * self.blocks + 2


class _Block(nn.Module):
    def __init__(self, width: int) -> None:
        super().__init__()
        self.first = nn.Conv2d(width, width, 3, padding=1)
        self.second = nn.Conv2d(width, width, 3, padding=1)
        with torch.no_grad():
            self.second.weight.mul_(0.2)

    def forward(self, x: Tensor) -> Tensor:
        out: Tensor = x + self.second(functional.relu(self.first(x), inplace=True))
        return out


class Restorer(nn.Module):
    """See the module. Pictures are in [0,1] here."""

    def __init__(self, shape: RestorerShape) -> None:
        super().__init__()
        self.shape = shape
        extra = 1 + len(CODECS) + SIDE**2 + 1
        self.entries = nn.ModuleList(
            nn.Conv2d(9 * (SIDE // s) ** 2 + extra, shape.width, 3, padding=1) for s in SIZES
        )
        self.trunk = nn.Sequential(*(_Block(shape.width) for _ in range(shape.blocks)))
        self.exit = nn.Conv2d(shape.width, 3 * SIDE**2 + len(BANDS), 3, padding=1)
        with torch.no_grad():  # it begins as the base
            for parameter in self.exit.parameters():
                parameter.zero_()

    def forward(
        self, base: Tensor, about: Tensor, white: Tensor, strength: Tensor, size: int
    ) -> tuple[Tensor, Tensor]:
        """Base pictures t-1, t and t+1 [B,9,h,w] as coded at 1/`size` of each side, h and w
        multiples of 4/size, `about` [B,3] (see `described`), white noise [B,1,size h,size w] of
        unit variance, or zeros, and `strength` [B,1,size h/4,size w/4] (see texture.strength) ->
        correction [B,3,size h,size w] and amplitudes [B,bands,size h/4,size w/4]."""
        x = functional.pixel_unshuffle(base - 0.5, SIDE // size)
        planes = about[:, :, None, None].expand(-1, -1, *x.shape[2:])
        noise = functional.pixel_unshuffle(white, SIDE)
        x = torch.cat([x, planes, noise, _STRONG * strength], 1)
        x = x.contiguous(memory_format=torch.channels_last)
        x = functional.relu(self.entries[SIZES.index(size)](x))
        x = self.exit(x + self.trunk(x))
        correction, share = x[:, : 3 * SIDE**2], x[:, 3 * SIDE**2 :].float()
        usual = torch.tensor(_SHARES, device=x.device).expm1().log()[:, None, None]
        amplitude = strength * functional.softplus(share + usual)
        return functional.pixel_shuffle(correction.float(), SIDE), amplitude


def described(codec: str, quantiser: int) -> list[float]:
    """What the network is told of a base."""
    return [quantiser / 255, *(float(codec == name) for name in CODECS)]


def bands(white: Tensor) -> Tensor:
    """White noise [B,1,H,W] -> noise of each band, of unit variance, [B,bands,H,W]."""
    levels: dict[float, Tensor] = {}
    for sigma in {s for pair in BANDS for s in pair}:
        levels[sigma] = blurred(white, sigma)
    out = []
    for fine, coarse in BANDS:
        f, c = kernel(fine), kernel(coarse)
        wide = len(c) // 2 - len(f) // 2
        f = functional.pad(f, (wide, wide))
        energy = float((torch.outer(f, f) - torch.outer(c, c)).square().sum())
        out.append((levels[fine] - levels[coarse]) / energy**0.5)
    return torch.cat(out, 1)


def added(correction: Tensor, amplitude: Tensor, noise: Tensor) -> Tensor:
    """What is added to the enlarged base: `noise` as of `bands`, at full size."""
    loud = functional.interpolate(
        amplitude, scale_factor=SIDE, mode="bilinear", align_corners=False
    )
    return correction + (loud * noise).sum(1, keepdim=True)
