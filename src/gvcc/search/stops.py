"""Adaptive Quality Control: where along its trajectory each GOP stops (Free-GVC, arXiv 2602.09868).

The coded steps of a schedule are a prefix code: one pass towards the clip's latent has every stop
in it, and finding the right one takes no further coding. The bits of a stop are known; its quality
takes a probe: the ODE, the autoencoder's decoder and the metric. A stop may lie inside a step, in
256ths of it.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from functools import partial
from typing import Any, NamedTuple

from torch import Tensor

from gvcc import flow
from gvcc.decode import trajectory as track
from gvcc.decode.scheme import Coder, LatentShape, Scheme
from gvcc.decode.times import times
from gvcc.format.bitstream import Header
from gvcc.format.entropy import SymbolWriter
from gvcc.priors import Condition
from gvcc.search.quality import Curve, Goal, Surrogate
from gvcc.search.steer import Aim, Choose, choose

PROBES = 5  # of one GOP at the most
FIRST_GUESS = 0.05  # bits per pixel, before anything is known


class Stop(NamedTuple):
    """Coded steps, 256ths of another, and the bits of their symbols."""

    step: int
    fraction: int
    bits: int


class Pass:
    """One coding of a GOP, step by step, as deep as somebody asks, at most `deepest` coded steps.

    `free` are the latent frames that take symbols, `dealt` their atoms where the allocation is
    uniform. A stop inside a step needs a header with a schedule. `observe(step, bytes)` is called
    after each network call.
    """

    def __init__(
        self, condition: Condition, header: Header, gop: int, shape: LatentShape, coder: Coder,
        aim: Aim, free: Sequence[int], deepest: int, dealt: Sequence[list[int]],
        observe: Callable[[int, int], None],
    ) -> None:  # fmt: skip
        self.deepest = deepest
        self._header, self._observe = header, observe
        if header.reuse > 1:
            sparse = track.sparse(condition.denoise, header.reuse, deepest)
            condition = condition._replace(denoise=sparse)
        self._condition = condition
        self._make: Callable[[], Scheme] = partial(coder.scheme, header, gop, free, shape, dealt)
        self._noise = Choose(self._make(), aim, deepest)
        self._path, self._coded = flow.PATHS[header.path], self._times(deepest, 0)
        self._known = None if free else track.all_known(condition)
        self._states = [condition.begin(coder.initial(shape, gop))]
        self._hats: dict[int, Tensor] = {}
        self._bits = [0]
        self._inside: dict[tuple[int, int], tuple[Tensor, list[Any], int]] = {}

    def bits(self, step: int) -> int:
        """Bits of the first so many steps, which are coded if they have not been."""
        start = len(self._states) - 1
        if step > start:

            def noise(step: int, t: float, s: float, x0hat: Tensor) -> Tensor | None:
                self._hats[start + step] = x0hat
                z = self._noise(start + step, t, s, x0hat)
                self._bits.append(self._noise.writer.total)
                return z

            def seen(i: int, x: Tensor) -> None:
                self._states.append(x)
                self._observe(start + i, self._bits[-1] // 8)

            at = self._coded[start : step + 1]
            track.walk(self._condition, self._header, self._states[start], at, noise, seen)
        return self._bits[step]

    def fraction_for(self, step: int, bits: float) -> int:
        """About how many 256ths of step number `step` (from 0) take so many bits: information is in
        proportion to the growth of the SNR."""
        whole = self.bits(step + 1) - self.bits(step)
        t, s = self._coded[step], self._coded[step + 1]
        low, high = flow.snr(self._path, t), flow.snr(self._path, s)
        wanted = low + (high - low) * min(max(bits / max(whole, 1), 0.0), 1.0)
        first, last = 0, 256
        while last - first > 1:
            mid = (first + last) // 2
            inside = flow.snr(self._path, t + (s - t) * mid / 256) <= wanted
            first, last = (mid, last) if inside else (first, mid)
        return first

    def about(self, stop: Stop) -> float:
        """About the bits of the stop at the same place in another GOP's pass."""
        if not stop.fraction:
            return self.bits(stop.step)
        t, s = self._coded[stop.step], self._coded[stop.step + 1]
        low, high = flow.snr(self._path, t), flow.snr(self._path, s)
        share = (flow.snr(self._path, t + (s - t) * stop.fraction / 256) - low) / (high - low)
        return (1 - share) * self.bits(stop.step) + share * self.bits(stop.step + 1)

    def _at(self, step: int, fraction: int) -> tuple[Tensor, list[Any], int]:
        """The state of a stop, its symbols and their bits."""
        before = self.bits(step)
        if not fraction:
            return self._states[step], self._noise.symbols[:step], before
        if (step, fraction) not in self._inside:
            if step not in self._hats:
                x, t = self._states[step], self._coded[step]
                self._hats[step] = self._condition.denoise(x, t)
                self._observe(step, before // 8)
            hat, scheme, aim = self._hats[step], self._make(), self._noise.aim
            symbols = list(self._noise.symbols[:step])

            first = step

            def noise(step: int, t: float, s: float, x0hat: Tensor) -> Tensor | None:
                symbols.append(choose(scheme, aim, first + step, t, s, x0hat))
                return scheme.replay(symbols[-1], first + step, x0hat)

            at = self._times(step, fraction)[step : step + 2]
            known = self._condition._replace(denoise=lambda x, t: hat)
            x = track.walk(known, self._header, self._states[step], at, noise)
            self._inside[step, fraction] = x, symbols, self._written(symbols).total
        return self._inside[step, fraction]

    def _times(self, step: int, fraction: int) -> list[float]:
        return times(self._header, step, fraction, self._condition.start)

    def _written(self, symbols: list[Any]) -> SymbolWriter:
        scheme, writer = self._make(), SymbolWriter()
        for s in symbols:
            scheme.write(s, writer)
        return writer

    def stop(self, step: int, fraction: int) -> Stop:
        """A stop with its bits."""
        return Stop(step, fraction, self._at(step, fraction)[2])

    def symbols(self, stop: Stop) -> bytes:
        """The symbols of a stop, as its record has them."""
        if not stop.fraction and stop.step == len(self._noise.symbols):
            return self._noise.writer.finish()
        return self._written(self._at(stop.step, stop.fraction)[1]).finish()

    def latent(self, stop: Stop) -> Tensor:
        """What a decoder makes of a stop: the ODE from there to the end."""
        if self._known is not None:
            return self._known
        x, at = self._at(stop.step, stop.fraction)[0], self._times(stop.step, stop.fraction)
        begin = stop.step + (stop.fraction > 0)

        def ode(step: int, t: float, s: float, x0hat: Tensor) -> Tensor | None:
            self._observe(begin + step, stop.bits // 8)
            return None

        return track.walk(self._condition, self._header, x, at[begin:], ode)

    def within(self, bits: float) -> Stop:
        """The deepest stop of at most so many bits."""
        step = 0
        while step < self.deepest and self.bits(step + 1) <= bits:
            step += 1
        best = self.stop(step, 0)
        if step == self.deepest:
            return best
        room = bits - best.bits
        for share in (1.0, 0.97, 0.93, 0.85):  # coding overshoots now and then
            fraction = self.fraction_for(step, share * room)
            if fraction and (found := self.stop(step, fraction)).bits <= bits:
                return found
        return best

    def near(self, bits: float) -> Stop:
        """A stop of about so many bits, or the deepest."""
        step = 0
        while step < self.deepest and self.bits(step + 1) <= bits:
            step += 1
        if step == self.deepest:
            return self.stop(step, 0)
        return self.stop(step, self.fraction_for(step, bits - self.bits(step)))


def reach(
    coded: Pass, goal: Goal, surrogate: Surrogate, pixels: int, probe: Callable[[Stop], float],
    before: tuple[Stop, float] | None = None,
) -> tuple[Stop, float]:  # fmt: skip
    """The stop whose quality comes nearest to the goal, of at most PROBES, and its quality.

    The first look is where the GOP before stopped, at this GOP's own rate there, moved by what that
    GOP missed the goal by along the surrogate: at one noise level quality changes less from GOP to
    GOP than at one rate. Each probe corrects the surrogate, and once the goal lies between two
    probes so does the next one. Half the tolerance is good enough.
    """
    tried: dict[Stop, float] = {}
    wanted, curve = FIRST_GUESS, surrogate.curve()
    if before is not None:
        stop, found = before
        wanted = max(coded.about(stop), 1) / pixels
        if curve is not None:
            wanted *= _factor(curve, wanted, goal.value - found)
    elif curve is not None:
        wanted = curve.rate(goal.value)
    while len(tried) < PROBES:
        stop = coded.near(min(wanted, 10.0) * pixels)
        if stop in tried:
            break
        found = tried[stop] = probe(stop)
        surrogate.add(stop.bits / pixels, found)
        lacking = found < goal.value - goal.tolerance and stop.step == coded.deepest
        if abs(found - goal.value) <= goal.tolerance / 2 or lacking:
            break
        wanted = _next(tried, goal.value, surrogate, pixels)
    best = min(tried, key=lambda s: abs(tried[s] - goal.value))
    surrogate.next_gop()
    return best, tried[best]


def _next(tried: dict[Stop, float], value: float, surrogate: Surrogate, pixels: int) -> float:
    """The rate to try next, bits per pixel."""
    by_rate = sorted((max(s.bits, 1) / pixels, q) for s, q in tried.items())
    low = max((r for r in by_rate if r[1] < value), default=None)
    high = min((r for r in by_rate if r[1] >= value), default=None)
    if low is not None and high is not None and low[0] < high[0]:
        share = (value - low[1]) / (high[1] - low[1])
        between: float = low[0] * (high[0] / low[0]) ** min(max(share, 0.1), 0.9)
        return between
    rate, found = by_rate[-1] if high is None else by_rate[0]
    curve = surrogate.curve()
    if curve is not None and curve.b > 0:
        return rate * _factor(curve, rate, value - found)
    return rate * (2.0 if found < value else 0.5)


def _factor(curve: Curve, rate: float, more: float) -> float:
    """What to multiply a rate by for so much more quality: the curve's own slope, through another
    point; a quarter to four."""
    if curve.b <= 0:
        return 1.0
    moved = curve.rate(curve.quality(rate) + more)
    return min(max(moved / rate, 0.25), 4.0)
