"""Clips to files: pictures go into the file as they come, so that memory does not grow with them.

What is kept: the pictures and the rate; but for .png the colour tags and the pixel aspect; in .mp4,
.mov and .mkv the sound.
"""

from __future__ import annotations

import os
import re
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from fractions import Fraction
from itertools import chain
from pathlib import Path
from typing import Any, BinaryIO

import av
import numpy as np
from numpy.typing import NDArray

from gvcc import files
from gvcc.errors import ConfigError, GvccError, MediaError
from gvcc.pictures import audio_out
from gvcc.pictures import colour as colours
from gvcc.records import Audio, Clip, Notice

MUXERS = {".mkv": "matroska", ".mov": "mov", ".mp4": "mp4", ".y4m": "yuv4mpegpipe"}

KINDS = (*MUXERS, ".png")
WITH_SOUND = (".mkv", ".mov", ".mp4")
SILENT = Notice("lost", "the sound is left out: only .mkv, .mp4 and .mov hold it")
_SEEKING = (".mov", ".mp4")  # whose muxers go back in their file

_Pictures = Iterator[NDArray[np.uint8]]


class _ClipFailed(Exception):
    """Carries an error of the clip's own past the code that takes every error for the file's."""

    def __init__(self, error: Exception) -> None:
        super().__init__(error)
        self.error = error


def write(
    clip: Clip, path: str | os.PathLike[str], *, overwrite: bool = False
) -> tuple[Notice, ...]:
    """Write `clip` to a file of the kind the name tells, and return what a user should know of it.

    Only .mp4, .mov and .mkv hold sound: its packets as they are, or where the format does not take
    the codec re-encoded without loss. All but .png keep the pixel aspect.

    .mp4, .mov, .mkv: H.264 at CRF 12, visually lossless, 4:2:0 where both sides are even, else
    4:4:4. .y4m, and "-" for standard output: the same pictures uncompressed (y4m has no tag for
    the matrix), each one flushed. .png: one frame. No suffix or a final "/": a folder of 00000.png
    and so on. What is no regular file is written straight into: y4m if its name has no suffix.

    Pictures are taken from `clip.pictures()` one by one, however many come. The file appears under
    its name only once it is whole; an error of the clip itself passes through unchanged. Raises
    `ConfigError` for an unknown suffix, an output that exists (unless `overwrite`) or pictures no
    file can hold, `MediaError` if writing fails, there is no picture, or the file can hold the
    sound in no way.
    """
    name = os.fspath(path)
    failure: Exception | None = None
    notices: tuple[Notice, ...] = ()
    with reported("write", name):
        try:
            notices = _write_file(clip, name, overwrite)
        except _ClipFailed as error:
            failure = error.error
    if failure is not None:
        raise failure
    return notices


def takes(suffix: str, audio: Audio) -> bool:
    """Whether a file of that suffix, of WITH_SOUND, holds the packets of `audio` as they are."""
    return audio_out.takes(MUXERS[suffix], audio)


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


def _write_file(clip: Clip, name: str, overwrite: bool) -> tuple[Notice, ...]:
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
        return _silent(clip)
    with files.replacing(name, seekable=kind in _SEEKING) as file:
        pictures = _begun(clip)
        if kind != ".png":
            return _write_stream(clip, pictures, file, MUXERS[kind])
        file.write(_png(next(pictures)))
        if next(pictures, None) is not None:  # whatever `count` says
            raise ConfigError(f"{name}: a .png holds one frame; name a folder")
    return _silent(clip)


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
    if folder and holds_others(at.path):
        raise ConfigError(f"{name}: holds other files than numbered frames; not overwritten")
    if not overwrite and not (folder and not any(at.path.iterdir())):
        raise ConfigError(f"{name}: exists; allow overwriting or choose another name")


def holds_others(folder: Path) -> bool:
    """Whether there is anything in a folder but frames as `write` numbers them."""
    return not all(re.fullmatch(r"[0-9]{5,}\.png", entry.name) for entry in folder.iterdir())


