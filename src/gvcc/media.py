"""Video files in and out: anything ffmpeg reads becomes `Video`, and `Video` becomes a file.

What is kept: full-range RGB pictures upright at a constant rate, the colour tags, the first audio
track's packets. What is not: sample aspect ratio (pixels stay as stored), interlacing (frames stay
woven), alpha (composited over black), HDR metadata, subtitles, further tracks, and the few samples
of trimming that some audio codecs store beside their packets.
"""

from __future__ import annotations

import io
import os
import re
import shutil
import struct
import sys
from bisect import bisect_right
from collections import deque
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from fractions import Fraction
from pathlib import Path
from typing import Any, BinaryIO

import av
import numpy as np

from gvcc import colour as colours
from gvcc.colour import Tags
from gvcc.errors import ConfigError, GvccError, MediaError
from gvcc.records import Audio, Colour, Packet

MUXERS = {".mkv": "matroska", ".mov": "mov", ".mp4": "mp4", ".y4m": "yuv4mpegpipe"}
STILL_RATE = Fraction(24)

# Audio before the first picture is dropped, but for what a decoder needs to start up.
_PREROLL = Fraction(1, 10)

# Matroska's names of audio codecs where they are not "A_" and ffmpeg's name.
_TRACKS = {
    "mp2": "A_MPEG/L2",
    "mp3": "A_MPEG/L3",
    "pcm_s16be": "A_PCM/INT/BIG",
    "pcm_s16le": "A_PCM/INT/LIT",
    "pcm_s24le": "A_PCM/INT/LIT",
}


@dataclass(frozen=True, eq=False)
class Video:
    """What the codec codes: `frames` is full-range RGB, uint8 [T,H,W,3], `fps` pictures a second.

    `colour` is the source's, and the colour of a file written from this; the packets of `audio`
    count time from the start of frame 0.
    """

    frames: np.ndarray
    fps: Fraction
    colour: Colour = Colour()
    audio: Audio | None = None


def read(
    path: str | os.PathLike[str] | BinaryIO,
    *,
    frames: int | None = None,
    fps: Fraction | None = None,
    matrix: str | None = None,
    full_range: bool | None = None,
    audio: bool = True,
) -> Video:
    """Read a video file, a still, a folder of stills (in natural order of names) or "-".

    "-" is y4m on standard input. `frames` reads only that many; `fps` is the rate of stills (24).
    `matrix` ("bt709", "bt601", "bt2020nc") and `full_range` override the file's tags; a YUV file
    without tags is BT.709 from 720 lines up, else BT.601, and limited range.

    A file of variable rate becomes one of constant rate, the stream's average: each tick gets the
    picture on screen in the middle of it, so that duration and audio stay in step. Pictures that
    do not decode are skipped the same way, their predecessor staying on screen.

    Raises `MediaError` if nothing decodes, `ConfigError` for an illegal argument.
    """
    if frames is not None and frames < 1:
        raise ConfigError(f"frames must be at least 1, not {frames}")
    if fps is not None and fps <= 0:
        raise ConfigError(f"fps must be positive, not {fps}")
    tags = Tags(matrix, full_range)
    if not isinstance(path, str | os.PathLike):
        name = str(getattr(path, "name", "the stream"))
        with _reported("read", name):
            return _read_stream(path, None, frames, tags, audio)
    name, place = os.fspath(path), Path(path)
    with _reported("read", name):
        if place.is_dir() or place.suffix.lower() in colours.STILLS:
            return Video(colours.read_stills(place, frames, tags), fps or STILL_RATE)
        if fps is not None:
            raise ConfigError(f"{name}: has a rate of its own; fps is for stills")
        if name == "-":
            return _read_stream(sys.stdin.buffer, "yuv4mpegpipe", frames, tags, audio)
        # The prefix keeps ffmpeg from taking "a:b.mp4" for a protocol.
        return _read_stream(f"file:{name}", None, frames, tags, audio)


