"""A picture of original and decoded frames next to each other."""

from __future__ import annotations

import os
from collections.abc import Sequence
from io import BytesIO
from pathlib import Path
from typing import NamedTuple

import numpy as np

from gvcc import files
from gvcc.errors import ConfigError, MediaError
from gvcc.metrics.metrics import Frames, check_pair, frame_psnr

_MIN_PANEL_WIDTH = 192  # narrower frames are enlarged, or the text above them would not fit
_GAP, _STRIP, _FONT = 6, 20, 13
PAPER, INK, FAINT = (24, 24, 24), (240, 240, 240), (170, 170, 170)


class Column(NamedTuple):
    """What stands beside the original: frames [T,H,W,3], and whether their PSNR is said."""

    label: str
    frames: Frames
    measured: bool = True


def sheet(
    label: str,
    ref: Frames,
    columns: Sequence[Column],
    path: str | os.PathLike[str],
    count: int = 3,
    caption: str = "",
) -> None:
    """Write rows of frames as a PNG: the original `ref` under its `label`, and the `columns`.

    `count` rows, spread evenly from the first frame to the last (all frames where the clip is
    shorter); each names its frame, and the PSNR of what is `measured`. Labels stand above the
    columns, `caption` below all rows. Frames keep their pixels: narrow ones are enlarged by a whole
    factor without smoothing. An existing file is replaced.

    Raises `ConfigError` for clips that do not match, `count` below 1, or where Pillow is not
    installed; `MediaError` where the file cannot be written.
    """
    for column in columns:
        check_pair(ref, column.frames)
    frames, height, width, _ = ref.shape
    if count < 1:
        raise ConfigError(f"count is {count}; it must be at least 1")
    try:
        from PIL import Image, ImageDraw, ImageFont
    except ImportError as error:
        raise ConfigError("the package Pillow is missing: pip install 'gvcc[eval]'") from error

    chosen = np.unique(np.linspace(0, frames - 1, min(count, frames)).round().astype(int))
    factor = -(-_MIN_PANEL_WIDTH // width)
    panel = (width * factor, height * factor)
    lefts = [_GAP + i * (panel[0] + _GAP) for i in range(1 + len(columns))]
    row_height = _STRIP + panel[1] + _GAP
    foot = _STRIP if caption else 0
    image = Image.new(
        "RGB", (lefts[-1] + panel[0] + _GAP, _STRIP + len(chosen) * row_height + foot), PAPER
    )
    draw = ImageDraw.Draw(image)
    font = ImageFont.load_default(_FONT)

    def write(x: int, top: int, text: str, colour: tuple[int, int, int]) -> None:
        draw.text((x, top + _STRIP // 2), text, fill=colour, font=font, anchor="lm")

    shown = [Column(label, ref, measured=False), *columns]
    for x, column in zip(lefts, shown, strict=True):
        write(x, 0, column.label, INK)
    for row, t in enumerate(chosen):
        top = _STRIP + row * row_height
        write(lefts[0], top, f"frame {t} of 0..{frames - 1}", FAINT)
        for x, column in zip(lefts, shown, strict=True):
            frame = column.frames[t]
            if column.measured:
                write(x, top, f"PSNR {frame_psnr(ref[t], frame):.2f} dB", FAINT)
            picture = Image.fromarray(np.ascontiguousarray(frame, np.uint8))
            image.paste(picture.resize(panel, Image.Resampling.NEAREST), (x, top + _STRIP))
    write(lefts[0], _STRIP + len(chosen) * row_height, caption, FAINT)

    png = BytesIO()
    image.save(png, format="PNG")
    if not Path(path).absolute().parent.is_dir():
        raise MediaError(f"cannot write {os.fspath(path)}: its folder does not exist")
    try:
        files.write(Path(path), png.getvalue())
    except OSError as error:
        raise MediaError(f"cannot write {os.fspath(path)}: {error}") from error
