"""Bytes -> header, audio and GOP records, as docs/format.md has them; bitstream.py writes.

Raises FormatError and its subclasses only, works on a file that is still being written, and uses
memory in proportion to one record.
"""

from __future__ import annotations

import io
from collections.abc import Iterator
from dataclasses import dataclass, replace
from fractions import Fraction
from typing import Any, BinaryIO, NamedTuple

from gvcc.errors import Corrupt, FormatError, TooLarge, Truncated, Unsupported
from gvcc.format.base import RestorerId, read_base
from gvcc.format.bitstream import (  # fmt: skip
    ALLOCATIONS,
    ASPECT,
    AUDIO,
    BASE,
    BASES,
    BLEND,
    CHECKS,
    CODERS,
    FADE,
    FRACTION,
    FULL_RANGE,
    GOP,
    KNOB_UNIT,
    LAST,
    MAGIC,
    MOST_SETTINGS,
    MULTISTEP,
    OUTSIDE,
    PATHS,
    PIN,
    PLAIN_RESIDUAL,
    RESIDUAL,
    RESTORER,
    RULES,
    SCHEDULE,
    SOUND,
    UNIT,
    VARIANCES,
    VERSIONS,
    GopRecord,
    Header,
    Limits,
    Stream,
    crc,
)
from gvcc.format.cursor import Cursor
from gvcc.format.gop import FIRSTS, Gop
from gvcc.records import Audio, Colour, Packet

_PIECE = 2**20  # bytes read at once: a length that lies must not cost memory


def _fraction(c: Cursor, what: str) -> Fraction:
    n, d = c.varint(what), c.varint(what)
    if d == 0 or n == 0 or Fraction(n, d).denominator != d:
        raise Corrupt(f"{what} {n}/{d} is not a fraction in lowest terms above 0")
    return Fraction(n, d)


def _extension(body: Cursor, version: int) -> dict[str, Any]:
    """What versions 3 and 4 have besides: `reuse`, the prior's settings, a pixel aspect, bases."""
    reuse, count = body.varint("reuse"), body.varint("number of settings")
    if count > MOST_SETTINGS:
        raise TooLarge(f"{count} settings of the prior exceed the limit of {MOST_SETTINGS}")
    settings = []
    for _ in range(count):
        name, raw = body.text("name of a setting"), body.blob("setting")
        try:
            settings.append((name, raw.decode()))
        except UnicodeDecodeError:
            raise Corrupt(f"setting {name} of the prior is no text") from None
    out: dict[str, Any] = {"reuse": reuse, "settings": tuple(settings)}
    if version == 3:
        if reuse == 1 and not settings:
            raise Corrupt("version 3 for a header that says nothing new")
        return out
    extras = body.varint("extras")
    if extras & ~(ASPECT | BASES | VARIANCES | RESTORER | PLAIN_RESIDUAL | OUTSIDE):
        raise Unsupported(f"extras {extras:#x} are reserved")
    aspect = _fraction(body, "pixel aspect") if extras & ASPECT else Fraction(1)
    if aspect == 1 and (extras & ASPECT or not extras):
        raise Corrupt("version 4 for a header that says nothing new")
    variances = tuple(body.blob("variances")) if extras & VARIANCES else ()
    if extras & VARIANCES and not variances:
        raise Corrupt("variances are announced and empty")
    restorer = None
    if extras & RESTORER:
        restorer = RestorerId(body.text("restorer"), body.take(8, "the restorer's digest"))
    out |= {"pixel_aspect": aspect, "bases": bool(extras & BASES), "variances": variances}
    out |= {"plain_residual": bool(extras & PLAIN_RESIDUAL), "outside": bool(extras & OUTSIDE)}
    return out | {"restorer": restorer}