def write(video: Video, path: str | os.PathLike[str], *, overwrite: bool = False) -> None:
    """Write `video` to a file of the kind the name tells; only .mp4, .mov and .mkv keep the audio.

    .mp4, .mov, .mkv: H.264 at CRF 12, visually lossless, 4:2:0 where both sides are even, else
    4:4:4. .y4m, and "-" for standard output: the same pictures uncompressed (y4m has no tag for
    the matrix). .png: one frame. No suffix or a final "/": a folder of 00000.png and so on.

    The file appears under its name only once it is whole. Raises `ConfigError` for an unknown
    suffix, an output that exists (unless `overwrite`) or frames no file can hold, `MediaError` if
    writing fails.
    """
    name = os.fspath(path)
    target = Path(name)
    suffix = target.suffix.lower()
    shape = video.frames.shape
    if video.frames.dtype != np.uint8 or len(shape) != 4 or shape[3] != 3 or 0 in shape:
        raise ConfigError(f"frames must be uint8 [T,H,W,3], not {video.frames.dtype} {shape}")
    if name == "-":
        with _reported("write", name):
            _write_stream(video, sys.stdout.buffer, MUXERS[".y4m"])
        return
    folder = suffix == "" or name.endswith(("/", os.sep))
    if not folder and suffix not in (legal := (*MUXERS, ".png")):
        raise ConfigError(f"{name}: unknown suffix {suffix!r}; use {', '.join(legal)}, none or -")
    if suffix == ".png" and not folder and len(video.frames) > 1:
        raise ConfigError(f"{name}: a .png holds one frame, not {len(video.frames)}; name a folder")
    _check_vacant(target, folder, overwrite)
    scratch = target.with_name(f".{target.name}.{os.getpid()}.part")
    with _reported("write", name):
        try:
            if folder:
                scratch.mkdir()
                for number, data in enumerate(colours.pngs(video.frames)):
                    (scratch / f"{number:05d}.png").write_bytes(data)
                if target.exists():
                    shutil.rmtree(target)
            elif suffix == ".png":
                scratch.write_bytes(next(colours.pngs(video.frames)))
            else:
                with scratch.open("wb") as file:
                    _write_stream(video, file, MUXERS[suffix])
            os.replace(scratch, target)
        except BaseException:
            if scratch.is_dir():
                shutil.rmtree(scratch)
            else:
                scratch.unlink(missing_ok=True)
            raise


@contextmanager
def _reported(verb: str, name: str) -> Iterator[None]:
    """Turn every error of ffmpeg and of the file system into a `MediaError` that names the file."""
    try:
        yield
    except ConfigError:
        raise
    except MediaError as error:
        raise MediaError(f"{name}: {error}") from error
    except (av.FFmpegError, OSError, ValueError) as error:
        reason = getattr(error, "strerror", None) or error
        raise MediaError(f"{name}: cannot {verb}: {reason}") from error


def _read_stream(
    source: Any, form: str | None, frames: int | None, tags: Tags, audio: bool
) -> Video:
    shots: list[np.ndarray] = []
    times: list[Fraction | None] = []
    stamps: list[int] = []
    sounds: list[Any] = []
    tail = Fraction(0)
    failure: Exception | None = None
    with av.open(source, format=form, metadata_errors="replace") as box:
        video = box.streams.best("video")
        if video is None or video.codec_context is None:
            raise MediaError("no video stream that can be decoded")
        video.thread_type = "AUTO"
        known = (stream for stream in box.streams.audio if stream.codec_context is not None)
        sound = next(known, None) if audio else None
        declared = (video.average_rate, video.base_rate, video.guessed_rate)
        rates = [rate for rate in declared if rate]
        colour = Colour()
        enough = False
        try:
            for packet in box.demux([stream for stream in (video, sound) if stream is not None]):
                if packet.stream is sound:
                    if packet.size:
                        sounds.append(packet)
                    continue
                stamp = packet.dts if packet.pts is None else packet.pts
                if packet.size and stamp is not None and not packet.is_discard:
                    stamps.append(stamp)
                if enough:  # what remains still tells the rate
                    continue
                try:
                    pictures = packet.decode()
                except av.FFmpegError as error:
                    failure = failure or error
                    continue
                for picture in pictures:
                    if not shots:
                        colour = colours.of_picture(picture, tags)
                    pixels = colours.upright(colours.to_rgb(picture, colour), picture)
                    if shots and pixels.shape != shots[0].shape:
                        raise MediaError(f"changes size, from {shots[0].shape} to {pixels.shape}")
                    shots.append(pixels)
                    base = picture.time_base
                    times.append(None if picture.pts is None else picture.pts * base)
                    tail = (picture.duration or 0) * base if base else Fraction(0)
                enough = frames is not None and _suffices(times, frames, rates)
        except av.FFmpegError as error:  # the file breaks off: keep what came before
            failure = failure or error
        if not shots:
            raise MediaError(f"no picture decodes: {getattr(failure, 'strerror', 'it has none')}")
        fps = _rate(stamps, video.time_base, rates)
        index = _on_screen(times, fps, tail)[:frames]
        start = times[0] or Fraction(0)
        end = None if frames is None else len(index) / fps
        track = None if sound is None else _track(sound, sounds, start, end)
    return Video(_gather(shots, index), fps, colour, track)


