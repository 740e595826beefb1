"""Outputs that are no regular file, and outputs that cannot be written, by the command line."""

from __future__ import annotations

import json
import os
import shlex
import stat
import subprocess
import threading
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from cli_runner import GVCC, Run

import gvcc
from gvcc import codec
from gvcc.format import parser
from gvcc.pictures import media

GAUSS = ("--prior", "gauss", "--size", "400")


@pytest.fixture
def null(tmp_path: Path) -> Path:
    """A name for a device: one's own where that is possible."""
    place = tmp_path / "null.mp4"
    if os.geteuid() == 0:
        os.mknod(place, stat.S_IFCHR | 0o666, os.makedev(1, 3))
    else:
        place.symlink_to("/dev/null")
    return place


def from_pipe(pipe: Path) -> tuple[threading.Thread, list[bytes]]:
    got: list[bytes] = []
    os.mkfifo(pipe)
    reader = threading.Thread(target=lambda: got.append(pipe.read_bytes()))
    reader.start()
    return reader, got


def test_devices_stay(run: Run, clip: Path, coded: Path, null: Path) -> None:
    before = null.lstat()
    assert run("encode", clip, "-o", null, *GAUSS).code == 0  # -y is for what is replaced
    assert run("encode", clip, "-o", null, "-y", *GAUSS).code == 0
    assert run("decode", coded, "-o", null).code == 0
    after = null.lstat()
    assert (after.st_mode, after.st_rdev) == (before.st_mode, before.st_rdev)
    assert [p.name for p in null.parent.iterdir()] == ["null.mp4"]


def test_encode_into_a_pipe(run: Run, clip: Path, tmp_path: Path) -> None:
    assert run("encode", clip, "-o", tmp_path / "a.gvcc", *GAUSS).code == 0
    reader, got = from_pipe(tmp_path / "pipe")
    assert run("encode", clip, "-o", tmp_path / "pipe", *GAUSS, "--json").code == 0
    reader.join()
    assert got == [(tmp_path / "a.gvcc").read_bytes()]
    assert stat.S_ISFIFO((tmp_path / "pipe").stat().st_mode)
    done = run("encode", clip, "-o", tmp_path / "pipe", *GAUSS, "--resume")
    assert done.code == 2 and "no regular file" in done.err


@pytest.mark.parametrize("more", ["--verify", "--preset paper -M 4 -K 64"])
def test_what_went_into_a_pipe_is_not_read_from_it(
    run: Run, clip: Path, tmp_path: Path, more: str
) -> None:
    reader, got = from_pipe(tmp_path / "pipe")
    args = ("--prior", "gauss", *more.split(), *(("--size", "400") if "verify" in more else ()))
    done = run("encode", clip, "-o", tmp_path / "pipe", *args, "--json")
    reader.join()
    assert done.code == 0 and json.loads(done.out)["bytes"] == len(got[0])
    assert json.loads(done.out).get("verified") or "published_bits" in json.loads(done.out)


@pytest.mark.parametrize("output", ["-", "/dev/stdout", "/dev/fd/1"])
def test_json_and_a_stream_both_want_stdout(run: Run, clip: Path, coded: Path, output: str) -> None:
    for args in (("encode", clip), ("decode", coded)):
        done = run(*args, "-o", output, "--json")
        assert done.code == 2 and "--json" in done.err and done.out == b""


@pytest.mark.parametrize("name", ["play.y4m", "play", "play.mkv", "play.mp4", "play.mov"])
def test_decode_into_a_pipe(run: Run, coded: Path, tmp_path: Path, name: str) -> None:
    reader, got = from_pipe(tmp_path / name)
    assert run("decode", coded, "-o", tmp_path / name).code == 0
    reader.join()
    kind = Path(name).suffix or ".y4m"
    (tmp_path / f"back{kind}").write_bytes(got[0])
    back = media.read(tmp_path / f"back{kind}")
    assert back.frames.shape == (9, 32, 48, 3) and back.fps == 25
    if kind == ".y4m":
        assert run("decode", coded, "-o", "-").out == got[0]


@pytest.mark.parametrize("name", ["link.mp4", "link.gvcc", "link/"])
def test_links_stay_and_their_targets_are_replaced(
    run: Run, clip: Path, coded: Path, tmp_path: Path, name: str
) -> None:
    there = tmp_path / "there"
    there.mkdir()
    target = there / name.rstrip("/").replace("link", "target")
    if name == "link/":
        target.mkdir()
        (target / "00000.png").write_bytes(b"old")
    else:
        target.write_bytes(b"old")
        target.chmod(0o640)
    link = tmp_path / name.rstrip("/")
    link.symlink_to(Path("there") / target.name)
    args = ("encode", clip, *GAUSS) if name == "link.gvcc" else ("decode", coded)
    refused = run(*args, "-o", f"{tmp_path}/{name}")
    assert refused.code == 2 and "exists; -y replaces it" in refused.err
    assert run(*args, "-o", f"{tmp_path}/{name}", "-y").code == 0
    assert link.is_symlink() and [p.name for p in there.iterdir()] == [target.name]
    if name == "link/":
        assert len(list(target.iterdir())) == 9
    else:
        assert target.stat().st_size > 100 and stat.S_IMODE(target.stat().st_mode) == 0o640


