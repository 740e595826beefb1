"""The gaussian codebook from counters: docs/format.md 5.2, value by value, and on every device."""

from __future__ import annotations

import math
from fractions import Fraction
from io import BytesIO

import numpy as np
import pytest
import tiny_prior
import torch
from cli_runner import Run
from hypothesis import given, settings
from hypothesis import strategies as st

from gvcc import codec
from gvcc.decode.codebook import Where
from gvcc.decode.counter import CounterGaussian, atoms, deviation
from gvcc.errors import ConfigError
from gvcc.eval.clips import demo_clip
from gvcc.format import parser, rng
from gvcc.format.rng import Key, Purpose
from gvcc.records import Video
from gvcc.search.config import EncodeConfig

CPU = torch.device("cpu")
DEVICES = ["cpu"] + ["cuda"] * torch.cuda.is_available()
M, W = 2**64 - 1, (0x9E3779B97F4A7C15, 0xBB67AE8584CAA73B)
# Random123's kat_vectors: counter, key, outputs of philox4x64-10
KNOWN = [
    ((0,) * 4, (0, 0), (0x16554D9ECA36314C, 0xDB20FE9D672D0FDC, 0xD7E772CEE186176B,
                        0x7E68B68AEC7BA23B)),
    ((M,) * 4, (M, M), (0x87B092C3013FE90B, 0x438C3C67BE8D0224, 0x9CC7D7C69CD777B6,
                        0xA09CAEBF594F0BA0)),
]  # fmt: skip


def slow(counter: tuple[int, ...], key: tuple[int, int]) -> tuple[int, ...]:
    """Philox4x64-10 by its definition."""
    (a, b, c, d), (k0, k1) = counter, key
    for _ in range(10):
        p, q = a * 0xD2E7470EE14C6C93, c * 0xCA5A826395121157
        a, b, c, d = q >> 64 ^ b ^ k0, q & M, p >> 64 ^ d ^ k1, p & M
        k0, k1 = (k0 + W[0]) & M, (k1 + W[1]) & M
    return a, b, c, d


@pytest.mark.parametrize("counter,key,expected", KNOWN)
def test_known_answers(counter, key, expected) -> None:
    assert slow(counter, key) == expected


@settings(deadline=None, max_examples=40)
@given(st.integers(0, 2**60), st.integers(0, 7), st.integers(0, 2**32 - 1),
       st.integers(0, 2**32 - 1))  # fmt: skip
def test_blocks_are_the_same_everywhere(first: int, count: int, lo: int, hi: int) -> None:
    want = [slow((first + i, 0, 0, 0), (lo | hi << 32, 0)) for i in range(count)]
    assert rng.blocks64(Key(lo, hi), first, count).tolist() == [list(w) for w in want]
    for device in DEVICES:
        like = torch.zeros(1, dtype=torch.int64, device=device)
        got = rng.blocks64(Key(lo, hi), first, count, like).cpu().numpy()
        assert got.view(np.uint64).tolist() == [list(w) for w in want]