def _header(body: Cursor, version: int) -> Header:
    flags = body.byte("flags")
    if flags & ~(FULL_RANGE | AUDIO | MULTISTEP | SCHEDULE | BLEND | PIN):
        raise Unsupported(f"flags {flags:#x} are reserved")
    path, rule = body.name(PATHS, "path"), body.name(RULES, "step rule")
    coder, allocation = body.name(CODERS, "coder"), body.name(ALLOCATIONS, "allocation")
    steps, ode_steps, knob = (body.byte(w) for w in ("steps", "ODE steps", "knob"))
    shift, g_scale = (int.from_bytes(body.take(2, w), "little") for w in ("shift", "g_scale"))
    matrix, primaries, transfer = (body.byte("colour") for _ in range(3))
    colour = Colour(matrix, primaries, transfer, bool(flags & FULL_RANGE))
    digest, prior = body.take(8, "digest"), body.text("prior")
    width, height, frames = (body.varint(w) for w in ("width", "height", "frames"))
    fps = _fraction(body, "frame rate")
    gop, overlap, size, seed = (
        body.varint(w) for w in ("GOP length", "overlap", "codebook size", "seed")
    )
    schedule = body.varint("schedule") if flags & SCHEDULE else 0
    if flags & SCHEDULE and not schedule:
        raise Corrupt("a schedule without a number")
    if flags & BLEND and flags & PIN:
        raise Corrupt("overlapping GOPs are both blended and pinned")
    more = _extension(body, version) if version > 2 else {}
    body.done("the header")
    return Header(
        prior=prior, digest=digest, width=width, height=height, frames=frames, fps=fps,
        colour=colour, gop=gop, overlap=overlap, path=path, rule=rule, coder=coder,
        allocation=allocation, codebook_size=size, seed=seed, steps=steps, ode_steps=ode_steps,
        shift=shift / UNIT, g_scale=g_scale / UNIT, knob=knob / KNOB_UNIT,
        multistep=bool(flags & MULTISTEP), audio=bool(flags & AUDIO), schedule=schedule,
        alignment="blend" if flags & BLEND else "pin" if flags & PIN else "fade",
        **more,
    )  # fmt: skip


@dataclass(frozen=True)
class StoredGop:
    """A GOP as found in a file: where it stands in the clip, and its body, not yet looked into."""

    index: int
    gop: Gop
    layout: int
    body: bytes
    whole: bool

    def record(self, header: Header) -> GopRecord:
        """The GOP's fields; Corrupt if the checksum or a field is wrong."""
        if not self.whole:
            raise Corrupt(f"the checksum of GOP {self.index} does not match")
        c = Cursor(self.body, Corrupt)
        stop = c.byte("stop")
        fraction = c.byte("fraction of a step") if self.layout & FRACTION else 0
        check = tuple(int.from_bytes(c.take(1, "check"), "little", signed=True)
                      for _ in range(CHECKS))  # fmt: skip
        atoms, tail_atoms = c.varint("atoms"), c.varint("tail atoms")
        stills = tuple(c.blob("a still") for _ in range(self.gop.stills))
        residual = c.blob("the residual") if self.layout & RESIDUAL else b""
        base = read_base(c.blob("the base")) if self.gop.base else None
        symbols = c.take(len(self.body) - c.at, "symbols")
        if self.layout & RESIDUAL and not residual:
            raise Corrupt("a residual is announced and empty")
        if self.layout & FRACTION and not (fraction and header.schedule):
            raise Corrupt("a fraction of a step is announced where there is none")
        if stop + (fraction > 0) > header.steps - header.ode_steps:
            raise Corrupt(f"{stop} coded steps, expected at most {header.steps - header.ode_steps}")
        total = atoms + tail_atoms
        if total and (header.allocation == "matched" or total > 8 * len(self.body)):
            raise Corrupt(f"{total} atoms do not fit the record")
        if len(symbols) % 4:
            raise Corrupt("symbols are not whole 32-bit words")
        if base is not None and base.restored and header.restorer is None:
            raise Corrupt("a base is restored where there is no restorer")
        alone = base is not None and base.over is None
        if alone and (stop or fraction or total or symbols or any(check)):
            raise Corrupt("a trajectory where there is none")
        return GopRecord(self.gop, stop, atoms, tail_atoms, check, stills, residual, symbols,
                         fraction, base)  # fmt: skip


