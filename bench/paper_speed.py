"""Atoms of preset paper drawn side by side, and once -> docs/results/paper_speed.json.

K = 16384, 9 frames of 120x96, prior nano: encode and decode with gvcc.codebook.Gaussian and with
what it was until version 0.1, in turn, on as many threads as torch takes. Seconds are the least of
the repetitions, since others use the cores, too; the processor's, of all threads together, say what
is saved by drawing once. File and pictures must be the same.
"""

from __future__ import annotations

import argparse
import os
import time
from collections.abc import Callable, Sequence
from typing import Any

os.environ.setdefault("OMP_WAIT_POLICY", "PASSIVE")
import numpy as np
import torch
from common import save
from torch import Tensor

from gvcc import codebook, codec, trajectory
from gvcc.codebook import Gaussian, Symbols, Where
from gvcc.eval.clips import demo_clip
from gvcc.priors import nano
from gvcc.rate import EncodeConfig
from gvcc.records import Video

FRAMES, HEIGHT, WIDTH = 9, 96, 120
BAR = 0.4


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


def timed(work: Callable[[], Any]) -> tuple[Any, float, float]:
    """What comes of it, and its seconds: of the wall clock and of all threads."""
    wall, cpu = time.monotonic(), time.process_time()
    out = work()
    return out, time.monotonic() - wall, time.process_time() - cpu


def main() -> None:
    asked = argparse.ArgumentParser(description=__doc__)
    asked.add_argument("--repeats", type=int, default=3)
    asked.add_argument("-K", type=int, default=16384)
    given = asked.parse_args()
    prior, video = nano.load(), Video(demo_clip(FRAMES, HEIGHT, WIDTH), 24)  # type: ignore[arg-type]
    config = EncodeConfig("paper", codebook=given.K, audio=False)
    took: dict[tuple[str, str], list[tuple[float, float]]] = {}
    made: set[bytes] = set()
    for name, kind in [("before", Serial), ("now", Gaussian)] * given.repeats:
        assert trajectory.codebook is codebook
        codebook.Gaussian = kind  # type: ignore[misc]
        coded, *seconds = timed(lambda: codec.encode(video, config, prior))
        took.setdefault((name, "encode"), []).append((seconds[0], seconds[1]))
        shown, *seconds = timed(lambda data=coded.data: codec.decode(data, prior).frames)
        took.setdefault((name, "decode"), []).append((seconds[0], seconds[1]))
        assert np.array_equal(shown, coded.frames)
        made.add(coded.data + shown.tobytes())
    assert len(made) == 1, "other bytes or pictures"
    result: dict[str, Any] = {
        "K": given.K, "M": 64, "frames": FRAMES, "height": HEIGHT, "width": WIDTH, "prior": "nano",
        "bytes": len(coded.data), "repeats": given.repeats, "threads": torch.get_num_threads(),
        "cores": os.cpu_count(), "load": round(os.getloadavg()[0], 1), "bar": BAR,
    }  # fmt: skip
    for what in ("encode", "decode"):
        wall = {n: sorted(w for w, _ in took[n, what]) for n in ("before", "now")}
        cpu = {n: min(c for _, c in took[n, what]) for n in ("before", "now")}
        result[what] = {
            "before_s": round(wall["before"][0], 2), "now_s": round(wall["now"][0], 2),
            "share": round(wall["now"][0] / wall["before"][0], 3),
            "before_slowest_s": round(wall["before"][-1], 2),
            "now_slowest_s": round(wall["now"][-1], 2),
            "before_cpu_s": round(cpu["before"], 2), "now_cpu_s": round(cpu["now"], 2),
        }  # fmt: skip
    save("paper_speed", result)


if __name__ == "__main__":
    main()
