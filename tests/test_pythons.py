"""The bytes mean the same to other Pythons: the tests that need no torch run in those as well."""

from __future__ import annotations

import fcntl
import os
import re
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]
VERSIONS = ("3.11", "3.13")
HERE = "{}.{}".format(*sys.version_info)
# The files of tests that import no torch, and what they need. They are run without conftest.py,
# which imports it.
SUBSET = tuple(
    f"tests/test_{name}.py"
    for name in ("bitstream", "bitstream_rules", "entropy", "files", "gop", "rng")
)
NEEDED = (
    "numpy", "constriction", "platformdirs", "scipy", "pytest", "pytest-timeout", "hypothesis"
)  # fmt: skip
# Of Hypothesis' own profiles the one without deadlines.
PYTEST = ("--noconftest", "-p", "no:cacheprovider", "--hypothesis-profile=ci", *SUBSET)


def interpreter(version: str) -> str | None:
    """The path of a Python that really is of that version, and can make an environment."""
    kept = Path(os.environ.get("PYENV_ROOT", Path.home() / ".pyenv")) / "versions"
    found = [shutil.which(f"python{version}"), *kept.glob(f"{version}*/bin/python{version}")]
    code = "import ensurepip, sys, venv; print('{}.{}'.format(*sys.version_info))"
    for path in filter(None, found):
        try:
            # pyenv's shim is there for versions too that are not chosen, and fails then.
            done = subprocess.run([path, "-c", code], capture_output=True, text=True)
        except OSError:
            continue
        if (done.returncode, done.stdout) == (0, f"{version}\n"):
            return str(path)
    return None


def environment(python: str, version: str) -> Path:
    """The Python of an environment with what the subset needs; made once, and anew when the
    versions change."""
    folder = ROOT / ".cache" / f"python{version}"
    folder.mkdir(parents=True, exist_ok=True)
    wanted = f"{python} {NEEDED}\n{(ROOT / 'constraints.txt').read_text()}"
    made, own = folder / "made", folder / "venv/bin/python"
    with (folder / "lock").open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        if not made.exists() or made.read_text() != wanted:
            made.unlink(missing_ok=True)
            subprocess.run([python, "-m", "venv", "--clear", folder / "venv"], check=True)
            pip = [own, "-m", "pip", "--disable-pip-version-check", "install", "-q"]
            pins = ["--only-binary", ":all:", "-c", ROOT / "constraints.txt"]
            subprocess.run([*pip, *pins, *NEEDED], check=True)
            made.write_text(wanted)
    return own


def env() -> dict[str, str]:
    """The environment's variables, with the checkout's package alone on the path."""
    kept = {k: v for k, v in os.environ.items() if not k.startswith(("PYTEST_", "PYTHON"))}
    return kept | {"PYTHONPATH": str(ROOT / "src")}


def test_the_subset_imports_no_torch() -> None:
    code = (
        "import pytest, sys; code = pytest.main(sys.argv[1:])\n"
        "loaded = {'torch', 'av', 'gvcc'} & set(sys.modules)\n"
        "sys.exit(code or (loaded != {'gvcc'} and f'{loaded} are loaded'))"
    )
    run = [sys.executable, "-c", code, "--collect-only", *PYTEST]
    done = subprocess.run(run, cwd=ROOT, env=env(), capture_output=True, text=True)
    assert done.returncode == 0, done.stdout + done.stderr
    assert all(f"{name}::" in done.stdout or f"{name}: " in done.stdout for name in SUBSET)


@pytest.mark.slow
@pytest.mark.parametrize("version", [v for v in VERSIONS if v != HERE])
def test_the_subset_in_another_python(version: str) -> None:
    python = interpreter(version)
    if python is None:
        pytest.skip(f"there is no Python {version}")
    own = environment(python, version)
    code = "import importlib.util as u, sys; sys.exit(any(map(u.find_spec, ('torch', 'av'))))"
    assert subprocess.run([own, "-c", code], env=env()).returncode == 0
    done = subprocess.run(
        [own, "-m", "pytest", *PYTEST], cwd=ROOT, env=env(), capture_output=True, text=True
    )
    assert done.returncode == 0, done.stdout + done.stderr
    count = re.search(r"^(\d+) passed in ", done.stdout, re.M)  # and none skipped
    assert count and int(count[1]) > 200, done.stdout


def test_what_is_no_python_of_that_version_is_not_taken(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("PYENV_ROOT", str(tmp_path / "pyenv"))
    monkeypatch.setenv("PATH", str(tmp_path))
    assert interpreter("3.1") is None
    fake = tmp_path / "python3.1"
    for text in ("", "#!/bin/sh\nexit 127\n", "#!/bin/sh\necho 3.11\n", "#!/none\n"):
        fake.write_text(text)
        fake.chmod(0o755)
        assert interpreter("3.1") is None
    kept = tmp_path / "pyenv/versions/3.1.4/bin/python3.1"
    kept.parent.mkdir(parents=True)
    kept.write_text("#!/bin/sh\necho 3.1\n")
    kept.chmod(0o755)
    assert interpreter("3.1") == str(kept)
