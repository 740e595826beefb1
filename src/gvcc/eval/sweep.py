"""GVCC's study of its parameters (its Fig. 4) and its rate-distortion curve (Fig. 5), on any prior.

One parameter at a time around the base, preset paper, mode t2v; and the pairs of M and K of both
rate-distortion runs (`rd`; `rd-flf2v` with the sizes of its boundary pictures). Published points
stand beside ours: Wan2.1 T2V 1.3B on Beauty at 720p (published.md 2.4), Table 6, and one of FLF2V
by the 14B; they are of another prior, other clips and another size, so what can be compared is the
shape.
"""

from __future__ import annotations

import dataclasses
import json
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from gvcc import codec
from gvcc.errors import ConfigError, unknown
from gvcc.eval import identity, plots, published, table6
from gvcc.eval.cells import Source
from gvcc.eval.report import parsed
from gvcc.files import write
from gvcc.format import parser
from gvcc.metrics import metrics, perceptual
from gvcc.priors import Prior
from gvcc.records import Pictures
from gvcc.search.config import PRESETS, EncodeConfig

# Values of each parameter; PSNR in dB as published where it was.
PUBLISHED: dict[str, dict[float, float | None]] = {
    "M": {4: None, 8: None, 16: 30.48, 32: None, 64: 31.68, 128: None, 256: None},
    "K": {256: None, 1024: 31.04, 4096: None, 16384: 31.68, 65536: 31.91},
    "T": {5: 19.3, 10: None, 15: None, 20: 31.68, 30: 32.18},
    "g_scale": {1.0: None, 2.0: 31.64, 3.0: 31.68, 5.0: 29.3, 8.0: 22.9},
    "GOP": {9: None, 17: None, 33: 31.68, 49: 31.95},
}
_FIELDS = {"M": "atoms", "K": "codebook", "T": "steps", "g_scale": "g_scale", "GOP": "gop"}
FLF2V = ((8, 256, 1), (16, 512, 1), (16, 1024, 2), (32, 2048, 2), (32, 4096, 3), (64, 4096, 3),
         (64, 16384, 4), (128, 16384, 4), (128, 65536, 5), (256, 65536, 5),
         (256, 65536, 6))  # fmt: skip
"""M, K and the quality of the boundary pictures in GVCC's rate-distortion run of FLF2V
(published.md 1.8), whose results are not published."""
STILL_BPP = {1: 0.059, 2: 0.088, 3: 0.132, 4: 0.198, 5: 0.297, 6: 0.446}
"""Bits per pixel of a still that stand for these qualities: published for 4 (22.8 kB at 720p); a
quality more is half as much again, which is ours."""
_FLF2V_POINT = (0.01312, 31.37)  # published: M 64, K 16384, quality 4, UVG at 720p, Wan 14B
NAMES = (*PUBLISHED, "rd", "rd-flf2v")


@dataclass(frozen=True)
class Base:
    """The parameters that are not swept. The published ones are M = 64, K = 16384, GOPs of 33."""

    atoms: int = 16
    codebook: int = 1024
    gop: int = 17
    steps: int = 20
    g_scale: float = 3.0

    def config(self, prior: str) -> EncodeConfig:
        return EncodeConfig("paper", prior, "t2v", audio=False, **dataclasses.asdict(self))


def cells(names: Sequence[str], base: Base) -> list[tuple[str, float, dict[str, Any]]]:
    """(study, value, fields of EncodeConfig) of all encodes of a clip; ConfigError for an unknown
    study."""
    out: list[tuple[str, float, dict[str, Any]]] = []
    for name in names:
        if name not in NAMES:
            raise unknown("study", name, NAMES)
        if name == "rd":
            out += [("rd", float(r.atoms * r.codebook),
                     {"atoms": r.atoms, "codebook": r.codebook}) for r in table6.ROWS]  # fmt: skip
            continue
        if name == "rd-flf2v":
            out += [(name, float(i), {"atoms": m, "codebook": k, "mode": "flf2v",
                                      "still_bpp": STILL_BPP[q]})
                    for i, (m, k, q) in enumerate(FLF2V, 1)]  # fmt: skip
            continue
        for value in PUBLISHED[name]:
            given = {_FIELDS[name]: value if name == "g_scale" else int(value)}
            if given.get("atoms", 0) <= base.codebook:
                out.append((name, value, given))
    return out


