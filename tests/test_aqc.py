"""Adaptive Quality Control: one pass has every stop in it, and few probes find the right one."""

from __future__ import annotations

import functools
import math
from collections.abc import Callable
from dataclasses import replace
from typing import Any

import decoding
import numpy as np
import pytest
import tiny_prior
import whole_files
from test_roundtrip import clip, psnr

from gvcc import codec, encoder
from gvcc.decode import rcc, trajectory
from gvcc.decode.session import Given, Session
from gvcc.format import bitstream, entropy, parser, schedules
from gvcc.priors import Prior
from gvcc.search import steer
from gvcc.search import stops as aqc
from gvcc.search.allocation import Proportional
from gvcc.search.config import EncodeConfig
from gvcc.search.quality import METRICS, Goal, Surrogate
from gvcc.search.stops import Pass, Stop, reach

CODERS = ("rcc", "codebook")
LAST = len(schedules.SCHEDULES[-1])


pytestmark = pytest.mark.usefixtures("one_thread")


@functools.cache
def prior() -> Prior:
    return tiny_prior.load()


@functools.cache
def coded(coder: str) -> tuple[Any, Pass]:
    """A GOP of 9 frames of 33 x 49 under way, as the encoder has it."""
    video = clip(9, 33, 49)
    own = encoder._Encoder(video, EncodeConfig(coder=coder, stop=LAST), prior(), None)
    (g,) = own.gops
    session = Session(own.draft, prior())
    condition, shape = session.condition(g, Given()), session.shape(g)
    x0 = prior().encode(session.padded(g, video.frames))
    budget = None if coder == "rcc" else Proportional(session.coder().bits(1))
    aim = steer.Aim(x0, prior().spec.metric, budget)
    made = Pass(condition, own.draft, 0, shape, session.coder(), aim, range(shape[1]), LAST, (),
                lambda *_: None)  # fmt: skip
    return own, made


# -- one pass ---------------------------------------------------------------------------------


@pytest.mark.parametrize("coder", CODERS)
def test_bits_grow_with_each_step_and_are_those_of_the_record(coder: str) -> None:
    made = coded(coder)[1]
    bits = [made.bits(n) for n in range(LAST + 1)]
    assert bits[0] == 0 and all(a < b for a, b in zip(bits, bits[1:], strict=False))
    for n in (1, 7, LAST):
        stop = made.stop(n, 0)
        assert stop == Stop(n, 0, bits[n])
        assert 0 < 8 * len(made.symbols(stop)) - stop.bits + 32 <= 64
    assert made.symbols(made.stop(0, 0)) == b""


@pytest.mark.parametrize("coder", CODERS)
@pytest.mark.parametrize(
    ("step", "part"), [(0, 0), (0, 100), (5, 0), (5, 1), (5, 255), (20, 64), (LAST, 0)]
)
def test_a_stop_decodes_to_the_encoders_own_latent(coder: str, step: int, part: int) -> None:
    own, made = coded(coder)
    stop = made.stop(step, part)
    latent, symbols = made.latent(stop), made.symbols(stop)
    record = replace(bitstream.empty_gop(own.gops[0]), stop=step, fraction=part, symbols=symbols,
                     check=trajectory.check(latent, own.draft, 0))  # fmt: skip
    data = whole_files.write(bitstream.Stream(own.draft, (record,)))
    read = parser.parse(data)
    (got,) = decoding.made(read, prior())
    assert bool((got.latent == latent).all())
    assert np.array_equal(codec.decode(data, prior()).frames, got.pictures)


@pytest.mark.parametrize("coder", CODERS)
def test_part_of_a_step_costs_part_of_its_bits(coder: str) -> None:
    made = coded(coder)[1]
    for step in (10, 14, 20):
        low, high = made.bits(step), made.bits(step + 1)
        found = [made.stop(step, part).bits for part in (32, 96, 160, 224)]
        assert low < found[0] < found[-1] <= 1.05 * high
        for share in (0.25, 0.5, 0.75):
            part = made.fraction_for(step, share * (high - low))
            assert 0 < part < 256
            got = (made.stop(step, part).bits - low) / (high - low)
            assert got == pytest.approx(share, abs=0.15)
        parts = [made.fraction_for(step, b) for b in np.linspace(0, high - low, 20)]
        assert parts == sorted(parts) and parts[0] == 0 and parts[-1] == 255


@pytest.mark.parametrize("coder", CODERS)
def test_within_never_exceeds_its_bits_and_comes_near(coder: str) -> None:
    made = coded(coder)[1]
    top, misses = made.bits(LAST), []
    for bits in [0, 1, 40, *np.geomspace(200, 1.2 * top, 40)]:
        got = made.within(bits)
        assert got.bits <= bits and got == made.stop(got.step, got.fraction)
        if bits >= top:
            assert got == Stop(LAST, 0, top)
        elif bits > 2000:
            misses.append(1 - got.bits / bits)
    assert np.mean(misses) < 0.025 and max(misses) < 0.12  # by no more than 64 bytes


@pytest.mark.parametrize("coder", CODERS)
def test_near_is_about_so_many_bits_or_the_deepest(coder: str) -> None:
    made = coded(coder)[1]
    for bits in np.geomspace(2000, made.bits(LAST) - 1, 12):
        assert made.near(bits).bits == pytest.approx(bits, rel=0.05)
    assert made.near(1e12) == made.stop(LAST, 0) and made.near(0) == Stop(0, 0, 0)


