"""Training pairs, and many of them in one small file, for a machine that has PyTorch and nothing
else: nothing here or in what it imports needs another package than numpy and torch.

In the file pictures are coded about as in JPEG, at some 40 dB, which no restorer comes near.
"""

from __future__ import annotations

import json
import lzma
import math
from collections.abc import Iterable, Iterator
from dataclasses import asdict, dataclass
from functools import cached_property
from pathlib import Path
from typing import BinaryIO

import numpy as np
from numpy.typing import NDArray

from gvcc import files
from gvcc.errors import ConfigError
from gvcc.format import levels
from gvcc.pictures import enlarge
from gvcc.priors.texture import lost, strength

ODDS = {1: 0.55, 2: 0.3, 4: 0.15}
"""How often a base is at 1/1, 1/2 and 1/4 of each side."""
FRAMES = 5  # of a pair, in a file
NEAR = 4  # pictures on either side of the middle one whose texture is measured
_F = np.arange(8)
_SIZE = np.where(_F, 0.5, math.sqrt(1 / 8))
_DCT = np.cos(math.pi * _F[:, None] * (2 * _F + 1) / 16) * _SIZE[:, None]  # orthonormal
# Quantisers of its products, of brightness and of two colours.
_STEPS = np.multiply.outer([6, 12, 12], 1 + 0.15 * (_F[:, None] + _F))[..., None, None, None]
_YCC = np.array([[0.299, 0.587, 0.114], [-0.1687, -0.3313, 0.5], [0.5, -0.4187, -0.0813]])
_MAGIC = b"gvcc pairs 1\n"


@dataclass(frozen=True)
class About:
    """How a pair was made."""

    codec: str
    size: int
    quantiser: int
    bytes: int


@dataclass(frozen=True)
class Pair:
    """A clip [T,H,W,3] and its base as coded [T,h,w,3], uint8."""

    about: About
    clip: NDArray[np.uint8]
    base: NDArray[np.uint8]

    @cached_property
    def enlarged(self) -> NDArray[np.uint8]:
        """The base at the clip's size."""
        height, width = self.clip.shape[1:3]
        return enlarge.enlarged(self.base, height, width, self.about.size)

    @cached_property
    def strength(self) -> NDArray[np.float32]:
        """What a restorer is told of the texture that the base lacks: [H/4,W/4], for all pictures
        as of the middle one and its neighbours."""
        near = slice(max(0, len(self.clip) // 2 - NEAR), len(self.clip) // 2 + NEAR + 1)
        power = np.square(lost(self.clip[near], self.enlarged[near])).mean(0)
        found = np.rint(levels.fraction(np.sqrt(power))).astype(np.uint8)
        return strength(found[None], 0, *self.clip.shape[1:3])


def write(path: Path, pairs: Iterable[Pair], most: int) -> int:
    """As many of the pairs as fit `most` bytes, a few frames from the middle of each; returns how
    many they are."""
    count, total = 0, len(_MAGIC)
    with files.replacing(path) as file:
        file.write(_MAGIC)
        for pair in pairs:
            data = _record(pair)
            if total + len(data) > most:
                break
            file.write(data)
            count, total = count + 1, total + len(data)
    return count


def read(path: Path) -> Iterator[Pair]:
    """The pairs of a file; ConfigError if it is none."""
    try:
        with path.open("rb") as file:
            if file.read(len(_MAGIC)) != _MAGIC:
                raise ConfigError(f"{path} holds no pairs")
            while head := file.readline():
                about, *shapes = json.loads(head)
                clip, base = (_pictures(file, *shape) for shape in shapes)
                yield Pair(About(**about), clip, base)
    except (OSError, ValueError, TypeError, lzma.LZMAError) as e:
        raise ConfigError(f"{path} cannot be read: {e}") from None


def _record(pair: Pair) -> bytes:
    first = (len(pair.clip) - FRAMES) // 2 if len(pair.clip) > FRAMES else 0
    parts = [x[first : first + FRAMES] for x in (pair.clip, pair.base)]
    coded = [_coded(x) for x in parts]
    shapes = [(*x.shape[:3], len(data)) for x, data in zip(parts, coded, strict=True)]
    return json.dumps([asdict(pair.about), *shapes]).encode() + b"\n" + b"".join(coded)


def _coded(x: NDArray[np.uint8]) -> bytes:
    """Pictures [n,H,W,3] -> bytes: of each plane the quantised coefficients, frequency by
    frequency."""
    n, height, width, _ = x.shape
    padded = np.pad(x, ((0, 0), (0, -height % 8), (0, -width % 8), (0, 0)), mode="edge")
    colours = padded @ _YCC.T - [128, 0, 0]
    blocks = colours.reshape(n, -(-height // 8), 8, -(-width // 8), 8, 3)
    found = np.einsum("ki,nricjp,lj->pklnrc", _DCT, blocks, _DCT)
    levels = np.rint(found / _STEPS).clip(-(2**15), 2**15 - 1).astype("<i2")
    return lzma.compress(levels.tobytes(), preset=6)


def _pictures(
    file: BinaryIO, count: int, height: int, width: int, length: int
) -> NDArray[np.uint8]:
    """The inverse."""
    rows, columns = -(-height // 8), -(-width // 8)
    data = np.frombuffer(lzma.decompress(file.read(length)), "<i2")
    levels = data.reshape(3, 8, 8, count, rows, columns) * _STEPS
    colours = np.einsum("ki,pklnrc,lj->nricjp", _DCT, levels, _DCT)
    rgb = colours.reshape(count, 8 * rows, 8 * columns, 3) + [128, 0, 0]
    rgb = (rgb @ np.linalg.inv(_YCC).T)[:, :height, :width]
    out: NDArray[np.uint8] = np.rint(rgb).clip(0, 255).astype(np.uint8)
    return out
