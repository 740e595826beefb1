"""The two systems on the same prior and clips -> docs/results/systems/systems.json and systems.png.

GVCC as published (preset paper, its M swept), GVCC default (t2v and i2v) and Free-GVC (coder rcc,
and the codebook on its schedule), prior nano, real files. One GOP of 9 frames at 96 px height,
cropped to 120 px width: preset paper draws 16384 atoms of D normals for each frame-step, so a clip
at 256 px would take hours. Its codebook depends on nothing but the step and frame, so the clips
and the Ms go step by step together, share each codebook while it is in memory, and are correlated
with it in one product (which may round a tie of two atoms the other way). MS-SSIM is not defined
below 161 pixels.

Cells that are in the file already, made with the same weights, are kept.
"""

from __future__ import annotations

import argparse
import functools
import itertools
import json
import os
import sys
import threading
import time
from collections import OrderedDict
from collections.abc import Iterator
from pathlib import Path
from typing import Any

sys.path.insert(0, str(Path(__file__).resolve().parents[2]))

os.environ.setdefault("OMP_WAIT_POLICY", "PASSIVE")
os.environ["OMP_NUM_THREADS"] = "1"  # of every thread: they take turns
import matplotlib
import numpy as np
import torch

from bench import passes
from bench.common import CLIPS, RESULTS, clip, save
from gvcc import codec
from gvcc.decode import codebook
from gvcc.metrics import metrics
from gvcc.pictures.media import Video
from gvcc.priors import nano
from gvcc.search.config import EncodeConfig

HEIGHT, WIDTH, FRAMES = 96, 120, 9
ATOMS, BPP = (4, 8, 16, 32, 64), (0.02, 0.04, 0.08, 0.16, 0.32)
SYSTEMS: dict[str, dict[str, Any]] = {
    "gvcc paper": {"preset": "paper"},
    "gvcc default t2v": {"preset": "default", "mode": "t2v"},
    "gvcc default i2v": {"preset": "default", "mode": "i2v"},
    "free-gvc rcc": {"preset": "free-gvc", "coder": "rcc"},
    "free-gvc codebook": {"preset": "free-gvc", "coder": "codebook"},
}
REFERENCE = "gvcc paper"


def cropped(name: str) -> Video:
    """The beginning of a clip, scaled, cropped around its middle."""
    video = clip(name, FRAMES, HEIGHT)
    left = (video.frames.shape[2] - WIDTH) // 2
    frames = np.ascontiguousarray(video.frames[:, :, left : left + WIDTH])
    return Video(frames, video.fps, video.colour)


@functools.cache
def prior() -> nano.NanoPrior:
    """The one prior of all encodes: loading it takes as long as some of them."""
    return nano.load()


def cell(name: str, system: str, knob: float) -> dict[str, Any]:
    """One real file: size and quality."""
    video = cropped(name)
    target = {"atoms": int(knob)} if system == REFERENCE else {"bpp": knob}
    asked = EncodeConfig(audio=False, gop=FRAMES, **SYSTEMS[system], **target)
    begin = time.process_time()
    made = codec.encode(video, asked, prior())
    seconds = time.process_time() - begin
    return {
        "clip": name, "system": system, **target, "bytes": len(made.data),
        "bits_per_pixel": 8 * len(made.data) / video.frames[..., 0].size,
        "psnr_rgb_db": metrics.psnr(video.frames, made.frames),
        "ms_ssim": metrics.ms_ssim(video.frames, made.frames),
        "vmaf": metrics.vmaf(video.frames, made.frames, video.fps),
        "tof": metrics.tof(video.frames, made.frames),
        "encode_cpu_s": None if system == REFERENCE else round(seconds, 2),
    }  # fmt: skip


class Together:
    """Encodes that take turns, so that each codebook is drawn once for all of them.

    All of them search the same codebooks in the same order: who comes to the next one leaves the
    turn to another and waits until everybody has. The codebooks of one step are kept, because a
    replay comes after the whole step.
    """

    def __init__(self, count: int, keep: int) -> None:
        self.turn, self.keep = threading.Lock(), keep
        self.books: OrderedDict[tuple[int, int], torch.Tensor] = OrderedDict()
        self.targets: dict[int, torch.Tensor] = {}
        self.found: dict[int, torch.Tensor] = {}
        self.wanted: tuple[codebook.Gaussian, codebook.Where] | None = None
        self.barrier = threading.Barrier(count, self._search)
        self.atoms, self.began = codebook.Gaussian._atoms, time.monotonic()

    def _search(self) -> None:
        """Draw the codebook that all wait for, and correlate all targets with it."""
        assert self.wanted is not None
        coder, where = self.wanted
        while len(self.books) >= self.keep:
            self.books.popitem(last=False)
        whole = torch.cat([atoms for _, atoms in self.atoms(coder, where, coder.size)])
        self.books[where.step, where.frame] = whole
        who = sorted(self.targets)
        product = whole @ torch.stack([self.targets[i] for i in who], 1)
        self.found = {i: product[:, n].contiguous() for n, i in enumerate(who)}
        print(where, round(time.monotonic() - self.began), file=sys.stderr, flush=True)

    def choose(
        self, coder: codebook.Gaussian, r: torch.Tensor, m: int, where: codebook.Where
    ) -> codebook.Symbols:
        """In place of Gaussian.choose."""
        me = threading.get_ident()
        self.targets[me], self.wanted = r, (coder, where)
        self.turn.release()
        try:
            self.barrier.wait()
        finally:
            self.turn.acquire()
        corr = self.found[me]
        index = corr.abs().topk(m).indices.sort().values
        return np.asarray((2 * index + (corr[index] < 0)).numpy())

    def run(self, cells: list[tuple[str, str, float]]) -> list[dict[str, Any]]:
        """All cells, in their order."""
        out: dict[int, dict[str, Any]] = {}

        def work(i: int) -> None:
            with self.turn:
                try:
                    out[i] = cell(*cells[i])
                except BaseException:
                    self.barrier.abort()
                    raise

        def choose(coder: Any, r: Any, m: int, where: Any) -> Any:
            return self.choose(coder, r, m, where)

        def kept(coder: Any, where: Any, count: int) -> Iterator[Any]:
            yield 0, self.books[where.step, where.frame][:count]

        real = codebook.Gaussian.choose, codebook.Gaussian._atoms
        codebook.Gaussian.choose, codebook.Gaussian._atoms = choose, kept  # type: ignore[method-assign]
        try:
            threads = [threading.Thread(target=work, args=(i,)) for i in range(len(cells))]
            for t in threads:
                t.start()
            for t in threads:
                t.join()
        finally:
            codebook.Gaussian.choose, codebook.Gaussian._atoms = real  # type: ignore[method-assign]
        return [out[i] for i in range(len(cells))]


