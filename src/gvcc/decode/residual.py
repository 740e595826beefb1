"""The coded residual of a GOP's last latent frames: R = x0 - x_final, added before decoding.

In a chain of GOPs the last decoded picture is the reference of the next GOP, so it is worth bits of
its own. Latents of the priors are isometric (white noise in the latent is white noise in the
picture), hence one step size for all coefficients. There is no transform: the channels of a latent
are decorrelated already, and what steering leaves over is nearly white in space but uneven in
strength, which contexts on the latent grid follow better than a DCT does
(bench/systems/residual.py). `refine` moves the target to what decodes best; it costs no bits.

Magnitudes go through adaptive tables. The table of a coefficient is chosen by what is expected of
it, an integer mean of magnitudes already coded around it: in its own plane, which is coded in four
interleaved lattices so that all but the first see their neighbours, and in the planes before.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from gvcc.errors import Corrupt
from gvcc.format import entropy
from gvcc.format.entropy import PRECISION, Ints, SymbolReader, SymbolWriter

Floats = NDArray[np.float64]
_HEAD = 2  # bytes of the step's index
_SYMBOLS = 16  # magnitudes 0..14; the last says "15 or more" and is followed by the excess
_EXCESS = 12  # bits
_LIMITS = np.array(
    [32, 48, 64, 96, 128, 176, 256, 368, 512, 720, 1024, 1456, 2048, 2896, 4096, 5792, 8192, 11584]
    + [16384, 23168, 32768, 46336]
)  # half-octaves of the expected magnitude, in 1/4096
_FIRST = 512  # what is expected of a magnitude before anything is known
_WEIGHT = 1024  # of a table's initial counts
_COUNT = 32  # what a symbol adds to its table
_FULL = 2**14  # a table with more counts is halved
_LATTICES = ((0, 0), (1, 1), (0, 1), (1, 0))
# Cost of a bit in squared steps: about the slope of the high-rate bound, 2 ln 2 / 12 = 0.116.
_LAMBDA = 0.1
# Adam for `refine`: rate of the first step, in units of the latents (which have unit variance).
_RATE, _ROUNDS = 0.05, 10
_EARLIER = 0.3  # weight of the pictures before the last, which is the next GOP's reference

Place = tuple[int, slice, slice]


def encode(residual: Tensor, size: int) -> tuple[bytes, Tensor]:
    """Code residual [C,n,h,w] as finely as `size` bytes allow.

    Returns the data and what `decode` makes of it, float32 on the CPU; (b"", zeros) if nothing that
    fits brings it nearer to the residual.
    """
    planes = _planes(residual)
    best, coded = b"", torch.zeros(tuple(residual.shape))
    peak = float(np.abs(planes).max(initial=0.0))
    if peak == 0:
        return best, coded
    # The bisection keeps `coarse` fitting. Below `fine`, the largest magnitude has no code.
    coarse, fine = 2**16, -1
    while fine + 1 < coarse:
        index = (coarse + fine) // 2
        step = _step(index)
        if peak / step > _SYMBOLS - 2 + 2**_EXCESS:
            fine = index
            continue
        data, values = _write(planes, index)
        if len(data) > size:
            fine = index
            continue
        coarse = index
        best, coded = (
            (data, _tensor(values * step, tuple(residual.shape))) if data else (b"", coded)
        )
    return best, coded


def decode(data: bytes, shape: tuple[int, int, int, int]) -> Tensor:
    """The residual [C,n,h,w] in `data`, float32 on the CPU; Corrupt if that is no such residual.

    Memory and time are bounded by `shape`, whatever the data.
    """
    if not data:
        return torch.zeros(shape)
    if len(data) < _HEAD:
        raise Corrupt("a residual ends within its head")
    c, n, h, w = shape
    reader, table = SymbolReader(data[_HEAD:]), _Tables()
    known = np.zeros((n * c, h + 2, w + 2), dtype=np.int64)
    for at, level in _scan(known):
        symbols = reader.table(table.frequencies()[level])
        table.update(level, symbols)
        known[at] = symbols.reshape(known[at].shape)
    values = known[:, 1:-1, 1:-1].copy()
    large = values == _SYMBOLS - 1
    values[large] += reader.uniform(int(large.sum()), 1 << _EXCESS)
    some = values != 0
    values[some] *= 1 - 2 * reader.uniform(int(some.sum()), 2)
    return _tensor(values * _step(int.from_bytes(data[:_HEAD], "little")), shape)


def refine(
    decode: Callable[[Tensor], Tensor], latent: Tensor, tail: Tensor, pixels: Tensor
) -> Tensor:
    """A better target for the residual than the encoder's own latent: one that decodes better.

    `latent` [C,F,h,w] is what the decoder has, `tail` [C,n,h,w] the target to start from in place
    of its last n frames, `pixels` uint8 [T,H,W,3] the last pictures, which those n frames stand
    for. `decode` maps a latent to pictures [-1,1], differentiably. A few frames of `latent` before
    the tail are enough. Returns the new tail, [C,n,h,w]; its squared error of the pictures, the
    last one weighed most, is smaller.
    """
    with torch.inference_mode(False), torch.enable_grad():
        before = latent[:, : latent.shape[1] - tail.shape[1]].clone()
        weight = torch.full((len(pixels), 1, 1, 1), _EARLIER, device=latent.device)
        weight[-1] = 1
        wanted = pixels.to(latent.device).float() / 127.5 - 1
        out = tail.clone().requires_grad_(True)
        adam = torch.optim.Adam([out], lr=_RATE)
        for i in range(_ROUNDS):
            adam.param_groups[0]["lr"] = _RATE * (1 - i / _ROUNDS)
            pictures = decode(torch.cat([before, out], 1))[-len(pixels) :]
            error = (weight * (pictures - wanted) ** 2).mean()
            (out.grad,) = torch.autograd.grad(error, out)
            adam.step()
        return out.detach()


def _planes(residual: Tensor) -> Floats:
    """[C,n,h,w] -> [n*C,h,w], the order of coding."""
    c, n, h, w = residual.shape
    flat = residual.detach().permute(1, 0, 2, 3).reshape(n * c, h, w)
    return flat.cpu().double().numpy()


def _tensor(values: NDArray[np.floating], shape: tuple[int, ...]) -> Tensor:
    """[n*C,h,w] -> float32 [C,n,h,w]."""
    c, n, h, w = shape
    flat = torch.from_numpy(values.astype(np.float32))
    return flat.reshape(n, c, h, w).permute(1, 0, 2, 3).contiguous()


def _step(index: int) -> float:
    """The quantiser's step for its index in the data: 2^-8 to 2^8, 4096 to the octave."""
    return float(2.0 ** (index / 4096 - 8))


