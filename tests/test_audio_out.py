"""Sound into files: carried where the container takes it, else re-encoded without loss."""

import io
import subprocess
from dataclasses import replace
from fractions import Fraction

import av
import numpy as np
import pytest
from media_samples import grey_yuv, leftovers, smooth, tone

from gvcc.errors import GvccError, MediaError
from gvcc.pictures import lossless, media, media_out
from gvcc.pictures.media import Video
from gvcc.records import Audio, Packet

SUFFIXES = (".mkv", ".mp4", ".mov")

# encoder, container of the source, its rate and layout, the files that hold its packets as they are
CODECS = [
    ("aac", "mp4", 48000, "stereo", ".mkv .mp4 .mov"),
    ("ac3", "matroska", 48000, "stereo", ".mkv .mp4 .mov"),
    ("adpcm_ima_qt", "mov", 48000, "stereo", ""),
    ("adpcm_ima_wav", "avi", 48000, "stereo", ""),
    ("adpcm_ms", "avi", 48000, "stereo", ""),
    ("adpcm_swf", "flv", 44100, "stereo", ""),
    ("adpcm_yamaha", "avi", 48000, "mono", ""),
    ("alac", "mp4", 48000, "stereo", ".mkv .mp4 .mov"),
    ("dfpwm", "avi", 48000, "stereo", ""),
    ("eac3", "matroska", 48000, "stereo", ".mkv .mp4 .mov"),
    ("flac", "matroska", 48000, "stereo", ".mkv .mp4"),
    ("g722", "avi", 16000, "mono", ""),
    ("g726", "avi", 8000, "mono", ""),
    ("libmp3lame", "matroska", 48000, "stereo", ".mkv .mp4 .mov"),
    ("libopencore_amrnb", "avi", 8000, "mono", ".mov"),
    ("libopencore_amrnb", "mov", 8000, "mono", ".mov"),
    ("libopus", "matroska", 48000, "stereo", ".mkv .mp4"),
    ("mp2", "matroska", 48000, "stereo", ".mkv .mp4 .mov"),
    ("nellymoser", "flv", 44100, "mono", ""),
    ("pcm_alaw", "avi", 48000, "stereo", ".mov"),
    ("pcm_f32be", "mov", 48000, "stereo", ""),
    ("pcm_f32le", "avi", 48000, "stereo", ".mkv .mp4 .mov"),
    ("pcm_f64le", "avi", 48000, "stereo", ".mkv .mp4 .mov"),
    ("pcm_mulaw", "avi", 48000, "stereo", ".mov"),
    ("pcm_s16be", "matroska", 48000, "stereo", ".mkv .mp4 .mov"),
    ("pcm_s16be_planar", "nut", 48000, "stereo", ""),
    ("pcm_s16le", "avi", 48000, "stereo", ".mkv .mp4 .mov"),
    ("pcm_s24le", "avi", 48000, "stereo", ".mkv .mp4 .mov"),
    ("pcm_s32le", "avi", 48000, "stereo", ".mkv .mp4 .mov"),
    ("pcm_s64le", "avi", 48000, "stereo", ""),
    ("pcm_s8", "mov", 48000, "stereo", ""),
    ("pcm_u16le", "nut", 48000, "stereo", ""),
    ("pcm_u8", "avi", 48000, "stereo", ".mkv .mov"),
    ("tta", "matroska", 48000, "stereo", ".mkv"),
    ("wavpack", "matroska", 48000, "stereo", ".mkv"),
    ("wmav2", "asf", 44100, "stereo", ""),
]


def heard(source):
    """The sound of a file: its codec, [samples,channels] from -1 to 1, seconds it starts after
    the first picture."""
    with av.open(source if isinstance(source, io.BytesIO) else str(source)) as box:
        sound, video = box.streams.audio[0], box.streams.video[0]
        frames = list(box.decode(sound))
        values = np.concatenate([lossless.samples(frame) for frame in frames])
        start = (video.start_time or 0) * video.time_base
        late = frames[0].pts * frames[0].time_base - start
        codec = sound.codec_context.codec.canonical_name
    if values.dtype == np.uint8:
        values = values.astype(np.int16) - 128 << 8
    top = 1.0 if values.dtype.kind == "f" else 2.0 ** (8 * values.itemsize - 1)
    return codec, values / top, late


