"""Contact sheets of an evaluation."""

from __future__ import annotations

from fractions import Fraction
from pathlib import Path

import numpy as np
from PIL import Image

from gvcc.eval import contact
from gvcc.pictures import media
from gvcc.records import Video


def test_the_crop_is_where_the_original_is_busiest() -> None:
    picture = np.full((300, 400, 3), 90, np.uint8)
    rng = np.random.default_rng(0)
    picture[120:248, 200:328] = rng.integers(0, 255, (128, 128, 3))
    assert contact.busiest(picture) == (120, 200)
    picture[120:248, 200:328] = 90
    picture[172:, 272:] = rng.integers(0, 255, (128, 128, 3))
    assert contact.busiest(picture) == (168, 272)  # on a grid of 8
    for shape in ((16, 400, 3), (300, 16, 3), (1, 1, 3), (128, 128, 3)):
        top, left = contact.busiest(rng.integers(0, 255, shape, dtype=np.uint8))
        assert top <= max(0, shape[0] - 128) and left <= max(0, shape[1] - 128)


def test_a_sheet_has_a_row_for_each_rate_and_a_column_for_each_codec(tmp_path: Path) -> None:
    def video(name: str, level: int) -> Path:
        frames = np.full((3, 160, 200, 3), level, np.uint8)
        media.write(Video(frames, Fraction(25)), tmp_path / name)
        return tmp_path / name

    def cell(rate: float) -> dict:
        return {"clip": "one", "rate": rate, "bytes": 1234,
                "metrics": {"dists": 0.25, "psnr_rgb_db": 30.0, "lpips_alex": None}}  # fmt: skip

    low, high, other = cell(0.01), cell(0.1), cell(0.1)
    cells = {"a": [low, high], "b": [other]}
    decoded = {id(low): video("l.mp4", 60), id(high): video("h.mp4", 120),
               id(other): video("o.mp4", 180)}  # fmt: skip
    originals = {"one": video("one.mp4", 220), "two": None}
    (path,) = contact.write_all(originals, cells, decoded, tmp_path / "contact")
    assert path == tmp_path / "contact/one.png"
    sheet = np.asarray(Image.open(path))
    side = 2 * contact.CROP
    columns = [8 + i * (side + 8) for i in range(3)]
    assert sheet.shape[:2] == (24 + 2 * (side + 38), columns[-1] + side + 8)
    seen = [[int(sheet[24 + row * (side + 38) + 100, x + 100, 0]) for x in columns]
            for row in (0, 1)]  # fmt: skip
    assert np.abs(np.array(seen) - [[220, 60, 24], [220, 120, 180]]).max() <= 3
    assert contact._words(low) == ("1,234 bytes", "DISTS 0.250  PSNR 30.0")
