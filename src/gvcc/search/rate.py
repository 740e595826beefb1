"""From what a user asks (preset, mode, size, bit rate) to parameters, and to each GOP's bytes."""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from fractions import Fraction
from typing import Any

from gvcc import flow, priors
from gvcc.decode.codebook import MOST_OF_SUBSET
from gvcc.errors import ConfigError, TargetUnreachable, check_types, unknown
from gvcc.format import bitstream
from gvcc.format.bitstream import Header
from gvcc.format.gop import ALIGNMENTS, MODES, Gop, variants
from gvcc.priors import Spec
from gvcc.records import Audio
from gvcc.search.allocation import (
    SIDE_BITS,
    TAIL,
    Budget,
    Matched,
    Profile,
    Proportional,
    solve_shift,
    times,
    uniform_atoms,
)
from gvcc.search.quality import goal

DEFAULT_BPP = 0.05
STILL_SHARE = 0.25  # of the bytes of a GOP, for each still in it
STILL_BPP = 0.3  # of a still, where no target is set
RESIDUAL_SHARE = 0.08  # of the bytes of atoms and residual, for the residual
OVERLAP = 5  # frames, in mode overlap
# More than this is not seen (bench/systems/usable.py), and takes for ever:
USABLE_BITS, STILL_MOST = 8, 4  # for a value of the latent, for a pixel of a still
SLACK = 2**14  # bytes of a file that are not worth a refusal
PAPER_ATOMS_1080 = 80  # M as published, above 720 lines
PRESETS: dict[str, dict[str, Any]] = {
    "default": dict(
        coder="hadamard", rule="posterior", allocation="matched", steps=20, tail=4, shift=None,
        g_scale=0.0, multistep=True, seed=1, atoms=None, tail_atoms=None, size=0, knob=None,
        metric=True, mode="t2v", overlap=0, alignment="fade", table=False,
    ),
    "paper": dict(
        coder="gaussian", rule="em", allocation="uniform", steps=20, tail=3, shift=3.0,
        g_scale=3.0, multistep=False, seed=42, atoms=64, tail_atoms=128, size=16384,
        knob=1.0, metric=False, mode="t2v", overlap=0, alignment="fade", table=False,
    ),
    "free-gvc": dict(
        coder="hadamard", rule="posterior", allocation="matched", steps=None, tail=4, shift=1.0,
        g_scale=0.0, multistep=True, seed=1, atoms=None, tail_atoms=None, size=0, knob=None,
        metric=True, mode="overlap", overlap=OVERLAP, alignment="pin", table=True,
    ),
}  # fmt: skip
CODERS = ("codebook", "rcc")
CANDIDATES = 2**14  # of a chunk of rcc: 12 bits of information, and two to spare


