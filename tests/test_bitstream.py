"""The bytes: literal goldens, round trips, every bit flip, every cut."""

from __future__ import annotations

import dataclasses
import io
from fractions import Fraction
from typing import Any

import faulty_vectors
import numpy as np
import pytest
import spec_reader
import whole_files
from faulty_vectors import SHORT
from hypothesis import given, settings
from hypothesis import strategies as st

from gvcc.errors import Corrupt, FormatError, Truncated
from gvcc.format import base, bitstream, entropy, gop, parser, schedules
from gvcc.format.bitstream import GopRecord, Header, Stream
from gvcc.format.gop import Gop
from gvcc.records import Audio, Colour, Packet

HEADER = Header(
    prior="gauss", digest=bytes(range(8)), width=48, height=32, frames=7,
    fps=Fraction(30000, 1001), colour=Colour(), gop=5, overlap=0, path="rf", rule="posterior",
    coder="hadamard", allocation="matched", codebook_size=0, seed=1, steps=20, ode_steps=5,
    shift=3.0,
    g_scale=0.0, knob=1.0, multistep=True, audio=True,
)  # fmt: skip
SOUND = Audio(
    "opus", 48000, "mono", Fraction(1, 48000), b"Op",
    (Packet(-312, 960, b"ab"), Packet(648, 960, b"c"), Packet(1700, 960, b"")),
)  # fmt: skip
# The example of docs/format.md, section 10.
GOLDEN = [
    "8b 47 56 43  02  29",
    "06  00 02 01 01  14 05 40  00 03  00 00  01 01 01",
    "00 01 02 03 04 05 06 07  05 67 61 75 73 73",
    "30 20 07  b0 ea 01 e9 07  05 00 00 01  e1 a4 ac 36",
    "41 01  26  69 1f f3 d6  04 6f 70 75 73 04 6d 6f 6e 6f  80 f7 02 01 80 f7 02",
    "02 4f 70  03  ef 04 c0 07 02 61 62  00 c0 07 01 63  b8 01 c0 07 00  54 f9 89 41",
    "47 03  0f 00 05  9f b9 2a 0d  01  03 ff 00 7f  00 00  c0 ff 05 48 00 80 fd 5d  e0 fb 01 30",
    "47 03  0a 06 03  02 45 55 8d  00  00 00 00 00  00 00  02 00 53  76 1e 3c 79",
]
GOLDEN_BYTES = bytes.fromhex("".join(GOLDEN))
STARTS = [0, 51, 100, 128]  # of the header and the three records


def record(g: Gop, stop: int = 0, check: tuple[int, ...] = (0,) * 4, **fields: Any) -> GopRecord:
    """A GOP's record with nothing in it but these fields."""
    empty = dict(atoms=0, tail_atoms=0, stills=(b"",) * g.stills, residual=b"", symbols=b"")
    return GopRecord(g, stop, check=check, **(empty | fields))


def example() -> Stream:
    """A GOP of 5 frames without a reference, and one of 3 that starts from its last picture and
    ends with a still (of nonsense)."""
    w, counts = entropy.SymbolWriter(), entropy.Counts()
    counts.write([2, 1], w)
    w.uniform(np.array([5, 1023]), 1024)
    w.uniform(np.array([6]), 1024)
    first = record(Gop(0, 5), 1, (3, -1, 0, 127), symbols=w.finish())
    second = record(Gop(4, 3, "previous", last=True), stills=(b"\0S",))
    return Stream(HEADER, (first, second), SOUND)


