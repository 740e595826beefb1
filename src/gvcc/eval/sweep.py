"""GVCC's study of its parameters (its Fig. 4) and its rate-distortion curve (Fig. 5), on any prior.

One parameter at a time around the base, preset paper, mode t2v. Published points stand beside ours:
Wan2.1 T2V 1.3B on Beauty at 720p (published.md 2.4), and Table 6; they are of another prior, other
clips and another size, so what can be compared is the shape.
"""

from __future__ import annotations

import dataclasses
import json
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
from gvcc.metrics import metrics
from gvcc.priors import Prior
from gvcc.search.config import EncodeConfig

# Values of each parameter; PSNR in dB as published where it was.
PUBLISHED: dict[str, dict[float, float | None]] = {
    "M": {4: None, 8: None, 16: 30.48, 32: None, 64: 31.68, 128: None},
    "K": {256: None, 1024: 31.04, 4096: None, 16384: 31.68, 65536: 31.91},
    "T": {5: 19.3, 10: None, 15: None, 20: 31.68, 30: 32.18},
    "g_scale": {2.0: 31.64, 3.0: 31.68, 5.0: 29.3, 8.0: 22.9},
    "GOP": {9: None, 17: None, 33: 31.68, 49: 31.95},
}
_FIELDS = {"M": "atoms", "K": "codebook", "T": "steps", "g_scale": "g_scale", "GOP": "gop"}
NAMES = (*PUBLISHED, "rd")
MOST_ON_CPU = 2**14  # K: minutes an encode beyond


@dataclass(frozen=True)
class Base:
    """The parameters that are not swept."""

    atoms: int = 16
    codebook: int = 1024
    gop: int = 17

    def config(self, prior: str) -> EncodeConfig:
        return EncodeConfig("paper", prior, "t2v", atoms=self.atoms, codebook=self.codebook,
                            gop=self.gop, audio=False)  # fmt: skip


def cells(
    names: Sequence[str], base: Base, device: str = "cpu"
) -> list[tuple[str, float, dict[str, Any]]]:
    """(study, value, fields of EncodeConfig) of all encodes of a clip; ConfigError for an unknown
    study. K above MOST_ON_CPU is for a GPU."""
    out: list[tuple[str, float, dict[str, Any]]] = []
    for name in names:
        if name not in NAMES:
            raise unknown("study", name, NAMES)
        if name == "rd":
            rows = [r for r in table6.ROWS if r.atoms <= 64 and r.codebook <= 4096]
            out += [("rd", float(r.atoms * r.codebook),
                     {"atoms": r.atoms, "codebook": r.codebook}) for r in rows]  # fmt: skip
            continue
        for value in PUBLISHED[name]:
            given = {_FIELDS[name]: value if name == "g_scale" else int(value)}
            slow = device == "cpu" and given.get("codebook", 0) > MOST_ON_CPU
            if given.get("atoms", 0) <= base.codebook and not slow:
                out.append((name, value, given))
    return out


def run(
    sources: Sequence[Source], names: Sequence[str], prior: Prior, folder: Path,
    base: Base | None = None, tell: Callable[[str, int, int], None] = lambda *_: None,
) -> list[dict[str, Any]]:  # fmt: skip
    """All encodes, kept in folder/sweep.json as they are finished (a run that was broken off goes
    on; rows that another version of the code has made are made anew), and a plot of each study.

    Returns the rows: study, value, clip, rate, quality. GOPs longer than the shortest clip are left
    out: they would be as long as that clip.
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
    asked = [c for c in cells(names, base, prior.device.type) if c[0] != "GOP" or c[1] <= shortest]
    for i, source in enumerate(sources):
        video = source.read()
        for j, (study, value, given) in enumerate(asked):
            tell(f"{study} {value:g}, {source.name}", i * len(asked) + j, len(sources) * len(asked))
            if (key := (study, value, source.identity)) in done:
                continue
            config = dataclasses.replace(base.config(prior.spec.id), **given)
            made = codec.encode(video, config, prior)
            stream = parser.parse(made.data)
            bits = sum(published.bits(stream.header, g) or 0 for g in stream.gops)
            pixels = video.frames[..., 0].size
            rows = [r for r in rows if _key(r) != key]  # of other code
            rows.append({
                "study": study, "value": value, "clip": source.name, "source": source.identity,
                **given, "bytes": len(made.data), "bits_per_pixel": 8 * len(made.data) / pixels,
                "published_bits_per_pixel": bits / pixels,
                "psnr_db": metrics.psnr(video.frames, made.frames), "code": by,
            })  # fmt: skip
            write(path, json.dumps({"setup": setup, "rows": rows}, indent=1).encode())
    tell("plots", 1, 1)
    own = {s.identity for s in sources}  # the file may have other clips and sizes, too
    rows = [r for r in rows if r["study"] in names and r["source"] in own and r["code"] == by]
    plot(rows, [n for n in NAMES if n in names], prior.spec.id, folder)
    return rows


def _key(row: dict[str, Any]) -> tuple[str, float, str]:
    return row["study"], row["value"], row["source"]


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
    """A picture of each study, PNG and SVG: ours, the mean over clips, beside the published."""
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
        else:
            label = name
            theirs = [(v, p) for v, p in PUBLISHED[name].items() if p is not None]
            own = [(v, _mean(mine, v, "value")[1]) for v in sorted({r["value"] for r in mine})]
        axes.plot(*zip(*sorted(own), strict=True), "o-", label=f"{prior}, ours")
        other = axes.twinx()
        other.plot(
            *zip(*sorted(theirs), strict=True),
            "s--",
            color="tab:gray",
            label="published: Wan2.1 1.3B, other clips",
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


def _mean(rows: Sequence[dict[str, Any]], value: float, key: str) -> tuple[float, float]:
    of = [r for r in rows if r["value"] == value]
    return float(np.mean([r[key] for r in of])), float(np.mean([r["psnr_db"] for r in of]))
