"""How a clip is cut into groups of pictures: every mode is one list of GOPs. Integers only."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

from gvcc.errors import ConfigError

MODES = ("t2v",)


@dataclass(frozen=True)
class Gop:
    """Frames start .. start + frames - 1 of the clip, coded as `length` >= frames frames.

    `length` is 1 modulo the prior's time stride; the frames past the clip's end repeat its last.
    """

    start: int
    frames: int
    length: int


def legal_length(frames: int, stride: int) -> int:
    """The smallest L >= frames with L = 1 mod stride."""
    return -(-(frames - 1) // stride) * stride + 1


def plan(frames: int, gop: int, stride: int, mode: str = "t2v") -> Iterator[Gop]:
    """GOPs of a clip of `frames` >= 1 frames, in decode order, one at a time: a decoder must not
    take memory for GOPs that a header announces and the file does not hold.

    `gop` is the GOP length in frames, 1 modulo `stride`. t2v: end to end, without references; the
    last GOP is as short as what is left. Raises ConfigError for illegal arguments, at once.
    """
    if mode not in MODES:
        raise ConfigError(f"unknown mode {mode!r}; known: {', '.join(MODES)}")
    if frames < 1:
        raise ConfigError(f"a clip needs at least one frame, got {frames}")
    if gop < 1 or gop != legal_length(gop, stride):
        raise ConfigError(f"GOP length {gop} is not 1 modulo {stride}")
    sizes = ((start, min(gop, frames - start)) for start in range(0, frames, gop))
    return (Gop(start, n, legal_length(n, stride)) for start, n in sizes)
