"""GVCC's own residual: published.md 1.7, and a file that carries it."""

from __future__ import annotations

import zlib
from fractions import Fraction
from io import BytesIO

import numpy as np
import pytest
import tiny_prior
import torch

from gvcc import codec
from gvcc.decode import plain_residual
from gvcc.errors import ConfigError, Corrupt
from gvcc.eval.clips import demo_clip
from gvcc.format import parser
from gvcc.records import Video
from gvcc.search.config import EncodeConfig

SHAPE = (6, 1, 4, 5)
VIDEO = Video(demo_clip(13, 32, 48), Fraction(25))


def some(seed: int = 1) -> torch.Tensor:
    r = torch.randn(SHAPE, generator=torch.Generator().manual_seed(seed))
    return r * torch.arange(6.0).reshape(-1, 1, 1, 1)  # the first channel is all zeros


def test_levels_are_those_of_the_paper() -> None:
    r = some()
    data = plain_residual.encode(r)
    m = r.abs().amax((1, 2, 3)).clamp(min=1e-6)
    want = [
        round(float((x / m[c] + 1) * 255 / 2)) for c in range(6) for x in r[c].flatten()
    ]  # fmt: skip
    assert list(zlib.decompress(data[24:])) == want
    assert np.frombuffer(data[:24], "<f4").tolist() == m.tolist()
    got = plain_residual.decode(data, SHAPE)
    assert (got - r).abs().amax((1, 2, 3)).le(1.01 * m / 255).all()
    assert torch.equal(plain_residual.decode(b"", SHAPE), torch.zeros(SHAPE))


def test_other_bytes_are_corrupt() -> None:
    data = plain_residual.encode(some())
    packed = data[24:]
    bomb = zlib.compress(bytes(2**22), 9)
    for wrong in (
        data[:24], data[:-1], data + b"\0", data[:10], b"\0" * 4 + data[4:],
        np.array([np.nan], "<f4").tobytes() + data[4:], data[:24] + packed[::-1],
        data[:24] + bomb, data[:24] + zlib.compress(bytes(119)),
    ):  # fmt: skip
        with pytest.raises(Corrupt):
            plain_residual.decode(wrong, SHAPE)


def config(**more) -> EncodeConfig:
    return EncodeConfig(**{"preset": "paper", "mode": "i2v", "atoms": 3, "codebook": 64, "gop": 5,
                           "steps": 6, "residual": "published"} | more)  # fmt: skip


def test_every_gop_has_one_the_last_too() -> None:
    made = codec.encode(VIDEO, config(), tiny_prior.load())
    stream = parser.parse(made.data)
    assert stream.header.plain_residual and stream.header.version == 4
    assert len(stream.gops) == 3 and all(g.residual for g in stream.gops)
    shown = codec.Decoder(BytesIO(made.data), tiny_prior.load()).pictures()
    assert np.array_equal(np.stack(list(shown)), made.frames)
    without = codec.encode(VIDEO, config(residual="off"), tiny_prior.load())
    assert not any(g.residual for g in parser.parse(without.data).gops)
    last = [np.square(x.frames[-1].astype(float) - VIDEO.frames[-1]).mean()
            for x in (made, without)]  # fmt: skip
    assert last[0] < 0.5 * last[1]
    ours = parser.parse(codec.encode(VIDEO, config(residual="coded"), tiny_prior.load()).data)
    assert not ours.header.plain_residual


@pytest.mark.parametrize(("more", "says"), [
    ({"mode": "t2v"}, "is for mode i2v with M"),
    ({"preset": "default", "atoms": None, "codebook": None, "steps": None}, "with M"),
    ({"atoms": None, "size": 9000}, "a size of its own"),
    ({"residual": "publishd"}, "did you mean 'published'"),
])  # fmt: skip
def test_what_does_not_go_together_is_refused(more: dict, says: str) -> None:
    with pytest.raises(ConfigError, match=says):
        config(**more).resolved()
