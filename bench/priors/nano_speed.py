"""Time and memory of `gvcc decode` for one GOP of 33 frames of 256x256 with nano
-> docs/results/priors/nano_speed.json.

The demo clip at 0.05 bpp, preset default (20 network calls), in a process of its own, import and
writing of the y4m included. Peak resident memory of that process.
"""

from __future__ import annotations

import os
import subprocess
import sys
import tempfile
import time
from fractions import Fraction
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parents[2]))

import torch

import gvcc
from bench.common import save
from gvcc.eval import clips

CHILD = """
import resource, sys
from gvcc import cli
sys.argv[1:] = ["decode", sys.argv[1], "-o", sys.argv[2], "-y"]
try:
    cli.main()
finally:
    print(resource.getrusage(resource.RUSAGE_SELF).ru_maxrss)
"""

if __name__ == "__main__":
    video = gvcc.Video(clips.demo_clip(33, 256, 256), Fraction(24))
    begin = time.monotonic()
    data = gvcc.encode(video, gvcc.EncodeConfig(mode="t2v", bpp=0.05))
    encoded = time.monotonic() - begin
    with tempfile.TemporaryDirectory() as folder:
        file = Path(folder) / "clip.gvcc"
        file.write_bytes(data)
        begin = time.monotonic()
        child = subprocess.run(
            [sys.executable, "-c", CHILD, str(file), f"{folder}/out.y4m"],
            capture_output=True, text=True, check=True,
        )  # fmt: skip
        decoded = time.monotonic() - begin
    save("priors/nano_speed", {
        "frames": 33, "height": 256, "width": 256, "bytes": len(data), "cores": os.cpu_count(),
        "threads": torch.get_num_threads(), "encode_s": round(encoded, 1),
        "decode_s": round(decoded, 1),
        "decode_peak_mb": round(int(child.stdout.split()[-1]) / 1024),
    })  # fmt: skip