def as_spec(data: bytes) -> dict[str, Any]:
    """What gvcc reads, in the spec reader's words."""
    stream = parser.parse(data)
    h = stream.header
    end = parser.read_header(data)[1]
    header = {SHORT.get(k, k): v for k, v in dataclasses.asdict(h).items()} | {
        "digest": h.digest.hex(),
        "fps": h.fps.as_integer_ratio(), "pixel_aspect": h.pixel_aspect.as_integer_ratio(),
        "colour": [h.colour.matrix, h.colour.primaries, h.colour.transfer],
        "flags": h.colour.full_range + 2 * h.audio + 4 * h.multistep + 8 * (h.schedule > 0)
        + 16 * gop.ALIGNMENTS.index(h.alignment),
        "table": h.schedule or None, "variances": list(h.variances),
        "restorer": h.restorer and [h.restorer.name, h.restorer.digest.hex()],
        "shift": int(h.shift * 256), "g_scale": int(h.g_scale * 256), "knob": int(h.knob * 64),
        "crc": int.from_bytes(data[end - 4 : end], "little"),
    }  # fmt: skip
    del header["audio"], header["multistep"]
    gops = [dataclasses.asdict(g) | {"check": list(g.check)} for g in stream.gops]
    for g in gops:
        del g["gop"]["chained"]
        g["part"] = g.pop("fraction")
        if b := g["base"]:
            number, size = base.CODECS.index(b["codec"]), base.SIZES.index(b["size"])
            g["base"] = b | {"codec": number, "size": size}
            if over := g["base"]["over"]:
                over["errors"] = list(over["errors"])
    audio = stream.audio and dataclasses.asdict(stream.audio)
    if audio:
        each = audio["time_base"]
        audio["time_base"] = (each.numerator, each.denominator)
        audio["packets"] = [tuple(p.values()) for p in audio["packets"]]
    return {"header": header, "gops": gops, "audio": audio}


# -- goldens ----------------------------------------------------------------------------------


def test_golden_bytes() -> None:
    assert whole_files.write(example()).hex(" ") == GOLDEN_BYTES.hex(" ")
    assert parser.parse(GOLDEN_BYTES) == example()
    assert [bytes.fromhex(GOLDEN[i])[:1] for i in (4, 6, 7)] == [
        GOLDEN_BYTES[at : at + 1] for at in STARTS[1:]
    ]


def test_golden_bytes_are_those_of_the_document() -> None:
    text = (faulty_vectors.ROOT.parents[1] / "docs" / "format.md").read_text()
    for line in GOLDEN:
        assert f"    {line}" in text


def test_golden_symbols() -> None:
    words = np.frombuffer(example().gops[0].symbols, "<u4")
    assert [hex(w) for w in words] == ["0x4805ffc0", "0x5dfd8000"]
    seen = spec_reader.read(GOLDEN_BYTES, 20)  # D = 480
    assert seen["gops"][0]["coded"] == [[[(2, 1), (511, 1)], [(3, 0)]]]


def test_varint() -> None:
    for value, hexes in (
        (0, "00"), (127, "7f"), (128, "8001"), (300, "ac02"), (2**64 - 1, "ff" * 9 + "01"),
    ):  # fmt: skip
        assert bitstream.varint(value).hex() == hexes


# -- round trips ------------------------------------------------------------------------------

names = st.text(st.characters(min_codepoint=33, max_codepoint=126), min_size=1, max_size=20)
byte = st.integers(0, 255)
wide = st.integers(0, 2**64 - 1)


