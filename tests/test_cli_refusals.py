"""The command line: what it refuses, damage, verification, and no half files."""

from __future__ import annotations

import json
import os
import re
import signal
import subprocess
import sys
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pytest
from cli_runner import GVCC, Result, Run

import gvcc
from gvcc import codec
from gvcc.files import Growing
from gvcc.pictures import colour, media

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
    Refused("encode CLIP -o NEW --mode t2v --gop 4", 2, "GOP length 4 is not 1 modulo 4"),
    Refused("encode CLIP -o NEW --matrix bt70", 2, "bt709"),
    Refused("encode CLIP -o NEW --mode i9v", 2, "did you mean 'i2v'?"),
    Refused("encode CLIP -o NEW --overlap 17", 2, "overlap is 17, expected 0 to 16"),
    Refused("encode CLIP -o NEW --mode i2v --overlap 2", 2, "overlap is for modes t2v and overlap"),
    Refused("encode CLIP -o NEW --quality vmaf:60 --bpp 1", 2, "not bpp and quality"),
    Refused("encode CLIP -o NEW --stop 4 --size 900", 2, "give one target, not size and stop"),
    Refused("encode CLIP -o NEW --quality vmaff:60", 2, "did you mean 'vmaf'?"),
    Refused("encode CLIP -o NEW --quality vmaf:100", 2, "vmaf is 100.0, expected 1 to 99"),
    Refused("encode CLIP -o NEW --quality vmaf", 2, "expected vmaf:NUMBER"),
    Refused("encode CLIP -o NEW --quality psnr:30 --preset paper", 2, "GVCC as published"),
    Refused("encode CLIP -o NEW --coder rcc --preset paper", 2, "it has no coder rcc"),
    Refused("encode CLIP -o NEW --coder rc", 2, "did you mean 'rcc'?"),
    Refused("encode CLIP -o NEW --coder rcc -K 1000", 2, "expected a power of two for coder rcc"),
    Refused("encode CLIP -o NEW --coder rcc -K 8", 2, "K is 8, expected 16 to 65536"),
    Refused("encode CLIP -o NEW --preset free-gvc -M 8", 2, "M does not go with coder rcc"),
    Refused("encode CLIP -o NEW --preset free-gvc --steps 9", 2, "steps does not go with"),
    Refused("encode CLIP -o NEW --stop 25", 2, "stop is 25, expected 1 to 24"),
    Refused("encode CLIP -o NEW --alignment blend", 2, "alignment blend is for mode overlap"),
    Refused("encode CLIP -o NEW --preset free-gvc --alignment pinn", 2, "did you mean 'pin'?"),
    Refused("encode CLIP -o NEW --mode overlap --overlap 4", 2, "expected 1 modulo 4"),
    Refused("encode CLIP -o NEW --mode overlap --alignment fade", 2, "known: blend, pin"),
    Refused("encode CLIP -o NEW --mode overlap --alignment blend --refresh 2", 2, "alignment pin"),
    Refused("encode CLIP -o NEW --mode flf2v --refresh 2", 2, "refresh is for modes i2v and auto"),
    Refused("encode CLIP -o NEW --mode i2v --refresh -1", 2, "refresh"),
    Refused("encode CLIP -o NEW --mode flf2v --gop 1", 2, "GOPs of more than one frame"),
    Refused("encode CLIP -o NEW -M 4 --tail-atoms 8", 2, "goes with M, in modes i2v"),
    Refused("encode CLIP -o NEW --mode i2v --tail-atoms 8", 2, "goes with M"),
    Refused("encode CLIP -o NEW --mode i2v -M 4 --tail-atoms 0", 2, "M_tail is 0, expected 1 to"),
    Refused("encode CLIP -o NEW --resume", 2, "nothing to resume: there is no"),
    Refused("encode CLIP -o - --resume", 2, "--resume does not go with -o -"),
    Refused("decode CODED -o DIR/a.mp4 --start 9", 2, "frame 9 is beyond the clip's 9"),
    Refused("decode CODED -o DIR/a.mp4 --start -1", 2, "frames -1 to 9 are not within"),
    Refused("decode CODED -o DIR/a.mp4 --start 4 --end 4", 2, "frames 4 to 4 are not within"),
    Refused("decode CODED -o DIR/a.mp4 --end 1s", 2, "frames 0 to 25 are not within"),
    Refused("decode CODED -o DIR/a.mp4 --start 1m", 2, "neither a frame number nor seconds"),
    Refused("decode CODED -o DIR/a.mp4 --end nans", 2, "neither a frame number nor seconds"),
    Refused("decode CODED -o DIR/a.png --end 2", 2, "a .png holds one frame, not 2"),
    Refused("decode CODED -o DIR/a.mp4 --follow --end 2", 2, "--follow does not go with --start"),
    Refused("decode DIR/none.part -o DIR/a.mp4 --follow", 1, "none.part: cannot read: No such"),
    Refused("encode CLIP -o NEW --device tpu0", 2, "device 'tpu0'"),
    Refused("decode CODED -o DIR/a.mp4 --device tpu0", 2, "device 'tpu0'"),
    Refused("train gauss DIR -o NEW", 2, "no video files below"),
    Refused("compare CLIP SMALL", 2, "--frames 2 compares the first ones"),
    Refused("encode CLIP -o NEW --mode v2v --steps 9", 2, "steps is for modes without a base"),
    Refused("encode CLIP -o NEW --mode v2v --reuse 2", 2, "reuse is for modes without a base"),
    Refused("encode CLIP -o NEW --mode v2v -K 64 --coder rcc", 2, "codebook is of a trajectory"),
    Refused("encode CLIP -o NEW --mode v2v --restorer off --knob 2", 2, "knob changes nothing"),
    Refused("encode CLIP -o NEW --size 20", 3, "the smallest file is "),
    Refused("encode DIR/none.mp4 -o NEW", 1, "none.mp4: cannot read: No such file"),
    Refused("encode OLD -o NEW", 1, "old.y4m: cannot read: "),
    Refused("encode CODED -o NEW", 1, "clip.gvcc: cannot read: "),
    Refused("encode - -o NEW", 1, "stdin must be y4m"),
    Refused("decode OLD -o DIR/a.mp4", 1, "old.y4m: not a gvcc stream"),
    Refused("decode CLIP -o DIR/a.mp4", 1, "not a gvcc stream"),
    Refused("decode - -o DIR/a.mp4", 1, "stdin: not a gvcc stream"),
    Refused("decode DIR/none -o DIR/a.mp4", 1, "none: cannot read: No such file"),
    Refused("inspect DIR", 1, "cannot read: Is a directory"),
    Refused("inspect OLD", 1, "old.y4m: not a gvcc stream"),
    Refused("compare CLIP OLD", 1, "cannot read"),
    Refused("compare CLIP CLIP --gvcc OLD", 1, "old.y4m: not a gvcc stream"),
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


