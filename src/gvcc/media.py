"""Video files in: anything ffmpeg reads becomes a clip that is decoded picture by picture.

What is kept: full-range RGB pictures upright at a constant rate, the colour tags, the first audio
track's packets. What is not: sample aspect ratio (pixels stay as stored), interlacing (frames stay
woven), alpha (composited over black), HDR metadata, subtitles, further tracks, and the few samples
of trimming that some audio codecs store beside their packets.

Memory: one picture, the audio packets, and a few bytes for each frame. `Video` alone holds all.
"""

from __future__ import annotations

import gc
import os
import re
import shutil
import sys
import tempfile
import weakref
from bisect import bisect_right
from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import suppress
from dataclasses import dataclass
from fractions import Fraction
from functools import partial
from itertools import repeat
from pathlib import Path
from typing import Any, BinaryIO

import av
import numpy as np
from numpy.typing import NDArray

from gvcc import colour as colours
from gvcc.audio import track as audio_track
from gvcc.colour import Tags
from gvcc.errors import ConfigError, MediaError
from gvcc.media_out import MUXERS as MUXERS
from gvcc.media_out import reported
from gvcc.media_out import write as write
from gvcc.records import Audio, Colour, Notice
from gvcc.records import Clip as Clip
from gvcc.records import Video as Video

STILL_RATE = Fraction(24)


def read(
    path: str | os.PathLike[str] | BinaryIO,
    *,
    frames: int | None = None,
    fps: Fraction | None = None,
    matrix: str | None = None,
    full_range: bool | None = None,
    audio: bool = True,
) -> Video:
    """Everything that `open_clip` with the same arguments gives, held in memory."""
    clip = open_clip(
        path, frames=frames, fps=fps, matrix=matrix, full_range=full_range, audio=audio
    )
    held = np.empty((clip.count, clip.height, clip.width, 3), np.uint8)
    for number, pixels in enumerate(clip.pictures()):
        held[number] = pixels
    return Video(
        held, clip.fps, clip.colour, clip.audio, clip.pixel_aspect, clip.notices
    )  # fmt: skip


def open_clip(
    path: str | os.PathLike[str] | BinaryIO,
    *,
    frames: int | None = None,
    fps: Fraction | None = None,
    matrix: str | None = None,
    full_range: bool | None = None,
    audio: bool = True,
) -> Clip:
    """A video file, a still, a folder of stills (in natural order of names) or "-", as a clip.

    Everything is decoded once here, to learn what there is and whether it is whole, and anew in
    every pass over `pictures()`. A file object is read from where it stands. One that cannot seek,
    a named pipe, and "-", y4m on standard input, are first copied to a temporary file that has no
    name and goes with the clip.

    `frames` reads only that many; `fps` is the rate of stills (24). `matrix` ("bt709", "bt601",
    "bt2020nc") and `full_range` override the file's tags; a YUV file without tags is BT.709 from
    720 lines up, else BT.601, and limited range.

    A file of variable rate becomes one of constant rate, the stream's average: each tick gets the
    picture on screen in the middle of it, so that duration and audio stay in step. Pictures that
    do not decode are skipped the same way, their predecessor staying on screen.

    Raises `MediaError` if nothing decodes, `ConfigError` for an illegal argument. A pass raises
    `MediaError` if the file is no longer the one that was opened.
    """
    if frames is not None and frames < 1:
        raise ConfigError(f"frames must be at least 1, not {frames}")
    if fps is not None and fps <= 0:
        raise ConfigError(f"fps must be positive, not {fps}")
    tags = Tags(matrix, full_range)
    if not isinstance(path, str | os.PathLike):
        name = str(getattr(path, "name", "the stream"))
        with reported("read", name):
            opener = partial(_container, _Window.over(path))
            return _open_stream(name, opener, frames, tags, audio)
    name, place = os.fspath(path), Path(path)
    with reported("read", name):
        if place.is_dir() or place.suffix.lower() in colours.STILLS:
            return _open_stills(name, frames, tags, fps or STILL_RATE)
        if fps is not None:
            raise ConfigError(f"{name}: has a rate of its own; fps is for stills")
        if name == "-":
            opener = partial(_container, _Window.over(sys.stdin.buffer), MUXERS[".y4m"])
        elif place.is_fifo():
            with place.open("rb") as pipe:
                opener = partial(_container, _Window.over(pipe))
        else:
            # The prefix keeps ffmpeg from taking "a:b.mp4" for a protocol.
            opener = partial(_container, f"file:{name}")
        return _open_stream(name, opener, frames, tags, audio)


