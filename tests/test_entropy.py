"""The symbols: literal words, round trips, costs, ranks, counts, and hostile bytes."""

from __future__ import annotations

import itertools
import math
import random
from typing import Any

import numpy as np
import pytest
import spec_reader
from hypothesis import given, settings
from hypothesis import strategies as st

from gvcc.errors import Corrupt
from gvcc.format import entropy
from gvcc.format.entropy import (
    Counter,
    Counts,
    Sink,
    SymbolReader,
    SymbolWriter,
    subset_bits,
    subset_rank,
)

Call = tuple[str, int, int]  # ("uniform" | "bits" | "rice", value, bits or k)


def put(sink: Sink, calls: list[Call]) -> None:
    for name, value, k in calls:
        if name == "uniform":
            sink.uniform(np.array([value], dtype=np.int64), 1 << k)
        else:
            getattr(sink, name)(value, k)


def take(reader: Any, calls: list[Call]) -> list[int]:
    """What a SymbolReader, or the spec reader's Symbols, makes of it."""
    out = []
    for name, _, k in calls:
        if name == "uniform":
            out.append(int(reader.uniform(1, 1 << k)[0]) if hasattr(reader, "uniform")
                       else reader.number(k))  # fmt: skip
        else:
            out.append(getattr(reader, name)(k))
    return out


def call(name: str, values: Any, ks: Any) -> Any:
    return ks.flatmap(lambda k: st.tuples(st.just(name), values(k), st.just(k)))


def below(k: int) -> Any:
    edges = st.sampled_from([0, (1 << k) - 1, 1 << k >> 1]).filter(lambda v: v < 1 << k)
    return st.integers(0, (1 << k) - 1) | edges


calls = st.lists(
    call("uniform", below, st.integers(1, 24))
    | call("bits", below, st.integers(0, 70))
    | call("rice", lambda k: st.integers(0, 40 << k) | st.integers(0, 2**32 - 1),
           st.integers(0, 20)),
    max_size=30,
)  # fmt: skip


# -- goldens ----------------------------------------------------------------------------------


def words(calls: list[Call]) -> list[str]:
    w = SymbolWriter()
    put(w, calls)
    return [f"{v:08x}" for v in np.frombuffer(w.finish(), "<u4")]


@pytest.mark.parametrize(
    "calls,expected",
    [
        ([], ""),
        ([("uniform", 0, 1)], "00000000"),
        ([("uniform", 1, 1)], "80000000"),
        ([("bits", 0x123456789ABC, 48)], "9abc5678 1142cbee"),
        ([("uniform", 0xABCDEF, 24), ("uniform", 0x123456, 24)], "abcdef12 3397fdbb"),
        ([("rice", 5, 0), ("rice", 5, 1), ("rice", 5, 4)], "fb4a0000"),
        ([("rice", 24, 0)], "ffffff00 0bffe800"),
        ([("uniform", 2**24 - 1, 24)] * 4, "ffffffff fe000000 ffffffff 00010000"),
    ],
)
def test_literal_words(calls: list[Call], expected: str) -> None:
    assert " ".join(words(calls)) == expected


def test_atoms_of_more_than_24_bits_are_split() -> None:
    values, size = np.array([0x1234567, 0x0ABCDEF]), 1 << 25
    w, split = SymbolWriter(), SymbolWriter()
    w.uniform(values, size)
    split.uniform(values >> 16, 1 << 9)
    split.uniform(values & 0xFFFF, 1 << 16)
    data = w.finish()
    assert data == split.finish() and w.total == 50
    assert SymbolReader(data).uniform(2, size).tolist() == values.tolist()
    dim = (1 << 23) + 1  # P = 2^24
    atoms = spec_reader.Symbols(data).hadamard(2, dim)
    assert [2 * i + minus for i, minus in atoms] == values.tolist()


# -- round trips and costs --------------------------------------------------------------------


@settings(deadline=None)
@given(calls)
def test_round_trip_and_cost(calls: list[Call]) -> None:
    writer, counter = SymbolWriter(), Counter()
    put(writer, calls)
    put(counter, calls)
    data = writer.finish()
    assert counter.total == writer.total
    assert len(data) % 4 == 0 and writer.total <= 8 * len(data)
    wanted = [value for _, value, _ in calls]
    assert take(SymbolReader(data), calls) == wanted
    assert take(spec_reader.Symbols(data), calls) == wanted


