"""What the network puts out never decides how a stream is read: with a broken denoiser the symbols
are the same, and only pictures change."""

from __future__ import annotations

import math
from typing import Any

import faulty_vectors
import make_vectors
import numpy as np
import pytest
import torch
from torch import Tensor
from valid_vectors import VALID

from gvcc import codec
from gvcc.decode import trajectory
from gvcc.priors import Condition

NAMES = ("rcc-pin", "rcc-part", "rcc-i2v", "blend-rcc", "schedule-quality", "default",
         "i2v-uniform", "gaussian-matched")  # fmt: skip


class Noisy:
    """A prior whose x0hat is off by normals of a given scale, others at each call."""

    def __init__(self, prior: Any, scale: float) -> None:
        self._prior, self.spec, self._scale = prior, prior.spec, scale
        self._random = torch.Generator().manual_seed(5)

    def __getattr__(self, name: str) -> Any:
        return getattr(self._prior, name)

    def condition(self, *pictures: Any) -> Condition:
        whole, known, *_ = self._prior.condition(*pictures)

        def denoise(x: Tensor, t: float) -> Tensor:
            h: Tensor = whole(x, t)
            return h + self._scale * torch.randn(h.shape, generator=self._random)

        return Condition(denoise, known)


def decoded(
    data: bytes, prior: Any, monkeypatch: pytest.MonkeyPatch
) -> tuple[list[Any], np.ndarray, list[float]]:
    """All symbols as the decoder reads them, its pictures, and the drift of each GOP."""
    seen: list[Any] = []
    drifts: list[float] = []

    def symbols(noise: trajectory.Read, step: int) -> Any:
        found = noise.scheme.read(step, noise.reader)
        seen.append(make_vectors.plain_symbols(found, 10))
        return found

    def note(event: codec.Event) -> None:
        if event.drift is not None:
            drifts.append(event.drift)

    monkeypatch.setattr(trajectory.Read, "symbols", symbols)
    return seen, codec.decode(data, prior, progress=note).frames, drifts


@pytest.mark.parametrize("name", NAMES)
def test_a_noisy_network_changes_pictures_and_no_symbol(
    name: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    data = (faulty_vectors.ROOT / "valid" / f"{name}.gvcc").read_bytes()
    prior = make_vectors.LOADERS[VALID[name][1]]()
    symbols, right, none = decoded(data, prior, monkeypatch)
    assert symbols and max(none) < 0.1
    for scale in (1e-3, 1.0, math.nan):
        found, frames, drifts = decoded(data, Noisy(prior, scale), monkeypatch)
        assert found == symbols
        off = np.abs(frames.astype(int) - right)
        assert off.any()
        if scale == 1e-3:  # what another machine's arithmetic might do at its worst
            assert off.max() <= 4
        elif scale == 1.0:
            assert max(drifts) > 0.1
