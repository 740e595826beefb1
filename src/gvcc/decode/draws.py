"""The atoms of the published codebook: drawn by several threads, and the best of them kept.

Threads draw for several frame-steps at once, each of which has a generator of its own, and nothing
else: products stay in the caller's thread and in batches of one length for a D, since rows of a
product may round differently in a batch of another length.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Iterator, Sequence
from concurrent.futures import FIRST_COMPLETED, Future, ThreadPoolExecutor, wait

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

_BATCH = 2**24  # values of the atoms that are drawn at once
_DRAWING = 16  # batches under way at once, at the most: a gigabyte
Integers = NDArray[np.int64]
Batch = tuple[int, int, Tensor]
"""Number of the frame-step, index of its first atom here, atoms float32 [n, D]."""


def _draw(generator: torch.Generator, count: int, dim: int) -> Tensor:
    """The next atoms [count, D] of a generator.

    They are drawn one randn(D) at a time; torch fills a longer tensor with the same numbers if D is
    a multiple of 16 (its vector width), which is far faster.
    """
    if dim % 16 == 0:
        return torch.randn(count * dim, generator=generator).reshape(count, dim)
    return torch.stack([torch.randn(dim, generator=generator) for _ in range(count)])


def drawn(seeds: Sequence[int], counts: Sequence[int], dim: int) -> Iterator[Batch]:
    """The first so many atoms of D = `dim` values of each frame-step, given its generator's seed.

    Batches of one frame-step come in order, those of different ones in any. At most torch's number
    of threads draw.
    """
    generators = [torch.Generator().manual_seed(seed) for seed in seeds]
    batch = max(1, _BATCH // dim)
    workers = max(1, min(torch.get_num_threads(), len(seeds), _DRAWING))
    waiting = deque((i, 0) for i in range(len(seeds)))
    drawing: dict[Future[Tensor], tuple[int, int]] = {}

    def go_on() -> None:
        while waiting and len(drawing) < workers:
            i, first = waiting.popleft()
            count = min(batch, counts[i] - first)
            drawing[pool.submit(_draw, generators[i], count, dim)] = i, first

    with ThreadPoolExecutor(workers) as pool:
        go_on()
        while drawing:
            done = next(iter(wait(drawing, return_when=FIRST_COMPLETED).done))
            i, first = drawing.pop(done)
            atoms = done.result()
            if first + len(atoms) < counts[i]:
                waiting.append((i, first + len(atoms)))  # in turn: all end at about one time
            go_on()
            yield i, first, atoms


def products(atoms: Tensor, target: Tensor) -> Tensor:
    """<z_i, r> of a batch of atoms [n, D] and r [D], float32 [n]; one by one where atoms are drawn
    one by one."""
    if len(target) % 16 == 0:
        return atoms @ target
    return torch.cat([atom[None] @ target for atom in atoms])


def add(total: Tensor, atoms: Tensor, rows: Integers, symbols: Integers) -> None:
    """Add the signed atoms in some rows to a sum, one after the other: in another order they would
    round otherwise."""
    for row, sign in zip(rows.tolist(), (1 - 2 * (symbols & 1)).tolist(), strict=True):
        total.add_(atoms[row], alpha=sign)


class Best:
    """The search of one frame-step: its correlations so far, and the m atoms with the largest.

    Without `keep` the atoms themselves, `rows` [m, D], are not kept.
    """

    def __init__(self, m: int, dim: int, keep: bool) -> None:
        self.m, self.rows = m, torch.empty(m if keep else 0, dim)
        self._corr = list[Tensor]()
        self._index = torch.full((m,), -1)
        self._size = torch.full((m,), -1.0)

    def add(self, first: int, corr: Tensor, atoms: Tensor) -> None:
        """The next atoms [n, D], the first of which has the index `first`."""
        self._corr.append(corr)
        if not len(self.rows):
            return
        best = torch.cat([self._size, corr.abs()]).topk(self.m).indices
        new = best[best >= self.m] - self.m
        gone = torch.ones(self.m, dtype=torch.bool)
        gone[best[best < self.m]] = False
        self.rows[gone], self._index[gone] = atoms[new], new + first
        self._size[gone] = corr[new].abs()

    def symbols(self) -> Integers:
        """The m atoms with the largest correlations, in order of index."""
        if not self.m:
            return np.zeros(0, np.int64)
        corr = torch.cat(self._corr)
        index = corr.abs().topk(self.m).indices.sort().values
        return (2 * index + (corr[index] < 0)).numpy()

    def total(self, symbols: Integers) -> Tensor | None:
        """The sum [D] of the signed atoms, as from a new draw; None if these were not kept (of
        correlations of equal size others may have been)."""
        order = self._index.argsort()
        if not len(self.rows) or not np.array_equal(self._index[order], symbols >> 1):
            return None
        total = torch.zeros(self.rows.shape[1])
        add(total, self.rows, order.numpy(), symbols)
        return total
