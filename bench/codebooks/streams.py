"""Atoms of preset paper from torch and from counters -> docs/results/codebooks/streams.json.

    python bench/codebooks/streams.py

K = 16384 atoms of D = 57,600 values (a latent frame of 480x480 by Wan's autoencoder), M = 64: the
encoder's search and the decoder's replay of one frame-step and of four side by side, the least of
three in turn. Let nothing else run.
"""

from __future__ import annotations

import os
import sys
from functools import partial
from pathlib import Path
from typing import Any

sys.path.insert(0, str(Path(__file__).resolve().parents[2]))

import torch

from bench.common import least, save
from gvcc.decode.codebook import Gaussian, Where
from gvcc.decode.counter import CounterGaussian

D, K, M = 57_600, 16_384, 64
KINDS = {"torch": Gaussian, "counter": CounterGaussian}


def main() -> None:
    out: dict[str, Any] = {"D": D, "K": K, "M": M, "cores": os.cpu_count(),
                           "threads": torch.get_num_threads(), "parts": {}}  # fmt: skip
    for count in (1, 4):
        where = [Where(0, 3, f) for f in range(count)]
        targets = torch.randn(count, D, generator=torch.Generator().manual_seed(1))
        asked = [(r, M, w) for r, w in zip(targets, where, strict=True)]
        found = {name: kind(42, D, K).choose_all(asked) for name, kind in KINDS.items()}
        took = {}
        for name, kind in KINDS.items():
            named = list(zip(found[name], where, strict=True))
            took[f"choose {name}"] = least(partial(kind(42, D, K).choose_all, asked))
            # Of the encoder's own coder the noise would be known.
            took[f"replay {name}"] = least(partial(kind(42, D, K).replay_all, named))
        for what in ("choose", "replay"):
            own, other = took[f"{what} counter"], took[f"{what} torch"]
            out["parts"][f"{what}, {count}"] = {
                "torch_s": other, "counter_s": own, "ratio": own / other,
            }  # fmt: skip
    save("codebooks/streams", out)


if __name__ == "__main__":
    main()
