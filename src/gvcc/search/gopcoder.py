"""Codes one GOP in one way: stills, the pass along the trajectory, where it stops, the residual."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from typing import NamedTuple

import numpy as np
import torch
from torch import Tensor

from gvcc import flow
from gvcc.decode import plain_residual, residual
from gvcc.decode import trajectory as track
from gvcc.decode.gops import Decoded
from gvcc.decode.session import Base, Given, Left, Session
from gvcc.decode.times import uniform_counts
from gvcc.format import bitstream
from gvcc.format.bitstream import GopRecord
from gvcc.format.gop import Gop
from gvcc.pictures import stills
from gvcc.records import Clip, Pictures
from gvcc.search import allocation
from gvcc.search.config import Parameters
from gvcc.search.overbase import OverBase
from gvcc.search.pacer import Allotment, Grant, Pacer
from gvcc.search.quality import Surrogate
from gvcc.search.steer import Aim
from gvcc.search.stops import Pass, Stop, reach


class Candidate(NamedTuple):
    """A GOP coded in one way: squared latent error of the frames shown, and what comes of it."""

    record: GopRecord
    latent: Tensor
    given: Given
    error: float = 0.0
    quality: float | None = None


class GopCoder:
    """Codes one GOP after another; keeps what quality control learns on the way."""

    def __init__(self, session: Session, parameters: Parameters, pacer: Pacer, clip: Clip) -> None:
        self.session, self.parameters, self.pacer, self.clip = session, parameters, pacer, clip
        self.metric = session.prior.spec.metric if parameters.metric else None
        self.coder = session.coder()
        self.bases = OverBase(session, parameters, pacer)
        self.surrogate = Surrogate()
        self.reached: tuple[Stop, float] | None = None  # where the GOP before stopped

    def code(self, i: int, g: Gop, frames: Pictures, before: Left,
             observe: Callable[[int, int], None]) -> Candidate:  # fmt: skip
        """GOP number i coded as `g`, after what the one before left. Raises Refused where there is
        no base that fits."""
        session, header, grant = self.session, self.session.header, self.pacer.grant(i, g)
        if g.base and self.parameters.base_share == 1:
            return self._alone(i, g, frames, grant, observe)
        own = session.prior.encode(session.padded(g, frames))
        if g.base:
            share = self.parameters.base_share
            record, pictures, _ = self.bases.code(i, g, frames, grant, share)
            record, given = self.bases.go_on(record, pictures, frames, own)
        else:
            record = bitstream.empty_gop(g, _stills(g, frames, grant))
            given = session.given(g, record.stills, before)
        condition = session.condition(g, given)
        x0 = _fixed(own, condition.known)
        free = track.free_of(condition.known, x0.shape[1])
        room = None if grant.record is None else grant.record - bitstream.gop_size(record)
        allotment = self.pacer.allot(i, g, room, len(free))
        atoms = allotment.atoms, allotment.tail_atoms
        coded = Pass(
            condition, header, i, session.shape(g), self.coder,
            Aim(x0, self.metric, allotment.budget), free, allotment.stop,
            uniform_counts(*atoms, allotment.stop, len(free)), observe,
        )  # fmt: skip
        stop, quality = self._stop(g, frames, record, given, coded, allotment)
        goal = self.parameters.goal
        if g.base and goal and quality is not None and quality < goal.value - goal.tolerance:
            # No trajectory over so small a base is as good as a base alone can be.
            return self._alone(i, g, frames, grant, observe)
        symbols, x = coded.symbols(stop), coded.latent(stop)
        record = replace(record, stop=stop.step, fraction=stop.fraction, symbols=symbols,
                         atoms=atoms[0], tail_atoms=atoms[1])  # fmt: skip
        if stop.step + (stop.fraction > 0) < coded.deepest:
            observe(header.steps - 1, len(symbols))  # whatever it took, this GOP is done
        if header.plain_residual:
            correction = plain_residual.encode((x0 - x)[:, -1:])
        else:
            size = bitstream.gop_size(record)
            left = self.pacer.residual_room(g, grant.record, size, len(symbols))
            correction = self._residual(g, frames, x0, x, left) if left >= _LEAST else b""
        x = session.corrected(x, correction)
        record = replace(record, check=track.check(x, header, i), residual=correction)
        error = _error(own - x, g, session.prior.spec.stride[0])
        return Candidate(record, x, given, error, quality)

    def _alone(self, i: int, g: Gop, frames: Pictures, grant: Grant,
               observe: Callable[[int, int], None]) -> Candidate:  # fmt: skip
        """GOP number i as a base and nothing else."""
        record, pictures, quality = self.bases.code(i, g, frames, grant, 1)
        observe(self.session.header.steps - 1, 0)
        return Candidate(record, torch.empty(0), Given(base=Base(pictures)), quality=quality)

    def seen(self, made: Candidate, frames: Pictures) -> float:
        """Squared error of the pictures that a GOP shows, on the scale -1 to 1."""
        skip, record = made.record.gop.skip, made.record
        shown = self.session.render(record, made.latent, made.given.base)[skip:]
        off = shown.astype(np.float32) - frames[skip : skip + len(shown)]
        return float(np.square(off, dtype=np.float64).sum()) / 127.5**2

    def recall(self, record: GopRecord, decoded: Decoded, frames: Pictures) -> Candidate:
        """A GOP that was coded before. With a goal its quality is measured, for the GOPs after
        it; the probes that led there are gone, so these may stop elsewhere than without the break.
        """
        goal, g, bits = self.parameters.goal, record.gop, 8 * len(record.symbols)
        if goal is None:
            return Candidate(record, *decoded)
        wanted = frames[g.skip :]
        shown = self.session.render(record, decoded.latent, decoded.given.base)[g.skip :]
        quality = goal.measure(wanted, shown, self.clip.fps)
        self.surrogate.add(bits / wanted[..., 0].size, quality)
        self.surrogate.next_gop()
        self.reached = Stop(record.stop, record.fraction, bits), quality
        return Candidate(record, *decoded, quality=quality)

    def _stop(
        self, g: Gop, frames: Pictures, record: GopRecord, given: Given, coded: Pass,
        allotment: Allotment,
    ) -> tuple[Stop, float | None]:  # fmt: skip
        """Where a GOP stops: at its last coded step, where the user says, at its bits, or at the
        goal's quality."""
        if not coded.deepest:
            return coded.stop(0, 0), None
        if (goal := self.parameters.goal) is None:
            if allotment.bits is None:
                return coded.stop(self.parameters.asked.stop or coded.deepest, 0), None
            return coded.within(allotment.bits), None
        wanted = frames[g.skip :]

        def probe(stop: Stop) -> float:
            shown = self.session.render(record, coded.latent(stop), given.base)[g.skip :]
            return goal.measure(wanted, shown, self.clip.fps)

        pixels = wanted[..., 0].size
        self.reached = reach(coded, goal, self.surrogate, pixels, probe, self.reached)
        return self.reached

    def _residual(self, g: Gop, frames: Pictures, x0: Tensor, x: Tensor, size: int) -> bytes:
        """What takes the last latent frame of x nearer to the clip's last pictures."""
        prior = self.session.prior
        if x.shape[1] > 1 and prior.spec.refine:
            pictures = self.session.padded(g, frames)[-prior.spec.stride[0] :]
            # Earlier frames hardly reach the last ones through the autoencoder.
            target = residual.refine(prior.render, x[:, -3:], x0[:, -1:], pictures)
            return residual.encode(target - x[:, -1:], size)[0]
        return residual.encode((x0 - x)[:, -1:], size)[0]


