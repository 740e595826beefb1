"""LPIPS and DISTS on trunks of our own, from weights that the user has as files.

The packages of these metrics pull torchvision, and download the trunks' weights. Here the weights
are looked for in $GVCC_METRICS, then where torch.hub keeps them (TORCH_HOME, ~/.cache/torch), by
torchvision's own names, then where `gvcc eval weights` puts them (weights.py); the heads, a few
kilobytes, in the same places or in the metrics' packages, which need not be importable (`pip
install --no-deps lpips DISTS-pytorch`). Numbers are those of the packages
(tests/test_perceptual.py). Lower is better.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Iterable, Iterator
from functools import lru_cache
from importlib.util import find_spec
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np

from gvcc import files
from gvcc.errors import ConfigError
from gvcc.metrics.metrics import Frames, check_pair

if TYPE_CHECKING:
    from torch import Tensor, nn

TRUNKS = {
    "alex": "alexnet-owt-7be5be79.pth",
    "vgg": "vgg16-397923af.pth",
}
_TAPS = {  # layers of a trunk whose outputs LPIPS compares
    "alex": (1, 4, 7, 9, 11),
    "vgg": (3, 8, 15, 22, 29),
}
_VGG = (64, 64, 0, 128, 128, 0, 256, 256, 256, 0, 512, 512, 512, 0, 512, 512, 512, 0)  # 0: pool
_SHIFT, _SCALE = (-0.030, -0.088, -0.188), (0.458, 0.448, 0.450)  # LPIPS, of pixels in [-1, 1]
_MEAN, _STD = (0.485, 0.456, 0.406), (0.229, 0.224, 0.225)  # DISTS, of pixels in [0, 1]
_TINY = 1e-20  # the root's slope at 0 is infinite
_SMALL = 1e-6  # DISTS' c1 and c2
_BATCH_PIXELS = 1 << 18
_LEAST = 64  # pixels a side: below, a trunk has nothing left to compare
_HOW = ": `gvcc eval weights` fetches it"


def lpips(ref: Frames, out: Frames, net: str = "alex", device: str = "cpu") -> float:
    """LPIPS v0.1 (Zhang et al. 2018), mean over frames, of two uint8 clips [T,H,W,3].

    ConfigError if its weights are not on this machine, naming the files, or for small pictures.
    """
    made = _lpips(net, device)
    return _mean(lambda a, b: made.lpips(made.features(a), made.features(b)), ref, out, device)


def dists(ref: Frames, out: Frames, device: str = "cpu") -> float:
    """DISTS (Ding et al. 2020), mean over frames, of two uint8 clips [T,H,W,3]; raises as `lpips`.

    Pictures are taken as they are, not shrunk to 256 lines first as the package's own script does.
    """
    return _mean(_dists(device), ref, out, device)


def _mean(
    distance: Callable[[Tensor, Tensor], Tensor], ref: Frames, out: Frames, device: str
) -> float:
    import torch

    t, h, w = check_pair(ref, out)
    if min(h, w) < _LEAST:
        raise ConfigError(f"not defined for pictures of {w}x{h}: a side has at least {_LEAST}")
    step, found = max(1, _BATCH_PIXELS // (h * w)), []
    with torch.inference_mode():
        for i in range(0, t, step):
            # Channels stay last in memory: a fifth faster on a CPU, the numbers the same.
            a, b = (
                torch.from_numpy(c[i : i + step].copy()).to(device)
                .permute(0, 3, 1, 2).float() / 255 for c in (ref, out)
            )  # fmt: skip
            found.append(distance(a, b))
    return float(torch.cat(found).mean())


# -- weights ----------------------------------------------------------------------------------


def _folders() -> Iterator[Path]:
    if own := os.environ.get("GVCC_METRICS"):
        yield Path(own)
    yield _hub()
    yield folder()


def _hub() -> Path:
    """Where torch.hub keeps weights."""
    home = os.environ.get("TORCH_HOME")
    return (Path(home) if home else Path.home() / ".cache/torch") / "hub/checkpoints"


def folder() -> Path:
    """Where `gvcc eval weights` puts them."""
    return files.cache() / "metrics"


def forget() -> None:
    """Look for weights again, which may have come."""
    for cached in (_lpips, _dists):
        cached.cache_clear()


def present() -> list[str]:
    """The files of weights that are there: with others, other metrics can be computed."""
    return sorted(
        f"{p.name} {p.stat().st_size}" for f in _folders() if f.is_dir() for p in f.iterdir()
        if p.is_file()
    )  # fmt: skip


def find_file(what: str, name: str, package: str = "", inside: str = "", how: str = "") -> Path:
    """The file `name` of weights, the same as safetensors, or `inside` an installed `package`;
    ConfigError for lack of it.

    `what` the message says needs it, and `how` it ends.
    """
    names = (name, f"{Path(name).stem}.safetensors")
    places = [folder / n for folder in _folders() for n in names]
    spec = find_spec(package) if package else None
    if spec is not None and spec.submodule_search_locations:
        places.append(Path(spec.submodule_search_locations[0]) / inside)
    for place in places:
        if place.is_file():
            return place
    raise ConfigError(f"{what} needs {name} in $GVCC_METRICS or {_hub()}{how}")


def tensors(path: Path) -> dict[str, Tensor]:
    """What a file of weights holds, by name, on the CPU; ConfigError if it cannot be read."""
    import pickle

    import torch
    from safetensors import SafetensorError
    from safetensors.torch import load_file

    try:
        if path.suffix == ".safetensors":
            loaded: dict[str, Tensor] = load_file(path)
            return loaded
        found: dict[str, Tensor] = torch.load(path, map_location="cpu", weights_only=True)
        return {k: v.detach() for k, v in found.items()}
    except (
        OSError, RuntimeError, EOFError, AttributeError, pickle.UnpicklingError, SafetensorError
    ) as e:  # fmt: skip
        reason = (str(e).splitlines() or [type(e).__name__])[0]
        raise ConfigError(f"{path} cannot be read: {reason}") from None


def fill(net: nn.Module, found: dict[str, Tensor], path: Path, name: str, device: str) -> None:
    """Make a network ready to measure with the tensors of a file; ConfigError unless they fit."""
    try:
        net.load_state_dict(found)
    except RuntimeError:  # it lists every name that is missing, which may be hundreds
        raise ConfigError(f"{path} does not hold the weights of {name}") from None
    net.eval().requires_grad_(False).to(device)


def _trunk(net: str, what: str, device: str) -> nn.Sequential:
    """A trunk with its weights."""
    import torch

    path = find_file(what, TRUNKS[net], how=_HOW)
    trunk = build(net)
    found = tensors(path)
    mine = {k.removeprefix("features."): v for k, v in found.items() if k.startswith("features.")}
    fill(trunk, mine, path, net, device)
    for layer in trunk:
        if isinstance(layer, torch.nn.ReLU):
            layer.inplace = True  # nothing else looks at what it is given
        elif isinstance(layer, torch.nn.Conv2d):
            kernel = layer.weight.data.contiguous(memory_format=torch.channels_last)
            layer.weight.data = kernel
    return trunk


def build(net: str) -> nn.Sequential:
    """The layers `features` of AlexNet or VGG-16, numbered as torchvision has them; random
    weights."""
    from torch import nn

    if net == "alex":
        return nn.Sequential(
            nn.Conv2d(3, 64, 11, 4, 2), nn.ReLU(), nn.MaxPool2d(3, 2),
            nn.Conv2d(64, 192, 5, padding=2), nn.ReLU(), nn.MaxPool2d(3, 2),
            nn.Conv2d(192, 384, 3, padding=1), nn.ReLU(), nn.Conv2d(384, 256, 3, padding=1),
            nn.ReLU(), nn.Conv2d(256, 256, 3, padding=1), nn.ReLU(), nn.MaxPool2d(3, 2),
        )  # fmt: skip
    layers: list[nn.Module] = []
    width = 3
    for size in _VGG:
        layers += [nn.Conv2d(width, size, 3, padding=1), nn.ReLU()] if size else \
            [nn.MaxPool2d(2, 2)]  # fmt: skip
        width = size or width
    return nn.Sequential(*layers)


def _constants(pair: Any, device: str) -> list[Tensor]:
    import torch

    return [torch.tensor(v, device=device)[:, None, None] for v in pair]


# -- the metrics ------------------------------------------------------------------------------


class Losses(NamedTuple):
    """A trunk to train on: `features` of pictures [n,3,H,W] in [0,1], [n,C,h,w] of each tap, and
    `lpips`, a distance for each picture of two lists of them. Differentiable."""

    features: Callable[[Tensor], Iterator[Tensor]]
    lpips: Callable[[Iterable[Tensor], Iterable[Tensor]], Tensor]


def losses(net: str, device: str) -> Losses:
    """What a network "alex" or "vgg" can be trained on. Raises as `lpips`."""
    return _lpips(net, device)


@lru_cache(maxsize=4)
def _lpips(net: str, device: str) -> Losses:
    what = f"LPIPS ({net})"
    trunk = _trunk(net, what, device)
    path = find_file(what, f"lpips-{net}.pth", "lpips", f"weights/v0.1/{net}.pth", _HOW)
    found = tensors(path)
    try:
        heads = [found[f"lin{i}.model.1.weight"].to(device) for i in range(len(_TAPS[net]))]
    except KeyError:
        raise ConfigError(f"{path} does not hold the heads of {what}") from None
    shift, scale = _constants((_SHIFT, _SCALE), device)

    def features(x: Tensor) -> Iterator[Tensor]:
        x = (2 * x - 1 - shift) / scale
        for i, layer in enumerate(list(trunk)[: _TAPS[net][-1] + 1]):
            x = layer(x)
            if i in _TAPS[net]:
                yield x.float()  # under autocast it may be bfloat16

    def unit(tap: Tensor) -> Tensor:
        return tap / ((tap.square().sum(1, keepdim=True) + _TINY).sqrt() + 1e-10)

    def distance(a: Iterable[Tensor], b: Iterable[Tensor]) -> Tensor:
        parts = [((unit(p) - unit(q)).square() * h[:, :, 0, 0, None, None]).sum(1).mean((1, 2))
                 for p, q, h in zip(a, b, heads, strict=True)]  # fmt: skip
        total: Tensor = sum(parts[1:], parts[0])
        return total

    return Losses(features, distance)


@lru_cache(maxsize=2)
def _dists(device: str) -> Callable[[Tensor, Tensor], Tensor]:
    """Distance of pictures [n,3,H,W] in [0,1]: a number for each."""
    import torch
    from torch.nn import functional

    trunk = _trunk("vgg", "DISTS", device)
    path = find_file("DISTS", "dists.pt", "DISTS_pytorch", "weights.pt", _HOW)
    found = tensors(path)
    widths = [3, 64, 128, 256, 512, 512]
    if {k: v.numel() for k, v in found.items()} != dict.fromkeys(("alpha", "beta"), sum(widths)):
        raise ConfigError(f"{path} does not hold DISTS' alpha and beta")
    total = found["alpha"].sum() + found["beta"].sum()
    both = ((found[n].flatten() / total).to(device) for n in ("alpha", "beta"))
    alpha, beta = (torch.split(v, widths) for v in both)
    mean, std = _constants((_MEAN, _STD), device)
    hann = torch.tensor(np.hanning(5)[1:-1], dtype=torch.float32, device=device)
    window = hann[:, None] * hann / hann.sum() ** 2

    def pooled(x: Tensor) -> Tensor:
        kernel = window.expand(x.shape[1], 1, 3, 3)
        power = functional.conv2d(x.square(), kernel, stride=2, padding=1, groups=x.shape[1])
        return (power + 1e-12).sqrt()

    def features(x: Tensor) -> Iterator[Tensor]:
        yield x
        x = (x - mean) / std
        for i, layer in enumerate(list(trunk)[:30]):
            x = pooled(x) if isinstance(layer, torch.nn.MaxPool2d) else layer(x)
            if i in _TAPS["vgg"]:
                yield x

    def distance(a: Tensor, b: Tensor) -> Tensor:
        score = torch.ones(len(a), device=device)
        for p, q, wa, wb in zip(features(a), features(b), alpha, beta, strict=True):
            mp, mq = p.mean((2, 3)), q.mean((2, 3))
            vp, vq = p.var((2, 3), correction=0), q.var((2, 3), correction=0)
            cov = (p * q).mean((2, 3)) - mp * mq
            texture = (2 * mp * mq + _SMALL) / (mp.square() + mq.square() + _SMALL)
            structure = (2 * cov + _SMALL) / (vp + vq + _SMALL)
            score = score - (wa * texture).sum(1) - (wb * structure).sum(1)
        return score

    return distance
