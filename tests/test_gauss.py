"""The analytic prior: a causal and isometric autoencoder, a denoiser exact for its model."""

import hashlib
import math

import numpy as np
import pytest
import torch
from safetensors.torch import load as load_safetensors
from safetensors.torch import save as save_safetensors

from gvcc import flow
from gvcc.errors import ConfigError
from gvcc.priors import gauss
from gvcc.priors.gauss import GaussPrior
from gvcc.priors.spectrum import dct3, resample_spectrum


@pytest.fixture(scope="module")
def prior():
    return gauss.load()


def weights(channels=3, seed=1, spread=2.0):
    """A made-up prior: orthonormal bases, a power law with `spread` of log power about it."""
    g = torch.Generator().manual_seed(seed)
    bases = {
        name: torch.linalg.qr(torch.randn(n, channels, generator=g)).Q.T.contiguous()
        for name, n in (("group", 768), ("first", 192))
    }
    axes = [torch.log(torch.arange(n) + 0.5) for n in (9, 32, 32)]
    slope = axes[0][:, None, None] + axes[1][:, None] + axes[2]
    power = spread * torch.randn(channels, 1, 1, 1, generator=g) - 1.2 * slope
    return bases | {"power": power, "colour": torch.tensor([0.1, -0.2, 0.05])}


def white(seed, *shape):
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed))


def clip(frames, height, width, seed=1):
    """Smooth moving texture, uint8 [T,H,W,3]."""
    rng = np.random.default_rng(seed)
    t, y, x = np.mgrid[:frames, :height, :width].astype(float)
    out = np.full((frames, height, width, 3), 128.0)
    for _ in range(8):
        u, v, w = rng.normal(0, 0.15, 3)
        wave = np.sin(u * x + v * y + w * t + rng.uniform(0, 6))
        out += 12 * wave[..., None] * rng.uniform(0.3, 1, 3)
    return torch.from_numpy(out.round().clip(0, 255).astype(np.uint8))


