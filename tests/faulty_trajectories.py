"""Faulty vectors of schedules, `rcc` and GOPs that overlap, made of valid ones."""

from __future__ import annotations

import dataclasses
from typing import Any

import numpy as np
from faulty_vectors import ROOT, header_end, patched, rebuilt, sink

from gvcc.decode import rcc
from gvcc.format import entropy, parser
from gvcc.format.bitstream import Stream, empty_gop
from gvcc.format.gop import Gop


def load(name: str) -> Stream:
    return parser.parse((ROOT / "valid" / f"{name}.gvcc").read_bytes())


def chunk_head(n: int, c: int) -> list[tuple[Any, ...]]:
    """What stands before a step's chunks, as calls of `sink`."""
    return [("bits", n.bit_length(), 5), ("bits", n, n.bit_length()), ("bits", c, 6)]


def chunk_symbols(size: int, steps: list[tuple[int, list[int]]], then: Any = ()) -> bytes:
    """Symbols of whole steps (c, numbers), and after them the calls `then` of a SymbolWriter."""
    writer, law, coder = entropy.SymbolWriter(), rcc.Law(), rcc.Rcc(0, size)
    for c, numbers in steps:
        coder.write(rcc.Chunks(c, np.array(numbers, dtype=np.int64)), law, writer)
    for name, *args in then:
        getattr(writer, name)(*args)
    return writer.finish()


def faulty() -> dict[str, tuple[str, str, bytes]]:
    """name: what it lies about, the error, the bytes."""
    pin, blend, parted = load("rcc-pin"), load("blend-rcc"), load("rcc-part")
    stop = load("rcc-stop")  # one GOP of 270 values, chunks of at most 64 candidates
    raw = (ROOT / "valid" / "rcc-stop.gvcc").read_bytes()
    whole = (ROOT / "valid" / "rcc-pin.gvcc").read_bytes()
    plain = load("default")
    last = header_end(raw) - 5  # the schedule's number
    deepest = stop.header.steps - stop.header.ode_steps

    def body(symbols: bytes = b"", step: int = 1, part: bytes = b"") -> bytes:
        return bytes([step]) + part + bytes(6) + symbols

    def with_gops(base: Stream, *gops: Any, **fields: Any) -> bytes:
        return rebuilt(dataclasses.replace(base, gops=gops), **fields)

    def chunks(n: int, c: int, *after: Any) -> bytes:
        return rebuilt(stop, [body(sink(*chunk_head(n, c), *after))])

    def with_part(step: int, part: int) -> bytes:
        gop = dataclasses.replace(stop.gops[0], fraction=1)  # for the layout's bit
        return rebuilt(dataclasses.replace(stop, gops=(gop,)), [body(b"", step, bytes([part]))])

    cut = dataclasses.replace(parted.gops[0], symbols=parted.gops[0].symbols[:8])
    c, u = "Corrupt", "Unsupported"
    return {
        "schedule-zero": ("schedule 0", c, patched(raw, last, b"\0")),
        "schedule-unknown": ("schedule 127, which nobody knows", u, patched(raw, last, b"\x7f")),
        "schedule-steps": ("one step more than the schedule has", c,
                           rebuilt(stop, steps=stop.header.steps + 1)),
        "schedule-tail": ("one step of the tail more, and so one of the schedule less", c,
                          rebuilt(stop, ode_steps=stop.header.ode_steps + 1)),
        "schedule-shift": ("a shift of 3 beside a schedule", c, rebuilt(stop, shift=3.0)),
        "schedule-stop": ("one coded step more than the schedule has", c,
                          rebuilt(stop, [body(b"", deepest + 1)])),
        "part-zero": ("a part of a step that is 0", c, with_part(1, 0)),
        "part-beyond": ("a part of a step after the last", c, with_part(deepest, 9)),
        "part-alone": ("a part of a step in a stream without a schedule", c,
                       with_gops(plain, dataclasses.replace(plain.gops[0], stop=1, fraction=9))),
        "blend-and-pin": ("frames that are both blended and pinned", c,
                          patched(whole, 6, bytes([whole[6] | 16]))),
        "pin-alone": ("pinned GOPs without overlap", c, rebuilt(pin, overlap=0)),
        "pin-stride": ("2 pinned frames, against the prior's stride", c,
                       rebuilt(pin, overlap=2, frames=pin.header.frames + 6)),
        "pin-after-short": ("a GOP that starts from 5 frames after one of 3", c,
                            with_gops(pin, empty_gop(Gop(0, 3)),
                                      empty_gop(Gop(-2, 10, "previous", context=5)), frames=8)),
        "pin-only-repeats": ("a pinned GOP with no new frame", c,
                             with_gops(pin, empty_gop(Gop(0, 9)),
                                       empty_gop(Gop(4, 5, "previous", context=5)))),
        "blend-condition": ("a GOP with a condition in a blended stream", c,
                            with_gops(blend, blend.gops[0],
                                      empty_gop(Gop(20, 20, "previous")))),
        "blend-still": ("a GOP with stills in a blended stream", c,
                        with_gops(blend, empty_gop(Gop(0, 21, "still", True)))),
        "rcc-rule": ("coder rcc with step rule ou", c, rebuilt(stop, rule="ou")),
        "rcc-allocation": ("coder rcc with uniform allocation", c,
                           rebuilt(stop, allocation="uniform")),
        "rcc-size": ("chunks of at most 100 candidates", c, rebuilt(stop, codebook_size=100)),
        "rcc-small": ("chunks of at most 8 candidates", c, rebuilt(stop, codebook_size=8)),
        "rcc-large": ("chunks of at most 2^17 candidates", c, rebuilt(stop, codebook_size=2**17)),
        "rcc-atoms": ("atoms beside chunks", c,
                      rebuilt(stop, [bytes([1, 0, 0, 0, 0, 1, 0]) + bytes(4)])),
        "no-chunks": ("a step of no chunks", c, chunks(0, 8)),
        "many-chunks": ("271 chunks of 270 values", c, chunks(271, 8)),
        "absurd-chunks": ("2^31 - 1 chunks", c, chunks(2**31 - 1, 8)),
        "empty-chunks": ("200 chunks of 270 values, 2 in each", c, chunks(200, 8)),
        "chunks-beyond": ("270 chunks of 64 candidates in a record of two words", c,
                          chunks(270, 63)),
        "cut-chunks": ("the first two words of a GOP's chunks", c,
                       with_gops(parted, cut, *parted.gops[1:])),
        "second-step": ("a second step of no chunks", c,
                        rebuilt(stop, [body(chunk_symbols(64, [(8, [3, 0, 15])],
                                                          chunk_head(0, 8)), 2)])),
    }  # fmt: skip
