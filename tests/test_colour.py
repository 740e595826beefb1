"""Colour, single pictures and folders, orientation."""

import io
import struct
from fractions import Fraction

import av
import numpy as np
import pytest
from media_samples import (
    CODES,
    WEIGHTS,
    bars,
    leftovers,
    picture,
    smooth,
    store,
    yuv_planes,
)

from gvcc.errors import ConfigError, MediaError
from gvcc.pictures import colour as colours
from gvcc.pictures import media
from gvcc.pictures.media import Video
from gvcc.records import Colour

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
