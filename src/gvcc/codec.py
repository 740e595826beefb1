"""encode and decode: the same calls in the same order; they differ in where the noise comes from.

The encoder's noise is `replay(choose(target))`: it runs the decoder's code on its own symbols. This
is the only file that knows all the parts.
"""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from gvcc import bitstream, codebook, entropy, flow, priors, rate, rng
from gvcc import gop as gops
from gvcc.bitstream import GopRecord, Header, Limits
from gvcc.codebook import Coder, Symbols, Where
from gvcc.errors import ConfigError, Corrupt, FormatError, PriorMismatch, Truncated
from gvcc.media import Video
from gvcc.priors import Prior
from gvcc.rate import EncodeConfig
from gvcc.records import Audio
from gvcc.rng import Purpose


@dataclass(frozen=True)
class Event:
    """Progress: `step` of `steps` network calls of GOP number `gop` of `gops` are done.

    `bytes` counts the file so far. `drift` is set once a decoded GOP has been compared with the
    encoder's latent: an estimate of the root mean square difference per latent value, 0 if within
    the check's resolution.
    """

    gop: int
    gops: int
    step: int
    steps: int
    bytes: int
    drift: float | None = None


Progress = Callable[[Event], None]


@dataclass(frozen=True)
class Encoding:
    """An encoded clip: the file, and the pictures a decoder will make of it [T,H,W,3]."""

    data: bytes
    frames: NDArray[np.uint8]


def make_coder(header: Header, dim: int, device: str) -> Coder:
    """The coder that a header names, for latent frames of `dim` values."""
    if header.coder == "gaussian":
        return codebook.Gaussian(header.seed, dim, header.size, device)
    return codebook.Hadamard(header.seed, dim, device)


def _replay(
    coder: Coder, header: Header, symbols: Sequence[Symbols], gop: int, step: int, like: Tensor
) -> Tensor:
    """One step's noise [C,F,h,w] from its symbols; a frame without atoms gets seeded normals."""
    c, _, h, w = like.shape
    z = []
    for f, s in enumerate(symbols):
        if len(s):
            z.append(coder.replay(s, Where(gop, step, f)))
        else:
            key = rng.derive(header.seed, gop, step, f, Purpose.FILL)
            z.append(torch.from_numpy(rng.normals(key, c * h * w)).to(like.device))
    return torch.stack(z).reshape(-1, c, h, w).transpose(0, 1)


class _Choose:
    """The encoder's noise: atoms chosen towards x0, written, and replayed."""

    def __init__(self, coder: Coder, header: Header, gop: int, x0: Tensor,
                 metric: priors.Metric | None, grant: rate.Grant) -> None:  # fmt: skip
        self.coder, self.header, self.gop, self.x0, self.metric = coder, header, gop, x0, metric
        self.stop, self.budget = grant.stop, grant.matched
        self.dealt = rate.uniform_counts(grant.atoms, grant.stop, x0.shape[1])
        self.model, self.writer = entropy.Counts(), entropy.Writer()

    def __call__(self, step: int, t: float, s: float, x0hat: Tensor) -> Tensor | None:
        if step >= self.stop:
            return None
        before, path = self.writer.total, flow.PATHS[self.header.path]
        target, lengths = rate.steering(self.x0, x0hat, self.metric, path, s)
        if self.budget is None:
            counts = self.dealt[step]
        else:
            information = [flow.information(path, t, s, e) for e in lengths]
            counts = self.budget.counts(step, information, self.model.cost)
            self.model.write(counts, self.writer)
        symbols = [
            self.coder.choose(target[f], m, Where(self.gop, step, f)) for f, m in enumerate(counts)
        ]
        for s_ in symbols:
            self.coder.write(s_, self.writer)
        if self.budget is not None:
            self.budget.spend(self.writer.total - before)
        return _replay(self.coder, self.header, symbols, self.gop, step, x0hat)


class _Read:
    """The decoder's noise: atoms read and replayed."""

    def __init__(self, coder: Coder, header: Header, gop: int, record: GopRecord, frames: int):
        self.coder, self.header, self.gop, self.stop = coder, header, gop, record.stop
        self.matched = header.allocation == "matched"
        self.dealt = rate.uniform_counts(record.atoms, record.stop, frames)
        self.model, self.reader = entropy.Counts(), entropy.Reader(record.symbols)

    def __call__(self, step: int, t: float, s: float, x0hat: Tensor) -> Tensor | None:
        if step >= self.stop:
            return None
        frames = x0hat.shape[1]
        counts = self.model.read(frames, self.reader) if self.matched else self.dealt[step]
        symbols = [self.coder.read(m, self.reader) for m in counts]
        return _replay(self.coder, self.header, symbols, self.gop, step, x0hat)


