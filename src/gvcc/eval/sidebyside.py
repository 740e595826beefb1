"""A picture of original and decoded frames next to each other."""

from __future__ import annotations

import os
from io import BytesIO
from pathlib import Path

import numpy as np

from gvcc import files
from gvcc.errors import ConfigError, MediaError
from gvcc.metrics.metrics import Frames, check_pair, frame_psnr

_GAIN = 4
_MIN_PANEL_WIDTH = 192  # narrower frames are enlarged, or the text above them would not fit
_GAP, _STRIP, _FONT = 6, 20, 13
PAPER, INK, FAINT = (24, 24, 24), (240, 240, 240), (170, 170, 170)


def write_png(
    ref: Frames,
    out: Frames,
    path: str | os.PathLike[str],
    labels: tuple[str, str, str] = ("original", "decoded", f"difference x{_GAIN}"),
    count: int = 3,
    caption: str = "",
) -> None:
    """Write rows of frames as a PNG: original | decoded | 4 times the absolute difference.

    `ref`, `out`: uint8 RGB `[T,H,W,3]` of one shape. `count` rows, spread evenly from the first
    frame to the last (all frames where the clip is shorter); each names its frame and PSNR.
    `labels` stand above the columns, `caption` below all rows. Frames keep their pixels: narrow
    ones are enlarged by a whole factor without smoothing. An existing file is replaced.

    Raises `ConfigError` for clips that do not match, `count` below 1, other than three labels, or
    where Pillow is not installed; `MediaError` where the file cannot be written.
    """
    frames, height, width = check_pair(ref, out)
    if count < 1:
        raise ConfigError(f"count is {count}; it must be at least 1")
    if len(labels) != 3:
        raise ConfigError(f"there are {len(labels)} labels; there must be 3, one for each column")
    try:
        from PIL import Image, ImageDraw, ImageFont
    except ImportError as error:
        raise ConfigError("the package Pillow is missing: pip install 'gvcc[eval]'") from error

    chosen = np.unique(np.linspace(0, frames - 1, min(count, frames)).round().astype(int))
    factor = -(-_MIN_PANEL_WIDTH // width)
    panel = (width * factor, height * factor)
    columns = [_GAP + i * (panel[0] + _GAP) for i in range(3)]
    row_height = _STRIP + panel[1] + _GAP
    foot = _STRIP if caption else 0
    sheet = Image.new(
        "RGB", (columns[-1] + panel[0] + _GAP, _STRIP + len(chosen) * row_height + foot), PAPER
    )
    draw = ImageDraw.Draw(sheet)
    font = ImageFont.load_default(_FONT)

    def write(x: int, top: int, text: str, colour: tuple[int, int, int]) -> None:
        draw.text((x, top + _STRIP // 2), text, fill=colour, font=font, anchor="lm")

    for x, label in zip(columns, labels, strict=True):
        write(x, 0, label, INK)
    for row, t in enumerate(chosen):
        top = _STRIP + row * row_height
        write(columns[0], top, f"frame {t} of 0..{frames - 1}", FAINT)
        write(columns[1], top, f"PSNR {frame_psnr(ref[t], out[t]):.2f} dB", FAINT)
        difference = np.abs(ref[t].astype(np.int16) - out[t]) * _GAIN
        for x, frame in zip(columns, (ref[t], out[t], difference.clip(0, 255)), strict=True):
            picture = Image.fromarray(np.ascontiguousarray(frame, np.uint8))
            sheet.paste(picture.resize(panel, Image.Resampling.NEAREST), (x, top + _STRIP))
    write(columns[0], _STRIP + len(chosen) * row_height, caption, FAINT)

    png = BytesIO()
    sheet.save(png, format="PNG")
    if not Path(path).absolute().parent.is_dir():
        raise MediaError(f"cannot write {os.fspath(path)}: its folder does not exist")
    try:
        files.write(Path(path), png.getvalue())
    except OSError as error:
        raise MediaError(f"cannot write {os.fspath(path)}: {error}") from error