def run(
    sources: Sequence[Source], names: Sequence[str], prior: Prior, folder: Path,
    base: Base | None = None, tell: Callable[[str, int, int], None] = lambda *_: None,
    seeds: int = 1,
) -> list[dict[str, Any]]:  # fmt: skip
    """All encodes, with so many seeds each (from the preset's own on), kept in folder/sweep.json as
    they are finished (a run that was broken off goes on; rows that another version of the code has
    made are made anew), and a plot of each study.

    Returns the rows: study, value, clip, seed, rate, seconds to encode, quality; LPIPS where its
    weights are. GOPs longer than the shortest clip are left out: they would be as long as that
    clip.
    """
    base = base or Base()
    path = folder / "sweep.json"
    setup = {"prior": prior.spec.id, "weights": prior.spec.digest.hex(),
             "base": dataclasses.asdict(base)}  # fmt: skip
    rows: list[dict[str, Any]] = _kept(path, setup) if path.exists() else []
    by = identity.digest([
        identity.codec(prior.spec.id), identity.libraries("pillow"),
        identity.code("gvcc.pictures.media", "gvcc.eval.published", "gvcc.metrics.metrics",
                      alone=("gvcc.eval.cells", "gvcc.eval.sweep")),
    ])  # fmt: skip
    done = {_key(r) for r in rows if r.get("code") == by}
    shortest = min(len(s.read().frames) for s in sources) if "GOP" in names else 0
    first = PRESETS["paper"].seed
    asked = [
        (*c, first + n) for n in range(seeds) for c in cells(names, base)
        if c[0] != "GOP" or c[1] <= shortest
    ]  # fmt: skip
    for i, source in enumerate(sources):
        video = source.read()
        for j, (study, value, given, seed) in enumerate(asked):
            tell(f"{study} {value:g}, {source.name}", i * len(asked) + j, len(sources) * len(asked))
            if (key := (study, value, source.identity, seed)) in done:
                continue
            config = dataclasses.replace(base.config(prior.spec.id), seed=seed, **given)
            begin = time.monotonic()
            made = codec.encode(video, config, prior)
            seconds = time.monotonic() - begin
            stream = parser.parse(made.data)
            bits = sum(published.bits(stream.header, g) or 0 for g in stream.gops)
            pixels = video.frames[..., 0].size
            rows = [r for r in rows if _key(r) != key]  # of other code
            rows.append({
                "study": study, "value": value, "clip": source.name, "source": source.identity,
                "seed": seed, "encode_s": round(seconds, 3),
                **given, "bytes": len(made.data), "bits_per_pixel": 8 * len(made.data) / pixels,
                "published_bits_per_pixel": bits / pixels,
                "psnr_db": metrics.psnr(video.frames, made.frames),
                "code": by,
                **_lpips(video.frames, made.frames),
            })  # fmt: skip
            write(path, json.dumps({"setup": setup, "rows": rows}, indent=1).encode())
    tell("plots", 1, 1)
    own = {s.identity for s in sources}  # the file may have other clips and sizes, too
    rows = [r for r in rows if r["study"] in names and r["source"] in own and r["code"] == by]
    plot(rows, [n for n in NAMES if n in names], prior.spec.id, folder)
    return rows


def _lpips(ref: Pictures, out: Pictures) -> dict[str, Any]:
    """LPIPS (alex) of a row, or why it has none."""
    try:
        return {"lpips_alex": perceptual.lpips(ref, out)}
    except ConfigError as e:
        return {"lpips_alex": None, "lpips_missing": str(e)}


