"""How far nano's x0hat is from the latent, for Spec.variances ->
docs/results/priors/variances.json.

    python bench/priors/variances.py ../shared/data/train

32 clips of 17 frames, evenly from the list of all, at sizes that are multiples of 8. The codes that
it prints are those in priors/nano.py; the measured values and what the two factors of the codes
make of them go into the results.
"""

from __future__ import annotations

import argparse
import json
import sys
from itertools import islice
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parents[2]))

import av
import numpy as np
import torch

from bench.common import RESULTS
from gvcc import priors
from gvcc.format.base import GRID, variance
from gvcc.priors import soft

CLIPS, FRAMES = 32, 17

if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("folder", type=Path)
    args = parser.parse_args()
    paths = sorted(args.folder.rglob("*.mp4"))
    clips = []
    for path in paths[:: len(paths) // CLIPS][:CLIPS]:
        with av.open(str(path)) as box:
            few = islice(box.decode(video=0), FRAMES)
            frames = [f.to_ndarray(format="rgb24") for f in few]
        if len(frames) == FRAMES:
            h, w = (n // 8 * 8 for n in frames[0].shape[:2])
            clips.append(torch.from_numpy(np.stack(frames)[:, :h, :w].copy()))
    prior = priors.load("nano")
    measured = soft.measure(prior, clips)
    codes = soft.fitted(measured)
    u, v = ([variance(c) for c in part] for part in (codes[: len(GRID)], codes[len(GRID) :]))
    made = [[1 / (1 / b + 1 / a) for b in v] for a in u]
    print(codes)
    out = {"clips": len(clips), "log2_snr": GRID, "codes": codes, "measured": measured.tolist(),
           "by_codes": made}  # fmt: skip
    (RESULTS / "priors/variances.json").write_text(json.dumps(out, indent=1) + "\n")
