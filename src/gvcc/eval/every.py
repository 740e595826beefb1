"""Every metric of a pair of clips; what cannot be computed says why."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from fractions import Fraction
from functools import partial
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from gvcc.errors import GvccError, unknown
from gvcc.eval.temporal import changes
from gvcc.metrics import metrics, perceptual
from gvcc.metrics.metrics import Frames, check_pair

Rate = float | Fraction  # frames per second
Numbers = tuple[float | None, ...]


@dataclass(frozen=True)
class Measured:
    """`values`: a number for each name asked for, in the order of NAMES, or None.
    `not_computed`: for each None, a sentence saying why."""

    values: dict[str, float | None]
    not_computed: dict[str, str]


class _Job(NamedTuple):
    """Metrics that are computed together; what it means where one of them comes out as None."""

    names: tuple[str, ...]
    compute: Callable[[Frames, Frames, Rate, str], Numbers]
    undefined: str = "not defined for {frames} frame(s) of {width}x{height}"
    strided: bool = False  # a mean over frames that may as well be that of some of them


def yuv_psnr(ref: Frames, out: Frames) -> tuple[float, float, float, float]:
    """PSNR in dB of Y, U and V, and (6 Y + U + V) / 8 as JCT-VC weights them for 4:2:0; means over
    frames, of 100 dB at most each as `metrics.psnr` has it.

    RGB is converted by BT.709 to the 8-bit limited range (Y 16..235, U and V 16..240), peak 255,
    and not rounded. 4:2:0: U and V are means of 2x2 pixels, an odd last row or column being doubled
    first. A codec's own YUV, rounded and filtered, gives other numbers.
    """
    check_pair(ref, out)
    found = []
    for a, b in zip(ref, out, strict=True):
        # The conversion is linear: the difference is converted, and its offset is 0.
        planes = _yuv(a.astype(np.float64) - b)
        found.append([_psnr(float(np.square(plane).mean())) for plane in planes])
    y, u, v = (float(n) for n in np.mean(found, axis=0))
    return y, u, v, (6 * y + u + v) / 8


def _yuv(rgb: NDArray[np.float64]) -> list[NDArray[np.float64]]:
    """Y [H,W], U and V [ceil(H/2),ceil(W/2)] of RGB [H,W,3], without the offsets 16 and 128."""
    luma = rgb @ np.array([0.2126, 0.7152, 0.0722])
    height, width = luma.shape
    found = [luma * 219 / 255]
    for channel, weight in ((2, 0.0722), (0, 0.2126)):
        plane = (rgb[..., channel] - luma) / (2 - 2 * weight) * 224 / 255
        plane = np.pad(plane, ((0, height % 2), (0, width % 2)), mode="edge")
        found.append(plane.reshape(len(plane) // 2, 2, -1, 2).mean((1, 3)))
    return found


def _psnr(square: float) -> float:
    if square <= 255**2 * 10 ** (-metrics.PSNR_CAP_DB / 10):
        return metrics.PSNR_CAP_DB
    return 10 * math.log10(255**2 / square)


def _steady(ref: Frames, out: Frames, fps: Rate, device: str) -> Numbers:
    found = metrics.temporal(ref, out)
    return (found.error, found.activity_ratio) if found else (None, None)


def _lpips(net: str) -> Callable[[Frames, Frames, Rate, str], Numbers]:
    return lambda ref, out, fps, device: (perceptual.lpips(ref, out, net, device),)


def _dists(ref: Frames, out: Frames, fps: Rate, device: str) -> Numbers:
    return (perceptual.dists(ref, out, device),)


def _vmafs(ref: Frames, out: Frames, fps: Rate, device: str) -> Numbers:
    return metrics.vmafs(ref, out, fps) or (None, None)


def _ewarp(ref: Frames, out: Frames, fps: Rate, device: str) -> Numbers:
    from gvcc.metrics import warp

    return (warp.ewarp(ref, out, device),)


_NO_MOTION = "nowhere a motion to be trusted in {frames} frame(s) of {width}x{height}"
_JOBS = (
    _Job(("psnr_rgb_db",), lambda ref, out, fps, device: (metrics.psnr(ref, out),)),
    _Job(
        ("psnr_y_db", "psnr_u_db", "psnr_v_db", "psnr_yuv_db"),
        lambda ref, out, fps, device: yuv_psnr(ref, out),
    ),
    _Job(("ms_ssim",), lambda ref, out, fps, device: (metrics.ms_ssim(ref, out),)),
    _Job(("vmaf", "vmaf_neg"), _vmafs),
    _Job(("tof",), lambda ref, out, fps, device: (metrics.tof(ref, out),)),
    _Job(
        ("temporal_error", "temporal_activity_ratio"),
        _steady,
        "not defined for a single frame, nor the ratio where the original does not change",
    ),
    _Job(("lpips_alex",), _lpips("alex"), strided=True),
    _Job(("lpips_vgg",), _lpips("vgg"), strided=True),
    _Job(("dists",), _dists, strided=True),
    _Job(("ewarp",), _ewarp, _NO_MOTION),
)

NAMES = tuple(name for job in _JOBS for name in job.names)
"""Of the metrics of a pair, in the order in which they are reported."""
SET_NAMES = ("fid_256", "kid_256")
"""Of the metrics of a set of pairs (eval.inception)."""


def measure(
    ref: Frames,
    out: Frames,
    fps: Rate,
    device: str = "cpu",
    which: Sequence[str] | None = None,
    stride: int = 1,
) -> Measured:
    """The metrics NAMES, or those of them in `which`, of two uint8 clips [T,H,W,3]; LPIPS and DISTS
    of every `stride`-th frame, from the first.

    `fps` in frames per second, of which VMAF alone makes use; `device` is where the networks run
    (LPIPS, DISTS, RAFT). Units: dB for PSNR, VMAF 0..100, pixels for `tof`, grey levels for
    `temporal_error`, squared errors of pixels in [0, 1] for `ewarp`; each is explained where it is
    computed. A metric that lacks its weights or package, is not defined for the clip, or fails in
    whatever way, is None and has a sentence in `not_computed`. ConfigError for a name that is none,
    and for clips that are no pair.
    """
    for name in which or ():
        if name not in NAMES:
            raise unknown("metric", name, NAMES)
    frames, height, width = check_pair(ref, out)
    wanted = NAMES if which is None else tuple(which)
    values: dict[str, float | None] = {}
    reasons: dict[str, str] = {}
    for job in _JOBS:
        names = [name for name in job.names if name in wanted]
        if not names:
            continue
        undefined = job.undefined.format(frames=frames, height=height, width=width)
        pair = (ref[::stride], out[::stride]) if job.strided else (ref, out)
        numbers, reason = _attempt(partial(job.compute, *pair, fps, device))
        found = dict(zip(job.names, numbers or (), strict=False))
        _note({name: found.get(name) for name in names}, reason or undefined, values, reasons)
    return Measured(values, reasons)


def _attempt(compute: Callable[[], Numbers]) -> tuple[Numbers | None, str]:
    """What is computed, or None and why not."""
    try:
        return compute(), ""
    # One metric must not lose the others, least of all after an hour of decoding.
    except Exception as error:
        words = (str(error).strip().splitlines() or [""])[0]
        if isinstance(error, GvccError):
            return None, words
        return None, f"failed with {type(error).__name__}: {words}".rstrip(": ")


def _note(
    found: dict[str, float | None],
    reason: str,
    values: dict[str, float | None],
    reasons: dict[str, str],
) -> None:
    """Enter numbers, and the reason of each that is none or not finite (JSON has no NaN)."""
    for name, number in found.items():
        finite = number is not None and math.isfinite(number)
        values[name] = number if finite else None
        if not finite:
            reasons[name] = reason


def profile(ref: Frames, out: Frames) -> dict[str, list[float]]:
    """The course of two uint8 clips [T,H,W,3], frame by frame.

    `psnr_db` [T]: RGB PSNR of each frame, in dB. `change` and `change_source` [T-1]: the mean
    absolute change of the decoded clip and of the original to the next frame, in grey levels.
    """
    check_pair(ref, out)
    return {
        "psnr_db": [metrics.frame_psnr(a, b) for a, b in zip(ref, out, strict=True)],
        "change": changes(out).tolist(),
        "change_source": changes(ref).tolist(),
    }
