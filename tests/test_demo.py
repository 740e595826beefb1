"""The demonstration: what it leaves behind, what it prints, and that its check can fail."""

from __future__ import annotations

import re
import subprocess
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from fractions import Fraction
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
from PIL import Image
from rich.console import Console

import gvcc
from gvcc import codec
from gvcc.cli import showcase as demo
from gvcc.pictures import media
from gvcc.pictures.media import Video

FILES = {"source.mp4", "demo.gvcc", "decoded", "decoded.mp4", "side-by-side.png"}


@pytest.fixture(autouse=True)
def one_rival(monkeypatch: pytest.MonkeyPatch) -> None:
    """The slow presets of three encoders take longer than all the rest."""
    monkeypatch.setattr(demo, "_RIVALS", ("svt-av1",))


def clip(path: Path, t: int = 9, h: int = 32, w: int = 48) -> str:
    n, y, x = np.ogrid[:t, :h, :w]
    planes = np.broadcast_arrays(x * 200 // w + 5 * n, y * 200 // h + 0 * n, (x + y) + 0 * n)
    media.write(Video(np.stack(planes, -1).astype(np.uint8), Fraction(25)), path, overwrite=True)
    return str(path)


@contextmanager
def _quiet(_: str) -> Iterator[codec.Progress]:
    yield lambda event: None


def run(folder: Path, source: str | None, bpp: float = 0.3) -> str:
    console = Console(width=100, markup=False)
    with console.capture() as shown:
        demo.run(folder, source, bpp, _quiet, console)
    return shown.get()


def here(change: Callable[[np.ndarray], np.ndarray]) -> Callable[..., Any]:
    """In place of the second process: decode in this one, and change the pictures."""

    def call(command: list[str], **_: object) -> subprocess.CompletedProcess[bytes]:
        assert command[1:4] == ["-m", "gvcc", "decode"]
        video = gvcc.decode(Path(command[4]).read_bytes())
        media.write(Video(change(video.frames), video.fps), command[-1], overwrite=True)
        return subprocess.CompletedProcess(command, 0)

    return call


def test_all_files_and_figures_through_the_command_line(tmp_path: Path) -> None:
    """As a user runs it, second process and all."""
    source, folder = clip(tmp_path / "clip.y4m"), tmp_path / "new" / "out"
    done = subprocess.run(
        [
            sys.executable,
            "-m",
            "gvcc",
            "demo",
            "--clip",
            source,
            "--out",
            str(folder),
            "--bpp",
            "0.3",
        ],
        capture_output=True,
        text=True,
    )
    assert done.returncode == 0, done.stderr
    assert {p.name for p in folder.iterdir()} == FILES
    data = (folder / "demo.gvcc").read_bytes()
    want = gvcc.decode(data).frames
    assert np.array_equal(media.read(folder / "decoded").frames, want)
    for name in ("source.mp4", "decoded.mp4"):
        video = media.read(folder / name)
        assert video.frames.shape == (9, 32, 48, 3) and video.fps == 25
    with Image.open(folder / "side-by-side.png") as sheet:
        assert sheet.width >= 3 * 192 and sheet.height > 3 * 32
    for part in (
        "PSNR", "VMAF", "bit/pixel", f"{8 * len(data) / want[..., 0].size:.4f}",
        "the second process decoded exactly the pictures that the encoder predicted",
        f"raw {want.nbytes} bytes -> {len(data)} bytes",
    ):  # fmt: skip
        assert part in done.stdout, part
    assert "encode: gop 1/1" in done.stderr and "decode: gop 1/1" in done.stderr


def test_another_run_replaces_the_first(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(demo, "subprocess", SimpleNamespace(run=here(lambda frames: frames)))
    run(tmp_path / "out", clip(tmp_path / "a.y4m", t=9))
    text = run(tmp_path / "out", clip(tmp_path / "b.y4m", t=3))
    assert media.read(tmp_path / "out" / "decoded").frames.shape[0] == 3
    assert re.search(r"raw \d+ bytes -> \d+ bytes", text)


@pytest.mark.parametrize(
    "change", [lambda x: x ^ np.uint8(1), lambda x: x[:-1]], ids=["other pictures", "fewer"]
)
def test_a_second_process_that_decodes_something_else_is_an_error(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, change: Callable[[np.ndarray], np.ndarray]
) -> None:
    monkeypatch.setattr(demo, "subprocess", SimpleNamespace(run=here(change)))
    with pytest.raises(gvcc.GvccError, match="other pictures than the encoder's own"):
        run(tmp_path / "out", clip(tmp_path / "a.y4m"))
    assert not (tmp_path / "out" / "decoded.mp4").exists()


def test_a_second_process_that_fails_is_an_error(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def fail(command: list[str], **_: object) -> subprocess.CompletedProcess[bytes]:
        return subprocess.CompletedProcess(command, 1)

    monkeypatch.setattr(demo, "subprocess", SimpleNamespace(run=fail))
    with pytest.raises(gvcc.GvccError, match="the second process failed: .* -m gvcc decode"):
        run(tmp_path / "out", clip(tmp_path / "a.y4m"))


def test_a_large_clip_is_scaled_and_cut(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Only to 40 lines and 5 frames here, to be quick."""
    monkeypatch.setattr(demo, "_HEIGHT", 40)
    monkeypatch.setattr(demo, "_FRAMES", 5)
    monkeypatch.setattr(demo, "subprocess", SimpleNamespace(run=here(lambda frames: frames)))
    run(tmp_path / "out", clip(tmp_path / "a.y4m", h=64, w=98))
    assert media.read(tmp_path / "out" / "decoded").frames.shape == (5, 40, 62, 3)


def test_the_built_in_clip(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(demo, "_HEIGHT", 64)
    monkeypatch.setattr(demo, "_FRAMES", 1)
    monkeypatch.setattr(demo, "subprocess", SimpleNamespace(run=here(lambda frames: frames)))
    run(tmp_path / "out", None)
    assert {p.name for p in (tmp_path / "out").iterdir()} == FILES


def test_a_users_own_file_in_the_folder_of_pictures_survives(tmp_path: Path) -> None:
    own = tmp_path / "out" / "decoded" / "holiday.png"
    own.parent.mkdir(parents=True)
    own.write_bytes(b"mine")
    with pytest.raises(gvcc.GvccError, match="the second process failed"):
        run(tmp_path / "out", clip(tmp_path / "a.y4m"))
    assert own.read_bytes() == b"mine"
