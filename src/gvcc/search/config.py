"""From what a user asks (preset, mode, size, bit rate) to the parameters of an encoding."""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Mapping
from dataclasses import dataclass, field
from fractions import Fraction
from typing import Any

from gvcc import priors
from gvcc.errors import ConfigError, check_types, unknown
from gvcc.format import base, coders
from gvcc.priors import Spec, restorers
from gvcc.search.plan import MODES, SHARING
from gvcc.search.quality import Goal, goal

OVERLAP = 5  # frames, in mode overlap
PAPER_ATOMS_1080 = 80  # M as published, above 720 lines
STREAMS = {"torch": "gaussian", "counter": "gaussian-counter"}
"""Where the atoms of the gaussian codebook come from, and the coders that are called so."""
CODERS = ("codebook", "rcc")
"""What a user may ask for: the codebook that the preset has, or reverse channel coding."""
RESIDUALS = ("coded", "published", "off")
REFERENCES = ("shared", "before")
BASES, BASE_SIZES = ("auto", *base.CODECS), ("auto", *map(str, base.SIZES))
RESTORERS = ("off", *restorers.NAMES)
TRAJECTORY = ("stop", "atoms", "tail_atoms", "codebook", "codebook_stream", "steps",
              "ode_steps", "coder", "g_scale", "overlap", "alignment")  # fmt: skip
"""What is of a trajectory alone."""
STILL_MOST = 4  # bits for a pixel of a still; of more nothing is seen (bench/systems/usable.py)


@dataclass(frozen=True)
class Preset:
    """What an encoding is made with: coder, step rule, allocation and so on as Header has them.

    `steps` None: those of the schedule; `shift` None: solved for the target. `atoms` is M and
    `tail_atoms` M_tail, None where the allocation finds them. `knob` None: the prior's. `metric`:
    steered by the prior's metric. `scheduled`: coded along a schedule, any step of which may be the
    last.
    """

    coder: str = "hadamard"
    rule: str = "posterior"
    allocation: str = "matched"
    steps: int | None = 20
    ode_steps: int = 4
    shift: float | None = None
    g_scale: float = 0.0
    multistep: bool = True
    seed: int = 1
    atoms: int | None = None
    tail_atoms: int | None = None
    codebook_size: int = 0
    knob: float | None = None
    metric: bool = True
    mode: str = "t2v"
    overlap: int = 0
    alignment: str = "fade"
    scheduled: bool = False
    base_share: float = 1.0
    restorer: str = ""
    cuts: bool = True


PRESETS = {
    "default": Preset(),
    "paper": Preset(
        coder="gaussian", rule="em", allocation="uniform", ode_steps=3, shift=3.0, g_scale=3.0,
        multistep=False, seed=42, atoms=64, tail_atoms=128, codebook_size=16384, knob=1.0,
        metric=False, cuts=False,
    ),
    "v2v": Preset(mode="v2v"),
    "free-gvc": Preset(steps=None, shift=1.0, mode="overlap", overlap=OVERLAP, alignment="pin",
                       scheduled=True),
    "free-gvc-paper": Preset(
        coder="rcc", codebook_size=coders.row("rcc").usual_size, steps=None, shift=1.0, knob=1.0,
        metric=False, mode="overlap", overlap=OVERLAP, alignment="blend", scheduled=True,
    ),
}  # fmt: skip


