"""The command line: encode, decode, inspect, compare, demo, train.

Stdout carries data (streams, tables, JSON), stderr progress and messages. Exit codes: 0 done,
1 a file is damaged or cannot be read or written, 2 usage or a setting out of range, 3 the target
size cannot be reached, 4 verification failed.
"""

from __future__ import annotations

import json
import os
import sys
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, NoReturn

import typer
from rich.console import Console

from gvcc.errors import ConfigError, GvccError, TargetUnreachable, Truncated

if TYPE_CHECKING:
    from gvcc.codec import Event, Progress
    from gvcc.media import Video

# Before torch loads: OpenMP threads that spin while they wait make it about 20 times slower on
# cores shared with other work; sleeping ones cost next to nothing on an idle machine.
os.environ.setdefault("OMP_WAIT_POLICY", "PASSIVE")

app = typer.Typer(
    help="A video codec whose decoder is a generative model.",
    no_args_is_help=True,
    pretty_exceptions_enable=False,
)
train_app = typer.Typer(help="Fit the priors that ship in the package.", no_args_is_help=True)
app.add_typer(train_app, name="train")
err = Console(stderr=True, highlight=False)
out = Console(highlight=False)

Input = Annotated[str, typer.Argument(help="A file; '-' is stdin.")]
Output = Annotated[str, typer.Option("-o", "--output", help="The file to write; '-' is stdout.")]
Overwrite = Annotated[bool, typer.Option("-y", "--overwrite", help="Replace an existing output.")]
Json = Annotated[bool, typer.Option("--json", help="One JSON object on stdout.")]
Device = Annotated[str, typer.Option(help="Where the prior runs: cpu, cuda, cuda:1 ...")]
Frames = Annotated[int | None, typer.Option(help="Only the first so many frames.", min=1)]


def main() -> None:
    """Entry point: runs a command, turns the package's errors into a line and an exit code."""
    try:
        app()
    except TargetUnreachable as e:
        _fail(e, 3)
    except ConfigError as e:
        _fail(e, 2)
    except GvccError as e:
        _fail(e, 1)
    except BrokenPipeError:
        sys.exit(1)


def _fail(error: Exception, code: int) -> NoReturn:
    err.print(f"[red]gvcc:[/] {error}", soft_wrap=True, markup=True)
    sys.exit(code)


@contextmanager
def _bar(verb: str) -> Iterator[Progress]:
    """A progress bar on stderr that reads the codec's events: GOP, step, bytes and ETA."""
    from rich.progress import BarColumn, Progress, TextColumn, TimeRemainingColumn

    columns = (TextColumn("{task.description}"), BarColumn(), TextColumn("{task.fields[state]}"))
    with Progress(*columns, TextColumn("eta"), TimeRemainingColumn(), console=err) as bar:
        task = bar.add_task(verb, total=None, state="")
        worst = [0.0]

        def show(event: Event) -> None:
            state = f"gop {event.gop + 1}/{event.gops}, step {event.step}/{event.steps}"
            state += f", {event.bytes / 1000:.1f} kB"
            done = event.gop * event.steps + event.step
            bar.update(task, completed=done, total=event.gops * event.steps, state=state)
            if event.drift is not None:
                worst[0] = max(worst[0], event.drift)

        yield show
    if worst[0] > 0:
        err.print(
            f"[yellow]note:[/] this machine's latents differ from the encoder's by about "
            f"{worst[0]:.3f} RMS (1 = the latents' own scale)"
        )


@contextmanager
def _stage(verb: str) -> Iterator[Any]:
    """A progress bar for training: reports (stage, done, total)."""
    from rich.progress import (
        BarColumn,
        MofNCompleteColumn,
        Progress,
        TextColumn,
        TimeRemainingColumn,
    )

    columns = (TextColumn("{task.description}"), BarColumn(), MofNCompleteColumn())
    with Progress(*columns, TextColumn("eta"), TimeRemainingColumn(), console=err) as bar:
        task = bar.add_task(verb, total=None)

        def show(stage: str, done: int, total: int) -> None:
            bar.update(task, description=f"{verb}: {stage}", completed=done, total=total)

        yield show


def _check_output(output: str, inputs: list[str], overwrite: bool) -> None:
    """Refuse to write over an input, or over any file unless told to."""
    if output == "-":
        return
    target = Path(output)
    for name in inputs:
        if name != "-" and target.exists() and Path(name).exists() and target.samefile(name):
            raise ConfigError(f"{output} is the input; choose another output")
    if target.exists() and not overwrite:
        raise ConfigError(f"{output} exists; -y replaces it")
    if not target.absolute().parent.is_dir():
        raise ConfigError(f"the folder of {output} does not exist")


