"""The faulty vectors, made of valid ones, and tools to break streams. Those of schedules, `rcc` and
overlapping GOPs are in faulty_trajectories.py."""

from __future__ import annotations

import dataclasses
import zlib
from pathlib import Path
from typing import Any

from gvcc.format import bitstream, entropy, parser
from gvcc.format.bitstream import GopRecord, Stream
from gvcc.format.cursor import varint
from gvcc.format.gop import Gop

ROOT = Path(__file__).parent / "vectors"
SHORT = {"codebook_size": "size", "ode_steps": "tail", "schedule": "table", "chained": "tail"}
"""Fields whose names in the vectors, which stay, are shorter."""


def read_varint(data: bytes, at: int) -> tuple[int, int]:
    """A varint of any form, and where it ends; IndexError at the end of the data."""
    value = shift = 0
    while True:
        value |= (data[at] & 127) << shift
        at, shift = at + 1, shift + 7
        if data[at - 1] < 128:
            return value, at


def repair(data: bytes) -> bytes:
    """The file with right checksums, as far as its lengths make sense."""
    out = bytearray(data)
    try:
        length, at = read_varint(out, 5)
        seal = at + length
        if seal + 4 > len(out):
            return bytes(out)
        out[seal : seal + 4] = zlib.crc32(out[:seal]).to_bytes(4, "little")
        at, index = seal + 4, 0
        while True:
            length, head = read_varint(out, at + 1)
            end = head + length
            if end + 4 > len(out):
                return bytes(out)
            bound = out[seal : seal + 4] + index.to_bytes(4, "little")
            out[end : end + 4] = zlib.crc32(bound + out[at:end]).to_bytes(4, "little")
            size, _ = read_varint(out, head)
            body = end + 4
            stop = body + size
            if stop + 4 > len(out):
                return bytes(out)
            out[stop : stop + 4] = zlib.crc32(out[end:stop]).to_bytes(4, "little")
            at, index = stop + 4, index + 1
    except IndexError:
        return bytes(out)


def header_end(data: bytes) -> int:
    length, at = read_varint(data, 5)
    return at + length + 4


def patched(data: bytes, at: int, new: bytes, old: int | None = None) -> bytes:
    """`data` with `old` bytes (as many as `new` by default) at `at` replaced, and repaired."""
    return repair(data[:at] + new + data[at + (len(new) if old is None else old) :])


def rebuilt(stream: Stream, bodies: list[bytes] | None = None, **fields: Any) -> bytes:
    """The stream with other header fields (not checked) and, if given, other GOP bodies."""
    check, bitstream.Header.check = bitstream.Header.check, lambda *_: None  # type: ignore
    try:
        head = bitstream.write_header(dataclasses.replace(stream.header, **fields))
    finally:
        bitstream.Header.check = check  # type: ignore
    parts = [head] + ([bitstream.write_audio(stream.audio, head)] if stream.audio else [])
    for i, g in enumerate(stream.gops if bodies is None else bodies):
        at = len(parts) - 1
        if isinstance(g, GopRecord):
            parts.append(bitstream.write_gop(g, at, head))
        else:
            layout = bitstream.write_gop(stream.gops[i], at, head)
            start = read_varint(layout, read_varint(layout, 1)[1])[1]
            end = read_varint(layout, 1)[1] + layout[1]
            parts.append(bitstream.write_record(0x47, layout[start:end], g, at, head))
    return b"".join(parts)


def sink(*calls: tuple[Any, ...]) -> bytes:
    """Symbols made by calls of a SymbolWriter: ("bits", 3, 6), ("rice", 1, 0)."""
    w = entropy.SymbolWriter()
    for name, *args in calls:
        getattr(w, name)(*args)
    return w.finish()


