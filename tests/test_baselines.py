"""The baselines of an evaluation: real encodes of a tiny clip, and the search for a size."""

from __future__ import annotations

import math
import re
import struct
from collections.abc import Callable
from dataclasses import replace
from fractions import Fraction
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from gvcc.errors import ConfigError, MediaError
from gvcc.eval import baselines
from gvcc.eval.baselines import BASELINES, MOST, NEAR, Baseline, Coded, ffmpeg, guess, nearest
from gvcc.eval.clips import demo_clip
from gvcc.metrics import metrics

TARGETS = (700.0, 2800.0)  # bytes
FPS = Fraction(25)


@pytest.fixture(scope="module")
def frames() -> np.ndarray:
    """9 frames of 96x64 with noise, without which sizes hardly change with quality."""
    y, x = np.mgrid[0:64, 0:96]
    rng = np.random.default_rng(0)
    return np.stack([
        np.stack([x * 2 + 5 * t, y * 3 + 0 * x, 128 + 60 * np.sin((x + y + 3 * t) / 6)], -1)
        + 8 * rng.standard_normal((64, 96, 3))
        for t in range(9)
    ]).clip(0, 255).astype(np.uint8)  # fmt: skip


@pytest.fixture(scope="module", params=BASELINES)
def landed(request: pytest.FixtureRequest, frames: np.ndarray) -> tuple[str, Coded, list[Any]]:
    """A codec after both targets: index, stream and the indices tried for each."""
    coded, found = Coded(BASELINES[request.param], frames, FPS), []
    for target in TARGETS:
        tried: list[int] = []
        q, stream = coded.at(target, lambda q, _, into=tried: into.append(q))
        found.append((q, stream, tried))
    return request.param, coded, found


def distance(size: float, target: float) -> float:
    return abs(math.log(size / target))


def is_final(codec: Baseline, sizes: dict[int, int], target: float) -> bool:
    """Whether the sizes tried leave nothing to try: one is near, or neighbours on both sides of
    the target are there, or the end of the scale is."""
    if min(distance(s, target) for s in sizes.values()) < NEAR:
        return True
    large = [q for q, s in sizes.items() if s > target]
    small = [q for q, s in sizes.items() if s <= target]
    if not large or not small:
        return (codec.best if small else codec.worst) in sizes
    return min(small) - max(large) < 2


def test_what_is_final() -> None:
    codec = BASELINES["vp9"]
    assert is_final(codec, {30: 200, 31: 90}, 140) and is_final(codec, {40: 101}, 100)
    assert is_final(codec, {63: 200}, 100) and is_final(codec, {1: 50}, 100)
    for sizes in ({30: 200, 32: 50}, {62: 200}, {2: 50}, {63: 50}, {1: 200}):
        assert not is_final(codec, sizes, 100)


# -- real encodes -----------------------------------------------------------------------------


def test_a_codec_lands_nearest_to_two_targets(landed: tuple[str, Coded, list[Any]]) -> None:
    _, coded, found = landed
    for target, (q, stream, tried) in zip(TARGETS, found, strict=True):
        assert len(tried) == len(set(tried)) <= MOST
        assert coded.streams[q] == stream
        assert 1 / 1.6 < coded.sizes[q] / target < 1.6
        assert is_final(coded.codec, coded.sizes, target)
        assert all(coded.codec.best <= n <= coded.codec.worst for n in coded.sizes)
    # A rate alone comes by the same file as after another.
    alone = Coded(coded.codec, coded.frames, FPS)
    assert alone.at(TARGETS[1])[0] == found[1][0]
    assert alone.sizes[found[1][0]] == coded.sizes[found[1][0]]
    assert (
        all(seconds > 0 for seconds in alone.seconds.values())
        and alone.seconds.keys() == alone.sizes.keys()
    )
    # The second rate makes none again, and a third near the first needs no encode at all.
    assert not set(found[0][2]) & set(found[1][2])
    again: list[int] = []
    assert coded.at(TARGETS[0], lambda q, _: again.append(q)) == found[0][:2] and not again


def test_streams_decode_to_something_near(
    landed: tuple[str, Coded, list[Any]], frames: np.ndarray
) -> None:
    _, coded, found = landed
    error = []
    for _, stream, _ in found:
        shown = coded.decoded(stream)
        assert shown.shape == frames.shape and shown.dtype == np.uint8
        error.append(np.square(shown.astype(float) - frames).mean((1, 2, 3)))
    assert np.max(error) < 150 and error[1].mean() < error[0].mean()  # the noise alone is 64
    # Frame by frame and in order: the next one is further away.
    shifted = np.square(shown[1:].astype(float) - frames[:-1]).mean((1, 2, 3))
    assert (shifted > error[1][1:]).all()