def _key(row: dict[str, Any]) -> tuple[str, float, str, int]:
    return row["study"], row["value"], row["source"], row["seed"]


def _kept(path: Path, setup: dict[str, Any]) -> list[dict[str, Any]]:
    """The rows of a sweep that was begun; ConfigError if it is another's."""
    found = parsed(path)
    if not isinstance(found, dict) or not isinstance(found.get("rows"), list):
        raise ConfigError(f"{path}: no results of a sweep")
    if found.get("setup") != setup:
        raise ConfigError(f"{path} is of another prior or base; give another --out")
    rows: list[dict[str, Any]] = found["rows"]
    return rows


def plot(rows: Sequence[dict[str, Any]], names: Sequence[str], prior: str, folder: Path) -> None:
    """A picture of each study, PNG and SVG: ours, the mean over clips, beside the published; with
    several seeds bars of twice the standard deviation over them."""
    import matplotlib

    matplotlib.use("Agg")
    from matplotlib import pyplot

    for name in names:
        if not (mine := [r for r in rows if r["study"] == name]):
            continue
        figure, axes = pyplot.subplots(figsize=(5, 3.8), layout="constrained")
        if name == "rd":
            key, label = "published_bits_per_pixel", "bits per pixel, as published"
            theirs = [(17 * 9 * r.atoms * ((r.codebook - 1).bit_length() + 1) / (33 * 480 * 848),
                       r.psnr) for r in table6.ROWS]  # fmt: skip
            steps = sorted({r["value"] for r in mine})
            own = [_mean(mine, v, key) for v in steps]
        elif name == "rd-flf2v":
            label, theirs = "bits per pixel, as published (with boundaries)", [_FLF2V_POINT]
            own = [_mean(mine, v, "published_bits_per_pixel")
                   for v in sorted({r["value"] for r in mine})]  # fmt: skip
        else:
            label = name
            theirs = [(v, p) for v, p in PUBLISHED[name].items() if p is not None]
            own = [(v, _mean(mine, v, "value")[1]) for v in sorted({r["value"] for r in mine})]
        axes.plot(*zip(*sorted(own), strict=True), "o-", label=f"{prior}, ours")
        off = [2 * _spread(mine, v) for v in sorted({r["value"] for r in mine})]
        if any(off):
            axes.errorbar(*zip(*own, strict=True), yerr=off, fmt="none", capsize=2)
        other = axes.twinx()
        other.plot(
            *zip(*sorted(theirs), strict=True),
            "s--",
            color="tab:gray",
            label=f"published: Wan2.1 {'14B' if name == 'rd-flf2v' else '1.3B'}, other clips",
        )
        axes.set(xlabel=label, ylabel=f"PSNR, dB ({prior})",
                 xscale="linear" if name in ("T", "g_scale", "GOP") else "log")  # fmt: skip
        other.set_ylabel("PSNR, dB (published)")
        lines = axes.get_lines() + other.get_lines()
        axes.legend(lines, [str(line.get_label()) for line in lines], fontsize=7, ncols=2,
                    loc="lower center", bbox_to_anchor=(0.5, 1), frameon=False)  # fmt: skip
        for kind in ("png", "svg"):
            plots.save(figure, folder / f"sweep-{name}.{kind}", dpi=120)
        pyplot.close(figure)


def _spread(rows: Sequence[dict[str, Any]], value: float) -> float:
    """Standard deviation over seeds of the mean over clips, dB; 0 for one seed."""
    by: dict[Any, list[float]] = {}
    for r in rows:
        if r["value"] == value:
            by.setdefault(r.get("seed"), []).append(r["psnr_db"])
    means = [np.mean(found) for found in by.values()]
    return float(np.std(means, ddof=1)) if len(means) > 1 else 0.0


def _mean(rows: Sequence[dict[str, Any]], value: float, key: str) -> tuple[float, float]:
    of = [r for r in rows if r["value"] == value]
    return float(np.mean([r[key] for r in of])), float(np.mean([r["psnr_db"] for r in of]))
