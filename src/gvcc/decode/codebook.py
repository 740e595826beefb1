"""The two codebooks: choose atoms for a target, replay them as noise, write and read them.

Legend: D values of one latent frame; r [D] the target (x0 - x0hat, weighted by the steering
metric); m atoms; `Where` names the frame-step. A coder's `choose` runs in the encoder only; its
`replay` runs in both, on the same symbols, so encoder and decoder cannot drift apart.
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from functools import lru_cache
from typing import NamedTuple, Protocol

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from gvcc.decode import draws
from gvcc.decode.scheme import LatentShape, fill
from gvcc.errors import Corrupt
from gvcc.format import coders, entropy, rng
from gvcc.format.bitstream import Header
from gvcc.format.entropy import Sink, SymbolReader, SymbolWriter
from gvcc.format.rng import Purpose

Symbols = NDArray[np.int64]
"""int64 [m]: 2 * index + (1 if the atom is taken with sign minus)."""


class Where(NamedTuple):
    """Which frame-step: GOP number, coded step, latent frame; all from 0."""

    gop: int
    step: int
    frame: int


class Codebook(Protocol):
    """A codebook of atoms for frames of D values. `bits` is the exact cost of `write`.

    `choose_all` and `replay_all` do several frame-steps at once, with the results of one by one.
    """

    def initial(self, shape: tuple[int, int, int, int], gop: int) -> Tensor: ...
    def bits(self, m: int) -> int: ...
    def choose(self, r: Tensor, m: int, where: Where) -> Symbols: ...
    def replay(self, symbols: Symbols, where: Where) -> Tensor: ...
    def write(self, symbols: Symbols, sink: Sink) -> None: ...
    def read(self, m: int, reader: SymbolReader) -> Symbols: ...

    def choose_all(self, asked: Sequence[tuple[Tensor, int, Where]]) -> list[Symbols]:
        return [self.choose(r, m, where) for r, m, where in asked]

    def replay_all(self, asked: Sequence[tuple[Symbols, Where]]) -> list[Tensor]:
        return [self.replay(symbols, where) for symbols, where in asked]

    def scheme(
        self, header: Header, gop: int, free: Sequence[int], shape: LatentShape,
        dealt: Sequence[list[int]],
    ) -> Atoms:  # fmt: skip
        return Atoms(self, header, gop, free, dealt)


class Atoms:
    """Atoms of a codebook for each latent frame that is free. `dealt` has their numbers by step and
    free frame for `uniform` allocation; for `matched` they are among the symbols."""

    def __init__(self, coder: Codebook, header: Header, gop: int, free: Sequence[int],
                 dealt: Sequence[list[int]]) -> None:  # fmt: skip
        self.coder, self.header, self.gop, self.free, self.dealt = coder, header, gop, free, dealt
        self.matched, self.model = header.allocation == "matched", entropy.Counts()

    def write(self, symbols: dict[int, Symbols], writer: SymbolWriter) -> None:
        if self.matched:
            self.model.write([len(symbols[f]) for f in self.free], writer)
        for f in self.free:
            self.coder.write(symbols[f], writer)

    def read(self, step: int, reader: SymbolReader) -> dict[int, Symbols]:
        width = len(self.free)
        counts = self.model.read(width, reader) if self.matched else self.dealt[step]
        return {f: self.coder.read(m, reader) for f, m in zip(self.free, counts, strict=True)}

    def replay(self, symbols: dict[int, Symbols], step: int, like: Tensor) -> Tensor:
        c, frames, h, w = like.shape
        named = [f for f in range(frames) if len(symbols.get(f, ()))]
        asked = [(symbols[f], Where(self.gop, step, f)) for f in named]
        noise = dict(zip(named, self.coder.replay_all(asked), strict=True))
        z = [
            noise[f] if f in noise else fill(self.header, self.gop, step, f, like)
            for f in range(frames)
        ]
        return torch.stack(z).reshape(-1, c, h, w).transpose(0, 1)


# -- hadamard ---------------------------------------------------------------------------------


@lru_cache(maxsize=16)
def sylvester(n: int, device: str = "cpu") -> Tensor:
    """The Hadamard matrix of order n = 2^k in Sylvester's form, float32: (-1)^popcount(i & j)."""
    h = torch.ones(1, 1)
    while len(h) < n:
        h = torch.cat([torch.cat([h, h], 1), torch.cat([h, -h], 1)])
    return h.to(device)