def test_frames_that_are_lost_are_told_of(landed: tuple[str, Coded, list[Any]]) -> None:
    _, coded, found = landed
    fewer = Coded(coded.codec, coded.frames[:8], FPS)
    with pytest.raises(MediaError, match="^9 frames came out, 8 went in$"):
        fewer.decoded(found[0][1])
    with pytest.raises(MediaError, match="^ffmpeg .* -i - "):
        coded.decoded(b"no video at all" * 20)


@pytest.mark.parametrize("name", ["x264", "x265", "vvc", "vp9"])
def test_odd_sizes_come_back_as_they_were(name: str, frames: np.ndarray) -> None:
    codec, odd = BASELINES[name], np.ascontiguousarray(frames[:3, :63, :95])
    stream = ffmpeg(codec.command, odd.tobytes(), **baselines.fields(odd, FPS), quality=20)
    error = np.square(Coded(codec, odd, FPS).decoded(stream).astype(float) - odd).mean((0, 3))
    assert max(error.mean(), error[-1].mean(), error[:, -1].mean()) < 400  # the edges as well


def test_sizes_count_the_stream_without_its_container(
    landed: tuple[str, Coded, list[Any]],
) -> None:
    name, coded, found = landed
    for q, stream, _ in found:
        if name == "vp9":
            assert coded.sizes[q] == sum(map(len, ivf(stream))) < len(stream)
        else:
            assert coded.sizes[q] == len(stream)


def ivf(data: bytes) -> list[bytes]:
    """The frames of an IVF file, by its definition."""
    sign, version, head, fourcc = struct.unpack_from("<4sHH4s", data)
    assert (sign, version, fourcc) == (b"DKIF", 0, b"VP90")
    out, at = [], head
    while at < len(data):
        (size,) = struct.unpack_from("<I", data, at)
        out.append(data[at + 12 : at + 12 + size])
        assert len(out[-1]) == size
        at += 12 + size
    return out


def test_the_ivf_reader(frames: np.ndarray) -> None:
    data = struct.pack("<4sHH4s20x", b"DKIF", 0, 32, b"VP90")
    data += struct.pack("<IQ", 3, 0) + b"abc" + struct.pack("<IQ", 1, 1) + b"d"
    assert ivf(data) == [b"abc", b"d"]
    for bad in (data[:-1], b"RIFF" + data[4:], data.replace(b"VP90", b"AV01")):
        with pytest.raises(AssertionError):
            ivf(bad)


# NAL unit types: supplemental information, access unit delimiter, pictures that start a sequence.
NALS: dict[str, tuple[Callable[[bytes], int], set[int], int, set[int]]] = {
    "x264": (lambda head: head[0] & 31, {6}, 9, {5}),
    "x265": (lambda head: head[0] >> 1 & 63, {39, 40}, 35, {16, 17, 18, 19, 20, 21}),
    "vvc": (lambda head: head[1] >> 3, {23, 24}, 20, {7, 8, 9}),
}


def kinds(name: str, stream: bytes) -> list[int]:
    """The types of the NAL units in a stream with start codes."""
    parts = re.split(rb"\x00\x00\x01", stream)
    assert not parts[0].strip(b"\0")
    return [NALS[name][0](p) for p in parts[1:]]


def test_streams_have_no_words_and_one_keyframe(landed: tuple[str, Coded, list[Any]]) -> None:
    name, _, found = landed
    if name not in NALS:
        pytest.skip("has no NAL units")
    _, words, delimiter, keys = NALS[name]
    for _, stream, _ in found:
        types = kinds(name, stream)
        assert not set(types) & (words | {delimiter})
        assert sum(t in keys for t in types) == 1 and len(types) >= 9


@pytest.mark.parametrize(
    ("name", "part", "instead", "kind"),
    [
        ("x264", "-bsf:v filter_units=remove_types=6", "", 6),
        ("x265", "info=0:", "", 39),
        ("vvc", "accessunitdelimiter=0", "accessunitdelimiter=1", 20),
        ("x264", "-g 1024", "-g 3", 5),
    ],
)
def test_without_an_option_the_stream_has_more(
    name: str, part: str, instead: str, kind: int, frames: np.ndarray
) -> None:
    """What the test above looks for is there where nobody takes it out."""
    codec = BASELINES[name]
    assert part in codec.options
    more = replace(codec, options=codec.options.replace(part, instead))
    stream = ffmpeg(more.command, frames.tobytes(), **baselines.fields(frames, FPS), quality=40)
    assert kinds(name, stream).count(kind) >= (2 if kind == 5 else 1)
    assert (b"x264 - core" in stream or b"x265 (build" in stream) == (kind in (6, 39))


