"""Stills: quality at fixed byte budgets, by codec; the presets behind the choice; seconds
-> docs/results/systems/stills.json.

Every clip's first frame at 256 lines. `x265` is the stream without parameter sets, as if a decoder
could derive them; `avif` is Pillow's file without its boxes (the mdat payload), so both are a
little better than a file could be. All bytes of `av1` and `vvc` count.
"""

from __future__ import annotations

import io
import sys
import time
from collections.abc import Callable
from fractions import Fraction
from pathlib import Path
from typing import Any

sys.path.insert(0, str(Path(__file__).resolve().parents[2]))

import av
import numpy as np
from numpy.typing import NDArray
from PIL import Image

from bench.common import CLIPS, clip, save
from gvcc.pictures import stillcodecs, stills

Coded = tuple[int, NDArray[np.uint8]]  # bytes, decoded picture
BUDGETS = (0.05, 0.1, 0.2, 0.4)  # bit/pixel
PRESETS = {"av1": ("4", "2", "1", "0"), "vvc": ("faster", "fast", "medium", "slow")}
QUANTISERS = {"av1": (96, 144, 184, 216, 252, 270), "vvc": (28, 34, 40, 46, 52, 58)}


def psnr(a: NDArray[np.uint8], b: NDArray[np.uint8]) -> float:
    return float(10 * np.log10(255**2 / np.mean((a.astype(float) - b) ** 2)))


def own(codec: str) -> Callable[[NDArray[np.uint8], int], Coded]:
    def code(picture: NDArray[np.uint8], size: int) -> Coded:
        stills._stream.cache_clear()
        data = stills.encode(picture, size, codec)
        return len(data), stills.decode(data, *picture.shape[:2])

    return code


def best(code: Callable[[int], Coded], size: int, qualities: range) -> Coded:
    """The last quality that fits; the first if none does. Sizes grow along `qualities`."""
    low, high = 0, len(qualities)
    found = code(qualities[0])
    while high - low > 1:
        middle = (low + high) // 2
        coded = code(qualities[middle])
        if coded[0] <= size:
            low, found = middle, coded
        else:
            high = middle
    return found


def x265(depth: int) -> Callable[[NDArray[np.uint8], int], Coded]:
    form = "yuv420p" if depth == 8 else "yuv420p10le"
    params = "log-level=none:info=0:keyint=1:pools=none:frame-threads=1"

    def code(picture: NDArray[np.uint8], size: int) -> Coded:
        height, width = picture.shape[:2]
        planes = stills.from_rgb(picture, depth)

        def at(qp: int) -> Coded:
            context = av.CodecContext.create("libx265", "w")
            context.width, context.height, context.pix_fmt = width, height, form
            context.time_base, context.thread_count = Fraction(1), 1
            context.options = {
                "preset": "veryslow",
                "tune": "psnr",
                "x265-params": f"qp={qp}:{params}",
            }
            frame = av.VideoFrame(width, height, form)
            split = stills._split(planes)
            for plane, samples in zip(frame.planes, split, strict=True):
                stride = plane.line_size // samples.itemsize
                rows = np.zeros((plane.height, stride), samples.dtype)
                rows[:, : samples.shape[1]] = samples
                plane.update(rows.tobytes())
            frame.pts = 0
            stream = b"".join(bytes(p) for p in [*context.encode(frame), *context.encode(None)])
            units = [u.rstrip(b"\0") for u in stream.split(b"\0\0\1")[1:]]
            length = sum(len(u) for u in units if u[0] >> 1 < 32)
            back = stillcodecs.decode_stream("hevc", depth, stream, height, width)
            return length, stills.to_rgb(back, depth)

        return best(at, size, range(51, 9, -1))

    return code


def avif(picture: NDArray[np.uint8], size: int) -> Coded:
    def at(quality: int) -> Coded:
        file = io.BytesIO()
        Image.fromarray(picture).save(
            file, "AVIF", quality=quality, speed=4, subsampling="4:2:0", max_threads=1
        )
        data = file.getvalue()
        return len(data) - data.index(b"mdat") - 4, np.asarray(Image.open(file).convert("RGB"))

    return best(at, size, range(0, 101))


