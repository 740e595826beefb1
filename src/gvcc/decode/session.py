"""What encoder and decoder do alike for each GOP: references, condition, residual, pictures."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor

from gvcc.decode import residual
from gvcc.decode.trajectory import Coder, Shape, make_coder
from gvcc.errors import Corrupt, MediaError
from gvcc.format.bitstream import GopRecord, Header
from gvcc.format.gop import Gop, Pictures
from gvcc.pictures import stills
from gvcc.priors import Condition, Prior, devices


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


class Window:
    """The frames of a clip that one GOP needs, read in order; nothing behind them is kept."""

    def __init__(self, pictures: Iterator[Pictures]) -> None:
        self._pictures, self._start = pictures, 0
        self._held: list[Pictures] = []

    def take(self, gop: Gop) -> Pictures:
        """The GOP's frames [n,H,W,3]; no earlier frame can be had any more.

        Raises MediaError if the clip ends before them.
        """
        gone = gop.start - self._start
        for _ in range(gone - len(self._held)):  # of GOPs that were not asked for
            next(self._pictures, None)
        del self._held[:gone]
        self._start = gop.start
        while len(self._held) < gop.frames:
            try:
                self._held.append(next(self._pictures))
            except StopIteration:
                at = self._start + len(self._held)
                raise MediaError(f"the clip ends at frame {at}, before it should") from None
        return np.stack(self._held[: gop.frames])


class Session:
    """A stream under way: its header, its prior, and the pictures that the next GOP may refer to.

    `recent` are the last decoded pictures [n,H,W,3], as many as a GOP may start from, None if they
    are lost; `still` the last still at the end of a GOP, None if it is empty.
    """

    def __init__(self, header: Header, prior: Prior) -> None:
        devices.ready(prior.device)  # the prior may be anybody's, and the coder computes there
        self.header, self.prior = header, prior
        self.recent: Pictures | None = None
        self.still: Pictures | None = None
        self._still_lost = False
        self._context = header.overlap if header.alignment == "pin" else 1
        self._waiting: tuple[GopRecord, Tensor] | None = None  # to be blended with the next GOP

    @property
    def state(self) -> tuple[Pictures | None, Pictures | None, bool]:
        """What the next GOP may refer to; may be set to go back."""
        return self.recent, self.still, self._still_lost

    @state.setter
    def state(self, state: tuple[Pictures | None, Pictures | None, bool]) -> None:
        self.recent, self.still, self._still_lost = state

    def lose(self, record: bool) -> None:
        """The GOP now due is not decoded: what refers to its last picture is lost, and, if its
        record cannot be read at all, what refers to its last still."""
        self.recent = None
        self._still_lost |= record

    def keep_still(self, coded: bytes) -> None:
        """Decode no more of a GOP than the still at its end."""
        self.recent, self._still_lost = None, False
        self.still = stills.decode(coded, *self._size) if coded else None

    @property
    def _size(self) -> tuple[int, int]:
        return self.header.height, self.header.width

    def shape(self, gop: Gop) -> Shape:
        """[C,F,h,w] of a GOP's latent."""
        spec = self.prior.spec
        frames = gop.latent_frames(spec.stride[0], spec.last_alone)
        return spec.channels, frames, *spec.latent_sides(self.header.height, self.header.width)

    def coder(self) -> Coder:
        """The stream's coder."""
        c, _, h, w = self.shape(Gop(0, 1))
        return make_coder(self.header, c * h * w, self.prior.device)

    def references(self, gop: Gop, coded: Sequence[bytes]) -> list[Pictures | None]:
        """First pictures [n,H,W,3] and last one [H,W,3] that condition a GOP, given the stills in
        its record.

        None: there is none, or its still is empty. Raises Corrupt for a still that is none, or if
        the GOP needs a picture that is lost.
        """
        missing = gop.first == "previous" and self.recent is None
        missing |= gop.first == "shared" and self._still_lost
        shared = None if self.still is None else self.still[None]
        before = {"previous": self.recent, "shared": shared}.get(gop.first)
        self._still_lost = True  # until this GOP's own is there
        own = [stills.decode(data, *self._size) if data else None for data in coded]
        if gop.last:  # readable even where the pictures before it are not
            self.still, self._still_lost = own[-1], False
        if missing:
            raise Corrupt("it depends on the GOP before, which is lost")
        if gop.first == "still" and (still := own[0]) is not None:
            before = still[None]
        return [before, own[-1] if gop.last else None]

    def condition(self, gop: Gop, pictures: Sequence[Pictures | None]) -> Condition:
        """The prior's condition on a GOP's first pictures and its last one."""
        multiple = self.prior.spec.multiple
        first, last = pictures
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

    def show(self, record: GopRecord, latent: Tensor) -> Pictures:
        """The pictures of a GOP, cut to its true size: uint8 [frames,H,W,3].

        Where its last still is given, its last frame comes twice, at its place and as the latent
        frame of the still alone, and the (rounded) mean is shown: half of the step from one GOP to
        the next is taken before the boundary (bench/systems/modes.py).
        """
        out = self.render(record, latent)
        self.recent = out[-self._context :]
        return out

    def render(self, record: GopRecord, latent: Tensor) -> Pictures:
        """As `show`, but what the next GOP may refer to stays as it is."""
        pixels = self.prior.decode(latent)[:, : self.header.height, : self.header.width]
        out: Pictures = pixels[: record.gop.frames].cpu().numpy()
        if record.gop.last and record.stills[-1]:
            still = pixels[-1].cpu().numpy().astype(np.uint16)
            out[-1] = (out[-1] + still + 1) >> 1
        return out

    def join(self, record: GopRecord, latent: Tensor) -> Iterator[tuple[Gop, Pictures]]:
        """Take the next GOP's latent; yields each GOP whose pictures no later one will change."""
        if self.header.alignment != "blend":
            yield record.gop, self.show(record, latent)
            return
        if self._waiting is not None and record.gop.fade:
            before, own = self._waiting
            own, latent = blend(own, latent, (record.gop.fade - 1) // self.prior.spec.stride[0])
            self._waiting = before, own
        yield from self.flush()
        self._waiting = record, latent

    def flush(self) -> Iterator[tuple[Gop, Pictures]]:
        """The GOP that waits to be blended with another one, if there is one, as it is."""
        if self._waiting is not None:
            record, latent = self._waiting
            self._waiting = None
            yield record.gop, self.show(record, latent)


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
