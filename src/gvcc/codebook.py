"""The two codebooks: choose atoms for a target, replay them as noise, write and read them.

Legend: D values of one latent frame; r [D] the target (x0 - x0hat, weighted by the steering
metric); m atoms; `Where` names the frame-step. A coder's `choose` runs in the encoder only; its
`replay` runs in both, on the same symbols, so encoder and decoder cannot drift apart.
"""

from __future__ import annotations

import math
from functools import lru_cache
from typing import NamedTuple, Protocol

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from gvcc import entropy, rng
from gvcc.entropy import Reader, Sink
from gvcc.errors import Corrupt
from gvcc.rng import Purpose

Symbols = NDArray[np.int64]
"""int64 [m]: 2 * index + (1 if the atom is taken with sign minus)."""


class Where(NamedTuple):
    """Which frame-step: GOP number, coded step, latent frame; all from 0."""

    gop: int
    step: int
    frame: int


class Coder(Protocol):
    """A codebook of atoms for frames of D values. `bits` is the exact cost of `write`."""

    def initial(self, shape: tuple[int, int, int, int], gop: int) -> Tensor: ...
    def bits(self, m: int) -> int: ...
    def choose(self, r: Tensor, m: int, where: Where) -> Symbols: ...
    def replay(self, symbols: Symbols, where: Where) -> Tensor: ...
    def write(self, symbols: Symbols, sink: Sink) -> None: ...
    def read(self, m: int, reader: Reader) -> Symbols: ...


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


class Hadamard:
    """Sections of a randomised Hadamard matrix: one atom a section, found by one fast transform.

    The atoms of a section are the columns of diag(signs) H, first D rows, P = 2^ceil(log2 D) of
    them. Section i of a frame-step takes its signs at i * D of the frame-step's own stream. Log2 P
    + 1 bits an atom. Noise integers are exact on every machine.
    """

    def __init__(self, seed: int, dim: int, device: torch.device | str = "cpu") -> None:
        self.seed, self.dim, self.device = seed, dim, torch.device(device)
        self.order = 1 << max(1, (dim - 1).bit_length())

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

    def read(self, m: int, reader: Reader) -> Symbols:
        return reader.uniform(m, 2 * self.order)


def _rest(r: Tensor, total: Tensor) -> Tensor:
    """What is left of r when its part along `total` is taken out."""
    return r - total * (torch.dot(r, total) / torch.dot(total, total).clamp(min=1))


def _block(m: int, order: int) -> int:
    """Sections searched at once: more is faster as long as they fit the cache, and loses a little
    as their share of m grows."""
    return max(1, min(2**20 // order, 16, m // 16))


# -- gaussian ---------------------------------------------------------------------------------


MOST_OF_SUBSET = 4096  # atoms of one subset: ranking more would take a decoder too long


class Gaussian:
    """The published codebook (GVCC): K atoms randn(D) from torch's CPU generator, the best m.

    Seeds are as published, seed * 100003 + 10007 step + frame, the same for every GOP. The bits of
    this stream of random numbers are torch's promise, not ours: kept for fidelity to the paper.
    """

    def __init__(self, seed: int, dim: int, size: int, device: torch.device | str = "cpu") -> None:
        self.seed, self.dim, self.size, self.device = seed, dim, size, torch.device(device)

    def initial(self, shape: tuple[int, int, int, int], gop: int) -> Tensor:
        """x_1, the same for every GOP, as published."""
        generator = torch.Generator().manual_seed(self.seed)
        return torch.randn((1, *shape), generator=generator)[0].to(self.device)

    def bits(self, m: int) -> int:
        """Rank of an m-subset of K, and m signs."""
        return entropy.subset_bits(self.size, m) + m

    def _atoms(self, where: Where, count: int):  # type: ignore[no-untyped-def]
        """Yields (first index, atoms float32 [n, D]) up to `count` atoms.

        Atoms are drawn one randn(D) at a time; torch fills a longer tensor with the same numbers
        if D is a multiple of 16 (its vector width), which is far faster.
        """
        generator = torch.Generator()
        generator.manual_seed(self.seed * 100003 + 10007 * where.step + where.frame)
        batch = max(1, 2**24 // self.dim) if self.dim % 16 == 0 else 1
        for first in range(0, count, batch):
            n = min(batch, count - first)
            yield first, torch.randn(n * self.dim, generator=generator).reshape(n, self.dim)

    def choose(self, r: Tensor, m: int, where: Where) -> Symbols:
        """The m atoms with the largest |<z_i, r>|, in order of index."""
        target = r.cpu()
        corr = torch.cat([atoms @ target for _, atoms in self._atoms(where, self.size)])
        index = corr.abs().topk(m).indices.sort().values
        return (2 * index + (corr[index] < 0)).numpy()

    def replay(self, symbols: Symbols, where: Where) -> Tensor:
        """z [D]: the sum of the signed atoms divided by its (unbiased) standard deviation."""
        total = torch.zeros(self.dim)
        index, sign = torch.from_numpy(symbols >> 1), torch.from_numpy(1.0 - 2 * (symbols & 1))
        for first, atoms in self._atoms(where, int(index[-1]) + 1):
            here = (index >= first) & (index < first + len(atoms))
            for i, s in zip(index[here], sign[here], strict=True):
                total += s.float() * atoms[i - first]
        return (total / total.std()).to(self.device)

    def write(self, symbols: Symbols, sink: Sink) -> None:
        sink.bits(entropy.subset_rank(symbols >> 1), entropy.subset_bits(self.size, len(symbols)))
        sink.uniform(symbols & 1, 2)

    def read(self, m: int, reader: Reader) -> Symbols:
        if m > min(self.size, MOST_OF_SUBSET):
            raise Corrupt(f"{m} atoms from a codebook of {self.size}")
        rank = reader.bits(entropy.subset_bits(self.size, m))
        if rank >= math.comb(self.size, m):
            raise Corrupt(f"subset rank out of range for {m} of {self.size} atoms")
        return 2 * entropy.subset_unrank(rank, self.size, m) + reader.uniform(m, 2)
