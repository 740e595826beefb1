"""Every stop of a trajectory is a prefix of the same code; the parse needs no network."""

from __future__ import annotations

import functools
from dataclasses import replace
from typing import Any

import decoding
import numpy as np
import pytest
import tiny_prior
import torch
from test_roundtrip import clip, psnr

from gvcc import codec, flow
from gvcc.decode import rcc, trajectory
from gvcc.decode import times as timing
from gvcc.decode.session import Session
from gvcc.errors import ConfigError
from gvcc.format import bitstream, parser, schedules
from gvcc.format.bitstream import Stream
from gvcc.priors import Prior
from gvcc.search import steer
from gvcc.search.config import EncodeConfig

CODERS = ("rcc", "codebook")
LAST = 8  # coded steps: every third time of the priors' schedules


pytestmark = pytest.mark.usefixtures("short_schedules")


@functools.cache
def prior() -> Prior:
    return tiny_prior.load()


@functools.cache
def stopped(coder: str, stop: int) -> codec.Encoding:
    """A GOP of 9 frames of 33 x 49 coded to a stop."""
    return codec.encode(clip(9, 33, 49), EncodeConfig(coder=coder, stop=stop), prior())


def parsed(coder: str, stop: int) -> Stream:
    return parser.parse(stopped(coder, stop).data)


# -- prefixes ---------------------------------------------------------------------------------


@pytest.mark.parametrize("stop", range(1, LAST + 1))
@pytest.mark.parametrize("coder", CODERS)
def test_the_first_steps_of_a_file_are_the_file_of_that_stop(coder: str, stop: int) -> None:
    whole, want = parsed(coder, LAST), parsed(coder, stop)
    assert want.header == whole.header and want.gops[0].stop == stop and not want.gops[0].part
    record = replace(whole.gops[0], stop=stop)  # the symbols of all steps; fewer are read
    (got,) = decoding.made(bitstream.Stream(whole.header, (record,)), prior())
    assert np.array_equal(got.pictures, stopped(coder, stop).frames)


@pytest.mark.parametrize("coder", CODERS)
def test_deeper_stops_cost_more_and_show_more(coder: str) -> None:
    video = clip(9, 33, 49)
    sizes = [len(parsed(coder, n).gops[0].symbols) for n in range(1, LAST + 1)]
    assert sizes == sorted(sizes) and sizes[-1] > 20 * sizes[0]
    quality = [psnr(video.frames, stopped(coder, n).frames) for n in (2, 5, LAST)]
    assert quality == sorted(quality) and quality[2] > quality[0] + 3


@pytest.mark.parametrize("stop", [0, -1, LAST + 1])
def test_stops_that_are_none(stop: int) -> None:
    with pytest.raises(ConfigError, match=f"stop is {stop}"):
        codec.encode(clip(9, 33, 49), EncodeConfig(coder="rcc", stop=stop), prior())


@pytest.mark.parametrize("coder", CODERS)
def test_the_parse_does_not_depend_on_the_network(coder: str) -> None:
    """The same symbols whatever x0hat is; a small error there is a small error of the pictures."""
    made, model = stopped(coder, LAST), tiny_prior.load()
    exact = model.denoise
    seen: dict[float, list[Any]] = {}
    for size in (0.0, 1e-3, 1e3):
        g = torch.Generator().manual_seed(1)

        def denoise(x: Any, t: float, size: float = size, g: Any = g, **rest: Any) -> Any:
            return exact(x, t, **rest) + size * torch.randn(x.shape, generator=g)

        seen[size], real = [], trajectory.Read.symbols

        def spy(self: Any, step: int, size: float = size, real: Any = real) -> Any:
            out = real(self, step)
            seen[size].append([out.c, *out.numbers] if coder == "rcc" else
                              [(f, *map(int, s)) for f, s in out.items()])  # fmt: skip
            return out

        with pytest.MonkeyPatch.context() as m:
            m.setattr(trajectory.Read, "symbols", spy)
            m.setattr(model, "denoise", denoise)
            back = codec.decode(made.data, model).frames
        off = np.abs(back.astype(int) - made.frames)
        if size == 0:
            assert not off.any()
        elif size == 1e-3:
            assert off.max() <= 3
        else:
            assert off.mean() > 20
    assert len(seen[0.0]) == LAST
    assert seen[0.0] == seen[1e-3] == seen[1e3]