class LostAudio(NamedTuple):
    """An audio record that is damaged: what is wrong with it. The GOPs behind it are not."""

    reason: str


class StreamReader:
    """A stream read from a file, record by record; `header` is read at once.

    `clip_frames` counts the frames of the GOPs so far, `head` holds the header's bytes.
    """

    def __init__(self, file: BinaryIO, limits: Limits | None = None) -> None:
        self._file = file
        magic = file.read(len(MAGIC))
        if magic != MAGIC[: len(magic)] or not magic:
            raise Corrupt("not a gvcc stream: the first bytes are wrong")
        front = magic + self._take(len(MAGIC) - len(magic) + 1, "the version")
        version = front[-1]
        if version not in VERSIONS:
            known = f"{VERSIONS[0]} to {VERSIONS[-1]}"
            raise Unsupported(f"format version {version}; this decoder reads versions {known}")
        raw, body = self._blob("the header")
        front += raw
        seal = self._take(4, "the header's checksum")
        if crc(front) != seal:
            raise Corrupt("the header's checksum does not match")
        self.head = front + seal
        self.header = _header(Cursor(body, Corrupt), version)
        self.header.check(limits or Limits())
        self.clip_frames = 0

    def _take(self, count: int, what: str) -> bytes:
        parts, left = [], count
        while left and (part := self._file.read(min(left, _PIECE))):
            parts.append(part)
            left -= len(part)
        if left:
            raise Truncated(f"the data end inside {what}")
        return b"".join(parts)

    def _blob(self, what: str) -> tuple[bytes, bytes]:
        """A blob as it stands in the file, and what is in it."""
        raw = b""
        while not raw or raw[-1] > 0x7F:
            if len(raw) == 10:
                raise Corrupt(f"{what}: number exceeds 64 bits")
            raw += self._take(1, what)
        body = self._take(Cursor(raw, Corrupt).varint(what), what)
        return raw + body, body

    def _record(self, index: int, kind: int) -> tuple[Cursor, bytes, bool]:
        """Head and body of the next record, and whether the body's checksum matches."""
        found = self._take(1, "a record")
        raw, head = self._blob("a record")
        seal = self._take(4, "a record")
        if crc(self.head[-4:], index.to_bytes(4, "little"), found + raw) != seal:
            raise Corrupt(f"the checksum of record {index}'s head does not match")
        if found[0] != kind:
            raise Corrupt(f"record {index} is of kind {found[0]:#x}")
        c = Cursor(head, Corrupt)
        body = self._take(c.varint("a record's length"), "a record")
        return c, body, crc(seal, body) == self._take(4, "a record's checksum")

    def records(self) -> Iterator[StoredGop | Audio | LostAudio]:
        """The audio if there is any, then the GOPs as their records come.

        A GOP's place is checked before it is handed out, its body by `StoredGop.record`; for audio
        that does not check there is a `LostAudio`. Raises Truncated (with the number of whole GOPs)
        where the data end too soon, and Corrupt for a head that does not check, and for anything
        after the last record.
        """
        h, index, before = self.header, 0, None
        if h.audio:
            try:
                c, body, whole = self._record(0, SOUND)
            except Truncated as e:
                raise self._cut(e, 0) from None
            c.done("the audio's head")
            yield _audio_or_lost(body, whole)
        while self.clip_frames < h.frames:
            try:
                c, body, whole = self._record(index + h.audio, GOP)
            except Truncated as e:
                raise self._cut(e, index) from None
            gop, layout = _place(c, before, h)
            self.clip_frames = gop.end
            yield StoredGop(index, gop, layout, body, whole)
            index, before = index + 1, gop
        if self._file.read(1):
            raise Corrupt("there are bytes after the last record")

    def _cut(self, error: Truncated, whole: int) -> Truncated:
        frames = f"{self.clip_frames} of {self.header.frames} frames"
        return Truncated(f"{error}: {whole} GOPs are whole, {frames}", whole)


