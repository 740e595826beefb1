"""The report of an evaluation: one HTML file with the decoded clips in it, and plots beside it.

The page asks the network for nothing, so it can be mailed or opened from a disk. Its scripts and
styles are the files of `pages`, put into one; all numbers go in as JSON.
"""

from __future__ import annotations

import base64
import dataclasses
import datetime
import html
import json
import math
import os
import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from importlib import resources
from pathlib import Path
from typing import Any
from urllib.parse import quote

from gvcc import files
from gvcc.errors import ConfigError
from gvcc.eval import contact, plots

_SCRIPTS = ("dom.js", "sync.js", "plots.js", "player.js", "tables.js", "report.js")
_CELL = ("rate", "status", "error", "bytes", "bits_per_pixel", "kbps", "encode_s", "decode_s",
         "metrics", "not_computed", "profile")  # fmt: skip
"""What the page shows of a cell; a results file may hold more."""


@dataclass(frozen=True)
class Results:
    """A folder of results. `setup` is what was asked for; `codecs` are the results files of its
    codecs, in its order; `bd` is metric -> matrix of BD-rates, empty where there is none."""

    folder: Path
    setup: dict[str, Any]
    codecs: list[dict[str, Any]]
    bd: dict[str, Any]

    def cells(self) -> dict[str, list[dict[str, Any]]]:
        """Codec -> its cells."""
        return {c["codec"]: c["cells"] for c in self.codecs}

    def clips(self) -> list[dict[str, Any]]:
        """What is known of the clips: `name`, `frames`, `width`, `height`, `fps`, and `hz`, which
        is `fps` as a number. What the setup lacks, as a cell failed, comes from another cell."""
        found = []
        for clip in self.setup["clips"]:
            known = [
                clip,
                *(c for r in self.codecs for c in r["cells"] if c["clip"] == clip["name"]),
            ]
            out = {k: next((c[k] for c in known if c.get(k) is not None), None)
                   for k in ("frames", "width", "height", "fps")}  # fmt: skip
            found.append({"name": clip["name"], **out, "hz": _hertz(out["fps"])})
        return found

    def original(self, clip: str) -> Path | None:
        """The original of a clip as a video file, if it is there."""
        (found,) = (c for c in self.setup["clips"] if c["name"] == clip)
        return _inside(self.folder, found["video"]) if found.get("video") else None

    def decoded(self, cell: Mapping[str, Any]) -> Path | None:
        """What a cell decodes to as a video file, if it is there."""
        return _inside(self.folder, cell["video"]) if cell.get("video") else None


def read(folder: Path) -> Results:
    """The results in a folder; ConfigError where it holds none."""
    setup = _json(folder / "setup.json")
    found: dict[str, dict[str, Any]] = {}
    for path in sorted((folder / "results").glob("*.json")):
        result = _json(path)
        if result.get("set") == setup["set"]:
            found[result["codec"]] = result
    codecs = [found[c] for c in setup["codecs"] if c in found]
    if not codecs:
        raise ConfigError(f"{folder}/results has no results of the set {setup['set']!r}")
    path = folder / "bd.json"
    tables = _json(path) if path.exists() else {}
    return Results(
        folder, setup, codecs,
        {m: t for m, t in tables.items() if isinstance(t, dict) and "codecs" in t},
    )  # fmt: skip


def write(folder: Path, out: Path | None = None, max_embed_mb: float = 200) -> Path:
    """Write the report of the results in `folder` to `out` (FOLDER/report.html), a PNG and an SVG
    of each rate-distortion plot to the folder `plots` beside it, and a contact sheet of each clip
    to the folder `contact`; returns the page's path.

    Videos are in the page. Where that would take more than `max_embed_mb` megabytes (10^6 bytes)
    they are links to the files in `folder`, and the page says so.

    ConfigError where `folder` holds no results.
    """
    results = read(folder)
    out = out or folder / "report.html"
    cells = [c for cs in results.cells().values() for c in cs]
    clips = results.setup["clips"]
    originals = {c["name"]: results.original(c["name"]) for c in clips}
    decoded = [results.decoded(c) for c in cells]
    files = [p for p in dict.fromkeys([*originals.values(), *decoded]) if p is not None]
    embed = sum(4 * math.ceil(p.stat().st_size / 3) for p in files) <= max_embed_mb * 1e6
    ids = {p: f"v{i}" for i, p in enumerate(files)}
    curves = plots.all_curves(results.codecs)
    data = _data(results, curves)
    for clip in data["clips"]:
        path = originals[clip["name"]]
        clip["video"] = ids[path] if path else None
    for cell, path in zip(data["cells"], decoded, strict=True):
        cell["video"] = ids[path] if path else None
    data["embedded"] = embed
    if not embed:
        data["links"] = {i: _link(p, out.parent) for p, i in ids.items()}
    fields = {
        "title": html.escape(data["title"]),
        "media": "blob:" if embed else "blob: file: 'self'",
        "css": page("report.css"),
        "js": "\n".join(map(page, _SCRIPTS)),
        "data": script_json(data),
    }
    videos = {i: p for p, i in ids.items()} if embed else {}
    write_page(out, page("report.html"), fields, videos)
    plots.write_all(list(results.cells()), curves, len(clips), data["about"], out.parent / "plots")
    videos_of = {id(cell): path for cell, path in zip(cells, decoded, strict=True)}
    contact.write_all(originals, results.cells(), videos_of, out.parent / "contact")
    return out


