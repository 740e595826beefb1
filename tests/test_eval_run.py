"""Whole evaluations: cells, resuming, workers that die, here and on Ray, and the command."""

from __future__ import annotations

import dataclasses
import json
import os
import signal
import socket
import subprocess
import sys
import threading
import time
from fractions import Fraction
from io import BytesIO
from pathlib import Path

import numpy as np
import pytest
from cli_runner import GVCC, Run

import gvcc
from gvcc.errors import ConfigError
from gvcc.eval import bd, cells, datasets, run
from gvcc.eval.cells import Job, Source
from gvcc.metrics import inception
from gvcc.pictures import media
from gvcc.records import Video

METRICS = ("psnr_rgb_db", "temporal_error")
GAUSS = "gvcc:default+prior=gauss+gop=5"
# A codec of the tests' own: keeps the source as it is, and may do harm first.
SCRIPT = """
import os, pathlib, shutil, signal, sys, time
what, source, coded, mark = sys.argv[1:]
mark = pathlib.Path(mark)
if what == "die" and not mark.exists():
    mark.write_text("done")
    os.kill(os.getppid(), signal.SIGKILL)
if what == "wait" and not mark.exists():
    mark.write_text(str(os.getppid()))
    time.sleep(3600)
if what == "fail":
    sys.exit("no such luck")
shutil.copy(source, coded)
"""


