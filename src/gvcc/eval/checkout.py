"""The test script of an author's checkout as an encoder, for the adapters in `adapters`.

    python -m gvcc.eval.checkout HOME SOURCE WIDTH HEIGHT FRAMES CODED KIND LEFT -- SCRIPT OPTIONS
    python -m gvcc.eval.checkout --kept CODED DECODED

Those scripts code the sequences of a JSON configuration and decode them in one go. The first form
makes a folder and a configuration of one sequence (KIND yuv420: SOURCE itself; png: its rgb24
frames as im00001.png ...), runs SCRIPT in HOME with @config, @streams and @output in its options
filled in, and takes the decoded frames from the folder @streams to CODED.decoded. CODED becomes
the .bin in @streams where LEFT is `stream`, and where it is `count` the bits that the script
counted, as text. The second form is the decoder: it moves the decoded frames where they are wanted.

The Python that runs SCRIPT is $GVCC_CHECKOUT_PYTHON, or `python` of the path: the authors' packages
are rarely those of gvcc.
"""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
import tempfile
from pathlib import Path

import numpy as np
from PIL import Image

from gvcc.files import write

_CLIPS = "clips"
KEPT = ".decoded"  # of CODED: where the decoded frames wait for the decoder


def encode(
    home: Path, source: Path, size: tuple[int, int, int], coded: Path, kind: str, left: str,
    words: list[str],
) -> None:  # fmt: skip
    """Run the script. `size`: width, height, frames. ValueError where it leaves something else
    than one stream or a count, and one video."""
    width, height, frames = size
    with tempfile.TemporaryDirectory() as name:
        work = Path(name)
        (work / _CLIPS).mkdir()
        # Of GLC's script a negative period means that every frame is intra, of DCVC's none is.
        period, clip = (frames, "clip") if kind == "png" else (-1, f"clip_{width}x{height}.yuv")
        if kind == "png":
            _write_pngs(source, width, height, work / _CLIPS / clip)
        else:
            (work / _CLIPS / clip).symlink_to(source.resolve())
        about = {"width": width, "height": height, "frames": frames, "intra_period": period}
        of_set = {"test": 1, "base_path": _CLIPS, "src_type": kind, "sequences": {clip: about}}
        config = {"root_path": str(work), "test_classes": {_CLIPS: of_set}}
        write(work / "config.json", json.dumps(config).encode())
        streams = work / "streams"
        # GLC's script expects the folder of its results to be there, DCVC's make it.
        (streams / _CLIPS).mkdir(parents=True)
        filled = {"@config": str(work / "config.json"), "@streams": str(streams),
                  "@output": str(work / "out/output.json")}  # fmt: skip
        python = os.environ.get("GVCC_CHECKOUT_PYTHON", "python")
        done = subprocess.run([python, *(filled.get(w, w) for w in words)], cwd=home,
                              stdout=sys.stderr)  # fmt: skip
        if done.returncode:
            raise ValueError(f"{words[0]} ended with {done.returncode}")
        found = sorted(streams.rglob("*.bin"))
        if len(found) != (left == "stream"):
            raise ValueError(f"{words[0]} left {len(found)} streams")
        if found:
            shutil.copyfile(found[0], coded)
        else:
            write(coded, f"{_counted(work / 'out/output.json', about)}\n".encode())
        _keep(streams, kind, coded.with_name(coded.name + KEPT))


def _write_pngs(source: Path, width: int, height: int, folder: Path) -> None:
    folder.mkdir()
    raw = np.fromfile(source, np.uint8).reshape(-1, height, width, 3)
    for i, frame in enumerate(raw, 1):
        Image.fromarray(frame).save(folder / f"im{i:05d}.png", compress_level=1)


def _counted(path: Path, about: dict[str, int]) -> int:
    """The bits of the one sequence of a results file."""
    if not path.is_file():
        raise ValueError("the script left no results file")
    sequences = json.loads(path.read_text())[_CLIPS]
    (points,) = sequences.values()
    (point,) = points.values()
    pixels = about["width"] * about["height"] * about["frames"]
    return round(float(point["ave_all_frame_bpp"]) * pixels)


def _keep(streams: Path, kind: str, at: Path) -> None:
    pattern = "*.png" if kind == "png" else "*.yuv"
    found = sorted(streams.rglob(pattern))
    if not found or (kind != "png" and len(found) > 1):
        raise ValueError(f"the script left {len(found)} decoded {pattern}")
    if kind == "png":
        frames = (np.asarray(Image.open(p).convert("RGB")).tobytes() for p in found)
        write(at, b"".join(frames))
    else:
        shutil.copyfile(found[0], at)


def main(words: list[str]) -> None:
    """See above; ends with a sentence on stderr and 1 where it cannot."""
    try:
        if words[0] == "--kept":
            coded = Path(words[1])
            shutil.copyfile(coded.with_name(coded.name + KEPT), words[2])
            return
        home, source, width, height, frames, coded_at, kind, left, _, *script = words
        size = (int(width), int(height), int(frames))
        encode(Path(home), Path(source), size, Path(coded_at), kind, left, script)
    except (OSError, ValueError, KeyError) as e:
        sys.exit(f"{type(e).__name__}: {e}")


if __name__ == "__main__":
    main(sys.argv[1:])
