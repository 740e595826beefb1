"""Hostile bytes through parse and decode: FormatError or PriorMismatch, or pictures; nothing else,
within a stated time and memory.

Twenty seconds of seeded mutations of the valid vectors here (GVCC_FUZZ_SECONDS sets the time);
tests/fuzz/fuzz_stream.py is the same check driven by coverage, by hand.
"""

from __future__ import annotations

import dataclasses
import io
import os
import random
import resource
import time
from collections import Counter
from contextlib import suppress
from fractions import Fraction
from typing import Any

import faulty_trajectories
import faulty_vectors
import make_vectors
import numpy as np
import pytest
import whole_files

from gvcc import codec
from gvcc.decode import rcc
from gvcc.errors import Corrupt, FormatError, GvccError, PriorMismatch, Truncated
from gvcc.format import bitstream, entropy, gop, parser
from gvcc.format.bitstream import GopRecord, Header, Limits, Stream
from gvcc.format.gop import Gop

SECONDS = float(os.environ.get("GVCC_FUZZ_SECONDS", "20"))
LIMITS = Limits(side=64, gop_pixels=13 * 48 * 48, held_pixels=20 * 48 * 64)
TIME = 40.0  # seconds an example, of all threads together: others may keep the cores busy
MEMORY = 128 * 2**20  # bytes above what the vectors need
WORK = 2**28  # values of gaussian atoms a latent frame; more is slow by nature
STEPS = 40  # of nano; likewise
PRIORS = {name: load() for name, load in make_vectors.LOADERS.items()}
VECTORS = [(faulty_vectors.ROOT / "valid" / f"{n}.gvcc").read_bytes() for n in make_vectors.VALID]
STREAMS = [parser.parse(v) for v in VECTORS]
CHUNKS = {i: make_vectors.coded(s, PRIORS[s.header.prior])
          for i, s in enumerate(STREAMS) if s.header.coder == "rcc"}  # fmt: skip


def decode(data: bytes) -> str:
    """ "pictures", or what was wrong: the error's class and first word. Other errors escape."""
    with suppress(FormatError):
        if too_much_work(parser.read_header(data, LIMITS)[0]):
            return "too much work"
    parsed: FormatError | None = None
    try:
        parser.parse(data, LIMITS)
    except FormatError as e:
        parsed = e
    prior = PRIORS["tiny"]
    try:
        prior = PRIORS.get(parser.read_header(data, LIMITS)[0].prior, PRIORS["tiny"])
        video = codec.decode(data, prior, limits=LIMITS)
    except (FormatError, PriorMismatch) as e:
        place = " in symbols" if parsed is None and isinstance(e, Corrupt) else ""
        concealed = isinstance(e, FormatError) and keep_going(data, prior)
        return "concealed, " * concealed + type(e).__name__ + place
    assert parsed is None, f"decode accepts what parse refuses: {parsed}"
    if random.Random(len(data)).randrange(4) == 0:
        start, end = some_frames(len(data), len(video.frames))
        part = codec.Decoder(io.BytesIO(data), prior, limits=LIMITS, start=start, end=end)
        assert np.array_equal(list(part.pictures()), video.frames[start:end])
    return "pictures"


def too_much_work(h: Header) -> bool:
    """Whether an honest file like this takes longer than a fuzzer can wait."""
    atoms = h.codebook_size * h.width * h.height * h.steps * h.coder.startswith("gaussian")
    return atoms > WORK or (h.prior == "nano" and h.steps > STEPS)


def some_frames(seed: int, count: int) -> tuple[int, int]:
    """A range within so many frames, always the same."""
    start, end = sorted(random.Random(seed).sample(range(count + 1), 2))
    return start, end


def keep_going(data: bytes, prior: Any) -> bool:
    """Whether the file gives pictures in spite of its damage; a range of them must do no harm."""

    def clip(**frames: int) -> codec.Decoder:
        return codec.Decoder(
            io.BytesIO(data), prior, limits=LIMITS, partial=True, keep_going=True, **frames
        )

    try:
        whole = clip()
        shown = sum(1 for _ in whole.pictures())
    except (FormatError, PriorMismatch):
        return False
    assert (whole.damage or whole.cut) and 0 < shown <= whole.count
    assert shown == whole.count or whole.cut
    try:
        start, end = some_frames(len(data), whole.count)
        part = clip(start=start, end=end)
        assert sum(1 for _ in part.pictures()) == part.count or part.cut
    except FormatError:
        pass
    return True


def peak() -> int:
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024


