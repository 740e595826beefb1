"""Finished cells that are asked for other metrics: decoded again, never encoded again."""

from __future__ import annotations

import dataclasses
import json
import sys
from fractions import Fraction
from pathlib import Path

import numpy as np
import pytest

from gvcc.eval import cells, run
from gvcc.eval.cells import Source
from gvcc.pictures import media
from gvcc.records import Video

GAUSS = "gvcc:default+prior=gauss+gop=5"
# Keeps the source as it is, and notes each call: "encode" or "decode".
SCRIPT = """
import pathlib, shutil, sys
what, source, coded = sys.argv[1:]
with open(pathlib.Path(__file__).with_name("log"), "a") as f:
    f.write(what + "\\n")
shutil.copy(source, coded)
"""


@pytest.fixture(autouse=True)
def in_this_process(monkeypatch: pytest.MonkeyPatch) -> None:
    """What is kept and what is made anew is all one to where it runs (test_eval_run has the
    processes), and each new one takes seconds to begin."""

    def here(job: cells.Job, kept: run._Kept) -> None:
        for made in cells.run(job):
            kept.keep(job, made)

    monkeypatch.setattr(run, "_in_processes", here)


class Runs:
    """Evaluations of one clip by the codec `mine`, vp9 and gvcc, in one folder."""

    def __init__(self, folder: Path) -> None:
        self.folder, self.log, self.out = folder, folder / "log", folder / "out"
        y, x = np.mgrid[0:48, 0:64]
        frames = np.stack([np.stack([x * 3 + 5 * t, y * 4, x + y], -1) for t in range(4)])
        clip = folder / "one.mkv"
        media.write(Video(frames.clip(0, 255).astype(np.uint8), Fraction(25)), clip)
        self.source = Source("one", str(clip), 4)
        script = folder / "codec.py"
        script.write_text(SCRIPT)
        word = f"{sys.executable} {script}"
        (folder / "adapters.toml").write_text(
            f'[mine]\nencode = "{word} encode {{source}} {{coded}}"\nqualities = [3]\n'
            f'decode = "{word} decode {{coded}} {{decoded}}"\n'
        )

    def __call__(self, *metrics: str, stride: int = 1) -> dict[str, dict]:
        """Codec -> its cell, after another run."""
        codecs = ("mine", "vp9", GAUSS)
        plan = run.Plan(self.out, "tests", codecs, (self.source,), (0.5,), metrics,
                        adapters=str(self.folder / "adapters.toml"), stride=stride)  # fmt: skip
        assert run.run(plan, 1) == 0
        return {c: self.result(c)["cells"][0] for c in codecs}

    def result(self, codec: str) -> dict:
        return json.loads((self.out / f"results/{run.safe(codec)}__tests.json").read_text())

    def calls(self) -> list[str]:
        """Of the codec `mine` since they were last asked for."""
        found = self.log.read_text().split() if self.log.exists() else []
        self.log.write_text("")
        return found

    def cell_files(self) -> list[Path]:
        return sorted((self.out / "cells").glob("*.json"))

    def tamper(self, **metrics: float) -> None:
        """Write numbers into all cells that no measurement gives."""
        for path in self.cell_files():
            cell = json.loads(path.read_text())
            cell["metrics"] |= metrics
            path.write_text(json.dumps(cell))


@pytest.fixture
def runs(tmp_path: Path) -> Runs:
    return Runs(tmp_path)


def streams(runs: Runs) -> dict[Path, int]:
    return {p: p.stat().st_mtime_ns for p in (runs.out / "streams").rglob("*") if p.is_file()}


def test_another_metric_is_measured_on_the_kept_files(runs: Runs) -> None:
    first = runs("psnr_rgb_db")
    assert runs.calls() == ["encode", "decode"]
    kept = streams(runs)
    assert len(kept) == 3
    runs.tamper(psnr_rgb_db=1.5)
    second = runs("tof", "psnr_rgb_db", "psnr_y_db")
    assert runs.calls() == ["decode"] and streams(runs) == kept
    for codec, cell in second.items():
        assert list(cell["metrics"]) == ["psnr_rgb_db", "psnr_y_db", "tof"]
        assert cell["metrics"]["psnr_rgb_db"] == 1.5  # it was there: not measured again
        assert cell["metrics"]["psnr_y_db"] > 15 and cell["metrics"]["tof"] >= 0
        for same in ("bytes", "encode_s", "stream", "video"):
            assert cell[same] == first[codec][same]
    # What is asked for is reported, and what another run has measured is still known.
    third = runs("psnr_y_db")
    assert not runs.calls()
    assert all(list(c["metrics"]) == ["psnr_y_db"] for c in third.values())
    assert runs("tof", "psnr_rgb_db") and not runs.calls()


