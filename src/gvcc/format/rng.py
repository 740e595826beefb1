"""The normative random generator: Philox4x32-10 (Salmon et al., "Parallel random numbers: as easy
as 1, 2, 3", SC 2011), addressed by (seed, gop, step, frame, purpose).

Everything random in a stream comes from here, except the atoms of the `gaussian` codebook. All is
integer arithmetic on int64 with masks, so one function serves numpy arrays and torch tensors on any
device, with the same bits; a product of two 32-bit words wraps into the sign, which the mask after
the shift takes out again. This module never imports torch: it computes on what it is given.
"""

from __future__ import annotations

from enum import IntEnum
from functools import lru_cache
from importlib.resources import files
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

_MASK = 0xFFFFFFFF
_M0, _M1 = 0xD2511F53, 0xCD9E8D57
_W0, _W1 = 0x9E3779B9, 0xBB67AE85


class Purpose(IntEnum):
    """What a stream of words is for. The numbers are part of the format."""

    INITIAL = 0  # x_1, the noise a trajectory starts from
    SIGNS = 1  # sign diagonals of the Hadamard sections
    FILL = 2  # the noise of a frame-step that has no atoms
    CHECK = 3  # projections of the drift check
    PERMUTATION = 4  # which values of a step share a chunk of reverse channel coding
    CHUNKS = 5  # signs of those values
    CODEBOOK = 6  # rows of its codebook
    TEXTURE = 7  # white noise of a restored picture
    ATOMS = 8  # atoms of the `gaussian-counter` codebook


class Key(NamedTuple):
    """A 64-bit Philox key as two 32-bit words; a value of its own for each use of the generator."""

    lo: int
    hi: int


def philox(c0: Any, c1: Any, c2: Any, c3: Any, key: Key) -> tuple[Any, Any, Any, Any]:
    """Ten rounds on counters (c0..c3): int64 arrays or tensors of equal shape, values < 2^32.

    Returns four int64 arrays of that shape, values < 2^32. Equals Random123's philox4x32-10, and
    Triton's `randint4x(seed, i)` for counter (i, 0, 0, 0) and key (seed low, seed high).
    """
    k0, k1 = key
    for _ in range(10):
        p0, p1 = c0 * _M0, c2 * _M1
        h0, h1 = (p0 >> 32) & _MASK, (p1 >> 32) & _MASK
        c0, c1, c2, c3 = h1 ^ c1 ^ k0, p1 & _MASK, h0 ^ c3 ^ k1, p0 & _MASK
        k0, k1 = (k0 + _W0) & _MASK, (k1 + _W1) & _MASK
    return c0, c1, c2, c3


def derive(seed: int, gop: int, step: int, frame: int, purpose: Purpose) -> Key:
    """The key of one stream: the first two words of Philox at counter (gop, step, frame, purpose).

    `seed` is a 64-bit integer, the other arguments are below 2^32. Different arguments give
    unrelated streams, unlike the linear seeds of the published code.
    """
    c0, c1, c2, c3 = np.array([[gop], [step], [frame], [int(purpose)]], dtype=np.int64)
    w0, w1, _, _ = philox(c0, c1, c2, c3, Key(seed & _MASK, (seed >> 32) & _MASK))
    return Key(int(w0[0]), int(w1[0]))


def words(key: Key, start: int, count: int, like: Any = None) -> Any:
    """Words start .. start+count-1 of the stream `key`: int64 [count], each below 2^32.

    Word 4 i + j is output j of counter (i low, i high, 0, 0): the counter is 64 bits wide. The
    result is a numpy array, or a tensor on the device of the int64 tensor `like`.
    """
    first, last = start // 4, (start + count + 3) // 4
    if like is None:
        i: Any = np.arange(first, last, dtype=np.int64)
        out: Any = np.empty((last - first, 4), dtype=np.int64)
        zero: Any = np.zeros_like(i)
    else:
        i = like.new_ones(last - first).cumsum(0) + (first - 1)
        out = like.new_empty((last - first, 4))
        zero = i * 0
    for j, word in enumerate(philox(i & _MASK, (i >> 32) & _MASK, zero, zero, key)):
        out[:, j] = word
    return out.reshape(-1)[start - 4 * first : start - 4 * first + count]


def signs(key: Key, start: int, count: int, like: Any = None) -> Any:
    """Signs start .. start+count-1 of the stream, [count] of +1 and -1: a numpy array of int8, or
    an int64 tensor on the device of the int64 tensor `like`.

    Sign 32 i + b is bit b (from the least significant) of word i; a set bit is -1.
    """
    first, last = start // 32, (start + count + 31) // 32
    found = words(key, first, last - first, like)
    if like is None:
        packed = found.astype("<u4").view(np.uint8)
        bits: Any = np.unpackbits(packed, bitorder="little").view(np.int8)
    else:
        bits = (found[:, None] >> like.new_ones(32).cumsum(0) - 1 & 1).reshape(-1)
    return 1 - 2 * bits[start - 32 * first :][:count]


