"""Atoms of the published codebook: side by side and kept, they are what they are one by one."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from fractions import Fraction

import numpy as np
import pytest
import tiny_prior
import torch
from test_codebook import normal, wave

from gvcc import codec
from gvcc.decode import codebook, draws
from gvcc.decode.codebook import Gaussian, Symbols, Where
from gvcc.records import Video
from gvcc.search.config import EncodeConfig

Asked = list[tuple[torch.Tensor, int, Where]]
STEPS = [Where(0, 3, f) for f in range(5)]


class OneByOne(Gaussian):
    """As version 0.1 did it: a frame-step after the other, drawn for each replay."""

    def _atoms(self, where: Where, count: int) -> Iterator[tuple[int, torch.Tensor]]:
        generator = torch.Generator()
        generator.manual_seed(self.seed * 100003 + 10007 * where.step + where.frame)
        batch = max(1, draws._BATCH // self.dim) if self.dim % 16 == 0 else 1
        for first in range(0, count, batch):
            n = min(batch, count - first)
            yield first, torch.randn(n * self.dim, generator=generator).reshape(n, self.dim)

    def choose_all(self, asked: Sequence[tuple[torch.Tensor, int, Where]]) -> list[Symbols]:
        out = []
        for r, m, where in asked:
            corr = torch.cat([atoms @ r for _, atoms in self._atoms(where, self.size)])
            index = corr.abs().topk(m).indices.sort().values
            out.append((2 * index + (corr[index] < 0)).numpy())
        return out

    def replay_all(self, asked: Sequence[tuple[Symbols, Where]]) -> list[torch.Tensor]:
        return [self._replay(*one) for one in asked]

    def _replay(self, symbols: Symbols, where: Where) -> torch.Tensor:
        total = torch.zeros(self.dim)
        index, sign = torch.from_numpy(symbols >> 1), torch.from_numpy(1.0 - 2 * (symbols & 1))
        for first, atoms in self._atoms(where, int(index[-1]) + 1):
            here = (index >= first) & (index < first + len(atoms))
            for i, s in zip(index[here], sign[here], strict=True):
                total += s.float() * atoms[i - first]
        return total / total.std()


@pytest.fixture(params=[1, 2, 3])
def threads(request: pytest.FixtureRequest) -> Iterator[int]:
    before = torch.get_num_threads()
    torch.set_num_threads(request.param)
    yield request.param
    torch.set_num_threads(before)


@pytest.fixture
def drawn(monkeypatch: pytest.MonkeyPatch) -> list[int]:
    """The numbers of atoms of all draws."""
    counts: list[int] = []
    real = draws._draw

    def draw(generator: torch.Generator, count: int, dim: int) -> torch.Tensor:
        counts.append(count)
        return real(generator, count, dim)

    monkeypatch.setattr(draws, "_draw", draw)
    return counts


def asked(dim: int, m: int, steps: Sequence[Where] = STEPS) -> Asked:
    return [(normal(i, dim), m, where) for i, where in enumerate(steps)]


@pytest.mark.parametrize("dim", [16, 48, 1008, 17, 30, 9])
@pytest.mark.parametrize("batch", [1000, 2**13, 2**24])
def test_no_bit_changes(
    dim: int, batch: int, threads: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Symbols and noise, with one batch and with many, whoever draws."""
    monkeypatch.setattr(draws, "_BATCH", batch)
    old, new, decoder = OneByOne(42, dim, 300), Gaussian(42, dim, 300), Gaussian(42, dim, 300)
    symbols = old.choose_all(asked(dim, 7))
    found = new.choose_all(asked(dim, 7))
    assert all(map(np.array_equal, symbols, found))
    named = list(zip(symbols, STEPS, strict=True))
    expected = old.replay_all(named)
    assert all(map(torch.equal, expected, new.replay_all(named)))
    assert all(map(torch.equal, expected, decoder.replay_all(named)))


