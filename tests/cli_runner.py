"""Runs the command line inside the test process, on small clips."""

from __future__ import annotations

import io
import signal
import sys
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from fractions import Fraction
from pathlib import Path
from typing import Any

import numpy as np
import pytest

import gvcc
from gvcc import cli
from gvcc.pictures import media
from gvcc.pictures.media import Video

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
    """The clip along trajectories, in two GOPs of 5 and 4 frames."""
    path = clip.with_name("clip.gvcc")
    path.write_bytes(gvcc.encode(clip, gvcc.EncodeConfig(mode="t2v", gop=5, size=400)))
    return path
