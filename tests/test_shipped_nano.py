"""The weights in the package: small enough, quick enough, better than what they started from."""

from __future__ import annotations

import subprocess
import sys
from fractions import Fraction
from importlib.resources import files

import numpy as np
import pytest
import torch

import gvcc
from gvcc import codec, priors
from gvcc.eval import clips
from gvcc.pictures.media import Video
from gvcc.priors import nano


@pytest.fixture(scope="module")
def prior() -> nano.NanoPrior:
    return nano.load()


@pytest.fixture(scope="module")
def frames() -> np.ndarray:
    """The demo's clip, which is drawn, not filmed: nothing that training saw."""
    return clips.demo_clip(17, 128, 192)


def test_weights_are_small(prior):
    assert len((files("gvcc.priors") / "weights/nano.safetensors").read_bytes()) <= 40e6
    assert sum(p.numel() for p in prior.net.parameters()) <= 12e6
    assert prior.spec.channels <= 32


def test_nano_is_the_default_everywhere():
    data = gvcc.encode(Video(np.zeros((1, 16, 16, 3), np.uint8), Fraction(24)))
    header = gvcc.inspect(data).header
    assert header.prior == "nano" == gvcc.EncodeConfig().prior
    assert header.digest == priors.load("nano").spec.digest


def test_autoencoder_beats_the_linear_one(prior, frames):
    x = torch.from_numpy(frames)
    errors = []
    for p in (prior, priors.load("gauss")):
        errors.append(float(((p.decode(p.encode(x)).float() - x) ** 2).mean()))
    assert errors[0] < 0.9 * errors[1]


@pytest.mark.parametrize("t", [0.3, 0.5, 0.7])
def test_denoiser_beats_the_gaussian_and_conditions_help(prior, frames, t):
    x0 = prior.encode(torch.from_numpy(frames))
    last = x0.shape[1] - 1
    eps = torch.randn(x0.shape, generator=torch.Generator().manual_seed(1))
    x = (1 - t) * x0 + t * eps
    ends = {0: x0[:, 0], last: x0[:, last]}
    ways = [
        prior.model.denoise(x, 1 - t, t),
        prior.denoise(x, t),
        prior.denoise(x, t, {0: x0[:, 0]}),
        prior.denoise(x, t, ends),
    ]
    errors = [float(((h - x0)[:, 1:last] ** 2).mean()) for h in ways]
    assert errors[1] < 0.9 * errors[0]
    assert errors[3] < errors[2] < errors[1]


CHILD = """
import resource, sys, time
from gvcc import codec
data = open(sys.argv[1], "rb").read()
begin = time.process_time()
shape = codec.decode(data).frames.shape
most = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
print(shape, time.process_time() - begin, most / 2**20)
"""


@pytest.mark.slow
def test_decoding_a_gop_of_33_frames_is_quick_and_small(tmp_path):
    """Under 60 s of two cores and 3 GB for 256x256 at the default number of steps
    (bench/priors/nano_speed.py)."""
    video = Video(clips.demo_clip(33, 256, 256), Fraction(24))
    file = tmp_path / "a.gvcc"
    file.write_bytes(codec.encode(video, gvcc.EncodeConfig(bpp=0.005)).data)
    run = [sys.executable, "-c", CHILD, str(file)]
    out = subprocess.run(run, capture_output=True, text=True, check=True).stdout
    shape, rest = out.split(") ")
    seconds, gigabytes = map(float, rest.split())
    assert shape == "(33, 256, 256, 3" and seconds < 2 * 60 and gigabytes < 3
