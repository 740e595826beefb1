"""Metrics, the built-in clip and the side-by-side picture."""

import json
import math
import sys

import by_definition
import numpy as np
import pytest
from scipy.ndimage import gaussian_filter

from gvcc.errors import ConfigError, MediaError
from gvcc.eval import sidebyside
from gvcc.eval.clips import demo_clip
from gvcc.eval.sidebyside import Column
from gvcc.metrics import metrics

FPS = 24


@pytest.fixture(scope="module")
def clip():
    return demo_clip(6, 192, 208)


@pytest.fixture(scope="module")
def blurred(clip):
    return blur(clip, 1.5)


def blur(clip, sigma):
    return gaussian_filter(clip, (0, sigma, sigma, 0))


def noise(shape, seed=0):
    return np.random.default_rng(seed).integers(0, 256, shape, dtype=np.uint8)


# PSNR


def test_psnr_of_a_known_error():
    ref = np.full((3, 8, 10, 3), 100, np.uint8)
    assert metrics.psnr(ref, ref + 5) == pytest.approx(20 * math.log10(255 / 5))
    # Both signs of a difference count alike, although uint8 wraps.
    assert metrics.psnr(ref, ref - 5) == metrics.psnr(ref, ref + 5)
    assert metrics.psnr(np.zeros_like(ref), np.full_like(ref, 255)) == 0


def test_psnr_agrees_with_scikit_image():
    from skimage.metrics import peak_signal_noise_ratio

    ref, out = noise((4, 21, 33, 3), 1), noise((4, 21, 33, 3), 2)
    expected = np.mean(
        [peak_signal_noise_ratio(a, b, data_range=255) for a, b in zip(ref, out, strict=True)]
    )
    assert metrics.psnr(ref, out) == pytest.approx(expected)


def test_psnr_caps_a_frame_at_100_db():
    ref = np.full((2, 300, 300, 3), 100, np.uint8)
    out = ref.copy()
    assert metrics.psnr(ref, out) == 100
    out[1] += 1
    assert metrics.psnr(ref, out) == pytest.approx((100 + 20 * math.log10(255)) / 2)
    out[1] = ref[1]
    out[1, 0, 0, 0] += 1  # 102.4 dB without the cap: worse than exact, so it may not score higher
    assert metrics.psnr(ref, out) == 100


# MS-SSIM


def test_ms_ssim_agrees_with_the_formula(clip, blurred):
    expected = by_definition.ms_ssim(clip, blurred)
    assert 0.5 < expected < 0.99
    assert metrics.ms_ssim(clip, blurred) == pytest.approx(expected, abs=2e-5)


def test_ms_ssim_of_an_identical_clip_is_1(clip):
    assert metrics.ms_ssim(clip, clip) == pytest.approx(1, abs=1e-6)


def test_ms_ssim_does_not_depend_on_the_batch(clip, blurred, monkeypatch):
    whole = metrics.ms_ssim(clip, blurred)
    monkeypatch.setattr(metrics, "_MS_SSIM_BATCH_PIXELS", 4 * 192 * 208)  # 4 frames, then 2
    assert metrics.ms_ssim(clip, blurred) == pytest.approx(whole, abs=1e-6)


def test_ms_ssim_begins_at_161_pixels():
    clip = noise((1, 161, 170, 3))
    assert metrics.ms_ssim(clip, clip) is not None
    assert metrics.ms_ssim(clip[:, :160], clip[:, :160]) is None


# VMAF


def test_vmaf_of_an_identical_clip(clip):
    assert 97 < metrics.vmaf(clip, clip, FPS) <= 100


def test_vmaf_falls_with_blur(clip, blurred):
    mild, strong = metrics.vmaf(clip, blur(clip, 0.7), FPS), metrics.vmaf(clip, blurred, FPS)
    assert strong + 10 < mild < 97
    # Swapped, blur would be taken for the original and sharpness for an enhancement.
    assert metrics.vmaf(blurred, clip, FPS) > strong + 10


def test_vmaf_pairs_frames_by_index(clip):
    paired = metrics.vmaf(clip[:-1], clip[:-1], FPS)
    shifted = metrics.vmaf(clip[:-1], clip[1:], FPS)
    assert shifted < paired - 20


def test_vmaf_equals_the_y4m_recipe(clip, blurred, tmp_path):
    expected = by_definition.vmaf(clip, blurred, FPS, tmp_path)
    assert metrics.vmaf(clip, blurred, FPS) == pytest.approx(expected, abs=1e-3)


@pytest.mark.parametrize("height, width", [(129, 131), (17, 17)])
def test_vmaf_takes_odd_sizes_and_one_frame(clip, height, width):
    part = clip[:1, :height, :width]  # not contiguous, as a cropped clip is
    assert metrics.vmaf(part, part, 30000 / 1001) > 90


def test_vmaf_begins_at_17_pixels(clip):
    assert metrics.vmaf(clip[:, :16], clip[:, :16], FPS) is None


@pytest.mark.parametrize("fps", [0, -1, math.nan, math.inf])
def test_vmaf_refuses_a_rate(clip, fps):
    with pytest.raises(ConfigError, match="fps"):
        metrics.vmaf(clip, clip, fps)


