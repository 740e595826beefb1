"""Reading video files: timing, passes, audio, and what happens when it goes wrong."""

import io
import os
import struct
import subprocess
import sys
import threading
from dataclasses import replace
from fractions import Fraction

import av
import numpy as np
import psutil
import pytest
from media_samples import (
    grey_yuv,
    leftovers,
    numbered,
    numbers,
    picture,
    psnr,
    raw_audio,
    smooth,
    store,
    tone,
)

from gvcc.errors import MediaError
from gvcc.pictures import audio, media
from gvcc.pictures.media import Video
from gvcc.records import Audio

# --- time ------------------------------------------------------------------------------------


@pytest.mark.parametrize("declared", [True, False])
@pytest.mark.parametrize("rate", ["24", "30000/1001", "60", "12/5", "119"])
def test_constant_rate_with_rounded_timestamps_is_unchanged(rate, declared):
    rate = Fraction(rate)
    data = store(numbered(100), rate=rate)
    if not declared:  # Matroska's DefaultDuration becomes padding
        place = data.index(b"\x23\xe3\x83")
        size = data[place + 3] & 0x7F
        data = (
            data[:place] + bytes([0xEC, 0x82 + size]) + bytes(2 + size) + data[place + 4 + size :]
        )
    video = media.read(io.BytesIO(data))
    assert numbers(video) == list(range(100))
    assert video.fps == rate or (not declared and abs(video.fps / rate - 1) < 1e-3)
    part = media.read(io.BytesIO(data), frames=7)
    assert numbers(part) == list(range(7)) and part.fps == video.fps


def test_constant_rate_with_b_frames_keeps_order(tmp_path):
    frames = smooth(30)
    media.write(Video(frames, Fraction(30)), tmp_path / "a.mp4")
    with av.open(str(tmp_path / "a.mp4")) as box:
        stamps = [p.pts for p in box.demux(video=0) if p.size]
    assert stamps != sorted(stamps), "the encoder made no B frames"
    again = media.read(tmp_path / "a.mp4")
    nearest = [np.argmax([psnr(frame, other) for other in frames]) for frame in again.frames]
    assert nearest == list(range(30)) and again.fps == 30


def test_variable_rate_gets_the_rate_at_which_no_picture_is_lost():
    pts = [0, 100, 200, 300, 800, 820, 900, 1000, 1100, 1200]  # ms, on screen to 1300 at most
    data = store(numbered(10), rate=10, pts=pts, base=Fraction(1, 1000))
    video = media.read(io.BytesIO(data))
    assert video.fps == 50 and video.notices == ()
    shown = [max(n for n, time in enumerate(pts) if time <= 20 * tick) for tick in range(65)]
    assert numbers(video) == shown
    assert numbers(media.read(io.BytesIO(data), frames=9)) == shown[:9]


def test_a_burst_of_pictures_within_the_frames_asked_for():
    pts = [0, 10, 20, 30, 40, 100, 200, 300, 400, 500]
    data = store(numbered(10), rate=10, pts=pts, base=Fraction(1, 1000))
    assert numbers(media.read(io.BytesIO(data), frames=4)) == [0, 1, 2, 3]
    asked = media.read(io.BytesIO(data), frames=4, fps=Fraction(10))
    assert numbers(asked) == [4, 5, 6, 7]
    assert [notice.kind for notice in asked.notices] == ["lost"]
    assert "4 of 8 pictures" in asked.notices[0].text


def test_jitter_neither_repeats_nor_drops():
    jitter = np.random.default_rng(5).integers(-12, 13, 50)
    pts = [int(40 * n + j) for n, j in enumerate(jitter)]
    pts[0] = 0
    video = media.read(io.BytesIO(store(numbered(50), rate=25, pts=pts, base=Fraction(1, 1000))))
    assert (numbers(video), video.fps) == (list(range(50)), 25)


def test_the_last_picture_of_a_gif_keeps_its_duration():
    codes = [np.full((8, 8), 20 * n, np.uint8) for n in range(4)]
    frames = [av.VideoFrame.from_ndarray(c, format="rgb8") for c in codes]
    data = bytearray(store(frames, "gif", "gif", rate=10))
    last = data.rindex(b"\x21\xf9\x04")  # graphic control extension, delay in 1/100 s
    data[last + 4 : last + 6] = struct.pack("<H", 70)
    video = media.read(io.BytesIO(bytes(data)))
    assert len(video.frames) / video.fps == pytest.approx(1.0, abs=0.5 / video.fps)


