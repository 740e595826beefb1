"""The file: header, GOP records and audio <-> bytes. docs/format.md is the contract.

Knows nothing of pictures or networks. `parse` raises FormatError and its subclasses only, and
uses memory in proportion to the bytes it is given.
"""

from __future__ import annotations

import zlib
from collections.abc import Iterator
from dataclasses import dataclass
from fractions import Fraction

from gvcc.errors import Corrupt, FormatError, TooLarge, Truncated, Unsupported
from gvcc.records import Audio, Colour, Packet

MAGIC = b"\x8bGVC"
VERSION = 1
# Positions in these lists are the numbers in the file; only ever append.
PATHS = ("rf", "vp")
MODES = ("t2v",)
RULES = ("em", "ou", "posterior")
CODERS = ("gaussian", "hadamard")
ALLOCATIONS = ("uniform", "matched")
_FULL_RANGE, _AUDIO, _MULTISTEP = 1, 2, 4
_GOP, _SOUND = 0x47, 0x41
_UNIT = 256  # shift and g_scale are multiples of 1/256
_KNOB_UNIT = 64
CHECKS = 4
CHECK_UNIT = 16  # projections of the drift check are multiples of 1/16


@dataclass(frozen=True)
class Limits:
    """What a decoder is willing to spend; beyond it parsing raises TooLarge."""

    side: int = 16384
    gop_pixels: int = 2**29
    total_pixels: int = 2**32


@dataclass(frozen=True)
class Header:
    """Everything that holds for the whole stream. Ranges are checked by `check`.

    `shift` and `g_scale` are whole multiples of 1/256, `knob` of 1/64. `size` is K of the gaussian
    codebook and 0 for others. `gop` is the GOP length in frames.
    """

    prior: str
    digest: bytes
    width: int
    height: int
    frames: int
    fps: Fraction
    colour: Colour
    gop: int
    mode: str
    path: str
    rule: str
    coder: str
    allocation: str
    size: int
    seed: int
    steps: int
    tail: int
    shift: float
    g_scale: float
    knob: float
    multistep: bool
    audio: bool

    def check(self, limits: Limits) -> None:
        """Raise FormatError if a field is outside its range, TooLarge if beyond `limits`."""
        for name, value, low, high in (
            ("width", self.width, 16, 2**16 - 1),
            ("height", self.height, 16, 2**16 - 1),
            ("frames", self.frames, 1, 2**32 - 1),
            ("frame rate", self.fps, Fraction(1, 2**16), Fraction(2**16)),
            ("GOP length", self.gop, 1, 2**10),
            ("steps", self.steps, 2, 255),
            ("tail", self.tail, 1, self.steps),
            ("shift", self.shift, 1 / _UNIT, 255),
            ("g_scale", self.g_scale, 0, 255),
            ("knob", self.knob, 1, 2),
            ("seed", self.seed, 0, 2**31 - 1 if self.coder == "gaussian" else 2**64 - 1),
        ):
            if not low <= value <= high:
                raise Corrupt(f"{name} is {value}, expected {low} to {high}")
        if (self.coder == "gaussian") != (self.size > 0) or self.size > 2**16:
            raise Corrupt(f"codebook size {self.size} does not fit coder {self.coder}")
        if self.path != "rf" and self.rule != "posterior":
            raise Corrupt(f"step rule {self.rule} is not defined on path {self.path}")
        pixels = self.width * self.height
        if max(self.width, self.height) > limits.side:
            raise TooLarge(f"{self.width}x{self.height} exceeds the limit of {limits.side} a side")
        if pixels * min(self.gop, self.frames) > limits.gop_pixels:
            raise TooLarge(f"a GOP of {self.width}x{self.height}x{self.gop} exceeds the limit")
        if pixels * self.frames > limits.total_pixels:
            raise TooLarge(f"{self.frames} frames of {self.width}x{self.height} exceed the limit")


@dataclass(frozen=True)
class GopRecord:
    """One GOP: coded steps `stop` (ODE from there on), atoms in all (uniform allocation; else 0),
    the drift check in units of 1/16, and the range-coded symbols."""

    stop: int
    atoms: int
    check: tuple[int, ...]
    symbols: bytes


@dataclass(frozen=True)
class Stream:
    """All that a decoder needs, besides the prior."""

    header: Header
    gops: tuple[GopRecord, ...]
    audio: Audio | None = None


# -- writing ----------------------------------------------------------------------------------


def varint(value: int) -> bytes:
    """Unsigned LEB128, shortest form."""
    out = bytearray()
    while value > 0x7F:
        out.append(value & 0x7F | 0x80)
        value >>= 7
    out.append(value)
    return bytes(out)


def _blob(data: bytes) -> bytes:
    return varint(len(data)) + data


