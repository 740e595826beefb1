"""The command line: modes, files that grow, and parts of files."""

from __future__ import annotations

import fcntl
import json
import os
import signal
import subprocess
import time
from collections.abc import Callable
from fractions import Fraction
from pathlib import Path

import numpy as np
import pytest
from cli_runner import GVCC, Run, frames

import gvcc
from gvcc import codec
from gvcc.pictures import media
from gvcc.pictures.media import Video

GAUSS = ("--prior", "gauss")


@pytest.fixture(scope="module")
def chain(clip: Path) -> tuple[Path, np.ndarray]:
    """The clip in two GOPs of 5 frames that share one, mode i2v, and its pictures."""
    config = gvcc.EncodeConfig(mode="i2v", gop=5, size=500, prior="gauss")
    path = clip.with_name("chain.gvcc")
    path.write_bytes(gvcc.encode(clip, config))
    return path, gvcc.decode(path.read_bytes()).frames


def pieces(source: Path, config: gvcc.EncodeConfig) -> list[bytes]:
    return [p.data for p in codec.encode_parts(media.open_clip(str(source)), config)]


# -- modes ------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("args", "gops"),
    [
        ("--mode t2v", ["t2v 0-4", "t2v 5-8"]),
        ("--mode t2v --overlap 2", ["t2v 0-4", "overlap 3-7", "overlap 6-8"]),
        ("--mode i2v", ["i2v 0-4", "i2v 4-8"]),
        ("--mode i2v --refresh 1 --residual off", ["i2v 0-4", "i2v 5-8"]),
        ("--mode flf2v --no-cuts", ["flf2v 0-4", "flf2v 4-8"]),
        ("--mode auto", None),
        ("--preset free-gvc", ["t2v 0-4", "i2v 4-8"]),
        ("--preset free-gvc --overlap 5 --gop 13", ["t2v 0-8"]),
        ("--mode overlap --overlap 1 --alignment blend", ["t2v 0-4", "overlap 4-8"]),
        ("--mode flf2v --coder rcc -K 256", ["flf2v 0-4", "flf2v 4-8"]),
    ],
)
def test_modes_there_and_back(
    run: Run, clip: Path, tmp_path: Path, args: str, gops: list[str] | None
) -> None:
    file, back = tmp_path / "a.gvcc", tmp_path / "pictures"
    done = run("encode", clip, "-o", file, *GAUSS, "--gop", "5", "--size", "600", "--verify",
               *args.split())  # fmt: skip
    assert done.code == 0 and done.err.endswith(", verified\n")
    stream = gvcc.inspect(file.read_bytes())
    shown = [f"{r.gop.mode} {r.gop.start}-{r.gop.end - 1}" for r in stream.gops]
    assert gops is None or shown == gops
    assert run("decode", file, "-o", back).code == 0
    assert media.read(back).frames.shape == (9, 32, 48, 3)
    text = run("inspect", file).out.decode()
    assert all(word in text for g in shown for word in g.split())
    assert len(list(tmp_path.iterdir())) == 2


def test_settings_of_modes_reach_the_encoder(run: Run, clip: Path, tmp_path: Path) -> None:
    file = tmp_path / "a.gvcc"
    args = ("--mode", "i2v", "--preset", "paper", "-M", "2", "-K", "16", "--tail-atoms", "5")
    assert run("encode", clip, "-o", file, *GAUSS, *args, "--residual", "off").code == 0
    (record,) = gvcc.inspect(file.read_bytes()).gops
    assert (record.atoms, record.tail_atoms) == (0, 2 * 5 * 17)  # two latent frames are free
    config = gvcc.EncodeConfig("paper", "gauss", "i2v", atoms=2, codebook=16, tail_atoms=5,
                               residual="off")  # fmt: skip
    assert file.read_bytes() == gvcc.encode(clip, config)


# -- a file that grows ------------------------------------------------------------------------


def until(condition: Callable[[], bool]) -> None:
    for _ in range(6000):
        if condition():
            return
        time.sleep(0.01)
    raise TimeoutError


