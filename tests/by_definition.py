"""Metrics of two uint8 clips [T,H,W,3] by their definitions, with nothing of gvcc."""

from __future__ import annotations

import json
import subprocess
from pathlib import Path

import cv2
import imageio_ffmpeg
import numpy as np
from scipy.ndimage import convolve1d, map_coordinates

Clip = np.ndarray
FARNEBACK = (None, 0.5, 3, 15, 3, 5, 1.2, 0)


def psnr(ref: Clip, out: Clip) -> float:
    """RGB, mean over frames."""
    squares = (np.float64(ref) - out) ** 2
    return float(np.mean(10 * np.log10(255**2 / squares.mean((1, 2, 3)))))


def yuv_psnr(ref: Clip, out: Clip) -> tuple[float, float, float]:
    """Y, U and V of BT.709 limited range, chroma of 2x2 pixels; of even sizes."""
    luma = np.array([0.2126, 0.7152, 0.0722])
    off = np.float64(ref) - out
    y = off @ luma
    u, v = ((off[..., c] - y) / (2 * (1 - luma[c])) * 224 / 255 for c in (2, 0))
    t, h, w = y.shape
    u, v = (p.reshape(t, h // 2, 2, w // 2, 2).mean((2, 4)) for p in (u, v))
    planes = (y * 219 / 255, u, v)
    y_db, u_db, v_db = (float(np.mean(10 * np.log10(255**2 / (p**2).mean((1, 2))))) for p in planes)
    return y_db, u_db, v_db


def ms_ssim(ref: Clip, out: Clip) -> float:
    """Wang, Simoncelli, Bovik 2003, mean over frames and channels; of sides that halve evenly."""
    pairs = ((ref[t, ..., c], out[t, ..., c]) for t in range(len(ref)) for c in range(3))
    return float(np.mean([_ms_ssim(x, y) for x, y in pairs]))


def _ms_ssim(ref: np.ndarray, out: np.ndarray) -> float:
    taps = np.exp(-((np.arange(11) - 5.0) ** 2) / (2 * 1.5**2))
    taps /= taps.sum()

    def smooth(plane: np.ndarray) -> np.ndarray:
        return convolve1d(convolve1d(plane, taps, 0), taps, 1)[5:-5, 5:-5]

    x, y = ref.astype(np.float64), out.astype(np.float64)
    c1, c2 = (0.01 * 255) ** 2, (0.03 * 255) ** 2
    score = 1.0
    for level, weight in enumerate((0.0448, 0.2856, 0.3001, 0.2363, 0.1333)):
        if level > 0:
            x, y = (p.reshape(p.shape[0] // 2, 2, -1, 2).mean((1, 3)) for p in (x, y))
        mx, my = smooth(x), smooth(y)
        vx, vy, vxy = smooth(x * x) - mx * mx, smooth(y * y) - my * my, smooth(x * y) - mx * my
        term = (2 * vxy + c2) / (vx + vy + c2)
        if level == 4:
            term = term * (2 * mx * my + c1) / (mx * mx + my * my + c1)
        score *= max(term.mean(), 0) ** weight
    return score


def vmaf(ref: Clip, out: Clip, fps: int, folder: Path, model: str = "vmaf_v0.6.1") -> float:
    """The long way: each clip to a 4:2:0 BT.709 y4m first, then both at one rate."""
    ffmpeg, (_, h, w, _) = imageio_ffmpeg.get_ffmpeg_exe(), ref.shape
    for name, pixels in (("ref", ref), ("out", out)):
        subprocess.run(
            f"{ffmpeg} -v error -f rawvideo -pix_fmt rgb24 -video_size {w}x{h} -framerate {fps} "
            "-i - -vf scale=in_range=full:out_range=limited:out_color_matrix=bt709 "
            f"-pix_fmt yuv420p {name}.y4m".split(),
            input=pixels.tobytes(), cwd=folder, check=True,
        )  # fmt: skip
    subprocess.run(
        f"{ffmpeg} -v error -r {fps} -i out.y4m -r {fps} -i ref.y4m -lavfi "
        f"libvmaf=model=version={model}:log_fmt=json:log_path=v.json -f null -".split(),
        cwd=folder, check=True,
    )  # fmt: skip
    mean: float = json.loads((folder / "v.json").read_text())["pooled_metrics"]["vmaf"]["mean"]
    return mean


def temporal(ref: Clip, out: Clip) -> tuple[float, float]:
    """Mean error of the changes from frame to frame, and their size over the original's."""
    a, b = (np.diff(c.astype(int), axis=0) for c in (ref, out))
    return float(np.abs(b - a).mean()), float(np.abs(b).sum() / np.abs(a).sum())


def grey(clip: Clip) -> np.ndarray:
    """0.299 R + 0.587 G + 0.114 B with the weights in 15 bits, as OpenCV has them: equal for all
    2^24 colours, where floating point differs in some by one level."""
    return ((clip @ np.array([9798, 19235, 3735]) + (1 << 14)) >> 15).astype(np.uint8)


def tof(ref: Clip, out: Clip) -> float:
    """Mean length of the difference of Farneback's flows."""
    flows = [
        np.stack([cv2.calcOpticalFlowFarneback(a, b, *FARNEBACK)
                  for a, b in zip(g, g[1:], strict=False)]).astype(np.float64)
        for g in map(grey, (ref, out))
    ]  # fmt: skip
    return float(np.linalg.norm(flows[0] - flows[1], axis=-1).mean())


def farneback(before: np.ndarray, after: np.ndarray) -> np.ndarray:
    """Farneback's flow [H,W,2] of the grey pictures."""
    flow: np.ndarray = cv2.calcOpticalFlowFarneback(grey(before), grey(after), *FARNEBACK)
    return flow


def ewarp(ref: Clip, out: Clip) -> float:
    """Lai et al. 2018 by Farneback's flow; points that leave the picture do not count."""
    y, x = np.mgrid[: ref.shape[1], : ref.shape[2]]
    levels, found = grey(ref), []
    for t in range(len(ref) - 1):
        there = cv2.calcOpticalFlowFarneback(levels[t], levels[t + 1], *FARNEBACK)
        back = cv2.calcOpticalFlowFarneback(levels[t + 1], levels[t], *FARNEBACK)
        at = np.stack([y + there[..., 1], x + there[..., 0]]).astype(np.float64)

        def moved(picture: np.ndarray, at: np.ndarray = at) -> np.ndarray:
            planes = np.moveaxis(picture.astype(np.float64), 2, 0)
            return np.stack([map_coordinates(p, at, order=1, mode="nearest") for p in planes], 2)

        back = moved(back)
        length = (there**2).sum(2)
        hidden = ((there + back) ** 2).sum(2) > 0.01 * (length + (back**2).sum(2)) + 0.5
        right, down = (np.diff(there, axis=a, append=np.take(there, [-1], a)) for a in (1, 0))
        edge = (right**2).sum(2) + (down**2).sum(2) > 0.01 * length + 0.002
        inside = (at >= 0).all(0) & (at[0] <= ref.shape[1] - 1) & (at[1] <= ref.shape[2] - 1)
        off = (moved(out[t + 1]) - out[t])[~hidden & ~edge & inside] / 255
        found.append((off**2).mean())
    return float(np.mean(found))
