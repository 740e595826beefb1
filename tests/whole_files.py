"""A whole file at once; the encoder writes piece by piece."""

from __future__ import annotations

from gvcc.format import bitstream
from gvcc.format.bitstream import Stream


def write(stream: Stream) -> bytes:
    """The bytes of a stream."""
    header = bitstream.write_header(stream.header)
    parts = [header]
    if stream.audio is not None:
        parts.append(bitstream.write_audio(stream.audio, header))
    for record in stream.gops:
        parts.append(bitstream.write_gop(record, len(parts) - 1, header))
    return b"".join(parts)
