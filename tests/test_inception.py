"""FID/256 and KID/256: features, distances and patches against torch-fidelity's own code (which
runs without torchvision and without its package's __init__) and against the formulas."""

from __future__ import annotations

import importlib
import sys
import types
from pathlib import Path

import numpy as np
import pytest
import torch

from gvcc.errors import ConfigError
from gvcc.metrics import inception

pytestmark = pytest.mark.usefixtures("one_thread")


@pytest.fixture(scope="module")
def weights(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with a file of random weights as the published one is: fc in it, and batch norms
    that do something."""
    torch.manual_seed(5)
    state = inception.Inception().state_dict()
    for name, v in state.items():
        if name.endswith("conv.weight"):
            v.normal_(0, (2 / v[0].numel()) ** 0.5)
        elif name.endswith("running_mean"):
            v.normal_(0, 0.2)
        elif name.endswith(("running_var", "bn.weight")):
            v.uniform_(0.5, 1.5)
    state |= {"fc.weight": torch.zeros(1008, 2048), "fc.bias": torch.zeros(1008)}
    folder = tmp_path_factory.mktemp("weights")
    torch.save(state, folder / inception.WEIGHTS)
    return folder


@pytest.fixture(autouse=True)
def looked_for(weights: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("GVCC_METRICS", str(weights))
    inception._network.cache_clear()


@pytest.fixture
def theirs(monkeypatch: pytest.MonkeyPatch):
    """Modules of torch-fidelity by name. Its __init__ and its utils import torchvision."""
    spec = importlib.util.find_spec("torch_fidelity")
    package = types.ModuleType("torch_fidelity")
    package.__path__ = list(spec.submodule_search_locations)
    utils = types.ModuleType("torch_fidelity.utils")
    utils.__getattr__ = lambda name: None
    monkeypatch.setitem(sys.modules, "torch_fidelity", package)
    monkeypatch.setitem(sys.modules, "torch_fidelity.utils", utils)
    return lambda name: importlib.import_module(f"torch_fidelity.{name}")


def clip(frames: int, height: int, width: int, seed: int = 0) -> np.ndarray:
    rng = np.random.default_rng(seed)
    rough = rng.integers(0, 256, (frames, -(-height // 9), -(-width // 9), 3), np.uint8)
    return rough.repeat(9, 1).repeat(9, 2)[:, :height, :width]


# The network


def test_features_are_torch_fidelitys(weights: Path, theirs) -> None:
    module = theirs("feature_extractor_inceptionv3")
    net = module.FeatureExtractorInceptionV3("x", ["2048"], str(weights / inception.WEIGHTS))
    pictures = torch.from_numpy(clip(2, 256, 256)).permute(0, 3, 1, 2)
    ours = inception._network("cpu")(pictures)
    assert ours.shape == (2, 2048) and ours.std() > 0.1 and (ours[0] - ours[1]).abs().max() > 0.01
    with torch.no_grad():
        torch.testing.assert_close(ours, net(pictures)[0], rtol=1e-4, atol=1e-4)


def test_the_resizing_is_torch_fidelitys(theirs) -> None:
    resize = theirs("interpolate_compat_tensorflow").interpolate_bilinear_2d_like_tensorflow1x
    pictures = torch.rand(1, 3, 256, 300) * 255
    expected = resize(pictures, size=(299, 299), align_corners=False)
    torch.testing.assert_close(inception._resized(pictures), expected)


def test_missing_and_other_weights_are_said(
    weights: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("GVCC_METRICS", str(tmp_path))
    monkeypatch.setenv("TORCH_HOME", str(tmp_path))
    with pytest.raises(ConfigError, match=r"FID needs pt_inception-2015-12-05-6726825d.pth in \$G"):
        inception.Patches()
    torch.save({"fc.weight": torch.zeros(1)}, tmp_path / inception.WEIGHTS)
    with pytest.raises(ConfigError, match="does not hold the weights of FID's Inception-v3"):
        inception.Patches()


# The distances


@pytest.mark.parametrize("count, features", [(200, 24), (10, 24)])
def test_fid_is_torch_fidelitys(count: int, features: int, theirs) -> None:
    module = theirs("metric_fid")
    rng = np.random.default_rng(count)
    mix = rng.normal(size=(features, features))
    a = rng.normal(size=(count, features)) @ mix
    b = rng.normal(0.2, 1.3, size=(count + 3, features)) @ mix
    both = [module.fid_features_to_statistics(torch.from_numpy(x)) for x in (a, b)]
    expected = module.fid_statistics_to_metric(*both, False)["frechet_inception_distance"]
    # Theirs takes roots of eigenvalues that are 0 but for rounding, below as many as features.
    assert inception.fid(a, b) == pytest.approx(expected, rel=1e-8 if count > features else 1e-5)


def test_fid_of_known_gaussians() -> None:
    """Where covariances commute it is |m|^2 + sum (s_a - s_b)^2; here they are diagonal."""
    n = 64
    signs = np.array([[(-1) ** (i >> k & 1) for k in range(3)] for i in range(n)], float)
    a, b = signs * [1, 2, 3] + [1, 0, 0], signs * [1, 5, 2]
    expected = 1 + (0 + 9 + 1) * n / (n - 1)
    assert inception.fid(a, b) == pytest.approx(expected)
    assert inception.fid(a, a) == pytest.approx(0, abs=1e-9)


def test_kid_is_the_formula(monkeypatch: pytest.MonkeyPatch) -> None:
    rng = np.random.default_rng(1)
    a, b = rng.normal(size=(7, 5)), rng.normal(0.5, 1, size=(9, 5))

    def k(x: np.ndarray, y: np.ndarray) -> float:
        return (sum(p * q for p, q in zip(x, y, strict=True)) / 5 + 1) ** 3

    expected = sum(k(x, y) for i, x in enumerate(a) for j, y in enumerate(a) if i != j) / (7 * 6)
    expected += sum(k(x, y) for i, x in enumerate(b) for j, y in enumerate(b) if i != j) / (9 * 8)
    expected -= 2 * sum(k(x, y) for x in a for y in b) / (7 * 9)
    assert inception.kid(a, b) == pytest.approx(expected, rel=1e-12)
    monkeypatch.setattr(inception, "_ROWS", 4)
    assert inception.kid(a, b) == pytest.approx(expected, rel=1e-12)


def test_kid_is_torch_fidelitys_where_its_block_is_everything(theirs) -> None:
    rng = np.random.default_rng(2)
    a, b = rng.normal(size=(40, 12)), rng.normal(0.3, 1, size=(40, 12))
    expected = theirs("metric_kid").kid_features_to_metric(
        torch.from_numpy(a), torch.from_numpy(b), kid_subsets=1, kid_subset_size=40
    )["kernel_inception_distance_mean"]
    assert inception.kid(a, b) == pytest.approx(expected, rel=1e-9)


# Patches


def test_patches_tile_the_frames_twice() -> None:
    frames = np.zeros((2, 600, 800, 3), np.uint8)  # 2 x 3 tiles, then 1 x 2
    frames[..., 0] = (np.arange(600) // 4)[:, None]
    frames[..., 1] = np.arange(800) // 4
    frames[1, ..., 2] = 9
    found = list(inception.patches(frames))
    assert {p.shape for p in found} == {(256, 256, 3)}
    corners = (
        [(0, x) for x in (0, 64, 128)] + [(64, x) for x in (0, 64, 128)] + [(32, 32), (32, 96)]
    )
    assert [tuple(int(v) for v in p[0, 0]) for p in found] == [
        (*corner, blue) for blue in (0, 9) for corner in corners
    ]
    assert list(inception.patches(frames[:, :255])) == []


def test_clips_are_collected(monkeypatch: pytest.MonkeyPatch) -> None:
    ref, out = clip(3, 256, 260), clip(3, 256, 260, seed=1)
    found = inception.Patches()
    found.update(ref[:1], out[:1])
    with pytest.raises(
        ConfigError, match="needs two patches of 256x256 at least, the clips have 1"
    ):
        inception.distances(*found.features)
    found.update(ref[1:, :200], out[1:, :200])  # no patch
    monkeypatch.setattr(inception, "_BATCH", 1)
    found.update(ref[1:], out[1:])
    a, b = (
        inception._network("cpu")(torch.from_numpy(c[:, :, :256]).permute(0, 3, 1, 2))
        .double().numpy() for c in (ref, out)
    )  # fmt: skip
    expected = inception.fid(a, b), inception.kid(a, b)
    assert expected[0] > 1
    assert inception.distances(*found.features) == pytest.approx(expected, rel=1e-4)


def test_distances_of_features_by_hand(monkeypatch: pytest.MonkeyPatch) -> None:
    """Features 0 in every patch of the originals, and 0 or 2 in those of the decoded clips."""
    monkeypatch.setattr(inception, "_network", lambda device: lambda x: x.float()[:, 0, 0, :3])
    found, large = inception.Patches(), np.zeros((2, 256, 256, 3), np.uint8)
    found.update(large, large)
    found.update(large, large + 2)
    fid, kid = inception.distances(*found.features)
    # Means 1 apart in each of three directions, one common variance of 3 * 4/3.
    assert fid == pytest.approx(3 + 3 * 4 / 3)
    # Kernels (x.y / 3 + 1)^3: 1, but 5^3 of two patches of 2; 2 of the 12 pairs are such.
    assert kid == pytest.approx(1 + (10 + 2 * 125) / 12 - 2)
