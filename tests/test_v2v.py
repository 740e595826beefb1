"""Mode v2v: whole encodings whose GOPs are bases."""

from __future__ import annotations

import dataclasses
import subprocess
import sys
from fractions import Fraction
from io import BytesIO
from pathlib import Path

import faulty_vectors
import numpy as np
import pytest
import tiny_prior
from cli_runner import Run

from gvcc import codec
from gvcc.errors import ConfigError, Corrupt, TargetUnreachable, TooLarge
from gvcc.eval.clips import demo_clip
from gvcc.format import parser
from gvcc.format.bitstream import Limits
from gvcc.pictures import base, media
from gvcc.records import Video
from gvcc.search import basecoder
from gvcc.search.config import EncodeConfig
from gvcc.search.quality import goal

FRAMES, HEIGHT, WIDTH = 26, 66, 90
VIDEO = Video(demo_clip(FRAMES, HEIGHT, WIDTH), Fraction(25))


def config(**more) -> EncodeConfig:
    return EncodeConfig(**{"mode": "v2v", "base": "av1", "size": 4000, "gop": 10} | more)


@pytest.fixture(scope="module")
def encoded() -> codec.Encoding:
    return codec.encode(VIDEO, config(), tiny_prior.load())


def decoder(data: bytes, **more) -> codec.Decoder:
    return codec.Decoder(BytesIO(data), tiny_prior.load(), **more)


def shown(data: bytes, **more) -> np.ndarray:
    return np.stack(list(decoder(data, **more).pictures()))


@pytest.mark.parametrize("more", [
    {}, {"base": "vvc"}, {"base_size": "2"}, {"gop": None}, {"size": None, "bpp": 0.5},
    {"size": None, "quality": "psnr:30"}, {"size": None}, {"gop": 1, "size": 9000},
], ids=str)  # fmt: skip
def test_a_file_decodes_to_the_encoders_pictures(more: dict) -> None:
    asked = config(**more)
    made = codec.encode(VIDEO, asked, tiny_prior.load())
    assert np.array_equal(shown(made.data), made.frames)
    stream = parser.parse(made.data)
    assert stream.header.bases and stream.header.version == 4
    assert all(g.base and g.gop.base and g.gop.mode == "v2v" for g in stream.gops)
    assert stream.gops[-1].gop.end == FRAMES
    target = asked.target(FRAMES, HEIGHT, WIDTH, VIDEO.fps)
    if target is not None:
        assert 0.9 * target < len(made.data) <= target
    error = np.square(made.frames.astype(float) - VIDEO.frames).mean()
    assert 10 * np.log10(255**2 / error) > (25 if target or asked.quality else 18)
    if asked.quality:
        assert abs(10 * np.log10(255**2 / error) - 30) < 0.5


def test_without_pictures_the_bytes_are_the_same(encoded: codec.Encoding) -> None:
    parts = list(codec.encode_parts(VIDEO, config(), tiny_prior.load(), shown=False))
    assert b"".join(p.data for p in parts) == encoded.data
    assert all(p.pictures is None for p in parts) and len(parts) == 4  # header and three GOPs


@pytest.mark.parametrize(("frames", "height", "width"), [
    (1, 16, 16), (2, 17, 31), (5, 24, 200), (9, 100, 34), (1, 130, 140),
])  # fmt: skip
def test_odd_sizes_and_one_frame(frames: int, height: int, width: int) -> None:
    video = Video(demo_clip(frames, height, width), Fraction(25))
    made = codec.encode(video, config(size=1500, gop=None), tiny_prior.load())
    assert np.array_equal(shown(made.data), made.frames)
    assert made.frames.shape == video.frames.shape and len(made.data) <= 1500


def test_gops_start_at_cuts_and_last_ten_seconds() -> None:
    two = np.concatenate([VIDEO.frames[:13], 255 - VIDEO.frames[:12, ::-1]])
    made = codec.encode(Video(two, Fraction(1, 2)), config(gop=None), tiny_prior.load())
    lengths = [g.gop.frames for g in parser.parse(made.data).gops]
    assert lengths == [5, 5, 3, 5, 5, 2]
    made = codec.encode(Video(two, Fraction(25)), config(gop=None), tiny_prior.load())
    assert [g.gop.frames for g in parser.parse(made.data).gops] == [13, 12]


