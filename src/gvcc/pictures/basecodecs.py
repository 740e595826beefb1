"""The two classical codecs of a base layer: AV1 and VVC streams, 10 bit, 4:2:0.

A base stream is one closed group of pictures: a keyframe first, and nothing that it needs before
it. What a decoder can derive is taken out: of AV1 the temporal delimiters, of VVC the start codes,
of both the sets before the first picture if basesets.py knows them.
Pictures are planar, [3 H / 2, W] little-endian uint16 (stills.to_rgb), H and W multiples of 8.
"""

from __future__ import annotations

import math
import os
import tempfile
from collections.abc import Callable, Iterator
from fractions import Fraction
from pathlib import Path
from typing import Any, NamedTuple

import av
import numpy as np
from numpy.typing import NDArray

from gvcc.errors import ConfigError, Corrupt
from gvcc.format.cursor import varint
from gvcc.pictures import basesets, stillcodecs, svt
from gvcc.pictures.stillcodecs import Unpackable

Planes = NDArray[np.uint16]
# VVC's splits in two and three, between pictures: one more than in preset medium, as in slow. For a
# sixth of the time that slow adds it has a third of what slow gains (bench/systems/base_depth.py).
DEPTH = 2
PARTS = 32  # of VVC's QP, that an index of quality counts
_REST = 3  # times more the pictures between change than all would
_SHORT = 64  # pictures of a group that is coded by two threads
_SEQUENCE = 1  # OBU types, and those that no picture needs
_DELIMITER, _METADATA, _PADDING = 2, 5, 15
_ENDS = (3, 4, 6)  # frame header, tile group, frame: a decoder may be given what it has
_VVC_SETS = (14, 15, 16)  # NAL unit types; what no picture needs: delimiters, information
_VVC_IGNORED = (20, 23, 24)


