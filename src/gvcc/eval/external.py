"""Codecs that the user has as commands (DCVC-RT, GLC, CompressAI ...), and raw video files.

An adapter is a table of a TOML file:

    [dcvc-rt]
    encode = "python enc.py --src {source} --w {width} --h {height} --q {quality} -o {coded}"
    decode = "python dec.py -i {coded} -o {decoded}"
    qualities = [0, 21, 42, 63]
    pixels = "yuv420p"      # of {source} and {decoded}: raw frames in ffmpeg's pixel format
    home = "MY_CHECKOUT"    # optional: {home} is what this environment variable holds
    about = "what is to be there"
    counted = true          # optional: {coded} is text, the number of bits, and no stream

{frames}, {fps} and {python} (this one) may be used too. The size is that of {coded}, a file or a
folder. Of all qualities the one whose size is nearest to the target is taken. The files in
`adapters` are ready for codecs of others; `ready` lists them.
"""

from __future__ import annotations

import dataclasses
import math
import os
import re
import shlex
import subprocess
import sys
import tempfile
import time
import tomllib
from dataclasses import dataclass
from fractions import Fraction
from importlib import resources
from pathlib import Path
from typing import Any

import numpy as np

from gvcc.errors import ConfigError, MediaError
from gvcc.eval import baselines, checkout
from gvcc.eval.baselines import BASELINES, FLAGS, Encoded, ffmpeg
from gvcc.records import Pictures, Video

_RGB = "rgb24"  # taken as it is: full range, no matrix
_LONGEST = 24 * 3600  # seconds of one command
Raw = tuple[int, int, str, str]


@dataclass(frozen=True)
class Adapter:
    """Commands of a codec, see above."""

    encode: str
    decode: str
    qualities: tuple[float, ...]
    pixels: str = "yuv420p"
    home: str = ""
    about: str = ""
    counted: bool = False

    @property
    def at(self) -> str:
        """Where the codec's files are, "" if that is not said."""
        return os.environ.get(self.home, "") if self.home else ""

    @property
    def there(self) -> bool:
        """Whether that is a folder."""
        return bool(self.at) and Path(self.at).is_dir()

    def __post_init__(self) -> None:
        """ValueError for what cannot be run."""
        if not self.qualities or not all(isinstance(q, int | float) for q in self.qualities):
            raise ValueError("qualities: expected a list of numbers")
        if not all(isinstance(t, str) for t in (self.encode, self.decode, self.pixels)):
            raise ValueError("encode, decode and pixels: expected text")
        if not all(isinstance(t, str) for t in (self.home, self.about)):
            raise ValueError("home and about: expected text")
        if not isinstance(self.counted, bool):
            raise ValueError("counted: expected true or false")
        given = dict.fromkeys(("frames", "height", "width", "fps"), 1)
        paths = dict.fromkeys(("source", "coded", "decoded", "home", "python"), Path("a"))
        for command in (self.encode, self.decode):
            if not arguments(command, quality=self.qualities[0], **given, **paths):
                raise ValueError("a command is empty")


def arguments(command: str, **fields: Any) -> list[str]:
    """The words of a command; what fills a field stays one word. ValueError for an unknown one."""
    try:
        return [word.format(**fields) for word in shlex.split(command)]
    except (KeyError, IndexError, AttributeError) as e:
        raise ValueError(f"{command!r}: fields are {', '.join(fields)}, not {e}") from None


def ready() -> dict[str, Adapter]:
    """The adapters that come with gvcc, by name."""
    files = resources.files("gvcc.eval") / "adapters"
    texts = {f.name: f.read_text("utf-8") for f in files.iterdir() if f.name.endswith(".toml")}
    return {n: _adapter(n, t) for f in sorted(texts) for n, t in tomllib.loads(texts[f]).items()}


def known(path: str | None) -> dict[str, Adapter]:
    """The ready adapters and those in a TOML file, which count more."""
    return ready() | (load(path) if path else {})


