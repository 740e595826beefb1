"""One step of `rcc` at the size of a 33-frame 256x256 GOP -> docs/results/codebooks/rcc_speed.json.

The steps' shares of a GOP's bits are those of a real GOP of 9 frames at 96 px height (prior nano,
preset free-gvc) at the same 0.05 bits per pixel; D, and the bits, are those of the large GOP. What
is searched for is a mu of that length in a random direction: `choose` and `replay` of each step,
the least and the largest of a few repetitions on two threads, as far as others leave the cores.
Processor seconds, of all threads together, are what it takes on one core that is free.
"""

from __future__ import annotations

import argparse
import math
import os
import sys
import time
from pathlib import Path
from typing import Any

sys.path.insert(0, str(Path(__file__).resolve().parents[2]))

os.environ.setdefault("OMP_WAIT_POLICY", "PASSIVE")
import torch

from bench.common import clip, save
from gvcc import codec
from gvcc.decode import rcc
from gvcc.priors import nano
from gvcc.search.config import EncodeConfig

CLIP, BPP, FRAMES, SIDE = "davis_dog", 0.05, 33, 256
DIM = 32 * 9 * 32 * 32  # channels, latent frames, height, width
BAR_S = 2.0


def shares() -> list[float]:
    """Each coded step's share of the information of a GOP."""
    bits: list[float] = []
    real = rcc.Rcc.choose

    def noted(self: rcc.Rcc, mu: torch.Tensor, gop: int, step: int) -> rcc.Chunks:
        bits.append(float((mu.double() ** 2).sum()) / (2 * math.log(2)))
        return real(self, mu, gop, step)

    rcc.Rcc.choose = noted  # type: ignore[method-assign]
    try:
        asked = EncodeConfig("free-gvc", coder="rcc", bpp=BPP, audio=False)
        coded = codec.encode(clip(CLIP, 9, 96), asked, nano.load())
    finally:
        rcc.Rcc.choose = real  # type: ignore[method-assign]
    whole = 8 * len(coded.data)
    # The first pass goes a step too deep, and a part of it is coded anew: keep what the file holds.
    kept = [b for i, b in enumerate(bits) if sum(bits[: i + 1]) <= whole]
    return [b / sum(kept) for b in kept]


def timed(bits: float, step: int, repeats: int) -> dict[str, Any]:
    """One step: seconds of each repetition, of the wall clock and of all threads together."""
    generator = torch.Generator().manual_seed(step)
    mu = torch.randn(DIM, generator=generator)
    mu *= math.sqrt(2 * math.log(2) * bits) / mu.norm()
    coder, runs = rcc.Rcc(1, 2**14), []
    for _ in range(repeats):
        wall, cpu = time.monotonic(), time.process_time()
        chunks = coder.choose(mu, 0, step)
        chosen, chosen_cpu = time.monotonic() - wall, time.process_time() - cpu
        wall, cpu = time.monotonic(), time.process_time()
        coder.replay(chunks, DIM, 0, step)
        replayed_cpu = time.process_time() - cpu
        runs.append((chosen, chosen_cpu, time.monotonic() - wall, replayed_cpu))
    choose, choose_cpu, replay, replay_cpu = (sorted(v) for v in zip(*runs, strict=True))
    return {
        "bits": round(bits), "chunks": len(chunks.numbers),
        "candidates": coder.candidates(chunks.c),
        "choose_s": round(choose[0], 3), "choose_slowest_s": round(choose[-1], 3),
        "choose_cpu_s": round(choose_cpu[0], 3), "replay_cpu_s": round(replay_cpu[0], 3),
        "replay_s": round(replay[0], 3), "replay_slowest_s": round(replay[-1], 3),
    }  # fmt: skip


def main() -> None:
    asked = argparse.ArgumentParser(description=__doc__)
    asked.add_argument("--repeats", type=int, default=3)
    repeats = asked.parse_args().repeats
    torch.set_num_threads(2)
    gop = BPP * FRAMES * SIDE * SIDE
    of = shares()
    steps = [timed(gop * s, i, repeats) for i, s in enumerate(of)]
    mean = timed(gop / len(of), len(of), repeats)
    save("codebooks/rcc_speed", {
        "D": DIM, "frames": FRAMES, "width": SIDE, "height": SIDE, "bpp": BPP, "gop_bits": gop,
        "shares_of": {"clip": CLIP, "frames": 9, "height": 96, "prior": "nano"},
        "threads": 2, "repeats": repeats, "bar_s": BAR_S,
        "slowest_step_s": max(s["choose_s"] + s["replay_s"] for s in steps),
        "slowest_step_cpu_s": max(s["choose_cpu_s"] + s["replay_cpu_s"] for s in steps),
        "load": round(os.getloadavg()[0], 1), "cores": os.cpu_count(),
        "of_gop_s": round(sum(s["choose_s"] + s["replay_s"] for s in steps), 2),
        "mean_step": mean, "steps": steps,
    })  # fmt: skip


if __name__ == "__main__":
    main()
