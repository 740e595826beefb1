"""Audio records into files: the packets as they are, or re-encoded without loss.

Which containers take what is never looked up: a few packets are written, read back and decoded.
"""

from __future__ import annotations

import io
import re
import struct
from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import replace
from fractions import Fraction
from itertools import chain, islice
from typing import Any

import av

from gvcc.errors import MediaError
from gvcc.pictures import audio as tracks
from gvcc.pictures import lossless
from gvcc.records import Audio, Notice, Packet

# Matroska's names of audio codecs where they are not "A_" and ffmpeg's name.
_NAMES = {
    "mp1": "A_MPEG/L1",
    "mp2": "A_MPEG/L2",
    "mp3": "A_MPEG/L3",
    "ra_144": "A_REAL/14_4",
    "wavpack": "A_WAVPACK4",
}

# Tags of RIFF, which Matroska has too, for codecs without a name of its own.
_TAGS = {
    "adpcm_g722": 0x28F,
    "adpcm_ms": 2,
    "adpcm_swf": 0x5346,
    "adpcm_yamaha": 0x20,
    "amr_nb": 0x57,
    "amr_wb": 0x58,
    "g723_1": 0x14,
    "gsm_ms": 0x31,
    "pcm_alaw": 6,
    "pcm_mulaw": 7,
}


# In the order of WAVEFORMATEXTENSIBLE.
_POSITIONS = "FL FR FC LFE BL BR FLC FRC BC SL SR TC TFL TFC TFR TBL TBC TBR".split()

_JITTER = Fraction(1, 100)  # seconds; a gap is longer

# MP4 has one name for all of them, and they have one decoder.
_LAYERS = {"mp1", "mp2", "mp3"}


def takes(muxer: str, audio: Audio) -> bool:
    """Whether a file of ffmpeg's format `muxer` holds `audio` with its packets as they are."""
    few = list(audio.packets[: tracks.FEW])
    if _gaps(audio):  # which PCM in MP4 has none of
        late = len(few) // 2
        second = round(1 / audio.time_base) if audio.time_base > 0 else 0
        few[late:] = [replace(packet, pts=packet.pts + second) for packet in few[late:]]
    some = replace(audio, packets=tuple(few))
    file = io.BytesIO()
    try:
        tracks.check(some)
        with av.open(file, "w", format=muxer) as box:
            for packet in _as_is(box, some, few):
                box.mux(packet)
        file.seek(0)
        with av.open(file, format=muxer) as box:
            return _same(some, box)
    except (av.FFmpegError, ValueError):
        return False


def _gaps(audio: Audio) -> bool:
    """Whether a packet comes later than the one before it ends, by more than times are rounded."""
    units = _JITTER / audio.time_base if audio.time_base > 0 else 0
    least = max(Fraction(2), Fraction(units))
    pairs = zip(audio.packets, audio.packets[1:], strict=False)
    return any(after.pts - packet.pts - packet.duration > least for packet, after in pairs)


def _same(audio: Audio, box: Any) -> bool:
    """Whether the only track of the open file `box` is `audio`."""
    stream = box.streams[0]
    coder = stream.codec_context
    names = {"" if coder is None else coder.codec.canonical_name, audio.codec}
    if len(names) > 1 and not names <= _LAYERS:
        return False
    base = stream.time_base
    found = [
        Packet(packet.pts or 0, packet.duration or 0, bytes(packet))
        for packet in box.demux(stream)
        if packet.size
    ]
    if abs(_length(found) * base - _length(audio.packets) * audio.time_base) > Fraction(1, 2):
        return False
    try:
        wanted = tracks.joined(tracks.decoded(tracks.decoder(audio, coder.codec.name), audio))
    except MediaError:
        wanted = None
    if wanted is None:  # nothing here decodes it: what a file takes unseen
        return b"".join(p.data for p in found) == b"".join(p.data for p in audio.packets)
    again = replace(audio, packets=tuple(found))
    return tracks.alike(wanted, tracks.joined(tracks.decoded(coder, again)))


def _length(packets: Sequence[Packet]) -> int:
    """From the start of the first to the end of the last, in their unit."""
    return packets[-1].pts + packets[-1].duration - packets[0].pts if packets else 0


def add(box: Any, audio: Audio) -> tuple[Iterator[Any], tuple[Notice, ...]]:
    """Add a track to the open output `box`: the packets to mux, and what a user should know of it.

    Raises `MediaError` if the format does not take it, nor its samples in another codec.
    """
    muxer = box.format.name
    if takes(muxer, audio):
        return _as_is(box, audio, audio.packets), ()
    reason = ""
    try:
        for found in lossless.tracks(lambda: tracks.decoded(tracks.decoder(audio), audio)):
            few = tuple(islice(found.packets, tracks.FEW))
            for layout in _layouts(found.audio.layout):
                head = replace(found.audio, layout=layout)
                if takes(muxer, replace(head, packets=few)):
                    packets = _as_is(box, head, chain(few, found.packets))
                    return packets, (_changed(muxer, audio, found, layout),)
    except MediaError as error:
        reason = f" ({error})"
    raise refusal(muxer, audio, reason)