def write_header(h: Header) -> bytes:
    """Header bytes, with magic and checksum. Raises FormatError for a field out of range."""
    h.check(Limits(2**16, 2**62, 2**62))
    flags = _FULL_RANGE * h.colour.full_range | _AUDIO * h.audio | _MULTISTEP * h.multistep
    body = b"".join(
        (
            bytes([flags, PATHS.index(h.path), MODES.index(h.mode), RULES.index(h.rule)]),
            bytes([CODERS.index(h.coder), ALLOCATIONS.index(h.allocation)]),
            bytes([h.steps, h.tail, round(h.knob * _KNOB_UNIT)]),
            round(h.shift * _UNIT).to_bytes(2, "little"),
            round(h.g_scale * _UNIT).to_bytes(2, "little"),
            bytes([h.colour.matrix, h.colour.primaries, h.colour.transfer]),
            h.digest,
            _blob(h.prior.encode("ascii")),
            *map(varint, (h.width, h.height, h.frames, h.fps.numerator, h.fps.denominator)),
            *map(varint, (h.gop, h.size, h.seed)),
        )
    )
    data = MAGIC + bytes([VERSION]) + _blob(body)
    return data + zlib.crc32(data).to_bytes(4, "little")


def write_record(kind: int, payload: bytes, index: int, header: bytes) -> bytes:
    """A record with its checksum, which also covers the header's and the record's position."""
    data = bytes([kind]) + _blob(payload)
    return data + _record_crc(data, index, header[-4:]).to_bytes(4, "little")


def _record_crc(data: bytes, index: int, header_crc: bytes) -> int:
    return zlib.crc32(data, zlib.crc32(header_crc + index.to_bytes(4, "little")))


def write_gop(record: GopRecord, index: int, header: bytes) -> bytes:
    """GOP record number `index` of the stream with these header bytes."""
    check = b"".join(c.to_bytes(1, "little", signed=True) for c in record.check)
    payload = bytes([record.stop]) + check + varint(record.atoms) + record.symbols
    return write_record(_GOP, payload, index, header)


def write_audio(audio: Audio, index: int, header: bytes) -> bytes:
    """The audio record; `index` is its position among the records. Raises FormatError for a name
    that a reader would refuse."""
    for name in (audio.codec, audio.layout):
        if not _is_name(name.encode()):
            raise Unsupported(f"audio named {name!r} cannot be carried")
    parts = [_blob(audio.codec.encode("ascii")), _blob(audio.layout.encode("ascii"))]
    parts += map(varint, (audio.rate, audio.time_base.numerator, audio.time_base.denominator))
    parts += [_blob(audio.extradata), varint(len(audio.packets))]
    due = 0  # a packet usually starts where the one before it ended: that costs one byte
    for p in audio.packets:
        gap = p.pts - due
        parts += [varint(2 * gap if gap >= 0 else -2 * gap - 1), varint(p.duration), _blob(p.data)]
        due = p.pts + p.duration
    return write_record(_SOUND, b"".join(parts), index, header)


def write(stream: Stream) -> bytes:
    """The whole file."""
    header = write_header(stream.header)
    parts = [header] + [write_gop(g, i, header) for i, g in enumerate(stream.gops)]
    if stream.audio is not None:
        parts.append(write_audio(stream.audio, len(stream.gops), header))
    return b"".join(parts)


# -- reading ----------------------------------------------------------------------------------


def _is_name(raw: bytes) -> bool:
    return len(raw) <= 64 and all(33 <= c < 127 for c in raw)


class _Cursor:
    """A read position; running past the end raises `Truncated`, or Corrupt inside a record."""

    def __init__(self, data: bytes, error: type[FormatError] = Truncated) -> None:
        self.data, self.at, self.error = memoryview(data), 0, error

    def take(self, count: int, what: str) -> bytes:
        if count > len(self.data) - self.at:
            raise self.error(f"the data end inside {what}")
        self.at += count
        return bytes(self.data[self.at - count : self.at])

    def byte(self, what: str) -> int:
        return self.take(1, what)[0]

    def varint(self, what: str) -> int:
        value = 0
        for shift in range(0, 70, 7):
            b = self.byte(what)
            value |= (b & 0x7F) << shift
            if b < 0x80:
                if b == 0 and shift:
                    raise Corrupt(f"{what}: number not in its shortest form")
                if value >= 2**64:
                    break
                return value
        raise Corrupt(f"{what}: number exceeds 64 bits")

    def blob(self, what: str) -> bytes:
        return self.take(self.varint(what), what)

    def text(self, what: str) -> str:
        raw = self.blob(what)
        if not _is_name(raw):
            raise Corrupt(f"{what} is not a name")
        return raw.decode("ascii")

    def name(self, table: tuple[str, ...], what: str) -> str:
        i = self.byte(what)
        if i >= len(table):
            raise Unsupported(f"{what} number {i} is not known to this version")
        return table[i]

    def done(self, what: str) -> None:
        if self.at != len(self.data):
            raise Corrupt(f"{len(self.data) - self.at} bytes too many in {what}")


