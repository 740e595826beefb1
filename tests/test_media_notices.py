"""What of a source is not carried is said, and what its container asks of a picture is done."""

import errno
import io
import shutil
import struct
from fractions import Fraction

import av
import numpy as np
import pytest
from media_samples import LEVELS, PATTERN, SINE, ffmpeg, numbered, smooth, store, told

from gvcc.errors import ConfigError, MediaError
from gvcc.pictures import media
from gvcc.pictures.media import Video
from gvcc.records import Notice

H264 = ("-c:v", "libx264")


# --- what is lost ----------------------------------------------------------------------------


def made(tmp_path, name, *args):
    return media.open_clip(ffmpeg(*PATTERN, *args, tmp_path / name))


@pytest.mark.parametrize(
    "name, args, texts",
    [
        ("a.mp4", ("-vf", "format=yuv420p10", *H264), ["its 10-bit samples become 8-bit ones"]),
        ("a.mkv", ("-vf", "format=gray16", "-c:v", "ffv1"),
         ["its 16-bit samples become 8-bit ones"]),
        ("a.mp4", ("-vf", "format=yuv420p10,setparams=color_trc=smpte2084", *H264),
         ["HDR: its pictures stay PQ-coded, now in 8 bits, without mastering and light level "
          "data"]),
        ("a.mkv", ("-vf", "setparams=color_trc=arib-std-b67", "-c:v", "ffv1"),
         ["HDR: its pictures stay HLG-coded, now in 8 bits, without mastering and light level "
          "data"]),
        ("a.mov", ("-vf", "format=rgba,colorchannelmixer=aa=0.5", "-c:v", "png"),
         ["its alpha channel is composited over black"]),
        ("a.mov", ("-vf", "format=rgba", "-c:v", "png"), []),  # opaque all over
        ("a.webm", ("-pix_fmt", "yuva420p", "-c:v", "libvpx-vp9"),
         ["its alpha channel is left out"]),
        ("a.ts", ("-vf", "setfield=tff", "-flags", "+ildct+ilme", "-c:v", "mpeg2video"),
         ["48 pictures of it interlaced: the two fields stay woven into one picture"]),
        ("a.gif", (), []),
        ("a.mp4", (*SINE, *H264), []),
    ],
)  # fmt: skip
def test_what_pictures_lose_is_said(tmp_path, name, args, texts):
    assert told(made(tmp_path, name, *args)) == texts


def test_tracks_left_behind_are_said(tmp_path):
    (tmp_path / "a.srt").write_text("1\n00:00:00,000 --> 00:00:01,000\nhi\n")
    (tmp_path / "a.txt").write_text(
        ";FFMETADATA1\n[CHAPTER]\nTIMEBASE=1/1000\nSTART=0\nEND=900\ntitle=x\n"
    )
    inputs = (*PATTERN, *PATTERN, *SINE, *SINE, "-i", tmp_path / "a.srt", "-i", tmp_path / "a.txt")
    maps = [word for n in range(5) for word in ("-map", n)]
    path = ffmpeg(*inputs, *maps, "-map_metadata", 5, *H264, "-c:a:0", "aac", "-c:a:1", "libopus",
                  "-attach", tmp_path / "a.srt", "-metadata:s:t", "mimetype=text/plain",
                  tmp_path / "a.mkv")  # fmt: skip
    assert told(media.open_clip(path), "lost") == [
        "1 video track (h264) is left out",
        "1 audio track (opus) is left out; track 1 of 2 is carried (--audio-track)",
        "1 subtitle track (ass) is left out",
        "1 attachment is left out",
        "1 chapter mark left out",
    ]
    assert not any("audio" in text for text in told(media.open_clip(path, audio=False)))


def test_the_audio_track_is_the_default_one_or_the_one_asked_for(tmp_path):
    path = ffmpeg(*PATTERN, *SINE, *SINE, *SINE, *(w for n in range(4) for w in ("-map", n)), *H264,
                  "-c:a:0", "aac", "-c:a:1", "libopus", "-c:a:2", "flac", "-disposition:a:0", "0",
                  "-disposition:a:1", "default", tmp_path / "a.mkv")  # fmt: skip
    assert media.open_clip(path).audio.codec == "opus"
    for number, codec in enumerate(("aac", "opus", "flac"), start=1):
        clip = media.open_clip(path, audio_track=number)
        assert clip.audio.codec == codec and f"track {number} of 3 is carried" in told(clip)[0]
    for number in (0, 4, -1):
        with pytest.raises(ConfigError, match="3 audio tracks"):
            media.open_clip(path, audio_track=number)
    with pytest.raises(ConfigError, match="no audio"):
        media.open_clip(path, audio=False, audio_track=1)
    media.write(Video(smooth(1), Fraction(24)), tmp_path / "a.png")
    with pytest.raises(ConfigError, match="no audio"):
        media.open_clip(tmp_path / "a.png", audio_track=1)


