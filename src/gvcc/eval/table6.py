"""GVCC's Table 6, line by line: rate and PSNR of the published protocol beside the published ones.

Wan2.1 T2V 1.3B, UVG scaled to 848x480, three GOPs of 33 frames of each sequence, T = 20, N = 3,
g_scale = 3, shift 3 (published.md 1.1, 2.3). The published rate is a count at a fictive 16 frames
a second; beside it stands the size of our real file, the same symbols written as subset ranks.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from gvcc import codec
from gvcc.errors import ConfigError, MediaError
from gvcc.eval import identity, published
from gvcc.files import write
from gvcc.format import parser
from gvcc.priors import Prior
from gvcc.records import Pictures, Video
from gvcc.search.config import EncodeConfig

SEQUENCES = (
    "Beauty", "Bosphorus", "HoneyBee", "Jockey", "ReadySteadyGo", "ShakeNDry", "YachtRide"
)  # fmt: skip
GOP, GOPS, WIDTH, HEIGHT, FPS = 33, 3, 848, 480, 16


@dataclass(frozen=True)
class Row:
    """A line of the published table: PSNR in dB, and kbit/s at 16 frames a second."""

    atoms: int
    codebook: int
    psnr: float
    kbps: float


ROWS = tuple(
    Row(*r) for r in (
        (8, 256, 22.50, 5.3), (16, 512, 24.32, 11.9), (16, 1024, 24.76, 13.1),
        (32, 2048, 26.32, 28.5), (32, 4096, 26.62, 30.9), (64, 4096, 27.61, 61.7),
        (64, 16384, 28.06, 71.2), (128, 16384, 28.94, 142.4), (128, 65536, 29.28, 161.4),
        (256, 16384, 29.64, 284.9), (256, 65536, 30.00, 322.8),
    )
)  # fmt: skip


def chosen(text: str | None) -> tuple[Row, ...]:
    """Rows by "M:K,M:K"; all without. ConfigError for one that is not in the table."""
    if text is None:
        return ROWS
    known = {f"{r.atoms}:{r.codebook}": r for r in ROWS}
    names = text.split(",")
    for n in names:
        if n not in known:
            raise ConfigError(f"{n!r} is no row of the table; it has {', '.join(known)}")
    return tuple(known[n] for n in names)


def find(folder: Path, name: str) -> Path:
    """A sequence's file: raw 8-bit 4:2:0 of 1920x1080 (.yuv), as UVG has them."""
    found = sorted(folder.rglob(f"{name}*1920x1080*.yuv"))
    if not found:
        raise MediaError(
            f"no {name}*1920x1080*.yuv in {folder}: the 8-bit 1080p raw sequences of UVG come from "
            "https://ultravideo.fi/dataset.html"
        )
    return found[0]


