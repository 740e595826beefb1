"""Writing video files: what is kept, streams of pictures, and what a failure leaves behind."""

import io
import os
import subprocess
import sys
from fractions import Fraction
from pathlib import Path

import av
import numpy as np
import pytest
from media_samples import leftovers, psnr, smooth

from gvcc.errors import ConfigError, Corrupt, MediaError
from gvcc.pictures import colour as colours
from gvcc.pictures import media
from gvcc.pictures.media import Video
from gvcc.records import Colour


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


@pytest.mark.parametrize("suffix", [".mp4", ".mkv", ".mov", ".y4m"])
@pytest.mark.parametrize("aspect", [Fraction(1), Fraction(4, 3), Fraction(12, 11), Fraction(1, 2)])
@pytest.mark.parametrize("size", [(48, 64), (33, 17)])
def test_the_pixel_aspect_is_written(tmp_path, suffix, aspect, size):
    video = Video(smooth(2, *size), Fraction(24), pixel_aspect=aspect)
    media.write(video, tmp_path / f"a{suffix}")
    with av.open(str(tmp_path / f"a{suffix}")) as box:
        stream = box.streams.video[0]
        picture = next(box.decode(stream))
        assert (picture.height, picture.width) == size
        assert stream.sample_aspect_ratio == aspect
        if suffix != ".y4m":
            assert stream.codec_context.sample_aspect_ratio == aspect


@pytest.mark.parametrize("aspect", [Fraction(0), Fraction(-1, 2), Fraction(1, 2**31)])
def test_a_pixel_aspect_that_is_none_is_refused(tmp_path, aspect):
    video = Video(smooth(1), Fraction(24))
    object.__setattr__(video, "pixel_aspect", aspect)  # as a clip of somebody's own may say
    for name in ("a.mp4", "a.y4m"):
        with pytest.raises(ConfigError, match="pixel aspect"):
            media.write(video, tmp_path / name)
    assert leftovers(tmp_path) == []


def test_y4m_is_as_ffmpeg_writes_it(tmp_path):
    for size, level in (((48, 64), False), ((3, 5), True)):
        video = Video(smooth(3, *size), Fraction(30000, 1001), Colour(6, 2, 2, level))
        media.write(video, tmp_path / "a.y4m", overwrite=True)
        file = io.BytesIO()
        with av.open(str(tmp_path / "a.y4m")) as box, av.open(file, "w", "yuv4mpegpipe") as copy:
            source = box.streams.video[0]
            stream = copy.add_stream("rawvideo", rate=source.average_rate)
            stream.width, stream.height, stream.pix_fmt = (
                source.width,
                source.height,
                source.pix_fmt,
            )
            stream.codec_context.color_range = source.codec_context.color_range
            for picture in box.decode(source):
                copy.mux(stream.encode(picture))
            copy.mux(stream.encode(None))
        written = (tmp_path / "a.y4m").read_bytes()
        assert written == file.getvalue().replace(b" A0:0 ", b" A1:1 ", 1)


def test_y4m_through_pipes(tmp_path):
    media.write(Video(smooth(5), Fraction(30000, 1001), Colour(6)), tmp_path / "a.y4m")
    data = (tmp_path / "a.y4m").read_bytes()
    code = "from gvcc.pictures import media; media.write(media.read('-', frames=4), '-')"
    run = subprocess.run([sys.executable, "-c", code], input=data, capture_output=True)
    assert (run.returncode, run.stderr) == (0, b"")
    assert run.stdout.startswith(b"YUV4MPEG2 W64 H48 F30000:1001")
    video = media.read(io.BytesIO(run.stdout))
    assert video.frames.shape == (4, 48, 64, 3)
    assert psnr(video.frames, smooth(5)[:4]) > 40


