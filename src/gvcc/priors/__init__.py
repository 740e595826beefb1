"""Priors: the frozen generators that a stream steers. One protocol, one explicit table.

A prior is an autoencoder and a denoiser of its latents on a Gaussian path. Nothing outside this
folder knows which one is running.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple, Protocol

from gvcc.errors import BadSetting, ConfigError, unknown
from gvcc.priors import devices
from gvcc.priors.models import MODELS, Model

if TYPE_CHECKING:
    import torch

    from gvcc.priors import soft
    from gvcc.priors.soft import SoftBase


SteeringMetric = Callable[["torch.Tensor", float], "torch.Tensor"]
"""A steering metric: (r [C,F,h,w], SNR at the end of the step) -> W r. The encoder chooses atoms
against W r instead of r; file and decoder never see it (design.md, "What the steering serves")."""


@dataclass(frozen=True)
class Spec:
    """What the codec must know of a prior.

    `digest` is the first 8 bytes of the SHA-256 of weights and configuration, as written in the
    header. `stride` is (time, height, width): pixels per latent; L frames, L = 1 mod time stride,
    give (L-1)/stride + 1 latent frames. `gop` is the default GOP length in frames. `path` names a
    Gaussian path of flow.py. `knob` is the default k of the decoder. `metric` is the steering
    metric; None is the identity. `schedule` is the number of its own in schedules.SCHEDULES.

    `patch`: height and width of a latent must be multiples of it. `last_alone`: a last picture has
    a latent frame of its own (Gop.length). `causal`: a latent frame moves no pictures before its
    own group. `refine`: `render` is cheap enough to be differentiated.
    `variances` are those that a header carries (Header.variances); empty: the prior knows its own.
    `base_share` is the part of the bytes of a GOP in mode v2v that goes to its base, `restorer`
    (restorers.NAMES; empty: none) what restores the pictures of one without a trajectory.
    `modes` are those it can do without a base, its best first; empty: all. `shifts` are the
    published ones of preset paper, up to 480 lines and above. `settings` are those that change
    its output and are not as usual, sorted (name, text). `told`: the network is told pictures
    beside the latent, so that one which is no frame of the GOP is of use to it. `grows`: latents
    are grown to whole patches, and not pictures before the autoencoder (`own` undoes it).
    """

    id: str
    digest: bytes
    channels: int
    stride: tuple[int, int, int]
    gop: int
    path: str
    knob: float
    metric: SteeringMetric | None = None
    schedule: int = 1
    patch: int = 1
    last_alone: bool = True
    causal: bool = True
    refine: bool = True
    modes: tuple[str, ...] = ()
    shifts: tuple[float, float] = (3.0, 3.0)
    settings: tuple[tuple[str, str], ...] = ()
    variances: tuple[int, ...] = ()
    base_share: float = 1.0
    restorer: str = ""
    told: bool = False
    grows: bool = False

    @property
    def multiple(self) -> tuple[int, int]:
        """What height and width of the pictures must be multiples of."""
        patch = 1 if self.grows else self.patch
        return self.stride[1] * patch, self.stride[2] * patch

    def latent_sides(self, height: int, width: int) -> tuple[int, int]:
        """Height and width of the latent of pictures of that size."""
        p = self.patch
        h, w = (-(-n // (s * p)) * p for n, s in zip((height, width), self.stride[1:], strict=True))
        return h, w

    def own(self, latent: torch.Tensor, height: int, width: int) -> torch.Tensor:
        """A latent [C,F,h,w] without what it was grown by."""
        if not self.grows:
            return latent
        h, w = (-(-n // s) for n, s in zip((height, width), self.stride[1:], strict=True))
        return latent[..., :h, :w]

    def published_shift(self, height: int) -> float:
        """The flow shift that preset paper takes for pictures of so many lines."""
        return self.shifts[height > 480]


Denoise = Callable[["torch.Tensor", float], "torch.Tensor"]
"""x0hat(x_t, t), the posterior mean of the latent: [C,F,h,w] -> [C,F,h,w]."""


class References(NamedTuple):
    """What is known of a GOP's pictures: its first ones, uint8 [n,H,W,3] of legal size, its last
    one [H,W,3], and a coarse version of all of them; None: not given. With `outside` the first
    ones come before the GOP and fix none of its latent frames."""

    first: torch.Tensor | None = None
    last: torch.Tensor | None = None
    base: SoftBase | None = None
    outside: bool = False


def unchanged(x: torch.Tensor) -> torch.Tensor:
    """x as it is."""
    return x


class Condition(NamedTuple):
    """A denoiser that knows reference pictures, the latent frames [C,h,w] that they fix, and where
    the trajectory begins: at time `start`, at `begin` of white noise [C,F,h,w]."""

    denoise: Denoise
    known: dict[int, torch.Tensor]
    start: float = 1.0
    begin: Callable[[torch.Tensor], torch.Tensor] = unchanged


def levels(pictures: torch.Tensor, truncated: bool = False) -> torch.Tensor:
    """Rendered pictures -> uint8, rounded to the nearest level, or to the next lower one."""
    import torch

    x = (pictures + 1) * 127.5
    return (x.floor() if truncated else x.round()).clamp(0, 255).to(torch.uint8)


class Prior(Protocol):
    """A generator. All tensors are float32 on `device`, where what follows from them is, too: the
    prior's device is that of the codec. (Pictures may come from anywhere.)"""

    spec: Spec
    device: torch.device

    def encode(self, frames: torch.Tensor) -> torch.Tensor:
        """uint8 [T,H,W,3], legal sizes (Spec.stride, Spec.multiple) -> latent [C,F,h,w]."""
        ...

    def decode(self, latent: torch.Tensor) -> torch.Tensor:
        """Latent [C,F,h,w] -> uint8 [T,H,W,3], rounded to the nearest level."""
        ...

    def render(self, latent: torch.Tensor) -> torch.Tensor:
        """Latent [C,F,h,w] -> pictures float [T,H,W,3], about in [-1,1]; differentiable."""
        ...

    def denoise(self, x: torch.Tensor, t: float) -> torch.Tensor:
        """x0hat(x_t, t) without any condition."""
        ...

    def condition(self, references: References, frames: int) -> Condition:
        """For a GOP of `frames` latent frames of which something is known. First and last pictures
        fix latent frames: with Spec.last_alone the last one fills the last latent frame all by
        itself; the first ones are 1 modulo the time stride. A base fixes nothing (soft.over)."""
        ...

    def variances(self, size: tuple[int, ...], codes: Sequence[int]) -> soft.Variance:
        """V_t, the variance of x0 around x0hat for latents of `size` (F, h, w): its own, or what a
        header has of it (Header.variances)."""
        ...


