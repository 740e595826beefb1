"""Trajectories over a base: the denoiser and the start against closed forms, whole encodings."""

from __future__ import annotations

import dataclasses
import math
from fractions import Fraction
from io import BytesIO

import faulty_vectors
import huggingface_hub.constants
import numpy as np
import pytest
import tiny_models
import tiny_prior
import torch

from gvcc import codec, flow, priors
from gvcc.errors import ConfigError, Corrupt
from gvcc.eval.clips import demo_clip
from gvcc.format import base, parser
from gvcc.priors import References, soft
from gvcc.priors.spectrum import dct_matrix
from gvcc.records import Video
from gvcc.search.config import EncodeConfig

pytestmark = pytest.mark.usefixtures("one_thread")
FRAMES, HEIGHT, WIDTH = 13, 66, 90
VIDEO = Video(demo_clip(FRAMES, HEIGHT, WIDTH), Fraction(25))


def config(**more) -> EncodeConfig:
    return EncodeConfig(**{"mode": "v2v", "base": "av1", "size": 4000, "base_share": 0.5} | more)


def psnr(video: Video, pictures: np.ndarray) -> float:
    return 10 * math.log10(255**2 / np.square(video.frames - pictures.astype(float)).mean())


# -- the mathematics --------------------------------------------------------------------------


class Law:
    """A Gaussian latent, what a base says of it, and x_t: all by matrices of float64."""

    def __init__(self, path: str, seed: int) -> None:
        self.prior, self.path = tiny_prior.load(path), flow.PATHS[path]
        self.shape = tiny_prior.CHANNELS, 3, 4, 5
        c, f, h, w = self.shape
        random = np.random.default_rng(seed)
        waves = [dct_matrix(n).double().numpy() for n in (f, h, w)]
        wave = np.einsum("ai,bj,ck->abcijk", *waves).reshape(f * h * w, -1)
        power = self.prior.model.spectrum((f, h, w)).double().numpy().reshape(c, -1)
        self.cov = [wave.T @ np.diag(p) @ wave for p in power]
        self.errors = random.uniform(0.05, 2, c)
        self.y, self.x = (random.normal(size=(c, f * h * w)) for _ in range(2))

    def posterior(self, channel: int, t: float) -> tuple[np.ndarray, np.ndarray]:
        """Mean and covariance of x0 given x_t and y; t = 1: given y alone."""
        alpha, sigma = self.path(t)
        s, own = self.errors[channel], self.cov[channel]
        precision = np.linalg.inv(own) + np.eye(len(own)) * (1 / s + alpha**2 / sigma**2)
        cov = np.linalg.inv(precision)
        told = self.y[channel] / s + alpha / sigma**2 * self.x[channel] * (t < 1)
        return cov @ told, cov

    def condition(self, start: float) -> priors.Condition:
        as_tensor = self.tensor(self.y)
        variances = self.prior.variances(self.shape[1:], ())
        told = soft.SoftBase(as_tensor, torch.tensor(self.errors).float(), start, variances)
        return self.prior.condition(References(base=told), self.shape[1])

    def tensor(self, values: np.ndarray) -> torch.Tensor:
        return torch.tensor(values).float().reshape(self.shape)


@pytest.mark.parametrize("path", ["rf", "vp"])
@pytest.mark.parametrize("t", [0.9, 0.5, 0.1])
def test_the_denoiser_is_the_posterior_mean_given_both(path: str, t: float) -> None:
    law = Law(path, 1)
    found = law.condition(0.9).denoise(law.tensor(law.x), t)
    expected = law.tensor(np.stack([law.posterior(c, t)[0] for c in range(len(law.x))]))
    assert (found - expected).abs().max() < 1e-5 * expected.abs().max() + 1e-5