def _write(planes: Floats, index: int) -> tuple[bytes, Ints]:
    """The data of one step size, and the quantised values; no data if all of them are 0.

    Each magnitude is the one of floor(x + 1/2), one less, and 0 that costs least: squared error
    plus `_LAMBDA` for each bit that the tables of the moment charge.
    """
    scaled = np.abs(planes) / _step(index)
    writer, table = SymbolWriter(), _Tables()
    values = np.zeros(planes.shape, dtype=np.int64)
    known = np.pad(values, ((0, 0), (1, 1), (1, 1)))
    inner = known[:, 1:-1, 1:-1]
    for at, level in _scan(known):
        frequencies = table.frequencies()
        bits = PRECISION - np.log2(frequencies)
        bits[:, 1:] += 1  # the sign
        bits[:, -1] += _EXCESS
        p, rows, columns = at
        place = p, _inside(rows), _inside(columns)
        x = scaled[place].ravel()
        near = np.floor(x + 0.5).astype(np.int64)
        tries = np.stack([near, np.maximum(near - 1, 0), np.zeros_like(near)])
        price = bits[level, np.minimum(tries, _SYMBOLS - 1)]
        choice = np.argmin((x - tries) ** 2 + _LAMBDA * price, 0)
        values[place] = tries[choice, np.arange(len(x))].reshape(values[place].shape)
        inner[place] = np.minimum(values[place], _SYMBOLS - 1)
        symbols = inner[place].ravel()
        writer.table(symbols, frequencies[level])
        table.update(level, symbols)
    some = values != 0
    if not some.any():
        return b"", values
    writer.uniform(values[values >= _SYMBOLS - 1] - (_SYMBOLS - 1), 1 << _EXCESS)
    negative = planes < 0
    writer.uniform(negative[some].astype(np.int64), 2)
    values[negative] *= -1
    return index.to_bytes(_HEAD, "little") + writer.finish(), values


