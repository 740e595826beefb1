"""Integers to bytes and back through the range coder of the `constriction` library.

One interface, `Sink`, for counting and for writing, so that a cost is never a formula of its own.
All models are whole numbers, uniform or a table of frequencies: no float decides a bit of the
stream.
"""

from __future__ import annotations

import math
from typing import Any, Protocol

import constriction
import numpy as np
from numpy.typing import NDArray

from gvcc.errors import Corrupt

Ints = NDArray[np.int64]
_DIGIT = 16  # bits; constriction's Uniform takes sizes up to 2^24
MOST_ATOMS = 2**20  # in one frame-step
_ESCAPE = 24  # a Rice quotient this long is followed by the plain value
PRECISION = 24  # bits; the frequencies of a table add up to 2^24


_TABLE = constriction.stream.model.Categorical(perfect=False)


def _leaky(frequencies: Ints) -> NDArray[np.float32]:
    """Integer frequencies [m,n] as the weights that make constriction use exactly them.

    With perfect=False symbol i of n gets the part of [0, 2^24) that starts at
    floor(scale (w_0 + ... + w_{i-1})) + i, scale = (2^24 - n) / (w_0 + ... + w_{n-1}). Weights one
    below the frequencies add up to 2^24 - n, so scale is 1, and every sum is a whole number below
    2^24, which float32 holds: nothing is rounded on any machine.
    """
    return (frequencies - 1).astype(np.float32)


def frequencies(counts: Ints) -> Ints:
    """Tables of counts [m,n] as frequencies for `SymbolWriter.table`: in proportion, none 0."""
    spare = (1 << PRECISION) - counts.shape[1]
    out: Ints = 1 + counts * spare // counts.sum(1, keepdims=True)
    out[:, 0] += (1 << PRECISION) - out.sum(1)
    return out


class Sink(Protocol):
    """Where symbols go: a `SymbolWriter` or a `Counter`."""

    total: int

    def uniform(self, values: Ints, size: int) -> None:
        """Whole numbers 0 <= v < size, size a power of two, at log2(size) bits each."""
        ...

    def bits(self, value: int, count: int) -> None:
        """A number 0 <= value < 2^count of any length, at `count` bits."""
        ...

    def rice(self, value: int, k: int) -> None:
        """A number 0 <= value < 2^32 by a Rice code: quotient by 2^k in unary, k plain bits."""
        ...


class Counter:
    """Counts the bits that a SymbolWriter would use: `total`. All is made of uniform digits."""

    def __init__(self) -> None:
        self.total = 0

    def uniform(self, values: Ints, size: int) -> None:
        self.total += len(values) * (size.bit_length() - 1)

    def bits(self, value: int, count: int) -> None:
        digits = [(value >> i) & 0xFFFF for i in range(0, count - _DIGIT + 1, _DIGIT)]
        if digits:
            self.uniform(np.array(digits, dtype=np.int64), 1 << _DIGIT)
        if left := count % _DIGIT:
            self.uniform(np.array([value >> (count - left)], dtype=np.int64), 1 << left)

    def rice(self, value: int, k: int) -> None:
        q = value >> k
        unary = np.ones(min(q, _ESCAPE) + (q < _ESCAPE), dtype=np.int64)
        if q < _ESCAPE:
            unary[-1] = 0
        self.uniform(unary, 2)
        self.bits(value & ((1 << k) - 1) if q < _ESCAPE else value, k if q < _ESCAPE else 32)


