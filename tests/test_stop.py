"""decode --stop: a file's trajectory up to a coded step, and the ODE from there."""

from __future__ import annotations

from fractions import Fraction
from io import BytesIO

import numpy as np
import pytest
import tiny_prior
from cli_runner import Run

from gvcc import codec
from gvcc.errors import ConfigError
from gvcc.eval.clips import demo_clip
from gvcc.format import parser
from gvcc.records import Video
from gvcc.search.config import EncodeConfig

VIDEO = Video(demo_clip(9, 32, 48), Fraction(25))


def shown(data: bytes, **more) -> np.ndarray:
    return np.stack(list(codec.Decoder(BytesIO(data), tiny_prior.load(), **more).pictures()))


def coded(**more) -> bytes:
    return codec.encode(VIDEO, EncodeConfig(**{"mode": "t2v"} | more), tiny_prior.load()).data


@pytest.mark.parametrize("coder", ["codebook", "rcc"])
def test_fewer_steps_of_a_file_are_a_file_of_fewer_steps(coder: str) -> None:
    many, few = (coded(coder=coder, stop=n) for n in (5, 2))
    assert np.array_equal(shown(many, stop=2), shown(few))
    assert np.array_equal(shown(many, stop=5), shown(many))
    assert np.array_equal(shown(many, stop=99), shown(many))


@pytest.mark.parametrize("more", [
    {"size": 900}, {"size": 900, "coder": "rcc"}, {"preset": "paper", "atoms": 3, "codebook": 64},
    {"size": 900, "mode": "v2v", "base": "av1", "base_share": 0.4},
    {"size": 2500, "mode": "overlap", "gop": 5, "overlap": 1},
    {"size": 2500, "mode": "i2v", "gop": 5},
], ids=str)  # fmt: skip
def test_each_step_more_brings_the_clip_nearer(more: dict) -> None:
    data = coded(**more)
    record = parser.parse(data).gops[0]
    last = record.stop + (record.fraction > 0)
    error = [
        float(np.square(shown(data, stop=n).astype(float) - VIDEO.frames).mean())
        for n in (0, last // 2, last)
    ]
    assert np.array_equal(shown(data, stop=last), shown(data))
    assert error[0] > error[1] > error[2]


def test_drift_is_not_told_of_what_stops_early() -> None:
    data, events = coded(stop=4), list[codec.Event]()
    for n, known in ((4, True), (1, False)):
        events.clear()
        clip = codec.Decoder(BytesIO(data), tiny_prior.load(), stop=n, progress=events.append)
        assert len(list(clip.pictures())) == 9 and clip.stopped is not known
        assert (events[-1].drift is not None) == known and events[-1].step == events[-1].steps


def test_out_of_range() -> None:
    for stop in (-1, 256):
        with pytest.raises(ConfigError, match="stop"):
            codec.Decoder(BytesIO(coded(stop=2)), tiny_prior.load(), stop=stop)


def test_from_the_command_line(run: Run, tmp_path, clip) -> None:
    own, base = (str(tmp_path / n) for n in ("a.gvcc", "b.gvcc"))
    few = ("--frames", "1", "--size", "700")
    assert run("encode", clip, "-o", own, "--mode", "t2v", *few).code == 0
    assert run("encode", clip, "-o", base, "--mode", "v2v", *few).code == 0
    out = str(tmp_path / "a.png")
    found = run("decode", own, "-o", out, "--stop", "3")
    assert found.code == 0 and "--stop changes nothing" not in found.err
    found = run("decode", base, "-o", out, "-y", "--stop", "3")
    assert found.code == 0 and "--stop changes nothing" in found.err
