"""What the README says works: its Python example runs, its commands and files exist."""

from __future__ import annotations

import re
import subprocess
import sys
from fnmatch import fnmatch
from fractions import Fraction
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]
README = (ROOT / "README.md").read_text()
RESULTS = ROOT / "docs/results"


def test_the_python_example_runs():
    (example,) = re.findall(r"```python\n(.*?)```", README, re.S)
    run = subprocess.run([sys.executable, "-c", example], capture_output=True, text=True)
    assert run.returncode == 0, run.stderr
    size, shape = re.match(r"(\d+) (\(.*?\)) 24\n", run.stdout).groups()
    assert int(size) <= 1200 and shape == "(9, 64, 96, 3)"


def test_a_path_is_as_good_as_a_video(tmp_path):
    import numpy as np

    import gvcc
    from gvcc.pictures import media

    frames = np.random.default_rng(0).integers(0, 255, (3, 16, 24, 3)).astype(np.uint8)
    media.write(gvcc.Video(frames, Fraction(24)), tmp_path / "a.y4m")
    data = gvcc.encode(str(tmp_path / "a.y4m"), gvcc.EncodeConfig(size=300))
    assert data == gvcc.encode(media.read(tmp_path / "a.y4m"), gvcc.EncodeConfig(size=300))
    assert gvcc.decode(data).frames.shape == frames.shape


def options(command: str) -> set[str]:
    return set(re.findall(r"(?<![\w-])--?[a-zA-Z][\w-]*", command))


@pytest.mark.parametrize("verb", ["encode", "decode", "inspect", "compare"])
def test_every_option_named_exists(verb):
    uses = re.findall(rf"gvcc {verb} [^\n|#`]*", README)
    assert uses
    run = [sys.executable, "-m", "gvcc", verb, "--help"]
    known = options(subprocess.run(run, capture_output=True, text=True, check=True).stdout)
    assert options(" ".join(uses)) <= known


def test_every_file_linked_exists():
    links = [x for x in re.findall(r"\]\(([^)#]+)\)", README) if "://" not in x]
    assert links and all((ROOT / x).exists() for x in links)


def test_the_pages_of_results_are_what_their_script_writes(tmp_path):
    run = [sys.executable, str(ROOT / "bench/summary.py"), "--out", str(tmp_path)]
    subprocess.run(run, check=True, capture_output=True)
    made, kept = (
        {str(p.relative_to(folder)): p.read_text() for p in folder.rglob("*.md")}
        for folder in (tmp_path, RESULTS)
    )
    assert made.keys() == kept.keys() and len(made) > 1
    assert [name for name in made if made[name] != kept[name]] == []


@pytest.mark.parametrize("page", sorted(RESULTS.rglob("*.md")), ids=lambda p: p.parent.name)
def test_every_file_that_a_page_of_results_names_exists(page):
    links = [x for x in re.findall(r"\]\(([^)#]+)\)", page.read_text()) if "://" not in x]
    assert links and [x for x in links if not (page.parent / x).exists()] == []
    scripts = re.findall(r"\bbench/[\w/]+\.py", page.read_text())
    assert scripts and [x for x in scripts if not (ROOT / x).exists()] == []


def test_the_table_of_scripts_names_every_script_and_every_result():
    rows = [x for x in (ROOT / "bench/README.md").read_text().splitlines() if x.startswith("| [")]
    linked = [x for row in rows for x in re.findall(r"\]\(([\w/]+\.py)\)", row)]
    bench = ROOT / "bench"
    scripts = {str(p.relative_to(bench)) for p in bench.rglob("*.py")} - {"__init__.py"}
    assert len(linked) == len(set(linked)) and set(linked) == scripts
    named = [x for row in rows for x in re.findall(r"`([\w/*-]+\.\w+)`", row.split("|")[4])]
    results = [str(p.relative_to(RESULTS)) for p in RESULTS.rglob("*") if p.is_file()]
    assert [x for x in results if not any(fnmatch(x, name) for name in named)] == []
    assert [name for name in named if not any(fnmatch(x, name) for x in results)] == []
    assert all(row.split("|")[2].strip() for row in rows)


def test_every_script_named_anywhere_exists():
    pages = [ROOT / "README.md", ROOT / "CHANGELOG.md", *(ROOT / "docs").glob("*.md")]
    code = [p for folder in ("src", "tests") for p in (ROOT / folder).rglob("*.py")]
    named = {x for p in pages + code for x in re.findall(r"\bbench/[\w/]+\.py", p.read_text())}
    assert named and sorted(x for x in named if not (ROOT / x).exists()) == []


def test_the_format_document_has_the_drift_that_was_measured(monkeypatch):
    monkeypatch.syspath_prepend(str(ROOT))
    from bench.models import page

    document = (ROOT / "docs/format.md").read_text()
    assert page.MARK + "\n" + page.drift_table() + "\n\n## 16. Base\n" in document


def test_the_model_card_is_what_its_script_writes(tmp_path):
    page = tmp_path / "card.md"
    run = [sys.executable, str(ROOT / "bench/priors/model_card.py"), "--out", str(page)]
    subprocess.run(run, check=True, capture_output=True)
    assert page.read_text() == (ROOT / "docs/model-card.md").read_text()


def test_the_weights_are_those_that_the_results_were_measured_with():
    import json

    from gvcc import priors

    digest = priors.load("nano").spec.digest.hex()
    for name, key in (("nano_denoiser", "weights"), ("nano_rd", "weights"),
                      ("nano_presets", "weights"), ("autoencoder", "nano_weights")):  # fmt: skip
        results = json.loads((RESULTS / f"priors/{name}.json").read_text())
        assert results[key] == digest, f"bench/priors/{name}.py was not run with these weights"
