"""The device is the prior's: every mode, coder and preset on GPUs that are not there (pretend_gpu),
names of devices, and what is done before a GPU is first used."""

from __future__ import annotations

import dataclasses
import json
from fractions import Fraction
from functools import lru_cache
from pathlib import Path
from typing import Any

import cli_runner
import numpy as np
import pytest
import tiny_models
import tiny_prior
import torch
from cli_runner import Run
from pretend_gpu import gpus
from torch import nn

import gvcc
from gvcc import codec, priors
from gvcc.eval import cells, sweep, table6
from gvcc.format import rng
from gvcc.pictures import media
from gvcc.priors import References, diffusion, gauss, nano, store
from gvcc.records import Video
from gvcc.search.config import EncodeConfig

pytestmark = pytest.mark.usefixtures("short_schedules")
AT = "cuda:1"  # not where a tensor gets to by chance

# -- the pretence -----------------------------------------------------------------------------


def test_a_pretended_gpu_refuses_what_cuda_refuses() -> None:
    with gpus():
        x, c = torch.arange(6.0, device="cuda").reshape(2, 3), torch.ones(2, 3)
        other, index = x.to("cuda:1"), torch.tensor([0, 1], device="cuda:0")
        net = nn.Linear(3, 2).to("cuda:0")
        refused = [
            lambda: x + c, lambda: x + other, lambda: c + x.sum(), lambda: torch.cat([x, c]),
            lambda: torch.stack([x[0, 0], torch.tensor(1.0)]), lambda: x @ c.T, lambda: net(c),
            lambda: torch.minimum(x, c), lambda: torch.where(c > 1, x, x), lambda: c[:, index],
            lambda: x.__setitem__((slice(None), [0]), c[:, :1]), lambda: x[:, :2] + torch.eye(2),
            lambda: torch.full((3,), 2.0) * x, lambda: torch.arange(3) * x, lambda: x.add_(c),
            lambda: torch.searchsorted(x[0], torch.tensor([1.0])), lambda: x.numpy(),
            lambda: np.asarray(x), lambda: torch.dot(x[0], c[0]), lambda: torch.zeros_like(c) + x,
            lambda: torch.randn(3, generator=torch.Generator(), device="cuda"),
            lambda: torch.empty(0, device="cuda:2"), lambda: x.lerp_(c, 0.5),
        ]  # fmt: skip
        for i, call in enumerate(refused):
            with pytest.raises(RuntimeError):
                call()
                pytest.fail(f"number {i} was not refused")


def test_a_pretended_gpu_does_what_cuda_does() -> None:
    with gpus():
        x, c = torch.arange(6.0, device=AT).reshape(2, 3), torch.ones(2, 3)
        made = [
            x * 2, x * torch.tensor(2.0), x.clamp(min=torch.tensor(1.0)), x[:, [0, 1]], c.to(x),
            x[:, torch.tensor([0, 1])], x[torch.tensor([True, False])], torch.zeros_like(x),
            torch.full((3,), 2.0, device=x.device), x.new_ones(3), torch.tensor([1, 2], device=AT),
            nn.Linear(3, 2).to(AT)(x), nn.functional.scaled_dot_product_attention(*[x[None]] * 3),
        ]  # fmt: skip
        assert all(str(y.device) == AT and y.is_cuda for y in made)
        x[0], x[1, [0, 2]] = c[0], torch.tensor(7.0)
        assert x.tolist() == [[1, 1, 1], [7, 4, 7]] == x.cpu().numpy().tolist()
        assert float(x.sum()) == 21 and bool((x > 0).all()) and x[1, 1].item() == 4
        y = x.clone().requires_grad_(True)
        (slope,) = torch.autograd.grad((y**2).sum(), y)
        assert slope.device == x.device and torch.equal(slope, 2 * x)


def test_the_generator_on_a_gpu() -> None:
    signs = rng.signs
    with gpus():
        like = torch.empty(0, dtype=torch.int64, device=AT)
        for start, count in ((0, 1), (33, 70), (2**37 + 5, 100)):
            assert rng.signs is not signs  # as one kernel, for speed
            for found in (signs(rng.Key(1, 2), start, count, like),
                          rng.signs(rng.Key(1, 2), start, count, like)):  # fmt: skip
                assert str(found.device) == AT and found.dtype == torch.int64
                assert found.tolist() == signs(rng.Key(1, 2), start, count).tolist()


# -- everything the codec does ----------------------------------------------------------------