@pytest.fixture(scope="module")
def clips(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with three clips of 9 frames, 64x48."""
    folder = tmp_path_factory.mktemp("clips")
    y, x = np.mgrid[0:48, 0:64]
    for n, name in enumerate(("one", "two", "three")):
        frames = np.stack([
            np.stack([x * 3 + 5 * t, y * 4 + n * 20, 128 + 60 * np.sin((x + y + 3 * t) / 6)], -1)
            for t in range(9)
        ]).clip(0, 255).astype(np.uint8)  # fmt: skip
        media.write(Video(frames, Fraction(25)), folder / f"{name}.mkv")
    return folder


def adapter(folder: Path, what: str) -> str:
    """A TOML file with the codec `mine`, which does `what`."""
    script, mark = folder / "codec.py", folder / "mark"
    script.write_text(SCRIPT)
    command = f"{sys.executable} {script} {what}"
    path = folder / "adapters.toml"
    path.write_text(
        f'[mine]\nencode = "{command} {{source}} {{coded}} {mark}"\nqualities = [1]\n'
        f'decode = "{sys.executable} {script} copy {{coded}} {{decoded}} {mark}"\n'
    )
    return str(path)


def plan(clips: Path, out: Path, codecs: tuple[str, ...], rates=(0.2, 0.5), **more) -> run.Plan:
    sources = tuple(datasets.clips([str(clips)], 9, None))
    return run.Plan(out, "tests", codecs, sources, rates, METRICS, **more)


def results(out: Path, codec: str) -> dict:
    return json.loads((out / f"results/{run.safe(codec)}__tests.json").read_text())


def test_cells_are_measured_once_and_say_what_they_are(clips: Path, tmp_path: Path) -> None:
    asked = plan(clips, tmp_path, (GAUSS, "vp9"))
    told: list[tuple[int, int]] = []
    assert run.run(asked, 2, lambda _, done, total: told.append((done, total))) == 0
    assert told[0] == (0, 12) and told[-1] == (12, 12)
    own = results(tmp_path, GAUSS)
    assert own["prior"] == "gauss" and own["set"] == "tests"
    assert own["command"] == "gvcc encode CLIP -o FILE --no-audio --preset default --prior gauss " \
        "--gop 5 --frames 9 --bpp RATE"  # fmt: skip
    assert "VP9 frames without the IVF container" in results(tmp_path, "vp9")["size_rule"]
    for cell in own["cells"]:
        assert cell["status"] == "ok" and cell["bytes"] <= cell["rate"] * 9 * 48 * 64 / 8
        assert cell["bits_per_pixel"] == pytest.approx(8 * cell["bytes"] / (9 * 48 * 64))
        assert set(cell["metrics"]) == set(METRICS) and "fid_256" not in cell["not_computed"]
        assert len(cell["profile"]["psnr_db"]) == 9
        shown = media.read(tmp_path / cell["video"])
        assert shown.frames.shape == (9, 48, 64, 3) and shown.fps == 25
        stream = tmp_path / cell["stream"]
        assert stream.suffix == ".gvcc" and stream.stat().st_size == cell["bytes"]
        assert gvcc.decode(stream.read_bytes()).frames.shape == (9, 48, 64, 3)
    by_rate = {(c["clip"], c["rate"]): c["metrics"]["psnr_rgb_db"] for c in own["cells"]}
    assert all(by_rate[n, 0.5] > by_rate[n, 0.2] for n in ("one", "two", "three"))
    setup = json.loads((tmp_path / "setup.json").read_text())
    video = setup["clips"][0].pop("video")
    assert setup["clips"][0] == {"name": "one", "frames": 9, "width": 64, "height": 48,
                                 "fps": "25"}  # fmt: skip
    assert media.read(tmp_path / video).frames.shape == (9, 48, 64, 3)
    table = json.loads((tmp_path / "bd.json").read_text())["psnr_rgb_db"]
    assert table["codecs"] == [GAUSS, "vp9"] and table["pchip"]["rate_percent"][0][0] == 0
    # Again: nothing is made; without one cell, that one.
    files = {p: p.stat().st_mtime_ns for p in (tmp_path / "cells").iterdir()}
    assert len(files) == 12 and run.run(asked, 2) == 0
    gone = min(files)
    gone.unlink()
    assert run.run(asked, 2) == 0 and gone.exists()
    assert all(p.stat().st_mtime_ns == t for p, t in files.items() if p != gone)
    # A cell that is damaged or has lost its files is made again.
    gone.write_text("[1]")
    lost = tmp_path / results(tmp_path, "vp9")["cells"][0]["video"]
    lost.unlink()
    assert run.run(asked, 2) == 0 and lost.exists() and json.loads(gone.read_text())["metrics"]


def test_another_size_in_the_same_folder_has_its_own_clips(clips: Path, tmp_path: Path) -> None:
    asked = plan(clips, tmp_path, ("vp9",), (0.5,))
    small = dataclasses.replace(
        asked, sources=tuple(dataclasses.replace(s, height=32, frames=5) for s in asked.sources)
    )

    def shapes() -> set[tuple[int, ...]]:
        setup = json.loads((tmp_path / "setup.json").read_text())
        videos = [c["video"] for c in (*setup["clips"], *results(tmp_path, "vp9")["cells"])]
        return {media.read(tmp_path / v).frames.shape for v in videos}

    assert run.run(asked, 2) == 0 and shapes() == {(9, 48, 64, 3)}
    assert run.run(small, 2) == 0 and shapes() == {(5, 32, 40, 3)}
    assert run.run(asked, 2) == 0 and shapes() == {(9, 48, 64, 3)}


def test_metrics_that_lacked_weights_are_computed_once_there_are_some(
    clips: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("GVCC_METRICS", str(tmp_path / "weights"))
    monkeypatch.setenv("TORCH_HOME", str(tmp_path / "hub"))
    asked = plan(clips, tmp_path / "out", ("vp9",), (0.5,))
    asked = dataclasses.replace(asked, sources=asked.sources[:1], metrics=("lpips_alex", *METRICS))
    assert run.run(asked, 1) == 0
    (path,) = (tmp_path / "out/cells").glob("*.json")
    before = path.stat().st_mtime_ns
    assert "(alex) needs alexnet" in json.loads(path.read_text())["not_computed"]["lpips_alex"]
    other = dataclasses.replace(asked, metrics=asked.metrics[::-1])
    assert run.run(other, 1) == 0 and path.stat().st_mtime_ns == before
    (tmp_path / "weights").mkdir()
    (tmp_path / "weights/alexnet-owt-7be5be79.pth").write_bytes(b"no weights")
    assert run.run(asked, 1) == 0 and path.stat().st_mtime_ns > before
    assert "(alex) needs alexnet" not in json.loads(path.read_text())["not_computed"]["lpips_alex"]


def test_what_a_cell_depends_on_is_in_its_name(clips: Path) -> None:
    source = Source("one", str(clips / "one.mkv"), 9)
    job = Job(GAUSS, source, (0.2,), METRICS)
    other = [
        Job("vp9", source, (0.2,), METRICS), Job("vp9:1", source, (0.2,), METRICS),
        Job(GAUSS, Source("one", source.path, 5), (0.2,), METRICS),
        Job(GAUSS, Source("one", source.path, 9, 32), (0.2,), METRICS),
        Job(GAUSS, Source("one", str(clips / "two.mkv"), 9), (0.2,), METRICS),
    ]  # fmt: skip
    keys = [job.key(0.2), job.key(0.3), *(j.key(0.2) for j in other)]
    assert len(set(keys)) == len(keys)
    # Not what is measured: for that, nothing need be encoded again.
    assert Job(GAUSS, source, (0.2,), METRICS[:1], stride=2).key(0.2) == job.key(0.2)
    assert dataclasses.replace(job, stride=2).measuring != job.measuring
    job = dataclasses.replace(job, finished=(cells.Finished(0.2, {"a": 1}, b"x", ("tof",)),))
    assert Job.of(json.loads(json.dumps(job.as_dict()))) == job
    raw = Source("r", "r.yuv", 9, None, (16, 16, "yuv420p", "25"))
    assert Job.of(json.loads(json.dumps(Job("vp9", raw, (1.0,), ()).as_dict()))).source == raw


def test_a_codec_that_takes_its_process_with_it_costs_one_cell(clips: Path, tmp_path: Path) -> None:
    asked = plan(clips, tmp_path / "out", ("mine", "vp9"), (20.0,),
                 adapters=adapter(tmp_path, "die"))  # fmt: skip
    assert run.run(asked, 1) == 1
    found = results(tmp_path / "out", "mine")["cells"]
    (bad,) = [c for c in found if c["status"] == "failed"]
    assert bad["error"].startswith("the process ended with -9")
    assert all(c["status"] == "ok" for c in results(tmp_path / "out", "vp9")["cells"])
    assert run.run(asked, 1) == 0  # it is tried again


def test_a_run_that_is_told_to_stop_stops(clips: Path, tmp_path: Path) -> None:
    """And marks nothing as failed: what it was at is made the next time."""
    out = tmp_path / "out"
    command = [*GVCC, "eval", str(clips), "--codecs", "mine", "--rates", "1", "--out", str(out),
               "--adapters", adapter(tmp_path, "wait"), "--workers", "2"]  # fmt: skip
    process = subprocess.Popen(command, stderr=subprocess.PIPE, text=True)
    while not (tmp_path / "mark").exists():
        assert process.poll() is None
        time.sleep(0.05)
    process.send_signal(signal.SIGTERM)
    assert process.wait() == 143
    kept = [json.loads(p.read_text())["status"] for p in (out / "cells").glob("*.json")]
    assert "failed" not in kept


def test_a_clip_or_a_codec_that_fails_is_told_of(clips: Path, tmp_path: Path) -> None:
    (tmp_path / "clips").mkdir()
    for name in ("one.mkv", "two.mkv"):
        (tmp_path / "clips" / name).write_bytes((clips / name).read_bytes())
    (tmp_path / "clips/two.mkv").write_bytes(b"no video")
    asked = plan(tmp_path / "clips", tmp_path / "out", ("mine", "vp9"), (0.5,),
                 adapters=adapter(tmp_path, "fail"))  # fmt: skip
    assert run.run(asked, 2) == 3
    mine = {c["clip"]: c for c in results(tmp_path / "out", "mine")["cells"]}
    assert "ended with 1: no such luck" in mine["one"]["error"]
    assert "two.mkv" in mine["two"]["error"]
    assert {c["clip"]: c["status"] for c in results(tmp_path / "out", "vp9")["cells"]} == {
        "one": "ok", "two": "failed",
    }  # fmt: skip
    # The first codec has failed: the others' clips can be compared all the same.
    setup = json.loads((tmp_path / "out/setup.json").read_text())
    assert (tmp_path / "out" / setup["clips"][0]["video"]).exists()
    assert setup["clips"][1] == {"name": "two"}


def test_fid_is_of_all_clips_together(
    clips: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """With features of our own making in place of the network's."""
    rng, arrays = np.random.default_rng(0), []
    asked = dataclasses.replace(plan(clips, tmp_path, ("vp9",), (0.5,)), metrics=(
        "psnr_rgb_db", "fid_256"))  # fmt: skip

    def features(ref: np.ndarray, out: np.ndarray, device: str) -> tuple[bytes, str]:
        pair = rng.normal(size=(2, 4, 8)).astype(np.float32)
        arrays.append(pair)
        data = BytesIO()
        np.savez(data, *pair)
        return data.getvalue(), ""

    monkeypatch.setattr(cells, "_features", features)
    kept = run._Kept(asked, lambda *_: None)
    for job in asked.jobs():
        for made in cells.run(job):
            kept.keep(job, made)
    assert run.run(asked, 1) == 0
    found = results(tmp_path, "vp9")
    a, b = np.concatenate(arrays, 1)
    expected = inception.distances(a, b)
    assert found["set_metrics"]["0.5"] == pytest.approx(
        {"fid_256": expected[0], "kid_256": expected[1]}
    )
    assert found["notes"][1].startswith(f"FID/256 {expected[0]:.2f}")
    next((tmp_path / "cells").glob("*.npz")).unlink()
    assert run.run(asked, 1) == 0 and len(results(tmp_path, "vp9")["notes"]) == 1


@pytest.mark.parametrize(
    ("codecs", "more", "says"),
    [
        (("x266",), {}, "unknown codec 'x266'.*did you mean 'x265'"),
        (("x265@third",), {}, "unknown codec 'x265@third'"),
        (("x265:fastest",), {}, "presets of x265 are placebo, veryslow"),
        (("gvcc:papr",), {}, "unknown preset 'papr'.*did you mean 'paper'"),
        (("gvcc:default+prior=nana",), {}, "unknown prior"),
        (("gvcc:default+x=1",), {}, "'x=1' is none of"),
        (("gvcc:default+gop=x",), {}, "'x' is no number"),
        (("gvcc:default+reuse=0",), {}, "reuse is 0"),
        (("vp9", "vp9"), {}, "named twice"),
        (("vp9",), {"rates": (0.0,)}, "rates are bits per pixel, between 0 and 24"),
        (("vp9",), {"rates": (0.1, 0.2, 0.1)}, "a rate is named twice"),
        (("vp9",), {"adapters": "/none.toml"}, None),
        (("mine",), {"adapters": "/none.toml"}, "adapters /none.toml: No such file"),
    ],
)
def test_what_cannot_be_run_is_refused_at_once(
    clips: Path, tmp_path: Path, codecs: tuple[str, ...], more: dict, says: str | None
) -> None:
    asked = plan(clips, tmp_path, codecs, **more)
    if says is None:  # an adapter file that nobody asks for
        return asked.check()
    with pytest.raises(ConfigError, match=says):
        asked.check()
    return None


def test_a_ray_that_is_not_there_is_told_of_soon(clips: Path, tmp_path: Path) -> None:
    pytest.importorskip("ray", reason="the extra ray")
    with socket.create_server(("127.0.0.1", 0)) as server:
        port = server.getsockname()[1]
    with pytest.raises(ConfigError, match=f"--ray ray://127.0.0.1:{port}: Connection refused"):
        run.run(plan(clips, tmp_path, ("vp9",)), 1, ray=f"ray://127.0.0.1:{port}")


def test_on_ray_a_worker_that_is_killed_loses_and_doubles_nothing(
    clips: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    pytest.importorskip("ray", reason="the extra ray")
    kept: list[str] = []
    keep = run._Kept.keep

    def counted(self: run._Kept, job: Job, made: cells.Made) -> None:
        kept.append(f"{job.codec} {job.source.name} {made.rate}")
        keep(self, job, made)

    monkeypatch.setattr(run._Kept, "keep", counted)
    mark, killed = tmp_path / "mark", list[int]()

    def kill() -> None:
        while not mark.exists() or not mark.read_text():
            time.sleep(0.05)
        killed.append(int(mark.read_text()))
        os.kill(killed[0], signal.SIGKILL)

    threading.Thread(target=kill, daemon=True).start()
    asked = plan(clips, tmp_path / "out", ("mine", "vp9"), (0.5, 20.0),
                 adapters=adapter(tmp_path, "wait"))  # fmt: skip
    assert run.run(asked, 2, ray="local") == 0
    assert killed and killed[0] != os.getpid()
    assert len(kept) == len(set(kept)) == 12
    cells_of = results(tmp_path / "out", "mine")["cells"]
    assert [c["status"] for c in cells_of] == ["ok"] * 6
    assert (tmp_path / "out" / cells_of[0]["video"]).exists()


def test_the_command_without_a_verb_is_run(run: Run, clips: Path, tmp_path: Path) -> None:
    out = tmp_path / "r"
    done = run("eval", clips / "one.mkv", "--out", out, "--codecs", "vp9,x265", "--rates",
               "0.3,0.6", "--own-size", "--metrics", "psnr_rgb_db")  # fmt: skip
    assert done.code == 0, done.err
    assert done.out == b"" and f"{out}/report.html: 2 codecs, 1 clips, 2 rates" in done.err
    page = (out / "report.html").read_text()
    assert "one" in page and "vp9" in page
    bad = tmp_path / "bad.mp4"
    bad.write_bytes(b"nothing")
    done = run("eval", "run", bad, "--out", tmp_path / "s", "--codecs", "vp9", "--rates", "0.3")
    assert done.code == 1 and "cells that failed: 1: " in done.err and "bad.mp4" in done.err
    done = run("eval", clips / "one.mkv", "--out", bad, "--codecs", "vp9", "--rates", "0.3")
    assert done.code == 2 and "bad.mp4: File exists" in done.err
    done = run("eval", clips / "one.mkv", "--out", out, "--codecs", "vp9", "--rates", "0.3",
               "--own-size", "--metrics", "psnr_rgb_db,ms_ssim")  # fmt: skip
    assert done.code == 0 and "not computed: ms_ssim: not defined" in done.err
    assert (out / "report.html").stat().st_mode == (out / "setup.json").stat().st_mode
    for wrong in (("eval", "run"), ("eval", "none.mp4"), ("eval", clips, "--preset", "slow"),
                  ("eval", clips, "--rates", "a"), ("eval", clips, "--metrics", "psnt"),
                  ("eval", clips, "--own-size", "--height", "64"),
                  ("eval", "--dataset", "uvg", "--data", tmp_path)):  # fmt: skip
        done = run(*wrong, "--out", tmp_path / "t")
        assert done.code == 2 and len(done.err.strip().splitlines()) == 1, (wrong, done.err)
    assert not (tmp_path / "t").exists()


def test_bd_rates_of_a_run_turn_metrics_that_are_better_when_lower() -> None:
    cell = {"clip": "a", "bits_per_pixel": 0.1, "metrics": {"dists": 0.2, "vmaf": 60.0}}
    assert bd.curves([cell], "dists") == {"a": [(0.1, -0.2)]}
    assert bd.curves([cell], "vmaf") == {"a": [(0.1, 60.0)]}
    assert bd.curves([cell], "lpips_alex") == {}


def test_viewers_choose_on_a_page_and_their_answers_are_counted(
    run: Run, clips: Path, tmp_path: Path
) -> None:
    out, page = tmp_path / "r", tmp_path / "ab.html"
    done = run("eval", clips / "one.mkv", "--out", out, "--codecs", "vp9,x264", "--rates", "0.5",
               "--own-size", "--metrics", "psnr_rgb_db")  # fmt: skip
    assert done.code == 0, done.err
    assert run("eval", "ab", out, "--out", page, "--pairs", "vp9").code == 2
    done = run("eval", "--ab", out, "--out", page, "--pairs", "vp9/x264")
    assert "ab.html: 1 trials; its key: " in done.err
    assert done.code == 0 and page.exists() and "vp9" not in page.read_text()
    key = json.loads((tmp_path / "ab-key.json").read_text())
    ((trial, sides),) = key["trials"].items()
    answers = tmp_path / "a.json"
    answers.write_text(json.dumps({
        "format": "gvcc-ab-answers/1", "experiment": key["experiment"],
        "participant": "p", "started": "2026-01-01T00:00:00Z", "answers": [
            {"trial": trial, "choice": 1, "ms": 900}],
    }))  # fmt: skip
    done = run("eval", "ab-report", answers, "--key", tmp_path / "ab-key.json")
    assert done.code == 0, done.err
    assert "1 participants, 1 answers, 0 repeated ones left out" in done.err
    won = int(sides["first"] == "vp9")
    assert f"{100 * won}%" in done.out.decode() and "vp9 over x264" in done.out.decode()
    done = run("eval", "ab-report", answers, "--key", tmp_path / "ab-key.json", "--json")
    assert json.loads(done.out)["pairs"][0]["wins"] == [won, 1 - won]
