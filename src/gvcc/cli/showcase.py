"""The demonstration: a clip to a file of a few kilobytes and back, in two processes."""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Callable
from contextlib import AbstractContextManager
from fractions import Fraction
from pathlib import Path
from typing import TYPE_CHECKING, NamedTuple

import numpy as np
from numpy.typing import NDArray

from gvcc import codec, files
from gvcc.cli import describe
from gvcc.errors import ConfigError, GvccError, MediaError
from gvcc.pictures import media
from gvcc.records import Pictures, Video
from gvcc.search.config import EncodeConfig

if TYPE_CHECKING:
    from rich.console import Console

_FRAMES, _HEIGHT = 33, 256
_RIVALS = ("x265", "svt-av1", "vvc")
_METRICS = ("psnr_rgb_db", "ms_ssim", "vmaf", "vmaf_neg", "temporal_error", "tof", "lpips_alex",
            "lpips_vgg", "dists")  # fmt: skip
_PLAIN = 6  # of these need no weights
_STRIDE = 4  # frames from one that the others see to the next


def _small(frames: NDArray[np.uint8]) -> NDArray[np.uint8]:
    """Scaled down to 256 lines if there are more: a demonstration should take seconds."""
    from PIL import Image

    h, w = frames.shape[1:3]
    if h <= _HEIGHT:
        return frames
    size = (max(16, round(w * _HEIGHT / h / 2) * 2), _HEIGHT)
    return np.stack(
        [np.array(Image.fromarray(f).resize(size, Image.Resampling.LANCZOS)) for f in frames]
    )


def run(
    folder: Path,
    clip: str | None,
    bpp: float,
    bar: Callable[[str], AbstractContextManager[codec.Progress]],
    console: Console,
) -> None:
    """Write source.mp4, demo.gvcc, decoded/, decoded.mp4 and side-by-side.png into `folder`, and
    what the classical codecs make of as many bytes.

    Raises GvccError if the second process fails or shows other pictures than the encoder's.
    """
    from gvcc.eval import clips, every, sidebyside
    from gvcc.metrics import perceptual

    if clip is None:
        video = Video(clips.demo_clip(_FRAMES, _HEIGHT, 384), Fraction(24))
    else:
        read = media.read(clip, frames=_FRAMES, audio=False)
        for notice in read.notices:
            console.print(f"{clip}: {notice.text}")
        video = Video(_small(read.frames), read.fps, read.colour)
    folder.mkdir(parents=True, exist_ok=True)
    media.write(video, folder / "source.mp4", overwrite=True)
    config = EncodeConfig(bpp=bpp)
    with bar("encode") as progress:
        made = codec.encode(video, config, progress=progress)
    file, pictures = folder / "demo.gvcc", folder / "decoded"
    files.write(file, made.data)
    command = [sys.executable, "-m", "gvcc", "decode", str(file), "-y", "-o", f"{pictures}/"]
    if subprocess.run(command).returncode:
        raise GvccError(f"the second process failed: {' '.join(command)}")
    back = media.read(pictures, audio=False).frames
    if not np.array_equal(back, made.frames):
        raise GvccError("the second process decoded other pictures than the encoder's own")
    media.write(Video(back, video.fps, video.colour), folder / "decoded.mp4", overwrite=True)

    t, h, w, _ = video.frames.shape
    rate = 8 * len(made.data) / (t * h * w)
    shown = [Made("gvcc", len(made.data), back), *_rivals(video, len(made.data), console)]
    names = _METRICS if perceptual.present() else _METRICS[:_PLAIN]
    found = [every.measure(video.frames, m.frames, float(video.fps), which=names, stride=_STRIDE)
             for m in shown]  # fmt: skip
    describe.show_side_by_side(
        f"{t} frames of {w}x{h}, {rate:.4f} bit/pixel, {rate * h * w * float(video.fps) / 1000:.1f}"
        " kbit/s", [m.name for m in shown], [m.size for m in shown],
        [f.values for f in found], console,
    )  # fmt: skip
    if len(names) == _PLAIN:
        console.print("note: LPIPS and DISTS too, once `gvcc eval weights` has fetched weights")
    for text in dict.fromkeys(text for f in found for text in f.not_computed.values()):
        console.print(f"note: {text}")
    # The best of them by a measure that needs no weights and follows the eye more than PSNR does.
    best = sorted(zip(shown[1:], found[1:], strict=True),
                  key=lambda pair: -(pair[1].values.get("ms_ssim") or 0))[:1]  # fmt: skip
    columns = [sidebyside.Column(f"{m.name}, {m.size} bytes", m.frames)
               for m in (shown[0], *(pair[0] for pair in best))]  # fmt: skip
    caption = f"prior {config.prior}, {w}x{h}, {t} frames, {rate:.4f} bit/pixel"
    sidebyside.sheet("original", video.frames, columns, folder / "side-by-side.png",
                     caption=caption)  # fmt: skip
    console.print("the second process decoded exactly the pictures that the encoder predicted")
    console.print(f"raw {video.frames.nbytes} bytes -> {len(made.data)} bytes; see {folder}/")


class Made(NamedTuple):
    """What a codec made of the clip: its name, bytes, and pictures."""

    name: str
    size: int
    frames: Pictures


def _rivals(video: Video, size: int, console: Console) -> list[Made]:
    """The clip by the classical codecs at their slow presets, each nearest to `size` bytes."""
    from gvcc.eval import baselines

    out = []
    for name in _RIVALS:
        try:
            coded = baselines.Coded(baselines.BASELINES[name], video.frames, video.fps)
            quality, stream = coded.at(size)
            out.append(Made(name, coded.sizes[quality], coded.decoded(stream)))
        except (ConfigError, MediaError) as e:
            console.print(f"note: {name} is left out: {e}")
    return out
