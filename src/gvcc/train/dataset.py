"""Training samples: random crops of clips and of pictures under a moving camera.

Clips are decoded once into a folder of plain arrays that the operating system keeps in memory, so
a crop costs microseconds. Sample number i of a seed is always the same: a resumed run goes on with
what a run in one piece would have seen.
"""

from __future__ import annotations

import csv
import hashlib
import io
import math
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor
from torch.nn import functional

from gvcc import files
from gvcc.errors import ConfigError, MediaError
from gvcc.pictures import media
from gvcc.train import data
from gvcc.train.loop import Progress

PICTURES = {".webp", ".png", ".jpg", ".jpeg"}


@dataclass(frozen=True)
class Item:
    """A decoded source: `frames` is a memory-mapped uint8 [T,H,W,3]; a picture has T = 1."""

    name: str
    sha256: str
    frames: NDArray[np.uint8]


class Dataset:
    """The sources below a folder, decoded into `cache`.

    `weights` maps the beginning of a file name to how often it is drawn, relative to 1 for the
    others: sets of many similar clips need not outweigh the rest. `pictures` is the share of
    samples that are pictures. One source in 32, chosen by its hash, is held out of `sample` and
    is what `held_out` draws from. ConfigError if nothing is found.
    """

    def __init__(
        self,
        folder: Path,
        cache: Path,
        weights: Mapping[str, float] | None = None,
        pictures: float = 0.2,
        progress: Progress | None = None,
    ) -> None:
        report = progress or (lambda stage, done, total: None)
        stills = sorted(p for p in folder.rglob("*") if p.suffix.lower() in PICTURES)
        paths = data.clips(folder) + stills
        cache.mkdir(parents=True, exist_ok=True)
        items = []
        for i, path in enumerate(paths):
            item = _load(path, path.relative_to(folder).as_posix(), cache)
            items += [item] if item is not None else []
            report("decode", i + 1, len(paths))
        self.items = items
        clips = [i for i in items if len(i.frames) > 1]
        if not clips:
            raise ConfigError(f"no clip below {folder} can be decoded")
        self.validation = [i for i in clips if _held_out(i)] or clips[:1]
        self.clips = [i for i in clips if not _held_out(i)] or clips
        self.stills = [i for i in items if len(i.frames) == 1]
        self.pictures = pictures if self.stills else 0.0
        odds = [_weight(Path(i.name).name, weights or {}) for i in self.clips]
        self._odds = np.array(odds) / sum(odds)

    def manifest(self) -> list[tuple[str, str, int]]:
        """(file, SHA-256, frames) of each source in use."""
        return [(i.name, i.sha256, len(i.frames)) for i in self.items]

    def sample(self, seed: int, index: int, frames: int, side: int) -> Tensor:
        """Sample number `index`: uint8 [frames, side, side, 3]; multiples of 8 are not required."""
        rng = np.random.default_rng([seed, index])
        if rng.random() < self.pictures:
            return _pan(self.stills[rng.integers(len(self.stills))].frames[0], frames, side, rng)
        return _cut(self.clips[rng.choice(len(self.clips), p=self._odds)].frames, frames, side, rng)

    def held_out(self, index: int, frames: int, side: int) -> Tensor:
        """Validation sample `index`, the same for every run: uint8 [frames, side, side, 3]."""
        rng = np.random.default_rng([0, index])
        return _cut(self.validation[index % len(self.validation)].frames, frames, side, rng)

    def cut(self, item: Item, frames: int, side: int, rng: np.random.Generator) -> Tensor:
        """A random crop of one clip: uint8 [frames, side, side, 3]."""
        return _cut(item.frames, frames, side, rng)

    def batch(self, seed: int, start: int, count: int, frames: int, side: int) -> Tensor:
        """Samples start .. start+count-1: uint8 [count, frames, side, side, 3]."""
        return torch.stack([self.sample(seed, start + i, frames, side) for i in range(count)])


def manifest_text(rows: Iterable[tuple[str, str, int]]) -> str:
    """A CSV table of file, sha256, frames."""
    text = io.StringIO()
    csv.writer(text, lineterminator="\n").writerows([("file", "sha256", "frames"), *rows])
    return text.getvalue()


def _held_out(item: Item) -> bool:
    return int(item.sha256[:2], 16) < 8


def _weight(name: str, weights: Mapping[str, float]) -> float:
    return next((w for start, w in weights.items() if name.startswith(start)), 1.0)


