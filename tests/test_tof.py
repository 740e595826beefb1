"""tOF: the difference of the optical flows of the original and of the decoded clip."""

import sys
import tracemalloc

import by_definition
import cv2
import numpy as np
import pytest
from scipy.ndimage import gaussian_filter

from gvcc.errors import ConfigError
from gvcc.metrics import metrics

FPS = 24


def moving(frames, height, width, dx=0, dy=0, seed=0):
    """A texture without flat places that moves by whole pixels per frame, to the right and down."""
    room = (frames - 1) * max(dx, dy)
    shape = (height + room, width + room)
    texture = gaussian_filter(np.random.default_rng(seed).normal(size=(*shape, 3)), (1.5, 1.5, 0))
    texture = np.interp(texture, (texture.min(), texture.max()), (0, 255)).astype(np.uint8)
    return np.stack([
        texture[room - t * dy :, room - t * dx :][:height, :width] for t in range(frames)
    ])  # fmt: skip


def stopped(clip):
    return np.repeat(clip[:1], len(clip), 0)


def noise(shape, seed):
    return np.random.default_rng(seed).integers(0, 256, shape, dtype=np.uint8)


def test_of_identical_clips_is_0():
    clip = moving(4, 48, 64, 2, 1)
    assert metrics.tof(clip, clip.copy()) == 0


@pytest.mark.parametrize("dx, dy", [(1, 0), (0, 1), (3, 0), (0, 3), (2, 1)])
def test_of_a_stopped_motion_is_the_motion(dx, dy):
    clip = moving(4, 96, 128, dx, dy)
    # Wherever the clip has texture: everywhere.
    assert metrics.tof(clip, stopped(clip)) == pytest.approx(np.hypot(dx, dy), rel=0.02)


def test_sees_only_the_textured_area():
    clip = moving(3, 96, 128, 2)
    clip[:, :, 64:] = 128
    # The window carries the motion a few pixels into the flat half.
    assert 1 < metrics.tof(clip, stopped(clip)) < 1.3


def test_opposite_motions_add_up():
    clip = moving(2, 96, 128, 2)
    assert metrics.tof(clip, clip[::-1]) == pytest.approx(4, rel=0.02)


def test_pairs_frames_by_index():
    """A step of one pixel at frame 1, in the decoded clip one frame later."""
    a, b = moving(2, 96, 128, 1)
    ref, out = np.stack([a, b, b]), np.stack([a, a, b])
    assert metrics.tof(ref, out) == pytest.approx(1, rel=0.02)


def test_is_symmetric():
    ref, out = noise((3, 40, 50, 3), 1), noise((3, 40, 50, 3), 2)
    assert metrics.tof(ref, out) == metrics.tof(out, ref) > 0.1


def test_agrees_with_the_definition():
    """Every flow anew, grey by its formula, the mean by numpy alone."""
    ref, out = noise((4, 33, 47, 3), 1), noise((4, 33, 47, 3), 2)
    assert metrics.tof(ref, out) == pytest.approx(by_definition.tof(ref, out), rel=1e-6)


def test_computes_each_flow_once(monkeypatch):
    made = []
    original = cv2.calcOpticalFlowFarneback

    def counted(*args, **kwargs):
        made.append(kwargs)
        return original(*args, **kwargs)

    monkeypatch.setattr(cv2, "calcOpticalFlowFarneback", counted)
    clip = moving(5, 32, 32, 1)
    metrics.tof(clip, clip)
    assert len(made) == 2 * 4


def test_memory_does_not_grow_with_the_clip():
    def peak(frames):
        clip = np.broadcast_to(noise((1, 64, 64, 3), 0), (frames, 64, 64, 3))
        tracemalloc.start()
        metrics.tof(clip, clip)
        most = tracemalloc.get_traced_memory()[1]
        tracemalloc.stop()
        return most

    few, many = peak(3), peak(43)
    assert few > 64 * 64 * 8, "it does not see the flows"
    assert many < few + 64 * 64 * 8, "40 more pairs cost as much as one more flow"


def test_threads_do_not_change_it():
    ref, out = moving(2, 270, 480, 3, 1), moving(2, 270, 480, 1, 2)
    usual = cv2.getNumThreads()
    try:
        scores = set()
        for threads in (1, 2, 3, 8):
            cv2.setNumThreads(threads)
            scores.add(metrics.tof(ref, out))
    finally:
        cv2.setNumThreads(usual)
    assert len(scores) == 1


def test_takes_any_view_and_leaves_it_alone():
    ref, out = noise((3, 60, 80, 3), 1), noise((3, 60, 80, 3), 2)
    ref.flags.writeable = False
    views = [clip[::-1, 5:45:2, 60:10:-1, ::-1] for clip in (ref, out)]
    assert metrics.tof(*views) == metrics.tof(*map(np.ascontiguousarray, views)) > 0
    assert np.array_equal(ref, noise((3, 60, 80, 3), 1))


@pytest.mark.parametrize("height, width", [(15, 15), (15, 64), (64, 15)])
def test_holds_from_15_pixels(height, width):
    clip = moving(3, height, width, 1)
    assert metrics.tof(clip, stopped(clip)) == pytest.approx(1, abs=0.1)


@pytest.mark.parametrize("height, width", [(14, 64), (64, 14), (1, 1)])
def test_below_15_pixels(height, width):
    clip = moving(2, height, width, 1)
    assert metrics.tof(clip, clip) is None
    report = metrics.compare(clip, clip, FPS)
    assert report["tof"] is None
    assert f"tof: needs sides of at least 15, the clip is {width}x{height}" in report["notes"]


def test_of_one_frame():
    clip = moving(1, 32, 32)
    assert metrics.tof(clip, clip) is None
    report = metrics.compare(clip, clip, FPS)
    assert report["tof"] is None
    assert [note for note in report["notes"] if "tof" in note and "two frames" in note]


def test_without_opencv(monkeypatch):
    monkeypatch.setitem(sys.modules, "cv2", None)
    clip = moving(2, 32, 32, 1)
    with pytest.raises(ConfigError, match=r"opencv-python-headless is missing: .*gvcc\[eval\]"):
        metrics.tof(clip, clip)
    report = metrics.compare(clip, clip, FPS)
    assert report["tof"] is None and report["temporal_error"] == 0
    assert [note for note in report["notes"] if note.startswith("tof: the package opencv")]