def _suffices(times: list[Fraction | None], frames: int, rates: list[Fraction]) -> bool:
    """Whether the pictures so far cover `frames` ticks, at whichever rate turns out right."""
    if len(times) <= frames:
        return False
    first, last = times[0], times[-1]
    return first is None or last is None or (last - first) * min(rates, default=0) >= frames


def _rate(stamps: list[int], base: Fraction, rates: list[Fraction]) -> Fraction:
    """The rate that fits all of a stream's timestamps (in units of `base`), else its average.

    The declared average alone may be off, above all if the last picture's duration is.
    """
    stamps = sorted(stamps)
    span = stamps[-1] - stamps[0] if stamps else 0
    guesses = list(rates)
    if span:
        guesses.append(((len(stamps) - 1) / (span * base)).limit_denominator(1001))
    for guess in guesses:
        step = guess * base
        up, down = step.numerator, step.denominator
        if all(abs((s - stamps[0]) * up - k * down) <= up for k, s in enumerate(stamps)):
            return guess
    return (guesses or [STILL_RATE])[0]


def _on_screen(times: list[Fraction | None], fps: Fraction, tail: Fraction) -> list[int]:
    """For each tick of the output the index of the picture on screen in the middle of it.

    `times` are in seconds; a picture without a time, or with one that does not grow, counts as
    shown one tick after its predecessor. `tail` is how long the last picture stays.
    """
    start = now = times[0] or Fraction(0)
    ticks = [0]
    for time in times[1:]:
        now = time if time is not None and time > now else now + 1 / fps
        ticks.append(int((now - start) * fps + Fraction(1, 2)))
    length = max(ticks[-1] + 1, int((now + tail - start) * fps + Fraction(1, 2)))
    if length > 1000 * len(times):
        raise MediaError(f"its timestamps jump: {len(times)} pictures in {length / fps} s")
    return [bisect_right(ticks, tick) - 1 for tick in range(length)]


def _gather(shots: list[np.ndarray], index: list[int]) -> np.ndarray:
    """`shots[index]` as one array; lets go of each shot on the way, to halve the memory needed."""
    frames = np.empty((len(index), *shots[0].shape), np.uint8)
    for tick in reversed(range(len(index))):
        frames[tick] = shots[index[tick]]
        del shots[index[tick] + 1 :]
    return frames


# PyAV's names for channels without positions, as PCM in Matroska has them -> the usual layout.
_USUAL = ("mono", "stereo", "2.1", "4.0", "5.0", "5.1", "6.1", "7.1")
_LAYOUTS = {f"{n} channels": name for n, name in enumerate(_USUAL, start=1)}


def _track(sound: Any, packets: list[Any], start: Fraction, end: Fraction | None) -> Audio:
    """The audio of the pictures from `start` seconds on, for `end` seconds (None: to the end)."""
    context, base = sound.codec_context, sound.time_base
    kept: list[Packet] = []
    shift, clock = round(start / base), 0
    for packet in packets:
        stamp = packet.pts if packet.pts is not None else packet.dts
        if stamp is not None and not (kept and stamp - shift <= kept[-1].pts):
            clock = stamp - shift
        length = packet.duration or 0
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


def _check_vacant(target: Path, folder: bool, overwrite: bool) -> None:
    if not target.exists():
        return
    if target.is_dir() != folder:
        raise ConfigError(f"{target}: exists and is {'not ' if folder else ''}a folder")
    inside = [entry.name for entry in target.iterdir()] if folder else [target.name]
    if inside and not overwrite:
        raise ConfigError(f"{target}: exists; allow overwriting or choose another name")
    if folder and not all(re.fullmatch(r"[0-9]{5,}\.png", entry) for entry in inside):
        raise ConfigError(f"{target}: holds other files than numbered frames; not overwritten")


