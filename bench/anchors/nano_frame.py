"""One frame at equal size: the original, nano, gauss, x265 and VVC
-> docs/results/anchors/nano_frame.png.

The last frame of one clip at one rate (CLIP, BPP); the anchors at the quality that anchors.json
found nearest to it. Sizes are in the captions.
"""

from __future__ import annotations

import json
import sys
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parents[2]))

import numpy as np
from PIL import Image, ImageDraw

from bench.anchors.anchors import CODECS, DECODE, ffmpeg, fields, rgb
from bench.common import RESULTS, clip
from gvcc import codec
from gvcc.search.config import EncodeConfig

CLIP, BPP = "davis_blackswan", 0.02

if __name__ == "__main__":
    video = clip(CLIP)
    tiles = [("original", video.frames[-1])]
    for prior in ("nano", "gauss"):
        made = codec.encode(video, EncodeConfig(prior=prior, mode="t2v", bpp=BPP, audio=False))
        tiles.append((f"gvcc {prior}, {len(made.data)} bytes", made.frames[-1]))
    rows = json.loads((RESULTS / "anchors/anchors.json").read_text())["rows"]
    for name in ("x265", "svt-av1", "vvenc"):
        (row,) = (r for r in rows if (r["codec"], r["clip"], r["target_bpp"]) == (name, CLIP, BPP))
        anchor, given = CODECS[name], fields(video.frames, video.fps) | {"quality": row["quality"]}
        stream = ffmpeg(anchor.command, video.frames.tobytes(), **given)
        back = rgb(video, ffmpeg(DECODE, stream, form=anchor.form,
                    filters=anchor.shown(*video.frames.shape[2:0:-1])))  # fmt: skip
        tiles.append((f"{name}, {len(stream)} bytes", back[-1]))
    h, w, _ = video.frames[-1].shape
    sheet = Image.new("RGB", (3 * w, 2 * (h + 14)), "white")
    draw = ImageDraw.Draw(sheet)
    for i, (caption, picture) in enumerate(tiles):
        x, y = i % 3 * w, i // 3 * (h + 14)
        sheet.paste(Image.fromarray(np.ascontiguousarray(picture)), (x, y + 14))
        draw.text((x + 2, y + 1), f"{caption} ({CLIP}, {w}x{h}, 33 frames)", fill="black")
    sheet.save(RESULTS / "anchors/nano_frame.png")
