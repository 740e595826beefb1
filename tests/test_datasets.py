"""Data sets by their usual layouts, and clips by name."""

from __future__ import annotations

import re
from collections.abc import Iterable
from fractions import Fraction
from pathlib import Path

import numpy as np
import pytest
from cli_runner import Run
from hypothesis import example, given
from hypothesis import strategies as st

from gvcc.errors import ConfigError
from gvcc.eval import datasets
from gvcc.eval.cells import Source
from gvcc.eval.datasets import SETS, clips, find
from gvcc.pictures import media
from gvcc.records import Video

# What the sets are called where they come from: file, sequence, (width, height, format, rate).
UVG = [
    (f"{n}_1920x1080_120fps_420_8bit_YUV.yuv", n, (1920, 1080, "yuv420p", "120"))
    for n in ("Beauty", "Bosphorus", "HoneyBee", "Jockey", "ReadySteadyGo", "ShakeNDry",
              "YachtRide")
]  # fmt: skip
CLASS_B = [
    ("Kimono1_1920x1080_24.yuv", "Kimono", (1920, 1080, "yuv420p", "24")),
    ("ParkScene_1920x1080_24.yuv", "ParkScene", (1920, 1080, "yuv420p", "24")),
    ("Cactus_1920x1080_50.yuv", "Cactus", (1920, 1080, "yuv420p", "50")),
    ("BQTerrace_1920x1080_60.yuv", "BQTerrace", (1920, 1080, "yuv420p", "60")),
    ("BasketballDrive_1920x1080_50.yuv", "BasketballDrive", (1920, 1080, "yuv420p", "50")),
]
CLASS_C = [
    ("RaceHorses_832x480_30.yuv", "RaceHorses", (832, 480, "yuv420p", "30")),
    ("BQMall_832x480_60.yuv", "BQMall", (832, 480, "yuv420p", "60")),
    ("PartyScene_832x480_50.yuv", "PartyScene", (832, 480, "yuv420p", "50")),
    ("BasketballDrill_832x480_50.yuv", "BasketballDrill", (832, 480, "yuv420p", "50")),
]
CLASS_D = [
    ("RaceHorses_416x240_30.yuv", "RaceHorses", (416, 240, "yuv420p", "30")),
    ("BQSquare_416x240_60.yuv", "BQSquare", (416, 240, "yuv420p", "60")),
    ("BlowingBubbles_416x240_50.yuv", "BlowingBubbles", (416, 240, "yuv420p", "50")),
    ("BasketballPass_416x240_50.yuv", "BasketballPass", (416, 240, "yuv420p", "50")),
]
CLASS_E = [
    (f"{n}_1280x720_60.yuv", n, (1280, 720, "yuv420p", "60"))
    for n in ("FourPeople", "Johnny", "KristenAndSara")
]
# The rates of MCL-JCV differ from file to file; these are not the real ones.
MCL = [
    (f"videoSRC{i:02}_1920x1080_{fps}.yuv", f"videoSRC{i:02}", (1920, 1080, "yuv420p", str(fps)))
    for i, fps in zip(range(1, 31), (30, 30, 25, 24, 25) * 6, strict=True)
]
# Files that stand beside them and are none of them, or not of the set's size.
OTHERS = ("BasketballDrillText_832x480_50.yuv", "BQTerraces.txt", "._Kimono1_1920x1080_24.yuv",
          "KristenAndSara_1280x720_60.bin", "Beauty_3840x2160_120fps_420_10bit_YUV.yuv",
          "NotBeauty_1920x1080_120fps.yuv", "videoSRC011_1920x1080_30.yuv")  # fmt: skip
LAYOUTS = {"uvg": UVG, "mcl-jcv": MCL, "hevc-b": CLASS_B, "hevc-c": CLASS_C, "hevc-d": CLASS_D,
           "hevc-e": CLASS_E}  # fmt: skip


def lay(folder: Path, names: Iterable[str]) -> Path:
    for name in names:
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        (folder / name).write_bytes(b"")
    return folder


def all_names(layout: str = "{}") -> list[str]:
    return [layout.format(name) for files in LAYOUTS.values() for name, *_ in files]


@pytest.mark.parametrize("name", SETS)
@pytest.mark.parametrize("layout", ["{}", "sets/a b/{}"])
def test_sequences_are_found_among_all_the_others(name: str, layout: str, tmp_path: Path) -> None:
    lay(tmp_path, [*all_names(layout), *(layout.format(n) for n in OTHERS)])
    found = find(name, tmp_path, None, None)
    assert [(Path(s.path), s.name, s.raw) for s in found] == [
        (tmp_path / layout.format(file), sequence, raw)
        for wanted in SETS[name].names for file, sequence, raw in LAYOUTS[name]
        if sequence == wanted
    ]  # fmt: skip
    assert len(found) == len(LAYOUTS[name])
    assert {(s.frames, s.height) for s in found} == {(96, None)}
    assert {(s.frames, s.height) for s in find(name, tmp_path, 7, 256)} == {(7, 256)}


