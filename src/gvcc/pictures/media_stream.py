"""A stream of a container as a clip: surveyed once for its times, decoded once for what it is."""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Iterator
from contextlib import suppress
from dataclasses import dataclass, field
from fractions import Fraction
from functools import partial
from heapq import heappop, heappush
from itertools import repeat
from typing import Any

import av
import numpy as np
from numpy.typing import NDArray

from gvcc.errors import MediaError
from gvcc.pictures import audio, media_audio, media_structure, media_time
from gvcc.pictures import colour as colours
from gvcc.pictures.colour import Tags
from gvcc.pictures.media_clip import Decoder, pixel_aspect
from gvcc.pictures.media_notices import Damage, Looks, is_cover, of_rate, of_tracks
from gvcc.pictures.media_source import Source, complaint, described, listening
from gvcc.records import Colour, Notice

STILL_RATE = Fraction(24)
_RAW_RATE = Fraction(25)  # ffmpeg's own for streams that do not say

_GENERATE_PTS, _NO_TIMESTAMPS = 1, 0x80  # of libavformat
# Formats that say how long they are; of others ffmpeg reckons it from what is there.
_DECLARE = {"mov", "matroska", "flv", "asf", "mxf"}


@dataclass(frozen=True)
class Asked:
    """What the caller of `media.open_clip` wants of a file, by the names there."""

    frames: int | None
    fps: Fraction | None
    tags: Tags
    audio: bool
    audio_track: int | None


@dataclass
class _Survey:
    """What the packets of a file say, none of them decoded."""

    number: int  # of the video stream among all
    fps: Fraction = STILL_RATE
    raw: bool = False  # without time stamps
    clean: bool = True  # the first picture needs no other, nor does any after it
    by_dts: bool = False  # with stamps for the order of decoding only
    held: Fraction = Fraction(0)  # until when empty packets keep a picture on screen, seconds
    sound: Any = None
    sounds: list[Any] = field(default_factory=list)  # its packets
    length: Fraction | None = None  # as the file declares it, seconds
    damage: Damage = field(default_factory=Damage)
    notices: list[Notice] = field(default_factory=list)


@dataclass(frozen=True)
class _View:
    """How a decoded picture becomes pixels."""

    colour: Colour
    crop: tuple[slice, slice]

    def pixels(self, picture: Any, turned: Any) -> NDArray[np.uint8]:
        """Upright RGB, uint8 [H,W,3]; `turned` is a picture with the same display matrix."""
        cropped = np.ascontiguousarray(colours.to_rgb(picture, self.colour)[self.crop])
        return colours.upright(cropped, turned)

    def shape(self, picture: Any, turned: Any) -> tuple[int, ...]:
        """The shape of `pixels`, which are not made."""
        blank = np.empty((picture.height, picture.width, 3), np.uint8)
        return colours.upright(blank[self.crop], turned).shape


@dataclass
class _Seen:
    """What decoding the pictures showed, of as many as are asked for."""

    view: _View
    turned: Any
    shape: tuple[int, ...]
    aspect: Fraction
    looks: Looks
    stamps: list[int | None] = field(default_factory=list)
    tail: Fraction = Fraction(0)  # how long the last one stays, seconds
    part: bool = False  # there are more