@lru_cache(maxsize=1)
def normal_table() -> NDArray[np.float32]:
    """float32 [65536]: the standard normal quantile at (i + 1/2) / 65536, scaled to unit variance.

    Shipped as a file, because log and erfinv are not the same bits on every machine.
    """
    with (files("gvcc.format") / "normal16.npy").open("rb") as f:
        half: NDArray[np.float32] = np.load(f)
    return np.concatenate([-half[::-1], half])


def normals(key: Key, count: int) -> NDArray[np.float32]:
    """`count` standard normals, float32: number 2 i is the low half of word i, 2 i + 1 the high."""
    w = words(key, 0, (count + 1) // 2).astype("<u4").view("<u2")
    out: NDArray[np.float32] = normal_table()[w[:count]]
    return out


def normal_rows(key: Key, rows: NDArray[np.int64], width: int) -> NDArray[np.float32]:
    """Rows of a matrix of standard normals of any height, float32 [len(rows), width].

    Row j has the `normals` of the stream from number 8 j ceil(width / 8) on, so that each row
    starts at a counter of its own and is made without those before it.
    """
    blocks = -(-width // 8)
    i = (rows[:, None] * blocks + np.arange(blocks)).ravel()
    out = np.empty((len(i), 4), dtype="<u4")
    zero = np.zeros_like(i)
    for j, word in enumerate(philox(i & _MASK, i >> 32, zero, zero, key)):
        out[:, j] = word
    table: NDArray[np.float32] = normal_table()[out.view("<u2")]
    return table.reshape(len(rows), 8 * blocks)[:, :width]


def blocks64(key: Key, first: int, count: int, like: Any = None) -> Any:
    """Outputs of Philox4x64-10 at counters (i, 0, 0, 0), i from `first` on, and key (`key`, 0):
    uint64 [count, 4]. With the int64 tensor `like` an int64 tensor on its device, of the same bits.
    """
    seed = key.lo | key.hi << 32
    if like is None:  # numpy has it in C, and counts up before it draws
        source = np.random.Philox(key=seed, counter=(first - 1) % 2**256)
        return source.random_raw(4 * count).reshape(count, 4)
    c0 = like.new_ones(count).cumsum(0) + (first - 1)
    c1, c2, c3 = c0 * 0, c0 * 0, c0 * 0
    k0, k1 = seed, 0
    for _ in range(10):
        h0, l0 = _product(c0, _M64[0])
        h1, l1 = _product(c2, _M64[1])
        c0, c1, c2, c3 = h1 ^ c1 ^ _signed(k0), l1, h0 ^ c3 ^ _signed(k1), l0
        k0, k1 = ((k + w) % 2**64 for k, w in zip((k0, k1), _W64, strict=True))
    out = like.new_empty((count, 4))
    for j, word in enumerate((c0, c1, c2, c3)):
        out[:, j] = word
    return out


_M64 = 0xD2E7470EE14C6C93, 0xCA5A826395121157
_W64 = 0x9E3779B97F4A7C15, 0xBB67AE8584CAA73B


def _signed(word: int) -> int:
    """A 64-bit word as the int64 of the same bits."""
    return word - 2**64 if word >> 63 else word


def _product(a: Any, b: int) -> tuple[Any, Any]:
    """High and low 64 bits of a product of unsigned words, in int64: by halves, none of whose
    products is above 64 bits; shifts are masked, since they carry the sign."""
    high, low, y1, y0 = a >> 32 & _MASK, a & _MASK, b >> 32, b & _MASK
    mid = high * y0 + (low * y0 >> 32 & _MASK)
    other = low * y1 + (mid & _MASK)
    return high * y1 + (mid >> 32 & _MASK) + (other >> 32 & _MASK), a * _signed(b)


def permutation(key: Key, count: int) -> NDArray[np.int64]:
    """The numbers below `count` in the order of the stream's words, equal ones in their own."""
    return np.argsort(words(key, 0, count), kind="stable")


def self_test(like: Any = None) -> None:
    """Raise AssertionError unless this machine (or the device of `like`) makes the right words."""
    got = [int(w) for w in words(Key(0xA4093822, 0x299F31D0), 2**33 + 2, 6, like)]
    if got != _GOLDEN:
        raise AssertionError(f"Philox gives {got} on this device, expected {_GOLDEN}")


_GOLDEN = [4043362323, 3224069783, 2224780086, 3272053639, 1224427202, 200559843]
