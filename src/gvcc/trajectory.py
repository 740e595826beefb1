"""One GOP's trajectory: the sampling loop with the noise that the symbols name.

Encoder and decoder call the same `run`; they differ in where the noise comes from. The encoder's is
`replay(choose(target))`: it runs the decoder's code on its own symbols.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from gvcc import allocation, bitstream, codebook, entropy, flow, rng
from gvcc.bitstream import GopRecord, Header
from gvcc.codebook import Coder, Symbols, Where
from gvcc.priors import Condition, Metric
from gvcc.rate import Allotment
from gvcc.rng import Purpose

Shape = tuple[int, int, int, int]


def make_coder(header: Header, dim: int, device: str) -> Coder:
    """The coder that a header names, for latent frames of `dim` values."""
    if header.coder == "gaussian":
        return codebook.Gaussian(header.seed, dim, header.size, device)
    return codebook.Hadamard(header.seed, dim, device)


def free_of(known: dict[int, Tensor], frames: int) -> list[int]:
    """Numbers of the latent frames that take atoms: those that no condition fixes."""
    return [f for f in range(frames) if f not in known]


def _replay(
    coder: Coder, header: Header, symbols: dict[int, Symbols], gop: int, step: int, like: Tensor
) -> Tensor:
    """One step's noise [C,F,h,w] from its symbols; a frame without atoms gets seeded normals."""
    c, frames, h, w = like.shape
    z = []
    for f in range(frames):
        if len(symbols.get(f, ())):
            z.append(coder.replay(symbols[f], Where(gop, step, f)))
        else:
            key = rng.derive(header.seed, gop, step, f, Purpose.FILL)
            z.append(torch.from_numpy(rng.normals(key, c * h * w)).to(like.device))
    return torch.stack(z).reshape(-1, c, h, w).transpose(0, 1)


class Choose:
    """The encoder's noise: atoms chosen towards x0, written, and replayed."""

    def __init__(self, coder: Coder, header: Header, gop: int, x0: Tensor, metric: Metric | None,
                 allotment: Allotment, free: Sequence[int]) -> None:  # fmt: skip
        self.coder, self.header, self.gop, self.x0, self.metric = coder, header, gop, x0, metric
        self.stop, self.budget, self.free = allotment.stop, allotment.matched, free
        self.dealt = allocation.uniform_counts(
            allotment.atoms, allotment.tail_atoms, allotment.stop, len(free)
        )
        self.model, self.writer = entropy.Counts(), entropy.Writer()

    def __call__(self, step: int, t: float, s: float, x0hat: Tensor) -> Tensor | None:
        if step >= self.stop:
            return None
        before, path = self.writer.total, flow.PATHS[self.header.path]
        target, lengths = allocation.steering(self.x0, x0hat, self.metric, path, s)
        if self.budget is None:
            counts = self.dealt[step]
        else:
            information = [flow.information(path, t, s, lengths[f]) for f in self.free]
            counts = self.budget.counts(step, information, self.model.cost)
            self.model.write(counts, self.writer)
        symbols = {
            f: self.coder.choose(target[f], m, Where(self.gop, step, f))
            for f, m in zip(self.free, counts, strict=True)
        }
        for s_ in symbols.values():
            self.coder.write(s_, self.writer)
        if self.budget is not None:
            self.budget.spend(self.writer.total - before)
        return _replay(self.coder, self.header, symbols, self.gop, step, x0hat)


class Read:
    """The decoder's noise: atoms read and replayed."""

    def __init__(
        self, coder: Coder, header: Header, gop: int, record: GopRecord, free: Sequence[int]
    ) -> None:
        self.coder, self.header, self.gop = coder, header, gop
        self.stop, self.free = record.stop, free
        self.matched = header.allocation == "matched"
        self.dealt = allocation.uniform_counts(
            record.atoms, record.tail_atoms, record.stop, len(free)
        )
        self.model, self.reader = entropy.Counts(), entropy.Reader(record.symbols)

    def symbols(self, step: int) -> dict[int, Symbols]:
        """The atoms of one coded step, by latent frame; to be called step by step."""
        width = len(self.free)
        counts = self.model.read(width, self.reader) if self.matched else self.dealt[step]
        return {f: self.coder.read(m, self.reader) for f, m in zip(self.free, counts, strict=True)}

    def __call__(self, step: int, t: float, s: float, x0hat: Tensor) -> Tensor | None:
        if step >= self.stop:
            return None
        return _replay(self.coder, self.header, self.symbols(step), self.gop, step, x0hat)


def run(
    condition: Condition,
    header: Header,
    gop: int,
    shape: Shape,
    coder: Coder,
    noise: flow.Noise,
    observe: Callable[[int, Tensor], None],
) -> Tensor:
    """The latent of a GOP: the sampling loop as a header asks for it. What is known is not
    sampled."""
    if len(condition.known) == shape[1]:
        return torch.stack([condition.known[f] for f in range(shape[1])], 1)
    return flow.sample(
        condition.denoise, coder.initial(shape, gop), flow.schedule(header.steps, header.shift),
        noise, rule=header.rule, path=flow.PATHS[header.path], g_scale=header.g_scale,
        knob=header.knob, multistep=header.multistep, observe=observe,
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
