"""The ready adapters, against checkouts with the layout and the options of their authors' test
scripts, which code nothing but write what those write, where those write it."""

from __future__ import annotations

import json
import os
import sys
from collections.abc import Callable
from fractions import Fraction
from pathlib import Path

import numpy as np
import pytest
from typer.testing import CliRunner

from gvcc.cli import app
from gvcc.errors import ConfigError, MediaError
from gvcc.eval import cells, checkout, external
from gvcc.eval.cells import Job, Source
from gvcc.records import Video

T, H, W = 5, 48, 64
# What the three scripts do with their options, their configuration and their folders; `how` makes
# one misbehave. Streams are the frames without their lowest bits.
SCRIPT = """
import argparse, json, os, pathlib, sys, zlib
import numpy as np
from PIL import Image
how, pngs, names = HOW, PNGS, NAMES
p = argparse.ArgumentParser(allow_abbrev=False)
for name in names:
    p.add_argument(*name)
a = vars(p.parse_args())
assert pathlib.Path("src/models/video_model.py").exists(), "not in the checkout"
pathlib.Path("log.json").write_text(json.dumps(a))
q = int(a.get("qp_i") or a["q_indexes_i"])
config = json.load(open(a["test_config"]))
out = {}
for ds, of in config["test_classes"].items():
    folder = os.path.join(a["stream_path"], ds)
    if not pngs:
        os.makedirs(folder, exist_ok=True)
    for seq, about in of["sequences"].items():
        assert about["intra_period"] == (about["frames"] if pngs else -1)
        source = pathlib.Path(config["root_path"], of["base_path"], seq)
        n, h, w = about["frames"], about["height"], about["width"]
        if pngs:
            raw = b"".join(np.asarray(Image.open(source / f"im{i:05d}.png")).tobytes()
                           for i in range(1, n + 1))
        else:
            raw = source.read_bytes()
        coarse = (np.frombuffer(raw, np.uint8) >> (7 - q // 9) << (7 - q // 9)).tobytes()
        stem = f"{folder}/{seq}_q{q}"
        data = zlib.compress(coarse)
        if how == "fails":
            sys.exit("CUDA is not there")
        if how != "no stream" and not pngs:
            open(stem + ".bin", "wb").write(data)
        if how == "two streams":
            open(stem + "b.bin", "wb").write(data)
        if pngs:
            os.makedirs(stem)
            for i, f in enumerate(np.frombuffer(coarse, np.uint8).reshape(n, h, w, 3), 1):
                if how != "no frames":
                    Image.fromarray(f).save(f"{stem}/im{i:05d}.png")
        elif how != "no frames":
            open((stem + ".yuv").replace(".yuv", "_7kbps.yuv"), "wb").write(coarse)
        bpp = 8 * len(data) / (n * h * w)
        out.setdefault(ds, {})[seq] = {"000": {"ave_all_frame_bpp": bpp, "q": q}}
at = pathlib.Path(a["output_path"])
at.parent.mkdir(exist_ok=True)
if how != "no results":
    at.write_text(json.dumps(out))
"""
_COMMON = ["--model_path_i", "--model_path_p", "--rate_num", "--test_config", "--cuda",
           "--output_path", "--save_decoded_frame", "--stream_path"]  # fmt: skip
OPTIONS = {
    "dcvc-rt": [*_COMMON, "--qp_i", "--qp_p", "-w", "--write_stream", "--force_zero_thres",
                "--force_intra_period", "--reset_interval", "--force_frame_num",
                "--check_existing"],
    "dcvc-fm": [*_COMMON, "--q_indexes_i", "--q_indexes_p", "--worker", "--write_stream",
                "--force_intra_period"],
    "glc-video": [*_COMMON, "--q_indexes_i", "--q_indexes_p", "-w", "--cuda_idx"],
}  # fmt: skip
Made = Callable[..., Path]


