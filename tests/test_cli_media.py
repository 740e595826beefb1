"""The command line: what it says of its sources, and how it is told to read them."""

from __future__ import annotations

import json
from fractions import Fraction
from pathlib import Path

import pytest
from cli_runner import Run, frames

from gvcc.eval import cells
from gvcc.format import parser
from gvcc.pictures import media
from gvcc.pictures.media import Video


@pytest.fixture
def cut(tmp_path: Path) -> Path:
    """A y4m of nine frames that ends inside its last one."""
    media.write(Video(frames(9), Fraction(25)), tmp_path / "whole.y4m")
    path = tmp_path / "cut.y4m"
    path.write_bytes((tmp_path / "whole.y4m").read_bytes()[:-100])
    return path


FAST = ("--prior", "gauss", "-M", "4", "--steps", "5")


@pytest.mark.parametrize("stdin", [False, True])
def test_a_broken_source_is_told_and_encoded(
    run: Run, cut: Path, tmp_path: Path, stdin: bool
) -> None:
    source, data = ("-", cut.read_bytes()) if stdin else (str(cut), b"")
    done = run("encode", source, "-o", tmp_path / "a.gvcc", "--json", *FAST, stdin=data)
    assert done.code == 0 and "warning: breaks off at 0.32 s\n" in done.err
    notices = json.loads(done.out)["notices"]
    assert notices == [{"kind": "broken", "text": "breaks off at 0.32 s"}]
    assert parser.parse((tmp_path / "a.gvcc").read_bytes()).header.frames == 8


@pytest.mark.parametrize("stdin", [False, True])
def test_strict_refuses_a_broken_source(run: Run, cut: Path, tmp_path: Path, stdin: bool) -> None:
    source, data = ("-", cut.read_bytes()) if stdin else (str(cut), b"")
    before = sorted(tmp_path.iterdir())
    output = tmp_path / "a.gvcc"
    done = run("encode", source, "-o", output, "--strict", "--json", *FAST, stdin=data)
    assert done.code == 1 and "is damaged" in done.err and "breaks off at 0.32 s" in done.err
    assert done.out == b"" and sorted(tmp_path.iterdir()) == before
    done = run("encode", source, "-o", "-", "--strict", *FAST, stdin=data)
    assert done.code == 1 and done.out == b""


def test_strict_takes_what_is_whole_or_only_loses_something(
    run: Run, cut: Path, tmp_path: Path
) -> None:
    whole = cut.with_name("whole.y4m")
    for number, args in enumerate(((whole,), (cut, "--frames", "5"), (whole, "--fps", "5"))):
        done = run("encode", *args, "-o", tmp_path / f"{number}.gvcc", "--strict", *FAST)
        assert done.code == 0 and "warning" not in done.err
    assert "note: 7 of 9 pictures left out at 5 fps: the rate asked for\n" in done.err


def test_images_get_the_rate_asked_for(run: Run, tmp_path: Path) -> None:
    media.write(Video(frames(5), Fraction(24)), f"{tmp_path}/folder/")
    for rate, means in (("12", "12"), ("23.976", "24000/1001"), ("30000/1001", "30000/1001")):
        done = run("encode", tmp_path / "folder", "-y", "-o", tmp_path / "a.gvcc", "--fps", rate,
                   "--json", *FAST)  # fmt: skip
        assert json.loads(done.out)["fps"] == means and json.loads(done.out)["notices"] == []


@pytest.mark.parametrize("rate", ["0", "-1", "abc", "nan", "1/0", "100000"])
def test_a_rate_that_is_none_is_usage(run: Run, cut: Path, tmp_path: Path, rate: str) -> None:
    done = run("encode", cut, "-o", tmp_path / "a.gvcc", "--fps", rate)
    assert done.code == 2 and "fps" in done.err
    assert run("compare", cut, cut, "--fps", rate).code == 2


def test_an_audio_track_that_is_none_is_usage(run: Run, cut: Path, tmp_path: Path) -> None:
    done = run("encode", cut, "-o", tmp_path / "a.gvcc", "--audio-track", "1")
    assert done.code == 2 and "0 audio tracks" in done.err
    done = run("encode", cut, "-o", tmp_path / "a.gvcc", "--audio-track", "1", "--no-audio")
    assert done.code == 2


def test_compare_tells_of_both_and_resamples_both(run: Run, cut: Path) -> None:
    whole = cut.with_name("whole.y4m")
    done = run("compare", whole, cut, "--frames", "8", "--json")
    assert done.code == 0 and done.err == ""
    done = run("compare", cut, cut, "--json")
    assert done.code == 0 and done.err.count(f"warning: {cut}: breaks off at 0.32 s\n") == 2
    done = run("compare", whole, whole, "--fps", "12.5", "--json")
    assert done.code == 0 and json.loads(done.out)["frames"] in (4, 5)
    assert done.err.count(f"note: {whole}: ") == 2


def test_an_evaluation_keeps_what_there_is_to_say_of_its_clips(cut: Path) -> None:
    for height in (None, 16):
        source = cells.Source("cut", str(cut), height=height)
        (made,) = cells.run(cells.Job("x264", source, (0.5,), ("psnr_rgb_db",)))
        assert made.cell["status"] == "ok", made.cell
        assert made.cell["notices"] == [{"kind": "broken", "text": "breaks off at 0.32 s"}]
