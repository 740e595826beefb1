"""The encoder SVT-AV1 leaves the process as it was."""

from __future__ import annotations

import os
import sys
from fractions import Fraction

import av
import numpy as np
import pytest

from gvcc.pictures import svt

linux = pytest.mark.skipif(not sys.platform.startswith("linux"), reason="Linux's schedulers")


def policies() -> dict[int, int]:
    return {int(t): os.sched_getscheduler(int(t)) for t in os.listdir("/proc/self/task")}


@linux
def test_no_thread_of_the_process_becomes_a_real_time_one() -> None:
    before = os.sched_getscheduler(0)
    context = svt.encoder(64, 64, "yuv420p", Fraction(1), {"preset": "8"})
    assert len(policies()) > 2 and set(policies().values()) == {before}
    frame = av.VideoFrame.from_ndarray(np.zeros((96, 64), np.uint8), format="yuv420p")
    frame.pts = 0
    assert sum(p.size for p in [*context.encode(frame), *context.encode(None)]) > 0
    assert set(policies().values()) == {before}


@linux
@pytest.mark.skipif(os.geteuid() != 0, reason="only root may do it")
def test_the_encoder_would_do_so() -> None:
    """Else the guard is no longer needed. In a process of its own, which it may spoil."""
    child = os.fork()
    if child == 0:
        os.environ["SVT_LOG"] = "0"
        context = av.CodecContext.create("libsvtav1", "w")
        context.width, context.height, context.pix_fmt = 64, 64, "yuv420p"
        context.time_base = Fraction(1)
        context.open()
        os._exit(os.sched_getscheduler(0))
    assert os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) == os.SCHED_FIFO


@linux
def test_a_policy_that_the_user_chose_stays() -> None:
    child = os.fork()
    if child == 0:
        os.sched_setscheduler(0, os.SCHED_BATCH, os.sched_param(0))
        svt.encoder(64, 64, "yuv420p", Fraction(1), {"preset": "8"})
        os._exit(int(os.sched_getscheduler(0) != os.SCHED_BATCH))
    assert os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) == 0


def test_what_the_encoder_does_not_take_is_an_error() -> None:
    with pytest.raises(av.error.FFmpegError):
        svt.encoder(64, 64, "rgb24", Fraction(1), {"preset": "8"})
