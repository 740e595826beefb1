"""The command line: encode, decode, inspect, compare, demo, train, priors, eval.

Stdout carries data (streams, tables, JSON), stderr progress and messages. Exit codes: 0 done,
1 a file is damaged or cannot be read or written, 2 usage or a setting out of range, 3 the target
size cannot be reached, 4 verification failed; 130 and 143 after Ctrl-C and SIGTERM.
"""

from __future__ import annotations

import atexit
import io
import json
import os
import signal
import sys
import time
from contextlib import suppress
from dataclasses import asdict
from fractions import Fraction
from io import BytesIO
from pathlib import Path
from typing import Annotated, Any, BinaryIO, NoReturn, TextIO, cast

import typer
from rich.text import Text

from gvcc import files
from gvcc.cli import encode as cli_encode
from gvcc.cli import evaluate as cli_eval
from gvcc.cli import priors as cli_priors
from gvcc.cli import train as cli_train
from gvcc.cli.terminal import (
    Device,
    Following,
    Json,
    Offload,
    Output,
    Overwrite,
    Rate,
    VerificationFailed,
    check_output,
    codec_bar,
    err,
    open_stream,
    out,
    rates,
    read_bytes,
    say,
    tell,
    told_of,
)
from gvcc.errors import ConfigError, GvccError, TargetUnreachable, unknown
from gvcc.priors import devices

app = typer.Typer(
    help="A video codec whose decoder is a generative model.",
    no_args_is_help=True,
    pretty_exceptions_enable=False,
)
app.command()(cli_encode.encode)
app.add_typer(cli_eval.app, name="eval")
app.add_typer(cli_priors.app, name="priors")
app.add_typer(cli_train.app, name="train")

CodedFile = Annotated[str, typer.Argument(help="A .gvcc file; '-' is stdin.")]


def main() -> None:
    """Entry point: runs a command, turns the package's errors into a line and an exit code."""
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(143))  # so that temporary files go
    if sys.stdout is None:
        # No file that is opened later may get its number, and whoever writes to it is to fail.
        os.dup2(os.open(os.devnull, os.O_RDONLY), 1)
        sys.stdout = open(1, "w", closefd=False)  # noqa: SIM115
        atexit.register(_forget, sys.stdout)
    if isinstance(sys.stdout, io.TextIOWrapper):
        # Tables and names of files may hold what the terminal's encoding does not.
        sys.stdout.reconfigure(errors="backslashreplace")
    try:
        try:
            app(prog_name="gvcc")
        except SystemExit:
            sys.stdout.flush()
            raise
    except TargetUnreachable as e:
        _fail(e, 3)
    except ConfigError as e:
        _fail(e, 2)
    except VerificationFailed as e:
        _fail(e, 4)
    except GvccError as e:
        _fail(e, 1)
    except OSError as e:
        # Files name themselves in their errors.
        _fail(GvccError(f"{e.filename or 'standard output'}: {e.strerror or e}"), 1)


def _forget(file: TextIO) -> None:
    """Close a file whose content has nowhere to go, which has been said."""
    with suppress(OSError):
        file.close()


def _fail(error: Exception, code: int) -> NoReturn:
    err.print(Text.assemble(("gvcc: ", "red"), str(error)), soft_wrap=True)
    sys.exit(code)


