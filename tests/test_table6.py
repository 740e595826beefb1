"""GVCC's Table 6: the published count, reading as published, and the command on a tiny model."""

from __future__ import annotations

import json
import os
from dataclasses import replace
from fractions import Fraction
from pathlib import Path

import numpy as np
import pytest
import tiny_models
import tiny_prior
from cli_runner import Run

from gvcc import codec
from gvcc.errors import ConfigError, MediaError
from gvcc.eval import published, table6
from gvcc.format import parser
from gvcc.records import Video
from gvcc.search.config import EncodeConfig

pytestmark = pytest.mark.usefixtures("one_thread")


@pytest.fixture(scope="module")
def uvg(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder like UVG's, with one sequence: a grey ramp that moves, chroma near neutral."""
    folder = tmp_path_factory.mktemp("uvg")
    y, x = np.mgrid[0:1080, 0:1920]
    with (folder / "Beauty_1920x1080_120fps_420_8bit_YUV.yuv").open("wb") as f:
        for t in range(33):
            f.write((16 + (x + 8 * t + y // 2) % 220).astype(np.uint8).tobytes())
            f.write(np.full((2, 540, 960), 120 + t % 8, np.uint8).tobytes())
    return folder


@pytest.fixture(autouse=True)
def cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("GVCC_CACHE", str(tmp_path / "cache"))


# GVCC's Table 6: kbit/s of M atoms of K.
PUBLISHED = {
    (8, 256): 5.3, (16, 512): 11.9, (16, 1024): 13.1, (32, 2048): 28.5, (32, 4096): 30.9,
    (64, 4096): 61.7, (64, 16384): 71.2, (128, 16384): 142.4, (128, 65536): 161.4,
    (256, 16384): 284.9, (256, 65536): 322.8,
}  # fmt: skip


def test_the_count_of_our_files_is_the_published_rate() -> None:
    """33 frames at 16 Hz, to the printed digit: of a file with 8 atoms of 256, and of one like it
    for each row."""
    pixels = np.random.default_rng(1).integers(0, 256, (33, 16, 32, 3), np.uint8)
    asked = EncodeConfig("paper", "tiny", "t2v", atoms=8, codebook=256, gop=33)
    stream = parser.parse(codec.encode(Video(pixels, Fraction(16)), asked, tiny_prior.load()).data)
    (record,) = stream.gops
    assert published.bits(stream.header, record) == 11016
    found = {}
    for m, k in PUBLISHED:
        header = replace(stream.header, codebook_size=k)
        bits = published.bits(header, replace(record, atoms=record.atoms // 8 * m))
        found[m, k] = round(bits * 16 / 33 / 1000, 1)
    assert found == PUBLISHED == {(r.atoms, r.codebook): r.kbps for r in table6.ROWS}


def test_grey_levels_of_the_published_reading_are_those_of_the_file(uvg: Path) -> None:
    path = table6.find(uvg, "Beauty")
    raw = np.fromfile(path, np.uint8, 1080 * 1920).reshape(1080, 1920)
    got = table6.read(path, 1, (1920, 1080))[0]
    assert got.shape == (1080, 1920, 3)
    # Cb and Cr 120: R = Y - 1.14 * 8, B = Y - 2.03 * 8; no stretching of the range.
    assert np.abs(got[..., 0].astype(int) - np.clip(raw - 9.12, 0, 255)).max() <= 1.5
    assert np.abs(got[..., 2].astype(int) - np.clip(raw - 16.26, 0, 255)).max() <= 1.5
    true = table6.read(path, 1, (1920, 1080), true_colours=True)[0].astype(int)
    assert true[raw == 235][:, 1].min() == 255 and true[raw == 16][:, 0].max() == 0


def test_sequences_and_rows_that_are_not_there(uvg: Path) -> None:
    with pytest.raises(MediaError, match="no Jockey.*ultravideo"):
        table6.find(uvg, "Jockey")
    with pytest.raises(MediaError, match="has 33 frames, 34 are needed"):
        table6.read(table6.find(uvg, "Beauty"), 34, (16, 16))
    with pytest.raises(ConfigError, match="'9:256' is no row of the table; it has 8:256, "):
        table6.chosen("8:256,9:256")
    assert [r.kbps for r in table6.chosen("64:16384,8:256")] == [71.2, 5.3]


def test_a_run_that_is_stopped_while_it_writes_loses_nothing(
    uvg: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    row = {"psnr_db": 30.0, "frames": 33, "width": 16, "height": 16, "published_bits": 1,
           "bytes": 9}  # fmt: skip
    monkeypatch.setattr(table6, "cell", lambda *_: dict(row))
    out, prior = tmp_path / "t.json", tiny_prior.load()

    def table(rows: str) -> None:
        table6.run(uvg, out, prior, "tiny", rows=table6.chosen(rows), sequences=("Beauty",),
                   size=(16, 16), gops=1)  # fmt: skip

    table("8:256")
    before = out.read_bytes()

    def stopped(*_: object) -> None:
        raise KeyboardInterrupt

    with monkeypatch.context() as m, pytest.raises(KeyboardInterrupt):
        m.setattr(os, "replace", stopped)  # all has been written, and has not got its name
        table("8:256,16:512")
    assert out.read_bytes() == before and list(tmp_path.glob("*")) == [out]
    table("8:256,16:512")
    assert list(json.loads(out.read_text())["cells"]) == ["Beauty 8:256", "Beauty 16:512"]
    for text in ("{", "[1]", '{"cells": 3}'):
        out.write_text(text)
        with pytest.raises(ConfigError, match="no results of Table 6"):
            table("8:256")


def test_the_command_writes_the_table_and_goes_on(
    run: Run, uvg: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    model = tiny_models.make("wan2.1-t2v-1.3b", tmp_path)
    out = tmp_path / "t.json"
    command = (
        "eval", "table6", "--uvg", uvg, "--out", out, "--prior", f"wan2.1-t2v-1.3b:{model}",
        "--sequences", "Beauty", "--size", "48x32", "--gops", "1", "--json",
    )  # fmt: skip
    done = run(*command, "--rows", "8:256")
    assert done.code == 0, done.err
    (line,) = json.loads(done.out)
    assert line["kbps"] == pytest.approx(5.341, abs=1e-3)
    assert line["published_kbps"] == 5.3 and line["published_psnr_db"] == 22.5
    cell = json.loads(out.read_text())["cells"]["Beauty 8:256"]
    assert cell["published_bits_per_gop"] == cell["published_bits"] == 11016
    assert 8 * cell["bytes"] < cell["published_bits"] and 0 < cell["psnr_db"] < 60
    # The second time only what is missing is made.
    made = []
    real = table6.cell
    monkeypatch.setattr(table6, "cell", lambda *a, **k: made.append(a[1]) or real(*a, **k))
    done = run(*command[:-1], "--rows", "8:256,16:512")
    assert done.code == 0 and [r.atoms for r in made] == [16]
    assert "22.50" in done.out.decode() and "11.9" in done.out.decode()
    refused = run(*command, "--rows", "8:256", "--true-colours")
    assert refused.code == 2 and "holds results of another setup" in refused.err