@pytest.mark.parametrize(
    ("file", "raw"),
    [
        ("Johnny_1280x720_60.mp4", None),
        ("johnny.Y4M", None),
        ("JOHNNY_1280X720_60.YUV", (1280, 720, "yuv420p", "60")),
        ("Johnny.yuv", (1280, 720, "yuv420p", "60")),
        ("Johnny_1280x720_59.94fps.yuv", (1280, 720, "yuv420p", "59.94")),
        ("Johnny_1280x720_60_10bit_420.yuv", (1280, 720, "yuv420p10le", "60")),
        ("Johnny_1280x720_60fps_420_10bit_YUV.yuv", (1280, 720, "yuv420p10le", "60")),
        ("Johnny_1280x720_60_yuv420p10le.yuv", (1280, 720, "yuv420p10le", "60")),
        ("Johnny_1280x720_10bit.yuv", (1280, 720, "yuv420p10le", "60")),
        ("Johnny_1280x720_420_8bit.yuv", (1280, 720, "yuv420p", "60")),
    ],
)
def test_other_spellings(file: str, raw: tuple | None, tmp_path: Path) -> None:
    lay(tmp_path, [n for n, *_ in CLASS_E if not n.startswith("Johnny")] + [file])
    (johnny,) = [s for s in find("hevc-e", tmp_path, None, None) if s.name == "Johnny"]
    assert johnny.raw == raw and Path(johnny.path).name == file


@pytest.mark.parametrize("more", [("8bit", "10bit"), (".yuv", ".mp4"), (".yuv", ".y4m")])
def test_of_two_copies_the_set_s_own_is_taken(more: tuple[str, str], tmp_path: Path) -> None:
    """Raw before coded, 8 bits before 10."""
    lay(tmp_path, [n for n, *_ in UVG] + [n.replace(*more) for n, *_ in UVG])
    assert {s.raw for s in find("uvg", tmp_path, None, None)} == {(1920, 1080, "yuv420p", "120")}


@pytest.mark.parametrize(("name", "where"), [
    ("uvg", "ultravideo.fi"), ("mcl-jcv", "mcl.usc.edu"), ("hevc-b", "JCT-VC.*class B"),
    ("hevc-c", "class C"), ("hevc-d", "class D"), ("hevc-e", "class E"),
])  # fmt: skip
def test_what_is_missing_is_named_with_its_source(name: str, where: str, tmp_path: Path) -> None:
    gone = sorted(SETS[name].names)[:2]
    lay(tmp_path, [f for f, sequence, _ in LAYOUTS[name] if sequence not in gone] + list(OTHERS))
    with pytest.raises(ConfigError, match=where) as caught:
        find(name, tmp_path, None, None)
    said = str(caught.value)
    assert said.startswith(f"data set {name}: 2 of {len(SETS[name].names)} sequences are not in ")
    assert str(tmp_path) in said and "\n" not in said
    for sequence in SETS[name].names:
        assert (re.search(rf"\b{sequence}\b", said) is not None) == (sequence in gone)


def test_a_sequence_of_the_other_class_is_missing(tmp_path: Path) -> None:
    """RaceHorses is in two classes; only the size tells which."""
    files = [n for n, s, _ in CLASS_D if s != "RaceHorses"] + ["RaceHorses_832x480_30.yuv"]
    with pytest.raises(ConfigError, match="1 of 4 sequences.*: RaceHorses; "):
        find("hevc-d", lay(tmp_path, files), None, None)


def test_sets_and_folders_that_are_none(run: Run, tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="unknown data set 'hevc'.*did you mean 'hevc-"):
        find("hevc", tmp_path, None, None)
    with pytest.raises(ConfigError, match="data set uvg: .*/none is no folder"):
        find("uvg", tmp_path / "none", None, None)
    done = run("eval", "--dataset", "hevc-e", "--data", tmp_path, "--out", tmp_path / "r")
    assert done.code == 2 and "FourPeople, Johnny, KristenAndSara; they come from" in done.err


