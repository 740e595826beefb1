"""The training runs of `nano`: what they leave, going on after a stop, and what they refuse."""

import csv
import dataclasses
import hashlib
import math
import shutil

import pytest
import torch
from cli_runner import Run as Gvcc
from test_train_gauss import texture, write

from gvcc.errors import ConfigError, TrainingError
from gvcc.priors import nano, transformer
from gvcc.train import autoencoder, flow, loop, runs
from gvcc.train.autoencoder import AutoencoderRecipe, AutoencoderTask
from gvcc.train.dataset import Dataset
from gvcc.train.flow import FlowRecipe, FlowTask
from gvcc.train.loop import load_recipe

OFTEN = "warmup = 2\nvalidate_every = 4\ncheckpoint_every = 2\n"
TINY = {
    "autoencoder": "steps = 6\nbatch = 2\nframes = 5\nside = 32\nchannels = 4\nwidth = 64\n"
    "encoder_blocks = 1\ndecoder_blocks = 1\n" + OFTEN,
    "flow": "steps = 6\nbatch = 32\npool = 6\npool_frames = 9\npool_side = 64\nwidth = 64\n"
    "layers = 2\n" + OFTEN,
}
KINDS = {"autoencoder": AutoencoderRecipe, "flow": FlowRecipe}
SHRUNK = {  # fmt: skip
    "autoencoder": dict(batch=4, frames=5, side=32, channels=4, encoder_blocks=1, decoder_blocks=1),
    "flow": dict(batch=128, pool=8, pool_frames=17, pool_side=64, layers=1),
}


@pytest.fixture(scope="module", autouse=True)
def few_validation_samples():
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(autoencoder, "_VALIDATION", 2)
        patch.setattr(flow, "_VALIDATION", 2)
        yield


@pytest.fixture(autouse=True)
def no_plots(monkeypatch):
    """Only the runs of `finished` draw: matplotlib takes more time than all the training."""
    monkeypatch.setattr(loop, "plot_curve", lambda curve, path: None)


@pytest.fixture(scope="module")
def place(tmp_path_factory):
    """A folder with data/, the recipes and the decoded clips; runs go beside them."""
    root = tmp_path_factory.mktemp("training")
    (root / "data/more").mkdir(parents=True)
    for i, name in enumerate(("a.y4m", "b.y4m", "more/c.y4m")):
        write(root / "data", name, texture(33, 64, 64, i))
    write(root / "data", "still.png", texture(1, 64, 80, 9))
    for name, text in TINY.items():
        (root / f"{name}.toml").write_text(text)
    return root


def train(kind, place, out, trained=None, recipe="", progress=None):
    """One run of either kind; recipe "" is the tiny one."""
    chosen = str(place / f"{kind}.toml") if recipe == "" else recipe
    how = {"recipe": chosen, "cache": place / "cache", "progress": progress}
    if kind == "autoencoder":
        return runs.autoencoder(place / "data", out, **how)
    return runs.flow(place / "data", out, trained, **how)


@pytest.fixture(scope="module")
def finished(place):
    """The weights files of both runs, made in one piece."""
    first = train("autoencoder", place, place / "one/autoencoder")
    return {"autoencoder": first, "flow": train("flow", place, place / "one/flow", first)}


def digest(path):
    return nano.unpack(path.read_bytes(), "")[2]


def good(checkpoint):
    """The step of a checkpoint, all of whose weights are finite."""
    state = torch.load(checkpoint, weights_only=True)
    assert all(torch.isfinite(v).all() for v in state["model"].values())
    return state["step"]


def until(step):
    """Progress that is interrupted, as by Ctrl-C, once `step` training steps are done."""

    def progress(stage, done, total):
        if stage == "train" and done == step:
            raise KeyboardInterrupt

    return progress


# -- what a run leaves ------------------------------------------------------------------------


