"""What the commands share: options, messages, progress bars, files in and out."""

from __future__ import annotations

import os
import sys
import time
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from fractions import Fraction
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, BinaryIO

import typer
from rich.console import Console

from gvcc import files
from gvcc.errors import ConfigError, FormatError, GvccError

if TYPE_CHECKING:
    from gvcc.decode.session import Event, Progress
    from gvcc.records import Notice

# No markup: names of files and strings from files may hold brackets.
err = Console(stderr=True, highlight=False, markup=False, emoji=False)
out = Console(highlight=False, markup=False, emoji=False)
if not out.is_terminal and "COLUMNS" not in os.environ:
    out.width = 200  # a pipe has no width: no column of a table is to be cut

Output = Annotated[str, typer.Option("-o", "--output", help="The file to write; '-' is stdout.")]
Overwrite = Annotated[bool, typer.Option("-y", "--overwrite", help="Replace an existing output.")]
Device = Annotated[str, typer.Option(help="Where the prior runs: cpu, cuda, cuda:1 ..., or auto: a "
    "GPU for large models, if there is one.")]  # fmt: skip
OFFLOAD = "Keep a large model's network in main memory, block by block on the GPU."
Offload = Annotated[bool, typer.Option("--offload", help=OFFLOAD)]
Source = Annotated[str, typer.Argument(
    help="A video file, a folder of pictures, or '-' for y4m on stdin.")]  # fmt: skip
Json = Annotated[bool, typer.Option("--json", help="One JSON object on stdout.")]


class VerificationFailed(GvccError):
    """A file does not decode to what its encoder promised."""


def rates(size: int, shape: tuple[int, ...], fps: Fraction) -> dict[str, Any]:
    """Size of a file in bytes against the frames [T,H,W,...] it holds."""
    t, h, w = shape[:3]
    kbps = 8 * size * float(fps) / t / 1000
    return {"bytes": size, "bits_per_pixel": 8 * size / (t * h * w), "kbps": kbps}


RATE = (
    "Frames a second: at which images and streams without time stamps are played, to which others "
    "are resampled; 24, 23.976, 30000/1001."
)
Rate = Annotated[str | None, typer.Option("--fps", help=RATE)]


def say(message: str) -> None:
    err.print(message, soft_wrap=True)


def tell(notices: Iterable[Notice], name: str = "") -> None:
    """A line for everything there is to say of a source; `name` if there is more than one."""
    for notice in notices:
        say(f"{'warning' if notice.kind == 'broken' else 'note'}: {name and f'{name}: '}"
            f"{notice.text}")  # fmt: skip


@contextmanager
def progress_bar(verb: str, lines: float = 0) -> Iterator[Callable[[str, int, int], None]]:
    """A bar on stderr that takes (what is under way, done, total).

    If stderr is no terminal: nothing, or a line with an ETA every `lines` seconds.
    """
    from rich.progress import BarColumn, Progress, TextColumn, TimeRemainingColumn

    columns = (TextColumn("{task.description}"), BarColumn(), TextColumn("{task.fields[state]}"))
    eta = (TextColumn("eta"), TimeRemainingColumn())
    hidden = not err.is_terminal
    with Progress(*columns, *eta, console=err, transient=True, disable=hidden) as bar:
        task = bar.add_task(verb, total=None, state="")
        stage, first, begin, told = "", 0, 0.0, 0.0

        def update(state: str, done: int, total: int) -> None:
            nonlocal stage, first, begin, told
            shown = f"{state} {done}/{total}" if lines else state
            bar.update(task, state=shown, completed=done, total=total)
            now = time.monotonic()
            if not (hidden and lines):
                return
            if state != stage:
                stage, first, begin, told = state, done, now, now
            elif now - told >= lines or done == total:
                told, left = now, (now - begin) * (total - done) / max(1, done - first)
                say(f"{verb}: {state} {done}/{total}, eta {left / 60:.1f} min")

        yield update


