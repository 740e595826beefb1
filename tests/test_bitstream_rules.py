"""What a header, a head and a body may hold: every field's range, every rule of a GOP's place."""

from __future__ import annotations

import dataclasses
from fractions import Fraction
from typing import Any

import faulty_vectors
import pytest
import spec_reader
import whole_files
from test_bitstream import GOLDEN_BYTES, HEADER, record

from gvcc.errors import Corrupt, FormatError, TooLarge, Unsupported
from gvcc.format import bitstream, parser, schedules
from gvcc.format.bitstream import Header, Limits, Stream
from gvcc.search import plan as planning

EDGES = [  # field, name in the message, the last values that are legal, the first that are not
    ("width", "width", (16, 16384), (15, 65536)),
    ("height", "height", (16, 16384), (0, 65536)),
    ("frames", "frames", (1, 2**32 - 1), (0, 2**32)),
    ("fps", "frame rate", (Fraction(1, 2**16), Fraction(2**16)),
     (Fraction(1, 2**16 + 1), Fraction(2**16 + 1))),
    ("pixel_aspect", "pixel aspect", (Fraction(1, 2**8), Fraction(16, 11), Fraction(2**8)),
     (Fraction(1, 2**8 + 1), Fraction(2**8 + 1), Fraction(0))),
    ("gop", "GOP length", (1, 1024), (0, 1025)),
    ("overlap", "overlap", (0, 2), (3,)),
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
        assert parser.read_header(bitstream.write_header(header))[0] == header
    for value in bad:
        header = dataclasses.replace(HEADER, **{field: value})
        with pytest.raises(Corrupt, match=name):
            header.check(Limits())
        with pytest.raises(Corrupt, match=name):
            bitstream.write_header(header)


def test_ranges_of_the_gaussian_coder() -> None:
    paper = dataclasses.replace(HEADER, coder="gaussian", size=2**16, seed=2**31 - 1)
    assert parser.read_header(bitstream.write_header(paper))[0] == paper
    for fields in ({"size": 0}, {"size": 2**16 + 1}, {"seed": 2**31}):
        with pytest.raises(Corrupt):
            dataclasses.replace(paper, **fields).check(Limits())
    for rule in ("em", "ou"):
        with pytest.raises(Corrupt, match="not defined"):
            dataclasses.replace(HEADER, path="vp", rule=rule).check(Limits())


RCC = dataclasses.replace(HEADER, coder="rcc", size=2**14)
STEPS = len(schedules.TABLES[0])
TABLE = dataclasses.replace(HEADER, table=1, steps=STEPS + 5, tail=5, shift=1.0)
PIN = dataclasses.replace(HEADER, overlap=1, alignment="pin")


@pytest.mark.parametrize(
    "base,good,bad",
    [
        (RCC, [{"size": 16}, {"size": 2**16}, {"seed": 2**64 - 1}, {"path": "vp"}],
         [{"size": 0}, {"size": 8}, {"size": 48}, {"size": 2**17}, {"rule": "ou"}, {"rule": "em"},
          {"allocation": "uniform"}]),
        (TABLE, [{"tail": 255 - STEPS, "steps": 255}, {"tail": 1, "steps": STEPS + 1}],
         [{"steps": STEPS + 4}, {"steps": STEPS + 6}, {"tail": 4}, {"shift": 257 / 256},
          {"shift": 255 / 256}]),
        (PIN, [{"overlap": 2}], [{"overlap": 0}, {"overlap": 3}]),
    ],
)  # fmt: skip
def test_ranges_of_the_trajectory_mode(
    base: Header, good: list[dict[str, Any]], bad: list[dict[str, Any]]
) -> None:
    for fields in [{}, *good]:
        header = dataclasses.replace(base, **fields)
        assert parser.read_header(bitstream.write_header(header))[0] == header
    for fields in bad:
        with pytest.raises(Corrupt):
            bitstream.write_header(dataclasses.replace(base, **fields))


def test_unknown_schedules() -> None:
    number = len(schedules.TABLES) + 1
    with pytest.raises(Unsupported, match=f"schedule number {number}"):
        bitstream.write_header(dataclasses.replace(TABLE, table=number))


def test_limits() -> None:
    data, wide = GOLDEN_BYTES, 48 * 32
    parser.parse(data, Limits(side=48, gop_pixels=5 * wide, held_pixels=0))
    for limits in (Limits(side=47), Limits(gop_pixels=5 * wide - 1)):
        with pytest.raises(TooLarge):
            parser.parse(data, limits)


def test_unknown_numbers_name_their_field() -> None:
    for at, what in enumerate(("flags", "path", "rule", "coder", "allocation")):
        data = bytearray(GOLDEN_BYTES)
        data[6 + at] |= 0x80
        with pytest.raises(Unsupported, match=what):
            parser.parse(faulty_vectors.repair(bytes(data)))


def test_another_version_is_named() -> None:
    for version in (1, 7):
        with pytest.raises(Unsupported, match=f"version {version}"):
            parser.parse(GOLDEN_BYTES[:4] + bytes([version]) + GOLDEN_BYTES[5:])


BODY = b"\x01\0\0\0\0\0\0"


@pytest.mark.parametrize(
    "body,what",
    [
        (b"", "stop"),
        (b"\x01\0\0\0", "check"),
        (b"\x01\0\0\0\0", "atoms"),
        (b"\x01\0\0\0\0\0", "tail atoms"),
        (BODY, "still"),
        (BODY + b"\x05ab", "still"),
        (BODY + b"\0", "residual"),
        (BODY + b"\0\0", "announced and empty"),
        (BODY + b"\0\x01", "residual"),
        (b"\x10" + BODY[1:] + b"\0\x01a", "coded steps"),
        (b"\x01\0\0\0\0\x01\0\0\x01a", "atoms"),
        (b"\x01\0\0\0\0\0\x01\0\x01a", "atoms"),
        (BODY + b"\0\x01aabc", "words"),
        (b"\x01\0\0\0\0\x80\0", "shortest"),
        (b"\x01\0\0\0\0" + b"\xff" * 10, "64 bits"),
    ],
)
def test_bodies(body: bytes, what: str) -> None:
    head = bitstream.write_header(dataclasses.replace(HEADER, frames=1, audio=False))
    data = head + bitstream.write_record(0x47, b"\x11\x01", body, 0, head)  # a still, a residual
    with pytest.raises(Corrupt, match=what):
        parser.parse(data)
    with pytest.raises(spec_reader.Bad, match="Corrupt"):
        spec_reader.read(data)


@pytest.mark.parametrize(
    "table,body,what",
    [
        (1, b"", "stop"), (1, b"\x01", "part"), (1, b"\x01\x02\0\0\0", "check"),
        (1, b"\x01\0" + bytes(6), "announced"), (0, b"\x01\x02" + bytes(6), "announced"),
        (1, bytes([STEPS, 1]) + bytes(6), "coded steps"),
    ],
)  # fmt: skip
def test_bodies_with_a_part_of_a_step(table: int, body: bytes, what: str) -> None:
    fields = dict(frames=1, audio=False) | (dict(table=0, shift=3.0) if not table else {})
    head = bitstream.write_header(dataclasses.replace(TABLE, **fields))
    whole = bytes([STEPS - 1, 255]) + bytes(6)
    if table:
        data = head + bitstream.write_record(0x47, b"\x20\x01", whole, 0, head)
        assert parser.parse(data).gops[0].part == 255
    data = head + bitstream.write_record(0x47, b"\x20\x01", body, 0, head)
    with pytest.raises(Corrupt, match=what):
        parser.parse(data)
    with pytest.raises(spec_reader.Bad, match="Corrupt"):
        spec_reader.read(data)


FIRST = b"\x05\x05"  # layout and frames: a still at both ends, 5 frames


@pytest.mark.parametrize(
    "heads,error",
    [
        ([b""], Corrupt), ([b"\0"], Corrupt), ([b"\0\x07\0"], Corrupt),
        ([b"\x40\x05"], Unsupported), ([b"\xff\x05"], Unsupported),
        ([b"\0\0"], Corrupt), ([b"\0\x06"], Corrupt), ([b"\0\x05", b"\0\x03"], Corrupt),
        ([b"\x02\x05"], Corrupt), ([b"\x03\x05"], Corrupt), ([b"\x08\x05"], Corrupt),
        ([b"\x04\x05"], Corrupt), ([b"\x05\x01"], Corrupt), ([b"\0\x05", b"\x03\x03"], Corrupt),
        ([FIRST, b"\x02\x01"], Corrupt), ([FIRST, b"\x02\x04"], Corrupt),
        ([FIRST, b"\x0a\x03"], Corrupt), ([FIRST, b"\x08\x02"], Corrupt),
        ([b"\0\x01", b"\x08\x04"], Corrupt),
    ],
)  # fmt: skip
def test_places(heads: list[bytes], error: type[FormatError]) -> None:
    """Heads of records that no GOP can have there: 7 frames, GOPs of 5, overlap 2."""
    head = bitstream.write_header(dataclasses.replace(HEADER, overlap=2, audio=False))
    bodies = [BODY[:0] + b"\0" * (7 + 2 * (h[:1] == b"\x05")) for h in heads]
    data = head + b"".join(
        bitstream.write_record(0x47, h, b, i, head)
        for i, (h, b) in enumerate(zip(heads, bodies, strict=True))
    )
    with pytest.raises(error) as caught:
        parser.parse(data)
    assert type(caught.value) is error
    with pytest.raises(spec_reader.Bad, match=error.__name__):
        spec_reader.read(data)


def test_layouts_of_a_plan_are_read_back() -> None:
    plans = [("t2v", 0, "fade"), ("t2v", 2, "fade"), ("i2v", 0, "fade"), ("flf2v", 0, "fade")]
    plans += [("auto", 0, "fade"), *(("overlap", 5, alignment) for alignment in planning.SHARING)]
    for mode, overlap, alignment in plans:
        most = 13 if overlap == 5 else 5
        gops = list(planning.plan(23, most, 4, mode, overlap=overlap, alignment=alignment))
        header = dataclasses.replace(HEADER, frames=23, gop=most, overlap=overlap, audio=False,
                                     alignment=alignment)  # fmt: skip
        data = whole_files.write(Stream(header, tuple(map(record, gops))))
        assert [r.gop for r in parser.parse(data).gops] == gops
