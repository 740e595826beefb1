"""Quality of a decoded clip against its original.

Every function takes two clips `ref` (original) and `out` (decoded): uint8 RGB `[T,H,W,3]`, full
range, the same shape. Frames are paired by their index and by nothing else: pairing by timestamp
silently compares neighbours (69.9 in place of 88.2 VMAF for one file).

All raise `ConfigError` where the clips are no such arrays, where their shapes differ, or where the
package that a metric needs is not installed.
"""

from __future__ import annotations

import importlib
import json
import math
import os
import subprocess
import tempfile
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from fractions import Fraction
from pathlib import Path
from types import ModuleType
from typing import Any, TypeVar

import numpy as np
import numpy.typing as npt

from gvcc.errors import ConfigError, MediaError

Frames = npt.NDArray[np.uint8]
_Score = TypeVar("_Score")

PSNR_CAP_DB = 100.0
VMAF_MODELS = {"vmaf": "vmaf_v0.6.1", "vmaf_neg": "vmaf_v0.6.1neg"}

# Five scales with an 11-tap window: pytorch_msssim asserts that the shorter side is above 160.
_MS_SSIM_MIN_SIDE = 161
# libvmaf ends with a segmentation fault at 16 pixels or fewer (measured, FFmpeg 9.0.2).
_VMAF_MIN_SIDE = 17
# MS-SSIM takes about 300 bytes per pixel of a batch: 2 Mpixel, one frame of 1080p, are 0.6 GB.
_MS_SSIM_BATCH_PIXELS = 1 << 21

# Farneback's optical flow with the parameters of TecoGAN's tOF, by OpenCV's names.
FARNEBACK = {
    "pyr_scale": 0.5,  # each level of the pyramid has half the sides of the one below
    "levels": 3,  # above the full size, at most: none with a side below 32 pixels
    "winsize": 15,  # side of the window, in pixels, within which the motion counts as one
    "iterations": 3,  # at each level
    "poly_n": 5,  # neighbourhood to which a quadratic polynomial is fitted, in pixels
    "poly_sigma": 1.2,  # the Gaussian weight of that fit
    "flags": 0,  # neither an initial flow nor a Gaussian window
}
# The side of the window. OpenCV takes smaller pictures too, but its flow is then not the motion:
# texture moved by one pixel gives a mean error of at most 0.04 pixels at 15x15, but up to 0.2 at
# 11x11 and 2.5 at 6x6, and 4x4 gives no flow at all (measured, 40 random textures, OpenCV 5.0.0).
TOF_MIN_SIDE = 15


class _MissingExtra(ConfigError):
    """An optional package is not installed."""


@dataclass(frozen=True)
class Temporal:
    """How the change from frame to frame compares with that of the original.

    `error`: mean of |(out[t+1] - out[t]) - (ref[t+1] - ref[t])| over all consecutive pairs, pixels
    and channels, in grey levels (0..510). 0 means that the error of the picture, whatever it is,
    does not move; flicker raises it.

    `activity_ratio`: mean |out[t+1] - out[t]| over mean |ref[t+1] - ref[t]|. Above 1 the decoded
    clip flickers, below 1 it is smoother or more static. None where the original never changes.
    """

    error: float
    activity_ratio: float | None


def check_pair(ref: Frames, out: Frames) -> tuple[int, int, int]:
    """T, H, W of the pair; `ConfigError` unless both are uint8 `[T,H,W,3]` of one shape."""
    for name, clip in (("original", ref), ("decoded clip", out)):
        if clip.dtype != np.uint8 or clip.ndim != 4 or clip.shape[3] != 3 or clip.size == 0:
            raise ConfigError(
                f"the {name} is {clip.dtype} {list(clip.shape)}; "
                "it must be uint8 [T,H,W,3] and not empty"
            )
    if ref.shape != out.shape:
        (t0, h0, w0, _), (t1, h1, w1, _) = ref.shape, out.shape
        raise ConfigError(
            f"the original has {t0} frames of {w0}x{h0}, the decoded clip {t1} of {w1}x{h1}; "
            "both must have the same frames and size"
        )
    return ref.shape[0], ref.shape[1], ref.shape[2]


def psnr(ref: Frames, out: Frames) -> float:
    """Mean over frames of the RGB PSNR, in dB.

    Per frame 10 log10(255^2 / mse), the mean squared error being taken over all pixels and the
    three channels. A frame counts 100 dB at most, and so does one without any error: one exact
    frame would otherwise make the mean infinite.
    """
    check_pair(ref, out)
    return float(np.mean([frame_psnr(a, b) for a, b in zip(ref, out, strict=True)]))


def frame_psnr(ref: Frames, out: Frames) -> float:
    """RGB PSNR in dB of one pair of frames `[H,W,3]`, at most 100 dB; see `psnr`."""
    if ref.shape != out.shape:
        raise ConfigError(f"the frames differ in shape: {ref.shape} and {out.shape}")
    difference = ref.astype(np.int32) - out
    squares = int(np.sum(difference * difference, dtype=np.int64))
    if squares == 0:
        return PSNR_CAP_DB
    return min(PSNR_CAP_DB, 10 * math.log10(255**2 * difference.size / squares))