def _radices(order: int) -> list[int]:
    """Factors of 2^k, each at most 64 or about the cube root: small products stay in the cache."""
    k = order.bit_length() - 1
    parts = max(1, -(-k // 6)) if k <= 18 else 3
    return [2 ** (k // parts + (i < k % parts)) for i in range(parts)]


def transform(x: Tensor) -> Tensor:
    """Walsh-Hadamard transform (unnormalised) of the rows of x [n, 2^k]: x @ sylvester(2^k).

    H of order a b is the Kronecker product of H_a and H_b, so it is applied as one small matrix
    product per factor, each along an axis of its own: nothing is transposed.
    """
    n, order = x.shape
    inner = order
    for radix in _radices(order):
        inner //= radix
        h = sylvester(radix, str(x.device))
        x = h @ x.reshape(-1, radix, inner) if inner > 1 else x.reshape(-1, radix) @ h
    return x.reshape(n, order)


def columns(index: Tensor, order: int) -> Tensor:
    """Columns `index` [n] of sylvester(order), float32 [n, order], as outer products of factors."""
    out = torch.ones(len(index), 1, device=index.device)
    for radix in reversed(_radices(order)):
        part = sylvester(radix, str(index.device))[index % radix]
        out = (part[:, :, None] * out[:, None, :]).flatten(1)
        index = index // radix
    return out


class Hadamard(Codebook):
    """Sections of a randomised Hadamard matrix: one atom a section, found by one fast transform.

    The atoms of a section are the columns of diag(signs) H, first D rows, P = 2^ceil(log2 D) of
    them. Section i of a frame-step takes its signs at i * D of the frame-step's own stream. Log2 P
    + 1 bits an atom. Noise integers are exact on every machine.
    """

    def __init__(self, seed: int, dim: int, device: torch.device | str = "cpu") -> None:
        self.seed, self.dim, self.device = seed, dim, torch.device(device)
        self.order = 1 << max(1, (dim - 1).bit_length())

    @classmethod
    def of(cls, header: Header, dim: int, device: torch.device | str) -> Hadamard:
        return cls(header.seed, dim, device)

    def initial(self, shape: tuple[int, int, int, int], gop: int) -> Tensor:
        """x_1 of a GOP: float32 normals of the given shape [C,F,h,w]."""
        key = rng.derive(self.seed, gop, 0, 0, Purpose.INITIAL)
        z = rng.normals(key, math.prod(shape)).reshape(shape)
        return torch.from_numpy(z).to(self.device)

    def bits(self, m: int) -> int:
        """Bits of m atoms: fixed length."""
        return m * self.order.bit_length()

    def _signs(self, first: int, count: int, where: Where) -> Tensor:
        key = rng.derive(self.seed, *where, Purpose.SIGNS)
        at = first * self.dim, count * self.dim
        if self.device.type == "cpu":  # numpy unpacks bits faster than torch does
            s = torch.from_numpy(rng.signs(key, *at))
        else:
            s = rng.signs(key, *at, torch.empty(0, dtype=torch.int64, device=self.device))
        return s.reshape(count, self.dim).float()

    def _atoms(self, symbols: Symbols, diagonal: Tensor) -> Tensor:
        """The signed atoms of consecutive sections, +1 and -1, float32 [n, D]."""
        s = torch.from_numpy(symbols).to(self.device)
        atoms = columns(s >> 1, self.order)[:, : self.dim] * diagonal
        return atoms * (1 - 2 * (s & 1))[:, None]

    def choose(self, r: Tensor, m: int, where: Where) -> Symbols:
        """One atom from each of m sections, so that their sum points along r [D].

        Greedy, a block of sections at a time: the part of r along the sum so far is taken out, for
        the next atom then gains most in <sum, r> / |sum|, which is what the fixed noise power makes
        of r. Where the atoms take up a good part of the frame, two more sweeps choose each block
        again given all others; not in large frames, where the search is what takes the time.
        """
        out = np.zeros(m, dtype=np.int64)
        total, rest = torch.zeros_like(r), r
        crowded = 32 * self.bits(m) > self.dim and self.order <= 2**16
        for sweep in range(3 if crowded else 1):
            for first in range(0, m, block := _block(m, self.order)):
                part = slice(first, min(first + block, m))
                diagonal = self._signs(first, part.stop - first, where)
                if sweep:
                    total = total - self._atoms(out[part], diagonal).sum(0)
                    rest = _rest(r, total)
                corr = transform(
                    torch.nn.functional.pad(diagonal * rest, (0, self.order - self.dim))
                )
                index = corr.abs().argmax(1)
                minus = corr.gather(1, index[:, None])[:, 0] < 0
                out[part] = (2 * index + minus).cpu().numpy()
                total = total + self._atoms(out[part], diagonal).sum(0)
                rest = _rest(r, total)
        return out

    def replay(self, symbols: Symbols, where: Where) -> Tensor:
        """z [D]: the sum of the signed atoms, divided by its root mean square.

        The sum and the sum of its squares are whole numbers below 2^24 and 2^53 and so exact in
        any order of addition; the one division is correctly rounded.
        """
        total = torch.zeros(self.dim, device=self.device)
        for first in range(0, len(symbols), 16):
            part = symbols[first : first + 16]
            total += self._atoms(part, self._signs(first, len(part), where)).sum(0)
        power = float((total.double() ** 2).sum()) / self.dim
        return total * (1 / math.sqrt(power)) if power else total

    def write(self, symbols: Symbols, sink: Sink) -> None:
        sink.uniform(symbols, 2 * self.order)

    def read(self, m: int, reader: SymbolReader) -> Symbols:
        return reader.uniform(m, 2 * self.order)


def _rest(r: Tensor, total: Tensor) -> Tensor:
    """What is left of r when its part along `total` is taken out."""
    return r - total * (torch.dot(r, total) / torch.dot(total, total).clamp(min=1))


def _block(m: int, order: int) -> int:
    """Sections searched at once: more is faster as long as they fit the cache, and loses a little
    as their share of m grows."""
    return max(1, min(2**20 // order, 16, m // 16))


# -- gaussian ---------------------------------------------------------------------------------


_KEPT = 2**27  # values of the best atoms so far, of all frame-steps that are searched at once


class Gaussian(Codebook):
    """The published codebook (GVCC): K atoms randn(D) from torch's CPU generator, the best m.

    Seeds are as published, seed * 100003 + 10007 step + frame, the same for every GOP. The bits of
    this stream of random numbers are torch's promise, not ours: kept for fidelity to the paper.

    Drawing is nearly all of the work, and each frame-step has a generator of its own: several are
    drawn side by side (draws.py). The noise of what `choose` finds is kept, D values a frame-step,
    until the next `choose` or its `replay`: an encoder draws once.
    """

    def __init__(self, seed: int, dim: int, size: int, device: torch.device | str = "cpu") -> None:
        self.seed, self.dim, self.size, self.device = seed, dim, size, torch.device(device)
        self._chosen: dict[Where, tuple[Symbols, Tensor]] = {}

    @classmethod
    def of(cls, header: Header, dim: int, device: torch.device | str) -> Gaussian:
        return cls(header.seed, dim, header.codebook_size, device)

    def initial(self, shape: tuple[int, int, int, int], gop: int) -> Tensor:
        """x_1, the same for every GOP, as published."""
        generator = torch.Generator().manual_seed(self.seed)
        return torch.randn((1, *shape), generator=generator)[0].to(self.device)

    def bits(self, m: int) -> int:
        """Rank of an m-subset of K, and m signs."""
        return entropy.subset_bits(self.size, m) + m

    def _drawn(self, asked: Sequence[tuple[Where, int]]) -> Iterator[draws.Batch]:
        """The first so many atoms of each frame-step."""
        seeds = [self.seed * 100003 + 10007 * w.step + w.frame for w, _ in asked]
        return draws.drawn(seeds, [count for _, count in asked], self.dim)

    def choose(self, r: Tensor, m: int, where: Where) -> Symbols:
        """The m atoms with the largest |<z_i, r>|, in order of index."""
        return self.choose_all([(r, m, where)])[0]

    def choose_all(self, asked: Sequence[tuple[Tensor, int, Where]]) -> list[Symbols]:
        """`choose` for several frame-steps, whose atoms are drawn side by side."""
        left, found = _KEPT // self.dim, list[draws.Best]()
        for _, m, _ in asked:
            found.append(draws.Best(m, self.dim, m <= left))
            left -= len(found[-1].rows)
        targets = [r.cpu() for r, _, _ in asked]
        # No atom at all is known without a draw.
        drawn = [n for n, (_, m, _) in enumerate(asked) if m]
        for i, first, atoms in self._drawn([(asked[n][2], self.size) for n in drawn]):
            n = drawn[i]
            found[n].add(first, draws.products(atoms, targets[n]), atoms)
        out = [best.symbols() for best in found]
        self._chosen = {
            where: (symbols.copy(), self._noise(total))
            for (_, _, where), symbols, best in zip(asked, out, found, strict=True)
            if (total := best.total(symbols)) is not None
        }
        return out

    def _noise(self, total: Tensor) -> Tensor:
        return (total / total.std()).to(self.device)

    def replay(self, symbols: Symbols, where: Where) -> Tensor:
        """z [D]: the sum of the signed atoms divided by its (unbiased) standard deviation."""
        return self.replay_all([(symbols, where)])[0]

    def replay_all(self, asked: Sequence[tuple[Symbols, Where]]) -> list[Tensor]:
        """`replay` for several frame-steps, whose atoms are drawn side by side."""
        out, drawn = list[Tensor](), list[int]()
        for n, (symbols, where) in enumerate(asked):
            kept = self._chosen.pop(where, None)
            if kept is not None and np.array_equal(kept[0], symbols):
                out.append(kept[1])
            else:
                drawn.append(n)
                out.append(torch.zeros(self.dim))
        counts = [(asked[n][1], int(asked[n][0][-1] >> 1) + 1) for n in drawn]
        for i, first, atoms in self._drawn(counts):
            symbols = asked[drawn[i]][0]
            begin, end = np.searchsorted(symbols >> 1, (first, first + len(atoms)))
            here = symbols[begin:end]
            draws.add(out[drawn[i]], atoms, (here >> 1) - first, here)
        for n in drawn:
            out[n] = self._noise(out[n])
        return out

    def write(self, symbols: Symbols, sink: Sink) -> None:
        sink.bits(entropy.subset_rank(symbols >> 1), entropy.subset_bits(self.size, len(symbols)))
        sink.uniform(symbols & 1, 2)

    def read(self, m: int, reader: SymbolReader) -> Symbols:
        if m > coders.row("gaussian").atoms_within(self.size):
            raise Corrupt(f"{m} atoms from a codebook of {self.size}")
        rank = reader.bits(entropy.subset_bits(self.size, m))
        if rank >= math.comb(self.size, m):
            raise Corrupt(f"subset rank out of range for {m} of {self.size} atoms")
        return 2 * entropy.subset_unrank(rank, self.size, m) + reader.uniform(m, 2)