# -- times ------------------------------------------------------------------------------------


@pytest.mark.parametrize("table", range(1, len(schedules.TABLES) + 1))
def test_times_fall_from_one_to_zero_wherever_a_gop_stops(table: int) -> None:
    header = replace(parsed("rcc", 3).header, table=table)
    coded = [1.0, *(t / 65536 for t in schedules.TABLES[table - 1])]
    for stop in range(LAST + 1):
        for part in (0, 1, 128, 255) if stop < LAST else (0,):
            at = timing.times(header, stop, part)
            assert at[: stop + 1] == coded[: stop + 1] and at[-1] == 0
            assert all(a > b for a, b in zip(at, at[1:], strict=False))
            last = at[stop + (part > 0)]
            if part:
                whole = coded[stop] - coded[stop + 1]
                assert (coded[stop] - last) / whole == pytest.approx(part / 256)
            tail = at[stop + (part > 0) :]
            assert len(tail) == header.tail + 1 and np.ptp(np.diff(tail)) < 1e-12


def test_schedules_may_be_named_in_headers() -> None:
    """Whole numbers that fall, at most 255 of them with the tail; the priors' are among them."""
    for table in schedules.TABLES:
        assert all(isinstance(t, int) for t in table) and 8 <= len(table) <= 250
        assert list(table) == sorted(set(table), reverse=True) and 0 < table[-1] < table[0] < 65536
    assert 1 <= prior().spec.table <= len(schedules.TABLES)


# -- noise ------------------------------------------------------------------------------------


@pytest.mark.parametrize("coder", CODERS)
def test_noise_of_every_step_is_of_unit_power_and_differs_between_steps(coder: str) -> None:
    stream = parsed(coder, LAST)
    session = Session(stream.header, prior())
    record = stream.gops[0]
    shape = session.shape(record.gop)
    read = trajectory.Read(session.coder(), stream.header, 0, record, shape, range(shape[1]))
    like, before = torch.zeros(shape), torch.zeros(shape)
    for step in range(LAST):
        z = read(step, 0.5, 0.4, like)
        assert z is not None and z.shape == shape
        if step < 2:  # later it leans far to the target
            assert 0.8 < float((z**2).mean()) < 1.4
            assert abs(float((z * before).mean())) < 0.2
        before = z
    assert read(LAST, 0.5, 0.4, like) is None


@pytest.mark.parametrize("known", [(), (0,), (0, 2), (1, 2)])
def test_a_channel_codes_what_is_free_and_fills_the_rest(known: tuple[int, ...]) -> None:
    header = parsed("rcc", 3).header
    session = Session(header, prior())
    shape = (6, 3, 5, 7)
    free = [f for f in range(3) if f not in known]
    channel = rcc.Channel(session.coder(), header, 0, free, shape)  # type: ignore[arg-type]
    g = torch.Generator().manual_seed(1)
    x0 = torch.randn(shape, generator=g)
    aim, hat = steer.Aim(x0, None, None), torch.zeros(shape)
    symbols = steer.choose(channel, aim, 0, 0.7, 0.4, hat)
    z = channel.replay(symbols, 0, hat)
    moved = flow.snr(flow.PATHS["rf"], 0.4) - flow.snr(flow.PATHS["rf"], 0.7)
    bits = moved * float((x0[:, free] ** 2).sum()) / (2 * np.log(2))
    assert symbols.c / 4 * len(symbols.numbers) == pytest.approx(bits, rel=0.02)
    for f in range(3):
        along = float((z[:, f] * x0[:, f]).sum() / (x0[:, f] ** 2).sum())
        assert (along > 0.4 * moved**0.5) == (f in free)
    other = x0.clone()
    other[:, list(known)] += 5  # what is known anyway changes nothing
    again = steer.choose(channel, steer.Aim(other, None, None), 0, 0.7, 0.4, hat)
    assert np.array_equal(again.numbers, symbols.numbers)
