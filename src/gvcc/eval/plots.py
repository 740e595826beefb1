"""Rate-distortion curves of an evaluation: their points, and a PNG and an SVG of each plot."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from io import BytesIO
from pathlib import Path
from typing import Any

from gvcc.errors import ConfigError
from gvcc.eval.bd import LOWER
from gvcc.files import write

COLOURS = ("#0072b2", "#d55e00", "#00916a", "#b5458f", "#8a6d00", "#5aa9dd", "#6a4fb0", "#7a7a7a",
           "#c2273f", "#3d5a5a")  # fmt: skip
"""Of the codecs, in their order; the page has the same, and lighter ones for the dark."""
_MARKERS = "osD^vP"  # circle, square, diamond, triangles, plus: as in pages/plots.js
_LABELS = {
    "psnr_rgb_db": ("PSNR, RGB", "dB"),
    "psnr_y_db": ("PSNR, Y", "dB"),
    "psnr_u_db": ("PSNR, U", "dB"),
    "psnr_v_db": ("PSNR, V", "dB"),
    "psnr_yuv_db": ("PSNR, YUV", "dB"),
    "ms_ssim": ("MS-SSIM", ""),
    "vmaf": ("VMAF", ""),
    "vmaf_neg": ("VMAF NEG", ""),
    "tof": ("tOF, error of motion", "pixels"),
    "temporal_error": ("Temporal error", "grey levels"),
    "temporal_activity_ratio": ("Change, decoded / original", ""),
    "lpips_alex": ("LPIPS, AlexNet", ""),
    "lpips_vgg": ("LPIPS, VGG", ""),
    "dists": ("DISTS", ""),
    "ewarp": ("Warping error, RAFT", ""),
    "fid_256": ("FID, patches of 256", ""),
    "kid_256": ("KID, patches of 256", ""),
}


@dataclass(frozen=True)
class Metric:
    """What a plot says of a metric. `better`: "higher", "lower", or how else it is to be read."""

    name: str
    label: str
    unit: str
    better: str


@dataclass(frozen=True)
class Point:
    """A codec at one asked rate, as the mean over the `clips` clips that have the metric: bits per
    pixel, the metric's value, and the size of a file in bytes."""

    rate: float
    bits_per_pixel: float
    value: float
    bytes: float
    clips: int


def metric(name: str) -> Metric:
    """How a metric is called; one that is not known is called by its name."""
    label, unit = _LABELS.get(name, (name, ""))
    better = "lower" if name in LOWER else "higher"
    return Metric(name, label, unit, "1 is best" if name == "temporal_activity_ratio" else better)


def metrics_of(cells: Sequence[Mapping[str, Any]]) -> list[Metric]:
    """The metrics that any cell has a number for, in the order of the cells."""
    names = dict.fromkeys(
        n for c in cells for n, v in c.get("metrics", {}).items() if v is not None
    )
    known = [n for n in _LABELS if n in names]
    return [metric(n) for n in (*known, *(n for n in names if n not in _LABELS))]


def mean_curve(cells: Sequence[Mapping[str, Any]], name: str) -> list[Point]:
    """The points of one codec, by rate. `cells` are all its cells, of all clips."""
    out = []
    for rate in sorted({c["rate"] for c in cells}):
        found = [
            c for c in cells
            if c["rate"] == rate and c.get("metrics", {}).get(name) is not None
        ]  # fmt: skip
        if found:
            n = len(found)
            bpp, size = (sum(c[k] for c in found) / n for k in ("bits_per_pixel", "bytes"))
            out.append(Point(rate, bpp, sum(c["metrics"][name] for c in found) / n, size, n))
    return out


def all_curves(codecs: Sequence[Mapping[str, Any]]) -> dict[str, list[list[Point]]]:
    """Metric -> the mean curve of each codec: of the metrics of clips, then of those that only a
    whole set has. `codecs` are results files as `run` writes them."""
    metrics = [m.name for m in metrics_of([c for r in codecs for c in r["cells"]])]
    out = {m: [mean_curve(r["cells"], m) for r in codecs] for m in metrics}
    of_set = dict.fromkeys(m for r in codecs for v in r.get("set_metrics", {}).values() for m in v)
    return out | {m: [_set_curve(r, m) for r in codecs] for m in of_set}


