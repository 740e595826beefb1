"""Training the restorer: pairs, the file that carries them, the losses, and whole tiny runs."""

from __future__ import annotations

import csv
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import torch
from test_perceptual import weights  # noqa: F401  (a fixture)
from test_train_gauss import texture, write

from gvcc.errors import ConfigError
from gvcc.pictures import base, enlarge
from gvcc.priors import nano
from gvcc.priors.restorer import Restorer, RestorerShape
from gvcc.train import critic, loop, packed, pairs, restorer, runs
from gvcc.train.critic import Critic
from gvcc.train.packed import About, Pair
from gvcc.train.restorer import RestorerRecipe, RestorerTask

ROOT = Path(__file__).parents[1]
TINY = dict(steps=4, batch=2, crop=32, width=8, blocks=1, pairs=6, held=2, warmup=1,
            validate_every=2, checkpoint_every=1, codecs=("av1",))  # fmt: skip


def pair(size: int = 1, frames: int = 7, codec: str = "av1", seed: int = 0) -> Pair:
    clip = texture(frames, 64, 80, seed)
    small = np.stack([enlarge.shrunk(p, size) for p in clip])
    return Pair(About(codec, size, 120, 999), clip, small)


@pytest.fixture(scope="module")
def data(tmp_path_factory: pytest.TempPathFactory) -> Path:
    root = tmp_path_factory.mktemp("restorer")
    (root / "data").mkdir()
    for i in range(3):
        write(root / "data", f"{i}.y4m", texture(20, 80, 96, i))
    return root


# -- pairs ------------------------------------------------------------------------------------


@pytest.mark.parametrize("codec", ["av1", "vvc"])
def test_a_pair_is_a_clip_and_its_base(codec: str) -> None:
    clip = texture(17, 64, 80, 3)
    made = pairs.made(clip, np.random.default_rng(4), [codec])
    h, w = enlarge.coded_sides(64, 80, made.about.size)
    assert made.about.codec == codec and made.base.shape == (17, h, w, 3)
    assert made.enlarged.shape == made.clip.shape
    off = np.square(made.enlarged.astype(float) - made.clip).mean()
    assert 0 < off < np.square(made.clip - made.clip.mean()).mean()


