"""The command line: encode, decode, inspect, compare, demo, train.

Stdout carries data (streams, tables, JSON), stderr progress and messages. Exit codes: 0 done,
1 a file is damaged or cannot be read or written, 2 usage or a setting out of range, 3 the target
size cannot be reached, 4 verification failed; 130 and 143 after Ctrl-C and SIGTERM.
"""

from __future__ import annotations

import json
import os
import signal
import sys
import time
from fractions import Fraction
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, NoReturn

import typer
from rich.text import Text

from gvcc import cli_train, priors
from gvcc.errors import ConfigError, GvccError, MediaError, TargetUnreachable, Truncated, unknown
from gvcc.terminal import (
    Device,
    Output,
    Overwrite,
    check_device,
    check_output,
    codec_bar,
    err,
    out,
    read_bytes,
    say,
    write_bytes,
)

if TYPE_CHECKING:
    from gvcc.media import Video

# Before torch loads: OpenMP threads that spin while they wait make it about 20 times slower on
# cores shared with other work; sleeping ones cost next to nothing on an idle machine.
os.environ.setdefault("OMP_WAIT_POLICY", "PASSIVE")

app = typer.Typer(
    help="A video codec whose decoder is a generative model.",
    no_args_is_help=True,
    pretty_exceptions_enable=False,
)
app.add_typer(cli_train.app, name="train")

Clip = Annotated[str, typer.Argument(
    help="A video file, a folder of pictures, or '-' for y4m on stdin.")]  # fmt: skip
Coded = Annotated[str, typer.Argument(help="A .gvcc file; '-' is stdin.")]
Json = Annotated[bool, typer.Option("--json", help="One JSON object on stdout.")]


def main() -> None:
    """Entry point: runs a command, turns the package's errors into a line and an exit code."""
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(143))  # so that temporary files go
    try:
        app(prog_name="gvcc")
    except TargetUnreachable as e:
        _fail(e, 3)
    except ConfigError as e:
        _fail(e, 2)
    except GvccError as e:
        _fail(e, 1)
    except OSError as e:
        _fail(GvccError(f"{e.filename}: {e.strerror}" if e.filename else str(e)), 1)


def _fail(error: Exception, code: int) -> NoReturn:
    err.print(Text.assemble(("gvcc: ", "red"), str(error)), soft_wrap=True)
    sys.exit(code)


def _rates(size: int, shape: tuple[int, ...], fps: Fraction) -> dict[str, Any]:
    """Size of a file in bytes against the frames [T,H,W,...] it holds."""
    t, h, w = shape[:3]
    kbps = 8 * size * float(fps) / t / 1000
    return {"bytes": size, "bits_per_pixel": 8 * size / (t * h * w), "kbps": kbps}


def _figures(data: bytes, video: Video) -> dict[str, Any]:
    """What a report of encode or decode says of the file and its clip."""
    t, h, w, _ = video.frames.shape
    clip = {"frames": t, "width": w, "height": h, "fps": str(video.fps)}
    return clip | _rates(len(data), video.frames.shape, video.fps)


_target = partial(typer.Option, rich_help_panel="Target (at most one)")
_how = partial(typer.Option, rich_help_panel="How it is coded")
_read = partial(typer.Option, rich_help_panel="What is read")


