"""Faulty vectors of bases (mode v2v)."""

from __future__ import annotations

import dataclasses

from faulty_vectors import ROOT, header_end, patched, rebuilt

from gvcc.format import parser
from gvcc.format.bitstream import GopRecord, Stream
from gvcc.format.cursor import varint


def changed(file: Stream, **fields: object) -> bytes:
    """A file, with other fields of its first GOP's base."""
    first, *rest = file.gops
    assert first.base is not None
    base = dataclasses.replace(first.base, **fields)  # type: ignore[arg-type]
    return rebuilt(dataclasses.replace(
        file, gops=(dataclasses.replace(first, base=base), *rest)))  # fmt: skip


def faulty() -> dict[str, tuple[str, str, bytes]]:
    """name: what it lies about, the error, the bytes."""
    data = {n: (ROOT / "valid" / f"v2v-{n}.gvcc").read_bytes()
            for n in ("av1", "vvc", "av1-half")}  # fmt: skip
    av1, vvc, half = (parser.parse(d) for d in data.values())
    stream, coded = av1.gops[0].base.stream, vvc.gops[0].base.stream  # type: ignore[union-attr]
    first: GopRecord = av1.gops[0]
    end = header_end(data["av1"])
    body = data["av1"].index(stream) - 4  # codec, size, quantiser, use
    over = (ROOT / "valid" / "v2v-over.gvcc").read_bytes()
    traced = parser.parse(over)
    nano, restored = (parser.parse((ROOT / "valid" / f"nano-{n}.gvcc").read_bytes())
                      for n in ("v2v", "restored"))  # fmt: skip
    way = traced.gops[0].base
    assert way is not None and way.over is not None
    told = over.index(way.stream) - 4 - 3 - len(way.over.errors)
    c = "Corrupt"
    return {
        "base-codec": ("a base by codec 2", "Unsupported",
                       patched(data["av1"], body, b"\2")),
        "base-size": ("a base at 1/8 of each side", c, patched(data["av1"], body + 1, b"\3")),
        "base-use": ("a base that is used in an unknown way", "Unsupported",
                     patched(data["av1"], body + 3, b"\1")),
        "base-use-bit": ("a base with a reserved bit", "Unsupported",
                         patched(data["av1"], body + 3, b"\x40")),
        "base-restored": ("a base that is restored by nothing", c,
                          changed(av1, restored=True)),
        "over-restored": ("a trajectory that goes on from a restored base", c,
                          patched(over, told + 3, bytes([over[told + 3] | 32]))),
        "texture-words": ("symbols of a texture that are not whole words", c,
                          changed(restored, texture=bytes(7))),
        "texture-short": ("a texture that ends before its last level", c,
                          changed(restored, texture=bytes.fromhex("b6273b04"))),
        "base-vvc-number": ("sets of VVC of number 2", "Unsupported",
                            changed(vvc, sets=2)),
        "base-difference": ("a difference to the latent of no trajectory", c,
                            patched(data["av1"], body + 3, b"\x10")),
        "over-start": ("a trajectory that begins at its end", c,
                       patched(over, told + 4, b"\0\0")),
        "over-errors": ("variances of five channels, not six", c, changed(
            traced, over=dataclasses.replace(way.over, errors=way.over.errors[:5]))),
        "over-part": ("a part of a step where a base is all", c, rebuilt(dataclasses.replace(
            traced, gops=(dataclasses.replace(
                traced.gops[0], base=dataclasses.replace(way, over=None)), *traced.gops[1:])))),
        "variances-few": ("variances without those of channels", c, rebuilt(
            nano, variances=nano.header.variances[:9])),
        "base-empty": ("a base without a stream", c, changed(av1, stream=b"")),
        "base-unannounced": ("a base in a stream that announces none", "Unsupported",
                             patched(data["av1-half"], header_end(data["av1-half"]) - 7, b"\1")),
        "base-and-fade": ("a base, and a residual", c,
                          patched(data["av1"], head_of(data["av1"], end), b"\x50")),
        "base-symbols": ("a base, and symbols", c, rebuilt(dataclasses.replace(
            av1, gops=(dataclasses.replace(first, symbols=bytes(4)), *av1.gops[1:])))),
        "base-fewer": ("a base of 16 pictures for 17", c,
                       changed(av1, stream=fewer(stream))),
        "base-other-size": ("a base that is coded at another size", c, changed(av1, size=2)),
        "base-other-codec": ("a base in VVC that says AV1", c, changed(vvc, codec="av1")),
        "base-cut": ("an AV1 base that is cut off", c, changed(av1, stream=stream[:-5])),
        "base-vvc-cut": ("a VVC base that is cut off", c, changed(vvc, stream=coded[:-5])),
        "base-start-code": ("a start code inside a VVC base", c, changed(
            vvc, stream=coded + varint(9) + b"\x00\x79\0\0\1\x00\x79abc"[:9])),
        "base-delimiter": ("a temporal delimiter in an AV1 base", c,
                           changed(av1, stream=b"\x12\0" + stream)),
        "base-many": ("a base of 17 pictures for 6", c, changed(half, size=1, stream=stream)),
    }  # fmt: skip


def head_of(data: bytes, at: int) -> int:
    """Where the layout of the first record behind `at` stands."""
    at += 2  # kind, and the length of the head, which is short
    while data[at] > 127:
        at += 1
    return at + 1


def fewer(stream: bytes) -> bytes:
    """An AV1 stream without its last unit."""
    from gvcc.pictures import base

    return b"".join([*base.codec("av1").units(stream)][:-1])
