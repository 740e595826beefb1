"""What a clip is: pictures one after another, colour description, audio packets."""

from __future__ import annotations

import math
from collections.abc import Iterator
from dataclasses import dataclass
from fractions import Fraction
from numbers import Rational
from typing import Protocol

import numpy as np
from numpy.typing import NDArray

from gvcc.errors import ConfigError

Pictures = NDArray[np.uint8]
"""Full-range RGB: [H,W,3], or [n,H,W,3] for several."""


def ratio(name: str, value: object) -> Fraction:
    """A number above 0 as a fraction: exactly, but for floats, which are taken for the nearest
    fraction of a denominator up to 1001, by preference n / 1001 (23.976 is 24000/1001). ConfigError
    for what is none; `name` is what it says."""
    if isinstance(value, bool) or not isinstance(
        value, Rational | float | np.floating | np.integer
    ):
        raise ConfigError(f"{name} must be a number or a Fraction, not {value!r}")
    if not isinstance(value, float | np.floating):
        found = Fraction(int(value.numerator), int(value.denominator))
    elif not math.isfinite(value):
        raise ConfigError(f"{name} is {value}, expected a number above 0")
    else:
        exact = Fraction(float(value))
        broadcast = Fraction(math.ceil(exact) * 1000, 1001)
        near = exact.denominator > 1 and abs(broadcast - exact) < Fraction(1, 200)
        found = broadcast if near and exact > 1 else exact.limit_denominator(1001)
    if found <= 0:
        raise ConfigError(f"{name} is {value}, expected a number above 0")
    return found


@dataclass(frozen=True)
class Colour:
    """Colour of the source, as code points of ITU-T H.273 (2 = unspecified).

    Frames inside gvcc are always full-range RGB; `matrix` and `full_range` say which YUV they came
    from and which YUV a written file gets, so that a clip keeps its look through encode and decode.
    """

    matrix: int = 1
    primaries: int = 1
    transfer: int = 1
    full_range: bool = False


@dataclass(frozen=True)
class Packet:
    """One compressed audio packet; `pts` and `duration` count in the track's time base."""

    pts: int
    duration: int
    data: bytes


@dataclass(frozen=True)
class Audio:
    """A compressed audio track, carried unchanged."""

    codec: str
    rate: int
    layout: str
    time_base: Fraction
    extradata: bytes
    packets: tuple[Packet, ...]


@dataclass(frozen=True)
class Notice:
    """What a user should be told of a source, in one sentence.

    `kind` is "broken" (the source is damaged, and part of it is missing here), "lost" (something it
    holds is not carried, or only in part) or "note" (nothing is lost).
    """

    kind: str
    text: str


class Clip(Protocol):
    """A clip that is made picture by picture, so that nobody has to hold it whole.

    Pictures are full-range RGB, `fps` a second; the packets of `audio` count time from the start
    of the first. `count` is how many pictures there should be; fewer may come. `pixel_aspect` is
    the width of a pixel over its height. `notices` say what was found at the opening.
    """

    @property
    def fps(self) -> Fraction: ...

    @property
    def colour(self) -> Colour: ...

    @property
    def audio(self) -> Audio | None: ...

    @property
    def count(self) -> int: ...

    @property
    def height(self) -> int: ...

    @property
    def width(self) -> int: ...

    @property
    def pixel_aspect(self) -> Fraction: ...

    @property
    def notices(self) -> tuple[Notice, ...]: ...

    def pictures(self) -> Iterator[NDArray[np.uint8]]:
        """Each picture, uint8 [H,W,3], from the first; every call is a new pass.

        The same array may come again: do not write to it.
        """
        ...


@dataclass(frozen=True, eq=False)
class Video:
    """A `Clip` in memory: `frames` is full-range RGB, uint8 [T,H,W,3], `fps` pictures a second.

    `fps` and `pixel_aspect` are given as numbers of any kind and kept as fractions (see `ratio`).
    `colour` is the source's, and the colour of a file written from this; the packets of `audio`
    count time from the start of frame 0. Raises ConfigError for anything else.
    """

    frames: NDArray[np.uint8]
    fps: Fraction
    colour: Colour = Colour()
    audio: Audio | None = None
    pixel_aspect: Fraction = Fraction(1)
    notices: tuple[Notice, ...] = ()

    def __post_init__(self) -> None:
        if not isinstance(self.frames, np.ndarray):
            raise ConfigError(
                f"frames must be a numpy array, uint8 [T,H,W,3], not {type(self.frames).__name__}"
            )
        shape = self.frames.shape
        if self.frames.dtype != np.uint8 or len(shape) != 4 or shape[3] != 3 or 0 in shape:
            raise ConfigError(
                f"frames must be uint8 [T,H,W,3] with at least one picture, not {self.frames.dtype}"
                f" [{','.join(map(str, shape))}]"
            )
        for name, kind in (("colour", Colour), ("audio", Audio | None)):
            if not isinstance(value := getattr(self, name), kind):
                raise ConfigError(f"{name} must be records.{name.title()}, not {value!r}")
        for name in ("fps", "pixel_aspect"):
            object.__setattr__(self, name, ratio(name, getattr(self, name)))

    @property
    def count(self) -> int:
        return len(self.frames)

    @property
    def height(self) -> int:
        return int(self.frames.shape[1])

    @property
    def width(self) -> int:
        return int(self.frames.shape[2])

    def pictures(self) -> Iterator[NDArray[np.uint8]]:
        """Each frame, uint8 [H,W,3], from the first."""
        return iter(self.frames)
