"""The two codecs of a still: AV1 and VVC streams without what a decoder can derive.

stills.py says what the bytes are. A planar picture is [3 H / 2, W]: Y, then Cb and Cr as rows of
the same width, uint8 or little-endian uint16; H and W are multiples of 8.
"""

from __future__ import annotations

import functools
import subprocess
from collections.abc import Callable
from fractions import Fraction
from pathlib import Path
from typing import Any, NamedTuple

import av
import numpy as np
from numpy.typing import NDArray

from gvcc.errors import Corrupt
from gvcc.format.cursor import varint
from gvcc.pictures import bits, svt

# AV1 specification 5.5.1 and 5.5.2. still_picture and reduced_still_picture_header of profile 0 at
# level 31 (no limits); colour: 8 bit, not mono, undescribed, 4:2:0.
_AV1_STILL = "00011" + "11111"
_AV1_COLOUR = "0" * 8
_OBU_SEQUENCE, _OBU_DELIMITER, _OBU_FRAME = 1, 2, 6

# H.266 7.3.2.4 and 7.3.2.5: the bits before and after width and height, as libvvenc 1.15 writes
# them for preset medium; general_level_idc is 255 (level 15.5, no limits).
_SPS_HEAD = "0000000010101101000000101111111110000000" + "0" * 16 + "10"
_SPS_TAIL_BITS = 1112
_SPS_TAIL = bytes.fromhex(
    "1a801cdd36e991a4526f384d958c10209c00ca0c5842183110819220d487a3d5a92f249a92c9116a22f1126a2245"
    "2444992224d4659210b5085e10bd5a92f25ea19418b100c5880810810102a102020690810102c408081104040b20"
    "80812101064081108102c8408122041a081241070832045a104908710d0972395ffa5d97f9c90000000100000019"
    "18"
)
_PPS_HEAD = "0" * 11
_PPS_TAIL = f"{0x8907EC0:031b}"
NAL_SPS, NAL_PPS, _NAL_APS, _NAL_SLICE = b"\x00\x79", b"\x00\x81", b"\x00\x89", b"\x00\x39"


class Unpackable(Exception):
    """An encoder is missing, failed, or wrote something that has no place in a still."""


class Codec(NamedTuple):
    """One way to code a still. A planar picture is [3 H / 2, W]: Y, then Cb and Cr flattened."""

    name: str
    depth: int
    decoder: str
    scout: str  # fast preset, to find the quantiser
    preset: str
    coarsest: int  # the last quantiser; the first is 0
    halving: int  # quantisers that halve the length, about
    write: Callable[[NDArray[Any], str, int], bytes]  # planes, preset, quantiser -> stream
    pack: Callable[[bytes, int, int], bytes]  # stream, height, width -> still without first byte
    unpack: Callable[[bytes, int, int], bytes]  # the inverse; Corrupt
    read: Callable[[bytes, int, int], NDArray[Any]]  # stream as the encoder wrote it -> planes


def fenced(decoder: str, height: int, width: int) -> av.VideoCodecContext:
    """A decoder that takes no pictures larger than these, and lets no error pass."""
    context = av.CodecContext.create(decoder, "r")
    assert isinstance(context, av.VideoCodecContext)
    context.thread_count = 1  # with more, libdav1d waits for ever at the end of a damaged stream
    # FFmpeg allocates whole coding tree units, of up to 128 x 128.
    most = (-height % 128 + height) * (-width % 128 + width)
    context.options = {"max_pixels": str(most), "err_detect": "explode"}
    return context


def decode_stream(decoder: str, depth: int, stream: bytes, height: int, width: int) -> NDArray[Any]:
    """The one picture of a stream, planar [3 H / 2, W]. Raises Corrupt."""
    try:
        context = fenced(decoder, height, width)
        frames = [*context.decode(av.Packet(stream)), *context.decode(None)]
    except av.error.FFmpegError as err:
        raise Corrupt(f"the still does not decode: {err.strerror}") from err
    form = "yuv420p" if depth == 8 else "yuv420p10le"
    found = [(f.format.name, f.height, f.width) for f in frames]
    if found != [(form, height, width)]:
        raise Corrupt(f"the still holds {found}, not one {form} picture of {height} x {width}")
    if frames[0].is_corrupt:
        raise Corrupt("the still is damaged")
    return planar(frames[0], depth)


def planar(frame: av.VideoFrame, depth: int) -> NDArray[Any]:
    """A decoded 4:2:0 picture of 8 or 10 bits as [3 H / 2, W]."""
    rows = []
    for plane in frame.planes:
        samples = np.frombuffer(plane, np.uint8 if depth == 8 else "<u2")
        stride = plane.line_size // samples.itemsize
        rows.append(samples.reshape(-1, stride)[: plane.height, : plane.width].ravel())
    return np.concatenate(rows).reshape(-1, frame.width)