@pytest.fixture
def checkout_of(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Made:
    def make(name: str, how: str = "") -> Path:
        home = tmp_path / name
        (home / "src/models").mkdir(parents=True)
        (home / "src/models/video_model.py").touch()
        script = SCRIPT.replace("HOW", repr(how)).replace("PNGS", repr(name == "glc-video"))
        script = script.replace("NAMES", repr([[n] for n in OPTIONS[name]]))
        (home / "test_video.py").write_text(script)
        monkeypatch.setenv(external.ready()[name].home, str(home))
        monkeypatch.setenv("GVCC_CHECKOUT_PYTHON", sys.executable)
        return home

    return make


def clip() -> Video:
    y, x = np.mgrid[0:H, 0:W]
    grey = ((x * 3 + y) % 200 + 20).astype(np.uint8)
    frames = np.repeat(np.stack([np.roll(grey, t, 1) for t in range(T)])[..., None], 3, 3)
    return Video(frames, Fraction(25))


@pytest.mark.parametrize("name", list(OPTIONS))
def test_a_fake_checkout_is_measured(checkout_of: Made, tmp_path: Path, name: str):
    home = checkout_of(name)
    coded = external.Coded(external.find(name, None), clip())
    low, high = coded(1e-6), coded(100.0)
    assert (low.about["quality"], high.about["quality"]) == (0, 63) and low.size < high.size
    exact = high.decode()
    error = np.abs(exact.astype(int) - clip().frames.astype(int))
    assert error.max() <= (0 if name == "glc-video" else 2)
    assert np.abs(low.decode().astype(int) - clip().frames.astype(int)).mean() > error.mean() + 5
    assert ("counts them" in low.about["size_rule"]) == (name == "glc-video")
    # A stream that only its own run can decode must not be taken up again.
    assert low.stream == high.stream == b""
    options = json.loads((home / "log.json").read_text())
    assert options["rate_num"] == "1" and options["save_decoded_frame"] == "1"
    assert set(options.values()).isdisjoint({"@config", "@output", "@streams"})


def test_a_cell_names_it(checkout_of: Made, tmp_path: Path):
    checkout_of("dcvc-rt")
    path = tmp_path / "c.yuv"
    path.write_bytes(np.tile(np.arange(16, 200, dtype=np.uint8), T * H * W)[: T * H * W * 3 // 2])
    source = Source("c", str(path), T, None, (W, H, "yuv420p", "25"))
    (made,) = cells.run(Job("dcvc-rt", source, (1.0,), ("psnr_rgb_db",)))
    assert made.cell["status"] == "ok" and made.cell["metrics"]["psnr_rgb_db"] > 20
    assert "test_video.py" in cells.command(Job("dcvc-rt", source, (1.0,), ()))


@pytest.mark.parametrize(
    ("how", "says"),
    [("fails", "test_video.py ended with 1"), ("two streams", "left 2 streams"),
     ("no frames", "0 decoded"), ("no stream", "left 0 streams")],
)  # fmt: skip
def test_what_a_script_may_not_leave(checkout_of: Made, how: str, says: str):
    # Without its stream the script's count must not be taken for bytes of a file.
    checkout_of("dcvc-rt", how)
    with pytest.raises(MediaError, match=says):
        external.Coded(external.find("dcvc-rt", None), clip())(1.0)


def test_a_count_needs_results(checkout_of: Made):
    checkout_of("glc-video", "no results")
    with pytest.raises(MediaError, match="no results file"):
        external.Coded(external.find("glc-video", None), clip())(1.0)


def test_a_missing_checkout_is_named(monkeypatch: pytest.MonkeyPatch, tmp_path: Path):
    for name, adapter in external.ready().items():
        monkeypatch.delenv(adapter.home, raising=False)
        with pytest.raises(ConfigError, match=rf"{name}: \${adapter.home} is not set; it names"):
            cells.check(name, None)
        monkeypatch.setenv(adapter.home, str(tmp_path / "none"))
        with pytest.raises(ConfigError, match="no folder"):
            cells.check(name, None)
        monkeypatch.setenv(adapter.home, str(tmp_path))
        cells.check(name, None)


def test_a_file_of_the_users_counts_more(tmp_path: Path):
    path = tmp_path / "a.toml"
    path.write_text('[dcvc-rt]\nencode = "true"\ndecode = "true"\nqualities = [1]\n')
    assert external.find("dcvc-rt", str(path)).encode == "true"
    assert set(external.known(str(path))) == set(OPTIONS)


def test_the_decoder_takes_what_was_kept(tmp_path: Path):
    coded = tmp_path / "coded0"
    (tmp_path / f"coded0{checkout.KEPT}").write_bytes(b"frames")
    checkout.main(["--kept", str(coded), str(tmp_path / "out")])
    assert (tmp_path / "out").read_bytes() == b"frames"
    with pytest.raises(SystemExit, match="FileNotFoundError"):
        checkout.main(["--kept", str(tmp_path / "other"), os.devnull])


def test_the_list(checkout_of: Made):
    home = checkout_of("glc-video")
    text = CliRunner().invoke(app, ["eval", "adapters"]).stdout
    assert f"glc-video: found at {home}" in text and "dcvc-rt: not found: set $GVCC_DCVC_RT" in text
    rows = json.loads(CliRunner().invoke(app, ["eval", "adapters", "--json"]).stdout)
    assert {r["name"]: r["found"] for r in rows} == {
        "dcvc-fm": False, "dcvc-rt": False, "glc-video": True,
    }  # fmt: skip
