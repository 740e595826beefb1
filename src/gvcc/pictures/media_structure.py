"""Whether a file's parts fit together as its format wants it: what is cut off or overwritten shows.

ffmpeg goes on at the next thing it understands, without a word, where the parts of a file do not
fit. Here they are gone through by their lengths alone, without what is in them.
"""

from __future__ import annotations

import os
import struct
from collections.abc import Callable
from typing import BinaryIO


class _Parts:
    """A file to go through; reads past its end raise `EOFError`."""

    def __init__(self, file: BinaryIO) -> None:
        self._file = file
        self.size = file.seek(0, os.SEEK_END)
        self.at = file.seek(0)

    def take(self, count: int) -> bytes:
        data = self._file.read(count)
        self.at += len(data)
        if len(data) < count:
            raise EOFError
        return data

    def number(self, form: str) -> int:
        value: int = struct.unpack(form, self.take(struct.calcsize(form)))[0]
        return value

    def skip(self, count: int) -> None:
        """Go on by `count` bytes, all of which must be there."""
        if self.at + count > self.size:
            raise EOFError
        self.at = self._file.seek(self.at + count)


def flaw(file: BinaryIO, form: str) -> int | None:
    """Where a file of the format that ffmpeg calls `form` goes wrong, in bytes; None: nowhere seen.

    Its length, if it ends inside a part.
    """
    check = next((found for name, found in _CHECKS.items() if name in form.split(",")), None)
    if check is None:
        return None
    parts = _Parts(file)
    try:
        return check(parts)
    except EOFError:
        return parts.size


def starts_clean(packet: bytes, codec: str) -> bool:
    """Whether no picture after `packet`, the first of H.264 or HEVC with start codes, leans on one
    before it: it is an IDR picture. True for other codecs."""
    kinds = {"h264": (0x1F, 0, {5}), "hevc": (0x7E, 1, {19, 20})}.get(codec)
    if kinds is None:
        return True
    mask, shift, wanted = kinds
    units = packet.split(b"\0\0\1")[1:]
    return any((unit[0] & mask) >> shift in wanted for unit in units if unit)


def _boxes(parts: _Parts) -> int | None:
    """MP4 and MOV: boxes. Without fragments, garbage between them is harmless."""
    fragmented = False
    while (start := parts.at) < parts.size:
        size, kind = struct.unpack(">I4s", parts.take(8))
        head, named = 8, all(0x20 <= byte < 0x7F or byte == 0xA9 for byte in kind)
        if size == 0 and named:  # to the end
            return None
        if size == 1:
            size, head = parts.number(">Q"), 16
        if size < head or not named:
            return start if fragmented else None
        fragmented |= kind == b"moof"
        parts.skip(size - head)
    return None


_SEGMENT, _CLUSTER = 0x18538067, 0x1F43B675
# What a segment and a cluster of Matroska may hold.
_LEVELS = {
    0x114D9B74, 0x1549A966, 0x1654AE6B, 0x1C53BB6B, 0x1941A469, 0x1043A770, 0x1254C367, _CLUSTER,
}  # fmt: skip
_BLOCKS = {0xE7, 0xA3, 0xA0, 0xA7, 0xAB, 0xAF, 0x5854}
_ANYWHERE = {0xEC, 0xBF}  # padding, a checksum


def _elements(parts: _Parts) -> int | None:
    """Matroska and WebM: the segment, its elements, and the blocks of its clusters."""
    ends = parts.size
    begun = inside = False  # a segment, a cluster
    while (start := parts.at) < ends:
        kind, _ = _varint(parts, 4, keep=True)
        size, unknown = _varint(parts, 8)
        if kind is None or size is None:
            return start
        if not begun:
            begun = kind == _SEGMENT
            if not begun:
                parts.skip(size)
            elif not unknown:
                ends = parts.at + size
                if ends > parts.size:
                    return parts.size
            continue
        inside = inside and kind not in _LEVELS
        if kind not in (_BLOCKS if inside else _LEVELS) | _ANYWHERE:
            return start
        if kind == _CLUSTER:
            inside = True
        elif unknown:
            return None  # another segment's, or one that only a parser of its content can end
        else:
            parts.skip(size)
    return None


def _varint(parts: _Parts, longest: int, keep: bool = False) -> tuple[int | None, bool]:
    """A number of variable length, and whether it means "unknown"; None: it is too long."""
    first = parts.take(1)[0]
    length = 9 - first.bit_length()
    if length > longest:
        return None, False
    value = int.from_bytes(bytes([first]) + parts.take(length - 1), "big")
    low = value & ((1 << 7 * length) - 1)
    return (value if keep else low), low == (1 << 7 * length) - 1


def _tags(parts: _Parts) -> int | None:
    """FLV: tags, each followed by its length."""
    parts.take(5)
    parts.skip(parts.number(">I") - 9 + 4)
    checked = False
    while (start := parts.at) < parts.size:
        size = int.from_bytes(parts.take(4)[1:], "big") + 11
        parts.skip(size - 4)
        if parts.number(">I") != size:
            return start if checked else None  # some writers have other ideas of this length
        checked = True
    return None


