"""The tail residual: size and fidelity, refusals, a second reader of its bytes, table symbols."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from gvcc.decode import residual
from gvcc.errors import Corrupt
from gvcc.format.entropy import PRECISION, SymbolReader, SymbolWriter

SHAPES = [(4, 1, 9, 7), (2, 2, 1, 5), (1, 1, 1, 1), (3, 1, 8, 1)]


def uneven(*shape: int, seed: int = 0) -> torch.Tensor:
    """White noise, stronger to the right and in the first channels."""
    noise = torch.randn(shape, generator=torch.Generator().manual_seed(seed))
    across = torch.linspace(0.1, 1, shape[3])
    return 0.3 * noise * across * torch.linspace(1, 0.5, shape[0])[:, None, None, None]


@pytest.mark.parametrize("shape", SHAPES)
@pytest.mark.parametrize("size", [30, 200, 10**6])
def test_decoder_adds_what_the_encoder_says(shape, size):
    data, coded = residual.encode(uneven(*shape), size)
    assert len(data) <= size
    back = residual.decode(data, shape)
    assert back.dtype == torch.float32 and torch.equal(back, coded)


def test_more_bytes_are_used_and_bring_it_nearer():
    r = uneven(8, 1, 24, 32)
    errors = []
    for size in (64, 250, 1000, 4000, 16000):
        data, coded = residual.encode(r, size)
        assert size - 64 < len(data) <= size or size == 16000
        errors.append((coded - r).pow(2).mean().item())
    assert all(b < 0.7 * a for a, b in zip(errors[1:], errors[2:], strict=False))
    assert errors[0] < r.pow(2).mean().item() and errors[-1] < 1e-4


def test_bytes_against_the_rate_of_white_noise():
    """The reverse water-filling bound, 1/2 log2(variance / error) bits a value; a scalar quantiser
    with perfect entropy coding loses up to 0.25 bit, and learning the tables costs something."""
    r = torch.randn(8, 1, 48, 48, generator=torch.Generator().manual_seed(1))
    data, coded = residual.encode(r, 4500)
    bound = 0.5 * np.log2(1 / (coded - r).pow(2).mean().item())
    assert bound < 8 * len(data) / r.numel() < bound + 0.35


@pytest.mark.parametrize("r", [torch.zeros(2, 1, 4, 4), uneven(2, 1, 4, 4)])
def test_nothing_where_nothing_useful_fits(r):
    data, coded = residual.encode(r, 4)
    assert data == b"" and coded.shape == r.shape and not coded.any()
    assert not residual.decode(b"", (2, 1, 4, 4)).any()


def test_outliers_are_coded():
    r = uneven(2, 1, 8, 8)
    r[1, 0, 3, 3] = -900
    coded = residual.encode(r, 10**6)[1]
    assert abs(coded[1, 0, 3, 3] + 900) < 1 and (coded - r).abs().max() < 1


@settings(deadline=None, max_examples=60)
@given(st.binary(max_size=90), st.sampled_from(SHAPES))
def test_any_bytes_decode_or_are_corrupt(data, shape):
    try:
        assert residual.decode(data, shape).shape == shape
    except Corrupt:
        pass


@pytest.mark.parametrize("data", [b"x", b"xyz", b"\0\0" + b"\xff" * 8, b"\0\0" + b"\xff\0\xff\x7f"])
def test_refusals(data):
    with pytest.raises(Corrupt):
        residual.decode(data, (8, 1, 16, 16))


def test_symbols_cannot_outrun_the_bytes():
    r = uneven(8, 1, 24, 32)
    data = residual.encode(r, 2000)[0]
    with pytest.raises(Corrupt):
        residual.decode(data[:-800], (8, 1, 24, 32))


def spell(data: bytes, shape: tuple[int, int, int, int]) -> list[int]:
    """A second decoder: the quantised integers in coding order, by plain integers only."""
    words = [int.from_bytes(data[i : i + 4], "little") for i in range(2, len(data), 4)] + [0, 0]
    e, r, at = words[0] << 32 | words[1], 2**64 - 1, 2

    def read(frequencies: list[int]) -> int:
        nonlocal e, r, at
        s = r >> 24
        q, low, v = e // s, 0, 0
        while q >= low + frequencies[v]:
            low += frequencies[v]
            v += 1
        e, r = e - s * low, s * frequencies[v]
        if r < 2**32:
            e, r = e << 32 | (words[at] if at < len(words) else 0), r << 32
            at += 1
        return v

    c, n, h, w = shape
    limits = [32, 48, 64, 96, 128, 176, 256, 368, 512, 720, 1024, 1456, 2048, 2896, 4096, 5792]
    limits += [8192, 11584, 16384, 23168, 32768, 46336]
    counts = []
    for low, high in zip([0, *limits], [*limits, 3 * 46336], strict=True):
        row, rest = [], 1024
        for _ in range(15):
            share = rest * 4096 // (4096 + (low + high) // 2)
            row.append(1 + share)
            rest -= share
        counts.append([*row, 1 + rest])
    out: list[list[list[int]]] = []
    recent = [[512] * w for _ in range(h)]
    mean = 512
    for _ in range(n * c):
        plane = [[0] * w for _ in range(h)]

        def total(m: list[list[int]], y: int, x: int, offsets: list[tuple[int, int]]) -> int:
            return sum(m[y + a][x + b] for a, b in offsets if 0 <= y + a < h and 0 <= x + b < w)

        beside, across = [(0, 1), (0, -1), (1, 0), (-1, 0)], [(1, 1), (1, -1), (-1, 1), (-1, -1)]
        before = out[-1] if out else plane
        done: list[int] = []
        for k, (u, v) in enumerate([(0, 0), (1, 1), (0, 1), (1, 0)]):
            frozen = [[1 + m * (2**24 - 16) // sum(row) for m in row] for row in counts]
            for row in frozen:
                row[0] += 2**24 - sum(row)
            seen = []
            for y in range(u, h, 2):
                for x in range(v, w, 2):
                    if k == 0:
                        b = total(before, y, x, beside)
                        expected = (3 * 1024 * b + 7 * recent[y][x] + 5 * mean) >> 4
                    else:
                        b, a = total(plane, y, x, beside), total(plane, y, x, across)
                        around = [0, 1024 * a, 1024 * b, 256 * (3 * b + a)][k]
                        expected = (4 * around + recent[y][x] + 3 * mean) >> 3
                    level = sum(limit <= expected for limit in limits)
                    seen.append((y, x, level, read(frozen[level])))
            for y, x, level, s in seen:
                plane[y][x] = s
                counts[level][s] += 32
                done.append(s)
            counts = [[(m + 1) >> 1 for m in r] if sum(r) > 2**14 else r for r in counts]
            if done:
                mean = (sum(done) << 12) // len(done)
        for y in range(h):
            for x in range(w):
                recent[y][x] += 512 * plane[y][x] - (recent[y][x] >> 3)
        out.append(plane)
    values = [s for plane in out for row in plane for s in row]
    values = [s + read([4096] * 4096) if s == 15 else s for s in values]
    return [-s if s and read([2**23] * 2) else s for s in values]


@pytest.mark.parametrize("shape", [(5, 2, 11, 8), (2, 1, 1, 6)])
def test_a_second_decoder_reads_the_same(shape):
    r = uneven(*shape)
    r[0, 0, 0, 2] = 30
    data, coded = residual.encode(r, 900)
    step = 2 ** (int.from_bytes(data[:2], "little") / 4096 - 8)
    numbers = torch.tensor(spell(data, shape), dtype=torch.float64)
    c, n, h, w = shape
    expected = (numbers * step).float().reshape(n, c, h, w).permute(1, 0, 2, 3)
    assert numbers.abs().max() >= 15
    assert torch.allclose(coded, expected, rtol=1e-6, atol=0)


def test_the_format_is_frozen():
    data = bytes.fromhex("c748b62507fea80e61241cd3bea13e9a47cf588bcbb323c93678")
    numbers = [-8, 2, -4, 5, -1, -7, 3, -3, 6, 0, -6, 3, -3, 7, 1, -5, 4, -2]
    numbers += [7, 1, -5, 5, -1, -7, 2, -4, 5, -1, -7, 3, -3, 6, 0, -6, 3, -3]
    step = 2 ** (0x48C7 / 4096 - 8)
    expected = torch.tensor(numbers).reshape(3, 1, 3, 4) * step
    assert torch.allclose(residual.decode(data, (3, 1, 3, 4)), expected, rtol=1e-6)


@torch.inference_mode()
def test_refine_finds_what_decodes_better():
    def decode(z: torch.Tensor) -> torch.Tensor:
        up = z.mean(0).repeat_interleave(4, 0).repeat_interleave(8, 1).repeat_interleave(8, 2)
        return torch.tanh(up)[..., None].expand(-1, -1, -1, 3)

    latent, tail = uneven(4, 3, 2, 3), uneven(4, 1, 2, 3, seed=1)
    pixels = torch.full((4, 16, 24, 3), 160, dtype=torch.uint8)

    def error(t: torch.Tensor) -> float:
        pictures = decode(torch.cat([latent[:, :2], t], 1))[-4:]
        return (pictures - (160 / 127.5 - 1)).pow(2).mean().item()

    better = residual.refine(decode, latent, tail, pixels)
    assert better.shape == tail.shape and error(better) < 0.5 * error(tail)


def test_table_symbols_round_trip_beside_plain_numbers():
    rng = np.random.default_rng(0)
    frequencies = np.ones((3, 16), dtype=np.int64)
    frequencies[0, 3] = frequencies[1, 15] = 2**24 - 15
    frequencies[2] = 2**20
    rows = frequencies[rng.integers(0, 3, 4000)]
    symbols = np.where(rng.random(4000) < 0.5, rows.argmax(1), rng.integers(0, 16, 4000))
    writer = SymbolWriter()
    writer.table(symbols, rows)
    writer.uniform(np.arange(8), 8)
    data = writer.finish()
    information = (PRECISION - np.log2(rows[np.arange(4000), symbols])).sum()
    assert information + 24 <= 8 * len(data) + 32 and 8 * len(data) < information + 24 + 64 + 40
    reader = SymbolReader(data)
    assert np.array_equal(reader.table(rows), symbols)
    assert np.array_equal(reader.uniform(8, 8), np.arange(8))
