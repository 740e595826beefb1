"""What one codec makes of one clip at some rates: the unit of work of an evaluation.

A cell is a codec, a clip and a rate. It is encoded, decoded from the file alone, and measured; what
comes of it is a dictionary ready for JSON. A cell that fails is a cell with its message. One whose
file is kept is decoded and measured again without being encoded, where other metrics are asked for.
"""

from __future__ import annotations

import dataclasses
import tempfile
import time
import traceback
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from fractions import Fraction
from io import BytesIO
from pathlib import Path
from typing import Any, Protocol

import numpy as np

from gvcc import codec, priors
from gvcc.errors import ConfigError, GvccError, unknown
from gvcc.eval import baselines, every, external, identity
from gvcc.eval.baselines import Coded, Encoded
from gvcc.format import parser
from gvcc.pictures import media
from gvcc.priors import devices
from gvcc.records import Pictures, Video
from gvcc.search.config import PRESETS, EncodeConfig

_TEXTS = ("prior", "mode", "coder", "alignment", "base", "base_size", "restorer")
_BASE_ONLY = "base-only"  # what is measured: the base as the classical codec has it
_NUMBERS = ("gop", "steps", "reuse", "codebook", "overlap", "seed", "g_scale", "knob", "base_share")
_FRACTIONS = ("g_scale", "knob", "base_share")  # of these


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
        raw = "" if self.raw is None else "raw {} {} {} {} ".format(*self.raw)
        clip = identity.content(Path(self.path))
        return f"{self.name} {clip} {raw}{self.frames} {self.height}"


@dataclass(frozen=True)
class Finished:
    """A cell that was measured before, its file (`stream`), and the metrics it lacks."""

    rate: float
    cell: dict[str, Any]
    stream: bytes
    lacks: tuple[str, ...]


@dataclass(frozen=True)
class Job:
    """A codec on a clip, at rates in bits per pixel that are still to be measured. `metrics`: none
    for all. LPIPS and DISTS are measured on every `stride`-th frame. `finished` are cells of
    these rates that need not be encoded again."""

    codec: str
    source: Source
    rates: tuple[float, ...]
    metrics: tuple[str, ...]
    device: str = "cpu"
    adapters: str | None = None
    stride: int = 1
    finished: tuple[Finished, ...] = ()

    @property
    def wanted(self) -> tuple[str, ...]:
        """The metrics asked for."""
        return self.metrics or (*every.NAMES, *every.SET_NAMES)

    def key(self, rate: float) -> str:
        """The name of a cell's file: it changes with everything that the coded file and the
        pictures depend on."""
        return identity.digest([
            self.codec, self.source.identity, rate, self._reading(), self._coding(),
        ])  # fmt: skip

    def _reading(self) -> list[Any]:
        return [
            identity.code("gvcc.pictures.media", alone=("gvcc.eval.cells",)),
            identity.libraries("torch", "numpy", "av", "pillow"),
            baselines.build(),
        ]

    @property
    def measuring(self) -> str:
        """What the numbers depend on besides the file. (Where weights of a metric were missing, the
        cell itself knows.)"""
        return identity.digest([
            identity.code("gvcc.eval.every"),
            identity.libraries("pytorch-msssim", "opencv-python-headless"), self.stride,
        ])  # fmt: skip

    def _coding(self) -> list[Any]:
        """What makes the file and the pictures."""
        if self.codec.startswith("gvcc:"):
            asked = config(self.codec)
            return [identity.codec(asked.prior), *identity.weights(asked)]
        if codec := baselines.find(self.codec):
            return [codec.command, codec.shown(0, 0), identity.code("gvcc.eval.baselines")]
        adapter = external.find(self.codec, self.adapters)
        files = identity.programs(adapter.encode, adapter.decode)
        return [dataclasses.asdict(adapter), files, identity.code("gvcc.eval.external")]

    def as_dict(self) -> dict[str, Any]:
        """For JSON."""
        finished = [vars(f) | {"stream": f.stream.hex()} for f in self.finished]
        return dataclasses.asdict(self) | {"finished": finished}

    @staticmethod
    def of(fields: dict[str, Any]) -> Job:
        """The inverse of `as_dict`, also after JSON."""
        source = dict(fields["source"])
        source["raw"] = None if source["raw"] is None else tuple(source["raw"])
        finished = tuple(
            Finished(**f | {"stream": bytes.fromhex(f["stream"]), "lacks": tuple(f["lacks"])})
            for f in fields["finished"]
        )
        return Job(**fields | {
            "source": Source(**source), "rates": tuple(fields["rates"]),
            "metrics": tuple(fields["metrics"]), "finished": finished,
        })  # fmt: skip