def test_missing_timestamps_mean_in_order(tmp_path):
    frames = [av.VideoFrame.from_ndarray(f, format="rgb24") for f in smooth(9)]
    yuv = [frame.reformat(format="yuv420p") for frame in frames]
    video = media.read(io.BytesIO(store(yuv, "h264", "libx264", rate=25)))
    assert len(video.frames) == 9
    assert min(psnr(a, b) for a, b in zip(video.frames, smooth(9), strict=True)) > 30


def test_pictures_before_the_edit_list_are_not_shown(tmp_path):
    pts = [n - 3 for n in range(10)]
    yuv = [
        picture(
            [np.full((32, 32), 20 * n, np.uint8)] + [np.full((16, 16), 128, np.uint8)] * 2,
            "yuv420p",
        )
        for n in range(10)
    ]
    data = store(yuv, "mp4", "libx264", rate=10, pts=pts, base=Fraction(1, 10))
    video = media.read(io.BytesIO(data), full_range=True)
    assert np.abs(video.frames.mean((1, 2, 3)) - 20 * np.arange(3, 10)).max() < 3


def test_a_jump_in_time_is_refused():
    data = store(numbered(3), pts=[0, 40, 10**9], base=Fraction(1, 1000), rate=25)
    with pytest.raises(MediaError, match="timestamps jump"):
        media.read(io.BytesIO(data))


# --- passes ----------------------------------------------------------------------------------


class Pipe:
    """A file object that can only be read on."""

    def __init__(self, data):
        self.read = io.BytesIO(data).read


def same(pictures, frames):
    return all(np.array_equal(a, b) for a, b in zip(pictures, frames, strict=True))


@pytest.mark.parametrize("kind", ["mp4", "folder", "file object", "pipe", "fifo"])
def test_every_pass_gives_what_read_gives(tmp_path, kind):
    video = Video(smooth(30), Fraction(30))
    pts = [0, 10, 20, 30, 40, 300, 310, 400, 900, 1000]
    shown = [max(n for n, time in enumerate(pts) if time <= 10 * tick) for tick in range(110)]
    uneven = store(numbered(10), rate=10, pts=pts, base=Fraction(1, 1000))
    place = tmp_path / kind
    if kind == "folder":
        media.write(video, f"{place}/")
    elif kind == "mp4":
        place = tmp_path / "a.mp4"
        media.write(video, place)
    elif kind == "fifo":
        os.mkfifo(place)
        feed = threading.Thread(target=place.write_bytes, args=(uneven,))
        feed.start()
    else:
        place = io.BytesIO(b"before" + uneven)
        place.seek(6)
    clip = media.open_clip(Pipe(uneven) if kind == "pipe" else place)
    if kind == "fifo":
        feed.join()
    if kind in ("mp4", "folder"):
        frames = media.read(place).frames
        assert psnr(frames, video.frames) > 40
    else:  # at 100 fps every picture has a tick of its own
        frames = np.stack([np.full((16, 16, 3), 2 * n, np.uint8) for n in shown])
    assert (clip.count, clip.height, clip.width, 3) == frames.shape
    for first, second, want in zip(clip.pictures(), clip.pictures(), frames, strict=True):
        assert np.array_equal(first, want) and np.array_equal(second, want)
    assert same(clip.pictures(), frames)


def test_a_clip_and_a_video_say_the_same_of_themselves(tmp_path):
    data = tone(pictures=grey_yuv(24))
    clip = media.open_clip(io.BytesIO(data), frames=6)
    video = media.read(io.BytesIO(data), frames=6)
    for name in ("fps", "colour", "audio", "count", "height", "width"):
        assert getattr(clip, name) == getattr(video, name), name
    assert same(clip.pictures(), list(video.pictures())) and clip.audio.packets


def test_two_passes_over_standard_input(tmp_path):
    media.write(Video(smooth(5), Fraction(24)), tmp_path / "a.y4m")
    code = (
        "from gvcc.pictures import media; clip = media.open_clip('-', frames=4)\n"
        "a, b = (b''.join(map(bytes, clip.pictures())) for _ in range(2))\n"
        "assert a == b and len(a) == 4 * 48 * 64 * 3"
    )
    with (tmp_path / "a.y4m").open("rb") as file:
        subprocess.run([sys.executable, "-c", code], stdin=file, check=True)
    pipe = (tmp_path / "a.y4m").read_bytes()
    subprocess.run([sys.executable, "-c", code], input=pipe, check=True)