@pytest.mark.parametrize("path", ["rf", "vp"])
def test_the_start_is_the_law_of_x_given_the_base(path: str) -> None:
    law, t = Law(path, 2), 0.6
    alpha, sigma = law.path(t)
    begin = law.condition(t).begin
    mean = begin(torch.zeros(law.shape))
    own = [law.posterior(c, 1.0) for c in range(len(law.x))]
    assert (mean - law.tensor(np.stack([alpha * m for m, _ in own]))).abs().max() < 1e-5
    rows = []  # what each value of the noise does
    for i in range(law.x[0].size):
        one = torch.zeros(law.shape)
        one.reshape(len(law.x), -1)[:, i] = 1
        rows.append((begin(one) - mean).reshape(len(law.x), -1).double().numpy())
    spread = np.stack(rows, 1)
    for c, (_, cov) in enumerate(own):
        expected = alpha**2 * cov + sigma**2 * np.eye(len(cov))
        assert np.abs(spread[c].T @ spread[c] - expected).max() < 1e-5 * expected.max() + 1e-5


@pytest.mark.parametrize("knob", [None, 1.0])
def test_the_result_converges_to_the_posterior_as_steps_are_added(knob: float | None) -> None:
    """A conditional mean with fresh noise loses variance at few steps, in posterior steps as in
    those of the ODE (`knob`): known mathematics, about as 1 / steps."""
    path, random = flow.PATHS["rf"], torch.Generator().manual_seed(1)
    power = torch.logspace(-2, 1, 7)
    s, y, many = torch.tensor(0.3), torch.linspace(-1, 2, 7), 40_000
    mean, cov = power * y / (power + s), power * s / (power + s)

    def denoise(x: torch.Tensor, t: float) -> torch.Tensor:
        alpha, sigma = path(t)
        h, v = alpha * power * x, power * sigma**2
        noise = alpha**2 * power + sigma**2
        return (s * h + v * y) / (s * noise + v)

    off = []
    for steps in (20, 40, 80):
        times = [0.7 * t for t in flow.schedule(steps, 1.0)]
        alpha, sigma = path(times[0])
        eps = torch.randn(many, 7, generator=random)
        x = alpha * mean + (alpha**2 * cov + sigma**2).sqrt() * eps

        def noise(step: int, t: float, to: float, h: torch.Tensor) -> torch.Tensor | None:
            ode = knob is not None or to == 0
            return None if ode else torch.randn(many, 7, generator=random)

        x = flow.sample(denoise, x, times, noise, rule="posterior", path=path, knob=knob or 1.0)
        assert ((x.mean(0) - mean) / cov.sqrt()).abs().max() < 0.04
        off.append(float((x.var(0) / cov - 1).abs().max()))
    assert off[0] > off[1] > off[2] and off[2] < 0.45 * off[0], off


def test_variances_as_a_header_has_them() -> None:
    for value in (1e-6, 0.003, 0.2, 1.0, 7.0):
        assert abs(math.log2(base.variance(base.variance_code(value)) / value)) < 1 / 16
    path = flow.PATHS["rf"]
    own = torch.tensor([2.0, 0.5, 1.0])
    true = 1 / (1 / own + torch.tensor([[3.0 * 2.0**g] for g in base.GRID]))
    at = soft.table(soft.fitted(true), path, "cpu")
    for root in (0.01, 0.3, 1.0, 2.5, 20.0, 200.0):
        expected = 1 / (1 / own + 3 * root**2)
        found = at(flow.time_of(path, root)).flatten()
        assert (found.log2() - expected.log2()).abs().max() < 0.25
    assert at(1.0).shape == (3, 1, 1, 1)
    assert (at(1.0).flatten() / own - 1.1).abs().max() < 0.06
    plain = soft.table(soft.usual(2), path, "cpu")
    for t in (1.0, 0.9, 0.4, 0.01):
        alpha, sigma = path(t)
        assert abs(float(plain(t)[0]) - sigma**2 / (alpha**2 + sigma**2)) < 0.003