def test_quantisers_of_pairs_are_those_that_bases_have() -> None:
    """In the codecs' own units, AV1's index and VVC's QP, whatever an index of quality counts."""
    unit = {"av1": 1, "vvc": 4}
    found = {
        key: tuple(base.codec(key[0]).told(i) // unit[key[0]] for i in ends)
        for key, ends in pairs._RANGES.items()
    }
    assert found == {
        ("av1", 1): (120, 255), ("av1", 2): (60, 240), ("av1", 4): (20, 190),
        ("vvc", 1): (26, 51), ("vvc", 2): (18, 44), ("vvc", 4): (13, 36),
    }  # fmt: skip


def test_packed_pairs_are_nearly_the_same(tmp_path: Path) -> None:
    wanted = [pair(1, seed=1), pair(2, frames=3, codec="vvc"), pair(4, frames=5)]
    path = tmp_path / "p"
    assert packed.write(path, wanted, 10**6) == 3
    for found, one in zip(packed.read(path), wanted, strict=True):
        assert found.about == one.about
        first = 1 if len(one.clip) == 7 else 0
        for a, b in ((found.clip, one.clip), (found.base, one.base)):
            b = b[first : first + packed.FRAMES]
            assert a.shape == b.shape and a.dtype == np.uint8
            assert np.square(a - b.astype(float)).mean() < 40
    size = path.stat().st_size
    assert packed.write(path, wanted, size - 1) == 2 and path.stat().st_size < size


def test_a_file_that_holds_no_pairs(tmp_path: Path) -> None:
    path = tmp_path / "p"
    packed.write(path, [pair()], 10**6)
    whole = path.read_bytes()
    for bad in (b"", b"gvcc pears 1\n", whole[:-9], whole.replace(b"[{", b"[[", 1),
                whole[:40] + whole[41:]):  # fmt: skip
        path.write_bytes(bad)
        with pytest.raises(ConfigError, match="holds no pairs|cannot be read"):
            list(packed.read(path))
    with pytest.raises(ConfigError, match="No such file"):
        list(packed.read(tmp_path / "none"))


# -- losses -----------------------------------------------------------------------------------


def test_texture_is_about_statistics() -> None:
    """The same values in other places inside a window cost nothing; flat ones do."""
    torch.manual_seed(0)
    taps = [torch.rand(2, 3, 32 // s, 32 // s) for s in (1, 2, 4, 8, 16)]

    def shuffled(x: torch.Tensor, window: int) -> torch.Tensor:
        n, c, h, w = x.shape
        parts = x.reshape(n, c, h // window, window, w // window, window).transpose(3, 4)
        flat = parts.reshape(n, c, h // window, w // window, -1).flip(-1)
        return flat.reshape(parts.shape).transpose(3, 4).reshape(x.shape)

    moved = [shuffled(x, k) for x, k in zip(taps, restorer._WINDOWS, strict=True)]
    assert not torch.equal(moved[0], taps[0])
    assert restorer.texture(moved, taps) < 1e-5
    assert restorer.texture([x.mean() + 0 * x for x in taps], taps) > 0.1


def test_the_critic_learns_and_is_left_alone_by_the_restorer() -> None:
    torch.manual_seed(0)
    judge = Critic()
    base = torch.full((4, 3, 32, 32), 0.5)
    real = base + 0.2 * torch.randn_like(base)
    optimiser = torch.optim.Adam(judge.parameters(), 1e-3)
    made = base.clone().requires_grad_()
    critic.fooled(judge, made, real, base).backward()
    assert made.grad is not None and made.grad.abs().sum() > 0
    assert all(p.grad is None for p in judge.parameters())
    found = []
    for step in range(40):
        optimiser.zero_grad()
        loss = critic.critic_loss(judge, base, real, base, step)
        loss.backward()
        optimiser.step()
        if step % 4:
            found.append(loss.item())
    assert found[-1] < 0.6 * found[0]
    assert judge(real, base).mean() > judge(base, base).mean()
    assert judge(real, base).shape == (4, 1, 4, 4)


@pytest.mark.parametrize("size", [1, 2, 4])
def test_crops_belong_together(size: int) -> None:
    """What is cut from base, enlarged base and clip is the same place."""
    one = pair(size)
    rng = np.random.default_rng(size)
    for _ in range(8):
        small, big, target, strength = restorer._cut(one, 32, rng)
        assert strength.shape == (1, 8, 8)
        assert small.shape == (9, 32 // size, 32 // size) and big.shape == target.shape
        again = enlarge.enlarged(small[3:6].transpose(1, 2, 0), 32, 32, size)
        inner = np.s_[8:-8, 8:-8]
        assert np.abs(again.transpose(2, 0, 1)[:, *inner].astype(int) - big[:, *inner]).max() < 3


# -- runs -------------------------------------------------------------------------------------


def task(**more: object) -> RestorerTask:
    recipe = RestorerRecipe(**(TINY | more))  # type: ignore[arg-type]
    all_sizes = [pair(s, seed=s) for s in (1, 2, 4)]
    return RestorerTask(restorer.empty(recipe), all_sizes, all_sizes[1:2], recipe, "cpu")


def test_fidelity_sees_no_noise() -> None:
    made = task()
    assert not made.for_the_eye and [*made.model] == ["restorer"]
    assert torch.equal(made.loss(3), made.loss(3))


@pytest.mark.usefixtures("weights")
def test_realism_has_all_losses() -> None:
    small = dict(perceptual=1.0, texture=0.1, low=1.0, critic=0.05, critic_from=1)
    made = task(**small)
    assert [*made.model] == ["restorer", "critic"]
    first, later = made.loss(0), made.loss(1)
    assert torch.equal(first, made.loss(0))
    later.backward()
    assert all(p.grad is not None for p in made.model["critic"].parameters())
    exit_layer = made.restorer.exit
    assert exit_layer.weight.grad is not None and exit_layer.weight.grad.abs().sum() > 0
    row = made.validate()
    assert set(row) == {"PSNR over base, dB", "alex / base", "dists / base"}
    assert row["alex / base"] == pytest.approx(1, abs=0.3)


def test_a_run_goes_on_and_leaves_weights(data: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(loop, "plot_curve", lambda curve, path: None)
    monkeypatch.setattr(pairs, "SIDE", 64)
    text = "".join(f"{k} = {list(v) if isinstance(v, tuple) else v}\n" for k, v in TINY.items())
    recipe = data / "tiny.toml"
    recipe.write_text(text.replace("'", '"'))

    def run(out: str, progress: loop.Progress | None = None) -> Path:
        return runs.restorer(data / "data", data / out, str(recipe), progress=progress)

    whole = run("one")

    def stop(what: str, step: int, of: int) -> None:
        if what == "train" and step == 3:
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        run("two", stop)
    config, tensors, digest = nano.unpack(whole.read_bytes(), "")
    assert nano.unpack(run("two").read_bytes(), "")[2] == digest
    assert config == {"restorer": {"width": 8, "blocks": 1}}
    Restorer(RestorerShape(8, 1)).load_state_dict(nano.state("restorer", tensors))
    rows = list(csv.DictReader((data / "one/curve.csv").open()))
    assert [r["step"] for r in rows] == ["2.0", "4.0"]


def test_time_that_is_over_leaves_a_checkpoint(tmp_path: Path) -> None:
    made = task(steps=50, checkpoint_every=50, validate_every=50)
    run = loop.Run(made, made.recipe, tmp_path)
    run.train(over=lambda: run.step == 3)
    again = loop.Run(task(steps=50), made.recipe, tmp_path)
    assert again.step == 3


def test_the_gpus_side_needs_numpy_and_torch_alone() -> None:
    code = (
        "import sys, torch; known = set(sys.modules)\n"
        "from gvcc.train import packed, restorer\nfrom gvcc.train.loop import Run\n"
        "new = {m.split('.')[0] for m in set(sys.modules) - known}\n"
        "print(*(new - set(sys.stdlib_module_names) - {'torchgen', 'tqdm'}))"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, check=True, text=True)
    assert set(done.stdout.split()) <= {"gvcc", "numpy", "torch", "typing_extensions"}


@pytest.mark.usefixtures("weights")
def test_packing_running_and_finishing(
    data: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """training/gpu.py from end to end, in miniature."""
    monkeypatch.syspath_prepend(str(ROOT / "training"))
    import gpu

    recipe = tmp_path / "tiny.toml"
    small = TINY | dict(perceptual=1.0, texture=0.1, critic=0.05)
    text = "".join(f"{k} = {list(v) if isinstance(v, tuple) else v}\n" for k, v in small.items())
    recipe.write_text(text.replace("'", '"'))
    monkeypatch.setattr(gpu, "RECIPE", recipe)
    monkeypatch.setattr(pairs, "SIDE", 64)
    monkeypatch.setattr(loop, "plot_curve", lambda curve, path: None)
    begin = runs.write_restorer(Restorer(RestorerShape(8, 1)), tmp_path)
    out = tmp_path / "gpu"
    gpu.pack(data / "data", out, begin, 2)
    carried = [p for p in out.iterdir() if p.is_file() and p.suffix != ".csv"]
    assert sum(p.stat().st_size for p in carried) < 64 * 2**20
    assert len(list(packed.read(out / "0.pairs"))) == 6
    gpu.run(out, 5)
    gpu.finish(out)
    _, tensors, _ = nano.unpack((out / "restorer.safetensors").read_bytes(), "")
    assert not torch.equal(tensors["restorer.exit.weight"], torch.zeros(51, 8, 3, 3))


def test_joining_two_runs(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.syspath_prepend(str(ROOT / "training"))
    import join

    (tmp_path / "a").mkdir(), (tmp_path / "b").mkdir()
    first = runs.write_restorer(Restorer(RestorerShape(8, 1)), tmp_path / "a")
    second = runs.write_restorer(Restorer(RestorerShape(8, 2)), tmp_path / "b")
    join.join(first, first, tmp_path / "out")
    config, tensors, _ = nano.unpack((tmp_path / "out").read_bytes(), "")
    assert set(config) == {"realism", "fidelity"}
    more = tensors["realism.exit.bias"] - tensors["fidelity.exit.bias"]
    assert torch.equal(more, torch.tensor([0.0] * 48 + [join.LOUDER] * 3).half())
    with pytest.raises(ConfigError, match="expected shape|of different"):
        join.join(first, second, tmp_path / "bad")


def test_what_ships_is_what_is_kept(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The weights in the package are those in training/."""
    monkeypatch.syspath_prepend(str(ROOT / "training"))
    import join

    kept = ROOT / "training/nano-restorer"
    join.join(kept / "realism.safetensors", kept / "fidelity.safetensors", tmp_path / "out")
    shipped = Path(nano.__file__).parent / "weights/restorer.safetensors"
    ours, theirs = (nano.unpack(p.read_bytes(), "")[2] for p in (tmp_path / "out", shipped))
    assert ours == theirs
