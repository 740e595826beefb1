"""What a stream holds, and what a comparison found, as tables and as plain dictionaries."""

from __future__ import annotations

import dataclasses
from typing import TYPE_CHECKING, Any

from gvcc.eval import published
from gvcc.format import bitstream
from gvcc.format.base import START_UNIT, BaseRecord, variance
from gvcc.format.parser import Survey

if TYPE_CHECKING:
    from rich.console import Console


# Of a trajectory: they say nothing of a file that is nothing but bases.
_SAMPLED = {"overlap", "path", "rule", "coder", "allocation", "size", "steps", "tail", "shift",
            "g_scale", "multistep", "table", "alignment", "reuse", "variances"}  # fmt: skip
# Fields of a header whose names in the documents, which stay, are shorter.
_SHORT = {"codebook_size": "size", "ode_steps": "tail", "schedule": "table"}


def as_dict(found: Survey, size: int) -> dict[str, Any]:
    """Header, whole GOPs, what is damaged, and where the bytes of a file of `size` bytes go, ready
    for JSON. The rates are those of a whole file, and None for another."""
    h = found.header
    head = bitstream.write_header(h)
    header = {_SHORT.get(k, k): v for k, v in dataclasses.asdict(h).items()}
    header |= {"digest": h.digest.hex(), "fps": str(h.fps)}
    header["pixel_aspect"] = str(h.pixel_aspect)
    header["settings"] = dict(h.settings)
    if h.restorer is not None:
        header["restorer"] = {"name": h.restorer.name, "digest": h.restorer.digest.hex()}
    gops: list[dict[str, Any]] = []
    for i, r in found.gops.items():
        g = r.gop
        of_gop = bitstream.gop_size(r)
        shown = g.frames - g.skip
        gops.append({
            "gop": i, "mode": g.mode, "start": g.start, "frames": g.frames, "first": g.first,
            "last": g.last, "fade": g.fade, "coded_steps": r.stop, "part": r.fraction,
            "atoms": r.atoms,
            "tail_atoms": r.tail_atoms, "bytes": of_gop, "stills": sum(map(len, r.stills)),
            "still_codecs": _codecs(r.stills),
            "residual": len(r.residual), "symbols": len(r.symbols), "base": _base(r.base),
            "published_bits": published.bits(h, r),
            "bits_per_pixel": 8 * of_gop / (shown * h.width * h.height), "check": list(r.check),
        })  # fmt: skip
    sizes = {"header": len(head)}
    sizes |= {kind: sum(g[kind] for g in gops) for kind in ("symbols", "stills", "residual")}
    own = [g["base"] for g in gops if g["base"]]
    sizes["bases"] = sum(b["bytes"] for b in own)
    sizes["textures"] = sum(b["texture_bytes"] for b in own)
    sizes["records"] = sum(g["bytes"] for g in gops) - sum(sizes.values()) + len(head)
    sizes["audio"] = 0
    audio = None
    if found.audio is not None:
        sizes["audio"] = len(bitstream.write_audio(found.audio, head))
        audio = {"codec": found.audio.codec, "rate": found.audio.rate,
                 "layout": found.audio.layout, "packets": len(found.audio.packets)}  # fmt: skip
    if found.problems:
        sizes["damaged"] = size - sum(sizes.values())
    rate = None if found.problems else 8 * size / h.frames
    return {
        "version": h.version, "header": header, "gops": gops, "audio": audio,
        "problems": found.problems, "bytes": size, "where": sizes,
        "bits_per_pixel": rate and rate / (h.width * h.height),
        "kbps": rate and rate * float(h.fps) / 1000,
    }  # fmt: skip


def _base(base: BaseRecord | None) -> dict[str, Any] | None:
    """What a GOP's base is; None if it has none."""
    if base is None:
        return None
    over = base.over and {
        "start": base.over.start / START_UNIT, "difference": base.over.difference,
        "errors": [variance(c) for c in base.over.errors],
    }  # fmt: skip
    return {"codec": base.codec, "size": base.size, "quantiser": base.quantiser,
            "own_sets": base.sets is None, "bytes": len(base.stream),
            "trajectory": over, "restored": base.restored,
            "texture_bytes": len(base.texture)}  # fmt: skip


def _codecs(coded: tuple[bytes, ...]) -> list[str]:
    """The codecs of coded stills; "none" for an empty one, "?" for a number that is not known."""
    from gvcc.pictures.stillcodecs import CODECS

    known = dict(enumerate(codec.name for codec in CODECS))
    return [known.get(data[0], "?") if data else "none" for data in coded]