@pytest.mark.parametrize("name", ["a.mp3", "a.m4a", "a.flac"])
def test_music_with_a_cover_is_no_video(tmp_path, name):
    media.write(Video(smooth(1), Fraction(24)), tmp_path / "cover.png")
    path = ffmpeg(*SINE, "-i", tmp_path / "cover.png", "-map", 0, "-map", 1, "-c:v", "copy",
                  "-disposition:v", "attached_pic", tmp_path / name)  # fmt: skip
    with pytest.raises(MediaError, match=f"{name}: no video, only a cover picture"):
        media.open_clip(path)
    film = ffmpeg(*PATTERN, "-i", tmp_path / "cover.png", "-map", 1, "-map", 0, "-c:v:0", "png",
                  "-c:v:1", "libx264", "-disposition:v:0", "attached_pic",
                  tmp_path / "film.mp4")  # fmt: skip
    clip = media.open_clip(film)
    assert clip.count == 48 and told(clip) == ["1 cover picture (png) is left out"]


# --- shape -----------------------------------------------------------------------------------


@pytest.mark.parametrize("suffix", [".mp4", ".mkv", ".mov", ".ts", ".avi", ".y4m"])
def test_the_aspect_of_a_pixel_is_kept(tmp_path, suffix):
    codec = {".y4m": (), ".avi": ("-c:v", "mpeg4")}.get(suffix, H264)
    clip = made(tmp_path, f"a{suffix}", "-vf", "setsar=16/11", *codec)
    assert clip.pixel_aspect == Fraction(16, 11) and told(clip) == []
    assert media.read(tmp_path / f"a{suffix}", frames=1).pixel_aspect == Fraction(16, 11)
    assert made(tmp_path, f"b{suffix}", "-vf", "setsar=0", *codec).pixel_aspect == 1


@pytest.mark.parametrize("turn, aspect", [(90, Fraction(11, 16)), (180, Fraction(16, 11)),
                                          (270, Fraction(11, 16))])  # fmt: skip
def test_the_aspect_of_a_turned_pixel_is_turned(tmp_path, turn, aspect):
    path = ffmpeg(*PATTERN, "-vf", "setsar=16/11", *H264, tmp_path / "a.mp4")
    turned = ffmpeg("-display_rotation", turn, "-i", path, "-c", "copy", tmp_path / "b.mp4")
    clip = media.open_clip(turned)
    assert clip.pixel_aspect == aspect
    assert (clip.width, clip.height) == ((64, 48) if turn == 180 else (48, 64))


def crop_of_mkv(data, crops):
    """An FFV1 file of ours with PixelCropBottom, Top, Left and Right in place of other elements."""
    place = data.index(b"\xe0\x90\xb0")
    size = data[place + 1] & 0x7F
    body = bytes.fromhex("b08140ba8130")
    for kind, value in zip((0x54AA, 0x54BB, 0x54CC, 0x54DD), crops, strict=True):
        body += kind.to_bytes(2, "big") + bytes([0x81, value]) if value else b""
    body += bytes([0xEC, 0x80 + size - len(body) - 2]) + bytes(size - len(body) - 2)
    assert len(body) == size
    return data[: place + 2] + body + data[place + 2 + size :]


def crop_of_mp4(data, crops):
    """The same of an MP4 whose index is at its end, by a clean aperture."""
    bottom, top, left, right = crops
    w, h = 64 - left - right, 48 - top - bottom
    box = struct.pack(">I4s8i", 40, b"clap", w, 1, h, 1, left - right, 2, top - bottom, 2)
    place = data.index(b"pasp") - 4
    out = bytearray(data[:place] + box + data[place:])
    for name in (b"moov", b"trak", b"mdia", b"minf", b"stbl", b"stsd", b"avc1"):
        at = out.rindex(name, 0, place) - 4
        struct.pack_into(">I", out, at, struct.unpack_from(">I", out, at)[0] + len(box))
    return bytes(out)


@pytest.mark.parametrize("crops", [(8, 0, 16, 0), (0, 4, 0, 2), (6, 0, 0, 0)])
@pytest.mark.parametrize("suffix", [".mkv", ".mp4"])
def test_a_crop_of_the_container_is_made(tmp_path, suffix, crops):
    if suffix == ".mkv":
        codec, patch = ("-c:v", "ffv1", "-pix_fmt", "yuv420p"), crop_of_mkv
    else:
        codec, patch = H264, crop_of_mp4
    path = ffmpeg(*PATTERN, *codec, tmp_path / f"a{suffix}")
    whole = media.read(path)
    (tmp_path / f"b{suffix}").write_bytes(patch(path.read_bytes(), crops))
    clip = media.open_clip(tmp_path / f"b{suffix}")
    bottom, top, left, right = crops
    want = whole.frames[:, top : 48 - bottom, left : 64 - right]
    assert (clip.count, clip.height, clip.width) == want.shape[:3]
    assert all(np.array_equal(a, b) for a, b in zip(clip.pictures(), want, strict=True))
    turned = ffmpeg("-display_rotation", 90, "-i", path, "-c", "copy", tmp_path / "c.mp4")
    if suffix == ".mp4":  # the crop is of the picture as it is coded
        (tmp_path / "d.mp4").write_bytes(crop_of_mp4(turned.read_bytes(), crops))
        upright = media.read(tmp_path / "d.mp4").frames
        assert np.array_equal(upright, np.rot90(want, 1, (1, 2)))


