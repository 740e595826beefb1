"""The codecs that people would use instead, through the ffmpeg of imageio-ffmpeg.

Slow presets, tuned for PSNR, 10 bit, one closed GOP with its only keyframe first. A file of a given
size is the one whose size is nearest in ratio, of those that a search over the quality settings
comes by (encoders are not quite monotone).

A name is CODEC[:PRESET][@half|@quarter][+unsharp]: at another preset of the encoder, coded at a
part of the size (Lanczos down and up again, as users do where a codec cannot go low enough), and
sharpened after decoding: the control for metrics that sharpening fools.
"""

from __future__ import annotations

import math
import re
import subprocess
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace
from fractions import Fraction
from functools import lru_cache
from pathlib import Path
from typing import Any

import numpy as np

from gvcc.errors import ConfigError, MediaError
from gvcc.records import Pictures

NEAR = 0.06  # a size this near, in ratio, needs no further encode: half a step of CRF or QP
MOST = 12  # encodes of one clip at one rate

# With swscale's default flags the conversion alone ends at 39 dB in place of 50.
FLAGS = "flags=lanczos+accurate_rnd+full_chroma_int+full_chroma_inp"
RAW_RGB = "-f rawvideo -pix_fmt rgb24 -video_size {width}x{height} -framerate {fps} -i -"
FORMAT = "yuv420p10le"
# Most encoders refuse odd sizes: the last column and row are doubled, and cut off again.
EVEN = "pad=ceil(iw/2)*2:ceil(ih/2)*2,fillborders=right={odd_width}:bottom={odd_height}:mode=smear"
_INTO = f"in_range=full:out_range=limited:out_color_matrix=bt709:{FLAGS},format={FORMAT}"
_OUT_OF = f"in_range=limited:out_range=full:in_color_matrix=bt709:{FLAGS},format=rgb24"
TO_YUV = f"-vf {EVEN},scale={_INTO}"
TO_RGB = f"-vf scale={_OUT_OF}"
# passthrough: the clocks that ffmpeg makes up for a raw stream must not drop or double frames.
DECODE = "-f {form} -i - -fps_mode passthrough -vf {filters} -f rawvideo -"
SIZES = {"half": 2, "quarter": 4}
# Of luma alone, by ffmpeg's filter of 5x5 pixels. On SVT-AV1 it raises VMAF, and neither NEG nor
# PSNR (tests/test_baselines.py).
UNSHARP = "unsharp=5:5:0.3:5:5:0"
CONVERTED = f"-f rawvideo -pix_fmt {FORMAT} -video_size {{width}}x{{height}} -i -"
SIZE_RULE = (
    "bytes of the elementary stream (H.264, HEVC and VVC Annex B with start codes, AV1 "
    "low-overhead OBUs with temporal delimiters, VP9 frames without the IVF container), parameter "
    "sets included; no container. SEI text and access unit delimiters are off. The conversion to "
    "4:2:0 BT.709 limited range and back belongs to the codec's loss."
)


@dataclass(frozen=True)
class Baseline:
    """An encoder of ffmpeg; its quality is `unit` times an integer index, larger for fewer bits.

    `container` is what ffmpeg's stream has besides the codec's own bytes: (in all, per frame).
    Pictures are coded at 1/`shrink` of each side, and sharpened after decoding if `sharpen`.
    """

    form: str  # ffmpeg's name of the elementary stream
    options: str
    preset: str
    presets: tuple[str, ...]  # from slow to fast
    best: int
    worst: int
    start: int  # about right for a low rate
    slope: float  # log2 of the size per index, roughly
    unit: float = 1
    container: tuple[int, int] = (0, 0)
    shrink: int = 1
    sharpen: bool = False

    @property
    def command(self) -> str:
        options = self.options.replace("{preset}", self.preset)
        n = 2 * self.shrink
        to_yuv = TO_YUV if n == 2 else f"-vf scale=2*ceil(iw/{n}):2*ceil(ih/{n}):{_INTO}"
        return f"{RAW_RGB} {to_yuv} {options} -f {self.form} -"

    def shown(self, width: int, height: int) -> str:
        """The filters that make pictures of so many pixels of what is decoded."""
        sharpen = f"{UNSHARP}," * self.sharpen
        if self.shrink > 1:
            return f"{sharpen}scale={width}:{height}:{_OUT_OF}"
        return f"{sharpen}scale={_OUT_OF},crop={width}:{height}:0:0:exact=1"

    def size(self, stream: bytes, frames: int) -> int:
        """Bytes that count, see SIZE_RULE."""
        return len(stream) - self.container[0] - frames * self.container[1]


_X26 = ("placebo", "veryslow", "slower", "slow", "medium", "fast", "faster", "veryfast",
        "superfast", "ultrafast")  # fmt: skip


def _digits(last: int) -> tuple[str, ...]:
    return tuple(map(str, range(last + 1)))