def test_a_killed_encode_can_be_resumed(run: Run, tmp_path: Path) -> None:
    source, file, part = (tmp_path / n for n in ("a.y4m", "a.gvcc", "a.gvcc.part"))
    media.write(Video(frames(33, 48, 64), Fraction(25)), source)
    args = ["encode", str(source), "-o", str(file), *GAUSS, "--mode", "i2v", "--gop", "5",
            "--size", "2500", "--no-cuts"]  # fmt: skip
    config = gvcc.EncodeConfig(prior="gauss", mode="i2v", gop=5, size=2500, cuts=False)
    with subprocess.Popen([*GVCC, *args], stderr=subprocess.PIPE) as process:
        until(lambda: part.exists() and part.stat().st_size > 300)
        process.send_signal(signal.SIGKILL)
    assert process.returncode == -signal.SIGKILL
    proofs = tmp_path / "a.gvcc.part.proofs"
    assert sorted(tmp_path.iterdir()) == [part, proofs, source]
    size = part.stat().st_size
    # What is whole can be looked at.
    done = run("decode", part, "-o", tmp_path / "so far.y4m")
    assert done.code == 1 and "of 33 frames" in done.err
    assert 5 <= media.read(tmp_path / "so far.y4m").count < 33
    done = run(*args, "--resume")
    assert done.code == 0 and file.stat().st_size > size
    assert not part.exists() and not proofs.exists()
    assert file.read_bytes() == gvcc.encode(source, config)


def test_resume_refuses_another_clip_and_keeps_the_part(
    run: Run, clip: Path, large: Path, tmp_path: Path
) -> None:
    config = gvcc.EncodeConfig(prior="gauss", gop=5, size=500)
    part, proofs = tmp_path / "a.gvcc.part", tmp_path / "a.gvcc.part.proofs"
    parts = list(codec.encode_parts(media.open_clip(str(clip)), config))
    part.write_bytes(b"".join(p.data for p in parts[:2]))
    args = ("-o", tmp_path / "a.gvcc", *GAUSS, "--gop", "5", "--size", "500", "--resume")
    done = run("encode", clip, *args)
    assert done.code == 2 and "nothing proves" in done.err
    proofs.write_text("".join(f"{p.proof}\n" for p in parts[:2]))
    before = part.read_bytes(), proofs.read_bytes()
    for other, says in (((large, "--frames", "9"), "another clip"),
                        ((clip, "--seed", "5"), "other settings: seed None, now 5")):  # fmt: skip
        done = run("encode", *other, *args)
        assert done.code == 2 and f"the unfinished file is of {says}" in done.err
        assert (part.read_bytes(), proofs.read_bytes()) == before
    assert run("encode", clip, *args).code == 0
    assert [p.name for p in tmp_path.iterdir()] == ["a.gvcc"]


def test_an_unfinished_encode_is_not_replaced_by_accident(
    run: Run, clip: Path, tmp_path: Path
) -> None:
    part = tmp_path / "a.gvcc.part"
    part.write_bytes(b"hours of work")
    args = ("encode", clip, "-o", tmp_path / "a.gvcc", *GAUSS, "--size", "500")
    done = run(*args)
    assert done.code == 2 and "--resume" in done.err and part.read_bytes() == b"hours of work"
    with part.open("r+b") as other:  # another process is at it
        fcntl.flock(other, fcntl.LOCK_EX)
        for more in ((), ("-y",), ("--resume",)):
            done = run(*args, *more)
            assert done.code == 1 and "another process" in done.err
            assert part.read_bytes() == b"hours of work"
    assert run(*args, "-y").code == 0
    assert [p.name for p in tmp_path.iterdir()] == ["a.gvcc"]


