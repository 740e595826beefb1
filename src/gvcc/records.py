"""The plain data that a stream carries besides pictures: colour description and audio packets."""

from __future__ import annotations

from dataclasses import dataclass
from fractions import Fraction


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
