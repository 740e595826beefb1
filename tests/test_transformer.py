"""The denoiser of `nano`: exactly Gaussian at its start, at any size, beside known frames."""

import math

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from gvcc.priors import transformer
from gvcc.priors.spectrum import StationaryGaussian, dct3, dct_matrix
from gvcc.priors.transformer import WINDOW, Transformer, TransformerShape, cuts, denoise
from gvcc.train.flow import draw_mask

CHANNELS = 3
SHAPE = TransformerShape(channels=CHANNELS, width=64, layers=2)


def white(seed, *shape):
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed))


def gaussian():
    """A power law with channels of different size."""
    axes = [torch.log(torch.arange(n) + 0.5) for n in (9, 32, 32)]
    slope = axes[0][:, None, None] + axes[1][:, None] + axes[2]
    return StationaryGaussian(4 - 1.1 * slope - torch.arange(CHANNELS)[:, None, None, None])


def untrained(shape=SHAPE):
    torch.manual_seed(1)
    return Transformer(shape).eval().requires_grad_(False)


def stirred(size=0.1):
    """All parameters changed at random, so that nothing is switched off by a zero."""
    net = untrained()
    for i, p in enumerate(net.parameters()):
        p += size * white(i, *p.shape)
    return net


def nothing(x):
    """No known frame: what stands in `known` is not looked at."""
    return white(99, *x.shape), torch.zeros(x.shape[0], x.shape[2])


def some(x, *frames):
    mask = torch.zeros(x.shape[0], x.shape[2])
    mask[:, list(frames)] = 1
    return white(98, *x.shape), mask


@pytest.fixture(scope="module")
def gauss():
    return gaussian()


@pytest.fixture(scope="module")
def net():
    return stirred()


# -- the Gaussian denoiser --------------------------------------------------------------------


def test_dct_matrices_are_orthonormal():
    for n in (1, 2, 5, 9, 32):
        m = dct_matrix(n)
        assert torch.allclose(m @ m.T, torch.eye(n), atol=1e-5)
        assert torch.allclose(m[0], torch.full((n,), n**-0.5))


@pytest.mark.parametrize("size", [(1, 1, 1), (3, 5, 4), (9, 16, 12)])
def test_dct_keeps_lengths_and_returns(size):
    x = white(1, 2, CHANNELS, *size)
    y = dct3(x)
    assert float(y.norm()) == pytest.approx(float(x.norm()), rel=1e-5)
    assert torch.allclose(dct3(y, inverse=True), x, atol=1e-5)


def test_gaussian_with_a_time_per_sample_is_the_scalar_call_of_each(gauss):
    x, t = white(2, 3, CHANNELS, 5, 6, 4), torch.tensor([0.9, 0.5, 0.05])
    at = t[:, None, None, None, None]
    both = gauss.denoise(x, 1 - at, at)
    for i in range(3):
        alone = gauss.denoise(x[i], 1 - t[i].item(), t[i].item())
        assert torch.allclose(both[i], alone, atol=1e-5)


def test_scale_is_the_spread_of_each_channel(gauss):
    power = gauss.spectrum((9, 32, 32)).mean((1, 2, 3))
    assert torch.allclose(gauss.scale(), power.sqrt(), rtol=1e-4)


@pytest.mark.parametrize("t", [1.0, 0.5, 0.03])
def test_the_untrained_net_is_the_gaussian_denoiser(gauss, t):
    x = white(3, 2, CHANNELS, 5, 7, 6)
    times = torch.full((2,), t)
    at = times[:, None, None, None, None]
    got = denoise(untrained(), gauss, x, times, *nothing(x))
    assert torch.equal(got, gauss.denoise(x, 1 - at, at))


def test_the_stirred_net_is_not(gauss, net):
    x, t = white(3, 1, CHANNELS, 5, 7, 6), torch.tensor([0.5])
    at = t[:, None, None, None, None]
    got = denoise(net, gauss, x, t, *nothing(x))
    assert (got - gauss.denoise(x, 1 - at, at)).abs().max() > 0.05


# -- known frames -----------------------------------------------------------------------------


@pytest.mark.parametrize("frames", [(0,), (0, 4), (1, 2), (0, 1, 2, 3, 4)])
def test_known_frames_come_out_exactly_and_their_noise_is_ignored(gauss, net, frames):
    x, t = white(4, 2, CHANNELS, 5, 6, 5), torch.tensor([0.7, 0.2])
    known, mask = some(x, *frames)
    got = denoise(net, gauss, x, t, known, mask)
    assert torch.equal(got[:, :, list(frames)], known[:, :, list(frames)])
    other = x.clone()
    other[:, :, list(frames)] += 10
    assert torch.equal(denoise(net, gauss, other, t, known, mask), got)