def test_a_found_file_is_read_as_what_its_name_says(tmp_path: Path) -> None:
    lay(tmp_path, [n for n, *_ in CLASS_D])
    y = np.full((3, 240, 416), 235, np.uint8)
    y[1], y[2] = 16, 235
    grey = np.full(416 * 240 // 2, 128, np.uint8)
    path = tmp_path / "BQSquare_416x240_60.yuv"
    path.write_bytes(b"".join(p.tobytes() + grey.tobytes() for p in y))
    (source,) = [s for s in find("hevc-d", tmp_path, 2, 48) if s.name == "BQSquare"]
    video = source.read()
    assert video.frames.shape == (2, 48, 80, 3) and video.fps == Fraction(60)
    assert (video.frames[0] == 255).all() and (video.frames[1] == 0).all()


# -- what names say ---------------------------------------------------------------------------

words = st.text("abcXYZ-", min_size=1, max_size=8)
depths = st.sampled_from(["", "_8bit", "_10bit", "_420_8bit_YUV", "_420_10bit_YUV"])


@given(words, st.integers(100, 9999), st.integers(100, 9999), st.integers(10, 240), depths,
       st.booleans())  # fmt: skip
@example("Beauty", 1920, 1080, 120, "_420_8bit_YUV", True)
@example("a", 1920, 1080, 30, "_10bit", False)
def test_size_and_rate_are_read(
    word: str, w: int, h: int, fps: int, depth: str, spelt: bool
) -> None:
    path = Path(f"{word}_{w}x{h}_{fps}{'fps' if spelt else ''}{depth}.yuv")
    assert datasets._size(path) == (w, h)
    assert datasets._rate(path) == fps
    assert datasets._is(path, word, (w, h)) and datasets._is(path, word.upper(), (w, h))
    assert not datasets._is(path, word, (w, h + 1))
    assert not datasets._is(path, word + "q", (w, h)) and not datasets._is(path, "q", (w, h))
    bare = Path(f"{word}_{w}x{h}{depth}.yuv")
    assert datasets._rate(bare) is None and datasets._size(bare) == (w, h)


@given(st.sampled_from(sorted({n for s in SETS.values() for n in s.names})), words)
def test_a_name_that_goes_on_is_another(sequence: str, more: str) -> None:
    size = (64, 64)
    for stem in (sequence, sequence.upper(), f"{sequence}_{more}"):
        assert datasets._is(Path(f"/a/{stem}.yuv"), sequence, size)
    # Kimono1 is Kimono, but videoSRC011 is not videoSRC01.
    one = datasets._is(Path(f"/a/{sequence}1.yuv"), sequence, size)
    assert one != sequence[-1].isdigit()
    for stem in (f"{sequence}x{more}", f"x{sequence}", f"{sequence}11", more):
        assert not datasets._is(Path(f"/a/{stem}.yuv"), sequence, size)


# -- clips ------------------------------------------------------------------------------------


def test_files_and_folders_are_clips(tmp_path: Path) -> None:
    lay(tmp_path, ["f/b.MP4", "f/a.mkv", "f/c.webm", "f/d.mov", "f/e.y4m", "f/raw.yuv", "f/t.txt",
                   "f/deep/g.mp4", "z.avi"])  # fmt: skip
    found = clips([str(tmp_path / "z.avi"), str(tmp_path / "f")], 5, 32)
    assert [s.name for s in found] == ["z", "a", "b", "c", "d", "e"]
    assert found[1] == Source("a", str(tmp_path / "f/a.mkv"), 5, 32)


@pytest.mark.parametrize(
    ("paths", "says"),
    [
        (["a.mp4", "none.mp4"], "none.mp4: there is no such file"),
        (["a.mp4", "f/a.mkv"], "^two clips are called a$"),
        (["a.mp4", "a.mp4"], "^two clips are called a$"),
        (["f", "g"], "^two clips are called a, b$"),
        (["empty"], "^no clips: name files, folders or --dataset$"),
        ([], "^no clips"),
    ],
)
def test_clips_that_are_none(paths: list[str], says: str, tmp_path: Path) -> None:
    lay(tmp_path, ["a.mp4", "f/a.mkv", "f/b.mkv", "g/a.mp4", "g/b.mp4", "g/c.mp4", "empty/t.txt"])
    with pytest.raises(ConfigError, match=says):
        clips([str(tmp_path / p) for p in paths], None, None)


def test_a_clip_is_scaled_to_its_lines(tmp_path: Path) -> None:
    frames = np.zeros((3, 48, 70, 3), np.uint8)
    media.write(Video(frames, Fraction(25)), tmp_path / "a.mkv")
    (whole,), (small,) = clips([str(tmp_path)], None, None), clips([str(tmp_path)], 2, 24)
    assert whole.read().frames.shape == (3, 48, 70, 3)
    assert small.read().frames.shape == (2, 24, 32, 3) and small.read().fps == 25
    assert whole.identity != small.identity
