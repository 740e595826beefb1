"""A causal 3-D autoencoder: a Karhunen-Loeve basis with residual networks around it.

    z = K x + e(x)        K: the linear autoencoder of `gauss`, orthonormal rows times one factor
    x' = K^T z + d(z)     e, d: convolutional networks whose last layer starts at zero

With e = d = 0 it is the linear autoencoder exactly; training only adds to it. Both networks work
on the latent grid, one vector per 4x8x8 block of pixels (8x8 for the first frame), and look at
blocks around and before, never after: the first latent depends on the first frame alone, the
first f frames of a latent decode to the same pictures whatever follows.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor, nn
from torch.nn import functional

FIRST = 2.0
"""The first frame's coefficients are doubled: a still block repeated over four frames has twice
the coefficient of one frame, so a still scene has equal latents in all latent frames."""


@dataclass(frozen=True)
class AutoencoderShape:
    """Sizes of an autoencoder: latent channels, width, blocks of the two networks."""

    channels: int = 32
    width: int = 192
    encoder_blocks: int = 3
    decoder_blocks: int = 6


class Block(nn.Module):
    """Depthwise convolution over space and the frame before, then a pointwise network."""

    def __init__(self, width: int) -> None:
        super().__init__()
        self.now = nn.Conv2d(width, width, 5, padding=2, groups=width)
        self.before = nn.Conv2d(width, width, 3, padding=1, groups=width, bias=False)
        self.norm = nn.LayerNorm(width)
        self.up = nn.Linear(width, 4 * width)
        self.down = nn.Linear(4 * width, width)
        nn.init.normal_(self.down.weight, std=0.02)
        nn.init.zeros_(self.down.bias)

    def forward(self, x: Tensor) -> Tensor:
        """[B,F,h,w,W] -> [B,F,h,w,W]; frame f sees frames f and f-1 (frame 0 only itself)."""
        b, f, h, w, c = x.shape
        flat = x.reshape(b * f, h, w, c).permute(0, 3, 1, 2)
        past = torch.cat([x[:, :1], x[:, :-1]], 1).reshape(b * f, h, w, c).permute(0, 3, 1, 2)
        y = (self.now(flat) + self.before(past)).permute(0, 2, 3, 1).reshape(x.shape)
        out: Tensor = x + self.down(functional.gelu(self.up(self.norm(y)), approximate="tanh"))
        return out


class Autoencoder(nn.Module):
    """Pictures to latents and back.

    `group` [C,768] and `first` [C,192] are the orthonormal bases, `colour` [3] the mean colour in
    [-1,1], `gain` the global factor that gives the latents unit mean variance.
    """

    def __init__(
        self, shape: AutoencoderShape, group: Tensor, first: Tensor, colour: Tensor, gain: float
    ) -> None:
        super().__init__()
        self.shape = shape
        self.group: Tensor
        self.first: Tensor
        self.ungroup: Tensor
        self.unfirst: Tensor
        self.colour: Tensor
        self.register_buffer("group", group.float() * gain)
        self.register_buffer("first", first.float() * gain * FIRST)
        self.register_buffer("ungroup", group.float() / gain)
        self.register_buffer("unfirst", first.float() / gain / FIRST)
        self.register_buffer("colour", colour.float())
        c, w = shape.channels, shape.width
        self.enter_group, self.enter_first = nn.Linear(768, w), nn.Linear(192, w)
        self.encoder = nn.ModuleList(Block(w) for _ in range(shape.encoder_blocks))
        self.to_latent = _last(w, c)
        self.enter_latent = nn.Linear(c, w)
        self.decoder = nn.ModuleList(Block(w) for _ in range(shape.decoder_blocks))
        self.to_group, self.to_first = _last(w, 768), _last(w, 192)

    def encode(self, x: Tensor) -> Tensor:
        """Pixels [B,T,H,W,3] in [-1,1], T = 1 mod 4 -> latent [B,F,H/8,W/8,C]."""
        first, rest = self._blocks(x)
        y = torch.cat([self.enter_first(first), self.enter_group(rest)], 1)
        for block in self.encoder:
            y = block(y)
        linear = torch.cat([first @ self.first.T, rest @ self.group.T], 1)
        out: Tensor = linear + self.to_latent(y)
        return out

    def decode(self, z: Tensor) -> Tensor:
        """Latent [B,F,h,w,C] -> pixels [B,4(F-1)+1,8h,8w,3], about in [-1,1]."""
        y = self.enter_latent(z)
        for block in self.decoder:
            y = block(y)
        return self._pictures(
            z[:, :1] @ self.unfirst + self.to_first(y[:, :1]),
            z[:, 1:] @ self.ungroup + self.to_group(y[:, 1:]),
        )

    def linear(self, x: Tensor, noise: Tensor | None = None) -> Tensor:
        """Pixels -> what the linear autoencoder alone makes of them, with `noise` on its latent."""
        first, rest = self._blocks(x)
        z = torch.cat([first @ self.first.T, rest @ self.group.T], 1)
        z = z if noise is None else z + noise
        return self._pictures(z[:, :1] @ self.unfirst, z[:, 1:] @ self.ungroup)

    def _blocks(self, x: Tensor) -> tuple[Tensor, Tensor]:
        """Pixels -> blocks without the mean colour: first [B,1,h,w,192], rest [B,F-1,h,w,768]."""
        b, t, height, width, _ = x.shape
        h, w = height // 8, width // 8
        x = (x - self.colour).reshape(b, t, h, 8, w, 8, 3).permute(0, 1, 2, 4, 3, 5, 6)
        rest = x[:, 1:].reshape(b, (t - 1) // 4, 4, h, w, 192).permute(0, 1, 3, 4, 2, 5)
        return x[:, :1].reshape(b, 1, h, w, 192), rest.reshape(b, (t - 1) // 4, h, w, 768)

    def _pictures(self, first: Tensor, rest: Tensor) -> Tensor:
        """The inverse of `_blocks`."""
        b, f, h, w, _ = rest.shape
        rest = rest.reshape(b, f, h, w, 4, 192).permute(0, 1, 4, 2, 3, 5)
        x = torch.cat([first, rest.reshape(b, 4 * f, h, w, 192)], 1)
        x = x.reshape(b, 4 * f + 1, h, w, 8, 8, 3).permute(0, 1, 2, 4, 3, 5, 6)
        return x.reshape(b, 4 * f + 1, 8 * h, 8 * w, 3) + self.colour


def _last(inputs: int, outputs: int) -> nn.Sequential:
    """Normalise and project; the projection starts at zero."""
    layer = nn.Linear(inputs, outputs)
    nn.init.zeros_(layer.weight)
    nn.init.zeros_(layer.bias)
    return nn.Sequential(nn.LayerNorm(inputs), layer)