def test_decode_follows_a_file_that_grows(clip: Path, tmp_path: Path) -> None:
    head, first, *rest = pieces(clip, gvcc.EncodeConfig(prior="gauss", gop=5, size=500))
    part, want = tmp_path / "a.gvcc.part", gvcc.decode(b"".join([head, first, *rest]))
    media.write(want, tmp_path / "want.y4m")
    expected = (tmp_path / "want.y4m").read_bytes()
    part.write_bytes(head[:20])
    command = [*GVCC, "decode", str(part), "--follow", "-o", "-"]
    with subprocess.Popen(command, stdout=subprocess.PIPE) as process:
        assert process.stdout is not None
        with part.open("ab") as file:
            for piece in (head[20:], first[:-1], first[-1:]):
                time.sleep(0.1)
                file.write(piece)
                file.flush()
            # Of nine pictures three are there before the second GOP is written.
            shown = process.stdout.read(len(expected) // 3)
            file.write(b"".join(rest))
        os.replace(part, tmp_path / "a.gvcc")
        shown += process.stdout.read()
    assert process.returncode == 0 and shown == expected


# -- parts of a file --------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("args", "start", "end"),
    [
        ("--start 2", 2, 9), ("--end 3", 0, 3), ("--start 6 --end 8", 6, 8),
        ("--start 0.2s --end 0.32s", 5, 8), ("--start 0 --end 9", 0, 9),
    ],
)  # fmt: skip
def test_decode_some_frames(
    run: Run, chain: tuple[Path, np.ndarray], tmp_path: Path, args: str, start: int, end: int
) -> None:
    file, want = chain
    done = run("decode", file, "-o", tmp_path / "a", *args.split())
    assert done.code == 0 and f"{end - start} frames 48x32" in done.err
    assert np.array_equal(media.read(tmp_path / "a").frames, want[start:end])
    if start == 2:
        piped = run("decode", "-", "-o", tmp_path / "b", *args.split(), stdin=file.read_bytes())
        assert piped.code == 0
        assert np.array_equal(media.read(tmp_path / "b").frames, want[start:end])


def test_one_frame_of_a_clip_to_png(
    run: Run, chain: tuple[Path, np.ndarray], tmp_path: Path
) -> None:
    args = ("-o", tmp_path / "a.png", "--start", "7", "--end", "8")
    assert run("decode", chain[0], *args).code == 0
    assert np.array_equal(media.read(tmp_path / "a.png").frames[0], chain[1][7])


def test_keep_going(run: Run, chain: tuple[Path, np.ndarray], tmp_path: Path) -> None:
    file, want = chain
    data = bytearray(file.read_bytes())
    data[-10] ^= 1
    bad, back = tmp_path / "bad.gvcc", tmp_path / "pictures"
    bad.write_bytes(data)
    done = run("decode", bad, "-o", back)
    assert done.code == 1 and not back.exists()
    assert done.err.endswith("GOP 1, frames 5 to 8, cannot be decoded: "
                             "the checksum of GOP 1 does not match\n")  # fmt: skip
    done = run("decode", bad, "-o", back, "--keep-going")
    assert done.code == 1 and done.err.endswith("GOPs are concealed, sound is left out\n")
    assert "GOP 1, frames 5 to 8, cannot be decoded" in done.err
    got = media.read(back).frames
    assert np.array_equal(got[:5], want[:5]) and (got[5:] == want[4]).all()
    done = run("decode", bad, "-y", "-o", back, "--keep-going", "--json")
    assert [text.split(",")[0] for text in json.loads(done.out)["problems"]] == ["GOP 1"]


def test_bytes_behind_the_last_gop_cost_nothing(
    run: Run, chain: tuple[Path, np.ndarray], tmp_path: Path
) -> None:
    file, want = chain
    longer, back = tmp_path / "longer.gvcc", tmp_path / "pictures"
    longer.write_bytes(file.read_bytes() + b"more")
    done = run("decode", longer, "-o", back, "--json")
    assert done.code == 1 and "there are bytes after the last record" in done.err
    assert json.loads(done.out)["problems"] == ["there are bytes after the last record"]
    assert np.array_equal(media.read(back).frames, want)
