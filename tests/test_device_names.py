"""Names of devices, what is done before a GPU is first used, and where training runs. No GPU is
needed: pretend_gpu has two."""

from __future__ import annotations

from io import BytesIO
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import tiny_prior
import torch
from cli_runner import Run
from pretend_gpu import OnGpu, gpus
from test_devices import AT, place, video
from torch import nn

import gvcc
from gvcc import codec, priors
from gvcc.errors import ConfigError, GvccError
from gvcc.format import rng
from gvcc.priors import devices, gauss, nano
from gvcc.priors.spectrum import StationaryGaussian
from gvcc.priors.transformer import Shape, Transformer
from gvcc.search.config import EncodeConfig
from gvcc.train import flow, loop, runs

pytestmark = pytest.mark.usefixtures("short_schedules")

# -- names ------------------------------------------------------------------------------------

NONE_SUCH = ["banana", "mps", "xpu", "meta", "cuda:", "cuda:-1", "cuda:01", "CUDA", "cpu:1", ""]


def test_names_that_are_no_device() -> None:
    data = codec.encode(video(5), EncodeConfig(prior="gauss", bpp=1, steps=6)).data
    calls: list[Any] = [
        lambda at: gvcc.encode(video(), EncodeConfig(device=at)),
        lambda at: gvcc.decode(data, device=at), lambda at: codec.Decoder(BytesIO(data), device=at),
        lambda at: codec.encode(video(), EncodeConfig(device=at), tiny_prior.load()),
        lambda at: priors.load("gauss", at), lambda at: priors.pick_device(at, "gauss"),
        lambda at: gauss.load(at), lambda at: runs.autoencoder(Path(), Path(), device=at),
        lambda at: runs.flow(Path(), Path(), Path(), device=at),
    ]  # fmt: skip
    for call in calls:
        for at in NONE_SUCH:
            with pytest.raises(ConfigError, match=f"^device '{at}': expected cpu, cuda, cuda:1 "):
                call(at)
    for call in calls[:3] + calls[4:]:
        with pytest.raises(ConfigError, match="^device cuda:7: PyTorch finds no GPU here$"):
            call("cuda:7")
        with gpus(), pytest.raises(ConfigError, match="no such GPU here, only cuda:0 to cuda:1$"):
            call("cuda:7")


def test_a_prior_of_anybodys_is_looked_at_too() -> None:
    prior = tiny_prior.load()
    for at, why in (("mps", "expected cpu, cuda"), ("cuda:0", "no GPU here")):
        prior.device = torch.device(at)
        with pytest.raises(ConfigError, match=why):
            codec.encode(video(), EncodeConfig(prior="tiny", bpp=1), prior)


@pytest.mark.parametrize("at", ["banana", "mps", "cuda:7"])
def test_no_command_takes_a_name_that_is_no_device(
    run: Run, clip: Path, coded: Path, tmp_path: Path, at: str
) -> None:
    (tmp_path / "Beauty_1920x1080.yuv").write_bytes(b"")
    for words in (
        ("encode", clip, "-o", tmp_path / "a.gvcc"), ("decode", coded, "-o", tmp_path / "a.y4m"),
        ("eval", clip, "--out", tmp_path / "e"), ("eval", "sweep", clip, "--out", tmp_path / "s"),
        ("eval", "table6", "--uvg", tmp_path, "--prior", "gauss", "--sequences", "Beauty"),
        ("train", "nano-autoencoder", tmp_path, "-o", tmp_path / "t"),
        ("train", "nano-flow", tmp_path, "-o", tmp_path / "f", "--autoencoder", tmp_path / "none"),
    ):  # fmt: skip
        done = run(*words, "--device", at)
        assert done.code == 2 and "gvcc: device " in done.err and done.err.count("\n") == 1, words
    assert [p.name for p in tmp_path.iterdir()] == ["Beauty_1920x1080.yuv"]


def test_a_device_has_its_number() -> None:
    """What `cuda` means may change while a prior is in use."""
    with gpus():
        assert str(tiny_prior.load(device="cuda").device) == "cuda:0"
        assert str(nano.load("cuda:1").device) == "cuda:1"
    assert tiny_prior.load(device="cpu:0").device == torch.device("cpu")


# -- before a GPU is used ---------------------------------------------------------------------


@pytest.fixture
def untested() -> Any:
    devices._tested.cache_clear()
    yield
    devices._tested.cache_clear()