def test_only_the_known_part_of_known_counts_and_it_helps_the_others(gauss, net):
    x, t = white(5, 1, CHANNELS, 4, 6, 6), torch.tensor([0.6])
    known, mask = some(x, 0)
    got = denoise(net, gauss, x, t, known, mask)
    elsewhere = known.clone()
    elsewhere[:, :, 1:] += 5
    assert torch.equal(denoise(net, gauss, x, t, elsewhere, mask), got)
    other = known.clone()
    other[:, :, 0] += 1
    assert (denoise(net, gauss, x, t, other, mask) - got)[:, :, 1:].abs().max() > 0.01


def test_the_net_is_told_which_frames_are_known(gauss):
    """Its last input is 1 at them and 0 at the others, whatever the numbers there."""
    seen, net = [], untrained()
    net.register_forward_pre_hook(lambda net, inputs: seen.append(inputs[0]))
    x, t = white(6, 2, CHANNELS, 3, 4, 5), torch.tensor([0.5, 0.9])
    known, mask = white(10, *x.shape), torch.tensor([[1.0, 0, 0], [0, 1, 1]])
    denoise(net, gauss, x, t, known, mask)
    assert seen[0].shape == (2, 3 * CHANNELS + 1, 3, 4, 5)
    assert torch.equal(seen[0][:, -1], mask[:, :, None, None].expand(2, 3, 4, 5))
    assert (
        seen[0][:, -1 - CHANNELS : -1].abs().amax((1, 3, 4)) > 0
    ).tolist() == mask.bool().tolist()