def test_what_a_prior_leaves_is_measured() -> None:
    """gauss knows: a table's values are near the means of its own."""
    prior = priors.load("gauss")
    clips = [torch.from_numpy(demo_clip(9, 96, 128))]
    measured, path = soft.measure(prior, clips), flow.PATHS["rf"]
    assert measured.shape == (len(base.GRID), prior.spec.channels)
    assert (measured[-1] < 0.05 * measured[0]).all()
    own = prior.variances((3, 12, 16), ())
    middle = flow.time_of(path, 1.0)
    ratio = measured[len(base.GRID) // 2] / own(middle).mean((1, 2, 3))
    assert 0.1 < ratio.mean() < 3  # one clip is not the mean of all


def test_a_trajectory_begins_where_the_network_says_something() -> None:
    prior = tiny_prior.load()
    variances, path = prior.variances((3, 8, 8), ()), flow.PATHS["rf"]
    last = 1.0
    for error in (0.2, 0.05, 0.01):
        t = soft.start(variances, torch.full((tiny_prior.CHANNELS,), error), path)
        assert 0 < t < last
        assert math.isclose(float(variances(t).mean()), 4 * error, rel_tol=0.01)
        last = t


# -- whole encodings --------------------------------------------------------------------------


def check(video: Video, asked: EncodeConfig, prior: priors.Prior) -> codec.Encoding:
    """A file that decodes to the encoder's pictures and is no larger than it may be."""
    made = codec.encode(video, asked, prior)
    assert np.array_equal(codec.decode(made.data, prior).frames, made.frames)
    stream = parser.parse(made.data)
    assert all(g.base for g in stream.gops)
    if asked.size is not None:
        assert 0.9 * asked.size < len(made.data) <= asked.size
    return made


@pytest.mark.parametrize("more", [
    {}, {"base": "vvc"}, {"base_size": "2"}, {"base_share": 0.8}, {"base_share": 0.2, "size": 1500},
    {"coder": "rcc"}, {"coder": "rcc", "codebook": 256}, {"size": None, "stop": 5},
    {"size": None, "stop": 5, "coder": "rcc"}, {"size": None, "atoms": 40}, {"knob": 1.7},
    {"size": None, "quality": "psnr:21"}, {"gop": 5}, {"size": None, "bpp": 0.3},
], ids=str)  # fmt: skip
def test_every_coder_and_target(more: dict) -> None:
    made = check(VIDEO, config(**more), tiny_prior.load())
    stream = parser.parse(made.data)
    assert any(g.base.over and g.symbols for g in stream.gops)
    if more.get("stop"):
        assert [g.stop for g in stream.gops] == [5, 5]
    if more.get("quality"):
        assert abs(psnr(VIDEO, made.frames) - 21) < 0.5
    assert len(stream.gops) == (3 if more.get("gop") else 2)


def test_a_quality_beyond_the_prior_is_left_to_the_base() -> None:
    made = check(VIDEO, config(size=None, quality="psnr:28"), tiny_prior.load())
    assert [g.base.over for g in parser.parse(made.data).gops] == [None, None]
    assert abs(psnr(VIDEO, made.frames) - 28) < 0.5


@pytest.mark.parametrize("size", [(1, 16, 16), (2, 17, 31), (9, 100, 34)])
def test_small_and_odd_sizes(size: tuple[int, int, int]) -> None:
    video = Video(demo_clip(*size), Fraction(25))
    made = codec.encode(video, config(size=1500), tiny_prior.load())
    assert len(made.data) <= 1500
    assert np.array_equal(codec.decode(made.data, tiny_prior.load()).frames, made.frames)


def test_on_the_variance_preserving_path() -> None:
    check(VIDEO, config(), tiny_prior.load("vp"))


@pytest.mark.parametrize("name", ["nano", "gauss"])
def test_the_embedded_priors(name: str) -> None:
    made = check(VIDEO, config(prior=name), priors.load(name))
    assert bool(parser.parse(made.data).header.variances) == (name == "nano")
    alone = np.stack(list(codec.Decoder(BytesIO(made.data), base_only=True).pictures()))
    assert psnr(VIDEO, made.frames) > psnr(VIDEO, alone) - 0.5


def test_bits_of_the_trajectory_bring_the_clip_nearer() -> None:
    """The same base, once without atoms: what they say is used."""
    prior = tiny_prior.load()
    few, many = (check(VIDEO, config(size=None, stop=n), prior) for n in (1, 12))
    stream = [parser.parse(m.data).gops[0].base for m in (few, many)]
    assert stream[0] == stream[1]
    assert psnr(VIDEO, many.frames) > psnr(VIDEO, few.frames) + 0.3


MODELS = ("wan2.1-t2v-1.3b", "wan2.1-i2v-14b-720p", "wan2.1-flf2v-14b-720p", "wan2.2-t2v-a14b",
          "wan2.2-ti2v-5b", "cogvideox-2b")  # fmt: skip


@pytest.mark.parametrize("name", MODELS)
def test_published_models(name: str, tmp_path, monkeypatch) -> None:
    monkeypatch.setenv("GVCC_CACHE", str(tmp_path / "cache"))
    monkeypatch.setattr(huggingface_hub.constants, "HF_HUB_CACHE", str(tmp_path / "hub"))
    folder = tiny_models.make(name, tmp_path)
    video = Video(demo_clip(6, 64, 64), Fraction(25))

    def load() -> priors.Prior:
        return priors.load(f"{name}:{folder}", "cpu", {"dtype": "fp32"})

    made = codec.encode(video, config(size=None, stop=2, base_share=None), load())
    stream = parser.parse(made.data)
    assert stream.gops[0].base.over and stream.gops[0].stop == 2
    assert np.array_equal(codec.decode(made.data, load()).frames, made.frames)


def test_variances_of_a_model_are_measured_once_and_travel_in_the_file(
    tmp_path, monkeypatch
) -> None:
    monkeypatch.setenv("GVCC_CACHE", str(tmp_path / "cache"))
    folder = tiny_models.make(MODELS[0], tmp_path)
    name, video = f"{MODELS[0]}:{folder}", Video(demo_clip(5, 64, 64), Fraction(25))
    asked = config(size=None, stop=1, base_share=None)
    usual = codec.encode(video, asked, priors.load(name))
    assert parser.parse(usual.data).header.variances == soft.usual(16)
    prior = priors.load(name)
    found = prior.measure_variances([torch.from_numpy(video.frames)])
    assert priors.load(name).spec.variances == found != soft.usual(16)
    made = codec.encode(video, asked, priors.load(name))
    monkeypatch.setenv("GVCC_CACHE", str(tmp_path / "another"))  # where nothing is measured
    assert np.array_equal(codec.decode(made.data, priors.load(name)).frames, made.frames)


# -- files ------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def encoded() -> codec.Encoding:
    return codec.encode(VIDEO, config(), tiny_prior.load())


def changed(data: bytes, **fields) -> bytes:
    """The file with another trajectory of the first GOP's base."""
    stream = parser.parse(data)
    first = stream.gops[0]
    over = dataclasses.replace(first.base.over, **fields)
    first = dataclasses.replace(first, base=dataclasses.replace(first.base, over=over))
    return faulty_vectors.rebuilt(dataclasses.replace(stream, gops=(first, *stream.gops[1:])))


def test_a_trajectory_for_another_prior_is_refused(encoded: codec.Encoding) -> None:
    for errors in ((), (1,) * 5, (1,) * 7):
        data = changed(encoded.data, errors=errors)
        with pytest.raises(Corrupt, match="does not fit the prior"):
            codec.decode(data, tiny_prior.load())
        found = codec.Decoder(BytesIO(data), tiny_prior.load(), keep_going=True)
        assert len(list(found.pictures())) == FRAMES and len(found.damage) == 1
    nano = codec.encode(VIDEO, config(prior="nano"))
    header = dataclasses.replace(parser.parse(nano.data).header, variances=(1,) * 12)
    data = faulty_vectors.rebuilt(dataclasses.replace(parser.parse(nano.data), header=header))
    with pytest.raises(Corrupt, match="does not fit the prior"):
        codec.decode(data)


@pytest.mark.parametrize("fields", [
    {"start": 1}, {"start": 65535}, {"errors": (0,) * 6}, {"errors": (255,) * 6},
    {"difference": False},
], ids=str)  # fmt: skip
def test_any_trajectory_makes_pictures(fields: dict, encoded: codec.Encoding) -> None:
    pictures = codec.decode(changed(encoded.data, **fields), tiny_prior.load()).frames
    assert pictures.shape == encoded.frames.shape


def test_ranges_and_broken_off_encodings(encoded: codec.Encoding) -> None:
    prior = tiny_prior.load()
    found = codec.Decoder(BytesIO(encoded.data), prior, start=7, end=11)
    assert np.array_equal(np.stack(list(found.pictures())), encoded.frames[7:11])
    parts = list(codec.encode_parts(VIDEO, config(), prior))
    cut = len(encoded.data) - len(parts[-1].data) - 7
    begun = codec.Begun(encoded.data[:cut], [p.proof for p in parts if p.proof])
    again = list(codec.encode_parts(VIDEO, config(), prior, begun=begun))
    assert b"".join(p.data for p in again) == encoded.data
    pictures = np.concatenate([p.pictures for p in again if p.pictures is not None])
    assert np.array_equal(pictures, encoded.frames)


def test_the_bases_of_a_trajectory_can_be_seen_alone(encoded: codec.Encoding) -> None:
    found = codec.Decoder(BytesIO(encoded.data), tiny_prior.load(), base_only=True)
    pictures = np.stack(list(found.pictures()))
    assert pictures.shape == encoded.frames.shape
    assert not np.array_equal(pictures, encoded.frames)
    found = codec.Decoder(BytesIO(encoded.data), base_only=True)  # `tiny` is installed nowhere
    assert np.array_equal(np.stack(list(found.pictures())), pictures)
    with pytest.raises(ConfigError, match="prior tiny is not loaded"):
        found.prior.encode(torch.zeros(1))


# -- auto -------------------------------------------------------------------------------------


def test_auto_takes_a_base_where_the_scene_stands_still() -> None:
    still = Video(np.repeat(demo_clip(1, 64, 96), 9, 0), Fraction(25))
    prior = tiny_prior.load()
    made = codec.encode(still, EncodeConfig(mode="auto", base="av1", size=2500), prior)
    stream = parser.parse(made.data)
    assert [g.gop.mode for g in stream.gops] == ["v2v"] and len(made.data) <= 2500
    assert np.array_equal(codec.decode(made.data, prior).frames, made.frames)
    t2v = codec.encode(still, EncodeConfig(mode="t2v", size=2500), prior)
    assert psnr(still, made.frames) > psnr(still, t2v.frames)


def test_auto_takes_what_has_no_base_where_none_is_so_small() -> None:
    noise = np.random.default_rng(1).integers(0, 256, (9, 64, 96, 3)).astype(np.uint8)
    video = Video(noise, Fraction(25))
    made = codec.encode(video, EncodeConfig(mode="auto", base="av1", size=140),
                        tiny_prior.load())  # fmt: skip
    modes = [g.gop.mode for g in parser.parse(made.data).gops]
    assert modes != ["v2v"] and len(made.data) <= 140


def test_auto_goes_on_where_it_was_broken_off() -> None:
    """Bases that were tried and not taken leave nothing to the GOPs behind."""
    moving = demo_clip(18, 64, 96)
    pictures = np.concatenate([moving[:9], np.repeat(moving[8:9], 9, 0), moving[9:]])
    video, prior = Video(pictures, Fraction(25)), tiny_prior.load()
    asked = EncodeConfig(mode="auto", base="av1", size=4200)
    parts = list(codec.encode_parts(video, asked, prior))
    whole = b"".join(p.data for p in parts)
    cut = len(whole) - sum(len(p.data) for p in parts[-2:]) + 3
    begun = codec.Begun(whole[:cut], [p.proof for p in parts if p.proof])
    again = list(codec.encode_parts(video, asked, prior, begun=begun))
    assert b"".join(p.data for p in again) == whole


@pytest.mark.parametrize("more", [{"atoms": 30}, {"size": 6000}, {"quality": "psnr:27"}], ids=str)
def test_auto_with_trajectories_over_bases(more: dict) -> None:
    asked = EncodeConfig(**{"mode": "auto", "base": "av1", "base_share": 0.7} | more)
    made = codec.encode(VIDEO, asked, tiny_prior.load())
    assert np.array_equal(codec.decode(made.data, tiny_prior.load()).frames, made.frames)


def test_paper_knows_no_bases() -> None:
    asked = EncodeConfig(preset="paper", mode="auto", codebook=64, atoms=2, steps=4)
    made = codec.encode(Video(VIDEO.frames[:5], VIDEO.fps), asked, tiny_prior.load())
    assert not parser.parse(made.data).header.bases
    for more in ({"mode": "v2v"}, {"mode": "auto", "base": "av1"}):
        with pytest.raises(ConfigError, match="no mode v2v"):
            codec.encode(VIDEO, EncodeConfig(preset="paper", **more), tiny_prior.load())
