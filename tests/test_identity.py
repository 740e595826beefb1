"""Finished numbers of an evaluation are used again only if weights, code and programs are still
what made them."""

from __future__ import annotations

import os
import shutil
from collections.abc import Callable, Iterator
from fractions import Fraction
from pathlib import Path

import numpy as np
import pytest
import test_nano

from gvcc.eval import baselines, cells, identity, run, table6
from gvcc.eval.cells import Job, Source
from gvcc.pictures import media
from gvcc.priors import nano, restorers
from gvcc.records import Video
from gvcc.search.config import EncodeConfig

pytestmark = pytest.mark.usefixtures("one_thread")
Edit = Callable[..., None]
PACKAGE = Path(identity.__file__).parents[1]
SHIPPED = PACKAGE / "priors/weights/restorer.safetensors"


@pytest.fixture(scope="module")
def clip(tmp_path_factory: pytest.TempPathFactory) -> Source:
    path = tmp_path_factory.mktemp("clip") / "one.mkv"
    media.write(Video(test_nano.clip(5, 32, 48), Fraction(25)), path)
    return Source("one", str(path), 5)


@pytest.fixture
def weights(tmp_path: Path) -> Path:
    path = tmp_path / "nano.safetensors"
    path.write_bytes(nano.pack(*test_nano.made()))
    return path


@pytest.fixture(scope="module")
def copied(tmp_path_factory: pytest.TempPathFactory) -> Path:
    root = tmp_path_factory.mktemp("src")
    shutil.copytree(PACKAGE, root / "gvcc", ignore=shutil.ignore_patterns("weights", "__pycache__"))
    return root


@pytest.fixture
def edit(copied: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Edit]:
    """Appends lines to a source file of the package: to a copy, which stands for the package."""
    monkeypatch.setattr(identity, "_ROOT", copied)
    edited: set[str] = set()

    def append(file: str, more: str = "\nCHANGED = 1\n") -> None:
        path = copied / "gvcc" / file
        path.write_text(path.read_text() + more)
        edited.add(file)

    yield append
    for file in edited:
        (copied / "gvcc" / file).write_bytes((PACKAGE / file).read_bytes())


def retrain(weights: Path) -> None:
    """Other weights under the same name, of the same size."""
    config, tensors = test_nano.made()
    weights.write_bytes(nano.pack(config, tensors | {"power": tensors["power"] + 0.1}))


