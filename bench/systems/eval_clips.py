"""`gvcc encode --bpp 0.05` and `gvcc decode` on every evaluation clip at its own size (the first
frames of it: --frames), and on awkward files (one frame, 17x33, 34 frames)
-> docs/results/systems/eval_clips.json. Each command is its own process.
"""

from __future__ import annotations

import argparse
import json
import subprocess
import sys
import tempfile
import time
from fractions import Fraction
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parents[2]))

from bench.common import CLIPS, DATA, save
from gvcc import priors
from gvcc.eval import clips
from gvcc.metrics import metrics
from gvcc.pictures import media
from gvcc.pictures.media import Video

BPP = 0.05
parser = argparse.ArgumentParser(description=__doc__)
parser.add_argument("--frames", type=int, default=17)
parser.add_argument("--prior", default=priors.DEFAULT, choices=priors.NAMES)
FRAMES, PRIOR = (asked := parser.parse_args()).frames, asked.prior


def gvcc(*arguments: str) -> str:
    """Run a command; its standard output, or an exception with what it said."""
    run = subprocess.run([sys.executable, "-m", "gvcc", *arguments], capture_output=True, text=True)
    if run.returncode:
        raise SystemExit(f"gvcc {' '.join(arguments)}: {run.stderr}")
    return run.stdout


rows = []
with tempfile.TemporaryDirectory() as folder:
    work = Path(folder)
    sources = {name: DATA / f"eval/{name}.mp4" for name in CLIPS}
    awkward = {"one frame": (1, 96, 128), "17x33": (34, 33, 17), "34 frames": (34, 96, 128)}
    for name, shape in awkward.items():
        sources[name] = work / f"{name}.y4m"
        media.write(Video(clips.demo_clip(*shape), Fraction(24)), sources[name])
    for name, source in sources.items():
        coded, decoded = work / "a.gvcc", work / "out.mp4"
        command = ("encode", str(source), "-o", str(coded), "-y", "--json", "--verify",
                   "--prior", PRIOR)  # fmt: skip
        frames = FRAMES if name in CLIPS else 10**6
        made = json.loads(gvcc(*command, "--bpp", str(BPP), "--frames", str(frames)))
        begin = time.monotonic()
        gvcc("decode", str(coded), "-o", str(decoded), "-y")
        decode_s = time.monotonic() - begin
        ref = media.read(source, frames=frames, audio=False)
        got = media.read(decoded, audio=False)
        rows.append({
            "clip": name, "width": made["width"], "height": made["height"],
            "frames": made["frames"], "bytes": made["bytes"],
            "bits_per_pixel": made["bits_per_pixel"], "verified": made["verified"],
            "psnr_db": metrics.psnr(ref.frames, got.frames),
            "encode_s": made["seconds"], "decode_s": round(decode_s, 1),
        })  # fmt: skip
        print(rows[-1], flush=True)
save("systems/eval_clips", {"prior": PRIOR, "preset": "default", "bpp": BPP, "clips": rows})
