"""The normative generator on tensors, of each device, and the noise that the coders make of it."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from test_rng import KNOWN, F, slow_philox, slow_word, starts

from gvcc.decode.codebook import Hadamard, Where
from gvcc.decode.rcc import Chunks, Rcc
from gvcc.format import rng
from gvcc.format.rng import Key

DEVICES = ["cpu"] + ["cuda"] * torch.cuda.is_available()


@pytest.mark.parametrize("counter,key,expected", KNOWN)
def test_known_answers_of_tensors(
    counter: tuple[int, ...], key: tuple[int, int], expected: tuple[int, ...]
) -> None:
    got = rng.philox(*(torch.tensor([c]) for c in counter), Key(*key))
    assert tuple(int(g[0]) for g in got) == expected


@settings(deadline=None)
@given(starts, st.integers(0, 20))
def test_words_are_the_same_on_every_device(start: int, count: int) -> None:
    key = Key(123456789, 987654321)
    for device in DEVICES:
        like = torch.zeros(1, dtype=torch.int64, device=device)
        got = rng.words(key, start, count, like)
        assert got.device.type == device
        assert got.tolist() == rng.words(key, start, count).tolist()


@settings(deadline=None)
@given(starts, st.integers(0, 80))
def test_signs_are_the_same_on_every_device(start: int, count: int) -> None:
    for device in DEVICES:
        like = torch.empty(0, dtype=torch.int64, device=device)
        got = rng.signs(Key(5, 6), start, count, like)
        assert got.tolist() == rng.signs(Key(5, 6), start, count).tolist()


@pytest.mark.parametrize("device", DEVICES)
def test_many_words_are_the_same_on(device: str) -> None:
    like = torch.zeros(1, dtype=torch.int64, device=device)
    for start in (0, 2**33 - 3, 2**34 - 50000):  # the counter's low word runs over in the last
        got = rng.words(Key(F, F), start, 100_001, like).cpu().numpy()
        assert np.array_equal(got, rng.words(Key(F, F), start, 100_001))
        assert 0 <= got.min() and got.max() <= F


def test_noise_of_the_hadamard_coder() -> None:
    """Section 5.2 of docs/format.md, value by value."""
    seed, dim, gop, step, frame = 2**35 + 1, 24, 3, 2, 1
    atoms = [(5, 0), (31, 1), (5, 1), (0, 0), (17, 0)]
    key = Key(*slow_philox([gop, step, frame, 1], Key(seed & F, seed >> 32))[:2])
    total = np.zeros(dim)
    for a, (index, minus) in enumerate(atoms):
        for d in range(dim):
            n = a * dim + d
            odd = (slow_word(key, n // 32) >> n % 32) + (d & index).bit_count() + minus
            total[d] += 1 - 2 * (odd % 2)
    symbols = np.array([2 * index + minus for index, minus in atoms])
    z = Hadamard(seed, dim).replay(symbols, Where(gop, step, frame)).numpy()
    assert np.allclose(z, total / np.sqrt((total**2).mean()), rtol=1e-6)
    assert np.array_equal(np.rint(z * np.sqrt((total**2).mean())), total)


def test_noise_of_the_rcc_coder() -> None:
    """Section 5.2 of docs/format.md, value by value."""
    seed, dim, gop, step, numbers = 2**35 + 1, 50, 3, 2, [5, 0, 300, 5]
    order, sign, book = (
        Key(*slow_philox([gop, step, 0, purpose], Key(seed & F, seed >> 32))[:2])
        for purpose in (4, 5, 6)
    )
    d, table, v = 13, rng.normal_table(), []  # d = ceil(50 / 4); a row starts every 16 normals
    for a in numbers:
        for k in range(d):
            n = 8 * a * 2 + k
            v.append(table[slow_word(book, n // 2) >> 16 * (n % 2) & 0xFFFF])
    p = sorted(range(dim), key=lambda n: (slow_word(order, n), n))
    z = [0.0] * dim
    for m in range(dim):
        z[p[m]] = v[m] * (1 - 2 * (slow_word(sign, m // 32) >> m % 32 & 1))
    found = Rcc(seed, 2**14).replay(Chunks(20, np.array(numbers)), dim, gop, step)
    assert found.tolist() == z


@pytest.mark.parametrize("device", DEVICES)
def test_self_test(device: str, monkeypatch: pytest.MonkeyPatch) -> None:
    like = torch.zeros(1, dtype=torch.int64, device=device)
    rng.self_test(like)
    for name in ("_M0", "_M1", "_W0", "_W1"):
        with monkeypatch.context() as m:
            m.setattr(rng, name, getattr(rng, name) ^ 2)
            with pytest.raises(AssertionError, match="Philox"):
                rng.self_test(like)
    with monkeypatch.context() as m:  # a device whose shifts are right but whose mask is not
        m.setattr(rng, "_MASK", 0x7FFFFFFF)
        with pytest.raises(AssertionError):
            rng.self_test(like)
    rng.self_test(like)
