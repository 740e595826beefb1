"""Going on with an encoding that broke off, and the proof that it is this one.

A header alone proves nothing: with many targets it does not depend on the clip. So each part of a
stream has a proof, a line of text to be kept beside it: that of the header says what was asked of
which clip, that of a GOP is a digest of the pictures it was made from.
"""

from __future__ import annotations

import dataclasses
import hashlib
import json
from collections.abc import Callable, Iterable, Iterator, Sequence
from io import BytesIO
from typing import Any, NamedTuple

import numpy as np

from gvcc.errors import ConfigError, FormatError
from gvcc.format.bitstream import Header
from gvcc.format.parser import StoredGop, StreamReader
from gvcc.records import Clip, Pictures
from gvcc.search.config import EncodeConfig

_NOT_CODED = ("device", "offload", "prior")  # of a configuration: the prior is its weights


class Begun(NamedTuple):
    """The beginning of a stream, and the proofs of its parts."""

    data: bytes
    proofs: Sequence[str]


def of_header(header: Header, config: EncodeConfig, clip: Clip) -> str:
    """The proof of a stream's header: everything asked for, and what the clip is."""
    asked: dict[str, Any] = {f.name: getattr(config, f.name) for f in dataclasses.fields(config)}
    asked = {k: v for k, v in asked.items() if k not in _NOT_CODED}
    asked |= {"settings": dict(config.settings), "prior": header.prior}
    asked |= {"weights": header.digest.hex()}
    sound = hashlib.sha256()
    if header.audio and (audio := clip.audio) is not None:
        about = (audio.codec, audio.rate, audio.layout, audio.time_base, audio.extradata)
        sound.update(repr(about).encode())
        for p in audio.packets:
            sound.update(f"{p.pts} {p.duration} {len(p.data)} ".encode() + p.data)
    source = {
        "width": clip.width, "height": clip.height, "frames": clip.count, "fps": str(clip.fps),
        "colour": dataclasses.asdict(clip.colour), "pixel aspect": str(clip.pixel_aspect),
        "audio": sound.hexdigest()[:16] if header.audio else None,
    }  # fmt: skip
    return json.dumps({"settings": asked, "clip": source})


def of_pictures(pictures: Iterable[Pictures]) -> str:
    """The proof of a GOP: a digest of the clip's pictures that it codes, uint8 [H,W,3] each."""
    found = hashlib.sha256()
    for picture in pictures:
        found.update(np.ascontiguousarray(picture).data)
    return found.hexdigest()


def whole(
    begun: Begun, head: bytes, proof: str, pictures: Callable[[int], Iterable[Pictures]]
) -> Iterator[StoredGop]:
    """The whole GOPs at the beginning of a stream, all proved before the first is handed out.

    `head` and `proof` are those of the stream that goes on; `pictures(i)`, called in order, gives
    the clip's own of GOP i. Raises ConfigError, which says what differs, if the beginning is of
    other settings or of another clip.
    """
    try:
        reader = StreamReader(BytesIO(begun.data))
    except FormatError as e:
        if head.startswith(begun.data):  # broken off within the header
            return iter(())
        raise ConfigError(f"the unfinished file is not of this encoding: {e}") from None
    if not begun.proofs:
        raise ConfigError("nothing proves which clip and settings the unfinished file is of")
    _compare(begun.proofs[0], proof)
    if reader.head != head:
        raise ConfigError("the unfinished file is of another clip: its pictures ask for other bits")
    found = list(_whole(reader, len(begun.proofs) - 1))
    for coded, known in zip(found, begun.proofs[1:], strict=False):
        if of_pictures(pictures(coded.index)) != known:
            first = coded.gop.start + coded.gop.skip
            raise ConfigError(
                "the unfinished file is of another clip: they differ within frames "
                f"{first} to {coded.gop.end - 1}"
            )
    return iter(found)


def _compare(old: str, new: str) -> None:
    try:
        before: dict[str, dict[str, Any]] = json.loads(old)
        now: dict[str, dict[str, Any]] = json.loads(new)
        told = {
            kind: [
                f"{name.replace('_', ' ')} {before[kind].get(name)}, now {value}"
                for name, value in now[kind].items() if before[kind].get(name) != value
            ] for kind in now
        }  # fmt: skip
    except (ValueError, TypeError, KeyError, AttributeError):
        raise ConfigError("what proves the unfinished file's origin is damaged") from None
    for kind, of in (("settings", "other settings"), ("clip", "another clip")):
        if told[kind]:
            raise ConfigError(f"the unfinished file is of {of}: {'; '.join(told[kind])}")


def _whole(reader: StreamReader, most: int) -> Iterator[StoredGop]:
    """At most so many GOPs of a stream, up to the first that is not whole."""
    try:
        for r in reader.records():
            if isinstance(r, StoredGop):
                if not r.whole or r.index >= most:
                    return
                yield r
    except FormatError:
        return