def open_stream(name: str, source: Source, asked: Asked) -> Decoder:
    """The best video stream of a container as a clip; see `media.open_clip`."""
    with source.container() as box:
        survey = _surveyed(box, name, source, asked)
        fps, base = survey.fps, box.streams[survey.number].time_base
        seen = _watched(source, survey, asked)
        order = media_time.in_order(seen.stamps, 1 / (fps * base))
        times = [time * base for time in order]
        tail = max(seen.tail, survey.held - times[-1])
        index = media_time.on_screen(times, fps, tail, asked.fps is None)
        part = seen.part or (asked.frames is not None and len(index) >= asked.frames)
        index = index[: asked.frames]
        length = len(index) / fps
        shown = index[-1] + 1 if part else len(times)
        track, of_sound = None, tuple[Notice, ...]()
        if survey.sound is not None:
            until = None if asked.frames is None else length
            track, of_sound = audio.track(survey.sound, survey.sounds, times[0], until)
    notices = survey.damage.notices(
        times[0], times[0] + length, part, survey.length, seen.looks.interlaced > 0
    )
    notices += of_rate(shown, index, fps, asked.fps is not None)
    notices += seen.looks.notices() + survey.notices
    decode = partial(_ticks, source, survey, seen.view, index)
    height, width, _ = seen.shape
    return Decoder(
        name, decode, fps, seen.view.colour, track, len(index), height, width, seen.aspect,
        (*notices, *of_sound),
    )  # fmt: skip


def _surveyed(box: Any, name: str, source: Source, asked: Asked) -> _Survey:
    """Go through all packets: even if few pictures are asked for, the others tell the rate."""
    video = _video(box)
    form = box.format.name
    survey = _Survey(video.index, raw=bool(box.format.flags & _NO_TIMESTAMPS))
    survey.raw |= form.endswith("_pipe")  # images one behind the other
    survey.raw &= form != "mxf"  # which has them, but says otherwise
    if asked.audio:
        survey.sound = media_audio.pick(box, asked.audio_track, name)
    survey.notices += of_tracks(box, video, survey.sound, asked.audio)
    if _DECLARE & set(form.split(",")):
        lengths = [Fraction(box.duration or 0, 1_000_000), (video.duration or 0) * video.time_base]
        survey.length = max(lengths) or None
    elif form == "avi" and video.average_rate:
        survey.length = video.frames / video.average_rate
    damage, base = survey.damage, video.time_base
    with source.file() as file:
        flaw = media_structure.flaw(file, form)
    # Other formats have an index of times, not of packets.
    indexed = len(video.index_entries) if {"mov", "avi"} & set(form.split(",")) else 0
    box.flags &= ~_GENERATE_PTS  # it makes them up for what has none, as AVI, and badly
    pts: list[int | None] = []
    dts: list[int | None] = []
    count, before, behind, last = 0, 0, False, None
    try:
        for packet in box.demux([s for s in (video, survey.sound) if s is not None]):
            stamp = packet.dts if packet.pts is None else packet.pts
            if packet.stream is survey.sound:
                if packet.size:
                    survey.sounds.append(packet)
                    damage.bad_sound.see(packet)
                continue
            count += bool(packet.size) or stamp is not None
            if not packet.size:
                if stamp is not None:
                    survey.held = max(survey.held, (stamp + (packet.duration or 0)) * base)
                continue
            if last is None:
                survey.clean = media_structure.starts_clean(bytes(packet), video.name)
            damage.bad_video.see(last := packet)
            if flaw is not None and packet.pos is not None and packet.pos >= flaw:
                behind = True
            elif stamp is not None:
                before = max(before, stamp)
            if not packet.is_discard:
                pts.append(packet.pts)
                dts.append(packet.dts)
    except av.FFmpegError as error:  # the file breaks off: keep what came before
        damage.error = error.strerror or str(error)
    damage.missing = max(0, indexed - count)
    if flaw is not None:
        damage.flaw, damage.cut = before * base, not behind
    if last is not None and _lacks_an_end(last, box, survey.raw):
        damage.error = "its last picture is not whole"
    survey.by_dts = not survey.raw and all(stamp is None for stamp in pts)
    _settle_rate(survey, video, dts if None in pts else pts, asked)
    return survey


def _lacks_an_end(last: Any, box: Any, raw: bool) -> bool:
    """Whether a file of frames without more goes on after its last packet, or ends inside it."""
    if box.format.name == "yuv4mpegpipe":
        return last.pos is not None and last.pos + last.size < box.size
    return raw and last.stream.name == "mjpeg" and b"\xff\xd9" not in bytes(last)


