"""The command line: what it writes where, and how it looks."""

from __future__ import annotations

import io
import json
import re
import subprocess
import sys
from fractions import Fraction
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import typer
from cli_runner import GVCC, Run, frames
from rich.console import Console

import gvcc
from gvcc import cli
from gvcc.decode import trajectory
from gvcc.pictures import media
from gvcc.pictures.media import Video
from gvcc.records import Audio, Packet

# -- the way through --------------------------------------------------------------------------


def test_encode_decode_compare_inspect(run: Run, clip: Path, tmp_path: Path) -> None:
    file, back = tmp_path / "a.gvcc", tmp_path / "a.mp4"
    done = run("encode", clip, "-o", file, "--size", "400", "--gop", "5")
    assert done.code == 0 and done.out == b""
    assert 336 <= file.stat().st_size <= 400
    size = file.stat().st_size
    assert done.err.splitlines()[-1].startswith(f"{file}: {size} bytes, ")
    assert re.search(r"9 frames 48x32 in \d+\.\d s$", done.err)
    assert "encode: gop 1/2, step 8/8, " in done.err

    done = run("decode", file, "-o", back)
    assert done.code == 0 and done.out == b""
    assert f"{back}: 9 frames 48x32, 25 fps in " in done.err
    assert media.read(back).frames.shape == (9, 32, 48, 3)

    done = run("inspect", file)
    assert done.code == 0 and done.err == ""
    text = done.out.decode()
    for part in ("nano", "vvc", "restored", "0-4", "5-8", f"{size}", "100%", "bit/pixel"):
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
    assert (header.coder, header.codebook_size, header.steps, header.frames) == (
        "gaussian",
        64,
        8,
        1,
    )
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
    done = run(
        "encode",
        "-",
        "-o",
        "-",
        "--gop",
        "5",
        "--size",
        "400",
        "--mode",
        "t2v",
        stdin=clip.read_bytes(),
    )
    assert done.code == 0 and done.out == coded.read_bytes()
    assert run("inspect", "-", stdin=done.out).code == 0


def test_pipes_in_two_processes(clip: Path, coded: Path) -> None:
    encode = [*GVCC, *"encode - -o - --gop 5 --size 400 --mode t2v --verify".split()]
    decode = [*GVCC, "decode", "-", "-o", "-"]
    with (
        clip.open("rb") as source,
        subprocess.Popen(encode, stdin=source, stdout=-1, stderr=-1) as first,
        subprocess.Popen(decode, stdin=first.stdout, stdout=-1, stderr=-1) as second,
    ):
        assert first.stdout is not None and first.stderr is not None
        first.stdout.close()
        out, err = second.communicate()
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
    "encode": f"{_REPORT} preset prior mode notices",
    "verify": f"{_REPORT} preset prior mode notices verified",
    "decode": "file frames width height fps seconds base_only notices problems",
    "inspect": "version header gops audio problems bytes where bits_per_pixel kbps",
    "compare": "psnr_rgb_db ms_ssim vmaf vmaf_neg temporal_error temporal_activity_ratio tof "
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
        if command != "decode":
            assert report["bytes"] == (tmp_path / "a.gvcc").stat().st_size
            assert report["bits_per_pixel"] == 8 * report["bytes"] / (9 * 48 * 32)


def test_a_target_quality_is_reported_gop_by_gop(run: Run, clip: Path, tmp_path: Path) -> None:
    """And those that miss it are told of: here all, for nothing codes so little so well."""
    args = ("encode", clip, "--prior", "gauss", "--preset", "free-gvc", "--gop", "5", "--json")
    done = run(*args, "-o", tmp_path / "a", "--quality", "psnr:24")
    report = json.loads(done.out)
    assert done.code == 0 and set(report) == {*_JSON["encode"].split(), "qualities"}
    gops = gvcc.inspect((tmp_path / "a").read_bytes()).gops
    assert report["mode"] == "overlap" and len(report["qualities"]) == len(gops) > 1
    missed = [q for q in report["qualities"] if abs(q - 24) > 0.2]
    assert ("GOPs are not within" in done.err) == bool(missed)
    done = run(*args, "-o", tmp_path / "b", "--quality", "psnr:59")
    found = json.loads(done.out)["qualities"]
    assert f"note: {len(found)} of {len(found)} GOPs are not within 0.2 of psnr:59: 0 (" in done.err
    assert ", ".join(f"{i} ({q:.4g})" for i, q in enumerate(found)) in done.err
    quiet = run(*args, "-o", tmp_path / "c", "--stop", "3")
    assert "qualities" not in json.loads(quiet.out) and "note" not in quiet.err


def test_json_and_a_stream_do_not_share_stdout(run: Run, clip: Path, coded: Path) -> None:
    for args in (("encode", clip), ("decode", coded)):
        done = run(*args, "-o", "-", "--json")
        assert (done.code, done.out) == (2, b"")
        assert "--json" in done.err and "-o -" in done.err