def test_vmaf_failure_carries_the_words_of_ffmpeg(clip, tmp_path, monkeypatch):
    import imageio_ffmpeg

    broken = tmp_path / "ffmpeg"
    broken.write_text("#!/bin/sh\necho \"No such filter: 'libvmaf'\" >&2\nexit 8\n")
    broken.chmod(0o755)
    monkeypatch.setattr(imageio_ffmpeg, "get_ffmpeg_exe", lambda: str(broken))
    with pytest.raises(MediaError, match="status 8: No such filter: 'libvmaf'"):
        metrics.vmaf(clip, clip, FPS)
    report = metrics.compare(clip[:2], clip[:2], FPS)
    assert report["vmaf"] is None and report["ms_ssim"] is not None
    assert any("No such filter" in note for note in report["notes"])


def test_vmaf_without_an_executable(clip, tmp_path, monkeypatch):
    import imageio_ffmpeg

    monkeypatch.setattr(imageio_ffmpeg, "get_ffmpeg_exe", lambda: str(tmp_path / "absent"))
    with pytest.raises(MediaError, match="absent"):
        metrics.vmaf(clip, clip, FPS)


# Temporal consistency


def test_temporal_of_known_flicker():
    t = np.arange(5)
    ref = np.broadcast_to((100 + t)[:, None, None, None], (5, 4, 6, 3)).astype(np.uint8)
    flicker = np.array([2, -2, 2, -2, 2])
    out = (ref + flicker[:, None, None, None]).astype(np.uint8)
    # Changes of the original: 1, 1, 1, 1; of the decoded clip: -3, 5, -3, 5.
    assert metrics.temporal(ref, out) == metrics.Temporal(error=4.0, activity_ratio=4.0)


def test_temporal_ignores_an_error_that_stands_still():
    ref = noise((4, 9, 9, 3)) // 2
    assert metrics.temporal(ref, ref + 50) == metrics.Temporal(error=0.0, activity_ratio=1.0)


def test_temporal_reaches_its_extreme():
    ref = np.zeros((2, 3, 3, 3), np.uint8)
    ref[1] = 255
    assert metrics.temporal(ref, ref[::-1]) == metrics.Temporal(error=510.0, activity_ratio=1.0)


def test_temporal_of_a_still_original_and_of_one_frame():
    still = np.full((3, 4, 4, 3), 7, np.uint8)
    assert metrics.temporal(still, still) == metrics.Temporal(error=0.0, activity_ratio=None)
    assert metrics.temporal(still[:1], still[:1]) is None


# All together


def test_compare_has_every_key(clip, blurred, tmp_path):
    report = metrics.compare(clip, blurred, FPS)
    error, ratio = by_definition.temporal(clip, blurred)
    assert report == {
        "psnr_rgb_db": pytest.approx(by_definition.psnr(clip, blurred)),
        "ms_ssim": pytest.approx(by_definition.ms_ssim(clip, blurred), abs=2e-5),
        "vmaf": pytest.approx(by_definition.vmaf(clip, blurred, FPS, tmp_path), abs=1e-3),
        "vmaf_neg": pytest.approx(
            by_definition.vmaf(clip, blurred, FPS, tmp_path, "vmaf_v0.6.1neg"), abs=1e-3
        ),
        "temporal_error": pytest.approx(error),
        "temporal_activity_ratio": pytest.approx(ratio),
        "tof": pytest.approx(by_definition.tof(clip, blurred), rel=1e-6),
        "frames": 6,
        "width": 208,
        "height": 192,
        "notes": [],
    }
    assert json.loads(json.dumps(report)) == report


def test_compare_says_what_is_missing_and_why():
    tiny = noise((1, 8, 12, 3))
    report = metrics.compare(tiny, tiny, FPS)
    assert report["psnr_rgb_db"] == 100
    assert [key for key, value in report.items() if value is None] == [
        "ms_ssim",
        "vmaf",
        "vmaf_neg",
        "temporal_error",
        "temporal_activity_ratio",
        "tof",
    ]
    assert len(report["notes"]) == 3
    assert "12x8" in report["notes"][0] and report["notes"][1].startswith("vmaf, vmaf_neg: ")


def test_compare_without_the_optional_packages(clip, monkeypatch):
    for module in ("pytorch_msssim", "imageio_ffmpeg", "cv2"):
        monkeypatch.setitem(sys.modules, module, None)
    report = metrics.compare(clip, clip, FPS)
    assert report["psnr_rgb_db"] == 100
    assert report["ms_ssim"] is None and report["vmaf"] is None and report["tof"] is None
    assert len(report["notes"]) == 3
    assert all("gvcc[eval]" in note for note in report["notes"])


