"""What the commands do with sound, and what they say of it."""

from __future__ import annotations

import io
import json
from fractions import Fraction
from pathlib import Path

import av
import numpy as np
import pytest
import whole_files
from cli_runner import Run, frames
from media_samples import PATTERN, SINE, ffmpeg

import gvcc
from gvcc.format import parser
from gvcc.pictures import lossless, media
from gvcc.pictures.media import Video
from gvcc.records import Audio, Packet

VALUES = (np.arange(2880) % 200 + 20).astype(np.uint8)  # as long as the pictures


@pytest.fixture(scope="module")
def sounding(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Nine frames at 25/s with pcm_u8, coded in two GOPs."""
    path = tmp_path_factory.mktemp("sound") / "sound.mkv"
    data = VALUES.tobytes()
    packets = tuple(Packet(n, 160, data[n : n + 160]) for n in range(0, 2880, 160))
    audio = Audio("pcm_u8", 8000, "mono", Fraction(1, 8000), b"", packets)
    media.write(Video(frames(), Fraction(25), audio=audio), path)
    coded = path.with_suffix(".gvcc")
    coded.write_bytes(gvcc.encode(path, gvcc.EncodeConfig(gop=5, atoms=2)))
    return coded


def heard(path: Path) -> tuple[str, np.ndarray]:
    with av.open(str(path)) as box:
        stream = box.streams.audio[0]
        parts = [lossless.samples(frame) for frame in box.decode(stream)]
        values = np.concatenate(parts)[:, 0]
        name = stream.codec_context.codec.canonical_name
    return name, (values >> 8) + 128 if values.dtype == np.int16 else values


def test_encode_says_what_mp4_will_not_take(run: Run, sounding: Path, tmp_path: Path) -> None:
    source, file = sounding.with_suffix(".mkv"), tmp_path / "a.gvcc"
    done = run("encode", source, "-o", file, "-M", "2")
    assert done.code == 0 and "note: .mp4 does not take pcm_u8 audio: decode to .mkv" in done.err
    done = run("encode", source, "-y", "-o", file, "-M", "2", "--no-audio")
    assert done.code == 0 and "audio" not in done.err


@pytest.mark.parametrize("suffix, codec", [("mkv", "pcm_u8"), ("mov", "pcm_u8"), ("mp4", "flac")])
def test_decode_delivers_the_sound(
    run: Run, sounding: Path, tmp_path: Path, suffix: str, codec: str
) -> None:
    back = tmp_path / f"a.{suffix}"
    done = run("decode", sounding, "-o", back, "--json")
    assert done.code == 0
    name, values = heard(back)
    assert name == codec and np.array_equal(values, VALUES)
    notices = json.loads(done.out)["notices"]
    if codec == "pcm_u8":
        assert notices == [] and "note" not in done.err
    else:
        assert [notice["kind"] for notice in notices] == ["note"]
        assert f"note: {notices[0]['text']}" in done.err
        assert "mp4 does not take pcm_u8 audio: re-encoded as flac" in done.err


@pytest.mark.parametrize("suffix", ["mkv", "mp4", "mov"])
def test_a_range_has_its_sound(run: Run, sounding: Path, tmp_path: Path, suffix: str) -> None:
    back = tmp_path / f"a.{suffix}"
    assert run("decode", sounding, "-o", back, "--start", "3", "--end", "7").code == 0
    assert np.array_equal(heard(back)[1], VALUES[3 * 320 : 7 * 320])


@pytest.mark.parametrize("suffix", ["mkv", "mp4", "mov", "y4m"])
def test_decode_without_sound(run: Run, sounding: Path, tmp_path: Path, suffix: str) -> None:
    done = run("decode", sounding, "-o", tmp_path / f"a.{suffix}", "--no-audio")
    assert done.code == 0 and "note" not in done.err
    with av.open(str(tmp_path / f"a.{suffix}")) as box:
        assert len(box.streams.video) == 1 and not box.streams.audio


@pytest.mark.parametrize("output", ["a.y4m", "folder/", "-"])
def test_where_there_is_no_sound_it_is_said(
    run: Run, sounding: Path, tmp_path: Path, output: str
) -> None:
    place = output if output == "-" else f"{tmp_path}/{output}"
    done = run("decode", sounding, "-o", place)
    assert done.code == 0 and done.err.count("note: the sound is left out") == 1
    done = run("decode", sounding, "-y", "-o", place, "--no-audio")
    assert done.code == 0 and "sound" not in done.err.replace(str(tmp_path), "")


def test_sound_that_cannot_be_written(run: Run, sounding: Path, tmp_path: Path) -> None:
    stream = gvcc.inspect(sounding.read_bytes())
    assert stream.audio is not None
    strange = Audio("nonsense", 8000, "mono", Fraction(1, 8000), b"", stream.audio.packets)
    file, back = tmp_path / "a.gvcc", tmp_path / "a.mp4"
    file.write_bytes(whole_files.write(type(stream)(stream.header, stream.gops, strange)))
    done = run("decode", file, "-o", back)
    assert done.code == 1 and "write .mkv or leave it out (--no-audio)" in done.err
    assert not back.exists()
    assert run("decode", file, "-o", back, "--no-audio").code == 0 and back.exists()


@pytest.fixture
def unsound(sounding: Path, tmp_path: Path) -> Path:
    """A file with a damaged byte in its sound."""
    data = bytearray(sounding.read_bytes())
    data[len(parser.StreamReader(io.BytesIO(data)).head) + 400] ^= 1
    path = tmp_path / "unsound.gvcc"
    path.write_bytes(data)
    return path


@pytest.mark.parametrize("args, code", [
    ("a.mkv", 1), ("a.mkv --keep-going", 1), ("a.mkv --no-audio", 0), ("a.y4m", 0), ("a/", 0),
    ("a.mkv --start 1 --keep-going", 1), ("a.y4m --start 1", 0),
])  # fmt: skip
def test_damaged_sound_costs_no_picture(
    run: Run, sounding: Path, unsound: Path, tmp_path: Path, args: str, code: int
) -> None:
    name, *more = args.split()
    done = run("decode", unsound, "-o", f"{tmp_path}/{name}", *more)
    assert done.code == code and "the audio's checksum does not match" in done.err
    if args == "a.mkv":
        assert "without the sound" in done.err and not (tmp_path / name).exists()
        return
    part = [word for word in more if "audio" not in word]
    assert run("decode", sounding, "-o", f"{tmp_path}/want{Path(name).suffix}", *part).code == 0
    found, want = (media.read(tmp_path / n) for n in (name, f"want{Path(name).suffix}"))
    assert found.audio is None
    assert np.array_equal(found.frames, want.frames)


def test_inspect_shows_the_gops_behind_damaged_sound(run: Run, unsound: Path) -> None:
    done = run("inspect", unsound, "--json")
    about = json.loads(done.out)
    assert done.code == 1 and len(about["gops"]) == 2 and about["audio"] is None
    assert about["problems"] == ["the audio's checksum does not match"]


def test_damaged_sound_in_memory(unsound: Path) -> None:
    with pytest.raises(gvcc.Corrupt, match="without the sound"):
        gvcc.decode(unsound.read_bytes())


def test_what_the_note_advises_keeps_the_packets(run: Run, tmp_path: Path) -> None:
    source = ffmpeg(*PATTERN, *SINE, "-c:a", "pcm_alaw", tmp_path / "a.mov")
    done = run("encode", source, "-o", tmp_path / "a.gvcc", "-M", "2", "--frames", "5")
    assert done.code == 0 and "decode to .mov, or it is re-encoded" in done.err
    assert ".mkv" not in done.err
