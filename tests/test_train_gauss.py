"""Fitting the `gauss` prior: what it learns from a folder of clips, and what it refuses."""

import math
from fractions import Fraction

import numpy as np
import pytest
import torch
from safetensors.torch import load as load_safetensors

from gvcc.errors import ConfigError
from gvcc.pictures import media
from gvcc.pictures.media import Video
from gvcc.priors import gauss
from gvcc.priors.spectrum import dct3
from gvcc.train import data
from gvcc.train.gauss import bases, fit

CHANNELS = 12


def texture(frames, height, width, seed):
    """A moving random picture with a natural, falling spectrum: uint8 [T,H,W,3]."""
    rng = np.random.default_rng(seed)
    size = (height + 64, width + 64)
    fy, fx = np.fft.fftfreq(size[0])[:, None], np.fft.fftfreq(size[1])
    fall = 1 / (np.hypot(fy, fx) + 0.01) ** 1.3
    grey = np.fft.ifft2(np.fft.fft2(rng.normal(size=size)) * fall).real
    tint = np.fft.ifft2(np.fft.fft2(rng.normal(size=(3, *size))) * fall).real
    rgb = grey / grey.std() * 22 + 7 * tint / tint.std()
    rgb = np.moveaxis(rgb + np.array([75, 125, 175])[:, None, None], 0, -1)
    rgb = rgb.round().clip(0, 255).astype(np.uint8)
    places = ((t * 3 // 2, t) for t in range(frames))
    return np.stack([rgb[y : y + height, x : x + width] for y, x in places])


def write(folder, name, frames):
    media.write(Video(frames, Fraction(25)), folder / name)


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    """Two clips that fit, in a subfolder one of them, and four files of which none does."""
    root = tmp_path_factory.mktemp("clips")
    (root / "more").mkdir()
    write(root, "b.y4m", texture(34, 256, 272, 1))
    write(root, "more/a.y4m", texture(33, 264, 256, 2))
    write(root, "short.y4m", texture(32, 256, 256, 3))
    write(root, "narrow.y4m", texture(33, 256, 254, 4))
    (root / "broken.mp4").write_bytes(b"no video at all")
    (root / "notes.txt").write_text("not a clip")
    return root


@pytest.fixture(scope="module")
def fitted(folder):
    """The fitted file and the progress that was reported."""
    said = []
    return fit(folder, CHANNELS, progress=lambda *event: said.append(event)), said


# -- data -------------------------------------------------------------------------------------


def test_clips_are_found_below_the_folder_in_order(folder):
    names = [p.relative_to(folder).as_posix() for p in data.clips(folder)]
    assert names == ["b.y4m", "broken.mp4", "more/a.y4m", "narrow.y4m", "short.y4m"]


def test_crops_come_from_the_clips_that_are_large_enough(folder):
    paths = data.clips(folder)
    whole = [media.read(folder / name).frames for name in ("b.y4m", "more/a.y4m")]
    crops = list(data.crops(paths, 33, 256, seed=1))
    assert len(crops) == 2
    sources = set()
    for crop in crops:
        assert crop.shape == (33, 256, 256, 3) and crop.dtype == np.uint8
        for i, clip in enumerate(whole):
            t, h, w = (n + 1 - m for n, m in zip(clip.shape, (33, 256, 256), strict=False))
            if any(
                np.array_equal(clip[a : a + 33, y : y + 256, x : x + 256], crop)
                for a, y, x in np.ndindex(t, h, w)
            ):
                sources.add(i)
    assert sources == {0, 1}


def test_crops_are_random_and_repeatable(folder):
    paths = data.clips(folder)

    def take(seed):
        return np.stack(list(data.crops(paths, 9, 64, seed)))

    assert np.array_equal(take(1), take(1))
    assert len(take(1)) == 4  # the short and the narrow clip are large enough for these
    assert not np.array_equal(take(1), take(2))


# -- bases ------------------------------------------------------------------------------------


def covariance(n, seed, falling):
    rotation = np.linalg.qr(np.random.default_rng(seed).normal(size=(n, n)))[0]
    return torch.from_numpy(rotation @ np.diag(falling) @ rotation.T), torch.from_numpy(rotation.T)


def test_bases_are_the_largest_components():
    group_cov, group_axes = covariance(768, 1, 0.97 ** np.arange(768))
    first_cov, first_axes = covariance(192, 2, 0.9 ** np.arange(192))
    group, first = bases(group_cov, first_cov, CHANNELS)
    assert torch.allclose(group @ group.T, torch.eye(CHANNELS).double(), atol=1e-10)
    assert torch.allclose(first @ first.T, torch.eye(CHANNELS).double(), atol=1e-10)
    assert (group.gather(1, group.abs().argmax(1, keepdim=True)) > 0).all()  # a sign is chosen
    assert torch.allclose((group @ group_axes[:CHANNELS].T).abs(), torch.eye(CHANNELS).double(),
                          atol=1e-6)  # fmt: skip
    # The first frame's basis spans the same space as its largest components do.
    within = first @ first_axes[:CHANNELS].T
    assert torch.allclose(within @ within.T, torch.eye(CHANNELS).double(), atol=1e-6)


def test_channels_of_the_first_frame_mean_what_those_of_the_groups_do():
    """For still blocks (one frame four times) the two bases agree channel by channel."""
    first_cov, axes = covariance(192, 3, 0.8 ** np.arange(192))
    still = torch.ones(4, 4).double() / 4
    group, first = bases(torch.kron(still, first_cov) * 4, first_cov, CHANNELS)
    assert torch.allclose(group.reshape(CHANNELS, 4, 192).sum(1) / 2, first, atol=1e-6)


# -- fit --------------------------------------------------------------------------------------


def test_the_fitted_file_is_a_prior(fitted):
    file, _ = fitted
    prior = gauss.from_bytes(file)
    assert prior.spec.channels == CHANNELS
    tensors = load_safetensors(file)
    for name in ("group", "first"):
        rows = tensors[name].double()
        assert torch.allclose(rows @ rows.T, torch.eye(CHANNELS).double(), atol=1e-5)
    assert len(file) < 4 * CHANNELS * (768 + 192) + 2 * CHANNELS * 9 * 32 * 32 + 2000


def test_the_fit_is_repeatable(folder, fitted):
    assert fit(folder, CHANNELS) == fitted[0]
    assert fit(folder, CHANNELS, seed=2) != fitted[0]


def test_progress_is_told_for_each_clip_and_pass(fitted):
    said = fitted[1]
    assert [(stage, done) for stage, done, _ in said] == [
        ("covariance", 1), ("covariance", 2), ("spectrum", 1), ("spectrum", 2),
    ]  # fmt: skip
    assert all(done <= total for _, done, total in said)


def test_what_it_learnt_is_what_the_clips_hold(folder, fitted):
    """Colour, spectrum and basis, measured again on the very crops of the fit."""
    prior, tensors = gauss.from_bytes(fitted[0]), load_safetensors(fitted[0])
    crops = [torch.from_numpy(c) for c in data.crops(data.clips(folder), 33, 256, seed=1)]
    colour = torch.stack([c.float().mean((0, 1, 2)) for c in crops]).mean(0) / 127.5 - 1
    assert torch.allclose(tensors["colour"], colour, atol=1e-4)
    latents = [prior.encode(c) for c in crops]
    measured = sum(dct3(x).double() ** 2 for x in latents) / len(latents)
    assert torch.allclose(measured.log(), prior.model._log_power, atol=0.02)
    assert float(measured.mean()) == pytest.approx(1, rel=0.01)
    # What varies most is the brightness of a block; the clips' common blue is not variation.
    assert float(tensors["group"][0].sum().abs()) / math.sqrt(768) > 0.95
    channel = measured.mean((1, 2, 3))
    assert float(channel[0]) == float(channel.max()) > 20 * float(channel[-1])
    for crop, x in zip(crops, latents, strict=True):
        error = float(((prior.decode(x).float() - crop.float()) ** 2).mean())
        assert 10 * math.log10(255**2 / error) > 22


def test_a_limit_takes_fewer_clips(folder):
    said = []
    one = fit(folder, CHANNELS, limit=1, progress=lambda *event: said.append(event))
    assert said == [("covariance", 1, 1), ("spectrum", 1, 1)]
    assert gauss.from_bytes(one).spec.channels == CHANNELS


# -- refusals ---------------------------------------------------------------------------------


def test_an_empty_folder_is_refused(tmp_path):
    (tmp_path / "notes.txt").write_text("not a clip")
    with pytest.raises(ConfigError, match="no video files below"):
        fit(tmp_path)
    with pytest.raises(ConfigError, match="no video files below"):
        fit(tmp_path / "missing")


def test_a_folder_without_a_suitable_clip_is_refused(tmp_path):
    write(tmp_path, "small.y4m", texture(33, 64, 64, 1))
    write(tmp_path, "short.y4m", texture(2, 256, 256, 1))
    (tmp_path / "broken.mkv").write_bytes(bytes(100))
    with pytest.raises(ConfigError, match="33 frames of 256x256"):
        fit(tmp_path)
