"""From the pictures of a base as they are coded to those that are shown: enlarged, and restored.

A few pictures at a time, large ones in tiles that overlap as far as the network looks.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from typing import NamedTuple

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from gvcc.decode.anchored import AnchoredNoise
from gvcc.format.base import BaseRecord
from gvcc.format.levels import Levels
from gvcc.pictures import enlarge
from gvcc.priors.restorer import Inputs
from gvcc.priors.restorers import Restoring
from gvcc.priors.texture import SIDE, strength
from gvcc.records import Pictures

TILE = 512  # pixels a side
_TOGETHER = 2**19  # pixels that a network is given at once, where pictures are small


class _Ready(NamedTuple):
    """What a network is given for a picture: it and its neighbours [9,h,w], noise, and how strong
    the texture is that it lacks."""

    base: Pictures
    white: NDArray[np.float32]
    strength: NDArray[np.float32]


def restored(
    pictures: Iterable[Pictures], coded: BaseRecord, height: int, width: int,
    noise: AnchoredNoise, levels: Levels, network: Restoring,
) -> Iterator[Pictures]:  # fmt: skip
    """The pictures [h,w,3] of a base, as base.small gives them, restored: [height,width,3] each.
    `noise` is what moves with them, `levels` the texture that they lack."""
    waiting = list[_Ready]()
    for i, window in enumerate(_neighbours(pictures)):
        base = np.concatenate([p.transpose(2, 0, 1) for p in window])
        h, w = (coded.size * n for n in base.shape[1:])
        white = noise.next(window[1]) if network.noisy else np.zeros((h, w), np.float32)
        waiting.append(_Ready(base, white, strength(levels, i, h, w)))
        if len(waiting) * waiting[0].white.size > _TOGETHER:
            yield from _made(waiting, coded, height, width, network)
            waiting = []
    if waiting:
        yield from _made(waiting, coded, height, width, network)


def _neighbours(pictures: Iterable[Pictures]) -> Iterator[tuple[Pictures, Pictures, Pictures]]:
    """Each picture between its neighbours; at the ends it is its own."""
    before: Pictures | None = None
    now: Pictures | None = None
    for after in pictures:
        if now is not None:
            yield now if before is None else before, now, after
        before, now = now, after
    if now is not None:
        yield now if before is None else before, now, now


@torch.inference_mode()
def _made(
    waiting: list[_Ready], coded: BaseRecord, height: int, width: int, network: Restoring
) -> Iterator[Pictures]:
    """Pictures restored together, tile by tile."""
    base, size = np.stack([w.base for w in waiting]), coded.size
    h, w = size * base.shape[2], size * base.shape[3]
    big = enlarge.enlarged(base[:, 3:6].transpose(0, 2, 3, 1), h, w, size).transpose(0, 3, 1, 2)
    white, strong = (torch.from_numpy(np.stack(x))[:, None]
                     for x in zip(*(w[1:] for w in waiting), strict=True))  # fmt: skip
    out = np.empty((len(base), h, w, 3), np.uint8)
    for y, x in tiles(h, w, network.reach):
        given = Inputs(
            _levels(base[..., y.around(size), x.around(size)], network),
            _levels(big[..., y.around(), x.around()], network),
            white[..., y.around(), x.around()].to(network.device),
            strong[..., y.around(SIDE), x.around(SIDE)].to(network.device),
        )
        made = network.restore(given, coded)[..., y.inside, x.inside]
        shown = (255 * made).round().clamp(0, 255).to(torch.uint8).permute(0, 2, 3, 1)
        out[:, y.own, x.own] = shown.cpu().numpy()
    yield from out[:, :height, :width]


def _levels(x: Pictures, network: Restoring) -> Tensor:
    return torch.from_numpy(np.ascontiguousarray(x)).to(network.device).float() / 255


class Stretch(NamedTuple):
    """A tile along one side, in pixels: from `begin` to `end`, of which `low` to `high` are its
    own."""

    begin: int
    end: int
    low: int
    high: int

    def around(self, size: int = 1) -> slice:
        """All of it, in a picture at 1/size of each side."""
        return slice(self.begin // size, self.end // size)

    @property
    def inside(self) -> slice:
        """Its own, in the tile."""
        return slice(self.low - self.begin, self.high - self.begin)

    @property
    def own(self) -> slice:
        """Its own, in the picture."""
        return slice(self.low, self.high)


def tiles(height: int, width: int, reach: int) -> Iterator[tuple[Stretch, Stretch]]:
    """Tiles of a picture, by rows: what is their own, and `reach` pixels around that are there."""
    for y in _stretches(height, reach):
        for x in _stretches(width, reach):
            yield y, x


def _stretches(length: int, reach: int) -> Iterator[Stretch]:
    for low in range(0, length, TILE):
        high = min(low + TILE, length)
        yield Stretch(max(0, low - reach), min(length, high + reach), low, high)
