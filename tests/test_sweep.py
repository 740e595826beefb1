"""The study of GVCC's parameters, on a prior made of formulas and on `gauss`."""

from __future__ import annotations

import dataclasses
import json
from fractions import Fraction
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import tiny_prior
from cli_runner import Run, frames

from gvcc import codec
from gvcc.errors import ConfigError
from gvcc.eval import datasets, identity, sweep, table6
from gvcc.eval.cells import Source
from gvcc.eval.sweep import PUBLISHED, Base
from gvcc.metrics import metrics
from gvcc.pictures import media
from gvcc.priors.gauss import GaussPrior
from gvcc.records import Video

pytestmark = pytest.mark.usefixtures("one_thread")

SMALL = Base(atoms=4, codebook=64, gop=9)
# What is swept in place of PUBLISHED: two values each, the second unpublished.
TWO: dict[str, dict[float, float | None]] = {
    "M": {2: 31.0, 8: None}, "K": {16: 31.0, 64: None}, "T": {6: 19.0, 9: None},
    "g_scale": {2.0: 31.6, 8.0: None}, "GOP": {5: 31.7, 9: None},
}  # fmt: skip
ROWS = (table6.Row(2, 16, 22.5, 5.3), table6.Row(4, 64, 24.0, 11.9))


@pytest.fixture
def small(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sweep, "PUBLISHED", TWO)
    monkeypatch.setattr(table6, "ROWS", ROWS)


@pytest.fixture(scope="module")
def prior() -> GaussPrior:
    return tiny_prior.load()


@pytest.fixture(scope="module")
def sources(tmp_path_factory: pytest.TempPathFactory) -> list[Source]:
    """Two clips of 9 frames, 48x32."""
    folder = tmp_path_factory.mktemp("clips")
    for name, shown in (("one", frames()), ("two", frames()[:, ::-1])):
        media.write(Video(shown, Fraction(25)), folder / f"{name}.mkv")
    return datasets.clips([str(folder)], 9, None)


@pytest.fixture
def made(monkeypatch: pytest.MonkeyPatch) -> list[Any]:
    """The configurations of all encodes that are made."""
    seen: list[Any] = []
    real = codec.encode

    def encode(video: Video, config: Any, prior: Any) -> Any:
        out = real(video, config, prior)
        seen.append(config)
        return out

    monkeypatch.setattr(codec, "encode", encode)
    return seen


def test_published_points_are_those_of_the_paper() -> None:
    """published.md 2.4: Beauty, 720p, one at a time around M 64, K 16384, T 20, g 3, GOP 33."""
    base = 31.68
    expected = {
        "M": {64: base},
        "K": {1024: 31.04, 16384: base, 65536: base + 0.23},
        "T": {5: 19.3, 20: base, 30: base + 0.5},
        "g_scale": {2: 31.64, 3: base, 5: 29.3, 8: 22.9},
        "GOP": {33: base, 49: base + 0.27},
    }
    assert list(PUBLISHED) == list(expected)
    for name, points in expected.items():
        # "M: 16 -> 64 +1.2 dB" is a point, too, if one likes.
        found = {v: p for v, p in PUBLISHED[name].items()
                 if p is not None and (name, v) != ("M", 16)}  # fmt: skip
        assert found == pytest.approx(points), name
    assert PUBLISHED["M"][16] in (None, pytest.approx(base - 1.2))


def test_every_study_has_its_encodes() -> None:
    base = Base()
    assert (base.atoms, base.codebook, base.gop) == (16, 1024, 17)
    asked = sweep.cells(sweep.NAMES, base)
    assert sweep.NAMES == ("M", "K", "T", "g_scale", "GOP", "rd", "rd-flf2v")
    by: dict[str, list[Any]] = {}
    for name, value, given in asked:
        by.setdefault(name, []).append((value, given))
    assert [g for _, g in by["M"]] == [{"atoms": n} for n in (4, 8, 16, 32, 64, 128, 256)]
    assert [g for _, g in by["g_scale"]] == [{"g_scale": n} for n in (1.0, 2.0, 3.0, 5.0, 8.0)]
    texts = ("g_scale", "mode", "still_bpp")
    assert {type(v) for _, _, g in asked for k, v in g.items() if k not in texts} == {int}
    # FLF2V's own run couples the boundaries' quality to M and K (published.md 1.8).
    boundaries = [g["still_bpp"] for _, g in by["rd-flf2v"]]
    assert boundaries == sorted(boundaries) and len(set(boundaries)) == 6 and len(boundaries) == 11
    assert by["rd-flf2v"][6][1] == {
        "atoms": 64, "codebook": 16384, "mode": "flf2v", "still_bpp": 0.198,
    }  # fmt: skip
    # Fig. 5; each row its own value, or one would be taken for another.
    rows = [(g["atoms"], g["codebook"]) for _, g in by["rd"]]
    assert rows == [(r.atoms, r.codebook) for r in table6.ROWS] and len(rows) == 11
    for name, found in by.items():
        assert len({v for v, _ in found}) == len(found), name
    assert [v for v, _ in by["K"]] == [256, 1024, 4096, 16384, 65536]
    # More atoms than the codebook has cannot be.
    assert [v for _, v, _ in sweep.cells(["M"], Base(codebook=16))] == [4, 8, 16]
    with pytest.raises(ConfigError, match="unknown study 'g-scale'.*did you mean 'g_scale'"):
        sweep.cells(["M", "g-scale"], base)