class _Window:
    """A seekable file from `start` on, with a position of its own: passes may overlap."""

    def __init__(self, file: BinaryIO, start: int, name: str) -> None:
        self._file, self._start, self.name = file, start, name
        self._place = 0

    @classmethod
    def over(cls, file: BinaryIO) -> _Window:
        """`file` from where it stands, or if it cannot seek a temporary copy of what is left."""
        name = str(getattr(file, "name", "<none>"))  # its suffix helps ffmpeg to tell the format
        if hasattr(file, "seekable") and file.seekable():
            return cls(file, file.tell(), name)
        copy = tempfile.TemporaryFile()  # noqa: SIM115
        window = cls(copy, 0, name)
        weakref.finalize(window, copy.close)
        shutil.copyfileobj(file, copy)
        return window

    def again(self) -> _Window:
        """The same, at its start. The first window must stay alive for as long."""
        return _Window(self._file, self._start, self.name)

    def read(self, size: int) -> bytes:
        self._file.seek(self._start + self._place)
        data = self._file.read(size)
        self._place += len(data)
        return data

    def seek(self, offset: int, whence: int = os.SEEK_SET) -> int:
        if whence == os.SEEK_END:
            self._place = self._file.seek(offset, os.SEEK_END) - self._start
        else:
            self._place = offset + (self._place if whence == os.SEEK_CUR else 0)
        return self._place

    def tell(self) -> int:
        return self._place


def _container(place: str | _Window, form: str | None = None) -> Any:
    """A new `av` container over a path or a window, from the start."""
    file = place if isinstance(place, str) else place.again()
    return av.open(file, format=form, metadata_errors="replace")


@dataclass(frozen=True, eq=False)
class _Decoder:
    """A `Clip` that is decoded anew in every pass, by `decode`."""

    name: str
    decode: Callable[[], Iterator[NDArray[np.uint8]]]
    fps: Fraction
    colour: Colour
    audio: Audio | None
    count: int
    height: int
    width: int
    pixel_aspect: Fraction = Fraction(1)
    notices: tuple[Notice, ...] = ()

    def pictures(self) -> Iterator[NDArray[np.uint8]]:
        """Each picture, uint8 [H,W,3]; `MediaError` if it is not as it was at the opening."""
        number, shape = 0, (self.height, self.width, 3)
        with reported("read", self.name):
            for pixels in self.decode():
                number += 1
                if pixels.shape != shape:
                    raise MediaError(f"has changed since it was opened, from {shape}")
                yield pixels
            if number != self.count:
                raise MediaError(f"has changed since it was opened, from {self.count} frames")


def _open_stills(name: str, frames: int | None, tags: Tags, fps: Fraction) -> _Decoder:
    """The first `frames` images of a folder, or one image."""
    paths = [Path(name)]
    if paths[0].is_dir():
        inside = (e for e in paths[0].iterdir() if e.suffix.lower() in colours.STILLS)
        paths = sorted((e for e in inside if not e.name.startswith(".")), key=_natural)[:frames]
    if not paths:
        raise MediaError(f"no images in the folder ({', '.join(colours.STILLS)})")
    for pixels in _stills(paths, tags):
        height, width, _ = pixels.shape
    decode = partial(_stills, paths, tags)
    return _Decoder(name, decode, fps, Colour(), None, len(paths), height, width)