def test_a_link_to_the_input_is_the_input(run: Run, clip: Path, tmp_path: Path) -> None:
    (tmp_path / "link.y4m").symlink_to(clip)
    before = clip.read_bytes()
    done = run("encode", clip, "-o", tmp_path / "link.y4m", "-y", *GAUSS)
    assert done.code == 2 and "is the input" in done.err and clip.read_bytes() == before


@pytest.mark.parametrize("name", ["pictures/00004.png", "link.png", "pictures/notes.txt"])
def test_no_file_of_the_input_folder_is_replaced(
    run: Run, coded: Path, tmp_path: Path, name: str
) -> None:
    assert run("decode", coded, "-o", f"{tmp_path}/pictures/").code == 0
    (tmp_path / "pictures/notes.txt").write_bytes(b"mine")
    (tmp_path / "link.png").symlink_to("pictures/00002.png")
    before = {p.name: p.read_bytes() for p in (tmp_path / "pictures").iterdir()}
    done = run("encode", tmp_path / "pictures", "-o", tmp_path / name, "-y", *GAUSS)
    assert done.code == 2 and "is in the input's folder" in done.err
    assert {p.name: p.read_bytes() for p in (tmp_path / "pictures").iterdir()} == before


def test_an_empty_name_is_refused(run: Run, clip: Path, coded: Path) -> None:
    for args in (("encode", clip, *GAUSS), ("decode", coded)):
        done = run(*args, "-o", "", "-y")
        assert done.code == 2 and "the output's name is empty" in done.err


@pytest.mark.parametrize("output", ["/dev/stdout", "/dev/fd/1", "/proc/self/fd/1"])
def test_standard_output_by_name(coded: Path, tmp_path: Path, output: str) -> None:
    want = subprocess.run([*GVCC, "decode", str(coded), "-o", "-"], capture_output=True).stdout
    with (tmp_path / "out").open("ab") as file:
        file.write(b"before ")
        file.flush()
        command = [*GVCC, "decode", str(coded), "-o", output]
        assert subprocess.run(command, stdout=file).returncode == 0
    assert (tmp_path / "out").read_bytes() == b"before " + want
    assert [p.name for p in tmp_path.iterdir()] == ["out"]


@pytest.mark.parametrize("command", ["encode", "decode"])
def test_what_cannot_be_written_is_told_before_any_work(
    run: Run, clip: Path, coded: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, command: str
) -> None:
    def work(*_: object, **__: object) -> Any:
        raise AssertionError("it has begun to work")

    monkeypatch.setattr(codec, "encode_parts", work)
    monkeypatch.setattr(codec.Decoder, "pictures", work)
    monkeypatch.setattr(os, "access", lambda *_: False)
    source = (clip, *GAUSS) if command == "encode" else (coded,)
    done = run(command, *source, "-o", tmp_path / "a.mp4")
    assert done.code == 1 and "nothing can be made in the folder" in done.err
    assert not list(tmp_path.iterdir())