def show(d: dict[str, Any], console: Console) -> None:
    """What `as_dict` found as three tables: header, GOPs, where the bytes go."""
    from rich.table import Column, Table

    def numbers(*names: str) -> list[Column]:
        return [Column(name, justify="right") for name in names]

    # GOPs that are nothing but bases have no steps, stills or residual.
    bases = [g["base"] for g in d["gops"] if g["base"]]
    sampled = len(bases) < len(d["gops"]) or any(b["trajectory"] for b in bases) or not bases
    table = Table("field", "value", title=f"gvcc stream, version {d['version']}")
    for name, value in d["header"].items():
        if name in _SAMPLED and not sampled:
            continue
        if isinstance(value, dict):
            value = ", ".join(f"{k} {v}" for k, v in value.items())
        elif name == "audio" and (a := d["audio"]):
            value = f"{a['codec']}, {a['rate']} Hz, {a['layout']}, {a['packets']} packets"
        table.add_row(name, str(value))
    console.print(table)
    own: tuple[str, ...] = ("base", "base bytes") if bases else ()
    own += ("steps", "stills", "residual", "check") if sampled else ()
    names = numbers("GOP", "frames", *own, "bytes", "bit/pixel")
    table = Table(names[0], "mode", *names[1:])
    for g in d["gops"]:
        cells = _base_cells(g["base"]) if bases else []
        cells += [
            f"{g['coded_steps'] + g['part'] / 256:.4g}",
            " ".join([str(g["stills"]), *sorted(set(g["still_codecs"]))]),
            str(g["residual"]), " ".join(map(str, g["check"])),
        ] if sampled else []  # fmt: skip
        table.add_row(
            str(g["gop"]), g["mode"], f"{g['start']}-{g['start'] + g['frames'] - 1}", *cells,
            str(g["bytes"]), f"{g['bits_per_pixel']:.4f}",
        )  # fmt: skip
    console.print(table)
    table = Table("where", *numbers("bytes", "share"))
    for name, size in d["where"].items():
        table.add_row(name, str(size), f"{size / d['bytes']:.1%}")
    table.add_row("total", str(d["bytes"]), "100%")
    console.print(table)
    if not d["problems"]:
        console.print(f"{d['bits_per_pixel']:.5f} bit/pixel, {d['kbps']:.2f} kbit/s")


def _base_cells(base: dict[str, Any] | None) -> list[str]:
    if base is None:
        return ["-", "0"]
    part = "" if base["size"] == 1 else f" 1/{base['size']}"
    restored = ", restored" if base["restored"] else ""
    return [f"{base['codec']}{part} q{base['quantiser']}{restored}", str(base["bytes"])]


_LABELS = {
    "psnr_rgb_db": "PSNR (RGB), dB",
    "ms_ssim": "MS-SSIM",
    "vmaf": "VMAF",
    "vmaf_neg": "VMAF NEG",
    "temporal_error": "temporal error, grey levels",
    "temporal_activity_ratio": "temporal activity, decoded / original",
    "tof": "tOF, pixels",
    "lpips_alex": "LPIPS (alex)",
    "lpips_vgg": "LPIPS (vgg)",
    "dists": "DISTS",
    "bytes": "file, bytes",
    "bits_per_pixel": "bit/pixel",
    "kbps": "kbit/s",
}


def show_metrics(figures: dict[str, Any], console: Console) -> None:
    """A comparison as a table, with what could not be computed and why."""
    from rich.table import Column, Table

    size = f"{figures['frames']} frames of {figures['width']}x{figures['height']}"
    table = Table("metric", Column("value", justify="right"), title=size)
    for name, label in _LABELS.items():
        if name in figures:
            v = figures[name]
            text = "-" if v is None else f"{v:.4f}" if isinstance(v, float) else str(v)
            table.add_row(label, text)
    console.print(table)
    for note in figures.get("notes", []):
        console.print(f"note: {note}")


def show_side_by_side(
    title: str, names: list[str], sizes: list[int], values: list[dict[str, float | None]],
    console: Console,
) -> None:  # fmt: skip
    """Metrics of what several codecs made of a clip, a column for each, with their bytes."""
    from rich.table import Column, Table

    table = Table("", *(Column(name, justify="right") for name in names), title=title)
    table.add_row("bytes", *map(str, sizes))
    for metric in values[0]:
        cells = ["-" if v[metric] is None else f"{v[metric]:.4f}" for v in values]
        table.add_row(_LABELS[metric], *cells)
    console.print(table)
