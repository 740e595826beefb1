"""Random access in layouts of any kind, those too that no mode makes: the frames asked for are the
frames of the whole stream."""

from __future__ import annotations

import dataclasses
import io

import faulty_vectors
import numpy as np
import pytest
import tiny_prior
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from test_bitstream import HEADER, layouts

from gvcc import codec
from gvcc.decode import session
from gvcc.decode.assemble import Assembler
from gvcc.format import gop
from gvcc.format.bitstream import Header
from gvcc.format.gop import Gop

STRIDE = 4


@st.composite
def clips(draw: st.DrawFn) -> tuple[Header, list[Gop]]:
    """A header and legal GOPs that cover its frames."""
    length = STRIDE * draw(st.integers(1, 4)) + 1
    overlap = STRIDE * draw(st.integers(0, (length // 2 - 1) // STRIDE)) + 1
    header = dataclasses.replace(
        HEADER, frames=draw(st.integers(1, 80)), gop=length, overlap=overlap,
        alignment=draw(st.sampled_from(gop.ALIGNMENTS)),
    )  # fmt: skip
    return header, draw(layouts(header))


def shown(header: Header, gops: list[Gop], chosen: set[int], causal: bool = True) -> dict[int, int]:
    """Frame -> value, as a decoder of the chosen GOPs makes them.

    A GOP's pictures have values that depend on its own number, and, where latents are blended, on
    its latent frames: those up to the picture's own group, or (not `causal`) all.
    """
    assembler, out, at = Assembler(header.overlap), dict[int, int](), -1
    latents: dict[int, torch.Tensor] = {}
    for i in sorted(chosen):
        frames = gops[i].latent_frames(STRIDE)
        latents[i] = torch.randn(1, frames, 1, 1, generator=torch.Generator().manual_seed(i))
        if header.alignment == "blend" and gops[i].fade and i - 1 in chosen:
            count = (gops[i].fade - 1) // STRIDE
            latents[i - 1], latents[i] = session.blend(latents[i - 1], latents[i], count)
    for i in sorted(chosen):
        g = gops[i]
        at = g.start + g.skip if at < 0 else at
        size = latents[i].double().abs().flatten()
        sums = size.cumsum(0) if causal else size.sum().expand(len(size))
        groups = [-(-f // STRIDE) for f in range(g.frames)]
        values = (sums[groups] * 1e4).long() % 251
        pictures = values.to(torch.uint8).reshape(-1, 1, 1, 1).expand(-1, 1, 1, 3)
        ready = assembler.add(g, pictures.numpy())
        out |= {at + n: int(p[0, 0, 0]) for n, p in enumerate(ready)}
        at += len(ready)
    rest = assembler.flush()
    return out | {at + n: int(p[0, 0, 0]) for n, p in enumerate(() if rest is None else rest)}


@settings(deadline=None, max_examples=1000)
@given(clips(), st.data())
def test_frames_asked_for_are_those_of_the_whole(
    clip: tuple[Header, list[Gop]], data: st.DataObject
) -> None:
    header, gops = clip
    start = data.draw(st.integers(0, header.frames - 1))
    end = data.draw(st.integers(start + 1, header.frames))
    causal = data.draw(st.booleans())
    chosen, stills = gop.needed(gops, start, end, header.alignment == "blend", causal)
    whole = shown(header, gops, set(range(len(gops))), causal)
    assert sorted(whole) == list(range(header.frames))
    part = shown(header, gops, chosen, causal)
    assert [part[f] for f in range(start, end)] == [whole[f] for f in range(start, end)]


@pytest.mark.parametrize(
    "alignment,overlap,gops,start,end",
    [
        # One that repeats much, and one after it that shares more than that has shown.
        ("pin", 5, [Gop(0, 13), Gop(8, 6, "previous", context=5), Gop(9, 6, fade=5)], 0, 10),
        # The first that is decoded repeats a picture that the next one fades.
        ("fade", 3, [Gop(0, 9, "still", True), Gop(8, 3, "shared"), Gop(8, 6, fade=3)], 10, 12),
        # One so short that a latent frame of it is blended twice.
        ("blend", 9, [Gop(0, 21), Gop(12, 10, fade=9), Gop(13, 21, fade=9)], 22, 34),
    ],
)
def test_layouts_that_no_mode_makes(
    alignment: str, overlap: int, gops: list[Gop], start: int, end: int
) -> None:
    frames = gops[-1].end
    header = dataclasses.replace(
        HEADER, frames=frames, gop=21, overlap=overlap, alignment=alignment
    )
    for before, g in zip([None, *gops], gops, strict=False):
        g.check(before, frames, 21, overlap)
    whole = shown(header, gops, set(range(len(gops))))
    part = shown(header, gops, gop.needed(gops, start, end, alignment == "blend")[0])
    assert [part[f] for f in range(start, end)] == [whole[f] for f in range(start, end)]


@pytest.mark.parametrize("name", ["rcc-pin", "rcc-i2v", "fade", "blend-rcc", "blend-cut"])
def test_ranges_of_a_stream(name: str) -> None:
    prior = tiny_prior.load()
    data = (faulty_vectors.ROOT / "valid" / f"{name}.gvcc").read_bytes()
    whole = codec.decode(data, prior).frames
    count = len(whole)
    for start, end in ((0, 1), (count // 2, count // 2 + 1), (8, count - 2), (count - 1, count)):
        part = codec.Decoder(io.BytesIO(data), prior, start=start, end=end)
        assert np.array_equal(list(part.pictures()), whole[start:end])