def sampled(codec, muxer, rate, layout, seconds=1.0, **more):
    pictures = grey_yuv(24)
    return tone(codec, layout, seconds, muxer, pictures, rate=rate, **more)


def same_sound(source, written, precision):
    """Bit for bit the same, at the same time to within `precision` seconds, cut at the start."""
    (own, a, late), (codec, b, later) = heard(source), heard(written)
    with av.open(str(written)) as box:
        rate = box.streams.audio[0].codec_context.sample_rate
    shift = round((later - late) * rate)
    for nudge in sorted(range(-round(precision * rate), round(precision * rate) + 1), key=abs):
        cut = shift + nudge
        one, other = a[max(0, cut) :], b[max(0, -cut) :]
        length = min(len(one), len(other))
        # Only MPEG's layers have decoders of their own for the same packets.
        near = 1e-4 if own == "mp2" else 0
        if length > 0.9 * len(a) and np.allclose(one[:length], other[:length], 0, near):
            return codec
    raise AssertionError(f"another sound: {a.shape} at {late}, {b.shape} at {later}")


@pytest.mark.parametrize("codec, muxer, rate, layout, carried", CODECS, ids=lambda v: str(v))
def test_every_codec_comes_out_of_every_file(tmp_path, codec, muxer, rate, layout, carried):
    data = sampled(codec, muxer, rate, layout)
    clip = media.open_clip(io.BytesIO(data))
    assert clip.notices == ()
    for suffix in SUFFIXES:
        notices = media.write(clip, tmp_path / f"a{suffix}")
        found = same_sound(io.BytesIO(data), tmp_path / f"a{suffix}", Fraction(1, 400))
        if suffix in carried.split():
            assert notices == () and found in (clip.audio.codec, "mp3"), suffix
        else:
            assert [n.kind for n in notices] == ["note"], suffix
            assert clip.audio.codec in notices[0].text and found in notices[0].text
            assert found == "flac" or found.startswith("pcm_")
    takers = {s for s in media_out.WITH_SOUND if media_out.takes(s, clip.audio)}
    assert takers == set(carried.split())


@pytest.mark.parametrize("codec, found", [("truehd", "flac"), ("mlp", "flac"), ("dca", "dts")])
def test_codecs_that_only_other_encoders_make(tmp_path, codec, found):
    ffmpeg = pytest.importorskip("imageio_ffmpeg").get_ffmpeg_exe()
    source = tmp_path / "source.mkv"
    tones = "aevalsrc=0.5*sin(440*t)|0.5*sin(660*t)|0.1*sin(t)|0|0.3*sin(880*t)|0.2:c=5.1:d=1"
    command = [ffmpeg, "-v", "error", "-f", "lavfi", "-i", "testsrc=s=32x32:d=1"]
    command += ["-f", "lavfi", "-i", tones, "-c:v", "ffv1", "-strict", "-2", "-c:a", codec]
    subprocess.run([*command, source], check=True)
    clip = media.open_clip(source)
    for suffix, expected in (("mkv", clip.audio.codec), ("mp4", found)):
        notices = media.write(clip, tmp_path / f"a.{suffix}")
        assert same_sound(source, tmp_path / f"a.{suffix}", Fraction(1, 400)) == expected
        assert bool(notices) == (expected != clip.audio.codec)


# --- what is re-encoded ----------------------------------------------------------------------


def pcm(values, codec="pcm_u8", layout="mono", rate=8000, size=800):
    """Packets of `size` bytes each."""
    data = np.ascontiguousarray(values).tobytes()
    channels = av.AudioLayout(layout).nb_channels
    last = size // channels // values.dtype.itemsize
    parts = [data[place : place + size] for place in range(0, len(data), size)]
    packets = tuple(Packet(n * last, last, part) for n, part in enumerate(parts))
    return Audio(codec, rate, layout, Fraction(1, rate), b"", packets)


def clip_with(audio):
    return Video(smooth(25, 16, 16), Fraction(25), audio=audio)


RAMP = (np.arange(8000) % 200 + 20).astype(np.uint8)