@pytest.mark.parametrize("mode", ["t2v", "v2v"])
def test_the_smallest_size_that_is_named_is_reachable(
    run: Run, clip: Path, tmp_path: Path, mode: str
) -> None:
    def encode(size: str) -> Result:
        return run("encode", clip, "-o", tmp_path / "a", "--size", size, "--mode", mode)

    done = encode("20")
    found = re.search(r"20 bytes cannot be reached; the smallest file is (\d+) bytes", done.err)
    assert done.code == 3 and found
    size = found[1]
    assert encode(str(int(size) - 1)).code == 3
    assert encode(size).code == 0
    # Of a base it is known how small it goes only to a few bytes, of lengths that are not known.
    left = int(size) - (tmp_path / "a").stat().st_size
    assert left == 0 if mode == "t2v" else 0 <= left < 8


@pytest.mark.parametrize(
    ("args", "hint"),
    [
        (
            ("encode", "a", "-o", "b", "--presett", "paper"),
            "No such option: --presett (Possible options: --preset, --reuse, --set)",
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
    assert "gvcc: " in done.err and "1 GOPs are whole, 5 of 9 frames" in done.err
    assert json.loads(done.out)["frames"] == 5
    want = gvcc.decode(data).frames[:5]
    assert np.array_equal(media.read(back).frames, want)

    cut.write_bytes(data[:70])
    done = run("decode", cut, "-o", tmp_path / "none.mp4")
    assert done.code == 1 and "0 GOPs are whole, 0 of 9 frames" in done.err
    assert not (tmp_path / "none.mp4").exists()
    done = run("inspect", cut)
    assert done.code == 1 and done.err.count("\n") == 1


def test_a_damaged_file_is_refused_and_nothing_stays_of_its_pictures(
    run: Run, coded: Path, tmp_path: Path
) -> None:
    data = bytearray(coded.read_bytes())
    data[-20] ^= 1
    done = run("decode", "-", "-o", tmp_path / "a.mp4", stdin=bytes(data))
    assert (done.code, done.out) == (1, b"")
    assert done.err.splitlines()[-1] == (
        "gvcc: stdin: GOP 1, frames 5 to 8, cannot be decoded: the checksum of GOP 1 does not match"
    )
    assert not list(tmp_path.iterdir())


# -- verification -----------------------------------------------------------------------------


def test_verify(run: Run, clip: Path, tmp_path: Path) -> None:
    done = run("encode", clip, "-o", tmp_path / "a.gvcc", "--verify")
    assert done.code == 0 and done.err.endswith(", verified\n")
    assert "verify: gop 1/1, step 9/9" in done.err


@pytest.mark.parametrize("fault", ["one value", "a frame", "an error"])
def test_verify_finds_what_does_not_decode_to_the_same(
    run: Run, clip: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, fault: str
) -> None:
    class Faulty(codec.Decoder):
        def pictures(self) -> Iterator[np.ndarray]:
            for number, picture in enumerate(super().pictures()):
                if number == 8 and fault == "a frame":
                    return
                if number == 3 and fault == "an error":
                    raise gvcc.Corrupt("bad")
                if number == 3 and fault == "one value":
                    picture[4, 5, 1] ^= 1
                yield picture

    monkeypatch.setattr(codec, "Decoder", Faulty)
    done = run("encode", clip, "-o", tmp_path / "a.gvcc", "--verify", "--json")
    assert done.code == 4
    assert json.loads(done.out)["verified"] is False
    assert "does not decode" in done.err and ", verified" not in done.err


# -- no half files ----------------------------------------------------------------------------


def test_a_failing_write_leaves_what_can_be_used(
    run: Run, clip: Path, coded: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def full(*_: object) -> None:
        raise OSError(28, "No space left on device")

    file, part = tmp_path / "a.gvcc", tmp_path / "a.gvcc.part"
    with monkeypatch.context() as m:
        m.setattr(os, "replace", full)
        done = run("encode", clip, "-o", file)
    said = f"a.gvcc: cannot write: No space left on device; {part} is the whole file\n"
    assert done.code == 1 and done.err.endswith(said)
    assert part.read_bytes() == gvcc.encode(clip)
    assert run("encode", clip, "-o", file, "--resume").code == 0
    file.unlink()
    with monkeypatch.context() as m:
        m.setattr(colour, "pngs", full)
        done = run("decode", coded, "-o", tmp_path / "pictures")
    assert done.code == 1 and "No space left on device" in done.err
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize("after", [1, 2])
def test_a_full_disk_keeps_the_gops_that_are_there(
    run: Run, clip: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, after: int
) -> None:
    """Of a file of which no GOP was written nothing stays."""
    real, written = Growing.write, []

    def write(self: Growing, data: bytes, proof: str | None = None) -> None:
        if len(written) == after:
            raise gvcc.GvccError("no space")
        written.append(data)
        real(self, data, proof)

    monkeypatch.setattr(Growing, "write", write)
    done = run("encode", clip, "-o", tmp_path / "a.gvcc", "--gop", "5", "--size", "400")
    assert done.code == 1 and done.err.endswith("gvcc: no space\n")
    left = {p.name: p.read_bytes() for p in tmp_path.iterdir()}
    assert left.pop("a.gvcc.part.proofs", b"").count(b"\n") == (0 if after == 1 else after)
    assert left == ({} if after == 1 else {"a.gvcc.part": b"".join(written)})
    assert ("--resume goes on with it" in done.err) == (after == 2)


@pytest.mark.parametrize("stage", ["encode", "write", "decode", "pictures"])
def test_ctrl_c_leaves_no_half_file(
    run: Run, clip: Path, coded: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, stage: str
) -> None:
    def stop(*_: object, **__: object) -> None:
        raise KeyboardInterrupt

    module, name = {
        "encode": (codec, "encode_parts"), "write": (os, "replace"),
        "decode": (codec, "Decoder"), "pictures": (colour, "pngs"),
    }[stage]  # fmt: skip
    monkeypatch.setattr(module, name, stop)
    if stage in ("encode", "write"):
        done = run("encode", clip, "-o", tmp_path / "a.gvcc")
    else:
        done = run("decode", coded, "-o", f"{tmp_path}/pictures/")
    assert (done.code, done.out) == (130, b"")
    left = sorted(p.name for p in tmp_path.iterdir())
    whole = ["a.gvcc.part", "a.gvcc.part.proofs"]  # but for its name
    assert left == (whole if stage == "write" else [])


@pytest.mark.parametrize(("number", "code"), [(signal.SIGINT, 130), (signal.SIGTERM, 143)])
def test_a_killed_encode_leaves_whole_gops_or_nothing(
    large: Path, tmp_path: Path, number: signal.Signals, code: int
) -> None:
    """test_cli_modes.py has SIGKILL, and goes on with what is left."""
    command = [*GVCC, "encode", str(large), "-o", str(tmp_path / "a.gvcc"), "--gop", "1", "-M", "4"]
    process = subprocess.Popen(
        [*command, "--steps", "60", "--frames", "9", "--prior", "gauss"],
        stderr=subprocess.PIPE,
        preexec_fn=lambda: signal.signal(signal.SIGINT, signal.SIG_DFL),  # a shell may ignore it
    )
    assert process.stderr is not None
    with process:
        told = [process.stderr.readline() for _ in range(2)]
        process.send_signal(number)
        rest = process.stderr.read()
    assert told[1].startswith(b"encode: gop 2/9, step 60/60")
    assert process.returncode == code
    assert b"Traceback" not in rest
    assert b"a.gvcc.part holds what was done; --resume goes on with it" in rest
    part, proofs = sorted(tmp_path.iterdir())
    assert (part.name, proofs.name) == ("a.gvcc.part", "a.gvcc.part.proofs")
    with pytest.raises(gvcc.Truncated) as caught:
        gvcc.inspect(part.read_bytes())
    assert 1 <= caught.value.whole_gops < 9


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