@contextmanager
def codec_bar(verb: str) -> Iterator[Progress]:
    """Progress of the codec: GOP, step, bytes, ETA; a line per GOP if stderr is no terminal."""
    told, worst = -1, 0.0
    with progress_bar(verb) as update:

        def show(event: Event) -> None:
            nonlocal told, worst
            state = f"gop {event.gop + 1}/{event.gops}, step {event.step}/{event.steps}, " \
                    f"{event.bytes / 1000:.1f} kB"  # fmt: skip
            if event.stage == "measure":
                state = f"first look, gop {event.gop + 1}/{event.gops}"
            update(state, event.gop * event.steps + event.step, event.gops * event.steps)
            if event.stage == "measure":
                return
            worst = max(worst, event.drift or 0.0)
            if not err.is_terminal and event.step == event.steps and event.gop > told:
                told = event.gop
                say(f"{verb}: {state}")

        yield show
    if worst > 0:
        say(f"note: this machine's latents differ from the encoder's by about {worst:.3f} RMS "
             "(1 = the latents' own scale)")  # fmt: skip


def check_output(output: str, source: str | None, overwrite: bool, folder: bool = False) -> None:
    """Refuse, before any work is done, to write where nothing can be written, over the input, or
    over anything that exists unless told to. Nothing is replaced where there is no regular file.

    `folder`: the output is a folder; an empty one may exist.
    """
    if not output:
        raise ConfigError("the output's name is empty")
    target = files.check(output)
    if target.straight or not target.path.exists():
        return
    if source not in (None, "-") and Path(source).exists() and target.path.samefile(source):
        raise ConfigError(f"{output} is the input; choose another output")
    if source not in (None, "-") and Path(source).is_dir():
        inside = (p for p in Path(source).iterdir() if p.is_file())
        if any(target.path.samefile(p) for p in inside):
            raise ConfigError(f"{output} is in the input's folder; choose another output")
    if target.path.is_dir() != folder:
        raise ConfigError(f"{output} exists and is {'not ' if folder else ''}a folder")
    if folder:
        from gvcc.pictures import media_out

        if media_out.holds_others(target.path):
            raise ConfigError(f"{output} holds other files than numbered frames; choose another")
    if not overwrite and not (folder and not any(target.path.iterdir())):
        raise ConfigError(f"{output} exists; -y replaces it")


@contextmanager
def growing(output: str, resume: bool, overwrite: bool) -> Iterator[files.Growing]:
    """An output that grows (files.Growing); if the work breaks off, it is said what is left."""
    with files.Growing(output, resume, overwrite) as file:
        try:
            yield file
        except BaseException:
            if file.worth and file.part is not None:
                say(f"{file.part} holds what was done; --resume goes on with it")
            raise


class Following:
    """A .part file that is still being written: `read` waits for what is not there yet, until the
    file has got its final name. It says so when the wait gets long."""

    def __init__(self, name: str) -> None:
        self._name, self._file, self._told = name, open_stream(name), False

    def read(self, count: int) -> bytes:
        begin = time.monotonic()
        while not (data := self._file.read(count)):
            if time.monotonic() - begin > 10 and not self._told:
                say(f"waiting for whoever writes {self._name}; Ctrl-C if nobody does")
                self._told = True
            if not os.path.exists(self._name) or not self._name.endswith(".part"):
                return self._file.read(count)
            time.sleep(0.1)
        return data

    def seekable(self) -> bool:
        return False


def open_stream(name: str) -> BinaryIO:
    """A coded file to read, or stdin for '-'; GvccError with the reason if it cannot be opened."""
    if name == "-":
        return sys.stdin.buffer
    try:
        return open(name, "rb")
    except OSError as e:
        raise GvccError(f"{name}: cannot read: {e.strerror}") from None


@contextmanager
def told_of(name: str) -> Iterator[None]:
    """Let what is wrong with a coded file's bytes name the file."""
    try:
        yield
    except FormatError as e:
        e.args = (f"{'stdin' if name == '-' else name}: {e}",)
        raise


def read_bytes(name: str) -> bytes:
    """A whole file, or stdin for '-'; GvccError with the reason if it cannot be read."""
    if name == "-":
        return sys.stdin.buffer.read()
    try:
        return Path(name).read_bytes()
    except OSError as e:
        raise GvccError(f"{name}: cannot read: {e.strerror}") from None
