"""The results of `gvcc eval` as one file -> docs/results/eval_<name>.json.

    gvcc eval ../shared/data/eval/*.mp4 --preset quick --out report
    python bench/anchors/eval_results.py report quick

    python bench/anchors/eval_results.py more 256x33 --join

Set 256x33 is of `--height 256 --frames 33 --stride 8 --metrics psnr_rgb_db,psnr_yuv_db,ms_ssim,
vmaf,vmaf_neg,tof,temporal_error,lpips_alex,lpips_vgg,dists`.

With --join a run's cells join those of the set that are there, and take the place of the same ones;
BD-rates and plots are of all. A run may so have other codecs or rates, but must be of the same
clips, size, length and stride. Some plots go beside the file and, without --join and for sets of
256 lines, contact sheets. Profiles of single frames and the clips stay in the report's folder.
"""

from __future__ import annotations

import argparse
import json
import shutil
import sys
import tempfile
from pathlib import Path
from typing import Any

sys.path.insert(0, str(Path(__file__).resolve().parents[2]))

from PIL import Image

from bench.common import RESULTS
from gvcc.eval import bd, plots
from gvcc.eval.run import BD_METRICS

SHOWN = ("psnr_rgb_db", "vmaf", "vmaf_neg", "lpips_alex", "dists", "tof")
_MUST_AGREE = ("height", "frames", "stride")


def joined(old: dict[str, Any], new: dict[str, Any]) -> dict[str, Any]:
    """The set `old` with the cells of `new`; ValueError if they are not of the same clips."""
    names = [{c["name"] for c in d["setup"]["clips"]} for d in (old, new)]
    if names[0] != names[1] or any(old["setup"][k] != new["setup"][k] for k in _MUST_AGREE):
        raise ValueError("the runs are of other clips, sizes, lengths or strides")
    cells: dict[str, dict[tuple[str, float], Any]] = {}
    heads = {c["codec"]: c for d in (old, new) for c in d["codecs"]}
    for result in (*old["codecs"], *new["codecs"]):
        mine = cells.setdefault(result["codec"], {})
        mine.update({(c["clip"], c["rate"]): c for c in result["cells"]})
    codecs = [
        heads[name] | {"cells": [found[key] for key in sorted(found)]}
        for name, found in cells.items()
    ]
    rates = sorted({rate for found in cells.values() for _, rate in found})
    setup = old["setup"] | {"rates": rates, "codecs": list(cells)}
    fine = {n: [c for c in found.values() if c["status"] == "ok"] for n, found in cells.items()}
    return {"setup": setup, "bd": bd.matrix(fine, BD_METRICS), "codecs": codecs}


def draw(out: dict[str, Any], name: str) -> None:
    """The plots of all cells of a set."""
    with tempfile.TemporaryDirectory() as folder:
        about = f"{len(out['setup']['clips'])} clips, {name}"
        plots.write_all([c["codec"] for c in out["codecs"]], plots.all_curves(out["codecs"]),
                        len(out["setup"]["clips"]), about, Path(folder))  # fmt: skip
        for metric in SHOWN:
            shutil.copy(f"{folder}/{metric}.png", RESULTS / f"anchors/eval_{name}_{metric}.png")


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("folder", type=Path)
    parser.add_argument("name")
    parser.add_argument("--join", action="store_true")
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
    path = RESULTS / f"anchors/eval_{args.name}.json"
    if args.join:
        out = joined(json.loads(path.read_text()), out)
    path.write_text(json.dumps(out, indent=1) + "\n")
    draw(out, args.name)
    sheets = args.name.startswith("256") and not args.join
    for sheet in (args.folder / "contact").glob("*.png") if sheets else ():
        out_path = RESULTS / f"anchors/contact_{args.name}_{sheet.stem}.jpg"
        Image.open(sheet).save(out_path, quality=88, subsampling=0)
