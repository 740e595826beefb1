"""The command line: what it writes where, what it refuses, and how it ends."""

from __future__ import annotations

import io
import json
import re
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from fractions import Fraction
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import typer
from rich.console import Console

import gvcc
from gvcc import cli, codec, colour, media
from gvcc.media import Video
from gvcc.records import Audio, Packet

GVCC = [sys.executable, "-m", "gvcc"]


@dataclass
class Result:
    code: int
    out: bytes
    err: str


Run = Callable[..., Result]


@pytest.fixture
def run(monkeypatch: pytest.MonkeyPatch, capsysbinary: Any) -> Iterator[Run]:
    """`gvcc args...` in this process; whatever escapes as anything but SystemExit fails a test."""
    monkeypatch.setenv("COLUMNS", "100")
    before = signal.getsignal(signal.SIGTERM)

    def call(*args: str | Path, stdin: bytes = b"") -> Result:
        monkeypatch.setattr(sys, "argv", ["gvcc", *map(str, args)])
        monkeypatch.setattr(sys, "stdin", io.TextIOWrapper(io.BytesIO(stdin)))
        capsysbinary.readouterr()
        code = None
        try:
            cli.main()
        except SystemExit as e:
            code = e.code
        sys.stdout.flush()
        out, err = capsysbinary.readouterr()
        assert isinstance(code, int)
        assert b"Traceback" not in err
        return Result(code, out, err.decode())

    yield call
    signal.signal(signal.SIGTERM, before)


