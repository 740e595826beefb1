"""Pictures of any pixel format to full-range 8-bit RGB, and back to the YUV of a written file.

A matrix is a code point of ITU-T H.273: 1 = BT.709, 5 and 6 = BT.601, 9 = BT.2020 non-constant
luminance, 2 = unspecified. Only matrix and range are undone; primaries and transfer are carried as
tags, so HDR stays HDR-coded (no tone mapping).
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace
from fractions import Fraction
from typing import Any, NamedTuple

import av
import numpy as np
from av.filter import Graph
from av.video.reformatter import Interpolation

from gvcc.errors import ConfigError, MediaError
from gvcc.records import Colour

STILLS = (".bmp", ".jpeg", ".jpg", ".png", ".ppm", ".tif", ".tiff", ".webp")
MATRICES = {"bt709": 1, "bt601": 6, "bt2020nc": 9}  # the names a user may give

# Kr and Kb of H.273 table 4, by code point.
_WEIGHTS = {
    1: (0.2126, 0.0722),
    4: (0.30, 0.11),
    5: (0.299, 0.114),
    6: (0.299, 0.114),
    7: (0.212, 0.087),
    9: (0.2627, 0.0593),
}
_SWSCALE = {1: 1, 4: 4, 5: 5, 6: 5, 7: 7, 9: 9}  # code point -> swscale's own number
_UNTAGGED = (0, 2, 3)  # RGB (meaningless on a YUV picture), unspecified, reserved

# Without these flags swscale repeats chroma samples and rounds coarsely.
_EXACT = (
    Interpolation.BICUBIC
    | Interpolation.ACCURATE_RND
    | Interpolation.FULL_CHR_H_INT
    | Interpolation.FULL_CHR_H_INP
    | Interpolation.BITEXACT
)


class Tags(NamedTuple):
    """What the user says of a file's colour, over what the file says; None: as the file says."""

    matrix: str | None = None
    full_range: bool | None = None


def _is_rgb(form: Any) -> bool:
    return bool(form.is_rgb or form.has_palette)


def _is_grey(form: Any) -> bool:
    return not _is_rgb(form) and all(part.is_luma or part.is_alpha for part in form.components)


def matrix_or_default(matrix: int, height: int) -> int:
    """`matrix` itself, or where a file does not say: BT.709 from 720 lines up, else BT.601."""
    if matrix in _UNTAGGED:
        return 1 if height >= 720 else 6
    return matrix


def of_picture(picture: Any, tags: Tags) -> Colour:
    """The colour of a decoded `av.VideoFrame`, the user's `tags` going before its own.

    RGB has no matrix and no range of its own: it gets BT.709 limited for the file written later.
    Raises `ConfigError` for an unknown matrix name, `MediaError` for a matrix nothing here undoes.
    """
    if tags.matrix is not None and tags.matrix not in MATRICES:
        raise ConfigError(f"matrix must be one of {', '.join(MATRICES)}, not {tags.matrix!r}")
    found = Colour(
        matrix=matrix_or_default(picture.colorspace, picture.height),
        primaries=picture.color_primaries,
        transfer=picture.color_trc,
        full_range=picture.color_range == 2 or picture.format.name.startswith("yuvj"),
    )
    if _is_rgb(picture.format):
        found = Colour(
            primaries=1 if found.primaries in _UNTAGGED else found.primaries,
            transfer=1 if found.transfer in _UNTAGGED else found.transfer,
        )
    elif _is_grey(picture.format) and picture.color_range == 0:
        # swscale takes grey as full range, and so do the encoders fed by it.
        found = replace(found, full_range=True)
    if tags.matrix is not None:
        found = replace(found, matrix=MATRICES[tags.matrix])
    if tags.full_range is not None:
        found = replace(found, full_range=tags.full_range)
    if found.matrix not in _WEIGHTS:
        known = ", ".join(MATRICES)
        raise MediaError(f"YUV matrix {found.matrix} is not supported; name one: {known}")
    return found


def _has_alpha(form: Any) -> bool:
    return bool(form.has_palette or any(part.is_alpha for part in form.components))


def is_transparent(picture: Any) -> bool:
    """Whether anything of a decoded `av.VideoFrame` is not opaque."""
    if not _has_alpha(picture.format):
        return False
    cover = picture.reformat(format="rgba", threads=1).to_ndarray()[..., 3]
    return bool(cover.min(initial=255) < 255)