def _layouts(name: str) -> Iterator[str]:
    """The layout itself, then those to try for channels whose positions nobody knows."""
    yield name
    if re.fullmatch("[0-9]+C", name):
        yield name.lower()  # the usual one of so many channels, if there is one
        yield "+".join(_POSITIONS[: int(name[:-1])])


def _changed(muxer: str, audio: Audio, found: lossless.Track, layout: str) -> Notice:
    gaps = " with gaps" if _gaps(audio) else ""
    text = f"{muxer} does not take {audio.codec} audio{gaps}: re-encoded as {found.audio.codec}, "
    text += "without loss" if found.exact else "rounded to 53 bits"
    if layout != found.audio.layout:
        text += f", its channels taken for {av.AudioLayout(layout).name}"
    return Notice("note" if found.exact else "lost", text)


def refusal(muxer: str, audio: Audio, reason: str = "") -> MediaError:
    """The error for a file of ffmpeg's format `muxer` that cannot hold `audio`."""
    advice = (
        "leave it out (--no-audio)"
        if muxer == "matroska"
        else "write .mkv or leave it out (--no-audio)"
    )
    return MediaError(f"{muxer} does not take {audio.codec} audio{reason}: {advice}")


def _as_is(box: Any, audio: Audio, packets: Iterable[Packet]) -> Iterator[Any]:
    """Add a stream for `audio` to the open output `box`; the `av.Packet`s of `packets`."""
    with _model(audio) as model:
        stream = box.add_stream_from_template(model)
    stream.codec_context.layout, stream.time_base = audio.layout, audio.time_base
    return (_packet(entry, stream, audio) for entry in packets)


def _packet(entry: Packet, stream: Any, audio: Audio) -> Any:
    packet = av.Packet(entry.data)
    packet.stream, packet.time_base = stream, audio.time_base
    packet.pts = packet.dts = entry.pts
    packet.duration, packet.is_keyframe = entry.duration, True
    return packet


@contextmanager
def _model(audio: Audio) -> Iterator[Any]:
    """The stream of a Matroska file with `audio`'s track and no packet in it.

    PyAV makes a stream for packets that are already compressed only after the model of one it
    has opened; an encoder's stream would carry that encoder's header instead of `extradata`.
    `ValueError`: Matroska has no name for it.
    """
    with av.open(io.BytesIO(_blank_matroska(audio)), format="matroska") as blank:
        model = blank.streams[0] if blank.streams else None
        coder = None if model is None else model.codec_context
        if coder is None or coder.codec.canonical_name != audio.codec:
            raise ValueError(f"no name in Matroska for {audio.codec}")
        yield model


def _blank_matroska(audio: Audio) -> bytes:
    def element(code: str, payload: bytes) -> bytes:
        return bytes.fromhex(code) + (len(payload) | 1 << 56).to_bytes(8, "big") + payload

    def number(code: str, value: int) -> bytes:
        return element(code, value.to_bytes(8, "big"))

    channels = av.AudioLayout(audio.layout).nb_channels
    name, header, bits = _track(audio, channels)
    sampling = element("b5", struct.pack(">d", audio.rate)) + number("9f", channels)
    sampling += number("6264", bits) if bits else b""
    entry = number("d7", 1) + number("73c5", 1) + number("83", 2) + element("86", name.encode())
    entry += (element("63a2", header) if header else b"") + element("e1", sampling)
    tracks = element("1654ae6b", element("ae", entry))
    body = element("1549a966", number("2ad7b1", 10**6)) + tracks
    body += element("1f43b675", number("e7", 0))  # without a cluster ffmpeg sees a broken file
    return element("1a45dfa3", element("4282", b"matroska")) + element("18538067", body)


def _track(audio: Audio, channels: int) -> tuple[str, bytes, int]:
    """Matroska's name of the codec, the header that goes with it, bits of a sample or 0."""
    codec = audio.codec
    form, header = tracks.wave(audio)
    if form is not None:
        return "A_MS/ACM", audio.extradata[8:], 0
    if codec in _TAGS:
        block = min(len(audio.packets[0].data), 0xFFFF) if audio.packets else 0
        wave = struct.pack("<HHIIHH", _TAGS[codec], channels, audio.rate, 0, block, 0)
        return "A_MS/ACM", wave + struct.pack("<H", len(header)) + header, 0
    if pcm := re.fullmatch("pcm_(s|u|f)([0-9]+)(le|be)?", codec):
        kind, bits, order = pcm.groups()
        form_name = "FLOAT/IEEE" if kind == "f" else "INT/BIG" if order == "be" else "INT/LIT"
        return f"A_PCM/{form_name}", header, int(bits)
    if codec == "tta":
        return "A_TTA1", b"", int.from_bytes(header[8:10], "little")
    if codec == "flac":
        header = b"fLaC\x80\x00\x00\x22" + header
    elif codec == "alac":
        header = header[12:]  # the MP4 box around it
    return _NAMES.get(codec, f"A_{codec.upper()}"), header, 0