# -- ffmpeg -----------------------------------------------------------------------------------


def test_ffmpeg_that_fails_has_the_last_word() -> None:
    with pytest.raises(MediaError, match="^ffmpeg -v error .*nonsense.*: Error opening output"):
        ffmpeg("-f lavfi -i color=size=16x16 -c:v {quality} -f rawvideo -", b"", quality="nonsense")


@pytest.mark.parametrize(
    ("body", "says"),
    [
        ("echo one >&2; echo two >&2; exit 3", ": two$"),
        ("exit 3", ": nothing$"),
        ("exit 0", ": nothing$"),
        ("echo made; exit 3", ": nothing$"),
        ("printf 'bad \\377 byte' >&2; exit 1", ": bad \ufffd byte$"),
    ],
)
def test_what_ffmpeg_said_is_the_message(
    body: str, says: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    import imageio_ffmpeg

    path = tmp_path / "ffmpeg"
    path.write_text(f"#!/bin/sh\n{body}\n")
    path.chmod(0o755)
    monkeypatch.setattr(imageio_ffmpeg, "get_ffmpeg_exe", lambda: str(path))
    with pytest.raises(MediaError, match=says):
        ffmpeg("-i -", b"")
    path.write_text("#!/bin/sh\necho made\n")
    assert ffmpeg("-i -", b"") == b"made\n"


# -- the search -------------------------------------------------------------------------------


@st.composite
def monotone(draw: st.DrawFn, flat: bool) -> tuple[Baseline, dict[int, int], float]:
    """A codec, a size for each index that never grows, and a target. `flat`: with plateaus and
    cliffs; otherwise as steep as the codec is thought to be, within a factor of two."""
    codec = BASELINES[draw(st.sampled_from(sorted(BASELINES)))]
    indices = range(codec.worst, codec.best - 1, -1)
    steep = [0.0, 0.0, 0.3, 1.0, 8.0] if flat else [0.5, 0.8, 1.0, 1.3, 2.0]
    runs = draw(st.lists(st.sampled_from(steep), min_size=1, max_size=8))
    sizes, log = {}, math.log2(draw(st.integers(100, 1000)))
    for i, q in enumerate(indices):
        sizes[q] = round(2**log)
        log += codec.slope * runs[i * len(runs) // len(indices)]
    target = draw(st.floats(0.5 * sizes[codec.worst], 2 * sizes[codec.best]))
    return codec, sizes, target


def search(codec: Baseline, sizes: dict[int, int], target: float) -> dict[int, int]:
    """The sizes that are asked for until nothing new is."""
    tried: dict[int, int] = {}
    while (q := guess(codec, tried, target)) not in tried:
        tried[q] = sizes[q]  # KeyError: not on the codec's scale
    return tried


@settings(max_examples=400, deadline=None)
@given(monotone(flat=True))
def test_the_search_finds_what_trying_all_would(case: tuple[Baseline, dict[int, int], float]):
    codec, sizes, target = case
    found = distance(sizes[nearest(search(codec, sizes, target), target)], target)
    best = min(distance(s, target) for s in sizes.values())
    assert found <= max(best, NEAR)


@settings(max_examples=400, deadline=None)
@given(monotone(flat=False))
def test_usual_codecs_take_few_encodes(case: tuple[Baseline, dict[int, int], float]) -> None:
    assert len(search(*case)) <= MOST


@given(st.dictionaries(st.integers(1, 280), st.integers(1, 10**7), min_size=1), st.floats(1, 1e7))
def test_nearest_is_nearest_in_ratio(sizes: dict[int, int], target: float) -> None:
    ratio = {q: max(s / target, target / s) for q, s in sizes.items()}
    assert ratio[nearest(sizes, target)] == pytest.approx(min(ratio.values()))
    assert nearest({1: 210, 2: 45}, 100) == 1  # the other is nearer by difference


def test_a_search_without_end_stops(monkeypatch: pytest.MonkeyPatch) -> None:
    """A cliff far from where a line would have it: MOST encodes at a rate, then the nearest."""
    asked: list[float] = []

    def fake(command: str, data: bytes, **fields: Any) -> bytes:
        asked.append(fields["quality"])
        return bytes(1000 if fields["quality"] < 2 else round(99 - fields["quality"]))

    monkeypatch.setattr(baselines, "ffmpeg", fake)
    coded = Coded(BASELINES["svt-av1"], np.zeros((2, 8, 8, 3), np.uint8), FPS)
    coded.at(350)
    assert len(asked) == len(coded.sizes) <= MOST and all(q % 0.25 == 0 for q in asked)
    empty = Coded(BASELINES["vp9"], np.zeros((2, 8, 8, 3), np.uint8), FPS)
    monkeypatch.setattr(baselines, "ffmpeg", lambda *_, **__: b"x")
    assert empty.at(350)[1] == b"x" and set(empty.sizes.values()) == {1}


# -- names ------------------------------------------------------------------------------------


def test_names_say_preset_size_and_sharpening() -> None:
    assert baselines.find("x265") == BASELINES["x265"]
    found = baselines.find("x265:medium@half+unsharp")
    assert found is not None and (found.shrink, found.sharpen) == (2, True)
    assert "-preset medium " in found.command and "scale=2*ceil(iw/4):2*ceil(ih/4)" in found.command
    assert found.shown(95, 63).startswith("unsharp=5:5:0.3:5:5:0,scale=95:63:")
    assert "lanczos" in found.command and "lanczos" in found.shown(95, 63)
    for name in ("x266", "x265@third", "x265+sharp", "+unsharp", "", "x265@half@half"):
        assert baselines.find(name) is None
    with pytest.raises(ConfigError, match="presets of svt-av1 are 0, 1, 2"):
        baselines.find("svt-av1:14")
    names = [*baselines.families()]
    assert "svt-av1+unsharp" in names and all(map(baselines.find, names))


@pytest.mark.parametrize("name", [*BASELINES])
def test_every_encoder_takes_its_presets(name: str, frames: np.ndarray) -> None:
    """The fastest; slower ones are of the same list, by the encoder's own names."""
    fast = baselines.find(f"{name}:{BASELINES[name].presets[-1]}")
    assert fast is not None
    given = baselines.fields(frames, FPS) | {"quality": fast.unit * fast.start}
    stream = ffmpeg(fast.command, frames.tobytes(), **given)
    assert Coded(fast, frames, FPS).decoded(stream).shape == frames.shape


@pytest.mark.parametrize(("size", "n"), [("half", 2), ("quarter", 4)])
def test_a_part_of_the_size_is_enlarged_again(size: str, n: int, frames: np.ndarray) -> None:
    odd = np.ascontiguousarray(frames[:3, :63, :95])
    codec = baselines.find(f"x264@{size}")
    assert codec is not None
    stream = ffmpeg(codec.command, odd.tobytes(), **baselines.fields(odd, FPS), quality=5)
    width, height = (2 * -(-side // (2 * n)) for side in (95, 63))
    raw = ffmpeg("-f h264 -i - -pix_fmt gray -fps_mode passthrough -f rawvideo -", stream)
    assert len(raw) == 3 * width * height
    shown = Coded(codec, odd, FPS).decoded(stream)
    smooth = np.stack([[np.full(3, c.mean()) for c in row] for row in odd.reshape(-1, 63 * 95, 3)])
    error = np.square(shown.astype(float) - odd).mean()
    assert shown.shape == odd.shape and error < np.square(smooth.mean() - odd.astype(float)).mean()


def test_sharpening_lifts_vmaf_and_neither_neg_nor_psnr() -> None:
    """Why `svt-av1+unsharp` is there: a gain in VMAF that the control has too is none."""
    clip, fps = demo_clip(9, 160, 240), Fraction(25)
    plain, control = (baselines.find(f"svt-av1:9{s}") for s in ("", "+unsharp"))
    assert plain is not None and control is not None and plain.command == control.command
    stream = ffmpeg(plain.command, clip.tobytes(), **baselines.fields(clip, fps), quality=40)
    shown = [Coded(c, clip, fps).decoded(stream) for c in (plain, control)]
    (vmaf, neg), (higher, neg_too) = (metrics.vmafs(clip, s, fps) or (0, 0) for s in shown)
    assert higher > vmaf + 1.5 and neg_too < neg + 1
    assert metrics.psnr(clip, shown[1]) < metrics.psnr(clip, shown[0])
