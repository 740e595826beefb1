"""What each part of GVCC brings, on nano -> docs/results/systems/ablations.json.

The evaluation clips at 64 px height, 33 frames in GOPs of 17, preset paper with few atoms, seeds
1 to SEEDS. An arm is a set of settings; arms of a group have the same settings but for what the
group is about, and where they can the same count of bits:

- residual: the published tail residual, with and without, and the innovations (the coded noise)
  at all steps and at the first alone, all other calls being of the ODE, mode i2v;
- boundaries: mode flf2v with the still at a boundary coded once, for both sides, and coded for
  each side (a cut is put there);
- atoms: mode i2v with more atoms at the tail (M 4, M_tail 8) and as many everywhere (M 6);
- codebook: mode t2v, K from 16 to 1024, M such that the published count of bits is nearly the
  same; the size of our file (ranks of subsets) beside that count.

Each row has the means over clips and seeds with 95 % intervals by a bootstrap over both.
"""

from __future__ import annotations

import sys
from io import BytesIO
from pathlib import Path
from typing import Any

sys.path.insert(0, str(Path(__file__).resolve().parents[2]))

import numpy as np
import torch

from bench.common import CLIPS, clip, save
from gvcc import codec, priors
from gvcc.eval import published
from gvcc.format import parser
from gvcc.metrics import metrics, perceptual
from gvcc.records import Video
from gvcc.search import scenes
from gvcc.search.config import EncodeConfig

HEIGHT, FRAMES, GOP, SEEDS, STEPS = 64, 33, 17, 3, 20
I2V = dict(mode="i2v", codebook=256, atoms=4, tail_atoms=8)
ONE_STEP = dict(ode_steps=STEPS - 1)
ARMS: dict[str, dict[str, dict[str, Any]]] = {
    "residual": {
        "both": I2V | dict(residual="published"),
        "no residual": I2V | dict(residual="off"),
        "innovations at one step": I2V | dict(residual="published") | ONE_STEP,
        "that, no residual": I2V | dict(residual="off") | ONE_STEP,
    },
    "boundaries": {
        "shared": dict(mode="flf2v", codebook=256, atoms=4),
        "coded for each side": dict(mode="flf2v", codebook=256, atoms=4, cuts=True),
    },
    "atoms": {
        "M 4, M_tail 8": I2V | dict(residual="off"),
        "M 6": I2V | dict(residual="off", atoms=6, tail_atoms=6),
    },
    "codebook": {
        f"K {k}, M {m}": dict(mode="t2v", codebook=k, atoms=m)
        for k, m in ((16, 16), (64, 11), (256, 9), (1024, 7))
    },
}  # fmt: skip


def measured(video: Video, asked: dict[str, Any], seed: int, prior: priors.Prior) -> dict[str, Any]:
    """A real file of a clip, decoded: its size and its qualities."""
    config = EncodeConfig("paper", seed=seed, gop=GOP, steps=STEPS, audio=False, **asked)
    data = codec.encode(video, config, prior).data
    stream = parser.parse(data)
    out = np.stack(list(codec.Decoder(BytesIO(data), prior).pictures()))
    moved, pixels = metrics.temporal(video.frames, out), video.frames[..., 0].size
    assert moved is not None
    bits = sum(published.bits(stream.header, g) or 0 for g in stream.gops)
    found: dict[str, Any] = {
        "bits_per_pixel": 8 * len(data) / pixels, "published_bits_per_pixel": bits / pixels,
        "psnr_rgb_db": metrics.psnr(video.frames, out),
        "last_psnr_db": metrics.psnr(video.frames[-1:], out[-1:]),
        "temporal_error": moved.error, "activity_ratio": moved.activity_ratio,
    }  # fmt: skip
    if any(name.startswith("lpips-alex") for name in perceptual.present()):
        found["lpips_alex"] = perceptual.lpips(video.frames, out, "alex")
    return found


def interval(table: np.ndarray) -> tuple[float, float]:
    """95 % of the mean of values [clips, seeds], by a bootstrap over clips and within them over
    seeds."""
    random = np.random.default_rng(0)
    clips, seeds = table.shape
    means = []
    for _ in range(2000):
        rows = random.integers(0, clips, clips)
        picks = random.integers(0, seeds, (clips, seeds))
        means.append(table[rows[:, None], picks].mean())
    low, high = np.percentile(means, (2.5, 97.5))
    return float(low), float(high)


def main() -> None:
    torch.set_num_threads(1)
    prior = priors.load("nano")
    videos = [clip(name, FRAMES, HEIGHT) for name in CLIPS]
    real, rows = scenes.cuts, []
    for group, arms in ARMS.items():
        per_arm = {}
        for arm, asked in arms.items():
            if asked.get("cuts"):
                scenes.cuts = lambda _: list(range(GOP, FRAMES, GOP))  # type: ignore[assignment]
            try:
                per_arm[arm] = [[measured(v, asked, seed, prior) for seed in range(1, SEEDS + 1)]
                                for v in videos]  # fmt: skip
            finally:
                scenes.cuts = real
            print(group, arm, file=sys.stderr)
        first = next(iter(per_arm))
        for arm, cells in per_arm.items():
            row: dict[str, Any] = {"group": group, "arm": arm, "settings": arms[arm]}
            for name in cells[0][0]:
                table = np.array([[c[name] for c in of_clip] for of_clip in cells])
                against = np.array([[c[name] for c in of_clip] for of_clip in per_arm[first]])
                row[name] = float(table.mean())
                row[f"{name}_interval"] = interval(table)
                row[f"{name}_over_first"] = [float((table - against).mean()),
                                             *interval(table - against)]  # fmt: skip
            rows.append(row)
    save("systems/ablations", {"height": HEIGHT, "frames": FRAMES, "gop": GOP, "seeds": SEEDS,
                               "clips": list(CLIPS), "rows": rows})  # fmt: skip


if __name__ == "__main__":
    main()
