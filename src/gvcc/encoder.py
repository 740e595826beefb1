"""encode: a clip, GOP by GOP, to the pieces of a stream. decoder.py makes the same calls."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, replace
from typing import NamedTuple

import numpy as np
from torch import Tensor

from gvcc import flow, priors
from gvcc.decode import residual
from gvcc.decode import trajectory as track
from gvcc.decode.assemble import Assembler
from gvcc.decode.session import Event, Given, Progress, References, Session, pad
from gvcc.decode.times import times, uniform_counts
from gvcc.decoder import Decoded, decode_record
from gvcc.errors import ConfigError, FormatError
from gvcc.format import bitstream, schedules
from gvcc.format.bitstream import GopRecord, Header, Limits
from gvcc.format.gop import Gop
from gvcc.format.parser import Coded
from gvcc.pictures import stills
from gvcc.priors import Prior, devices
from gvcc.records import Clip, Pictures
from gvcc.search import allocation, plan, resume, scenes
from gvcc.search.config import EncodeConfig, Parameters
from gvcc.search.frames import Window
from gvcc.search.pacer import Allotment, Grant, Pacer
from gvcc.search.quality import Surrogate
from gvcc.search.resume import Begun
from gvcc.search.steer import Aim
from gvcc.search.stops import Pass, Stop, reach


@dataclass(frozen=True)
class Part:
    """The next bytes of a stream, and the pictures [n,H,W,3] that a decoder shows by them. With a
    target quality `quality` is what the GOP has of it. `proof` (none of audio) is a line to keep
    for resume.Begun."""

    data: bytes
    pictures: Pictures | None = None
    quality: float | None = None
    proof: str | None = None


@dataclass(frozen=True)
class Encoding:
    """An encoded clip: the file, and the pictures a decoder will make of it [T,H,W,3]."""

    data: bytes
    frames: Pictures


def encode(clip: Clip, config: EncodeConfig | None = None, prior: Prior | None = None,
           progress: Progress | None = None) -> Encoding:  # fmt: skip
    """Encode a clip in memory; see `encode_parts`."""
    parts = list(encode_parts(clip, config, prior, progress))
    shown = [p.pictures for p in parts if p.pictures is not None]
    return Encoding(b"".join(p.data for p in parts), np.concatenate(shown))


def encode_parts(
    clip: Clip, config: EncodeConfig | None = None, prior: Prior | None = None,
    progress: Progress | None = None, begun: Begun | None = None,
) -> Iterator[Part]:  # fmt: skip
    """Encode a clip of at least one frame of at least 16x16, a part for the header and for each
    GOP; memory does not depend on the clip's length. The clip is read once more for each first
    look that mode and target ask for.

    `prior` is one that is loaded, in the place of config.prior, and where it is the work is done,
    whatever config.device says. `begun` is the beginning of the same encoding: its
    whole GOPs are decoded instead of coded again (with a target quality later GOPs may then stop
    elsewhere than they would have). Raises ConfigError for settings out of range or the beginning
    of another encoding, and TargetUnreachable, with the smallest possible size, for a target below
    it.
    """
    return devices.exactly(_Encoder(clip, config or EncodeConfig(), prior, progress).parts(begun))


class _Encoder:
    """One encoding: what it is to be, its first look at the clip, and the GOPs one after another.

    `draft` is the header but for the shift that the first look finds.
    """

    def __init__(self, clip: Clip, config: EncodeConfig, prior: Prior | None,
                 progress: Progress | None) -> None:  # fmt: skip
        self.clip, self.progress = clip, progress
        devices.check_name(config.device)
        self.prior = prior or priors.load(
            config.prior, config.device, config.settings, config.offload
        )
        spec = self.prior.spec
        self.parameters = p = config.resolved(spec, clip.height)
        self.draft = _header(clip, p, self.prior)
        cut = config.cuts and p.mode != "t2v"
        self.gops = list(plan.plan(
            clip.count, self.draft.gop, spec.stride[0], p.mode, overlap=self.draft.overlap,
            refresh=config.refresh, alignment=p.alignment,
            cuts=scenes.cuts(clip.pictures()) if cut else (),
        ))  # fmt: skip
        self.audio = clip.audio if self.draft.audio else None
        cost = Session(self.draft, self.prior).coder().bits
        self.pacer = Pacer(self.draft, p, self.gops, self.audio, spec, cost)
        self.written = 0

    def parts(self, begun: Begun | None) -> Iterator[Part]:
        header, slopes = self._look()
        head = bitstream.write_header(header)
        proof = resume.of_header(header, self.parameters.asked, self.clip)
        done: Iterator[Coded] = iter(())
        if begun is not None:
            own = Window(self.clip.pictures())
            done = resume.whole(begun, head, proof, lambda i: own.take(self.gops[i]))
        yield self._counted(Part(head, proof=proof))
        if self.audio is not None:
            yield self._counted(Part(bitstream.write_audio(self.audio, head)))
        session = Session(header, self.prior)
        coder = _GopCoder(session, self.parameters, self.pacer, self.clip)
        assembler = Assembler(header, self.prior.spec.stride[0], session.render)
        window, before, left = Window(self.clip.pictures()), None, References()
        for i, planned in enumerate(self.gops):
            auto = self.parameters.mode == "auto"
            options = plan.variants(planned, before) if auto else (planned,)
            frames = window.take(planned)
            if coded := next(done, None):
                best = self._again(coder, coded, options, frames, left)
            else:
                best = self._best(coder, i, options, frames, left, slopes[i])
            data = bitstream.write_gop(best.record, i + header.audio, head)
            self.pacer.spent(len(data))
            shown, before = assembler.add(best.record, best.latent), best.record.gop
            left = session.after(before, best.given, assembler.made)
            if i + 1 == len(self.gops):
                shown = np.concatenate([shown, assembler.finish()])
            yield self._counted(Part(data, shown, best.quality, resume.of_pictures(frames)))

    def _look(self) -> tuple[Header, list[float]]:
        """The header, and what a bit is worth in each GOP (-dD/dR): a first look at every GOP,
        where the target or the choice of modes needs one."""
        header, gops = self.draft, self.gops
        paced = header.allocation == "matched" and self.pacer.left is not None
        if not paced and self.parameters.mode != "auto":
            return header, [0.0] * len(gops)
        session, window = Session(header, self.prior), Window(self.clip.pictures())
        profiles = []
        for i, g in enumerate(gops):
            profiles.append(_profile(session, self.parameters, i, g, window.take(g)))
            self._tell(i, 1, 1, "measure")
        if paced:
            header = self.pacer.solve(header, profiles)
        path, stop = flow.PATHS[header.path], header.steps - header.tail
        end = times(header, stop)[stop]
        return header, [profile.slope(path, end) for profile in profiles]

    def _best(
        self, coder: _GopCoder, i: int, options: Sequence[Gop], frames: Pictures,
        before: References, slope: float,
    ) -> _Candidate:  # fmt: skip
        """The cheapest of several ways to code a GOP, by Lagrangian cost D + lambda R."""
        steps, made = self.draft.steps, []
        for n, g in enumerate(options):

            def observe(step: int, symbols: int, n: int = n) -> None:
                self._tell(i, n * steps + step + 1, len(options) * steps, "code", symbols)

            made.append(coder.code(i, g, frames[g.start - self.gops[i].start :], before, observe))
        costs = [c.error + slope * 8 * bitstream.gop_size(c.record) for c in made]
        return made[costs.index(min(costs))]

    def _again(
        self, coder: _GopCoder, coded: Coded, options: Sequence[Gop], frames: Pictures,
        before: References,
    ) -> _Candidate:  # fmt: skip
        """A GOP that was coded before the encoding broke off."""
        record = coded.record(self.draft)
        if record.gop not in options:
            raise ConfigError("the unfinished file's GOPs are cut in another way")
        decoded = decode_record(coder.session, coded.index, record, before, lambda step, _: (
            self._tell(coded.index, step + 1, self.draft.steps, "code")))  # fmt: skip
        return coder.recall(record, decoded, frames)

    def _counted(self, part: Part) -> Part:
        self.written += len(part.data)
        return part

    def _tell(self, i: int, step: int, steps: int, stage: str, symbols: int = 0) -> None:
        if self.progress is not None:
            size = self.written + symbols
            self.progress(Event(i, len(self.gops), step, steps, size, None, stage))


class _Candidate(NamedTuple):
    """A GOP coded in one way: squared latent error of the frames shown, and what comes of it."""

    record: GopRecord
    latent: Tensor
    given: Given
    error: float = 0.0
    quality: float | None = None


class _GopCoder:
    """Codes one GOP after another; keeps what quality control learns on the way."""

    def __init__(self, session: Session, parameters: Parameters, pacer: Pacer, clip: Clip) -> None:
        self.session, self.parameters, self.pacer, self.clip = session, parameters, pacer, clip
        self.metric = session.prior.spec.metric if parameters.metric else None
        self.coder = session.coder()
        self.surrogate = Surrogate()
        self.reached: tuple[Stop, float] | None = None  # where the GOP before stopped

    def code(self, i: int, g: Gop, frames: Pictures, before: References,
             observe: Callable[[int, int], None]) -> _Candidate:  # fmt: skip
        """GOP number i coded as `g`, after what the one before left."""
        session, header, grant = self.session, self.session.header, self.pacer.grant(i, g)
        record = bitstream.empty_gop(g, _stills(g, frames, grant))
        given = session.given(g, record.stills, before)
        condition = session.condition(g, given)
        own = session.prior.encode(_padded(session.prior, g, frames))
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
        stop, quality = self._stop(g, frames, record, coded, allotment)
        symbols, x = coded.symbols(stop), coded.latent(stop)
        record = replace(record, stop=stop.step, part=stop.part, symbols=symbols,
                         atoms=atoms[0], tail_atoms=atoms[1])  # fmt: skip
        if stop.step + (stop.part > 0) < coded.deepest:
            observe(header.steps - 1, len(symbols))  # whatever it took, this GOP is done
        left = self.pacer.residual_room(g, grant.record, bitstream.gop_size(record), len(symbols))
        correction = self._residual(g, frames, x0, x, left) if left >= _LEAST else b""
        x = session.corrected(x, correction)
        record = replace(record, check=track.check(x, header, i), residual=correction)
        error = _error(own - x, g, session.prior.spec.stride[0])
        return _Candidate(record, x, given, error, quality)

    def recall(self, record: GopRecord, decoded: Decoded, frames: Pictures) -> _Candidate:
        """A GOP that has been coded before. With a goal its quality is measured, for the GOPs after
        it; the probes that led there are gone, so these may stop elsewhere than without the break.
        """
        goal, g, bits = self.parameters.goal, record.gop, 8 * len(record.symbols)
        if goal is None:
            return _Candidate(record, *decoded)
        wanted = frames[g.skip :]
        shown = self.session.render(record, decoded.latent)[g.skip :]
        quality = goal.measure(wanted, shown, self.clip.fps)
        self.surrogate.add(bits / wanted[..., 0].size, quality)
        self.surrogate.next_gop()
        self.reached = Stop(record.stop, record.part, bits), quality
        return _Candidate(record, *decoded, quality=quality)

    def _stop(
        self, g: Gop, frames: Pictures, record: GopRecord, coded: Pass, allotment: Allotment
    ) -> tuple[Stop, float | None]:
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
            shown = self.session.render(record, coded.latent(stop))[g.skip :]
            return goal.measure(wanted, shown, self.clip.fps)

        pixels = wanted[..., 0].size
        self.reached = reach(coded, goal, self.surrogate, pixels, probe, self.reached)
        return self.reached

    def _residual(self, g: Gop, frames: Pictures, x0: Tensor, x: Tensor, size: int) -> bytes:
        """What takes the last latent frame of x nearer to the clip's last pictures."""
        prior = self.session.prior
        if x.shape[1] > 1 and prior.spec.refine:
            pictures = _padded(prior, g, frames)[-prior.spec.stride[0] :]
            # Earlier frames hardly reach the last ones through the autoencoder.
            target = residual.refine(prior.render, x[:, -3:], x0[:, -1:], pictures)
            return residual.encode(target - x[:, -1:], size)[0]
        return residual.encode((x0 - x)[:, -1:], size)[0]


