"""FID/256 and KID/256: how far decoded pictures are from the originals as a distribution.

Features are the 2048 pooled ones of Inception-v3 in FID's variant, from the weights that
pytorch-fid ported from TensorFlow's graph of 2015-12-05 (keys as there): looked for as LPIPS' are,
by the name WEIGHTS. Pictures are resized to 299x299 as TensorFlow 1 did it, so that features are
those of torch-fidelity and torchmetrics (tests/test_inception.py); pytorch-fid itself resizes in
another way, and its numbers differ a little.

Patches are those of HiFiC (Mentzer et al. 2020, appendix A.7): of each frame the 256x256 tiles from
the corner, floor(H/256) x floor(W/256), and those of a grid shifted by 128 both ways, one fewer in
each direction.
"""

from __future__ import annotations

from collections.abc import Iterator
from functools import lru_cache

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn
from torch.nn import functional

from gvcc.errors import ConfigError
from gvcc.metrics.metrics import Frames, check_pair
from gvcc.metrics.perceptual import fill, find_file, tensors

Features = NDArray[np.float64]

WEIGHTS = "pt_inception-2015-12-05-6726825d.pth"
PATCH = 256  # pixels a side
_SIDE = 299  # of Inception's input
_BATCH = 16  # patches: about 0.5 GB of activations
_ROWS = 1024  # of a kernel matrix at a time

# -- the network ------------------------------------------------------------------------------

Size = int | tuple[int, int]
Step = tuple[int, Size | None]  # outputs and kernel of a layer; None: a 1x3 and a 3x1 side by side
_ROW, _COLUMN = (1, 7), (7, 1)
_A: dict[str, list[Step]] = {
    "branch1x1": [(64, 1)],
    "branch5x5": [(48, 1), (64, 5)],
    "branch3x3dbl": [(64, 1), (96, 3), (96, 3)],
}
_B: dict[str, list[Step]] = {
    "branch3x3": [(384, 3)],
    "branch3x3dbl": [(64, 1), (96, 3), (96, 3)],
}
_D: dict[str, list[Step]] = {
    "branch3x3": [(192, 1), (320, 3)],
    "branch7x7x3": [(192, 1), (192, _ROW), (192, _COLUMN), (192, 3)],
}
_E: dict[str, list[Step]] = {
    "branch1x1": [(320, 1)],
    "branch3x3": [(384, 1), (384, None)],
    "branch3x3dbl": [(448, 1), (384, 3), (384, None)],
}


def _c(n: int) -> dict[str, list[Step]]:
    return {
        "branch1x1": [(192, 1)],
        "branch7x7": [(n, 1), (n, _ROW), (192, _COLUMN)],
        "branch7x7dbl": [(n, 1), (n, _COLUMN), (n, _ROW), (n, _COLUMN), (192, _ROW)],
    }


