"""Contact sheets of an evaluation: the same crop of a clip by every codec, at equal sizes."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from io import BytesIO
from pathlib import Path
from typing import Any

import numpy as np

from gvcc.eval.sidebyside import FAINT, INK, PAPER
from gvcc.files import write
from gvcc.metrics.metrics import Frames
from gvcc.pictures import media

CROP = 128  # pixels a side, shown twice as large
_ZOOM, _GAP, _HEAD, _FOOT, _FONT = 2, 8, 24, 38, 13
_SHOWN = (("DISTS", "dists"), ("LPIPS", "lpips_alex"), ("PSNR", "psnr_rgb_db"))


@dataclass(frozen=True)
class Tile:
    """What one codec has made of a clip at a rate: a picture [H,W,3] and the text below it."""

    picture: Frames
    lines: tuple[str, str]


def write_all(
    clips: Mapping[str, Path | None],
    cells: Mapping[str, Sequence[Mapping[str, Any]]],
    decoded: Mapping[int, Path | None],
    folder: Path,
) -> list[Path]:
    """A PNG for each of `clips` (name -> its original) that any codec has coded: a row for each
    rate, a column for the original and for each codec (the keys of `cells`).

    `decoded` has, for the id() of a cell, what it decodes to as a video. The crop is where the
    original's middle frame changes most from pixel to pixel; it is never chosen by what a codec
    makes of it.
    """
    made = []
    for name, original in clips.items():
        mine = {c: [x for x in cs if x["clip"] == name and decoded.get(id(x))]
                for c, cs in cells.items()}  # fmt: skip
        if original is None or not any(mine.values()):
            continue
        frames = media.read(original, audio=False).frames
        at = len(frames) // 2
        top, left = busiest(frames[at])
        rates = sorted({x["rate"] for cs in mine.values() for x in cs})
        rows = []
        for rate in rates:
            tiles = [Tile(_crop(frames[at], top, left), (f"{rate:g} bit/pixel", f"frame {at}"))]
            for cs in mine.values():
                tiles += [
                    Tile(_crop(_frame(path, at), top, left), _words(x)) for x in cs
                    if x["rate"] == rate and (path := decoded[id(x)]) is not None
                ] or [Tile(np.zeros((1, 1, 3), np.uint8), ("failed", ""))]  # fmt: skip
            rows.append(tiles)
        png = BytesIO()
        _sheet(["original", *mine], rows).save(png, format="PNG")
        path = folder / f"{name}.png"
        write(path, png.getvalue())
        made.append(path)
    return made


def busiest(picture: Frames) -> tuple[int, int]:
    """Top and left of the CROP x CROP window of a picture [H,W,3] in which neighbouring pixels
    differ most, on a grid of 8 pixels."""
    luma = picture.astype(np.float64).mean(-1)
    down, along = (np.abs(np.diff(luma, axis=a, append=0)) for a in (0, 1))
    down[-1], along[:, -1] = 0, 0
    total = np.pad((down + along).cumsum(0).cumsum(1), ((1, 0), (1, 0)))
    h, w = (min(CROP, n) for n in luma.shape)
    sums = total[h:, w:] - total[:-h, w:] - total[h:, :-w] + total[:-h, :-w]
    top, left = np.unravel_index(sums[::8, ::8].argmax(), sums[::8, ::8].shape)
    return int(top) * 8, int(left) * 8


def _crop(picture: Frames, top: int, left: int) -> Frames:
    return picture[top : top + CROP, left : left + CROP]


def _frame(path: Path, at: int) -> Frames:
    frame: Frames = media.read(path, frames=at + 1, audio=False).frames[at]
    return frame


def _words(cell: Mapping[str, Any]) -> tuple[str, str]:
    found = ((label, cell["metrics"].get(name)) for label, name in _SHOWN)
    numbers = [f"{label} {v:.1f}" if label == "PSNR" else f"{label} {v:.3f}"
               for label, v in found if v is not None]  # fmt: skip
    return f"{cell['bytes']:,} bytes", "  ".join(numbers)


def _sheet(heads: Sequence[str], rows: Sequence[Sequence[Tile]]) -> Any:
    from PIL import Image, ImageDraw, ImageFont

    side = CROP * _ZOOM
    width = _GAP + len(heads) * (side + _GAP)
    sheet = Image.new("RGB", (width, _HEAD + len(rows) * (side + _FOOT)), PAPER)
    draw, font = ImageDraw.Draw(sheet), ImageFont.load_default(_FONT)
    columns = [_GAP + i * (side + _GAP) for i in range(len(heads))]
    for x, head in zip(columns, heads, strict=True):
        draw.text((x, _HEAD // 2), head, fill=INK, font=font, anchor="lm")
    for i, tiles in enumerate(rows):
        top = _HEAD + i * (side + _FOOT)
        for x, tile in zip(columns, tiles, strict=True):
            picture = Image.fromarray(np.ascontiguousarray(tile.picture))
            size = (picture.width * _ZOOM, picture.height * _ZOOM)
            sheet.paste(picture.resize(size, Image.Resampling.NEAREST), (x, top))
            for line, text in enumerate(tile.lines):
                draw.text((x, top + side + 2 + 16 * line), text, fill=FAINT, font=font)
    return sheet
