"""The whole text of every --help and of the ten commonest errors, as files in tests/goldens.

python tests/cli_goldens.py       writes them anew, after a change that is meant
"""

from __future__ import annotations

import os
import re
import subprocess
import sys
import tempfile
from fractions import Fraction
from pathlib import Path

import numpy as np

ROOT = Path(__file__).parent / "goldens"
COMMANDS = (
    "", "encode", "decode", "inspect", "compare", "demo", "eval", "eval run", "eval sweep",
    "eval table6", "eval ab", "eval ab-report", "priors", "priors prepare", "train",
    "train gauss", "train nano-autoencoder", "train nano-flow",
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


def text(args: str, folder: Path) -> str:
    """What `gvcc args` says in that folder, and its exit code."""
    env = os.environ | {"COLUMNS": "100", "XDG_CACHE_HOME": str(folder), "NO_COLOR": "1"}
    env |= {"TERMINAL_WIDTH": "100", "GVCC_PRIORS": str(folder)}
    done = subprocess.run([sys.executable, "-m", "gvcc", *args.split()], cwd=folder, env=env,
                          capture_output=True, text=True)  # fmt: skip
    said = re.sub(r" +$", "", done.stdout + done.stderr, flags=re.M)
    return f"$ gvcc {args}\n{said}exit code {done.returncode}\n".replace(str(folder), "FOLDER")


def goldens(folder: Path) -> dict[str, str]:
    """Name of a file -> what is to stand in it."""
    from gvcc.pictures import media

    frames = np.zeros((9, 32, 48, 3), np.uint8)
    media.write(media.Video(frames, Fraction(25)), folder / "clip.y4m")
    for name in ("old.gvcc", "bad.gvcc"):
        (folder / name).write_bytes(b"no stream")
    helps = {f"help-{c.replace(' ', '-') or 'gvcc'}.txt": f"{c} --help".strip() for c in COMMANDS}
    errors = {f"error-{name}.txt": args for name, args in ERRORS.items()}
    return {name: text(args, folder) for name, args in (helps | errors).items()}


if __name__ == "__main__":
    ROOT.mkdir(exist_ok=True)
    with tempfile.TemporaryDirectory() as folder:
        for name, said in goldens(Path(folder)).items():
            (ROOT / name).write_text(said)
