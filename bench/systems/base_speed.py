"""Mode v2v without a trajectory: what its container costs, its time beside ffmpeg's, its memory ->
docs/results/systems/base_speed.json.

    python bench/systems/base_speed.py ../shared/data/eval/*.mp4

Bytes: each clip (256 lines, 33 frames) at four rates by each codec, beside the stream that the
encoder itself wrote at the same settings (as ffmpeg writes it: .obu, .vvc). Times, the least of
three, one clip, AV1: `gvcc encode` and `gvcc decode`, less the start of Python and its imports,
over one SVT-AV1 encode of the same preset by ffmpeg, and its decode to PNG. Memory: the peak of
`gvcc encode` and `decode` of 33 and of 1000 frames of 854x480 in one GOP.
"""

from __future__ import annotations

import argparse
import json
import os
import subprocess
import sys
import tempfile
import time
from fractions import Fraction
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parents[2]))

from bench.common import RESULTS, clip, least, save
from gvcc import priors
from gvcc.codec import encode
from gvcc.errors import TargetUnreachable
from gvcc.eval.clips import demo_clip
from gvcc.format import parser as reading
from gvcc.pictures import base as bases
from gvcc.pictures import enlarge, media, stillcodecs
from gvcc.records import Video
from gvcc.search.config import EncodeConfig

HEIGHT, FRAMES, RATES = 256, 33, (0.01, 0.02, 0.05, 0.1)
LONG, LINES = 1000, 480


def own_stream(data: bytes, height: int, width: int) -> int:
    """Bytes of the elementary streams of a file's bases, with all that was taken out."""
    total = 0
    for record in reading.parse(data).gops:
        base = record.base
        assert base is not None and base.sets is not None
        codec = bases.codec(base.codec)
        sets = codec.sets(base.sets, *enlarge.coded_sides(height, width, base.size))
        total += sum(map(len, codec.units(base.stream, sets)))
        if base.codec == "av1":  # a temporal delimiter of two bytes for each picture
            total += 2 * record.gop.frames
    return total


def command(*args: str | Path) -> tuple[float, float]:
    """Seconds and peak MiB of a command."""
    start = time.perf_counter()
    process = subprocess.Popen([*map(str, args)], stdout=subprocess.DEVNULL,
                               stderr=subprocess.DEVNULL)  # fmt: skip
    _, status, usage = os.wait4(process.pid, 0)
    assert status == 0, args
    return time.perf_counter() - start, usage.ru_maxrss / 1024


def gvcc(*args: str | Path) -> tuple[float, float]:
    return command(sys.executable, "-m", "gvcc", *args)


def speed(video: Video, folder: Path) -> dict[str, float]:
    """Times of one clip."""
    source, coded, out = folder / "a.y4m", folder / "a.gvcc", folder / "b.y4m"
    media.write(video, source)
    start = least(
        lambda: command(sys.executable, "-c", "import torch, gvcc.codec, gvcc.cli.encode")
    )
    options = ("--mode", "v2v", "--base", "av1", "--base-size", "1", "--bpp", "0.02", "-y")
    own = least(lambda: gvcc("encode", source, "-o", coded, *options)) - start
    back = least(lambda: gvcc("decode", coded, "-o", out, "-y")) - start
    ffmpeg, stream = stillcodecs.ffmpeg(), folder / "a.ivf"
    assert ffmpeg is not None
    theirs = least(lambda: command(
        ffmpeg, "-y", "-i", source, "-c:v", "libsvtav1", "-preset", "4", "-crf", "55",
        "-pix_fmt", "yuv420p10le", "-g", "1000", stream))  # fmt: skip
    png = least(lambda: command(ffmpeg, "-y", "-i", stream, folder / "%03d.png"))
    return {"start_s": start, "encode_s": own, "svt_s": theirs, "encode_ratio": own / theirs,
            "decode_s": back, "png_s": png, "decode_ratio": back / png}  # fmt: skip


def memory(folder: Path) -> list[dict[str, float]]:
    """Peaks of a short and of a long GOP."""
    short, rows = folder / "33.y4m", list[dict[str, float]]()
    media.write(Video(demo_clip(33, LINES, 854), Fraction(25)), short)
    ffmpeg = stillcodecs.ffmpeg()
    assert ffmpeg is not None
    for frames in (33, LONG):
        source, coded = folder / f"{frames}.y4m", folder / f"{frames}.gvcc"
        if frames != 33:
            command(ffmpeg, "-y", "-stream_loop", str(frames // 33), "-i", short,
                    "-frames:v", str(frames), source)  # fmt: skip
        options = ("--mode", "v2v", "--base", "av1", "--base-size", "1", "--bpp", "0.02",
                   "--gop", str(frames), "-y")  # fmt: skip
        _, up = gvcc("encode", source, "-o", coded, *options)
        _, down = gvcc("decode", coded, "-o", folder / "out.y4m", "-y")
        gops = len(reading.parse(coded.read_bytes()).gops)
        rows.append({"frames": frames, "gops": gops, "encode_mb": up, "decode_mb": down})
        print(rows[-1], flush=True)
    return rows


def bytes_of(path: Path, prior: priors.Prior) -> list[dict[str, object]]:
    """One clip's files beside the streams; a rate that a codec does not reach is left out."""
    video, rows = clip(path.stem, FRAMES, HEIGHT), list[dict[str, object]]()
    _, height, width, _ = video.frames.shape
    for codec in ("av1", "vvc"):
        for bpp in RATES:
            asked = EncodeConfig(mode="v2v", base=codec, base_size="1", bpp=bpp)
            try:
                data = encode(video, asked, prior).data
            except TargetUnreachable as e:
                print(path.stem, codec, bpp, e, flush=True)
                continue
            own = own_stream(data, height, width)
            rows.append({"clip": path.stem, "codec": codec, "bpp": bpp, "bytes": len(data),
                         "own_stream": own, "over": len(data) / own - 1})  # fmt: skip
            print(rows[-1], flush=True)
    return rows


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("clips", type=Path, nargs="+")
    parser.add_argument("--keep", action="store_true", help="measure no clip again")
    args = parser.parse_args()
    at = RESULTS / "systems/base_speed.json"
    before = json.loads(at.read_text())["rows"] if args.keep and at.exists() else []
    with tempfile.TemporaryDirectory() as name:
        times = speed(clip(args.clips[0].stem, FRAMES, HEIGHT), Path(name))
        print(times, flush=True)
        peaks = memory(Path(name))
    prior, rows = priors.load("nano"), []
    for path in args.clips:
        kept = [r for r in before if r["clip"] == path.stem]
        rows += kept or bytes_of(path, prior)
    save("systems/base_speed", {
        "height": HEIGHT, "frames": FRAMES, "rows": rows, "times": times, "memory": peaks,
        "cores": os.cpu_count(),
    })  # fmt: skip