@pytest.mark.parametrize("suffix", [".mp4", ".mov"])
@pytest.mark.parametrize("codec, middle", [("pcm_u16le", 32768), ("pcm_s16le", 0)])
def test_start_and_gaps_stay_where_they_are(tmp_path, suffix, codec, middle):
    values = RAMP.view("<u2")
    audio = pcm(values, codec, size=400)
    packets = [replace(p, pts=p.pts + 1234) for p in audio.packets]
    packets = (*packets[:4], *packets[7:])
    notices = media.write(clip_with(replace(audio, packets=packets)), tmp_path / f"a{suffix}")
    assert [n.kind for n in notices] == ["note"]
    _, again, late = heard(tmp_path / f"a{suffix}")
    assert late == Fraction(1234, 8000)
    whole = values.view("<i2").astype(int) if middle == 0 else values.astype(int) - middle
    whole[4 * 200 : 7 * 200] = 0
    assert np.array_equal(np.rint(again[:, 0] * 32768), whole)


def test_rounded_lengths_are_no_gaps(tmp_path):
    data = RAMP.astype("<i2").tobytes()
    base = Fraction(1, 10**7)  # as in WTV
    packets = (Packet(1000000 * n, 999583, data[1600 * n :][:1600]) for n in range(10))
    clip = clip_with(Audio("pcm_s16le", 8000, "mono", base, b"", tuple(packets)))
    for suffix in SUFFIXES:
        assert media.write(clip, tmp_path / f"a{suffix}") == ()


def test_what_comes_before_the_clip_is_cut(tmp_path):
    audio = pcm(RAMP)
    early = tuple(replace(p, pts=p.pts - 1000) for p in audio.packets)
    media.write(clip_with(replace(audio, packets=early)), tmp_path / "a.mp4")
    _, values, late = heard(tmp_path / "a.mp4")
    assert late == 0 and np.array_equal(np.rint(values[:, 0] * 128 + 128), RAMP[1000:])


@pytest.mark.parametrize("bits, found", [(16, "flac"), (24, "flac"), (32, "pcm_s32le")])
@pytest.mark.parametrize("kind", ["pcm_u32le", "pcm_f64be", "pcm_s64be"])
def test_flac_holds_what_fits_24_bits(tmp_path, kind, bits, found):
    whole = np.random.default_rng(0).integers(-(2 ** (bits - 1)), 2 ** (bits - 1), (4000, 2))
    top = 2.0 ** (bits - 1)
    values = {
        "pcm_u32le": ((whole << (32 - bits)) + 2**31).astype("<u4"),
        "pcm_f64be": (whole / top).astype(">f8"),
        "pcm_s64be": (whole << (64 - bits)).astype(">i8"),
    }[kind]
    media.write(clip_with(pcm(values, kind, "stereo", size=8000)), tmp_path / "a.mp4")
    codec, again, _ = heard(tmp_path / "a.mp4")
    assert codec == (found if kind != "pcm_f64be" or bits < 32 else "pcm_f64le")
    assert np.array_equal(again, whole / top)


def test_what_no_file_holds_is_rounded_and_said_so(tmp_path):
    values = np.random.default_rng(0).integers(-(2**63), 2**63, 4000).astype("<i8")
    for suffix in SUFFIXES:
        notices = media.write(clip_with(pcm(values, "pcm_s64le")), tmp_path / f"a{suffix}")
        assert [n.kind for n in notices] == ["lost"] and "rounded" in notices[0].text
        codec, again, _ = heard(tmp_path / f"a{suffix}")
        assert codec == "pcm_f64le" and np.abs(again[:, 0] - values / 2.0**63).max() < 1e-15


@pytest.mark.parametrize(
    "layout",
    ["2.1", "3.0", "4.0", "5.0(side)", "7.1", "hexadecagonal", "10C", "12C", "FL+LFE", "24C"],
)
@pytest.mark.parametrize("rate", [8000, 65537])
def test_any_layout_and_rate(tmp_path, layout, rate):
    channels = av.AudioLayout(layout).nb_channels
    values = np.random.default_rng(1).integers(0, 256, (4000, channels)).astype(np.uint8)
    clip = clip_with(pcm(values, "pcm_u8", layout, rate, size=400 * channels))
    for suffix in SUFFIXES:
        media.write(clip, tmp_path / f"a{suffix}")
        _, again, _ = heard(tmp_path / f"a{suffix}")
        assert np.array_equal(np.rint(again * 128 + 128), values), suffix


