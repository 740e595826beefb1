"""Writes tests/vectors anew; run by hand, on purpose, from anywhere:

python tests/make_vectors.py          all of them
python tests/make_vectors.py nano     only these valid ones (after refitting a shipped prior)
"""

from __future__ import annotations

import dataclasses
import hashlib
import json
import shutil
import sys
import zlib
from collections.abc import Callable
from fractions import Fraction
from pathlib import Path
from typing import Any

import numpy as np
import tiny_prior
from PIL import Image

from gvcc import bitstream, codec, entropy, errors, gop, priors, rate
from gvcc.bitstream import Stream, varint
from gvcc.media import Video
from gvcc.records import Audio, Colour, Packet

ROOT = Path(__file__).parent / "vectors"
RMS, PEAK = 0.5, 4  # grey levels by which another machine's pictures may differ
LOADERS: dict[str, Callable[[], Any]] = {
    "tiny": tiny_prior.load,
    "tiny-vp": lambda: tiny_prior.load("vp"),
    "gauss": lambda: priors.load("gauss"),
    "nano": lambda: priors.load("nano"),
}
SOUND = Audio(
    "opus", 48000, "mono", Fraction(1, 48000), b"OpusHead",
    (Packet(-312, 960, b"\0\1\2"), Packet(648, 960, b"\3"), Packet(1700, 960, b"")),
)  # fmt: skip
_BASE = rate.PRESETS["default"]
_UNIFORM = _BASE | dict(allocation="uniform", shift=3.0, steps=8, tail=2, atoms=2)
PRESETS: dict[str, dict[str, Any]] = {
    "short": _BASE | dict(steps=8, tail=2),
    "ou": _UNIFORM | dict(rule="ou", g_scale=3.0, multistep=False),
    "em": _UNIFORM | dict(rule="em", g_scale=2.0),
    "gaussian-matched": _BASE | dict(coder="gaussian", size=100, steps=8, tail=2),
    "paper-short": rate.PRESETS["paper"] | dict(steps=8, size=64, atoms=4),
}
# name: what it covers, prior, (frames, height, width), settings, fields of the Video
VALID: dict[str, tuple[str, str, tuple[int, int, int], dict[str, Any], dict[str, Any]]] = {
    "default": (
        "the default preset: hadamard, matched, posterior, multistep",
        "tiny", (9, 24, 32), dict(size=220), {},
    ),
    "paper": (
        "gaussian codebook of 64 atoms, uniform, em, no multistep",
        "tiny", (5, 16, 16), dict(preset="paper-short", gop=5), {},
    ),
    "gaussian-matched": (
        "gaussian codebook of 100 atoms with matched counts, some of them 0",
        "tiny", (9, 16, 16), dict(preset="gaussian-matched", size=110), {},
    ),
    "ou": (
        "step rule ou, uniform, hadamard, no multistep",
        "tiny", (5, 16, 16), dict(preset="ou", gop=5), {},
    ),
    "em": (
        "step rule em with multistep, uniform atoms that do not divide evenly, knob 1.5",
        "tiny", (5, 24, 16), dict(preset="em", gop=5, size=120, knob=1.5), {},
    ),
    "vp": (
        "variance preserving path",
        "tiny-vp", (5, 16, 16), dict(preset="short", size=110, gop=5), {},
    ),
    "one-frame": (
        "one frame of 17x33: no size is a multiple of a stride",
        "tiny", (1, 33, 17), dict(preset="short", size=110), {},
    ),
    "short-gop": (
        "GOPs of 5 and 2 frames, 30000/1001 Hz, full range, BT.2020 colour",
        "tiny", (7, 16, 24), dict(preset="short", size=140, gop=5),
        dict(fps=Fraction(30000, 1001), colour=Colour(9, 9, 16, True)),
    ),
    "audio": (
        "audio after two GOPs: packets that start early, on time and late",
        "tiny", (7, 16, 16), dict(preset="short", size=200, gop=5), dict(audio=SOUND),
    ),
    "uncoded": (
        "no coded step at all: the smallest file",
        "tiny", (5, 16, 16), dict(size=0, gop=5), {},
    ),
    "gauss": (
        "the prior gauss as shipped; follows its weights",
        "gauss", (5, 16, 24), dict(preset="short", size=110, gop=5), {},
    ),
    "nano": (
        "the prior nano as shipped; follows its weights",
        "nano", (5, 40, 56), dict(preset="short", size=160, gop=5), {},
    ),
}  # fmt: skip