def test_the_generator_is_tested_once_on_each_gpu(
    untested: None, monkeypatch: pytest.MonkeyPatch
) -> None:
    real, tested = rng.self_test, list[str]()
    monkeypatch.setattr(rng, "self_test", lambda x: tested.append(str(x.device)) or real(x))
    with gpus():
        for at in ("cuda", "cuda:1", "cuda:0", "cuda:1", "cpu"):
            prior = tiny_prior.load(device=at)
            codec.encode(video(1), EncodeConfig(prior="tiny", stop=1), prior)
    assert tested == ["cuda:0", "cuda:1"]


@pytest.mark.parametrize("own", [False, True])
def test_a_gpu_that_computes_wrongly_is_not_used(
    untested: None, monkeypatch: pytest.MonkeyPatch, own: bool
) -> None:
    real = rng.words
    with gpus():
        prior = tiny_prior.load(device=AT)  # anybody's: nothing looked at its device before
        devices._tested.cache_clear()
        monkeypatch.setattr(rng, "words", lambda *a: real(*a) ^ 1 if len(a) > 3 else real(*a))
        with pytest.raises(GvccError, match="^device cuda:1 does not compute as it should: Philox"):
            if own:
                priors.load("gauss", AT)
            else:
                codec.encode(video(5), EncodeConfig(prior="tiny", bpp=1), prior)


# -- training ---------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("gpu", "asked", "at"),
    [(False, "auto", "cpu"), (True, "auto", "cuda:0"), (True, AT, AT), (True, "cpu", "cpu")],
)
def test_training_goes_where_it_is_told(
    run: Run, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, gpu: bool, asked: str, at: str
) -> None:
    """With the recipe for that device; nothing is trained here."""
    places = []

    def begun(task: Any, recipe: Any, out: Path) -> Any:
        places.append(place(task.model))
        raise ConfigError("far enough")

    monkeypatch.setattr(runs, "Run", begun)
    monkeypatch.setattr(runs, "open_data", lambda *_: None)
    command = ("train", "nano-autoencoder", tmp_path, "-o", tmp_path / "run", "--device", asked)
    if gpu:
        with gpus():
            done = run(*command)
    else:
        done = run(*command)
    assert done.code == 2 and "far enough" in done.err and places == [at]
    recipe = Path(runs.__file__).with_name("recipes") / \
        f"nano-autoencoder-{'cpu' if at == 'cpu' else 'gpu'}.toml"  # fmt: skip
    assert (tmp_path / "run/recipe.toml").read_text() == recipe.read_text()


class Small:
    """A task whose model has a matrix inside, for Muon."""

    def __init__(self, device: str) -> None:
        torch.manual_seed(1)
        self.model = nn.Sequential(nn.Linear(2, 2)).to(device)


def test_a_run_goes_on_on_another_device(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def step(run: loop.Run) -> None:
        for p in run.task.model.parameters():
            p.grad = torch.ones_like(p)
        for o in run.optimisers:
            o.step()

    first: Any = loop.Run(Small("cpu"), loop.Recipe(9, 1), tmp_path)  # type: ignore[arg-type]
    step(first)
    first.step = 1
    with monkeypatch.context() as m:
        m.setattr(torch.serialization, "location_tag", lambda _: "cuda:0")  # as a GPU's are saved
        first._save()
    again: Any = loop.Run(Small("cpu"), loop.Recipe(9, 1), tmp_path)  # type: ignore[arg-type]
    assert again.step == 1 and torch.equal(again.task.model[0].weight, first.task.model[0].weight)
    with gpus():
        moved: Any = loop.Run(Small(AT), loop.Recipe(9, 1), tmp_path)  # type: ignore[arg-type]
        step(moved)
        assert {str(v.device) for v in moved.average.values()} == {AT}
        for k, v in moved.task.model.state_dict().items():
            moved.average[k].lerp_(v, 0.5)  # as the loop does
        weight = moved.task.model[0].weight.cpu()
    step(again)
    assert torch.equal(weight, again.task.model[0].weight)


def test_a_loss_on_a_gpu_is_the_cpus() -> None:
    found = []
    pool = np.random.default_rng(0).standard_normal((4, 6, 3, 8, 8)).astype(np.float16)
    recipe = flow.FlowRecipe(9, 8, width=64, layers=1)
    for at in ("cpu", AT):
        with gpus():
            gauss_model = StationaryGaussian(tiny_prior.load().model._log_power, at)
            torch.manual_seed(1)
            net = Transformer(Shape(6, 64, 1))
            held = torch.from_numpy(pool[:2]).float().to(at)
            task = flow.FlowTask(net, gauss_model, pool, held, recipe, at)
            loss = task.loss(0)
            loss.backward()
            ours = [p.grad for p in net.parameters()]
            assert isinstance(loss, OnGpu) == (at == AT) and all(g is not None for g in ours)
            found.append([loss.item(), *task.validate().values()])
    assert found[0] == pytest.approx(found[1], rel=1e-4)
