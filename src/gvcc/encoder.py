"""encode: a clip, GOP by GOP, to the pieces of a stream. decoder.py makes the same calls."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from functools import partial

import numpy as np

from gvcc import flow, priors
from gvcc.decode.assemble import Assembler
from gvcc.decode.gops import base_pictures, decode_record
from gvcc.decode.session import Event, Left, Progress, Session
from gvcc.decode.times import times
from gvcc.errors import ConfigError, FormatError
from gvcc.format import bitstream, schedules
from gvcc.format.base import RestorerId
from gvcc.format.bitstream import KNOB_UNIT, Header, Limits
from gvcc.format.gop import Gop
from gvcc.format.parser import StoredGop
from gvcc.pictures.base import Refused
from gvcc.priors import Prior, Spec, devices, restorers
from gvcc.priors.restorers import Restoring
from gvcc.records import Clip, Pictures
from gvcc.search import bases, plan, resume, scenes
from gvcc.search.basecoder import BaseCoder, CodedBase
from gvcc.search.config import EncodeConfig, Parameters
from gvcc.search.frames import FrameWindow
from gvcc.search.gopcoder import Candidate, GopCoder, profile
from gvcc.search.pacer import Look, Pacer
from gvcc.search.resume import Begun

LONGEST_BASE = 10  # seconds of a GOP that is a base


@dataclass(frozen=True)
class Part:
    """The next bytes of a stream, and the pictures [n,H,W,3] that a decoder shows by them; of a GOP
    that is a base further pictures come in parts without bytes. With a target quality `quality` is
    what the GOP has of it. `proof` (none of audio, and of parts without bytes) is a line to keep
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
    progress: Progress | None = None, begun: Begun | None = None, shown: bool = True,
) -> Iterator[Part]:  # fmt: skip
    """Encode a clip of at least one frame of at least 16x16, a part for the header and for each
    GOP; memory does not depend on the clip's length. The clip is read once more for each first
    look that mode and target ask for.

    `prior` is one that is loaded, in the place of config.prior, and where it is the work is done,
    whatever config.device says. `begun` is the beginning of the same encoding: its
    whole GOPs are decoded instead of coded again (with a target quality later GOPs may then stop
    elsewhere than they would have). Without `shown` GOPs that are bases alone are not decoded and
    restored for Part.pictures. Raises ConfigError for settings out of range or the beginning of
    another encoding, and TargetUnreachable, with the smallest possible size, for a target below it.
    """
    encoder = _Encoder(clip, config or EncodeConfig(), prior, progress)
    return devices.exactly(encoder.parts(begun, shown))


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
        self.parameters = p = config.resolved(spec, clip.height, self.prior.device.type)
        self.restorer = None
        if p.restorer:
            knob = knob_of(p, spec)
            self.restorer = restorers.load(p.restorer, knob, str(self.prior.device))
        self.draft = _header(clip, p, self.prior, self.restorer)
        cut = p.cuts and p.mode != "t2v"
        self.gops = list(plan.plan(
            clip.count, self.draft.gop, 1 if p.only_base else spec.stride[0], p.mode,
            overlap=self.draft.overlap, refresh=config.refresh, alignment=p.alignment,
            outside=self.draft.outside,
            cuts=scenes.cuts(clip.pictures()) if cut else (),
        ))  # fmt: skip
        self.audio = clip.audio if self.draft.audio else None
        cost = Session(self.draft, self.prior).coder().bits
        self.pacer = Pacer(self.draft, p, self.gops, self.audio, spec, cost)
        self.written = 0

    def parts(self, begun: Begun | None, shown: bool) -> Iterator[Part]:
        header, slopes = self._look()
        head = bitstream.write_header(header)
        proof = resume.of_header(header, self.parameters.asked, self.clip)
        done: Iterator[StoredGop] = iter(())
        if begun is not None:
            own = FrameWindow(self.clip.pictures())
            take = own.each if self.parameters.only_base else own.take
            done = resume.whole(begun, head, proof, lambda i: take(self.gops[i]))
        yield self._counted(Part(head, proof=proof))
        if self.audio is not None:
            yield self._counted(Part(bitstream.write_audio(self.audio, head)))
        if self.parameters.only_base:
            yield from self._bases(header, head, done, shown)
            return
        session = Session(header, self.prior, self.restorer)
        coder = GopCoder(session, self.parameters, self.pacer, self.clip)
        if self.parameters.mode == "v2v":
            self._weigh(coder.bases.coder)
        assembler = Assembler(header, self.prior.spec.stride[0], session.render)
        window, before, left = FrameWindow(self.clip.pictures()), None, Left()
        for i, planned in enumerate(self.gops):
            auto = self.parameters.mode == "auto"
            options = plan.variants(planned, before, header.bases) if auto else (planned,)
            frames = window.take(planned)
            if coded := next(done, None):
                best = self._again(coder, coded, options, frames, left)
            else:
                best = self._best(coder, i, options, frames, left, slopes[i])
            if best.record.base is not None:
                coder.bases.coder.recall(best.record)
            data = bitstream.write_gop(best.record, i + header.audio, head)
            self.pacer.spent(len(data))
            made = assembler.add(best.record, best.latent, best.given.base)
            before = best.record.gop
            left = session.after(before, best.given, assembler.made)
            if i + 1 == len(self.gops):
                made = np.concatenate([made, assembler.finish()])
            yield self._counted(Part(data, made, best.quality, resume.of_pictures(frames)))

    def _bases(
        self, header: Header, head: bytes, done: Iterator[StoredGop], shown: bool
    ) -> Iterator[Part]:
        """The parts of a stream of bases; no more than a few pictures are held."""
        session = Session(header, self.prior, self.restorer)
        coder, window = BaseCoder(session, self.parameters), FrameWindow(self.clip.pictures())
        self._weigh(coder)
        for i, g in enumerate(self.gops):
            pictures, room = window.each(g), self.pacer.grant(i, g).record
            if coded := next(done, None):
                if coded.gop != g:
                    raise ConfigError("the unfinished file's GOPs are cut in another way")
                made = CodedBase(coded.record(header), None, resume.of_pictures(pictures))
            else:
                tell = partial(self._tell, i, steps=bases.MOST + 1, stage="code")
                found = coder.code(g, pictures, room, self.pacer.most(i), tell)
                assert found is not None  # the first look has seen that one fits
                made = found
            assert made.record.base is not None
            coder.recall(made.record)
            data = bitstream.write_gop(made.record, i + header.audio, head)
            self.pacer.spent(len(data))
            self._tell(i, bases.MOST + 1, bases.MOST + 1, "code", len(data))
            own = base_pictures(session, g, made.record.base) if shown else iter(())
            yield self._counted(Part(data, next(own, None), made.quality, made.digest))
            for more in own:
                yield Part(b"", more)

    def _weigh(self, coder: BaseCoder) -> None:
        """A first look at every GOP of a stream of bases, where there is a target."""
        if self.pacer.left is None:
            return
        own, looks = FrameWindow(self.clip.pictures()), list[Look]()
        for i, g in enumerate(self.gops):
            looks.append(coder.look(g, own.each(g)))
            self._tell(i, 1, 1, "measure")
        self.pacer.weigh(looks)

    def _look(self) -> tuple[Header, list[float]]:
        """The header, and what a bit is worth in each GOP (-dD/dR): a first look at every GOP,
        where the target or the choice of modes needs one."""
        header, gops = self.draft, self.gops
        if self.parameters.mode == "v2v":
            return header, [0.0] * len(gops)
        paced = header.allocation == "matched" and self.pacer.left is not None
        if not paced and self.parameters.mode != "auto":
            return header, [0.0] * len(gops)
        session, window = Session(header, self.prior), FrameWindow(self.clip.pictures())
        profiles = []
        for i, g in enumerate(gops):
            profiles.append(profile(session, self.parameters, i, g, window.take(g)))
            self._tell(i, 1, 1, "measure")
        if paced:
            header = self.pacer.solve(header, profiles)
        path, stop = flow.PATHS[header.path], header.steps - header.ode_steps
        end = times(header, stop)[stop]
        return header, [profile.slope(path, end) for profile in profiles]

    def _best(
        self, coder: GopCoder, i: int, options: Sequence[Gop], frames: Pictures,
        before: Left, slope: float,
    ) -> Candidate:  # fmt: skip
        """The cheapest of several ways to code a GOP, by Lagrangian cost D + lambda R: squared
        error of the pictures shown, and `slope`, which is of latents, scaled by what the two errors
        are to each other where there are both."""
        steps, made = self.draft.steps, list[Candidate]()
        for n, g in enumerate(options):

            def observe(step: int, symbols: int, n: int = n) -> None:
                # With a goal the pass goes further than what is kept of it.
                kept = symbols if self.parameters.goal is None else 0
                self._tell(i, n * steps + step + 1, len(options) * steps, "code", kept)

            try:
                own = frames[g.start - self.gops[i].start :]
                made.append(coder.code(i, g, own, before, observe))
            except Refused:
                if len(options) == 1:
                    raise
        if len(made) == 1:
            return made[0]
        seen = [coder.seen(c, frames[c.record.gop.start - self.gops[i].start :]) for c in made]
        both = [(s, c.error) for s, c in zip(seen, made, strict=True) if c.error]
        slope *= sum(s for s, _ in both) / max(sum(e for _, e in both), 1e-9)
        costs = [
            s + slope * 8 * bitstream.gop_size(c.record) for s, c in zip(seen, made, strict=True)
        ]
        return made[costs.index(min(costs))]

    def _again(
        self, coder: GopCoder, coded: StoredGop, options: Sequence[Gop], frames: Pictures,
        before: Left,
    ) -> Candidate:  # fmt: skip
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


