"""Which audio track of a video file is carried."""

from __future__ import annotations

from typing import Any

from av.stream import Disposition

from gvcc.errors import ConfigError
from gvcc.pictures.media_notices import counted


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