def ms_ssim(ref: Frames, out: Frames) -> float | None:
    """Mean over frames of the MS-SSIM of the RGB channels: 1 is identical.

    pytorch-msssim's definition (five scales, 11-tap Gaussian window, float32) on the CPU. None
    where the shorter side is 160 pixels or less, for which five scales do not exist.
    """
    frames, height, width = check_pair(ref, out)
    if min(height, width) < _MS_SSIM_MIN_SIDE:
        return None
    module = require("pytorch_msssim", "pytorch-msssim")
    import torch

    def planes(clip: Frames) -> torch.Tensor:
        return torch.from_numpy(np.ascontiguousarray(clip.transpose(0, 3, 1, 2))).float()

    batch = max(1, _MS_SSIM_BATCH_PIXELS // (height * width))
    total = 0.0
    with torch.inference_mode():
        for start in range(0, frames, batch):
            part = slice(start, start + batch)
            scores = module.ms_ssim(
                planes(ref[part]), planes(out[part]), data_range=255, size_average=False
            )
            total += float(scores.double().sum())
    return total / frames


def vmaf(ref: Frames, out: Frames, fps: float | Fraction) -> float | None:
    """VMAF alone; see `vmafs`."""
    found = vmafs(ref, out, fps)
    return None if found is None else found[0]


def vmafs(ref: Frames, out: Frames, fps: float | Fraction) -> tuple[float, float] | None:
    """Means over frames of VMAF and VMAF NEG (vmaf_v0.6.1 and vmaf_v0.6.1neg, built into the ffmpeg
    of imageio-ffmpeg): 0..100. NEG does not count what sharpening gains beyond the original, by
    which plain VMAF is fooled.

    `fps` in frames per second. The clips go to ffmpeg as raw video of that one constant rate, so
    that frame n meets frame n, and are turned into BT.709 limited-range YUV there. 2*T*H*W*3 bytes
    of temporary files are written. An identical clip scores between 97 and 100, not 100: the model
    ends there for content with little motion. None where a side is 16 pixels or less, which
    libvmaf cannot take.

    Raises `ConfigError` for a rate that is not above 0, and `MediaError` with the words of ffmpeg
    where it fails.
    """
    frames, height, width = check_pair(ref, out)
    try:
        rate = Fraction(fps).limit_denominator(1001)
    except (ValueError, OverflowError):
        rate = Fraction(0)
    if rate <= 0:
        raise ConfigError(f"fps is {fps}; it must be a finite number above 0")
    if min(height, width) < _VMAF_MIN_SIDE:
        return None
    module = require("imageio_ffmpeg", "imageio-ffmpeg")
    try:
        ffmpeg = module.get_ffmpeg_exe()
    except RuntimeError as error:
        raise MediaError(f"imageio-ffmpeg finds no ffmpeg: {error}") from error

    source = f"-f rawvideo -pix_fmt rgb24 -video_size {width}x{height} -framerate {rate}".split()
    # VMAF reads luma alone, so 4:4:4 gives the scores of 4:2:0 and takes odd sizes as they are.
    to_yuv = "scale=in_range=full:out_range=limited:out_color_matrix=bt709,format=yuv444p"
    models = "|".join(f"version={name}\\\\:name={key}" for key, name in VMAF_MODELS.items())
    graph = (
        f"[0:v]{to_yuv}[out];[1:v]{to_yuv}[ref];[out][ref]libvmaf=model={models}"
        f":n_threads={min(os.cpu_count() or 1, 8)}:log_fmt=json:log_path=vmaf.json"
    )
    with tempfile.TemporaryDirectory(prefix="gvcc-vmaf-") as folder:
        try:
            out.tofile(Path(folder, "out.rgb"))
            ref.tofile(Path(folder, "ref.rgb"))
            # Names relative to the folder: a path inside a filter graph would need escaping.
            run = subprocess.run(
                [ffmpeg, "-v", "error", "-nostdin", *source, "-i", "out.rgb"]
                + [*source, "-i", "ref.rgb", "-lavfi", graph, "-f", "null", "-"],
                cwd=folder,
                capture_output=True,
                text=True,
                errors="replace",
            )
        except OSError as error:
            raise MediaError(f"VMAF cannot be run: {error}") from error
        log = Path(folder, "vmaf.json")
        if run.returncode != 0 or not log.is_file():
            words = run.stderr.strip() or "it said nothing"
            raise MediaError(f"VMAF failed, {ffmpeg} exit status {run.returncode}: {words}")
        report = json.loads(log.read_text())
    if len(report["frames"]) != frames:
        raise MediaError(f"VMAF scored {len(report['frames'])} frames of {frames}")
    plain, neg = (float(report["pooled_metrics"][key]["mean"]) for key in VMAF_MODELS)
    return plain, neg


def temporal(ref: Frames, out: Frames) -> Temporal | None:
    """Temporal consistency, as defined in `Temporal`; None for a single frame."""
    frames, height, width = check_pair(ref, out)
    if frames == 1:
        return None
    error = activity_ref = activity_out = 0
    for t in range(frames - 1):
        change_ref = ref[t + 1].astype(np.int16) - ref[t]
        change_out = out[t + 1].astype(np.int16) - out[t]
        error += int(np.abs(change_out - change_ref).sum(dtype=np.int64))
        activity_ref += int(np.abs(change_ref).sum(dtype=np.int64))
        activity_out += int(np.abs(change_out).sum(dtype=np.int64))
    return Temporal(
        error=error / ((frames - 1) * height * width * 3),
        activity_ratio=activity_out / activity_ref if activity_ref else None,
    )


def tof(ref: Frames, out: Frames) -> float | None:
    """tOF: how far the motion of the decoded clip is from that of the original, in pixels.

    Mean length of flow(ref[t], ref[t+1]) - flow(out[t], out[t+1]) over all consecutive pairs and
    pixels, the flow being Farneback's, by OpenCV, of the 8-bit grey pictures (BT.601 weights). 0
    means the same motion; still frames in place of a motion by n pixels give n. Where there is no
    texture there is no flow, and so no error.

    The flow, its parameters and the grey are those of TecoGAN's tOF (arXiv 1811.09393), whose
    script also leaves out the border and two frames at each end. Threads do not change the result.

    None for a single frame, and where a side is below 15 pixels, for which the flow is not to be
    trusted.
    """
    frames, height, width = check_pair(ref, out)
    if frames == 1 or min(height, width) < TOF_MIN_SIDE:
        return None
    cv2 = require("cv2", "opencv-python-headless")

    def flows(clip: Frames) -> Iterator[npt.NDArray[np.float32]]:
        # One pair at a time: a flow takes 8 bytes per pixel, the pictures of a pair 2.
        before = cv2.cvtColor(clip[0], cv2.COLOR_RGB2GRAY)
        for picture in clip[1:]:
            now = cv2.cvtColor(picture, cv2.COLOR_RGB2GRAY)
            yield cv2.calcOpticalFlowFarneback(before, now, None, **FARNEBACK)
            before = now

    total = 0.0
    for flow_ref, flow_out in zip(flows(ref), flows(out), strict=True):
        off = (flow_out - flow_ref).astype(np.float64)
        total += float(np.hypot(off[..., 0], off[..., 1]).sum())
    return total / ((frames - 1) * height * width)


def compare(ref: Frames, out: Frames, fps: float | Fraction) -> dict[str, Any]:
    """All metrics of a pair of clips, ready for JSON.

    Keys, always present: `psnr_rgb_db`, `ms_ssim`, `vmaf`, `vmaf_neg`, `temporal_error` (grey
    levels), `temporal_activity_ratio`, `tof` (pixels), `frames`, `width`, `height`, `notes`. A
    metric that could not be computed is None, and the list `notes` has a sentence for each saying
    why; a missing package or an ffmpeg that fails therefore does not lose the other numbers.
    """
    frames, height, width = check_pair(ref, out)
    notes: list[str] = []

    def attempt(key: str, least: int, measure: Callable[[], _Score | None]) -> _Score | None:
        try:
            score = measure()
        except (_MissingExtra, MediaError) as error:
            notes.append(f"{key}: {error}")
            return None
        if score is None:
            notes.append(f"{key}: needs sides of at least {least}, the clip is {width}x{height}")
        return score

    structure = attempt("ms_ssim", _MS_SSIM_MIN_SIDE, lambda: ms_ssim(ref, out))
    fused = attempt("vmaf, vmaf_neg", _VMAF_MIN_SIDE, lambda: vmafs(ref, out, fps))
    steady = temporal(ref, out)
    motion = None
    if steady is None:
        notes.append("temporal_error, temporal_activity_ratio, tof: need at least two frames")
    else:
        if steady.activity_ratio is None:
            notes.append("temporal_activity_ratio: the original does not change")
        motion = attempt("tof", TOF_MIN_SIDE, lambda: tof(ref, out))
    return {
        "psnr_rgb_db": psnr(ref, out),
        "ms_ssim": structure,
        "vmaf": fused and fused[0],
        "vmaf_neg": fused and fused[1],
        "temporal_error": steady.error if steady else None,
        "temporal_activity_ratio": steady.activity_ratio if steady else None,
        "tof": motion,
        "frames": frames,
        "width": width,
        "height": height,
        "notes": notes,
    }


def require(module: str, package: str) -> ModuleType:
    try:
        return importlib.import_module(module)
    except ImportError as error:
        raise _MissingExtra(
            f"the package {package} is missing: pip install 'gvcc[eval]'"
        ) from error