def find(name: str, path: str | None) -> Adapter:
    """An adapter that can be run; ConfigError where its checkout is not there."""
    adapter = known(path)[name]
    if adapter.home and not adapter.there:
        where = f"is {adapter.at!r}, no folder" if adapter.at else "is not set"
        raise ConfigError(f"{name}: ${adapter.home} {where}; it names {adapter.about}")
    return adapter


def load(path: str) -> dict[str, Adapter]:
    """The adapters in a TOML file; ConfigError if it is none."""
    try:
        tables = tomllib.loads(Path(path).read_text())
        return {name: _adapter(name, fields) for name, fields in tables.items()}
    except OSError as e:
        raise ConfigError(f"adapters {path}: {e.strerror}") from None
    except ValueError as e:
        raise ConfigError(f"adapters {path}: {e}") from None


def _adapter(name: str, table: Any) -> Adapter:
    """ValueError for what is none."""
    fields = [f.name for f in dataclasses.fields(Adapter)]
    if re.split("[:@+]", name)[0] in (*BASELINES, "gvcc"):
        raise ValueError(f"[{name}] is the name of another codec")
    if not isinstance(table, dict):
        raise ValueError(f"{name} is no table")
    for field in table:
        if field not in fields:
            raise ValueError(f"[{name}] has {field!r}; known are {', '.join(fields)}")
    for field in fields[:3]:
        if field not in table:
            raise ValueError(f"[{name}] lacks {field!r}")
    if not isinstance(table["qualities"], list):
        raise ValueError(f"[{name}] qualities: expected a list of numbers")
    return Adapter(**table | {"qualities": tuple(table["qualities"])})


