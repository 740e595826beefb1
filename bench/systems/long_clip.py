"""Memory of encode and decode against the clip's length -> docs/results/systems/long_clip.json.

The built-in demonstration clip at 128x96, 200 and 2,000 frames (raw: 7 and 74 MB), prior gauss,
mode i2v, 8 steps, 0.05 bits per pixel. Peak resident memory of each process, as the kernel counts.
"""

from __future__ import annotations

import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from dataclasses import dataclass
from fractions import Fraction
from pathlib import Path
from typing import Any

sys.path.insert(0, str(Path(__file__).resolve().parents[2]))

import numpy as np

from bench.common import save
from gvcc.eval import clips
from gvcc.pictures import media
from gvcc.records import Audio, Colour

WIDTH, HEIGHT, LENGTHS, STEPS = 128, 96, (200, 2000), 8


@dataclass
class Loop:
    """A clip (records.Clip) of any length: 50 frames, there and back."""

    count: int
    frames: np.ndarray
    fps: Fraction = Fraction(24)
    colour: Colour = Colour()
    audio: Audio | None = None
    height: int = HEIGHT
    width: int = WIDTH

    def pictures(self) -> Iterator[np.ndarray]:
        for i in range(self.count):
            at = i % (2 * len(self.frames) - 2)
            yield self.frames[min(at, 2 * len(self.frames) - 2 - at)]


def measured(*arguments: str) -> dict[str, Any]:
    """Seconds and peak memory of a gvcc command, run by a process that has no other child."""
    begin = time.monotonic()
    code = (
        "import resource, subprocess, sys; subprocess.run(sys.argv[1:], check=True); "
        "print(resource.getrusage(resource.RUSAGE_CHILDREN).ru_maxrss)"
    )
    command = [sys.executable, "-c", code, sys.executable, "-m", "gvcc", *arguments]
    run = subprocess.run(command, capture_output=True, text=True, check=True)
    seconds = round(time.monotonic() - begin, 1)
    return {"seconds": seconds, "peak_mb": round(int(run.stdout.split()[-1]) / 1024, 1)}


def main() -> None:
    frames, rows = clips.demo_clip(50, HEIGHT, WIDTH), []
    with tempfile.TemporaryDirectory() as folder:
        source, coded, shown = (f"{folder}/{n}" for n in ("a.mp4", "a.gvcc", "b.mp4"))
        for count in LENGTHS:
            media.write(Loop(count, frames), source, overwrite=True)
            row: dict[str, Any] = {"frames": count, "raw_mb": count * WIDTH * HEIGHT * 3 / 1e6}
            row["encode"] = measured("encode", source, "-o", coded, "-y", "--prior", "gauss",
                                     "--mode", "i2v", "--bpp", "0.05",
                                     "--steps", str(STEPS))  # fmt: skip
            row["bytes"] = Path(coded).stat().st_size
            row["decode"] = measured("decode", coded, "-o", shown, "-y")
            row["decoded_frames"] = media.open_clip(shown).count
            rows.append(row)
            print(row, file=sys.stderr, flush=True)
    save("systems/long_clip", {"prior": "gauss", "width": WIDTH, "height": HEIGHT, "clips": rows})


if __name__ == "__main__":
    main()