def frames(t: int = 9, h: int = 32, w: int = 48) -> np.ndarray:
    n, y, x = np.ogrid[:t, :h, :w]
    planes = (x * 200 // w + 5 * n, y * 200 // h + 0 * (x + n), (x + y) * 200 // (w + h) + 0 * n)
    return np.stack(np.broadcast_arrays(*planes), -1).astype(np.uint8)


@pytest.fixture(scope="module")
def clip(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("clip") / "clip.y4m"
    media.write(Video(frames(), Fraction(25)), path)
    return path


@pytest.fixture(scope="module")
def large(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("large") / "large.y4m"
    noise = np.random.default_rng(0).integers(0, 40, (33, 256, 256, 3), np.uint8)
    media.write(Video(frames(33, 256, 256) // 2 + noise, Fraction(25)), path)
    return path


@pytest.fixture(scope="module")
def coded(clip: Path) -> Path:
    """The clip in two GOPs, of 5 and 4 frames."""
    path = clip.with_name("clip.gvcc")
    path.write_bytes(gvcc.encode(clip, gvcc.EncodeConfig(gop=5, size=400)))
    return path


# -- the way through --------------------------------------------------------------------------


def test_encode_decode_compare_inspect(run: Run, clip: Path, tmp_path: Path) -> None:
    file, back = tmp_path / "a.gvcc", tmp_path / "a.mp4"
    done = run("encode", clip, "-o", file, "--size", "400", "--gop", "5")
    assert done.code == 0 and done.out == b""
    assert 336 <= file.stat().st_size <= 400
    size = file.stat().st_size
    assert done.err.splitlines()[-1].startswith(f"{file}: {size} bytes, ")
    assert re.search(r"9 frames 48x32 in \d+\.\d s$", done.err)
    assert "encode: gop 1/2, step 20/20, " in done.err

    done = run("decode", file, "-o", back)
    assert done.code == 0 and done.out == b""
    assert f"{back}: 9 frames 48x32, 25 fps in " in done.err
    assert media.read(back).frames.shape == (9, 32, 48, 3)

    done = run("inspect", file)
    assert done.code == 0 and done.err == ""
    text = done.out.decode()
    for part in ("gauss", "hadamard", "0-4", "5-8", f"{size}", "100%", "bit/pixel"):
        assert part in text

    done = run("compare", clip, back, "--gvcc", file)
    assert done.code == 0 and done.err == ""
    assert "PSNR" in done.out.decode() and str(size) in done.out.decode()
    assert f"{8 * size / (9 * 32 * 48):.4f}" in done.out.decode()


def test_a_written_file_has_the_usual_mode_and_replaces_with_y(
    run: Run, clip: Path, tmp_path: Path
) -> None:
    plain, file = tmp_path / "plain", tmp_path / "a.gvcc"
    plain.write_bytes(b"")
    file.write_bytes(b"old")
    assert run("encode", clip, "-o", file, "-y").code == 0
    assert file.read_bytes()[:4] == gvcc.encode(clip)[:4]
    assert file.stat().st_mode == plain.stat().st_mode
    assert sorted(p.name for p in tmp_path.iterdir()) == ["a.gvcc", "plain"]


def test_the_python_interface_and_the_command_line_agree(
    run: Run, clip: Path, tmp_path: Path
) -> None:
    file = tmp_path / "a.gvcc"
    assert run("encode", clip, "-o", file, "--bpp", "0.4", "--seed", "7", "--knob", "2").code == 0
    config = gvcc.EncodeConfig(bpp=0.4, seed=7, knob=2)
    assert file.read_bytes() == gvcc.encode(clip, config)


def test_paper_preset_with_its_own_knobs(run: Run, clip: Path, tmp_path: Path) -> None:
    file = tmp_path / "a.gvcc"
    args = ("--preset", "paper", "-M", "4", "-K", "64", "--steps", "8", "--frames", "1")
    assert run("encode", clip, "-o", file, *args).code == 0
    header = gvcc.inspect(file.read_bytes()).header
    assert (header.coder, header.size, header.steps, header.frames) == ("gaussian", 64, 8, 1)
    assert gvcc.inspect(file.read_bytes()).gops[0].atoms == 4 * 5


@pytest.mark.parametrize("name", ["out.y4m", "out.mkv", "out.mov", "pictures/", "pictures"])
def test_decode_writes_what_the_name_says(run: Run, coded: Path, tmp_path: Path, name: str) -> None:
    target = f"{tmp_path}/{name}"
    assert run("decode", coded, "-o", target).code == 0
    got = media.read(target)
    assert got.frames.shape == (9, 32, 48, 3)
    if name.startswith("pictures"):
        assert np.array_equal(got.frames, gvcc.decode(coded.read_bytes()).frames)
    assert len(list(tmp_path.iterdir())) == 1


def test_one_frame_to_png(run: Run, clip: Path, coded: Path, tmp_path: Path) -> None:
    file = tmp_path / "a.gvcc"
    assert run("encode", clip, "-o", file, "--frames", "1").code == 0
    assert run("decode", file, "-o", tmp_path / "a.png").code == 0
    assert media.read(tmp_path / "a.png").frames.shape == (1, 32, 48, 3)
    done = run("decode", coded, "-o", tmp_path / "b.png")
    assert done.code == 2 and "a .png holds one frame, not 9" in done.err


def test_pipes_in_one_process(run: Run, clip: Path, coded: Path) -> None:
    done = run("encode", "-", "-o", "-", "--gop", "5", "--size", "400", stdin=clip.read_bytes())
    assert done.code == 0 and done.out == coded.read_bytes()
    assert run("inspect", "-", stdin=done.out).code == 0


def test_pipes_in_two_processes(clip: Path, coded: Path) -> None:
    encode = [*GVCC, "encode", "-", "-o", "-", "--gop", "5", "--size", "400", "--verify"]
    decode = [*GVCC, "decode", "-", "-o", "-"]
    with (
        clip.open("rb") as source,
        subprocess.Popen(encode, stdin=source, stdout=-1, stderr=-1) as first,
        subprocess.Popen(decode, stdin=first.stdout, stdout=-1, stderr=-1) as second,
    ):
        assert first.stdout is not None and first.stderr is not None
        first.stdout.close()
        out, err = second.communicate(timeout=60)
        assert b", verified" in first.stderr.read()
    assert (first.returncode, second.returncode) == (0, 0), err
    got = media.read(io.BytesIO(out))
    want = clip.with_name("want.y4m")
    media.write(gvcc.decode(coded.read_bytes()), want, overwrite=True)
    assert out == want.read_bytes()
    assert got.frames.shape == (9, 32, 48, 3) and got.fps == 25


# -- options of what is read and kept ---------------------------------------------------------


def test_frames_and_matrix(run: Run, clip: Path, tmp_path: Path) -> None:
    file = tmp_path / "a.gvcc"
    for args, count, matrix in (
        ((), 9, 6),
        (("--frames", "3"), 3, 6),
        (("--matrix", "bt709"), 9, 1),
        (("--matrix", "bt2020nc"), 9, 9),
    ):
        assert run("encode", clip, "-y", "-o", file, *args).code == 0
        header = gvcc.inspect(file.read_bytes()).header
        assert (header.frames, header.colour.matrix) == (count, matrix)


@pytest.mark.parametrize("suffix", ["mov", "mkv"])  # PCM in Matroska has no channel layout
def test_audio_is_carried_unless_told_not_to(run: Run, tmp_path: Path, suffix: str) -> None:
    packets = tuple(Packet(960 * i, 960, bytes([i, 1]) * 960) for i in range(8))
    audio = Audio("pcm_s16le", 24000, "mono", Fraction(1, 24000), b"", packets)
    source, file, back = (tmp_path / n for n in (f"a.{suffix}", "a.gvcc", "b.mkv"))
    media.write(Video(frames(), Fraction(25), audio=audio), source)
    assert run("encode", source, "-o", file).code == 0
    stored = gvcc.inspect(file.read_bytes()).audio
    assert stored is not None
    done = run("inspect", file)
    assert "pcm_s16le, 24000 Hz, mono, " in done.out.decode()
    assert json.loads(run("inspect", file, "--json").out)["audio"]["codec"] == "pcm_s16le"
    assert run("decode", file, "-o", back).code == 0
    got = media.read(back).audio
    assert got is not None
    assert b"".join(p.data for p in got.packets) == b"".join(p.data for p in stored.packets)
    assert run("encode", source, "-y", "-o", file, "--no-audio").code == 0
    assert gvcc.inspect(file.read_bytes()).audio is None


def test_decode_knob(run: Run, coded: Path) -> None:
    own, sharp = (run("decode", coded, "-o", "-", *a).out for a in ((), ("--knob", "1")))
    assert len(own) == len(sharp) and own != sharp
    done = run("decode", coded, "-o", "-", "--knob", "3")
    assert done.code == 2 and "knob is 3.0, expected 1 to 2" in done.err


# -- JSON -------------------------------------------------------------------------------------

_REPORT = "file frames width height fps bytes bits_per_pixel kbps seconds"
_JSON = {
    "encode": f"{_REPORT} preset prior",
    "verify": f"{_REPORT} preset prior verified",
    "decode": _REPORT,
    "inspect": "version header gops audio bytes where bits_per_pixel kbps",
    "compare": "psnr_rgb_db ms_ssim vmaf temporal_error temporal_activity_ratio "
               "frames width height notes bytes bits_per_pixel kbps",
}  # fmt: skip


@pytest.mark.parametrize("command", _JSON)
def test_json_is_one_object_with_frozen_keys(
    run: Run, clip: Path, coded: Path, tmp_path: Path, command: str
) -> None:
    args: list[str | Path] = {
        "encode": ["encode", clip, "-o", tmp_path / "a.gvcc"],
        "verify": ["encode", clip, "-o", tmp_path / "a.gvcc", "--verify"],
        "decode": ["decode", coded, "-o", tmp_path / "a.y4m"],
        "inspect": ["inspect", coded],
        "compare": ["compare", clip, clip, "--gvcc", coded],
    }[command]
    done = run(*args, "--json")
    assert done.code == 0
    assert done.out.endswith(b"\n") and done.out.count(b"\n") == 1
    report = json.loads(done.out)
    assert set(report) == set(_JSON[command].split())
    if command == "verify":
        assert report["verified"] is True
    if command == "inspect":
        assert report["bytes"] == coded.stat().st_size == sum(report["where"].values())
        assert [g["frames"] for g in report["gops"]] == [5, 4]
        assert report["header"]["fps"] == "25"
    elif command != "compare":
        assert (report["frames"], report["width"], report["height"]) == (9, 48, 32)
        assert report["bits_per_pixel"] == 8 * report["bytes"] / (9 * 48 * 32)


def test_json_and_a_stream_do_not_share_stdout(run: Run, clip: Path, coded: Path) -> None:
    for args in (("encode", clip), ("decode", coded)):
        done = run(*args, "-o", "-", "--json")
        assert (done.code, done.out) == (2, b"") and "both want stdout" in done.err


def test_compare_counts_the_bits_over_the_files_own_frames(
    run: Run, clip: Path, coded: Path
) -> None:
    done = run("compare", clip, clip, "--gvcc", coded, "--frames", "2", "--json")
    report = json.loads(done.out)
    assert report["frames"] == 2
    assert report["bits_per_pixel"] == 8 * coded.stat().st_size / (9 * 48 * 32)


# -- what is refused --------------------------------------------------------------------------


@dataclass
class Refused:
    args: str
    code: int
    message: str


_REFUSED = [
    Refused("encode CLIP -o OLD", 2, "exists; -y replaces it"),
    Refused("decode CODED -o OLD", 2, "exists; -y replaces it"),
    Refused("decode CODED -o FULL/", 2, "exists; -y replaces it"),
    Refused("train gauss DIR -o OLD", 2, "exists; -y replaces it"),
    Refused("encode CLIP -y -o CLIP", 2, "is the input"),
    Refused("decode CODED.y4m -y -o CODED.y4m", 2, "is the input"),
    Refused("encode CLIP -o DIR/none/a.gvcc", 2, "the folder of"),
    Refused("decode CODED -o DIR/none/a.mp4", 2, "the folder of"),
    Refused("encode CLIP -y -o FULL", 2, "is a folder"),
    Refused("decode CODED -y -o OLD/", 2, "is not a folder"),
    Refused("decode CODED -o DIR/a.mp5", 2, "did you mean '.mp4'?"),
    Refused("encode CLIP -o NEW --preset papr", 2, "did you mean 'paper'?"),
    Refused("encode CLIP -o NEW --prior gaus", 2, "did you mean 'gauss'?"),
    Refused("encode CLIP -o NEW --bpp 1 --size 900", 2, "give one target, not bpp and size"),
    Refused("encode CLIP -o NEW --bpp 0", 2, "bpp is 0.0, expected a number above 0"),
    Refused("encode CLIP -o NEW --kbps nan", 2, "kbps is nan"),
    Refused("encode CLIP -o NEW -M 8 --size 900", 2, "M fixes the size"),
    Refused("encode CLIP -o NEW -K 64", 2, "preset 'paper'"),
    Refused("encode CLIP -o NEW --steps 1000", 2, "steps is 1000, expected 5 to 255"),
    Refused("encode CLIP -o NEW --seed -1", 2, "seed is -1, expected 0 to"),
    Refused("encode CLIP -o NEW --knob 3", 2, "knob is 3.0, expected 1 to 2"),
    Refused("encode CLIP -o NEW --gop 4", 2, "GOP length 4 is not 1 modulo 4"),
    Refused("encode CLIP -o NEW --matrix bt70", 2, "bt709"),
    Refused("encode CLIP -o NEW --device tpu0", 2, "device 'tpu0'"),
    Refused("decode CODED -o DIR/a.mp4 --device tpu0", 2, "device 'tpu0'"),
    Refused("train gauss DIR -o NEW", 2, "no video files below"),
    Refused("compare CLIP SMALL", 2, "9"),
    Refused("encode CLIP -o NEW --size 20", 3, "the smallest file is "),
    Refused("encode DIR/none.mp4 -o NEW", 1, "none.mp4: cannot read: No such file"),
    Refused("encode OLD -o NEW", 1, "old.y4m: cannot read: "),
    Refused("encode CODED -o NEW", 1, "clip.gvcc: cannot read: "),
    Refused("encode - -o NEW", 1, "stdin must be y4m"),
    Refused("decode OLD -o DIR/a.mp4", 1, "not a gvcc stream"),
    Refused("decode CLIP -o DIR/a.mp4", 1, "not a gvcc stream"),
    Refused("decode - -o DIR/a.mp4", 1, "not a gvcc stream"),
    Refused("decode DIR/none -o DIR/a.mp4", 1, "none: cannot read: No such file"),
    Refused("inspect DIR", 1, "cannot read: Is a directory"),
    Refused("inspect OLD", 1, "not a gvcc stream"),
    Refused("compare CLIP OLD", 1, "cannot read"),
    Refused("compare CLIP CLIP --gvcc OLD", 1, "not a gvcc stream"),
]


@pytest.mark.parametrize("case", _REFUSED, ids=lambda c: c.args)
def test_refused_with_one_line_and_nothing_written(
    run: Run, clip: Path, coded: Path, tmp_path: Path, case: Refused
) -> None:
    (tmp_path / "old.y4m").write_bytes(b"no video")
    (tmp_path / "full").mkdir()
    (tmp_path / "full" / "00000.png").write_bytes(b"")
    (tmp_path / "clip.gvcc.y4m").write_bytes(coded.read_bytes())
    small = media.read(clip, frames=2)
    media.write(small, clip.with_name("small.y4m"), overwrite=True)
    names = {
        "CODED.y4m": tmp_path / "clip.gvcc.y4m", "CODED": coded, "CLIP": clip,
        "SMALL": clip.with_name("small.y4m"), "OLD": tmp_path / "old.y4m", "NEW": tmp_path / "new",
        "FULL": tmp_path / "full", "DIR": tmp_path / "empty",
    }  # fmt: skip
    (tmp_path / "empty").mkdir()
    words = case.args.split()
    for name, path in names.items():
        words = [re.sub(rf"^{re.escape(name)}(?=/|$)", str(path), w) for w in words]
    before = {p: p.read_bytes() for p in tmp_path.rglob("*") if p.is_file()}
    done = run(*words)
    assert (done.code, done.out) == (case.code, b"")
    assert case.message in done.err
    assert done.err.startswith("gvcc: ") and done.err.count("\n") == 1
    assert {p: p.read_bytes() for p in tmp_path.rglob("*") if p.is_file()} == before


def test_the_smallest_size_that_is_named_is_reachable(run: Run, clip: Path, tmp_path: Path) -> None:
    done = run("encode", clip, "-o", tmp_path / "a", "--size", "20")
    found = re.search(r"20 bytes cannot be reached; the smallest file is (\d+) bytes", done.err)
    assert done.code == 3 and found
    size = found[1]
    assert run("encode", clip, "-o", tmp_path / "a", "--size", str(int(size) - 1)).code == 3
    assert run("encode", clip, "-o", tmp_path / "a", "--size", size).code == 0
    assert (tmp_path / "a").stat().st_size == int(size)


@pytest.mark.parametrize(
    ("args", "hint"),
    [
        (
            ("encode", "a", "-o", "b", "--presett", "paper"),
            "No such option: --presett (Possible options: --preset)",
        ),
        (("encode", "a", "-o", "b", "--bp", "1"), "Possible options: --bpp"),
        (("encod", "a"), "Did you mean 'encode'"),
        (("inspec", "a"), "Did you mean 'inspect'?"),
        (("train", "gaus"), "Did you mean 'gauss'?"),
        (("encode", "a"), "Missing option"),
        (("decode",), "Missing argument"),
        (("encode", "a", "-o", "b", "--size", "2k"), "Invalid value for '--size': "),
        (("encode", "a", "-o", "b", "--frames", "0"), "Invalid value for '--frames': "),
    ],
)
def test_slips_get_a_hint_and_exit_code_2(run: Run, args: tuple[str, ...], hint: str) -> None:
    done = run(*args)
    text = " ".join(done.err.replace("│", " ").split())
    assert (done.code, done.out) == (2, b"") and hint in text


@pytest.mark.parametrize("name", ["[red]a", "[/]a", "a:cat:[eval]", "b c"])
def test_names_are_shown_as_they_are(run: Run, clip: Path, tmp_path: Path, name: str) -> None:
    target = tmp_path / f"{name}.gvcc"
    target.parent.mkdir(exist_ok=True)
    assert f"{target}: " in run("encode", clip, "-o", target).err
    assert f"gvcc: {target} exists" in run("encode", clip, "-o", target).err


def test_a_missing_extra_is_named_whole(
    run: Run, clip: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(sys.modules, "imageio_ffmpeg", None)
    done = run("compare", clip, clip)
    assert done.code == 0 and "pip install 'gvcc[eval]'" in " ".join(done.out.decode().split())


# -- damage -----------------------------------------------------------------------------------


def test_a_truncated_file_gives_its_whole_gops_and_exit_code_1(
    run: Run, coded: Path, tmp_path: Path
) -> None:
    data = coded.read_bytes()
    cut, back = tmp_path / "cut.gvcc", tmp_path / "back"
    cut.write_bytes(data[:-1])
    done = run("decode", cut, "-o", f"{back}/", "--json")
    assert done.code == 1
    assert "gvcc: " in done.err and "1 of 2 GOPs are whole" in done.err
    assert json.loads(done.out)["frames"] == 5
    want = gvcc.decode(data).frames[:5]
    assert np.array_equal(media.read(back).frames, want)

    cut.write_bytes(data[:70])
    done = run("decode", cut, "-o", tmp_path / "none.mp4")
    assert done.code == 1 and "0 of 2 GOPs are whole" in done.err
    assert not (tmp_path / "none.mp4").exists()
    done = run("inspect", cut)
    assert done.code == 1 and done.err.count("\n") == 1


def test_a_damaged_file_is_refused_before_anything_is_written(
    run: Run, coded: Path, tmp_path: Path
) -> None:
    data = bytearray(coded.read_bytes())
    data[-20] ^= 1
    done = run("decode", "-", "-o", tmp_path / "a.mp4", stdin=bytes(data))
    assert (done.code, done.out) == (1, b"")
    assert done.err == "gvcc: the checksum of record 1 does not match\n"
    assert not list(tmp_path.iterdir())


# -- verification -----------------------------------------------------------------------------


def test_verify(run: Run, clip: Path, tmp_path: Path) -> None:
    done = run("encode", clip, "-o", tmp_path / "a.gvcc", "--verify")
    assert done.code == 0 and done.err.endswith(", verified\n")
    assert "verify: gop 1/1, step 20/20" in done.err


@pytest.mark.parametrize("fault", ["one value", "a frame", "an error"])
def test_verify_finds_what_does_not_decode_to_the_same(
    run: Run, clip: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, fault: str
) -> None:
    real = codec.decode

    def decode(*args: Any, **kwargs: Any) -> Video:
        video = real(*args, **kwargs)
        if fault == "an error":
            raise gvcc.Corrupt("bad")
        if fault == "a frame":
            return Video(video.frames[:-1], video.fps)
        video.frames[3, 4, 5, 1] ^= 1
        return video

    monkeypatch.setattr(codec, "decode", decode)
    done = run("encode", clip, "-o", tmp_path / "a.gvcc", "--verify", "--json")
    assert done.code == 4
    assert json.loads(done.out)["verified"] is False
    assert "does not decode" in done.err and ", verified" not in done.err


# -- no half files ----------------------------------------------------------------------------


def test_a_failing_write_leaves_nothing(
    run: Run, clip: Path, coded: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def full(*_: object) -> None:
        raise OSError(28, "No space left on device")

    with monkeypatch.context() as m:
        m.setattr(cli.os, "replace", full)
        done = run("encode", clip, "-o", tmp_path / "a.gvcc")
    assert done.code == 1 and done.err.endswith("a.gvcc: cannot write: No space left on device\n")
    with monkeypatch.context() as m:
        m.setattr(colour, "pngs", full)
        done = run("decode", coded, "-o", tmp_path / "pictures")
    assert done.code == 1 and "No space left on device" in done.err
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize("stage", ["encode", "write", "decode", "pictures"])
def test_ctrl_c_leaves_nothing(
    run: Run, clip: Path, coded: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, stage: str
) -> None:
    def stop(*_: object, **__: object) -> None:
        raise KeyboardInterrupt

    module, name = {
        "encode": (codec, "encode"), "write": (cli.os, "replace"),
        "decode": (codec, "decode"), "pictures": (colour, "pngs"),
    }[stage]  # fmt: skip
    monkeypatch.setattr(module, name, stop)
    if stage in ("encode", "write"):
        done = run("encode", clip, "-o", tmp_path / "a.gvcc")
    else:
        done = run("decode", coded, "-o", f"{tmp_path}/pictures/")
    assert (done.code, done.out) == (130, b"")
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize(("number", "code"), [(signal.SIGINT, 130), (signal.SIGTERM, 143)])
def test_a_killed_encode_leaves_nothing(
    large: Path, tmp_path: Path, number: signal.Signals, code: int
) -> None:
    command = [*GVCC, "encode", str(large), "-o", str(tmp_path / "a.gvcc"), "--gop", "1", "-M", "4"]
    process = subprocess.Popen(
        [*command, "--steps", "60", "--frames", "9"],
        stderr=subprocess.PIPE,
        preexec_fn=lambda: signal.signal(signal.SIGINT, signal.SIG_DFL),  # a shell may ignore it
    )
    assert process.stderr is not None
    with process:
        first = process.stderr.readline()
        process.send_signal(number)
        rest = process.stderr.read()
    assert first.startswith(b"encode: gop 1/9, step 60/60")
    assert process.returncode == code
    assert b"Traceback" not in rest
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize("command", ["inspect", "decode"])
def test_a_reader_that_goes_away(coded: Path, command: str) -> None:
    args = [*GVCC, command, str(coded), *(["-o", "-"] if command == "decode" else [])]
    process = subprocess.Popen(args, stdout=subprocess.PIPE, stderr=subprocess.PIPE)
    assert process.stdout is not None and process.stderr is not None
    process.stdout.close()
    with process:
        text = process.stderr.read()
    assert process.returncode == 1
    assert b"Traceback" not in text and b"Exception ignored" not in text


# -- how it looks -----------------------------------------------------------------------------


def test_progress_on_a_terminal_and_nothing_left_of_it(
    run: Run, clip: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    shown = io.StringIO()
    terminal = Console(
        file=shown, force_terminal=True, color_system=None, width=80, highlight=False, markup=False
    )
    monkeypatch.setattr(cli, "err", terminal)
    assert run("encode", clip, "-o", tmp_path / "a.gvcc", "--gop", "5").code == 0
    text = shown.getvalue()
    state = r"encode ━+ gop 2/2, step 20/20, \d+\.\d kB eta \d+:\d\d:\d\d"
    assert re.search(state, text)
    assert "\x1b[?25l" in text and "\x1b[?25h" in text  # the cursor comes back
    last = text.split("\x1b[2K")[-1]
    assert last.startswith(f"{tmp_path}/a.gvcc: ")
    assert all(len(re.sub(r"\x1b\[\S*?[A-Za-z]", "", x)) <= 80 for x in re.findall(state, text))


def test_drift_is_told(
    run: Run, coded: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(codec, "_drift", lambda *_: 0.25)
    done = run("decode", coded, "-o", tmp_path / "a.y4m")
    assert done.code == 0 and "differ from the encoder's by about 0.250 RMS" in done.err


_FLAGS = {
    "encode": {
        "source", "-o --output", "-y --overwrite", "--preset", "--prior", "--bpp", "--kbps",
        "--size", "-M --atoms", "-K --codebook", "--seed", "--steps", "--gop", "--knob",
        "--frames", "--audio --no-audio", "--matrix", "--verify", "--device", "--json",
    },
    "decode": {"source", "-o --output", "-y --overwrite", "--knob", "--device", "--json"},
    "inspect": {"source", "--json"},
    "compare": {"reference", "decoded", "--gvcc", "--frames", "--json"},
    "demo": {"--out", "--clip", "--bpp"},
    "train gauss": {"data", "-o --output", "-y --overwrite", "--channels", "--limit", "--seed"},
}  # fmt: skip


def _commands(group: Any, prefix: str = "") -> dict[str, Any]:
    found: dict[str, Any] = {}
    for name, command in group.commands.items():
        inner = hasattr(command, "commands")
        found |= _commands(command, f"{name} ") if inner else {prefix + name: command}
    return found


def test_public_flags_are_frozen() -> None:
    """Scripts depend on these: a change here is a change for every user."""
    real = {
        name: {" ".join([*p.opts, *p.secondary_opts]) for p in command.params}
        for name, command in _commands(typer.main.get_command(cli.app)).items()
    }
    assert real == _FLAGS


@pytest.mark.parametrize("command", ["", "train", *_FLAGS])
def test_help_fits_a_terminal_and_names_every_flag(
    run: Run, monkeypatch: pytest.MonkeyPatch, command: str
) -> None:
    monkeypatch.setenv("COLUMNS", "80")
    done = run(*command.split(), "--help")
    text = done.out.decode()
    assert done.code == 0 and done.err == ""
    assert max(map(len, text.splitlines())) <= 80 and "…" not in text
    for flag in " ".join(_FLAGS.get(command, ())).split():
        assert re.search(rf"(^|[ │]){flag}([ ,]|$)", text, re.M), flag


def test_help_is_quick_and_loads_neither_torch_nor_pyav() -> None:
    code = (
        "import contextlib, sys; from gvcc import cli\n"
        "for command in sys.argv[1:]:\n"
        "    sys.argv = ['gvcc', *command.split(), '--help']\n"
        "    with contextlib.suppress(SystemExit): cli.main()\n"
        "sys.exit(bool({'torch', 'av', 'numpy'} & set(sys.modules)))"
    )
    done = subprocess.run([sys.executable, "-c", code, *_FLAGS], stdout=subprocess.DEVNULL)
    assert done.returncode == 0
    taken = []
    for _ in range(3):
        begin = time.monotonic()
        subprocess.run([*GVCC, "encode", "--help"], check=True, stdout=subprocess.DEVNULL)
        taken.append(time.monotonic() - begin)
    assert min(taken) < 1.5


def test_no_arguments_show_the_commands(run: Run) -> None:
    done = run()
    text = done.out.decode() + done.err
    assert done.code == 2
    assert all(command.split()[0] in text for command in _FLAGS)


# -- training ---------------------------------------------------------------------------------


def test_train_gauss(run: Run, large: Path, tmp_path: Path) -> None:
    from safetensors.torch import load

    from gvcc.priors.gauss import GaussPrior

    file = tmp_path / "gauss.safetensors"
    done = run("train", "gauss", large.parent, "-o", file, "--channels", "4", "--limit", "1")
    assert done.code == 0 and done.out == b""
    assert done.err == f"{file}: {file.stat().st_size} bytes\n"
    assert GaussPrior(load(file.read_bytes()), bytes(8)).spec.channels == 4
    assert run("train", "gauss", large.parent, "-o", file).code == 2
