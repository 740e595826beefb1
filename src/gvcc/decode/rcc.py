"""Reverse channel coding: send a sample of N(mu, I) to a decoder that has N(0, I) alone.

The Poisson functional representation (Li and El Gamal 2018; Theis et al. 2022): both sides see the
same candidates z_i ~ N(0, I); the encoder draws the arrival times T_i of a Poisson process and
names j = argmin T_i / w_i, w = dN(mu, I)/dN(0, I), for then z_j ~ N(mu, I). Its search grows as
2^C, C = |mu|^2 / (2 ln 2) bits, so the D values of a step are cut into n chunks of about 12 bits.

Legend: K candidates of a chunk, d = ceil(D / n) values in it, c = C / n in quarters of a bit. One
codebook [K, d] serves all chunks of a step, each under signs of its own and with values taken by
one permutation of all D, so that a chunk's candidates are independent of the others' (of one step
to the next the codebook is another). n and c are in the stream: no float of the decoder decides
how the symbols are read. K = 2^(ceil(C/n) + 2) for small C/n, at most `size`: truncating the search
makes the shift a little short, which the next step sees and corrects.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import NamedTuple

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from gvcc.decode.scheme import LatentShape, fill
from gvcc.errors import Corrupt
from gvcc.format import entropy, rng
from gvcc.format.bitstream import Header
from gvcc.format.entropy import Ints, Reader, Writer
from gvcc.format.rng import Purpose

CAP = 12  # bits of information in a chunk
PAD = 2  # bits by which a codebook is larger than the information asks for
MOST_CHUNKS = 2**20 - 1
_UNIT = 4  # c counts quarters of a bit
_MOST_C = 63
_WORK = 2**25  # values of a codebook; chunks of few bits and many values become more
_SHARE = 2**22  # values of the codebook that are searched at once


class Chunks(NamedTuple):
    """What a step's chunks are told by: c, quarters of a bit in each, and the candidates' numbers
    int64 [n]."""

    c: int
    numbers: NDArray[np.int64]


class Rcc:
    """The channel of one stream: `size` is the most candidates of a chunk, a power of two."""

    def __init__(self, seed: int, size: int, device: torch.device | str = "cpu") -> None:
        self.seed, self.size, self.device = seed, size, torch.device(device)

    @classmethod
    def of(cls, header: Header, dim: int, device: torch.device | str) -> Rcc:
        return cls(header.seed, header.size, device)

    def bits(self, m: int) -> int:
        """It has no atoms: an allowance of m bits."""
        return m

    def scheme(
        self, header: Header, gop: int, free: Sequence[int], shape: LatentShape,
        dealt: Sequence[list[int]],
    ) -> Channel:  # fmt: skip
        return Channel(self, header, gop, free, shape)

    def initial(self, shape: tuple[int, int, int, int], gop: int) -> Tensor:
        """x_1 of a GOP: float32 normals of the given shape [C,F,h,w]."""
        key = rng.derive(self.seed, gop, 0, 0, Purpose.INITIAL)
        return torch.from_numpy(rng.normals(key, math.prod(shape)).reshape(shape)).to(self.device)

    def candidates(self, c: int) -> int:
        """K, the candidates of a chunk of c quarters of a bit."""
        return min(self.size, 1 << (-(-c // _UNIT) + PAD))

    def _plan(self, bits: float, dim: int) -> tuple[int, int]:
        """n and c for `bits` of information in `dim` values."""
        cap = min(CAP, self.size.bit_length() - 1)
        n = max(1, math.ceil(bits / cap))
        while True:
            n = min(n, dim, MOST_CHUNKS)
            n = -(-dim // -(-dim // n))  # no chunk is empty
            c = min(_MOST_C, round(_UNIT * bits / n))
            if self.candidates(c) * -(-dim // n) <= _WORK or n in (dim, MOST_CHUNKS):
                return n, c
            n = 2 * n

    def _keys(self, gop: int, step: int) -> tuple[rng.Key, rng.Key, rng.Key]:
        return (
            rng.derive(self.seed, gop, step, 0, Purpose.PERMUTATION),
            rng.derive(self.seed, gop, step, 0, Purpose.CHUNKS),
            rng.derive(self.seed, gop, step, 0, Purpose.CODEBOOK),
        )

    def choose(self, mu: Tensor, gop: int, step: int) -> Chunks:
        """Candidates that together are nearly a sample of N(mu, I), mu [D]."""
        flat = mu.detach().float().cpu().numpy()
        dim = len(flat)
        n, c = self._plan(float((flat.astype(np.float64) ** 2).sum()) / (2 * math.log(2)), dim)
        d = -(-dim // n)
        order, sign, book = self._keys(gop, step)
        aim = np.zeros(n * d, np.float32)
        aim[:dim] = flat[rng.permutation(order, dim)] * rng.signs(sign, 0, dim)
        aims = torch.from_numpy(aim.reshape(n, d)).to(self.device)
        # The arrival times are the encoder's own affair; seeded, so that files can be made again.
        clock = np.random.Generator(np.random.PCG64([self.seed, gop, step]))
        best = torch.full((n,), math.inf, device=self.device)
        index = torch.zeros(n, dtype=torch.int64, device=self.device)
        time = np.zeros((1, n))
        size, block = self.candidates(c), max(1, _SHARE // max(d, n))
        for first in range(0, size, block):
            rows = np.arange(first, min(first + block, size))
            z = torch.from_numpy(rng.normal_rows(book, rows, d)).to(self.device)
            times = time + clock.standard_exponential((len(rows), n), np.float32).cumsum(0)
            time = times[-1:]
            race = torch.from_numpy(np.log(times)).to(self.device).float() - z @ aims.T
            low, at = race.min(0)
            index = torch.where(low < best, at + first, index)
            best = torch.minimum(low, best)
        return Chunks(c, index.cpu().numpy())

    def replay(self, chunks: Chunks, dim: int, gop: int, step: int) -> Tensor:
        """z [D]: the candidates named; only their rows of the codebook are made. Exact anywhere."""
        n = len(chunks.numbers)
        order, sign, book = self._keys(gop, step)
        values = rng.normal_rows(book, chunks.numbers, -(-dim // n)).ravel()[:dim]
        z = np.empty(dim, np.float32)
        z[rng.permutation(order, dim)] = values * rng.signs(sign, 0, dim)
        return torch.from_numpy(z).to(self.device)

    def write(self, chunks: Chunks, law: Law, sink: Writer) -> None:
        """n, c, and the candidates' numbers by `law`, which learns them."""
        n = len(chunks.numbers)
        sink.bits(n.bit_length(), 5)
        sink.bits(n, n.bit_length())
        sink.bits(chunks.c, 6)
        table = law.table(chunks.c, self.candidates(chunks.c))
        length = np.frexp(chunks.numbers)[1].astype(np.int64)
        sink.table(length, np.broadcast_to(entropy.frequencies(table)[0], (n, table.shape[1])))
        for e in range(2, table.shape[1]):
            sink.uniform(chunks.numbers[length == e] - (1 << (e - 1)), 1 << (e - 1))
        law.learn(table, length)

    def read(self, dim: int, law: Law, reader: Reader) -> Chunks:
        """What `write` wrote for a step of `dim` values; Corrupt, before anything large is made,
        for no chunks, more than there are values or room for, or chunks that would be empty."""
        n = reader.bits(reader.bits(5))
        c = reader.bits(6)
        if not 0 < n <= min(dim, MOST_CHUNKS) or (n - 1) * -(-dim // n) >= dim:
            raise Corrupt(f"{n} chunks of {dim} values")
        table = law.table(c, self.candidates(c))
        frequencies = entropy.frequencies(table)
        # None costs less than the likeliest; `table` counts each one as it comes.
        reader.need(n * (entropy.PRECISION - int(frequencies.max()).bit_length()))
        length = reader.table(np.broadcast_to(frequencies[0], (n, table.shape[1])))
        index = (length == 1).astype(np.int64)
        for e in range(2, table.shape[1]):
            here = length == e
            index[here] = (1 << (e - 1)) + reader.uniform(int(here.sum()), 1 << (e - 1))
        law.learn(table, length)
        return Chunks(c, index)


class Law:
    """How often the winner's number j has which length in bits, in one GOP: at first by Zipf's law,
    P(j) ~ (j + 1)^-s, s = 1 + 1 / (c/4 + 1.53) (Li and El Gamal 2018; the constant is that of a
    measurement), then by what is seen. The bits below the highest are plain. Integers only.

    The truncated search makes the first few numbers rarer than the law has them.
    """

    def __init__(self) -> None:
        self._tables: dict[int, Ints] = {}

    def table(self, c: int, candidates: int) -> Ints:
        """Counts [1,n] of the lengths 0 .. n - 1 of the numbers below `candidates`; chunks of as
        many candidates share a table."""
        if candidates not in self._tables:
            r = round(2**16 * 2 ** (-1 / (c / _UNIT + 1.53)))
            counts, power = [], 2**16
            for e in range(candidates.bit_length()):
                # j + 1 runs over first .. 2^e; its (1-s)th power is taken as r^e there.
                first = 1 if e == 0 else (1 << (e - 1)) + 1
                counts.append((sum(2**24 // i for i in range(first, (1 << e) + 1)) * power) >> 32)
                power = power * r >> 16
            self._tables[candidates] = 1 + np.array([counts], dtype=np.int64)
        return self._tables[candidates]

    def learn(self, table: Ints, lengths: Ints) -> None:
        """Add what a step has shown to its table."""
        table += _WEIGHT * np.bincount(lengths, minlength=table.shape[1])


_WEIGHT = 16  # of a number seen; Zipf's law weighs 256 for the number 0, half that for 1 ...


class Channel:
    """Reverse channel coding of all free latent frames of a step together."""

    def __init__(self, coder: Rcc, header: Header, gop: int, free: Sequence[int],
                 shape: LatentShape) -> None:  # fmt: skip
        self.coder, self.header, self.gop, self.free = coder, header, gop, list(free)
        self.dim, self.law = shape[0] * len(free) * shape[2] * shape[3], Law()

    def write(self, symbols: Chunks, writer: Writer) -> None:
        self.coder.write(symbols, self.law, writer)

    def read(self, step: int, reader: Reader) -> Chunks:
        return self.coder.read(self.dim, self.law, reader)

    def replay(self, symbols: Chunks, step: int, like: Tensor) -> Tensor:
        c, frames, h, w = like.shape
        z = torch.empty_like(like)
        named = self.coder.replay(symbols, self.dim, self.gop, step)
        z[:, self.free] = named.reshape(c, len(self.free), h, w)
        for f in set(range(frames)) - set(self.free):
            z[:, f] = fill(self.header, self.gop, step, f, like).reshape(c, h, w)
        return z