def test_any_range_is_decoded_alone(encoded: codec.Encoding) -> None:
    for start, end in ((0, 1), (9, 11), (12, 26), (25, 26), (10, 20)):
        assert np.array_equal(shown(encoded.data, start=start, end=end), encoded.frames[start:end])


def test_a_damaged_base_costs_its_gop(encoded: codec.Encoding) -> None:
    data = bytearray(encoded.data)
    stream = parser.parse(encoded.data).gops[1].base.stream
    data[encoded.data.index(stream) + 30] ^= 4  # the record does not check
    with pytest.raises(Corrupt, match="GOP 1, frames 10 to 19, cannot be decoded"):
        shown(bytes(data))
    found = decoder(bytes(data), keep_going=True)
    pictures = np.stack(list(found.pictures()))
    kept = [*range(10), *range(20, FRAMES)]
    assert np.array_equal(pictures[kept], encoded.frames[kept]) and len(found.damage) == 1
    assert (pictures[10:20] == encoded.frames[9]).all()


def test_a_base_that_breaks_off_costs_what_is_behind(encoded: codec.Encoding) -> None:
    """Its record checks: the encoder was at fault, or somebody meant it."""
    stream = parser.parse(encoded.data)
    first = stream.gops[0]
    units = [*base.codec("av1").units(first.base.stream)]
    short = dataclasses.replace(first.base, stream=b"".join(units[:-3]))
    broken = dataclasses.replace(first, base=short)
    data = faulty_vectors.rebuilt(
        dataclasses.replace(stream, gops=(broken, *stream.gops[1:])))  # fmt: skip
    with pytest.raises(Corrupt, match="GOP 0, frames . to 9, cannot be decoded: the base holds"):
        shown(data)
    found = decoder(data, keep_going=True)
    pictures = np.stack(list(found.pictures()))
    assert pictures.shape == encoded.frames.shape
    assert np.array_equal(pictures[10:], encoded.frames[10:])
    assert np.array_equal(pictures[0], encoded.frames[0])


def test_an_encoding_goes_on_where_it_was_broken_off() -> None:
    parts = list(codec.encode_parts(VIDEO, config(), tiny_prior.load()))
    whole = b"".join(p.data for p in parts)
    proofs = [p.proof for p in parts if p.proof]
    cut = len(whole) - len([p for p in parts if p.data][-1].data) - 7
    begun = codec.Begun(whole[:cut], proofs)
    again = list(codec.encode_parts(VIDEO, config(), tiny_prior.load(), begun=begun))
    assert b"".join(p.data for p in again) == whole
    pictures = np.concatenate([p.pictures for p in again if p.pictures is not None])
    assert np.array_equal(pictures, shown(whole))
    other = Video(255 - VIDEO.frames, VIDEO.fps)
    with pytest.raises(ConfigError, match="of another clip"):
        list(codec.encode_parts(other, config(), tiny_prior.load(), begun=begun))


def test_a_target_that_no_base_reaches_is_told_with_what_can_be() -> None:
    with pytest.raises(TargetUnreachable) as caught:
        codec.encode(VIDEO, config(size=400, gop=None), tiny_prior.load())
    assert caught.value.smallest > 400
    made = codec.encode(VIDEO, config(size=caught.value.smallest + 40, gop=None),
                        tiny_prior.load())  # fmt: skip
    assert len(made.data) <= caught.value.smallest + 40


@pytest.mark.parametrize(("more", "says"), [
    ({"mode": "t2v"}, "base is for modes v2v and auto, not t2v"),
    ({"preset": "paper"}, "no mode v2v"),
    ({"base": "hevc"}, "unknown base 'hevc'"), ({"base_size": "3"}, "unknown base size '3'"),
    ({"stop": 4, "size": None}, "stop is of a trajectory"), ({"seed": 3}, "seed changes nothing"),
    ({"atoms": 3, "size": None}, "atoms is of a traj"), ({"knob": 1.0}, "knob changes noth"),
    ({"base_share": 0.0}, "base share is 0"), ({"base_share": 1.1}, "base share is 1.1"),
    ({"mode": "i2v", "base": None, "base_share": 0.5}, "base share is for modes v2v and auto"),
    ({"reuse": 2}, "reuse is for modes without a base"), ({"steps": 9}, "steps is for modes with"),
    ({"coder": "rcc"}, "coder is of a trajectory"), ({"gop": 2000}, "GOP length is 2000"),
])  # fmt: skip
def test_what_does_not_go_together_is_refused(more: dict, says: str) -> None:
    with pytest.raises(ConfigError, match=says):
        codec.encode(VIDEO, config(**more), tiny_prior.load())