@pytest.mark.parametrize("layout", ["10C", "hexadecagonal", "60C"])
@pytest.mark.parametrize("codec", ["pcm_s8_planar", "pcm_s16be_planar", "pcm_s32le_planar"])
def test_many_planes(tmp_path, codec, layout):
    channels = av.AudioLayout(layout).nb_channels
    kind = {"s8": "i1", "s16be": ">i2", "s32le": "<i4"}[codec[4:-7]]
    values = np.arange(50 * channels).reshape(50, channels).astype(kind)
    data = np.ascontiguousarray(values.T)
    audio = replace(pcm(data, codec, layout, size=data.nbytes), packets=())
    audio = replace(audio, packets=(Packet(0, 50, data.tobytes()),))
    media.write(clip_with(audio), tmp_path / "a.mkv")
    again = heard(tmp_path / "a.mkv")[1] * 2.0 ** (8 * values.itemsize - 1)
    assert np.array_equal(np.rint(again), values)


# --- no sound --------------------------------------------------------------------------------


@pytest.mark.parametrize("name", ["a.y4m", "a.png", "folder/", "a.mp4"])
def test_files_without_sound_say_so(tmp_path, name):
    audio = pcm(RAMP, "pcm_s16le")
    clip = Video(smooth(1), Fraction(24), audio=audio)
    notices = media.write(clip, f"{tmp_path}/{name}")
    expected = [] if name == "a.mp4" else ["lost"]
    assert [n.kind for n in notices] == expected
    assert all("sound is left out" in n.text for n in notices)
    assert media.write(replace(clip, audio=None), f"{tmp_path}/{name}", overwrite=True) == ()


AUDIO = pcm(RAMP)


@pytest.mark.parametrize(
    "change",
    [
        {"rate": 0},
        {"rate": 10**9},
        {"rate": 2**64 - 1},
        {"layout": "nonsense"},
        {"layout": ""},
        {"layout": "1000C"},
        {"time_base": Fraction(2**40, 3)},
        {"time_base": Fraction(1, 2**40)},
        {"codec": "nonsense"},
        {"codec": "h264"},
        {"codec": "\u00e9"},
        {"packets": (Packet(2**63, 1, b"x"),)},
        {"packets": (Packet(0, 2**70, b"x"),)},
        {"packets": (Packet(0, 1, b"x"), Packet(2**40, 1, b"x"))},
        {"codec": "adpcm_ms", "extradata": b"fmt \x12\0\0\0" + b"\xff" * 18},
        {"codec": "pcm_u16le", "packets": ()},
        {"codec": "truehd"},
    ],
    ids=str,
)
@pytest.mark.parametrize("suffix", SUFFIXES)
def test_foreign_records_are_refused(tmp_path, change, suffix):
    audio = replace(AUDIO, **change)
    with pytest.raises(MediaError, match="--no-audio"):
        media.write(clip_with(audio), tmp_path / f"a{suffix}")
    assert leftovers(tmp_path) == []
    assert not any(media_out.takes(s, audio) for s in media_out.WITH_SOUND)


@pytest.mark.parametrize("codec", ["aac", "flac", "opus", "pcm_dvd", "wavpack", "wmav2", "amr_nb"])
def test_garbage_ends_in_an_error_of_gvcc_or_a_file(tmp_path, codec):
    random = np.random.default_rng(7)
    for number in range(12):
        packets, due = [], 0
        for _ in range(number):
            data = random.bytes(int(random.integers(0, 300)))
            due += int(random.integers(-100, 3000))
            packets.append(Packet(due, int(random.integers(0, 3000)), data))
        extradata = random.bytes(int(random.integers(0, 60)))
        audio = Audio(codec, 48000, "stereo", Fraction(1, 48000), extradata, tuple(packets))
        for suffix in SUFFIXES:
            try:
                media.write(clip_with(audio), tmp_path / f"a{suffix}", overwrite=True)
            except GvccError:
                pass