@st.composite
def headers(draw: st.DrawFn) -> Header:
    steps = draw(st.integers(2, 255))
    coder = draw(st.sampled_from(bitstream.CODERS))
    gaussian, rcc = coder.startswith("gaussian"), coder == "rcc"
    rule = "posterior" if rcc else draw(st.sampled_from(bitstream.RULES))
    allocation = "matched" if rcc else draw(st.sampled_from(bitstream.ALLOCATIONS))
    most = draw(st.integers(1, 1024))  # frames of a GOP
    overlap = draw(st.integers(0, most // 2))
    table = draw(st.integers(0, len(schedules.SCHEDULES)))
    tail = draw(st.integers(1, steps))
    if table:
        tail = draw(st.integers(1, 255 - len(schedules.SCHEDULES[table - 1])))
        steps = tail + len(schedules.SCHEDULES[table - 1])
    size = draw(st.integers(1, 2**16)) if gaussian else 2 ** draw(st.integers(4, 16)) if rcc else 0
    fps = st.fractions(Fraction(1, 2**16), 2**16, max_denominator=2**31)
    return Header(
        prior=draw(names), digest=draw(st.binary(min_size=8, max_size=8)),
        width=draw(st.integers(16, 700)), height=draw(st.integers(16, 700)),
        frames=draw(st.integers(1, 4 * most)), fps=draw(fps),
        colour=Colour(draw(byte), draw(byte), draw(byte), draw(st.booleans())),
        gop=most, overlap=overlap,
        path="rf" if rule != "posterior" else draw(st.sampled_from(bitstream.PATHS)),
        rule=rule, coder=coder, allocation=allocation, codebook_size=size,
        seed=draw(st.integers(0, 2**31 - 1 if gaussian else 2**64 - 1)),
        steps=steps, ode_steps=tail, schedule=table,
        alignment=draw(st.sampled_from(gop.ALIGNMENTS if overlap else gop.ALIGNMENTS[:2])),
        shift=1.0 if table else draw(st.integers(1, 65280)) / 256,
        g_scale=draw(st.integers(0, 65280)) / 256,
        knob=draw(st.integers(64, 128)) / 64, multistep=draw(st.booleans()), audio=False,
        reuse=1 if table else draw(st.sampled_from((1, 1, 2, 255))),
        settings=tuple(sorted(draw(st.dictionaries(
            st.text(st.characters(min_codepoint=33, max_codepoint=126), min_size=1, max_size=9),
            st.text(max_size=9), max_size=3)).items())),
        pixel_aspect=draw(st.just(Fraction(1)) | st.fractions(Fraction(1, 256), 256)),
    )  # fmt: skip


@st.composite
def sounds(draw: st.DrawFn) -> Audio:
    packets, due = [], 0
    for _ in range(draw(st.integers(0, 4))):
        start = due + draw(st.integers(-(2**40), 2**40))
        packets.append(Packet(start, draw(st.integers(0, 2**40)), draw(st.binary(max_size=9))))
        due = start + packets[-1].duration
    base = draw(st.fractions(Fraction(1, 10**6), 10, max_denominator=10**6))
    return Audio(
        draw(names), draw(wide), draw(names), base, draw(st.binary(max_size=9)), tuple(packets)
    )


@st.composite
def layouts(draw: st.DrawFn, h: Header) -> list[Gop]:
    """Legal GOPs of any mode that cover the clip."""
    gops: list[Gop] = []
    while (end := gops[-1].end if gops else 0) < h.frames:
        context = h.overlap if h.alignment == "pin" else 1
        firsts = ["none"] + ["still"] * (h.alignment != "blend")
        if gops and h.alignment != "blend":
            firsts += ["previous"] * (gops[-1].frames >= context) + ["shared"] * gops[-1].last
        first = draw(st.sampled_from(firsts))
        skip = {"previous": context, "shared": 1}.get(first, 0)
        fades = first == "none" and gops and gops[-1].frames >= h.overlap
        fade = h.overlap if fades and draw(st.booleans()) else 0
        most = min(h.gop, h.frames - end + skip + fade)
        if most <= skip + fade:
            first, skip, fade, most = "none", 0, 0, min(h.gop, h.frames - end)
        low = max(skip + fade + 1, most - 40)
        frames = draw(st.integers(low, most)) if draw(st.booleans()) else most
        last = first != "none" and frames > 1 and draw(st.booleans())
        context = context if first == "previous" else 1
        gops.append(Gop(end - skip - fade, frames, first, last, fade, context))
    return gops


@st.composite
def streams(draw: st.DrawFn) -> Stream:
    header, gops = draw(headers()), []
    for g in draw(layouts(header)):
        symbols = draw(st.binary(max_size=6)) * 4
        most = 4 * len(symbols) if header.allocation == "uniform" else 0
        stop = draw(st.integers(0, header.steps - header.ode_steps))
        parted = header.schedule and stop < header.steps - header.ode_steps
        gops.append(
            record(
                g, stop, tuple(draw(st.lists(st.integers(-128, 127), min_size=4, max_size=4))),
                fraction=draw(st.integers(0, 255)) if parted else 0,
                atoms=draw(st.integers(0, most)), tail_atoms=draw(st.integers(0, most)),
                stills=tuple(draw(st.binary(max_size=5)) for _ in range(g.stills)),
                residual=draw(st.binary(max_size=5)), symbols=symbols,
            )
        )  # fmt: skip
    audio = draw(st.none() | sounds())
    return Stream(dataclasses.replace(header, audio=audio is not None), tuple(gops), audio)


@settings(deadline=None)
@given(streams())
def test_round_trip(stream: Stream) -> None:
    data = whole_files.write(stream)
    assert parser.parse(data) == stream
    assert spec_reader.read(data) == as_spec(data)


@settings(deadline=None)
@given(streams(), st.data())
def test_both_readers_refuse_the_same_files(stream: Stream, data: st.DataObject) -> None:
    """A byte changed, checksums repaired: both read the same, or both raise the same error."""
    whole = whole_files.write(stream)
    at = data.draw(st.integers(0, len(whole) - 1))
    broken = faulty_vectors.repair(whole[:at] + bytes([data.draw(byte)]) + whole[at + 1 :])
    try:
        found: Any = as_spec(broken)
    except FormatError as e:
        found = type(e).__name__
    try:
        seen: Any = spec_reader.read(broken)
    except spec_reader.Bad as e:
        seen = e.args[0]
    assert seen == found


# -- damage -----------------------------------------------------------------------------------


def test_every_bit_flip_is_detected() -> None:
    for at in range(len(GOLDEN_BYTES)):
        for bit in range(8):
            flipped = bytearray(GOLDEN_BYTES)
            flipped[at] ^= 1 << bit
            with pytest.raises(FormatError):
                parser.parse(bytes(flipped))


def test_every_truncation() -> None:
    for length in range(1, len(GOLDEN_BYTES)):
        with pytest.raises(Truncated) as caught:
            parser.parse(GOLDEN_BYTES[:length])
        assert caught.value.whole_gops == (length >= STARTS[3]), length
    with pytest.raises(Corrupt):
        parser.parse(b"")
    for start in (b"\x00", b"\x8bGVD", b"RIFF", b"\x8bGVD" + GOLDEN_BYTES[4:]):
        with pytest.raises(Corrupt, match="not a gvcc stream"):
            parser.parse(start)


def test_records_are_handed_out_before_a_cut() -> None:
    reader = parser.StreamReader(io.BytesIO(GOLDEN_BYTES[: STARTS[3] + 9]))
    found = reader.records()
    assert next(found) == SOUND
    coded = next(found)
    assert isinstance(coded, parser.StoredGop)
    assert coded.record(reader.header) == example().gops[0]
    with pytest.raises(Truncated, match="1 GOPs are whole, 5 of 7 frames"):
        next(found)


def test_a_damaged_body_leaves_the_records_after_it_readable() -> None:
    data = bytearray(GOLDEN_BYTES)
    data[STARTS[2] + 12] ^= 1
    reader = parser.StreamReader(io.BytesIO(bytes(data)))
    _, first, second = reader.records()
    assert isinstance(first, parser.StoredGop) and isinstance(second, parser.StoredGop)
    assert not first.whole and first.gop == example().gops[0].gop
    with pytest.raises(Corrupt, match="checksum of GOP 0"):
        first.record(reader.header)
    assert second.record(reader.header) == example().gops[1]


class Trickle(io.BytesIO):
    """A file that gives one byte at a time, and counts what was asked for."""

    asked = 0

    def read(self, count: int | None = -1, /) -> bytes:
        self.asked = max(self.asked, count or 0)
        return super().read(1)


def test_reading_takes_what_comes_and_never_asks_for_much() -> None:
    assert next(parser.StreamReader(Trickle(GOLDEN_BYTES)).records()) == SOUND
    head = bitstream.write_header(dataclasses.replace(HEADER, audio=False))
    lie = Trickle(head + b"\x47\xff\xff\xff\xff\x7f" + b"\0" * 50)
    with pytest.raises(Truncated):
        next(parser.StreamReader(lie).records())
    assert lie.asked <= 2**20


def test_a_record_is_bound_to_its_place_and_header() -> None:
    head, sound, first, second = (
        GOLDEN_BYTES[a:b] for a, b in zip(STARTS, [*STARTS[1:], None], strict=True)
    )
    other = bitstream.write_header(dataclasses.replace(HEADER, seed=2))
    for pieces in (
        (head, sound, second, first),
        (head, sound, first, first),
        (head, first, sound, second),
        (other, sound, first, second),
    ):
        with pytest.raises(Corrupt, match="record 0|record 1|record 2"):
            parser.parse(b"".join(pieces))
    # Bodies of equal length in each other's place: the head's checksum is in the body's.
    mine = dataclasses.replace(HEADER, frames=10, audio=False)
    gops = tuple(record(Gop(5 * i, 5), check=(i,) * 4) for i in (0, 1))
    data = whole_files.write(Stream(mine, gops))
    size = (len(data) - len(bitstream.write_header(mine))) // 2
    a, b = data[-2 * size : -size], data[-size:]
    at = 1 + 1 + 3 + 4
    swapped = data[: -2 * size] + a[:at] + b[at:] + b[:at] + a[at:]
    with pytest.raises(Corrupt, match="checksum of GOP 0"):
        parser.parse(swapped)
