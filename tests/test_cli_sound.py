"""What the commands do with sound, and what they say of it."""

from __future__ import annotations

import json
from fractions import Fraction
from pathlib import Path

import av
import numpy as np
import pytest
import whole_files
from cli_runner import Run, frames

import gvcc
from gvcc import lossless, media
from gvcc.media import Video
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
