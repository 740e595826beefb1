"""encode: a clip, GOP by GOP, to the pieces of a stream. decoder.py makes the same calls."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, replace

import numpy as np
from torch import Tensor

from gvcc import flow, priors
from gvcc.decode import residual
from gvcc.decode import trajectory as track
from gvcc.decode.session import Event, Progress, Session, Window, pad
from gvcc.decoder import decode_record
from gvcc.errors import ConfigError, FormatError
from gvcc.format import bitstream, gop, schedules
from gvcc.format.bitstream import GopRecord, Header, Limits
from gvcc.format.gop import Assembler, Gop, Pictures
from gvcc.format.parser import Coded
from gvcc.pictures import stills
from gvcc.priors import Condition, Prior, devices
from gvcc.records import Clip
from gvcc.search import allocation, resume, scenes
from gvcc.search.quality import Surrogate, goal
from gvcc.search.rate import Allotment, EncodeConfig, Grant, Pacer
from gvcc.search.resume import Begun
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


@dataclass(frozen=True)
class _Candidate:
    """A GOP coded in one way: squared latent error of the frames shown, and what comes of it."""

    record: GopRecord
    latent: Tensor
    error: float
    quality: float | None
    state: tuple[Pictures | None, Pictures | None, bool]


class _Encoder:
    def __init__(self, clip: Clip, config: EncodeConfig, prior: Prior | None,
                 progress: Progress | None) -> None:  # fmt: skip
        self.clip, self.progress = clip, progress
        devices.check_name(config.device)
        self.prior = prior or priors.load(
            config.prior, config.device, config.settings, config.offload
        )
        self.config = config = config.fitted(self.prior.spec, clip.height)
        p = config.parameters()
        self.metric = self.prior.spec.metric if p["metric"] else None
        self.header = _header(clip, config, self.prior)
        self.auto = p["mode"] == "auto"
        wants_cuts = config.cuts and p["mode"] != "t2v"
        self.plans = list(gop.plan(
            clip.count, self.header.gop, self.prior.spec.stride[0], p["mode"],
            overlap=self.header.overlap, refresh=config.refresh, alignment=p["alignment"],
            cuts=scenes.cuts(clip.pictures()) if wants_cuts else (),
        ))  # fmt: skip
        self.goal = None if config.quality is None else goal(config.quality)
        self.surrogate = Surrogate()
        self.reached: tuple[Stop, float] | None = None  # where the GOP before stopped
        self.audio = clip.audio if self.header.audio else None
        self.session = Session(self.header, self.prior)
        self.coder = self.session.coder()
        self.written = 0
        self.pacer = Pacer(self.header, config, self.plans, self.audio,
                           self.prior.spec, track.atom_bits(self.coder))  # fmt: skip
        self.slopes = [0.0] * len(self.plans)

    def _measure(self) -> None:
        """A first look at every GOP, where the target or the choice of modes needs one."""
        if not self.auto and (self.pacer.left is None or self.header.allocation == "uniform"):
            return
        window = Window(self.clip.pictures())
        profiles = [self._profile(i, g, window.take(g)) for i, g in enumerate(self.plans)]
        if self.header.allocation == "matched" and self.pacer.left is not None:
            self.header = self.session.header = self.pacer.solve(self.header, profiles)
        path, stop = flow.PATHS[self.header.path], self.header.steps - self.header.tail
        end = allocation.times(self.header, stop)[stop]
        self.slopes = [p.slope(path, end) for p in profiles]

    def _profile(self, i: int, g: Gop, frames: Pictures) -> allocation.Profile:
        """What a GOP asks for, conditioned on the clip's own pictures."""
        first = frames[: max(1, g.skip)] if g.first != "none" else None
        condition = self.session.condition(g, (first, frames[-1] if g.last else None))
        x0 = _fixed(self._latent(g, frames), condition.known)
        free = track.free_of(condition.known, x0.shape[1])
        eps = self.coder.initial(self.session.shape(g), i)
        out = allocation.profile(
            condition.denoise, flow.PATHS[self.header.path], x0, eps, self.metric, free
        )
        self._tell(i, 1, 1, "measure")
        return out

    def _latent(self, g: Gop, frames: Pictures) -> Tensor:
        """The clip's own latent of a GOP."""
        return self.prior.encode(self._padded(g, frames))

    def _padded(self, g: Gop, frames: Pictures) -> Tensor:
        """The frames that a GOP is coded as."""
        spec = self.prior.spec
        return pad(frames, g.length(spec.stride[0], spec.last_alone), spec.multiple)

    def _tell(self, i: int, step: int, steps: int, stage: str, symbols: int = 0) -> None:
        if self.progress is not None:
            size = self.written + symbols
            self.progress(Event(i, len(self.plans), step, steps, size, None, stage))

    def parts(self, begun: Begun | None) -> Iterator[Part]:
        self._measure()
        head = bitstream.write_header(self.header)
        proof = resume.of_header(self.header, self.config, self.clip)
        done: Iterator[Coded] = iter(())
        if begun is not None:
            own = Window(self.clip.pictures())
            done = resume.whole(begun, head, proof, lambda i: own.take(self.plans[i]))
        yield self._written(Part(head, proof=proof))
        if self.audio is not None:
            yield self._written(Part(bitstream.write_audio(self.audio, head)))
        window, assembler = Window(self.clip.pictures()), Assembler(self.header.overlap)
        before: Gop | None = None
        for i, planned in enumerate(self.plans):
            options = gop.variants(planned, before) if self.auto else (planned,)
            frames, quality = window.take(planned), None
            if coded := next(done, None):
                record, latent = self._again(coded, options)
                if self.goal is not None:
                    quality = self._recall(record, latent, frames)
            else:
                best = self._best(i, planned, options, frames)
                record, latent, quality = best.record, best.latent, best.quality
            data = bitstream.write_gop(record, i + self.header.audio, head)
            self.pacer.spent(len(data))
            ready, before = list(self.session.join(record, latent)), record.gop
            if i + 1 == len(self.plans):
                ready += self.session.flush()
            pictures = [assembler.add(g, shown) for g, shown in ready]
            if i + 1 == len(self.plans) and (held := assembler.flush()) is not None:
                pictures.append(held)
            none = np.empty((0, self.clip.height, self.clip.width, 3), np.uint8)
            shown = np.concatenate([none, *pictures])
            yield self._written(Part(data, shown, quality, resume.of_pictures(frames)))

    def _written(self, part: Part) -> Part:
        self.written += len(part.data)
        return part

    def _again(self, coded: Coded, options: Sequence[Gop]) -> tuple[GopRecord, Tensor]:
        record = coded.record(self.header)
        if record.gop not in options:
            raise ConfigError("the unfinished file's GOPs are cut in another way")
        latent = decode_record(self.session, coded.index, record, lambda step, _: self._tell(
            coded.index, step + 1, self.header.steps, "code"))  # fmt: skip
        return record, latent

    def _recall(self, record: GopRecord, latent: Tensor, frames: Pictures) -> float:
        """What a resumed GOP has of the goal, for the GOPs after it. The probes that led there are
        gone, so these may stop elsewhere than without the break."""
        assert self.goal is not None
        g, bits = record.gop, 8 * len(record.symbols)
        wanted = frames[g.skip :]
        shown = self.session.render(record, latent)[g.skip :]
        quality = self.goal.measure(wanted, shown, self.clip.fps)
        self.surrogate.add(bits / wanted[..., 0].size, quality)
        self.surrogate.next_gop()
        self.reached = Stop(record.stop, record.part, bits), quality
        return quality

    def _best(self, i: int, planned: Gop, options: Sequence[Gop], frames: Pictures) -> _Candidate:
        """The cheapest of several ways to code a GOP, by Lagrangian cost D + lambda R."""
        steps, made = self.header.steps, []
        for n, g in enumerate(options):

            def observe(step: int, symbols: int, n: int = n) -> None:
                self._tell(i, n * steps + step + 1, len(options) * steps, "code", symbols)

            made.append(self._code(i, g, frames[g.start - planned.start :], observe))
        costs = [c.error + self.slopes[i] * 8 * bitstream.gop_size(c.record) for c in made]
        best = made[costs.index(min(costs))]
        self.session.state = best.state
        return best

    def _code(self, i: int, g: Gop, frames: Pictures,
              observe: Callable[[int, int], None]) -> _Candidate:  # fmt: skip
        """A GOP coded in one way."""
        session, header, grant = self.session, self.header, self.pacer.grant(i, g)
        before = session.state
        ends = ([frames[0]] if g.first == "still" else []) + ([frames[-1]] if g.last else [])
        record = bitstream.empty_gop(g, self._stills(ends, grant, g))
        condition = session.condition(g, session.references(g, record.stills))
        own = self._latent(g, frames)
        x0 = _fixed(own, condition.known)
        free = track.free_of(condition.known, x0.shape[1])
        room = None if grant.record is None else grant.record - bitstream.gop_size(record)
        allotment = self.pacer.allot(i, g, room, len(free))
        aim = track.Aim(x0, self.metric, allotment.budget)
        quality = None
        if header.table and free:
            coded = Pass(condition, header, i, session.shape(g), self.coder, aim, free, observe)
            stop, quality = self._stop(g, frames, record, coded, allotment)
            record = replace(record, stop=stop.step, part=stop.part, symbols=coded.symbols(stop))
            x = coded.latent(stop)
            observe(header.steps - 1, len(record.symbols))  # whatever it took, this GOP is done
        else:
            record, x = self._whole(i, record, condition, aim, allotment, free, observe)
        left = self.pacer.residual_room(
            g, grant.record, bitstream.gop_size(record), len(record.symbols)
        )
        correction = self._residual(g, frames, x0, x, left) if left >= _LEAST else b""
        x = session.corrected(x, correction)
        record = replace(record, check=track.check(x, header, i), residual=correction)
        error = _error(own - x, g, self.prior.spec.stride[0])
        after, session.state = session.state, before
        return _Candidate(record, x, error, quality, after)

    def _whole(
        self, i: int, record: GopRecord, condition: Condition, aim: track.Aim,
        allotment: Allotment, free: Sequence[int], observe: Callable[[int, int], None],
    ) -> tuple[GopRecord, Tensor]:  # fmt: skip
        """A GOP whose number of coded steps is known: its record, with symbols, and its latent."""
        header, stop, shape = self.header, allotment.stop, self.session.shape(record.gop)
        scheme = track.make_scheme(
            self.coder, header, i, shape, free, stop, allotment.atoms, allotment.tail_atoms
        )
        noise = track.Choose(scheme, aim, stop)
        x = track.run(condition, header, i, shape, self.coder, allocation.times(header, stop),
                      noise, lambda step, _: observe(step, noise.writer.total // 8))  # fmt: skip
        record = replace(record, stop=stop, atoms=allotment.atoms, tail_atoms=allotment.tail_atoms,
                         symbols=noise.writer.finish())  # fmt: skip
        return record, x

    def _stop(
        self, g: Gop, frames: Pictures, record: GopRecord, coded: Pass, allotment: Allotment
    ) -> tuple[Stop, float | None]:
        """Where a GOP stops: at its bits, at the goal's quality, or where the user says."""
        if self.goal is None:
            if allotment.bits is None:
                return coded.stop(self.config.stop or coded.deepest, 0), None
            return coded.within(allotment.bits), None
        goal, wanted = self.goal, frames[g.skip :]

        def probe(stop: Stop) -> float:
            shown = self.session.render(record, coded.latent(stop))[g.skip :]
            return goal.measure(wanted, shown, self.clip.fps)

        pixels = wanted[..., 0].size
        self.reached = reach(coded, goal, self.surrogate, pixels, probe, self.reached)
        return self.reached

    def _residual(self, g: Gop, frames: Pictures, x0: Tensor, x: Tensor, size: int) -> bytes:
        """What takes the last latent frame of x nearer to the clip's last pictures."""
        if x.shape[1] > 1 and self.prior.spec.refine:
            pictures = self._padded(g, frames)[-self.prior.spec.stride[0] :]
            # Earlier frames hardly reach the last ones through the autoencoder.
            target = residual.refine(self.prior.render, x[:, -3:], x0[:, -1:], pictures)
            return residual.encode(target - x[:, -1:], size)[0]
        return residual.encode((x0 - x)[:, -1:], size)[0]

    def _stills(self, pictures: Sequence[Pictures], grant: Grant, g: Gop) -> tuple[bytes, ...]:
        """A GOP's coded stills; an empty one where none fits the grant."""
        out: list[bytes] = []
        empty = bitstream.gop_size(bitstream.empty_gop(g))
        for picture in pictures:
            size = grant.still
            if grant.record is not None:  # 5: lengths may grow
                size = min(size, grant.record - empty - sum(map(len, out)) - 5)
            data = stills.encode(picture, size)
            out.append(data if grant.record is None or len(data) <= size else b"")
        return tuple(out)


_LEAST = 40  # bytes; in fewer no residual says anything useful


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


def _header(clip: Clip, config: EncodeConfig, prior: Prior) -> Header:
    """The header of an encoding, its shift still to be solved if the preset leaves it open."""
    p, spec = config.parameters(), prior.spec
    coded = len(schedules.TABLES[spec.table - 1]) if p["table"] else 0
    if spec.modes and p["mode"] not in spec.modes:
        raise ConfigError(
            f"prior {spec.id} has no mode {p['mode']}; it has {', '.join(spec.modes)}"
        )
    if config.stop is not None and config.stop > coded:
        raise ConfigError(f"stop is {config.stop}, expected 1 to {coded}")
    length = config.gop or spec.gop
    shift = spec.published_shift(clip.height) if config.preset == "paper" else p["shift"]
    overlap = p["overlap"]
    if config.overlap is None and overlap > length // 2:  # as near to the usual as it goes
        overlap = (length // 2 - 1) // spec.stride[0] * spec.stride[0] + 1
    header = Header(
        prior=spec.id, digest=spec.digest, width=clip.width, height=clip.height,
        frames=clip.count, fps=clip.fps, colour=clip.colour, gop=length, overlap=overlap,
        path=spec.path, rule=p["rule"], coder=p["coder"], allocation=p["allocation"],
        size=p["size"], seed=p["seed"],
        steps=coded + p["tail"] if p["table"] else p["steps"],
        tail=p["tail"], shift=3.0 if shift is None else shift,
        g_scale=round(256 * p["g_scale"]) / 256,
        knob=round(64 * (config.knob or p["knob"] or spec.knob)) / 64, multistep=p["multistep"],
        audio=config.audio and clip.audio is not None,
        table=spec.table if p["table"] else 0, alignment=p["alignment"], reuse=config.reuse,
        settings=spec.settings, pixel_aspect=clip.pixel_aspect,
    )  # fmt: skip
    try:
        header.check(Limits())
    except FormatError as e:
        raise ConfigError(str(e)) from None
    return header