def guarded(data: bytes, memory: int, seconds: float = TIME) -> str:
    """`decode`, and AssertionError for any other error, or beyond the time or memory allowed."""
    before, start = peak(), time.process_time()
    try:
        outcome = decode(data)
    except BaseException as e:  # noqa: B036  constriction's PanicException is no Exception
        if isinstance(e, KeyboardInterrupt):
            raise
        raise AssertionError(f"{type(e).__name__}: {e}, for {data.hex()}") from e
    took = time.process_time() - start
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
    "gop": [0, 1, 2, 5, 9, 1021, 1024], "overlap": [0, 1, 2, 3, 4, 512],
    "rule": list(bitstream.RULES), "path": list(bitstream.PATHS), "coder": list(bitstream.CODERS),
    "allocation": list(bitstream.ALLOCATIONS), 
    "codebook_size": [0, 1, 2, 64, 100, 5000, 2**16, 2**16 + 1],
    "schedule": [0, 1, 2, 77], "alignment": list(gop.ALIGNMENTS),
    "seed": [0, 1, 2**31 - 1, 2**31, 2**63, 2**64 - 1], "steps": [0, 2, 3, 8, 40, 255],
    "ode_steps": [0, 1, 2, 7], "shift": [0.0, 1 / 256, 1.0, 255.0, 255.99],
    "g_scale": [0.0, 3.0, 255.0], "knob": [1.0, 1.3, 2.0, 255 / 64],
    "multistep": [False, True], "audio": [False, True],
    "prior": ["tiny", "gauss", "", "x" * 65, "a b"], "digest": [b"\0" * 8],
    "pixel_aspect": [Fraction(1), Fraction(16, 15), Fraction(256), Fraction(1, 257)],
    "reuse": [1, 2, 3, 255, 256], "settings": [(), (("prompt", "é"),), (("b", ""), ("a", ""))],
}  # fmt: skip


def mutate_fields(rng: random.Random) -> bytes:
    """Header fields at their edges, symbols and stops at random, checksums right."""
    number = rng.randrange(len(STREAMS))
    stream = STREAMS[number]
    fields = {n: rng.choice(EXTREMES[n]) for n in rng.sample(list(EXTREMES), rng.choice((0, 1, 2)))}
    gops = []
    for i, g in enumerate(stream.gops):
        kind = rng.randrange(11)
        if kind == 0:
            g = dataclasses.replace(g, symbols=rng.randbytes(4 * rng.randrange(20)))
        elif kind == 1:
            pattern = rng.choice((b"\0", b"\xff", b"\x7f\xff\xff\xff"))
            g = dataclasses.replace(g, symbols=pattern * (4 * rng.randrange(20)))
        elif kind == 2:
            g = dataclasses.replace(g, symbols=one_byte(g.symbols, rng))
        elif kind == 3:
            atoms = rng.choice((0, 1, g.atoms, 100, 2**40))
            g = dataclasses.replace(g, stop=rng.randrange(256), atoms=atoms)
        elif kind == 4:
            g = dataclasses.replace(g, symbols=hostile_symbols(rng))
        elif kind == 5:
            g = dataclasses.replace(g, tail_atoms=rng.choice((0, 1, g.atoms, 2**40)))
        elif kind == 6:
            stills = tuple(one_byte(x, rng) if rng.randrange(2) else b"" for x in g.stills)
            g = dataclasses.replace(g, stills=stills)
        elif kind == 7 and number in CHUNKS:
            symbols = other_chunks(stream.header.codebook_size, CHUNKS[number][i], rng)
            g = dataclasses.replace(g, symbols=symbols)
        elif kind == 8:
            g = dataclasses.replace(g, fraction=rng.choice((0, 1, g.fraction, 255)))
        elif kind == 9:
            g = dataclasses.replace(g, residual=one_byte(g.residual, rng) or b"\0\x80\0\0\0\0")
        else:
            first = rng.choice(gop.FIRSTS)
            place = Gop(0, rng.choice((0, 1, 2, 5, g.gop.frames)), first, rng.random() < 0.3,
                        rng.choice((0, 0, 3)))  # fmt: skip
            g = dataclasses.replace(g, gop=place)
        gops.append(g)
    return faulty_vectors.rebuilt(dataclasses.replace(stream, gops=tuple(gops)), **fields)


def one_byte(data: bytes, rng: random.Random) -> bytes:
    """With one byte changed at random."""
    if not data:
        return data
    at = rng.randrange(len(data))
    return data[:at] + bytes([rng.randrange(256)]) + data[at + 1 :]


def hostile_symbols(rng: random.Random) -> bytes:
    """Well coded numbers, but of the wrong kind or size."""
    w = entropy.SymbolWriter()
    for _ in range(rng.randrange(1, 30)):
        if rng.randrange(2):
            w.rice(rng.choice((0, 1, 2, 9, 200, 2**21, 2**21 + 2, 2**32 - 1)), rng.randrange(6))
        else:
            k = rng.randrange(1, 20)
            w.uniform(np.array([rng.getrandbits(k)]), 1 << k)
    return w.finish()