@pytest.mark.parametrize("measure", [metrics.psnr, metrics.ms_ssim, metrics.temporal, metrics.tof])
def test_clips_must_match(measure):
    ref = noise((3, 20, 30, 3))
    with pytest.raises(ConfigError, match="3 frames of 30x20.* 2 of 30x20"):
        measure(ref, ref[:2])
    with pytest.raises(ConfigError, match="3 frames of 30x20.* 3 of 30x18"):
        measure(ref, ref[:, :18])
    with pytest.raises(ConfigError, match="original is float32"):
        measure(ref.astype(np.float32), ref)
    with pytest.raises(ConfigError, match="decoded clip is uint8"):
        measure(ref, ref[0])
    with pytest.raises(ConfigError, match="not empty"):
        measure(ref[:0], ref[:0])


# The built-in clip


def test_demo_clip_is_deterministic_and_a_prefix():
    whole = demo_clip(5, 64, 96)
    assert whole.shape == (5, 64, 96, 3) and whole.dtype == np.uint8
    assert np.array_equal(whole, demo_clip(5, 64, 96))
    assert np.array_equal(whole[:3], demo_clip(3, 64, 96))


def test_demo_clip_moves_smoothly(clip):
    changes = np.abs(np.diff(clip.astype(int), axis=0)).mean((1, 2, 3))
    assert changes.min() > 1, "it stands still"
    assert changes.max() < 2 * changes.min(), "it jumps"


def test_demo_clip_looks_like_a_photograph(clip):
    frame = clip[0].astype(float)
    assert frame.std((0, 1)).min() > 25
    assert len(np.unique(clip[0].reshape(-1, 3), axis=0)) > 10_000
    # Neighbours are alike and the spectrum falls with frequency, but detail remains at the finest
    # scale: neither flat, nor noise, nor aliased.
    grey = frame.mean(2)
    assert np.corrcoef(grey[:, 1:].ravel(), grey[:, :-1].ravel())[0, 1] > 0.95
    spectrum = np.abs(np.fft.fft2(grey * np.outer(np.hanning(192), np.hanning(208)))) ** 2
    radius = np.hypot(np.fft.fftfreq(192)[:, None], np.fft.fftfreq(208)[None])
    low, middle, high = (
        spectrum[(radius >= a) & (radius < b)].mean()
        for a, b in ((0.02, 0.1), (0.1, 0.25), (0.25, 0.5))
    )
    assert low > 10 * middle > 50 * high
    assert np.abs(frame - blur(clip[:1], 1)[0]).mean() > 1


@pytest.mark.parametrize("frames, height, width", [(1, 1, 1), (2, 17, 300), (2, 300, 17)])
def test_demo_clip_takes_any_size(frames, height, width):
    assert demo_clip(frames, height, width).shape == (frames, height, width, 3)


def test_demo_clip_refuses_an_empty_size():
    with pytest.raises(ConfigError, match="0, 4, 4"):
        demo_clip(0, 4, 4)


# Side by side


def side_by_side(ref, out, path, **more):
    """Original, decoded, and 4 times their difference."""
    difference = (np.abs(ref.astype(int) - out) * 4).clip(0, 255).astype(np.uint8)
    columns = [Column("decoded", out), Column("difference x4", difference, measured=False)]
    sidebyside.sheet("original", ref, columns, path, **more)


def test_side_by_side_shows_the_pixels(tmp_path):
    from PIL import Image

    ref, out = noise((5, 40, 200, 3), 1), noise((5, 40, 200, 3), 2)
    path = tmp_path / "pairs.png"
    side_by_side(ref, out, path, count=2, caption="noise against noise")
    sheet = np.asarray(Image.open(path))
    assert sheet.shape == (20 + 2 * (20 + 40 + 6) + 20, 6 + 3 * (200 + 6), 3)
    for row, t in enumerate((0, 4)):
        top = 40 + 66 * row
        panels = [sheet[top : top + 40, 6 + 206 * i : 206 + 206 * i] for i in range(3)]
        assert np.array_equal(panels[0], ref[t])
        assert np.array_equal(panels[1], out[t])
        error = np.abs(ref[t].astype(int) - out[t])
        assert np.array_equal(panels[2], np.minimum(4 * error, 255))
    assert sheet[:20].std() > 0 and sheet[-20:].std() > 0, "labels or caption are missing"


def test_side_by_side_enlarges_narrow_clips_and_shows_each_frame_once(tmp_path):
    from PIL import Image

    ref = noise((2, 30, 50, 3))
    side_by_side(ref, ref, tmp_path / "a.png", count=9)
    sheet = np.asarray(Image.open(tmp_path / "a.png"))
    assert sheet.shape == (20 + 2 * (20 + 120 + 6), 6 + 3 * (200 + 6), 3)
    assert np.array_equal(sheet[40:160:4, 6:206:4], ref[0])


def test_side_by_side_errors(tmp_path):
    ref = noise((2, 30, 50, 3))
    with pytest.raises(ConfigError, match="count is 0"):
        side_by_side(ref, ref, tmp_path / "a.png", count=0)
    with pytest.raises(ConfigError, match="2 frames of 50x30"):
        sidebyside.sheet("original", ref, [Column("decoded", ref[:1])], tmp_path / "a.png")
    with pytest.raises(MediaError, match="no-folder"):
        side_by_side(ref, ref, tmp_path / "no-folder" / "a.png")
