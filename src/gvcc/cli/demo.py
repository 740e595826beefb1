"""The demonstration: a clip to a file of a few kilobytes and back, in two processes."""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Callable
from contextlib import AbstractContextManager
from fractions import Fraction
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray

from gvcc import codec, files
from gvcc.cli import describe
from gvcc.errors import GvccError
from gvcc.pictures import media
from gvcc.pictures.media import Video
from gvcc.search.config import EncodeConfig

if TYPE_CHECKING:
    from rich.console import Console

_FRAMES, _HEIGHT = 33, 256


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
    """Write source.mp4, demo.gvcc, decoded/, decoded.mp4 and side-by-side.png into `folder`.

    Raises GvccError if the second process fails or shows other pictures than the encoder's.
    """
    from gvcc.eval import clips, sidebyside
    from gvcc.metrics import metrics

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
    figures = metrics.compare(video.frames, back, video.fps)
    figures |= {
        "bytes": len(made.data),
        "bits_per_pixel": 8 * len(made.data) / (t * h * w),
        "kbps": 8 * len(made.data) * float(video.fps) / t / 1000,
    }
    describe.show_metrics(figures, console)
    caption = f"{len(made.data)} bytes, {figures['bits_per_pixel']:.4f} bit/pixel, " \
              f"prior {config.prior}, {w}x{h}, {t} frames"  # fmt: skip
    sidebyside.write_png(
        video.frames, back, folder / "side-by-side.png", ("original", "decoded", "difference x4"),
        caption=caption,
    )  # fmt: skip
    console.print("the second process decoded exactly the pictures that the encoder predicted")
    console.print(f"raw {video.frames.nbytes} bytes -> {len(made.data)} bytes; see {folder}/")