def test_a_whole_sweep(
    small: None, sources: list[Source], prior: GaussPrior, made: list[Any], tmp_path: Path
) -> None:
    told: list[tuple[str, int, int]] = []
    names = ["rd", "GOP", "g_scale", "T", "K", "M"]  # any order
    rows = sweep.run(sources, names, prior, tmp_path, SMALL, lambda *t: told.append(t))
    assert len(rows) == len(made) == 2 * 12
    assert told[0] == ("rd 32, one", 0, 24) and told[-2] == ("M 8, two", 23, 24)
    assert told[-1] == ("plots", 1, 1)
    kept = json.loads((tmp_path / "sweep.json").read_text())
    assert kept["rows"] == rows and kept["setup"] == {
        "prior": "tiny", "weights": prior.spec.digest.hex(), "base": dataclasses.asdict(SMALL),
    }  # fmt: skip
    fields = {"M": "atoms", "K": "codebook", "T": "steps", "g_scale": "g_scale", "GOP": "gop"}
    usual = {"atoms": 4, "codebook": 64, "gop": 9}
    for row, config in zip(rows, made, strict=True):
        wanted = usual | {fields[row["study"]]: row["value"]} if row["study"] != "rd" else usual | {
            k: row[k] for k in ("atoms", "codebook")}  # fmt: skip
        assert {k: getattr(config, k) for k in wanted} == wanted
        assert (config.preset, config.mode, config.prior) == ("paper", "t2v", "tiny")
        assert row["bits_per_pixel"] == 8 * row["bytes"] / (9 * 32 * 48)
        assert 5 < row["psnr_db"] < 60 and row["encode_s"] > 0 and row["seed"] == config.seed == 42
    # The first encode, once more by hand.
    again = codec.encode(sources[0].read(), made[0], prior)
    assert rows[0]["bytes"] == len(again.data) and rows[0]["clip"] == "one"
    assert rows[0]["psnr_db"] == metrics.psnr(sources[0].read().frames, again.frames)
    by = {(r["study"], r["value"], r["clip"]): r for r in rows}
    # The published count: M (log2 K + 1) bits at each coded step of each of 3 latent frames.
    rate = {v: by["K", v, "one"]["published_bits_per_pixel"] for v in (16, 64)}
    assert rate[64] / rate[16] == pytest.approx((6 + 1) / (4 + 1))
    atoms = {v: by["M", v, "one"]["published_bits_per_pixel"] for v in (2, 8)}
    assert atoms[8] == pytest.approx(4 * atoms[2])
    assert rate[64] * 9 * 32 * 48 % (3 * 4 * 7) == 0
    assert by["M", 8, "one"]["psnr_db"] > by["M", 2, "one"]["psnr_db"]
    for name in names:
        svg = (tmp_path / f"sweep-{name}.svg").read_text()
        png = (tmp_path / f"sweep-{name}.png").read_bytes()
        assert svg.startswith("<?xml") and "</svg>" in svg and png[:8] == b"\x89PNG\r\n\x1a\n"
    # Once more: nothing is made.
    made.clear()
    assert sweep.run(sources, names, prior, tmp_path, SMALL) == rows and not made


