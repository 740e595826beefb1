"""E_warp: what changes between the frames of a decoded clip beside the motion of the original.

Lai et al. 2018 ("Learning Blind Video Temporal Consistency", section 4 and its evaluation code):
the next frame is warped back to this one by the flow, and compared where the flow is to be trusted.
The flow is that of the original, so that a codec cannot gain by moving in another way.
"""

from __future__ import annotations

from collections.abc import Callable
from functools import partial

import numpy as np
from numpy.typing import NDArray

from gvcc.metrics.metrics import Clip, check_pair

Picture = NDArray[np.uint8]  # RGB [H,W,3]
Floats = NDArray[np.float32]
Flow = Callable[[Picture, Picture], Floats]
"""[H,W,2], x then y in pixels: what the first picture shows at p, the second shows at p + flow."""


def ewarp(ref: Clip, out: Clip, device: str = "cpu") -> float | None:
    """E_warp of two uint8 clips [T,H,W,3] by RAFT.

    Mean squared error, the pixels' range being [0, 1]: multiply by 255^2 for grey levels. None as
    `error` has it. ConfigError if RAFT's weights are not on this machine.
    """
    from gvcc.metrics import raft

    return error(ref, out, partial(raft.flow, device=device))


def error(ref: Clip, out: Clip, flow: Flow) -> float | None:
    """E_warp with any flow: the mean over pairs of frames of

        sum_p M(p) |out[t](p) - out[t+1](p + f(p))|^2 / sum_p M(p),

    f the flow from ref[t] to ref[t+1], |.|^2 the mean over the channels, M 1 where `visible`. None
    for a single frame, and where nothing is visible in any pair.
    """
    check_pair(ref, out)
    found = []
    for t in range(len(ref) - 1):
        forward, backward = flow(ref[t], ref[t + 1]), flow(ref[t + 1], ref[t])
        mask = visible(forward, backward)
        if mask.any():
            now, after = (out[i].astype(np.float32) for i in (t, t + 1))
            off = (warped(after, forward) - now)[mask] / 255
            found.append(float(np.square(off).mean(dtype=np.float64)))
    return float(np.mean(found)) if found else None


def visible(forward: Floats, backward: Floats) -> NDArray[np.bool_]:
    """Where [H,W] a flow [H,W,2] is to be trusted, by the flow back, b(p) = backward(p + f(p)):

        |f + b|^2 <= 0.01 (|f|^2 + |b|^2) + 0.5    (else the point is hidden in the next frame),
        |grad f_x|^2 + |grad f_y|^2 <= 0.01 |f|^2 + 0.002    (else motions meet here).

    Both as Lai et al. take them, from Ruder et al. 2016. Points that leave the picture are not
    visible either; there Lai et al. take the nearest one inside.
    """
    height, width = forward.shape[:2]
    back = warped(backward, forward)
    size = np.square(forward).sum(2)
    meets = np.square(forward + back).sum(2) <= 0.01 * (size + np.square(back).sum(2)) + 0.5
    slope = np.zeros_like(size)
    slope[:, :-1] += np.square(np.diff(forward, axis=1)).sum(2)
    slope[:-1] += np.square(np.diff(forward, axis=0)).sum(2)
    x, y = _targets(forward)
    inside = (x >= 0) & (x <= width - 1) & (y >= 0) & (y <= height - 1)
    found: NDArray[np.bool_] = meets & (slope <= 0.01 * size + 0.002) & inside
    return found


def warped(picture: Floats, flow: Floats) -> Floats:
    """picture(p + flow(p)) of a picture [H,W,C], bilinear; outside of it, the nearest inside."""
    height, width = picture.shape[:2]
    x, y = _targets(flow)
    x, y = x.clip(0, width - 1), y.clip(0, height - 1)
    left, top = np.floor(x).astype(int), np.floor(y).astype(int)
    right, bottom = np.minimum(left + 1, width - 1), np.minimum(top + 1, height - 1)
    along, down = (x - left).astype(np.float32)[..., None], (y - top).astype(np.float32)[..., None]
    above = picture[top, left] * (1 - along) + picture[top, right] * along
    below = picture[bottom, left] * (1 - along) + picture[bottom, right] * along
    found: Floats = above * (1 - down) + below * down
    return found


def _targets(flow: Floats) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    y, x = np.mgrid[: flow.shape[0], : flow.shape[1]]
    return x + flow[..., 0].astype(np.float64), y + flow[..., 1].astype(np.float64)