def atom(key: Key, index: int, dim: int) -> list[float]:
    """An atom by its definition."""
    blocks, out = -(-dim // 16), list[float]()
    for i in range(index * blocks, (index + 1) * blocks):
        for word in slow((i, 0, 0, 0), (key.lo | key.hi << 32, 0)):
            out += [float(rng.normal_table()[word >> 16 * k & 0xFFFF]) for k in range(4)]
    return out[:dim]


@pytest.mark.parametrize("dim", [2, 16, 37])
def test_noise_is_that_of_the_document(dim: int) -> None:
    where, symbols = Where(3, 2, 1), np.array([2 * 5, 2 * 9 + 1, 2 * 63])
    key = rng.derive(42, 0, 2, 1, Purpose.ATOMS)
    own = [np.array(atom(key, i, dim), np.float32) for i in (5, 9, 63)]
    assert atoms(key, 9, 1, dim, CPU)[0].tolist() == own[1].tolist()
    total = np.zeros(dim, np.float32) + own[0] - own[1] + own[2]
    exact = [Fraction(float(x)) for x in total]
    # float of an exact fraction is rounded once
    s, q = float(sum(exact)), float(sum(x * x for x in exact))
    spread = math.sqrt((q - dim * (s / dim) * (s / dim)) / (dim - 1))
    want = total * np.float32(1 / spread)
    for gop in (3, 8):  # the same for every GOP
        got = CounterGaussian(42, dim, 64).replay(symbols, where._replace(gop=gop))
        assert got.tolist() == want.tolist()


def test_a_batch_is_as_its_atoms_and_their_law_is_normal() -> None:
    key = rng.derive(1, 0, 0, 0, Purpose.ATOMS)
    many = atoms(key, 3, 50, 5000, CPU)
    assert all(torch.equal(many[i], atoms(key, 3 + i, 1, 5000, CPU)[0]) for i in (0, 31, 49))
    assert abs(float(many.mean())) < 0.01 and abs(float(many.std()) - 1) < 0.01
    between = torch.corrcoef(many) - torch.eye(50)
    assert between.abs().max() < 0.08


def test_the_best_are_chosen_whatever_the_batches(monkeypatch: pytest.MonkeyPatch) -> None:
    from gvcc.decode import counter

    r, where = torch.sin(torch.arange(300.0)), Where(0, 1, 2)
    coder = CounterGaussian(7, 300, 500)
    corr = atoms(coder._key(where), 0, 500, 300, CPU) @ r
    want = corr.abs().topk(9).indices.sort().values
    for batch in (2**22, 300 * 64):
        monkeypatch.setattr(counter, "_BATCH", batch)
        got = coder.choose(r, 9, where)
        assert (got >> 1).tolist() == want.tolist()
        assert (got & 1).tolist() == (corr[want] < 0).int().tolist()


def test_deviation_is_that_of_torch() -> None:
    x = torch.sin(torch.arange(1000.0)) + 3
    assert deviation(x) == pytest.approx(float(x.double().std()), rel=1e-12)


# -- a file -----------------------------------------------------------------------------------

VIDEO = Video(demo_clip(9, 32, 48), Fraction(25))


def config(**more) -> EncodeConfig:
    return EncodeConfig(**{"preset": "paper", "atoms": 4, "codebook": 64, "steps": 6, "gop": 5}
                        | more)  # fmt: skip


def test_a_file_names_its_stream_and_decodes() -> None:
    made = {s: codec.encode(VIDEO, config(codebook_stream=s), tiny_prior.load())
            for s in (None, "torch", "counter")}  # fmt: skip
    assert made[None].data == made["torch"].data
    for stream, coder in (("torch", "gaussian"), ("counter", "gaussian-counter")):
        own = made[stream]
        assert parser.parse(own.data).header.coder == coder
        shown = codec.Decoder(BytesIO(own.data), tiny_prior.load()).pictures()
        assert np.array_equal(np.stack(list(shown)), own.frames)
    assert not np.array_equal(made["torch"].frames, made["counter"].frames)
    seed = codec.encode(VIDEO, config(codebook_stream="counter", seed=2**40), tiny_prior.load())
    assert parser.parse(seed.data).header.seed == 2**40  # torch's seeds end at 2^31


def test_a_gpu_takes_counters_unless_told() -> None:
    assert config().resolved(device="cuda").coder == "gaussian-counter"
    assert config().resolved(device="cpu").coder == "gaussian"
    assert config(codebook_stream="torch").resolved(device="cuda").coder == "gaussian"
    assert EncodeConfig().resolved(device="cuda").coder == "hadamard"


def test_what_does_not_go_together_is_refused() -> None:
    with pytest.raises(ConfigError, match="codebook stream is for preset 'paper'"):
        EncodeConfig(codebook_stream="counter").resolved()
    with pytest.raises(ConfigError, match="unknown codebook stream"):
        config(codebook_stream="cuda").resolved()


def test_from_the_command_line(run: Run, tmp_path, clip: str) -> None:
    out = str(tmp_path / "a.gvcc")
    args = ("--preset", "paper", "-M", "4", "-K", "64", "--steps", "6", "--frames", "1")
    assert run("encode", clip, "-o", out, *args, "--codebook-stream", "counter").code == 0
    found = run("inspect", out)
    assert b"gaussian-counter" in found.out
    assert run("decode", out, "-o", str(tmp_path / "a.y4m")).code == 0
