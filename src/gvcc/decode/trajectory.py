"""One GOP's trajectory: the sampling loop with the noise that the symbols name.

Encoder and decoder call the same `run`; they differ in where the noise comes from. The encoder's is
`replay(choose(target))`: it runs the decoder's code on its own symbols.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from typing import Any, NamedTuple, Protocol

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from gvcc import flow
from gvcc.decode import codebook, rcc
from gvcc.decode.codebook import Symbols, Where
from gvcc.format import bitstream, entropy, rng
from gvcc.format.bitstream import GopRecord, Header
from gvcc.format.entropy import Reader, Writer
from gvcc.format.rng import Purpose
from gvcc.priors import Condition, Denoise, Metric
from gvcc.search import allocation
from gvcc.search.allocation import Budget

Shape = tuple[int, int, int, int]
Coder = codebook.Coder | rcc.Rcc


def make_coder(header: Header, dim: int, device: torch.device | str) -> Coder:
    """The coder that a header names, for latent frames of `dim` values on a device."""
    if header.coder == "rcc":
        return rcc.Rcc(header.seed, header.size, device)
    if header.coder == "gaussian":
        return codebook.Gaussian(header.seed, dim, header.size, device)
    return codebook.Hadamard(header.seed, dim, device)


def atom_bits(coder: Coder) -> Callable[[int], int]:
    """What so many atoms of one latent frame cost, where a coder has atoms."""
    return (lambda m: m) if isinstance(coder, rcc.Rcc) else coder.bits


def free_of(known: dict[int, Tensor], frames: int) -> list[int]:
    """Numbers of the latent frames that take atoms: those that no condition fixes."""
    return [f for f in range(frames) if f not in known]


class Aim(NamedTuple):
    """What an encoder steers to: the latent, a metric of its error, and the GOP's atoms."""

    x0: Tensor
    metric: Metric | None
    budget: Budget | None


class Scheme(Protocol):
    """How the noise of a GOP's steps is named. Symbols must be written, or read, step by step, all
    of them by one instance."""

    def choose(self, aim: Aim, step: int, t: float, s: float, x0hat: Tensor) -> Any: ...
    def write(self, symbols: Any, writer: Writer) -> None: ...
    def read(self, step: int, reader: Reader) -> Any: ...
    def replay(self, symbols: Any, step: int, like: Tensor) -> Tensor: ...


def _fill(header: Header, gop: int, step: int, frame: int, like: Tensor) -> Tensor:
    """Seeded normals [D] for a latent frame that no symbols speak of."""
    key = rng.derive(header.seed, gop, step, frame, Purpose.FILL)
    return torch.from_numpy(rng.normals(key, like[:, frame].numel())).to(like.device)


class Atoms:
    """Atoms of a codebook for each latent frame that is free. `dealt` has their numbers by step and
    free frame for `uniform` allocation; for `matched` they are among the symbols."""

    def __init__(self, coder: codebook.Coder, header: Header, gop: int, free: Sequence[int],
                 dealt: Sequence[list[int]]) -> None:  # fmt: skip
        self.coder, self.header, self.gop, self.free, self.dealt = coder, header, gop, free, dealt
        self.matched, self.model = header.allocation == "matched", entropy.Counts()

    def choose(self, aim: Aim, step: int, t: float, s: float, x0hat: Tensor) -> dict[int, Symbols]:
        path = flow.PATHS[self.header.path]
        target, lengths = allocation.steering(aim.x0, x0hat, aim.metric, path, s)
        if aim.budget is None:
            counts = self.dealt[step]
        else:
            information = [flow.information(path, t, s, lengths[f]) for f in self.free]
            counts = aim.budget.counts(step, information, self.model.cost)
        asked = [
            (target[f], m, Where(self.gop, step, f))
            for f, m in zip(self.free, counts, strict=True)
        ]  # fmt: skip
        return dict(zip(self.free, self.coder.choose_all(asked), strict=True))

    def write(self, symbols: dict[int, Symbols], writer: Writer) -> None:
        if self.matched:
            self.model.write([len(symbols[f]) for f in self.free], writer)
        for f in self.free:
            self.coder.write(symbols[f], writer)

    def read(self, step: int, reader: Reader) -> dict[int, Symbols]:
        width = len(self.free)
        counts = self.model.read(width, reader) if self.matched else self.dealt[step]
        return {f: self.coder.read(m, reader) for f, m in zip(self.free, counts, strict=True)}

    def replay(self, symbols: dict[int, Symbols], step: int, like: Tensor) -> Tensor:
        c, frames, h, w = like.shape
        named = [f for f in range(frames) if len(symbols.get(f, ()))]
        asked = [(symbols[f], Where(self.gop, step, f)) for f in named]
        noise = dict(zip(named, self.coder.replay_all(asked), strict=True))
        z = [
            noise[f] if f in noise else _fill(self.header, self.gop, step, f, like)
            for f in range(frames)
        ]
        return torch.stack(z).reshape(-1, c, h, w).transpose(0, 1)


