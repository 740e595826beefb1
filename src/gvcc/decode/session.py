"""What encoder and decoder do alike for each GOP: references, condition, residual, pictures."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from contextlib import suppress
from dataclasses import dataclass
from typing import NamedTuple

import numpy as np
import torch
from torch import Tensor

from gvcc import priors
from gvcc.decode import plain_residual, residual, restore
from gvcc.decode.anchored import AnchoredNoise
from gvcc.decode.scheme import Coder, LatentShape
from gvcc.decode.trajectory import make_coder
from gvcc.errors import Corrupt, FormatError
from gvcc.format import texture
from gvcc.format.base import GRID, START_UNIT, BaseRecord, Over, variance
from gvcc.format.bitstream import GopRecord, Header
from gvcc.format.gop import Gop
from gvcc.format.levels import shape as levels_shape
from gvcc.pictures import base as bases
from gvcc.pictures import stills
from gvcc.priors import Condition, Prior, devices, levels
from gvcc.priors.restorers import Restoring
from gvcc.priors.soft import SoftBase
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


class Left(NamedTuple):
    """What a GOP leaves to the one behind it: its last decoded `pictures` [n,H,W,3], as many
    as a GOP may start from (None: they are lost), and the `still` at its end (None: there is none,
    or it is empty; `still_lost`: it is to be had no more)."""

    pictures: Pictures | None = None
    still: Pictures | None = None
    still_lost: bool = False


class Base(NamedTuple):
    """A GOP's base: its pictures [frames,H,W,3] and, where a trajectory goes on from it, what the
    prior is told of it and, for the difference to them, the pictures of its latent, float."""

    pictures: Pictures
    soft: SoftBase | None = None
    again: Tensor | None = None


class Given(NamedTuple):
    """The pictures that condition a GOP: its `first` [n,H,W,3], its `last` [H,W,3] and its base;
    None: there is none, or its still is empty."""

    first: Pictures | None = None
    last: Pictures | None = None
    base: Base | None = None


class Session:
    """A stream under way: its header, its prior and what restores its bases (None: they are shown
    as they are). It holds nothing of the GOPs; what one of them
    leaves to the next is a value, `Left`."""

    def __init__(self, header: Header, prior: Prior, restorer: Restoring | None = None) -> None:
        devices.ready(prior.device)  # the prior may be anybody's, and the coder computes there
        self.header, self.prior, self.restorer = header, prior, restorer

    def shape(self, gop: Gop) -> LatentShape:
        """[C,F,h,w] of a GOP's latent."""
        spec = self.prior.spec
        frames = gop.latent_frames(spec.stride[0], spec.last_alone)
        return spec.channels, frames, *spec.latent_sides(self.header.height, self.header.width)

    @property
    def context(self) -> int:
        """How many pictures of a GOP the next one may start from."""
        return self.header.overlap if self.header.alignment == "pin" else 1

    def coder(self) -> Coder:
        """The stream's coder."""
        c, _, h, w = self.shape(Gop(0, 1))
        return make_coder(self.header, c * h * w, self.prior.device)

    def given(
        self, gop: Gop, coded: Sequence[bytes], before: Left, base: BaseRecord | None = None
    ) -> Given:
        """The pictures that condition a GOP, given the stills and the base in its record and what
        the GOP before left. Raises Corrupt for a still or a base that is none, or if the GOP needs
        a picture that is lost."""
        if base is not None:
            return Given(base=self.base(gop, base))
        own = [self._still(data) for data in coded]
        if (gop.first == "previous" and before.pictures is None) or (
            gop.first == "shared" and before.still_lost
        ):
            raise Corrupt("it depends on the GOP before, which is lost")
        still = own[0] if gop.first == "still" else before.still
        alone = None if gop.first == "none" or still is None else still[None]
        first = before.pictures if gop.first == "previous" else alone
        return Given(first, own[-1] if gop.last else None)

    def base(self, gop: Gop, coded: BaseRecord) -> Base:
        """A GOP's base, all of it. Raises Corrupt."""
        spec, pictures = self.prior.spec, np.stack([*self.base_pictures(gop, coded)])
        if coded.over is None:
            return Base(pictures)
        given = len(self.header.variances) == len(GRID) + spec.channels
        if len(coded.over.errors) != spec.channels or (spec.variances and not given):
            raise Corrupt("the base's trajectory does not fit the prior")
        latent = self.prior.encode(self.padded(gop, pictures))
        again = self.prior_pictures(latent, pictures.shape) if coded.over.difference else None
        return Base(pictures, self.soft(latent, coded.over), again)

    def base_pictures(self, gop: Gop, coded: BaseRecord) -> Iterator[Pictures]:
        """The pictures [H,W,3] of a GOP's base, restored if it says so. Raises Corrupt, as soon as
        what is wrong with it is met."""
        h, w = self.header.height, self.header.width
        if not coded.restored or self.restorer is None:
            return bases.decode(coded, h, w, gop.frames)
        small = bases.small(coded, h, w, gop.frames)
        noise = AnchoredNoise(self.header.seed, gop.start, coded.size)
        lost = texture.read(coded.texture, levels_shape(gop.frames, h, w))
        return restore.restored(small, coded, h, w, noise, lost, self.restorer)

    def soft(self, latent: Tensor, over: Over) -> SoftBase:
        """What the prior is told of a base whose pictures have this latent."""
        errors = torch.tensor([variance(c) for c in over.errors], device=latent.device)
        variances = self.prior.variances(tuple(latent.shape[1:]), self.header.variances)
        return SoftBase(latent, errors, over.start / START_UNIT, variances)

    def padded(self, gop: Gop, pictures: Pictures) -> Tensor:
        """The pictures that a GOP is coded as."""
        spec = self.prior.spec
        return pad(pictures, gop.length(spec.stride[0], spec.last_alone), spec.multiple)

    def after(self, gop: Gop, given: Given, made: Pictures) -> Left:
        """What a GOP leaves to the next: `made` are its pictures [frames,H,W,3]."""
        return Left(made[-self.context :], given.last, not gop.last)

    def after_lost(self, record: GopRecord | None) -> Left:
        """What a GOP leaves that is not decoded: no more than the still at its end, and not even
        that if its record cannot be read (None)."""
        if record is not None and record.gop.last:
            with suppress(FormatError):
                return Left(None, self._still(record.stills[-1]))
        return Left(still_lost=True)

    def _still(self, coded: bytes) -> Pictures | None:
        size = self.header.height, self.header.width
        return stills.decode(coded, *size) if coded else None

    def condition(self, gop: Gop, given: Given) -> Condition:
        """The prior's condition on the pictures given for a GOP."""
        multiple = self.prior.spec.multiple
        first, last, base = given
        return self.prior.condition(
            priors.References(
                None if first is None else pad(first, len(first), multiple),
                None if last is None else pad(last[None], 1, multiple)[0],
                None if base is None else base.soft,
                gop.outside,
            ),
            self.shape(gop)[1],
        )

    def corrected(self, latent: Tensor, coded: bytes) -> Tensor:
        """The latent with a coded residual added to its last frame."""
        if not coded:
            return latent
        c, _, h, w = latent.shape
        latent = latent.clone()
        kind = plain_residual if self.header.plain_residual else residual
        latent[:, -1:] += kind.decode(coded, (c, 1, h, w)).to(latent.device)
        return latent

    def render(self, record: GopRecord, latent: Tensor, base: Base | None = None) -> Pictures:
        """The pictures of a GOP, cut to its true size: uint8 [frames,H,W,3]; `base` is its own, if
        it has one.

        Where its last still is given, its last frame comes twice, at its place and as the latent
        frame of the still alone, and the (rounded) mean is shown: half of the step from one GOP to
        the next is taken before the boundary (bench/systems/modes.py).
        """
        if base is not None:
            return self._over(latent, base)
        height, width = self.header.height, self.header.width
        pixels = self.prior.decode(self.prior.spec.own(latent, height, width))[:, :height, :width]
        out: Pictures = pixels[: record.gop.frames].cpu().numpy()
        if record.gop.last and record.stills[-1]:
            still = pixels[-1].cpu().numpy().astype(np.uint16)
            out[-1] = (out[-1] + still + 1) >> 1
        return out

    def _over(self, latent: Tensor, base: Base) -> Pictures:
        """The pictures of a GOP with a base: the base's own, the latent's, or the base's and by how
        much the latent's differ from those of the base's latent."""
        if base.soft is None:
            return base.pictures
        made = self.prior_pictures(latent, base.pictures.shape)
        if base.again is not None:
            made = made - base.again
            made += torch.from_numpy(base.pictures).to(made.device) / 127.5 - 1
        out: Pictures = levels(made).cpu().numpy()
        return out

    @torch.inference_mode()
    def prior_pictures(self, latent: Tensor, shape: tuple[int, ...]) -> Tensor:
        """The prior's pictures of a latent before they are rounded, cut to `shape` [n,H,W,3]."""
        n, h, w, _ = shape
        return self.prior.render(self.prior.spec.own(latent, h, w))[:n, :h, :w]