WAYS: dict[str, dict[str, Any]] = {
    "default": {"steps": 6}, "M": {"atoms": 9, "steps": 6}, "stop": {"stop": 2},
    "i2v": {"mode": "i2v", "steps": 6, "bpp": 1.5}, "flf2v": {"mode": "flf2v", "steps": 6},
    "auto": {"mode": "auto", "steps": 6, "bpp": 1.2}, "reuse": {"reuse": 2, "steps": 7},
    "fade": {"overlap": 2, "steps": 6},
    "blend": {"mode": "overlap", "alignment": "blend", "steps": 6},
    "pin": {"mode": "overlap", "alignment": "pin", "steps": 6},
    **{f"paper {stream}": {"preset": "paper", "codebook": 32, "atoms": 3, "steps": 6,
                           "codebook_stream": stream} for stream in ("torch", "counter")},
    "free-gvc": {"preset": "free-gvc"}, "quality": {"quality": "psnr:20"},
    "rcc": {"coder": "rcc", "codebook": 64},
    "rcc blend": {"coder": "rcc", "codebook": 64, "mode": "overlap", "alignment": "blend"},
}  # fmt: skip


def video(frames: int = 9) -> Video:
    return Video(cli_runner.frames(frames, 16, 16), Fraction(25))


@pytest.mark.parametrize("way", WAYS)
def test_a_prior_takes_the_codec_to_its_device(way: str) -> None:
    """No device is named but to the prior. The file and its pictures are the CPU's, bit for bit."""
    how = WAYS[way]
    target = {} if {"bpp", "atoms", "stop", "quality"} & how.keys() else {"bpp": 0.6}
    overlaps = "alignment" in how  # by a latent frame
    clip = video(14 if overlaps else 6)
    config = EncodeConfig(prior="tiny", gop=13 if overlaps else 5, **target, **how)
    here = codec.encode(clip, config, tiny_prior.load())
    assert len(gvcc.inspect(here.data).gops) > 1
    with gpus():
        prior = tiny_prior.load(device=AT)
        there = codec.encode(clip, config, prior)
        shown = codec.decode(there.data, prior).frames
    assert there.data == here.data
    assert np.array_equal(there.frames, here.frames) and np.array_equal(shown, here.frames)


@pytest.mark.parametrize("load", [gauss.load, nano.load], ids=["gauss", "nano"])
def test_the_shipped_priors_on_a_gpu(load: Any) -> None:
    config = EncodeConfig(prior="x", mode="i2v", gop=5, steps=6, atoms=9)
    with gpus():
        prior = load(AT)
        made = codec.encode(video(5), config, prior)
        assert np.array_equal(codec.decode(made.data, prior).frames, made.frames)
    shown = codec.decode(made.data, load()).frames  # nano's attention is another on the CPU
    assert np.abs(shown.astype(int) - made.frames).max() <= 2


def test_a_prior_that_is_given_stays_where_it_is() -> None:
    """Whatever the configuration says, and where there is no GPU."""
    config, prior = EncodeConfig(prior="tiny", gop=5, steps=6, device="cuda"), tiny_prior.load()
    made = codec.encode(video(), config, prior)
    assert np.array_equal(codec.decode(made.data, prior, device="cuda").frames, made.frames)