class Channel:
    """Reverse channel coding of all free latent frames of a step together."""

    def __init__(self, coder: rcc.Rcc, header: Header, gop: int, free: Sequence[int],
                 shape: Shape) -> None:  # fmt: skip
        self.coder, self.header, self.gop, self.free = coder, header, gop, list(free)
        self.dim, self.law = shape[0] * len(free) * shape[2] * shape[3], rcc.Law()

    def choose(self, aim: Aim, step: int, t: float, s: float, x0hat: Tensor) -> rcc.Chunks:
        path = flow.PATHS[self.header.path]
        scale = math.sqrt(flow.snr(path, s) - flow.snr(path, t))
        mu = scale * (aim.x0 - x0hat)[:, self.free]
        return self.coder.choose(mu.flatten(), self.gop, step)

    def write(self, symbols: rcc.Chunks, writer: Writer) -> None:
        self.coder.write(symbols, self.law, writer)

    def read(self, step: int, reader: Reader) -> rcc.Chunks:
        return self.coder.read(self.dim, self.law, reader)

    def replay(self, symbols: rcc.Chunks, step: int, like: Tensor) -> Tensor:
        c, frames, h, w = like.shape
        z = torch.empty_like(like)
        named = self.coder.replay(symbols, self.dim, self.gop, step)
        z[:, self.free] = named.reshape(c, len(self.free), h, w)
        for f in set(range(frames)) - set(self.free):
            z[:, f] = _fill(self.header, self.gop, step, f, like).reshape(c, h, w)
        return z


def make_scheme(
    coder: Coder, header: Header, gop: int, shape: Shape, free: Sequence[int],
    stop: int, atoms: int = 0, tail_atoms: int = 0,
) -> Scheme:  # fmt: skip
    """The scheme of a GOP with `stop` coded steps; atoms as its record has them."""
    if isinstance(coder, rcc.Rcc):
        return Channel(coder, header, gop, free, shape)
    dealt = allocation.uniform_counts(atoms, tail_atoms, stop, len(free))
    return Atoms(coder, header, gop, free, dealt)


class Choose:
    """The encoder's noise: symbols chosen towards the aim, written, and replayed; `symbols` keeps
    them."""

    def __init__(self, scheme: Scheme, aim: Aim, stop: int) -> None:
        self.scheme, self.aim, self.stop = scheme, aim, stop
        self.writer, self.symbols = Writer(), list[Any]()

    def __call__(self, step: int, t: float, s: float, x0hat: Tensor) -> Tensor | None:
        if step >= self.stop:
            return None
        before = self.writer.total
        symbols = self.scheme.choose(self.aim, step, t, s, x0hat)
        self.scheme.write(symbols, self.writer)
        self.symbols.append(symbols)
        if self.aim.budget is not None:
            self.aim.budget.spend(self.writer.total - before)
        return self.scheme.replay(symbols, step, x0hat)


class Read:
    """The decoder's noise: symbols read and replayed."""

    def __init__(self, coder: Coder, header: Header, gop: int, record: GopRecord, shape: Shape,
                 free: Sequence[int]) -> None:  # fmt: skip
        self.stop = record.stop + (record.part > 0)
        self.scheme = make_scheme(
            coder, header, gop, shape, free, self.stop, record.atoms, record.tail_atoms
        )
        self.reader = Reader(record.symbols)

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
    shape: Shape,
    coder: Coder,
    at: Sequence[float],
    noise: Choose | Read,
    observe: Callable[[int, Tensor], None],
) -> Tensor:
    """The latent of a GOP: the sampling loop as a header asks for it, along the times `at`. What is
    known is not sampled."""
    if len(condition.known) == shape[1]:
        return torch.stack([condition.known[f] for f in range(shape[1])], 1)
    if header.reuse > 1:
        condition = Condition(_sparse(condition.denoise, header.reuse, noise.stop), condition.known)
    return walk(condition, header, coder.initial(shape, gop), at, noise, observe)


def _sparse(denoise: Denoise, every: int, stop: int) -> Denoise:
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
