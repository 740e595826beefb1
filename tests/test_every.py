"""Every metric at once: each number is that of its definition, and what is missing says why."""

from __future__ import annotations

import math
from pathlib import Path

import by_definition
import numpy as np
import pytest
from scipy.ndimage import gaussian_filter

from gvcc.errors import ConfigError
from gvcc.eval import every
from gvcc.eval.clips import demo_clip
from gvcc.metrics import metrics, perceptual, raft, warp
from gvcc.pictures.colour import to_yuv

pytestmark = pytest.mark.usefixtures("one_thread")

BY_WEIGHTS = ["lpips_alex", "lpips_vgg", "dists", "ewarp"]


@pytest.fixture(autouse=True)
def no_weights(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("GVCC_METRICS", str(tmp_path))
    monkeypatch.setenv("TORCH_HOME", str(tmp_path))
    from gvcc.metrics import inception

    cached = (perceptual._lpips, perceptual._dists, raft._network, inception._network)
    for function in cached:
        function.cache_clear()


@pytest.fixture(scope="module")
def pair() -> tuple[np.ndarray, np.ndarray]:
    ref = demo_clip(3, 176, 192)
    return ref, gaussian_filter(ref, (0, 1.5, 1.5, 0))


# PSNR of Y, U and V


def test_psnr_of_known_errors() -> None:
    ref = np.full((2, 6, 8, 3), 100, np.uint8)
    y, u, v, all_ = every.yuv_psnr(ref, ref + np.uint8(10))  # a grey error has no chroma
    assert (y, u, v) == (pytest.approx(20 * math.log10(255 / (10 * 219 / 255))), 100, 100)
    assert all_ == pytest.approx((6 * y + 200) / 8)
    out = ref.copy()
    out[..., 2] += 20
    y, u, v, _ = every.yuv_psnr(ref, out)
    by = [0.0722 * 219 / 255, 0.5 * 224 / 255, -0.0722 / (2 - 2 * 0.2126) * 224 / 255]
    assert (y, u, v) == pytest.approx([20 * math.log10(255 / abs(20 * b)) for b in by])
    assert every.yuv_psnr(ref, ref) == (100, 100, 100, 100)


@pytest.mark.parametrize("height, width", [(40, 52), (41, 51)])
def test_psnr_is_that_of_rounded_planes(height: int, width: int) -> None:
    rng = np.random.default_rng(0)
    ref = rng.integers(40, 216, (2, height, width, 3)).astype(np.uint8)
    out = (ref + rng.integers(-40, 41, ref.shape)).astype(np.uint8)
    found = []
    for a, b in zip(ref, out, strict=True):
        scores = []
        for k, (p, q) in enumerate(zip(to_yuv(a, 1, False), to_yuv(b, 1, False), strict=True)):
            off = p.astype(float) - q
            if k:
                off = np.pad(off, ((0, height % 2), (0, width % 2)), mode="edge")
                off = (off[::2, ::2] + off[1::2, ::2] + off[::2, 1::2] + off[1::2, 1::2]) / 4
            scores.append(10 * math.log10(255**2 / (off**2).mean()))
        found.append(scores)
    assert every.yuv_psnr(ref, out)[:3] == pytest.approx(np.mean(found, axis=0), abs=0.02)


# All of them


def test_each_number_is_that_of_its_definition(
    pair: tuple[np.ndarray, np.ndarray], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    ref, out = pair
    found = every.measure(ref, out, 24)
    error, ratio = by_definition.temporal(ref, out)
    y, u, v = by_definition.yuv_psnr(ref, out)
    assert list(found.values) == list(every.NAMES)
    assert found.values == {
        "psnr_rgb_db": pytest.approx(by_definition.psnr(ref, out)),
        "psnr_y_db": pytest.approx(y),
        "psnr_u_db": pytest.approx(u),
        "psnr_v_db": pytest.approx(v),
        "psnr_yuv_db": pytest.approx((6 * y + u + v) / 8),
        "ms_ssim": pytest.approx(by_definition.ms_ssim(ref, out), abs=2e-5),
        "vmaf": pytest.approx(by_definition.vmaf(ref, out, 24, tmp_path), abs=1e-3),
        "vmaf_neg": pytest.approx(
            by_definition.vmaf(ref, out, 24, tmp_path, "vmaf_v0.6.1neg"), abs=1e-3
        ),
        "tof": pytest.approx(by_definition.tof(ref, out), rel=1e-6),
        "temporal_error": pytest.approx(error),
        "temporal_activity_ratio": pytest.approx(ratio),
        **dict.fromkeys(BY_WEIGHTS),
    }
    flow = warp.error(ref, out, by_definition.farneback)  # RAFT's weights are not here
    assert flow == pytest.approx(by_definition.ewarp(ref, out), rel=1e-4)
    # No two are alike, or one could stand for another.
    numbers = sorted(n for n in found.values.values() if n is not None)
    assert len(numbers) == 11 and min(np.diff(numbers)) > 1e-3
    assert list(found.not_computed) == BY_WEIGHTS
    assert found.not_computed["lpips_vgg"].startswith("LPIPS (vgg) needs vgg16-397923af.pth in")
    assert found.not_computed["ewarp"].startswith("RAFT needs raft_large")
    # With weights, the networks' own functions are asked, with their device.
    asked = []

    def take(name: str):
        return lambda *a: asked.append((name, *a[2:])) or 0.5

    monkeypatch.setattr(perceptual, "lpips", take("lpips"))
    monkeypatch.setattr(perceptual, "dists", take("dists"))
    monkeypatch.setattr(warp, "ewarp", take("ewarp"))
    found = every.measure(ref, out, 24, "cuda", BY_WEIGHTS)
    assert found == every.Measured(dict.fromkeys(BY_WEIGHTS, 0.5), {})
    nets = [("lpips", net, "cuda") for net in ("alex", "vgg")]
    assert asked == [*nets, ("dists", "cuda"), ("ewarp", "cuda")]


def test_what_a_tiny_still_lacks() -> None:
    tiny = np.full((1, 8, 12, 3), 9, np.uint8)
    found = every.measure(tiny, tiny, 24)
    assert [k for k, v in found.values.items() if v is not None] == [
        "psnr_rgb_db", "psnr_y_db", "psnr_u_db", "psnr_v_db", "psnr_yuv_db",
    ]  # fmt: skip
    assert set(found.not_computed) | set(list(found.values)[:5]) == set(every.NAMES)
    assert found.not_computed["ms_ssim"] == "not defined for 1 frame(s) of 12x8"
    assert "single frame" in found.not_computed["temporal_error"]
    still = every.measure(tiny.repeat(2, 0), tiny.repeat(2, 0), 24, which=["temporal_error",
                          "temporal_activity_ratio"])  # fmt: skip
    assert still.values == {"temporal_error": 0, "temporal_activity_ratio": None}
    assert "the original does not change" in still.not_computed["temporal_activity_ratio"]


def test_one_that_fails_does_not_lose_the_others(
    pair: tuple[np.ndarray, np.ndarray], monkeypatch: pytest.MonkeyPatch
) -> None:
    def broken(ref: np.ndarray, out: np.ndarray) -> float:
        raise MemoryError("out of memory\nat line 7")

    monkeypatch.setattr(metrics, "tof", broken)
    monkeypatch.setattr(metrics, "psnr", lambda ref, out: math.nan)
    found = every.measure(*pair, 24, which=["tof", "psnr_y_db", "psnr_rgb_db"])
    assert list(found.values) == ["psnr_rgb_db", "psnr_y_db", "tof"]
    assert found.values["psnr_y_db"] and set(found.not_computed) == {"tof", "psnr_rgb_db"}
    assert found.not_computed["tof"] == "failed with MemoryError: out of memory"


def test_names_and_clips_are_checked(pair: tuple[np.ndarray, np.ndarray]) -> None:
    ref, out = pair
    with pytest.raises(ConfigError, match="unknown metric 'lpips_alx'.*did you mean 'lpips_alex'"):
        every.measure(ref, out, 24, which=["vmaf", "lpips_alx"])
    for function in (every.profile, lambda a, b: every.measure(a, b, 24)):
        with pytest.raises(ConfigError, match="3 frames of 192x176, the decoded clip 2"):
            function(ref, out[:2])


def test_profile() -> None:
    ref = np.full((3, 4, 4, 3), 100, np.uint8)
    ref[2] += 6
    out = ref + np.array([0, 5, 0], np.uint8)[:, None, None, None]
    found = every.profile(ref, out)
    assert found["psnr_db"] == pytest.approx([100, 20 * math.log10(255 / 5), 100])
    assert found["change"] == [5, 1] and found["change_source"] == [0, 6]