def test_a_pass_that_is_left_closes_the_file(tmp_path):
    media.write(Video(smooth(30), Fraction(30)), tmp_path / "a.mp4")
    others = psutil.Process().open_files()  # standard output may be one
    clip = media.open_clip(tmp_path / "a.mp4")
    pictures = clip.pictures()
    next(pictures)
    opened = set(psutil.Process().open_files()) - set(others)
    assert [f.path for f in opened] == [str(tmp_path / "a.mp4")]
    pictures.close()
    assert {f.path for f in psutil.Process().open_files()} == {f.path for f in others}
    clip = media.open_clip(Pipe((tmp_path / "a.mp4").read_bytes()))
    assert psutil.Process().num_fds() > 0 and clip.count == 30
    before = psutil.Process().num_fds()
    del clip
    assert psutil.Process().num_fds() == before - 1


@pytest.mark.parametrize(
    "change", ["gone", "garbage", "shorter", "smaller", "no picture decodes", "still gone"]
)
def test_a_file_that_changed_is_named(tmp_path, change):
    path = tmp_path / ("folder" if change == "still gone" else "a.mkv")
    media.write(Video(smooth(12), Fraction(24)), path)
    clip = media.open_clip(path)
    if change == "still gone":
        (path / "00007.png").unlink()
    elif change == "gone":
        path.unlink()
    elif change == "garbage":
        path.write_bytes(b"garbage" * 100)
    elif change == "no picture decodes":
        path.write_bytes(tone(muxer="matroska"))
    else:
        smaller = smooth(12, 32, 32) if change == "smaller" else smooth(11)
        media.write(Video(smaller, Fraction(24)), path, overwrite=True)
    with pytest.raises(MediaError, match=path.name):
        list(clip.pictures())


# --- audio -----------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "codec, muxer, suffix",
    [
        ("aac", "mp4", ".mp4"),
        ("aac", "mp4", ".mov"),
        ("aac", "mp4", ".mkv"),
        ("libopus", "matroska", ".mp4"),
        ("libopus", "matroska", ".mkv"),
        ("eac3", "mp4", ".mp4"),
        ("flac", "matroska", ".mp4"),
        ("alac", "mp4", ".mkv"),
        ("libmp3lame", "matroska", ".mp4"),
        ("pcm_s16le", "matroska", ".mkv"),
        ("pcm_s24le", "matroska", ".mkv"),
    ],
)
def test_audio_packets_pass_through_unchanged(tmp_path, codec, muxer, suffix):
    data = tone(codec, muxer=muxer, pictures=grey_yuv(24))
    video = media.read(io.BytesIO(data))
    source = raw_audio(data)
    assert [p.data for p in video.audio.packets] == [packet for _, packet in source]
    media.write(video, tmp_path / f"a{suffix}")
    again = media.read(tmp_path / f"a{suffix}")
    assert [p.data for p in again.audio.packets] == [p.data for p in video.audio.packets]
    for name in ("codec", "rate", "layout", "extradata"):
        assert getattr(again.audio, name) == getattr(video.audio, name), name
    before = [p.pts * video.audio.time_base for p in video.audio.packets]
    after = [p.pts * again.audio.time_base for p in again.audio.packets]
    assert max(abs(a - b) for a, b in zip(before, after, strict=True)) <= Fraction(1, 400)
    with av.open(str(tmp_path / f"a{suffix}")) as box:
        heard = sum(frame.samples for frame in box.decode(audio=0))
    assert abs(heard - 48000) < 4000


def test_audio_counts_from_the_first_picture():
    data = tone("flac", muxer="matroska", pictures=grey_yuv(12), late=0.5)
    audio = media.read(io.BytesIO(data)).audio
    source = raw_audio(data)
    times = [p.pts * audio.time_base for p in audio.packets]
    kept = dict(zip((packet for _, packet in source), (t for t, _ in source), strict=True))
    for packet, time in zip(audio.packets, times, strict=True):
        assert abs(kept[packet.data] - Fraction(1, 2) - time) < Fraction(1, 500)
    # Sound long before the first picture is dropped.
    assert -0.2 < times[0] < 0.05 and len(times) < len(source)


