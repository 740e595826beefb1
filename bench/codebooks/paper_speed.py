"""Atoms of preset paper drawn side by side, and once -> docs/results/codebooks/paper_speed.json.

K = 16384, 9 frames of 120x96, prior nano: with decode.codebook.Gaussian and with what it was until
version 0.1, in turn, on as many threads as torch takes. The steps are one coded step of the three
latent frames, as an encoder (choose and replay) and a decoder (replay) do it; `encode` and `decode`
are the whole file. Seconds are the least of the repetitions, since others use the cores, too: a
single step finds them idle sooner. The processor's, of all threads together, say what is saved by
drawing once. Symbols, file and pictures must be the same.
"""

from __future__ import annotations

import argparse
import os
import sys
import time
from collections.abc import Callable, Sequence
from fractions import Fraction
from pathlib import Path
from typing import Any

sys.path.insert(0, str(Path(__file__).resolve().parents[2]))

os.environ.setdefault("OMP_WAIT_POLICY", "PASSIVE")
import numpy as np
import torch
from torch import Tensor

from bench.common import save
from gvcc import codec
from gvcc.decode import codebook
from gvcc.decode.codebook import Gaussian, Symbols, Where
from gvcc.eval.clips import demo_clip
from gvcc.priors import Prior, nano
from gvcc.records import Video
from gvcc.search.config import EncodeConfig

FRAMES, HEIGHT, WIDTH = 9, 96, 120
LATENT = 3, 32 * HEIGHT // 8 * WIDTH // 8  # latent frames, values of each
K, M = 16384, 64
BAR = 0.4  # of the time to encode, on two cores


class Serial(Gaussian):
    """One frame-step after the other, drawn anew for each replay."""

    def _atoms(self, where: Where, count: int):  # type: ignore[no-untyped-def]
        generator = torch.Generator()
        generator.manual_seed(self.seed * 100003 + 10007 * where.step + where.frame)
        batch = max(1, 2**24 // self.dim) if self.dim % 16 == 0 else 1
        for first in range(0, count, batch):
            n = min(batch, count - first)
            yield first, torch.randn(n * self.dim, generator=generator).reshape(n, self.dim)

    def choose_all(self, asked: Sequence[tuple[Tensor, int, Where]]) -> list[Symbols]:
        return [self._choose(*one) for one in asked]

    def _choose(self, r: Tensor, m: int, where: Where) -> Symbols:
        target = r.cpu()
        corr = torch.cat([atoms @ target for _, atoms in self._atoms(where, self.size)])
        index = corr.abs().topk(m).indices.sort().values
        return (2 * index + (corr[index] < 0)).numpy()

    def replay_all(self, asked: Sequence[tuple[Symbols, Where]]) -> list[Tensor]:
        return [self._replay(*one) for one in asked]

    def _replay(self, symbols: Symbols, where: Where) -> Tensor:
        total = torch.zeros(self.dim)
        index, sign = torch.from_numpy(symbols >> 1), torch.from_numpy(1.0 - 2 * (symbols & 1))
        for first, atoms in self._atoms(where, int(index[-1]) + 1):
            here = (index >= first) & (index < first + len(atoms))
            for i, s in zip(index[here], sign[here], strict=True):
                total += s.float() * atoms[i - first]
        return (total / total.std()).to(self.device)


Took = dict[str, dict[str, list[tuple[float, float]]]]
"""By what is done and by codebook: seconds of the clock and of all threads, of each time."""


def timed(took: Took, what: str, name: str, work: Callable[[], Any]) -> Any:
    """What comes of it; what it takes is noted."""
    wall, cpu = time.monotonic(), time.process_time()
    out = work()
    seconds = time.monotonic() - wall, time.process_time() - cpu
    took.setdefault(what, {}).setdefault(name, []).append(seconds)
    return out


def step(took: Took, name: str, kind: type[Gaussian], number: int) -> list[bytes]:
    """One coded step; the bytes of its symbols and noise."""
    where = [Where(0, number, f) for f in range(LATENT[0])]
    r = torch.randn(LATENT, generator=torch.Generator().manual_seed(number))
    asked = [(r[f], M, w) for f, w in enumerate(where)]

    def encoder() -> tuple[list[Symbols], list[Tensor]]:
        coder = kind(42, LATENT[1], K)
        symbols = coder.choose_all(asked)
        return symbols, coder.replay_all(list(zip(symbols, where, strict=True)))

    symbols, z = timed(took, "encoder's step", name, encoder)
    named = list(zip(symbols, where, strict=True))
    decoder = kind(42, LATENT[1], K)
    again = timed(took, "decoder's step", name, lambda: decoder.replay_all(named))
    assert all(map(torch.equal, z, again))
    return [v.tobytes() for v in symbols] + [v.numpy().tobytes() for v in z]


def whole(took: Took, name: str, kind: type[Gaussian], prior: Prior) -> bytes:
    """A clip there and back: its file and its pictures."""
    video = Video(demo_clip(FRAMES, HEIGHT, WIDTH), Fraction(24))
    config = EncodeConfig("paper", codebook=K, atoms=M, audio=False)
    codebook.Gaussian = kind  # type: ignore[misc]
    try:
        made = timed(took, "encode", name, lambda: codec.encode(video, config, prior))
        print(name, "encode", took["encode"][name][-1], flush=True)
        shown = timed(took, "decode", name, lambda: codec.decode(made.data, prior).frames)
    finally:
        codebook.Gaussian = Gaussian  # type: ignore[misc]
    assert np.array_equal(shown, made.frames)
    return bytes(made.data + shown.tobytes())


def main() -> None:
    asked = argparse.ArgumentParser(description=__doc__)
    asked.add_argument("--steps", type=int, default=8)
    asked.add_argument("--files", type=int, default=1)
    given, took, prior = asked.parse_args(), Took(), nano.load()
    kinds = {"before": Serial, "now": Gaussian}
    for number in range(given.steps):
        assert len({tuple(step(took, *kind, number)) for kind in kinds.items()}) == 1
    keep(took, given.steps, 0)  # whole files take minutes
    for n in range(given.files):
        assert len({whole(took, *kind, prior) for kind in kinds.items()}) == 1
        keep(took, given.steps, n + 1)


def keep(took: Took, steps: int, files: int) -> None:
    """Write what has been measured so far."""
    result: dict[str, Any] = {
        "K": K, "M": M, "frames": FRAMES, "height": HEIGHT, "width": WIDTH, "prior": "nano",
        "steps": steps, "files": files, "threads": torch.get_num_threads(),
        "cores": os.cpu_count(), "load": [round(x, 1) for x in os.getloadavg()], "bar": BAR,
    }  # fmt: skip
    for what, by in took.items():
        least = {n: [min(s) for s in zip(*by[n], strict=True)] for n in by}
        result[what] = {
            "share": round(least["now"][0] / least["before"][0], 3),
            "cpu_share": round(least["now"][1] / least["before"][1], 3),
            **{f"{n}_s": round(least[n][0], 2) for n in by},
            **{f"{n}_cpu_s": round(least[n][1], 2) for n in by},
            **{f"{n}_slowest_s": round(max(w for w, _ in by[n]), 2) for n in by},
        }
    save("codebooks/paper_speed", result)


if __name__ == "__main__":
    main()
