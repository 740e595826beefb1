"""Rates and ticks: which constant rate a stream of variable rate gets, and what that loses."""

import io
from fractions import Fraction
from itertools import pairwise

import av
import numpy as np
import pytest
from hypothesis import assume, given, settings
from hypothesis import strategies as st
from media_samples import (
    LEVELS,
    PATTERN,
    PAUSE,
    SINE,
    ffmpeg,
    numbered,
    numbers,
    smooth,
    store,
    told,
)

from gvcc.errors import ConfigError, MediaError
from gvcc.pictures import media, media_time
from gvcc.pictures.media import Video

MS = Fraction(1, 1000)


def shown(pts, fps):
    """The pictures on screen in the middle of each tick, by the times of `pts` in ms."""
    ticks = [int(time * MS * fps + Fraction(1, 2)) for time in pts]
    return [max(n for n, at in enumerate(ticks) if at <= tick) for tick in range(ticks[-1] + 1)]


# --- no picture is lost ----------------------------------------------------------------------


@pytest.mark.parametrize("suffix", [".mp4", ".mkv", ".ts", ".flv", ".gif", ".mov"])
def test_a_pause_loses_no_picture_in_any_container(tmp_path, suffix):
    codec = () if suffix == ".gif" else ("-c:v", "libx264")
    path = ffmpeg(*LEVELS, *PAUSE, *codec, tmp_path / f"a{suffix}")
    clip = media.open_clip(path)
    assert (clip.fps, clip.count, told(clip)) == (24, 288, [])
    levels = [int(pixels.mean()) for pixels in clip.pictures()]
    changes = [n for n, (a, b) in enumerate(pairwise(levels), 1) if b > a + 2]
    assert changes == [*range(1, 24), *range(264, 288)]


@given(st.lists(st.integers(9, 1500), min_size=1, max_size=20), st.sampled_from([24, 25, 30, 1]))
@settings(max_examples=60, deadline=None)
def test_pictures_9_ms_apart_and_more_all_get_a_tick(gaps, declared):
    stamps = [sum(gaps[:n]) for n in range(len(gaps) + 1)]
    try:
        rate = media_time.rate(stamps, MS, [Fraction(declared)])
    except MediaError as error:
        assert "timestamps jump" in str(error) and stamps[-1] > 1000 * min(gaps)
        return
    ticks = media_time.ticks(stamps, rate * MS)
    assert all(a < b for a, b in pairwise(ticks)) and rate <= 120
    assert max(
        abs(tick / rate - stamp * MS) for tick, stamp in zip(ticks, stamps, strict=True)
    ) <= (1 / rate / 2)


@given(st.sampled_from([Fraction(24), Fraction(30000, 1001), Fraction(50), Fraction(12)]),
       st.lists(st.integers(1, 30), min_size=2, max_size=30),
       st.sampled_from([1000, 90000, 12800, 100]))  # fmt: skip
@settings(max_examples=60, deadline=None)
def test_dropped_pictures_leave_the_rate_as_it_was(rate, gaps, clock):
    """Each picture on a tick of `rate`, as far as the clock can tell, with ticks left out."""
    places = [sum(gaps[:n]) for n in range(len(gaps) + 1)]
    stamps = [round(place * clock / rate) for place in places]
    assume(len(set(np.diff(places))) > 1)
    found = media_time.rate(stamps, Fraction(1, clock), [rate])
    assert media_time.ticks(stamps, found / clock) == [
        round(place * found / rate) for place in places
    ]
    assert found <= max(rate, 60)


def test_pictures_too_close_for_any_rate_are_counted():
    pts = [0, 1, 2, 100, 200, 300, 301, 400, 500, 600]
    data = store(numbered(10), rate=10, pts=pts, base=MS)
    video = media.read(io.BytesIO(data))
    kept = set(numbers(video))
    assert len(kept) == 7 and video.fps <= 120
    lost = f"3 of 10 pictures left out at {float(video.fps):g} fps"
    assert told(video) == [f"{lost}: their times are too close together"]


def test_slow_shows_stay_slow():
    for pts in ([0, 1_800_000], [0, 1_800_041, 3_600_000], [0, 5000, 60_000, 61_000]):
        data = store(numbered(len(pts)), "mov", "png", rate=1, pts=pts, base=MS)
        clip = media.open_clip(io.BytesIO(data))
        assert clip.count <= 70 and set(numbers(media.read(io.BytesIO(data)))) == set(
            range(len(pts))
        )


# --- time stamps as they come ----------------------------------------------------------------


@given(st.permutations(range(30)), st.integers(0, 15))
@settings(max_examples=40, deadline=None)
def test_stamps_that_go_back_are_sorted(order, depth):
    near = sorted(range(30), key=lambda n: n + (order[n] % (depth + 1)))
    assert media_time.in_order(near, Fraction(1)) == list(range(30))


def test_stamps_that_start_anew_go_on():
    twice = [*range(0, 120, 4), *range(0, 120, 4)]
    assert media_time.in_order(twice, Fraction(4)) == list(range(0, 240, 4))


