"""The command line: encode, decode, inspect, compare, demo, train.

Stdout carries data (streams, tables, JSON), stderr progress and messages. Exit codes: 0 done,
1 a file is damaged or cannot be read or written, 2 usage or a setting out of range, 3 the target
size cannot be reached, 4 verification failed; 130 and 143 after Ctrl-C and SIGTERM.
"""

from __future__ import annotations

import hashlib
import json
import os
import signal
import sys
import time
from fractions import Fraction
from functools import partial
from io import BytesIO
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, BinaryIO, NoReturn, cast

import typer
from rich.text import Text

from gvcc import cli_train, priors
from gvcc.errors import ConfigError, GvccError, MediaError, TargetUnreachable, unknown
from gvcc.terminal import (
    Device,
    Following,
    Growing,
    Output,
    Overwrite,
    check_device,
    check_output,
    codec_bar,
    err,
    open_stream,
    out,
    read_bytes,
    say,
)

if TYPE_CHECKING:
    from gvcc.records import Clip

# Before torch loads: OpenMP threads that spin while they wait make it about 20 times slower on
# cores shared with other work; sleeping ones cost next to nothing on an idle machine.
os.environ.setdefault("OMP_WAIT_POLICY", "PASSIVE")

app = typer.Typer(
    help="A video codec whose decoder is a generative model.",
    no_args_is_help=True,
    pretty_exceptions_enable=False,
)
app.add_typer(cli_train.app, name="train")

