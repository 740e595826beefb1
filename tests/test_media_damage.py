"""Sources that are damaged say so, and those that are whole do not."""

import io
import random

import pytest
from media_samples import PATTERN, SINE, ffmpeg, numbered, store, told

from gvcc.errors import MediaError
from gvcc.pictures import media

AV = (*PATTERN, *SINE, "-c:v", "libx264", "-c:a")
KINDS = {  # the suffix, and what makes it
    "mp4": (".mp4", *AV, "aac", "-movflags", "faststart"),
    "fragments": (".mp4", *AV, "aac", "-movflags", "frag_keyframe+empty_moov", "-g", "12"),
    "mov": (".mov", *PATTERN, "-c:v", "png", "-movflags", "faststart"),
    "mkv": (".mkv", *AV, "aac"),
    "live mkv": (".mkv", *AV, "aac", "-live", "1"),
    "webm": (".webm", *PATTERN, *SINE, "-c:v", "libvpx-vp9", "-c:a", "libopus"),
    "flv": (".flv", *AV, "aac"),
    "avi": (".avi", *PATTERN, *SINE, "-c:v", "mpeg4", "-c:a", "libmp3lame"),
    "h264 avi": (".avi", *AV, "libmp3lame"),
    "ts": (".ts", *AV, "aac"),
    "vob": (".vob", *PATTERN, *SINE, "-c:v", "mpeg2video", "-c:a", "mp2"),
    "mxf": (".mxf", *PATTERN, *SINE, "-c:v", "mpeg2video", "-c:a", "pcm_s16le"),
    "wmv": (".wmv", *PATTERN, *SINE, "-c:v", "wmv2", "-c:a", "wmav2"),
    "ogv": (".ogv", *PATTERN, *SINE, "-c:v", "libtheora", "-c:a", "libvorbis"),
    "ivf": (".ivf", *PATTERN, "-c:v", "libvpx"),
    "y4m": (".y4m", *PATTERN, "-pix_fmt", "yuv420p"),
    "gif": (".gif", *PATTERN),
    "apng": (".png", *PATTERN, "-f", "apng"),
}
WHOLE = {
    "prores": (".mov", *PATTERN, *SINE, "-c:v", "prores_ks", "-c:a", "pcm_s16le"),
    "hevc": (".ts", *PATTERN, "-c:v", "libx265", "-x265-params", "log-level=error"),
    "h264": (".h264", *PATTERN, "-c:v", "libx264"),
    "raw hevc": (".hevc", *PATTERN, "-c:v", "libx265", "-x265-params", "log-level=error"),
    "mjpeg": (".mjpeg", *PATTERN),
    "nut": (".nut", *AV, "aac"),
    "longer sound": (".mp4", *PATTERN, "-f", "lavfi", "-i", "sine=d=5", "-c:v", "libx264"),
    "shorter sound": (".mkv", *PATTERN, "-f", "lavfi", "-i", "sine=d=0.5", "-c:v", "libx264"),
    "longer in avi": (".avi", *PATTERN, "-f", "lavfi", "-i", "sine=d=5"),
    "alternate references": (".webm", *PATTERN, "-c:v", "libvpx", "-auto-alt-ref", "1",
                             "-lag-in-frames", "16"),
    "refresh": (".ts", *PATTERN, "-c:v", "libx264", "-intra-refresh", "1", "-g", "24"),
    "interlaced": (".ts", *PATTERN, "-vf", "setfield=tff", "-flags", "+ildct+ilme", "-c:v",
                   "mpeg2video"),
    "vfr": (".mkv", *PATTERN, "-vf", "setpts=N*N/200/TB", "-fps_mode", "vfr", "-c:v", "libx264"),
    "last picture long": (".mkv", *PATTERN, "-vf", "setpts='if(lt(N,47),N,400)/24/TB'",
                          "-fps_mode", "vfr", "-c:v", "libx264"),
}  # fmt: skip


@pytest.fixture(scope="module")
def made(tmp_path_factory):
    """A file of a kind, made once."""
    folder, files = tmp_path_factory.mktemp("whole"), {}

    def make(kind):
        if kind not in files:
            suffix, *args = (KINDS | WHOLE)[kind]
            files[kind] = ffmpeg(*args, folder / f"{kind.replace(' ', '-')}{suffix}")
        return files[kind]

    return make


def broken(path, data, **options):
    path.write_bytes(data)
    return told(media.open_clip(path, **options), "broken")


@pytest.mark.parametrize("kind", [*KINDS, *WHOLE])
def test_no_false_alarm(made, kind):
    clip = media.open_clip(made(kind))
    assert told(clip, "broken") == [] and len(list(clip.pictures())) == clip.count