def test_missing_and_double_stamps_lie_between_their_neighbours():
    assert media_time.in_order([None, 10, None, None, 40, 40, 60, None], Fraction(10)) == [
        0, 10, 20, 30, 40, 50, 60, 70,
    ]  # fmt: skip
    assert media_time.in_order([None] * 3, Fraction(5)) == [0, 5, 10]


@pytest.mark.parametrize("codec", ["libx264", "mpeg4"])
@pytest.mark.parametrize("depth", ["1", "2", "4"])
def test_b_frames_in_a_container_for_the_order_of_decoding(tmp_path, codec, depth):
    coded = ("-c:v", codec, "-bf", depth, "-c:a", "libmp3lame")
    clip = media.open_clip(ffmpeg(*LEVELS, *SINE, *coded, tmp_path / "a.avi"))
    whole = media.open_clip(ffmpeg(*LEVELS, *SINE, *coded, tmp_path / "a.mp4"))
    assert clip.fps == whole.fps == 24 and clip.count == whole.count == 48
    levels = [int(pixels.mean()) for pixels in clip.pictures()]
    assert levels == sorted(levels)
    # ffmpeg's own AVI of MPEG-4 starts with a chunk that is empty.
    first = clip.audio.packets[0].pts * clip.audio.time_base
    assert first == (0 if codec == "libx264" else -Fraction(1, 24))
    assert len(clip.audio.packets) == len(whole.audio.packets)


def test_two_recordings_in_one_file(tmp_path):
    one = ffmpeg(*PATTERN, *SINE, "-c:v", "libx264", "-c:a", "aac", tmp_path / "a.ts").read_bytes()
    clip = media.open_clip(io.BytesIO(one + one))
    assert (clip.count, clip.fps, told(clip)) == (96, 24, [])


# --- the rate that is asked for --------------------------------------------------------------


@pytest.mark.parametrize(
    "text, rate",
    [("24", 24), ("23.976", Fraction(24000, 1001)), ("23.98", Fraction(24000, 1001)),
     ("29.97", Fraction(30000, 1001)), ("59.94", Fraction(60000, 1001)), ("12.5", Fraction(25, 2)),
     ("30000/1001", Fraction(30000, 1001)), ("1/60", Fraction(1, 60))],
)  # fmt: skip
def test_rates_as_they_are_written(text, rate):
    assert media_time.parse(text) == rate


@pytest.mark.parametrize("text", ["", "0", "-24", "nan", "inf", "24fps", "1/0", "1e9", "1001"])
def test_what_is_no_rate_is_refused(text):
    with pytest.raises(ConfigError, match="fps"):
        media_time.parse(text)


@pytest.mark.parametrize("rate", ["12", "24000/1001", "60"])
def test_images_and_raw_streams_are_played_at_the_rate_asked_for(tmp_path, rate):
    frames = smooth(6)
    media.write(Video(frames, Fraction(24)), f"{tmp_path}/folder/")
    for source in ("a.h264", "a.hevc", "a.m2v", "a.mjpeg"):
        ffmpeg(*PATTERN, "-frames:v", 6, "-x265-params", "log-level=error", tmp_path / source)
    for source in ("folder", "a.h264", "a.hevc", "a.m2v", "a.mjpeg"):
        clip = media.open_clip(tmp_path / source, fps=Fraction(rate))
        assert (clip.count, clip.fps, told(clip)) == (6, Fraction(rate), []), source


def test_raw_streams_keep_the_rate_that_is_coded_in_them(tmp_path):
    assert media.open_clip(ffmpeg(*PATTERN, tmp_path / "a.h264")).fps == 24
    silent = media.open_clip(ffmpeg(*PATTERN, tmp_path / "a.mjpeg"))
    assert silent.fps == 25 and "25 fps is taken" in told(silent, "note")[0]


@pytest.mark.parametrize("rate, lost", [("24", 0), ("12", 24), ("30", 0), ("5", 38)])
def test_timed_files_are_resampled_and_what_that_loses_is_said(tmp_path, rate, lost):
    path = ffmpeg(*PATTERN, "-c:v", "libx264", tmp_path / "a.mp4")
    clip = media.open_clip(path, fps=Fraction(rate))
    assert clip.fps == Fraction(rate) and clip.count == 2 * Fraction(rate)
    assert told(clip) == ([f"{lost} of 48 pictures left out at {rate} fps: the rate asked for"]
                          if lost else [])  # fmt: skip
    assert len(list(clip.pictures())) == clip.count


def test_frames_without_a_packet_stay_on_screen(tmp_path):
    """Theora's packets without a byte say that the picture before them stays."""
    path = ffmpeg(*PATTERN, "-vf", "fps=8,fps=24", "-c:v", "libtheora", tmp_path / "a.ogv")
    with av.open(str(path)) as box:
        assert any(not packet.size and packet.pts for packet in box.demux(video=0))
    clip = media.open_clip(path)
    assert (clip.count, clip.fps, told(clip)) == (48, 24, [])