@pytest.mark.parametrize("kind", KINDS)
def test_a_run_leaves_its_recipe_data_and_curve(place, finished, kind):
    out = finished[kind].parent
    assert (out / "recipe.toml").read_text() == TINY[kind]
    rows = list(csv.DictReader((out / "manifest.csv").open()))
    assert [r["file"] for r in rows] == ["a.y4m", "b.y4m", "more/c.y4m", "still.png"]
    assert [r["frames"] for r in rows] == ["33", "33", "33", "1"]
    for r in rows:
        data = (place / "data" / r["file"]).read_bytes()
        assert r["sha256"] == hashlib.sha256(data).hexdigest()
    curve = list(csv.DictReader((out / "curve.csv").open()))
    assert [float(r["step"]) for r in curve] == [4, 6]
    assert len(curve[0]) >= 5 and all(math.isfinite(float(v)) for r in curve for v in r.values())
    assert (out / "curve.png").read_bytes().startswith(b"\x89PNG")
    assert not list(out.glob("*.part*"))


def test_the_flows_file_is_a_prior_of_the_averaged_weights(finished):
    prior = nano.load(path=finished["flow"])
    for kind, model in (("autoencoder", prior.autoencoder), ("flow", prior.net)):
        state = torch.load(finished[kind].with_name("checkpoint.pt"), weights_only=True)
        now, average = state["model"], state["average"]
        for name, tensor in model.state_dict().items():
            assert torch.equal(tensor, average[name].half().float())
        moved = {k for k in now if not torch.equal(now[k], average[k])}
        assert moved == {k for k, _ in model.named_parameters()}
    # Its spectrum is that of the clips, which were enlarged to 256x256.
    clip = torch.from_numpy(texture(33, 64, 64, 1))
    latent = prior.encode(clip.repeat_interleave(4, 1).repeat_interleave(4, 2))
    assert torch.allclose(prior.model.scale()[0], latent[0].norm() / 96, rtol=0.5)
    assert torch.isfinite(prior.denoise(latent, 0.5)).all()


@pytest.mark.parametrize("kind", KINDS)
def test_a_finished_run_trains_no_more(place, finished, kind):
    out, said = finished[kind].parent, []
    before = {p: p.read_bytes() for p in out.glob("c*")}
    weights = digest(finished[kind])
    train(kind, place, out, finished["autoencoder"], None, lambda stage, *_: said.append(stage))
    assert digest(finished[kind]) == weights and set(said) == {"decode"}
    assert {p: p.read_bytes() for p in out.glob("c*")} == before


# -- going on ---------------------------------------------------------------------------------


@pytest.mark.parametrize(("kind", "stops"), [("autoencoder", [3]), ("flow", [1, 5])])
def test_a_run_that_was_killed_goes_on_as_if_nothing_had_happened(
    place, finished, tmp_path, kind, stops
):
    """Between two checkpoints, between rows of the curve, or before the first of either."""
    out, one = tmp_path / "run", finished[kind].parent
    for step in stops:
        with pytest.raises(KeyboardInterrupt):
            train(kind, place, out, finished["autoencoder"], progress=until(step))
        assert (out / "checkpoint.pt").exists() == (step > 1)
    path = train(kind, place, out, finished["autoencoder"])
    assert (out / "curve.csv").read_text() == (one / "curve.csv").read_text()
    assert digest(path) == digest(finished[kind])
    ours, theirs = (torch.load(p / "checkpoint.pt", weights_only=True) for p in (out, one))
    for name, tensor in theirs["model"].items():
        assert torch.equal(ours["model"][name], tensor)


def test_a_run_may_begin_with_given_weights(place, finished, tmp_path):
    """With rates of zero they come out as they went in."""
    still = tmp_path / "still.toml"
    still.write_text(TINY["flow"] + "lr = 0.0\nadam_lr = 0.0\n")
    how = (place / "data", tmp_path / "run", finished["autoencoder"], str(still), place / "cache")
    with pytest.raises(ConfigError, match="transformer.enter.weight is missing, expected"):
        runs.flow(*how, begin=finished["autoencoder"])
    assert digest(runs.flow(*how, begin=finished["flow"])) == digest(finished["flow"])


