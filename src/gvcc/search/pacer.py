"""A file's bytes shared out among its GOPs, and the account of them."""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import NamedTuple

from gvcc import flow
from gvcc.decode.times import TAIL, times
from gvcc.errors import ConfigError, TargetUnreachable
from gvcc.format import bitstream, coders
from gvcc.format.bitstream import Header
from gvcc.format.cursor import varint
from gvcc.format.gop import Gop
from gvcc.priors import Spec
from gvcc.records import Audio
from gvcc.search.allocation import (
    SIDE_BITS,
    Budget,
    Matched,
    Profile,
    Proportional,
    solve_shift,
    uniform_atoms,
)
from gvcc.search.config import STILL_MOST, Parameters
from gvcc.search.plan import variants

DEFAULT_BPP = 0.05
STILL_SHARE = 0.25  # of the bytes of a GOP, for each still in it
STILL_BPP = 0.3  # of a still, where no target is set
RESIDUAL_SHARE = 0.08  # of the bytes of atoms and residual, for the residual
# More than this is not seen (bench/systems/usable.py), and takes for ever:
USABLE_BITS = 8  # for a value of the latent
SLACK = 2**14  # bytes of a file that are not worth a refusal


@dataclass(frozen=True)
class Grant:
    """What one GOP may spend: bytes of its record (None: no target) and of each still in it."""

    record: int | None
    still: int


class Look(NamedTuple):
    """A first look at a GOP that is a base: what it asks for beside others, and the bytes of its
    smallest record."""

    weight: float
    smallest: int


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
        self, header: Header, parameters: Parameters, gops: Sequence[Gop], audio: Audio | None,
        spec: Spec, cost: Callable[[int], int],
    ) -> None:  # fmt: skip
        self.header, self.gops, self.spec, self.cost = header, gops, spec, cost
        self.free = [free_frames(g, spec) for g in gops]
        self.stop = header.steps - header.ode_steps
        asked = parameters.asked
        self.atoms, self.tail_atoms = parameters.atoms, parameters.tail_atoms
        self.residual = RESIDUAL_SHARE if asked.residual == "coded" else 0.0
        head = bitstream.write_header(header)
        sound = 0 if audio is None else len(bitstream.write_audio(audio, head))
        candidates = [variants(g, None, False) if parameters.mode == "auto" else (g,) for g in gops]
        self.empty = [
            max(bitstream.gop_size(bitstream.empty_gop(v)) for v in c) for c in candidates
        ]
        smallest = len(head) + sound + sum(self.empty)
        shape = header.frames, header.height, header.width
        target = asked.target(*shape, header.fps)
        free_running = asked.quality is not None or asked.stop is not None
        if target is None and header.allocation == "matched" and not free_running:
            target = max(int(DEFAULT_BPP * math.prod(shape) / 8), smallest + 64 * len(gops))
        self.target, self.sound = target, sound
        self.usual = asked.target(*shape, header.fps) is None
        if parameters.mode != "v2v":  # else `weigh` says how small bases go
            if target is not None and target < smallest:
                raise self.unreachable(smallest - target)
            self._check_use(target, smallest)
        self.left = None if target is None else target - len(head) - sound
        if asked.still_bpp is not None:
            self.still = [int(asked.still_bpp * header.height * header.width / 8)] * len(gops)
            of_stills = sum(g.stills * n for g, n in zip(gops, self.still, strict=True))
            if self.left is not None and sum(self.empty) + of_stills > self.left:
                raise self.unreachable(sum(self.empty) + of_stills - self.left)
        elif self.left is None:
            self.still = [int(STILL_BPP * header.height * header.width / 8)] * len(gops)
        else:
            each = STILL_SHARE * (self.left - sum(self.empty)) / header.frames
            self.still = [int(each * g.frames) for g in gops]
        self.predicted: list[list[float]] = [[float(f)] for f in self.free]
        if parameters.mode == "v2v":
            self.predicted = [[float(g.frames)] for g in gops]

    def unreachable(self, missing: int) -> TargetUnreachable:
        """The error for a target that is so many bytes too small."""
        smallest = (self.target or 0) + missing
        of_them = f", {self.sound} of them audio" if self.sound else ""
        text = f"{self.target} bytes cannot be reached; the smallest file is {smallest} bytes"
        return TargetUnreachable(text + of_them, smallest)

    def weigh(self, looks: Sequence[Look]) -> None:
        """Say what GOPs that are bases ask for, and how small they go. Raises TargetUnreachable."""
        assert self.left is not None
        self.predicted = [[look.weight] for look in looks]
        self.empty = [look.smallest for look in looks]
        if self.usual:  # nobody has asked for this size
            self.left = max(self.left, round(1.1 * sum(self.empty)))
        if sum(self.empty) > self.left:
            raise self.unreachable(sum(self.empty) - self.left)

    def most(self, i: int) -> int | None:
        """Bytes of GOP number i, the next one, if all later ones were as small as they go."""
        return None if self.left is None else self.left - sum(self.empty[i + 1 :])

    def _check_use(self, target: int | None, smallest: int) -> None:
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
        if self.header.coder == "hadamard" and self.atoms is not None:
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
        room -= int(room * self.residual * sum(g.chained for g in self.gops) / len(self.gops))
        side = sum(self.stop * f * SIDE_BITS for f in self.free)
        symbols = len(self.gops) * symbol_bits(room // len(self.gops)) - side
        if header.schedule:
            low, high = 0, 256 * self.stop  # a step's 256ths
            while high - low > 1:
                mid = (low + high) // 2
                at = times(header, *divmod(mid, 256))[: -header.ode_steps]
                asked = sum(sum(p.bits(path, at)) for p in profiles)
                low, high = (low, mid) if asked > symbols else (mid, high)
            at = times(header, *divmod(high, 256))[: -header.ode_steps]
            self.predicted = [p.bits(path, at) for p in profiles]
            return header
        shift = solve_shift(profiles, path, header.steps, header.ode_steps, max(1.0, symbols))
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
        if self.header.schedule:
            if room is not None:  # 1: the part of a step
                room = symbol_bits(room - (int(room * self.residual) if gop.chained else 0) - 1)
            budget = None if self.header.coder == "rcc" else Proportional(self.cost(1))
            return Allotment(self.stop, budget=budget, bits=room)
        if room is None:
            apart = min(TAIL, frames) if tail and self.tail_atoms else 0
            assert self.atoms is not None  # uniform without a target
            front = self.atoms * self.stop * (frames - apart)
            return Allotment(self.stop, front, (self.tail_atoms or 0) * self.stop * apart)
        bits = symbol_bits(room - (int(room * self.residual) if gop.chained else 0))
        if bits < _LEAST * self.stop * frames + _FIRST:
            return Allotment(0)
        if self.header.allocation == "uniform":
            # Beyond half a codebook a larger subset hardly steers better.
            most = coders.row(self.header.coder).atoms_within(self.header.codebook_size // 2 + 1)
            atoms = uniform_atoms(bits, self.stop, frames, self.cost, most, tail)
            return Allotment(self.stop, *atoms)
        return Allotment(self.stop, budget=Matched(self.predicted[i], bits, self.cost(1)))

    def residual_room(self, gop: Gop, record: int | None, size: int, symbols: int) -> int:
        """Bytes for the residual of a GOP whose record of `record` bytes has `size` without it."""
        if not (gop.chained and self.residual):
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
    growth = 3 * len(varint(max(0, 2 * room))) - 2
    return max(0, 32 * ((room - growth) // 4) - 1)
