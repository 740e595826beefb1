"""Images as a clip: one, or a folder of them."""

from __future__ import annotations

import gc
import io
import re
import struct
from collections.abc import Iterator
from dataclasses import dataclass, field
from fractions import Fraction
from functools import partial
from itertools import pairwise
from pathlib import Path
from typing import Any

import av
import numpy as np
from numpy.typing import NDArray

from gvcc.errors import MediaError
from gvcc.pictures import colour as colours
from gvcc.pictures import media_structure
from gvcc.pictures.colour import Tags
from gvcc.pictures.media_clip import Decoder, pixel_aspect
from gvcc.pictures.media_notices import Looks, counted
from gvcc.pictures.media_source import complaint, listening
from gvcc.records import Colour, Notice

# Formats of one image or many.
_MOVING = ("apng", "gif")


def moves(path: Path) -> bool:
    """Whether a file with the suffix of an image holds a video, such as an animated PNG."""
    try:
        with av.open(io.BytesIO(path.read_bytes()), metadata_errors="replace") as box:
            form = box.format.name
            return form in _MOVING or not form.endswith("_pipe")
    except (av.FFmpegError, OSError):
        return False  # told when it is read


def open_stills(name: str, frames: int | None, tags: Tags, fps: Fraction) -> Decoder:
    """The first `frames` images of a folder, or one image."""
    paths, about = [Path(name)], _About()
    if paths[0].is_dir():
        inside = (e for e in paths[0].iterdir() if e.suffix.lower() in colours.STILLS)
        paths = sorted((e for e in inside if not e.name.startswith(".")), key=_natural)[:frames]
        about.lost += _gaps(paths)
    if not paths:
        raise MediaError(f"no images in the folder ({', '.join(colours.STILLS)})")
    for pixels in _stills(paths, tags, about):
        height, width, _ = pixels.shape
    decode = partial(_stills, paths, tags)
    return Decoder(
        name, decode, fps, Colour(), None, len(paths), height, width, about.aspect or Fraction(1),
        (*about.damage, *about.looks.notices(), *about.lost),
    )  # fmt: skip


@dataclass
class _About:
    """What there is to say of images, gathered as they are read."""

    aspect: Fraction | None = None  # of the first
    looks: Looks = field(default_factory=Looks)
    damage: list[Notice] = field(default_factory=list)
    lost: list[Notice] = field(default_factory=list)


def _stills(
    paths: list[Path], tags: Tags, about: _About | None = None
) -> Iterator[NDArray[np.uint8]]:
    """Each image, uint8 [H,W,3]; `MediaError` if one is damaged or sizes differ."""
    first: tuple[int, ...] | None = None
    for path in paths:
        pixels = _still(path, tags, about, len(paths) == 1)
        if (height_width := pixels.shape[:2]) != (first := first or height_width):
            sizes = (
                f"{pixels.shape[1]}x{pixels.shape[0]}, but {paths[0].name} {first[1]}x{first[0]}"
            )
            raise MediaError(f"images differ in size: {path.name} has {sizes}")
        gc.collect(1)  # see media_stream; 1, for one that outlived a collection of 0
        yield pixels


def _still(path: Path, tags: Tags, about: _About | None, alone: bool) -> NDArray[np.uint8]:
    """One image file: upright RGB, uint8 [H,W,3]. Raises `MediaError` if it is damaged, with its
    name unless it is `alone`."""
    data = b""
    try:
        # From memory, since by name ffmpeg would take a "%" for a numbered sequence.
        data = path.read_bytes()
        with av.open(io.BytesIO(data), metadata_errors="replace") as box, listening() as heard:
            video = box.streams.video[0]
            picture = next(box.decode(video))
            colour = colours.of_picture(picture, tags)
            if about is not None:
                about.aspect = about.aspect or pixel_aspect(video, picture)
                about.looks.see(picture, colour)
                if media_structure.flaw(io.BytesIO(data), box.format.name) is not None:
                    about.damage.append(Notice("broken", f"{path.name} is cut short or damaged"))
                elif picture.is_corrupt:
                    about.damage.append(Notice("broken", f"{path.name} decodes with errors"))
                elif said := complaint(heard, video.codec_context.codec):
                    text = f"{path.name} is damaged: its decoder says {said!r}"
                    about.damage.append(Notice("broken", text))
                if more := _beyond_first(box, video, data):
                    text = f"{counted(more, 'picture')} of {path.name} left out, all but the first"
                    about.lost.append(Notice("lost", text))
    except (av.FFmpegError, OSError, StopIteration, IndexError) as error:
        reason = getattr(error, "strerror", None) or "no picture in it"
        if data[8:12] == b"WEBP" and b"ANIM" in data[:64]:
            reason = "an animated WebP is beyond the ffmpeg that is used here"
        raise MediaError(reason if alone else f"{path.name}: {reason}") from error
    # A copy, since an array over the picture's own memory would keep the picture with it.
    return colours.upright(colours.to_rgb(picture, colour), picture).copy()


def _beyond_first(box: Any, video: Any, data: bytes) -> int:
    """How many pictures an image file holds besides its first."""
    if box.format.name in _MOVING:
        return sum(packet.size > 0 for packet in box.demux(video))
    order = {b"II*\0": "<", b"MM\0*": ">"}.get(data[:4])
    if order is None:
        return 0
    pages, seen = 0, set[int]()  # of a TIFF: directories that are chained
    place = int(struct.unpack_from(order + "I", data, 4)[0])
    while 0 < place <= len(data) - 2 and place not in seen:
        seen.add(place)
        pages += 1
        after = place + 2 + 12 * struct.unpack_from(order + "H", data, place)[0]
        place = int.from_bytes(data[after : after + 4], "little" if order == "<" else "big")
    return max(0, pages - 1)


def _gaps(paths: list[Path]) -> list[Notice]:
    """What to say of images whose numbers, the only thing that tells their names apart, are not
    one behind the other."""
    keys = [_natural(path) for path in paths]
    differ = {i for a, b in pairwise(keys) for i, (x, y) in enumerate(zip(a, b, strict=False))
              if x != y}  # fmt: skip
    if len({len(key) for key in keys}) != 1 or len(differ) != 1:
        return []
    (place,) = differ
    numbers = [key[place] for key in keys]
    gaps = [(a.name, b.name) for a, b, m, n in zip(paths, paths[1:], numbers, numbers[1:],
            strict=False) if isinstance(m, int) and isinstance(n, int) and n > m + 1]  # fmt: skip
    if not gaps:
        return []
    steps = {n - m for m, n in pairwise(numbers) if isinstance(m, int) and isinstance(n, int)}
    if len(steps) == 1:  # every tenth, say: that is meant
        return []
    first, second = gaps[0]
    text = f"numbers are missing between {first} and {second}"
    if len(gaps) > 1:
        text += f", and at {counted(len(gaps) - 1, 'other place')}"
    return [Notice("note", f"{text}: the pictures follow each other all the same")]


def _natural(path: Path) -> list[str | int]:
    """A sort key: the texts and the numbers of a name, which take turns."""
    parts = re.split(r"([0-9]+)", path.name.lower())
    return [int(part) if place % 2 else part for place, part in enumerate(parts)]