def _write_stream(
    clip: Clip, pictures: _Pictures, file: BinaryIO, muxer: str
) -> tuple[Notice, ...]:
    """Write the whole of a stream; the notices say what has become of the sound."""
    if muxer == MUXERS[".y4m"]:
        _write_y4m(clip, pictures, file)
        return _silent(clip)
    options = {}
    if muxer != "matroska" and clip.audio is not None:
        # Or the start of the sound would be rounded to milliseconds.
        options["movie_timescale"] = str(clip.audio.rate)
    box = av.open(file, "w", format=muxer, options=options)
    try:
        notices = _mux(box, clip, pictures)
        box.close()
    except BaseException as error:
        with suppress(av.FFmpegError, OSError):  # closing would hide what went wrong first
            box.close()
        if clip.audio is None or isinstance(error, GvccError) or not isinstance(error, ValueError):
            raise
        # "Invalid argument" is all that muxers say of what they lack.
        raise audio_out.refusal(muxer, clip.audio) from error
    return notices


def _write_y4m(clip: Clip, pictures: _Pictures, file: BinaryIO) -> None:
    # Not by ffmpeg's muxer, which PyAV gives no pixel aspect.
    painted = _painted(clip, pictures, "center")  # what "420jpeg" means
    for number, picture in enumerate(painted):
        if number == 0:
            level = "FULL" if clip.colour.full_range else "LIMITED"
            form = (
                "420jpeg XYSCSS=420JPEG" if picture.format.name == "yuv420p" else "444 XYSCSS=444"
            )
            rate, aspect = _ratio(clip.fps), _ratio(_aspect(clip))
            head = f"YUV4MPEG2 W{picture.width} H{picture.height} F{rate} Ip A{aspect}"
            file.write(f"{head} C{form} XCOLORRANGE={level}\n".encode())
        file.write(b"FRAME\n" + picture.to_ndarray().tobytes())
        file.flush()  # so that a player at the other end of a pipe can start


def _ratio(value: Fraction) -> str:
    return f"{value.numerator}:{value.denominator}"


def _aspect(clip: Clip) -> Fraction:
    """The width of a pixel over its height; `ConfigError` for one that no file can have."""
    aspect: Fraction = getattr(clip, "pixel_aspect", Fraction(1))  # clips of callers may lack it
    if aspect <= 0 or max(aspect.numerator, aspect.denominator) >= 1 << 31:
        raise ConfigError(f"pixel aspect {aspect} cannot be written")
    return aspect


def _painted(clip: Clip, pictures: _Pictures, sited: str) -> Iterator[Any]:
    """The `av.VideoFrame`s of the clip, each with its time."""
    paint: colours.Painter | None = None
    for number, pixels in enumerate(pictures):
        if paint is None:
            height, width, _ = pixels.shape
            paint = colours.Painter(height, width, clip.colour, sited)
        picture = paint(pixels)
        picture.pts, picture.time_base = number, 1 / clip.fps
        picture.pict_type = 0  # one left over from a decoder would force the encoder's
        yield picture


def _mux(box: Any, clip: Clip, pictures: _Pictures) -> tuple[Notice, ...]:
    painted = _painted(clip, pictures, "left")  # as decoders of H.264 expect it
    first = next(painted)
    stream = box.add_stream("libx264", rate=clip.fps, options={"crf": "12", "preset": "medium"})
    stream.width, stream.height, stream.pix_fmt = first.width, first.height, first.format.name
    context = stream.codec_context
    context.colorspace, context.color_range = first.colorspace, first.color_range
    context.color_primaries, context.color_trc = clip.colour.primaries, clip.colour.transfer
    context.sample_aspect_ratio = _aspect(clip)
    sounds, notices = iter(()), tuple[Notice, ...]()
    if clip.audio is not None:
        sounds, notices = audio_out.add(box, clip.audio)
    due = next(sounds, None)
    for number, picture in enumerate(chain([first], painted)):
        # Audio goes in as its time comes, or the muxer would hold all pictures back for it.
        while due is not None and due.pts * due.time_base <= number / clip.fps:
            box.mux(due)
            due = next(sounds, None)
        box.mux(stream.encode(picture))
    box.mux(stream.encode(None))
    box.mux([] if due is None else chain([due], sounds))
    return notices


def _silent(clip: Clip) -> tuple[Notice, ...]:
    """What to say of a clip that is written where there is no place for sound."""
    return () if clip.audio is None else (SILENT,)