def test_audio_ends_with_the_frames_asked_for_or_stays_out():
    data = tone(pictures=grey_yuv(24))
    audio = media.read(io.BytesIO(data), frames=6).audio
    whole = media.read(io.BytesIO(data)).audio
    assert 0 < len(audio.packets) < len(whole.packets)
    assert audio.packets == whole.packets[: len(audio.packets)]
    assert 0.2 < audio.packets[-1].pts * audio.time_base < 0.25
    assert media.read(io.BytesIO(data), audio=False).audio is None


def test_audio_timestamps_that_go_back_follow_on(tmp_path):
    with av.open(io.BytesIO(tone(pictures=grey_yuv(24)))) as box:
        stream = box.streams.audio[0]
        packets = [packet for packet in box.demux(stream) if packet.size][:6]
        for packet, pts in zip(packets, (0, 1024, 512, None, 9000, 9000), strict=True):
            packet.pts = packet.dts = pts
        track, _ = audio.track(stream, packets, Fraction(0), None)
    assert [p.pts for p in track.packets] == [0, 1024, 2048, 3072, 9000, 10024]
    media.write(Video(smooth(6), Fraction(24), audio=track), tmp_path / "a.mp4")


def test_pcm_needs_its_layout_in_mp4(tmp_path):
    video = media.read(io.BytesIO(tone("pcm_s16le", muxer="matroska", pictures=grey_yuv(24))))
    audio = replace(video.audio, layout="stereo")
    media.write(replace(video, audio=audio), tmp_path / "a.mp4")
    again = media.read(tmp_path / "a.mp4").audio
    assert b"".join(p.data for p in again.packets) == b"".join(p.data for p in audio.packets)
    assert again.layout == "stereo"


def test_audio_that_does_not_fit_is_refused(tmp_path):
    unknown = Audio("nonsense", 48000, "stereo", Fraction(1, 48000), b"", ())
    video = Video(smooth(4), Fraction(24), audio=unknown)
    with pytest.raises(MediaError, match="a.mov: mov does not take nonsense audio.*: write .mkv"):
        media.write(video, tmp_path / "a.mov")
    with pytest.raises(MediaError, match="a.mkv: matroska does not take nonsense audio"):
        media.write(video, tmp_path / "a.mkv")
    assert leftovers(tmp_path) == []


# --- damage ----------------------------------------------------------------------------------


def test_names_ffmpeg_would_misread(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    for name in ("a:b.mp4", "%03d.mkv", "-x.mp4"):
        media.write(Video(smooth(1), Fraction(24)), name)
        assert media.read(name).frames.shape == (1, 48, 64, 3)


@pytest.mark.parametrize("name", ["a.mp4", "a.png", "a.mkv", "a.y4m"])
def test_what_is_no_media_file_is_named_with_the_reason(tmp_path, name):
    with pytest.raises(MediaError, match=f"{name}.*No such file"):
        media.read(tmp_path / name)
    for data in (b"", b"garbage " * 100):
        (tmp_path / name).write_bytes(data)
        with pytest.raises(MediaError, match=name):
            media.read(tmp_path / name)


def test_files_cut_short(tmp_path):
    media.write(Video(smooth(24), Fraction(24)), tmp_path / "a.mp4")
    whole = (tmp_path / "a.mp4").read_bytes()
    (tmp_path / "cut.mp4").write_bytes(whole[: len(whole) // 2])  # the index is at the end
    with pytest.raises(MediaError, match="cut.mp4: cannot read: Invalid data"):
        media.read(tmp_path / "cut.mp4")
    data = store(numbered(20, 64, 64))
    video = media.read(io.BytesIO(data[: len(data) * 2 // 3]))
    assert 5 < len(video.frames) < 20 and numbers(video) == list(range(len(video.frames)))


def test_a_picture_that_does_not_decode_leaves_its_predecessor_on_screen():
    with av.open(io.BytesIO(store(numbered(8), "mov", "png"))) as box:
        packets = [bytes(packet) for packet in box.demux(video=0) if packet.size]
    data = store(numbered(8), "mov", "png").replace(packets[3], bytes(len(packets[3])))
    assert numbers(media.read(io.BytesIO(data))) == [0, 1, 2, 2, 4, 5, 6, 7]
    for packet in packets:
        data = data.replace(packet, bytes(len(packet)))
    with pytest.raises(MediaError, match="no picture decodes"):
        media.read(io.BytesIO(data))


def test_audio_alone_is_no_video():
    with pytest.raises(MediaError, match="no video stream"):
        media.read(io.BytesIO(tone()))