def _chunks(parts: _Parts) -> int | None:
    """AVI and WebP: RIFF chunks; a length that was never filled in says nothing."""
    while parts.at < parts.size:
        kind = parts.take(4)
        size = parts.number("<I")
        if kind != b"RIFF" or size in (0, 0xFFFFFFFF):
            return None
        parts.skip(size)
        if parts.at % 2 and parts.at < parts.size:
            parts.skip(1)
    return None


def _gif(parts: _Parts) -> int | None:
    """GIF: blocks up to a trailer."""

    def colours(flags: int) -> None:
        parts.skip(3 << (flags & 7) + 1 if flags & 0x80 else 0)

    def data() -> None:
        while length := parts.take(1)[0]:
            parts.skip(length)

    colours(parts.take(13)[10])
    while True:
        start, kind = parts.at, parts.take(1)
        if kind == b";":  # the trailer, but not if the file has another one for its end
            parts.skip(max(0, parts.size - parts.at - 1))
            return start if parts.at < parts.size and parts.take(1) == b";" else None
        if kind == b"!":
            parts.skip(1)
        elif kind == b",":
            colours(parts.take(9)[8])
            parts.skip(1)
        elif kind == b"\0":
            continue
        else:
            return start
        data()


def _png(parts: _Parts) -> int | None:
    """PNG and APNG: chunks up to IEND."""
    parts.take(8)
    while True:
        size, kind = struct.unpack(">I4s", parts.take(8))
        parts.skip(size + 4)
        if kind == b"IEND":
            return None


def _jpeg(parts: _Parts) -> int | None:
    """JPEG: segments up to the pictures' data, and an end marker somewhere behind."""
    parts.take(2)
    while (mark := parts.take(2))[1:] != b"\xda":
        if mark[0] != 0xFF or mark[1] == 0xFF:
            return None  # decoders are left to make of it what they can
        parts.skip(parts.number(">H") - 2)
    if b"\xff\xd9" not in parts.take(parts.size - parts.at):
        raise EOFError
    return None


def _pages(parts: _Parts) -> int | None:
    """Ogg: pages, numbered in each of their streams, the last one marked."""
    numbers: dict[bytes, int] = {}
    ended: dict[bytes, bool] = {}
    while (start := parts.at) < parts.size:
        head = parts.take(27)
        if head[:4] != b"OggS":
            return start
        serial, number = head[14:18], int.from_bytes(head[18:22], "little")
        if serial in numbers and not ended[serial] and number != numbers[serial] + 1:
            return start
        numbers[serial], ended[serial] = number, bool(head[5] & 4)
        parts.skip(sum(parts.take(head[26])))
    return None if all(ended.values()) else parts.size


def _packets(parts: _Parts) -> int | None:
    """Transport streams: packets of 188 bytes (192 and 204 with extras). ffmpeg sees inner gaps."""
    head = parts.take(min(parts.size, 8192))
    for length, lead in ((188, 0), (192, 4), (204, 0)):
        if all(head[place] == 0x47 for place in range(lead, len(head), length)):
            return None if parts.size % length == 0 else parts.size
    return None


def _program(parts: _Parts) -> int | None:
    """Program streams (MPG, VOB): packs and packets."""
    while (start := parts.at) < parts.size:
        code = parts.take(4)
        if code[:3] == bytes(3):  # padding between packs
            parts.skip(-3)
            continue
        if code[:3] != b"\0\0\1" or code[3] < 0xB9:
            return start or None
        if code[3] == 0xBA:
            if parts.take(1)[0] & 0xC0 == 0x40:
                parts.skip(parts.take(9)[8] & 7)
            else:
                parts.skip(7)
        elif code[3] != 0xB9:
            if not (size := parts.number(">H")):
                return None
            parts.skip(size)
    return None


def _triplets(parts: _Parts) -> int | None:
    """MXF: keys, lengths and values."""
    while (start := parts.at) < parts.size:
        if parts.take(16)[:4] != b"\x06\x0e\x2b\x34":
            return start or None
        size = parts.take(1)[0]
        if size >= 0x80:
            size = int.from_bytes(parts.take(size & 0x7F), "big")
        parts.skip(size)
    return None


def _frames(parts: _Parts) -> int | None:
    """IVF: frames."""
    parts.take(32)
    while parts.at < parts.size:
        size = parts.number("<I")
        parts.skip(8 + size)
    return None


_ASF_PROPERTIES = bytes.fromhex("a1dcab8c47a9cf118ee400c00c205365")


def _asf(parts: _Parts) -> int | None:
    """ASF (WMV): as long as it says."""
    head = parts.take(min(parts.size, 65536))
    place = head.find(_ASF_PROPERTIES)
    if place < 0 or len(head) < place + 48:
        return None
    size = int.from_bytes(head[place + 40 : place + 48], "little")
    return parts.size if size > parts.size else None


_CHECKS: dict[str, Callable[[_Parts], int | None]] = {
    "mov": _boxes, "matroska": _elements, "flv": _tags, "avi": _chunks, "webp_pipe": _chunks,
    "gif": _gif, "apng": _png, "png_pipe": _png, "jpeg_pipe": _jpeg, "ogg": _pages,
    "mpegts": _packets, "mpeg": _program, "ivf": _frames, "asf": _asf,
    "mxf": _triplets,
}  # fmt: skip