def _inside(s: slice) -> slice:
    """A slice of a bordered plane -> the slice of the plane without its border."""
    return slice(s.start - 1, s.stop - 1, s.step)


def _scan(known: Ints) -> Iterator[tuple[Place, Ints]]:
    """The places of all coefficients in order of coding, and the number of each one's table.

    `known` [planes,h+2,w+2] holds magnitudes, at most 15, within a border of zeros. Whoever
    iterates fills in each place before going on.
    """
    h, w = known.shape[1] - 2, known.shape[2] - 2
    recent = np.full((h, w), _FIRST)  # of the planes before, in 1/4096
    mean = _FIRST  # of the plane so far, or of the plane before
    for p in range(len(known)):
        plane, before = known[p], known[max(p - 1, 0)]
        count = total = 0
        for k, (u, v) in enumerate(_LATTICES):
            rows, columns = slice(1 + u, h + 1, 2), slice(1 + v, w + 1, 2)
            here = recent[u::2, v::2]
            if here.size == 0:
                continue
            if k == 0:
                expected = (3 * (_beside(before, u, v) << 10) + 7 * here + 5 * mean) >> 4
            else:
                if k == 1:
                    around = _across(plane, u, v) << 10
                elif k == 2:
                    around = _beside(plane, u, v) << 10
                else:
                    around = (3 * _beside(plane, u, v) + _across(plane, u, v)) << 8
                expected = (4 * around + here + 3 * mean) >> 3
            yield (p, rows, columns), np.searchsorted(_LIMITS, expected.ravel(), side="right")
            count += here.size
            total += int(plane[rows, columns].sum())
            mean = (total << 12) // count
        recent += (plane[1:-1, 1:-1] << 9) - (recent >> 3)


def _shifted(plane: Ints, u: int, v: int, dy: int, dx: int) -> Ints:
    """The neighbours at (dy, dx) of the lattice that starts at (u, v), of a bordered plane."""
    h, w = plane.shape[0] - 2, plane.shape[1] - 2
    return plane[1 + u + dy : h + 1 + dy : 2, 1 + v + dx : w + 1 + dx : 2]


def _beside(plane: Ints, u: int, v: int) -> Ints:
    """Sum of the four neighbours that share an edge."""
    out: Ints = _shifted(plane, u, v, 0, -1) + _shifted(plane, u, v, 0, 1)
    return out + _shifted(plane, u, v, -1, 0) + _shifted(plane, u, v, 1, 0)


def _across(plane: Ints, u: int, v: int) -> Ints:
    """Sum of the four neighbours that share a corner."""
    out: Ints = _shifted(plane, u, v, -1, -1) + _shifted(plane, u, v, -1, 1)
    return out + _shifted(plane, u, v, 1, -1) + _shifted(plane, u, v, 1, 1)


class _Tables:
    """Adaptive counts of the symbols, one table for each range of expected magnitude. They begin
    geometric with the mean of their range. Integers only."""

    def __init__(self) -> None:
        edges = [0, *_LIMITS.tolist(), 3 * int(_LIMITS[-1])]
        self._counts = np.ones((len(edges) - 1, _SYMBOLS), dtype=np.int64)
        for row, low, high in zip(self._counts, edges, edges[1:], strict=False):
            rest, mean = _WEIGHT, (low + high) // 2
            for symbol in range(_SYMBOLS - 1):
                share = rest * 4096 // (4096 + mean)
                row[symbol] += share
                rest -= share
            row[-1] += rest

    def frequencies(self) -> Ints:
        """The tables as frequencies that add up to 2^24, none of them 0."""
        return entropy.frequencies(self._counts)

    def update(self, level: Ints, symbols: Ints) -> None:
        """Learn the symbols that were coded with the tables `level`."""
        seen = np.bincount(level * _SYMBOLS + symbols, minlength=self._counts.size)
        self._counts += _COUNT * seen.reshape(self._counts.shape)
        full = self._counts.sum(1) > _FULL
        self._counts[full] = (self._counts[full] + 1) >> 1
