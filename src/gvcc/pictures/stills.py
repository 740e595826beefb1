"""A reference picture as an intra-coded image of a few hundred bytes.

The first byte of a still is its codec's file number, a position in `CODECS`. What a decoder can
derive from the picture's size is not in the still: containers, start codes and parameter sets,
which are more than a tenth of a small picture. The coded picture is `height` x `width` extended on
the right and below, by repetition, to multiples of 8; it is 4:2:0, full range, in BT.601 weights.

    0 AV1 (8 bit)    u8 head, frame. head < 64: use_128x128_superblock, enable_filter_intra,
                     enable_intra_edge_filter, enable_superres, enable_cdef, enable_restoration,
                     first flag in the highest of six bits; the sequence header is built from them.
                     Otherwise the next head - 64 bytes are the sequence header. The frame is the
                     content of the one OBU_FRAME.
    1 VVC (10 bit)   for each APS: leb128 length, content; then a zero byte; then the content of
                     the one IDR_W_RADL slice. Contents are NAL units without their two bytes of
                     header. SPS and PPS are known constants with width and height put in.
    2 VVC, sets      leb128 length and content of the SPS, the same of the PPS, then as VVC: of an
                     encoder that writes other sets than are known here.

YUV to RGB is part of the format, all in integers, so that a still is the same picture on every
machine. With x = depth - 8, Y in [0, 256 * 2^x) and chroma centred at c0 = 128 * 2^x:

    chroma to full size, sited between its four luma samples, edges repeated; on rows, then columns:
        u[2i] = c[i-1] + 3 c[i]      u[2i+1] = 3 c[i] + c[i+1]
    so that Cb' = u - 16 c0 is 16 times the chroma, and with >> rounding towards minus infinity
        R = clip((262144 Y               + 22970 Cr' + 2^(17+x)) >> (18+x))
        G = clip((262144 Y -  5638 Cb' - 11700 Cr' + 2^(17+x)) >> (18+x))
        B = clip((262144 Y + 29032 Cb'             + 2^(17+x)) >> (18+x))
    clip to [0, 255]; every intermediate fits 32 bits.
"""

from __future__ import annotations

import functools
import math
from collections.abc import Callable
from contextlib import suppress
from typing import Any

import numpy as np
from numpy.typing import NDArray

from gvcc.errors import ConfigError, Corrupt, Unsupported, unknown
from gvcc.pictures.stillcodecs import CODECS, NUMBERS, Unpackable, decode_stream, ffmpeg

SMALLEST, LARGEST = 16, 16384  # height and width
NEAR = 0.985  # of the budget: the search ends there


def encode(picture: NDArray[np.uint8], size: int, codec: str | None = None) -> bytes:
    """RGB [H, W, 3] -> its best still of at most `size` bytes; the smallest one if none fits.

    `codec` None is VVC where imageio-ffmpeg brings an encoder, otherwise AV1. Raises ConfigError.
    """
    height, width = picture.shape[:2]
    if picture.shape != (height, width, 3) or picture.dtype != np.uint8:
        raise ConfigError(f"a still is uint8 [H, W, 3], not {picture.dtype} {picture.shape}")
    if not (SMALLEST <= height <= LARGEST and SMALLEST <= width <= LARGEST):
        raise ConfigError(
            f"a still has {SMALLEST} to {LARGEST} rows and columns, not {height} x {width}"
        )
    if codec is not None and codec not in NUMBERS:
        raise unknown("still codec", codec, NUMBERS)
    if codec is None and ffmpeg() is not None:
        for name in ("vvc", "vvc-sets"):
            with suppress(Unpackable):  # libvvenc refuses some small pictures
                return _encode(picture, size, NUMBERS[name])
    try:
        return _encode(picture, size, NUMBERS[codec or "av1"])
    except Unpackable as err:
        raise ConfigError(f"no still of {height} x {width} by {codec or 'av1'}: {err}") from err


def decode(data: bytes, height: int, width: int) -> NDArray[np.uint8]:
    """A still -> RGB [height, width, 3]. Raises Corrupt or Unsupported."""
    if not (SMALLEST <= height <= LARGEST and SMALLEST <= width <= LARGEST):
        raise Unsupported(f"a still of {height} x {width}")
    if not data:
        raise Corrupt("an empty still")
    if data[0] >= len(CODECS):
        raise Unsupported(f"still codec {data[0]}")
    codec = CODECS[data[0]]
    stream = codec.unpack(data[1:], _padded(height), _padded(width))
    planes = decode_stream(codec.decoder, codec.depth, stream, _padded(height), _padded(width))
    return to_rgb(planes, codec.depth)[:height, :width]


def to_rgb(planes: NDArray[Any], depth: int) -> NDArray[np.uint8]:
    """Planar [3 H / 2, W] of `depth` bits -> RGB [H, W, 3], by the module's formula."""
    more = depth - 8
    luma, cb, cr = (p.astype(np.int32) for p in _split(planes))
    cb, cr = (_upsampled(_upsampled(c).T).T - (16 * 128 << more) for c in (cb, cr))
    luma = (luma << 18) + (1 << 17 + more)
    rgb = np.stack([luma + 22970 * cr, luma - 5638 * cb - 11700 * cr, luma + 29032 * cb], -1)
    return np.asarray(np.clip(rgb >> 18 + more, 0, 255), np.uint8)