def write_bytes(data: bytes, output: str) -> None:
    """Write to a temporary name beside the output and rename: never half a file."""
    if output == "-":
        sys.stdout.buffer.write(data)
        sys.stdout.buffer.flush()
        return
    target = Path(output).absolute()
    handle, name = tempfile.mkstemp(prefix=f".{target.name}.", dir=target.parent)
    try:
        with os.fdopen(handle, "wb") as f:
            f.write(data)
        umask = os.umask(0)
        os.umask(umask)
        os.chmod(name, 0o666 & ~umask)  # mkstemp's 0600 is not what a user expects of an output
        os.replace(name, target)
    except BaseException:
        os.unlink(name)
        raise


def read_bytes(name: str) -> bytes:
    """A whole file, or stdin for '-'; GvccError with the reason if it cannot be read."""
    if name == "-":
        return sys.stdin.buffer.read()
    try:
        return Path(name).read_bytes()
    except OSError as e:
        raise GvccError(f"{name}: {e.strerror}") from None


def _figures(data: bytes, video: Video) -> dict[str, Any]:
    """Size of a file against the clip it holds."""
    t, h, w, _ = video.frames.shape
    return {
        "bytes": len(data),
        "frames": t,
        "width": w,
        "height": h,
        "fps": str(video.fps),
        "bits_per_pixel": 8 * len(data) / (t * h * w),
        "kbps": 8 * len(data) * float(video.fps) / t / 1000,
    }


@app.command()
def encode(
    source: Input,
    output: Output,
    overwrite: Overwrite = False,
    preset: Annotated[str, typer.Option(help="default (ours) or paper (GVCC as published).")]
    = "default",
    prior: Annotated[str, typer.Option(help="The generator that decodes.")] = "gauss",
    bpp: Annotated[float | None, typer.Option(help="Target: bits per pixel.")] = None,
    kbps: Annotated[float | None, typer.Option(help="Target: kilobits per second.")] = None,
    size: Annotated[int | None, typer.Option(help="Target: bytes of the file.")] = None,
    atoms: Annotated[int | None, typer.Option("-M", "--atoms",
        help="Atoms per step and latent frame, the same everywhere.")] = None,
    codebook: Annotated[int | None, typer.Option("-K", "--codebook",
        help="Size of the gaussian codebook.")] = None,
    seed: Annotated[int | None, typer.Option(help="Seed of all noise.")] = None,
    steps: Annotated[int | None, typer.Option(help="Network calls per GOP.")] = None,
    gop: Annotated[int | None, typer.Option(help="Frames per GOP, 4k+1.")] = None,
    knob: Annotated[float | None, typer.Option(
        help="Default k for the decoder: 1 realism ... 2 fidelity.")] = None,
    frames: Frames = None,
    audio: Annotated[bool, typer.Option(help="Carry the audio track.")] = True,
    matrix: Annotated[str | None, typer.Option(
        help="Colour matrix of untagged input: bt709, bt601, bt2020nc.")] = None,
    verify: Annotated[bool, typer.Option(
        help="Decode the finished file and compare with the encoder's pictures.")] = False,
    device: Device = "cpu",
    as_json: Json = False,
) -> None:  # fmt: skip
    """Encode a video file. Without a target: 0.05 bits per pixel (default) or M = 64 (paper)."""
    from gvcc import codec, media
    from gvcc.rate import EncodeConfig

    _check_output(output, [source], overwrite)
    if as_json and output == "-":
        raise ConfigError("--json and -o - both want stdout")
    config = EncodeConfig(preset=preset, prior=prior, bpp=bpp, kbps=kbps, size=size, atoms=atoms,
                          codebook=codebook, seed=seed, steps=steps, gop=gop, knob=knob,
                          audio=audio, device=device)  # fmt: skip
    config.parameters()  # settings out of range are told before a long file is read
    video = media.read(source, frames=frames, matrix=matrix, audio=audio)
    begin = time.monotonic()
    with _bar("encode") as bar:
        made = codec.encode(video, config, progress=bar)
    write_bytes(made.data, output)
    report = {"file": output, "preset": preset, "prior": prior, **_figures(made.data, video)}
    report["seconds"] = round(time.monotonic() - begin, 2)
    if verify:
        with _bar("verify") as bar:
            back = codec.decode(made.data if output == "-" else read_bytes(output),
                                device=device, progress=bar)  # fmt: skip
        report["verified"] = bool((back.frames == made.frames).all())
    if as_json:
        sys.stdout.write(json.dumps(report) + "\n")
    err.print(
        f"{output}: {report['bytes']} bytes, {report['bits_per_pixel']:.4f} bit/pixel, "
        f"{report['kbps']:.2f} kbit/s; {report['frames']} frames {report['width']}x"
        f"{report['height']} in {report['seconds']:.1f} s"
        + (", verified" if report.get("verified") else "")
    )
    if report.get("verified") is False:
        _fail(GvccError(f"{output} does not decode to the encoder's own pictures"), 4)