@pytest.mark.parametrize("share", [0.5, 0.71, 0.93])
@pytest.mark.parametrize("kind", KINDS)
def test_a_file_cut_short_says_where(made, tmp_path, kind, share):
    path = made(kind)
    data = path.read_bytes()
    length = int(len(data) * share)
    # A program or transport stream may end after any packet of it.
    length -= length % 188 == 0 or length % 2048 == 0
    texts = broken(tmp_path / path.name, data[:length])
    assert texts and texts[0].startswith("breaks off at "), texts
    clip = media.open_clip(tmp_path / path.name)
    assert float(texts[0].split()[3]) == pytest.approx(float(clip.count / clip.fps), abs=0.006)
    few = media.open_clip(tmp_path / path.name, frames=1)  # more of it is none of our business
    assert told(few, "broken") == [] or clip.count == 1


def test_the_text_of_the_issue(made, tmp_path):
    data = made("mp4").read_bytes()
    (text,) = broken(tmp_path / "half.mp4", data[: len(data) // 2])
    assert text.endswith(" of 2.00 s")


# In WMV, MXF and GIF they may be where nothing tells them from what was there.
@pytest.mark.parametrize("seed", range(3))
@pytest.mark.parametrize(
    "kind",
    "mp4,mov,fragments,mkv,live mkv,webm,flv,avi,h264 avi,ts,vob,ogv,y4m,apng".split(","),
)
def test_random_bytes_in_the_middle_are_told(made, tmp_path, kind, seed):
    path, rng = made(kind), random.Random(seed)
    data = bytearray(path.read_bytes())
    size = min(3000, len(data) // 8)
    start = len(data) // 2 - size // 2
    data[start : start + size] = rng.randbytes(size)
    assert broken(tmp_path / path.name, data)


@pytest.mark.parametrize("kind", ["ts", "mkv", "flv", "vob", "ogv"])
def test_bytes_missing_from_the_middle_are_told(made, tmp_path, kind):
    path = made(kind)
    data = path.read_bytes()
    gap = 188 * 25
    start = len(data) // 376 * 188
    assert broken(tmp_path / path.name, data[:start] + data[start + gap :])


def test_pictures_that_do_not_decode_are_counted():
    import av

    with av.open(io.BytesIO(store(numbered(8), "mov", "png"))) as box:
        packets = [bytes(packet) for packet in box.demux(video=0) if packet.size]
    data = store(numbered(8), "mov", "png")
    for count, which in enumerate((3, 0, 7, 6, 1), start=1):
        data = data.replace(packets[which], bytes(len(packets[which])))
        clip = media.open_clip(io.BytesIO(data))
        does = "picture does" if count == 1 else "pictures do"
        assert told(clip) == [f"{count} {does} not decode"]
        assert len(list(clip.pictures())) == clip.count
    assert told(media.open_clip(io.BytesIO(data), frames=1)) == ["2 pictures do not decode"]
    # The fourth picture is beyond the first of those shown, and among the first two.
    assert told(media.open_clip(io.BytesIO(data), frames=2)) == ["3 pictures do not decode"]


def test_pictures_that_decode_with_errors_are_counted(tmp_path):
    data = bytearray(ffmpeg(*PATTERN, "-b:v", "2M", tmp_path / "a.m2v").read_bytes())
    data[len(data) // 2 : len(data) // 2 + 40] = random.Random(0).randbytes(40)
    (text,) = broken(tmp_path / "b.m2v", data)
    assert text.endswith("with errors")
    assert broken(tmp_path / "b.m2v", data, frames=3) == []


@pytest.mark.parametrize("codec", [".h264", ".m2v", ".mjpeg"])
@pytest.mark.parametrize("share", [0.4, 0.73])
def test_a_raw_stream_cut_short_is_told(tmp_path, codec, share):
    source = ("-f", "lavfi", "-i", "testsrc2=s=320x240:r=24:d=2")
    data = ffmpeg(*source, tmp_path / f"a{codec}").read_bytes()
    assert broken(tmp_path / f"cut{codec}", data[: int(len(data) * share)])


def test_streams_that_start_amid_a_group_are_whole(tmp_path):
    """Their first pictures lean on others that were never in the file: those are not shown."""
    coded = ("-c:v", "libx264", "-g", "12", "-x264-params", "open-gop=1:bframes=3")
    path = ffmpeg(*PATTERN, *SINE, *coded, "-c:a", "aac", tmp_path / "a.ts")
    data = path.read_bytes()
    third = len(data) // 564 * 188
    assert broken(tmp_path / "late.ts", data[:376] + data[third:]) == []
    for suffix in (".mp4", ".mkv"):
        late = ffmpeg("-i", tmp_path / "late.ts", "-c", "copy", tmp_path / f"late{suffix}")
        assert told(media.open_clip(late), "broken") == []


def test_damage_to_the_sound_alone_is_told(tmp_path):
    path = ffmpeg(*PATTERN, *SINE, "-c:v", "libx264", "-c:a", "aac", tmp_path / "a.ts")
    data = path.read_bytes()
    packets = [data[n : n + 188] for n in range(0, len(data), 188)]
    sound = [n for n, packet in enumerate(packets) if packet[1] & 0x1F == 1 and packet[2] == 1]
    del packets[sound[len(sound) // 2]]
    (text,) = broken(tmp_path / "b.ts", b"".join(packets))
    assert "sound damaged" in text
    assert told(media.open_clip(tmp_path / "b.ts", audio=False)) == []


# --- images ----------------------------------------------------------------------------------


def test_a_jpeg_cut_short_is_told_and_other_images_are_refused(tmp_path):
    source = ("-f", "lavfi", "-i", "testsrc2=s=128x96:r=24:d=1", "-frames:v", "1", "-update", "1")
    for suffix in ("jpg", "png", "bmp", "tif", "webp", "ppm"):
        folder = tmp_path / suffix
        folder.mkdir()
        whole = ffmpeg(*source, folder / f"1.{suffix}").read_bytes()
        assert told(media.open_clip(folder)) == []
        (folder / f"2.{suffix}").write_bytes(whole[: len(whole) * 3 // 4])
        if suffix == "jpg":
            assert told(media.open_clip(folder), "broken") == ["2.jpg is cut short or damaged"]
            assert told(media.open_clip(folder, frames=1)) == []
        else:
            with pytest.raises(MediaError, match=f"2.{suffix}"):
                media.open_clip(folder)


SHOWN = {  # with decoders that show what is damaged, and say so in a log at the most
    "ffv1": (".mkv", "-c:v", "ffv1", "-level", "3", "-slicecrc", "1"),
    "mjpeg": (".avi", "-c:v", "mjpeg"),
    "gif": (".gif",),
    "png": (".mov", "-c:v", "png"),
    "prores": (".mov", "-c:v", "prores_ks"),
}


@pytest.mark.parametrize("kind", SHOWN)
def test_what_a_decoder_only_logs_is_told(tmp_path, kind):
    suffix, *args = SHOWN[kind]
    path = ffmpeg(*PATTERN, *args, tmp_path / f"whole{suffix}")
    data = path.read_bytes()
    assert told(media.open_clip(path), "broken") == []
    told_of = 0
    for seed in range(12):
        rng, hurt = random.Random(seed), bytearray(data)
        place = rng.randrange(len(data) // 4, len(data) * 3 // 4)
        hurt[place : place + 40] = rng.randbytes(40)
        told_of += bool(broken(tmp_path / f"hurt{suffix}", bytes(hurt)))
    assert told_of >= {"ffv1": 12, "png": 12}.get(kind, 6)  # others have no checksums


def test_damage_behind_the_frames_asked_for_is_none_of_our_business(tmp_path):
    path = ffmpeg(*PATTERN, "-c:v", "ffv1", "-slicecrc", "1", tmp_path / "a.mkv")
    data = bytearray(path.read_bytes())
    data[len(data) * 3 // 4] ^= 255
    path.write_bytes(data)
    assert "slice CRC mismatch" in told(media.open_clip(path), "broken")[0]
    assert told(media.open_clip(path, frames=4), "broken") == []


def test_a_damaged_image_of_a_folder_is_named(tmp_path):
    ffmpeg(*PATTERN, "-frames:v", "3", "-q:v", "2", tmp_path / "%05d.jpg")
    path = tmp_path / "00002.jpg"
    data = bytearray(path.read_bytes())
    data[len(data) // 2 : len(data) // 2 + 60] = bytes(range(60))
    path.write_bytes(data)
    (text,) = told(media.open_clip(tmp_path), "broken")
    assert text.startswith("00002.jpg is damaged: its decoder says")


@pytest.mark.parametrize("numbers, gap", [
    ((1, 2, 5, 6), "between 00002.png and 00005.png"),
    ((1, 3, 4, 9), "between 00001.png and 00003.png, and at 1 other place"),
    ((1, 2, 3), ""), ((10, 20, 30), ""), ((7,), ""),
])  # fmt: skip
def test_numbers_that_are_missing_in_a_folder(tmp_path, numbers, gap):
    one = ffmpeg(*PATTERN, "-frames:v", "1", tmp_path / "one.png").read_bytes()
    folder = tmp_path / "pictures"
    folder.mkdir()
    for number in numbers:
        (folder / f"{number:05d}.png").write_bytes(one)
    texts = told(media.open_clip(folder), "note")
    assert [gap in text for text in texts] == [True] * bool(gap)


def test_an_image_that_is_none_is_named_once(tmp_path):
    path = tmp_path / "h.webp"
    path.write_bytes(b"no image")
    with pytest.raises(MediaError) as failed:
        media.open_clip(path)
    assert str(failed.value).count("h.webp") == 1


def test_a_rotation_that_is_no_right_angle_is_told(tmp_path):
    path = ffmpeg(*PATTERN, "-c:v", "libx264", tmp_path / "a.mp4")
    for angle, texts in ((30, 1), (90, 0)):
        turned = ffmpeg("-display_rotation", str(angle), "-i", path, "-c", "copy",
                        tmp_path / f"turned{angle}.mp4")  # fmt: skip
        found = told(media.open_clip(turned), "lost")
        assert [text for text in found if "turned by" in text] == found and len(found) == texts