@dataclass(frozen=True)
class EncodeConfig:
    """What an encoder is asked to do; never written to the file.

    At most one of `bpp` (bits per pixel), `kbps` (at the clip's true frame rate), `size` (bytes),
    `quality` ("vmaf:60", see quality.METRICS; each GOP stops where it has it) and `stop` (the coded
    steps of every GOP) is the target; the first three count the whole file. Without one, `paper`
    uses its M and the others aim at 0.05 bits per pixel. `coder` is "codebook" (the preset's own)
    or "rcc". `atoms` is M, the same for every frame-step (uniform
    allocation); `tail_atoms` is M_tail, for the last two latent frames in mode i2v (without it M
    there too, but in preset `paper` as it is). `codebook` is K, of the gaussian codebook or the
    most candidates of a chunk of `rcc`. `g_scale` is that of preset `paper`. None means: as the
    preset or the prior has it. `mode`, `overlap`, `alignment` and `refresh` are those of gop.plan;
    `cuts` starts a GOP at each scene cut (not in t2v), `residual` codes a residual where a chain
    goes on. `reuse` calls the network at every so-many-th coded step only and keeps its x0hat
    between: faster, and a little worse. `settings` are those of the prior that change its output;
    `offload` keeps its network in the main memory, block by block on the device. `device` is where
    the prior is loaded, a name as of devices.pick: a prior that is given stays where it is.
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
    seed: int | None = None
    steps: int | None = None
    g_scale: float | None = None
    gop: int | None = None
    overlap: int | None = None
    alignment: str | None = None
    refresh: int = 0
    cuts: bool = True
    residual: bool = True
    knob: float | None = None
    audio: bool = True
    reuse: int = 1
    settings: Mapping[str, str] = field(default_factory=dict)
    device: str = "cpu"
    offload: bool = False

    def __post_init__(self) -> None:
        check_types(self)

    def target(self, frames: int, height: int, width: int, fps: Fraction) -> int | None:
        """The file size asked for in bytes, None without a target; ConfigError if ill-posed."""
        names = ("bpp", "kbps", "size", "quality", "stop")
        asked = {n: v for n in names if (v := getattr(self, n)) is not None}
        if len(asked) > 1:
            raise ConfigError(f"give one target, not {' and '.join(asked)}")
        asked.pop("quality", None)
        for name, value in asked.items():
            if not 0 < value < math.inf:
                raise ConfigError(f"{name} is {value}, expected a number above 0")
        if self.bpp is not None:
            return int(self.bpp * frames * height * width / 8)
        if self.kbps is not None:
            return int(self.kbps * 1000 * float(frames / fps) / 8)
        return self.size

    def fitted(self, spec: Spec, height: int) -> EncodeConfig:
        """With what follows from the prior and the clip's height: the mode, if the preset's own is
        none of the prior's, and M and M_tail as published for 1080p."""
        config = self
        if self.mode is None and spec.modes and self.parameters()["mode"] not in spec.modes:
            config = dataclasses.replace(config, mode=spec.modes[0])
        chosen = any(v is not None for v in (self.atoms, self.bpp, self.kbps, self.size))
        if self.preset == "paper" and height > 720 and not chosen:
            p = config.parameters()
            config = dataclasses.replace(config, atoms=min(PAPER_ATOMS_1080, p["size"]))
            if p["mode"] in ("i2v", "auto"):
                config = dataclasses.replace(config, tail_atoms=p["tail_atoms"])
        return config

    def parameters(self) -> dict[str, Any]:
        """The preset with this configuration's own settings put in; ConfigError if out of range."""
        if self.preset not in PRESETS:
            raise unknown("preset", self.preset, PRESETS)
        p = dict(PRESETS[self.preset])
        if self.mode is not None:
            if self.mode not in MODES:
                raise unknown("mode", self.mode, MODES)
            overlaps = self.mode == "overlap"
            p |= dict(mode=self.mode, overlap=OVERLAP if overlaps else 0,
                      alignment="pin" if overlaps else "fade")  # fmt: skip
        p |= {n: v for n in ("overlap", "alignment") if (v := getattr(self, n)) is not None}
        if p["mode"] == "overlap" and p["overlap"] < 1:
            raise ConfigError(f"overlap is {p['overlap']}, expected at least 1 in mode overlap")
        if p["alignment"] in ALIGNMENTS[1:] and p["mode"] != "overlap":
            raise ConfigError(f"alignment {p['alignment']} is for mode overlap, not {p['mode']}")
        self._choose_coder(p)
        if self.atoms is not None:
            p["atoms"], p["allocation"], p["tail_atoms"] = self.atoms, "uniform", None
        if self.tail_atoms is not None:
            if p["allocation"] != "uniform" or p["mode"] not in ("i2v", "auto"):
                raise ConfigError("M_tail (tail atoms) goes with M, in modes i2v and auto")
            p["tail_atoms"] = self.tail_atoms
        if self.atoms is not None and (self.bpp or self.kbps or self.size):
            raise ConfigError("M fixes the size of the file: give either M or a target")
        gaussian = p["coder"] == "gaussian"
        most = min(p["size"], MOST_OF_SUBSET) if gaussian else 2**16
        if self.tail_atoms is None and p["tail_atoms"] is not None:
            p["tail_atoms"] = min(p["tail_atoms"], most)
        if self.g_scale is not None and p["rule"] != "em":
            raise ConfigError("g_scale is for preset 'paper'")
        p |= {n: v for n in ("seed", "steps", "g_scale") if (v := getattr(self, n)) is not None}
        for name, value, low, high in (
            ("K", p["size"], {"gaussian": 1, "rcc": 16}.get(p["coder"], 0), 2**16),
            ("M", 1 if p["atoms"] is None else p["atoms"], 1, most),
            ("M_tail", 1 if p["tail_atoms"] is None else p["tail_atoms"], 1, most),
            ("steps", p["steps"] or 255, p["tail"] + 1, 255),
            ("seed", p["seed"], 0, 2**31 - 1 if gaussian else 2**64 - 1),
            ("knob", self.knob if self.knob is not None else 1, 1, 2),
            ("reuse", self.reuse, 1, 255),
            ("g_scale", p["g_scale"], 0, 255),
        ):
            if not low <= value <= high:
                raise ConfigError(f"{name} is {value}, expected {low} to {high}")
        return p

    def _choose_coder(self, p: dict[str, Any]) -> None:
        """Set coder and schedule in the parameters `p`; ConfigError for what does not go together.

        A GOP that is to stop where a quality is reached, or that is coded by `rcc`, follows a
        schedule whose steps do not depend on the target.
        """
        if self.coder is not None and self.coder not in CODERS:
            raise unknown("coder", self.coder, CODERS)
        if self.coder == "rcc":
            if self.preset == "paper":
                raise ConfigError("preset paper is GVCC as published: it has no coder rcc")
            p |= dict(coder="rcc", size=CANDIDATES)
        if self.codebook is not None:
            if p["coder"] == "hadamard":
                raise ConfigError("K is for preset 'paper' and for coder rcc")
            if p["coder"] == "rcc" and self.codebook & (self.codebook - 1):
                raise ConfigError(f"K is {self.codebook}, expected a power of two for coder rcc")
            p["size"] = self.codebook
        if self.quality is not None:
            goal(self.quality)
        if self.quality is not None or self.stop is not None or p["coder"] == "rcc":
            p["table"] = True
        if not p["table"]:
            return
        if self.preset == "paper":
            raise ConfigError("preset paper is GVCC as published: its target is M or a size")
        reuse = None if self.reuse == 1 else self.reuse
        for name, value in (("M", self.atoms), ("steps", self.steps), ("reuse", reuse)):
            if value is not None:
                raise ConfigError(
                    f"{name} does not go with coder rcc, a quality, a stop or preset free-gvc"
                )
        p |= {n: PRESETS["free-gvc"][n] for n in ("steps", "tail", "shift")}


