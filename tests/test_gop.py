"""plan(): every frame once, in order, and legal lengths."""

from __future__ import annotations

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from gvcc.errors import ConfigError
from gvcc.gop import Gop, legal_length, plan

strides = st.integers(1, 8)


@settings(deadline=None)
@given(st.integers(1, 400), st.integers(0, 12), strides)
def test_plan(frames: int, groups: int, stride: int) -> None:
    gop = groups * stride + 1
    plans = list(plan(frames, gop, stride))
    shown = [f for p in plans for f in range(p.start, p.start + p.frames)]
    assert shown == list(range(frames))
    assert len(plans) == -(-frames // gop)
    assert all(p.frames == p.length == gop for p in plans[:-1])
    last = plans[-1]
    assert 1 <= last.frames <= last.length <= gop
    for p in plans:
        assert p.length == legal_length(p.frames, stride)


@settings(deadline=None)
@given(st.integers(1, 2000), strides)
def test_legal_length(frames: int, stride: int) -> None:
    length = legal_length(frames, stride)
    assert (length - 1) % stride == 0 and frames <= length < frames + stride
    assert legal_length(length, stride) == length


def test_examples() -> None:
    assert list(plan(7, 5, 4)) == [Gop(0, 5, 5), Gop(5, 2, 5)]
    assert list(plan(6, 5, 4)) == [Gop(0, 5, 5), Gop(5, 1, 1)]
    assert list(plan(1, 33, 4)) == [Gop(0, 1, 1)]
    assert list(plan(34, 33, 4)) == [Gop(0, 33, 33), Gop(33, 1, 1)]


@settings(deadline=None)
@given(st.integers(-5, 60), strides)
def test_illegal_gop_lengths(gop: int, stride: int) -> None:
    if gop >= 1 and (gop - 1) % stride == 0:
        assert list(plan(3, gop, stride))
    else:
        with pytest.raises(ConfigError, match="GOP length"):
            list(plan(3, gop, stride))


def test_other_illegal_arguments() -> None:
    with pytest.raises(ConfigError, match="frame"):
        list(plan(0, 5, 4))
    with pytest.raises(ConfigError, match="mode"):
        list(plan(3, 5, 4, "i9v"))