@dataclass(frozen=True)
class EncodeConfig:
    """What an encoder is asked to do; never written to the file.

    At most one of `bpp` (bits per pixel), `kbps` (at the clip's true frame rate), `size` (bytes),
    `quality` ("vmaf:60", see quality.METRICS; each GOP stops where it has it) and `stop` (the coded
    steps of every GOP) is the target; the first three count the whole file. Without one, `paper`
    uses its M and the others aim at 0.05 bits per pixel. `coder` is "codebook" (the preset's own)
    or "rcc". `atoms` is M, the same for every frame-step (uniform allocation); `tail_atoms` is
    M_tail, for the last two latent frames in mode i2v (without it M there too, but in preset
    `paper` as it is). `codebook` is K, of the gaussian codebook or the most candidates of a chunk
    of `rcc`; `codebook_stream` is where the former's atoms come from: "torch" (the official ones)
    or "counter" (the same on every device, and made there), by default torch on a CPU. `steps` are
    the network calls of a GOP, the last `ode_steps` of them without symbols (of a schedule: those
    after the stop). `g_scale` is that of preset `paper`. None means: as the preset or the prior has
    it; the mode of preset `default` is v2v where the prior has a restorer and nothing of TRAJECTORY
    is asked for. `mode`, `overlap`, `alignment` and `refresh` are those of gop.plan; `still_bpp` is
    what each still gets, in bits per pixel of it (else a part of the target, see Pacer); `cuts`
    starts a GOP at each scene cut (not in t2v, nor by itself in preset `paper`). `residual` is one
    of RESIDUALS: "coded" where a chain goes on, "published" (GVCC's own, in every GOP of mode i2v)
    or "off". `reference` is one of REFERENCES: in mode i2v the picture that a GOP starts from is
    its own first frame too ("shared"), or is the one "before" it, as GVCC publishes: then all of
    the GOP's frames are new and coded. `reuse` calls the network at every so-many-th coded step
    only and keeps its x0hat between: faster, and a little worse. In mode v2v `base` is the codec of
    the base ("av1", "vvc", "auto": what is at hand), and `base_size` the part of each side that it
    is coded at ("1", "2", "4", "auto"); GOPs are up to ten seconds long. `base_share` is the part
    of a GOP's bytes that its base gets: with less than 1 the generator goes on from it, on GOPs of
    its own length; otherwise `restorer` ("off", or a name as of priors.restorers) makes its
    pictures better. In mode auto a GOP with a base is one of the choices. `settings` are those of
    the prior that change its output; `offload` keeps its network in the main memory, block by block
    on the device. `device` is where the prior is loaded, a name as of devices.pick: a prior that is
    given stays where it is.
    """

    preset: str = "default"
    prior: str = priors.DEFAULT
    mode: str | None = None
    bpp: float | None = None
    kbps: float | None = None
    size: int | None = None
    quality: str | None = None
    stop: int | None = None
    coder: str | None = None
    atoms: int | None = None
    tail_atoms: int | None = None
    codebook: int | None = None
    codebook_stream: str | None = None
    seed: int | None = None
    steps: int | None = None
    ode_steps: int | None = None
    g_scale: float | None = None
    gop: int | None = None
    overlap: int | None = None
    alignment: str | None = None
    refresh: int = 0
    still_bpp: float | None = None
    cuts: bool | None = None
    residual: str = "coded"
    reference: str = "shared"
    knob: float | None = None
    audio: bool = True
    reuse: int = 1
    base: str | None = None
    base_size: str | None = None
    base_share: float | None = None
    restorer: str | None = None
    settings: Mapping[str, str] = field(default_factory=dict)
    device: str = "cpu"
    offload: bool = False

    def __post_init__(self) -> None:
        check_types(self)
        if len(asked := self._targets()) > 1:
            raise ConfigError(f"give one target, not {' and '.join(asked)}")

    def _targets(self) -> dict[str, Any]:
        """The targets that are given, by their names."""
        names = ("bpp", "kbps", "size", "quality", "stop")
        return {n: v for n in names if (v := getattr(self, n)) is not None}

    @property
    def _plain(self) -> bool:
        """Whether nothing is asked for that only a trajectory has."""
        given = any(getattr(self, name) is not None for name in TRAJECTORY)
        return self.preset == "default" and not given and self.reuse == 1 and not self.refresh

    def target(self, frames: int, height: int, width: int, fps: Fraction) -> int | None:
        """The file size asked for in bytes, None without a target; ConfigError if it is not above
        0."""
        for name, value in self._targets().items():
            if name != "quality" and not 0 < value < math.inf:
                raise ConfigError(f"{name} is {value}, expected a number above 0")
        if self.bpp is not None:
            return int(self.bpp * frames * height * width / 8)
        if self.kbps is not None:
            return int(self.kbps * 1000 * float(frames / fps) / 8)
        return self.size

    def resolved(
        self, spec: Spec | None = None, height: int = 0, device: str = "cpu"
    ) -> Parameters:
        """The preset with this configuration's own settings put in, and with what follows from the
        prior, the clip's height and the kind of the prior's device: the mode, if the preset's own
        is none of the prior's, M as published for 1080p, and the codebook's stream.
        ConfigError if anything is out of range."""
        self.target(1, 1, 1, Fraction(1))
        config = self
        if device != "cpu" and config.codebook_stream is None and self.preset == "paper":
            config = dataclasses.replace(config, codebook_stream="counter")
        if spec is not None and config.mode is None and config._plain and spec.restorer:
            config = dataclasses.replace(config, mode="v2v")
        if spec is not None and config.base_share is None and config.resolved().has_bases:
            config = dataclasses.replace(config, base_share=spec.base_share)
        if spec is not None and config.restorer is None and config.resolved().shows_bases:
            config = dataclasses.replace(config, restorer=spec.restorer or "off")
        if spec is not None and config.mode is None and spec.modes:
            if config.resolved().mode not in (*spec.modes, "v2v"):
                config = dataclasses.replace(config, mode=spec.modes[0])
        chosen = any(v is not None for v in (self.atoms, self.bpp, self.kbps, self.size))
        if self.preset == "paper" and height > 720 and not chosen:
            most = config.resolved().codebook_size
            config = dataclasses.replace(config, atoms=min(PAPER_ATOMS_1080, most))
        return _resolved(config)