def _settle_rate(survey: _Survey, video: Any, stamps: list[int | None], asked: Asked) -> None:
    """Set the survey's rate, from what the user asks for, the `stamps`, or what the stream says."""
    declared = [r for r in (video.average_rate, video.base_rate, video.guessed_rate) if r]
    if asked.fps is not None:
        survey.fps = asked.fps
    elif survey.raw:
        coded = video.codec_context.framerate
        survey.fps = coded if coded and 1 <= coded <= 300 else _RAW_RATE
        if survey.fps != coded and len(stamps) > 1:
            survey.notices.append(Notice("note", f"it says nothing of its rate: {_RAW_RATE} fps is "
                                         "taken (--fps)"))  # fmt: skip
    else:
        step = 1 / ((declared or [STILL_RATE])[0] * video.time_base)
        order = media_time.in_order([stamp for stamp in stamps if stamp is not None], step)
        survey.fps = media_time.rate(order, video.time_base, declared) or STILL_RATE


def _watched(source: Source, survey: _Survey, asked: Asked) -> _Seen:
    """Decode the pictures that are asked for, once, to learn what they are."""
    seen: _Seen | None = None
    damage, sent, size, failed = survey.damage, list[int | None](), None, 0
    said = 0  # of what is heard, what is of pictures that are asked for
    with source.container() as box, listening() as heard:
        video = box.streams[survey.number]
        base, words = video.time_base, described(box, video)
        for picture, stamp in _decoded(box, video, survey.by_dts, sent):
            if picture is None:
                failed += 1
                continue
            stamp = None if survey.raw else stamp
            if seen is None:
                view = _View(colours.of_picture(picture, asked.tags), _crop(words, picture))
                shape = view.pixels(picture, picture).shape  # tells what cannot be converted
                looks = Looks(words, video.metadata.get("alpha_mode") == "1")
                seen = _Seen(view, picture, shape, pixel_aspect(video, picture), looks)
            now = (picture.width, picture.height, picture.rotation)
            if now != size:
                size, seen.turned = now, _turned_alike(seen.turned, picture)
                if (found := view.shape(picture, seen.turned)) != shape:
                    text = "changes size from {1}x{0} to {4}x{3}".format(*shape, *found)
                    after = None if stamp is None else (stamp - (seen.stamps[0] or 0)) * base
                    raise MediaError(
                        text + (f" at {float(after):.2f} s" if after is not None else "")
                    )
            seen.stamps.append(stamp)
            if asked.frames is not None and _suffice(seen.stamps, asked.frames, survey.fps * base):
                seen.part = True  # and what failed just now is beyond it
                break
            damage.failed, failed, said = damage.failed + failed, 0, len(heard)
            damage.bad_pictures += picture.is_corrupt
            seen.looks.see(picture, view.colour)
            seen.tail = Fraction(0) if survey.raw else (picture.duration or 0) * base
        else:
            damage.failed, said = damage.failed + failed, len(heard)
        damage.complaint = complaint(heard[:said], video.codec_context.codec)
        if seen is None:
            raise MediaError(f"no picture decodes: {_why(box, survey)}")
        if not seen.part:
            damage.codec = video.codec_context.codec.canonical_name
            damage.pictures = len(seen.stamps)
            first = min((stamp for stamp in seen.stamps if stamp is not None), default=None)
            # Those before the first one shown lean on pictures that are not in the file.
            damage.packets = sum(
                survey.clean if first is None else stamp is not None and stamp >= first
                for stamp in sent
            )  # fmt: skip
    return seen


def _why(box: Any, survey: _Survey) -> str:
    """Why there is not a single picture."""
    if box.format.name == "webp_pipe":
        return "an animated WebP is beyond the ffmpeg that is used here"
    if survey.damage.failed:
        return "Invalid data found when processing input"
    return survey.damage.error or "it has none"