def _set_curve(result: Mapping[str, Any], name: str) -> list[Point]:
    """The points of a metric of a whole set, by rate."""
    cells = [
        c | {"metrics": {name: result.get("set_metrics", {}).get(f"{c['rate']:g}", {}).get(name)}}
        for c in result["cells"] if c["status"] == "ok"
    ]  # fmt: skip
    return mean_curve(cells, name)


def write_all(
    names: Sequence[str], curves: Mapping[str, Sequence[Sequence[Point]]], clips: int, about: str,
    folder: Path,
) -> list[Path]:  # fmt: skip
    """Write FOLDER/<metric>.png and .svg of each of the `curves`.

    `curves`: metric -> a curve for each of the codecs `names`. A point of fewer than `clips` clips
    is hollow and off its line, for it does not compare with the others. `about` stands below the
    title. ConfigError where matplotlib is missing.
    """
    try:
        import matplotlib
        from matplotlib.backends.backend_agg import FigureCanvasAgg
        from matplotlib.figure import Figure
        from matplotlib.ticker import NullFormatter, NullLocator
    except ImportError:
        raise ConfigError("matplotlib is missing: pip install 'gvcc[eval]'") from None
    folder.mkdir(parents=True, exist_ok=True)
    written = []
    for m, of_codecs in ((metric(name), found) for name, found in curves.items()):
        # Not pyplot: it keeps every figure, and is not safe beside other threads.
        figure = Figure(figsize=(6.4, 4.4), layout="constrained")
        FigureCanvasAgg(figure)
        axes = figure.add_subplot()
        axes.set_xscale("log")
        rates: set[float] = set()
        for i, (name, curve) in enumerate(zip(names, of_codecs, strict=True)):
            if not curve:
                continue
            colour, marker = COLOURS[i % len(COLOURS)], _MARKERS[i % len(_MARKERS)]
            axes.plot(
                [p.bits_per_pixel for p in curve if p.clips == clips],
                [p.value for p in curve if p.clips == clips], color=colour,
                linewidth=2.2 if name.startswith("gvcc:") else 1.4, zorder=2,
            )  # fmt: skip
            axes.plot([], [], f"{marker}-", color=colour, label=name)  # for the legend
            for p in curve:
                face = colour if p.clips == clips else "white"
                axes.plot(p.bits_per_pixel, p.value, marker, color=colour, markerfacecolor=face,
                          markersize=6, zorder=3)  # fmt: skip
            rates |= {p.rate for p in curve}
        ticks = sorted(rates)
        axes.set_xticks(ticks, [f"{r:g}" for r in ticks])
        axes.xaxis.set_minor_locator(NullLocator())
        axes.xaxis.set_minor_formatter(NullFormatter())
        axes.set_xlabel("bits per pixel")
        axes.set_ylabel(f"{m.label}{f' ({m.unit})' if m.unit else ''}")
        axes.set_title(f"{m.label}: {_direction(m)}\n{about}", fontsize=10, loc="left")
        axes.grid(alpha=0.25)
        axes.spines[["top", "right"]].set_visible(False)
        axes.legend(frameon=False, fontsize=9)
        for suffix, fixed in ((".png", {}), (".svg", {"Date": None})):
            path = folder / f"{m.name}{suffix}"
            # A fixed salt and no date: the same numbers give the same file.
            with matplotlib.rc_context({"svg.hashsalt": "gvcc"}):
                save(figure, path, dpi=150, metadata=fixed)
            written.append(path)
    return written


def save(figure: Any, path: Path, **options: Any) -> None:
    """Write a figure of matplotlib in the format of the file's name, whole or not at all."""
    out = BytesIO()
    figure.savefig(out, format=path.suffix[1:], **options)
    write(path, out.getvalue())


def _direction(m: Metric) -> str:
    return f"{m.better} is better" if m.better in ("higher", "lower") else m.better