@dataclass(frozen=True)
class Parameters(Preset):
    """A preset with a user's settings put in, all of them legal; `asked` is what he asked for, and
    `goal` the quality that every GOP should have."""

    asked: EncodeConfig = field(default_factory=EncodeConfig)
    goal: Goal | None = None

    @property
    def only_base(self) -> bool:
        """Whether the GOPs are bases, and nothing is sampled."""
        return self.mode == "v2v" and self.base_share == 1

    @property
    def shows_bases(self) -> bool:
        """Whether GOPs may be shown by their base alone."""
        return self.has_bases and self.base_share == 1

    @property
    def has_bases(self) -> bool:
        """Whether GOPs may have a base."""
        return self.mode == "v2v" or (self.mode == "auto" and self.rule != "em")


def _resolved(config: EncodeConfig) -> Parameters:
    if config.preset not in PRESETS:
        raise unknown("preset", config.preset, PRESETS)
    p: dict[str, Any] = dict(vars(PRESETS[config.preset]))
    if config.mode is not None:
        if config.mode not in MODES:
            raise unknown("mode", config.mode, MODES)
        overlaps = config.mode == "overlap"
        p |= dict(mode=config.mode, overlap=OVERLAP if overlaps else 0,
                  alignment="pin" if overlaps else "fade")  # fmt: skip
    p |= {n: v for n in ("overlap", "alignment") if (v := getattr(config, n)) is not None}
    if p["mode"] == "overlap" and p["overlap"] < 1:
        raise ConfigError(f"overlap is {p['overlap']}, expected at least 1 in mode overlap")
    if config.alignment is not None and config.alignment not in SHARING:
        raise unknown("alignment", config.alignment, SHARING)
    if p["alignment"] in SHARING and p["mode"] != "overlap":
        raise ConfigError(f"alignment {p['alignment']} is for mode overlap, not {p['mode']}")
    _check_base(config, p)
    _choose_coder(config, p)
    if config.atoms is not None:
        tail = p["tail_atoms"] if config.preset == "paper" else None
        p["atoms"], p["allocation"], p["tail_atoms"] = config.atoms, "uniform", tail
    if config.tail_atoms is not None:
        if p["allocation"] != "uniform" or p["mode"] not in ("i2v", "auto"):
            raise ConfigError("M_tail (tail atoms) goes with M, in modes i2v and auto")
        p["tail_atoms"] = config.tail_atoms
    if config.atoms is not None and (config.bpp or config.kbps or config.size):
        raise ConfigError("M fixes the size of the file: give either M or a target")
    _check_pictures(config, p)
    if config.g_scale is not None and p["rule"] != "em":
        raise ConfigError("g_scale is for preset 'paper'")
    row = coders.row(p["coder"])
    most = row.atoms_within(p["codebook_size"])
    if config.tail_atoms is None and p["tail_atoms"] is not None:
        p["tail_atoms"] = min(p["tail_atoms"], most)
    p |= {
        n: v
        for n in ("seed", "steps", "ode_steps", "g_scale", "cuts")
        if (v := getattr(config, n)) is not None
    }
    for name, value, low, high in (
        ("K", p["codebook_size"], row.least_size, row.most_size),
        ("M", 1 if p["atoms"] is None else p["atoms"], 1, most),
        ("M_tail", 1 if p["tail_atoms"] is None else p["tail_atoms"], 1, most),
        ("ode_steps", p["ode_steps"], 1, 127),
        ("steps", p["steps"] or 255, p["ode_steps"] + 1, 255),
        ("seed", p["seed"], 0, row.most_seed),
        ("knob", config.knob if config.knob is not None else 1, 1, 2),
        ("reuse", config.reuse, 1, 255),
        ("g_scale", p["g_scale"], 0, 255),
    ):
        if not low <= value <= high:
            raise ConfigError(f"{name} is {value}, expected {low} to {high}")
    aim = None if config.quality is None else goal(config.quality)
    return Parameters(**p, asked=config, goal=aim)


def _check_pictures(config: EncodeConfig, p: dict[str, Any]) -> None:
    """ConfigError for stills, references and residuals that there are not, or not in the mode."""
    if (bpp := config.still_bpp) is not None:
        if p["mode"] not in ("i2v", "flf2v", "auto"):
            raise ConfigError(f"still_bpp is for modes with stills, not {p['mode']}")
        if not 0 < bpp <= STILL_MOST:
            raise ConfigError(f"still_bpp is {bpp}, expected above 0, at most {STILL_MOST}")
    for name, known in (("reference", REFERENCES), ("residual", RESIDUALS)):
        if getattr(config, name) not in known:
            raise unknown(name, getattr(config, name), known)
    if config.reference == "before" and p["mode"] != "i2v":
        raise ConfigError(f"a reference before the GOP is for mode i2v, not {p['mode']}")
    if config.residual != "published":
        return
    if p["mode"] != "i2v" or p["allocation"] != "uniform":
        raise ConfigError("residual published is for mode i2v with M (preset paper)")
    if config.bpp or config.kbps or config.size:
        raise ConfigError("residual published has a size of its own: give M, not a target")