def from_rgb(picture: NDArray[np.uint8], depth: int) -> NDArray[Any]:
    """RGB [H, W, 3] -> planar [3 H / 2, W] of `depth` bits, H and W padded to multiples of 8.

    Chroma is the box average corrected twice by what `to_rgb`'s interpolation gets wrong, two steps
    towards the least squares solution. Nothing depends on how the encoder does this.
    """
    height, width = picture.shape[:2]
    padding = ((0, _padded(height) - height), (0, _padded(width) - width), (0, 0))
    rgb = np.pad(picture, padding, mode="edge").astype(np.float64)
    luma = rgb @ [0.299, 0.587, 0.114]
    planes = [luma]
    for channel, scale in ((2, 1.772), (0, 1.402)):
        full = (rgb[..., channel] - luma) / scale + 128
        half = _boxed(full)
        for _ in range(2):
            half = half + _boxed(full - _upsampled(_upsampled(half).T).T / 16)
        planes.append(half)
    scaled = np.concatenate([p.ravel() for p in planes]) * (1 << depth - 8)
    whole = np.clip(np.rint(scaled), 0, (1 << depth) - 1)
    return np.asarray(whole, np.uint8 if depth == 8 else "<u2").reshape(-1, rgb.shape[1])


def _padded(n: int) -> int:
    return -n % 8 + n


def _split(planes: NDArray[Any]) -> list[NDArray[Any]]:
    """Y [H, W], Cb and Cr [H / 2, W / 2] of a planar picture."""
    width = planes.shape[1]
    height = planes.shape[0] * 2 // 3
    chroma = planes[height:].reshape(2, height // 2, width // 2)
    return [planes[:height], chroma[0], chroma[1]]


def _upsampled(c: NDArray[Any]) -> NDArray[Any]:
    """[N, ...] -> [2 N, ...], four times as large in value."""
    before, after = np.concatenate([c[:1], c[:-1]]), np.concatenate([c[1:], c[-1:]])
    return np.stack([before + 3 * c, 3 * c + after], 1).reshape(-1, *c.shape[1:])


def _boxed(c: NDArray[Any]) -> NDArray[Any]:
    return np.asarray(c.reshape(c.shape[0] // 2, 2, c.shape[1] // 2, 2).mean((1, 3)))


# ---- search ----


def _encode(picture: NDArray[np.uint8], size: int, number: int) -> bytes:
    codec = CODECS[number]
    planes = from_rgb(picture, codec.depth)
    height, width = planes.shape[0] * 2 // 3, planes.shape[1]
    raw = planes.tobytes()

    def still(preset: str, quantiser: int) -> bytes:
        stream = _stream(number, raw, width, preset, quantiser)
        return bytes([number]) + codec.pack(stream, height, width)

    search = functools.partial(_finest_within, size, codec.coarsest, codec.halving)
    guess = search(codec.coarsest * 2 // 3, lambda q: len(still(codec.scout, q)))
    best = search(guess, lambda q: len(still(codec.preset, q)))
    data = still(codec.preset, best)
    try:
        back = decode_stream(
            codec.decoder, codec.depth, codec.unpack(data[1:], height, width), height, width
        )
    except Corrupt as err:
        raise Unpackable(f"its still does not decode: {err}") from err
    expected = codec.read(_stream(number, raw, width, codec.preset, best), height, width)
    if not np.array_equal(back, expected):
        raise Unpackable("its still decodes to another picture than its stream")
    return data


@functools.lru_cache(maxsize=32)  # a rate search asks for the same picture at many sizes
def _stream(number: int, raw: bytes, width: int, preset: str, quantiser: int) -> bytes:
    codec = CODECS[number]
    planes = np.frombuffer(raw, np.uint8 if codec.depth == 8 else "<u2").reshape(-1, width)
    return codec.write(planes, preset, quantiser)


def _finest_within(
    size: int, coarsest: int, halving: int, guess: int, length: Callable[[int], int]
) -> int:
    """The smallest quantiser whose length is at most `size`, or one near it; else `coarsest`.

    Secant steps on the logarithm of the length, which falls almost linearly with the quantiser.
    """
    lengths: dict[int, int] = {}
    too_fine, fits = -1, coarsest
    size = max(size, 1)
    at = guess
    while fits - too_fine > 1 and not NEAR * size <= lengths.get(fits, 0):
        at = min(max(at, too_fine + 1), fits - 1)
        lengths[at] = length(at)
        if lengths[at] <= size:
            fits = at
        else:
            too_fine = at
        if too_fine in lengths and fits in lengths:
            over, under = (math.log(lengths[q] / size) for q in (too_fine, fits))
            at = too_fine + round((fits - too_fine) * over / (over - under))
        else:
            step = round(halving * math.log2(lengths[at] / size))
            at += min(step, -1) if at == fits else max(step, 1)
    return fits
