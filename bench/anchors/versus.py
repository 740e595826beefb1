"""Our files beside another codec's at the same size, from the results of `gvcc eval`."""

from __future__ import annotations

import math
from typing import Any

import numpy as np

from bench.pages import table
from gvcc.eval.baselines import NEAR  # a curve is taken to go on as far as this, too
from gvcc.eval.bd import LOWER

OURS = {"gvcc:default": (0.01, 0.02, 0.05), "gvcc:default+knob=2": (0.01, 0.02, 0.05, 0.1, 0.2),
        "gvcc:v2v+base-only": (0.01, 0.02, 0.05)}  # fmt: skip
THEIRS = ("vvc", "x265", "svt-av1")


def ok(d: dict[str, Any], codec: str) -> list[dict[str, Any]]:
    """A codec's cells that were measured."""
    (result,) = (c for c in d["codecs"] if c["codec"] == codec)
    return [c for c in result["cells"] if c["status"] == "ok"]


def pairs(
    d: dict[str, Any], ours: str, theirs: str, metric: str
) -> dict[float, list[tuple[float, float]]]:
    """Rate -> for each clip whose curve of `theirs` reaches our file's size: our value and theirs
    there, on a straight line between its points over the logarithm of the size."""
    out = dict[float, list[tuple[float, float]]]()
    for cell in ok(d, ours):
        points = {c["bits_per_pixel"]: c["metrics"][metric] for c in ok(d, theirs)
                  if c["clip"] == cell["clip"]}  # fmt: skip
        size = cell["bits_per_pixel"]
        if not points or not min(points) / (1 + NEAR) <= size <= max(points) * (1 + NEAR):
            continue
        x = sorted(points)
        other = np.interp(math.log(size), np.log(x), [points[p] for p in x])
        out.setdefault(cell["rate"], []).append((cell["metrics"][metric], float(other)))
    return out


def duels(d: dict[str, Any], ours: str, theirs: str, metric: str) -> dict[float, list[bool]]:
    """As `pairs`: is ours better?"""
    sign = -1 if metric in LOWER else 1
    found = pairs(d, ours, theirs, metric)
    return {rate: [sign * (a - b) > 0 for a, b in values] for rate, values in found.items()}


def mean(found: dict[float, list[tuple[float, float]]], rates: tuple[float, ...], metric: str
         ) -> tuple[float, int]:  # fmt: skip
    """Over clips and rates, and of how many: of what is better when lower the ratio to theirs
    (geometric), else the difference."""
    values = [v for r in rates for v in found.get(r, [])]
    if not values:
        return math.nan, 0
    if metric in LOWER:
        logs = [math.log(a / b) for a, b in values if a > 0 and b > 0]
        return math.exp(sum(logs) / len(logs)), len(logs)
    return sum(a - b for a, b in values) / len(values), len(values)


def bars(d: dict[str, Any], metrics: list[tuple[str, str]]) -> str:
    """The default and its base beside the classical codecs at equal size; empty where none of them
    was measured."""
    ours = [c for c in OURS if c in d["setup"]["codecs"]]
    theirs = [c for c in THEIRS if c in d["setup"]["codecs"]]
    lines = []
    for codec in ours:
        rates = tuple(r for r in OURS[codec] if r in d["setup"]["rates"])
        if not rates:
            continue
        for metric, label in metrics:
            row = [codec, f"{min(rates):g} to {max(rates):g}", label]
            for other in theirs:
                value, n = mean(pairs(d, codec, other, metric), rates, metric)
                shown = f"x {value:.3f}" if metric in LOWER else f"{value:+.3f}"
                row.append(f"{shown} ({n})" if n else "-")
            lines.append(row)
    if not lines:
        return ""
    return (
        "At the size of our own file, the mean over clips and rates (of how many): x, what is "
        "better when lower, as a ratio to theirs; the rest as a difference. base-only: the same "
        "kind of base, without the restorer.\n\n"
        + table(["codec", "bits/pixel", "metric", *(f"over {c}" for c in theirs)], lines)
    )
