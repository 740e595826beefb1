"""The file: header, audio and GOP records -> bytes. docs/format.md is the contract.

Knows nothing of pictures or networks. parser.py reads what this writes.
"""

from __future__ import annotations

import zlib
from dataclasses import dataclass
from fractions import Fraction

from gvcc.errors import Corrupt, TooLarge, Unsupported
from gvcc.format import coders, schedules
from gvcc.format.base import GRID, BaseRecord, RestorerId, write_base
from gvcc.format.cursor import blob, is_name, varint
from gvcc.format.gop import FIRSTS, Gop
from gvcc.records import Audio, Colour

MAGIC = b"\x8bGVC"
VERSIONS = (2, 3, 4)
"""A file has the least version that can say what it says: 3 has settings and `reuse` besides, 4
also a pixel aspect and bases."""
MOST_SETTINGS, LONGEST_SETTING = 32, 4096  # of a header, and bytes of one
# Positions in these lists, and in gop.FIRSTS, are the numbers in the file; only ever append.
PATHS = ("rf", "vp")
RULES = ("em", "ou", "posterior")
CODERS = coders.NAMES
ALLOCATIONS = ("uniform", "matched")
FULL_RANGE, AUDIO, MULTISTEP, SCHEDULE, BLEND, PIN = 1, 2, 4, 8, 16, 32
# Of a GOP's layout byte; its two lowest bits number `first`.
LAST, FADE, RESIDUAL, FRACTION, BASE = 4, 8, 16, 32, 64
GOP, SOUND = 0x47, 0x41
UNIT = 256  # shift and g_scale are multiples of 1/256
KNOB_UNIT = 64
ASPECT, BASES, VARIANCES, RESTORER, PLAIN_RESIDUAL, OUTSIDE = 1, 2, 4, 8, 16, 32  # of version 4
CHECKS = 4
CHECK_UNIT = 16  # projections of the drift check are multiples of 1/16


@dataclass(frozen=True)
class Limits:
    """What a decoder is willing to spend; beyond it parsing raises TooLarge.

    `side` is the longest of a picture, `gop_pixels` those of a GOP's pictures. A stream may be of
    any length; `held_pixels` are those that gvcc.decode, which has all pictures in memory, takes.
    """

    side: int = 16384
    gop_pixels: int = 2**29
    held_pixels: int = 2**32


