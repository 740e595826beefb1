"""Audio tracks as records: from a stream's packets, and back to samples.

A record holds what decodes the track again, wherever it came from: the codec's own header, or where
the decoder needs more of the container (block alignment, bits, bit rate) the chunk "fmt " that a
WAV file with the track has.
"""

from __future__ import annotations

import io
import struct
from collections.abc import Iterable, Iterator
from contextlib import suppress
from dataclasses import replace
from fractions import Fraction
from functools import partial
from typing import Any, NamedTuple

import av
import numpy as np
from numpy.typing import NDArray

from gvcc.errors import MediaError
from gvcc.pictures import lossless
from gvcc.records import Audio, Notice, Packet

# Audio before the first picture is dropped, but for what a decoder needs to start up.
_PREROLL = Fraction(1, 10)
_COARSE = Fraction(1, 2000)  # seconds; AVI counts MP3 in whole packets, of 24 ms

# What every real track stays below: a record of foreign bytes may claim anything.
_MAX_RATE, _MAX_CHANNELS, _MAX_SECONDS = 1 << 24, 64, 10**8
_MAX_FRAME = 1 << 22  # samples that one packet may decode to

FEW = 16  # packets that are enough to tell whether two tracks decode alike
_EXTENSIBLE = 0xFFFE  # the tag of a WAVEFORMATEXTENSIBLE, which is 22 bytes longer


class Wave(NamedTuple):
    """A WAVEFORMATEX, as the chunk "fmt " has it."""

    tag: int
    channels: int
    rate: int
    bytes_per_second: int
    block_align: int
    bits: int


def wave(audio: Audio) -> tuple[Wave | None, bytes]:
    """The WAVEFORMATEX in `audio.extradata`, if that is a chunk "fmt ", and the codec's header."""
    data = audio.extradata
    if len(data) < 26 or data[:8] != b"fmt " + struct.pack("<I", len(data) - 8):
        return None, data
    form = Wave(*struct.unpack_from("<HHIIHH", data, 8))
    return form, data[48 if form.tag == _EXTENSIBLE else 26 :]


def check(audio: Audio) -> None:
    """Raise `MediaError` for an audio record that no file can have: ffmpeg is not to see it."""
    try:
        channels = av.AudioLayout(audio.layout).nb_channels
    except ValueError as error:
        raise MediaError(f"audio with an unknown channel layout, {audio.layout!r}") from error
    if not 1 <= channels <= _MAX_CHANNELS or not 1 <= audio.rate <= _MAX_RATE:
        raise MediaError(f"audio with {channels} channels and {audio.rate} samples a second")
    base = audio.time_base
    if base <= 0 or max(base.numerator, base.denominator) >= 1 << 31:
        raise MediaError(f"audio with times in units of {base} s")
    for packet in audio.packets:
        if (abs(packet.pts) + packet.duration) * base > _MAX_SECONDS:
            raise MediaError("audio with a packet years from the pictures")


def track(
    sound: Any, packets: list[Any], start: Fraction, end: Fraction | None
) -> tuple[Audio | None, tuple[Notice, ...]]:
    """The audio of the pictures from `start` seconds on, for `end` seconds (None: to the end).

    `sound` is the stream in an open container, `packets` are all of its `av.Packet`s. The notices
    say what has become of a track that cannot be carried unchanged, or not at all.
    """
    try:
        return _track(sound, packets, start, end)
    except MediaError as error:
        return None, (Notice("lost", f"the sound is left out: {error}"),)


def _track(
    sound: Any, packets: list[Any], start: Fraction, end: Fraction | None
) -> tuple[Audio, tuple[Notice, ...]]:
    context, base = sound.codec_context, sound.time_base
    finer = (start / base).denominator if base > _COARSE else 1
    finer = finer if finer < 1_000_000 else 1
    plain = Audio(
        codec=context.codec.canonical_name,
        rate=context.sample_rate,
        layout=lossless.layout_name(context.layout),
        time_base=base,
        extradata=context.extradata or b"",
        packets=tuple(Packet(0, p.duration or 0, bytes(p)) for p in packets[:FEW]),
    )
    check(plain)
    frames = list(decoded(context, plain))
    extradata = _sufficient(plain, sound, joined(frames))
    timed = not _miscounted(packets[:FEW], frames, base)
    kept: list[Packet] = []
    shift, clock, base = round(start / base * finer), 0, base / finer
    for packet in packets:
        stamp = _stamp(packet)
        if stamp is not None and (timed or not kept):
            stamp = stamp * finer - shift
            if not (kept and stamp <= kept[-1].pts):
                clock = stamp
        length = (packet.duration or 0) * finer
        if (clock + length) * base >= -_PREROLL and (end is None or clock * base < end):
            kept.append(Packet(clock, length, bytes(packet)))
        clock += length
    plain = replace(plain, time_base=base, packets=tuple(kept))
    check(plain)
    if extradata is not None:
        return replace(plain, extradata=extradata), ()
    for found in lossless.tracks(partial(decoded, context, plain)):
        held = replace(found.audio, packets=tuple(found.packets))
        text = f"{plain.codec} audio is carried re-encoded as {held.codec}, without loss"
        return held, (Notice("note", text),)
    return plain, ()


def _stamp(packet: Any) -> int | None:
    found: int | None = packet.dts if packet.pts is None else packet.pts
    return found