class Absent:
    """In the place of a prior that is not needed, as nothing but bases is looked at: ConfigError
    for whoever asks it for anything."""

    def __init__(self, id: str, digest: bytes, path: str) -> None:
        import torch

        self.spec = Spec(id, digest, 1, (1, 1, 1), 1, path, 1.0)
        self.device = torch.device("cpu")

    def __getattr__(self, name: str) -> Any:
        raise ConfigError(f"prior {self.spec.id} is not loaded")


def known_latents(prior: Prior, references: References, frames: int) -> dict[int, torch.Tensor]:
    """The latent frames that reference pictures fix, for priors that are conditioned on latents."""
    first, last, _, outside = references
    known = {}
    if last is not None:
        known[frames - 1] = prior.encode(last.expand(1 + prior.spec.stride[0], *last.shape))[:, 1]
    if first is not None and not outside:
        known |= dict(enumerate(prior.encode(first).unbind(1)))
    return known


def _gauss(device: str, path: Path | None) -> Prior:
    from gvcc.priors import gauss

    return gauss.load(device, path)


def _nano(device: str, path: Path | None) -> Prior:
    from gvcc.priors import nano

    return nano.load(device, path)


def _published(
    model: Model, device: str, path: Path | None, given: Mapping[str, str], offload: bool
) -> Prior:
    """A published model, from the folder `path` or where its weights are known to be. Nothing large
    is loaded before it is used."""
    from gvcc.priors import parts, settings, store

    chosen = settings.parse(model.name, given)
    if model.family == "cogvideox" and chosen.attention != "native":
        raise BadSetting(f"prior {model.name} has one attention backend only, native")
    folder = store.locate(model, path)
    parts.need_packages(model)
    with parts.attention(chosen.attention):
        pass  # BadSetting now and not at the first step
    if model.family == "wan":
        from gvcc.priors import wan

        return wan.WanPrior(model, folder, device, chosen, offload)
    from gvcc.priors import cogvideox

    return cogvideox.CogVideoXPrior(model, folder, device, chosen, offload)


_TABLE: dict[str, Callable[[str, Path | None], Prior]] = {"nano": _nano, "gauss": _gauss}
EMBEDDED = tuple(_TABLE)
NAMES = (*EMBEDDED, *MODELS)
DEFAULT = "nano"


def load(
    name: str, device: str = "cpu", settings: Mapping[str, str] | None = None, offload: bool = False
) -> Prior:
    """The prior called `name`, or "name:path" with weights of one's own: a file of `gvcc train`, or
    a model's folder as diffusers keeps it. It is on `device`, a name as of `pick_device`.

    `settings` change the output of a model (priors.settings), `offload` only where its network is
    kept. ConfigError if there is none of that name or its weights are not what they should be, and
    BadSetting for a setting it does not have.
    """
    device = pick_device(device, name)
    kind, path = named("prior", name, NAMES)
    if kind in MODELS:
        return _published(MODELS[kind], device, path, settings or {}, offload)
    if settings:
        raise BadSetting(f"prior {kind} has no settings, but was given {', '.join(settings)}")
    if offload:
        raise ConfigError(f"prior {kind} is small enough: nothing to offload")
    return _TABLE[kind](device, path)


def named(what: str, name: str, known: Sequence[str]) -> tuple[str, Path | None]:
    """ "name" or "name:path" in two. ConfigError for a name that is not known, or an empty path;
    `what` is what they say it is."""
    kind, colon, file = name.partition(":")
    if kind not in known:
        raise unknown(what, kind, known)
    if colon and not file:
        raise ConfigError(f"{what} {name!r}: a file is expected after the colon")
    return kind, Path(file) if file else None


def pick_device(device: str, name: str) -> str:
    """What "auto" stands for: a GPU for the large models, if there is one. The embedded priors stay
    on the CPU, where a file's pictures are more nearly the same for everybody. ConfigError for
    what is no device, and for a GPU that is not there."""
    return devices.pick(device, gpu=name.partition(":")[0] in MODELS)