_NAME = re.compile(
    r"(?P<codec>[a-z0-9-]+)(:(?P<preset>\w+))?(@(?P<size>half|quarter))?(?P<unsharp>\+unsharp)?"
)
BASELINES = {
    # The encoder writes its settings into the stream, 700 bytes of SEI: taken out.
    "x264": Baseline(
        "h264",
        "-c:v libx264 -preset {preset} -tune psnr -crf {quality} -g 1024 -threads 1"
        " -x264-params scenecut=0:open-gop=0 -bsf:v filter_units=remove_types=6",
        "veryslow", _X26, *(1, 51, 38, 0.17),
    ),
    # Above CRF 48 the QP of every frame ends at 51: worse pictures, hardly smaller files.
    "x265": Baseline(
        "hevc",
        "-c:v libx265 -preset {preset} -tune psnr -crf {quality} -g 1024 -threads 1"
        " -x265-params info=0:scenecut=0:open-gop=0:pools=2",
        "veryslow", _X26, *(1, 48, 40, 0.16),
    ),
    # The encoder takes CRF up to 70 in quarters; ffmpeg's own -crf whole numbers up to 63.
    "svt-av1": Baseline(
        "obu",
        "-c:v libsvtav1 -preset {preset} -g 1024 -svtav1-params crf={quality}:tune=1:lp=2",
        "2", _digits(13), *(4, 280, 244, 0.05, 0.25),
    ),
    # -g does nothing here. Without poc0idr the keyframe is frame 31 and the rest leads to it;
    # without qpa=0 the QP follows the eye instead of PSNR. At QP 1 the encoder ends with an error.
    "vvc": Baseline(
        "vvc",
        "-c:v libvvenc -preset {preset} -qp {quality} -qpa 0 -period 1000 -threads 2"
        " -vvenc-params accessunitdelimiter=0:poc0idr=1",
        "slow", ("slower", "slow", "medium", "fast", "faster"), *(2, 63, 42, 0.2),
    ),
    "vp9": Baseline(
        "ivf",
        "-c:v libvpx-vp9 -b:v 0 -crf {quality} -deadline good -cpu-used {preset} -g 1024"
        " -auto-alt-ref 1 -lag-in-frames 25 -row-mt 0 -threads 2",
        "0", _digits(8), *(1, 63, 50, 0.09),
        container=(32, 12),
    ),
}  # fmt: skip


def find(name: str) -> Baseline | None:
    """The encoder that a name (see above) stands for; None if it is none of them, ConfigError for a
    preset that the encoder does not have."""
    parts = _NAME.fullmatch(name)
    if parts is None or parts["codec"] not in BASELINES:
        return None
    codec = BASELINES[parts["codec"]]
    preset = parts["preset"] or codec.preset
    if preset not in codec.presets:
        raise ConfigError(f"{name!r}: presets of {parts['codec']} are {', '.join(codec.presets)}")
    return replace(codec, preset=preset, shrink=SIZES.get(parts["size"], 1),
                   sharpen=parts["unsharp"] is not None)  # fmt: skip


def families() -> Iterator[str]:
    """Names to suggest."""
    for name in BASELINES:
        yield name
        yield from (f"{name}@{size}" for size in SIZES)
        yield f"{name}+unsharp"


def executable() -> str:
    """The path of ffmpeg; ConfigError if there is none."""
    try:
        import imageio_ffmpeg
    except ImportError:
        raise ConfigError("ffmpeg is missing: pip install 'gvcc[eval]'") from None
    found: str = imageio_ffmpeg.get_ffmpeg_exe()
    return found


def build() -> str:
    """What ffmpeg says of itself: its version, configuration and libraries, and its size (it does
    not name the versions of the encoders in it); empty if there is none."""
    try:
        path = executable()
    except (ConfigError, RuntimeError):  # imageio-ffmpeg without a binary raises the latter
        return ""
    stat = Path(path).stat()
    return _build(path, stat.st_size, stat.st_mtime_ns)


@lru_cache
def _build(path: str, size: int, _: int) -> str:
    said = subprocess.run([path, "-version"], capture_output=True).stdout
    return f"{said.decode(errors='replace')} {size} bytes"


def ffmpeg(command: str, data: bytes, **fields: Any) -> bytes:
    """What ffmpeg makes of `data`; MediaError, with the end of what it said, if it fails."""
    # Louder than "error", VVenC would log into the stream.
    arguments = ["-v", "error", "-nostdin", *command.format(**fields).split()]
    run = subprocess.run([executable(), *arguments], input=data, capture_output=True)
    if run.returncode or not run.stdout:
        said = run.stderr.decode(errors="replace").strip().splitlines() or ["nothing"]
        raise MediaError(f"ffmpeg {' '.join(arguments)}: {said[-1]}")
    return run.stdout


