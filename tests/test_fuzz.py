"""Hostile bytes through parse and decode: FormatError or PriorMismatch, or pictures; nothing else,
within a stated time and memory.

Half a minute of seeded mutations of the valid vectors here (GVCC_FUZZ_SECONDS sets the time);
tests/fuzz/fuzz_stream.py is the same check driven by coverage, by hand.
"""

from __future__ import annotations

import dataclasses
import os
import random
import resource
import time
from collections import Counter
from fractions import Fraction
from typing import Any

import make_vectors
import numpy as np
import pytest

from gvcc import bitstream, codec, entropy
from gvcc.bitstream import GopRecord, Limits, Stream
from gvcc.errors import Corrupt, FormatError, GvccError, PriorMismatch, Truncated

SECONDS = float(os.environ.get("GVCC_FUZZ_SECONDS", "30"))
LIMITS = Limits(side=64, gop_pixels=9 * 48 * 48, total_pixels=16 * 48 * 48)
TIME, MEMORY = 20.0, 128 * 2**20  # seconds an example, bytes above what the vectors need
WORK = 2**22  # values of gaussian atoms a frame-step: more is slow by nature, so only parsed
PRIORS = {name: load() for name, load in make_vectors.LOADERS.items()}
VECTORS = [(make_vectors.ROOT / "valid" / f"{n}.gvcc").read_bytes() for n in make_vectors.VALID]
STREAMS = [bitstream.parse(v) for v in VECTORS]


def decode(data: bytes) -> str:
    """ "pictures", or what was wrong: the error's class and first word. Other errors escape."""
    try:
        stream = bitstream.parse(data, LIMITS)
    except FormatError as e:
        parsed: FormatError | None = e
    else:
        parsed = None
        h = stream.header
        if h.size * h.width * h.height * h.steps > WORK * 64:
            return "too much work"
    try:
        prior = PRIORS.get(bitstream.read_header(data, LIMITS)[0].prior, PRIORS["tiny"])
        codec.decode(data, prior, limits=LIMITS)
    except (FormatError, PriorMismatch) as e:
        place = " in symbols" if parsed is None and isinstance(e, Corrupt) else ""
        return type(e).__name__ + place
    assert parsed is None, f"decode accepts what parse refuses: {parsed}"
    return "pictures"


def peak() -> int:
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024


def guarded(data: bytes, memory: int, seconds: float = TIME) -> str:
    """`decode`, and AssertionError for any other error, or beyond the time or memory allowed."""
    before, start = peak(), time.perf_counter()
    try:
        outcome = decode(data)
    except BaseException as e:  # noqa: B036  constriction's PanicException is no Exception
        if isinstance(e, KeyboardInterrupt):
            raise
        raise AssertionError(f"{type(e).__name__}: {e}, for {data.hex()}") from e
    took = time.perf_counter() - start
    assert took <= seconds, f"{took:.1f} s for {data.hex()}"
    assert peak() <= max(memory, before), f"{peak() - memory} bytes too many for {data.hex()}"
    return outcome


# -- mutations --------------------------------------------------------------------------------


def mutate_bytes(rng: random.Random) -> bytes:
    """Flips, runs, cuts, copies and splices of a vector."""
    data = bytearray(rng.choice(VECTORS))
    for _ in range(rng.choice((1, 1, 2, 5))):
        a = rng.randrange(len(data) + 1)
        b = min(len(data), a + rng.choice((1, 1, 2, 4, 30)))
        other = rng.choice(VECTORS)
        kind = rng.randrange(7)
        if kind == 0 and a < b:
            data[a] ^= 1 << rng.randrange(8)
        elif kind == 1:
            data[a:b] = rng.randbytes(b - a)
        elif kind == 2:
            data[a:b] = b""
        elif kind == 3:
            data[a:a] = rng.choice((b"\0", b"\xff", b"\x80", rng.randbytes(4)))
        elif kind == 4:
            data[a:b] = rng.choice((b"\0", b"\xff", b"\x7f")) * (b - a)
        elif kind == 5:
            c = rng.randrange(len(other))
            data[a:b] = other[c : c + b - a]
        else:
            del data[rng.randrange(len(data) + 1) :]
        if not data:
            break
    return bytes(data)