def _miscounted(packets: list[Any], frames: list[Any], base: Fraction) -> bool:
    """Whether one packet after another comes late, though each lasts as long as its samples.

    `frames` are what the `packets` decode to. AVI has such times where it counts the bytes of a
    codec in the unit of its packets.
    """
    stamps = [_stamp(packet) or 0 for packet in packets]
    lengths = [packet.duration or 0 for packet in packets]
    late = [b - a > 1.2 * n for a, b, n in zip(stamps, stamps[1:], lengths, strict=False)]
    known = [length for length in lengths if length > 0]
    if len(late) < 3 or sum(late) <= 0.8 * len(late) or not known:
        return False
    lasting = Fraction(sum(known), len(known)) * base
    sounding = sum(Fraction(frame.samples, frame.sample_rate) for frame in frames) / len(packets)
    return bool(0.8 * lasting < sounding < 1.2 * lasting)


def _sufficient(plain: Audio, sound: Any, wanted: NDArray[Any] | None) -> bytes | None:
    """The extradata with which a record decodes to `wanted`, as `sound` does; None: there is none.

    `plain` is the record with the codec's own header alone.
    """
    for extradata in (plain.extradata, _fmt_chunk(sound)):
        held = replace(plain, extradata=extradata)
        with suppress(MediaError):
            coder = decoder(held, sound.codec_context.codec.name)
            if alike(wanted, joined(decoded(coder, held))):
                return extradata
    return plain.extradata if wanted is None else None


def _fmt_chunk(sound: Any) -> bytes:
    """The chunk "fmt " of a WAV file with the track; empty: WAV does not take it."""
    file = io.BytesIO()
    with suppress(av.FFmpegError, ValueError), av.open(file, "w", format="wav") as box:
        box.add_stream_from_template(sound)
        box.start_encoding()
    data = file.getvalue()
    place = data.find(b"fmt ")
    if place < 0:
        return b""
    (size,) = struct.unpack_from("<I", data, place + 4)
    return data[place : place + 8 + size]


def decoder(audio: Audio, implementation: str = "") -> Any:
    """A new `av.CodecContext` that decodes `audio`, by default ffmpeg's decoder of that name.

    Raises `MediaError` if there is none or it refuses the record.
    """
    check(audio)
    form, header = wave(audio)
    # With the time base the times of frames allow for samples that decoders drop at the start.
    options = {"max_samples": str(_MAX_FRAME), "pkt_timebase": str(audio.time_base)}
    if form is not None:
        options["ab"] = str(8 * form.bytes_per_second)
        options["block_align"] = str(form.block_align)
        options["bits_per_coded_sample"] = str(form.bits)
    try:
        coder = av.CodecContext.create(implementation or audio.codec, "r")
        if coder.type != "audio":
            raise ValueError("no audio codec")
        coder.options, coder.thread_count = options, 1
        coder.sample_rate, coder.layout = audio.rate, audio.layout
        coder.extradata = header or None
        coder.open()
    except (av.FFmpegError, ValueError) as error:
        reason = getattr(error, "strerror", None) or error
        raise MediaError(f"{audio.codec} audio cannot be decoded: {reason}") from error
    return coder


def decoded(coder: Any, audio: Audio) -> Iterator[Any]:
    """The `av.AudioFrame`s of `audio`; those of packets that do not decode are missing.

    The decoder can be used again afterwards. Raises `MediaError` if there are far more samples than
    the packets' times can hold.
    """
    first = min((entry.pts for entry in audio.packets), default=0)
    last = max((entry.pts + entry.duration for entry in audio.packets), default=0)
    left = float(2 * (last - first) * audio.time_base + 60)
    try:
        for entry in (*audio.packets, None):
            coded: Any = None  # to ffmpeg the end, as one without data would be
            if entry is not None:
                if not entry.data:
                    continue
                coded = av.Packet(entry.data)
                coded.pts = coded.dts = entry.pts
                coded.duration, coded.time_base = entry.duration, audio.time_base
            with suppress(av.FFmpegError):
                for frame in coder.decode(coded):
                    if frame.sample_rate > 0 and frame.layout.nb_channels > 0:
                        left -= frame.samples / frame.sample_rate
                        yield frame
            if left < 0:
                raise MediaError(f"{audio.codec} audio decodes to more than its packets last")
    finally:
        coder.flush_buffers()


def joined(frames: Iterable[Any]) -> NDArray[Any] | None:
    """The samples of those of the frames that are like the first, [samples,channels], or None."""
    parts = [lossless.samples(frame) for frame in frames]
    kind = [(part.dtype, part.shape[1]) for part in parts[:1]]
    parts = [part for part in parts if [(part.dtype, part.shape[1])] == kind]
    return np.concatenate(parts) if parts else None


def alike(one: NDArray[Any] | None, other: NDArray[Any] | None) -> bool:
    """Whether two decodings are bit for bit the same, but for what one of them lacks at an end."""
    if one is None or other is None:
        return one is other
    short, long = sorted((one, other), key=len)
    if short.dtype != long.dtype or short.shape[1] != long.shape[1] or 2 * len(short) < len(long):
        return False
    data = short.tobytes()
    return data in (long[: len(short)].tobytes(), long[len(long) - len(short) :].tobytes())
