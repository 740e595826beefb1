"""The normative generator: known answers, literal words, and definitions repeated slowly."""

from __future__ import annotations

import hashlib

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from gvcc.format import rng
from gvcc.format.rng import Key, Purpose

F = 0xFFFFFFFF
# Random123, tests/kat_vectors: philox4x32 10
KNOWN = [
    ((0, 0, 0, 0), (0, 0), (0x6627E8D5, 0xE169C58D, 0xBC57AC4C, 0x9B00DBD8)),
    ((F, F, F, F), (F, F), (0x408F276D, 0x41C83B0E, 0xA20BC7C6, 0x6D5451FD)),
    (
        (0x243F6A88, 0x85A308D3, 0x13198A2E, 0x03707344),
        (0xA4093822, 0x299F31D0),
        (0xD16CFE09, 0x94FDCCEB, 0x5001E420, 0x24126EA1),
    ),
]


def slow_philox(counter: list[int], key: Key) -> list[int]:
    """With Python's own integers, from the paper."""
    c, (k0, k1) = counter, key
    for _ in range(10):
        a, b = 0xD2511F53 * c[0], 0xCD9E8D57 * c[2]
        c = [(b >> 32) ^ c[1] ^ k0, b & F, (a >> 32) ^ c[3] ^ k1, a & F]
        k0, k1 = (k0 + 0x9E3779B9) & F, (k1 + 0xBB67AE85) & F
    return c


def slow_word(key: Key, n: int) -> int:
    i = n // 4
    return slow_philox([i & F, i >> 32, 0, 0], key)[n % 4]


@pytest.mark.parametrize("counter,key,expected", KNOWN)
def test_known_answers(
    counter: tuple[int, ...], key: tuple[int, int], expected: tuple[int, ...]
) -> None:
    got = rng.philox(*(np.array([c], dtype=np.int64) for c in counter), Key(*key))
    assert tuple(int(g[0]) for g in got) == expected
    assert slow_philox(list(counter), Key(*key)) == list(expected)


@settings(deadline=None)
@given(st.lists(st.integers(0, F), min_size=4, max_size=4), st.integers(0, F), st.integers(0, F))
def test_against_python_integers(counter: list[int], k0: int, k1: int) -> None:
    got = rng.philox(*(np.array([c], dtype=np.int64) for c in counter), Key(k0, k1))
    assert [int(g[0]) for g in got] == slow_philox(counter, Key(k0, k1))


def test_golden_words() -> None:
    assert rng.words(Key(1, 2), 0, 8).tolist() == [
        93904442, 2563932206, 655331230, 3937864147, 1593998110, 2992053196, 676442362, 2925866340,
    ]  # fmt: skip
    assert rng.derive(1, 0, 0, 0, Purpose.INITIAL) == Key(3823634032, 3842641596)
    assert rng.derive(2**40 + 5, 3, 2, 1, Purpose.SIGNS) == Key(4286624332, 2355895890)
    assert rng.signs(rng.derive(1, 0, 0, 0, Purpose.SIGNS), 0, 16).tolist() == [
        1, 1, -1, 1, 1, -1, 1, -1, 1, -1, -1, -1, -1, 1, -1, -1,
    ]  # fmt: skip
    assert rng.normals(rng.derive(1, 0, 0, 0, Purpose.INITIAL), 3).tolist() == [
        pytest.approx(v, abs=1e-7) for v in (-0.02346761, -0.549736, -1.575707)
    ]
    assert list(map(int, Purpose)) == [0, 1, 2, 3, 4, 5, 6, 7, 8]


@settings(deadline=None)
@given(*[st.integers(0, F)] * 3, st.sampled_from(Purpose), st.integers(0, 2**64 - 1))
def test_derive(gop: int, step: int, frame: int, purpose: Purpose, seed: int) -> None:
    slow = slow_philox([gop, step, frame, int(purpose)], Key(seed & F, seed >> 32))
    assert rng.derive(seed, gop, step, frame, purpose) == Key(*slow[:2])


def test_every_argument_of_derive_matters() -> None:
    base = (7, 1, 2, 3, Purpose.INITIAL)
    keys = {rng.derive(*base)}
    keys |= {rng.derive(*[v + (i == j) for i, v in enumerate(base[:4])], base[4]) for j in range(4)}
    keys |= {rng.derive(7 + 2**32, *base[1:]), rng.derive(*base[:4], Purpose.FILL)}
    assert len(keys) == 7


starts = st.integers(0, 40) | st.sampled_from([2**31, 2**32, 2**33, 2**34, 2**35]).flatmap(
    lambda edge: st.integers(edge - 9, edge + 9)
)


@settings(deadline=None)
@given(starts, st.integers(0, 20))
def test_words(start: int, count: int) -> None:
    key = Key(123456789, 987654321)
    got = rng.words(key, start, count)
    assert got.dtype == np.int64
    assert got.tolist() == [slow_word(key, start + n) for n in range(count)]