def made(plan: run.Plan, monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """Run a plan in this process; the codecs whose cells were measured."""
    measured: list[str] = []

    def in_this(job: Job, kept: run._Kept) -> None:
        for cell in cells.run(job):
            measured.append(job.codec)
            kept.keep(job, cell)

    monkeypatch.setattr(run, "_in_processes", in_this)
    assert run.run(plan, 1) == 0
    return measured


def test_cells_of_other_weights_or_other_code_are_measured_anew(
    clip: Source, weights: Path, edit: Edit, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    ours = f"gvcc:paper+prior=nano:{weights}+gop=5+steps=5+M=2+codebook=16"
    plan = run.Plan(tmp_path / "out", "tests", (ours, "vp9"), (clip,), (0.5,), ("psnr_rgb_db",))
    assert made(plan, monkeypatch) == [ours, "vp9"]
    assert made(plan, monkeypatch) == []
    retrain(weights)
    assert made(plan, monkeypatch) == [ours]
    assert made(plan, monkeypatch) == []
    edit("encoder.py")
    assert made(plan, monkeypatch) == [ours]
    edit("metrics/metrics.py")
    assert made(plan, monkeypatch) == [ours, "vp9"]
    edit("eval/report.py")
    edit("eval/pages/report.js")
    assert made(plan, monkeypatch) == []


@pytest.mark.parametrize(
    ("file", "more", "anew"),
    [
        ("encoder.py", None, "gvcc"),
        ("format/rng.py", None, "gvcc"),
        ("priors/nano.py", None, "gvcc"),
        ("metrics/metrics.py", None, "gvcc"),  # it may be coded for a quality
        ("metrics/raft.py", None, ""),
        ("eval/cells.py", None, "gvcc vp9 mine"),
        ("pictures/media.py", None, "gvcc vp9 mine"),
        ("eval/baselines.py", None, "vp9 mine"),
        ("eval/external.py", None, "mine"),
        ("cli/evaluate.py", None, ""),
        ("eval/bd.py", None, ""),
        ("eval/run.py", None, ""),
        ("eval/pages/report.js", None, ""),
        ("train/loop.py", None, ""),
        ("encoder.py", "\n\n# A remark.\n", ""),
    ],
)
def test_a_cell_depends_on_the_code_that_makes_it(
    clip: Source, edit: Edit, tmp_path: Path, file: str, more: str | None, anew: str
) -> None:
    adapters = tmp_path / "a.toml"
    adapters.write_text('[mine]\nencode = "true"\ndecode = "true"\nqualities = [1]\n')
    jobs = {name: Job(codec, clip, (0.5,), (), adapters=str(adapters)) for name, codec in (
        ("gvcc", "gvcc:paper+prior=gauss"), ("vp9", "vp9"), ("mine", "mine"))}  # fmt: skip
    before = {name: job.key(0.5) for name, job in jobs.items()}
    edit(file, *(() if more is None else (more,)))
    assert [n for n, job in jobs.items() if job.key(0.5) != before[n]] == anew.split()


@pytest.mark.parametrize(
    ("file", "anew"),
    [("metrics/metrics.py", True), ("metrics/raft.py", True), ("eval/every.py", True),
     ("eval/cells.py", False), ("encoder.py", False), ("eval/report.py", False)],
)  # fmt: skip
def test_numbers_depend_on_the_code_that_measures(
    clip: Source, edit: Edit, file: str, anew: bool
) -> None:
    job = Job("vp9", clip, (0.5,), ())
    before = job.measuring
    edit(file)
    assert (job.measuring != before) == anew


def test_the_digest_of_weights_is_that_of_the_file_as_it_is_now(weights: Path) -> None:
    asked = EncodeConfig(prior=f"nano:{weights}", restorer="off")
    before = identity.weights(asked)
    assert before == [nano.load(path=weights).spec.digest.hex(), ""]
    retrain(weights)
    after = identity.weights(asked)
    assert after == [nano.load(path=weights).spec.digest.hex(), ""] != before
    weights.unlink()
    assert "No such file" in identity.weights(asked)[0]


def test_cells_depend_on_what_restores_their_bases(clip: Source, tmp_path: Path) -> None:
    path = tmp_path / "restorer.safetensors"
    path.write_bytes(SHIPPED.read_bytes())
    own = restorers.load("nano", 1.0).digest.hex()
    for codec in ("gvcc:default", "gvcc:v2v", f"gvcc:v2v+restorer=nano:{path}"):
        assert identity.weights(cells.config(codec))[1:] == [own], codec
    for codec in ("gvcc:paper", "gvcc:default+mode=t2v", "gvcc:v2v+restorer=off"):
        assert identity.weights(cells.config(codec))[1:] == [""], codec
    job = Job(f"gvcc:v2v+restorer=nano:{path}", clip, (0.5,), ())
    before = job.key(0.5)
    config, tensors, _ = nano.unpack(path.read_bytes(), "")
    tensors["realism.exit.bias"][-1] += 1
    path.write_bytes(nano.pack(config, tensors))
    assert job.key(0.5) != before
    path.write_bytes(b"")
    assert "restorer" in identity.weights(cells.config(job.codec))[1]


def test_a_models_folder_counts_with_all_its_files(tmp_path: Path) -> None:
    (tmp_path / "vae").mkdir()
    for name in ("a.json", "vae/b.safetensors"):
        (tmp_path / name).write_text("12")
    before = identity.stamps(tmp_path)
    assert [Path(s[0]).name for s in before] == ["a.json", "b.safetensors"]
    (tmp_path / "vae/b.safetensors").write_text("123")
    assert identity.stamps(tmp_path) != before


def test_programs_of_others_count(
    clip: Source, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    script, model, adapters = (tmp_path / n for n in ("mine.py", "model.pth", "a.toml"))
    script.write_text("1")
    model.write_text("1")
    adapters.write_text(
        f'[mine]\nencode = "sh {script} {{source}} --model={model}"\ndecode = "sh {script}"\n'
        "qualities = [1]\n"
    )
    mine = Job("mine", clip, (0.5,), (), adapters=str(adapters))
    keys = [mine.key(0.5)]
    for path in (script, model):
        path.write_text("12")
        keys.append(mine.key(0.5))
    adapters.write_text(adapters.read_text().replace("[1]", "[2]"))
    keys.append(mine.key(0.5))
    # A command on the path stands for the program that it is found as.
    assert identity.programs("sh -c x")[0][0][0] == shutil.which("sh")
    # Baselines are ffmpeg's, which measures VMAF for all.
    assert "ffmpeg version" in baselines.build() and "libavcodec" in baselines.build()
    monkeypatch.setattr(baselines, "build", lambda: "another")
    keys.append(mine.key(0.5))
    monkeypatch.setattr(identity, "libraries", lambda *names: ["another" for _ in names])
    keys.append(mine.key(0.5))
    assert len(set(keys)) == len(keys)


def test_raw_video_read_otherwise_is_another_clip(tmp_path: Path) -> None:
    path = tmp_path / "a.yuv"
    path.write_bytes(bytes(384))
    ways = [None, (16, 16, "yuv420p", "25"), (16, 16, "yuv420p", "50"), (8, 16, "yuv444p", "25")]
    assert len({Source("a", str(path), 1, None, raw).identity for raw in ways}) == len(ways)


def test_cells_of_table_6_that_other_code_has_made_are_made_anew(
    edit: Edit, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    asked: list[int] = []

    def cell(frames: np.ndarray, row: table6.Row, prior: object, name: str) -> dict[str, object]:
        asked.append(row.atoms)
        return {"psnr_db": 30.0 + len(asked), "frames": 33, "width": 16, "height": 16,
                "published_bits": 100, "bytes": 9}  # fmt: skip

    monkeypatch.setattr(table6, "cell", cell)
    monkeypatch.setattr(table6, "find", lambda *_: tmp_path)
    monkeypatch.setattr(table6, "read", lambda *_: np.zeros((33, 16, 16, 3), np.uint8))
    prior, out = nano.load(), tmp_path / "t.json"

    def table() -> float:
        (line,) = table6.run(tmp_path, out, prior, "nano", rows=table6.chosen("8:256"),
                             sequences=("Beauty",), size=(16, 16), gops=1)  # fmt: skip
        return line["psnr_db"]

    assert [table(), table()] == [31, 31]
    edit("decode/codebook.py")
    assert [table(), table()] == [32, 32]
    edit("eval/table6.py")
    assert [table(), table()] == [33, 33]
    edit("eval/every.py")
    assert table() == 33 and len(asked) == 3


def test_a_clip_is_the_same_wherever_it_was_fetched(tmp_path: Path) -> None:
    one, two = tmp_path / "a" / "clip.y4m", tmp_path / "b" / "clip.y4m"
    for path, time in ((one, 1), (two, 2)):
        path.parent.mkdir()
        path.write_bytes(b"the same")
        os.utime(path, (time, time))
    first, second = (Source("clip", str(p), 5) for p in (one, two))
    assert first.identity == second.identity
    two.write_bytes(b"not same")
    assert first.identity != second.identity
    pictures = Source("clip", str(one.parent), 5)
    before = pictures.identity
    one.rename(one.with_name("other.y4m"))
    assert pictures.identity != before
    with pytest.raises(FileNotFoundError):
        first.identity  # noqa: B018
