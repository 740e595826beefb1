"""Decoded sound as a track again, without loss: FLAC, or PCM where that is not enough."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import replace
from fractions import Fraction
from functools import partial
from typing import Any, NamedTuple

import av
import numpy as np
from numpy.typing import NDArray

from gvcc.errors import MediaError
from gvcc.records import Audio, Packet

# PyAV's names for channels without positions, as PCM in Matroska has them -> the usual layout.
_USUAL = ("mono", "stereo", "2.1", "4.0", "5.0", "5.1", "6.1", "7.1")
_LAYOUTS = {f"{n} channels": name for n, name in enumerate(_USUAL, start=1)}

_TYPES = {"u8": "u1", "s16": "i2", "s32": "i4", "s64": "i8", "flt": "f4", "dbl": "f8"}
_PCM = {
    "i2": "pcm_s16le",
    "i4": "pcm_s32le",
    "i8": "pcm_s64le",
    "f4": "pcm_f32le",
    "f8": "pcm_f64le",
}

# Gaps between packets become silence, of so many values in all: 46 minutes of stereo at 48 kHz.
_MAX_SILENCE = 1 << 28
_BLOCK = 1 << 14  # samples

# PyAV counts more planes than these by a null pointer that is not there, and crashes.
_PLANES = 8

_Block = NDArray[Any]  # samples of all channels, [samples,channels]


class Track(NamedTuple):
    """A track whose packets are made as they are taken: `audio` itself has none.

    `exact` says whether it holds every bit.
    """

    audio: Audio
    packets: Iterator[Packet]
    exact: bool = True


def tracks(frames: Callable[[], Iterator[Any]]) -> Iterator[Track]:
    """The tracks that hold the same samples, the smallest first; none if there is no sample.

    Of samples of 64 bits, which few files hold, the last one rounds to 53.

    `frames` starts a pass over decoded `av.AudioFrame`s, whose times count from the clip's start.
    A track begins there or later, and has silence where packets are missing. Raises `MediaError`
    for gaps too long to fill.
    """
    first = next(frames(), None)
    if first is None:
        return
    rate = first.sample_rate
    head = Audio("flac", rate, layout_name(first.layout), Fraction(1, rate), b"", ())
    blocks = partial(_blocks, frames, first)
    kind = samples(first).dtype.str[1:].replace("u1", "i2")
    coder = _flac(head, "s16" if kind == "i2" else "s32")
    if coder is not None and (kind == "i2" or all(_fits(block, 24) for _, block in blocks())):
        yield Track(replace(head, extradata=coder.extradata), _flac_packets(coder, blocks()))
    if kind != "i8":
        yield Track(replace(head, codec=_PCM[kind]), _pcm_packets(blocks(), kind))
        return
    for found, bits in (("i4", 32), ("f8", 53), ("i8", 64)):
        if all(_fits(block, bits) for _, block in blocks()):
            yield Track(replace(head, codec=_PCM[found]), _pcm_packets(blocks(), found))
    yield Track(replace(head, codec=_PCM["f8"]), _pcm_packets(blocks(), "f8"), exact=False)


def layout_name(layout: Any) -> str:
    """A name of an `av.AudioLayout` as a record may have it, without spaces."""
    name: str = _LAYOUTS.get(layout.name, layout.name)
    if " (" in name:  # "2 channels (FL+LFE)"
        name = name.partition("(")[2].rstrip(")")
    return f"{layout.nb_channels}C" if " " in name or len(name) > 64 else name


def samples(frame: Any) -> _Block:
    """The samples of an `av.AudioFrame`, [samples,channels]."""
    # Not by `to_ndarray`, which knows no 64-bit integers.
    count, channels = frame.samples, frame.layout.nb_channels
    if frame.format.is_planar and channels > _PLANES:
        packer = av.AudioResampler(frame.format.packed, frame.layout, frame.sample_rate)
        (frame,) = packer.resample(frame)
    kind = _TYPES[frame.format.name.rstrip("p")]
    if frame.format.is_planar:
        return np.stack([np.frombuffer(plane, kind)[:count] for plane in frame.planes], -1)
    return np.frombuffer(frame.planes[0], kind)[: count * channels].reshape(count, channels)


def _blocks(frames: Callable[[], Iterator[Any]], first: Any) -> Iterator[tuple[int, _Block]]:
    """The samples without gaps, and the number of each block's first one from the clip's start.

    Eight bits become 16.
    """
    rate, clock, silence = first.sample_rate, None, _MAX_SILENCE
    base, unit = None, Fraction(0)
    for frame in _uniform(frames(), first):
        block = samples(frame)
        if block.dtype == np.uint8:
            block = (block.astype(np.int16) - 128) << 8
        due = clock if clock is not None else 0
        if frame.pts is not None:
            if frame.time_base != base:
                base, unit = frame.time_base, frame.time_base * rate
            due = round(frame.pts * unit)
            # Times are rounded, and some files give every packet a sample too many.
            jitter = max(int(2 * unit) + 1, min(frame.samples, rate // 50) - 1)
            if clock is not None and due - clock <= jitter:
                due = clock
        clock = due if clock is None else clock
        silence -= (due - clock) * block.shape[1]
        if silence < 0:
            raise MediaError(f"audio with gaps of {float((due - clock) / rate):.0f} s")
        while clock < due:
            hush = np.zeros((min(_BLOCK, due - clock), block.shape[1]), block.dtype)
            yield from _from_zero(clock, hush)
            clock += len(hush)
        yield from _from_zero(clock, block)
        clock += len(block)


def _from_zero(clock: int, block: _Block) -> Iterator[tuple[int, _Block]]:
    """The block without what comes before the clip."""
    block = block[max(0, -clock) :]
    if len(block):
        yield max(0, clock), block


def _uniform(frames: Iterator[Any], first: Any) -> Iterator[Any]:
    """The frames, those of another rate, format or layout than the `first` made like it."""

    def kind(frame: Any) -> tuple[str, str, int]:
        return frame.format.name, frame.layout.name, frame.sample_rate

    resampler, current = None, kind(first)
    for frame in frames:
        if kind(frame) != current:
            current = kind(frame)
            resampler = av.AudioResampler(first.format, first.layout, first.sample_rate)
            if current == kind(first):
                resampler = None
        yield from [frame] if resampler is None else resampler.resample(frame)


def _fits(block: _Block, bits: int) -> bool:
    """Whether integers of so many bits hold every sample."""
    if block.dtype.kind == "i":
        low = (1 << max(0, 8 * block.itemsize - bits)) - 1
        return not (block & low).any()
    top = 2.0 ** (bits - 1)
    scaled = block * top
    return bool(((scaled == np.rint(scaled)) & (scaled >= -top) & (scaled < top)).all())


def _flac(head: Audio, form: str) -> Any:
    """An open FLAC encoder; None: FLAC has not this rate or layout."""
    coder = av.CodecContext.create("flac", "w")
    coder.sample_rate, coder.layout, coder.format = head.rate, head.layout, form
    coder.time_base = head.time_base
    try:
        coder.open()
    except (av.FFmpegError, ValueError):
        return None
    return coder


def _converted(block: _Block, kind: str) -> _Block:
    """The samples in the little-endian type `kind`, which holds them."""
    if block.dtype.kind == "f" and kind == "i4":
        block = (block * 2.0**23).astype("i4") << 8
    elif block.dtype.str[1:] == "i8" and kind == "i4":
        block = block >> 32
    elif block.dtype.str[1:] == "i8" and kind == "f8":
        block = block / 2.0**63
    return block.astype(f"<{kind}")


def _flac_packets(coder: Any, blocks: Iterator[tuple[int, _Block]]) -> Iterator[Packet]:
    form = coder.format.name
    for clock, block in blocks:
        row = _converted(block, _TYPES[form]).reshape(1, -1)
        frame = av.AudioFrame.from_ndarray(row, form, coder.layout.name)
        frame.sample_rate, frame.pts, frame.time_base = coder.sample_rate, clock, coder.time_base
        yield from map(_packet, coder.encode(frame))
    yield from map(_packet, coder.encode(None))


def _packet(packet: Any) -> Packet:
    return Packet(packet.pts, packet.duration or 0, bytes(packet))


def _pcm_packets(blocks: Iterator[tuple[int, _Block]], kind: str) -> Iterator[Packet]:
    for clock, block in blocks:
        for place in range(0, len(block), _BLOCK):
            part = _converted(block[place : place + _BLOCK], kind)
            yield Packet(clock + place, len(part), part.tobytes())
