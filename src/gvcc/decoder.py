"""decode: a stream, GOP by GOP, to pictures. encoder.py makes the same calls."""

from __future__ import annotations

import dataclasses
from collections.abc import Iterator
from contextlib import suppress
from fractions import Fraction
from io import BytesIO
from typing import BinaryIO

import numpy as np

from gvcc import priors
from gvcc.decode import trajectory as track
from gvcc.decode.assemble import Assembler
from gvcc.decode.gops import base_pictures, decode_record, stops
from gvcc.decode.session import Event, Given, Left, Progress, Session
from gvcc.decode.times import times
from gvcc.errors import (
    BadSetting,
    ConfigError,
    Corrupt,
    FormatError,
    PriorMismatch,
    TooLarge,
    Truncated,
    Unsupported,
)
from gvcc.format import gop, parser
from gvcc.format.bitstream import GopRecord, Header, Limits
from gvcc.format.gop import Gop
from gvcc.format.parser import LostAudio, StoredGop
from gvcc.priors import Prior, devices, restorers
from gvcc.priors.restorers import Restoring
from gvcc.records import Audio, Notice, Pictures, Video


class Decoder:
    """A stream as a clip (see media.Clip) that is decoded at each pass over `pictures`.

    `start` and `end` (None: the clip's) choose frames; only the GOPs they depend on are decoded.
    With `partial` a stream that breaks off ends the pictures after the last whole GOP, if there is
    one, and `cut` has the error, as it has that of bytes behind the last GOP. With `keep_going` so
    does a record whose head is damaged, and a damaged GOP and those that depend on it are concealed
    by the last picture before them; `damage` names them, and sound that is damaged and left out.
    Without `audio` there is none, and it may be damaged (a notice says so). `knob` in [1, 2]
    overrides the file's k (flow.ode_step). `stop` takes so many coded steps of a trajectory at the
    most, and the ODE from there: what a file that ends there would show, but for GOPs that start
    from decoded pictures; `stopped` says that there were more. `base_only` shows the GOPs' bases as
    they are, without what restores them. `prior` is one that is loaded, or the name (as of
    priors.load) of one to load on `device` with the file's settings; by default the one that the
    file names. A prior that is loaded stays where it is. `restorer` is a name as of
    restorers.load, for weights of one's own.

    Raises FormatError for bytes that are no stream, ConfigError for an illegal argument and
    PriorMismatch if the prior at hand is not the one the file was made with.
    """

    def __init__(
        self, file: BinaryIO, prior: Prior | str | None = None, device: str = "cpu",
        limits: Limits | None = None, progress: Progress | None = None, *, offload: bool = False,
        knob: float | None = None, start: int = 0, end: int | None = None,
        partial: bool = False, keep_going: bool = False, audio: bool = True,
        base_only: bool = False, restorer: str | None = None, stop: int | None = None,
    ) -> None:  # fmt: skip
        ranged = start > 0 or end is not None
        if ranged and not file.seekable():
            file = BytesIO(file.read())
        self._file, self._limits, self._progress = file, limits, progress
        self._origin = file.tell() if file.seekable() else None
        self._partial, self._keep_going, self._knob = partial, keep_going, knob
        self._base_only, self._stop = base_only, stop
        if stop is not None and not 0 <= stop <= 255:
            raise ConfigError(f"stop is {stop}, expected 0 to 255")
        reader = parser.StreamReader(file, limits)
        self._records: Iterator[StoredGop | Audio | LostAudio] | None = reader.records()
        header = reader.header
        devices.check_name(device)
        self.start, self.end = start, header.frames if end is None else end
        if not 0 <= self.start < self.end <= header.frames:
            if self.start >= header.frames:
                raise ConfigError(f"frame {self.start} is beyond the clip's {header.frames}")
            raise ConfigError(
                f"frames {self.start} to {self.end} are not within the clip's {header.frames}"
            )
        if knob is not None:
            if not 1 <= knob <= 2:
                raise ConfigError(f"knob is {knob}, expected 1 to 2")
            header = dataclasses.replace(header, knob=knob)
        self.header = header
        if base_only:
            if isinstance(prior, str) or knob is not None:
                raise ConfigError("bases alone need no prior, and no knob changes them")
            prior = priors.Absent(header.prior, header.digest, header.path)
        elif prior is None or isinstance(prior, str):
            prior = _load_named(prior or header.prior, header, device, offload)
        self.prior = _checked(prior, header)
        self.restorer = None if base_only else _restorer(header, self.prior, restorer)
        self.fps, self.colour = header.fps, header.colour
        self.height, self.width, self.count = header.height, header.width, self.end - self.start
        self.pixel_aspect, self.notices = header.pixel_aspect, tuple[Notice, ...]()
        self.damage: list[str] = []
        self.audio = self._sound(next(self._records), audio, ranged) if header.audio else None
        self.cut: FormatError | None = None
        self._wanted: tuple[set[int], set[int]] | None = None
        if ranged:
            blended = header.alignment == "blend"
            self._wanted = gop.needed(
                self._layout(), self.start, self.end, blended, self.prior.spec.causal
            )
        self._seen = self.delivered = 0
        self.knob_used = self.stopped = False

    def _sound(
        self, found: StoredGop | Audio | LostAudio, wanted: bool, ranged: bool
    ) -> Audio | None:
        """What there is of the sound, the first record of a stream that has some."""
        if isinstance(found, LostAudio):
            if wanted and not self._keep_going:
                raise Corrupt(f"{found.reason}; the pictures can be decoded without the sound")
            text = f"the sound is damaged and left out: {found.reason}"
            if wanted:
                self.damage.append(text)
            else:
                self.notices = (Notice("broken", text),)
            return None
        assert isinstance(found, Audio)  # the reader sees to it
        if not wanted:
            return None
        return _trimmed(found, self.start / self.fps, self.end / self.fps, ranged)

    def _layout(self) -> list[Gop]:
        """The GOPs up to those that can have nothing to do with the frames asked for."""
        out: list[Gop] = []
        try:
            for r in self._coded():
                out.append(r.gop)
                if r.gop.start > self.end + 2 * self.header.gop:
                    break
        except FormatError as e:  # what comes after the frames asked for does not matter
            if not out or (out[-1].end < self.end and not self._tolerated(e, out[-1].end)):
                raise
            if out[-1].end < self.end:
                self.cut = e
        return out

    def _tolerated(self, error: FormatError, frames: int) -> bool:
        """Whether a stream may end with this error after so many frames."""
        ends = isinstance(error, Truncated) or frames == self.header.frames
        return self._keep_going or (self._partial and ends)

    def _coded(self) -> Iterator[StoredGop]:
        """The GOPs' records, from the first."""
        if self._records is None:
            if self._origin is None:
                raise ConfigError("a stream from a pipe can be read only once")
            self._file.seek(self._origin)
            self._records = parser.StreamReader(self._file, self._limits).records()
        records, self._records = self._records, None
        for r in records:
            if isinstance(r, StoredGop):
                yield r

    def pictures(self) -> Iterator[Pictures]:
        """The pictures asked for, uint8 [H,W,3] each; `delivered` counts them."""
        self.delivered = 0
        for ready in devices.exactly(self._gops()):
            for picture in ready:
                self.delivered += 1
                yield picture

    def _gops(self) -> Iterator[Pictures]:
        """The pictures asked for, as each GOP makes them final."""
        session, at, left = Session(self.header, self.prior, self.restorer), None, Left()
        stride = self.prior.spec.stride[0]
        assembler = Assembler(self.header, stride, session.render)

        def asked(ready: Pictures) -> Pictures:
            nonlocal at
            assert at is not None
            begin, at = at, at + len(ready)
            return ready[max(0, self.start - begin) : max(0, self.end - begin)]

        records = self._coded()
        for coded, shown in self._chosen(records):
            if not shown:
                left = session.after_lost(_record(coded, self.header))
                continue
            at = coded.gop.start + coded.gop.skip if at is None else at
            for ready, after in self._one(session, coded, records, left, assembler):
                left = after
                yield asked(ready)
                if self._wanted is not None and at >= self.end:
                    return  # the rest of a long GOP need not be decoded
        if at is not None:
            yield asked(assembler.finish())

    def _chosen(self, records: Iterator[StoredGop]) -> Iterator[tuple[StoredGop, bool]]:
        """The records to decode (True), and those of which no more than the still is wanted."""
        decode, stills = self._wanted or (None, set())
        whole, frames = 0, 0
        while decode is None or whole < len(decode):
            try:
                coded = next(records)
            except StopIteration:
                return
            except FormatError as e:
                if whole and self._tolerated(e, frames):
                    self.cut = e
                    return
                raise
            frames = coded.gop.end
            if decode is None or coded.index in decode:
                self._seen += len(coded.body)
                yield coded, True
                whole += 1
            elif coded.index in stills:
                yield coded, False

    def _one(
        self, session: Session, coded: StoredGop, rest: Iterator[StoredGop], before: Left,
        assembler: Assembler,
    ) -> Iterator[tuple[Pictures, Left]]:  # fmt: skip
        """The pictures that are final once this GOP is decoded or concealed, at once or a few at a
        time, and what it leaves to the next; `rest` are the records behind it."""
        i, g, header = coded.index, coded.gop, self.header
        if self._knob is not None and g.first == "previous":
            raise ConfigError(
                "its GOPs start from decoded pictures: another knob would change them"
            )
        ahead = i + 1 + -(-(header.frames - g.end) // max(1, header.gop - g.skip))

        calls = header.steps

        def tell(step: int, drift: float | None = None) -> None:
            if self._progress is not None:
                self._progress(Event(i, ahead, step, calls, self._seen, drift))

        record, shown = None, 0
        try:
            record = coded.record(header)
            own = record.base
            self.knob_used |= own is None or own.over is not None or own.restored
            if record.base is not None and (record.base.over is None or self._base_only):
                calls = g.frames
                tail = assembler.made[:0]
                for pictures in base_pictures(session, g, record.base):
                    shown += len(pictures)
                    tell(shown)
                    tail = np.concatenate([tail, pictures])[-session.context :]
                    yield assembler.show(pictures), session.after(g, Given(), tail)
                return
            if self._base_only:
                raise ConfigError(f"GOP {i} has no base")
            if header.bases:
                self._fits(g)
            taken = stops(record, self._stop)
            calls = len(times(header, *taken)) - 1
            latent, given = decode_record(
                session, i, record, before, lambda step, _: tell(step + 1), self._stop
            )
            early = taken != (record.stop, record.fraction)
            self.stopped |= early
        except FormatError as e:
            first = g.start + g.skip + shown
            text = f"GOP {i}, frames {first} to {g.end - 1}, cannot be decoded: {e}"
            if not self._keep_going:
                raise type(e)(text + _consequences(coded, rest)) from None
            self.damage.append(text)
            left = dataclasses.replace(g, start=g.start + shown, frames=g.frames - shown)
            yield assembler.conceal(left), session.after_lost(record)
            return
        tell(calls, None if early else track.drift(latent, record, header, i))
        ready = assembler.add(record, latent, given.base)
        yield ready, session.after(g, given, assembler.made)

    def _fits(self, g: Gop) -> None:
        """TooLarge for a GOP that must be held whole and is beyond the limit."""
        pixels = g.frames * self.height * self.width
        if pixels > (self._limits or Limits()).gop_pixels:
            raise TooLarge(f"a GOP of {self.width}x{self.height}x{g.frames} exceeds the limit")


def _record(coded: StoredGop, header: Header) -> GopRecord | None:
    """A GOP's record; None if it cannot be read, which the GOP that wants something of it says."""
    with suppress(FormatError):
        return coded.record(header)
    return None


def _consequences(coded: StoredGop, rest: Iterator[StoredGop]) -> str:
    """Which of the GOPs behind one are lost with it."""
    later = [coded.gop]
    with suppress(FormatError):
        for r in rest:
            later.append(r.gop)
    lost = gop.dependents(later, 0)
    if not lost:
        return ""
    names = f"GOP {coded.index + 1} depends" if len(lost) == 1 else \
        f"GOPs {coded.index + 1} to {coded.index + lost[-1]} depend"  # fmt: skip
    return f"; {names} on it"


def _load_named(name: str, header: Header, device: str, offload: bool) -> Prior:
    """The prior of that name, with a header's settings, if this version knows both."""
    if name == header.prior and name not in priors.NAMES:
        raise PriorMismatch(f"the file needs prior {header.prior}, which is not installed here")
    if (kind := name.partition(":")[0]) != header.prior:
        raise PriorMismatch(f"the file needs prior {header.prior}, not {kind}")
    try:
        return priors.load(name, device, dict(header.settings), offload)
    except BadSetting as e:
        raise Unsupported(str(e)) from None


def _restorer(header: Header, prior: Prior, asked: str | None) -> Restoring | None:
    """What restores a stream's bases, if this version has it with the weights that they need."""
    if header.restorer is None:
        if asked is not None:
            raise ConfigError("the file names no restorer")
        return None
    name, digest = header.restorer
    if name not in restorers.NAMES:
        raise PriorMismatch(f"the file needs restorer {name}, which is not installed here")
    if asked is not None and (kind := asked.partition(":")[0]) != name:
        raise PriorMismatch(f"the file needs restorer {name}, not {kind}")
    found = restorers.load(asked or name, header.knob, str(prior.device))
    if found.digest != digest:
        raise PriorMismatch(
            f"the file needs restorer {name} with weights {digest.hex()}; here are "
            f"{found.digest.hex()}; its bases can be decoded as they are (base only)"
        )
    return found


def _checked(prior: Prior, header: Header) -> Prior:
    """The prior, if it is the one that the header names and fits."""
    spec = prior.spec
    if (spec.id, spec.digest) != (header.prior, header.digest):
        raise PriorMismatch(
            f"the file needs prior {header.prior} with weights {header.digest.hex()}; "
            f"here is {spec.id} with weights {spec.digest.hex()}"
        )
    if header.path != spec.path:
        raise Corrupt(f"prior {header.prior} is on path {spec.path}, not {header.path}")
    if (header.gop - 1) % spec.stride[0] and not header.bases:
        raise Corrupt(f"GOP length {header.gop} is not 1 modulo {spec.stride[0]}")
    if header.alignment == "pin" and (header.overlap - 1) % spec.stride[0]:
        raise Corrupt(f"overlap is {header.overlap}, expected 1 modulo {spec.stride[0]}")
    return prior


def _trimmed(audio: Audio, start: Fraction, end: Fraction, ranged: bool) -> Audio:
    """The part of the sound that goes with a range of frames, in seconds."""
    if not ranged:
        return audio
    shift = round(start / audio.time_base)
    kept = tuple(
        dataclasses.replace(p, pts=p.pts - shift)
        for p in audio.packets
        if (p.pts + p.duration) * audio.time_base > start and p.pts * audio.time_base < end
    )
    return dataclasses.replace(audio, packets=kept)


def decode(data: bytes, prior: Prior | str | None = None, device: str = "cpu",
           limits: Limits | None = None, progress: Progress | None = None,
           partial: bool = False, knob: float | None = None) -> Video:  # fmt: skip
    """The whole clip in memory. With `partial` a truncated stream gives the whole GOPs before the
    cut (at least one) instead of raising Truncated. Raises as `Decoder` does."""
    clip = Decoder(BytesIO(data), prior, device, limits, progress, knob=knob, partial=partial)
    most, frames = (limits or Limits()).held_pixels, list[Pictures]()
    for picture in clip.pictures():
        frames.append(picture)
        if len(frames) * clip.height * clip.width > most:
            raise TooLarge(
                f"more than {len(frames) - 1} pictures of {clip.width}x{clip.height} exceed the "
                "limit for a clip in memory; decode it to a file, or in parts"
            )
    return Video(np.stack(frames), clip.fps, clip.colour, clip.audio, clip.pixel_aspect)
