"""A test clip that needs no download: a camera moving over a photograph.

The photograph (600x400, a cup of coffee on a wooden table, CC0) lies inside scikit-image's wheel.
"""

from __future__ import annotations

import math
from pathlib import Path

import numpy as np
import numpy.typing as npt

from gvcc.errors import ConfigError, MediaError

_PHOTOGRAPH = "coffee.png"
# Camera path. Periods are in frames and prime to each other, so that the view never repeats in a
# clip of usual length; no point moves by more than 4.5 pixels per frame at 384x256.
_PAN_X_PERIOD, _PAN_Y_PERIOD, _ZOOM_PERIOD, _TURN_PERIOD = 139, 113, 127, 131
_PAN_REACH = 0.12  # of the width or height of the view
_ZOOM_NEAR, _ZOOM_FAR = 1.5, 1.15  # 1 shows as much of the photograph as fits
_TURN_DEGREES = 2.5


def demo_clip(frames: int = 33, height: int = 256, width: int = 384) -> npt.NDArray[np.uint8]:
    """A photograph under a smooth pan, zoom and slight rotation: uint8 RGB `[T,H,W,3]`.

    Every frame is resampled from the photograph at sub-pixel positions (cubic spline after a
    Gaussian that removes what the frame's grid cannot hold), so neighbouring frames differ as in
    filmed video. The same arguments give the same clip, and a shorter clip is the beginning of a
    longer one. Above about 520x350 the photograph is enlarged and the picture grows soft.

    Raises `ConfigError` for a size below 1 and where scikit-image or scipy are not installed,
    `MediaError` where scikit-image does not contain the photograph.
    """
    if min(frames, height, width) < 1:
        raise ConfigError(
            f"frames, height and width are {frames}, {height}, {width}; each must be at least 1"
        )
    try:
        from scipy import ndimage
    except ImportError as error:
        raise ConfigError("the package scipy is missing: pip install 'gvcc[eval]'") from error

    photograph = _read_photograph()
    high, wide = photograph.shape[:2]
    # Spline coefficients once: they commute with the Gaussian, which changes with the zoom.
    channels = [ndimage.spline_filter(photograph[..., c], order=3, mode="mirror") for c in range(3)]
    clip = np.empty((frames, height, width, 3), np.uint8)
    for t in range(frames):
        matrix, centre, step = _camera(t, (high, wide), (height, width))
        offset = centre - matrix @ np.array([(height - 1) / 2, (width - 1) / 2])
        sigma = 0.5 * math.sqrt(max(step * step - 1, 0.0))
        for c, coefficients in enumerate(channels):
            view = ndimage.affine_transform(
                ndimage.gaussian_filter(coefficients, sigma, mode="mirror"),
                matrix,
                offset,
                output_shape=(height, width),
                order=3,
                mode="mirror",
                prefilter=False,
            )
            clip[t, ..., c] = np.clip(np.rint(view), 0, 255)
    return clip


def _camera(
    t: int, photograph: tuple[int, int], view: tuple[int, int]
) -> tuple[npt.NDArray[np.float64], npt.NDArray[np.float64], float]:
    """Where frame `t` looks: view-to-photograph matrix, centre (row, column), pixels per pixel.

    `photograph` and `view` are (height, width). The view stays inside the photograph.
    """

    def wave(period: int) -> float:
        return math.sin(2 * math.pi * t / period)

    zoom = (_ZOOM_NEAR + _ZOOM_FAR) / 2 - (_ZOOM_NEAR - _ZOOM_FAR) / 2 * math.cos(
        2 * math.pi * t / _ZOOM_PERIOD
    )
    step = min(photograph[0] / view[0], photograph[1] / view[1]) / zoom
    angle = math.radians(_TURN_DEGREES) * wave(_TURN_PERIOD)
    cos, sin = math.cos(angle), math.sin(angle)
    matrix = step * np.array([[cos, sin], [-sin, cos]])
    half = np.abs(matrix) @ np.array(view) / 2
    room = np.maximum(np.array(photograph) / 2 - half, 0)
    reach = np.minimum(room, _PAN_REACH * step * np.array(view))
    centre = (np.array(photograph) - 1) / 2 + reach * np.array(
        [wave(_PAN_Y_PERIOD), wave(_PAN_X_PERIOD)]
    )
    return matrix, centre, step


def _read_photograph() -> npt.NDArray[np.float64]:
    """The photograph as float64 `[H,W,3]`, 0..255."""
    try:
        import skimage.data
        from PIL import Image
    except ImportError as error:
        raise ConfigError(
            "the package scikit-image is missing: pip install 'gvcc[eval]'"
        ) from error
    # Not skimage.data.coffee(): it would download where the file is missing.
    path = Path(skimage.data.data_dir, _PHOTOGRAPH)
    try:
        with Image.open(path) as image:
            return np.asarray(image.convert("RGB"), np.float64)
    except OSError as error:
        raise MediaError(f"scikit-image has no photograph to film: {error}") from error