def _load(path: Path, name: str, cache: Path) -> Item | None:
    """Decode a source into the cache unless it is there; None if it does not decode."""
    digest = hashlib.sha256(path.read_bytes()).hexdigest()
    stored = cache / f"{digest[:32]}.npy"
    if not stored.exists():
        try:
            frames = media.read(path, audio=False).frames
        except MediaError:
            return None
        with files.replacing(stored) as file:
            np.save(file, frames if path.suffix.lower() not in PICTURES else frames[:1])
    return Item(name, digest, np.load(stored, mmap_mode="r"))


def _resize(x: NDArray[np.uint8], side: int) -> Tensor:
    """uint8 [T,s,s,3] -> uint8 [T,side,side,3], antialiased when it shrinks."""
    t = torch.from_numpy(np.array(x))  # a copy: the source is read-only
    if t.shape[1] == side:
        return t
    y = functional.interpolate(
        t.permute(0, 3, 1, 2).float(), (side, side), mode="bicubic", antialias=True
    )
    return y.round().clamp(0, 255).to(torch.uint8).permute(0, 2, 3, 1)


def _cut(source: NDArray[np.uint8], frames: int, side: int, rng: np.random.Generator) -> Tensor:
    """A crop of a clip: random place, time, scale, speed, direction and mirror image.

    A clip too short is continued backwards and forwards, one too small is enlarged.
    """
    total, h, w, _ = source.shape
    speed = int(rng.choice((1, 1, 1, 2))) if total >= 2 * frames else 1
    span = (frames - 1) * speed + 1
    start = int(rng.integers(0, max(0, total - span) + 1))
    times = np.arange(start, start + span, speed) % max(1, 2 * total - 2)
    times = np.where(times >= total, 2 * total - 2 - times, times)
    # Most clips were compressed hard and have lost their finest detail: shrinking, up to the whole
    # picture, brings back the sharpness of what a codec is given.
    largest = min(h, w)
    size = min(side, largest)
    if largest > side:
        size = int(round(side * (largest / side) ** rng.uniform(0.4, 1)))
    y, x = int(rng.integers(0, h - size + 1)), int(rng.integers(0, w - size + 1))
    if rng.random() < 0.5:
        times = times[::-1]
    first, last = int(times.min()), int(times.max())
    block = np.asarray(source[first : last + 1, y : y + size, x : x + size])[times - first]
    if rng.random() < 0.5:
        block = block[:, :, ::-1]
    return _resize(block, side)


def _pan(picture: NDArray[np.uint8], frames: int, side: int, rng: np.random.Generator) -> Tensor:
    """A still picture seen by a camera that pans, zooms and turns smoothly."""
    h, w, _ = picture.shape
    t = np.linspace(-1, 1, frames)
    # The visible square's half side in pixels, and its centre and angle: quadratics in time.
    half = min(h, w) / 2 * rng.uniform(0.45, 0.9)
    pace = frames / 17
    zoom = np.exp(rng.normal(0, 0.06) * t * pace + rng.normal(0, 0.02) * t * t)
    angle = rng.normal(0, 0.05) * t * pace + rng.normal(0, 0.02) * t * t
    move = [half * (rng.normal(0, 0.15) * t * pace + rng.normal(0, 0.05) * t * t) for _ in "yx"]
    reach = half * float(zoom.max()) * 1.2
    cy, cx = (rng.uniform(min(reach, n / 2), max(n - reach, n / 2)) for n in (h, w))
    mirror = rng.choice((-1, 1))
    grid = torch.linspace(-1, 1, side, dtype=torch.float64) * (1 - 1 / side)
    gy, gx = torch.meshgrid(grid, grid, indexing="ij")
    out = []
    scale = 2 * half / side
    x = torch.from_numpy(np.array(picture)).permute(2, 0, 1)[None].float()
    if scale > 1.2:  # shrink first, so that sampling does not alias
        x = functional.interpolate(x, scale_factor=1 / scale, mode="bicubic", antialias=True)
    for z, a, dy, dx in zip(zoom, angle, *move, strict=True):
        c, s = half * z * math.cos(a), half * z * math.sin(a)
        py, px = cy + dy + c * gy + s * gx * mirror, cx + dx - s * gy + c * gx * mirror
        at = torch.stack([px / w * 2 - 1, py / h * 2 - 1], -1)[None].float()
        out.append(
            functional.grid_sample(
                x, at, mode="bicubic", padding_mode="reflection", align_corners=False
            )
        )
    return torch.cat(out).round().clamp(0, 255).to(torch.uint8).permute(0, 2, 3, 1)