def _place(c: Cursor, before: Gop | None, h: Header) -> tuple[Gop, int]:
    """Where a GOP stands in the clip, and its layout, from its record's head."""
    layout, frames = c.byte("layout"), c.varint("frames of a GOP")
    c.done("a GOP's head")
    if layout >= (2 * BASE if h.bases else BASE):
        raise Unsupported(f"layout {layout:#x} is not known to this version")
    if layout & BASE and layout & ~FRACTION != BASE:
        raise Corrupt(f"a base with layout {layout:#x}")
    first, fade = FIRSTS[layout & 3], h.overlap if layout & FADE else 0
    if layout & FADE and not h.overlap:
        raise Corrupt("a cross-fade in a stream without overlap")
    end = 0 if before is None else before.end
    if h.alignment == "blend" and first != "none":
        raise Corrupt("a GOP with a condition in a stream whose GOPs are blended")
    context = h.overlap if h.alignment == "pin" and first == "previous" else 1
    gop = Gop(0, frames, first, bool(layout & LAST), fade, context, bool(layout & BASE),
              h.outside)  # fmt: skip
    gop = replace(gop, start=end - gop.skip - fade)
    gop.check(before, h.frames, h.gop, h.overlap)
    return gop, layout


def _audio_or_lost(payload: bytes, whole: bool) -> Audio | LostAudio:
    try:
        if not whole:
            raise Corrupt("the audio's checksum does not match")
        return _audio(payload)
    except FormatError as e:
        return LostAudio(str(e))


def _audio(payload: bytes) -> Audio:
    c = Cursor(payload, Corrupt)
    codec, layout = c.text("audio codec"), c.text("audio layout")
    rate, base = c.varint("audio rate"), _fraction(c, "audio time base")
    extradata, count = c.blob("audio extradata"), c.varint("audio packets")
    packets, due = [], 0
    for _ in range(count):
        z, duration = c.varint("audio packet"), c.varint("audio packet")
        pts = due + (z // 2 if z % 2 == 0 else -(z // 2) - 1)
        packets.append(Packet(pts, duration, c.blob("audio packet")))
        due = pts + duration
    c.done("the audio record")
    return Audio(codec, rate, layout, base, extradata, tuple(packets))


def parse(data: bytes, limits: Limits | None = None) -> Stream:
    """The whole file; raises FormatError for anything that `write` cannot have written."""
    reader = StreamReader(io.BytesIO(data), limits)
    gops, audio = [], None
    for r in reader.records():
        if isinstance(r, LostAudio):
            raise Corrupt(r.reason)
        if isinstance(r, Audio):
            audio = r
        else:
            gops.append(r.record(reader.header))
    return Stream(reader.header, tuple(gops), audio)


class Survey(NamedTuple):
    """What can be found in a file that may be damaged: the header, the GOPs that are whole by their
    numbers, the audio, and what is wrong, in the order of the file."""

    header: Header
    gops: dict[int, GopRecord]
    audio: Audio | None
    problems: list[str]


def survey(data: bytes, limits: Limits | None = None) -> Survey:
    """As `parse`, but it goes on behind what is damaged as far as it can. Raises FormatError if
    the header cannot be read."""
    reader = StreamReader(io.BytesIO(data), limits)
    found = Survey(reader.header, {}, None, [])
    try:
        for r in reader.records():
            if isinstance(r, Audio):
                found = found._replace(audio=r)
                continue
            if isinstance(r, LostAudio):
                found.problems.append(r.reason)
                continue
            try:
                found.gops[r.index] = r.record(reader.header)
            except FormatError as e:
                first, last = r.gop.start + r.gop.skip, r.gop.end - 1
                found.problems.append(f"GOP {r.index}, frames {first} to {last}: {e}")
    except FormatError as e:
        found.problems.append(str(e))
    return found


def read_header(data: bytes, limits: Limits | None = None) -> tuple[Header, int]:
    """The header at the start of `data`, and its length in bytes."""
    reader = StreamReader(io.BytesIO(data), limits)
    return reader.header, len(reader.head)
