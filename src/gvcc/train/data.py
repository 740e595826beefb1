"""Training data: the clips of a folder as random crops."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from gvcc.errors import ConfigError, MediaError
from gvcc.pictures import media

SUFFIXES = {".mp4", ".mkv", ".webm", ".mov", ".avi", ".y4m", ".gif"}


def clips(folder: Path) -> list[Path]:
    """The video files below `folder`, sorted; ConfigError if there are none."""
    found = sorted(p for p in folder.rglob("*") if p.suffix.lower() in SUFFIXES)
    if not found:
        raise ConfigError(f"no video files below {folder}")
    return found


def crops(paths: list[Path], length: int, side: int, seed: int) -> Iterator[NDArray[np.uint8]]:
    """One random crop [length, side, side, 3] of each clip that is large enough, in random order.

    Clips that are too short or too small, or do not decode, are passed over: a data folder of
    mixed origin has some.
    """
    rng = np.random.default_rng(seed)
    for i in rng.permutation(len(paths)):
        try:
            frames = media.read(paths[i], audio=False).frames
        except MediaError:
            continue
        t, h, w, _ = frames.shape
        if t < length or h < side or w < side:
            continue
        a, y, x = (int(rng.integers(0, n + 1)) for n in (t - length, h - side, w - side))
        yield frames[a : a + length, y : y + side, x : x + side]