@app.command()
def decode(
    source: CodedFile,
    output: Output,
    overwrite: Overwrite = False,
    start: Annotated[str | None, typer.Option(
        help="First frame wanted: a number, or seconds like 4.8s.")] = None,
    end: Annotated[str | None, typer.Option(
        help="The frame after the last one wanted, the same way.")] = None,
    follow: Annotated[bool, typer.Option("--follow",
        help="SOURCE is a .part file that an encoder is still writing: wait for it.")] = False,
    keep_going: Annotated[bool, typer.Option("--keep-going",
        help="Of a damaged file, show the last picture in the place of damaged GOPs, leave "
        "out damaged sound, and end where nothing more is to be had; exit code 1.")] = False,
    audio: Annotated[bool, typer.Option(help="Write the sound too.")] = True,
    base_only: Annotated[bool, typer.Option("--base-only",
        help="Show the bases of a v2v file as the classical codec has them.")] = False,
    knob: Annotated[float | None, typer.Option(
        help="1 realism ... 2 fidelity; default: the file's.")] = None,
    stop: Annotated[int | None, typer.Option(min=0, max=255,
        help="Take so many coded steps of a trajectory at the most: a preview.")] = None,
    prior: Annotated[str | None, typer.Option(
        help="NAME:PATH for a file made with weights of your own.")] = None,
    restorer: Annotated[str | None, typer.Option(
        help="The same for a file whose bases such weights restore.")] = None,
    offload: Offload = False,
    device: Device = "auto",
    as_json: Json = False,
) -> None:  # fmt: skip
    """Decode to .mp4, .mkv, .mov, .y4m, '-' (y4m on stdout), .png (one frame), or a folder of PNGs
    (a name that ends in '/' or has no suffix).

    The first three hold sound, re-encoded without loss where they do not take the codec.

    A truncated file gives the GOPs before the cut, and exit code 1.
    """
    from gvcc import codec
    from gvcc.format import parser
    from gvcc.pictures import media, media_out
    from gvcc.records import Notice

    kind = media_out.kind_of(output)
    if kind not in (*media_out.KINDS, "/"):
        raise unknown("suffix", kind, media_out.KINDS)
    check_output(output, source, overwrite, kind == "/")
    if as_json and files.target(output).is_stdout:
        raise ConfigError(f"--json and -o {output} both want stdout")
    if follow and (start or end):
        raise ConfigError("--follow does not go with --start and --end")
    devices.pick(device, gpu=False)  # before the wait for a stream
    begin = time.monotonic()
    file = cast(BinaryIO, Following(source)) if follow else open_stream(source)
    if (start or end) and not file.seekable():
        file = BytesIO(file.read())
    with told_of(source):
        rate = parser.StreamReader(file).header.fps if start or end else Fraction(1)
    if start or end:
        file.seek(0)
    with codec_bar("decode") as bar, told_of(source):
        clip = codec.Decoder(
            file, prior, device, progress=bar, knob=knob, partial=True, keep_going=keep_going,
            offload=offload, audio=audio and kind in media_out.WITH_SOUND, base_only=base_only,
            restorer=restorer, stop=stop, start=_frame(start or "0", rate),
            end=None if end is None else _frame(end, rate),
        )  # fmt: skip
        if kind == ".png" and clip.count > 1:
            raise ConfigError(f"a .png holds one frame, not {clip.count}: use a name ending in '/'")
        notices = (*clip.notices, *media.write(clip, output, overwrite=overwrite))
    if audio and clip.header.audio and kind not in media_out.WITH_SOUND:
        notices = (*notices, media_out.SILENT)
    report: dict[str, Any] = {"file": output, "frames": clip.delivered, "width": clip.width,
              "height": clip.height, "fps": str(clip.fps)}  # fmt: skip
    report["seconds"] = round(time.monotonic() - begin, 2)
    report["base_only"] = base_only
    if knob is not None and not clip.knob_used:
        text = "--knob changes nothing: there are only bases, and nothing is done to them"
        notices = (*notices, Notice("note", text))
    if stop is not None and not clip.stopped:
        text = "--stop changes nothing: no GOP has more coded steps than that"
        notices = (*notices, Notice("note", text))
    report["notices"] = [asdict(notice) for notice in notices]
    report["problems"] = [*clip.damage, *([] if clip.cut is None else [str(clip.cut)])]
    if as_json:
        sys.stdout.write(json.dumps(report) + "\n")
    tell(notices)
    say(
        f"{output}: {report['frames']} frames {report['width']}x{report['height']}, "
        f"{report['fps']} fps in {report['seconds']:.1f} s{', bases alone' * base_only}"
    )
    for text in clip.damage:
        say(f"gvcc: {text}")
    with told_of(source):
        if clip.cut is not None:
            raise clip.cut
    if clip.damage:
        raise GvccError(f"{source} is damaged in {len(clip.damage)} place(s), see above: GOPs are "
                        "concealed, sound is left out")  # fmt: skip


def _frame(text: str, fps: Fraction) -> int:
    """A frame number from "120", or from "4.8s", seconds."""
    try:
        return int(Fraction(text[:-1]) * fps) if text.endswith("s") else int(text)
    except (ValueError, ZeroDivisionError):
        raise ConfigError(f"{text!r} is neither a frame number nor seconds like 4.8s") from None


@app.command()
def inspect(source: CodedFile, as_json: Json = False) -> None:
    """Show a file's header, its GOPs, and where the bits go. Needs no prior.

    Of a damaged file what is whole is shown, and what is wrong; exit code 1.
    """
    from gvcc.cli import describe
    from gvcc.format import parser

    data = read_bytes(source)
    with told_of(source):
        found = parser.survey(data)
    about = describe.as_dict(found, len(data))
    if as_json:
        sys.stdout.write(json.dumps(about) + "\n")
    else:
        describe.show(about, out)
    if found.problems:
        raise GvccError(f"{source}: {'; '.join(found.problems)}")


@app.command()
def compare(
    reference: Annotated[str, typer.Argument(help="The original clip.")],
    decoded: Annotated[str, typer.Argument(help="The decoded clip.")],
    stream: Annotated[str | None, typer.Option("--gvcc", help="The coded file, for its size.")]
    = None,
    frames: Annotated[int | None, typer.Option(min=1, help="Only the first so many frames.")]
    = None,
    fps: Rate = None,
    seen: Annotated[bool, typer.Option("--perceptual",
        help="LPIPS and DISTS as well; `gvcc eval weights` fetches their weights.")] = False,
    as_json: Json = False,
) -> None:  # fmt: skip
    """PSNR, MS-SSIM, VMAF and temporal consistency of a decoded clip (needs the extra 'eval')."""
    from gvcc.cli import describe
    from gvcc.format import parser
    from gvcc.metrics import metrics, perceptual
    from gvcc.pictures import media, media_time

    rate = None if fps is None else media_time.parse(fps)
    ref = media.read(reference, frames=frames, fps=rate, audio=False)
    tell(ref.notices, reference)
    got = media.read(decoded, frames=frames, fps=rate, audio=False)
    tell(got.notices, decoded)
    counts = len(ref.frames), len(got.frames)
    if counts[0] != counts[1]:
        raise ConfigError(
            f"{reference} has {counts[0]} frames and {decoded} {counts[1]}: --frames {min(counts)} "
            "compares the first ones"
        )
    figures = metrics.compare(ref.frames, got.frames, ref.fps)
    if seen:
        figures |= {f"lpips_{net}": perceptual.lpips(ref.frames, got.frames, net)
                    for net in ("alex", "vgg")}  # fmt: skip
        figures["dists"] = perceptual.dists(ref.frames, got.frames)
    if stream is not None:
        data = read_bytes(stream)
        with told_of(stream):
            head = parser.read_header(data)[0]
        figures |= rates(len(data), (head.frames, head.height, head.width), head.fps)
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
    from gvcc.cli import showcase

    showcase.run(folder, clip, bpp, codec_bar, out)