def _read_leb128(data: bytes, at: int) -> tuple[int, int]:
    """The number at byte `at`, and where it ends. Raises Corrupt."""
    value = 0
    for i, byte in enumerate(data[at : at + 4]):
        value |= (byte & 127) << 7 * i
        if byte < 128:
            return value, at + i + 1
    raise Corrupt("a still ends inside a length")


def _av1_header(tools: str, height: int, width: int) -> bytes:
    return bits.trailed(_AV1_STILL + av1_size(height, width) + tools + _AV1_COLOUR)


def av1_size(height: int, width: int) -> str:
    """The size of the pictures as a sequence header has it."""
    w, h = f"{width - 1:b}", f"{height - 1:b}"
    return f"{len(w) - 1:04b}{len(h) - 1:04b}{w}{h}"


def _av1_pack(stream: bytes, height: int, width: int) -> bytes:
    parts: dict[int, bytes] = {}
    at = 0
    while at < len(stream):
        kind = stream[at] >> 3
        length, start = _read_leb128(stream, at + 1)
        at = start + length
        if kind in parts or kind not in (_OBU_SEQUENCE, _OBU_DELIMITER, _OBU_FRAME):
            raise Unpackable(f"an OBU of type {kind}")
        parts[kind] = stream[start:at]
    header, frame = parts.get(_OBU_SEQUENCE, b""), parts.get(_OBU_FRAME, b"")
    own = bits.of(header)
    tools_at = 18 + (width - 1).bit_length() + (height - 1).bit_length()
    tools = own[tools_at : tools_at + 6]
    # The encoder's level and chroma siting are of no consequence to the picture.
    expected = bits.of(_av1_header(tools, height, width))
    blank = (slice(5, 10), slice(tools_at + 10, tools_at + 12))
    for bad in blank:
        own = own[: bad.start] + expected[bad] + own[bad.stop :]
    if own == expected:
        return bytes([int(tools, 2)]) + frame
    if not 0 < len(header) < 192:
        raise Unpackable(f"a sequence header of {len(header)} bytes")
    return bytes([64 + len(header)]) + header + frame


def _av1_unpack(data: bytes, height: int, width: int) -> bytes:
    head, body = data[:1], data[1:]
    if not head:
        raise Corrupt("a still of one byte")
    if head[0] < 64:
        header, frame = _av1_header(f"{head[0]:06b}", height, width), body
    else:
        header, frame = body[: head[0] - 64], body[head[0] - 64 :]
    # Low bits 010: a size follows.
    sequence = bytes([_OBU_SEQUENCE << 3 | 2]) + varint(len(header)) + header
    return sequence + bytes([_OBU_FRAME << 3 | 2]) + varint(len(frame)) + frame


def _av1_write(planes: NDArray[Any], preset: str, quantiser: int) -> bytes:
    frame = av.VideoFrame.from_ndarray(planes, format="yuv420p")
    frame.pts = 0
    # Quarter steps from 0 to 70, where qp stops at 63 and has whole ones. Without aq-mode, crf is
    # one fixed quantiser.
    params = f"avif=1:rc=0:aq-mode=0:crf={quantiser / 4}:lp=1"
    options = {"preset": preset, "svtav1-params": params}
    try:
        context = svt.encoder(frame.width, frame.height, "yuv420p", Fraction(1), options)
        return b"".join(bytes(p) for p in [*context.encode(frame), *context.encode(None)])
    except av.error.FFmpegError as err:
        raise Unpackable(f"libsvtav1: {err.strerror}") from err


def _vvc_sets(height: int, width: int) -> list[bytes]:
    """SPS and PPS, as whole NAL units."""
    tail = f"{int.from_bytes(_SPS_TAIL, 'big'):0{_SPS_TAIL_BITS}b}"
    return vvc_sets(_SPS_HEAD + vvc_size(height, width) + tail, height, width)


def vvc_size(height: int, width: int) -> str:
    """The size of the pictures as parameter sets have it."""
    return bits.ue(width) + bits.ue(height)


def vvc_sets(sps: str, height: int, width: int) -> list[bytes]:
    """An SPS of these bits and the PPS that goes with it, the same for stills and bases."""
    pps = _PPS_HEAD + vvc_size(height, width) + _PPS_TAIL
    units = (NAL_SPS, sps), (NAL_PPS, pps)
    return [head + bits.escaped(bits.trailed(code)) for head, code in units]


def nal_units(stream: bytes) -> list[bytes]:
    """The NAL units of a stream with start codes."""
    # A start code takes the zeros before it, and no NAL unit ends in a zero.
    return [unit.rstrip(b"\0") for unit in stream.split(b"\0\0\1")][1:]


def holds_start_code(unit: bytes) -> bool:
    """Whether another NAL unit, whose size nobody has checked, would start inside this one."""
    return any(code in unit for code in (b"\0\0\0", b"\0\0\1", b"\0\0\2"))