def test_evaluations_follow_the_prior(
    tmp_path: Path, run: Run, clip: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    found: dict[str, Any] = {}
    monkeypatch.setitem(priors._TABLE, "gauss", lambda at, path: tiny_prior.load(device=at))
    source = cells.Source("clip", str(clip), frames=5, height=16)
    job = cells.Job("gvcc:default+prior=gauss+steps=6+gop=5", source, (1.0,), ("psnr_rgb_db",))
    for at in ("cpu", AT):
        monkeypatch.setattr(sweep, "plot", lambda *_: None)
        with gpus():
            prior = tiny_prior.load(device=at)
            row = table6.Row(3, 32, 0.0, 0.0)
            one = table6.cell(video(5).frames, row, prior, "tiny")
            (cell,) = cells.run(dataclasses.replace(job, device=at))
            rows = sweep.run([source], ["M"], prior, tmp_path / at, sweep.Base(2, 4, 5))
        assert cell.cell["status"] == "ok", cell.cell
        # The atoms of preset paper are others on a GPU (--codebook-stream).
        del one["psnr_db"]
        sizes = [(r["value"], r["bytes"], r["published_bits_per_pixel"]) for r in rows]
        found[at] = one, cell.stream, cell.cell["metrics"], sizes
    assert found[AT] == found["cpu"]


def test_the_commands_on_a_gpu(run: Run, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(priors._TABLE, "gauss", lambda at, path: tiny_prior.load(device=at))
    monkeypatch.setattr(priors, "NAMES", (*priors.NAMES, "tiny"))
    monkeypatch.setitem(priors._TABLE, "tiny", lambda at, path: tiny_prior.load(device=at))
    clip, out = tmp_path / "clip.y4m", {}
    media.write(video(5), clip)
    for at in ("cpu", AT):
        with gpus():
            file, shown = tmp_path / f"{at}.gvcc", tmp_path / f"{at}.y4m"
            done = run("encode", clip, "-o", file, "--prior", "gauss", "--bpp", "1", "--steps", "6",
                       "--verify", "--json", "--device", at)  # fmt: skip
            assert done.code == 0 and json.loads(done.out)["verified"], done.err
            assert run("decode", file, "-o", shown, "--device", at).code == 0
        out[at] = file.read_bytes(), shown.read_bytes()
    assert out["cpu"] == out[AT]


@pytest.fixture(scope="module")
def folders(tmp_path_factory: pytest.TempPathFactory) -> Any:
    at = tmp_path_factory.mktemp("models")
    with pytest.MonkeyPatch.context() as m:
        m.setenv("GVCC_CACHE", str(at / "cache"))
        m.setenv("HF_HUB_OFFLINE", "1")
        yield lru_cache(lambda name: tiny_models.make(name, at))


def model(folder: Path, name: str, device: str, **how: Any) -> Any:
    prior: Any = priors.load(f"{name}:{folder}", device, {"dtype": "fp32", "guidance": "2"}, **how)
    known = [1.0 + c % 3 for c in range(prior.spec.channels)]
    store.remember("sensitivities", prior.spec.digest.hex(), known)
    return prior


def outputs(prior: Any) -> list[torch.Tensor]:
    """What a prior makes of some pictures, and of noise under each of its conditions."""
    h, w = (2 * m for m in prior.spec.multiple)
    clip = torch.from_numpy(cli_runner.frames(5, h, w))
    latent = prior.encode(clip)
    x = torch.randn(latent.shape, generator=torch.Generator().manual_seed(1)).to(latent.device)
    made = [latent, prior.render(latent), prior.decode(latent).float(), prior.spec.metric(x, 1.0)]
    for first, last in ((None, None), (clip[:1], None), (clip[:1], clip[-1])):
        condition = prior.condition(References(first, last), x.shape[1])
        made += [condition.denoise(x, t) for t in ((0.5,) if first is not None else (0.95, 0.5))]
        made += condition.known.values()
    return made


@pytest.mark.parametrize(
    "name", ["wan2.1-flf2v-14b-720p", "wan2.2-t2v-a14b", "wan2.2-ti2v-5b", "cogvideox-5b"]
)
def test_published_models_on_a_gpu(folders: Any, name: str) -> None:
    here = outputs(model(folders(name), name, "cpu"))
    with gpus():
        there = outputs(model(folders(name), name, AT))
        assert {str(t.device) for t in there} == {AT}
        there = [t.cpu() for t in there]
    for one, other in zip(here, there, strict=True):
        off = 1.01 if one.max() > 100 else 1e-4  # decoded pictures have whole levels
        assert one.shape == other.shape and float((one - other).abs().max()) < off


@pytest.mark.parametrize("offload", [False, True])
def test_the_image_encoder_leaves_the_device_only_if_it_is_offloaded(
    folders: Any, offload: bool
) -> None:
    name, seen = "wan2.1-i2v-14b-720p", list[str]()
    clip = torch.from_numpy(cli_runner.frames(1, 16, 16))
    here = model(folders(name), name, "cpu").image_embeddings([clip[0], None])
    with gpus():
        prior = model(folders(name), name, AT, offload=offload)
        encoder = prior._image_encoder
        encoder.register_forward_hook(lambda *_: seen.append(place(encoder)))
        for _ in range(2):
            made = prior.image_embeddings([clip[0], None])
            assert place(encoder) == ("cpu" if offload else AT)
        assert seen == [AT, AT] and str(made.device) == AT
    assert torch.allclose(made.cpu(), here, atol=1e-5)


def place(net: nn.Module) -> str:
    (at,) = {str(p.device) for p in (*net.parameters(), *net.buffers())}
    return at


def test_sensitivity_on_a_gpu() -> None:
    prior = tiny_prior.load()
    here = diffusion.sensitivity(prior.render, 6, 2, prior.device)
    with gpus():
        prior = tiny_prior.load(device=AT)
        there = diffusion.sensitivity(prior.render, 6, 2, prior.device)
    assert there == here
