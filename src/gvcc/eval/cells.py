"""What one codec makes of one clip at some rates: the unit of work of an evaluation.

A cell is a codec, a clip and a rate. It is encoded, decoded from the file alone, and measured; what
comes of it is a dictionary ready for JSON. A cell that fails is a cell with its message.
"""

from __future__ import annotations

import dataclasses
import tempfile
import time
import traceback
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from fractions import Fraction
from io import BytesIO
from pathlib import Path
from typing import Any

import numpy as np

from gvcc import codec, priors
from gvcc.errors import ConfigError, GvccError, unknown
from gvcc.eval import baselines, every, external, identity
from gvcc.eval.baselines import BASELINES, Coded, Encoded
from gvcc.format import parser
from gvcc.pictures import media
from gvcc.priors import devices
from gvcc.records import Pictures, Video
from gvcc.search.config import PRESETS, EncodeConfig

_TEXTS = ("prior", "mode", "coder", "alignment")
_NUMBERS = ("gop", "steps", "reuse", "codebook", "overlap", "seed", "g_scale", "knob")


@dataclass(frozen=True)
class Source:
    """A clip to measure on: a file, how many frames of it (None: all), and the height to which it
    is scaled (Lanczos; None: as it is; the width becomes a multiple of 8). `raw` is (width, height,
    pixel format of ffmpeg, frames a second) of a file without a head."""

    name: str
    path: str
    frames: int | None = None
    height: int | None = None
    raw: tuple[int, int, str, str] | None = None

    def read(self) -> Video:
        """The frames, RGB."""
        if self.raw is not None:
            video = external.read_raw(Path(self.path), self.raw, self.frames)
        else:
            video = media.read(self.path, frames=self.frames, audio=False)
        if self.height is None or self.height == video.frames.shape[1]:
            return video
        from PIL import Image

        h, w = video.frames.shape[1:3]
        size = (max(1, round(w * self.height / h / 8)) * 8, self.height)
        scaled = [Image.fromarray(f).resize(size, Image.Resampling.LANCZOS) for f in video.frames]
        frames = np.stack([np.asarray(f) for f in scaled])
        return dataclasses.replace(video, frames=frames)

    @property
    def identity(self) -> str:
        """What tells whether a finished cell is of this clip."""
        stat = Path(self.path).stat()
        raw = "" if self.raw is None else "raw {} {} {} {} ".format(*self.raw)
        return f"{self.name} {stat.st_size} {stat.st_mtime_ns} {raw}{self.frames} {self.height}"


@dataclass(frozen=True)
class Job:
    """A codec on a clip, at rates in bits per pixel that are still to be measured."""

    codec: str
    source: Source
    rates: tuple[float, ...]
    metrics: tuple[str, ...]
    device: str = "cpu"
    adapters: str | None = None

    def key(self, rate: float) -> str:
        """The name of a cell's file: it changes with everything that its result depends on."""
        return identity.digest([
            self.codec, self.source.identity, rate, sorted(set(self.metrics)), _measuring(),
            self._coding(),
        ])  # fmt: skip

    def _coding(self) -> list[Any]:
        """What makes the file and the pictures."""
        if self.codec.startswith("gvcc:"):
            prior = config(self.codec).prior
            return [identity.codec(prior), identity.weights(prior)]
        if self.codec in BASELINES:
            return [BASELINES[self.codec].command, identity.code("gvcc.eval.baselines")]
        adapter = external.load(self.adapters or "")[self.codec]
        files = identity.programs(adapter.encode, adapter.decode)
        return [dataclasses.asdict(adapter), files, identity.code("gvcc.eval.external")]

    def as_dict(self) -> dict[str, Any]:
        return dataclasses.asdict(self)

    @staticmethod
    def of(fields: dict[str, Any]) -> Job:
        """The inverse of `as_dict`, also after JSON."""
        source = dict(fields["source"])
        source["raw"] = None if source["raw"] is None else tuple(source["raw"])
        return Job(**fields | {
            "source": Source(**source), "rates": tuple(fields["rates"]),
            "metrics": tuple(fields["metrics"]),
        })  # fmt: skip


def _measuring() -> list[Any]:
    """What reads the clips and makes the numbers. (Where weights of a metric were missing, the cell
    itself knows.)"""
    return [
        identity.code("gvcc.pictures.media", "gvcc.eval.every", alone=("gvcc.eval.cells",)),
        identity.libraries("torch", "numpy", "av", "pillow", "pytorch-msssim",
                           "opencv-python-headless"),
        baselines.build(),  # it measures VMAF, too
    ]  # fmt: skip


def config(text: str) -> EncodeConfig:
    """The configuration that "gvcc:PRESET+name=value+..." stands for; ConfigError if it is none."""
    preset, *options = text.removeprefix("gvcc:").split("+")
    if preset not in PRESETS:
        raise unknown("preset", preset, PRESETS)
    given: dict[str, Any] = {}
    for option in options:
        name, sign, value = option.partition("=")
        if not sign or name not in (*_TEXTS, *_NUMBERS, "M"):
            known = ", ".join((*_TEXTS, *_NUMBERS, "M"))
            raise ConfigError(f"codec {text!r}: {option!r} is none of {known}, as NAME=VALUE")
        try:
            given[{"M": "atoms"}.get(name, name)] = (
                value if name in _TEXTS else float(value) if name in ("g_scale", "knob")
                else int(value)
            )  # fmt: skip
        except ValueError:
            raise ConfigError(f"codec {text!r}: {value!r} is no number") from None
    out = EncodeConfig(preset, audio=False, **given)
    out.resolved()
    return out


