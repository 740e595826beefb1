"""Scene cuts of synthetic clips: found where they are, and nowhere else."""

import numpy as np
import pytest
from media_samples import smooth

from gvcc.search.scenes import cuts


def scene(number, count=12, height=72, width=96, speed=2):
    """A panning, blurred noise picture with colours of its own; no two numbers look alike."""
    rng = np.random.default_rng(number)
    cell = max(8, height // 6)
    coarse = rng.uniform(0, 255, (height // cell + 1, (width + speed * count) // cell + 2, 3))
    wide = np.kron(coarse * rng.uniform(0.4, 1, 3), np.ones((cell, cell, 1)))
    frames = [wide[:height, speed * t : speed * t + width] for t in range(count)]
    return np.stack(frames).astype(np.uint8)


@pytest.mark.parametrize("lengths", [(12, 12), (1, 12), (12, 1), (5, 9, 3, 20), (4, 4, 4, 4)])
@pytest.mark.parametrize("size", [(72, 96), (16, 24), (241, 333)])
def test_cuts_between_scenes_are_found(lengths, size):
    scenes = [scene(n, count, *size) for n, count in enumerate(lengths)]
    assert cuts(np.concatenate(scenes)) == np.cumsum(lengths)[:-1].tolist()


def test_a_grey_scene_differs_by_its_luma_alone():
    frames = np.concatenate([scene(n) for n in range(2)]).mean(-1, keepdims=True)
    assert cuts(np.repeat(frames, 3, -1).astype(np.uint8)) == [12]


@pytest.mark.parametrize("speed", [0, 1, 4, 12])
def test_motion_is_no_cut(speed):
    assert cuts(scene(3, 40, speed=speed)) == []
    assert cuts(smooth(40)) == []


@pytest.mark.parametrize("length", [1, 2])
@pytest.mark.parametrize("place", [0, 1, 12, 22])
def test_a_flash_is_no_cut(length, place):
    frames = scene(4, 24)
    frames[place : place + length] = 255 - frames[place : place + length] // 8
    inside = 0 < place < 24 - length
    # With nothing on its other side, it might as well be a scene.
    assert cuts(frames) == ([] if inside else [place or length])


def test_fades_and_dissolves_are_no_cuts():
    ramp = np.linspace(0, 1, 24)[:, None, None, None]
    a, b = scene(5, 24), scene(6, 24)
    assert cuts((a * ramp).astype(np.uint8)) == []
    assert cuts((a * ramp[::-1]).astype(np.uint8)) == []
    assert cuts((a * ramp[::-1] + b * ramp).astype(np.uint8)) == []


def test_a_smeared_cut_counts_once():
    a, b = scene(7), scene(8)
    blend = (a[-1:].astype(int) + b[:1]) // 2
    assert cuts(np.concatenate([a, blend.astype(np.uint8), b])) == [12]


def test_few_and_tiny_pictures():
    assert cuts([]) == []
    assert cuts(scene(9, 1)) == []
    dark, light = np.zeros((1, 1, 3), np.uint8), np.full((1, 1, 3), 200, np.uint8)
    assert cuts([dark] * 5 + [light] * 5) == [5]


def test_pictures_are_taken_one_by_one():
    alive = 0

    class Counted(np.ndarray):
        def __del__(self):
            nonlocal alive
            alive -= 1

    def pictures():
        nonlocal alive
        for number in range(100):
            alive += 1
            assert alive < 20
            yield np.full((18, 32, 3), 150 * (number // 50), np.uint8).view(Counted)

    assert cuts(pictures()) == [50]