def to_rgb(picture: Any, colour: Colour) -> np.ndarray:
    """Full-range RGB, uint8 [H,W,3], of a decoded `av.VideoFrame` in the given colour.

    Alpha is composited over black. 8-bit RGB is copied bit for bit; deeper RGB is rounded.
    """
    form = picture.format
    rgb, grey = _is_rgb(form), _is_grey(form)
    alpha = _has_alpha(form)
    # swscale truncates deep RGB and stretches deep full-range YUV by 1023/1020: both are right in
    # its 16-bit output, which is rounded here. For deep limited-range YUV it is the other way.
    deep = max(part.bits for part in form.components) > 8 and (rgb or colour.full_range)
    target = {(0, 0): "rgb24", (0, 1): "rgba", (1, 0): "rgb48le", (1, 1): "rgba64le"}[deep, alpha]
    if form.name != target:
        picture = picture.reformat(
            format=target,
            src_colorspace=None if rgb else _SWSCALE[colour.matrix],
            src_color_range=2 if rgb or colour.full_range else 1,
            dst_color_range=2,
            interpolation=_EXACT,
            threads=1,
        )
    pixels = picture.to_ndarray()
    if deep:
        pixels = ((pixels.astype(np.uint32) * 255 + 32767) // 65535).astype(np.uint8)
    if alpha:
        cover = pixels[..., 3:].astype(np.uint16)
        pixels = ((pixels[..., :3] * cover + 127) // 255).astype(np.uint8)
    if grey and not colour.full_range:  # swscale ignores the range of grey
        pixels = np.rint((pixels.astype(np.float32) - 16) * (255 / 219)).clip(0, 255)
    return np.ascontiguousarray(pixels, dtype=np.uint8)


def upright(pixels: np.ndarray, picture: Any) -> np.ndarray:
    """Turn and mirror `pixels` [H,W,3] as the picture's display matrix asks, to right angles.

    A picture with EXIF is only turned.
    """
    try:
        if "DISPLAYMATRIX" not in picture.side_data:
            return pixels
    except ValueError:  # PyAV stumbles over side data newer than itself, such as EXIF
        return np.ascontiguousarray(np.rot90(pixels, round(picture.rotation / 90)))
    # (x, y) is shown at (a x + c y, b x + d y); y points down.
    a, b, _, c, d = np.frombuffer(picture.side_data["DISPLAYMATRIX"], np.int32)[:5].tolist()
    if abs(b) > abs(a):
        pixels, a, d = pixels.swapaxes(0, 1), c, b
    return np.ascontiguousarray(pixels[:: -1 if d < 0 else 1, :: -1 if a < 0 else 1])


def pngs(frames: np.ndarray) -> Iterator[bytes]:
    """Each picture of `frames`, uint8 [T,H,W,3], as the bytes of a PNG file."""
    coder = av.CodecContext.create("png", "w")
    coder.height, coder.width = frames.shape[1:3]
    coder.pix_fmt, coder.time_base, coder.thread_count = "rgb24", Fraction(1), 1
    for pixels in frames:
        picture = av.VideoFrame.from_ndarray(np.ascontiguousarray(pixels), format="rgb24")
        yield b"".join(bytes(packet) for packet in coder.encode(picture))


def to_yuv(pixels: np.ndarray, matrix: int, full_range: bool) -> np.ndarray:
    """8-bit YUV 4:4:4, uint8 [3,H,W], of full-range RGB `pixels`, uint8 [H,W,3] (H.273, 8.3).

    Not left to swscale, whose full-range chroma is half a level too low.
    """
    red, blue = _WEIGHTS[matrix]
    luma = np.array([red, 1 - red - blue, blue])
    rows = np.stack(
        [luma, (np.eye(3)[2] - luma) / (2 - 2 * blue), (np.eye(3)[0] - luma) / (2 - 2 * red)]
    )
    span, base = (
        ((255, 255, 255), (0, 128, 128)) if full_range else ((219, 224, 224), (16, 128, 128))
    )
    scale = (rows * np.array(span)[:, None] / 255).astype(np.float32)
    planes: np.ndarray = scale @ pixels.reshape(-1, 3).T.astype(np.float32)
    planes += np.array(base, np.float32)[:, None] + 0.5
    return planes.clip(0, 255).astype(np.uint8).reshape(3, *pixels.shape[:2])


class Painter:
    """Makes the YUV `av.VideoFrame`s of one output: 4:2:0 where both sides are even, else 4:4:4."""

    def __init__(self, height: int, width: int, colour: Colour, sited: str) -> None:
        """`sited` is where 4:2:0 chroma lies, "left" or "center". `ConfigError`: unknown matrix."""
        self.matrix = matrix_or_default(colour.matrix, height)
        if self.matrix not in _WEIGHTS:
            raise ConfigError(f"YUV matrix {colour.matrix} cannot be written: {sorted(_WEIGHTS)}")
        self.full_range = colour.full_range
        self.format = "yuv444p" if height % 2 or width % 2 else "yuv420p"
        self._graph = Graph()
        # A filter, since only it can place chroma; wrongly placed, it moves by half a pixel each
        # time a clip is written.
        level = "full" if colour.full_range else "limited"
        nodes = [
            self._graph.add_buffer(
                width=width, height=height, format=av.VideoFormat("yuv444p"), time_base=Fraction(1)
            ),
            self._graph.add(
                "scale",
                f"in_range={level}:out_range={level}:out_chroma_loc={sited}:"
                "flags=bicubic+accurate_rnd+full_chroma_int+full_chroma_inp+bitexact",
            ),
            self._graph.add("format", self.format),
            self._graph.add("buffersink"),
        ]
        self._graph.link_nodes(*nodes).configure()

    def __call__(self, pixels: np.ndarray) -> Any:
        """The picture of full-range RGB `pixels`, uint8 [H,W,3], without a timestamp."""
        planes = to_yuv(pixels, self.matrix, self.full_range)
        picture = av.VideoFrame.from_ndarray(planes, format="yuv444p")
        if self.format != "yuv444p":
            # Still untagged: the filter would convert from a tagged matrix to its default one.
            self._graph.vpush(picture)
            picture = self._graph.vpull()
        picture.colorspace, picture.color_range = self.matrix, 2 if self.full_range else 1
        return picture