def test_a_pass_goes_no_deeper_than_it_is_asked_to_and_codes_nothing_twice(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    coded.cache_clear()
    calls: list[int] = []
    real = steer.Choose.__call__

    def spy(self: Any, step: int, *rest: Any) -> Any:
        calls.append(step)
        return real(self, step, *rest)

    monkeypatch.setattr(steer.Choose, "__call__", spy)
    made = coded("rcc")[1]
    for ask, deep in ((3, 3), (2, 3), (7, 7), (7, 7)):
        made.bits(ask)
        assert calls == list(range(deep))
    made.latent(made.stop(5, 9))
    made.symbols(made.stop(7, 200))
    assert calls == list(range(7))
    coded.cache_clear()


# -- the goal ---------------------------------------------------------------------------------


class Fine:
    """A pass that has a stop for every number of bits up to a most."""

    deepest = LAST

    def __init__(self, most: int = 10**9) -> None:
        self.most = most

    def about(self, stop: Stop) -> float:
        return stop.bits

    def near(self, bits: float) -> Stop:
        got = min(int(bits), self.most)
        return Stop(LAST if got == self.most else 1, 0, got)


PIXELS = 100_000
Curve = Callable[[float], float]
LAWS: dict[str, Curve] = {
    "log": lambda r: 38 + 2.5 * math.log(r), "power": lambda r: 45 - 1.2 * r**-0.5,
    "exponential": lambda r: 36 - 16 * math.exp(-20 * r),
}  # fmt: skip


def controlled(law: Curve, value: float, gops: int, noise: float, most: int = 10**9,
               seed: int = 0) -> list[tuple[float, int]]:  # fmt: skip
    """What each GOP of a clip reaches, PSNR, and the probes that took; a GOP's own level differs,
    and each probe has noise of its own."""
    rng, surrogate, out = np.random.default_rng(seed), Surrogate(), []
    before: tuple[Stop, float] | None = None
    for _ in range(gops):
        level, probes = rng.normal(0, 0.5), [0]

        def probe(stop: Stop, level: float = level, probes: list[int] = probes) -> float:
            probes[0] += 1
            return law(max(stop.bits, 1) / PIXELS) + level + rng.normal(0, noise)

        fine: Any = Fine(most)
        before = reach(fine, Goal("psnr", value), surrogate, PIXELS, probe, before)
        out.append((before[1], probes[0]))
    return out


@pytest.mark.parametrize("law", LAWS.values(), ids=LAWS)
@pytest.mark.parametrize("value", [28.0, 31.0, 34.0])
def test_the_goal_is_reached_by_the_third_gop(law: Curve, value: float) -> None:
    """And with few probes, from then on."""
    tolerance, late, probes = METRICS["psnr"].tolerance, [], []
    for seed in range(20):
        found = controlled(law, value, 8, 0.03, seed=seed)
        late += [abs(q - value) <= tolerance for q, _ in found[2:]]
        probes += [n for _, n in found[3:]]
    assert np.mean(late) >= 0.95
    assert max(probes) <= aqc.PROBES and np.mean(probes) < 3


def test_a_goal_out_of_reach_takes_the_deepest_stop_and_one_too_low_the_shallowest() -> None:
    found = controlled(LAWS["log"], 50.0, 4, 0.0, most=20_000)
    for quality, _ in found:
        assert quality == pytest.approx(38 + 2.5 * math.log(0.2), abs=2)
    assert found[-1][1] <= 2  # it does not go on looking where there is nothing deeper
    assert all(n <= aqc.PROBES for _, n in controlled(LAWS["log"], 5.5, 4, 0.0))


@pytest.mark.parametrize("coder", CODERS)
def test_a_clip_coded_to_a_quality_has_it_and_says_so(coder: str) -> None:
    video, value = clip(33, 33, 49), 20.0
    asked = EncodeConfig(coder=coder, quality=f"psnr:{value}")
    parts = list(codec.encode_parts(video, asked, prior()))
    said = [p.quality for p in parts if p.pictures is not None]
    gops = parser.parse(b"".join(p.data for p in parts)).gops
    shown = np.concatenate([p.pictures for p in parts if p.pictures is not None])
    assert len(said) == len(gops) == 4
    for q, record in zip(said, gops, strict=True):
        assert q is not None
        own = slice(record.gop.start, record.gop.end)
        frames = [psnr(a, b) for a, b in zip(video.frames[own], shown[own], strict=True)]
        assert q == pytest.approx(np.mean(frames), abs=0.1)
    assert all(abs(q - value) <= 0.2 for q in said[2:] if q is not None)
    back = codec.decode(b"".join(p.data for p in parts), prior()).frames
    assert np.array_equal(back, shown)


def test_symbols_of_a_stop_inside_a_step_are_a_prefix_and_the_parts_own() -> None:
    own, made = coded("rcc")
    stop, whole = made.stop(6, 77), made.stop(6, 0)
    session = Session(own.draft, prior())
    coder, law = session.coder(), rcc.Law()
    readers = [entropy.SymbolReader(made.symbols(s)) for s in (stop, whole)]
    dim = int(np.prod(session.shape(own.gops[0])))
    laws = [law, rcc.Law()]
    for _ in range(6):
        a, b = (coder.read(dim, l, r) for l, r in zip(laws, readers, strict=True))  # noqa: E741
        assert a.c == b.c and np.array_equal(a.numbers, b.numbers)
    assert len(coder.read(dim, law, readers[0]).numbers) >= 1