class Coded:
    """One clip by one adapter; callable as cells.Coder."""

    def __init__(self, adapter: Adapter, video: Video) -> None:
        self.adapter, self.video = adapter, video
        self._work = tempfile.TemporaryDirectory()
        self.sizes: dict[int, int] = {}
        self.seconds: dict[int, float] = {}
        t, h, w, _ = video.frames.shape
        self._about = {"frames": t, "height": h, "width": w, "fps": float(video.fps),
                       "source": self._path("source.yuv"), "decoded": self._path("decoded.yuv"),
                       "home": adapter.at, "python": sys.executable}  # fmt: skip

    def _path(self, name: str) -> Path:
        return Path(self._work.name) / name

    def _run(self, command: str, **more: Any) -> None:
        words = arguments(command, **self._about, **more)
        try:
            run = subprocess.run(words, capture_output=True, timeout=_LONGEST)
        except OSError as e:
            raise MediaError(f"{words[0]}: {e.strerror}") from None
        except subprocess.TimeoutExpired:
            raise MediaError(f"{words[0]} took more than {_LONGEST} s") from None
        if run.returncode:
            said = run.stderr.decode(errors="replace").strip().splitlines() or ["it said nothing"]
            raise MediaError(f"{words[0]} ended with {run.returncode}: {said[-1]}")

    def __call__(self, rate: float) -> Encoded:
        """The clip at so many bits per pixel. The stream of a codec that writes a folder, or that
        decodes only while it encodes, is not kept."""
        if not self.sizes:
            self._prepare()
        target = rate * math.prod(self.video.frames.shape[:3]) / 8
        best = baselines.nearest(self.sizes, target)
        rule = ("bits as the codec's own code counts them, in bytes; it writes no stream"
                if self.adapter.counted else "bytes of the coded files")  # fmt: skip
        about = {"quality": self.adapter.qualities[best], "size_rule": rule}
        coded = self._path(f"coded{best}")
        alone = coded.is_file() and not coded.with_name(coded.name + checkout.KEPT).exists()
        stream = coded.read_bytes() if alone and not self.adapter.counted else b""
        return Encoded(
            self.sizes[best], about, lambda: self._decoded(best), self.seconds[best], stream
        )

    def decoded(self, stream: bytes, quality: float | None = None) -> Pictures:
        """The pictures in a file that this adapter has made at a quality."""
        at = self.adapter.qualities.index(quality) if quality in self.adapter.qualities else 0
        self._path(f"coded{at}").write_bytes(stream)
        return self._decoded(at)

    def _prepare(self) -> None:
        to_yuv = f"-vf scale=in_range=full:out_range=limited:out_color_matrix=bt709:{FLAGS}"
        raw = self.video.frames.tobytes()
        if self.adapter.pixels != _RGB:
            raw = ffmpeg(
                f"{baselines.RAW_RGB} {to_yuv},format={self.adapter.pixels} -f rawvideo -", raw,
                **baselines.fields(self.video.frames, self.video.fps),
            )  # fmt: skip
        self._path("source.yuv").write_bytes(raw)
        sizes = {}
        for i, q in enumerate(self.adapter.qualities):
            coded = self._path(f"coded{i}")
            begin = time.monotonic()
            self._run(self.adapter.encode, quality=q, coded=coded)
            self.seconds[i] = time.monotonic() - begin
            if self.adapter.counted:
                sizes[i] = self._counted(coded)
                continue
            files = [coded] if coded.is_file() else [p for p in coded.rglob("*") if p.is_file()]
            size = sum(p.stat().st_size for p in files)
            if not size:
                raise MediaError(f"the encoder left nothing at {coded.name}")
            sizes[i] = size
        self.sizes = sizes  # only whole: the next rate tries again what failed

    def _counted(self, coded: Path) -> int:
        """Bytes of the bits that stand in the file."""
        try:
            bits = int(coded.read_text())
        except (OSError, ValueError):
            raise MediaError(f"the encoder left no number of bits at {coded.name}") from None
        return max(1, (bits + 7) // 8)

    def _decoded(self, index: int) -> Pictures:
        self._path("decoded.yuv").unlink(missing_ok=True)
        self._run(self.adapter.decode, coded=self._path(f"coded{index}"),
                  quality=self.adapter.qualities[index])  # fmt: skip
        t, h, w, _ = self.video.frames.shape
        raw, path = (w, h, self.adapter.pixels, str(self.video.fps)), self._path("decoded.yuv")
        if not path.is_file():
            raise MediaError("the decoder left nothing at {decoded}")
        frames = read_raw(path, raw, None).frames
        if len(frames) != t:
            raise MediaError(f"{path.name} has {len(frames)} frames, {t} are needed")
        return frames


def read_raw(path: Path, raw: Raw, frames: int | None) -> Video:
    """Frames of a file of raw YUV (limited range, BT.709) or rgb24, as RGB; MediaError if it has
    too few."""
    width, height, pixels, fps = raw
    count = "" if frames is None else f"-frames:v {frames}"
    try:
        data = path.read_bytes() if frames is None else _head(path, width, height, frames)
    except OSError as e:
        raise MediaError(f"{path}: {e.strerror}") from None
    out = data if pixels == _RGB and frames is None else ffmpeg(
        f"-f rawvideo -pix_fmt {pixels} -video_size {width}x{height} -framerate {fps} -i - "
        f"{count} -fps_mode passthrough {baselines.TO_RGB} -f rawvideo -", data,
    )  # fmt: skip
    each = width * height * 3
    if len(out) % each or (frames is not None and len(out) != frames * each):
        raise MediaError(f"{path} has {len(out) / each:g} frames, {frames} are needed")
    return Video(np.frombuffer(out, np.uint8).reshape(-1, height, width, 3), Fraction(fps))


def _head(path: Path, width: int, height: int, frames: int) -> bytes:
    """Enough of a file for so many frames, whatever its pixel format: at most 6 bytes a pixel."""
    with path.open("rb") as f:
        return f.read(frames * width * height * 6)
