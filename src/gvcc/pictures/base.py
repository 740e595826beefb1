"""The base layer of mode v2v: a coarse version of a GOP's pictures by a classical codec.

basecodecs.py has the streams, enlarge.py the smaller sizes; YUV to RGB is that of stills.py. All of
it is integers: the base's pictures are the same on every machine.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from fractions import Fraction

from gvcc.errors import ConfigError
from gvcc.format.base import BaseRecord
from gvcc.pictures import basecodecs, enlarge, stillcodecs, stills
from gvcc.pictures.basecodecs import BY_NAME, BaseCodec, Spool
from gvcc.records import Pictures


class Refused(ConfigError):
    """An encoder does not take these pictures: libvvenc fails on some small ones."""


def codec(name: str) -> BaseCodec:
    """A codec by its name in the format."""
    return BY_NAME[name]


def available(name: str) -> bool:
    """Whether this machine can encode by it; it can decode both."""
    return name == "av1" or stillcodecs.ffmpeg() is not None


def small(base: BaseRecord, height: int, width: int, count: int) -> Iterator[Pictures]:
    """The `count` pictures of a base as they are coded, [h,w,3] each (enlarge.coded_sides).
    Raises Corrupt, as soon as what is wrong is met."""
    h, w = enlarge.coded_sides(height, width, base.size)
    for planes in basecodecs.decode(codec(base.codec), base.sets, base.stream, h, w, count):
        yield stills.to_rgb(planes, 10)


def decode(base: BaseRecord, height: int, width: int, count: int) -> Iterator[Pictures]:
    """The `count` pictures of a base at full size, [height,width,3] each. Raises as `small`."""
    for picture in small(base, height, width, count):
        yield enlarge.enlarged(picture, height, width, base.size)


def spooled(
    pictures: Iterable[Pictures], height: int, width: int, sizes: Iterable[int],
    kept: Spool | None = None,
) -> dict[int, Spool]:  # fmt: skip
    """Pictures [height,width,3], read once, as they are to be coded at 1/size of each side; `kept`
    gets them as they are."""
    out = {size: Spool(*enlarge.coded_sides(height, width, size)) for size in sizes}
    for picture in pictures:
        if kept is not None:
            kept.add(picture)
        for size, spool in out.items():
            spool.add(stills.from_rgb(enlarge.shrunk(picture, size), 10))
    return out


def coded(
    spool: Spool, name: str, size: int, fps: Fraction, index: int, preset: str | None = None
) -> BaseRecord:
    """The base of spooled pictures at an index of quality, by the codec's own preset or another;
    Refused where the encoder fails."""
    own = codec(name)
    try:
        sets, stream = own.write(spool, fps, preset or own.preset, index)
    except stillcodecs.Unpackable as e:
        other = "; base av1 has no such limit" if name == "vvc" else ""
        raise Refused(
            f"{name} codes no base of {spool.count} pictures of {spool.width}x{spool.height} "
            f"(1/{size} of each side, to a multiple of 8){other}: {e}"
        ) from None
    return BaseRecord(name, size, own.told(index), sets, stream)