def _vvc_units(stream: bytes) -> tuple[list[bytes], bytes]:
    """SPS and PPS, and what a still holds besides: the APS and the one slice."""
    units = nal_units(stream)
    sets = [u for head in (NAL_SPS, NAL_PPS) for u in units if u[:2] == head]
    more = [u[2:] for u in units if u[:2] == _NAL_APS]
    slices = [u[2:] for u in units if u[:2] == _NAL_SLICE]
    if len(slices) != 1 or len(sets) != 2 or units[-1][:2] != _NAL_SLICE:
        raise Unpackable(f"{len(sets)} sets and {len(slices)} slices in {len(units)} NAL units")
    return sets, b"".join(varint(len(s)) + s for s in more) + b"\0" + slices[0]


def _vvc_pack(stream: bytes, height: int, width: int) -> bytes:
    # Whether the sets are those that a decoder derives shows when the still is decoded.
    return _vvc_units(stream)[1]


def _vvc_pack_whole(stream: bytes, height: int, width: int) -> bytes:
    sets, rest = _vvc_units(stream)
    return b"".join(varint(len(u) - 2) + u[2:] for u in sets) + rest


def _vvc_unpack(data: bytes, height: int, width: int) -> bytes:
    return _vvc_stream(_vvc_sets(height, width), data)


def _vvc_unpack_whole(data: bytes, height: int, width: int) -> bytes:
    sets = []
    for head in (NAL_SPS, NAL_PPS):
        length, at = _read_leb128(data, 0)
        sets.append(head + data[at : at + length])
        data = data[at + length :]
    return _vvc_stream(sets, data)


def _vvc_stream(units: list[bytes], data: bytes) -> bytes:
    """A stream of the sets, and of what a still holds besides."""
    at = 0
    while True:
        length, at = _read_leb128(data, at)
        if not length:
            break
        units.append(_NAL_APS + data[at : at + length])
        at += length
    units.append(_NAL_SLICE + data[at:])
    for unit in units:
        if holds_start_code(unit):
            raise Corrupt("a start code inside a still")
    return b"".join(b"\0\0\0\1" + unit for unit in units)


@functools.cache
def ffmpeg() -> str | None:
    """The ffmpeg of imageio-ffmpeg, if there is one and it has libvvenc."""
    try:
        import imageio_ffmpeg

        path = imageio_ffmpeg.get_ffmpeg_exe()
        listed = subprocess.run([path, "-v", "error", "-encoders"], capture_output=True, check=True)
    except (ImportError, RuntimeError, OSError, subprocess.CalledProcessError):
        return None
    return path if b"libvvenc" in listed.stdout else None


def run(given: list[str], wanted: list[str], source: bytes | Path) -> bytes:
    """What ffmpeg makes of some bytes or of a file; options for each. Raises Unpackable."""
    path = ffmpeg()
    if path is None:
        raise Unpackable("imageio-ffmpeg >= 0.8 is not installed")
    piped = source if isinstance(source, bytes) else None
    name = "-" if piped is not None else str(source)
    command = [path, "-v", "error", "-nostdin", "-threads", "1", *given, "-i", name, *wanted, "-"]
    done = subprocess.run(command, input=piped, capture_output=True)
    if done.returncode or not done.stdout:
        said = done.stderr.decode(errors="replace").strip().splitlines() or ["it fails"]
        raise Unpackable(f"ffmpeg: {said[0]}")
    return done.stdout


RAW_10 = ["-f", "rawvideo", "-pix_fmt", "yuv420p10le"]


def _vvc_write(planes: NDArray[Any], preset: str, quantiser: int) -> bytes:
    size = f"{planes.shape[1]}x{planes.shape[0] * 2 // 3}"
    # qpa, the perceptual adaptation of the quantiser, costs PSNR.
    coded = f"-c:v libvvenc -threads 1 -preset {preset} -qp {quantiser} -qpa 0 -f vvc".split()
    return run([*RAW_10, "-s", size], coded, planes.tobytes())


def _vvc_read(stream: bytes, height: int, width: int) -> NDArray[Any]:
    raw = run(["-f", "vvc"], RAW_10, stream)
    return np.frombuffer(raw, "<u2").reshape(-1, width)


def _av1_read(stream: bytes, height: int, width: int) -> NDArray[Any]:
    return decode_stream("libdav1d", 8, stream, height, width)


# Positions are file numbers: only ever append.
CODECS = (
    Codec("av1", 8, "libdav1d", "4", "1", 280, 24, _av1_write, _av1_pack, _av1_unpack, _av1_read),
    Codec(
        "vvc", 10, "vvc", "faster", "medium", 63, 6, _vvc_write, _vvc_pack, _vvc_unpack, _vvc_read
    ),
    # For encoders whose sets are others than those known here.
    Codec(
        "vvc-sets",
        10,
        "vvc",
        "faster",
        "medium",
        63,
        6,
        _vvc_write,
        _vvc_pack_whole,
        _vvc_unpack_whole,
        _vvc_read,
    ),
)
NUMBERS = {codec.name: number for number, codec in enumerate(CODECS)}
