"""When pictures are shown: from the time stamps of a file to ticks of a constant rate.

A stream of variable rate becomes one of constant rate. A picture that stays on screen is repeated,
which costs next to nothing; one without a tick of its own is lost. So the rate is the smallest one
at which every picture has a tick of its own, unless that is more than anybody can see or than the
clip is worth.
"""

from __future__ import annotations

from bisect import bisect_right
from collections import deque
from collections.abc import Sequence
from fractions import Fraction
from itertools import pairwise
from math import ceil, gcd, lcm

from gvcc.errors import ConfigError, MediaError

_NTSC = Fraction(1000, 1001)
# The rates in use, for a stream whose own are of no help.
_NAMED = (24, 30, 48, 60, 120)  # the ones that are also run at 1000/1001
_USUAL = {Fraction(fps) for fps in (10, 12, 15, 20, 25, 50, 100, *_NAMED)}
_USUAL |= {fps * _NTSC for fps in _NAMED}
_FASTEST = Fraction(120)  # unless a stream's pictures come faster all the time
_ABSURD = Fraction(1000)  # what claims more is no rate: 90000 is the clock of MPEG
_LONGEST = 1000  # ticks for each picture, on average

# As deep as H.264 and HEVC reorder: a stamp lower than this many before it starts anew.
_DEPTH = 16

_Stamps = Sequence[int | Fraction]


def parse(text: str) -> Fraction:
    """A frame rate as a user gives it: "24", "23.976" (which means 24000/1001), "30000/1001".

    Raises `ConfigError` for what is none.
    """
    try:
        rate = Fraction(text)
    except (ValueError, ZeroDivisionError):
        raise ConfigError(f"fps: {text!r} is no frame rate like 24, 23.976 or 30000/1001") from None
    check(rate)
    whole = round(rate / _NTSC)
    # 23.976, 23.98, 29.97 and 59.94 are written short.
    if "." in text and whole in _NAMED and abs(rate - whole * _NTSC) < Fraction(1, 200):
        return whole * _NTSC
    return rate


def check(rate: Fraction) -> None:
    """`ConfigError` unless a clip may have this rate: above 0, to 1000."""
    if not 0 < rate <= _ABSURD:
        raise ConfigError(f"fps must be above 0 and at most {_ABSURD}, not {rate}")


def in_order(stamps: Sequence[int | Fraction | None], step: Fraction) -> list[int | Fraction]:
    """The times at which pictures are shown one after another, strictly growing.

    `stamps` may be out of order by as much as decoders reorder, start anew (two streams one behind
    the other), be missing (None) or come twice. Sorted, continued `step` after what was before, and
    spread evenly between their neighbours, or `step` apart where there are none.
    """
    runs: list[list[int | Fraction]] = [[]]
    recent: deque[int | Fraction] = deque(maxlen=_DEPTH)
    known = [place for place, stamp in enumerate(stamps) if stamp is not None]
    for place in known:
        stamp = stamps[place]
        assert stamp is not None
        if len(recent) == _DEPTH and stamp < min(recent):
            runs.append([])
            recent.clear()
        runs[-1].append(stamp)
        recent.append(stamp)
    out: list[int | Fraction | None] = [None] * len(stamps)
    last: int | Fraction | None = None
    places = iter(known)
    for run in runs:
        run.sort()
        begins_anew = last is not None and bool(run) and run[0] <= last
        shift = last + step - run[0] if begins_anew and last is not None else 0
        for stamp in run:
            place = next(places)
            if last is None or stamp + shift > last:
                out[place] = last = stamp + shift
    return _filled(out, step)


def _filled(times: list[int | Fraction | None], step: Fraction) -> list[int | Fraction]:
    """Growing times with those that are None put evenly between their neighbours."""
    known = [place for place, time in enumerate(times) if time is not None]
    if not known:
        return [place * step for place in range(len(times))]
    out: list[int | Fraction] = []
    first = times[known[0]] or 0
    out += [first - (known[0] - place) * step for place in range(known[0])]
    for here, there in pairwise(known):
        a, b = times[here] or 0, times[there] or 0
        out += [a + Fraction((b - a) * n, there - here) if n else a for n in range(there - here)]
    last = times[known[-1]] or 0
    return out + [last + n * step if n else last for n in range(len(times) - known[-1])]


