"""The denoiser of `nano`: a transformer over latent patches, around the exact Gaussian denoiser.

    x0hat = gauss(x_t, t) + c_out net(x_t / c_in, gauss(x_t, t) / w, t)        per channel,
    c_in^2 = (1-t)^2 w^2 + t^2,  c_out = w t / c_in,  w the channel's scale

so that the net sees and returns numbers of unit size, and at its zero-initialised start *is* the
Gaussian denoiser. Latent frames that are already known (`known`) enter with their mask.

Attention sees windows of at most 8x8 patches and all latent frames. The grid is cut into the
fewest equal windows of that size, and into one more in every second layer, so that nothing stays
behind a border; cost grows with the picture's area, and a position is never further from another
than in training, at any size.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import torch
from torch import Tensor, nn
from torch.nn import functional

from gvcc.priors.spectrum import StationaryGaussian

WINDOW = 8  # patches
PATCH = 2  # latents
_TIMES = 64  # features of t


@dataclass(frozen=True)
class TransformerShape:
    """Sizes of the transformer; the width is a multiple of 64, the width of a head."""

    channels: int = 32
    width: int = 256
    layers: int = 6


def _rotation(f: int, h: int, w: int, device: torch.device) -> Tensor:
    """Angles of a factorised rotary embedding (Su et al. 2021) for a window: [f*h*w, 32].

    Of the 32 pairs of a head 8 turn with time and 12 each with row and column.
    """
    angles = []
    grid = torch.meshgrid(*(torch.arange(n, device=device) for n in (f, h, w)), indexing="ij")
    for axis, pairs in zip(grid, (8, 12, 12), strict=True):
        turn = (math.pi / 2) * 32.0 ** (-torch.arange(pairs, device=device) / pairs)
        angles.append(axis.reshape(-1, 1) * turn)
    return torch.cat(angles, 1)


def _rotate(x: Tensor, cos: Tensor, sin: Tensor) -> Tensor:
    a, b = x.chunk(2, -1)
    return torch.cat([a * cos - b * sin, a * sin + b * cos], -1)


def _normalise(norm: nn.RMSNorm, x: Tensor) -> Tensor:
    """norm(x) with its weight in the type of x: autocast would mix the two, slowly."""
    weight = norm.weight.to(x.dtype)
    return functional.rms_norm(x, tuple(norm.normalized_shape), weight, norm.eps)


def cuts(n: int, windows: int) -> list[tuple[int, int]]:
    """n patches in so many windows whose sizes differ by at most one: (start, end) of each."""
    edges = [round(i * n / windows) for i in range(windows + 1)]
    return [(a, b) for a, b in zip(edges, edges[1:], strict=False) if b > a]


def _small(inputs: int, outputs: int) -> nn.Linear:
    """The last layer of a residual branch: small at the start."""
    layer = nn.Linear(inputs, outputs)
    nn.init.normal_(layer.weight, std=0.02)
    nn.init.zeros_(layer.bias)
    return layer


class Attention(nn.Module):
    """Multi-head attention within windows, with normalised queries and keys."""

    def __init__(self, width: int) -> None:
        super().__init__()
        self.heads = width // 64
        self.qkv = nn.Linear(width, 3 * width)
        self.out = _small(width, width)
        self.norm_q, self.norm_k = nn.RMSNorm(64, eps=1e-6), nn.RMSNorm(64, eps=1e-6)

    def forward(self, x: Tensor, shifted: bool) -> Tensor:
        """[B,F,h,w,W] -> [B,F,h,w,W]"""
        qkv, y = self.qkv(x), torch.empty_like(x)
        rows, columns = (cuts(n, -(-n // WINDOW) + shifted) for n in x.shape[2:4])
        for a, b in rows:
            for c, d in columns:
                y[:, :, a:b, c:d] = self._window(qkv[:, :, a:b, c:d])
        out: Tensor = self.out(y)
        return out

    def _window(self, qkv: Tensor) -> Tensor:
        n, f, h, w, width = qkv.shape
        tokens = qkv.reshape(n, f * h * w, 3, self.heads, 64).permute(2, 0, 3, 1, 4)
        angle = _rotation(f, h, w, qkv.device).to(qkv.dtype)
        cos, sin = angle.cos(), angle.sin()
        q = _rotate(_normalise(self.norm_q, tokens[0]), cos, sin)
        k = _rotate(_normalise(self.norm_k, tokens[1]), cos, sin)
        y = functional.scaled_dot_product_attention(q, k, tokens[2])
        return y.transpose(1, 2).reshape(n, f, h, w, width // 3)


class Layer(nn.Module):
    """Local mixing, windowed attention, and a pointwise network, modulated by t."""

    def __init__(self, width: int, shifted: bool) -> None:
        super().__init__()
        self.shifted = shifted
        self.local = nn.Conv2d(width, width, 3, padding=1, groups=width, bias=False)
        self.around = nn.Parameter(torch.zeros(2, width))
        self.attention = Attention(width)
        self.up, self.down = nn.Linear(width, 4 * width), _small(4 * width, width)
        self.table = nn.Parameter(torch.zeros(6, width))
        nn.init.normal_(self.local.weight, std=0.05)

    def forward(self, x: Tensor, modulation: Tensor) -> Tensor:
        """x [B,F,h,w,W], modulation [B,6,W]"""
        shift1, scale1, gate1, shift2, scale2, gate2 = (
            m[:, None, None, None] for m in (modulation + self.table).unbind(1)
        )
        b, f, h, w, c = x.shape
        mixed = x
        if f > 1:
            mixed = mixed + self.around[0] * torch.cat([x[:, :1], x[:, :-1]], 1)
            mixed = mixed + self.around[1] * torch.cat([x[:, 1:], x[:, -1:]], 1)
        mixed = self.local(mixed.reshape(b * f, h, w, c).permute(0, 3, 1, 2))
        x = x + mixed.permute(0, 2, 3, 1).reshape(x.shape)
        y = functional.layer_norm(x, (c,)) * (1 + scale1) + shift1
        x = x + (1 + gate1) * self.attention(y, self.shifted)
        y = functional.layer_norm(x, (c,)) * (1 + scale2) + shift2
        y = self.down(functional.gelu(self.up(y), approximate="tanh"))
        out: Tensor = x + (1 + gate2) * y
        return out


class Transformer(nn.Module):
    """The net of the module's equation."""

    def __init__(self, shape: TransformerShape) -> None:
        super().__init__()
        self.shape = shape
        c, width = shape.channels, shape.width
        cells = PATCH * PATCH
        self.enter = nn.Linear((3 * c + 1) * cells, width)
        self.enter_time = nn.Sequential(nn.Linear(_TIMES, width), nn.SiLU())
        self.to_modulation = nn.Linear(width, 6 * width)
        self.layers = nn.ModuleList(Layer(width, i % 2 == 1) for i in range(shape.layers))
        self.to_final = nn.Linear(width, 2 * width)
        self.to_patch = nn.Linear(width, c * cells)
        for layer in (self.to_modulation, self.to_final, self.to_patch):
            nn.init.zeros_(layer.weight)
            nn.init.zeros_(layer.bias)

    def forward(self, inputs: Tensor, t: Tensor) -> Tensor:
        """inputs [B,3C+1,F,h,w], t [B] -> [B,C,F,h,w]"""
        h, w = inputs.shape[-2:]
        x = functional.pad(inputs, (0, w % 2, 0, h % 2, 0, 0), mode="replicate")
        b, c, f, hh, ww = x.shape
        x = x.reshape(b, c, f, hh // 2, 2, ww // 2, 2).permute(0, 2, 3, 5, 1, 4, 6)
        x = self.enter(x.reshape(b, f, hh // 2, ww // 2, 4 * c))
        time = self.enter_time(_features(t))
        modulation = self.to_modulation(time).reshape(b, 6, -1)
        for layer in self.layers:
            x = layer(x, modulation)
        shift, scale = (m[:, None, None, None] for m in self.to_final(time).chunk(2, -1))
        x = functional.layer_norm(x, x.shape[-1:]) * (1 + scale) + shift
        y = self.to_patch(x).reshape(b, f, hh // 2, ww // 2, -1, 2, 2)
        out: Tensor = y.permute(0, 4, 1, 2, 5, 3, 6).reshape(b, -1, f, hh, ww)[..., :h, :w]
        return out


def _features(t: Tensor) -> Tensor:
    """Sines and cosines of the log SNR of t in (0,1]: [B] -> [B,64]."""
    t = t.clamp(1e-3, 1 - 1e-3)
    x = torch.log((1 - t) / t)[:, None]
    rate = torch.exp(torch.linspace(math.log(0.1), math.log(6.0), _TIMES // 2, device=t.device))
    return torch.cat([torch.sin(x * rate), torch.cos(x * rate)], 1)


def denoise(
    net: Transformer, gauss: StationaryGaussian, x: Tensor, t: Tensor, known: Tensor, mask: Tensor
) -> Tensor:
    """x0hat of noisy latents x [B,C,F,h,w] at times t [B] (see the module), same shape.

    mask [B,F] is 1 at latent frames that are known, and known [B,C,F,h,w] holds them (anything
    elsewhere). The Gaussian is then conditioned on them, exactly; their noisy version is not
    looked at, and they come out as they are.
    """
    m = mask[:, None, :, None, None]
    at = t[:, None, None, None, None]
    known = known * m
    x = x * (1 - m) + (1 - at) * known
    with torch.no_grad(), torch.autocast(x.device.type, enabled=False):
        linear = gauss.denoise(x, 1 - at, at)
        for i in mask.any(1).nonzero().flatten().tolist():
            frames = {f: known[i, :, f] for f in mask[i].nonzero().flatten().tolist()}
            linear[i] = gauss.denoise_known(x[i], 1 - t[i], t[i], frames)
    w = gauss.scale()[:, None, None, None]
    c_in = ((1 - at) ** 2 * w**2 + at**2).sqrt()
    flags = m.expand(-1, 1, -1, *x.shape[-2:])
    inputs = torch.cat([x / c_in, linear / w, known / w, flags], 1)
    h = linear + (w * at / c_in) * net(inputs, t).float()
    out: Tensor = h * (1 - m) + known
    return out
