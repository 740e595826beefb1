"""What encoder and decoder do alike for each GOP: references, condition, residual, pictures."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from contextlib import suppress
from dataclasses import dataclass
from typing import NamedTuple

import numpy as np
import torch
from torch import Tensor

from gvcc.decode import residual
from gvcc.decode.scheme import Coder, LatentShape
from gvcc.decode.trajectory import make_coder
from gvcc.errors import Corrupt, FormatError
from gvcc.format.bitstream import GopRecord, Header
from gvcc.format.gop import Gop
from gvcc.pictures import stills
from gvcc.priors import Condition, Prior, devices
from gvcc.records import Pictures


@dataclass(frozen=True)
class Event:
    """Progress: `step` of `steps` network calls of GOP number `gop` of about `gops` are done.

    `stage` is "measure" for the encoder's first look at the clip and "code" else. `bytes` counts
    the file so far. `drift` is set once a decoded GOP has been compared with the encoder's latent:
    an estimate of the root mean square difference per latent value, 0 if within the check's
    resolution.
    """

    gop: int
    gops: int
    step: int
    steps: int
    bytes: int
    drift: float | None = None
    stage: str = "code"


Progress = Callable[[Event], None]


def pad(frames: Pictures, length: int, multiple: tuple[int, int]) -> Tensor:
    """Pictures [n,H,W,3], grown to `length` frames and whole multiples of a height and a width by
    repeating the last frame, row and column."""
    grow = [(0, length - len(frames))]
    grow += [(0, -n % q) for n, q in zip(frames.shape[1:3], multiple, strict=True)]
    return torch.from_numpy(np.pad(frames, [*grow, (0, 0)], mode="edge"))


class References(NamedTuple):
    """What a GOP may refer to of the one before it: its last decoded `pictures` [n,H,W,3], as many
    as a GOP may start from (None: they are lost), and the `still` at its end (None: there is none,
    or it is empty; `still_lost`: it is to be had no more)."""

    pictures: Pictures | None = None
    still: Pictures | None = None
    still_lost: bool = False


class Given(NamedTuple):
    """The pictures that condition a GOP: its `first` [n,H,W,3] and its `last` [H,W,3]; None: there
    is none, or its still is empty."""

    first: Pictures | None
    last: Pictures | None


class Session:
    """A stream under way: its header and its prior. It holds nothing of the GOPs; what one of them
    leaves to the next is a value, `References`."""

    def __init__(self, header: Header, prior: Prior) -> None:
        devices.ready(prior.device)  # the prior may be anybody's, and the coder computes there
        self.header, self.prior = header, prior

    def shape(self, gop: Gop) -> LatentShape:
        """[C,F,h,w] of a GOP's latent."""
        spec = self.prior.spec
        frames = gop.latent_frames(spec.stride[0], spec.last_alone)
        return spec.channels, frames, *spec.latent_sides(self.header.height, self.header.width)

    def coder(self) -> Coder:
        """The stream's coder."""
        c, _, h, w = self.shape(Gop(0, 1))
        return make_coder(self.header, c * h * w, self.prior.device)

    def given(self, gop: Gop, coded: Sequence[bytes], before: References) -> Given:
        """The pictures that condition a GOP, given the stills in its record and what the GOP before
        left. Raises Corrupt for a still that is none, or if the GOP needs a picture that is lost.
        """
        own = [self._still(data) for data in coded]
        if (gop.first == "previous" and before.pictures is None) or (
            gop.first == "shared" and before.still_lost
        ):
            raise Corrupt("it depends on the GOP before, which is lost")
        still = own[0] if gop.first == "still" else before.still
        alone = None if gop.first == "none" or still is None else still[None]
        first = before.pictures if gop.first == "previous" else alone
        return Given(first, own[-1] if gop.last else None)

    def after(self, gop: Gop, given: Given, made: Pictures) -> References:
        """What a GOP leaves to the next: `made` are its pictures [frames,H,W,3]."""
        context = self.header.overlap if self.header.alignment == "pin" else 1
        return References(made[-context:], given.last, not gop.last)

    def after_lost(self, record: GopRecord | None) -> References:
        """What a GOP leaves that is not decoded: no more than the still at its end, and not even
        that if its record cannot be read (None)."""
        if record is not None and record.gop.last:
            with suppress(FormatError):
                return References(None, self._still(record.stills[-1]))
        return References(still_lost=True)

    def _still(self, coded: bytes) -> Pictures | None:
        size = self.header.height, self.header.width
        return stills.decode(coded, *size) if coded else None

    def condition(self, gop: Gop, given: Given) -> Condition:
        """The prior's condition on the pictures given for a GOP."""
        multiple = self.prior.spec.multiple
        first, last = given
        return self.prior.condition(
            None if first is None else pad(first, len(first), multiple),
            None if last is None else pad(last[None], 1, multiple)[0],
            self.shape(gop)[1],
        )

    def corrected(self, latent: Tensor, coded: bytes) -> Tensor:
        """The latent with a coded residual added to its last frame."""
        if not coded:
            return latent
        c, _, h, w = latent.shape
        latent = latent.clone()
        latent[:, -1:] += residual.decode(coded, (c, 1, h, w)).to(latent.device)
        return latent

    def render(self, record: GopRecord, latent: Tensor) -> Pictures:
        """The pictures of a GOP, cut to its true size: uint8 [frames,H,W,3].

        Where its last still is given, its last frame comes twice, at its place and as the latent
        frame of the still alone, and the (rounded) mean is shown: half of the step from one GOP to
        the next is taken before the boundary (bench/systems/modes.py).
        """
        pixels = self.prior.decode(latent)[:, : self.header.height, : self.header.width]
        out: Pictures = pixels[: record.gop.frames].cpu().numpy()
        if record.gop.last and record.stills[-1]:
            still = pixels[-1].cpu().numpy().astype(np.uint16)
            out[-1] = (out[-1] + still + 1) >> 1
        return out