EXTREMES: dict[str, list[Any]] = {
    "width": [0, 15, 16, 17, 48, 64, 65, 65535], "height": [16, 31, 48], "frames": [0, 1, 3, 9, 16],
    "fps": [Fraction(1, 65536), Fraction(65536), Fraction(24000, 1001), Fraction(2**63, 3)],
    "gop": [0, 1, 2, 5, 9, 1021, 1024], "rule": list(bitstream.RULES),
    "path": list(bitstream.PATHS), "coder": list(bitstream.CODERS),
    "allocation": list(bitstream.ALLOCATIONS), "size": [0, 1, 2, 64, 100, 5000, 2**16, 2**16 + 1],
    "seed": [0, 1, 2**31 - 1, 2**31, 2**63, 2**64 - 1], "steps": [0, 2, 3, 8, 40, 255],
    "tail": [0, 1, 2, 7], "shift": [0.0, 1 / 256, 1.0, 255.0, 255.99],
    "g_scale": [0.0, 3.0, 255.0], "knob": [1.0, 1.3, 2.0, 255 / 64],
    "multistep": [False, True], "audio": [False, True],
    "prior": ["tiny", "gauss", "", "x" * 65, "a b"], "digest": [b"\0" * 8],
}  # fmt: skip


def mutate_fields(rng: random.Random) -> bytes:
    """Header fields at their edges, symbols and stops at random, checksums right."""
    stream = rng.choice(STREAMS)
    fields = {n: rng.choice(EXTREMES[n]) for n in rng.sample(list(EXTREMES), rng.choice((0, 1, 2)))}
    payloads = []
    for g in stream.gops:
        symbols, stop, atoms = g.symbols, g.stop, g.atoms
        kind = rng.randrange(6)
        if kind == 0:
            symbols = rng.randbytes(4 * rng.randrange(20))
        elif kind == 1:
            symbols = rng.choice((b"\0", b"\xff", b"\x7f\xff\xff\xff")) * (4 * rng.randrange(20))
        elif kind == 2 and symbols:
            at = rng.randrange(len(symbols))
            symbols = symbols[:at] + bytes([rng.randrange(256)]) + symbols[at + 1 :]
        elif kind == 3:
            stop, atoms = rng.randrange(256), rng.choice((0, 1, atoms, 100, 2**40))
        elif kind == 4:
            symbols = hostile_symbols(rng)
        payload = bytes([stop]) + rng.randbytes(4) + bitstream.varint(atoms) + symbols
        payloads.append(payload)
    return make_vectors.rebuilt(stream, payloads, **fields)


def hostile_symbols(rng: random.Random) -> bytes:
    """Well coded numbers, but of the wrong kind or size."""
    w = entropy.Writer()
    for _ in range(rng.randrange(1, 30)):
        if rng.randrange(2):
            w.rice(rng.choice((0, 1, 2, 9, 200, 2**21, 2**21 + 2, 2**32 - 1)), rng.randrange(6))
        else:
            k = rng.randrange(1, 20)
            w.uniform(np.array([rng.getrandbits(k)]), 1 << k)
    return w.finish()


def example(trial: int) -> bytes:
    """Example number `trial`: always the same bytes."""
    rng = random.Random(trial)
    kind = rng.random()
    if kind < 0.05:
        data = rng.choice((b"", VECTORS[0][:6])) + rng.randbytes(rng.randrange(200))
    elif kind < 0.55:
        data = mutate_bytes(rng)
    else:
        try:
            data = mutate_fields(rng)
        except (ValueError, OverflowError):  # a field that does not fit its bytes
            data = mutate_bytes(rng)
    return make_vectors.repair(data) if rng.random() < 0.7 else data