@pytest.mark.parametrize("t", [0.9, 0.4, 0.05])
@pytest.mark.parametrize("frames", [(0,), (2,), (0, 3), (0, 1, 3), (0, 1, 2, 3)], ids=str)
def test_the_gaussian_given_known_frames_is_that_of_the_model(gauss, t, frames):
    """Against dense conditioning on the noisy unknown frames and the clean known ones."""
    f, h, w = size = (4, 2, 3)
    x, clean = white(14, CHANNELS, *size), white(15, CHANNELS, *size)
    given = {i: clean[:, i] for i in frames}
    got = gauss.denoise_known(x, 1 - t, t, given)
    assert torch.equal(got[:, list(frames)], clean[:, list(frames)])
    other = x.clone()
    other[:, list(frames)] += 5
    assert torch.allclose(gauss.denoise_known(other, 1 - t, t, given), got, atol=1e-4)
    basis = torch.kron(dct_matrix(f), torch.kron(dct_matrix(h), dct_matrix(w))).double()
    k = torch.tensor([i // (h * w) in frames for i in range(f * h * w)])
    for c in range(CHANNELS):
        cov = basis.T @ torch.diag(gauss.spectrum(size)[c].double().flatten()) @ basis
        seen = torch.where(k[:, None] | k, (1 - t) * cov, (1 - t) ** 2 * cov)
        seen = torch.where(k[:, None] & k, cov, seen) + t**2 * torch.diag((~k).double())
        across = torch.where(k, cov, (1 - t) * cov)
        z = torch.where(k, clean[c].flatten(), x[c].flatten()).double()
        want = across @ torch.linalg.solve(seen, z)
        assert torch.allclose(got[c].double().flatten(), want, atol=2e-3)


def test_the_untrained_net_is_that_gaussian(gauss):
    x, t = white(16, 2, CHANNELS, 4, 6, 5), torch.tensor([0.7, 0.2])
    known, mask = white(17, *x.shape), torch.tensor([[1.0, 0, 0, 1], [0, 1, 0, 0]])
    got = denoise(untrained(), gauss, x, t, known, mask)
    for i, frames in enumerate(((0, 3), (1,))):
        at = t[i].item()
        want = gauss.denoise_known(x[i], 1 - at, at, {f: known[i, :, f] for f in frames})
        assert torch.allclose(got[i], want, atol=1e-4)


def test_masks_of_training_leave_something_unknown():
    """None known, the first, the first and last, and others; never all."""
    rng, seen = np.random.default_rng(1), set()
    for frames in (1, 2, 5, 9):
        for _ in range(200):
            mask = draw_mask(rng, frames)
            assert mask.shape == (frames,) and mask.dtype == np.float32
            assert set(mask.tolist()) <= {0.0, 1.0} and mask.sum() < frames
            seen.add((frames, *np.flatnonzero(mask).tolist()))
    assert {(9,), (9, 0), (9, 0, 8), (1,), (2, 0), (2, 1)} <= seen
    assert len(seen) > 20 and (1, 0) not in seen


# -- sizes and times --------------------------------------------------------------------------


@settings(max_examples=15, deadline=None)
@given(st.integers(1, 9), st.integers(1, 21), st.integers(1, 21))
def test_any_size(gauss, net, f, h, w):
    x = white(7, 1, CHANNELS, f, h, w)
    got = denoise(net, gauss, x, torch.tensor([0.4]), *some(x, f // 2))
    assert got.shape == x.shape
    assert torch.isfinite(got).all()


@pytest.mark.parametrize("t", [1.0, 0.9999, 0.001])
def test_the_ends_of_time_are_finite(gauss, net, t):
    x = white(8, 1, CHANNELS, 3, 6, 6)
    for known, mask in (nothing(x), some(x, 0)):
        got = denoise(net, gauss, x, torch.tensor([t]), known, mask)
        assert torch.isfinite(got).all()
    if t == 0.001:  # almost nothing is hidden
        assert (denoise(net, gauss, x, torch.tensor([t]), *nothing(x)) - x).abs().max() < 0.1


def test_samples_of_a_batch_do_not_see_each_other(gauss, net):
    x, t = white(9, 2, CHANNELS, 5, 9, 18), torch.tensor([0.8, 0.3])
    known, mask = white(10, *x.shape), torch.tensor([[1.0, 0, 0, 0, 1], [0, 1, 0, 0, 0]])
    both = denoise(net, gauss, x, t, known, mask)
    for i in range(2):
        one = slice(i, i + 1)
        alone = denoise(net, gauss, x[one], t[one], known[one], mask[one])
        assert torch.allclose(both[one], alone, atol=1e-5)


def test_the_shipped_shape_has_at_most_twelve_million_parameters():
    with torch.device("meta"):
        count = sum(p.numel() for p in Transformer(TransformerShape()).parameters())
    assert 1_000_000 < count <= 12_000_000


# -- windows ----------------------------------------------------------------------------------


@given(st.integers(1, 500), st.integers(0, 1))
def test_cuts_cover_everything_in_nearly_equal_windows(n, more):
    windows = -(-n // WINDOW) + more
    pieces = cuts(n, windows)
    assert pieces[0][0] == 0 and pieces[-1][1] == n
    assert all(a[1] == b[0] for a, b in zip(pieces, pieces[1:], strict=False))
    sizes = [b - a for a, b in pieces]
    assert min(sizes) >= 1 and max(sizes) <= WINDOW
    assert max(sizes) - min(sizes) <= 1
    assert len(pieces) == min(n, windows)


def test_nothing_stays_behind_a_border():
    """One layer sees the windows 0-7 and 8-15 of 16 patches, the next 0-4, 5-10 and 11-15."""
    net = stirred()
    for layer in net.layers:  # attention alone
        layer.local.weight.zero_()
        layer.around.zero_()
    x, t = white(11, 1, 3 * CHANNELS + 1, 1, 32, 32), torch.tensor([0.5])
    other = x.clone()
    other[..., 14, 14] += 3  # in patch 7
    for layers, reach in ((2, 22), (1, 16)):
        net.layers = net.layers[:layers]
        changed = (net(other, t) - net(x, t)).abs().amax((0, 1, 2)) > 0
        assert changed[:reach, :reach].all()
        assert not changed[reach:].any() and not changed[:, reach:].any()


def test_attention_knows_only_how_far_positions_are_apart():
    f, h, w = 4, 6, 5
    angle = transformer._rotation(f, h, w, torch.device("cpu"))
    assert angle.shape == (f * h * w, 32)
    q, k = (white(i, 64).expand(f * h * w, 64) for i in (12, 13))
    q, k = (transformer._rotate(x, angle.cos(), angle.sin()) for x in (q, k))
    assert torch.allclose(q.norm(dim=1), q[0].norm().expand(f * h * w), rtol=1e-4)
    logits = (q @ k.T).reshape(f, h, w, f, h, w)
    for a, b, c in ((1, 0, 0), (0, 2, 0), (0, 0, 1), (2, 3, 2)):
        moved = logits[a:, b:, c:, a:, b:, c:]
        assert torch.allclose(moved, logits[: f - a, : h - b, : w - c, : f - a, : h - b, : w - c],
                              atol=1e-4)  # fmt: skip
    # And it does know: each axis changes the logit.
    seen = logits[0, 0, 0]
    for step in ((1, 0, 0), (0, 1, 0), (0, 0, 1)):
        assert abs(float(seen[step] - seen[0, 0, 0])) > 1e-2


def test_no_turn_is_ambiguous_within_a_window():
    """On each axis the fastest pair turns a quarter per position, the slowest never half."""
    angle = transformer._rotation(9, 8, 8, torch.device("cpu")).reshape(9, 8, 8, 32)
    for turn in (angle[1, 0, 0, :8], angle[0, 1, 0, 8:20], angle[0, 0, 1, 20:]):
        assert float(turn[0]) == pytest.approx(math.pi / 2)
        assert float(turn[-1]) * 8 < math.pi
        assert (turn[1:] < turn[:-1]).all()
    assert torch.equal(angle[1, 1, 1], angle[1, 0, 0] + angle[0, 1, 0] + angle[0, 0, 1])
