"""One frame over the stops of one file -> docs/results/systems/stops.jpg (Free-GVC's Fig. 4).

davis_blackswan at 176 px height, 17 frames, prior nano, preset free-gvc-paper (rcc), coded once to
STOPS[-1] of its coded steps; `gvcc decode --stop N` shows fewer of them. The bits under a picture
are those of the steps that it has.
"""

from __future__ import annotations

import sys
from io import BytesIO
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parents[2]))

import numpy as np
from PIL import Image, ImageDraw

from bench.common import RESULTS, clip
from gvcc import codec, priors
from gvcc.metrics import metrics
from gvcc.search.config import EncodeConfig

CLIP, HEIGHT, FRAMES, FRAME, STOPS, TOP = "davis_blackswan", 176, 17, 8, (0, 4, 8, 12, 16), 18


def main() -> None:
    video, prior = clip(CLIP, FRAMES, HEIGHT), priors.load("nano")

    def coded(stop: int) -> bytes:
        asked = EncodeConfig("free-gvc-paper", mode="t2v", stop=stop, gop=FRAMES, audio=False)
        return codec.encode(video, asked, prior).data

    data = coded(STOPS[-1])
    shown = [("original", video.frames)]
    for stop in STOPS:
        out = np.stack(list(codec.Decoder(BytesIO(data), prior, stop=stop).pictures()))
        # The same steps as a file of their own: what a server that knows the stop would send.
        bits = 8 * len(coded(stop)) / video.frames[..., 0].size if stop else 0
        text = f"stop {stop}: {bits:.4f} bit/pixel, {metrics.psnr(video.frames, out):.1f} dB"
        shown.append((text, out))
    h, w = video.frames.shape[1:3]
    sheet = Image.new("RGB", (3 * w, 2 * (h + TOP)), "white")
    draw = ImageDraw.Draw(sheet)
    for i, (text, frames) in enumerate(shown):
        x, y = i % 3 * w, i // 3 * (h + TOP)
        draw.text((x + 4, y + 3), text, fill="black")
        sheet.paste(Image.fromarray(frames[FRAME]), (x, y + TOP))
    sheet.save(RESULTS / "systems/stops.jpg", quality=90)


if __name__ == "__main__":
    main()