def _trajectory(
    prior: Prior,
    header: Header,
    gop: int,
    shape: tuple[int, int, int, int],
    coder: Coder,
    noise: flow.Noise,
    observe: Callable[[int, Tensor], None],
) -> Tensor:
    """The sampling loop as a header asks for it; the one call of encoder and decoder."""
    return flow.sample(
        prior.denoise, coder.initial(shape, gop), flow.schedule(header.steps, header.shift), noise,
        rule=header.rule, path=flow.PATHS[header.path], g_scale=header.g_scale, knob=header.knob,
        multistep=header.multistep, observe=observe,
    )  # fmt: skip


def _check(latent: Tensor, header: Header, gop: int) -> NDArray[np.float64]:
    """Random projections of the final latent: float64 [4], each with the values' own variance."""
    x = latent.double().cpu().numpy().ravel()
    key = rng.derive(header.seed, gop, 0, 0, Purpose.CHECK)
    s = rng.signs(key, 0, bitstream.CHECKS * x.size).reshape(bitstream.CHECKS, x.size)
    return np.array([np.where(row > 0, x, -x).sum() for row in s]) / math.sqrt(x.size)


def _quantised(check: NDArray[np.float64]) -> tuple[int, ...]:
    scaled = np.nan_to_num(check * bitstream.CHECK_UNIT, nan=127.0)
    return tuple(int(v) for v in np.clip(np.rint(scaled), -128, 127))


def _drift(latent: Tensor, record: GopRecord, header: Header, gop: int) -> float:
    """RMS of the latent's difference from the encoder's, estimated from the check; 0 if the
    projections agree within half a quantisation step."""
    off = _check(latent, header, gop) - np.array(record.check) / bitstream.CHECK_UNIT
    clipped = np.abs(record.check) >= 127
    off[clipped] = 0
    if np.abs(off).max() <= 0.51 / bitstream.CHECK_UNIT:
        return 0.0
    return float(np.sqrt((off**2).mean()))


def _pad(frames: NDArray[np.uint8], plan: gops.Gop, stride: tuple[int, int, int]) -> Tensor:
    """A GOP's frames, grown to legal sizes by repeating the last frame, row and column."""
    part = frames[plan.start : plan.start + plan.frames]
    grow = [(0, plan.length - plan.frames)]
    grow += [(0, -n % q) for n, q in zip(part.shape[1:3], stride[1:], strict=True)]
    return torch.from_numpy(np.pad(part, [*grow, (0, 0)], mode="edge"))