# -- tests ------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def memory() -> int:
    """The most memory allowed: what a clip at the limits needs, and MEMORY."""
    header = dataclasses.replace(STREAMS[0].header, width=48, height=48, frames=9)
    still = GopRecord(0, 0, (0, 0, 0, 0), b"")
    assert decode(bitstream.write(Stream(header, (still,)))) == "pictures"
    for data in VECTORS:
        assert decode(data) == "pictures"
    return peak() + MEMORY


@pytest.mark.slow
def test_fuzz(memory: int) -> None:
    seen: Counter[str] = Counter()
    end = time.monotonic() + SECONDS
    trial = 0
    while time.monotonic() < end:
        trial += 1
        try:
            seen[guarded(example(trial), memory)] += 1
        except AssertionError as e:
            raise AssertionError(f"example({trial}): {e}") from e
    # The run is worth something only if it went everywhere.
    rare = {kind: seen[kind] for kind in (
        "pictures", "Corrupt", "Corrupt in symbols", "Truncated", "Unsupported", "TooLarge",
        "PriorMismatch",
    )}  # fmt: skip
    assert min(rare.values()) >= min(5, trial // 400), f"{trial} examples: {seen}"
    print(f"{trial} examples: {dict(seen)}")


def test_announced_frames_take_no_memory(memory: int) -> None:
    header = dataclasses.replace(STREAMS[0].header, width=16, height=16, frames=2**24, gop=1)
    data, start = bitstream.write_header(header), time.perf_counter()
    with pytest.raises(Truncated):
        codec.decode(data, PRIORS["tiny"])
    assert time.perf_counter() - start < 5 and peak() < memory


@pytest.mark.parametrize("count", [4097, 2**15, 2**20])
def test_announced_atoms_take_no_time(count: int) -> None:
    stream = STREAMS[list(make_vectors.VALID).index("gaussian-matched")]
    header = dataclasses.replace(stream.header, size=2**16, frames=1)
    for room in (0, 4 * 2**16):
        symbols = make_vectors.sink(("rice", 2 * count, 0)) + b"\0" * room
        data = bitstream.write(Stream(header, (GopRecord(1, 0, (0,) * 4, symbols),)))
        start = time.perf_counter()
        with pytest.raises(Corrupt):
            codec.decode(data, PRIORS["tiny"])
        assert time.perf_counter() - start < 5


def test_announced_packets_take_no_memory() -> None:
    stream = STREAMS[list(make_vectors.VALID).index("audio")]
    head = bitstream.write_header(stream.header)
    name = b"\x04opus\x04mono\x01\x01\x01"
    for count in (2**32, 2**63):
        payload = name + b"\0" + bitstream.varint(count) + b"\0" * 30
        gops = b"".join(bitstream.write_gop(g, i, head) for i, g in enumerate(stream.gops))
        with pytest.raises(Corrupt):
            bitstream.parse(head + gops + bitstream.write_record(0x41, payload, 2, head))


def test_the_guard_fails(monkeypatch: pytest.MonkeyPatch, memory: int) -> None:
    class Panic(BaseException):
        pass

    def broken(error: BaseException) -> Any:
        def decode(*_: Any, **__: Any) -> None:
            raise error

        return decode

    for error in (KeyError("x"), Panic(), GvccError("x"), MemoryError()):
        with monkeypatch.context() as m:
            m.setattr(codec, "decode", broken(error))
            with pytest.raises(AssertionError, match=type(error).__name__):
                guarded(VECTORS[0], memory)
    with monkeypatch.context() as m:
        m.setattr(codec, "decode", lambda *_, **__: time.sleep(0.05))
        with pytest.raises(AssertionError, match=r"s for"):
            guarded(VECTORS[0], memory, 0.01)
        # More than the process ever held: a smaller array may fit below an earlier test's peak.
        m.setattr(codec, "decode", lambda *_, **__: np.ones(peak() // 8 + 2**25).sum())
        with pytest.raises(AssertionError, match="bytes too many"):
            guarded(VECTORS[0], peak() + 2**20)
    with monkeypatch.context() as m:
        m.setattr(codec, "decode", lambda *_, **__: None)
        with pytest.raises(AssertionError, match="refuses"):
            guarded(VECTORS[0] + b"\0", memory)
