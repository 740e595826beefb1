"""Clips to files: pictures go into the file as they come, so that memory does not grow with them.

What is kept: the pictures, the colour tags, the rate, and in .mp4, .mov and .mkv the audio packets.
"""

from __future__ import annotations

import io
import os
import re
import struct
from collections import deque
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from itertools import chain
from pathlib import Path
from typing import Any, BinaryIO

import av
import numpy as np
from numpy.typing import NDArray

from gvcc import colour as colours
from gvcc import files
from gvcc.errors import ConfigError, GvccError, MediaError
from gvcc.records import Audio, Clip

MUXERS = {".mkv": "matroska", ".mov": "mov", ".mp4": "mp4", ".y4m": "yuv4mpegpipe"}

KINDS = (*MUXERS, ".png")
_SEEKING = (".mov", ".mp4")  # whose muxers go back in their file

# Matroska's names of audio codecs where they are not "A_" and ffmpeg's name.
_TRACKS = {
    "mp2": "A_MPEG/L2",
    "mp3": "A_MPEG/L3",
    "pcm_s16be": "A_PCM/INT/BIG",
    "pcm_s16le": "A_PCM/INT/LIT",
    "pcm_s24le": "A_PCM/INT/LIT",
}

_Pictures = Iterator[NDArray[np.uint8]]


class _ClipFailed(Exception):
    """Carries an error of the clip's own past the code that takes every error for the file's."""

    def __init__(self, error: Exception) -> None:
        super().__init__(error)
        self.error = error


def write(clip: Clip, path: str | os.PathLike[str], *, overwrite: bool = False) -> None:
    """Write `clip` to a file of the kind the name tells; only .mp4, .mov and .mkv keep the audio.

    .mp4, .mov, .mkv: H.264 at CRF 12, visually lossless, 4:2:0 where both sides are even, else
    4:4:4. .y4m, and "-" for standard output: the same pictures uncompressed (y4m has no tag for
    the matrix), each one flushed. .png: one frame. No suffix or a final "/": a folder of 00000.png
    and so on. What is no regular file is written straight into: y4m if its name has no suffix.

    Pictures are taken from `clip.pictures()` one by one, however many come. The file appears under
    its name only once it is whole; an error of the clip itself passes through unchanged. Raises
    `ConfigError` for an unknown suffix, an output that exists (unless `overwrite`) or pictures no
    file can hold, `MediaError` if writing fails or there is no picture.
    """
    name = os.fspath(path)
    failure: Exception | None = None
    with reported("write", name):
        try:
            _write_file(clip, name, overwrite)
        except _ClipFailed as error:
            failure = error.error
    if failure is not None:
        raise failure


@contextmanager
def reported(verb: str, name: str) -> Iterator[None]:
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


def kind_of(name: str) -> str:
    """What is written to that name: a suffix, or "/", a folder. What is no regular file
    (files.Target) gets .y4m if its name has no suffix."""
    suffix = Path(name).suffix.lower()
    if files.target(name).straight:
        return suffix or ".y4m"
    return "/" if suffix == "" or name.endswith(os.sep) else suffix


def _write_file(clip: Clip, name: str, overwrite: bool) -> None:
    kind = kind_of(name)
    if kind not in (*KINDS, "/"):
        raise ConfigError(f"{name}: unknown suffix {kind!r}; use {', '.join(KINDS)}, none or -")
    if kind == ".png" and clip.count > 1:
        raise ConfigError(f"{name}: a .png holds one frame, not {clip.count}; name a folder")
    _check_vacant(name, kind == "/", overwrite)
    # Opened before the first picture is made: hours of decoding must not end at a full disk's door.
    if kind == "/":
        with files.replacing_folder(name) as folder:
            for number, pixels in enumerate(_begun(clip)):
                (folder / f"{number:05d}.png").write_bytes(_png(pixels))
        return
    with files.replacing(name, seekable=kind in _SEEKING) as file:
        pictures = _begun(clip)
        if kind != ".png":
            _write_stream(clip, pictures, file, MUXERS[kind])
            return
        file.write(_png(next(pictures)))
        if next(pictures, None) is not None:  # whatever `count` says
            raise ConfigError(f"{name}: a .png holds one frame; name a folder")