def _check_base(config: EncodeConfig, p: dict[str, Any]) -> None:
    """ConfigError for what does not go together with a base, or its lack."""
    names = ("base", "base_size", "base_share", "restorer")
    given = [n for n in names if getattr(config, n) is not None]
    if config.preset == "paper" and (given or p["mode"] == "v2v"):
        raise ConfigError("preset paper is GVCC as published: it has no mode v2v")
    if p["mode"] not in ("v2v", "auto"):
        if given:
            name = given[0].replace("_", " ")
            raise ConfigError(f"{name} is for modes v2v and auto, not {p['mode']}")
        return
    kind = (config.restorer or "off").partition(":")[0]
    if kind not in RESTORERS:
        raise unknown("restorer", kind, RESTORERS)
    for name, known in (("base", BASES), ("base_size", BASE_SIZES)):
        if (value := getattr(config, name)) is not None and value not in known:
            raise unknown(name.replace("_", " "), value, known)
    if config.base_share is not None:
        if not 0 < config.base_share <= 1:
            raise ConfigError(f"base share is {config.base_share}, expected above 0 to 1")
        p["base_share"] = config.base_share
    restores = kind != "off"
    if kind == "realesrgan" and config.base_size == "1":
        raise ConfigError("restorer realesrgan is for base sizes 2 and 4")
    p["restorer"] = config.restorer if restores and config.restorer else ""
    if p["base_share"] < 1:
        p["scheduled"] = config.atoms is None
        if restores and config.base_share is not None:
            raise ConfigError("a restorer is for bases alone, without a trajectory")
    elif p["mode"] == "v2v" and config.base_share is not None:  # else the prior says
        asked = [
            n
            for n in ("stop", "atoms", "codebook", "codebook_stream", "coder", "ode_steps")
            if getattr(config, n) is not None
        ]
        if asked:
            raise ConfigError(
                f"{asked[0]} is of a trajectory: mode v2v has one with a base share below 1, and "
                "mode t2v is one"
            )
        if config.steps is not None or config.reuse != 1:
            name = "steps" if config.steps is not None else "reuse"
            raise ConfigError(f"{name} is for modes without a base: t2v, for instance")
        for name in ("seed", "knob"):
            if getattr(config, name) is not None and config.restorer == "off":
                raise ConfigError(f"{name} changes nothing of a base that nothing is done to")


def _choose_coder(config: EncodeConfig, p: dict[str, Any]) -> None:
    """Set coder and schedule in the parameters `p`; ConfigError for what does not go together.

    A GOP that is to stop where a quality is reached, or that is coded by `rcc`, follows a schedule
    whose steps do not depend on the target.
    """
    if config.coder is not None and config.coder not in CODERS:
        raise unknown("coder", config.coder, CODERS)
    if config.coder == "rcc":
        if config.preset == "paper":
            raise ConfigError("preset paper is GVCC as published: it has no coder rcc")
        p |= dict(coder="rcc", codebook_size=coders.row("rcc").usual_size)
    if config.codebook is not None:
        row = coders.row(p["coder"])
        if not row.most_size:
            raise ConfigError("K is for preset 'paper' and for coder rcc")
        if row.powers_of_two and config.codebook & (config.codebook - 1):
            raise ConfigError(f"K is {config.codebook}, expected a power of two for coder rcc")
        p["codebook_size"] = config.codebook
    if config.codebook_stream is not None:
        if config.codebook_stream not in STREAMS:
            raise unknown("codebook stream", config.codebook_stream, STREAMS)
        if p["coder"] not in STREAMS.values():
            raise ConfigError("a codebook stream is for preset 'paper'")
        p["coder"] = STREAMS[config.codebook_stream]
    if config.quality is not None or config.stop is not None or p["coder"] == "rcc":
        p["scheduled"] = True
    if not p["scheduled"]:
        return
    if config.preset == "paper":
        raise ConfigError("preset paper is GVCC as published: its target is M or a size")
    reuse = None if config.reuse == 1 else config.reuse
    for name, value in (("M", config.atoms), ("steps", config.steps), ("reuse", reuse)):
        if value is not None:
            raise ConfigError(
                f"{name} does not go with coder rcc, a quality, a stop, preset free-gvc or a "
                "trajectory over a base"
            )
    scheduled = PRESETS["free-gvc"]
    p |= dict(steps=scheduled.steps, ode_steps=scheduled.ode_steps, shift=scheduled.shift)
