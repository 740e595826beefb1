"""Training pairs of the restorer: clips and what a base layer makes of them, coded once."""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import asdict
from fractions import Fraction
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from gvcc.pictures import base, enlarge
from gvcc.pictures.basecodecs import PARTS
from gvcc.train.dataset import Dataset
from gvcc.train.kept import Arrays, Counts, kept, load
from gvcc.train.loop import Progress
from gvcc.train.packed import ODDS, About, Pair

FRAMES, SIDE = 17, 256
# Indices of quality, finest and coarsest, by codec and size: some .004 to .25 bits per pixel.
_RANGES = {
    ("av1", 1): (4 * 120, 4 * 265), ("av1", 2): (4 * 60, 4 * 240), ("av1", 4): (4 * 20, 4 * 190),
    ("vvc", 1): (26 * PARTS, 51 * PARTS), ("vvc", 2): (18 * PARTS, 44 * PARTS),
    ("vvc", 4): (13 * PARTS, 36 * PARTS),
}  # fmt: skip
_PRESETS = {"av1": "8", "vvc": "fast"}


def pairs(
    data: Dataset, folder: Path, counts: Counts, codecs: Sequence[str], seed: int,
    progress: Progress | None = None,
) -> tuple[list[Pair], list[Pair]]:  # fmt: skip
    """Pairs of a data set's samples and of its held-out ones, kept in a folder."""

    def make(i: int, held: bool) -> Arrays:
        rng = np.random.default_rng([seed, 77, i])
        side = int(rng.choice((SIDE, SIDE, 192)))
        clip = data.held_out(i, FRAMES, side) if held else data.sample(seed, i, FRAMES, side)
        pair = made(clip.numpy(), rng, codecs)
        text = np.frombuffer(json.dumps(asdict(pair.about)).encode(), np.uint8)
        return {"about": text, "clip": pair.clip, "base": pair.base}

    return kept(folder, "pair", counts, seed, make, read, progress)


def made(clip: NDArray[np.uint8], rng: np.random.Generator, codecs: Sequence[str]) -> Pair:
    """A pair of a clip, by a codec, size and quantiser drawn at random."""
    codec = str(rng.choice(list(codecs)))
    size = int(rng.choice(list(ODDS), p=list(ODDS.values())))
    finest, coarsest = _RANGES[codec, size]
    index = int(rng.integers(finest, coarsest + 1))
    t, h, w, _ = clip.shape
    spool = base.spooled(clip, h, w, (size,))[size]
    try:
        coded = base.coded(spool, codec, size, Fraction(25), index, _PRESETS[codec])
    finally:
        spool.close()
    shown = np.stack(list(base.small(coded, h, w, t)))
    about = About(codec, size, coded.quantiser, len(coded.stream))
    return Pair(about, np.stack([enlarge.shrunk(p, 1) for p in clip]), shown)


def read(path: Path) -> Pair:
    """A pair from its file; ConfigError if it is none."""

    def of(found: Arrays) -> Pair:
        about: dict[str, Any] = json.loads(found["about"].tobytes())
        return Pair(About(**about), found["clip"], found["base"])

    return load(path, "pair", of)