def test_decode_opens_its_output_before_it_decodes(
    run: Run, coded: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Whatever `check` could not foresee."""

    def work(*_: object) -> Any:
        raise AssertionError("it has begun to work")

    real = Path.open

    def full(self: Path, *args: Any, **more: Any) -> Any:
        if self.parent == tmp_path and args and "x" in args[0]:
            raise OSError(122, "Disk quota exceeded")
        return real(self, *args, **more)

    monkeypatch.setattr(codec.Decoder, "pictures", work)
    monkeypatch.setattr(Path, "open", full)
    done = run("decode", coded, "-o", tmp_path / "a.mp4")
    assert done.code == 1 and "Disk quota exceeded" in done.err


# -- what is shown ----------------------------------------------------------------------------


@pytest.mark.parametrize("encoding", ["latin-1", "ascii", "utf-8"])
@pytest.mark.parametrize("args", ["inspect FILE", "inspect FILE --json", "priors", "--help"])
def test_standard_output_of_any_encoding(coded: Path, encoding: str, args: str) -> None:
    words = [str(coded) if w == "FILE" else w for w in args.split()]
    done = subprocess.run(
        [*GVCC, *words], capture_output=True, env=os.environ | {"PYTHONIOENCODING": encoding}
    )
    assert done.returncode == 0 and b"Traceback" not in done.stderr
    assert len(done.stdout.decode(encoding)) > 100


def test_names_that_are_no_text(run: Run, coded: Path, tmp_path: Path) -> None:
    name = os.fsencode(tmp_path) + b"/na\xefve.gvcc"
    with open(name, "wb") as file:
        file.write(coded.read_bytes()[:-1])
    done = subprocess.run([os.fsencode(w) for w in GVCC] + [b"inspect", name], capture_output=True)
    assert done.returncode == 1 and b"Traceback" not in done.stderr
    assert b"GOPs are whole" in done.stderr


@pytest.mark.parametrize("as_json", [False, True])
@pytest.mark.parametrize("fault", ["cut", "body", "head"])
def test_inspect_shows_what_is_whole(
    run: Run, coded: Path, tmp_path: Path, fault: str, as_json: bool
) -> None:
    """Of two GOPs: the second is cut; the first one's body, or its head, is damaged."""
    data, bad = coded.read_bytes(), tmp_path / "bad.gvcc"
    head = parser.read_header(data)[1]
    at = {"cut": -1, "body": head + 30, "head": head + 1}[fault]
    bad.write_bytes(
        data[:-1] if fault == "cut" else data[:at] + bytes([data[at] ^ 1]) + data[at + 1 :]
    )
    done = run("inspect", bad, *(["--json"] if as_json else []))
    assert done.code == 1
    says, whole = {
        "cut": ("1 GOPs are whole, 5 of 9 frames", [0]),
        "body": ("GOP 0, frames 0 to 4: the checksum of GOP 0 does not match", [1]),
        "head": ("checksum of record 0's head does not match", []),
    }[fault]
    assert says in done.err.replace("\n", "")
    text = done.out.decode()
    if as_json:
        about = json.loads(text)
        assert [g["gop"] for g in about["gops"]] == whole and says in about["problems"][0]
        assert about["bytes"] == sum(about["where"].values()) == bad.stat().st_size
        assert about["header"]["width"] == 48 and about["bits_per_pixel"] is None
    else:
        assert "48" in text and "hadamard" in text and ("damaged" in text)


def test_a_damaged_header_is_all_there_is_to_say(run: Run, coded: Path, tmp_path: Path) -> None:
    bad = tmp_path / "bad.gvcc"
    bad.write_bytes(coded.read_bytes()[:20])
    done = run("inspect", bad)
    assert done.code == 1 and done.out == b"" and "the data end inside the header" in done.err


@pytest.mark.parametrize(
    "asked", ["--bpp 1.5", "--bpp 50", "--kbps 1e6", "--size 10000000", "-M 9000"]
)
def test_what_no_prior_can_use_is_refused_at_once(
    run: Run, large: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, asked: str
) -> None:
    def network(*_: object, **__: object) -> Any:
        raise AssertionError("the network is asked")

    monkeypatch.setattr("gvcc.priors.gauss.GaussPrior.denoise", network)
    for mode in ("t2v", "i2v"):
        done = run("encode", large, "-o", tmp_path / "a", "--prior", "gauss", "--mode", mode,
                   *asked.split())  # fmt: skip
        assert done.code == 2 and "a use for" in done.err
    assert not list(tmp_path.iterdir())


def test_a_target_that_is_missed_from_below_is_told(run: Run, clip: Path, tmp_path: Path) -> None:
    done = run("encode", clip, "-o", tmp_path / "a", "--prior", "gauss", "--preset", "free-gvc",
               "--size", "1700")  # fmt: skip
    assert done.code == 0 and "below its target of 1700 bytes" in done.err
    assert (tmp_path / "a").stat().st_size < 1600
    assert "below its target" not in run("encode", clip, "-o", tmp_path / "b", *GAUSS).err


def test_the_api_says_what_it_was_given() -> None:
    frames = np.zeros((2, 32, 48, 3), np.uint8)
    for bad, says in (
        (frames.astype(np.float32), r"not float32 \[2,32,48,3\]"),
        (frames[0], r"not uint8 \[32,48,3\]"),
        (np.zeros((2, 32, 48, 4), np.uint8), r"not uint8 \[2,32,48,4\]"),
        (frames[:0], r"not uint8 \[0,32,48,3\]"), (frames.tolist(), "not list"),
        (frames.astype(np.int64), "not int64"), (None, "not NoneType"),
    ):  # fmt: skip
        with pytest.raises(gvcc.ConfigError, match=rf"uint8 \[T,H,W,3\].*{says}"):
            gvcc.Video(bad, 24)  # type: ignore[arg-type]
    for rate in (0, -1, float("nan"), "24", None, True):
        with pytest.raises(gvcc.ConfigError, match="fps"):
            gvcc.Video(frames, rate)  # type: ignore[arg-type]
    for given, kept in ((24, "24"), (24.0, "24"), (23.976, "24000/1001"), (12.5, "25/2"),
                        (np.float64(29.97), "30000/1001"), (np.int32(30), "30")):  # fmt: skip
        assert str(gvcc.Video(frames, given).fps) == kept
    with pytest.raises(gvcc.ConfigError, match="colour"):
        gvcc.Video(frames, 24, "bt709")  # type: ignore[arg-type]


@pytest.mark.parametrize(
    "fields",
    [{"bpp": "0.1"}, {"seed": 1.5}, {"quality": 30}, {"preset": None}, {"gop": True},
     {"cuts": "no"}, {"settings": ["a"]}, {"size": 100.0}, {"frames": None}],
)  # fmt: skip
def test_a_configuration_says_what_it_was_given(fields: dict[str, Any]) -> None:
    known = next(iter(fields)) != "frames"
    with pytest.raises(gvcc.ConfigError if known else TypeError, match=next(iter(fields))):
        gvcc.EncodeConfig(**fields)


def test_the_functions_say_what_they_were_given() -> None:
    frames = np.zeros((2, 32, 48, 3), np.uint8)
    for bad in (frames, 3, b"bytes", None):
        with pytest.raises(gvcc.ConfigError, match="a clip is a Video or a path"):
            gvcc.encode(bad)  # type: ignore[arg-type]
    with pytest.raises(gvcc.ConfigError, match="EncodeConfig"):
        gvcc.encode(gvcc.Video(frames, 24), {"bpp": 0.1})  # type: ignore[arg-type]
    for call in (gvcc.decode, gvcc.inspect):
        with pytest.raises(gvcc.ConfigError, match="a stream is bytes, not str"):
            call("a.gvcc")  # type: ignore[operator]


def test_the_api_warns_of_a_broken_source(clip: Path, tmp_path: Path) -> None:
    (tmp_path / "cut.y4m").write_bytes(clip.read_bytes()[:-100])
    with pytest.warns(gvcc.SourceWarning, match="cut.y4m: breaks off at 0.32 s"):
        data = gvcc.encode(tmp_path / "cut.y4m", gvcc.EncodeConfig(prior="gauss", size=400))
    assert gvcc.inspect(data).header.frames == 8


@pytest.mark.parametrize("way", [">&-", ">/dev/full"])
@pytest.mark.parametrize("args", ["inspect {coded}", "inspect {coded} --json", "priors",
                                  "--help", "decode {coded} -o -",
                                  "encode {clip} --size 400 -o -"])  # fmt: skip
def test_a_stdout_that_takes_nothing_is_said(clip: Path, coded: Path, args: str, way: str) -> None:
    command = shlex.join([*GVCC, *args.format(coded=coded, clip=clip).split()])
    prior = " --prior gauss" if "encode" in args else ""
    done = subprocess.run(f"{command}{prior} {way}", shell=True, capture_output=True, text=True)
    why = "Bad file descriptor" if way == ">&-" else "No space left on device"
    name = "-: cannot write" if "-o -" in args else "standard output"
    assert done.returncode == 1 and done.stderr.splitlines()[-1] == f"gvcc: {name}: {why}"


def test_no_stdout_is_no_loss_to_what_does_not_want_it(clip: Path, tmp_path: Path) -> None:
    args = (*GVCC, "encode", str(clip), "-o", str(tmp_path / "a.gvcc"), *GAUSS)
    done = subprocess.run(f"{shlex.join(args)} >&-", shell=True, capture_output=True)
    assert done.returncode == 0 and gvcc.decode((tmp_path / "a.gvcc").read_bytes()).frames.any()


def test_a_device_that_is_full_is_named(run: Run, clip: Path) -> None:
    done = run("encode", clip, "-o", "/dev/full", *GAUSS)
    assert done.code == 1 and "gvcc: /dev/full: cannot write: No space left on device" in done.err


@pytest.mark.parametrize("name", ["clip.y4m/a", "gone/a"])
def test_a_folder_that_is_none_is_a_matter_of_usage(
    run: Run, clip: Path, coded: Path, name: str
) -> None:
    for args in (("encode", clip, *GAUSS), ("decode", coded)):
        done = run(*args, "-o", f"{clip.parent}/{name}.{'gvcc' if 'encode' in args else 'mp4'}")
        assert done.code == 2 and "does not exist" in done.err


@pytest.mark.parametrize("name", ["notes.txt", "holiday.png", "0001.png"])
def test_a_folder_with_other_files_is_never_advised(
    run: Run, coded: Path, tmp_path: Path, name: str
) -> None:
    (tmp_path / "full").mkdir()
    (tmp_path / "full" / name).write_bytes(b"mine")
    for more in ((), ("-y",)):
        done = run("decode", coded, "-o", f"{tmp_path}/full/", *more)
        assert done.code == 2 and "other files than numbered frames" in done.err
        assert "-y" not in done.err
