"""The published codebook with atoms from counters: the same on every device, each made without
those before it. docs/format.md section 5.2, `gaussian-counter`."""

from __future__ import annotations

import math
from collections import deque
from collections.abc import Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from functools import lru_cache

import numpy as np
import torch
from torch import Tensor

from gvcc.decode import draws
from gvcc.decode.codebook import Gaussian, Symbols, Where
from gvcc.format import rng
from gvcc.format.rng import Purpose

_BATCH = 2**22  # values of the atoms that are made at once
_CHUNK = 2**16  # of those, what is looked up at once: it stays in the cache


@lru_cache(maxsize=4)
def _table(device: torch.device) -> Tensor:
    return torch.from_numpy(rng.normal_table()).to(device)


def atoms(key: rng.Key, first: int, count: int, dim: int, device: torch.device) -> Tensor:
    """Atoms first .. first + count - 1, float32 [count, dim], made on the device.

    Atom j has the blocks (rng.blocks64) from j ceil(dim / 16) on; its normal 4 n + k is the table's
    entry at bits 16 k .. 16 k + 15 of its word n.
    """
    blocks = -(-dim // 16)
    if device.type == "cpu":
        words = rng.blocks64(key, first * blocks, count * blocks)
        levels, table = words.astype("<u8", copy=False).view("<u2").reshape(-1), rng.normal_table()
        out = np.empty(levels.size, np.float32)
        for at in range(0, out.size, _CHUNK):
            part = slice(at, at + _CHUNK)
            np.take(table, levels[part], out=out[part], mode="clip")
        made = torch.from_numpy(out)
    else:
        like = torch.empty(0, dtype=torch.int64, device=device)
        words = rng.blocks64(key, first * blocks, count * blocks, like)
        shifts = torch.arange(0, 64, 16, device=device)
        made = _table(device)[words[:, :, None] >> shifts & 0xFFFF]
    return made.reshape(count, 16 * blocks)[:, :dim]


class CounterGaussian(Gaussian):
    """K atoms of normals from the shipped table, addressed by (seed, step, frame, atom): the same
    for every GOP, as published, but not torch's. A decoder makes the atoms that were chosen, and no
    others."""

    def initial(self, shape: tuple[int, int, int, int], gop: int) -> Tensor:
        """x_1, the same for every GOP, as published."""
        key = rng.derive(self.seed, 0, 0, 0, Purpose.INITIAL)
        return torch.from_numpy(rng.normals(key, math.prod(shape)).reshape(shape)).to(self.device)

    def _key(self, where: Where) -> rng.Key:
        return rng.derive(self.seed, 0, where.step, where.frame, Purpose.ATOMS)

    def _batches(self, where: Where) -> Iterator[tuple[int, Tensor]]:
        """All atoms of a frame-step, in batches after the index of the first: made by as many
        threads as torch has, or by the device."""
        key, each = self._key(where), max(1, _BATCH // self.dim)

        def make(first: int) -> Tensor:
            return atoms(key, first, min(each, self.size - first), self.dim, self.device)

        if self.device.type != "cpu":
            yield from ((first, make(first)) for first in range(0, self.size, each))
            return
        workers = torch.get_num_threads()
        with ThreadPoolExecutor(workers) as pool:
            making = deque[tuple[int, Future[Tensor]]]()
            for first in range(0, self.size, each):
                making.append((first, pool.submit(make, first)))
                if len(making) > workers:
                    at, made = making.popleft()
                    yield at, made.result()
            for at, made in making:
                yield at, made.result()

    def choose_all(self, asked: Sequence[tuple[Tensor, int, Where]]) -> list[Symbols]:
        """`choose` for several frame-steps, one after the other."""
        return [self._chosen_of(r.to(self.device), m, where) for r, m, where in asked]

    def _chosen_of(self, r: Tensor, m: int, where: Where) -> Symbols:
        best = draws.Best(m, self.dim, keep=False)
        if m:
            for first, made in self._batches(where):
                best.add(first, (made @ r).cpu(), made)
        return best.symbols()

    def replay_all(self, asked: Sequence[tuple[Symbols, Where]]) -> list[Tensor]:
        """`replay` for several frame-steps, one after the other."""
        return [self._replayed(symbols, self._key(where)) for symbols, where in asked]

    def _replayed(self, symbols: Symbols, key: rng.Key) -> Tensor:
        total = torch.zeros(self.dim, device=self.device)
        for symbol in symbols.tolist():
            atom = atoms(key, symbol >> 1, 1, self.dim, self.device)[0]
            total.add_(atom, alpha=1 - 2 * (symbol & 1))
        return total * (1 / deviation(total))


def deviation(total: Tensor) -> float:
    """The standard deviation of float32 values, divisor n - 1: from sums that are rounded once
    (math.fsum), so that it is the same on every machine."""
    values = total.double().cpu().numpy()
    n, mean = len(values), math.fsum(values) / len(values)
    return math.sqrt((math.fsum(values * values) - n * mean * mean) / (n - 1))