def _stills(paths: list[Path], tags: Tags) -> Iterator[NDArray[np.uint8]]:
    """Each image, uint8 [H,W,3]; `MediaError` if one is damaged or sizes differ."""
    first: tuple[int, ...] | None = None
    for path in paths:
        pixels = colours.read_still(path, tags)
        if pixels.shape != (first := first or pixels.shape):
            sizes = f"{pixels.shape}, but {paths[0].name} {first}"
            raise MediaError(f"images differ in size: {path.name} has {sizes}")
        gc.collect(1)  # see _turned_alike; 1, for one that outlived a collection of 0
        yield pixels


def _natural(path: Path) -> list[str | int]:
    """A sort key: the texts and the numbers of a name, which take turns."""
    parts = re.split(r"([0-9]+)", path.name.lower())
    return [int(part) if place % 2 else part for place, part in enumerate(parts)]


def _video_stream(box: Any) -> Any:
    video = box.streams.best("video")
    if video is None or video.codec_context is None:
        raise MediaError("no video stream that can be decoded")
    video.thread_type = "AUTO"
    return video


def _turned_alike(before: Any, picture: Any) -> Any:
    """A picture with the display matrix of `picture`: the same as `before`, if it will do.

    PyAV's `side_data` puts a picture into a reference cycle, so each one that is asked for it keeps
    its memory until the garbage collector runs: hundreds of them.
    """
    return before if before is not None and before.rotation == picture.rotation else picture


def _open_stream(
    name: str, opener: Callable[[], Any], frames: int | None, tags: Tags, audio: bool
) -> _Decoder:
    """Decode the stream once, keeping times, size and audio."""
    times: list[Fraction | None] = []
    stamps: list[int] = []
    sounds: list[Any] = []
    shape: tuple[int, ...] | None = None
    tail = Fraction(0)
    failure: Exception | None = None
    turned = None
    with opener() as box:
        video = _video_stream(box)
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
                    if shape is None:
                        colour = colours.of_picture(picture, tags)
                        colours.to_rgb(picture, colour)  # tells a format that cannot be converted
                    turned = _turned_alike(turned, picture)
                    blank = np.empty((picture.height, picture.width, 3), np.uint8)
                    found = colours.upright(blank, turned).shape
                    if found != (shape := shape or found):
                        raise MediaError(f"changes size, from {shape} to {found}")
                    base = picture.time_base
                    times.append(None if picture.pts is None else picture.pts * base)
                    tail = (picture.duration or 0) * base if base else Fraction(0)
                enough = frames is not None and _suffices(times, frames, rates)
        except av.FFmpegError as error:  # the file breaks off: keep what came before
            failure = failure or error
        if shape is None:
            raise MediaError(f"no picture decodes: {getattr(failure, 'strerror', 'it has none')}")
        fps = _rate(stamps, video.time_base, rates)
        index = _on_screen(times, fps, tail)[:frames]
        start = times[0] or Fraction(0)
        end = None if frames is None else len(index) / fps
        track, notices = None, tuple[Notice, ...]()
        if sound is not None:
            track, notices = audio_track(sound, sounds, start, end)
    decode = partial(_ticks, opener, colour, index)
    return _Decoder(
        name, decode, fps, colour, track, len(index), shape[0], shape[1], notices=notices
    )


def _ticks(
    opener: Callable[[], Any], colour: Colour, index: list[int]
) -> Iterator[NDArray[np.uint8]]:
    """Decode again what `_open_stream` decoded: for each tick picture number `index[tick]`."""
    turns = Counter(index)
    with opener() as box, suppress(av.FFmpegError):  # the file breaks off
        number, turned = 0, None
        for packet in box.demux(_video_stream(box)):
            pictures = []
            with suppress(av.FFmpegError):
                pictures = packet.decode()
            for picture in pictures:
                turned = _turned_alike(turned, picture)
                if turns[number]:
                    pixels = colours.upright(colours.to_rgb(picture, colour), turned)
                    yield from repeat(pixels, turns[number])
                if number == index[-1]:
                    return
                number += 1


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