CODERS = {
    "vvc": own("vvc"),
    "av1": own("av1"),
    "x265, 10 bit": x265(10),
    "x265, 8 bit": x265(8),
    "avif": avif,
}


def at_budgets(frames: dict[str, NDArray[np.uint8]]) -> list[dict[str, Any]]:
    rows = []
    for name, frame in frames.items():
        for coder, code in CODERS.items():
            for bpp in BUDGETS:
                size = int(bpp * frame.shape[0] * frame.shape[1] / 8)
                start = time.perf_counter()
                length, back = code(frame, size)
                seconds = time.perf_counter() - start
                rows.append(
                    {
                        "clip": name,
                        "codec": coder,
                        "bpp": bpp,
                        "budget": size,
                        "bytes": length,
                        "psnr": round(psnr(back, frame), 2),
                        "seconds": round(seconds, 2),
                    }
                )
    return rows


def means(rows: list[dict[str, Any]]) -> dict[str, Any]:
    """Over the clips where vvc, av1 and x265 met the budget: PSNR, and how much of it was used.

    None for a codec (avif) that missed it on one of them.
    """
    out: dict[str, Any] = {}
    for bpp in BUDGETS:
        here = [r for r in rows if r["bpp"] == bpp]
        over = [r for r in here if r["bytes"] > r["budget"]]
        missed = {r["clip"] for r in over if r["codec"] != "avif"}
        of = {c: [r for r in here if r["codec"] == c and r["clip"] not in missed] for c in CODERS}
        none = {r["codec"]: None for r in over if r["clip"] not in missed}
        out[str(bpp)] = {
            "clips": len(CLIPS) - len(missed),
            "psnr": {c: round(np.mean([r["psnr"] for r in rs]), 2) for c, rs in of.items()} | none,
            "used": {
                c: round(np.mean([r["bytes"] / r["budget"] for r in rs]), 3) for c, rs in of.items()
            }
            | none,
        }
    return out


def presets(frames: dict[str, NDArray[np.uint8]]) -> list[dict[str, Any]]:
    """PSNR at 0.1 and 0.2 bit/pixel between fixed quantisers, and seconds an encode."""
    rows = []
    for codec in stillcodecs.CODECS:
        for preset in PRESETS[codec.name]:
            quality, seconds = [], []
            for frame in frames.values():
                height, width = frame.shape[:2]
                planes = stills.from_rgb(frame, codec.depth)
                points = []
                for q in QUANTISERS[codec.name]:
                    start = time.perf_counter()
                    stream = codec.write(planes, preset, q)
                    seconds.append(time.perf_counter() - start)
                    bits = 8 * len(codec.pack(stream, height, width)) / (height * width)
                    back = stills.to_rgb(codec.read(stream, height, width), codec.depth)
                    points.append((np.log(bits), psnr(back, frame)))
                x, y = zip(*sorted(points), strict=True)
                quality.append([np.interp(np.log(b), x, y) for b in (0.1, 0.2)])
            low, high = np.mean(quality, 0)
            rows.append(
                {
                    "codec": codec.name,
                    "preset": preset,
                    "psnr at 0.1": round(low, 2),
                    "psnr at 0.2": round(high, 2),
                    "seconds an encode": round(np.mean(seconds), 2),
                }
            )
    return rows


def main() -> None:
    frames = {name: clip(name, 1).frames[0] for name in CLIPS}
    rows = at_budgets(frames)
    large = clip("davis_dog", 1, 480).frames[0]
    timed = {}
    for name in ("vvc", "av1"):
        start = time.perf_counter()
        CODERS[name](large, int(0.1 * large.shape[0] * large.shape[1] / 8))
        timed[name] = round(time.perf_counter() - start, 1)
    rgb = {
        name: {
            f"{d} bit": round(psnr(stills.to_rgb(stills.from_rgb(f, d), d), f), 2) for d in (8, 10)
        }
        for name, f in frames.items()
    }
    save(
        "systems/stills",
        {
            "mean": means(rows),
            "presets": presets(frames),
            "seconds, davis_dog at 480 lines, 0.1 bpp": timed,
            "psnr of the colour conversion alone": rgb,
            "rows": rows,
        },
    )


if __name__ == "__main__":
    main()