def config(text: str) -> EncodeConfig:
    """The configuration that "gvcc:PRESET+name=value+..." stands for; ConfigError if it is none."""
    preset, *options = text.removeprefix("gvcc:").split("+")
    if preset not in PRESETS:
        raise unknown("preset", preset, PRESETS)
    given: dict[str, Any] = {}
    for option in options:
        if option == _BASE_ONLY:
            continue
        name, sign, value = option.partition("=")
        if not sign or name not in (*_TEXTS, *_NUMBERS, "M"):
            known = ", ".join((*_TEXTS, *_NUMBERS, "M"))
            raise ConfigError(f"codec {text!r}: {option!r} is none of {known}, as NAME=VALUE")
        try:
            given[{"M": "atoms"}.get(name, name)] = (
                value if name in _TEXTS else float(value) if name in _FRACTIONS
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
    elif baselines.find(text) is None:
        names = external.known(adapters)
        if text not in names:
            raise unknown("codec", text, ["gvcc:PRESET", *baselines.families(), *names])
        external.find(text, adapters)


def command(job: Job) -> str:
    """What is run for a job, in words or as a command line."""
    if job.codec.startswith("gvcc:"):
        preset, *options = job.codec.removeprefix("gvcc:").split("+")
        given = dict(o.split("=", 1) for o in options if o != _BASE_ONLY)
        words = [
            f"-M {v}" if n == "M" else f"--{n.replace('_', '-')} {v}" for n, v in given.items()
        ]
        target = [] if "M" in given else ["--bpp RATE"]
        words += [f"--frames {job.source.frames}"] if job.source.frames else []
        return " ".join(["gvcc encode CLIP -o FILE --no-audio --preset", preset, *words, *target])
    if found := baselines.find(job.codec):
        back = f"; decoded: -vf {found.shown(0, 0)}" if found.shrink > 1 or found.sharpen else ""
        return f"ffmpeg -v error {found.command}{back}".replace("scale=0:0", "scale=WIDTH:HEIGHT")
    adapter = external.find(job.codec, job.adapters)
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
    finished = {f.rate: f for f in job.finished}
    for rate in job.rates:
        tell(f"{job.codec} {job.source.name} {rate:g}")
        try:
            coder = coder or _coder(job, video)
            again = _again(job, video, coder, finished[rate]) if rate in finished else None
            yield again or _measured(job, rate, video, coder)
        except Exception as e:  # whatever a codec does, the other cells must go on
            yield _failed(job, rate, e)


def _failed(job: Job, rate: float, error: BaseException) -> Made:
    text = str(error).strip().splitlines()
    if not isinstance(error, GvccError):
        text = ["".join(traceback.format_exception_only(error)).strip().splitlines()[-1]]
    cell = {"codec": job.codec, "clip": job.source.name, "rate": rate, "status": "failed"}
    return Made(rate, cell | {"error": (text or [type(error).__name__])[0]})


class Coder(Protocol):
    """A codec on one clip."""

    def __call__(self, rate: float) -> Encoded:
        """The clip at so many bits per pixel."""

    def decoded(self, stream: bytes, quality: float | None = None) -> Pictures:
        """The pictures in a file that it has made, with the `quality` that is in its `about`."""


class _Own:
    """This codec."""

    def __init__(self, job: Job, video: Video) -> None:
        self.config, self.video = config(job.codec), video
        self.prior = priors.load(self.config.prior, job.device)
        self.base_only = _BASE_ONLY in job.codec.split("+")

    def __call__(self, rate: float) -> Encoded:
        begin = time.monotonic()
        aim: Any = {} if self.config.atoms is not None else {"bpp": rate}
        asked = dataclasses.replace(self.config, **aim)
        data = b"".join(p.data for p in codec.encode_parts(self.video, asked, self.prior))
        header = parser.read_header(data)[0]
        about = {"prior": header.prior, "weights": header.digest.hex()}
        return Encoded(len(data), about, lambda: self.decoded(data), time.monotonic() - begin,
                       data, ".gvcc")  # fmt: skip

    def decoded(self, stream: bytes, quality: float | None = None) -> Pictures:
        clip = codec.Decoder(BytesIO(stream), self.prior, base_only=self.base_only)
        return np.stack(list(clip.pictures()))


def _coder(job: Job, video: Video) -> Coder:
    if found := baselines.find(job.codec):
        return Coded(found, video.frames, video.fps)
    if job.codec.startswith("gvcc:"):
        return _Own(job, video)
    return external.Coded(external.find(job.codec, job.adapters), video)


def _measured(job: Job, rate: float, video: Video, coder: Coder) -> Made:
    """A cell from the beginning."""
    made = coder(rate)
    t, h, w, _ = video.frames.shape
    cell = {
        "codec": job.codec, "clip": job.source.name, "rate": rate, "status": "ok",
        "frames": t, "height": h, "width": w, "fps": str(video.fps), "bytes": made.size,
        "bits_per_pixel": 8 * made.size / (t * h * w),
        "kbps": 8 * made.size * float(video.fps) / t / 1000,
        "encode_s": round(made.seconds, 2), **made.about, "metrics": {}, "not_computed": {},
        "notices": [dataclasses.asdict(notice) for notice in video.notices],
    }  # fmt: skip
    out = _numbers(job, cell, video, made.decode, job.wanted)
    return dataclasses.replace(out, stream=made.stream, suffix=made.suffix)


def _again(job: Job, video: Video, coder: Coder, known: Finished) -> Made | None:
    """A finished cell with the metrics it lacks; None if its file does not decode any more."""

    def decode() -> Pictures:
        return coder.decoded(known.stream, known.cell.get("quality"))

    try:
        return _numbers(job, known.cell, video, decode, known.lacks)
    except (GvccError, OSError):
        return None


def _numbers(
    job: Job,
    cell: dict[str, Any],
    video: Video,
    decode: Callable[[], Pictures],
    names: Sequence[str],
) -> Made:
    """A cell with the metrics `names` besides those it has."""
    begin = time.monotonic()
    shown = decode()
    seconds = time.monotonic() - begin
    pair = [n for n in names if n not in every.SET_NAMES]
    device = devices.pick(job.device)  # the metrics' networks are at home on either
    found = every.measure(video.frames, shown, video.fps, device, pair, job.stride)
    features = b""
    if len(pair) < len(names):
        features, reason = _features(video.frames, shown, device)
        found.not_computed.update(dict.fromkeys(every.SET_NAMES, reason) if reason else {})
    values = cell["metrics"] | found.values
    reasons = {n: r for n, r in cell["not_computed"].items() if n not in names}
    cell = cell | {
        "decode_s": round(seconds, 2), "measuring": job.measuring, "stride": job.stride,
        "metrics": {n: values[n] for n in every.NAMES if n in values},
        "not_computed": reasons | found.not_computed,
        "profile": every.profile(video.frames, shown),
    }  # fmt: skip
    return Made(cell["rate"], cell, video=as_mp4(shown, video.fps), features=features)


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


def crashed(job: Job, rate: float, how: str) -> Made:
    """The cell at which a worker died."""
    cell = {"codec": job.codec, "clip": job.source.name, "rate": rate, "status": "failed"}
    return Made(rate, cell | {"error": f"the process ended with {how}"})
