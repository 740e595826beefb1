"""The results of `gvcc eval` as one file -> docs/results/eval_<name>.json.

    gvcc eval ../shared/data/eval/*.mp4 --preset quick --out report
    python bench/anchors/eval_results.py report quick

Some of its plots and, for sets of 256 lines, its contact sheets go beside it. Profiles of single
frames and the clips stay in the report's folder.
"""

from __future__ import annotations

import argparse
import json
import shutil
import sys
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parents[2]))

from PIL import Image

from bench.common import RESULTS

if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("folder", type=Path)
    parser.add_argument("name")
    args = parser.parse_args()
    setup = json.loads((args.folder / "setup.json").read_text())
    codecs = []
    for path in sorted((args.folder / "results").glob("*.json")):
        result = json.loads(path.read_text())
        for cell in result["cells"]:
            for name in ("profile", "video", "stream", "weights", "size_rule", "measuring"):
                cell.pop(name, None)
        codecs.append(result)
    out = {"setup": setup, "bd": json.loads((args.folder / "bd.json").read_text()),
           "codecs": codecs}  # fmt: skip
    (RESULTS / f"anchors/eval_{args.name}.json").write_text(json.dumps(out, indent=1) + "\n")
    for metric in ("psnr_rgb_db", "vmaf", "vmaf_neg", "lpips_alex", "dists", "tof"):
        shutil.copy(
            args.folder / f"plots/{metric}.png", RESULTS / f"anchors/eval_{args.name}_{metric}.png"
        )
    for sheet in (args.folder / "contact").glob("*.png") if args.name.startswith("256") else ():
        out_path = RESULTS / f"anchors/contact_{args.name}_{sheet.stem}.jpg"
        Image.open(sheet).save(out_path, quality=88, subsampling=0)