def _decoded(
    box: Any, video: Any, by_dts: bool, sent: list[int | None] | None = None
) -> Iterator[tuple[Any, int | None]]:
    """Each picture in the order of display with its time stamp; (None, None) for one that fails.

    `by_dts`: the stamps of the packets are dealt out to the pictures in turn. `sent` gets the stamp
    of every packet that should give a picture.
    """
    # Frame threads would lose pictures that are whole after one that is not.
    video.thread_type = "SLICE"
    waiting: list[int] = []
    shown = False
    for packet in _packets(box, video):
        if sent is not None and packet is not None and not packet.is_discard:
            sent.append(packet.pts)
        try:
            pictures = video.decode(packet)
        except av.FFmpegError:
            if shown or packet is None or packet.is_keyframe:  # else the stream starts amid a GOP
                yield None, None
            continue
        if by_dts and packet is not None and packet.dts is not None:
            heappush(waiting, packet.dts)
        for picture in pictures:
            shown = True
            yield picture, (heappop(waiting) if by_dts and waiting else picture.pts)


def _packets(box: Any, video: Any) -> Iterator[Any]:
    """The packets of a stream as far as they can be read, and None, to get what a decoder holds."""
    with suppress(av.FFmpegError):  # the file breaks off
        # Empty ones say that the former picture stays, and would end the decoding.
        yield from (packet for packet in box.demux(video) if packet.size)
    yield None


def _ticks(
    source: Source, survey: _Survey, view: _View, index: list[int]
) -> Iterator[NDArray[np.uint8]]:
    """Decode again what was decoded at the opening: for each tick picture number `index[tick]`."""
    turns = Counter(index)
    number, turned = 0, None
    with source.container() as box:
        video = box.streams[survey.number] if survey.number < len(box.streams) else None
        if video is None or video.type != "video" or video.codec_context is None:
            raise MediaError("has changed since it was opened: its video is gone")
        for picture, _ in _decoded(box, video, survey.by_dts):
            if picture is None:
                continue
            turned = _turned_alike(turned, picture)
            if turns[number]:
                yield from repeat(view.pixels(picture, turned), turns[number])
            if number == index[-1]:
                return
            number += 1


def _video(box: Any) -> Any:
    """The video stream to read: none that is a cover picture."""
    videos = [stream for stream in box.streams.video if not is_cover(stream)]
    if not videos:
        covers = "video, only a cover picture" if box.streams.video else "video stream"
        raise MediaError(f"no {covers}")
    best = box.streams.best("video")
    best = best if best in videos else videos[0]
    if best.codec_context is None:
        raise MediaError("no video stream that can be decoded")
    return best


def _turned_alike(before: Any, picture: Any) -> Any:
    """A picture with the display matrix of `picture`: the same as `before`, if it will do.

    PyAV's `side_data` puts a picture into a reference cycle, so each one that is asked for it keeps
    its memory until the garbage collector runs: hundreds of them.
    """
    return before if before is not None and before.rotation == picture.rotation else picture


def _suffice(stamps: list[int | None], frames: int, step: Fraction) -> bool:
    """Whether the pictures so far cover `frames` ticks, `step` of them per unit of the stamps."""
    if len(stamps) <= frames:
        return False
    first, last = stamps[0], stamps[-1]
    return first is None or last is None or (last - first) * step >= frames


def _crop(words: str, picture: Any) -> tuple[slice, slice]:
    """Rows and columns that a container wants shown, of what `described` says of the stream."""
    found = re.search(r"Frame Cropping: (\d+)/(\d+)/(\d+)/(\d+)", words)
    left, right, top, bottom = map(int, found.groups()) if found else (0, 0, 0, 0)
    if left + right >= picture.width or top + bottom >= picture.height:
        return slice(None), slice(None)
    return slice(top, -bottom or None), slice(left, -right or None)