Source = Annotated[str, typer.Argument(
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


def _figures(size: int, clip: Clip) -> dict[str, Any]:
    """What a report of encode or decode says of a file of `size` bytes and its clip."""
    shape = clip.count, clip.height, clip.width
    about = {"frames": clip.count, "width": clip.width, "height": clip.height}
    return about | {"fps": str(clip.fps)} | _rates(size, shape, clip.fps)


_target = partial(typer.Option, rich_help_panel="Target (at most one)")
_how = partial(typer.Option, rich_help_panel="How it is coded")
_read = partial(typer.Option, rich_help_panel="What is read")


@app.command()
def encode(
    source: Source,
    output: Output,
    overwrite: Overwrite = False,
    bpp: Annotated[float | None, _target(help="Bits per pixel, the whole file counted.")] = None,
    kbps: Annotated[float | None, _target(help="Kilobits per second.")] = None,
    size: Annotated[int | None, _target(help="Bytes of the file.")] = None,
    quality: Annotated[str | None, _target(help="What every GOP should have: psnr:28, ms-ssim:0.95 "
        "or vmaf:60, whatever it takes.")] = None,
    stop: Annotated[int | None, _target(min=1, help="Coded steps of every GOP.")] = None,
    atoms: Annotated[int | None, _target("-M", "--atoms",
        help="Atoms per step and latent frame, the same everywhere.")] = None,
    mode: Annotated[str | None, _how(help="t2v (no reference; all presets but free-gvc), i2v "
        "(each GOP starts from the last decoded picture), flf2v (coded pictures at both ends), "
        "auto (chooses per GOP; slow), or overlap (preset free-gvc: GOPs share frames).")] = None,
    preset: Annotated[str, _how(help="default (ours), paper (GVCC as published), or free-gvc "
        "(trajectory coding).")] = "default",
    coder: Annotated[str | None, _how(help="codebook, or rcc (reverse channel coding); default: "
        "as the preset has it.")] = None,
    prior: Annotated[str, _how(
        help="The generator that decodes: nano, gauss, or nano:FILE or gauss:FILE for own weights."
    )] = priors.DEFAULT,
    codebook: Annotated[int | None, _how("-K", "--codebook",
        help="Size of the gaussian codebook (preset paper), or candidates of rcc.")] = None,
    seed: Annotated[int | None, _how(help="Seed of all noise.")] = None,
    steps: Annotated[int | None, _how(help="Network calls per GOP.")] = None,
    gop: Annotated[int | None, _how(help="Frames per GOP, 4k+1.")] = None,
    overlap: Annotated[int | None, _how(help="Frames that GOPs share (t2v, overlap).")] = None,
    alignment: Annotated[str | None, _how(help="Of shared frames in mode overlap: fade (pictures "
        "are cross-faded), blend (latents too), pin (coded once, and the next GOP starts from "
        "them).")] = None,
    refresh: Annotated[int, _how(help="A coded picture every so many GOPs (i2v, auto); 0: only "
        "where a scene starts.")] = 0,
    cuts: Annotated[bool, _how(help="Start a GOP at each scene cut (not in t2v).")] = True,
    residual: Annotated[bool, _how(
        help="Code a residual of the picture that the next GOP starts from.")] = True,
    tail_atoms: Annotated[int | None, _how(
        help="M for the last two latent frames of i2v (with -M or preset paper).")] = None,
    knob: Annotated[float | None, _how(help="Default k for the decoder: "
        "1 realism ... 2 fidelity.")] = None,
    frames: Annotated[int | None, _read(min=1, help="Only the first so many frames.")] = None,
    audio: Annotated[bool, _read(help="Carry the audio track.")] = True,
    matrix: Annotated[str | None, _read(help="Colour matrix, whatever the file says: bt709, "
        "bt601, bt2020nc.")] = None,
    resume: Annotated[bool, typer.Option("--resume",
        help="Go on with OUTPUT.part, which a broken-off encode left.")] = False,
    verify: Annotated[bool, typer.Option("--verify",
        help="Decode the finished file and compare with the encoder's pictures.")] = False,
    device: Device = "cpu",
    as_json: Json = False,
) -> None:  # fmt: skip
    """Encode a video file. Without a target: 0.05 bits per pixel (default) or M = 64 (paper).

    The file grows as OUTPUT.part and gets its name when it is whole.
    """
    from gvcc import codec, media
    from gvcc.rate import EncodeConfig

    check_output(output, source, overwrite)
    if output == "-" and (as_json or resume):
        raise ConfigError(f"--{'json' if as_json else 'resume'} does not go with -o -")
    config = EncodeConfig(preset=preset, prior=prior, mode=mode, bpp=bpp, kbps=kbps, size=size,
                          quality=quality, stop=stop, coder=coder, atoms=atoms,
                          tail_atoms=tail_atoms, codebook=codebook, seed=seed, steps=steps, gop=gop,
                          overlap=overlap, alignment=alignment, refresh=refresh, cuts=cuts,
                          residual=residual, knob=knob, audio=audio, device=device)  # fmt: skip
    # Settings out of range are told before a long file is read.
    config.parameters()
    config.target(1, 1, 1, Fraction(1))
    check_device(device)
    model = priors.load(prior, device)
    try:
        clip = media.open_clip(source, frames=frames, matrix=matrix, audio=audio)
    except MediaError as e:
        raise MediaError(f"{e} (stdin must be y4m)" if source == "-" else str(e)) from e
    begin, total, kept, qualities = time.monotonic(), 0, b"", list[float | None]()
    promised = hashlib.sha256()
    with Growing(output, resume, overwrite) as file, codec_bar("encode") as bar:
        for part in codec.encode_parts(clip, config, model, bar, file.begun):
            file.write(part.data)
            file.worth |= part.pictures is not None
            total += len(part.data)
            kept += part.data if verify and output == "-" else b""
            if part.pictures is not None:
                qualities.append(part.quality)
                promised.update(part.pictures.tobytes())
    mode = config.parameters()["mode"]
    report: dict[str, Any] = {"file": output, "preset": preset, "prior": prior, "mode": mode}
    report |= _figures(total, clip)
    report["seconds"] = round(time.monotonic() - begin, 2)
    if quality is not None:
        report["qualities"] = qualities
        _tell_missed(quality, qualities)
    problem = ""
    if verify:
        try:
            found = hashlib.sha256()
            with BytesIO(kept) if output == "-" else open_stream(output) as coded:
                with codec_bar("verify") as bar:
                    for picture in codec.Decoder(coded, model, device, progress=bar).pictures():
                        found.update(picture.tobytes())
            if found.digest() != promised.digest():
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


def _tell_missed(asked: str, found: list[float | None]) -> None:
    """Say which GOPs have not the quality asked for: the prior cannot do better, or worse. Those
    without one are nothing but stills."""
    from gvcc.quality import goal

    aim = goal(asked)
    off = {
        i: q for i, q in enumerate(found) if q is not None and abs(q - aim.value) > aim.tolerance
    }
    if off:
        worst = max(off, key=lambda i: abs(off[i] - aim.value))
        say(f"note: {len(off)} of {len(found)} GOPs are not within {aim.tolerance:g} of {asked}; "
            f"GOP {worst} has {off[worst]:.4g}")  # fmt: skip


@app.command()
def decode(
    source: Coded,
    output: Output,
    overwrite: Overwrite = False,
    start: Annotated[str | None, typer.Option(
        help="First frame wanted: a number, or seconds like 4.8s.")] = None,
    end: Annotated[str | None, typer.Option(
        help="The frame after the last one wanted, the same way.")] = None,
    follow: Annotated[bool, typer.Option("--follow",
        help="SOURCE is a .part file that an encoder is still writing: wait for it.")] = False,
    keep_going: Annotated[bool, typer.Option("--keep-going",
        help="Show the last picture in the place of GOPs that are damaged.")] = False,
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
    from gvcc import codec, media, parser

    suffix = Path(output).suffix.lower()
    folder = output != "-" and (suffix == "" or output.endswith("/"))
    if output != "-" and not folder and suffix not in (known := (*media.MUXERS, ".png")):
        raise unknown("suffix", suffix, known)
    check_output(output, source, overwrite, folder)
    if as_json and output == "-":
        raise ConfigError("--json and -o - both want stdout")
    if follow and (start or end):
        raise ConfigError("--follow does not go with --start and --end")
    check_device(device)
    model = None if prior is None else priors.load(prior, device)
    begin = time.monotonic()
    file = cast(BinaryIO, Following(source)) if follow else open_stream(source)
    if (start or end) and not file.seekable():
        file = BytesIO(file.read())
    rate = parser.Reader(file).header.fps if start or end else Fraction(1)
    if start or end:
        file.seek(0)
    with codec_bar("decode") as bar:
        clip = codec.Decoder(
            file, model, device, progress=bar, knob=knob, partial=True, keep_going=keep_going,
            start=_frame(start or "0", rate), end=None if end is None else _frame(end, rate),
        )  # fmt: skip
        if suffix == ".png" and not folder and clip.count > 1:
            raise ConfigError(f"a .png holds one frame, not {clip.count}: use a name ending in '/'")
        media.write(clip, output, overwrite=overwrite)
    report = {"file": output, "frames": clip.delivered, "width": clip.width,
              "height": clip.height, "fps": str(clip.fps)}  # fmt: skip
    report["seconds"] = round(time.monotonic() - begin, 2)
    if as_json:
        sys.stdout.write(json.dumps(report) + "\n")
    say(f"{output}: {report['frames']} frames {report['width']}x{report['height']}, "
         f"{report['fps']} fps in {report['seconds']:.1f} s")  # fmt: skip
    for text in clip.damage:
        say(f"gvcc: {text}")
    if clip.cut is not None:
        raise clip.cut
    if clip.damage:
        raise GvccError(f"{len(clip.damage)} GOPs could not be decoded and were concealed")


def _frame(text: str, fps: Fraction) -> int:
    """A frame number from "120", or from "4.8s", seconds."""
    try:
        return int(Fraction(text[:-1]) * fps) if text.endswith("s") else int(text)
    except (ValueError, ZeroDivisionError):
        raise ConfigError(f"{text!r} is neither a frame number nor seconds like 4.8s") from None


@app.command()
def inspect(source: Coded, as_json: Json = False) -> None:
    """Show a file's header, its GOPs, and where the bits go. Needs no prior."""
    from gvcc import describe, parser

    stream = parser.parse(read_bytes(source))
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
    from gvcc import describe, media, parser
    from gvcc.eval import metrics

    ref = media.read(reference, frames=frames, audio=False)
    got = media.read(decoded, frames=frames, audio=False)
    figures = metrics.compare(ref.frames, got.frames, ref.fps)
    if stream is not None:
        data = read_bytes(stream)
        head = parser.read_header(data)[0]
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