def test_a_broken_pipe_is_named():
    code = (
        "import numpy, os, sys; from fractions import Fraction; from gvcc.pictures import media\n"
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
    [np.zeros((2, 8, 8, 3)), np.zeros((2, 0, 8, 3), np.uint8), np.zeros((2, 8, 8), np.uint8)],
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
        media.read(tmp_path / "a.mp4", fps=Fraction(0))
    with pytest.raises(ConfigError, match="the folder of .*nowhere.* does not exist"):
        media.write(video, tmp_path / "nowhere" / "a.mp4")


# --- streams of pictures ---------------------------------------------------------------------


class Stream:
    """A clip of `pictures`, an error among which is raised, that promises `count` of them."""

    fps, colour, audio, height, width = Fraction(24), Colour(), None, 48, 64

    def __init__(self, pictures, count=9):
        self.given, self.count = pictures, count

    def pictures(self):
        for item in self.given:
            if isinstance(item, BaseException):
                raise item
            yield item


KINDS = ["a.mp4", "a.mkv", "a.y4m", "a.png", "folder"]


@pytest.mark.parametrize("name", KINDS)
def test_as_many_pictures_are_written_as_come(tmp_path, name):
    frames = smooth(1 if name == "a.png" else 5)
    media.write(Stream(frames, count=1 if name == "a.png" else 9), tmp_path / name)
    again = media.read(tmp_path / name, matrix="bt709")
    assert again.frames.shape == frames.shape and psnr(again.frames, frames) > 38


@pytest.mark.parametrize("name", KINDS)
def test_without_a_picture_nothing_is_written(tmp_path, name):
    with pytest.raises(MediaError, match=f"{name}: there is no picture"):
        media.write(Stream([], count=1), tmp_path / name)
    assert leftovers(tmp_path) == []


def test_a_png_takes_one_picture_whatever_was_promised(tmp_path):
    with pytest.raises(ConfigError, match="one frame"):
        media.write(Stream(smooth(2), count=1), tmp_path / "a.png")
    assert leftovers(tmp_path) == []


@pytest.mark.parametrize("name", [n for n in KINDS if n != "a.png"])
@pytest.mark.parametrize(
    "error",
    [
        Corrupt("bad GOP"),
        MediaError("in.mp4: changed"),
        ValueError("x"),
        OSError(5, "y"),
        StopAsyncIteration(),
    ],
    ids=repr,
)
@pytest.mark.parametrize("place", [0, 3])
def test_an_error_of_the_clip_passes_unchanged(tmp_path, name, error, place):
    media.write(Video(smooth(1), Fraction(24)), tmp_path / name)
    kept = media.read(tmp_path / name).frames
    with pytest.raises(type(error)) as caught:
        media.write(Stream([*smooth(place), error]), tmp_path / name, overwrite=True)
    assert caught.value is error
    assert leftovers(tmp_path) == [name]
    assert np.array_equal(media.read(tmp_path / name).frames, kept)


def test_pictures_of_another_size_are_refused(tmp_path):
    pictures = [*smooth(2), *smooth(1, 32, 32)]
    for name in ("a.mp4", "a.y4m", "folder"):
        with pytest.raises(ConfigError, match="of one size"):
            media.write(Stream(pictures), tmp_path / name)
    assert leftovers(tmp_path) == []


@pytest.mark.parametrize("name", ["a.mp4", "folder"])
def test_a_clip_may_be_written_over_its_own_file(tmp_path, name):
    media.write(Video(smooth(9), Fraction(24)), tmp_path / name)
    media.write(media.open_clip(tmp_path / name), tmp_path / name, overwrite=True)
    assert psnr(media.read(tmp_path / name).frames, smooth(9)) > 38


def test_a_player_at_the_end_of_a_pipe_can_start_at_once():
    code = """if True:
        import sys
        from fractions import Fraction
        import numpy as np
        from gvcc.pictures import media

        class Slow:
            fps, colour, audio = Fraction(24), media.Colour(), None
            count, height, width = 2, 16, 16
            def pictures(self):
                for _ in range(2):
                    yield np.zeros((16, 16, 3), np.uint8)
                    sys.stdin.readline()  # until the other end has seen the picture

        media.write(Slow(), "-")
    """
    pipes = {"stdin": subprocess.PIPE, "stdout": subprocess.PIPE}
    plain = {k: v for k, v in os.environ.items() if k != "PYTHONUNBUFFERED"}
    with subprocess.Popen([sys.executable, "-c", code], env=plain, **pipes) as run:
        for _ in range(2):
            lines = iter(run.stdout.readline, b"")
            assert any(line.startswith(b"FRAME") for line in lines), "the writer gave up"
            assert len(run.stdout.read(16 * 16 * 3 // 2)) == 384
            run.stdin.write(b"seen\n")
            run.stdin.flush()
        assert run.stdout.read() == b""
    assert run.returncode == 0


@pytest.mark.skipif(not Path("/proc/self/status").exists(), reason="reads the peak from /proc")
def test_memory_does_not_grow_with_the_clip(tmp_path):
    code = r"""if True:
        import re, sys
        from pathlib import Path
        from gvcc.pictures import media

        media.write(media.open_clip(sys.argv[1]), sys.argv[2])
        for _ in media.open_clip(sys.argv[3]).pictures():
            pass
        print(re.search(r"VmHWM:\s+([0-9]+) kB", Path("/proc/self/status").read_text())[1])
    """
    ramp = np.add.outer(np.arange(240), np.arange(320)) // 5
    media.write(Video(smooth(1, 240, 320), Fraction(24)), tmp_path / "still.png")
    peaks = []
    for count in (60, 600):
        source, folder = tmp_path / f"{count}.y4m", tmp_path / f"{count}"
        folder.mkdir()
        with source.open("wb") as file:
            file.write(b"YUV4MPEG2 W320 H240 F24:1 Ip A1:1 C420jpeg\n")
            for number in range(count):
                luma = (ramp + number % 100).astype(np.uint8).tobytes()
                file.write(b"FRAME\n" + luma + bytes([128]) * (len(luma) // 2))
                (folder / f"{number}.png").hardlink_to(tmp_path / "still.png")
        command = [sys.executable, "-c", code, source, f"{source}.mp4", folder]
        run = subprocess.run(command, capture_output=True, check=True)
        peaks.append(int(run.stdout) / 1000)
        assert media.open_clip(f"{source}.mp4", audio=False).count == count
    # In MB: 600 frames are 138; with two threads the peak of one picture differs by a few.
    assert peaks[1] - peaks[0] < 20, peaks
