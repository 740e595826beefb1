"""LPIPS and DISTS against the packages themselves, on random weights: theirs run on trunks that a
stand-in for torchvision gives them, with the very same numbers."""

from __future__ import annotations

import importlib
import subprocess
import sys
import types
from pathlib import Path

import numpy as np
import pytest
import torch

from gvcc.errors import ConfigError
from gvcc.metrics import perceptual
from gvcc.search import quality

pytestmark = pytest.mark.usefixtures("one_thread")
WIDTHS = {"alex": 64 + 192 + 384 + 256 + 256, "vgg": 1472}


@pytest.fixture(autouse=True)
def weights(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A folder of random weights by the names that the metrics look for."""
    torch.manual_seed(3)
    for net, name in perceptual.TRUNKS.items():
        state = perceptual.build(net).state_dict()
        more = {"classifier.0.weight": torch.zeros(1)}  # what else torchvision's files have
        torch.save({f"features.{k}": v for k, v in state.items()} | more, tmp_path / name)
    monkeypatch.setenv("GVCC_METRICS", str(tmp_path))
    perceptual.forget()
    return tmp_path


@pytest.fixture
def torchvision(weights: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """torchvision.models with the three trunks, enough for the packages to run."""
    models = types.ModuleType("torchvision.models")

    def trunk(net: str):
        def make(pretrained: bool = False):
            layers = perceptual.build(net)
            found = torch.load(weights / perceptual.TRUNKS[net], weights_only=True)
            layers.load_state_dict({k[9:]: v for k, v in found.items() if k[0] == "f"})
            return types.SimpleNamespace(features=layers)

        return make

    models.alexnet, models.vgg16 = map(trunk, ("alex", "vgg"))
    models.squeezenet1_1 = None  # the package asks for the name
    vision = types.ModuleType("torchvision")
    vision.models, vision.transforms = models, types.ModuleType("torchvision.transforms")
    for name, module in (("", vision), (".models", models), (".transforms", vision.transforms)):
        monkeypatch.setitem(sys.modules, f"torchvision{name}", module)
    for name in [n for n in sys.modules if n.split(".")[0] in ("lpips", "DISTS_pytorch")]:
        monkeypatch.delitem(sys.modules, name)


def clips(h: int = 70, w: int = 85) -> tuple[np.ndarray, np.ndarray]:
    rng = np.random.default_rng(0)
    ref = rng.integers(0, 256, (3, h // 5, w // 5, 3)).repeat(5, 1).repeat(5, 2).astype(np.uint8)
    return ref, np.clip(ref + rng.normal(0, 30, ref.shape), 0, 255).astype(np.uint8)


def as_tensor(clip: np.ndarray) -> torch.Tensor:
    return torch.from_numpy(clip).permute(0, 3, 1, 2).float() / 255


@pytest.mark.parametrize("net", perceptual.TRUNKS)
def test_lpips_is_the_packages(net: str, torchvision: None) -> None:
    package = importlib.import_module("lpips")
    theirs = package.LPIPS(net=net, verbose=False)
    ref, out = clips()
    with torch.no_grad():
        expected = theirs(as_tensor(ref), as_tensor(out), normalize=True).mean().item()
    assert perceptual.lpips(ref, out, net) == pytest.approx(expected, rel=1e-4)
    assert perceptual.lpips(ref, out[::-1].copy(), net) != pytest.approx(expected, rel=1e-2)
    assert perceptual.lpips(ref, ref, net) == 0


def test_dists_is_the_packages(torchvision: None) -> None:
    package = importlib.import_module("DISTS_pytorch.DISTS_pt")
    theirs = package.DISTS(load_weights=False)
    spec = importlib.util.find_spec("DISTS_pytorch")
    found = torch.load(Path(spec.submodule_search_locations[0]) / "weights.pt", weights_only=True)
    theirs.alpha.data, theirs.beta.data = found["alpha"].data, found["beta"].data
    ref, out = clips()
    expected = theirs(as_tensor(ref), as_tensor(out)).mean().item()
    assert perceptual.dists(ref, out) == pytest.approx(expected, rel=1e-4)
    assert perceptual.dists(ref, ref) == pytest.approx(0, abs=1e-5)


def test_frames_are_measured_alike_in_any_batch(monkeypatch: pytest.MonkeyPatch) -> None:
    ref, out = clips()
    whole = perceptual.lpips(ref, out)
    monkeypatch.setattr(perceptual, "_BATCH_PIXELS", 1)
    assert perceptual.lpips(ref, out) == pytest.approx(whole, rel=1e-5)


def test_what_is_missing_or_wrong_is_said(weights: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    ref, out = clips()
    with pytest.raises(ConfigError, match="not defined for pictures of 60x80"):
        perceptual.lpips(
            ref[:, :80, :60].repeat(2, 1)[:, :80], out[:, :80, :60].repeat(2, 1)[:, :80]
        )
    (weights / "lpips-alex.pth").write_bytes(b"PK nonsense")
    perceptual._lpips.cache_clear()
    with pytest.raises(ConfigError, match="lpips-alex.pth cannot be read"):
        perceptual.lpips(ref, out)
    torch.save({"lin0.model.1.weight": torch.zeros(1)}, weights / "lpips-alex.pth")
    with pytest.raises(ConfigError, match="does not hold the heads"):
        perceptual.lpips(ref, out)
    torch.save({"alpha": torch.zeros(3)}, weights / "dists.pt")
    with pytest.raises(ConfigError, match="does not hold DISTS' alpha and beta"):
        perceptual.dists(ref, out)
    (weights / perceptual.TRUNKS["vgg"]).unlink()
    monkeypatch.setenv("TORCH_HOME", str(weights / "none"))
    with pytest.raises(ConfigError, match=r"LPIPS \(vgg\) needs vgg16-397923af.pth in \$GVCC_METR"):
        perceptual.lpips(ref, out, "vgg")
    torch.save(torch.load(weights / perceptual.TRUNKS["alex"]), weights / perceptual.TRUNKS["vgg"])
    with pytest.raises(ConfigError, match="does not hold the weights of vgg"):
        perceptual.lpips(ref, out, "vgg")


def test_weights_that_torch_hub_has_are_found(
    weights: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    ref, out = clips()
    expected = perceptual.lpips(ref, out)
    hub = weights / "home/hub/checkpoints"
    hub.mkdir(parents=True)
    name = perceptual.TRUNKS["alex"]
    (weights / name).rename(hub / name)
    monkeypatch.delenv("GVCC_METRICS")
    monkeypatch.setenv("TORCH_HOME", str(weights / "home"))
    perceptual._lpips.cache_clear()
    assert perceptual.lpips(ref, out) == expected


def test_a_goal_in_a_metric_that_is_better_when_lower() -> None:
    ref, out = clips()
    goal = quality.goal("lpips:0.2")
    worse = goal.measure(ref, out, 25)
    assert worse < goal.measure(ref, ref, 25) == 0  # more is better, inside
    assert goal.value == -0.2 and goal.shown(worse) == -worse == perceptual.lpips(ref, out)
    assert quality.goal("psnr:30").shown(29.5) == 29.5


def test_without_weights_a_quality_is_refused_before_anything_is_coded(tmp_path: Path) -> None:
    from cli_runner import GVCC

    clip = tmp_path / "a"
    clip.mkdir()
    from PIL import Image

    Image.fromarray(clips()[0][0]).save(clip / "0.png")
    done = subprocess.run(
        [*GVCC, "encode", f"{clip}/", "-o", str(tmp_path / "b"), "--quality", "lpips:0.2"],
        capture_output=True, text=True,
        env={**__import__("os").environ, "GVCC_METRICS": str(clip), "TORCH_HOME": str(clip)},
    )  # fmt: skip
    assert done.returncode == 2 and "needs alexnet-owt-7be5be79.pth" in done.stderr
    assert len(done.stderr.strip().splitlines()) == 1 and not (tmp_path / "b").exists()
