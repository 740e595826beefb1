"""From the latents of GOPs to the pictures of a clip, each frame once."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import torch
from torch import Tensor

from gvcc.decode.session import Base
from gvcc.format.bitstream import GopRecord, Header
from gvcc.format.gop import Gop
from gvcc.records import Pictures


class Assembler:
    """Decoded GOPs in, the clip's pictures out: latents are blended and pictures cross-faded where
    GOPs share frames, and what the next GOP may still change is held back.

    `render` makes the pictures [frames,H,W,3] of a record's latent and base; `stride` is the
    pictures of a latent frame. `made` are the last pictures that were rendered, before any
    cross-fade: a GOP's, or the last few of a base's.
    """

    def __init__(
        self, header: Header, stride: int,
        render: Callable[[GopRecord, Tensor, Base | None], Pictures],
    ) -> None:  # fmt: skip
        self._header, self._stride, self._render = header, stride, render
        self._waiting: tuple[GopRecord, Tensor] | None = None  # to be blended with the next GOP
        self._held: Pictures | None = None  # frames that the next GOP may fade into
        self.made = np.full((1, header.height, header.width, 3), 128, np.uint8)

    def add(self, record: GopRecord, latent: Tensor, base: Base | None = None) -> Pictures:
        """The pictures [n,H,W,3] that are final once this GOP is decoded."""
        if base is not None:
            return self.show(self._render(record, latent, base))
        if self._header.alignment != "blend":
            return self._rendered(record, latent)
        if self._waiting is not None and record.gop.fade:
            before, own = self._waiting
            own, latent = blend(own, latent, (record.gop.fade - 1) // self._stride)
            self._waiting = before, own
        ready = self._unblended()
        self._waiting = record, latent
        return ready

    def show(self, pictures: Pictures) -> Pictures:
        """The pictures that are final with these [n,H,W,3], which no other GOP can change."""
        ready = self.finish()
        self.made = pictures
        return np.concatenate([ready, pictures]) if len(ready) else pictures

    def conceal(self, gop: Gop) -> Pictures:
        """The pictures that are final once a GOP is given up: its own are copies of the last one
        made before it."""
        ready = self._unblended()
        copies = np.broadcast_to(self.made[-1], (gop.frames, *self.made.shape[1:]))
        return np.concatenate([ready, self._faded(gop, copies)])

    def finish(self) -> Pictures:
        """What was held back, at the end of the clip."""
        ready, held = self._unblended(), self._held
        self._held = None
        return ready if held is None else np.concatenate([ready, held])

    def _unblended(self) -> Pictures:
        """What the GOP that waits to be blended with another one makes final, as it is."""
        if self._waiting is None:
            return self.made[:0]
        (record, latent), self._waiting = self._waiting, None
        return self._rendered(record, latent)

    def _rendered(self, record: GopRecord, latent: Tensor) -> Pictures:
        self.made = self._render(record, latent, None)
        return self._faded(record.gop, self.made)

    def _faded(self, gop: Gop, pictures: Pictures) -> Pictures:
        held, new = self._held, pictures[gop.skip :]
        if gop.fade and held is not None:
            # Fewer than are faded only where the first GOP that is decoded repeats some of them.
            there = min(gop.fade, len(held))
            old = new[: gop.fade].copy()
            old[gop.fade - there :] = held[len(held) - there :]
            faded = cross_fade(old, new[: gop.fade])[gop.fade - there :]
            new, held = np.concatenate([faded, new[gop.fade :]]), held[: len(held) - there]
        if held is not None and len(held):
            new = np.concatenate([held, new])
        keep = min(self._header.overlap, len(new))
        self._held = new[len(new) - keep :].copy() if keep else None
        return new[: len(new) - keep]


def cross_fade(old: Pictures, new: Pictures) -> Pictures:
    """Linear cross-fade of o frames, weight (j+1)/(o+1) for new frame j, rounded: integers only."""
    o = len(old)
    w = np.arange(1, o + 1, dtype=np.int32)[:, None, None, None]
    mixed = old * (o + 1 - w) + new * w + (o + 1) // 2
    return (mixed // (o + 1)).astype(np.uint8)


def blend(before: Tensor, after: Tensor, count: int) -> tuple[Tensor, Tensor]:
    """Two latents [C,F,h,w] of which the last `count` frames of one and frames 1 .. `count` of the
    other stand for the same pictures: both get their mean, weight (j+1)/(count+1) for frame j of
    the other. (Frame 0 stands for one picture alone: nothing in the GOP before is like it.)

    As Free-GVC's Inter-GOP Alignment; the weights are ours (published.md A.3).
    """
    before, after = before.clone(), after.clone()
    w = torch.arange(1, count + 1, device=after.device).reshape(1, -1, 1, 1) / (count + 1)
    old, new = before[:, before.shape[1] - count :], after[:, 1 : 1 + count]
    # Written so that equal latents stay as they are.
    mixed = old + w * (new - old)
    before[:, before.shape[1] - count :] = mixed
    after[:, 1 : 1 + count] = mixed
    return before, after
