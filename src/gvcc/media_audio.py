"""The audio track of a video file: which one, and its packets in the time of the pictures."""

from __future__ import annotations

from fractions import Fraction
from typing import Any

from av.stream import Disposition

from gvcc.errors import ConfigError
from gvcc.media_notices import counted
from gvcc.records import Audio, Packet

# Audio before the first picture is dropped, but for what a decoder needs to start up.
_PREROLL = Fraction(1, 10)

_COARSE = Fraction(1, 2000)  # seconds; AVI counts MP3 in whole packets, of 24 ms

# PyAV's names for channels without positions, as PCM in Matroska has them -> the usual layout.
_USUAL = ("mono", "stereo", "2.1", "4.0", "5.0", "5.1", "6.1", "7.1")
_LAYOUTS = {f"{n} channels": name for n, name in enumerate(_USUAL, start=1)}


def pick(box: Any, number: int | None, name: str) -> Any:
    """The audio stream to carry: number `number` of the file's audio tracks, from 1, or the one
    that the file calls its default, or the first; None if no codec of them is known.

    Raises `ConfigError` if there is no track of that number, or nobody here knows its codec.
    """
    streams = box.streams.audio
    if number is not None:
        if not 1 <= number <= len(streams):
            have = counted(len(streams), "audio track")
            raise ConfigError(f"{name} has {have}, so audio track {number} is none of them")
        if streams[number - 1].codec_context is None:
            raise ConfigError(f"audio track {number} of {name} has a codec that is not known here")
        return streams[number - 1]
    known = [stream for stream in streams if stream.codec_context is not None]
    default = (stream for stream in known if stream.disposition & Disposition.default)
    return next(default, known[0] if known else None)


def track(sound: Any, packets: list[Any], start: Fraction, end: Fraction | None) -> Audio:
    """The audio of the pictures from `start` seconds on, for `end` seconds (None: to the end)."""
    context, base = sound.codec_context, sound.time_base
    finer = (start / base).denominator if base > _COARSE else 1
    finer = finer if finer < 1_000_000 else 1
    kept: list[Packet] = []
    shift, clock, base = round(start / base * finer), 0, base / finer
    for packet in packets:
        stamp = packet.pts if packet.pts is not None else packet.dts
        if stamp is not None:
            stamp = stamp * finer - shift
            if not (kept and stamp <= kept[-1].pts):
                clock = stamp
        length = (packet.duration or 0) * finer
        if (clock + length) * base >= -_PREROLL and (end is None or clock * base < end):
            kept.append(Packet(clock, length, bytes(packet)))
        clock += length
    return Audio(
        codec=context.codec.canonical_name,
        rate=context.sample_rate,
        layout=_LAYOUTS.get(context.layout.name, context.layout.name),
        time_base=base,
        extradata=context.extradata or b"",
        packets=tuple(kept),
    )
