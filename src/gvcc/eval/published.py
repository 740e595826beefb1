"""The sizes that GVCC reports (arXiv 2603.26571): its own count, and not a file's."""

from __future__ import annotations

from gvcc.format.bitstream import GopRecord, Header
from gvcc.search.config import STREAMS


def bits(header: Header, record: GopRecord) -> int | None:
    """What GVCC's own count of a GOP would be: M (ceil(log2 K) + 1) bits for each frame-step
    (published.md 1.5), the residual (1.7; with the scales that its count forgets), and the pictures
    at boundaries (1.8), but not the first picture of mode i2v, which is free there. None
    unless the stream is coded as published."""
    if header.coder not in STREAMS.values() or header.allocation != "uniform":
        return None
    atoms = (record.atoms + record.tail_atoms) * ((header.codebook_size - 1).bit_length() + 1)
    stills = sum(map(len, record.stills)) if record.gop.last else 0
    return atoms + 8 * (len(record.residual) + stills)