@settings(deadline=None)
@given(calls)
def test_length(calls: list[Call]) -> None:
    writer = SymbolWriter()
    put(writer, calls)
    assert len(writer.finish()) <= 4 * (writer.total // 32 + 1) if writer.total else b"" == b""


def test_length_where_it_is_tightest() -> None:
    """One bit short of whole words is what a rate budget aims at."""
    rng, longest = random.Random(1), 0
    for _ in range(3000):
        writer, left = SymbolWriter(), 63
        while left:
            k = min(rng.choice((1, 3, 5, 7, 13, 16, 17, 20, 23)), left)
            v = rng.choice((0, 1, 2**k - 1, rng.getrandbits(k)))
            writer.uniform(np.array([v]), 1 << k)
            left -= k
        longest = max(longest, len(writer.finish()))
    assert longest == 8


@settings(deadline=None)
@given(st.lists(st.integers(0, 2**20 - 1), max_size=50))
def test_arrays_equal_single_calls(values: list[int]) -> None:
    one, each = SymbolWriter(), SymbolWriter()
    one.uniform(np.array(values, dtype=np.int64), 1 << 20)
    put(each, [("uniform", v, 20) for v in values])
    data = one.finish()
    assert data == each.finish()
    assert SymbolReader(data).uniform(len(values), 1 << 20).tolist() == values


# -- subsets ----------------------------------------------------------------------------------


@pytest.mark.parametrize("size,m", [(1, 0), (1, 1), (5, 2), (7, 7), (8, 3), (9, 0), (10, 5)])
def test_subset_ranks_against_brute_force(size: int, m: int) -> None:
    # The combinatorial number system orders sets by their largest elements first.
    sets = sorted(itertools.combinations(range(size), m), key=lambda s: s[::-1])
    assert len(sets) == math.comb(size, m)
    for rank, s in enumerate(sets):
        assert subset_rank(np.array(s, dtype=np.int64)) == rank
        assert entropy.subset_unrank(rank, size, m).tolist() == list(s)
    assert subset_bits(size, m) == math.ceil(math.log2(len(sets)))


@settings(deadline=None)
@given(st.integers(1, 2**16), st.data())
def test_subset_round_trip(size: int, data: st.DataObject) -> None:
    m = data.draw(st.integers(0, min(size, 64)))
    rank = data.draw(st.integers(0, math.comb(size, m) - 1))
    index = entropy.subset_unrank(rank, size, m)
    assert len(index) == m and (np.diff(index) > 0).all()
    assert m == 0 or 0 <= index[0] and index[-1] < size
    assert subset_rank(index) == rank


def test_published_size() -> None:
    assert subset_bits(16384, 64) + 64 == 664  # instead of 64 (14 + 1) = 960


# -- counts -----------------------------------------------------------------------------------

steps = st.integers(1, 5).flatmap(
    lambda frames: st.lists(
        st.lists(
            st.integers(0, 40) | st.integers(0, entropy.MOST_ATOMS),
            min_size=frames, max_size=frames,
        ),
        max_size=6,
    )
)  # fmt: skip


@settings(deadline=None)
@given(steps)
def test_counts_round_trip_and_cost(steps: list[list[int]]) -> None:
    writer, model = SymbolWriter(), Counts()
    for counts in steps:
        before, cost = writer.total, model.cost(counts, 0)
        model.write(counts, writer)
        assert writer.total - before == cost
    data = writer.finish()
    reader, again, spec = SymbolReader(data), Counts(), spec_reader.Symbols(data)
    seen: list[list[int]] = []
    for counts in steps:
        assert again.read(len(counts), reader) == counts
        seen.append(spec.counts(seen, len(counts)))
    assert seen == steps


def test_counts_cost_little_where_they_grow_smoothly() -> None:
    steps = [[round(1.4**j) + f % 2 for f in range(9)] for j in range(16)]
    counter, model = Counter(), Counts()
    for counts in steps:
        model.write(counts, counter)
    assert counter.total / (9 * 16) < 4


@pytest.mark.parametrize("value", [-1, entropy.MOST_ATOMS + 1])
def test_counts_out_of_range(value: int) -> None:
    w = SymbolWriter()
    w.rice(2 * value if value >= 0 else -2 * value - 1, 3)
    with pytest.raises(Corrupt, match="atoms in one frame-step"):
        Counts().read(1, SymbolReader(w.finish()))


# -- hostile bytes ----------------------------------------------------------------------------


def test_overrun() -> None:
    for data in (b"", b"\0" * 4, b"\0" * 40):
        reader = SymbolReader(data)
        with pytest.raises(Corrupt, match="more symbols"):
            reader.uniform(8 * len(data) + 1, 2)
        reader = SymbolReader(data)
        with pytest.raises(Corrupt, match="more symbols"):
            while True:
                reader.rice(0)
    with pytest.raises(Corrupt, match="more symbols"):
        SymbolReader(b"\0" * 4).uniform(2**62, 2)  # before any memory is taken


def test_half_words() -> None:
    for n in (1, 2, 3, 5, 7):
        with pytest.raises(Corrupt, match="32-bit words"):
            SymbolReader(b"\0" * n)


def test_bytes_that_no_encoder_writes() -> None:
    with pytest.raises(Corrupt, match="range coder"):
        SymbolReader(b"\xff" * 8).uniform(1, 2)


@settings(deadline=None)
@given(st.binary(max_size=40).map(lambda b: b[: len(b) // 4 * 4]), calls)
def test_garbage_is_read_or_refused_alike(data: bytes, calls: list[Call]) -> None:
    """Whatever the bytes: numbers, or Corrupt; and the spec reader agrees at each call."""
    reader, spec = SymbolReader(data), spec_reader.Symbols(data)
    for one in calls:
        try:
            found: Any = take(reader, [one])
        except Corrupt:
            found = None
        try:
            seen: Any = take(spec, [one])
        except spec_reader.Bad:
            seen = None
        assert seen == found
        if found is None:
            break


def test_no_panic_escapes() -> None:
    """constriction's PanicException is a BaseException: `except Exception` would let it through."""
    rng = np.random.default_rng(1)
    refused = 0
    for trial in range(400):
        kind = trial % 4
        n = int(rng.integers(0, 12)) * 4
        data = rng.bytes(n) if kind < 2 else (b"\xff" if kind == 2 else b"\0") * n
        data = b"\xff" * 4 + data if kind == 1 else data
        try:
            reader = SymbolReader(data)
            while True:
                size = 1 << int(rng.integers(0, 41))
                reader.uniform(int(rng.integers(0, 4)), size)
                reader.bits(int(rng.integers(0, 200)))
                Counts().read(3, reader)
        except Corrupt:
            refused += 1
        except BaseException as e:  # noqa: B036
            pytest.fail(f"{type(e).__mro__} escaped for {data.hex()}: {e}")
    assert refused == 400