def other_chunks(size: int, steps: list[Any], rng: random.Random) -> bytes:
    """The chunks of a GOP with another n, c or number in one step, well coded, or with a lie."""
    out = [(c, list(numbers)) for c, numbers in steps] or [(8, [0])]
    at = rng.randrange(len(out))
    c, numbers = out[at]
    kind = rng.randrange(4)
    if kind == 0:  # as many candidates as before, or others
        c = rng.choice((max(0, c - 1), min(63, c + 1), 0, 63, rng.randrange(64)))
    elif kind == 1:
        n = rng.choice((1, 2, len(numbers) + 1, 2 * len(numbers), rng.randrange(1, 400)))
        numbers = (numbers * n)[:n]
    elif kind == 2:
        numbers[rng.randrange(len(numbers))] = rng.randrange(2**16)
    else:
        n = rng.choice((0, 1, 2, 100, 1000, 2**20, 2**31 - 1))
        lie = faulty_trajectories.chunk_head(n, rng.choice((0, c, 63)))
        lie += [("bits", rng.getrandbits(k), k) for k in (5, 6, 24)]
        return faulty_trajectories.chunk_symbols(size, out[:at], lie)
    candidates = rcc.Rcc(0, size).candidates(c)
    out[at] = c, [number % candidates for number in numbers]
    return faulty_trajectories.chunk_symbols(size, out)


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
    return faulty_vectors.repair(data) if rng.random() < 0.7 else data


# -- tests ------------------------------------------------------------------------------------


def empty(frames: int, stop: int = 0, symbols: bytes = b"") -> GopRecord:
    """A first GOP with nothing but symbols."""
    return GopRecord(Gop(0, frames), stop, 0, 0, (0,) * 4, (), b"", symbols)


@pytest.fixture(scope="module")
def memory() -> int:
    """The most memory allowed: what a clip at the limits needs, and MEMORY."""
    header = dataclasses.replace(STREAMS[0].header, width=64, height=48, frames=9)
    assert decode(whole_files.write(Stream(header, (empty(9),)))) == "pictures"
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
        "pictures", "Corrupt", "concealed, Corrupt", "concealed, Corrupt in symbols",
        "concealed, Truncated", "Truncated", "Unsupported", "TooLarge", "PriorMismatch",
    )}  # fmt: skip
    assert min(rare.values()) >= min(5, trial // 1000), f"{trial} examples: {seen}"
    print(f"{trial} examples: {dict(seen)}")


def test_announced_frames_take_no_memory(memory: int) -> None:
    header = dataclasses.replace(STREAMS[0].header, width=16, height=16, frames=2**24, gop=1)
    data, start = bitstream.write_header(header), time.process_time()
    with pytest.raises(Truncated):
        codec.decode(data, PRIORS["tiny"])
    assert time.process_time() - start < 5 and peak() < memory


@pytest.mark.parametrize("count", [4097, 2**15, 2**20])
def test_announced_atoms_take_no_time(count: int) -> None:
    stream = STREAMS[list(make_vectors.VALID).index("gaussian-matched")]
    header = dataclasses.replace(stream.header, codebook_size=2**16, frames=1)
    for room in (0, 4 * 2**16):
        symbols = faulty_vectors.sink(("rice", 2 * count, 0)) + b"\0" * room
        data = whole_files.write(Stream(header, (empty(1, 1, symbols),)))
        start = time.process_time()
        with pytest.raises(Corrupt):
            codec.decode(data, PRIORS["tiny"])
        assert time.process_time() - start < 5


@pytest.mark.parametrize("c", [1, 20, 56, 63])
def test_announced_chunks_take_no_memory(memory: int, c: int) -> None:
    """In a latent of 2^26 values. (2^20 - 1 chunks of at most 8 candidates are not refused: their
    likeliest number costs less than a bit.)"""
    coder = rcc.Rcc(1, 2**16)
    for n in (0, 2**20 - (c > 4), 2**20, 2**26, 2**26 + 1, 2**31 - 1):
        reader = entropy.SymbolReader(faulty_vectors.sink(*faulty_trajectories.chunk_head(n, c)))
        start = time.process_time()
        with pytest.raises(Corrupt, match="announced|chunks of 67108864 values"):
            coder.read(2**26, rcc.Law(), reader)
        assert time.process_time() - start < 1 and peak() < memory


def test_announced_packets_take_no_memory() -> None:
    stream = STREAMS[list(make_vectors.VALID).index("audio")]
    head = bitstream.write_header(stream.header)
    name = b"\x04opus\x04mono\x01\x01\x01"
    for count in (2**32, 2**63):
        payload = name + b"\0" + bitstream.varint(count) + b"\0" * 30
        with pytest.raises(Corrupt):
            parser.parse(head + bitstream.write_record(0x41, b"", payload, 0, head))


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
        m.setattr(codec, "decode", lambda *_, **__: sum(range(10**6)))
        with pytest.raises(AssertionError, match=r"s for"):
            guarded(VECTORS[0], memory, 0.001)
        # More than the process ever held: a smaller array may fit below an earlier test's peak.
        m.setattr(codec, "decode", lambda *_, **__: np.ones(peak() // 8 + 2**25).sum())
        with pytest.raises(AssertionError, match="bytes too many"):
            guarded(VECTORS[0], peak() + 2**20)
    with monkeypatch.context() as m:
        m.setattr(codec, "decode", lambda *_, **__: None)
        with pytest.raises(AssertionError, match="refuses"):
            guarded(VECTORS[0] + b"\0", memory)