def _write_stream(video: Video, file: BinaryIO, muxer: str) -> None:
    audio = None if muxer == MUXERS[".y4m"] else video.audio
    box = av.open(file, "w", format=muxer)
    try:
        _mux(box, video, audio)
        box.close()
    except BaseException as error:
        with suppress(av.FFmpegError, OSError):  # closing would hide what went wrong first
            box.close()
        if audio is None or isinstance(error, GvccError) or not isinstance(error, ValueError):
            raise
        # "Invalid argument" is all that muxers say of what they lack.
        advice = "leave it out" if muxer == "matroska" else "write .mkv or leave it out"
        raise MediaError(f"{muxer} does not take {audio.codec} audio: {advice}") from error


def _mux(box: Any, video: Video, audio: Audio | None) -> None:
    raw = box.format.name == MUXERS[".y4m"]
    height, width = video.frames.shape[1:3]
    # ffmpeg labels 4:2:0 in y4m as centred ("420jpeg"), and decoders of H.264 expect it left.
    paint = colours.Painter(height, width, video.colour, "center" if raw else "left")
    stream = box.add_stream(
        "rawvideo" if raw else "libx264",
        rate=video.fps,
        options={} if raw else {"crf": "12", "preset": "medium"},
    )
    stream.width, stream.height, stream.pix_fmt = width, height, paint.format
    context = stream.codec_context
    context.colorspace, context.color_range = paint.matrix, 2 if paint.full_range else 1
    context.color_primaries, context.color_trc = video.colour.primaries, video.colour.transfer
    sounds = deque(() if audio is None else _add_track(box, audio))
    for number, pixels in enumerate(video.frames):
        # Audio goes in as its time comes, or the muxer would hold all pictures back for it.
        while sounds and sounds[0].pts * sounds[0].time_base <= number / video.fps:
            box.mux(sounds.popleft())
        picture = paint(pixels)
        picture.pts, picture.time_base = number, 1 / video.fps
        picture.pict_type = 0  # one left over from a decoder would force the encoder's
        box.mux(stream.encode(picture))
    box.mux(stream.encode(None))
    box.mux(sounds)


def _add_track(box: Any, audio: Audio) -> Iterator[Any]:
    """Add `audio` to the open output `box`, and yield the packets to mux."""
    with av.open(io.BytesIO(_blank_matroska(audio)), format="matroska") as blank:
        stream = box.add_stream_from_template(blank.streams.audio[0])
    stream.codec_context.layout, stream.time_base = audio.layout, audio.time_base
    for entry in audio.packets:
        packet = av.Packet(entry.data)
        packet.stream, packet.time_base = stream, audio.time_base
        packet.pts = packet.dts = entry.pts
        packet.duration, packet.is_keyframe = entry.duration, True
        yield packet


def _blank_matroska(audio: Audio) -> bytes:
    """A Matroska file with `audio`'s track and no packet in it.

    PyAV makes a stream for packets that are already compressed only after the model of one it
    has opened; an encoder's stream would carry that encoder's header instead of `extradata`.
    """

    def element(code: str, payload: bytes) -> bytes:
        return bytes.fromhex(code) + (len(payload) | 1 << 56).to_bytes(8, "big") + payload

    def number(code: str, value: int) -> bytes:
        return element(code, value.to_bytes(8, "big"))

    header, codec = audio.extradata, audio.codec
    if codec == "flac":
        header = b"fLaC\x80\x00\x00\x22" + header
    elif codec == "alac":
        header = header[12:]  # the MP4 box around it
    bits = number("6264", int(codec[5:7])) if codec.startswith("pcm_s") else b""
    channels = av.AudioLayout(audio.layout).nb_channels
    sampling = element("b5", struct.pack(">d", audio.rate)) + number("9f", channels) + bits
    name = _TRACKS.get(codec, f"A_{codec.upper()}").encode()
    entry = number("d7", 1) + number("73c5", 1) + number("83", 2) + element("86", name)
    entry += (element("63a2", header) if header else b"") + element("e1", sampling)
    tracks = element("1654ae6b", element("ae", entry))
    body = element("1549a966", number("2ad7b1", 10**6)) + tracks
    body += element("1f43b675", number("e7", 0))  # without a cluster ffmpeg sees a broken file
    return element("1a45dfa3", element("4282", b"matroska")) + element("18538067", body)
