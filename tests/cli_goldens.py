"""The whole text of every --help and of the ten commonest errors, as files in tests/goldens.

python tests/cli_goldens.py       writes them anew, after a change that is meant
"""

from __future__ import annotations

import os
import re
import subprocess
import sys
import tempfile
from collections.abc import Callable
from fractions import Fraction
from pathlib import Path

import numpy as np

ROOT = Path(__file__).parent / "goldens"
COMMANDS = (
    "", "encode", "decode", "inspect", "compare", "demo", "eval", "eval run", "eval sweep",
    "eval table6", "eval ab", "eval ab-report", "eval weights", "priors", "priors prepare", "train",
    "train gauss", "train nano-autoencoder", "train nano-flow", "train nano-restorer",
)  # fmt: skip
# In a folder with clip.y4m (9 frames of 48x32), old.gvcc and bad.gvcc, which is no stream.
ERRORS = {
    "exists": "encode clip.y4m -o old.gvcc",
    "no-source": "encode clip.mp4 -o new.gvcc",
    "no-folder": "encode clip.y4m -o folder/new.gvcc",
    "two-targets": "encode clip.y4m -o new.gvcc --bpp 0.05 --kbps 20",
    "unreachable": "encode clip.y4m -o new.gvcc --size 20",
    "preset": "encode clip.y4m -o new.gvcc --preset papr",
    "no-option": "encode clip.y4m -o new.gvcc --bbp 0.05",
    "no-stream": "decode bad.gvcc -o new.mp4",
    "suffix": "decode old.gvcc -o new.avi",
    "prior": "encode clip.y4m -o new.gvcc --prior wan2.1-t2v-1.3b",
}


def prepare(folder: Path) -> None:
    """Make the files that ERRORS name."""
    from gvcc.pictures import media

    frames = np.zeros((9, 32, 48, 3), np.uint8)
    media.write(media.Video(frames, Fraction(25)), folder / "clip.y4m")
    for name in ("old.gvcc", "bad.gvcc"):
        (folder / name).write_bytes(b"no stream")


def goldens(folder: Path, say: Callable[[list[str]], tuple[str, int]]) -> dict[str, str]:
    """Name of a file -> what is to stand in it; `say` runs `gvcc` with arguments in the folder, 100
    columns wide, and gives what it says and its exit code."""
    helps = {f"help-{c.replace(' ', '-') or 'gvcc'}.txt": f"{c} --help".strip() for c in COMMANDS}
    errors = {f"error-{name}.txt": args for name, args in ERRORS.items()}
    out = {}
    for name, args in (helps | errors).items():
        said, code = say(args.split())
        said = re.sub(r" +$", "", said, flags=re.M).replace(str(folder), "FOLDER")
        out[name] = f"$ gvcc {args}\n{said}exit code {code}\n"
    return out


def main() -> None:
    ROOT.mkdir(exist_ok=True)
    with tempfile.TemporaryDirectory() as folder:
        prepare(Path(folder))
        env = os.environ | {"COLUMNS": "100", "XDG_CACHE_HOME": folder, "NO_COLOR": "1"}

        def say(args: list[str]) -> tuple[str, int]:
            command = [sys.executable, "-m", "gvcc", *args]
            done = subprocess.run(command, cwd=folder, env=env, capture_output=True, text=True)
            return done.stdout + done.stderr, done.returncode

        for name, said in goldens(Path(folder), say).items():
            (ROOT / name).write_text(said)


if __name__ == "__main__":
    main()