def test_all_values_of_the_batches_are_those_of_one_draw(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(draws, "_BATCH", 160)
    found: dict[int, list[torch.Tensor]] = {0: [], 1: [], 2: []}
    seen = {0: 0, 1: 0, 2: 0}
    for i, first, atoms in draws.drawn([5, 6, 7], [33, 1, 20], 16):
        assert first == seen[i] and len(atoms) <= 10
        seen[i] += len(atoms)
        found[i].append(atoms)
    for i, count in enumerate((33, 1, 20)):
        generator = torch.Generator().manual_seed(5 + i)
        expected = torch.stack([torch.randn(16, generator=generator) for _ in range(count)])
        assert torch.equal(torch.cat(found[i]), expected)


def test_an_encoder_draws_once(drawn: list[int]) -> None:
    coder = Gaussian(42, 64, 500)
    symbols = coder.choose_all(asked(64, 9))
    assert sum(drawn) == 5 * 500
    named = list(zip(symbols, STEPS, strict=True))
    z = coder.replay_all(named)
    assert sum(drawn) == 5 * 500
    # Nothing is kept any longer: a second time it takes a draw, for the same noise.
    again = coder.replay_all(named)
    assert sum(drawn) == 5 * 500 + sum(int(s[-1] >> 1) + 1 for s in symbols)
    assert all(map(torch.equal, z, again))


def test_what_was_chosen_is_not_taken_for_other_symbols(drawn: list[int]) -> None:
    """Nor for another frame-step, nor after a later choice, nor if somebody changes the array."""
    one, fresh = Gaussian(42, 64, 500), Gaussian(42, 64, 500)

    def check(symbols: Symbols, where: Where) -> None:
        before = sum(drawn)
        z = one.replay(symbols, where)
        assert sum(drawn) > before
        assert torch.equal(z, fresh.replay(symbols, where))

    symbols = one.choose(wave(64), 9, STEPS[0])
    check(symbols ^ 1, STEPS[0])
    symbols = one.choose(wave(64), 9, STEPS[0])
    check(symbols[:-1], STEPS[0])
    symbols = one.choose(wave(64), 9, STEPS[0])
    check(symbols, STEPS[1])
    one.choose(-wave(64), 9, STEPS[0])
    check(symbols, STEPS[0])
    symbols = one.choose(wave(64), 9, STEPS[0])
    symbols[0] ^= 1
    check(symbols, STEPS[0])


def test_what_is_kept_is_bounded(drawn: list[int], monkeypatch: pytest.MonkeyPatch) -> None:
    """Frame-steps whose best atoms would not fit are drawn again; of the others one choice is kept,
    and no more of each than its noise."""
    monkeypatch.setattr(codebook, "_KEPT", 64 * (2 * 9 + 5))
    coder, old = Gaussian(42, 64, 500), OneByOne(42, 64, 500)
    for seed in range(3):
        steps = [w._replace(step=seed) for w in STEPS]
        symbols = coder.choose_all(asked(64, 9, steps))
        assert list(coder._chosen) == steps[:2]
        assert all(z.shape == (64,) for _, z in coder._chosen.values())
    before = len(drawn)
    named = list(zip(symbols, steps, strict=True))
    assert all(map(torch.equal, old.replay_all(named), coder.replay_all(named)))
    assert len(drawn) - before == 3 and not coder._chosen


def test_batches_under_way_are_bounded(monkeypatch: pytest.MonkeyPatch, threads: int) -> None:
    """One for each thread that draws, and the one in hand."""
    monkeypatch.setattr(draws, "_BATCH", 160)
    real, drawing = draws._draw, list[int]()
    begun = 0

    def draw(generator: torch.Generator, count: int, dim: int) -> torch.Tensor:
        nonlocal begun
        begun += 1
        return real(generator, count, dim)

    monkeypatch.setattr(draws, "_draw", draw)
    for used, _ in enumerate(draws.drawn(range(9), [40] * 9, 16)):
        drawing.append(begun - used)
    assert len(drawing) == 36 and max(drawing) <= threads + 1


def test_a_frame_without_atoms_takes_no_draw(drawn: list[int]) -> None:
    coder = Gaussian(42, 64, 500)
    (one, none) = coder.choose_all([(wave(64), 3, STEPS[0]), (wave(64), 0, STEPS[1])])
    assert len(one) == 3 and none.dtype == np.int64 and none.shape == (0,)
    assert sum(drawn) == 500


def test_equal_correlations_are_no_reason_for_other_noise(drawn: list[int]) -> None:
    """Where many are as large as the m-th, those that were kept may not be those that are chosen:
    then they are drawn again."""
    coder, fresh = Gaussian(42, 64, 500), Gaussian(42, 64, 500)
    symbols = coder.choose(torch.zeros(64), 9, STEPS[0])
    expected = fresh.replay(symbols, STEPS[0])
    assert torch.equal(coder.replay(symbols, STEPS[0]), expected)


def test_a_draw_that_fails_ends_the_search(monkeypatch: pytest.MonkeyPatch) -> None:
    def broken(*_: object) -> torch.Tensor:
        raise MemoryError("no room for atoms")

    monkeypatch.setattr(draws, "_draw", broken)
    with pytest.raises(MemoryError, match="no room for atoms"):
        Gaussian(42, 64, 500).choose_all(asked(64, 9))


def test_a_file_is_the_same_with_any_number_of_threads() -> None:
    pixels = np.random.default_rng(1).integers(0, 256, (9, 48, 64, 3), np.uint8)
    config = EncodeConfig("paper", atoms=8, codebook=4096, steps=6, gop=9)
    before, prior, made = torch.get_num_threads(), tiny_prior.load(), set[bytes]()
    try:
        for threads in (1, 2, 3):
            torch.set_num_threads(threads)
            coded = codec.encode(Video(pixels, Fraction(25)), config, prior)
            assert np.array_equal(codec.decode(coded.data, prior).frames, coded.frames)
            made.add(coded.data + coded.frames.tobytes())
    finally:
        torch.set_num_threads(before)
    assert len(made) == 1