def means(cells: list[dict[str, Any]]) -> dict[str, list[dict[str, float]]]:
    """System -> mean over the clips at each rate that all of them were measured at."""
    out: dict[str, list[dict[str, float]]] = {}
    for system in SYSTEMS:
        for knob in ATOMS if system == REFERENCE else BPP:
            rows = [c for c in cells if c["system"] == system
                    and c["atoms" if system == REFERENCE else "bpp"] == knob]  # fmt: skip
            if {r["clip"] for r in rows} == set(CLIPS):
                keys = ("bytes", "bits_per_pixel", "psnr_rgb_db", "vmaf", "tof")
                row = {k: float(np.mean([r[k] for r in rows])) for k in keys}
                out.setdefault(system, []).append({"knob": knob, **row})
    return out


def sizes(cells: list[dict[str, Any]]) -> dict[str, Any]:
    """Bits over those of preset paper at equal PSNR, clip by clip: interpolated in the logarithm of
    the rate, at paper's own points that lie within the other curve."""
    out: dict[str, Any] = {}
    for system in SYSTEMS:
        if system == REFERENCE:
            continue
        ratios = {}
        for name in CLIPS:
            here = [c for c in cells if c["clip"] == name]
            curve = sorted((c["psnr_rgb_db"], np.log(c["bits_per_pixel"]))
                           for c in here if c["system"] == system)  # fmt: skip
            for c in here:
                if c["system"] != REFERENCE or len(curve) < 2:
                    continue
                if curve[0][0] <= c["psnr_rgb_db"] <= curve[-1][0]:
                    bits = np.exp(np.interp(c["psnr_rgb_db"], *zip(*curve, strict=True)))
                    ratios[f"{name} M={c['atoms']}"] = float(bits / c["bits_per_pixel"])
        if ratios:
            mean = float(np.exp(np.mean(np.log(list(ratios.values())))))
            out[system] = {"geometric_mean": mean, "cells": ratios}
    return out


def plot(result: dict[str, Any]) -> None:
    matplotlib.use("Agg")
    from matplotlib import pyplot as plt

    figure, axes = plt.subplots(1, 3, figsize=(14, 4.2))
    labels = {"psnr_rgb_db": "PSNR (RGB), dB", "vmaf": "VMAF", "tof": "tOF, pixels"}
    for ax, (key, label) in zip(axes, labels.items(), strict=True):
        for system, rows in result["means"].items():
            ax.plot([r["bits_per_pixel"] for r in rows], [r[key] for r in rows], "o-", ms=4,
                    label=system)  # fmt: skip
        ax.set(xscale="log", xlabel="bits per pixel", ylabel=label)
        ax.set_xticks(BPP, [str(b) for b in BPP], minor=False)
        ax.set_xticks([], minor=True)
        ax.grid(alpha=0.3)
    axes[0].legend(fontsize=8)
    figure.suptitle(f"mean of five clips, nano, {WIDTH}x{HEIGHT}, one GOP of {FRAMES} frames")
    figure.tight_layout()
    figure.savefig(RESULTS / "systems/systems.png", dpi=90)
    plt.close(figure)


def main() -> None:
    asked = argparse.ArgumentParser(description=__doc__)
    asked.add_argument("--fresh", action="store_true", help="measure every cell anew")
    fresh = asked.parse_args().fresh
    torch.set_num_threads(1)
    passes.install()
    digest, path = prior().spec.digest.hex(), RESULTS / "systems/systems.json"
    cells: list[dict[str, Any]] = []
    if path.exists() and not fresh:
        old = json.loads(path.read_text())
        cells = old["cells"] if old["weights"] == digest else []
    done = {(c["clip"], c["system"], c.get("atoms", c.get("bpp"))) for c in cells}

    def add(rows: list[dict[str, Any]]) -> dict[str, Any]:
        cells.extend(rows)
        result = {
            "prior": "nano", "weights": digest, "height": HEIGHT, "width": WIDTH, "frames": FRAMES,
            "gop": FRAMES, "reference": REFERENCE, "means": means(cells),
            "bits_over_reference_at_equal_psnr": sizes(cells), "cells": cells,
        }  # fmt: skip
        save("systems/systems", result)
        return result

    left = [(n, REFERENCE, m) for n in CLIPS for m in ATOMS if (n, REFERENCE, m) not in done]
    if left:
        latent_frames = (FRAMES - 1) // 4 + 1
        add(Together(len(left), latent_frames).run(left))
    for name, system, knob in itertools.product(CLIPS, SYSTEMS, BPP):
        if system != REFERENCE and (name, system, knob) not in done:
            add([cell(name, system, knob)])
            print(cells[-1], file=sys.stderr, flush=True)
    plot(add([]))


if __name__ == "__main__":
    main()
