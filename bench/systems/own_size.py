"""Every mode on every evaluation clip at the clip's own size -> docs/results/systems/own_size.json.

`gvcc encode --mode ... --bpp 0.05 --verify` (and --preset free-gvc --quality vmaf:60) and `gvcc
decode`, each in a process of its own, prior nano: the decoded pictures must be, in every bit, those
of the encoder, and the file under its target. The first 17 frames in GOPs of 9, so that it ends
today on two cores. Cells that are in the file already are kept: the run may be broken off.
"""

from __future__ import annotations

import argparse
import itertools
import json
import sys
import tempfile
import time
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parents[2]))

from bench.common import CLIPS, DATA, RESULTS, clip, save
from bench.systems.modes import gvcc
from gvcc.format import parser
from gvcc.pictures import media

FRAMES, GOP, BPP = 17, 9, 0.05
CASES = {
    "free-gvc": ("--preset", "free-gvc", "--bpp", str(BPP)),
    "free-gvc vmaf:60": ("--preset", "free-gvc", "--quality", "vmaf:60"),
    **{mode: ("--mode", mode, "--bpp", str(BPP)) for mode in ("i2v", "flf2v", "t2v", "auto")},
}


def main() -> None:
    asked = argparse.ArgumentParser(description=__doc__)
    asked.add_argument("--cases", nargs="*", default=CASES, choices=CASES)
    asked.add_argument("--height", type=int, help="scale the clips to so many lines first")
    args = asked.parse_args()
    path = RESULTS / "systems/own_size.json"
    rows = json.loads(path.read_text())["cells"] if path.exists() else []
    done = {(r["clip"], r["case"], r["scaled"]) for r in rows}
    with tempfile.TemporaryDirectory() as folder:
        coded, shown = Path(folder) / "a.gvcc", Path(folder) / "a.y4m"
        for case, name in itertools.product(args.cases, CLIPS):
            if (name, case, args.height is not None) in done:
                continue
            source = str(DATA / f"eval/{name}.mp4")
            if args.height is not None:
                source = f"{folder}/{name}/"
                media.write(clip(name, FRAMES, args.height), source, overwrite=True)
            begin = time.monotonic()
            gvcc("encode", source, "-o", str(coded), "-y", *CASES[case],
                 "--gop", str(GOP), "--frames", str(FRAMES), "--verify")  # fmt: skip
            middle = time.monotonic()
            gvcc("decode", str(coded), "-o", str(shown), "-y")
            got, stream = media.open_clip(shown), parser.parse(coded.read_bytes())
            size, pixels = coded.stat().st_size, FRAMES * got.height * got.width
            target = int(BPP * pixels / 8) if "--bpp" in CASES[case] else None
            rows.append({
                "clip": name, "case": case, "scaled": args.height is not None,
                "width": got.width, "height": got.height, "frames": got.count, "bytes": size,
                "target_bytes": target, "bits_per_pixel": round(8 * size / pixels, 5),
                "gop_modes": [g.gop.mode for g in stream.gops], "verified": True,
                "encode_and_verify_s": round(middle - begin),
                "decode_s": round(time.monotonic() - middle),
            })  # fmt: skip
            assert got.count == FRAMES and size <= (target or size), rows[-1]
            print(rows[-1], file=sys.stderr, flush=True)
            save("systems/own_size", {
                "prior": "nano", "gop": GOP, "cells": rows,
                "cases": {c: " ".join(o) for c, o in CASES.items()},
            })  # fmt: skip


if __name__ == "__main__":
    main()
