"""One GOP's trajectory: the sampling loop with the noise that the symbols name.

Encoder and decoder differ in where the noise comes from. The encoder's (search/steer.py) is
`replay(choose(target))`: it runs the decoder's code on its own symbols.
"""

from __future__ import annotations

import importlib
import math
from collections.abc import Callable, Sequence
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from gvcc import flow
from gvcc.decode.scheme import Coder, LatentShape
from gvcc.decode.times import uniform_counts
from gvcc.format import bitstream, coders, rng
from gvcc.format.bitstream import GopRecord, Header
from gvcc.format.entropy import SymbolReader
from gvcc.format.rng import Purpose
from gvcc.priors import Condition, Denoise


def make_coder(header: Header, dim: int, device: torch.device | str) -> Coder:
    """The coder that a header names, for latent frames of `dim` values on a device."""
    module, _, name = coders.row(header.coder).made_by.partition(":")
    kind: type[Coder] = getattr(importlib.import_module(module), name)
    return kind.of(header, dim, device)


def free_of(known: dict[int, Tensor], frames: int) -> list[int]:
    """Numbers of the latent frames that take atoms: those that no condition fixes."""
    return [f for f in range(frames) if f not in known]


def coded_steps(record: GopRecord) -> int:
    """How many steps of a GOP have symbols; the last of them may be a part of a step."""
    return record.stop + (record.fraction > 0)


class Read:
    """The decoder's noise: symbols read and replayed, of the first `most` coded steps or all."""

    def __init__(
        self, coder: Coder, header: Header, gop: int, record: GopRecord, shape: LatentShape,
        free: Sequence[int], most: int | None = None,
    ) -> None:  # fmt: skip
        coded = coded_steps(record)
        self.stop = coded if most is None else min(coded, most)
        dealt = uniform_counts(record.atoms, record.tail_atoms, coded, len(free))
        self.scheme = coder.scheme(header, gop, free, shape, dealt)
        self.reader = SymbolReader(record.symbols)

    def symbols(self, step: int) -> Any:
        """The symbols of one coded step; to be called step by step."""
        return self.scheme.read(step, self.reader)

    def __call__(self, step: int, t: float, s: float, x0hat: Tensor) -> Tensor | None:
        if step >= self.stop:
            return None
        return self.scheme.replay(self.symbols(step), step, x0hat)


def run(
    condition: Condition,
    header: Header,
    gop: int,
    shape: LatentShape,
    coder: Coder,
    at: Sequence[float],
    noise: Read,
    observe: Callable[[int, Tensor], None],
) -> Tensor:
    """The latent of a GOP: the sampling loop as a header asks for it, along the times `at`. What is
    known is not sampled."""
    if len(condition.known) == shape[1]:
        return all_known(condition)
    if header.reuse > 1:
        every = sparse(condition.denoise, header.reuse, noise.stop)
        condition = condition._replace(denoise=every)
    return walk(condition, header, condition.begin(coder.initial(shape, gop)), at, noise, observe)


def all_known(condition: Condition) -> Tensor:
    """The latent [C,F,h,w] of a GOP whose condition fixes all its frames."""
    return torch.stack([condition.known[f] for f in range(len(condition.known))], 1)


def sparse(denoise: Denoise, every: int, stop: int) -> Denoise:
    """A denoiser for one walk that calls the network at every so-many-th of the `stop` coded steps
    only, and gives x0hat of the last call between; at each step after them.

    x0hat and not the velocity is what may be kept: steering goes on against it, and each step still
    moves x (GVCCTurbo, arXiv 2608.03517).
    """
    step, kept = 0, torch.empty(0)

    def call(x: Tensor, t: float) -> Tensor:
        nonlocal step, kept
        if step >= stop or step % every == 0:
            kept = denoise(x, t)
        step += 1
        return kept

    return call


def walk(
    condition: Condition,
    header: Header,
    x: Tensor,
    at: Sequence[float],
    noise: flow.Noise,
    observe: Callable[[int, Tensor], None] | None = None,
) -> Tensor:
    """flow.sample from x along the times `at`, as a header asks for it."""
    return flow.sample(
        condition.denoise, x, at, noise, rule=header.rule, path=flow.PATHS[header.path],
        g_scale=header.g_scale, knob=header.knob, multistep=header.multistep, observe=observe,
    )  # fmt: skip


# -- the drift check --------------------------------------------------------------------------


def _check(latent: Tensor, header: Header, gop: int) -> NDArray[np.float64]:
    """Random projections of the final latent: float64 [4], each with the values' own variance."""
    x = latent.double().cpu().numpy().ravel()
    key = rng.derive(header.seed, gop, 0, 0, Purpose.CHECK)
    s = rng.signs(key, 0, bitstream.CHECKS * x.size).reshape(bitstream.CHECKS, x.size)
    return np.array([np.where(row > 0, x, -x).sum() for row in s]) / math.sqrt(x.size)


def check(latent: Tensor, header: Header, gop: int) -> tuple[int, ...]:
    """The drift check of a final latent, as a GOP's record carries it."""
    scaled = np.nan_to_num(_check(latent, header, gop) * bitstream.CHECK_UNIT, nan=127.0)
    return tuple(int(v) for v in np.clip(np.rint(scaled), -128, 127))


def drift(latent: Tensor, record: GopRecord, header: Header, gop: int) -> float:
    """RMS of the latent's difference from the encoder's, estimated from the check; 0 if the
    projections agree within half a quantisation step."""
    off = _check(latent, header, gop) - np.array(record.check) / bitstream.CHECK_UNIT
    clipped = np.abs(record.check) >= 127
    off[clipped] = 0
    if np.abs(off).max() <= 0.51 / bitstream.CHECK_UNIT:
        return 0.0
    return float(np.sqrt((off**2).mean()))