@dataclass(frozen=True)
class Grant:
    """What one GOP may spend: bytes of its record (None: no target) and of each still in it."""

    record: int | None
    still: int


@dataclass(frozen=True)
class Allotment:
    """What a GOP's symbols may be: coded steps, and atoms (uniform) or a budget of them; with a
    schedule at most `bits` (None: no limit)."""

    stop: int
    atoms: int = 0
    tail_atoms: int = 0
    budget: Budget | None = None
    bits: int | None = None


class Pacer:
    """Shares a file's bytes among its GOPs and keeps the account.

    Every GOP gets the bits that the common schedule asks for on its content, so that all end at
    the same noise level (about the same quality), and a fixed share for each still; what one
    leaves over goes to those after it.
    """

    def __init__(
        self, header: Header, config: EncodeConfig, gops: Sequence[Gop], audio: Audio | None,
        spec: Spec, cost: Callable[[int], int],
    ) -> None:  # fmt: skip
        self.header, self.gops, self.spec, self.cost = header, gops, spec, cost
        self.free = [free_frames(g, spec) for g in gops]
        self.stop = header.steps - header.tail
        p = config.parameters()
        self.atoms, self.tail_atoms = p["atoms"], p["tail_atoms"]
        self.residual = RESIDUAL_SHARE if config.residual else 0.0
        head = bitstream.write_header(header)
        sound = 0 if audio is None else len(bitstream.write_audio(audio, head))
        candidates = [variants(g, None) if p["mode"] == "auto" else (g,) for g in gops]
        self.empty = [
            max(bitstream.gop_size(bitstream.empty_gop(v)) for v in c) for c in candidates
        ]
        smallest = len(head) + sound + sum(self.empty)
        shape = header.frames, header.height, header.width
        target = config.target(*shape, header.fps)
        free_running = config.quality is not None or config.stop is not None
        if target is None and header.allocation == "matched" and not free_running:
            target = max(int(DEFAULT_BPP * math.prod(shape) / 8), smallest + 64 * len(gops))
        if target is not None and target < smallest:
            of_them = f", {sound} of them audio" if sound else ""
            raise TargetUnreachable(
                f"{target} bytes cannot be reached; the smallest file is {smallest} bytes{of_them}",
                smallest,
            )
        self._check_use(target, smallest, p["coder"])
        self.left = None if target is None else target - len(head) - sound
        if self.left is None:
            self.still = [int(STILL_BPP * header.height * header.width / 8)] * len(gops)
        else:
            each = STILL_SHARE * (self.left - sum(self.empty)) / header.frames
            self.still = [int(each * g.frames) for g in gops]
        self.predicted: list[list[float]] = [[float(f)] for f in self.free]

    def _check_use(self, target: int | None, smallest: int, coder: str) -> None:
        """ConfigError for a size, or an M, that says more of the latent than the prior can use:
        coding it would take for ever, and nothing would be seen of it."""
        size = self.header.height, self.header.width
        frames, pixels = sum(self.free), math.prod(size)
        values = self.spec.channels * math.prod(self.spec.latent_sides(*size)) * frames
        most = USABLE_BITS * values / 8
        stills = STILL_MOST * pixels / 8 * sum(g.stills for g in self.gops)
        top = smallest + SLACK + (most + stills) / (1 - self.residual)
        if target is not None and target > top:
            per = 8 / (self.header.frames * pixels)
            raise ConfigError(
                f"{target} bytes, {per * target:.3g} bits per pixel, are more than prior "
                f"{self.spec.id} has a use for here: {top:.0f}, {per * top:.3g} bits per pixel"
            )
        if coder == "hadamard" and self.atoms is not None:
            asked = self.cost(self.atoms) * self.stop * frames / 8
            if asked > most + SLACK:
                raise ConfigError(
                    f"M is {self.atoms}: {asked:.0f} bytes are more than prior {self.spec.id} has "
                    f"a use for; M = {int(self.atoms * (most + SLACK) / asked)} is the most"
                )

    def solve(self, header: Header, profiles: Sequence[Profile]) -> Header:
        """The header with its final shift, given the profile of each GOP. With a schedule that does
        not change; its common stop tells what each GOP should get."""
        if self.left is None:
            return header
        path = flow.PATHS[header.path]
        room = self.left - sum(self.empty)
        for g, still in zip(self.gops, self.still, strict=True):
            room -= g.stills * still
        room -= int(room * self.residual * sum(g.tail for g in self.gops) / len(self.gops))
        side = sum(self.stop * f * SIDE_BITS for f in self.free)
        symbols = len(self.gops) * symbol_bits(room // len(self.gops)) - side
        if header.table:
            low, high = 0, 256 * self.stop  # a step's 256ths
            while high - low > 1:
                mid = (low + high) // 2
                at = times(header, *divmod(mid, 256))[: -header.tail]
                asked = sum(sum(p.bits(path, at)) for p in profiles)
                low, high = (low, mid) if asked > symbols else (mid, high)
            at = times(header, *divmod(high, 256))[: -header.tail]
            self.predicted = [p.bits(path, at) for p in profiles]
            return header
        shift = solve_shift(profiles, path, header.steps, header.tail, max(1.0, symbols))
        at = flow.schedule(header.steps, shift)[: self.stop + 1]
        self.predicted = [p.bits(path, at) for p in profiles]
        return dataclasses.replace(header, shift=shift)

    def grant(self, i: int, gop: Gop) -> Grant:
        """What GOP number i, the next one, may spend if it is coded as `gop`."""
        if self.left is None:
            return Grant(None, self.still[i])
        # Every GOP still to come needs at least an empty record, and its stills.
        later = range(i, len(self.gops))
        stills = [self.gops[j].stills * self.still[j] for j in later]
        spare = max(0, self.left - sum(self.empty[i:]) - sum(stills))
        weights = [sum(self.predicted[j]) + 1e-9 for j in later]
        own = math.floor(spare * weights[0] / sum(weights))
        record = min(self.empty[i] + own + stills[0], self.left - sum(self.empty[i + 1 :]))
        return Grant(record, self.still[i] if free_frames(gop, self.spec) else record)

    def allot(self, i: int, gop: Gop, room: int | None, frames: int) -> Allotment:
        """Symbols of GOP number i, coded as `gop`, for `room` bytes of them and of the residual;
        `frames` latent frames take atoms."""
        tail = self.header.allocation == "uniform" and gop.mode == "i2v"
        if frames == 0:
            return Allotment(0)
        if self.header.table:
            if room is not None:  # 1: the part of a step
                room = symbol_bits(room - (int(room * self.residual) if gop.tail else 0) - 1)
            budget = None if self.header.coder == "rcc" else Proportional(self.cost(1))
            return Allotment(self.stop, budget=budget, bits=room)
        if room is None:
            apart = min(TAIL, frames) if tail and self.tail_atoms else 0
            front = self.atoms * self.stop * (frames - apart)
            return Allotment(self.stop, front, (self.tail_atoms or 0) * self.stop * apart)
        bits = symbol_bits(room - (int(room * self.residual) if gop.tail else 0))
        if bits < _LEAST * self.stop * frames + _FIRST:
            return Allotment(0)
        if self.header.allocation == "uniform":
            # Beyond half a codebook a larger subset hardly steers better.
            most = min(self.header.size // 2 + 1, MOST_OF_SUBSET) if self.header.size else 2**16
            atoms = uniform_atoms(bits, self.stop, frames, self.cost, most, tail)
            return Allotment(self.stop, *atoms)
        return Allotment(self.stop, budget=Matched(self.predicted[i], bits, self.cost(1)))

    def residual_room(self, gop: Gop, record: int | None, size: int, symbols: int) -> int:
        """Bytes for the residual of a GOP whose record of `record` bytes has `size` without it."""
        if not (gop.tail and self.residual):
            return 0
        if record is None:
            return int(symbols * self.residual / (1 - self.residual))
        return record - size - 5  # its own length, and what the record's may grow

    def spent(self, size: int) -> None:
        """Take the bytes of a finished record from the account."""
        if self.left is not None:
            self.left -= size


_LEAST = 2  # bits per frame-step below which coding none of it is the better choice;
_FIRST = 4  # a GOP's first count needs a few more


def free_frames(gop: Gop, spec: Spec) -> int:
    """Latent frames of a GOP that no condition fixes."""
    at = spec.stride[0], spec.last_alone
    return gop.latent_frames(*at) - gop.known_frames(*at)


def symbol_bits(room: int) -> int:
    """Bits of symbols that fit into so many bytes of a record, whatever its other fields hold."""
    # The fields that hold the record's length and the atoms may grow with the symbols.
    growth = 3 * len(bitstream.varint(max(0, 2 * room))) - 2
    return max(0, 32 * ((room - growth) // 4) - 1)