class SymbolWriter(Counter):
    """Range coder output; counts as it goes. `finish` gives the bytes: 32-bit little-endian words,
    at most 32 bits more than `total`; none if nothing was written."""

    def __init__(self) -> None:
        super().__init__()
        self._coder: Any = constriction.stream.queue.RangeEncoder()

    def uniform(self, values: Ints, size: int) -> None:
        if size > 1 << 24:
            self.uniform(values >> _DIGIT, size >> _DIGIT)
            values, size = values & 0xFFFF, 1 << _DIGIT
        super().uniform(values, size)
        if len(values) and size > 1:
            self._coder.encode(values.astype(np.int32), constriction.stream.model.Uniform(size))

    def table(self, values: Ints, frequencies: Ints) -> None:
        """Symbols [m] below n, each by its own row of integer frequencies [m,n]: none of them 0,
        2^24 in sum. `total` grows by an upper bound."""
        if len(values) == 0:
            return
        own = frequencies[np.arange(len(values)), values]
        # Up to 1/128 bit a symbol is lost where the coder's range is at its smallest.
        self.total += math.ceil((PRECISION - np.log2(own) + 1 / 128).sum())
        self._coder.encode(values.astype(np.int32), _TABLE, _leaky(frequencies))

    def finish(self) -> bytes:
        if self.total == 0:
            return b""
        words: NDArray[np.uint32] = self._coder.get_compressed()
        # Rarely the coder seals with a word that says nothing; a reader takes missing words as 0.
        words = words[: self.total // 32 + 1]
        return words.astype("<u4").tobytes()


class SymbolReader:
    """Reads what `SymbolWriter` wrote; Corrupt if the symbols asked for outrun the bytes."""

    def __init__(self, data: bytes) -> None:
        if len(data) % 4:
            raise Corrupt("symbols are not whole 32-bit words")
        words = np.frombuffer(data, dtype="<u4").astype(np.uint32)
        self._coder: Any = constriction.stream.queue.RangeDecoder(words)
        self._left = 8 * len(data)

    def need(self, bits: int) -> None:
        """Corrupt unless the record still holds so many bits."""
        if bits > self._left:
            raise Corrupt("more symbols are announced than the record holds")

    def uniform(self, count: int, size: int) -> Ints:
        """`count` numbers below `size`, a power of two."""
        self.need(count * (size.bit_length() - 1))
        self._left -= count * (size.bit_length() - 1)
        if size > 1 << 24:
            high = self._uniform(count, size >> _DIGIT)
            return (high << _DIGIT) + self._uniform(count, 1 << _DIGIT)
        return self._uniform(count, size)

    def _uniform(self, count: int, size: int) -> Ints:
        if count == 0 or size == 1:
            return np.zeros(count, dtype=np.int64)
        try:
            got = self._coder.decode(constriction.stream.model.Uniform(size), count)
        except (AssertionError, ValueError) as e:
            raise Corrupt(f"range coder: {e}") from e
        return np.asarray(got).astype(np.int64)

    def table(self, frequencies: Ints) -> Ints:
        """One symbol for each row of frequencies [m,n], as `SymbolWriter.table` takes them."""
        if len(frequencies) == 0:
            return np.zeros(0, dtype=np.int64)
        try:
            got = self._coder.decode(_TABLE, _leaky(frequencies))
        except (AssertionError, ValueError) as e:
            raise Corrupt(f"range coder: {e}") from e
        values = np.asarray(got).astype(np.int64)
        own = frequencies[np.arange(len(values)), values]
        # Whole bits below the information of each symbol, so that every reader agrees.
        least = int((PRECISION - np.frexp(own.astype(np.float64))[1]).sum())
        self.need(least)
        self._left -= least
        return values

    def bits(self, count: int) -> int:
        """A number of `count` bits."""
        digits = self.uniform(count // _DIGIT, 1 << _DIGIT)
        value = sum(int(d) << (_DIGIT * i) for i, d in enumerate(digits))
        left = count % _DIGIT
        if left:
            value |= int(self.uniform(1, 1 << left)[0]) << (count - left)
        return value

    def rice(self, k: int) -> int:
        """A number that `Sink.rice` wrote with the same k."""
        q = 0
        while q < _ESCAPE and self.bits(1):
            q += 1
        return self.bits(32) if q == _ESCAPE else (q << k) + self.bits(k)


def subset_bits(size: int, m: int) -> int:
    """ceil(log2 C(size, m)): bits of the rank of an m-subset."""
    return (math.comb(size, m) - 1).bit_length()


def subset_rank(index: Ints) -> int:
    """Rank of a strictly increasing index set in the combinatorial number system."""
    return sum(math.comb(int(v), i) for i, v in enumerate(index, start=1))


def subset_unrank(rank: int, size: int, m: int) -> Ints:
    """The strictly increasing m indices below `size` with the given rank < C(size, m).

    Walks v down from `size`, keeping C(v, i) up to date by one multiplication and one division.
    """
    out = np.empty(m, dtype=np.int64)
    v, c = size, math.comb(size, m)
    for i in range(m, 0, -1):
        while c > rank:
            c = c * (v - i) // v
            v -= 1
        out[i - 1] = v
        rank -= c
        c = c * i // (v - i + 1) if c else math.comb(v, i - 1)
    return out


class Counts:
    """The atom counts of a GOP, step by step: each is predicted from the step before and from the
    frames already known of this step, and the difference is Rice coded. Integers only; the writing
    and the reading side hold one each."""

    def __init__(self) -> None:
        self._before: list[int] = []
        self._sums = [0, 0]  # of the last two steps

    def _predict(self, known: list[int]) -> tuple[int, int]:
        """The prediction for the next frame and the Rice parameter that fits it.

        Counts grow smoothly from step to step and hardly differ between frames: the first frame of
        a step continues the growth of the steps' sums, the others that of the frames before them.
        """
        f = len(known)
        if not self._before:
            return (known[-1], 0) if known else (0, 3)
        now, then = (sum(known), sum(self._before[:f])) if f else (self._sums[1], self._sums[0])
        guess = (self._before[f] * (2 * now + 1) + then) // (2 * then + 1)
        guess = min(guess, MOST_ATOMS)
        return guess, max(0, guess.bit_length() - (5 if f else 4))

    def write(self, counts: list[int], sink: Sink) -> None:
        """One step's counts, one for each latent frame."""
        for f, m in enumerate(counts):
            guess, k = self._predict(counts[:f])
            e = m - guess
            sink.rice(2 * e if e >= 0 else -2 * e - 1, k)
        self._advance(counts)

    def _advance(self, counts: list[int]) -> None:
        total = sum(counts)
        self._sums = [self._sums[1] if self._before else total, total]
        self._before = list(counts)

    def cost(self, counts: list[int], silent: int) -> int:
        """Bits that `write` would take for this step and for `silent` steps without atoms after."""
        counter, before, sums = Counter(), self._before, self._sums
        self.write(counts, counter)
        for _ in range(silent):
            self.write([0] * len(counts), counter)
        self._before, self._sums = before, sums
        return counter.total

    def read(self, frames: int, reader: SymbolReader) -> list[int]:
        """One step's counts; Corrupt if one of them is below 0 or beyond MOST_ATOMS."""
        counts: list[int] = []
        for _ in range(frames):
            guess, k = self._predict(counts)
            z = reader.rice(k)
            m = guess + (z // 2 if z % 2 == 0 else -(z // 2) - 1)
            if not 0 <= m <= MOST_ATOMS:
                raise Corrupt(f"{m} atoms in one frame-step")
            counts.append(m)
        self._advance(counts)
        return counts