def _begun(clip: Clip) -> _Pictures:
    """The clip's pictures, the first of them already made: without one nothing is to be written."""
    pictures = _checked(clip)
    first = next(pictures, None)
    if first is None:
        raise MediaError("there is no picture to write")
    return chain([first], pictures)


def _checked(clip: Clip) -> _Pictures:
    """The clip's pictures; `ConfigError` for one no file can hold, `_ClipFailed` for its errors."""
    pictures = iter(clip.pictures())
    shape: tuple[int, ...] | None = None
    while True:
        try:
            pixels = next(pictures)
        except StopIteration:
            return
        except Exception as error:
            raise _ClipFailed(error) from error
        found = pixels.shape
        if pixels.dtype != np.uint8 or len(found) != 3 or found[2] != 3 or 0 in found:
            raise ConfigError(f"pictures must be uint8 [H,W,3], not {pixels.dtype} {found}")
        if found != (shape := shape or found):
            raise ConfigError(f"pictures must be of one size, not {shape} and {found}")
        yield pixels


def _png(pixels: NDArray[np.uint8]) -> bytes:
    return next(colours.pngs(pixels[None]))


def _check_vacant(name: str, folder: bool, overwrite: bool) -> None:
    at = files.check(name)
    if at.straight or not at.path.exists():
        return
    if at.path.is_dir() != folder:
        raise ConfigError(f"{name}: exists and is {'not ' if folder else ''}a folder")
    inside = [entry.name for entry in at.path.iterdir()] if folder else [name]
    if inside and not overwrite:
        raise ConfigError(f"{name}: exists; allow overwriting or choose another name")
    if folder and not all(re.fullmatch(r"[0-9]{5,}\.png", entry) for entry in inside):
        raise ConfigError(f"{name}: holds other files than numbered frames; not overwritten")


def _write_stream(clip: Clip, pictures: _Pictures, file: BinaryIO, muxer: str) -> None:
    audio = None if muxer == MUXERS[".y4m"] else clip.audio
    box = av.open(file, "w", format=muxer)
    try:
        _mux(box, clip, pictures, audio, file)
        box.close()
    except BaseException as error:
        with suppress(av.FFmpegError, OSError):  # closing would hide what went wrong first
            box.close()
        if audio is None or isinstance(error, GvccError) or not isinstance(error, ValueError):
            raise
        # "Invalid argument" is all that muxers say of what they lack.
        advice = "leave it out" if muxer == "matroska" else "write .mkv or leave it out"
        raise MediaError(f"{muxer} does not take {audio.codec} audio: {advice}") from error


def _mux(box: Any, clip: Clip, pictures: _Pictures, audio: Audio | None, file: BinaryIO) -> None:
    raw = box.format.name == MUXERS[".y4m"]
    first = next(pictures)
    height, width, _ = first.shape
    # ffmpeg labels 4:2:0 in y4m as centred ("420jpeg"), and decoders of H.264 expect it left.
    paint = colours.Painter(height, width, clip.colour, "center" if raw else "left")
    stream = box.add_stream(
        "rawvideo" if raw else "libx264",
        rate=clip.fps,
        options={} if raw else {"crf": "12", "preset": "medium"},
    )
    stream.width, stream.height, stream.pix_fmt = width, height, paint.format
    context = stream.codec_context
    context.colorspace, context.color_range = paint.matrix, 2 if paint.full_range else 1
    context.color_primaries, context.color_trc = clip.colour.primaries, clip.colour.transfer
    sounds = deque(() if audio is None else _add_track(box, audio))
    for number, pixels in enumerate(chain([first], pictures)):
        # Audio goes in as its time comes, or the muxer would hold all pictures back for it.
        while sounds and sounds[0].pts * sounds[0].time_base <= number / clip.fps:
            box.mux(sounds.popleft())
        picture = paint(pixels)
        picture.pts, picture.time_base = number, 1 / clip.fps
        picture.pict_type = 0  # one left over from a decoder would force the encoder's
        box.mux(stream.encode(picture))
        if raw:  # so that a player at the other end of a pipe can start
            file.flush()
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
