"""What every coder of a trajectory can do; coders.py lists them, codebook.py and rcc.py are two."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, Protocol

import torch
from torch import Tensor

from gvcc.format import rng
from gvcc.format.bitstream import Header
from gvcc.format.entropy import Reader, Writer
from gvcc.format.rng import Purpose

LatentShape = tuple[int, int, int, int]
"""[C,F,h,w]."""


class Scheme(Protocol):
    """How the noise of one GOP's steps is named. Symbols must be written, or read, step by step,
    all of them by one instance."""

    def write(self, symbols: Any, writer: Writer) -> None: ...
    def read(self, step: int, reader: Reader) -> Any: ...
    def replay(self, symbols: Any, step: int, like: Tensor) -> Tensor: ...


class Coder(Protocol):
    """A coder of one stream: what all its GOPs have in common."""

    @classmethod
    def of(cls, header: Header, dim: int, device: torch.device | str) -> Coder:
        """The one that a header asks for, for latent frames of `dim` values."""
        ...

    def initial(self, shape: LatentShape, gop: int) -> Tensor:
        """x_1 of a GOP: float32 normals of the given shape."""
        ...

    def bits(self, m: int) -> int:
        """What m atoms of one latent frame cost."""
        ...

    def scheme(
        self, header: Header, gop: int, free: Sequence[int], shape: LatentShape,
        dealt: Sequence[list[int]],
    ) -> Scheme:  # fmt: skip
        """The scheme of GOP number `gop`, whose latent frames `free` take symbols; `dealt` has
        their atoms by step and free frame in `uniform` allocation."""
        ...


def fill(header: Header, gop: int, step: int, frame: int, like: Tensor) -> Tensor:
    """Seeded normals [D] for a latent frame that no symbols speak of."""
    key = rng.derive(header.seed, gop, step, frame, Purpose.FILL)
    return torch.from_numpy(rng.normals(key, like[:, frame].numel())).to(like.device)
