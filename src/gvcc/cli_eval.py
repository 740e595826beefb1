"""The commands of `gvcc eval`."""

from __future__ import annotations

import json
import sys
from pathlib import Path
from typing import Annotated

import typer

from gvcc import priors
from gvcc.errors import ConfigError
from gvcc.terminal import Device, Json, Offload, out, progress_bar

app = typer.Typer(help="Measure the codec (needs the extra 'eval').", no_args_is_help=True)


@app.callback()
def commands() -> None:
    """Keeps the command's name where there is only one."""


@app.command()
def table6(
    uvg: Annotated[Path, typer.Option(help="Folder with the raw 1080p sequences of UVG.")],
    results: Annotated[Path, typer.Option("--out",
        help="JSON file of the results; cells that are in it are not made again.")]
    = Path("table6.json"),
    prior: Annotated[str, typer.Option(help="The published one, or another.")] = "wan2.1-t2v-1.3b",
    rows: Annotated[str | None, typer.Option(metavar="M:K,...", help="Only these rows.")] = None,
    sequences: Annotated[str | None, typer.Option(metavar="NAME,...",
        help="Only these sequences.")] = None,
    size: Annotated[str, typer.Option(help="Width x height, what the clips are scaled to.")]
    = "848x480",
    gops: Annotated[int, typer.Option(min=1, help="GOPs of 33 frames of each sequence.")] = 3,
    true_colours: Annotated[bool, typer.Option("--true-colours",
        help="Read the video as what it is, not as the published runner did (its PSNR is of "
        "frames of less contrast).")] = False,
    offload: Offload = False,
    device: Device = "auto",
    as_json: Json = False,
) -> None:  # fmt: skip
    """Table 6 of GVCC (rate and PSNR of Wan2.1 T2V 1.3B on UVG), line by line, beside the published
    figures and the size of our own files."""
    from gvcc.eval import table6 as table

    picked = table.chosen(rows)
    try:
        width, height = (int(n) for n in size.split("x"))
    except ValueError:
        raise ConfigError(f"--size {size!r}: expected WIDTHxHEIGHT") from None
    names = table.SEQUENCES if sequences is None else tuple(sequences.split(","))
    for name in names:
        table.find(uvg, name)
    model = priors.load(prior, priors.pick_device(device, prior), offload=offload)
    with progress_bar("table6", lines=60) as bar:
        lines = table.run(
            uvg, results, model, prior, rows=picked, sequences=names, size=(width, height),
            gops=gops, true_colours=true_colours, tell=bar,
        )  # fmt: skip
    if as_json:
        sys.stdout.write(json.dumps(lines) + "\n")
        return
    from rich.table import Column, Table

    heads = ("M", "K", "PSNR, dB", "published", "kbit/s at 16 Hz", "published", "our file, kbit/s",
             "our file, bit/pixel")  # fmt: skip
    shown = Table(*(Column(h, justify="right") for h in heads),
                  title=f"{model.spec.id}, {len(names)} sequences, {width}x{height}")  # fmt: skip
    for r in lines:
        shown.add_row(
            str(r["M"]), str(r["K"]), f"{r['psnr_db']:.2f}", f"{r['published_psnr_db']:.2f}",
            f"{r['kbps']:.1f}", f"{r['published_kbps']:.1f}", f"{r['file_kbps']:.1f}",
            f"{r['file_bits_per_pixel']:.5f}",
        )  # fmt: skip
    out.print(shown)