def test_boundaries_are_in_the_rate_of_flf2v(
    sources: list[Source], prior: GaussPrior, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(sweep, "FLF2V", ((2, 16, 1), (2, 16, 6)))
    few, many = sweep.run(sources[:1], ["rd-flf2v"], prior, tmp_path, SMALL)
    # The same atoms: what is more is the stills.
    more = (many["bytes"] - few["bytes"]) * 8 / (9 * 32 * 48)
    rates = [r["published_bits_per_pixel"] for r in (few, many)]
    assert rates[1] - rates[0] == pytest.approx(more, rel=0.02) and more > 0
    assert (tmp_path / "sweep-rd-flf2v.svg").exists()


def test_it_goes_on_where_it_was_broken_off(
    small: None, sources: list[Source], prior: GaussPrior, made: list[Any], tmp_path: Path,
) -> None:  # fmt: skip
    def broken(name: str, done: int, total: int) -> None:
        if done == 3:
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        sweep.run(sources, ["M", "K"], prior, tmp_path, SMALL, broken)
    before = json.loads((tmp_path / "sweep.json").read_text())["rows"]
    assert [(r["study"], r["value"]) for r in before] == [("M", 2), ("M", 8), ("K", 16)]
    assert len(made) == 3 and not list(tmp_path.glob("*.png"))
    rows = sweep.run(sources, ["M", "K"], prior, tmp_path, SMALL)
    assert rows[:3] == before and len(rows) == 8 and len(made) == 8
    assert len({(r["study"], r["value"], r["clip"]) for r in rows}) == 8
    # Other weights or another base must not take the place of what is there.
    other = tiny_prior.load()
    other.spec = dataclasses.replace(other.spec, digest=bytes(8))
    made.clear()
    for model, base in ((other, SMALL), (prior, dataclasses.replace(SMALL, gop=5))):
        with pytest.raises(ConfigError, match="is of another prior or base; give another --out"):
            sweep.run(sources[:1], ["M"], model, tmp_path, base)
    assert not made and len(json.loads((tmp_path / "sweep.json").read_text())["rows"]) == 8
    for text, says in (("{", "no JSON"), ("[1]", "no results of a sweep")):
        (tmp_path / "sweep.json").write_text(text)
        with pytest.raises(ConfigError, match=says):
            sweep.run(sources[:1], ["M"], prior, tmp_path, SMALL)


def test_rows_that_other_code_has_made_are_made_anew(
    small: None, sources: list[Source], prior: GaussPrior, made: list[Any], tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:  # fmt: skip
    def rows(names: list[str]) -> list[dict[str, Any]]:
        return sweep.run(sources[:1], names, prior, tmp_path, SMALL)

    before = rows(["M", "K"])
    assert rows(["M", "K"]) == before and len(made) == 4
    monkeypatch.setattr(identity, "code", lambda *_, **__: "another version")
    after = rows(["M"])
    assert len(made) == 6 and {r["code"] for r in after} & {r["code"] for r in before} == set()
    # The new rows have taken the place of the old; those that nobody asked for stay what they are.
    kept = json.loads((tmp_path / "sweep.json").read_text())["rows"]
    assert sorted(kept, key=str) == sorted([*before[2:], *after], key=str)
    assert rows(["M"]) == after and len(made) == 6


def test_seeds_are_encodes_of_their_own_and_bars(
    small: None, sources: list[Source], prior: GaussPrior, made: list[Any], tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:  # fmt: skip
    rows = sweep.run(sources[:1], ["M"], prior, tmp_path, SMALL, seeds=3)
    assert [(r["value"], r["seed"]) for r in rows] == [
        (v, s) for s in (42, 43, 44) for v in (2, 8)
    ]  # fmt: skip
    assert len({r["psnr_db"] for r in rows}) == 6
    assert sweep.run(sources[:1], ["M"], prior, tmp_path, SMALL, seeds=3) == rows
    assert len(made) == 6  # nothing was made again
    of = [r["psnr_db"] for r in rows if r["value"] == 8]
    assert sweep._spread(rows, 8) == pytest.approx(np.std(of, ddof=1))
    assert sweep._spread(rows[:2], 8) == 0


def test_the_base_point_is_asked_for(sources: list[Source], run: Run, tmp_path: Path) -> None:
    clip = str(sources[0].path)
    args = ("--studies", "T", "--prior", "gauss", "--frames", "5", "--height", "16", "-M", "2",
            "-K", "16", "--gop", "5", "--g-scale", "2", "--out", str(tmp_path / "s"))  # fmt: skip
    assert run("eval", "sweep", clip, *args).code == 0
    kept = json.loads((tmp_path / "s/sweep.json").read_text())
    assert kept["setup"]["base"] == {
        "atoms": 2, "codebook": 16, "gop": 5, "steps": 20, "g_scale": 2.0,
    }  # fmt: skip
    assert kept["rows"][0]["lpips_alex"] is None and kept["rows"][0]["lpips_missing"]
    assert len(kept["rows"]) == len(PUBLISHED["T"]) and kept["rows"][0]["bytes"] < 2000
    done = run("eval", "sweep", clip, *args[:-1], str(tmp_path / "t"), "--g-scale", "300")
    assert done.code == 2 and "g_scale is 300" in done.err


def test_gops_longer_than_a_clip_are_left_out(
    small: None, sources: list[Source], prior: GaussPrior, made: list[Any], tmp_path: Path
) -> None:
    """Two GOP lengths above the clip's would be one and the same."""
    short = [sources[0], dataclasses.replace(sources[1], frames=5)]
    rows = sweep.run(short, ["GOP"], prior, tmp_path, SMALL)
    assert [(r["value"], r["clip"]) for r in rows] == [(5, "one"), (5, "two")]
    one = [dataclasses.replace(sources[0], frames=1)]
    assert sweep.run(one, ["GOP"], prior, tmp_path / "one", SMALL) == []
    assert not list((tmp_path / "one").glob("*"))


def test_only_what_is_asked_for_is_in_the_means(
    small: None, sources: list[Source], prior: GaussPrior, made: list[Any], tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:  # fmt: skip
    """Rows of other clips, sizes and studies stay in the file and out of the pictures."""
    plotted: list[Any] = []
    monkeypatch.setattr(sweep, "plot", lambda rows, *_: plotted.append(rows))
    taller = [dataclasses.replace(s, height=16) for s in sources[:1]]
    sweep.run(taller, ["M", "T"], prior, tmp_path, SMALL)
    rows = sweep.run(sources[:1], ["M"], prior, tmp_path, SMALL)
    assert len(made) == 6
    assert {(r["study"], r["source"]) for r in rows} == {("M", sources[0].identity)}
    assert plotted[1] == rows and len(rows) == 2
    assert len(json.loads((tmp_path / "sweep.json").read_text())["rows"]) == 6


def test_the_pictures_have_the_means_and_the_published_points(
    small: None, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from matplotlib import pyplot

    seen: list[Any] = []
    monkeypatch.setattr(pyplot, "close", seen.append)
    rows = [
        {"study": s, "value": v, "psnr_db": p, "published_bits_per_pixel": b}
        for s, v, p, b in (("M", 8, 24.0, 0.2), ("M", 8, 28.0, 0.4), ("M", 2, 21.0, 0.1),
                           ("rd", 32.0, 20.0, 0.1), ("rd", 32.0, 22.0, 0.3))
    ]  # fmt: skip
    sweep.plot(rows, ["M", "rd"], "nana", tmp_path)
    points = [
        [np.array(line.get_xydata()) for axes in figure.axes for line in axes.get_lines()]
        for figure in seen
    ]
    assert np.allclose(points[0][0], [(2, 21), (8, 26)])
    assert np.allclose(points[0][1], [(2, 31)])
    assert np.allclose(points[1][0], [(0.2, 21)])
    pixels = 33 * 480 * 848
    bits = [17 * 9 * 2 * 5, 17 * 9 * 4 * 7]
    expected = zip([b / pixels for b in bits], (22.5, 24.0), strict=True)
    assert np.allclose(points[1][1], list(expected))
    words = [t.get_text() for t in seen[0].axes[0].get_legend().get_texts()]
    assert words == ["nana, ours", "published: Wan2.1 1.3B, other clips"]
    for figure in seen:
        figure.clear()


def test_the_command(
    run: Run, small: None, sources: list[Source], made: list[Any], tmp_path: Path,
) -> None:  # fmt: skip
    out, clip = tmp_path / "s", sources[0].path
    command = ("eval", "sweep", clip, "--out", out, "--prior", "gauss", "--frames", "5",
               "--height", "32", "--studies")  # fmt: skip
    for wrong, says in (
        ("M,X", "unknown study 'X'"),
        ("gscale", "did you mean 'g_scale'"),
        ("", "study ''"),
    ):
        done = run(*command, wrong)
        assert done.code == 2 and says in done.err and not out.exists()
    done = run("eval", "sweep", tmp_path / "none.mp4", "--out", out)
    assert done.code == 2 and "no such file" in done.err
    done = run(*command, "T,GOP")
    assert done.code == 0 and f"{out}: 3 encodes, plots of T, GOP" in done.err, done.err
    assert len(made) == 3 and {c.prior for c in made} == {"gauss"}
    assert {p.name for p in out.iterdir()} == {
        "sweep.json", *(f"sweep-{n}.{kind}" for n in ("T", "GOP") for kind in ("png", "svg")),
    }  # fmt: skip
    row = json.loads((out / "sweep.json").read_text())["rows"][0]
    assert row["clip"] == "one" and row["source"].endswith(" 5 32")
