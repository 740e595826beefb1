"""Putting the pictures of GOPs together: each once, in order, cross-faded where GOPs share them."""

from __future__ import annotations

import decoding
import numpy as np
from hypothesis import given, settings
from test_gop import Planned, planned

from gvcc.decode.assemble import cross_fade
from gvcc.format.gop import Gop


def pictures(*values: int) -> np.ndarray:
    return np.array(values, np.uint8)[:, None, None, None] * np.ones((1, 2, 2, 3), np.uint8)


@settings(deadline=None, max_examples=50)
@given(planned(choose=True))
def test_the_assembler_gives_each_picture_once_in_order(p: Planned) -> None:
    """GOPs that agree on a frame, cross-faded or not, give that frame."""
    assembler, out = decoding.Pictured(p.overlap), []
    for g in p.gops:
        out.append(assembler.add(g, pictures(*(f % 256 for f in range(g.start, g.end)))))
        # Nothing is held back but what the next GOP may fade into.
        assert sum(map(len, out)) >= g.end - p.overlap
    out.append(assembler.finish())
    assert np.array_equal(np.concatenate(out), pictures(*(f % 256 for f in range(p.frames))))
    assert len(assembler.finish()) == 0


def test_the_cross_fade_by_hand() -> None:
    # Weights of the new frames are 1/4, 2/4, 3/4; halves are rounded up.
    faded = cross_fade(pictures(0, 100, 255), pictures(255, 101, 0))
    assert np.array_equal(faded, pictures(64, 101, 64))  # 63.75, 100.5, 63.75
    assert np.array_equal(cross_fade(pictures(10), pictures(13)), pictures(12))  # 11.5
    # Two GOPs of 4, 2 in common: weights 1/3 and 2/3.
    assembler = decoding.Pictured(2)
    first = assembler.add(Gop(0, 4), pictures(9, 9, 90, 90))
    second = assembler.add(Gop(2, 4, fade=2), pictures(0, 0, 5, 6))
    assert np.array_equal(first, pictures(9, 9))
    assert np.array_equal(second, pictures(60, 30))
    assert np.array_equal(assembler.finish(), pictures(5, 6))


def test_a_gop_that_repeats_a_frame_does_not_show_it() -> None:
    assembler = decoding.Pictured(0)
    assert np.array_equal(assembler.add(Gop(0, 2, "still"), pictures(1, 2)), pictures(1, 2))
    assert np.array_equal(assembler.add(Gop(1, 3, "previous"), pictures(9, 3, 4)), pictures(3, 4))
