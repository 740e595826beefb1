"""Reading and writing video files: colour, timing, audio and what happens when it goes wrong."""

import io
import struct
import subprocess
import sys
from dataclasses import replace
from fractions import Fraction

import av
import numpy as np
import pytest

from gvcc import colour as colours
from gvcc import media
from gvcc.errors import ConfigError, MediaError
from gvcc.media import Video
from gvcc.records import Audio, Colour

WEIGHTS = {"bt709": (0.2126, 0.0722), "bt601": (0.299, 0.114), "bt2020nc": (0.2627, 0.0593)}
CODES = {"bt709": 1, "bt601": 6, "bt2020nc": 9}
BARS = np.array(
    [(30, 200, 0), (255, 0, 0), (0, 0, 255), (255, 255, 255), (0, 0, 0), (200, 120, 60)], np.uint8
)


def bars(height=32, width=16):
    """Vertical bars of known colours, [H, 6 W, 3]."""
    return np.repeat(np.repeat(BARS[None], width, 1), height, 0)


def smooth(count=4, height=48, width=64):
    """A moving, smooth and colourful clip that survives 4:2:0."""
    t, y, x = np.mgrid[:count, :height, :width].astype(float)
    waves = [np.sin(x / 9 + t / 3), np.cos(y / 11 - t / 5), np.sin((x + y) / 17)]
    return np.rint(128 + 90 * np.stack(waves, -1)).astype(np.uint8)


def yuv_planes(rgb, matrix, full, bits):
    """Y'CbCr 4:4:4 as BT.709/BT.2020 define it, without the code under test."""
    kr, kb = WEIGHTS[matrix]
    r, g, b = np.moveaxis(rgb / 255.0, -1, 0)
    y = kr * r + (1 - kr - kb) * g + kb * b
    cb, cr = (b - y) / (2 * (1 - kb)), (r - y) / (2 * (1 - kr))
    step, top = 2 ** (bits - 8), 2**bits - 1
    if full:
        planes = [y * top, cb * top + 128 * step, cr * top + 128 * step]
    else:
        planes = [(16 + 219 * y) * step] + [(128 + 224 * c) * step for c in (cb, cr)]
    return [np.rint(p).clip(0, top).astype(np.uint16 if bits > 8 else np.uint8) for p in planes]


def picture(planes, form):
    frame = av.VideoFrame(planes[0].shape[1], planes[0].shape[0], form)
    for plane, values in zip(frame.planes, planes, strict=True):
        rows = np.zeros((plane.height, plane.line_size), np.uint8)
        data = np.ascontiguousarray(values).view(np.uint8).reshape(plane.height, -1)
        rows[:, : data.shape[1]] = data
        plane.update(rows.tobytes())
    return frame


def store(pictures, muxer="matroska", codec="ffv1", rate=24, pts=None, base=None, **tags):
    """The bytes of a file with these `av.VideoFrame`s; `pts` count in `base` seconds."""
    file = io.BytesIO()
    options = {"avoid_negative_ts": "disabled"} if pts and min(pts) < 0 else {}
    with av.open(file, "w", format=muxer, options=options) as box:
        stream = box.add_stream(codec, rate=Fraction(rate))
        stream.width, stream.height = pictures[0].width, pictures[0].height
        stream.pix_fmt = pictures[0].format.name
        if base is not None:
            stream.codec_context.time_base = stream.time_base = base
        for name, value in tags.items():
            setattr(stream.codec_context, name, value)
        for number, frame in enumerate(pictures):
            frame.pts = number if pts is None else pts[number]
            frame.time_base = 1 / Fraction(rate) if base is None else base
            box.mux(stream.encode(frame))
        box.mux(stream.encode(None))
    return file.getvalue()


def numbered(count, height=16, width=16):
    """Grey pictures whose level tells their number: 2 levels apart, full-range grey ffv1."""
    levels = [np.full((height, width), 2 * n, np.uint8) for n in range(count)]
    return [av.VideoFrame.from_ndarray(level, format="gray") for level in levels]