def clip(frames: int, height: int, width: int) -> np.ndarray:
    """Waves that drift, in colour."""
    t, y, x, c = np.mgrid[:frames, :height, :width, :3]
    wave = np.sin(x / 5 + t / 4 + c) + np.cos(y / 7 - t / 6 + 2 * c)
    return (128 + 55 * wave).astype(np.uint8)


def plain(value: Any) -> Any:
    """Dataclasses, bytes and fractions as JSON knows them."""
    if dataclasses.is_dataclass(value):
        return {f.name: plain(getattr(value, f.name)) for f in dataclasses.fields(value)}
    if isinstance(value, (list, tuple)):
        return [plain(v) for v in value]
    return value.hex() if isinstance(value, bytes) else str(value) if isinstance(value, Fraction) \
        else value  # fmt: skip


def coded(stream: Stream, prior: Any) -> list[list[list[list[tuple[int, int]]]]]:
    """The atoms of each GOP, step and latent frame as (index, minus), by gvcc's own reader."""
    h, out = stream.header, []
    for plan, g in zip(
        gop.plan(h.frames, h.gop, prior.spec.stride[0], h.mode), stream.gops, strict=True
    ):
        c, f, y, x = codec._latent_shape(h, plan, prior)
        coder, reader, model = (
            codec.make_coder(h, c * y * x, "cpu"), entropy.Reader(g.symbols), entropy.Counts(),
        )  # fmt: skip
        dealt = rate.uniform_counts(g.atoms, g.stop, f)
        out.append([])
        for j in range(g.stop):
            counts = model.read(f, reader) if h.allocation == "matched" else dealt[j]
            symbols = [coder.read(m, reader) for m in counts]
            out[-1].append([[(int(s) >> 1, int(s) & 1) for s in part] for part in symbols])
    return out


def digest(atoms: Any) -> str:
    return hashlib.sha256(json.dumps(atoms, separators=(",", ":")).encode()).hexdigest()


def expectation(data: bytes, prior: Any) -> dict[str, Any]:
    """What the JSON beside a valid vector says, but for the tolerance."""
    stream = bitstream.parse(data)
    gops = [
        {"stop": g.stop, "atoms": g.atoms, "check": list(g.check),
         "counts": [[len(f) for f in step] for step in atoms], "sha256": digest(atoms)}
        for g, atoms in zip(stream.gops, coded(stream, prior), strict=True)
    ]  # fmt: skip
    return {"header": plain(stream.header), "gops": gops, "audio": plain(stream.audio)}


def compact(d: dict[str, Any]) -> str:
    """JSON with a line for each key, and for each GOP."""
    lines = []
    for key, value in d.items():
        if key == "gops":
            value = ",\n  ".join(map(json.dumps, value))
            lines.append(f' "gops": [\n  {value}\n ]')
        else:
            lines.append(f" {json.dumps(key)}: {json.dumps(value)}")
    return "{\n" + ",\n".join(lines) + "\n}"


def write_valid(name: str) -> None:
    text, prior_name, size, settings, fields = VALID[name]
    prior = LOADERS[prior_name]()
    video = Video(clip(*size), **({"fps": Fraction(25)} | fields))
    rate.PRESETS.update(PRESETS)
    config = rate.EncodeConfig(**settings)
    if config.size == 0:  # as small as can be
        try:
            codec.encode(video, dataclasses.replace(config, size=1), prior)
        except errors.TargetUnreachable as e:
            config = dataclasses.replace(config, size=e.smallest)
    made = codec.encode(video, config, prior)
    expected = {"covers": text, "prior": prior_name, "rms": RMS, "peak": PEAK}
    path = ROOT / "valid" / f"{name}.gvcc"
    path.write_bytes(made.data)
    lines = compact(expected | expectation(made.data, prior))
    path.with_suffix(".json").write_text(lines + "\n")
    Image.fromarray(made.frames.reshape(-1, size[2], 3)).save(path.with_suffix(".png"))


# -- faulty -----------------------------------------------------------------------------------


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
            length, body = read_varint(out, at + 1)
            end = body + length
            if end + 4 > len(out):
                return bytes(out)
            bound = out[seal : seal + 4] + index.to_bytes(4, "little")
            out[end : end + 4] = zlib.crc32(bound + out[at:end]).to_bytes(4, "little")
            at, index = end + 4, index + 1
    except IndexError:
        return bytes(out)


def header_end(data: bytes) -> int:
    length, at = read_varint(data, 5)
    return at + length + 4


