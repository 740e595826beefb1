"""Reverse channel coding as a coder: its plan, its search, its noise, and its symbols."""

import math

import numpy as np
import pytest
import scipy.stats
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from gvcc.decode import rcc
from gvcc.decode.rcc import Chunks, Law, Rcc
from gvcc.errors import Corrupt
from gvcc.format import entropy, rng
from gvcc.format.rng import Purpose

# -- how a step is cut ------------------------------------------------------------------------


@given(
    st.one_of(st.just(0.0), st.floats(1e-9, 1e9)), st.integers(1, 2**24),
    st.sampled_from([16, 2**10, 2**14, 2**16]),
)  # fmt: skip
def test_no_chunk_is_empty_and_no_codebook_is_large(bits, dim, size):
    channel = Rcc(1, size)
    n, c = channel._plan(bits, dim)
    d = -(-dim // n)
    assert 1 <= n <= min(dim, rcc.MOST_CHUNKS) and (n - 1) * d < dim
    assert 0 <= c < 64 and 4 <= channel.candidates(c) <= size
    assert channel.candidates(c) * d <= 2**25
    # What a chunk is said to hold is what it holds, but for the rounding and where it is full.
    assert c == 63 or abs(c - 4 * bits / n) <= 0.51
    if n < min(dim, rcc.MOST_CHUNKS) // 2:
        # Full chunks are as many as it takes, or hold the values that so many would: 25 values in 6
        # chunks are 5 each, and that is 5 chunks.
        wanted = math.ceil(bits / min(12, math.log2(size)) - 1e-9)
        assert n >= wanted or d == -(-dim // wanted)


def test_chunks_have_twelve_bits_and_codebooks_two_more():
    channel = Rcc(1, 2**14)
    assert channel._plan(1200.0, 16384) == (100, 48)
    assert [channel.candidates(c) for c in (0, 1, 4, 5, 48, 49, 63)] == [
        4, 8, 8, 16, 2**14, 2**14, 2**14,
    ]  # fmt: skip
    assert Rcc(1, 16)._plan(1200.0, 16384) == (298, 16)  # at most four bits in a codebook of 16


# -- choose and replay ------------------------------------------------------------------------


@settings(deadline=None, max_examples=20)
@given(st.integers(1, 300), st.integers(1, 300), st.integers(0, 9), st.data())
def test_replay_takes_rows_signs_and_places_from_the_generator(dim, most, step, data):
    n = -(-dim // -(-dim // min(most, dim)))
    numbers = np.array(data.draw(st.lists(st.integers(0, 2**14 - 1), min_size=n, max_size=n)))
    z = Rcc(7, 2**14).replay(Chunks(48, numbers), dim, 3, step)
    order, sign, book = (
        rng.derive(7, 3, step, 0, p)
        for p in (Purpose.PERMUTATION, Purpose.CHUNKS, Purpose.CODEBOOK)
    )
    width = -(-dim // n)
    places, signs = rng.permutation(order, dim), rng.signs(sign, 0, dim)
    for i in range(dim):
        row = rng.normal_rows(book, numbers[i // width : i // width + 1], width)
        assert z[places[i]] == row[0, i % width] * signs[i]


def test_the_search_is_the_race_of_the_poisson_process(monkeypatch):
    """Against a literal one in float64: the first T_i / w_i, w_i = dN(mu, I) / dN(0, I)(z_i)."""
    dim, seed, gop, step = 40, 5, 2, 3
    mu = torch.randn(dim, generator=torch.Generator().manual_seed(1)) * 1.1
    channel = Rcc(seed, 2**9)
    got = channel.choose(mu, gop, step)
    n, width = len(got.numbers), -(-dim // len(got.numbers))
    order, sign, book = channel._keys(gop, step)
    aim = np.zeros(n * width)
    aim[:dim] = mu.double().numpy()[rng.permutation(order, dim)] * rng.signs(sign, 0, dim)
    z = rng.normal_rows(book, np.arange(channel.candidates(got.c)), width).astype(float)
    clock = np.random.Generator(np.random.PCG64([seed, gop, step]))
    times = clock.standard_exponential((len(z), n), np.float32).astype(float).cumsum(0)
    race = np.log(times) - z @ aim.reshape(n, width).T
    assert n > 2 and np.array_equal(got.numbers, race.argmin(0))
    for share in (1, 100, 4 * n):  # however much of it is searched at once
        monkeypatch.setattr(rcc, "_SHARE", share)
        again = channel.choose(mu, gop, step)
        assert again.c == got.c and np.array_equal(again.numbers, got.numbers)


def test_what_is_chosen_leads_to_the_aim_and_depends_on_everything_named():
    g = torch.Generator().manual_seed(2)
    mu = torch.randn(5000, generator=g) * 0.5
    channel, other = Rcc(1, 2**12), Rcc(2, 2**12)
    got = channel.choose(mu, 0, 0)
    z = channel.replay(got, 5000, 0, 0)
    assert float(z @ mu / (mu @ mu)) == pytest.approx(0.80, abs=0.04)  # no pad
    for elsewhere in (other.replay(got, 5000, 0, 0), channel.replay(got, 5000, 1, 0),
                      channel.replay(got, 5000, 0, 1)):  # fmt: skip
        assert abs(float(elsewhere @ mu / (mu @ mu))) < 0.1
        assert abs(float(torch.corrcoef(torch.stack([z, elsewhere]))[0, 1])) < 0.07


@pytest.mark.parametrize(("dim", "n"), [(20000, 1), (20000, 40), (20001, 2001), (19999, 19999)])
def test_noise_of_numbers_without_aim_is_standard_normal(dim, n):
    """And that of a number that all chunks have too, but for the size of its values."""
    generator, n = np.random.default_rng(n), -(-dim // -(-dim // n))
    numbers = generator.integers(0, 2**14, n)
    z = Rcc(11, 2**14).replay(Chunks(48, numbers), dim, 0, 0).numpy().astype(float)
    assert scipy.stats.kstest(z, "norm").pvalue > 1e-3
    assert z.mean() == pytest.approx(0, abs=4 / math.sqrt(dim))
    assert (z**2).mean() == pytest.approx(1, abs=4 * math.sqrt(2 / dim))
    assert (z**4).mean() == pytest.approx(3, abs=4 * math.sqrt(96 / dim))
    assert abs(np.corrcoef(z[1:], z[:-1])[0, 1]) < 4 / math.sqrt(dim)
    same = Rcc(11, 2**14).replay(Chunks(48, numbers * 0 + 5), dim, 0, 0).numpy().astype(float)
    assert abs(np.corrcoef(same[1:], same[:-1])[0, 1]) < 4 / math.sqrt(dim)


def test_an_aim_of_nothing_costs_next_to_nothing():
    channel, writer = Rcc(1, 2**14), entropy.SymbolWriter()
    got = channel.choose(torch.zeros(9), 0, 0)
    assert got.c == 0 and len(got.numbers) == 1
    channel.write(got, Law(), writer)
    assert writer.total <= 5 + 1 + 6 + 4


# -- symbols ----------------------------------------------------------------------------------


@st.composite
def steps_of(draw):
    """A channel's dim and some steps of symbols: c, and numbers below what c allows."""
    size, dim = draw(st.sampled_from([16, 2**10, 2**16])), draw(st.integers(1, 3000))
    steps, channel = [], Rcc(1, size)
    for _ in range(draw(st.integers(1, 5))):
        n = -(-dim // -(-dim // draw(st.integers(1, dim))))
        c = draw(st.integers(0, 63))
        generator = np.random.default_rng(draw(st.integers(0, 99)))
        likely = generator.geometric(draw(st.floats(0.001, 1)), n) - 1
        steps.append(Chunks(c, np.minimum(likely, channel.candidates(c) - 1).astype(np.int64)))
    return channel, dim, steps


@settings(deadline=None, max_examples=60)
@given(steps_of())
def test_symbols_survive_the_file_and_the_law_learns_alike_on_both_sides(case):
    channel, dim, steps = case
    writer, own = entropy.SymbolWriter(), Law()
    for s in steps:
        channel.write(s, own, writer)
    data = writer.finish()
    # `total` is an upper bound: 1/128 of a bit a symbol too much, and up to one bit a call.
    spare = sum(len(s.numbers) / 64 + 8 for s in steps)
    assert writer.total - 32 - spare < 8 * len(data) <= writer.total + 32
    reader, theirs = entropy.SymbolReader(data), Law()
    for s in steps:
        got = channel.read(dim, theirs, reader)
        assert got.c == s.c and np.array_equal(got.numbers, s.numbers)
    for s in steps:
        tables = [law.table(s.c, channel.candidates(s.c)) for law in (own, theirs)]
        assert np.array_equal(*tables)
        frequencies = entropy.frequencies(tables[0])
        assert frequencies.sum() == 2**24 and frequencies.min() >= 1
        assert frequencies.shape == (1, channel.candidates(s.c).bit_length())


@pytest.mark.parametrize("c", [0, 1, 4, 16, 32, 48, 63])
def test_the_law_begins_as_zipfs(c):
    """P(j) ~ (j + 1)^-s with s = 1 + 1 / (c/4 + 1.53), summed over the numbers of each length."""
    candidates = Rcc(1, 2**16).candidates(c)
    got = entropy.frequencies(Law().table(c, candidates))[0] / 2**24
    j = np.arange(candidates)
    p = (j + 1.0) ** -(1 + 1 / (c / 4 + 1.53))
    length = np.array([int(v).bit_length() for v in j])
    want = np.bincount(length, p / p.sum())
    divergence = float((want * np.log2(want / got)).sum())
    assert len(got) == len(want) and divergence < 0.02


def test_the_law_learns_what_it_sees():
    law, channel = Law(), Rcc(1, 2**14)
    numbers = np.full(1000, 300)
    costs = []
    for _ in range(3):
        writer = entropy.SymbolWriter()
        channel.write(Chunks(48, numbers), law, writer)
        costs.append(writer.total / 1000)
    assert costs[0] > 11 and costs[2] < 8.5  # 8 plain bits below the highest
    fresh = entropy.SymbolWriter()
    channel.write(Chunks(40, numbers), law, fresh)  # fewer candidates: another table
    assert fresh.total / 1000 > 10


def written(n, c, more=b""):
    """The head of a step's symbols, as a hostile writer would have it."""
    writer = entropy.SymbolWriter()
    writer.bits(n.bit_length(), 5)
    writer.bits(n, n.bit_length())
    writer.bits(c, 6)
    writer.uniform(np.zeros(len(more), np.int64), 2)
    return entropy.SymbolReader(writer.finish())


@pytest.mark.parametrize(
    ("n", "dim"),
    [(0, 9), (10, 9), (2**31 - 1, 9), (6, 9), (7, 9), (8, 9), (2**30, 2**24)],
)
def test_chunks_that_cannot_be_are_refused(n, dim):
    """None, more than there are values, or with an empty one among them (6 of 2 in 9 values)."""
    with pytest.raises(Corrupt, match=f"{n} chunks of {dim} values"):
        Rcc(1, 2**14).read(dim, Law(), written(n, 48))


@pytest.mark.parametrize("c", [16, 48, 63])
def test_more_chunks_than_the_record_holds_are_refused_before_anything_is_made(c, monkeypatch):
    made = []
    monkeypatch.setattr(entropy.SymbolReader, "table", lambda self, f: made.append(f))
    with pytest.raises(Corrupt, match="more symbols are announced"):
        Rcc(1, 2**16).read(rcc.MOST_CHUNKS, Law(), written(rcc.MOST_CHUNKS, c))
    assert not made


def test_symbols_cut_short_are_refused():
    channel, writer = Rcc(1, 2**14), entropy.SymbolWriter()
    numbers = np.random.default_rng(1).integers(0, 2**14, 200)
    channel.write(Chunks(48, numbers), Law(), writer)
    data = writer.finish()
    for cut in range(4, len(data) // 2, 8):
        with pytest.raises(Corrupt):
            channel.read(5000, Law(), entropy.SymbolReader(data[: 4 * (cut // 4)]))