def page(name: str) -> str:
    """A file of `pages`."""
    return (resources.files("gvcc.eval") / "pages" / name).read_text("utf-8")


def script_json(data: Any) -> str:
    """JSON that may stand in a <script>: nothing in it can end the element or begin a comment. A
    number that is not finite becomes null."""
    text = json.dumps(_finite(data), ensure_ascii=False, allow_nan=False, separators=(",", ":"))
    return text.replace("<", "\\u003c").replace("\u2028", "\\u2028").replace("\u2029", "\\u2029")


def write_page(
    out: Path, template: str, fields: Mapping[str, str], videos: Mapping[str, Path]
) -> None:
    """Write a page: `@@name@@` in the template becomes a field, and `@@videos@@` the files, each in
    a <script> with its id. The page appears under its name once it is whole."""
    # One pass: a field that holds "@@name@@" itself is left as it is.
    parts = re.split(r"@@(\w+)@@", template)
    out.parent.mkdir(parents=True, exist_ok=True)
    with files.replacing(out) as f:
        for i, text in enumerate(parts):
            if i % 2 == 0:
                f.write(text.encode())
            elif text == "videos":
                f.writelines(_scripts(videos))
            else:
                f.write(fields[text].encode())


def _scripts(videos: Mapping[str, Path]) -> Iterator[bytes]:
    for name, path in videos.items():
        yield f'<script type="text/plain" id="{name}">'.encode()
        yield base64.b64encode(path.read_bytes())
        yield b"</script>\n"


def _data(results: Results, means: Mapping[str, list[list[plots.Point]]]) -> dict[str, Any]:
    """All that the page shows, but the videos."""
    setup, cells = results.setup, results.cells()
    names, clips = list(cells), setup["clips"]
    metrics = plots.metrics_of([c for cs in cells.values() for c in cs])
    number = {c["name"]: i for i, c in enumerate(clips)}
    size = f"height {setup['height']}" if setup.get("height") else "original size"
    frames = f"{setup['frames']} frames" if setup.get("frames") else "all frames"
    if (stride := setup.get("stride", 1)) > 1:
        frames += f", LPIPS and DISTS of one frame in {stride}"
    # The results' date: a report may be written again much later.
    when = datetime.date.fromtimestamp((results.folder / "setup.json").stat().st_mtime)
    many = f"{len(clips)} clip{'s' if len(clips) != 1 else ''}"
    return {
        "title": f"gvcc evaluation: {setup['set']}, {when.isoformat()}",
        "about": f"{setup['set']}, {many}, {size}, {frames}",
        "set": setup["set"],
        "date": when.isoformat(),
        "rates": setup["rates"],
        "codecs": [{k: c.get(k) for k in ("codec", "prior", "command", "notes", "size_rule")}
                   for c in results.codecs],
        "clips": results.clips(),
        "metrics": [dataclasses.asdict(m) for m in metrics],
        "set_metrics": [dataclasses.asdict(plots.metric(m)) for m in means
                        if m not in {known.name for known in metrics}],
        "cells": [
            {"codec": i, "clip": number[c["clip"]], **{k: c[k] for k in _CELL if k in c}}
            for i, n in enumerate(names) for c in cells[n]
        ],
        "means": {m: [[dataclasses.asdict(p) for p in curve] for curve in curves]
                  for m, curves in means.items()},
        "bd": {m: t | dataclasses.asdict(plots.metric(m)) for m, t in results.bd.items()},
    }  # fmt: skip


def _hertz(fps: str | float | None) -> float | None:
    """Frames a second of "30000/1001"."""
    above, _, below = str(fps or 0).partition("/")
    return float(above) / float(below or 1) or None


def _finite(data: Any) -> Any:
    if isinstance(data, dict):
        return {k: _finite(v) for k, v in data.items()}
    if isinstance(data, list | tuple):
        return [_finite(v) for v in data]
    return None if isinstance(data, float) and not math.isfinite(data) else data


def parsed(path: Path) -> Any:
    """What a JSON file holds; ConfigError if it cannot be read or is none."""
    try:
        return json.loads(path.read_text("utf-8"))
    except OSError as e:
        raise ConfigError(f"{path}: cannot read: {e.strerror}") from None
    except ValueError as e:
        raise ConfigError(f"{path}: no JSON: {e}") from None


def _json(path: Path) -> dict[str, Any]:
    found = parsed(path)
    if not isinstance(found, dict):
        raise ConfigError(f"{path}: not an object")
    return found


def _inside(folder: Path, name: str) -> Path | None:
    """A file below the folder; a results file from elsewhere must not put others into a page."""
    path = (folder / name).resolve()
    return path if path.is_relative_to(folder.resolve()) and path.is_file() else None


def _link(path: Path, start: Path) -> str:
    return quote(Path(os.path.relpath(path, start.resolve())).as_posix())
