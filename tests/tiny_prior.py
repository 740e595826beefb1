"""A prior of a few kilobytes made of formulas, so that tests and vectors need no fitted weights."""

from __future__ import annotations

import dataclasses
import hashlib
import itertools

import numpy as np
import torch

from gvcc import flow
from gvcc.priors.gauss import GaussPrior

CHANNELS = 6
GOP = 9


def _basis(channels: int, times: int) -> np.ndarray:
    """Orthonormal blocks: the lowest (time, row, column) frequencies of luma, then chroma."""
    yuv = np.linalg.qr(np.array([[1, 1, 1], [1, 0, -1], [1, -2, 1]], float).T)[0].T
    waves = {n: np.cos(np.pi / n * np.outer(np.arange(n), np.arange(n) + 0.5)) for n in (times, 8)}
    freq = list(itertools.product(range(min(times, 2)), range(4), range(4)))
    picks = sorted(itertools.product(freq, range(3)), key=lambda p: (sum(p[0]) + p[1], p))
    out = []
    for (k, i, j), c in picks[:channels]:
        block = np.einsum("t,y,x,c->tyxc", waves[times][k], waves[8][i], waves[8][j], yuv[c])
        out.append(block.ravel() / np.linalg.norm(block))
    return np.array(out)


def with_settings() -> GaussPrior:
    """The prior `tiny`, with settings that a file carries."""
    prior = load()
    settings = (("guidance", "2.5"), ("prompt", "a café, at night"))
    prior.spec = dataclasses.replace(prior.spec, settings=settings)
    return prior


def load(path: str = "rf", device: str = "cpu") -> GaussPrior:
    """The prior `tiny` (or `tiny-vp`, on that path): 6 channels, strides (4, 8, 8), GOPs of 9."""
    f = np.arange(32) + 1.0
    spectrum = -np.log(f[None, :, None] ** 2 + f[None, None, :] ** 2 + np.arange(9)[:, None, None])
    power = spectrum - 0.5 * np.arange(CHANNELS)[:, None, None, None] + 9
    tensors = {
        "group": torch.tensor(_basis(CHANNELS, 4), dtype=torch.float32),
        "first": torch.tensor(_basis(CHANNELS, 1), dtype=torch.float32),
        "power": torch.tensor(power, dtype=torch.float32),
        "colour": torch.zeros(3),
    }
    name = "tiny" if path == "rf" else f"tiny-{path}"
    prior = GaussPrior(tensors, hashlib.sha256(name.encode()).digest()[:8], device)
    prior.spec = dataclasses.replace(prior.spec, id=name, gop=GOP, path=path, knob=1.0, told=True)
    prior._path = flow.PATHS[path]
    return prior