_LEAST = 40  # bytes; in fewer no residual says anything useful


def _profile(
    session: Session, parameters: Parameters, i: int, g: Gop, frames: Pictures
) -> allocation.Profile:
    """What a GOP asks for, conditioned on the clip's own pictures."""
    prior = session.prior
    first = frames[: max(1, g.skip)] if g.first != "none" else None
    condition = session.condition(g, Given(first, frames[-1] if g.last else None))
    x0 = _fixed(prior.encode(_padded(prior, g, frames)), condition.known)
    free = track.free_of(condition.known, x0.shape[1])
    eps = session.coder().initial(session.shape(g), i)
    metric = prior.spec.metric if parameters.metric else None
    path = flow.PATHS[session.header.path]
    return allocation.profile(condition.denoise, path, x0, eps, metric, free)


def _padded(prior: Prior, g: Gop, frames: Pictures) -> Tensor:
    """The frames that a GOP is coded as."""
    spec = prior.spec
    return pad(frames, g.length(spec.stride[0], spec.last_alone), spec.multiple)


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


def _header(clip: Clip, p: Parameters, prior: Prior) -> Header:
    """The header of an encoding, its shift still to be solved if the preset leaves it open."""
    config, spec = p.asked, prior.spec
    coded = len(schedules.TABLES[spec.table - 1]) if p.table else 0
    if spec.modes and p.mode not in spec.modes:
        raise ConfigError(f"prior {spec.id} has no mode {p.mode}; it has {', '.join(spec.modes)}")
    if config.stop is not None and config.stop > coded:
        raise ConfigError(f"stop is {config.stop}, expected 1 to {coded}")
    length = config.gop or spec.gop
    shift = spec.published_shift(clip.height) if config.preset == "paper" else p.shift
    overlap = p.overlap
    if config.overlap is None and overlap > length // 2:  # as near to the usual as it goes
        overlap = (length // 2 - 1) // spec.stride[0] * spec.stride[0] + 1
    header = Header(
        prior=spec.id, digest=spec.digest, width=clip.width, height=clip.height,
        frames=clip.count, fps=clip.fps, colour=clip.colour, gop=length, overlap=overlap,
        path=spec.path, rule=p.rule, coder=p.coder, allocation=p.allocation,
        size=p.size, seed=p.seed, steps=coded + p.tail if p.steps is None else p.steps,
        tail=p.tail, shift=3.0 if shift is None else shift,
        g_scale=round(256 * p.g_scale) / 256,
        knob=round(64 * (config.knob or p.knob or spec.knob)) / 64, multistep=p.multistep,
        audio=config.audio and clip.audio is not None,
        table=spec.table if p.table else 0, alignment=p.alignment, reuse=config.reuse,
        settings=spec.settings, pixel_aspect=clip.pixel_aspect,
    )  # fmt: skip
    try:
        header.check(Limits())
    except FormatError as e:
        raise ConfigError(str(e)) from None
    return header