def numbers(video):
    return (video.frames[:, 0, 0, 0] // 2).tolist()


def tone(codec="aac", layout="stereo", seconds=1.0, muxer="mp4", pictures=(), late=0.0, rate=48000):
    """A file with a tone; with `pictures` at 24/s too, which start `late` seconds after it."""
    file = io.BytesIO()
    with av.open(file, "w", format=muxer) as box:
        video = None
        if pictures:
            video = box.add_stream("ffv1" if muxer != "mp4" else "libx264", rate=24)
            video.width, video.height = pictures[0].width, pictures[0].height
            video.pix_fmt = pictures[0].format.name
        audio = box.add_stream(codec, rate=rate, layout=layout)
        for number, frame in enumerate(pictures):
            frame.pts, frame.time_base = number + round(late * 24), Fraction(1, 24)
            box.mux(video.encode(frame))
        wave = np.sin(np.arange(int(seconds * rate)) / 17) * 8000
        wave += np.random.default_rng(0).normal(0, 300, wave.size)
        samples = np.repeat(wave.astype(np.int16), 2 if layout == "stereo" else 1)[None]
        sound = av.AudioFrame.from_ndarray(samples, format="s16", layout=layout)
        sound.sample_rate, sound.pts = rate, 0
        box.mux(audio.encode(sound))
        for stream in (video, audio):
            if stream:
                box.mux(stream.encode(None))
    return file.getvalue()


def raw_audio(data):
    with av.open(io.BytesIO(data)) as box:
        stream = box.streams.audio[0]
        return [(p.pts * p.time_base, bytes(p)) for p in box.demux(stream) if p.size]


def psnr(a, b):
    return 10 * np.log10(255**2 / max(np.mean((a.astype(float) - b) ** 2), 1e-9))


def leftovers(folder):
    return sorted(entry.name for entry in folder.iterdir())


# --- colour ----------------------------------------------------------------------------------


@pytest.mark.parametrize("half", [False, True], ids=["444", "420"])
@pytest.mark.parametrize("bits", [8, 10])
@pytest.mark.parametrize("full", [False, True], ids=["limited", "full"])
@pytest.mark.parametrize("matrix", list(WEIGHTS))
def test_tagged_yuv_reads_as_the_analytic_rgb(matrix, full, bits, half):
    rgb = bars()
    planes = yuv_planes(rgb, matrix, full, bits)
    if half:
        planes[1:] = [p[::2, ::2] for p in planes[1:]]
    form = f"yuv4{'20' if half else '44'}p" + ("10le" if bits == 10 else "")
    tags = {"colorspace": CODES[matrix], "color_range": 2 if full else 1}
    video = media.read(io.BytesIO(store([picture(planes, form)], **tags)))
    assert (video.colour.matrix, video.colour.full_range) == (CODES[matrix], full)
    error = np.abs(video.frames[0].astype(int) - rgb)
    inner = (np.arange(rgb.shape[1]) % 16 >= 4) & (np.arange(rgb.shape[1]) % 16 < 12)
    assert error[:, inner].max() <= (3 if half else 2)


@pytest.mark.parametrize("height, matrix", [(480, "bt601"), (720, "bt709")])
def test_untagged_yuv_goes_by_height_and_arguments_override(height, matrix):
    rgb = bars(height)
    data = store([picture(yuv_planes(rgb, matrix, False, 8), "yuv444p")])
    video = media.read(io.BytesIO(data))
    assert video.colour == Colour(CODES[matrix], 2, 2, False)
    assert np.abs(video.frames[0].astype(int) - rgb).max() <= 2
    data = store([picture(yuv_planes(rgb, "bt2020nc", True, 8), "yuv444p")])
    assert np.abs(media.read(io.BytesIO(data)).frames[0].astype(int) - rgb).max() > 10
    video = media.read(io.BytesIO(data), matrix="bt2020nc", full_range=True)
    assert np.abs(video.frames[0].astype(int) - rgb).max() <= 2
    assert (video.colour.matrix, video.colour.full_range) == (9, True)


def test_a_matrix_nothing_undoes_is_refused_unless_overridden():
    data = store([picture(yuv_planes(bars(), "bt709", False, 8), "yuv444p")], colorspace=8)
    with pytest.raises(MediaError, match="matrix 8 is not supported"):
        media.read(io.BytesIO(data))
    assert media.read(io.BytesIO(data), matrix="bt709").colour.matrix == 1
    with pytest.raises(ConfigError, match="bt709, bt601, bt2020nc"):
        media.read(io.BytesIO(data), matrix="rec709")


def test_the_range_of_grey_counts():
    levels = np.arange(256, dtype=np.uint8).reshape(16, 16)
    for tag, expected in ((2, levels), (1, np.rint((levels - 16.0) * 255 / 219).clip(0, 255))):
        frame = av.VideoFrame.from_ndarray(levels, format="gray")
        video = media.read(io.BytesIO(store([frame], color_range=tag)))
        assert np.abs(video.frames[0] - expected[..., None]).max() <= 1, tag


def test_deep_rgb_is_rounded_not_cut():
    deep = np.arange(32 * 32, dtype=np.uint16).reshape(32, 32) * 64
    frame = av.VideoFrame.from_ndarray(np.stack([deep] * 3, -1), format="rgb48be")
    video = media.read(io.BytesIO(store([frame], "mov", "png")))
    assert np.array_equal(video.frames[0, ..., 0], np.rint(deep / 65535 * 255))


def test_alpha_is_composited_over_black(tmp_path):
    rgba = np.random.default_rng(0).integers(0, 256, (8, 8, 4), dtype=np.uint8)
    rgba[:4, :, 3] = 255
    frame = av.VideoFrame.from_ndarray(rgba, format="rgba")
    frames = media.read(io.BytesIO(store([frame], "mov", "png"))).frames[0]
    assert np.array_equal(frames, np.rint(rgba[..., :3] / 255 * rgba[..., 3:]).astype(np.uint8))


def test_gif_is_exact():
    rng = np.random.default_rng(1)
    codes = rng.integers(0, 256, (3, 16, 16), dtype=np.uint8)  # 3 bits red, 3 green, 2 blue
    frames = [av.VideoFrame.from_ndarray(c, format="rgb8") for c in codes]
    video = media.read(io.BytesIO(store(frames, "gif", "gif", rate=10)))
    expected = np.stack([(codes >> 5) * 36, (codes >> 2 & 7) * 36, (codes & 3) * 85], -1)
    assert np.array_equal(video.frames, expected)
    assert (video.fps, video.colour) == (10, Colour())


@pytest.mark.parametrize("full", [False, True])
@pytest.mark.parametrize("matrix", list(WEIGHTS))
def test_yuv_written_is_the_analytic_yuv(matrix, full):
    rgb = np.random.default_rng(2).integers(0, 256, (33, 17, 3), dtype=np.uint8)
    planes = colours.to_yuv(rgb, CODES[matrix], full).astype(int)
    assert np.abs(planes - np.stack(yuv_planes(rgb, matrix, full, 8)).astype(int)).max() <= 1
    assert np.mean(planes != np.stack(yuv_planes(rgb, matrix, full, 8))) < 0.005


@pytest.mark.parametrize("suffix", [".mp4", ".y4m"])
def test_writing_and_reading_does_not_shift_chroma(tmp_path, suffix):
    ramp = np.zeros((1, 32, 128, 3), np.uint8)
    ramp[..., 0] = np.arange(128) * 1.9
    ramp[..., 2] = 255 - ramp[..., 0]
    video = Video(ramp, Fraction(24), Colour(6))
    for _ in range(3):
        media.write(video, tmp_path / f"a{suffix}", overwrite=True)
        video = media.read(tmp_path / f"a{suffix}")
    error = video.frames.astype(float) - ramp
    # Chroma read elsewhere than written moves by half a pixel: nearly 1 level each time.
    assert np.abs(error[0, :, 8:-8].mean((0, 1))).max() < 0.5


# --- pictures and folders --------------------------------------------------------------------


def test_png_folder_round_trip_is_exact(tmp_path):
    frames = np.random.default_rng(3).integers(0, 256, (12, 9, 7, 3), dtype=np.uint8)
    for name in ("plain", "dotted.v2/"):
        media.write(Video(frames, Fraction(24)), f"{tmp_path}/{name}")
        video = media.read(f"{tmp_path}/{name}")
        assert np.array_equal(video.frames, frames)
        assert (video.fps, video.colour, video.audio) == (24, Colour(), None)
    assert leftovers(tmp_path) == ["dotted.v2", "plain"]
    assert leftovers(tmp_path / "plain")[-1] == "00011.png"
    video = media.read(tmp_path / "plain", frames=3, fps=Fraction(25, 2))
    assert np.array_equal(video.frames, frames[:3]) and video.fps == Fraction(25, 2)


def test_folder_sorts_naturally_and_skips_other_files(tmp_path):
    for level, name in enumerate(("f%d_1.png", "f%d_2.png", "f%d_10.PNG", "g.png")):
        data = next(colours.pngs(np.full((1, 4, 4, 3), level, np.uint8)))
        (tmp_path / name).write_bytes(data)
    (tmp_path / "notes.txt").write_text("not an image")
    (tmp_path / ".hidden.png").write_text("not an image")
    assert media.read(tmp_path).frames[:, 0, 0, 0].tolist() == [0, 1, 2, 3]
    still = media.read(tmp_path / "f%d_10.PNG")
    assert still.frames.shape == (1, 4, 4, 3) and still.frames[0, 0, 0, 0] == 2


def test_folder_of_mixed_sizes_or_of_nothing_is_refused(tmp_path):
    with pytest.raises(MediaError, match="no images"):
        media.read(tmp_path)
    for name, size in (("a.png", 4), ("b.png", 6)):
        (tmp_path / name).write_bytes(next(colours.pngs(np.zeros((1, size, 4, 3), np.uint8))))
    with pytest.raises(MediaError, match="b.png .*a.png"):
        media.read(tmp_path)
    (tmp_path / "b.png").write_bytes(b"no image at all")
    with pytest.raises(MediaError, match="b.png"):
        media.read(tmp_path)


def test_one_png(tmp_path):
    frames = np.random.default_rng(4).integers(0, 256, (2, 33, 17, 3), dtype=np.uint8)
    media.write(Video(frames[:1], Fraction(24)), tmp_path / "a.png")
    assert np.array_equal(media.read(tmp_path / "a.png").frames, frames[:1])
    with pytest.raises(ConfigError, match="one frame, not 2"):
        media.write(Video(frames, Fraction(24)), tmp_path / "b.png")


@pytest.mark.parametrize(
    "matrix, expected",
    [
        ((1, 0, 0, 1), lambda f: f),
        ((0, 1, -1, 0), lambda f: np.rot90(f, -1)),
        ((-1, 0, 0, -1), lambda f: np.rot90(f, 2)),
        ((0, -1, 1, 0), lambda f: np.rot90(f, 1)),
        ((-1, 0, 0, 1), lambda f: f[:, ::-1]),
    ],
    ids=["upright", "90 right", "180", "90 left", "mirrored"],
)
def test_display_matrix(tmp_path, matrix, expected):
    frames = smooth(2, 32, 48)
    media.write(Video(frames, Fraction(24)), tmp_path / "a.mp4")
    plain = media.read(tmp_path / "a.mp4").frames
    data = bytearray((tmp_path / "a.mp4").read_bytes())
    place = data.index(b"tkhd") + 4 + 40  # ISO 14496-12, 8.3.2, version 0
    assert data[place : place + 4] == b"\x00\x01\x00\x00"
    a, b, c, d = (value << 16 for value in matrix)
    data[place : place + 36] = struct.pack(">9i", a, b, 0, c, d, 0, 0, 0, 1 << 30)
    turned = media.read(io.BytesIO(bytes(data))).frames
    assert np.array_equal(turned, np.stack([expected(frame) for frame in plain]))


def test_exif_orientation(tmp_path):
    frame = np.zeros((16, 32, 3), np.uint8)
    frame[:8, :8] = 255, 0, 0
    image = io.BytesIO()
    with av.open(image, "w", format="mjpeg") as box:
        stream = box.add_stream("mjpeg", rate=24, options={"qmin": "1", "qmax": "1"})
        stream.width, stream.height, stream.pix_fmt = 32, 16, "yuvj444p"
        planes = yuv_planes(frame, "bt601", True, 8)
        box.mux(stream.encode(picture(planes, "yuvj444p")))
        box.mux(stream.encode(None))
    data = image.getvalue()
    # One big-endian TIFF entry: tag 0x112 (orientation), one SHORT, 6 = turn right to view.
    entry = struct.pack(">HHIHH", 0x112, 3, 1, 6, 0)
    exif = b"Exif\0\0MM\0\x2a" + struct.pack(">IH", 8, 1) + entry + bytes(4)
    marker = b"\xff\xe1" + struct.pack(">H", len(exif) + 2) + exif
    for name, still in (("plain.jpg", data), ("turned.jpg", data[:2] + marker + data[2:])):
        (tmp_path / name).write_bytes(still)
    plain = media.read(tmp_path / "plain.jpg").frames[0]
    assert np.abs(plain.astype(int) - frame).max() < 20
    assert np.array_equal(media.read(tmp_path / "turned.jpg").frames[0], np.rot90(plain, -1))


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


def test_variable_rate_repeats_and_drops_to_the_average():
    pts = [0, 100, 200, 300, 800, 820, 900, 1000, 1100, 1200]  # ms, on screen to 1300 at most
    data = store(numbered(10), rate=10, pts=pts, base=Fraction(1, 1000))
    video = media.read(io.BytesIO(data))
    assert video.fps == 10
    # In the middle of each tick, 50 ms after it starts, this picture is the latest.
    assert numbers(video) == [0, 1, 2, 3, 3, 3, 3, 3, 5, 6, 7, 8, 9]
    assert numbers(media.read(io.BytesIO(data), frames=9)) == [0, 1, 2, 3, 3, 3, 3, 3, 5]


def test_a_burst_of_pictures_before_the_frames_asked_for():
    pts = [0, 10, 20, 30, 40, 100, 200, 300, 400, 500]
    data = io.BytesIO(store(numbered(10), rate=10, pts=pts, base=Fraction(1, 1000)))
    assert numbers(media.read(data, frames=4)) == [4, 5, 6, 7]


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


# --- audio -----------------------------------------------------------------------------------


def grey_yuv(count):
    return [
        picture(
            [np.full((32, 32), 50 + n, np.uint8)] + [np.full((16, 16), 128, np.uint8)] * 2,
            "yuv420p",
        )
        for n in range(count)
    ]


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
        track = media._track(stream, packets, Fraction(0), None)
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
    video = media.read(io.BytesIO(tone("libopus", muxer="matroska", pictures=grey_yuv(4))))
    with pytest.raises(MediaError, match="a.mov: mov does not take opus audio: write .mkv"):
        media.write(video, tmp_path / "a.mov")
    unknown = Audio("nonsense", 48000, "stereo", Fraction(1, 48000), b"", ())
    with pytest.raises(MediaError, match="a.mkv: matroska does not take nonsense audio"):
        media.write(Video(video.frames, video.fps, audio=unknown), tmp_path / "a.mkv")
    assert leftovers(tmp_path) == []


# --- writing ---------------------------------------------------------------------------------


@pytest.mark.parametrize("suffix", [".mp4", ".mkv", ".mov"])
@pytest.mark.parametrize(
    "colour",
    [Colour(), Colour(6, 6, 6, False), Colour(5, 2, 2, True), Colour(9, 9, 14, False)],
    ids=["bt709", "bt601", "bt601 full", "bt2020"],
)
def test_written_video_keeps_pixels_tags_and_rate(tmp_path, suffix, colour):
    video = Video(smooth(8), Fraction(24000, 1001), colour)
    media.write(video, tmp_path / f"a{suffix}")
    again = media.read(tmp_path / f"a{suffix}")
    assert (again.fps, again.colour) == (video.fps, colour)
    assert psnr(again.frames, video.frames) > 40
    with av.open(str(tmp_path / f"a{suffix}")) as box:
        assert box.streams.video[0].codec_context.pix_fmt.lstrip("yuvj") == "420p"
        assert sum(p.is_keyframe for p in box.demux(video=0) if p.size) == 1
    assert leftovers(tmp_path) == [f"a{suffix}"]


@pytest.mark.parametrize("suffix", [".mp4", ".y4m"])
@pytest.mark.parametrize("count, height, width", [(1, 33, 17), (5, 33, 17), (1, 48, 64), (2, 1, 1)])
def test_odd_sizes_and_single_frames(tmp_path, suffix, count, height, width):
    frames = smooth(count, height, width)
    media.write(Video(frames, Fraction(7, 2)), tmp_path / f"a{suffix}")
    again = media.read(tmp_path / f"a{suffix}", matrix="bt709")
    assert again.frames.shape == frames.shape and again.fps == Fraction(7, 2)
    assert psnr(again.frames, frames) > 38


def test_full_range_survives_y4m(tmp_path):
    media.write(Video(smooth(2), Fraction(24), Colour(6, 2, 2, True)), tmp_path / "a.y4m")
    again = media.read(tmp_path / "a.y4m")
    assert again.colour.full_range and psnr(again.frames, smooth(2)) > 40


def test_y4m_through_pipes(tmp_path):
    media.write(Video(smooth(5), Fraction(30000, 1001), Colour(6)), tmp_path / "a.y4m")
    data = (tmp_path / "a.y4m").read_bytes()
    code = "from gvcc import media; media.write(media.read('-', frames=4), '-')"
    run = subprocess.run([sys.executable, "-c", code], input=data, capture_output=True, timeout=60)
    assert (run.returncode, run.stderr) == (0, b"")
    assert run.stdout.startswith(b"YUV4MPEG2 W64 H48 F30000:1001")
    video = media.read(io.BytesIO(run.stdout))
    assert video.frames.shape == (4, 48, 64, 3)
    assert psnr(video.frames, smooth(5)[:4]) > 40


def test_a_broken_pipe_is_named():
    code = (
        "import numpy, os, sys; from fractions import Fraction; from gvcc import media\n"
        "frames = numpy.zeros((40, 128, 128, 3), numpy.uint8)\n"
        "try: media.write(media.Video(frames, Fraction(24)), '-')\n"
        "except media.MediaError as error: os.write(2, str(error).encode())\n"
        "os._exit(0)"
    )
    with subprocess.Popen(
        [sys.executable, "-c", code], stdout=subprocess.PIPE, stderr=subprocess.PIPE
    ) as run:
        run.stdout.read(10)
        run.stdout.close()
        assert run.stderr.read() == b"-: cannot write: Broken pipe"


def test_nothing_is_overwritten_unasked(tmp_path):
    video = Video(smooth(2), Fraction(24))
    for name in ("a.mp4", "a.png", "folder"):
        one = Video(video.frames[:1], video.fps)
        media.write(one, tmp_path / name)
        with pytest.raises(ConfigError, match=f"{name}: exists"):
            media.write(one, tmp_path / name)
        media.write(Video(255 - one.frames, one.fps), tmp_path / name, overwrite=True)
        assert psnr(media.read(tmp_path / name).frames, 255 - one.frames) > 35
    (tmp_path / "folder" / "precious.txt").write_text("keep me")
    with pytest.raises(ConfigError, match="other files"):
        media.write(video, tmp_path / "folder", overwrite=True)
    with pytest.raises(ConfigError, match="is a folder|exists and is"):
        media.write(video, f"{tmp_path}/a.mp4/", overwrite=True)
    assert leftovers(tmp_path / "folder") == ["00000.png", "precious.txt"]
    assert leftovers(tmp_path) == ["a.mp4", "a.png", "folder"]


@pytest.mark.parametrize("name", ["a.mp4", "a.y4m", "folder"])
@pytest.mark.parametrize("error", [MemoryError, KeyboardInterrupt])
def test_a_failed_write_leaves_nothing_and_spares_the_old_file(tmp_path, monkeypatch, name, error):
    video = Video(smooth(3), Fraction(24))
    media.write(video, tmp_path / name)
    old = media.read(tmp_path / name).frames
    calls = []

    def failing(*args, real=np.ascontiguousarray, **kwargs):
        calls.append(1)
        if len(calls) > 2:
            raise error
        return real(*args, **kwargs)

    monkeypatch.setattr(colours.np, "ascontiguousarray", failing)
    yuv = colours.to_yuv
    monkeypatch.setattr(colours, "to_yuv", lambda *args: failing(yuv(*args)))
    with pytest.raises(error):
        media.write(video, tmp_path / name, overwrite=True)
    with pytest.raises(error):
        calls.clear()
        media.write(video, tmp_path / f"new-{name}")
    monkeypatch.undo()
    assert leftovers(tmp_path) == [name]
    assert np.array_equal(media.read(tmp_path / name).frames, old)


@pytest.mark.parametrize(
    "frames",
    [np.zeros((2, 8, 8, 3)), np.zeros((0, 8, 8, 3), np.uint8), np.zeros((2, 8, 8), np.uint8)],
)
def test_what_is_no_video_is_refused(tmp_path, frames):
    with pytest.raises(ConfigError, match="uint8"):
        media.write(Video(frames, Fraction(24)), tmp_path / "a.mp4")


def test_settings_out_of_range_are_refused(tmp_path):
    video = Video(smooth(1), Fraction(24))
    with pytest.raises(ConfigError, match=r"\.mkv, \.mov, \.mp4, \.y4m, \.png"):
        media.write(video, tmp_path / "a.avi")
    with pytest.raises(ConfigError, match="matrix 8"):
        media.write(Video(video.frames, video.fps, Colour(8)), tmp_path / "a.mp4")
    media.write(video, tmp_path / "a.mp4")
    with pytest.raises(ConfigError, match="at least 1"):
        media.read(tmp_path / "a.mp4", frames=0)
    with pytest.raises(ConfigError, match="fps"):
        media.read(tmp_path / "a.mp4", fps=Fraction(24))
    with pytest.raises(MediaError, match="nowhere.*No such file"):
        media.write(video, tmp_path / "nowhere" / "a.mp4")


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
