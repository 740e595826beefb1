"""Time and steering efficiency of the codebooks over D, K and M
-> docs/results/codebooks/codebook.json.

Efficiency: bits that an ideal Gaussian channel needs for the same correlation with a random target,
-D/2 log2(1 - cos^2), over the bits written, word padding of the range coder included.
"""

from __future__ import annotations

import math
import sys
import time
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parents[2]))

import numpy as np
import torch

from bench.common import save
from gvcc.decode.codebook import Codebook, Gaussian, Hadamard, Where
from gvcc.format import entropy


def measure(coder: Codebook, dim: int, m: int, draws: int) -> dict[str, float]:
    """Means over `draws` frame-steps that share one stream of symbols, as in a GOP."""
    writer, ideal = entropy.SymbolWriter(), []
    choose, replay = [], []
    for i in range(draws):
        r = torch.randn(dim, generator=torch.Generator().manual_seed(i))
        where = Where(0, i, 0)
        begin = time.perf_counter()
        symbols = coder.choose(r, m, where)
        choose.append(time.perf_counter() - begin)
        begin = time.perf_counter()
        z = coder.replay(symbols, where)
        replay.append(time.perf_counter() - begin)
        coder.write(symbols, writer)
        cos = float(z @ r / z.norm() / r.norm())
        ideal.append(-dim / 2 * math.log2(1 - cos * cos))
    bits = 8 * len(writer.finish()) / draws
    return {
        "draws": draws,
        "bits": bits,
        "efficiency": float(np.mean(ideal)) / bits,
        "efficiency_stderr": float(np.std(ideal)) / bits / math.sqrt(draws),
        "choose_s": float(np.median(choose)),
        "replay_s": float(np.median(replay)),
    }


rows = []
for dim, m, draws in (
    (8192, 16, 20), (16384, 4, 60), (16384, 16, 30), (16384, 64, 20), (16384, 256, 8),
    (32768, 64, 10), (65536, 64, 8), (230400, 50, 5), (230400, 200, 3),
):  # fmt: skip
    row = {"codebook": "hadamard", "D": dim, "M": m, **measure(Hadamard(1, dim), dim, m, draws)}
    rows.append(row)
    print(row, flush=True)
for dim, size, m, draws in (
    (16384, 1024, 32, 6), (16384, 4096, 64, 4), (16384, 16384, 64, 6), (16384, 16384, 128, 3),
):  # fmt: skip
    row = {"codebook": "gaussian", "D": dim, "K": size, "M": m}
    row |= measure(Gaussian(42, dim, size), dim, m, draws)
    fixed = m * (math.ceil(math.log2(size)) + 1)
    row["efficiency_as_published"] = row["efficiency"] * row["bits"] / fixed
    rows.append(row)
    print(row, flush=True)
save("codebooks/codebook", {"threads": torch.get_num_threads(), "rows": rows})