def test_measured_in_another_way_is_measured_anew(runs: Runs) -> None:
    runs("psnr_rgb_db")
    runs.tamper(psnr_rgb_db=1.5)
    runs.calls()
    kept = streams(runs)
    found = runs("psnr_rgb_db", stride=2)
    assert runs.calls() == ["decode"] and streams(runs) == kept
    assert all(c["metrics"]["psnr_rgb_db"] > 15 and c["stride"] == 2 for c in found.values())


def test_a_lost_video_is_made_from_the_kept_file(runs: Runs) -> None:
    found = runs("psnr_rgb_db")
    runs.calls()
    runs.tamper(psnr_rgb_db=1.5)
    for cell in found.values():
        (runs.out / cell["video"]).unlink()
    again = runs("psnr_rgb_db")
    assert runs.calls() == ["decode"]
    for cell in again.values():
        assert (runs.out / cell["video"]).is_file() and cell["metrics"]["psnr_rgb_db"] == 1.5


def test_a_kept_file_that_is_damaged_or_lost_is_encoded_again(runs: Runs) -> None:
    found = runs("psnr_rgb_db")
    runs.calls()
    for cell in found.values():
        (runs.out / cell["stream"]).write_bytes(b"no stream")
    again = runs("psnr_rgb_db", "psnr_y_db")
    assert runs.calls()[-2:] == ["encode", "decode"]
    for codec, cell in again.items():
        assert len(cell["metrics"]) == 2
        assert (runs.out / cell["stream"]).read_bytes() != b"no stream"
        assert cell["metrics"]["psnr_rgb_db"] == found[codec]["metrics"]["psnr_rgb_db"]
        (runs.out / cell["stream"]).unlink()
    runs("psnr_rgb_db", "psnr_y_db", "psnr_u_db")
    assert runs.calls() == ["encode", "decode"]


def test_the_report_says_presets_and_stride(runs: Runs) -> None:
    runs("psnr_rgb_db", stride=3)
    setup = json.loads((runs.out / "setup.json").read_text())
    assert setup["stride"] == 3
    assert runs.result("vp9")["notes"] == ["encoder preset 0"]
    assert runs.result("mine")["notes"] == []
    from gvcc.eval import report

    assert "LPIPS and DISTS of one frame in 3" in report.write(runs.out).read_text()


def test_lpips_and_dists_take_every_nth_frame(monkeypatch: pytest.MonkeyPatch) -> None:
    from gvcc.eval import every
    from gvcc.metrics import perceptual

    shapes = []

    def distance(ref: np.ndarray, out: np.ndarray, *_: str) -> float:
        shapes.append((ref[:, 0, 0, 0].tolist(), out.shape))
        return 0.5

    monkeypatch.setattr(perceptual, "lpips", distance)
    monkeypatch.setattr(perceptual, "dists", distance)
    ref = np.arange(7, dtype=np.uint8)[:, None, None, None] + np.zeros((7, 8, 8, 3), np.uint8)
    names = ("psnr_rgb_db", "lpips_alex", "lpips_vgg", "dists")
    found = every.measure(ref, ref, 25, which=names, stride=3)
    assert shapes == [([0, 3, 6], (3, 8, 8, 3))] * 3
    assert found.values == dict(zip(names, (100.0, 0.5, 0.5, 0.5), strict=True))


def test_a_cell_is_not_changed_by_what_is_made_of_it(runs: Runs) -> None:
    """Plans are values: the same one asked twice is the same run."""
    runs("psnr_rgb_db")
    before = [p.read_bytes() for p in runs.cell_files()]
    assert dataclasses.replace(runs.source) == runs.source
    runs("psnr_rgb_db")
    assert [p.read_bytes() for p in runs.cell_files()] == before