def read(path: Path, frames: int, size: tuple[int, int], true_colours: bool = False) -> Pictures:
    """The first frames of a raw 1920x1080 8-bit 4:2:0 file, RGB, scaled to (width, height).

    As the published runner does: chroma brought up bilinearly, the matrix of full-range BT.601
    whatever the video is, Lanczos. With `true_colours` the matrix is that of limited-range BT.709.
    """
    import cv2
    from PIL import Image

    h, w = 1080, 1920
    whole = h * w * 3 // 2
    out = []
    with path.open("rb") as f:
        for i in range(frames):
            raw = np.frombuffer(f.read(whole), np.uint8)
            if len(raw) < whole:
                raise MediaError(f"{path} has {i} frames, {frames} are needed")
            y = raw[: h * w].reshape(h, w)
            u, v = raw[h * w :].reshape(2, h // 2, w // 2)
            planes = [y, *(cv2.resize(c, (w, h), interpolation=cv2.INTER_LINEAR) for c in (u, v))]
            yuv = np.stack(planes, -1)
            rgb: Any = _limited_709(yuv) if true_colours else cv2.cvtColor(yuv, cv2.COLOR_YUV2RGB)
            scaled = Image.fromarray(rgb).resize(size, Image.Resampling.LANCZOS)
            out.append(np.asarray(scaled))
    return np.stack(out)


def _limited_709(yuv: Pictures) -> Pictures:
    y, u, v = ((yuv[..., c].astype(np.float32) - o) for c, o in ((0, 16), (1, 128), (2, 128)))
    y *= 255 / 219
    rgb = np.stack([y + 1.7927 * v, y - 0.2132 * u - 0.5329 * v, y + 2.1124 * u], -1)
    out: Pictures = np.clip(np.rint(rgb), 0, 255).astype(np.uint8)
    return out


def cell(
    frames: Pictures, row: Row, prior: Prior, name: str, progress: Any = None
) -> dict[str, Any]:
    """One sequence at one row: PSNR (RGB, mean over frames), the published count, the real file."""
    from fractions import Fraction

    config = EncodeConfig("paper", name, "t2v", atoms=row.atoms, codebook=row.codebook, gop=GOP,
                          audio=False)  # fmt: skip
    made = codec.encode(Video(frames, Fraction(FPS)), config, prior, progress)
    shown = codec.decode(made.data, prior).frames
    mse = ((shown.astype(np.float64) - frames) ** 2).mean((1, 2, 3))
    stream = parser.parse(made.data)
    bits = sum(published.bits(stream.header, g) or 0 for g in stream.gops)
    return {
        "psnr_db": float((10 * np.log10(255**2 / np.maximum(mse, 1e-10))).mean()),
        "frames": len(frames), "width": frames.shape[2], "height": frames.shape[1],
        "published_bits": bits, "published_bits_per_gop": bits / len(stream.gops),
        "bytes": len(made.data), "prior": prior.spec.id, "weights": prior.spec.digest.hex(),
    }  # fmt: skip


def run(
    folder: Path, out: Path, prior: Prior, name: str, *, rows: Sequence[Row] = ROWS,
    sequences: Sequence[str] = SEQUENCES, size: tuple[int, int] = (WIDTH, HEIGHT),
    gops: int = GOPS, true_colours: bool = False,
    tell: Callable[[str, int, int], None] = lambda *_: None,
) -> list[dict[str, Any]]:  # fmt: skip
    """All cells, kept in the JSON file `out` as they are finished: a run that was broken off goes
    on. Cells that another version of the code has made are made anew. Returns the table's lines."""
    setup = {
        "prior": prior.spec.id, "weights": prior.spec.digest.hex(), "size": list(size),
        "frames": GOP * gops, "true_colours": true_colours,
    }  # fmt: skip
    kept = _kept(out) if out.exists() else {"setup": setup, "cells": {}}
    if kept["setup"] != setup:
        raise ConfigError(f"{out} holds results of another setup: {kept['setup']}")
    by = identity.digest([
        identity.codec(prior.spec.id),
        identity.code("gvcc.eval.published", alone=("gvcc.eval.table6",)),
        identity.libraries("pillow", "opencv-python-headless"),
    ])  # fmt: skip
    cells: dict[str, Any] = kept["cells"]
    total = len(rows) * len(sequences)
    for i, sequence in enumerate(sequences):
        frames: Pictures | None = None
        for j, row in enumerate(rows):
            key = f"{sequence} {row.atoms}:{row.codebook}"
            tell(key, i * len(rows) + j, total)
            if cells.get(key, {}).get("code") == by:
                continue
            if frames is None:
                frames = read(find(folder, sequence), GOP * gops, size, true_colours)
            cells[key] = cell(frames, row, prior, name) | {"code": by}
            write(out, (json.dumps(kept, indent=1) + "\n").encode())
    tell("done", total, total)
    return [line for row in rows for line in _line(row, cells, sequences)]


def _kept(out: Path) -> dict[str, Any]:
    """What an earlier run has left; ConfigError if it is something else."""
    try:
        found = json.loads(out.read_text())
    except ValueError:
        found = None
    if not isinstance(found, dict) or not isinstance(found.get("cells"), dict):
        raise ConfigError(f"{out}: no results of Table 6")
    return {"setup": found.get("setup"), "cells": found["cells"]}


def _line(row: Row, cells: dict[str, Any], sequences: Sequence[str]) -> Iterator[dict[str, Any]]:
    found = [cells[f"{s} {row.atoms}:{row.codebook}"] for s in sequences]
    frames, pixels = (
        sum(c["frames"] for c in found),
        sum(c["frames"] * c["width"] * c["height"] for c in found),
    )
    bits, size = sum(c["published_bits"] for c in found), sum(c["bytes"] for c in found)
    yield {
        "M": row.atoms, "K": row.codebook, "published_psnr_db": row.psnr,
        "published_kbps": row.kbps, "psnr_db": sum(c["psnr_db"] for c in found) / len(found),
        "kbps": bits / frames * FPS / 1000, "bits_per_pixel": bits / pixels,
        "file_kbps": 8 * size / frames * FPS / 1000, "file_bits_per_pixel": 8 * size / pixels,
    }  # fmt: skip