@settings(deadline=None)
@given(starts, st.integers(0, 80))
def test_signs(start: int, count: int) -> None:
    key = Key(5, 6)
    slow = [1 - 2 * (slow_word(key, n // 32) >> n % 32 & 1) for n in range(start, start + count)]
    got = rng.signs(key, start, count)
    assert got.dtype == np.int8 and got.tolist() == slow


@settings(deadline=None)
@given(st.integers(0, 30))
def test_normals(count: int) -> None:
    key, table = Key(8, 9), rng.normal_table()
    slow = [table[slow_word(key, n // 2) >> 16 * (n % 2) & 0xFFFF] for n in range(count)]
    got = rng.normals(key, count)
    assert got.dtype == np.float32 and got.tolist() == slow


def test_table() -> None:
    from scipy.stats import norm

    table = rng.normal_table()
    assert table.shape == (65536,) and table.dtype == np.float32
    assert hashlib.sha256(table.astype("<f4").tobytes()).hexdigest() == (
        "8babbcaf96568f10165a1eab530c0e5c92d04de96761b6dbb3dadfa94baba37f"
    )
    assert np.array_equal(table, -table[::-1]) and (np.diff(table) > 0).all()
    quantile = norm.ppf((np.arange(65536) + 0.5) / 65536)
    assert np.abs(table - quantile / quantile.std()).max() < 1e-6


def test_normals_are_normal() -> None:
    from scipy.stats import kstest

    z = rng.normals(rng.derive(3, 1, 4, 1, Purpose.FILL), 400_000).astype(float)
    assert abs(z.mean()) < 4 / np.sqrt(len(z))
    assert abs(z.var() - 1) < 4 * np.sqrt(2 / len(z))
    assert abs((z**3).mean()) < 4 * np.sqrt(15 / len(z))
    assert abs((z**4).mean() - 3) < 4 * np.sqrt(96 / len(z))
    assert kstest(z, "norm").pvalue > 1e-3
    assert abs(np.corrcoef(z[:-1], z[1:])[0, 1]) < 4 / np.sqrt(len(z))
    assert kstest(z + 0.01, "norm").pvalue < 1e-3  # the test can tell


def test_signs_are_even() -> None:
    s = rng.signs(rng.derive(1, 2, 3, 4, Purpose.SIGNS), 0, 400_000).astype(float)
    assert abs(s.mean()) < 4 / np.sqrt(len(s))
    assert abs((s[:-1] * s[1:]).mean()) < 4 / np.sqrt(len(s))


@settings(deadline=None)
@given(st.lists(st.integers(0, 2**16 - 1), max_size=5), st.integers(1, 40))
def test_rows_of_normals(rows: list[int], width: int) -> None:
    key, table = Key(8, 9), rng.normal_table()
    got = rng.normal_rows(key, np.array(rows, np.int64), width)
    assert got.dtype == np.float32 and got.shape == (len(rows), width)
    for row, j in zip(got, rows, strict=True):
        first = 8 * j * -(-width // 8)
        slow = [slow_word(key, n // 2) >> 16 * (n % 2) & F for n in range(first, first + width)]
        assert row.tolist() == [table[w & 0xFFFF] for w in slow]


def test_rows_beyond_32_bits_of_counter() -> None:
    row = 2**31 + 5
    got = rng.normal_rows(Key(8, 9), np.array([row], np.int64), 17)[0]
    first = 8 * row * 3
    assert got.tolist() == [
        rng.normal_table()[slow_word(Key(8, 9), n // 2) >> 16 * (n % 2) & 0xFFFF]
        for n in range(first, first + 17)
    ]


@settings(deadline=None)
@given(st.integers(0, 60), st.integers(0, F))
def test_permutation(count: int, lo: int) -> None:
    key = Key(lo, 3)
    slow = sorted(range(count), key=lambda n: (slow_word(key, n), n))
    assert rng.permutation(key, count).tolist() == slow


def test_equal_words_of_a_permutation_keep_their_order(monkeypatch: pytest.MonkeyPatch) -> None:
    few = np.arange(400) * 7 % 3
    monkeypatch.setattr(rng, "words", lambda key, start, count: few[start : start + count])
    assert rng.permutation(Key(1, 2), 400).tolist() == sorted(range(400), key=lambda n: (few[n], n))


def test_self_test(monkeypatch: pytest.MonkeyPatch) -> None:
    rng.self_test()
    for name in ("_M0", "_M1", "_W0", "_W1"):
        with monkeypatch.context() as m:
            m.setattr(rng, name, getattr(rng, name) ^ 2)
            with pytest.raises(AssertionError, match="Philox"):
                rng.self_test()
