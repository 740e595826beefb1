"""Temporal stability: what happens between consecutive frames, above all where two GOPs meet.

As in Fig. 3 of GVCC (arXiv 2603.26571): the mean absolute difference of consecutive frames along
the clip; a codec whose GOPs do not fit together shows a spike at each boundary.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray


def changes(frames: NDArray[np.uint8]) -> NDArray[np.float64]:
    """Mean absolute difference of each frame of [T,H,W,3] to the one before, in grey levels."""
    pairs = zip(frames, frames[1:], strict=False)
    return np.array([np.abs(b.astype(np.int16) - a).mean() for a, b in pairs])


def profile(
    source: NDArray[np.uint8], decoded: NDArray[np.uint8], starts: Sequence[int]
) -> dict[str, Any]:
    """Profiles of a decoded clip and of its source, and the spikes at its GOP boundaries.

    `starts` are the numbers of the frames that a new GOP shows first.

    `spikes`: with a_t and b_t the changes of source and decoded clip from frame t - 1 to t, the
    clip's own profile is c a_t, c the median of b / a away from the boundaries; a spike is
    b_t / (c a_t) at a boundary. (Where nothing moves, a_t is taken as a tenth of a grey level.)
    `error_spikes`: the same of e_t, the mean absolute error of the change itself (which sees a
    change of the right size in the wrong place), against its median away from the boundaries.
    `largest_inside` and `largest_error_inside` are the largest of both away from the boundaries.
    """
    a, b = changes(source), changes(decoded)
    ratio = b / np.maximum(a, 0.1)
    error = np.array([
        np.abs(_step(decoded, t) - _step(source, t)).mean() for t in range(1, len(source))
    ])  # fmt: skip
    at = np.array([s - 1 for s in starts], dtype=int)

    def against_median(v: NDArray[np.float64], least: float) -> tuple[list[float], float | None]:
        inside = np.delete(v, at)
        own = max(float(np.median(inside)), least) if len(inside) else 1.0
        top = round(float(inside.max() / own), 3) if len(inside) else None
        return [round(float(v[i] / own), 3) for i in at], top

    spikes, top = against_median(ratio, 1e-9)
    error_spikes, error_top = against_median(error, 0.1)
    return {
        "boundaries": [int(s) for s in starts],
        "spikes": spikes,
        "largest_inside": top,
        "error_spikes": error_spikes,
        "largest_error_inside": error_top,
        "source_profile": [round(float(v), 3) for v in a],
        "decoded_profile": [round(float(v), 3) for v in b],
        "error_profile": [round(float(v), 3) for v in error],
    }


def _step(frames: NDArray[np.uint8], t: int) -> NDArray[np.int16]:
    out: NDArray[np.int16] = frames[t].astype(np.int16) - frames[t - 1]
    return out