def rate(stamps: _Stamps, base: Fraction, declared: Sequence[Fraction]) -> Fraction | None:
    """The rate for pictures at the growing times `stamps`, in units of `base` seconds.

    `declared` are the rates that the file claims, best first. In turn: one that all stamps fit, as
    far as `base` can tell; one that they fit but for gaps; one that gives each picture the next
    tick, however much they jitter; a usual one, or that of the stamps themselves, which they fit
    but for gaps; the smallest at which each picture has a tick of its own; the one that loses
    fewest. None if there is no telling. Raises `MediaError` if that would be pictures on screen for
    a thousand ticks each.
    """
    rates = [guess for guess in declared if 0 < guess <= _ABSURD]
    span = (stamps[-1] - stamps[0]) * base if stamps else Fraction(0)
    if not span:
        return rates[0] if rates else None
    measured = _simple((len(stamps) - 1) / span)
    if measured <= _ABSURD:
        rates.append(measured)
    for guess in rates:
        if _fits(stamps, guess * base):
            return guess
    fastest = min(max(_FASTEST, 2 * measured), _ABSURD)
    grid = _grid(stamps, base)

    def places(guess: Fraction) -> list[int]:
        return ticks(stamps, guess * base)

    def worth_it(guess: Fraction) -> bool:
        return span * guess <= _LONGEST * len(stamps)

    def gapped(guess: Fraction) -> bool:
        found = places(guess)
        return _apart(found) and _exact(stamps, guess * base, found)

    def jittered(guess: Fraction) -> bool:
        return places(guess) == list(range(len(stamps)))

    usual = sorted(guess for guess in _USUAL | {grid} if guess <= _FASTEST / 2)
    for is_right, in_turn in ((gapped, sorted(rates)), (jittered, rates), (gapped, usual)):
        for guess in in_turn:
            if guess <= fastest and worth_it(guess) and is_right(guess):
                return guess
    closest = 1 / (min(b - a for a, b in pairwise(stamps)) * base)
    guesses = {n * guess for guess in rates for n in range(1, 9)} | _USUAL | {grid, closest}
    guesses = {guess for guess in guesses | {Fraction(ceil(closest))} if guess <= fastest}
    enough = next((guess for guess in sorted(guesses) if _apart(places(guess))), None)
    if enough is not None and worth_it(enough):
        return enough
    least = [guess for guess in guesses if worth_it(guess)]
    if enough is None and least:
        return max(least, key=lambda guess: (len(set(places(guess))), -guess))
    raise MediaError(
        f"its timestamps jump: {len(stamps)} pictures in {float(span):g} s; --fps gives a rate"
    )


def _simple(rate: Fraction) -> Fraction:
    """The nearest rate, or frame duration, with a small denominator."""
    if rate >= 1:
        return rate.limit_denominator(1001)
    return 1 / (1 / rate).limit_denominator(1001)


def _grid(stamps: _Stamps, base: Fraction) -> Fraction:
    """The rate whose ticks the stamps are multiples of, exactly."""
    steps = [Fraction(stamp - stamps[0]) for stamp in stamps[1:]]
    scale = lcm(*(step.denominator for step in steps))
    return scale / (gcd(*(int(step * scale) for step in steps)) * base)


def _fits(stamps: _Stamps, step: Fraction) -> bool:
    """Whether picture k is at k ticks, `step` of them per unit, to within a unit."""
    up, down, first = step.numerator, step.denominator, stamps[0]
    return all(-up <= (stamp - first) * up - k * down <= up for k, stamp in enumerate(stamps))


def _exact(stamps: _Stamps, step: Fraction, places: list[int]) -> bool:
    """Whether pictures are where their ticks `places` are, to within a unit or a quarter tick."""
    up, down, first = step.numerator, step.denominator, stamps[0]
    most = min(Fraction(up), Fraction(down, 4))
    return all(
        -most <= (stamp - first) * up - place * down <= most
        for stamp, place in zip(stamps, places, strict=True)
    )


def ticks(stamps: _Stamps, step: Fraction) -> list[int]:
    """The tick nearest to each stamp, `step` of them per unit, the first being 0."""
    up, down, first = step.numerator, step.denominator, stamps[0]
    return [int((2 * (stamp - first) * up + down) // (2 * down)) for stamp in stamps]


def _apart(places: list[int]) -> bool:
    return all(a < b for a, b in pairwise(places))


def on_screen(times: _Stamps, fps: Fraction, tail: Fraction | int, all_of_it: bool) -> list[int]:
    """For each tick of the output the index of the picture on screen in the middle of it.

    `times`, growing, and `tail`, how long the last picture stays, are in seconds. `all_of_it`: the
    last picture has a tick even if it stays for less than half of one.
    """
    places = ticks(times, fps)
    length = max(1, int((times[-1] + tail - times[0]) * fps + Fraction(1, 2)))
    if all_of_it or not tail:
        length = max(length, places[-1] + 1)
    if length > _LONGEST * len(times):
        raise MediaError(f"its timestamps jump: {len(times)} pictures in {float(length / fps):g} s")
    return [bisect_right(places, tick) - 1 for tick in range(length)]