def check(text: str, adapters: str | None) -> None:
    """ConfigError unless a codec's name means something."""
    if text.startswith("gvcc:"):
        asked = config(text)
        if asked.prior.partition(":")[0] not in priors.NAMES:
            raise unknown("prior", asked.prior, priors.NAMES)
    elif text not in BASELINES:
        names = external.load(adapters) if adapters else {}
        if text not in names:
            raise unknown("codec", text, ["gvcc:PRESET", *BASELINES, *names])


def command(job: Job) -> str:
    """What is run for a job, in words or as a command line."""
    if job.codec.startswith("gvcc:"):
        preset, *options = job.codec.removeprefix("gvcc:").split("+")
        given = dict(o.split("=", 1) for o in options)
        words = [
            f"-M {v}" if n == "M" else f"--{n.replace('_', '-')} {v}" for n, v in given.items()
        ]
        target = [] if "M" in given else ["--bpp RATE"]
        words += [f"--frames {job.source.frames}"] if job.source.frames else []
        return " ".join(["gvcc encode CLIP -o FILE --no-audio --preset", preset, *words, *target])
    if job.codec in BASELINES:
        return f"ffmpeg -v error {BASELINES[job.codec].command}"
    adapter = external.load(job.adapters or "")[job.codec]
    return f"{adapter.encode}; {adapter.decode}"


Tell = Callable[[str], None]


BINARY = ("stream", "video", "features")  # of Made


@dataclass(frozen=True)
class Made:
    """A finished cell and, where there are such, the coded file and what its name ends with, the
    decoded clip as an MP4 for the report, and the features of its patches (an .npz), from which a
    whole set's FID and KID are computed."""

    rate: float
    cell: dict[str, Any]
    stream: bytes = b""
    suffix: str = ""
    video: bytes = b""
    features: bytes = b""


def run(job: Job, tell: Tell = lambda _: None) -> Iterator[Made]:
    """The cells of a job, one by one; none of them raises. `tell` is called with what begins."""
    try:
        video, coder = job.source.read(), None
    except (GvccError, OSError, ValueError) as e:
        for rate in job.rates:
            yield _failed(job, rate, e)
        return
    for rate in job.rates:
        tell(f"{job.codec} {job.source.name} {rate:g}")
        try:
            coder = coder or _coder(job, video)
            yield _measured(job, rate, video, coder)
        except Exception as e:  # whatever a codec does, the other cells must go on
            yield _failed(job, rate, e)


def _failed(job: Job, rate: float, error: BaseException) -> Made:
    text = str(error).strip().splitlines()
    if not isinstance(error, GvccError):
        text = ["".join(traceback.format_exception_only(error)).strip().splitlines()[-1]]
    cell = {"codec": job.codec, "clip": job.source.name, "rate": rate, "status": "failed"}
    return Made(rate, cell | {"error": (text or [type(error).__name__])[0]})


Coder = Callable[[float], Encoded]


def _coder(job: Job, video: Video) -> Coder:
    if job.codec in BASELINES:
        return Coded(BASELINES[job.codec], video.frames, video.fps)
    if job.codec.startswith("gvcc:"):
        asked = config(job.codec)
        prior = priors.load(asked.prior, job.device)

        def gvcc(rate: float) -> Encoded:
            begin = time.monotonic()
            aim: Any = {} if asked.atoms is not None else {"bpp": rate}
            data = b"".join(
                part.data
                for part in codec.encode_parts(video, dataclasses.replace(asked, **aim), prior)
            )
            header = parser.read_header(data)[0]
            about = {"prior": header.prior, "weights": header.digest.hex()}

            def decode() -> Pictures:
                return np.stack(list(codec.Decoder(BytesIO(data), prior).pictures()))

            return Encoded(len(data), about, decode, time.monotonic() - begin, data, ".gvcc")

        return gvcc
    return external.Coded(external.load(job.adapters or "")[job.codec], video)


def _measured(job: Job, rate: float, video: Video, coder: Coder) -> Made:
    made = coder(rate)
    begin = time.monotonic()
    shown = made.decode()
    end = time.monotonic()
    t, h, w, _ = video.frames.shape
    names = [n for n in job.metrics if n not in every.SET_NAMES]
    device = devices.pick(job.device)  # the metrics' networks are at home on either
    found = every.measure(video.frames, shown, video.fps, device, names if job.metrics else None)
    features = b""
    if not job.metrics or set(job.metrics) & set(every.SET_NAMES):
        features, reason = _features(video.frames, shown, device)
        found.not_computed.update(dict.fromkeys(every.SET_NAMES, reason) if reason else {})
    cell = {
        "codec": job.codec, "clip": job.source.name, "rate": rate, "status": "ok",
        "frames": t, "height": h, "width": w, "fps": str(video.fps), "bytes": made.size,
        "bits_per_pixel": 8 * made.size / (t * h * w),
        "kbps": 8 * made.size * float(video.fps) / t / 1000,
        "encode_s": round(made.seconds, 2), "decode_s": round(end - begin, 2), **made.about,
        "metrics": found.values, "not_computed": found.not_computed,
        "profile": every.profile(video.frames, shown),
        "notices": [dataclasses.asdict(notice) for notice in video.notices],
    }  # fmt: skip
    return Made(rate, cell, made.stream, made.suffix, as_mp4(shown, video.fps), features)


def _features(ref: Pictures, out: Pictures, device: str) -> tuple[bytes, str]:
    """The features of the patches of both clips, or why there are none."""
    from gvcc.metrics.inception import Patches

    try:
        found = Patches(device)
    except ConfigError as e:
        return b"", str(e)
    found.update(ref, out)
    data = BytesIO()
    np.savez(data, *found.features)
    return data.getvalue(), ""


def as_mp4(frames: Pictures, fps: Fraction) -> bytes:
    """A clip as browsers play it."""
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "a.mp4"
        media.write(Video(frames, fps), path)
        return path.read_bytes()