@dataclass(frozen=True)
class Header:
    """Everything that holds for the whole stream. Ranges are checked by `check`.

    `shift` and `g_scale` are whole multiples of 1/256, `knob` of 1/64; `ode_steps` are those of the
    `steps` that are not coded. `codebook_size` is K of the gaussian codebook, the most candidates
    of a chunk of `rcc`, and 0 for others. `gop` is the length in frames that no GOP exceeds,
    `overlap` the number of frames that overlapping GOPs share, as `alignment` says
    (gop.ALIGNMENTS). `schedule` is its number in schedules.SCHEDULES; 0: times follow from `shift`.
    `reuse` is p where the network is called at every p-th coded step only. `settings` are those of
    the prior that change its output (name, text), sorted by name. `pixel_aspect` is the width of a
    pixel over its height. `bases`: GOPs may have a base (mode v2v). `variances` are those of a
    latent around the network's x0hat, for trajectories over a base (empty: there is none, or the
    prior knows its own): bytes (base.variance) at the SNRs of base.GRID, then one for each channel,
    whose inverses are added. `restorer` is what restores bases that are to be (None: none is).
    """

    prior: str
    digest: bytes
    width: int
    height: int
    frames: int
    fps: Fraction
    colour: Colour
    gop: int
    overlap: int
    path: str
    rule: str
    coder: str
    allocation: str
    codebook_size: int
    seed: int
    steps: int
    ode_steps: int
    shift: float
    g_scale: float
    knob: float
    multistep: bool
    audio: bool
    schedule: int = 0
    alignment: str = "fade"
    reuse: int = 1
    settings: tuple[tuple[str, str], ...] = ()
    pixel_aspect: Fraction = Fraction(1)
    bases: bool = False
    variances: tuple[int, ...] = ()
    restorer: RestorerId | None = None
    plain_residual: bool = False
    outside: bool = False

    @property
    def version(self) -> int:
        """The version of a file with this header."""
        if self.pixel_aspect != 1 or self.bases or self.plain_residual or self.outside:
            return 4
        return 3 if self.reuse > 1 or self.settings else 2

    def check(self, limits: Limits) -> None:
        """Raise FormatError if a field is outside its range, TooLarge if beyond `limits`."""
        for name, value, low, high in (
            ("width", self.width, 16, 2**16 - 1),
            ("height", self.height, 16, 2**16 - 1),
            ("frames", self.frames, 1, 2**32 - 1),
            ("frame rate", self.fps, Fraction(1, 2**16), Fraction(2**16)),
            ("pixel aspect", self.pixel_aspect, Fraction(1, 2**8), Fraction(2**8)),
            ("GOP length", self.gop, 1, 2**10),
            ("overlap", self.overlap, 0, self.gop // 2),
            ("steps", self.steps, 2, 255),
            ("ODE steps", self.ode_steps, 1, self.steps),
            ("shift", self.shift, 1 / UNIT, 255),
            ("g_scale", self.g_scale, 0, 255),
            ("knob", self.knob, 1, 2),
            ("reuse", self.reuse, 1, 255),
            ("seed", self.seed, 0, coders.row(self.coder).most_seed),
        ):
            if not low <= value <= high:
                raise Corrupt(f"{name} is {value}, expected {low} to {high}")
        coder = coders.row(self.coder)
        if not coder.has_size(self.codebook_size):
            raise Corrupt(f"codebook size {self.codebook_size} does not fit coder {self.coder}")
        if self.rule not in coder.rules or self.allocation not in coder.allocations:
            asked = f"step rule {self.rule}, allocation {self.allocation}"
            raise Corrupt(f"coder {self.coder} with {asked}")
        if self.schedule:
            self._check_schedule()
        self._check_settings()
        if self.variances and not (self.bases and len(GRID) < len(self.variances) <= 2**10):
            raise Corrupt("variances that no base needs, or too few of them, or too many")
        if self.restorer is not None:
            name, digest = self.restorer
            if not (self.bases and name and is_name(name.encode()) and len(digest) == 8):
                raise Corrupt("a restorer that no base needs, or that has no proper name")
        if self.alignment == "pin" and not self.overlap:
            raise Corrupt("GOPs start from no frames of the one before")
        if self.outside and (self.overlap or self.bases):
            raise Corrupt("pictures outside of GOPs that overlap or have bases")
        if self.path != "rf" and self.rule != "posterior":
            raise Corrupt(f"step rule {self.rule} is not defined on path {self.path}")
        pixels = self.width * self.height
        if max(self.width, self.height) > limits.side:
            raise TooLarge(f"{self.width}x{self.height} exceeds the limit of {limits.side} a side")
        # Of a GOP that is only a base the pictures come a few at a time.
        if not self.bases and pixels * min(self.gop, self.frames) > limits.gop_pixels:
            raise TooLarge(f"a GOP of {self.width}x{self.height}x{self.gop} exceeds the limit")

    def _check_settings(self) -> None:
        names = [name for name, _ in self.settings]
        if names != sorted(set(names)) or not all(n and is_name(n.encode()) for n in names):
            raise Corrupt("the prior's settings are not in order or have no proper names")
        longest = max((len(text.encode()) for _, text in self.settings), default=0)
        if len(names) > MOST_SETTINGS or longest > LONGEST_SETTING:
            raise TooLarge(f"{len(names)} settings of the prior, the longest of {longest} bytes")

    def _check_schedule(self) -> None:
        if self.schedule > len(schedules.SCHEDULES):
            raise Unsupported(f"schedule number {self.schedule} is not known to this version")
        steps = len(schedules.SCHEDULES[self.schedule - 1])
        if self.steps - self.ode_steps != steps:
            coded = self.steps - self.ode_steps
            raise Corrupt(f"{coded} coded steps, expected the schedule's {steps}")
        if self.shift != 1:
            raise Corrupt("a schedule with a shift")
        if self.reuse != 1:
            raise Corrupt("a schedule whose steps do not all call the network")


@dataclass(frozen=True)
class GopRecord:
    """One GOP: coded steps `stop` (ODE from there on), `fraction` 256ths of one more where the
    header names a schedule, atoms in all (uniform allocation; else 0)
    and those of the last two latent frames apart (0: they are like the others), the drift check in
    units of 1/16, coded stills (empty: that picture is not given), the coded residual of the last
    latent frame (empty: none), the base (None: the GOP has none), and the range-coded symbols."""

    gop: Gop
    stop: int
    atoms: int
    tail_atoms: int
    check: tuple[int, ...]
    stills: tuple[bytes, ...]
    residual: bytes
    symbols: bytes
    fraction: int = 0
    base: BaseRecord | None = None


def empty_gop(gop: Gop, stills: tuple[bytes, ...] | None = None) -> GopRecord:
    """A GOP's record with nothing coded; without `stills` no picture is given."""
    given = (b"",) * gop.stills if stills is None else stills
    return GopRecord(gop, 0, 0, 0, (0,) * CHECKS, given, b"", b"")


@dataclass(frozen=True)
class Stream:
    """All that a decoder needs, besides the prior."""

    header: Header
    gops: tuple[GopRecord, ...]
    audio: Audio | None = None


# -- writing ----------------------------------------------------------------------------------


def write_header(h: Header) -> bytes:
    """Header bytes, with magic and checksum. Raises FormatError for a field out of range."""
    h.check(Limits(2**16, 2**62))
    flags = FULL_RANGE * h.colour.full_range | AUDIO * h.audio | MULTISTEP * h.multistep
    flags |= SCHEDULE * (h.schedule > 0) | BLEND * (h.alignment == "blend")
    flags |= PIN * (h.alignment == "pin")
    body = b"".join(
        (
            bytes([flags, PATHS.index(h.path), RULES.index(h.rule)]),
            bytes([CODERS.index(h.coder), ALLOCATIONS.index(h.allocation)]),
            bytes([h.steps, h.ode_steps, round(h.knob * KNOB_UNIT)]),
            round(h.shift * UNIT).to_bytes(2, "little"),
            round(h.g_scale * UNIT).to_bytes(2, "little"),
            bytes([h.colour.matrix, h.colour.primaries, h.colour.transfer]),
            h.digest,
            blob(h.prior.encode("ascii")),
            *map(varint, (h.width, h.height, h.frames, h.fps.numerator, h.fps.denominator)),
            *map(varint, (h.gop, h.overlap, h.codebook_size, h.seed)),
            varint(h.schedule) if h.schedule else b"",
            _extension(h) if h.version > 2 else b"",
        )
    )
    data = MAGIC + bytes([h.version]) + blob(body)
    return data + crc(data)


def _extension(h: Header) -> bytes:
    """What versions 3 and 4 have besides."""
    out = varint(h.reuse) + varint(len(h.settings))
    for name, text in h.settings:
        out += blob(name.encode("ascii")) + blob(text.encode())
    if h.version > 3:
        extras = ASPECT * (h.pixel_aspect != 1) | BASES * h.bases | VARIANCES * bool(h.variances)
        extras |= RESTORER * (h.restorer is not None) | PLAIN_RESIDUAL * h.plain_residual
        extras |= OUTSIDE * h.outside
        out += varint(extras)
        if h.pixel_aspect != 1:
            out += b"".join(map(varint, h.pixel_aspect.as_integer_ratio()))
        if h.variances:
            out += blob(bytes(h.variances))
        if h.restorer is not None:
            out += blob(h.restorer.name.encode("ascii")) + h.restorer.digest
    return out


def write_record(kind: int, head: bytes, body: bytes, index: int, header: bytes) -> bytes:
    """A record: kind, head and its checksum, body and its checksum.

    The head's checksum also covers the header's and the record's number, the body's the head's:
    no record checks in another place.
    """
    front = bytes([kind]) + blob(varint(len(body)) + head)
    seal = crc(header[-4:], index.to_bytes(4, "little"), front)
    return front + seal + body + crc(seal, body)


def crc(*parts: bytes) -> bytes:
    """CRC-32 of the parts joined, as 4 bytes."""
    value = 0
    for part in parts:
        value = zlib.crc32(part, value)
    return value.to_bytes(4, "little")


def write_gop(record: GopRecord, index: int, header: bytes) -> bytes:
    """A GOP's record, number `index` of the stream with these header bytes."""
    g = record.gop
    layout = FIRSTS.index(g.first) | LAST * g.last | FADE * (g.fade > 0)
    layout |= RESIDUAL * (record.residual != b"") | FRACTION * (record.fraction > 0)
    layout |= BASE * g.base
    head = bytes([layout]) + varint(g.frames)
    check = b"".join(c.to_bytes(1, "little", signed=True) for c in record.check)
    body = b"".join((
        bytes([record.stop, record.fraction] if record.fraction else [record.stop]), check,
        varint(record.atoms), varint(record.tail_atoms),
        *map(blob, record.stills), blob(record.residual) if record.residual else b"",
        blob(write_base(record.base)) if record.base else b"", record.symbols,
    ))  # fmt: skip
    return write_record(GOP, head, body, index, header)


def gop_size(record: GopRecord) -> int:
    """Bytes of a GOP's record, wherever it stands."""
    return len(write_gop(record, 0, bytes(4)))


def write_audio(audio: Audio, header: bytes) -> bytes:
    """The audio record, number 0 of its stream, so that a player has it before the pictures.

    Raises FormatError for a name that a reader would refuse.
    """
    for name in (audio.codec, audio.layout):
        if not is_name(name.encode()):
            raise Unsupported(f"audio named {name!r} cannot be carried")
    parts = [blob(audio.codec.encode("ascii")), blob(audio.layout.encode("ascii"))]
    parts += map(varint, (audio.rate, audio.time_base.numerator, audio.time_base.denominator))
    parts += [blob(audio.extradata), varint(len(audio.packets))]
    due = 0  # a packet usually starts where the one before it ended: that costs one byte
    for p in audio.packets:
        gap = p.pts - due
        parts += [varint(2 * gap if gap >= 0 else -2 * gap - 1), varint(p.duration), blob(p.data)]
        due = p.pts + p.duration
    return write_record(SOUND, b"", b"".join(parts), 0, header)
