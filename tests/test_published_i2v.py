"""Preset paper in mode i2v as GVCC publishes it, against a literal re-implementation of
published.md 1.2 to 1.7 (and of nothing of gvcc's but the prior and the still codec), on a Wan I2V
of tiny random weights."""

from __future__ import annotations

import zlib
from collections.abc import Iterator
from fractions import Fraction
from io import BytesIO
from pathlib import Path
from typing import Any, NamedTuple

import cli_runner
import numpy as np
import pytest
import tiny_models
import torch
from torch import Tensor

from gvcc import codec, priors
from gvcc.decode import trajectory
from gvcc.decode.session import Given, Session
from gvcc.errors import ConfigError, TargetUnreachable
from gvcc.eval import published
from gvcc.format import parser
from gvcc.pictures import stills
from gvcc.priors import References, store
from gvcc.records import Video
from gvcc.search.config import EncodeConfig

I2V = "wan2.1-i2v-14b-720p"
GOP, GOPS, HEIGHT, WIDTH = 9, 2, 32, 48
T, ODE, K, M, M_TAIL, SEED, G_SCALE = 6, 3, 64, 3, 5, 42, 3.0


class Literal(NamedTuple):
    """What GVCC makes of one GOP: for each step and latent frame the chosen atoms and their signs,
    the residual's levels packed by zlib, its pictures."""

    choices: list[list[tuple[list[int], list[int]]]]
    packed: bytes
    pictures: Tensor


@pytest.fixture(scope="module")
def prior(tmp_path_factory: pytest.TempPathFactory, one_thread: None) -> Iterator[Any]:
    at = tmp_path_factory.mktemp("models")
    with pytest.MonkeyPatch.context() as m:
        m.setenv("GVCC_CACHE", str(tmp_path_factory.mktemp("cache")))
        m.setenv("HF_HUB_OFFLINE", "1")
        given = {"dtype": "fp32", "levels": "truncated"}
        made = priors.load(f"{I2V}:{tiny_models.make(I2V, at, 0)}", "cpu", given)
        store.remember("sensitivities", made.spec.digest.hex(), [1.0] * made.spec.channels)
        yield made


def gop(prior: Any, frames: Tensor, reference: Tensor, shift: float) -> Literal:
    """One GOP of `frames` [9,H,W,3], conditioned on the picture before it."""
    x0 = prior.encode(frames)
    channels, count, h, w = x0.shape
    condition = prior.condition(References(reference[None], outside=True), count)
    tau = [1 - i / T for i in range(T + 1)]
    times = [shift * a / (1 + (shift - 1) * a) for a in tau]
    x = torch.randn(1, channels, count, h, w, generator=torch.Generator().manual_seed(SEED))[0]
    choices = []
    for k, (t, s) in enumerate(zip(times, times[1:], strict=False)):
        u = (x - condition.denoise(x, t)) / t
        dt = t - s
        if k >= T - ODE:
            x = x - u * dt
            continue
        x0hat, eps, g = x - t * u, x + (1 - t) * u, G_SCALE * t**2
        noise, of_step = torch.zeros_like(x), []
        for f in range(count):
            generator = torch.Generator().manual_seed(SEED * 100003 + k * 10007 + f)
            dim = channels * h * w
            atoms = torch.stack([torch.randn(dim, generator=generator) for _ in range(K)])
            inner = atoms @ (x0[:, f] - x0hat[:, f]).flatten()
            m = M_TAIL if f >= count - 2 else M
            chosen = inner.abs().topk(m).indices.sort().values
            signs = torch.where(inner[chosen] < 0, -1.0, 1.0)
            c = (signs[:, None] * atoms[chosen]).sum(0)
            noise[:, f] = (c / c.std()).reshape(channels, h, w)
            of_step.append((chosen.tolist(), signs.int().tolist()))
        choices.append(of_step)
        score = -eps / t
        x = x - (u - 0.5 * g**2 * score) * dt + g * dt**0.5 * noise
    residual = (x0 - x)[:, -1:]
    most = residual.abs().amax((1, 2, 3), keepdim=True).clamp(min=1e-6)
    q = ((residual / most + 1) * 255 / 2).round().to(torch.uint8)
    x[:, -1:] += (2 * q.float() / 255 - 1) * most
    shown = ((prior.render(x).clamp(-1, 1) + 1) / 2 * 255).to(torch.uint8)
    return Literal(choices, zlib.compress(q.numpy().tobytes(), 9), shown)