def _latent_shape(header: Header, plan: gops.Gop, prior: Prior) -> tuple[int, int, int, int]:
    q, qh, qw = prior.spec.stride
    return (
        prior.spec.channels,
        (plan.length - 1) // q + 1,
        -(-header.height // qh),
        -(-header.width // qw),
    )


def _shape(x: Tensor) -> tuple[int, int, int, int]:
    c, f, h, w = x.shape
    return c, f, h, w


def _profile(prior: Prior, header: Header, coder: Coder, gop: int, x0: Tensor,
             metric: priors.Metric | None) -> rate.Profile:  # fmt: skip
    eps = coder.initial(_shape(x0), gop)
    return rate.profile(prior.denoise, flow.PATHS[header.path], x0, eps, metric)


def _load_named(header: Header, device: str) -> Prior:
    """The prior a header names, if this version knows it."""
    if header.prior not in priors.NAMES:
        raise PriorMismatch(f"the file needs prior {header.prior}, which is not installed here")
    return priors.load(header.prior, device)


def _header(video: Video, config: EncodeConfig, prior: Prior) -> Header:
    """The header of an encoding, its shift still to be solved if the preset leaves it open."""
    p = config.parameters()
    t, h, w, _ = video.frames.shape
    spec = prior.spec
    header = Header(
        prior=spec.id, digest=spec.digest, width=w, height=h, frames=t, fps=video.fps,
        colour=video.colour, gop=config.gop or spec.gop, mode="t2v", path=spec.path,
        rule=p["rule"], coder=p["coder"], allocation=p["allocation"], size=p["size"],
        seed=p["seed"], steps=p["steps"], tail=p["tail"],
        shift=3.0 if p["shift"] is None else p["shift"], g_scale=p["g_scale"],
        knob=round(64 * (config.knob or p["knob"] or spec.knob)) / 64, multistep=p["multistep"],
        audio=config.audio and video.audio is not None,
    )  # fmt: skip
    try:
        header.check(Limits())
    except FormatError as e:
        raise ConfigError(str(e)) from None
    return header


def _show(prior: Prior, latent: Tensor, header: Header, plan: gops.Gop) -> NDArray[np.uint8]:
    """The pictures of a GOP, cut to its true size: uint8 [frames, height, width, 3]."""
    pixels = prior.decode(latent)[: plan.frames, : header.height, : header.width]
    return pixels.cpu().numpy()


def encode(video: Video, config: EncodeConfig | None = None, prior: Prior | None = None,
           progress: Progress | None = None) -> Encoding:  # fmt: skip
    """Encode a clip of at least one frame of at least 16x16.

    `prior` overrides loading config.prior. Raises ConfigError for settings out of range and
    TargetUnreachable, with the smallest possible size, for a target below it.
    """
    config = config or EncodeConfig()
    prior = prior or priors.load(config.prior, config.device)
    header = _header(video, config, prior)
    plans = list(gops.plan(header.frames, header.gop, prior.spec.stride[0], header.mode))
    latents = [prior.encode(_pad(video.frames, plan, prior.spec.stride)) for plan in plans]
    audio = video.audio if header.audio else None
    coder = make_coder(header, latents[0][:, 0].numel(), config.device)
    pacer = rate.Pacer(header, config, [x.shape[1] for x in latents], audio, coder.bits)
    metric = prior.spec.metric if config.parameters()["metric"] else None
    header = pacer.solve(header, lambda i: _profile(prior, header, coder, i, latents[i], metric))

    head = bitstream.write_header(header)
    parts, shown = [head], []
    for i, (plan, x0) in enumerate(zip(plans, latents, strict=True)):
        grant = pacer.grant(i)
        noise = _Choose(coder, header, i, x0, metric, grant)
        done = sum(map(len, parts))

        def observe(step: int, _: Tensor, i: int = i, done: int = done, n: _Choose = noise) -> None:
            size = done + n.writer.total // 8
            if progress is not None:
                progress(Event(i, len(plans), step + 1, header.steps, size))

        x = _trajectory(prior, header, i, _shape(x0), coder, noise, observe)
        check = _quantised(_check(x, header, i))
        record = GopRecord(grant.stop, grant.atoms, check, noise.writer.finish())
        parts.append(bitstream.write_gop(record, i, head))
        pacer.spent(len(parts[-1]))
        shown.append(_show(prior, x, header, plan))
    if audio is not None:
        parts.append(bitstream.write_audio(audio, len(plans), head))
    return Encoding(b"".join(parts), np.concatenate(shown))


def decode_gops(data: bytes, prior: Prior | None = None, device: str = "cpu",
                limits: Limits | None = None, progress: Progress | None = None,
                knob: float | None = None) -> Iterator[NDArray[np.uint8] | Audio]:  # fmt: skip
    """The pictures of one GOP after another, uint8 [frames,H,W,3], then the audio if there is any.

    `knob` in [1, 2] overrides the file's k (see flow.ode_step). Raises FormatError for bytes that
    are no stream (Truncated after the last whole GOP) and PriorMismatch if the prior at hand is
    not the one the file was made with.
    """
    header, start = bitstream.read_header(data, limits)
    if knob is not None:
        if not 1 <= knob <= 2:
            raise ConfigError(f"knob is {knob}, expected 1 to 2")
        header = dataclasses.replace(header, knob=knob)
    prior = prior or _load_named(header, device)
    if (prior.spec.id, prior.spec.digest) != (header.prior, header.digest):
        raise PriorMismatch(
            f"the file needs prior {header.prior} with weights {header.digest.hex()}; "
            f"here is {prior.spec.id} with weights {prior.spec.digest.hex()}"
        )
    if header.path != prior.spec.path:
        raise Corrupt(f"prior {header.prior} is on path {prior.spec.path}, not {header.path}")
    try:
        plans = gops.plan(header.frames, header.gop, prior.spec.stride[0], header.mode)
    except ConfigError as e:
        raise Corrupt(str(e)) from None
    count = -(-header.frames // header.gop)
    for i, record in enumerate(bitstream.records(data, header, start)):
        if isinstance(record, Audio):
            yield record
            continue
        plan = next(plans)
        shape = _latent_shape(header, plan, prior)
        coder = make_coder(header, shape[0] * shape[2] * shape[3], device)
        noise = _Read(coder, header, i, record, shape[1])

        def observe(step: int, _: Tensor, i: int = i) -> None:
            if progress is not None:
                progress(Event(i, count, step + 1, header.steps, len(data)))

        x = _trajectory(prior, header, i, shape, coder, noise, observe)
        if progress is not None:
            drift = _drift(x, record, header, i)
            progress(Event(i, count, header.steps, header.steps, len(data), drift))
        yield _show(prior, x, header, plan)


def decode(data: bytes, prior: Prior | None = None, device: str = "cpu",
           limits: Limits | None = None, progress: Progress | None = None,
           partial: bool = False, knob: float | None = None) -> Video:  # fmt: skip
    """The whole clip. With `partial` a truncated stream gives the whole GOPs before the cut
    (at least one) instead of raising Truncated. Raises as `decode_gops` does."""
    header, _ = bitstream.read_header(data, limits)
    frames, audio = [], None
    try:
        for part in decode_gops(data, prior, device, limits, progress, knob):
            if isinstance(part, Audio):
                audio = part
            else:
                frames.append(part)
    except Truncated:
        if not partial or not frames:
            raise
    return Video(np.concatenate(frames), header.fps, header.colour, audio)
