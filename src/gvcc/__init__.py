"""gvcc: a video codec whose decoder is a generative model.

    data = gvcc.encode("clip.mp4", gvcc.EncodeConfig(bpp=0.05))
    video = gvcc.decode(data)

Importing the package is cheap: torch and PyAV load on first use.
"""

from __future__ import annotations

import os
import sys
import types
import warnings
from typing import TYPE_CHECKING, Any

from gvcc.errors import (
    ConfigError,
    Corrupt,
    FormatError,
    GvccError,
    MediaError,
    PriorMismatch,
    SourceWarning,
    TargetUnreachable,
    TooLarge,
    Truncated,
    Unsupported,
)

if TYPE_CHECKING:
    from collections.abc import Callable

    from gvcc.decode.session import Event
    from gvcc.format.bitstream import Header, Limits, Stream
    from gvcc.pictures.media import Video
    from gvcc.records import Clip
    from gvcc.search.config import EncodeConfig

# Before torch computes anything: without it MKL splits some products by the number of threads, with
# other roundings, and a decoder with more threads than the encoder would show other pictures.
# (Without STRICT three threads still differ from two where there is AVX-512.)
os.environ.setdefault("MKL_CBWR", "AUTO,STRICT")
# Before torch loads: OpenMP threads that spin while they wait make it about 20 times slower on
# cores shared with other work; sleeping ones cost next to nothing on an idle machine.
os.environ.setdefault("OMP_WAIT_POLICY", "PASSIVE")

__version__ = "0.1.0"
__all__ = [
    "ConfigError", "Corrupt", "EncodeConfig", "Event", "FormatError", "GvccError", "Header",
    "Limits", "MediaError", "PriorMismatch", "SourceWarning", "Stream", "TargetUnreachable",
    "TooLarge", "Truncated", "Unsupported", "Video", "decode", "encode", "inspect",
]  # fmt: skip
_LAZY = {
    "EncodeConfig": "gvcc.search.config",
    "Event": "gvcc.decode.session",
    "Header": "gvcc.format.bitstream",
    "Limits": "gvcc.format.bitstream",
    "Stream": "gvcc.format.bitstream",
    "Video": "gvcc.pictures.media",
}


class _Package(types.ModuleType):
    def __setattr__(self, name: str, value: object) -> None:
        # gvcc.decode stays the function: importing a module of decode/ would put that folder there.
        if not (name == "decode" and isinstance(value, types.ModuleType)):
            super().__setattr__(name, value)


sys.modules[__name__].__class__ = _Package


def __getattr__(name: str) -> Any:
    if name not in _LAZY:
        raise AttributeError(f"module 'gvcc' has no attribute {name!r}")
    import importlib

    return getattr(importlib.import_module(_LAZY[name]), name)


def encode(
    video: Video | str | os.PathLike[str],
    config: EncodeConfig | None = None,
    progress: Callable[[Event], None] | None = None,
) -> bytes:
    """Encode a clip, given as a `Video` or as the path of a video file, to a self-contained file.

    `progress` receives an `Event` after every network call. Raises MediaError if the file cannot
    be read, ConfigError for settings out of range, TargetUnreachable for a target too small. Warns
    (SourceWarning) of what a file has lost, or holds and is not carried.
    """
    from gvcc import codec
    from gvcc.pictures import media
    from gvcc.search.config import EncodeConfig

    if isinstance(video, str | os.PathLike):
        clip: Clip = media.open_clip(video)
        for notice in clip.notices:
            if notice.kind != "note":
                warnings.warn(f"{os.fspath(video)}: {notice.text}", SourceWarning, stacklevel=2)
    elif isinstance(video, media.Video):
        clip = video
    else:
        raise ConfigError(f"a clip is a Video or a path, not {type(video).__name__}")
    if config is not None and not isinstance(config, EncodeConfig):
        raise ConfigError(f"config must be an EncodeConfig, not {type(config).__name__}")
    return b"".join(
        part.data for part in codec.encode_parts(clip, config, progress=progress, shown=False)
    )


def decode(
    data: bytes,
    *,
    prior: str | None = None,
    device: str = "cpu",
    limits: Limits | None = None,
    partial: bool = False,
    knob: float | None = None,
    progress: Callable[[Event], None] | None = None,
) -> Video:
    """Decode a file made by `encode`: frames uint8 [T,H,W,3], frame rate, colour and audio.

    With `partial`, a truncated file gives the whole GOPs before the cut. `knob` from 1 (realism)
    to 2 (fidelity) overrides the file's own, at no cost in bits. `prior` ("nano:FILE") is needed
    only for a file made with weights of one's own. `device` is "cpu", "cuda", "cuda:1" and so on,
    or "auto": a GPU for large models, if there is one. Raises FormatError for foreign or damaged
    bytes, PriorMismatch if the file needs a prior that is not here, and ConfigError for a device
    that is none or not here.
    """
    from gvcc import codec

    return codec.decode(_bytes(data), prior, device, limits, progress, partial, knob)


def inspect(data: bytes) -> Stream:
    """Header, GOP records and audio of a file, without decoding it. Raises FormatError."""
    from gvcc.format import parser

    return parser.parse(_bytes(data))


def _bytes(data: object) -> bytes:
    if not isinstance(data, bytes | bytearray | memoryview):
        raise ConfigError(f"a stream is bytes, not {type(data).__name__}")
    return bytes(data)