def test_the_crop_of_h264_is_made_by_its_decoder(tmp_path):
    path = ffmpeg("-f", "lavfi", "-i", "testsrc2=s=66x50:r=24:d=1", *H264, tmp_path / "a.mp4")
    clip = media.open_clip(path)
    assert (clip.width, clip.height) == (66, 50)


@pytest.mark.parametrize("sizes", [((64, 48), (32, 32)), ((64, 48), (128, 96))])
def test_a_change_of_size_names_sizes_and_time(tmp_path, sizes):
    parts = []
    for n, (w, h) in enumerate(sizes):
        source = ("-f", "lavfi", "-i", f"testsrc2=s={w}x{h}:r=24:d=1")
        offset = ("-output_ts_offset", n)
        parts.append(ffmpeg(*source, *H264, *offset, tmp_path / f"{n}.ts").read_bytes())
    (tmp_path / "a.ts").write_bytes(b"".join(parts))
    change = (
        rf"changes size from 64x48 to {sizes[1][0]}x{sizes[1][1]} at 0.92 s"  # ffmpeg's start of it
    )
    with pytest.raises(MediaError, match=change):
        media.open_clip(tmp_path / "a.ts")
    assert media.open_clip(tmp_path / "a.ts", frames=12).count == 12


# --- images that move ------------------------------------------------------------------------


@pytest.mark.parametrize("form", ["apng", "gif"])
def test_an_animation_by_the_name_of_an_image_is_read_whole(tmp_path, form):
    path = ffmpeg(*LEVELS, "-f", form, tmp_path / "a.png")
    clip = media.open_clip(path)
    assert clip.count == 48 and abs(clip.fps - 24) < Fraction(1, 10) and told(clip) == []
    assert len({pixels.tobytes() for pixels in clip.pictures()}) == 48
    folder = tmp_path / "folder"
    folder.mkdir()
    shutil.copy(path, folder / "1.png")
    clip = media.open_clip(folder)
    assert clip.count == 1 and told(clip) == ["47 pictures of 1.png left out, all but the first"]


def test_an_animated_webp_is_named(tmp_path):
    path = ffmpeg(*LEVELS, "-c:v", "libwebp_anim", "-f", "webp", tmp_path / "a.webp")
    for source in (path, io.BytesIO(path.read_bytes())):
        with pytest.raises(MediaError, match="an animated WebP"):
            media.open_clip(source)


def test_further_pages_of_a_tiff_are_said(tmp_path):
    from PIL import Image

    pages = [Image.fromarray(frame) for frame in smooth(3)]
    pages[0].save(tmp_path / "a.tif", save_all=True, append_images=pages[1:])
    clip = media.open_clip(tmp_path / "a.tif")
    assert told(clip) == ["2 pictures of a.tif left out, all but the first"]
    pages[0].save(tmp_path / "b.tif")
    assert told(media.open_clip(tmp_path / "b.tif")) == []


def test_what_images_lose_is_said_once(tmp_path):
    from PIL import Image

    for n in range(3):
        half = np.dstack([smooth(1)[0], np.full((48, 64), 128, np.uint8)])
        Image.fromarray(half).save(tmp_path / f"{n}.png")
    assert media.open_clip(tmp_path).notices == (
        Notice("lost", "its alpha channel is composited over black"),
    )
    assert media.read(tmp_path).notices == media.open_clip(tmp_path).notices


# --- pipes -----------------------------------------------------------------------------------


def test_a_full_temporary_folder_is_named(tmp_path, monkeypatch):
    def full(*_):
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr("gvcc.pictures.media_source.shutil.copyfileobj", full)
    monkeypatch.setattr("gvcc.pictures.media_source.tempfile.tempdir", str(tmp_path))
    with pytest.raises(MediaError, match=f"{tmp_path} is full.*TMPDIR"):
        media.open_clip(io.BufferedReader(Unseekable()))


class Unseekable(io.RawIOBase):
    def readable(self):
        return True


@pytest.mark.parametrize("level", [None, av.logging.ERROR])
def test_ffmpegs_log_is_left_as_it_was(level):
    """Its words on a stream are taken from the log, which is one for all."""
    before = av.logging.get_level()
    av.logging.set_level(level)
    try:
        media.open_clip(io.BytesIO(store(numbered(2))))
        assert av.logging.get_level() == level
    finally:
        av.logging.set_level(before)