def fields(frames: Pictures, fps: Fraction) -> dict[str, Any]:
    """What the commands ask for of a clip."""
    h, w = frames.shape[1:3]
    return {"width": w, "height": h, "fps": fps, "odd_width": w % 2, "odd_height": h % 2}


def guess(codec: Baseline, sizes: dict[int, int], target: float) -> int:
    """The next index to try for `target` bytes; one of `sizes` if there is none better.

    Bisection, but where a straight line through the logarithms of the bracket's ends says.
    """
    if not sizes:
        return codec.start
    near = nearest(sizes, target)
    if abs(math.log(sizes[near] / target)) < NEAR:
        return near
    large = max((q for q, size in sizes.items() if size > target), default=None)
    small = min((q for q, size in sizes.items() if size <= target), default=None)
    if large is None or small is None:
        # From the end of what is known, not from `near`: of equal sizes that is any.
        end, slope, least = (max if small is None else min)(sizes), codec.slope, 1
        if len(sizes) > 1:
            a, b = sorted(sorted(sizes, key=lambda q: abs(q - end))[:2])
            slope = max(math.log2(sizes[a] / sizes[b]) / (b - a), slope / 4)
            least = 2 * (b - a) if sizes[a] <= sizes[b] else 1  # over a plateau ever faster
        step = max(least, round(abs(math.log2(sizes[end] / target)) / slope))
        return min(max(end + (step if small is None else -step), codec.best), codec.worst)
    if small - large < 2:
        return near
    part = math.log(sizes[large] / target) / math.log(sizes[large] / sizes[small])
    if len(sizes) % 3 == 2:  # a cliff would make the line's steps ever shorter
        part = 0.5
    return min(max(large + round(part * (small - large)), large + 1), small - 1)


def nearest(sizes: dict[int, int], target: float) -> int:
    """The index whose size is nearest in ratio."""
    return min(sizes, key=lambda q: abs(math.log(sizes[q] / target)))


@dataclass(frozen=True)
class Encoded:
    """A clip as one codec has coded it at one rate. `size` in bytes counts; `stream` is the file
    (empty where there is none to keep) and `suffix` what its name ends with; `seconds` is the time
    of this encode alone, without a search for its quality."""

    size: int
    about: dict[str, Any]
    decode: Callable[[], Pictures]
    seconds: float
    stream: bytes = b""
    suffix: str = ".bin"


class Coded:
    """One clip [T,H,W,3] at any size by one baseline; encodes are kept for the next rate."""

    def __init__(self, codec: Baseline, frames: Pictures, fps: Fraction) -> None:
        self.codec, self.frames, self.fps = codec, frames, fps
        self.streams: dict[int, bytes] = {}
        self.sizes: dict[int, int] = {}
        self.seconds: dict[int, float] = {}

    def at(
        self, target: float, tell: Callable[[int, int], None] = lambda *_: None
    ) -> tuple[int, bytes]:
        """Index and stream of the size nearest to `target` bytes; `tell(index, size)` after each
        encode. The sizes may all be far off, where a codec cannot go lower or higher.

        What other rates have encoded is not encoded again, and makes no difference else: a clip
        at a rate is the same file whatever was asked for before.
        """
        seen: dict[int, int] = {}
        while len(seen) < MOST and (q := guess(self.codec, seen, target)) not in seen:
            if q not in self.sizes:
                self._encode(q)
                tell(q, self.sizes[q])
            seen[q] = self.sizes[q]
        q = nearest(seen, target)
        return q, self.streams[q]

    def _encode(self, q: int) -> None:
        given = fields(self.frames, self.fps) | {"quality": self.codec.unit * q}
        begin = time.monotonic()
        self.streams[q] = ffmpeg(self.codec.command, self.frames.tobytes(), **given)
        self.seconds[q] = time.monotonic() - begin
        self.sizes[q] = max(1, self.codec.size(self.streams[q], len(self.frames)))

    def __call__(self, rate: float) -> Encoded:
        """The clip at so many bits per pixel."""
        q, stream = self.at(rate * math.prod(self.frames.shape[:3]) / 8)
        about = {"quality": self.codec.unit * q, "size_rule": SIZE_RULE}
        return Encoded(self.sizes[q], about, lambda: self.decoded(stream), self.seconds[q], stream,
                       f".{self.codec.form}")  # fmt: skip

    def decoded(self, stream: bytes, quality: float | None = None) -> Pictures:
        """The pictures in a stream; MediaError if they are not as many as went in. (`quality` is
        for decoders that must be told.)"""
        _, h, w, _ = self.frames.shape
        raw = ffmpeg(DECODE, stream, form=self.codec.form, filters=self.codec.shown(w, h))
        if len(raw) != self.frames.size:
            each = self.frames[0].size
            raise MediaError(f"{len(raw) / each:g} frames came out, {len(self.frames)} went in")
        return np.frombuffer(raw, np.uint8).reshape(self.frames.shape)