@app.command()
def decode(
    source: Input,
    output: Output,
    overwrite: Overwrite = False,
    knob: Annotated[float | None, typer.Option(
        help="1 realism ... 2 fidelity; default: the file's.")] = None,
    device: Device = "cpu",
    as_json: Json = False,
) -> None:  # fmt: skip
    """Decode to .mp4, .mkv, .mov, .y4m, '-' (y4m on stdout), or a folder of PNGs (name ending '/').

    A truncated file gives the GOPs before the cut, and exit code 1.
    """
    from gvcc import codec, media

    _check_output(output, [source], overwrite or output.endswith("/"))
    if as_json and output == "-":
        raise ConfigError("--json and -o - both want stdout")
    data = read_bytes(source)
    begin, cut = time.monotonic(), None
    with _bar("decode") as bar:
        try:
            video = codec.decode(data, device=device, progress=bar, knob=knob)
        except Truncated as e:
            if not e.whole_gops:
                raise
            cut = e
            video = codec.decode(data, device=device, progress=bar, knob=knob, partial=True)
    media.write(video, output, overwrite=overwrite)
    report = {"file": output, **_figures(data, video)}
    report["seconds"] = round(time.monotonic() - begin, 2)
    if as_json:
        sys.stdout.write(json.dumps(report) + "\n")
    err.print(f"{output}: {report['frames']} frames {report['width']}x{report['height']}, "
              f"{report['fps']} fps in {report['seconds']:.1f} s")  # fmt: skip
    if cut is not None:
        raise cut


@app.command()
def inspect(source: Input, as_json: Json = False) -> None:
    """Show a file's header, its GOPs, and where the bits go. Needs no prior."""
    from gvcc import bitstream, describe

    stream = bitstream.parse(read_bytes(source))
    if as_json:
        sys.stdout.write(json.dumps(describe.as_dict(stream)) + "\n")
    else:
        describe.show(stream, out)


@app.command()
def compare(
    reference: Annotated[str, typer.Argument(help="The original clip.")],
    decoded: Annotated[str, typer.Argument(help="The decoded clip.")],
    stream: Annotated[str | None, typer.Option("--gvcc", help="The coded file, for its size.")]
    = None,
    frames: Frames = None,
    as_json: Json = False,
) -> None:  # fmt: skip
    """PSNR, MS-SSIM, VMAF and temporal consistency of a decoded clip (needs gvcc[eval])."""
    from gvcc import describe, media
    from gvcc.eval import metrics

    ref = media.read(reference, frames=frames, audio=False)
    got = media.read(decoded, frames=frames, audio=False)
    figures = metrics.compare(ref.frames, got.frames, ref.fps)
    if stream is not None:
        figures |= _figures(read_bytes(stream), got)
    if as_json:
        sys.stdout.write(json.dumps(figures) + "\n")
    else:
        describe.show_metrics(figures, out)


@app.command()
def demo(
    folder: Annotated[Path, typer.Option("--out", help="Where the results go.")]
    = Path("demo-out"),
    clip: Annotated[str | None, typer.Option(help="Your own clip instead of the built-in one.")]
    = None,
    bpp: Annotated[float, typer.Option(help="Target, bits per pixel.")] = 0.05,
) -> None:  # fmt: skip
    """Encode a clip, decode the file in a second process, compare, leave a side-by-side picture."""
    from gvcc import demo as show

    show.run(folder, clip, bpp, _bar, out)


@train_app.command("gauss")
def train_gauss(
    data: Annotated[Path, typer.Argument(help="A folder with video files.")],
    output: Output,
    overwrite: Overwrite = False,
    channels: Annotated[int, typer.Option(help="Channels of the latent.", min=1, max=192)] = 32,
    limit: Annotated[int | None, typer.Option(help="Use at most so many clips.", min=1)] = None,
    seed: Annotated[int, typer.Option(help="Seed of the crops.", min=0)] = 1,
) -> None:
    """Fit the analytic prior: Karhunen-Loeve bases and a power spectrum (a few minutes)."""
    from gvcc.train import gauss

    _check_output(output, [], overwrite)
    with _stage("train gauss") as progress:
        weights = gauss.fit(data, channels, seed, limit, progress)
    write_bytes(weights, output)
    err.print(f"{output}: {len(weights)} bytes")
