"""Streams of any length: nothing is limited but pictures and GOPs, and nothing grows."""

from __future__ import annotations

import dataclasses
import tracemalloc
from fractions import Fraction
from io import BytesIO

import numpy as np
import pytest
import tiny_prior
from test_bitstream import record

import gvcc
from gvcc import codec
from gvcc.format import bitstream, parser
from gvcc.format.bitstream import Header, Limits
from gvcc.format.gop import Gop
from gvcc.records import Colour, Video
from gvcc.search import plan as planning
from gvcc.search.config import EncodeConfig

HOURS, FPS = 10, 24
PRIOR = tiny_prior.load()
HEADER = Header(
    prior=PRIOR.spec.id, digest=PRIOR.spec.digest, width=16, height=16, frames=HOURS * 3600 * FPS,
    fps=Fraction(FPS), colour=Colour(), gop=33, overlap=0, path="rf", rule="posterior",
    coder="hadamard", allocation="matched", size=0, seed=1, steps=3, tail=2, shift=3.0,
    g_scale=0.0, knob=1.0, multistep=True, audio=False,
)  # fmt: skip


def stream(header: Header) -> bytes:
    """GOPs of noise alone."""
    head = bitstream.write_header(header)
    gops = planning.plan(header.frames, header.gop, 4, "t2v")
    return head + b"".join(bitstream.write_gop(record(g), i, head) for i, g in enumerate(gops))


def test_ten_hours_of_4k_open_and_seek_in_no_memory() -> None:
    header = dataclasses.replace(HEADER, width=3840, height=2160)
    file = BytesIO(stream(header))
    tracemalloc.start()
    try:
        for start in (0, 3600 * FPS, header.frames - 1):
            part = codec.Decoder(file, PRIOR, start=start, end=start + 1)
            assert (part.count, part.width) == (1, 3840)
            file.seek(0)
        assert tracemalloc.get_traced_memory()[1] < 16e6
    finally:
        tracemalloc.stop()


def test_the_last_second_of_ten_hours() -> None:
    data = stream(HEADER)
    part = codec.Decoder(BytesIO(data), PRIOR, start=HEADER.frames - FPS)
    shown = np.stack(list(part.pictures()))
    assert shown.shape == (FPS, 16, 16, 3)
    # The same GOP at the end of a short stream of the same seed has other noise: it is numbered.
    assert not np.array_equal(shown[0], shown[-1])


def test_what_lies_behind_the_frames_asked_for_is_not_read() -> None:
    class Counting(BytesIO):
        read_bytes = 0

        def read(self, count: int | None = -1) -> bytes:
            out = super().read(count)
            self.read_bytes += len(out)
            return out

    file = Counting(stream(HEADER))
    part = codec.Decoder(file, PRIOR, start=40, end=50)
    assert len(list(part.pictures())) == 10
    assert file.read_bytes < 1000 < len(file.getvalue()) / 100


def test_limits_are_of_pictures_and_gops() -> None:
    longest = dataclasses.replace(HEADER, width=3840, height=2160, frames=2**32 - 1)
    longest.check(Limits())
    for fields in ({"width": 16385}, {"width": 8192, "height": 8192}):
        with pytest.raises(gvcc.TooLarge):
            dataclasses.replace(longest, **fields).check(Limits())  # type: ignore[arg-type]


def test_a_clip_in_memory_has_a_limit_of_its_own() -> None:
    data = stream(dataclasses.replace(HEADER, frames=66))
    with pytest.raises(gvcc.TooLarge, match="more than 39 pictures of 16x16 .* in memory"):
        codec.decode(data, PRIOR, limits=Limits(held_pixels=39 * 256))
    whole = codec.decode(data, PRIOR, limits=Limits(held_pixels=66 * 256))
    assert whole.frames.shape == (66, 16, 16, 3)


def test_five_thousand_frames(one_thread: None) -> None:
    t = np.arange(5000)
    levels = (128 + 100 * np.sin(t / 50)).astype(np.uint8)
    frames = np.broadcast_to(levels[:, None, None, None], (5000, 16, 16, 3))
    asked = EncodeConfig(preset="free-gvc", mode="t2v", stop=1, cuts=False)
    made = codec.encode(Video(frames, Fraction(FPS)), asked, PRIOR)
    assert made.frames.shape == (5000, 16, 16, 3)
    assert np.array_equal(codec.decode(made.data, PRIOR).frames, made.frames)
    gops = parser.parse(made.data).gops
    assert [g.gop for g in gops][-1] == Gop(4995, 5) and len(gops) == 556