def config(**more: Any) -> EncodeConfig:
    return EncodeConfig(**{
        "preset": "paper", "prior": I2V, "mode": "i2v", "gop": GOP, "steps": T, "codebook": K,
        "atoms": M, "tail_atoms": M_TAIL, "residual": "published", "reference": "before",
    } | more)  # fmt: skip


@pytest.fixture(scope="module")
def coded(prior: Any) -> tuple[Video, Any]:
    video = Video(cli_runner.frames(GOP * GOPS, HEIGHT, WIDTH), Fraction(25))
    return video, codec.encode(video, config(), prior)


def test_the_file_says_what_the_official_code_does(prior: Any, coded: tuple[Video, Any]):
    video, made = coded
    stream = parser.parse(made.data)
    assert stream.header.outside and stream.header.plain_residual and stream.header.version == 4
    assert [(r.gop.start, r.gop.frames, r.gop.first) for r in stream.gops] == [
        (0, GOP, "still"), (GOP, GOP, "previous"),
    ]  # fmt: skip
    still = stills.decode(stream.gops[0].stills[0], HEIGHT, WIDTH)
    reference = torch.from_numpy(still)
    session, coder = Session(stream.header, prior), None
    for i, record in enumerate(stream.gops):
        begin = record.gop.start
        frames = torch.from_numpy(video.frames[begin : begin + GOP])
        want = gop(prior, frames, reference, stream.header.shift)
        shape = session.shape(record.gop)
        coder = coder or session.coder()
        given = Given(reference[None].numpy())
        known = session.condition(record.gop, given).known
        assert known == {} and shape[1] == (GOP - 1) // 4 + 1
        noise = trajectory.Read(coder, stream.header, i, record, shape, list(range(shape[1])))
        found = []
        for j in range(noise.stop):
            symbols = noise.symbols(j)
            of_step = [symbols[f].tolist() for f in range(shape[1])]
            found.append([([s >> 1 for s in one], [1 - 2 * (s & 1) for s in one])
                          for one in of_step])  # fmt: skip
        assert found == want.choices
        # Counts (1.5), and bytes of the residual behind its scales.
        per_step = M * (shape[1] - 2) + M_TAIL * 2
        assert (record.atoms + record.tail_atoms) == (T - ODE) * per_step
        assert record.residual[4 * prior.spec.channels :] == want.packed
        bits = (T - ODE) * per_step * (6 + 1) + 8 * len(record.residual)
        assert published.bits(stream.header, record) == bits
        shown = made.frames[begin : begin + GOP]
        assert np.array_equal(shown, want.pictures.numpy())
        reference = want.pictures[-1]


def test_it_decodes(prior: Any, coded: tuple[Video, Any]):
    video, made = coded
    found = np.stack(list(codec.Decoder(BytesIO(made.data), prior).pictures()))
    assert np.array_equal(found, made.frames) and found.shape == video.frames.shape
    only = codec.Decoder(BytesIO(made.data), prior, start=GOP + 2, end=GOP + 5).pictures()
    assert np.array_equal(np.stack(list(only)), made.frames[GOP + 2 : GOP + 5])


def test_where_it_is_of_no_use_it_is_refused():
    with pytest.raises(ConfigError, match="is for mode i2v, not t2v"):
        config(mode="t2v", tail_atoms=None, residual="off").resolved()
    with pytest.raises(ConfigError, match="did you mean 'before'"):
        config(reference="befor").resolved()
    nano = priors.load("nano")
    video = Video(cli_runner.frames(5, 16, 16), Fraction(25))
    with pytest.raises(ConfigError, match="knows a picture only as one of its own frames"):
        codec.encode(video, config(prior="nano"), nano)