def test_a_long_gop_is_no_matter_of_memory(encoded: codec.Encoding) -> None:
    """Of bases; a GOP that must be held whole is refused."""
    small = Limits(gop_pixels=HEIGHT * WIDTH)
    assert len(shown(encoded.data, limits=small)) == FRAMES
    plain = codec.encode(VIDEO, EncodeConfig(size=900, gop=9), tiny_prior.load()).data
    with pytest.raises(TooLarge):
        shown(plain, limits=small)


def test_base_only_wants_bases(encoded: codec.Encoding) -> None:
    assert np.array_equal(shown(encoded.data, base_only=True), encoded.frames)
    for more in ({"knob": 1.5}, {"prior": "nano"}):
        with pytest.raises(ConfigError, match="need no prior, and no knob"):
            codec.Decoder(BytesIO(encoded.data), base_only=True, **more)
    plain = codec.encode(VIDEO, EncodeConfig(size=900, gop=9), tiny_prior.load()).data
    with pytest.raises(ConfigError, match="GOP 0 has no base"):
        shown(plain, base_only=True)


def test_from_the_command_line(run: Run, tmp_path: Path) -> None:
    source = tmp_path / "a.mkv"
    media.write(VIDEO, source)
    coded, out = tmp_path / "a.gvcc", tmp_path / "b.y4m"
    done = run("encode", source, "-o", coded, "--mode", "v2v", "--base", "av1", "--size", "4000",
               "--gop", "10", "--verify")  # fmt: skip
    assert done.code == 0 and "verified" in done.err, done.err
    assert coded.stat().st_size <= 4000
    done = run("inspect", coded)
    assert done.code == 0 and "v2v" in done.out.decode() and "av1 q" in done.out.decode()
    done = run("decode", coded, "-o", out, "--base-only")
    assert done.code == 0, done.err
    assert media.read(out).frames.shape == VIDEO.frames.shape
    with coded.open("rb") as f:
        command = [sys.executable, "-m", "gvcc", "decode", "-", "-o", "-", "--start", "12"]
        piped = subprocess.run(command, stdin=f, capture_output=True)
    assert piped.returncode == 0 or b"No module named gvcc.__main__" in piped.stderr


def test_auto_takes_what_codes_pictures_of_this_size() -> None:
    """libvvenc refuses some small pictures: such sizes are left out, or AV1 takes its place."""
    small = Video(demo_clip(5, 64, 96), Fraction(25))
    made = codec.encode(small, config(base="auto", size=1500, gop=None), tiny_prior.load())
    assert np.array_equal(shown(made.data), made.frames)
    tiny = Video(demo_clip(3, 17, 24), Fraction(25))
    made = codec.encode(tiny, config(base="auto", size=900, gop=None), tiny_prior.load())
    assert made.frames.shape == tiny.frames.shape
    with pytest.raises(base.Refused, match="^vvc codes no base of 3 pictures of 24x24 "):
        codec.encode(tiny, config(base="vvc", size=900, gop=None), tiny_prior.load())
    with pytest.raises(base.Refused, match="^vvc codes no base of 3 pictures of 16x16 "):
        codec.encode(Video(demo_clip(3, 16, 16), Fraction(25)), config(base="vvc"),
                     tiny_prior.load())  # fmt: skip


def test_the_usual_size_grows_where_no_base_is_so_small() -> None:
    video = Video(demo_clip(9, 16, 16), Fraction(25))
    made = codec.encode(video, EncodeConfig(mode="v2v", base="av1"), tiny_prior.load())
    assert np.array_equal(shown(made.data), made.frames)


def test_a_quality_is_rather_passed_than_missed() -> None:
    """Of the qualities that a base can have: the nearest within the tolerance, then above it."""
    aim = goal("psnr:30")
    t = aim.tolerance
    order = [30 + 0.1 * t, 30 - 0.9 * t, 30 + 2 * t, 30 + 9 * t, 30 - 1.1 * t, 30 - 3 * t]
    assert sorted(reversed(order), key=lambda q: basecoder._miss(q, aim)) == order
