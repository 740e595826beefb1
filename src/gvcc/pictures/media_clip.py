"""A clip that is decoded anew in every pass."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from fractions import Fraction
from typing import Any

import numpy as np
from numpy.typing import NDArray

from gvcc.errors import MediaError
from gvcc.pictures.media_out import reported
from gvcc.records import Audio, Colour, Notice


@dataclass(frozen=True, eq=False)
class Decoder:
    """A `Clip` whose every pass over `pictures` is a call of `decode`."""

    name: str
    decode: Callable[[], Iterator[NDArray[np.uint8]]]
    fps: Fraction
    colour: Colour
    audio: Audio | None
    count: int
    height: int
    width: int
    pixel_aspect: Fraction = Fraction(1)
    notices: tuple[Notice, ...] = ()

    def pictures(self) -> Iterator[NDArray[np.uint8]]:
        """Each picture, uint8 [H,W,3]; `MediaError` if it is not as it was at the opening."""
        number, shape = 0, (self.height, self.width, 3)
        with reported("read", self.name):
            for pixels in self.decode():
                number += 1
                if pixels.shape != shape:
                    raise MediaError(f"has changed since it was opened, from {shape}")
                yield pixels
            if number != self.count:
                raise MediaError(f"has changed since it was opened, from {self.count} frames")


def pixel_aspect(stream: Any, picture: Any) -> Fraction:
    """Width over height of a pixel of a decoded picture, once it is upright.

    1 if neither the container nor the codec says, or nothing sane.
    """
    aspect = stream.sample_aspect_ratio or stream.codec_context.sample_aspect_ratio
    if not aspect or not Fraction(1, 64) <= aspect <= 64:
        return Fraction(1)
    aspect = Fraction(aspect).limit_denominator(1000)
    return 1 / aspect if round(picture.rotation / 90) % 2 else aspect