_LEAST = 40  # bytes; in fewer no residual says anything useful


def profile(
    session: Session, parameters: Parameters, i: int, g: Gop, frames: Pictures
) -> allocation.Profile:
    """What a GOP asks for, conditioned on the clip's own pictures."""
    prior = session.prior
    first = frames[: max(1, g.skip)] if g.first != "none" else None
    condition = session.condition(g, Given(first, frames[-1] if g.last else None))
    x0 = _fixed(prior.encode(session.padded(g, frames)), condition.known)
    free = track.free_of(condition.known, x0.shape[1])
    eps = session.coder().initial(session.shape(g), i)
    metric = prior.spec.metric if parameters.metric else None
    path = flow.PATHS[session.header.path]
    return allocation.profile(condition.denoise, path, x0, eps, metric, free)


def _stills(g: Gop, frames: Pictures, grant: Grant) -> tuple[bytes, ...]:
    """A GOP's coded stills; an empty one where none fits the grant."""
    ends = ([frames[0]] if g.first == "still" else []) + ([frames[-1]] if g.last else [])
    out: list[bytes] = []
    empty = bitstream.gop_size(bitstream.empty_gop(g))
    for picture in ends:
        size = grant.still
        if grant.record is not None:  # 5: lengths may grow
            size = min(size, grant.record - empty - sum(map(len, out)) - 5)
        data = stills.encode(picture, size)
        out.append(data if grant.record is None or len(data) <= size else b"")
    return tuple(out)


def _fixed(latent: Tensor, known: dict[int, Tensor]) -> Tensor:
    """The latent to steer to: that of the clip, and what the condition fixes."""
    out = latent.clone()
    for f, y in known.items():
        out[:, f] = y
    return out


def _error(off: Tensor, g: Gop, stride: int) -> float:
    """Squared latent error of the frames that a GOP shows: an isometric latent frame spreads its
    error evenly over its `stride` frames, and the first one's is scaled up by as much."""
    per_frame = (off**2).sum((0, 2, 3)).tolist()
    total = 0.0
    for f, e in enumerate(per_frame):
        begin, end = (0, 1) if f == 0 else (1 + stride * (f - 1), 1 + stride * f)
        total += e * max(0, min(end, g.frames) - max(begin, g.skip)) / stride
    return total