@app.command()
def encode(
    source: Clip,
    output: Output,
    overwrite: Overwrite = False,
    bpp: Annotated[float | None, _target(help="Bits per pixel, the whole file counted.")] = None,
    kbps: Annotated[float | None, _target(help="Kilobits per second.")] = None,
    size: Annotated[int | None, _target(help="Bytes of the file.")] = None,
    atoms: Annotated[int | None, _target("-M", "--atoms",
        help="Atoms per step and latent frame, the same everywhere.")] = None,
    preset: Annotated[str, _how(help="default (ours) or paper (GVCC as published).")] = "default",
    prior: Annotated[str, _how(
        help="The generator that decodes: nano, gauss, or nano:FILE or gauss:FILE for own weights."
    )] = priors.DEFAULT,
    codebook: Annotated[int | None, _how("-K", "--codebook",
        help="Size of the gaussian codebook (preset paper).")] = None,
    seed: Annotated[int | None, _how(help="Seed of all noise.")] = None,
    steps: Annotated[int | None, _how(help="Network calls per GOP.")] = None,
    gop: Annotated[int | None, _how(help="Frames per GOP, 4k+1.")] = None,
    knob: Annotated[float | None, _how(help="Default k for the decoder: "
        "1 realism ... 2 fidelity.")] = None,
    frames: Annotated[int | None, _read(min=1, help="Only the first so many frames.")] = None,
    audio: Annotated[bool, _read(help="Carry the audio track.")] = True,
    matrix: Annotated[str | None, _read(help="Colour matrix, whatever the file says: bt709, "
        "bt601, bt2020nc.")] = None,
    verify: Annotated[bool, typer.Option("--verify",
        help="Decode the finished file and compare with the encoder's pictures.")] = False,
    device: Device = "cpu",
    as_json: Json = False,
) -> None:  # fmt: skip
    """Encode a video file. Without a target: 0.05 bits per pixel (default) or M = 64 (paper)."""
    from gvcc import codec, media
    from gvcc.rate import EncodeConfig

    check_output(output, source, overwrite)
    if as_json and output == "-":
        raise ConfigError("--json and -o - both want stdout")
    config = EncodeConfig(preset=preset, prior=prior, bpp=bpp, kbps=kbps, size=size, atoms=atoms,
                          codebook=codebook, seed=seed, steps=steps, gop=gop, knob=knob,
                          audio=audio, device=device)  # fmt: skip
    # Settings out of range are told before a long file is read.
    config.parameters()
    config.target(1, 1, 1, Fraction(1))
    check_device(device)
    model = priors.load(prior, device)
    try:
        video = media.read(source, frames=frames, matrix=matrix, audio=audio)
    except MediaError as e:
        raise MediaError(f"{e} (stdin must be y4m)" if source == "-" else str(e)) from e
    begin = time.monotonic()
    with codec_bar("encode") as bar:
        made = codec.encode(video, config, model, progress=bar)
    write_bytes(made.data, output)
    report = {"file": output, "preset": preset, "prior": prior, **_figures(made.data, video)}
    report["seconds"] = round(time.monotonic() - begin, 2)
    problem = ""
    if verify:
        try:
            data = made.data if output == "-" else read_bytes(output)
            with codec_bar("verify") as bar:
                back = codec.decode(data, model, device, progress=bar)
            if back.frames.tobytes() != made.frames.tobytes():
                problem = f"{output} does not decode to the encoder's own pictures"
        except GvccError as e:
            problem = f"{output} does not decode: {e}"
        report["verified"] = not problem
    if as_json:
        sys.stdout.write(json.dumps(report) + "\n")
    say(
        f"{output}: {report['bytes']} bytes, {report['bits_per_pixel']:.4f} bit/pixel, "
        f"{report['kbps']:.2f} kbit/s; {report['frames']} frames {report['width']}x"
        f"{report['height']} in {report['seconds']:.1f} s"
        + (", verified" if report.get("verified") else "")
    )
    if problem:
        _fail(GvccError(problem), 4)


@app.command()
def decode(
    source: Coded,
    output: Output,
    overwrite: Overwrite = False,
    knob: Annotated[float | None, typer.Option(
        help="1 realism ... 2 fidelity; default: the file's.")] = None,
    prior: Annotated[str | None, typer.Option(
        help="nano:FILE or gauss:FILE for a file made with weights of your own.")] = None,
    device: Device = "cpu",
    as_json: Json = False,
) -> None:  # fmt: skip
    """Decode to .mp4, .mkv, .mov, .y4m, '-' (y4m on stdout), or a folder of PNGs (name ending '/').

    A truncated file gives the GOPs before the cut, and exit code 1.
    """
    from gvcc import bitstream, codec, media

    suffix = Path(output).suffix.lower()
    folder = output != "-" and (suffix == "" or output.endswith("/"))
    if output != "-" and not folder and suffix not in (known := (*media.MUXERS, ".png")):
        raise unknown("suffix", suffix, known)
    check_output(output, source, overwrite, folder)
    if as_json and output == "-":
        raise ConfigError("--json and -o - both want stdout")
    data, cut = read_bytes(source), None
    try:
        header = bitstream.parse(data).header
    except Truncated as e:
        if not e.whole_gops:
            raise
        header, cut = bitstream.read_header(data)[0], e
    if suffix == ".png" and not folder and header.frames > 1:
        raise ConfigError(f"a .png holds one frame, not {header.frames}: use a name ending in '/'")
    check_device(device)
    model = None if prior is None else priors.load(prior, device)
    begin = time.monotonic()
    with codec_bar("decode") as bar:
        video = codec.decode(data, model, device, progress=bar, partial=cut is not None, knob=knob)
    media.write(video, output, overwrite=overwrite)
    report = {"file": output, **_figures(data, video)}
    report["seconds"] = round(time.monotonic() - begin, 2)
    if as_json:
        sys.stdout.write(json.dumps(report) + "\n")
    say(f"{output}: {report['frames']} frames {report['width']}x{report['height']}, "
         f"{report['fps']} fps in {report['seconds']:.1f} s")  # fmt: skip
    if cut is not None:
        raise cut


@app.command()
def inspect(source: Coded, as_json: Json = False) -> None:
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
    frames: Annotated[int | None, typer.Option(min=1, help="Only the first so many frames.")]
    = None,
    as_json: Json = False,
) -> None:  # fmt: skip
    """PSNR, MS-SSIM, VMAF and temporal consistency of a decoded clip (needs the extra 'eval')."""
    from gvcc import bitstream, describe, media
    from gvcc.eval import metrics

    ref = media.read(reference, frames=frames, audio=False)
    got = media.read(decoded, frames=frames, audio=False)
    figures = metrics.compare(ref.frames, got.frames, ref.fps)
    if stream is not None:
        data = read_bytes(stream)
        head = bitstream.read_header(data)[0]
        figures |= _rates(len(data), (head.frames, head.height, head.width), head.fps)
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

    show.run(folder, clip, bpp, codec_bar, out)