@pytest.mark.parametrize("damage", ["cut", "empty", "text", "other"])
def test_a_damaged_checkpoint_is_named(place, finished, tmp_path, damage):
    shutil.copytree(finished["autoencoder"].parent, tmp_path / "run")
    file = tmp_path / "run/checkpoint.pt"
    data, other = (finished[k].with_name("checkpoint.pt").read_bytes() for k in KINDS)
    bad = {"cut": data[: len(data) // 2], "empty": b"", "text": b"no checkpoint", "other": other}
    file.write_bytes(bad[damage])
    with pytest.raises(ConfigError, match="expected a checkpoint of this model") as caught:
        train("autoencoder", place, file.parent)
    assert str(file) in str(caught.value)


@pytest.mark.parametrize("bad", [math.nan, math.inf])
def test_a_loss_that_is_not_finite_stops_the_run(place, finished, tmp_path, monkeypatch, bad):
    """The error names the checkpoint; from there a lower rate, or luck, goes on."""
    out, loss = tmp_path / "run", AutoencoderTask.loss
    with monkeypatch.context() as patch:
        patch.setattr(AutoencoderTask, "loss",
                      lambda task, step: loss(task, step) * (bad if step == 4 else 1))  # fmt: skip
        with pytest.raises(TrainingError, match=f"loss of step 4 is {bad}") as caught:
            train("autoencoder", place, out)
    assert str(out / "checkpoint.pt") in str(caught.value)
    assert str(out / "recipe.toml") in str(caught.value)
    assert good(out / "checkpoint.pt") == 4
    if lower := bad == math.inf:
        (out / "recipe.toml").write_text(TINY["autoencoder"] + "lr = 1e-4\n")
    path = train("autoencoder", place, out, recipe=None)
    assert (digest(path) == digest(finished["autoencoder"])) != lower


def test_a_gradient_that_is_not_finite_spoils_no_checkpoint(place, tmp_path, monkeypatch):
    loss = AutoencoderTask.loss

    def spoilt(task, step):
        value = loss(task, step)
        if step == 3:
            value.register_hook(lambda gradient: gradient * math.nan)
        return value

    monkeypatch.setattr(AutoencoderTask, "loss", spoilt)
    with pytest.raises(TrainingError, match="gradient's norm of step 3 is nan"):
        train("autoencoder", place, tmp_path / "run")
    assert good(tmp_path / "run/checkpoint.pt") <= 3


# -- refusals ---------------------------------------------------------------------------------

FAULTY = {
    "stepz = 5": "unknown key 'stepz'; known: adam_lr, batch",
    "batch = 4": "steps",  # is missing
    "steps = 0\nbatch = 4": "steps is 0, expected 1 or more",
    "steps = 5\nbatch = 0.5": "batch is 0.5, expected",
    "steps = 5\nbatch = 4\nvalidate_every = -1": "validate_every is -1",
    "steps = 5\nbatch = 4\ncheckpoint_every = 'x'": "checkpoint_every is 'x'",
    "steps: 5": "not a TOML file",
    "steps = 5 # \xff": "not a TOML file",  # Latin-1
    None: "No such file",
}


@pytest.mark.parametrize(("text", "says"), FAULTY.items())
@pytest.mark.parametrize("kind", KINDS)
def test_a_faulty_recipe_is_refused_before_anything_is_written(
    place, finished, tmp_path, kind, text, says
):
    file = tmp_path / "mine.toml"
    if text is not None:
        file.write_text(text, encoding="latin-1")
    with pytest.raises(ConfigError, match=says) as caught:
        train(kind, place, tmp_path / "run", finished["autoencoder"], str(file))
    assert str(file) in str(caught.value)
    assert not (tmp_path / "run").exists()


@pytest.mark.parametrize("name", ["cpu", "cpu-fine", "gpu"])
@pytest.mark.parametrize("kind", KINDS)
def test_the_recipes_that_ship_are_found_by_name(tmp_path, kind, name):
    recipe = runs.prepare(tmp_path / "run", f"nano-{kind}", name, "cpu", KINDS[kind])
    assert recipe == runs.prepare(tmp_path / "run", f"nano-{kind}", None, "cpu", KINDS[kind])
    assert recipe.steps > 500 and (name != "cpu-fine" or recipe.seed != 1)


def test_a_folder_goes_on_with_its_own_recipe_and_data_only(place, finished, tmp_path):
    out = tmp_path / "run"
    shutil.copytree(finished["autoencoder"].parent, out)
    with pytest.raises(ConfigError, match=f"{out} holds a run with another recipe"):
        train("autoencoder", place, out, recipe="cpu")
    assert (out / "recipe.toml").read_text() == TINY["autoencoder"]
    shutil.copytree(place / "data", tmp_path / "data")
    (tmp_path / "data/b.y4m").unlink()
    with pytest.raises(ConfigError, match="are not those of .*manifest.csv"):
        runs.autoencoder(tmp_path / "data", out, None, place / "cache")


def test_a_flow_goes_on_with_its_own_autoencoder_only(place, finished, tmp_path):
    shutil.copytree(finished["flow"].parent, tmp_path / "run")
    config, tensors, _ = nano.unpack(finished["autoencoder"].read_bytes(), "")
    other = tmp_path / "other.safetensors"
    other.write_bytes(nano.pack(config, {k: 1.1 * v for k, v in tensors.items()}))
    with pytest.raises(ConfigError, match="run holds a run on another autoencoder than .*other"):
        train("flow", place, tmp_path / "run", other)


# -- losses -----------------------------------------------------------------------------------


def task_of(kind, recipe, place, finished, folder):
    data = Dataset(place / "data", place / "cache", recipe.weights, recipe.pictures)
    if kind == "autoencoder":
        return AutoencoderTask(runs.start(recipe), data, recipe, "cpu")
    prior = nano.load(path=finished["flow"])
    auto = prior.autoencoder
    pool = flow.encode_pool(auto, data, recipe, folder / "pool.npy")
    torch.manual_seed(1)
    net = transformer.Transformer(transformer.TransformerShape(4, recipe.width, recipe.layers))
    return FlowTask(net, prior.model, pool, flow.held_out_latents(auto, data), recipe, "cpu")


@pytest.mark.parametrize("kind", KINDS)
def test_gpu_recipes_run_in_small(place, finished, tmp_path, kind):
    """A few steps on the CPU, with the networks in bfloat16 and the weights in float32."""
    recipe = load_recipe(runs.files("gvcc.train") / f"recipes/nano-{kind}-gpu.toml", KINDS[kind])
    recipe = dataclasses.replace(recipe, steps=3, width=64, **SHRUNK[kind])
    task, seen = task_of(kind, recipe, place, finished, tmp_path), set()
    inner = task.model.decoder[0].up if kind == "autoencoder" else task.model.layers[0].up
    inner.register_forward_hook(lambda m, i, o: seen.add((m.training, o.dtype)))
    average = loop.Run(task, recipe, tmp_path).train()
    assert (True, torch.bfloat16) in seen
    assert all(v.dtype == torch.float32 and torch.isfinite(v).all() for v in average.values())


@pytest.mark.parametrize("kind", KINDS)
def test_thirty_steps_lower_the_loss(place, finished, tmp_path, kind):
    """Measured on samples that training has not seen."""
    recipe = KINDS[kind](30, width=64, warmup=3, validate_every=30, **SHRUNK[kind])
    task = task_of(kind, recipe, place, finished, tmp_path)

    def measure():
        with torch.no_grad():
            return sum(task.loss(step).item() for step in range(1000, 1008)) / 8

    before = measure()
    if kind == "autoencoder":  # by definition: its error over its own
        assert before == pytest.approx(1 + recipe.structure, abs=1e-3)
    assert before == measure()
    loop.Run(task, recipe, tmp_path).train()
    assert measure() < 0.96 * before


# -- commands ---------------------------------------------------------------------------------


def test_commands(run: Gvcc, place, finished, tmp_path):
    """The same runs from the command line give the same weights; errors have their exit codes."""
    for kind in KINDS:
        path = tmp_path / kind / finished[kind].name
        how = ["train", f"nano-{kind}", place / "data", "-o", path.parent]
        assert run(*how[:2], "--help").code == 0
        if kind == "flow":
            missing = run(*how, "--autoencoder", tmp_path / "none")
            assert missing.code == 2 and f"{tmp_path / 'none'}: No such file" in missing.err
            shutil.rmtree(path.parent)
            how += ["--autoencoder", finished["autoencoder"]]
        done = run(*how, "--recipe", place / f"{kind}.toml", "--cache", place / "cache")
        assert (done.code, done.out) == (0, b"")
        assert done.err.endswith(f"{path}: {path.stat().st_size} bytes\n")
        assert digest(path) == digest(finished[kind])
        other = run(*how, "--recipe", "cpu")
        assert other.code == 2 and "another recipe" in other.err
        assert run(*how, "--device", "warp").code == 2
