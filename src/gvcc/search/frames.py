"""The clip's own frames, GOP by GOP."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace

import numpy as np

from gvcc.errors import MediaError
from gvcc.format.gop import Gop
from gvcc.records import Pictures


class FrameWindow:
    """The frames of a clip that one GOP needs, read in order; nothing behind them is kept."""

    def __init__(self, pictures: Iterator[Pictures]) -> None:
        self._pictures, self._start = pictures, 0
        self._held: list[Pictures] = []

    def take(self, gop: Gop) -> Pictures:
        """The GOP's frames [n,H,W,3]; no earlier frame can be had any more.

        Raises MediaError if the clip ends before them.
        """
        gone = gop.start - self._start
        for _ in range(gone - len(self._held)):  # of GOPs that were not asked for
            next(self._pictures, None)
        del self._held[:gone]
        self._start = gop.start
        while len(self._held) < gop.frames:
            try:
                self._held.append(next(self._pictures))
            except StopIteration:
                at = self._start + len(self._held)
                raise MediaError(f"the clip ends at frame {at}, before it should") from None
        return np.stack(self._held[: gop.frames])

    def each(self, gop: Gop) -> Iterator[Pictures]:
        """The GOP's frames [H,W,3] one by one, none of which is kept; as `take` else."""
        for n in range(gop.frames):
            yield self.take(replace(gop, start=gop.start + n, frames=1))[0]
