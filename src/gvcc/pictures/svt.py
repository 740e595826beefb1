"""SVT-AV1 inside this process, without what it does to the process.

As root, libsvtav1 makes the process that opens it a real-time one (SCHED_FIFO at the highest
priority), for good: whatever it and its children do from then on keeps every other process off the
cores, and the machine seems to hang. In a container one is root more often than not.
"""

from __future__ import annotations

import os
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from fractions import Fraction

import av


def _threads() -> set[int]:
    return {int(name) for name in os.listdir("/proc/self/task")}


@contextmanager
def _ordinary() -> Iterator[None]:
    """Give this process and the threads that come up inside the priority it had before."""
    if not sys.platform.startswith("linux"):
        yield
        return
    policy, param = os.sched_getscheduler(0), os.sched_getparam(0)
    before = {t: os.sched_getscheduler(t) for t in _threads()}
    try:
        yield
    finally:
        for thread in _threads():
            try:
                if os.sched_getscheduler(thread) != before.get(thread, policy):
                    os.sched_setscheduler(thread, before.get(thread, policy), param)
            except ProcessLookupError:  # it has ended
                continue


def encoder(
    width: int, height: int, pixels: str, time_base: Fraction, options: dict[str, str]
) -> av.VideoCodecContext:
    """An open encoder of pictures of a size and pixel format (FFmpeg's name), one each `time_base`.

    av.error.FFmpegError if it takes no such pictures or options.
    """
    os.environ.setdefault("SVT_LOG", "0")  # it would write its banner to stderr
    context = av.CodecContext.create("libsvtav1", "w")
    assert isinstance(context, av.VideoCodecContext)
    context.width, context.height, context.pix_fmt = width, height, pixels
    context.time_base, context.framerate = time_base, 1 / time_base
    context.options = options
    with _ordinary():
        context.open()
    return context
