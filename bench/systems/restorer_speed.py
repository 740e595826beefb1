"""The default beside VVenC and mode t2v in seconds -> docs/results/systems/restorer_speed.json.

    python bench/systems/restorer_speed.py

One clip (davis_dog, 33 frames of 256 lines), .02 bit/pixel, the least of three in one run, the
prior loaded: the whole encode over one encode by VVenC `slow` as `gvcc eval` runs it, at about the
same size; the decode over that of the same clip in mode t2v. Let nothing else run.
"""

from __future__ import annotations

import os
import sys
from io import BytesIO
from pathlib import Path
from typing import Any

sys.path.insert(0, str(Path(__file__).resolve().parents[2]))

from bench.common import clip, least, save
from gvcc import codec, priors
from gvcc.eval import baselines
from gvcc.search.config import EncodeConfig

NAME, RATE = "davis_dog", 0.02


def main() -> None:
    video, prior = clip(NAME), priors.load("nano")
    t, h, w, _ = video.frames.shape
    vvc = baselines.find("vvc")
    assert vvc is not None
    coded = baselines.Coded(vvc, video.frames, video.fps)
    q, _ = coded.at(RATE * t * h * w / 8)

    def times(mode: str) -> dict[str, float]:
        config = EncodeConfig(mode=mode, bpp=RATE)

        def encode() -> bytes:
            return b"".join(p.data for p in codec.encode_parts(video, config, prior, shown=False))

        data = encode()

        def decode() -> None:
            for _ in codec.Decoder(BytesIO(data), prior).pictures():
                pass

        return {"bytes": len(data), "encode_s": least(encode),
                "decode_s": least(decode)}  # fmt: skip

    once = least(lambda: coded._encode(q))
    out: dict[str, Any] = {"clip": NAME, "frames": t, "height": h, "width": w, "rate": RATE,
                           "cores": os.cpu_count(), "vvenc_slow_s": once,
                           "modes": {m: times(m) for m in ("v2v", "t2v")}}  # fmt: skip
    ours, theirs = out["modes"]["v2v"], out["modes"]["t2v"]
    out["encode_over_vvenc_slow"] = ours["encode_s"] / once
    out["decode_over_t2v"] = ours["decode_s"] / theirs["decode_s"]
    save("systems/restorer_speed", out)


if __name__ == "__main__":
    main()
