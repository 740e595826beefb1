"""The bytes: literal goldens, round trips, every bit flip, every cut, every field's range."""

from __future__ import annotations

import dataclasses
from fractions import Fraction
from typing import Any

import make_vectors
import numpy as np
import pytest
import spec_reader
from hypothesis import given, settings
from hypothesis import strategies as st

from gvcc import bitstream, entropy
from gvcc.bitstream import GopRecord, Header, Limits, Stream
from gvcc.errors import Corrupt, FormatError, TooLarge, Truncated, Unsupported
from gvcc.records import Audio, Colour, Packet

HEADER = Header(
    prior="gauss", digest=bytes(range(8)), width=48, height=32, frames=7,
    fps=Fraction(30000, 1001), colour=Colour(), gop=5, mode="t2v", path="rf", rule="posterior",
    coder="hadamard", allocation="matched", size=0, seed=1, steps=20, tail=5, shift=3.0,
    g_scale=0.0, knob=1.0, multistep=True, audio=True,
)  # fmt: skip
SOUND = Audio(
    "opus", 48000, "mono", Fraction(1, 48000), b"Op",
    (Packet(-312, 960, b"ab"), Packet(648, 960, b"c"), Packet(1700, 960, b"")),
)  # fmt: skip
# The example of docs/format.md, section 10.
GOLDEN = [
    "8b 47 56 43  01  29",
    "06  00 00 02 01 01  14 05 40  00 03  00 00  01 01 01",
    "00 01 02 03 04 05 06 07  05 67 61 75 73 73",
    "30 20 07  b0 ea 01 e9 07  05 00 01  3d 1e c6 03",
    "47 0e  01  03 ff 00 7f  00  c0 ff 05 48 00 80 fd 5d  ed 93 56 d2",
    "47 06  00  00 00 00 00  00  1f 46 17 e1",
    "41 26  04 6f 70 75 73 04 6d 6f 6e 6f  80 f7 02 01 80 f7 02  02 4f 70",
    "03  ef 04 c0 07 02 61 62  00 c0 07 01 63  b8 01 c0 07 00  78 9d 08 b0",
]
GOLDEN_BYTES = bytes.fromhex("".join(GOLDEN))
STARTS = [0, 51, 71, 83]  # of the header and the three records


def example() -> Stream:
    w, counts = entropy.Writer(), entropy.Counts()
    counts.write([2, 1], w)
    w.uniform(np.array([5, 1023]), 1024)
    w.uniform(np.array([6]), 1024)
    first = GopRecord(1, 0, (3, -1, 0, 127), w.finish())
    return Stream(HEADER, (first, GopRecord(0, 0, (0, 0, 0, 0), b"")), SOUND)


def as_spec(data: bytes) -> dict[str, Any]:
    """What gvcc reads, in the spec reader's words."""
    stream = bitstream.parse(data)
    h = stream.header
    end = bitstream.read_header(data)[1]
    header = dataclasses.asdict(h) | {
        "digest": h.digest.hex(),
        "fps": (h.fps.numerator, h.fps.denominator),
        "colour": [h.colour.matrix, h.colour.primaries, h.colour.transfer],
        "flags": h.colour.full_range + 2 * h.audio + 4 * h.multistep,
        "shift": int(h.shift * 256), "g_scale": int(h.g_scale * 256), "knob": int(h.knob * 64),
        "crc": int.from_bytes(data[end - 4 : end], "little"),
    }  # fmt: skip
    del header["audio"], header["multistep"]
    gops = [dataclasses.asdict(g) | {"check": list(g.check)} for g in stream.gops]
    audio = stream.audio and dataclasses.asdict(stream.audio)
    if audio:
        base = audio["time_base"]
        audio["time_base"] = (base.numerator, base.denominator)
        audio["packets"] = [tuple(p.values()) for p in audio["packets"]]
    return {"header": header, "gops": gops, "audio": audio}


# -- goldens ----------------------------------------------------------------------------------


def test_golden_bytes() -> None:
    assert bitstream.write(example()).hex(" ") == GOLDEN_BYTES.hex(" ")
    assert bitstream.parse(GOLDEN_BYTES) == example()
    assert [bytes.fromhex(GOLDEN[i])[:1] for i in (4, 5, 6)] == [
        GOLDEN_BYTES[at : at + 1] for at in STARTS[1:]
    ]