@pytest.mark.parametrize(("bpp", "low", "high"), [(0.5, 60, 96), (2.0, 200, 384)])
def test_stills_have_the_size_asked_for(prior: Any, bpp: float, low: int, high: int):
    video = Video(cli_runner.frames(GOP, HEIGHT, WIDTH), Fraction(25))
    (record,) = parser.parse(codec.encode(video, config(still_bpp=bpp), prior).data).gops
    assert low <= len(record.stills[0]) <= high


def test_stills_that_do_not_fit_are_told(prior: Any):
    video = Video(cli_runner.frames(GOP, HEIGHT, WIDTH), Fraction(25))
    few = dict(preset="default", codebook=None, tail_atoms=None, atoms=None, residual="coded",
               reference="shared", steps=None)  # fmt: skip
    with pytest.raises(TargetUnreachable, match="cannot be reached"):
        codec.encode(video, config(still_bpp=2.0, size=300, **few), prior)
    for wrong, says in ((0.0, "above 0"), (9.0, "at most 4")):
        with pytest.raises(ConfigError, match=says):
            config(still_bpp=wrong).resolved()
    with pytest.raises(ConfigError, match="for modes with stills"):
        EncodeConfig(mode="t2v", still_bpp=0.3).resolved()


def test_what_clip_is_shown(tmp_path: Path, one_thread: None):
    """As in Wan's own code: all of the picture, stretched, normalised."""
    folder = tiny_models.make(I2V, tmp_path, 0)
    usual, stretched = (
        priors.load(f"{I2V}:{folder}", "cpu", {"dtype": "fp32", "clip": c})
        for c in ("cropped", "stretched")
    )
    picture = torch.from_numpy(cli_runner.frames(1, 30, 70)[0])
    side = usual._image_encoder.config.image_size
    x = picture.permute(2, 0, 1)[None].float() / 127.5 - 1  # literally, in its own range
    x = torch.nn.functional.interpolate(x, size=(side, side), mode="bicubic", align_corners=False)
    processor = usual._preprocess
    mean, std = (torch.tensor(v)[:, None, None] for v in (processor.image_mean,
                                                           processor.image_std))  # fmt: skip
    want = usual._image_encoder((x * 0.5 + 0.5 - mean) / std, output_hidden_states=True)
    found = stretched.image_embeddings([picture])
    assert torch.allclose(found, want.hidden_states[-2], atol=1e-5)
    assert (found - usual.image_embeddings([picture])).abs().max() > 0.01
    assert stretched.spec.settings == (("clip", "stretched"), ("dtype", "fp32"))


@pytest.mark.parametrize(("height", "width"), [(24, 40), (34, 50)])
def test_latents_are_padded(prior: Any, tmp_path: Path, height: int, width: int):
    """published.md 1.1: 135 latent rows become 136 by repeating the last; here 3 become 4."""
    given = {"dtype": "fp32", "padding": "latent"}
    own = priors.load(f"{I2V}:{prior.folder}", "cpu", given)
    store.remember("sensitivities", own.spec.digest.hex(), [1.0] * own.spec.channels)
    h, w = -(-height // 8), -(-width // 8)
    frames = torch.from_numpy(cli_runner.frames(5, 8 * h, 8 * w))
    latent = own.encode(frames)
    exact = own.encoded(own.pixels(frames))
    want = torch.nn.functional.pad(exact[0], (0, w % 2, 0, h % 2), mode="replicate")
    assert torch.equal(latent, want) and latent.shape[2:] == own.spec.latent_sides(height, width)
    assert torch.equal(own.spec.own(latent, height, width), exact[0])
    video = Video(cli_runner.frames(GOP + 3, height, width), Fraction(25))
    made = codec.encode(video, config(), own)
    found = np.stack(list(codec.Decoder(BytesIO(made.data), f"{I2V}:{prior.folder}").pictures()))
    assert np.array_equal(found, made.frames)
    # The autoencoder is given the latent's own rows alone.
    (first, _) = parser.parse(made.data).gops
    assert first.gop.frames == GOP
    other = codec.encode(video, config(), prior)
    assert len(other.data) != len(made.data) or not np.array_equal(other.frames, made.frames)
