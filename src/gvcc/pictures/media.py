"""Video files in: anything ffmpeg reads becomes a clip that is decoded picture by picture.

What is kept: full-range RGB pictures, upright and cropped as the container asks, at a constant
rate, the colour tags, the aspect of a pixel, the packets of one audio track. What is not is told in
`Clip.notices`, as is damage: interlacing (fields stay woven), alpha (composited over black), bits
beyond 8, HDR metadata, subtitles, further tracks, chapters. Only the few samples of trimming that
some audio codecs store beside their packets go without a word.

Memory: one picture, the audio packets, and a few bytes for each frame. `Video` alone holds all.
"""

from __future__ import annotations

import os
from fractions import Fraction
from pathlib import Path
from typing import BinaryIO

import numpy as np

from gvcc.errors import ConfigError
from gvcc.errors import MediaError as MediaError
from gvcc.pictures import colour as colours
from gvcc.pictures import media_time
from gvcc.pictures.colour import Tags
from gvcc.pictures.media_out import MUXERS as MUXERS
from gvcc.pictures.media_out import reported
from gvcc.pictures.media_out import write as write
from gvcc.pictures.media_source import Source
from gvcc.pictures.media_stills import moves, open_stills
from gvcc.pictures.media_stream import STILL_RATE, Asked, open_stream
from gvcc.records import Audio as Audio
from gvcc.records import Clip as Clip
from gvcc.records import Colour as Colour
from gvcc.records import Notice as Notice
from gvcc.records import Packet as Packet
from gvcc.records import Video as Video


def read(
    path: str | os.PathLike[str] | BinaryIO,
    *,
    frames: int | None = None,
    fps: Fraction | None = None,
    matrix: str | None = None,
    full_range: bool | None = None,
    audio: bool = True,
    audio_track: int | None = None,
) -> Video:
    """Everything that `open_clip` with the same arguments gives, held in memory."""
    clip = open_clip(
        path, frames=frames, fps=fps, matrix=matrix, full_range=full_range, audio=audio,
        audio_track=audio_track,
    )  # fmt: skip
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
    audio_track: int | None = None,
) -> Clip:
    """A video file, a still, a folder of stills (in natural order of names) or "-", as a clip.

    Everything is decoded once here, to learn what there is and whether it is whole, and anew in
    every pass over `pictures()`. A file object is read from where it stands. One that cannot seek,
    a named pipe, and "-", y4m on standard input, are first copied to a temporary file that has no
    name and goes with the clip.

    `frames` reads only that many; `fps` is the rate of the clip, above 0 to 1000: the one at which
    stills (else 24) and streams without time stamps (else what they say, or 25) are played, and to
    which anything else is resampled. `matrix` ("bt709", "bt601", "bt2020nc") and `full_range`
    override the file's tags; a YUV file without tags is BT.709 from 720 lines up, else BT.601, and
    limited range. `audio_track` is the number, from 1, of the audio track to carry; else it is the
    one that the file calls its default, or its first.

    A file of variable rate becomes one of constant rate, if possible one at which every picture has
    a tick of its own (see `media_time.rate`): each tick gets the picture on screen in the middle of
    it, so that duration and audio stay in step. Pictures that do not decode are skipped the same
    way, their predecessor staying on screen. `notices` of the clip tell what is damaged or lost.

    Raises `MediaError` if nothing decodes, `ConfigError` for an illegal argument. A pass raises
    `MediaError` if the file is no longer the one that was opened.
    """
    if frames is not None and frames < 1:
        raise ConfigError(f"frames must be at least 1, not {frames}")
    if fps is not None:
        media_time.check(fps)
    if audio_track is not None and not audio:
        raise ConfigError("an audio track is asked for, and no audio")
    asked = Asked(frames, fps, Tags(matrix, full_range), audio, audio_track)
    place = None
    if isinstance(path, str | os.PathLike):
        name = os.fspath(path)
        place = None if name == "-" else Path(name)
    else:
        name = str(getattr(path, "name", "the stream"))
    with reported("read", name):
        if place is not None:
            if place.is_dir() or (place.suffix.lower() in colours.STILLS and not moves(place)):
                if audio_track is not None:
                    raise ConfigError(f"{name}: images have no audio track {audio_track}")
                return open_stills(name, frames, asked.tags, fps or STILL_RATE)
        return open_stream(name, Source.of(path), asked)
