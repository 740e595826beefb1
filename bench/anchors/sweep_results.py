"""The results of `gvcc eval sweep` -> docs/results/anchors/sweep.json and sweep-*.png.

gvcc eval sweep ../shared/data/eval/*.mp4 --out sweep --studies M,K,T,g_scale,rd
gvcc eval sweep ../shared/data/eval/*.mp4 --out sweep --studies GOP --frames 49
python bench/anchors/sweep_results.py sweep
"""

from __future__ import annotations

import argparse
import shutil
import sys
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parents[2]))

from bench.common import RESULTS

if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("folder", type=Path)
    folder = parser.parse_args().folder
    for path in (folder / "sweep.json", *sorted(folder.glob("sweep-*.png"))):
        shutil.copy(path, RESULTS / "anchors" / path.name)