def test_golden_bytes_are_those_of_the_document() -> None:
    text = (make_vectors.ROOT.parents[1] / "docs" / "format.md").read_text()
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
    gaussian = coder == "gaussian"
    rule = draw(st.sampled_from(bitstream.RULES))
    gop = draw(st.integers(1, 1024))
    fps = st.fractions(Fraction(1, 2**16), 2**16, max_denominator=2**31)
    return Header(
        prior=draw(names), digest=draw(st.binary(min_size=8, max_size=8)),
        width=draw(st.integers(16, 700)), height=draw(st.integers(16, 700)),
        frames=draw(st.integers(1, 4 * gop)), fps=draw(fps),
        colour=Colour(draw(byte), draw(byte), draw(byte), draw(st.booleans())),
        gop=gop, mode="t2v",
        path="rf" if rule != "posterior" else draw(st.sampled_from(bitstream.PATHS)),
        rule=rule, coder=coder, allocation=draw(st.sampled_from(bitstream.ALLOCATIONS)),
        size=draw(st.integers(1, 2**16)) if gaussian else 0,
        seed=draw(st.integers(0, 2**31 - 1 if gaussian else 2**64 - 1)),
        steps=steps, tail=draw(st.integers(1, steps)),
        shift=draw(st.integers(1, 65280)) / 256, g_scale=draw(st.integers(0, 65280)) / 256,
        knob=draw(st.integers(64, 128)) / 64, multistep=draw(st.booleans()), audio=False,
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
def streams(draw: st.DrawFn) -> Stream:
    header, gops = draw(headers()), []
    for _ in range(-(-header.frames // header.gop)):
        symbols = draw(st.binary(max_size=6)) * 4
        most = 8 * len(symbols) if header.allocation == "uniform" else 0
        gops.append(
            GopRecord(
                draw(st.integers(0, header.steps - header.tail)),
                draw(st.integers(0, most)),
                tuple(draw(st.lists(st.integers(-128, 127), min_size=4, max_size=4))),
                symbols,
            )  # fmt: skip
        )
    audio = draw(st.none() | sounds())
    return Stream(dataclasses.replace(header, audio=audio is not None), tuple(gops), audio)


@settings(deadline=None)
@given(streams())
def test_round_trip(stream: Stream) -> None:
    data = bitstream.write(stream)
    assert bitstream.parse(data) == stream
    assert spec_reader.read(data) == as_spec(data)


@settings(deadline=None)
@given(streams(), st.data())
def test_both_readers_refuse_the_same_files(stream: Stream, data: st.DataObject) -> None:
    """A byte changed, checksums repaired: both read the same, or both raise the same error."""
    whole = bitstream.write(stream)
    at = data.draw(st.integers(0, len(whole) - 1))
    broken = make_vectors.repair(whole[:at] + bytes([data.draw(byte)]) + whole[at + 1 :])
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
                bitstream.parse(bytes(flipped))


def test_every_truncation() -> None:
    for length in range(1, len(GOLDEN_BYTES)):
        with pytest.raises(Truncated) as caught:
            bitstream.parse(GOLDEN_BYTES[:length])
        assert caught.value.whole_gops == (length >= STARTS[2]) + (length >= STARTS[3]), length
    with pytest.raises(Corrupt):
        bitstream.parse(b"")
    for start in (b"\x00", b"\x8bGVD", b"RIFF", b"\x8bGVD" + GOLDEN_BYTES[4:]):
        with pytest.raises(Corrupt, match="not a gvcc stream"):
            bitstream.parse(start)


def test_records_are_handed_out_before_a_cut() -> None:
    header, start = bitstream.read_header(GOLDEN_BYTES)
    found = bitstream.records(GOLDEN_BYTES[: STARTS[3] - 1], header, start)
    assert next(found) == example().gops[0]
    with pytest.raises(Truncated):
        next(found)


def test_a_record_is_bound_to_its_place_and_header() -> None:
    head, first, second, sound = (
        GOLDEN_BYTES[a:b] for a, b in zip(STARTS, [*STARTS[1:], None], strict=True)
    )
    other = bitstream.write_header(dataclasses.replace(HEADER, seed=2))
    for pieces in (
        (head, second, first, sound),
        (head, first, first, sound),
        (head, sound, first, second),
        (other, first, second, sound),
    ):
        with pytest.raises(Corrupt, match="record 0|record 1"):
            bitstream.parse(b"".join(pieces))


# -- ranges -----------------------------------------------------------------------------------

EDGES = [  # field, name in the message, the last values that are legal, the first that are not
    ("width", "width", (16, 16384), (15, 65536)),
    ("height", "height", (16, 16384), (0, 65536)),
    ("frames", "frames", (1,), (0, 2**32)),
    ("fps", "frame rate", (Fraction(1, 2**16), Fraction(2**16)),
     (Fraction(1, 2**16 + 1), Fraction(2**16 + 1))),
    ("gop", "GOP length", (1, 1024), (0, 1025)),
    ("steps", "steps", (255,), (1, 0)),
    ("tail", "tail", (1, 20), (0, 21)),
    ("shift", "shift", (1 / 256, 255), (0.0, 255 + 1 / 256)),
    ("g_scale", "g_scale", (0.0, 255), (255 + 1 / 256,)),
    ("knob", "knob", (1, 2), (63 / 64, 129 / 64)),
    ("seed", "seed", (0, 2**64 - 1), (-1, 2**64)),
    ("size", "codebook size", (0,), (1, 2**16)),
]  # fmt: skip


@pytest.mark.parametrize("field,name,good,bad", EDGES)
def test_ranges(field: str, name: str, good: tuple[Any, ...], bad: tuple[Any, ...]) -> None:
    for value in good:
        header = dataclasses.replace(HEADER, **{field: value})
        assert bitstream.read_header(bitstream.write_header(header))[0] == header
    for value in bad:
        header = dataclasses.replace(HEADER, **{field: value})
        with pytest.raises(Corrupt, match=name):
            header.check(Limits())
        with pytest.raises(Corrupt, match=name):
            bitstream.write_header(header)


def test_ranges_of_the_gaussian_coder() -> None:
    paper = dataclasses.replace(HEADER, coder="gaussian", size=2**16, seed=2**31 - 1)
    assert bitstream.read_header(bitstream.write_header(paper))[0] == paper
    for fields in ({"size": 0}, {"size": 2**16 + 1}, {"seed": 2**31}):
        with pytest.raises(Corrupt):
            dataclasses.replace(paper, **fields).check(Limits())
    for rule in ("em", "ou"):
        with pytest.raises(Corrupt, match="not defined"):
            dataclasses.replace(HEADER, path="vp", rule=rule).check(Limits())


def test_limits() -> None:
    data, wide = GOLDEN_BYTES, 48 * 32
    bitstream.parse(data, Limits(side=48, gop_pixels=5 * wide, total_pixels=7 * wide))
    for limits in (
        Limits(side=47), Limits(gop_pixels=5 * wide - 1), Limits(total_pixels=7 * wide - 1),
    ):  # fmt: skip
        with pytest.raises(TooLarge):
            bitstream.parse(data, limits)


def test_unknown_numbers_name_their_field() -> None:
    for at, what in enumerate(("flags", "path", "mode", "rule", "coder", "allocation")):
        data = bytearray(GOLDEN_BYTES)
        data[6 + at] |= 0x80
        with pytest.raises(Unsupported, match=what):
            bitstream.parse(make_vectors.repair(bytes(data)))


def test_unknown_version_names_it() -> None:
    with pytest.raises(Unsupported, match="version 7"):
        bitstream.parse(GOLDEN_BYTES[:4] + b"\x07" + GOLDEN_BYTES[5:])


@pytest.mark.parametrize(
    "payload,what",
    [
        (b"", "stop"),
        (b"\x01\0\0\0", "check"),
        (b"\x01\0\0\0\0", "atoms"),
        (b"\x10\0\0\0\0\0", "coded steps"),
        (b"\x01\0\0\0\0\x01", "atoms"),
        (b"\x01\0\0\0\0\0abc", "words"),
        (b"\x01\0\0\0\0\x80\0", "shortest"),
        (b"\x01\0\0\0\0" + b"\xff" * 10, "64 bits"),
    ],
)
def test_gop_payloads(payload: bytes, what: str) -> None:
    head = bitstream.write_header(dataclasses.replace(HEADER, frames=1, audio=False))
    with pytest.raises(Corrupt, match=what):
        bitstream.parse(head + bitstream.write_record(0x47, payload, 0, head))
