"""The residual of a GOP's last latent frame as GVCC publishes it: 8 bits a value, in parts of the
largest of its channel, and zlib. docs/format.md section 4.8.

The least efficient part of that codec (6.5 bits a coefficient); residual.py has ours.
"""

from __future__ import annotations

import math
import zlib

import numpy as np
import torch
from torch import Tensor

from gvcc.errors import Corrupt

_LEAST = 1e-6  # of a channel's largest value


def encode(residual: Tensor) -> bytes:
    """Code residual [C,1,h,w]: a float32 for each channel, and the compressed levels."""
    r = residual.cpu()
    most = r.abs().amax((1, 2, 3), keepdim=True).clamp(min=_LEAST)
    levels = ((r / most + 1) * 255 / 2).round().clamp(0, 255).to(torch.uint8)
    return most.numpy().astype("<f4").tobytes() + zlib.compress(levels.numpy().tobytes(), 9)


def decode(data: bytes, shape: tuple[int, int, int, int]) -> Tensor:
    """The residual [C,1,h,w] in `data`, float32 on the CPU; Corrupt if that is no such residual.
    Memory and time are bounded by `shape`."""
    if not data:
        return torch.zeros(shape)
    head, count = 4 * shape[0], math.prod(shape)
    if len(data) <= head:
        raise Corrupt("a residual ends within its head")
    most = np.frombuffer(data[:head], "<f4").astype(np.float32)
    if not (np.isfinite(most).all() and (most > 0).all()):
        raise Corrupt("a residual's largest value is none")
    unpacker = zlib.decompressobj()
    try:
        levels = unpacker.decompress(data[head:], count + 1)
    except zlib.error as e:
        raise Corrupt(f"a residual does not unpack: {e}") from None
    if len(levels) != count or not unpacker.eof or unpacker.unused_data:
        raise Corrupt(f"a residual unpacks to {len(levels)} levels, not {count}")
    q = torch.from_numpy(np.frombuffer(levels, np.uint8).reshape(shape).astype(np.float32))
    return (2 * q / 255 - 1) * torch.from_numpy(most).reshape(-1, 1, 1, 1)
