"""The wheel: it builds, holds what it needs and no more, and codes a clip where nothing else is."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import sysconfig
import zipfile
from fractions import Fraction
from pathlib import Path

import numpy as np
import pytest
from cli_runner import frames

import gvcc
from gvcc.pictures import media

ROOT = Path(__file__).parents[1]
CONFIG = {"prior": "gauss", "gop": 5, "atoms": 2}
# Without a way to the checkout.
ENV = {k: v for k, v in os.environ.items() if not k.startswith("PYTHON")}

pytestmark = pytest.mark.slow


@pytest.fixture(scope="module")
def wheel(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Made from the source distribution, which is what `python -m build` does. The backend comes
    with the extra `test`, so that nothing is fetched."""
    folder = tmp_path_factory.mktemp("dist")
    build = [sys.executable, "-m", "build", "--no-isolation", "--outdir", folder, ROOT]
    done = subprocess.run(build, capture_output=True, text=True, env=ENV, cwd=folder)
    assert done.returncode == 0, done.stdout + done.stderr
    (found,) = folder.glob("*.whl")
    return found


@pytest.fixture(scope="module")
def bare(wheel: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A new environment that has the wheel, and what it depends on from the running one."""
    folder = tmp_path_factory.mktemp("bare") / "venv"
    subprocess.run([sys.executable, "-m", "venv", "--without-pip", folder], check=True)
    pip = [sys.executable, "-m", "pip", "--python", folder / "bin/python"]
    install = [*pip, "--disable-pip-version-check", "install", "-q", "--no-deps", "--no-index"]
    subprocess.run([*install, wheel], check=True, env=ENV)
    # Only now: pip must not take the checkout, which is installed there, for this one's. Files
    # .pth of that folder, which lead to the checkout, are not read.
    (site,) = folder.glob("lib/python*/site-packages")
    shared = dict.fromkeys(sysconfig.get_paths()[name] for name in ("purelib", "platlib"))
    (site / "shared.pth").write_text("".join(f"{path}\n" for path in shared))
    return folder


def test_the_wheel_holds_the_package_and_nothing_else(wheel: Path) -> None:
    names = [n for n in zipfile.ZipFile(wheel).namelist() if not n.endswith("/")]
    source = ROOT / "src"
    own = {
        str(p.relative_to(source)) for p in (source / "gvcc").rglob("*")
        if p.is_file() and "__pycache__" not in p.parts
    }  # fmt: skip
    assert len(names) == len(set(names))
    assert {n for n in names if n.startswith("gvcc/")} == own
    rest = {n for n in names if not n.startswith("gvcc/")}
    assert {n.split("/")[0] for n in rest} == {f"gvcc-{wheel.name.split('-')[1]}.dist-info"}
    for name in (
        "py.typed", "format/normal16.npy", "priors/weights/nano.safetensors",
        "priors/weights/gauss.safetensors", "eval/pages/report.html", "eval/pages/ab.html",
        "train/recipes/nano-flow-cpu.toml",
    ):  # fmt: skip
        assert f"gvcc/{name}" in own


def test_the_package_in_a_bare_environment(bare: Path, tmp_path: Path) -> None:
    code = (
        "import json, sys; from fractions import Fraction; from pathlib import Path\n"
        "import numpy as np, gvcc\n"
        "video = gvcc.Video(np.load('clip.npy'), Fraction(25))\n"
        "data = gvcc.encode(video, gvcc.EncodeConfig(**json.loads(sys.argv[1])))\n"
        "Path('a.gvcc').write_bytes(data); np.save('back.npy', gvcc.decode(data).frames)\n"
        "print(*(m.__file__ for n, m in sys.modules.items() if n.split('.')[0] == 'gvcc'))"
    )
    np.save(tmp_path / "clip.npy", frames())
    run = [bare / "bin/python", "-I", "-c", code, json.dumps(CONFIG)]
    done = subprocess.run(run, cwd=tmp_path, env=ENV, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    paths = done.stdout.split()
    assert len(paths) > 20 and all(Path(p).is_relative_to(bare) for p in paths)
    video = gvcc.Video(frames(), Fraction(25))
    data = gvcc.encode(video, gvcc.EncodeConfig(**CONFIG))
    assert (tmp_path / "a.gvcc").read_bytes() == data
    assert np.array_equal(np.load(tmp_path / "back.npy"), gvcc.decode(data).frames)


def test_the_command_in_a_bare_environment(bare: Path, tmp_path: Path) -> None:
    media.write(gvcc.Video(frames(), Fraction(25)), tmp_path / "a.y4m")
    options = ("--prior", "gauss", "--gop", "5", "-M", "2")
    for args in (
        ("encode", "a.y4m", "-o", "a.gvcc", *options),
        ("decode", "a.gvcc", "-o", "b.y4m"),
    ):
        run = [bare / "bin/gvcc", *args]
        done = subprocess.run(run, cwd=tmp_path, env=ENV, capture_output=True, text=True)
        assert done.returncode == 0 and "Traceback" not in done.stderr, done.stderr
    data = (tmp_path / "a.gvcc").read_bytes()
    assert media.read(tmp_path / "b.y4m").frames.shape == (9, 32, 48, 3)
    assert gvcc.inspect(data).header.prior == "gauss"