def knob_of(p: Parameters, spec: Spec) -> float:
    """The knob that a file says: the prior's own is for its trajectories."""
    usual = 1.0 if p.restorer else spec.knob
    return round(KNOB_UNIT * (p.asked.knob or p.knob or usual)) / KNOB_UNIT


def _header(clip: Clip, p: Parameters, prior: Prior, restorer: Restoring | None = None) -> Header:
    """The header of an encoding, its shift still to be solved if the preset leaves it open."""
    config, spec = p.asked, prior.spec
    coded = len(schedules.SCHEDULES[spec.schedule - 1]) if p.scheduled else 0
    if spec.modes and p.mode not in (*spec.modes, "v2v"):
        raise ConfigError(f"prior {spec.id} has no mode {p.mode}; it has {', '.join(spec.modes)}")
    if config.reference == "before" and not spec.told:
        raise ConfigError(f"prior {spec.id} knows a picture only as one of its own frames: a "
                          "reference before the GOP is of no use to it")  # fmt: skip
    if config.stop is not None and config.stop > coded:
        raise ConfigError(f"stop is {config.stop}, expected 1 to {coded}")
    if p.only_base:  # not the generator's length: a keyframe costs what the mode gains
        seconds = min(2**10, max(1, round(LONGEST_BASE * clip.fps)))
        length = config.gop or min(seconds, clip.count)
    else:
        length = config.gop or spec.gop
    shift = spec.published_shift(clip.height) if config.preset == "paper" else p.shift
    overlap = p.overlap
    if config.overlap is None and overlap > length // 2:  # as near to the usual as it goes
        overlap = (length // 2 - 1) // spec.stride[0] * spec.stride[0] + 1
    header = Header(
        prior=spec.id, digest=spec.digest, width=clip.width, height=clip.height,
        frames=clip.count, fps=clip.fps, colour=clip.colour, gop=length, overlap=overlap,
        path=spec.path, rule=p.rule, coder=p.coder, allocation=p.allocation,
        codebook_size=p.codebook_size, seed=p.seed,
        steps=coded + p.ode_steps if p.steps is None else p.steps,
        ode_steps=p.ode_steps, shift=3.0 if shift is None else shift,
        g_scale=round(256 * p.g_scale) / 256,
        knob=knob_of(p, spec), multistep=p.multistep,
        audio=config.audio and clip.audio is not None,
        schedule=spec.schedule if p.scheduled else 0, alignment=p.alignment, reuse=config.reuse,
        settings=spec.settings, pixel_aspect=clip.pixel_aspect, bases=p.has_bases,
        variances=spec.variances if p.has_bases and p.base_share < 1 else (),
        restorer=None if restorer is None else RestorerId(restorer.name, restorer.digest),
        plain_residual=config.residual == "published", outside=config.reference == "before",
    )  # fmt: skip
    try:
        header.check(Limits())
    except FormatError as e:
        raise ConfigError(str(e)) from None
    return header