def patched(data: bytes, at: int, new: bytes, old: int | None = None) -> bytes:
    """`data` with `old` bytes (as many as `new` by default) at `at` replaced, and repaired."""
    return repair(data[:at] + new + data[at + (len(new) if old is None else old) :])


def rebuilt(stream: Stream, payloads: list[bytes] | None = None, **fields: Any) -> bytes:
    """The stream with other header fields (not checked) and, if given, other GOP payloads."""
    check, bitstream.Header.check = bitstream.Header.check, lambda *_: None  # type: ignore
    try:
        head = bitstream.write_header(dataclasses.replace(stream.header, **fields))
    finally:
        bitstream.Header.check = check  # type: ignore
    if payloads is None:
        return head + b"".join(bitstream.write_gop(g, i, head) for i, g in enumerate(stream.gops))
    return head + b"".join(bitstream.write_record(0x47, p, i, head) for i, p in enumerate(payloads))


def sink(*calls: tuple[Any, ...]) -> bytes:
    """Symbols made by calls of a Writer: ("bits", 3, 6), ("rice", 1, 0)."""
    w = entropy.Writer()
    for name, *args in calls:
        getattr(w, name)(*args)
    return w.finish()


def faulty() -> dict[str, tuple[str, str, bytes]]:
    """name: what it lies about, the error, the bytes. All from the valid vectors audio and ou."""
    data = (ROOT / "valid" / "audio.gvcc").read_bytes()
    stream, head = bitstream.parse(data), header_end(data)
    uniform = bitstream.parse((ROOT / "valid" / "ou.gvcc").read_bytes())
    silent = dataclasses.replace(
        stream, audio=None, header=dataclasses.replace(stream.header, audio=False)
    )
    one = dataclasses.replace(silent, gops=silent.gops[:1])
    paper = bitstream.parse((ROOT / "valid" / "paper.gvcc").read_bytes())
    sizes = [len(bitstream.write_gop(g, i, data[:head])) for i, g in enumerate(stream.gops)]
    first, second, sound = head, head + sizes[0], head + sum(sizes)

    def flipped(at: int) -> bytes:
        return data[:at] + bytes([data[at] ^ 1]) + data[at + 1 :]

    def gop_with(symbols: bytes, stop: int = 1, atoms: int = 0) -> bytes:
        return bytes([stop, 0, 0, 0, 0]) + varint(atoms) + symbols

    def matched(symbols: bytes, **fields: Any) -> bytes:
        return rebuilt(one, [gop_with(symbols)], frames=5, **fields)

    prefix = 6  # magic, version, and a length of one byte
    where = {"flags": 0, "path": 1, "mode": 2, "rule": 3, "coder": 4, "allocation": 5}
    where = {field: prefix + at for field, at in where.items()}
    c, u, t, p = "Corrupt", "Unsupported", "Truncated", "PriorMismatch"
    return {
        "empty": ("nothing at all", c, b""),
        "magic": ("the first byte", c, repair(b"\x89" + data[1:])),
        "version": ("its version, 2", u, patched(data, 4, b"\2")),
        "header-checksum": ("the header's checksum", c,
                            flipped(head - 1)),
        "record-checksum": ("a bit in the second GOP's payload", c,
                            flipped(second + 4)),
        "cut-magic": ("ends inside the magic", f"{t}, 0 GOPs whole", data[:3]),
        "cut-header": ("ends inside the header", f"{t}, 0 GOPs whole", data[: head - 6]),
        "cut-record": ("ends inside the second GOP", f"{t}, 1 GOPs whole", data[: second + 9]),
        "cut-boundary": ("ends after the first GOP", f"{t}, 1 GOPs whole", data[:second]),
        "cut-audio": ("audio is announced and missing", f"{t}, 2 GOPs whole", data[:sound]),
        "trailing": ("a byte after the last record", c, data + b"\0"),
        "header-leftover": ("a byte after the last field of the header's body", c,
                            patched(patched(data, 5, bytes([data[5] + 1])), head - 4, b"\0", 0)),
        "record-length": ("the first record's length reaches past the end", f"{t}, 0 GOPs whole",
                          data[: first + 1] + b"\xff\x7f" + data[first + 2 :]),
        "reserved-flag": ("flag 8, which is reserved", u,
                          patched(data, where["flags"], bytes([data[where["flags"]] | 8]))),
        "long-varint": ("the record's length, not in its shortest form", c,
                        patched(data, first + 1, bytes([data[first + 1] | 128, 0]), 1)),
        "huge-varint": ("the record's length, of more than 64 bits", c,
                        patched(data, first + 1, b"\xff" * 9 + b"\x02", 1)),
        "path": ("path 2, which does not exist", u, patched(data, where["path"], b"\2")),
        "mode": ("mode 1, which does not exist", u, patched(data, where["mode"], b"\1")),
        "rule": ("step rule 3, which does not exist", u, patched(data, where["rule"], b"\3")),
        "coder": ("coder 2, which does not exist", u, patched(data, where["coder"], b"\2")),
        "allocation": ("allocation 2, which does not exist", u,
                       patched(data, where["allocation"], b"\2")),
        "rule-path": ("step rule em on path vp", c, rebuilt(one, path="vp", rule="em")),
        "too-wide": ("40000 pixels wide", "TooLarge", rebuilt(one, width=40000)),
        "too-long": ("2^28 frames", "TooLarge", rebuilt(one, frames=2**28)),
        "too-much": ("a GOP of 16384x16384x9", "TooLarge",
                     rebuilt(one, width=16384, height=16384, gop=9, frames=9)),
        "too-small": ("15 pixels wide", c, rebuilt(one, width=15)),
        "zero-frames": ("no frames", c, rebuilt(one, frames=0)),
        "zero-rate": ("a frame rate of 0/1", c,
                      patched(data, data.index(b"\x19\1\5", prefix), b"\0")),
        "unreduced-rate": ("a frame rate of 5/5", c,
                           patched(data, data.index(b"\x19\1\5", prefix), b"\5\5")),
        "tail": ("more last steps than steps", c, rebuilt(one, tail=9)),
        "gop-length": ("a GOP length of 6, against the prior's stride", c,
                       rebuilt(silent, gop=6, frames=12)),
        "wrong-path": ("path vp with a prior of path rf", c, rebuilt(one, path="vp", frames=5)),
        "large-codebook": ("a codebook of 2^16 + 1 atoms", c, rebuilt(paper, size=2**16 + 1)),
        "codebook-size": ("K for a coder that has none", c, rebuilt(one, size=64)),
        "gaussian-seed": ("a seed of 2^40 for the gaussian codebook", c,
                          rebuilt(paper, seed=2**40)),
        "prior-name": ("a prior with a blank in its name", c, rebuilt(one, prior="ti ny")),
        "unknown-prior": ("a prior that nobody knows", p, rebuilt(one, prior="nobody", frames=5)),
        "wrong-digest": ("the prior's weights", p,
                         rebuilt(one, digest=b"\0" * 8, frames=5)),
        "swapped": ("the order of the two GOPs", c,
                    data[:first] + data[second:sound] + data[first:second] + data[sound:]),
        "kind": ("kind 42 of the first record", c, patched(data, first, b"\x42")),
        "no-audio": ("a third GOP where the audio is due", c, patched(data, sound, b"\x47")),
        "audio-packets": ("more audio packets than there are", c,
                          patched(data, data.index(b"OpusHead\3") + 8, b"\4")),
        "stop": ("more coded steps than steps but for the last", c,
                 patched(data, first + 2, b"\7")),
        "short-payload": ("a GOP of 3 bytes", c, rebuilt(one, [b"\0\0\0"], frames=5)),
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


def write_faulty() -> None:
    for name, (_, _, data) in faulty().items():
        (ROOT / "faulty" / f"{name}.gvcc").write_bytes(data)


def write_list() -> None:
    """README.md; the tests read it, and demand that it and the folders agree."""
    lines = [
        "# Vectors", "", "Written by `tests/make_vectors.py`, this list too.", "",
        "## valid", "",
        "Beside each: what a decoder must find in it (`.json`: header, counts, SHA-256 of the",
        "atoms, tolerance of the pictures in grey levels) and its frames, one below the other",
        "(`.png`). The prior `tiny` is in `tests/tiny_prior.py`.", "",
        "| file | covers |", "|---|---|",
        *(f"| `{name}.gvcc` | {v[0]} |" for name, v in VALID.items()),
        "", "## faulty", "",
        "| file | lies about | error |", "|---|---|---|",
        *(f"| `{name}.gvcc` | {text} | {error} |" for name, (text, error, _) in faulty().items()),
    ]  # fmt: skip
    (ROOT / "README.md").write_text("\n".join(lines) + "\n")


def main(names: list[str]) -> None:
    if not names:
        for group in ("valid", "faulty"):
            shutil.rmtree(ROOT / group, ignore_errors=True)
            (ROOT / group).mkdir(parents=True)
    for name in names or VALID:
        write_valid(name)
    if not names:
        write_faulty()
    write_list()


if __name__ == "__main__":
    main(sys.argv[1:])