# -- autoencoder ------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("frames", "height", "width"), [(1, 16, 24), (5, 40, 16), (9, 8, 8), (33, 24, 32)]
)
def test_shapes(prior, frames, height, width):
    video = clip(frames, height, width)
    latent = prior.encode(video)
    assert latent.shape == (32, (frames - 1) // 4 + 1, height // 8, width // 8)
    assert latent.dtype == torch.float32
    shown = prior.decode(latent)
    assert shown.shape == video.shape and shown.dtype == torch.uint8
    for t in (1.0, 0.5, 0.01):
        assert prior.denoise(latent, t).shape == latent.shape


def test_spec(prior):
    spec = prior.spec
    assert (spec.id, spec.channels, spec.stride, spec.gop) == ("gauss", 32, (4, 8, 8), 33)
    assert spec.path == "rf" and 1 <= spec.knob <= 2


def test_latents_depend_on_no_later_frame_and_on_their_own_block(prior):
    video = clip(13, 32, 32)
    before = prior.encode(video)
    for frame in range(13):
        other = video.clone()
        other[frame, 8:16, 16:24] ^= 64
        changed = (prior.encode(other) != before).any(0)
        where = {tuple(p) for p in changed.nonzero().tolist()}
        assert where == {(math.ceil(frame / 4), 1, 2)}


def test_pictures_depend_on_their_own_latent(prior):
    latent = prior.encode(clip(9, 16, 16))
    before = prior.decode(latent)
    for j, frames in enumerate(({0}, {1, 2, 3, 4}, {5, 6, 7, 8})):
        other = latent.clone()
        other[0, j, 0, 0] += 3
        changed = (prior.decode(other) != before).any(-1).nonzero()
        assert set(changed[:, 0].tolist()) == frames
        assert changed[:, 1:].max() < 8


def test_decoding_keeps_what_the_basis_can_hold(prior):
    """Encoding again changes the latent by rounding only: 1/12 of a squared level at a value."""
    video = clip(17, 48, 64)
    latent = prior.encode(video)
    shown = prior.decode(latent)
    assert 5 < shown.min() and shown.max() < 250  # nothing was clipped
    again = prior.encode(shown)
    level = float(prior._gain.mean()) / 127.5
    off = (again - latent) / level
    assert float((off[:, 1:] ** 2).mean()) == pytest.approx(1 / 12, rel=0.15)
    assert float((off[:, :1] ** 2).mean()) == pytest.approx(4 / 12, rel=0.25)
    assert (prior.decode(again).int() - shown.int()).abs().max() <= 3
    psnr = 10 * math.log10(255**2 / float(((shown.float() - video.float()) ** 2).mean()))
    assert psnr > 30


def test_decoding_rounds_to_the_nearest_level_and_clips():
    for colour, levels in (((0.1, -0.2, 0.05), (140, 102, 134)), ((1.5, -1.5, 0), (255, 0, 128))):
        prior = GaussPrior(weights() | {"colour": torch.tensor(colour)}, bytes(8))
        shown = prior.decode(torch.zeros(3, 2, 1, 1))
        assert (shown == torch.tensor(levels)).all()


@pytest.mark.parametrize("part", ["first", "rest"])
def test_equal_errors_of_latents_are_equal_errors_of_pictures(prior, part):
    """Whatever the channel, up to one factor for all frames but the first, whose latent is
    doubled: white noise in the latent is white noise in what the picture's basis spans."""
    frames = slice(0, 1) if part == "first" else slice(1, None)
    base = prior.encode(torch.full((9, 64, 64, 3), 128, dtype=torch.uint8))
    level = float(prior._gain.mean()) / 127.5
    directions = [torch.eye(32)[c] for c in range(32)] + [white(c, 32) for c in range(4)]
    for direction in directions:
        error = direction[:, None, None, None] * white(1, *base.shape)
        error = error * 90 * level / direction.norm()
        off = prior.decode(base + error)[frames].double() - 128
        size = float((error[:, frames].double() ** 2).sum()) / level**2
        want = size / 4 if part == "first" else size
        assert float((off**2).sum()) == pytest.approx(want + off.numel() / 12, rel=0.02)


# -- spectrum ---------------------------------------------------------------------------------


def test_a_spectrum_is_itself_at_its_own_size():
    log_power = white(1, 4, 9, 32, 32)
    for axis in (1, 2, 3):
        same = resample_spectrum(log_power, log_power.shape[axis], axis)
        assert torch.equal(same, log_power.double())
    prior = GaussPrior(weights(), bytes(8))
    s = prior.model.spectrum((9, 32, 32))
    assert s.double().log() == pytest.approx(prior.model._log_power, abs=1e-5)
    assert float(s.double().mean()) == pytest.approx(1, rel=1e-5)


@pytest.mark.parametrize("axis", [0, 1, -1])
@pytest.mark.parametrize("n", [1, 2, 3, 7, 12, 16, 23, 24])
def test_fewer_bins_keep_the_mean_variance(n, axis):
    """Mean power per coefficient stays, so the variance of a latent value does."""
    log_power = 3 * white(2, 24, 24, 24).double()
    small = resample_spectrum(log_power, n, axis)
    assert small.shape[axis] == n
    assert small.exp().mean(axis) == pytest.approx(log_power.exp().mean(axis), rel=1e-9)


def test_fewer_bins_average_the_bands_they_cover():
    power = torch.tensor([8.0, 4.0, 2.0, 1.0, 1.0, 1.0]).double()
    for n, means in (
        (3, [6.0, 1.5, 1.0]),
        (2, [14 / 3, 1.0]),
        (4, [20 / 3, 8 / 3, 1.0, 1.0]),
    ):
        assert resample_spectrum(power.log(), n, 0).exp() == pytest.approx(torch.tensor(means))


def test_more_bins_continue_a_power_law():
    """Power (k + 1/2)^-p over N bins is ((k + 1/2) N / n)^-p over n, below the lowest bin too."""
    for known, n in ((9, 14), (32, 33), (32, 90), (2, 7)):
        low, high = ((torch.arange(m) + 0.5).double() / m for m in (known, n))
        got = resample_spectrum(-1.7 * low.log(), n, 0)
        inside = high <= low[-1]
        assert got[inside] == pytest.approx(-1.7 * high[inside].log(), abs=1e-9)
        assert (got[~inside] == got[~inside][0]).all()


@pytest.mark.parametrize("size", [(1, 2, 2), (1, 1, 1), (3, 40, 5), (20, 7, 33), (9, 32, 32)])
def test_any_size_has_a_spectrum_and_a_denoiser(prior, size):
    s = prior.model.spectrum(size)
    assert s.shape == (32, *size) and s.dtype == torch.float32
    assert torch.isfinite(s).all() and (s > 0).all()
    x = white(1, 32, *size)
    for t in (1.0, 0.7, 1e-3):
        assert torch.isfinite(prior.denoise(x, t)).all()


# -- denoiser ---------------------------------------------------------------------------------


def dense_basis(size):
    """Rows are the orthonormal DCT-II basis of one channel, written out: float64 [FHW, FHW]."""

    def matrix(n):
        k, i = np.mgrid[:n, :n]
        m = np.sqrt(2 / n) * np.cos(np.pi * k * (2 * i + 1) / (2 * n))
        m[0] /= np.sqrt(2)
        return m

    f, h, w = map(matrix, size)
    return torch.from_numpy(np.kron(f, np.kron(h, w)))


def test_dct_is_the_orthonormal_transform():
    x = white(3, 2, 3, 4, 5).double().float()
    want = (dense_basis((3, 4, 5)) @ x.double().reshape(2, 60).T).T.reshape(2, 3, 4, 5)
    assert torch.allclose(dct3(x).double(), want, atol=1e-5)
    assert torch.allclose(dct3(dct3(x), inverse=True), x, atol=1e-5)
    assert torch.allclose(dct3(dct3(x, inverse=True)), x, atol=1e-5)


@pytest.mark.parametrize("t", [0.999, 0.8, 0.5, 0.1, 0.01])
def test_denoiser_is_the_mean_of_a_gaussian_given_what_is_seen(t):
    """Against dense conditioning, E[x0 | x] = K alpha (alpha^2 K + sigma^2 I)^-1 x, for the
    covariance K that the model's spectrum stands for."""
    prior, size = GaussPrior(weights(), bytes(8)), (2, 3, 4)
    basis, s = dense_basis(size), prior.model.spectrum(size).double().reshape(3, -1)
    x = white(4, 3, *size)
    got = prior.denoise(x, t)
    for c in range(3):
        k = basis.T @ torch.diag(s[c]) @ basis
        noisy = (1 - t) ** 2 * k + t**2 * torch.eye(len(k)).double()
        want = (1 - t) * k @ torch.linalg.solve(noisy, x[c].double().flatten())
        assert torch.allclose(got[c].double().flatten(), want, rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize("t", [1.0, 0.9, 0.5, 0.2, 0.05])
def test_mean_error_is_that_of_the_model(prior, t):
    """|x0 - x0hat|^2 on draws from the model itself: sum S sigma^2 / (alpha^2 S + sigma^2)."""
    size, got = (9, 32, 32), 0.0
    s = prior.model.spectrum(size).double()
    # A linear filter's error depends on second moments alone: coefficients of +-sqrt(S), seen
    # under a noise of +-1 and its opposite, have them exactly.
    x0 = dct3(s.float().sqrt() * white(7, 32, *size).sign(), inverse=True)
    eps = dct3(white(8, 32, *size).sign(), inverse=True)
    for sign in (1, -1):
        x = (1 - t) * x0 + sign * t * eps
        got += float(((x0 - prior.denoise(x, t)).double() ** 2).sum()) / 2
    want = float((s * t**2 / ((1 - t) ** 2 * s + t**2)).sum())
    assert got == pytest.approx(want, rel=1e-3)


def test_mean_error_of_draws_from_the_model(prior):
    """The same by Monte Carlo, where no few coefficients hold most of the error."""
    size, t = (9, 32, 32), 0.3
    s = prior.model.spectrum(size)
    x0 = dct3(s.sqrt() * white(9, 32, *size), inverse=True)
    off = x0 - prior.denoise((1 - t) * x0 + t * white(10, 32, *size), t)
    want = (s * t**2 / ((1 - t) ** 2 * s + t**2)).double().sum()
    assert float((off.double() ** 2).sum() / want) == pytest.approx(1, abs=0.01)


def test_denoiser_at_the_ends(prior):
    x = white(5, 32, 3, 8, 8)
    assert torch.equal(prior.denoise(x, 1.0), torch.zeros_like(x))
    s = float(prior.model.spectrum((3, 8, 8)).min())
    near = prior.denoise(x, 1e-3 * math.sqrt(s))
    assert torch.allclose(near, x, atol=1e-3)
    assert torch.allclose(prior.denoise(x, 0.0), x, atol=1e-5)


def test_the_steering_metric_is_a_filter_that_lets_pass_what_can_be_known(prior):
    """Symmetric, positive, at most 1; 1 for all where nothing is hidden by noise."""
    a, b = white(6, 2, 32, 3, 8, 8)
    metric = prior.spec.metric or (lambda r, snr: r)
    for snr in (1e-3, 1.0, 1e3):
        wa, wb = metric(a, snr), metric(b, snr)
        assert float((wa * b).sum()) == pytest.approx(float((a * wb).sum()), rel=1e-3)
        assert 0 < float((wa * a).sum()) and float((wa**2).sum()) <= float((a**2).sum()) * 1.001
        assert torch.allclose(metric(a + 2 * b, snr), wa + 2 * wb, atol=1e-4)
    assert torch.allclose(metric(a, 1e12), a, atol=1e-3)


def test_denoised_steps_stay_on_the_models_path():
    """The probability flow with this denoiser turns white noise into a draw from the model."""
    prior, size = GaussPrior(weights(spread=0.5), bytes(8)), (9, 32, 32)
    x = white(6, 3, *size)
    times = flow.schedule(200, 1.0)
    got = flow.sample(prior.denoise, x, times, lambda *_: None, rule="posterior",
                      path=flow.PATHS["rf"], multistep=True)  # fmt: skip
    want = dct3(dct3(x) * prior.model.spectrum(size).sqrt(), inverse=True)
    assert float((got - want).norm() / want.norm()) < 0.01


# -- weights ----------------------------------------------------------------------------------


def test_weights_survive_the_file_and_name_themselves():
    tensors = weights()
    data = save_safetensors(tensors)
    prior = gauss.from_bytes(data)
    assert prior.spec.digest == hashlib.sha256(data).digest()[:8]
    assert prior.spec.channels == 3
    video = clip(5, 16, 16)
    assert torch.equal(prior.encode(video), GaussPrior(tensors, bytes(8)).encode(video))


def test_the_shipped_prior_is_what_the_package_promises():
    data = (gauss.files("gvcc.priors") / "weights/gauss.safetensors").read_bytes()
    assert len(data) <= 2_000_000
    tensors = load_safetensors(data)
    for name in ("group", "first"):
        rows = tensors[name].double()
        assert torch.allclose(rows @ rows.T, torch.eye(32).double(), atol=1e-5)


def damaged():
    good = weights()
    yield "missing", {k: v for k, v in good.items() if k != "power"}
    yield "missing", {}
    yield "missing", {k: v for k, v in good.items() if k != "group"}
    yield "colour", {k: v for k, v in good.items() if k != "colour"}
    yield "colour", good | {"colour": torch.zeros(4)}
    yield "group", good | {"group": torch.zeros(3, 767)}
    yield "group", good | {"group": torch.zeros(768)}
    yield "group", good | {"group": torch.zeros(())}
    yield "first", good | {"first": torch.zeros(2, 192)}
    yield "power", good | {"power": torch.zeros(3, 9, 32)}
    for name in good:
        for value in (math.nan, math.inf):
            bad = good[name].clone()
            bad.flatten()[-1] = value
            yield "finite", good | {name: bad}


@pytest.mark.parametrize(("says", "tensors"), list(damaged()))
def test_wrong_tensors_are_refused(says, tensors):
    with pytest.raises(ConfigError, match=says):
        GaussPrior(tensors, bytes(8))
    with pytest.raises(ConfigError, match=says):
        gauss.from_bytes(save_safetensors(tensors))


@pytest.mark.parametrize("cut", [0, 1, 7, 8, 60, 1000, -1])
def test_a_truncated_file_is_refused(cut):
    data = save_safetensors(weights())
    with pytest.raises(ConfigError, match="gauss weights"):
        gauss.from_bytes(data[:cut])


def test_bytes_of_another_kind_are_refused():
    for data in (b"\x89PNG\r\n\x1a\n" * 20, bytes(100), b"\xff" * 64):
        with pytest.raises(ConfigError, match="gauss weights"):
            gauss.from_bytes(data)