def _fraction(c: _Cursor, what: str) -> Fraction:
    n, d = c.varint(what), c.varint(what)
    if d == 0 or n == 0 or Fraction(n, d).denominator != d:
        raise Corrupt(f"{what} {n}/{d} is not a fraction in lowest terms above 0")
    return Fraction(n, d)


def read_header(data: bytes, limits: Limits | None = None) -> tuple[Header, int]:
    """The header at the start of `data`, and its length in bytes."""
    c = _Cursor(data)
    magic = bytes(data[: len(MAGIC)])
    if magic != MAGIC[: len(magic)] or not magic:
        raise Corrupt("not a gvcc stream: the first bytes are wrong")
    c.take(len(MAGIC), "the magic number")
    version = c.byte("the version")
    if version != VERSION:
        raise Unsupported(f"format version {version}; this decoder reads version {VERSION}")
    body = _Cursor(c.blob("the header"), Corrupt)
    crc = zlib.crc32(data[: c.at])
    if crc.to_bytes(4, "little") != c.take(4, "the header's checksum"):
        raise Corrupt("the header's checksum does not match")
    flags = body.byte("flags")
    if flags & ~(_FULL_RANGE | _AUDIO | _MULTISTEP):
        raise Unsupported(f"flags {flags:#x} are reserved")
    path, mode = body.name(PATHS, "path"), body.name(MODES, "mode")
    rule, coder = body.name(RULES, "step rule"), body.name(CODERS, "coder")
    allocation = body.name(ALLOCATIONS, "allocation")
    steps, tail, knob = (body.byte(w) for w in ("steps", "tail", "knob"))
    shift, g_scale = (int.from_bytes(body.take(2, w), "little") for w in ("shift", "g_scale"))
    matrix, primaries, transfer = (body.byte("colour") for _ in range(3))
    colour = Colour(matrix, primaries, transfer, bool(flags & _FULL_RANGE))
    digest, prior = body.take(8, "digest"), body.text("prior")
    width, height, frames = (body.varint(w) for w in ("width", "height", "frames"))
    fps = _fraction(body, "frame rate")
    gop, size, seed = (body.varint(w) for w in ("GOP length", "codebook size", "seed"))
    body.done("the header")
    header = Header(
        prior=prior, digest=digest, width=width, height=height, frames=frames, fps=fps,
        colour=colour, gop=gop, mode=mode, path=path, rule=rule, coder=coder,
        allocation=allocation, size=size, seed=seed, steps=steps, tail=tail,
        shift=shift / _UNIT, g_scale=g_scale / _UNIT, knob=knob / _KNOB_UNIT,
        multistep=bool(flags & _MULTISTEP), audio=bool(flags & _AUDIO),
    )  # fmt: skip
    header.check(limits or Limits())
    return header, c.at


def records(data: bytes, header: Header, start: int) -> Iterator[GopRecord | Audio]:
    """The records after the header, in order, each checked before it is handed out.

    Raises Truncated (with the number of whole GOPs) where the data end too soon, and Corrupt for
    anything after the last record.
    """
    gops = -(-header.frames // header.gop)
    crc = data[start - 4 : start]
    c = _Cursor(data)
    c.at = start
    for index in range(gops + header.audio):
        try:
            begin = c.at
            kind = c.byte("a record")
            payload = c.blob("a record")
            body = data[begin : c.at]
            found = c.take(4, "a record's checksum")
        except Truncated as e:
            whole = min(index, gops)
            raise Truncated(f"{e}: {whole} of {gops} GOPs are whole", whole) from None
        if _record_crc(body, index, crc).to_bytes(4, "little") != found:
            raise Corrupt(f"the checksum of record {index} does not match")
        if kind != (_GOP if index < gops else _SOUND):
            raise Corrupt(f"record {index} is of kind {kind:#x}")
        yield _gop(payload, header) if kind == _GOP else _audio(payload)
    c.done("the stream")


def _gop(payload: bytes, header: Header) -> GopRecord:
    c = _Cursor(payload, Corrupt)
    stop = c.byte("stop")
    check = tuple(int.from_bytes(c.take(1, "check"), "little", signed=True) for _ in range(CHECKS))
    atoms = c.varint("atoms")
    if stop > header.steps - header.tail:
        raise Corrupt(f"{stop} coded steps, expected at most {header.steps - header.tail}")
    if atoms and (header.allocation == "matched" or atoms > 8 * len(payload)):
        raise Corrupt(f"{atoms} atoms do not fit the record")
    symbols = c.take(len(payload) - c.at, "symbols")
    if len(symbols) % 4:
        raise Corrupt("symbols are not whole 32-bit words")
    return GopRecord(stop, atoms, check, symbols)


def _audio(payload: bytes) -> Audio:
    c = _Cursor(payload, Corrupt)
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
    header, start = read_header(data, limits)
    found = list(records(data, header, start))
    gops = tuple(r for r in found if isinstance(r, GopRecord))
    audio = next((r for r in found if isinstance(r, Audio)), None)
    return Stream(header, gops, audio)