class _Unit(nn.Module):
    """Convolution, batch norm, ReLU."""

    def __init__(
        self, inputs: int, outputs: int, kernel: Size, stride: int = 1, same: bool = True
    ) -> None:
        super().__init__()
        sides = (kernel, kernel) if isinstance(kernel, int) else kernel
        padding = (sides[0] // 2, sides[1] // 2) if same else (0, 0)
        self.conv = nn.Conv2d(inputs, outputs, sides, stride, padding, bias=False)
        self.bn = nn.BatchNorm2d(outputs, eps=0.001)

    def forward(self, x: Tensor) -> Tensor:
        out: Tensor = functional.relu(self.bn(self.conv(x)))
        return out


class _Mixed(nn.Module):
    """Branches side by side. `pooled`: features of the pooling branch; 0: the block halves the
    sides, by the last layer of each branch and by a pooling without a layer of its own."""

    def __init__(
        self, inputs: int, branches: dict[str, list[Step]], pooled: int, largest: bool = False
    ) -> None:
        super().__init__()
        self.largest, self.pooled = largest, pooled
        self.branches: list[list[tuple[str, ...]]] = []
        self.outputs = pooled or inputs
        for branch, steps in branches.items():
            names: list[tuple[str, ...]] = []
            width = inputs
            for i, (outputs, kernel) in enumerate(steps, 1):
                name = branch if len(steps) == 1 else f"{branch}_{i}"
                halves = not pooled and i == len(steps)
                units: dict[str, Size] = {name: kernel} if kernel else \
                    {f"{name}a": (1, 3), f"{name}b": (3, 1)}  # fmt: skip
                for key, sides in units.items():
                    unit = _Unit(width, outputs, sides, 2 if halves else 1, not halves)
                    self.add_module(key, unit)
                names.append(tuple(units))
                width = outputs * len(units)
            self.branches.append(names)
            self.outputs += width
        if pooled:
            self.branch_pool = _Unit(inputs, pooled, 1)

    def forward(self, x: Tensor) -> Tensor:
        found = []
        for names in self.branches:
            y = x
            for step in names:
                y = torch.cat([self.get_submodule(name)(y) for name in step], 1)
            found.append(y)
        if not self.pooled:
            return torch.cat([*found, functional.max_pool2d(x, 3, 2)], 1)
        # TensorFlow's mean does not count the padding, and its last block takes the maximum.
        pool = functional.max_pool2d(x, 3, 1, 1) if self.largest else \
            functional.avg_pool2d(x, 3, 1, 1, count_include_pad=False)  # fmt: skip
        return torch.cat([*found, self.branch_pool(pool)], 1)


class Inception(nn.Module):
    """Inception-v3 up to its pooled features; random weights until a file fills it."""

    def __init__(self) -> None:
        super().__init__()
        self.Conv2d_1a_3x3 = _Unit(3, 32, 3, 2, same=False)
        self.Conv2d_2a_3x3 = _Unit(32, 32, 3, same=False)
        self.Conv2d_2b_3x3 = _Unit(32, 64, 3)
        self.Conv2d_3b_1x1 = _Unit(64, 80, 1)
        self.Conv2d_4a_3x3 = _Unit(80, 192, 3, same=False)
        plan = [("5b", _A, 32), ("5c", _A, 64), ("5d", _A, 64), ("6a", _B, 0)]
        plan += [("6b", _c(128), 192), ("6c", _c(160), 192), ("6d", _c(160), 192)]
        plan += [("6e", _c(192), 192), ("7a", _D, 0), ("7b", _E, 192), ("7c", _E, 192)]
        width = 192
        self.blocks = []
        for name, branches, pooled in plan:
            block = _Mixed(width, branches, pooled, largest=name == "7c")
            self.add_module(f"Mixed_{name}", block)
            self.blocks.append(f"Mixed_{name}")
            width = block.outputs

    def forward(self, x: Tensor) -> Tensor:
        """Features [n,2048] of uint8 pictures [n,3,H,W]."""
        x = (_resized(x.float()) - 128) / 128
        x = self.Conv2d_2b_3x3(self.Conv2d_2a_3x3(self.Conv2d_1a_3x3(x)))
        x = self.Conv2d_3b_1x1(functional.max_pool2d(x, 3, 2))
        x = functional.max_pool2d(self.Conv2d_4a_3x3(x), 3, 2)
        for name in self.blocks:
            x = self.get_submodule(name)(x)
        return x.mean((2, 3))


def _resized(x: Tensor) -> Tensor:
    """Bilinear, to 299x299, as TensorFlow 1 has it: pixel i of n is taken at i n / 299, so that the
    picture moves by half a pixel."""
    for axis in (2, 3):
        size = x.shape[axis]
        at = torch.arange(_SIDE, dtype=torch.float32, device=x.device) * (size / _SIDE)
        low = at.long()
        share = (at - low).view((-1, 1) if axis == 2 else (-1,))
        a, b = x.index_select(axis, low), x.index_select(axis, (low + 1).clamp_max(size - 1))
        x = a + (b - a) * share
    return x


@lru_cache(maxsize=1)
def _network(device: str) -> Inception:
    path = find_file("FID", WEIGHTS)
    found = {k: v for k, v in tensors(path).items() if not k.startswith("fc.")}
    net = Inception()
    fill(net, found, path, "FID's Inception-v3", device)
    return net


# -- the distances ----------------------------------------------------------------------------


def fid(a: Features, b: Features) -> float:
    """Frechet distance of the Gaussians fitted to two sets of features [n,d] (Heusel et al. 2017):
    |m_a - m_b|^2 + tr(S_a + S_b - 2 (S_a S_b)^(1/2)). Each n is 2 or more.

    With S = R^T R the last trace is the sum of the singular values of R_a R_b^T. That needs no root
    of a matrix, nor the small number usually added to its diagonal: it is exact where there are
    fewer patches than features too, and S_a S_b has no proper root.
    """

    def root(x: Features) -> Features:
        apart: Features = (x - x.mean(0)) / np.sqrt(len(x) - 1)
        return np.asarray(np.linalg.qr(apart, mode="r"))  # not a pair, as its stub has it

    r, s = root(a), root(b)
    common = np.linalg.norm(r @ s.T, "nuc")
    apart = a.mean(0) - b.mean(0)
    return float(apart @ apart + np.square(r).sum() + np.square(s).sum() - 2 * common)


def kid(a: Features, b: Features) -> float:
    """Unbiased MMD^2 of two sets of features [n,d] (Binkowski et al. 2018), k(x,y) = (x.y/d + 1)^3.
    Each n is 2 or more; the result can be below 0.

    One block of all features: of this the usual mean over a hundred random blocks of 1000 is an
    estimate, with the same expectation and more noise.
    """

    def total(x: Features, y: Features) -> float:
        rows = (x[i : i + _ROWS] for i in range(0, len(x), _ROWS))
        return float(sum(((r @ y.T / x.shape[1] + 1) ** 3).sum() for r in rows))

    def within(x: Features) -> float:
        own = ((np.square(x).sum(1) / x.shape[1] + 1) ** 3).sum()
        return float((total(x, x) - own) / (len(x) * (len(x) - 1)))

    return within(a) + within(b) - 2 * total(a, b) / (len(a) * len(b))


def patches(clip: Frames) -> Iterator[NDArray[np.uint8]]:
    """The patches [256,256,3] of all frames of a clip, as the head of this file has them."""
    rows, columns = clip.shape[1] // PATCH, clip.shape[2] // PATCH
    for frame in clip:
        for origin, fewer in ((0, 0), (PATCH // 2, 1)):
            for i in range(rows - fewer):
                for j in range(columns - fewer):
                    y, x = origin + i * PATCH, origin + j * PATCH
                    yield frame[y : y + PATCH, x : x + PATCH]


class Patches:
    """Collects the features of the patches of clip after clip: 16 kB for each pair of patches."""

    def __init__(self, device: str = "cpu") -> None:
        """ConfigError if the weights are not on this machine, or are others."""
        self._net, self._device = _network(device), device
        self._found: tuple[list[NDArray[np.float32]], list[NDArray[np.float32]]] = ([], [])

    def update(self, ref: Frames, out: Frames) -> None:
        """Add a pair of uint8 clips [T,H,W,3], which below 256x256 have no patch."""
        check_pair(ref, out)
        for clip, found in zip((ref, out), self._found, strict=True):
            batch: list[NDArray[np.uint8]] = []
            for patch in patches(clip):
                batch.append(patch)
                if len(batch) == _BATCH:
                    found.append(self._features(batch))
                    batch = []
            if batch:
                found.append(self._features(batch))

    def _features(self, batch: list[NDArray[np.uint8]]) -> NDArray[np.float32]:
        with torch.inference_mode():
            pictures = torch.from_numpy(np.stack(batch)).to(self._device).permute(0, 3, 1, 2)
            found: NDArray[np.float32] = self._net(pictures).cpu().numpy()
        return found

    @property
    def features(self) -> tuple[NDArray[np.float32], NDArray[np.float32]]:
        """Features of all patches so far, [n, 2048] of the originals and of the decoded clips."""
        none = np.empty((0, 2048), np.float32)
        a, b = (np.concatenate(found) if found else none for found in self._found)
        return a, b


def distances(a: NDArray[np.float32], b: NDArray[np.float32]) -> tuple[float, float]:
    """FID/256 and KID/256 of features [n, 2048]; ConfigError below two patches.

    FID depends on how many patches there are: compare it between equal sets only.
    """
    if len(a) < 2:
        raise ConfigError(f"needs two patches of {PATCH}x{PATCH} at least, the clips have {len(a)}")
    wide = a.astype(np.float64), b.astype(np.float64)
    return fid(*wide), kid(*wide)