class Spool:
    """Pictures of a group in a file, so that they can be read more than once and memory does not
    grow with their number: planar ones of `height` and `width`, or RGB."""

    def __init__(self, height: int, width: int, rgb: bool = False) -> None:
        self.height, self.width, self.count = height, width, 0
        self._file = tempfile.NamedTemporaryFile(prefix="gvcc-base-")  # noqa: SIM115
        self._shape = (height, width, 3) if rgb else (3 * height // 2, width)
        self._type = np.dtype("u1" if rgb else "<u2")

    def add(self, picture: NDArray[Any]) -> None:
        """One picture more. ConfigError if the disk is full."""
        assert picture.shape == self._shape
        try:
            self._file.write(np.ascontiguousarray(picture, self._type).tobytes())
        except OSError as e:
            raise ConfigError(f"{self._file.name}: {e.strerror}; $TMPDIR chooses the folder") from e
        self.count += 1

    @property
    def path(self) -> Path:
        """The file, all of it written."""
        self._file.flush()
        return Path(self._file.name)

    def __iter__(self) -> Iterator[NDArray[Any]]:
        each = math.prod(self._shape) * self._type.itemsize
        with self.path.open("rb") as f:
            for _ in range(self.count):
                yield np.frombuffer(f.read(each), self._type).reshape(self._shape)

    def close(self) -> None:
        """Give the file back."""
        self._file.close()


class BaseCodec(NamedTuple):
    """One way to code a base. Indices of quality count from `finest` to `coarsest`; a stream
    shrinks by about 2^-`slope` with each. `told` makes of an index the quantiser that a restorer
    is told, 0 to 255: AV1's base quantiser index, four times VVC's QP."""

    name: str
    finest: int
    coarsest: int
    slope: float
    rough: int  # no smaller base up to it: none looks better to QP 51 (bench/systems/restorer.py)
    start: int  # about right for 0.01 bits per coded pixel
    scout: str | None  # preset that finds an index at a part of the time
    scout_ratio: float  # of its size to that of the codec's preset
    preset: str
    told: Callable[[int], int]
    asked: Callable[[int], int]  # about the inverse
    # The number of the sets (None: they are not known, and in the stream), and the stream
    write: Callable[[Spool, Fraction, str, int], tuple[int | None, bytes]]
    sets: Callable[[int, int, int], bytes]  # by number, height, width: as a decoder wants them
    # A stream -> its parts as a decoder wants them, and whether a picture ends with each; Corrupt
    parts: Callable[[bytes], Iterator[tuple[bytes, bool]]]
    decoder: str

    def units(self, stream: bytes, sets: bytes = b"") -> Iterator[bytes]:
        """A stream as packets for the decoder, each the end of a picture. Raises Corrupt."""
        held = sets
        for part, ends in self.parts(stream):
            held += part
            if ends:
                yield held
                held = b""
        if held:
            raise Corrupt("a base ends between two pictures")


# -- AV1 --------------------------------------------------------------------------------------


def _leb128(data: memoryview, at: int) -> tuple[int, int]:
    value = 0
    for i in range(8):
        if at + i >= len(data):
            raise Corrupt("a base ends inside a length")
        value |= (data[at + i] & 127) << 7 * i
        if data[at + i] < 128:
            return value, at + i + 1
    raise Corrupt("a length in a base is too long")


def _obus(stream: bytes) -> Iterator[tuple[int, bytes]]:
    """The OBUs of a low-overhead stream: type, and the whole of it. Raises Corrupt."""
    data, at = memoryview(stream), 0
    while at < len(data):
        head = data[at]
        if head & 0x82 != 2 or head & 4 and at + 1 >= len(data):
            raise Corrupt("a base holds no OBU where one should begin")
        length, body = _leb128(data, at + 1 + (head >> 2 & 1))
        if length > len(data) - body:
            raise Corrupt("an OBU of a base is cut off")
        yield head >> 3 & 15, bytes(data[at : body + length])
        at = body + length


def _av1_parts(stream: bytes) -> Iterator[tuple[bytes, bool]]:
    for kind, obu in _obus(stream):
        if kind in (_DELIMITER, _METADATA, _PADDING):
            raise Corrupt(f"an OBU of type {kind} in a base")
        yield obu, kind in _ENDS


def _av1_sets(number: int, height: int, width: int) -> bytes:
    return b"".join(basesets.av1(number, height, width))


def _av1_write(spool: Spool, fps: Fraction, preset: str, index: int) -> tuple[int | None, bytes]:
    # Sixteenths of a CRF. It has quarters, of which the coarsest ones differ by 8 % of the size;
    # between them the Lagrangian does the rest, by which the encoder weighs bits against error.
    quarter = round(index / 4)
    strength = 0.06 + 0.4 * min(1.0, max(0.0, (quarter - 225) / 30))
    weight = round(128 * 2 ** ((index / 4 - quarter) * strength))
    # With more than one thread the encoder waits for ever on some small pictures (24 x 200), and
    # has twice as many pictures under way as soon as there are enough of them: a long group would
    # cost more memory than a short one. The stream is the same.
    threads = 2 if min(spool.height, spool.width) >= 128 and spool.count <= _SHORT else 1
    params = f"rc=0:crf={quarter / 4}:tune=1:lp={threads}:keyint=-1:scd=0"
    params += f":lambda-scale-factors=[{','.join([str(weight)] * 7)}]"
    options = {"preset": preset, "svtav1-params": params}
    sets, out = list[bytes](), bytearray()
    try:
        context = svt.encoder(spool.width, spool.height, "yuv420p10le", 1 / fps, options)

        def keep(packets: list[Any]) -> None:
            for packet in packets:
                for kind, obu in _obus(bytes(packet)):
                    if kind == _SEQUENCE and not out:
                        sets.append(obu)
                    elif kind not in (_DELIMITER, _METADATA, _PADDING):
                        out.extend(obu)

        for i, planes in enumerate(spool):
            frame = av.VideoFrame.from_ndarray(planes, format="yuv420p10le")
            frame.pts = i
            keep(context.encode(frame))
        keep(context.encode(None))
    except av.error.FFmpegError as err:
        raise Unpackable(f"libsvtav1: {err.strerror}") from err
    number = basesets.av1_number(sets, spool.height, spool.width)
    return number, b"".join(sets * (number is None)) + out


# -- VVC --------------------------------------------------------------------------------------


def _vvc_parts(stream: bytes) -> Iterator[tuple[bytes, bool]]:
    at = 0
    while at < len(stream):
        length, begin = _leb128(memoryview(stream), at)
        at = begin + length
        unit = stream[begin:at]
        if length < 3 or at > len(stream):
            raise Corrupt("a NAL unit of a base is cut off")
        if stillcodecs.holds_start_code(unit):
            raise Corrupt("a start code inside a base")
        yield b"\0\0\0\1" + unit, unit[1] >> 3 < 12  # a slice: one for each picture


def _vvc_sets(number: int, height: int, width: int) -> bytes:
    return b"".join(b"\0\0\0\1" + unit for unit in basesets.vvc(number, height, width))


def _vvc_write(spool: Spool, fps: Fraction, preset: str, index: int) -> tuple[int | None, bytes]:
    # Parts of a QP: quarters of it by the Lagrangian of all pictures, as above. Each quarter is a
    # draw: the first two pictures, most of the bytes, may take some percent more or less. What is
    # left of the index goes into the pictures between them, which changes them alone, and by as
    # much more as they are less of the stream.
    key = round(index / PARTS * 4) / 4
    qp = round(key)
    weight, between = (2 ** (x / 2) for x in (key - qp, key - qp + (index / PARTS - key) * _REST))
    params = f"LambdaModifier={weight:.4f}" + f" {between:.4f}" * 6
    if preset == "medium":  # a scout is to be fast
        params += f":MaxMTTDepth={DEPTH}"
    units = vvc_units(spool, fps, preset, qp, params)
    sets = [u for u in units if u[1] >> 3 in _VVC_SETS]
    number = basesets.vvc_number(sets, spool.height, spool.width)
    if number is not None:
        units = [u for u in units if u[1] >> 3 not in _VVC_SETS]
    return number, vvc_stream(units)


def vvc_units(spool: Spool, fps: Fraction, preset: str, qp: int, params: str) -> list[bytes]:
    """The NAL units of spooled pictures that a decoder needs, its sets among them, by a preset of
    libvvenc at a QP with further parameters, "NAME=VALUE:...". Raises Unpackable."""
    size, threads = f"{spool.width}x{spool.height}", min(4, os.cpu_count() or 1)
    params = f"accessunitdelimiter=0:poc0idr=1:{params}"
    stream = stillcodecs.run(
        [*stillcodecs.RAW_10, "-video_size", size, "-framerate", str(fps)],
        ["-c:v", "libvvenc", "-preset", preset, "-qp", str(qp), "-qpa", "0", "-period", "10000",
         "-threads", str(threads), "-vvenc-params", params, "-f", "vvc"], spool.path,
    )  # fmt: skip
    return [u for u in stillcodecs.nal_units(stream) if u[1] >> 3 not in _VVC_IGNORED]


def vvc_stream(units: list[bytes]) -> bytes:
    """NAL units as a base holds them."""
    return b"".join(varint(len(u)) + u for u in units)


_ALL = (
    BaseCodec(
        name="av1", finest=16, coarsest=4 * 280, slope=0.008, rough=4 * 270, start=4 * 255,
        scout=None, scout_ratio=1, preset="4", told=lambda i: min(255, round(i / 4)),
        asked=lambda q: 4 * q, write=_av1_write, sets=_av1_sets, parts=_av1_parts,
        decoder="libdav1d",
    ),
    BaseCodec(
        name="vvc", finest=12 * PARTS, coarsest=63 * PARTS, slope=0.16 / PARTS,
        rough=53 * PARTS, start=40 * PARTS, scout="faster", scout_ratio=1.2, preset="medium",
        told=lambda i: round(4 * i / PARTS), asked=lambda q: q * PARTS // 4, write=_vvc_write,
        sets=_vvc_sets, parts=_vvc_parts, decoder="vvc",
    ),
)  # fmt: skip
BY_NAME = {codec.name: codec for codec in _ALL}


def decode(
    codec: BaseCodec, number: int | None, stream: bytes, height: int, width: int, count: int
) -> Iterator[Planes]:
    """The `count` pictures of a stream with known sets or its own (None), planar, as they are
    decoded. Raises Corrupt, at the end too if there are not so many."""
    shown, sets = 0, b"" if number is None else codec.sets(number, height, width)
    try:
        for frame in _frames(codec, codec.units(stream, sets), height, width):
            planes = _planes(frame, height, width)
            if shown == count:
                raise Corrupt("the base holds more pictures than the group")
            shown += 1
            yield planes
    except av.error.FFmpegError as err:
        raise Corrupt(f"the base does not decode: {err.strerror}") from err
    if shown < count:
        raise Corrupt(f"the base holds {shown} pictures, not {count}")


def _frames(
    codec: BaseCodec, units: Iterator[bytes], height: int, width: int
) -> Iterator[av.VideoFrame]:
    context = stillcodecs.fenced(codec.decoder, height, width)
    for unit in units:
        yield from context.decode(av.Packet(unit))
    yield from context.decode(None)


def _planes(frame: av.VideoFrame, height: int, width: int) -> Planes:
    found = frame.format.name, frame.height, frame.width
    if found != ("yuv420p10le", height, width):
        raise Corrupt(f"the base holds a picture {found}, not yuv420p10le of {height} x {width}")
    if frame.is_corrupt:
        raise Corrupt("the base is damaged")
    return stillcodecs.planar(frame, 10)