def faulty() -> dict[str, tuple[str, str, bytes]]:
    """name: what it lies about, the error, the bytes. All from a few of the valid vectors."""
    data = (ROOT / "valid" / "audio.gvcc").read_bytes()
    stream, head = parser.parse(data), header_end(data)
    uniform = parser.parse((ROOT / "valid" / "ou.gvcc").read_bytes())
    silent = dataclasses.replace(
        stream, audio=None, header=dataclasses.replace(stream.header, audio=False)
    )
    one = dataclasses.replace(silent, gops=silent.gops[:1])
    paper = parser.parse((ROOT / "valid" / "paper.gvcc").read_bytes())
    sizes = [len(bitstream.write_gop(g, i, data[:head])) for i, g in enumerate(stream.gops)]
    sound = head
    first = len(data) - sum(sizes)
    second = first + sizes[0]
    chained = parser.parse((ROOT / "valid" / "i2v.gvcc").read_bytes())

    vvc = parser.parse((ROOT / "valid" / "i2v-refresh.gvcc").read_bytes())
    split = vvc.gops[0].stills[0][:-20] + b"\0\0\1" + vvc.gops[0].stills[0][-20:]

    def flipped(at: int) -> bytes:
        return data[:at] + bytes([data[at] ^ 1]) + data[at + 1 :]

    def gop_with(symbols: bytes, stop: int = 1, atoms: int = 0, tail_atoms: int = 0) -> bytes:
        return bytes([stop, 0, 0, 0, 0]) + varint(atoms) + varint(tail_atoms) + symbols

    def with_gops(base: Stream, *gops: GopRecord, **fields: Any) -> bytes:
        return rebuilt(dataclasses.replace(base, gops=gops), **fields)

    def empty(*place: Any, **also: Any) -> GopRecord:
        g = Gop(*place, **also)
        return GopRecord(g, 0, 0, 0, (0,) * 4, (b"",) * g.stills, b"", b"")

    def other_still(change: Any) -> bytes:
        g = chained.gops[0]
        return with_gops(chained, dataclasses.replace(g, stills=(change(g.stills[0]),)),
                         *chained.gops[1:])  # fmt: skip

    def other_residual(change: Any) -> bytes:
        g = chained.gops[0]
        return with_gops(chained, dataclasses.replace(g, residual=change(g.residual)),
                         *chained.gops[1:])  # fmt: skip

    def matched(symbols: bytes, **fields: Any) -> bytes:
        return rebuilt(one, [gop_with(symbols)], frames=5, **fields)

    prefix = 6  # magic, version, and a length of one byte
    where = {"flags": 0, "path": 1, "rule": 2, "coder": 3, "allocation": 4}
    where = {field: prefix + at for field, at in where.items()}
    c, u, t, p = "Corrupt", "Unsupported", "Truncated", "PriorMismatch"
    return {
        "empty": ("nothing at all", c, b""),
        "magic": ("the first byte", c, repair(b"\x89" + data[1:])),
        "version": ("its version, 1", u, patched(data, 4, b"\1")),
        "header-checksum": ("the header's checksum", c,
                            flipped(head - 1)),
        "head-checksum": ("a bit in the head of the second GOP's record", c, flipped(second + 3)),
        "body-checksum": ("a bit in the second GOP's body", c, flipped(second + 12)),
        "audio-checksum": ("a bit in the audio", c, flipped(sound + 12)),
        "cut-magic": ("ends inside the magic", f"{t}, 0 GOPs whole", data[:3]),
        "cut-header": ("ends inside the header", f"{t}, 0 GOPs whole", data[: head - 6]),
        "cut-record": ("ends inside the second GOP", f"{t}, 1 GOPs whole", data[: second + 9]),
        "cut-boundary": ("ends after the first GOP", f"{t}, 1 GOPs whole", data[:second]),
        "cut-audio": ("ends inside the audio", f"{t}, 0 GOPs whole", data[: sound + 20]),
        "cut-audio-start": ("audio is announced and missing", f"{t}, 0 GOPs whole", data[:sound]),
        "trailing": ("a byte after the last record", c, data + b"\0"),
        "header-leftover": ("a byte after the last field of the header's body", c,
                            patched(patched(data, 5, bytes([data[5] + 1])), head - 4, b"\0", 0)),
        "record-length": ("the first GOP's length reaches past the end", f"{t}, 0 GOPs whole",
                          patched(data, first + 1, b"\5\xff\xff\3", 2)),
        "reserved-flag": ("flag 8, with no number of a schedule", c,
                          patched(data, where["flags"], bytes([data[where["flags"]] | 8]))),
        "long-varint": ("the length of a head, not in its shortest form", c,
                        patched(data, first + 1, bytes([data[first + 1] | 128, 0]), 1)),
        "huge-varint": ("the length of a head, of more than 64 bits", c,
                        patched(data, first + 1, b"\xff" * 9 + b"\x02", 1)),
        "path": ("path 2, which does not exist", u, patched(data, where["path"], b"\2")),
        "rule": ("step rule 3, which does not exist", u, patched(data, where["rule"], b"\3")),
        "coder": ("coder rcc with no candidates", c, patched(data, where["coder"], b"\2")),
        "allocation": ("allocation 2, which does not exist", u,
                       patched(data, where["allocation"], b"\2")),
        "rule-path": ("step rule em on path vp", c, rebuilt(one, path="vp", rule="em")),
        "too-wide": ("40000 pixels wide", "TooLarge", rebuilt(one, width=40000)),
        "too-long": ("2^28 frames, of which nine follow", "Truncated, 1 GOPs whole",
                     rebuilt(one, frames=2**28)),
        "too-much": ("a GOP of 16384x16384x9", "TooLarge",
                     rebuilt(one, width=16384, height=16384, gop=9, frames=9)),
        "too-small": ("15 pixels wide", c, rebuilt(one, width=15)),
        "zero-frames": ("no frames", c, rebuilt(one, frames=0)),
        "zero-rate": ("a frame rate of 0/1", c,
                      patched(data, data.index(b"\x19\1\5", prefix), b"\0")),
        "unreduced-rate": ("a frame rate of 5/5", c,
                           patched(data, data.index(b"\x19\1\5", prefix), b"\5\5")),
        "tail": ("more last steps than steps", c, rebuilt(one, ode_steps=9)),
        "gop-length": ("a GOP length of 6, against the prior's stride", c,
                       rebuilt(silent, gop=6, frames=12)),
        "wrong-path": ("path vp with a prior of path rf", c, rebuilt(one, path="vp", frames=5)),
        "large-codebook": ("a codebook of 2^16 + 1 atoms", c,
                           rebuilt(paper, codebook_size=2**16 + 1)),
        "codebook-size": ("K for a coder that has none", c, rebuilt(one, codebook_size=64)),
        "gaussian-seed": ("a seed of 2^40 for the gaussian codebook", c,
                          rebuilt(paper, seed=2**40)),
        "prior-name": ("a prior with a blank in its name", c, rebuilt(one, prior="ti ny")),
        "unknown-prior": ("a prior that nobody knows", p, rebuilt(one, prior="nobody", frames=5)),
        "wrong-digest": ("the prior's weights", p,
                         rebuilt(one, digest=b"\0" * 8, frames=5)),
        "swapped": ("the order of the two GOPs", c,
                    data[:first] + data[second:] + data[first:second]),
        "kind": ("kind 42 of the first GOP", c, patched(data, first, b"\x42")),
        "no-audio": ("a GOP where the audio is due", c, patched(data, sound, b"\x47")),
        "audio-packets": ("more audio packets than there are", c,
                          patched(data, data.index(b"OpusHead\3") + 8, b"\4")),
        "stop": ("more coded steps than steps but for the last", c,
                 rebuilt(one, [gop_with(b"", 7)], frames=5)),
        "short-body": ("a GOP of 3 bytes", c, rebuilt(one, [b"\0\0\0"], frames=5)),
        "layout": ("a part of a step without a schedule", c, patched(data, first + 3, b"\x20")),
        "unknown-flag": ("flag 64, which is reserved", u, patched(data, where["flags"], b"\x40")),
        "last-flag": ("flag 128, which is reserved", u, patched(data, where["flags"], b"\x80")),
        "unknown-coder": ("coder 4, which does not exist", u, patched(data, where["coder"], b"\4")),
        "unknown-layout": ("layout 64, which does not exist", u,
                           patched(data, first + 3, b"\x40")),
        "head-leftover": ("a byte after the last field of a head", c,
                          patched(patched(data, first + 1, bytes([data[first + 1] + 1])),
                                  first + 5, b"\0", 0)),
        "no-frames": ("a GOP of no frames", c, patched(data, first + 4, b"\0")),
        "long-gop": ("a GOP longer than the GOP length", c, patched(data, first + 4, b"\6")),
        "past-the-end": ("a GOP that ends after the clip", c, patched(data, second + 4, b"\3")),
        "first-chained": ("a first GOP that starts from a picture before it", c,
                          with_gops(one, empty(0, 5, "previous"), frames=5)),
        "no-shared-still": ("a GOP that shares a still which is not there", c,
                            with_gops(silent, empty(0, 5), empty(4, 3, "shared"))),
        "only-repeats": ("a chained GOP with no new frame", c,
                         with_gops(silent, empty(0, 5), empty(4, 1, "previous"))),
        "no-overlap": ("a cross-fade where the header has no overlap", c,
                       with_gops(silent, empty(0, 5), empty(3, 4, fade=2))),
        "fade-from-still": ("a cross-fade into a GOP that starts from a still", c,
                            with_gops(silent, empty(0, 5), empty(3, 4, "still", fade=2),
                                      overlap=2)),
        "fade-too-short": ("a cross-fade over all of a GOP", c,
                           with_gops(silent, empty(0, 5), empty(3, 2, fade=2), overlap=2)),
        "fade-after-short": ("a cross-fade over a GOP that is shorter", c,
                             with_gops(silent, empty(0, 1), empty(0, 5, fade=2),
                                       frames=5, overlap=2)),
        "fade-first": ("a cross-fade into the first GOP", c,
                       with_gops(one, empty(0, 5, fade=2), frames=5, overlap=2)),
        "last-alone": ("a last still without a first picture", c,
                       with_gops(one, empty(0, 5, last=True), frames=5)),
        "last-of-one": ("a last still in a GOP of one frame", c,
                        with_gops(one, empty(0, 1, "still", True), frames=1)),
        "wide-overlap": ("an overlap of more than half a GOP", c, rebuilt(silent, overlap=3)),
        "empty-residual": ("a residual of no bytes", c,
                           rebuilt(chained, [gop_with(b"\0\0", 0)] + [b""] * 2)),
        "short-residual": ("a residual of one byte", c, other_residual(lambda r: b"\0")),
        "torn-residual": ("a residual that is not whole words", c,
                          other_residual(lambda r: r[:-1])),
        "cut-residual": ("a residual without its last words", c,
                         other_residual(lambda r: r[: len(r) // 8 * 4 + 2])),
        "residual-range": ("a residual that no range encoder writes", c,
                           other_residual(lambda r: r[:2] + b"\xff" * (len(r) - 2))),
        "still-codec": ("a still of codec 200", u, other_still(lambda x: b"\xc8" + x[1:])),
        "cut-still": ("half a still", c, other_still(lambda x: x[: len(x) // 2])),
        "start-code": ("a start code inside a still", c,
                       with_gops(vvc, dataclasses.replace(vvc.gops[0], stills=(split,)),
                                 *vvc.gops[1:])),
        "still-length": ("a still longer than its record", c,
                         rebuilt(chained, [bytes(7) + b"\xff\x7f"] + [b""] * 2)),
        "tail-atoms": ("tail atoms where the symbols hold the counts", c,
                       rebuilt(one, [gop_with(b"", 0, 0, 1)], frames=5)),
        "half-word": ("symbols of 5 bytes", c, matched(b"\0" * 5)),
        "matched-atoms": ("a number of atoms where the symbols hold the counts", c,
                          rebuilt(one, [gop_with(b"", 0, 1)], frames=5)),
        "absurd-atoms": ("2^40 atoms in a record of a few bytes", c,
                         rebuilt(uniform, [gop_with(uniform.gops[0].symbols, 6, 2**40)])),
        "too-many-atoms": ("one atom more than the symbols can hold", c,
                           rebuilt(uniform, [gop_with(uniform.gops[0].symbols, 6, 80)])),
        "too-many-counted": ("a count of 1000 with one word of symbols", c,
                             matched(sink(("rice", 2000, 0)))),
        "negative-count": ("a count of -1", c, matched(sink(("rice", 1, 3)))),
        "absurd-count": ("a count of 2^20 + 1", c, matched(sink(("rice", 2**21 + 2, 3)))),
        "outside-range": ("symbols that no range encoder writes", c, matched(b"\xff" * 8)),
        "too-large-set": ("a set of 65 atoms from a codebook of 64", c,
                          rebuilt(paper, [gop_with(b"\1" * 400, 5, 650)])),
        "rank": ("the rank of a subset, which is 2^20 - 1 of 635376", c,
                 rebuilt(paper, [gop_with(sink(("bits", 2**20 - 1, 400)), 5, 40)])),
    }  # fmt: skip