def test_compare_counts_the_bits_over_the_files_own_frames(
    run: Run, clip: Path, coded: Path
) -> None:
    done = run("compare", clip, clip, "--gvcc", coded, "--frames", "2", "--json")
    report = json.loads(done.out)
    assert report["frames"] == 2
    assert report["bits_per_pixel"] == 8 * coded.stat().st_size / (9 * 48 * 32)


# -- how it looks -----------------------------------------------------------------------------


def test_progress_on_a_terminal_and_nothing_left_of_it(
    run: Run, clip: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    shown = io.StringIO()
    terminal = Console(
        file=shown, force_terminal=True, color_system=None, width=80, highlight=False, markup=False
    )
    monkeypatch.setattr("gvcc.cli.terminal.err", terminal)
    assert run("encode", clip, "-o", tmp_path / "a.gvcc", "--gop", "5", "--mode", "t2v").code == 0
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
    monkeypatch.setattr(trajectory, "drift", lambda *_: 0.25)
    done = run("decode", coded, "-o", tmp_path / "a.y4m")
    assert done.code == 0 and "differ from the encoder's by about 0.250 RMS" in done.err


_FLAGS = {
    "encode": {
        "source", "-o --output", "-y --overwrite", "--preset", "--prior", "--bpp", "--kbps",
        "--size", "-M --atoms", "-K --codebook", "--codebook-stream", "--seed", "--steps",
        "--ode-steps", "--gop", "--knob",
        "--frames", "--audio --no-audio", "--matrix", "--verify", "--device", "--json",
        "--mode", "--overlap", "--refresh", "--still-bpp", "--cuts --no-cuts", "--residual",
        "--reference",
        "--tail-atoms", "--resume", "--quality", "--stop", "--coder", "--alignment", "--prompt",
        "--guidance", "--set", "--offload", "--reuse", "--g-scale", "--fps", "--audio-track",
        "--strict", "--base", "--base-size", "--base-share", "--restorer",
    },
    "decode": {
        "source", "-o --output", "-y --overwrite", "--knob", "--prior", "--device", "--json",
        "--start", "--end", "--follow", "--keep-going", "--offload", "--audio --no-audio",
        "--base-only", "--restorer", "--stop",
    },
    "inspect": {"source", "--json"},
    "compare": {"reference", "decoded", "--gvcc", "--frames", "--fps", "--json", "--perceptual"},
    "demo": {"--out", "--clip", "--bpp"},
    "eval run": {
        "clips", "--out", "--preset", "--codecs", "--rates", "--frames", "--height", "--own-size",
        "--metrics", "--stride", "--seeds", "--dataset", "--data", "--adapters", "--workers",
        "--ray",
        "--device",
    },
    "eval sweep": {
        "clips", "--out", "--studies", "--prior", "--frames", "--height", "--device", "--offload",
        "-M --atoms", "-K --codebook", "--steps", "--g-scale", "--gop", "--seeds",
    },
    "eval ab": {"folder", "--out", "--pairs", "--rate", "--seed"},
    "eval ab-report": {"answers", "--key", "--json"},
    "eval weights": {"--json"},
    "eval adapters": {"--json"},
    "eval table6": {
        "--uvg", "--out", "--prior", "--rows", "--sequences", "--size", "--gops", "--true-colours",
        "--offload", "--device", "--json",
    },
    "priors prepare": {"name", "--weights", "--from", "--json"},
    "train gauss": {"data", "-o --output", "-y --overwrite", "--channels", "--limit", "--seed"},
    "train nano-autoencoder": {
        "data", "-o --out", "--recipe", "--begin", "--cache", "--device",
    },
    "train nano-flow": {
        "data", "-o --out", "--autoencoder", "--recipe", "--begin", "--cache", "--device",
    },
    "train nano-decoder": {"data", "-o --out", "--nano", "--recipe", "--cache", "--device"},
    "train nano-restorer": {"data", "-o --out", "--recipe", "--begin", "--cache", "--device"},
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
        assert re.search(rf"(^|[ │]){flag}([ ,]|\.\.\.|$)", text, re.M), flag


def test_help_loads_neither_torch_nor_pyav() -> None:
    code = (
        "import contextlib, sys; from gvcc import cli\n"
        "for command in sys.argv[1:]:\n"
        "    sys.argv = ['gvcc', *command.split(), '--help']\n"
        "    with contextlib.suppress(SystemExit): cli.main()\n"
        "sys.exit(bool({'torch', 'av', 'numpy'} & set(sys.modules)))"
    )
    done = subprocess.run([sys.executable, "-c", code, *_FLAGS], stdout=subprocess.DEVNULL)
    assert done.returncode == 0


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
