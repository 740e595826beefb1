"""RAFT, and E_warp, which warps by its flow.

torchvision has the network too, but must not be installed beside the CPU build of torch. Its own
raft.py, from the unpacked wheel of 0.28.0 with its imports stubbed, was run by hand against ours:
with the same random weights, 12 iterations, 128x128 and 2 x 136x200, flows of up to 41 pixels
differed by 1.9e-5 at most. What it gave for weights that a formula makes is in THEIRS below, and
the hash of the names and shapes of its parameters in NAMES.
"""

from __future__ import annotations

import hashlib
from pathlib import Path

import numpy as np
import pytest
import torch

from gvcc.errors import ConfigError
from gvcc.metrics import raft, warp

pytestmark = pytest.mark.usefixtures("one_thread")

NAMES = "119492c560fcc8e33c405adc2867f9f1c7f1b3db3abbf48677d2f1d6372bfdd4"
# Iterations: the flow of `pictures` by the weights `waves`, x then y at every 50th row from the 5th
# and every 60th column from the 9th. Later iterations are left out, as rounding grows in them.
THEIRS = {
    1: [
        -5.3253, -8.5484, -12.3304, -3.1700, -7.1280, -11.0242, -14.1957, -9.6983,
        -5.1159, -7.8607, -12.2178, -8.0770, 3.4586, 0.9942, 5.0962, 1.0750,
        -0.1264, -4.8567, -1.9504, 1.2314, 0.4016, -3.3486, -3.3597, -2.6688,
    ],
    3: [
        -15.8030, -24.0715, -36.4244, -13.3041, -22.5851, -35.6435, -42.2144, -32.2985,
        -15.1610, -27.6653, -32.3431, -23.3911, 8.2692, 1.8066, 12.7449, 7.4621,
        -1.3690, -18.3578, -10.0532, 2.1443, 2.9082, -7.9810, -10.7723, -8.1224,
    ],
}  # fmt: skip


def waves(state: dict[str, torch.Tensor]) -> dict[str, torch.Tensor]:
    """Weights by a formula, so that no generator of random numbers has to stay as it is."""
    found = {}
    for i, (name, v) in enumerate(sorted(state.items())):
        wave = torch.sin(torch.arange(v.numel(), dtype=torch.float64) ** 1.5 + i).view(v.shape)
        if name.endswith("running_var"):
            wave = 1.2 + wave
        elif name.endswith("num_batches_tracked"):
            wave = torch.zeros(())
        elif v.dim() == 4:
            wave = wave * 2 / v[0].numel() ** 0.5
        else:
            wave = 0.3 * wave + (name.endswith("weight"))
        found[name] = wave.to(v.dtype)
    return found


def pictures() -> tuple[torch.Tensor, torch.Tensor]:
    """Two pictures [1,3,136,192] in [-1,1]."""
    y, x = torch.meshgrid(torch.arange(136.0), torch.arange(192.0), indexing="ij")
    turns = torch.arange(1.0, 4.0)[:, None, None]
    both = [torch.sin((x - d) * turns / 7) * torch.cos((y + 2 * d) / 5 + turns) for d in (0, 1.5)]
    return both[0][None], both[1][None]


@pytest.fixture
def network() -> raft.Raft:
    net = raft.Raft()
    net.load_state_dict(waves(net.state_dict()))
    return net.eval().requires_grad_(False)


# The network


def test_parameters_are_torchvisions(network: raft.Raft) -> None:
    assert sum(p.numel() for p in network.parameters()) == 5_257_536  # as published
    lines = [f"{name} {list(v.shape)}" for name, v in sorted(network.state_dict().items())]
    assert hashlib.sha256("\n".join(lines).encode()).hexdigest() == NAMES


@pytest.mark.parametrize("iterations", THEIRS)
def test_flow_is_what_torchvision_gave(network: raft.Raft, iterations: int) -> None:
    found = network(*pictures(), iterations)
    assert found.shape == (1, 2, 136, 192)
    expected = torch.tensor(THEIRS[iterations])
    torch.testing.assert_close(found[0, :, 5::50, 9::60].flatten(), expected, rtol=1e-3, atol=2e-3)


def test_pairs_do_not_see_each_other(network: raft.Raft) -> None:
    a, b = pictures()
    both = network(torch.cat([a, b]), torch.cat([b, a]), 2)
    torch.testing.assert_close(both[:1], network(a, b, 2), rtol=1e-4, atol=1e-4)
    torch.testing.assert_close(both[1:], network(b, a, 2), rtol=1e-4, atol=1e-4)


def test_correlations_are_those_of_a_loop() -> None:
    torch.manual_seed(0)
    a, b = torch.randn(2, 6, 16, 17), torch.randn(2, 6, 16, 17)
    at = torch.randn(2, 2, 16, 17) * 6 + 8
    found = raft.lookup(raft.pyramid(a, b), at)
    assert found.shape == (2, 4 * 81, 16, 17)
    for n, channel, i, j in ((0, 0, 0, 0), (0, 40, 3, 16), (1, 81 + 9, 15, 2), (1, 300, 7, 8),
                             (0, 2 * 81 + 77, 9, 9), (1, 3 * 81 + 41, 4, 4)):  # fmt: skip
        level, offset = divmod(channel, 81)
        small = torch.nn.functional.avg_pool2d(b[n], 2**level)  # pooling is linear
        x = at[n, 0, i, j].item() / 2**level + offset // 9 - 4
        y = at[n, 1, i, j].item() / 2**level + offset % 9 - 4
        expected = 0.0
        for q in range(small.shape[1]):
            for p in range(small.shape[2]):
                share = max(0, 1 - abs(x - p)) * max(0, 1 - abs(y - q))
                expected += share * (a[n, :, i, j] @ small[:, q, p]).item() / 6**0.5
        assert found[n, channel, i, j].item() == pytest.approx(expected, abs=1e-4)


def test_upsampling_is_convex() -> None:
    torch.manual_seed(1)
    flow = torch.tensor([2.0, -1.0])[None, :, None, None].repeat(1, 1, 6, 7)
    fine = raft.upsampled(flow, 3 * torch.randn(1, 576, 6, 7))
    inner = fine[..., 8:-8, 8:-8]  # at the border, zeros beyond it take part
    torch.testing.assert_close(inner, 8 * flow[..., :1, :1].expand_as(inner))
    flow = torch.randn(1, 2, 6, 7)
    only = torch.full((1, 9, 64, 6, 7), -100.0)
    only[:, 4] = 100  # the middle one of the nine
    fine = raft.upsampled(flow, only.view(1, 576, 6, 7))
    blocks = flow.repeat_interleave(8, 2).repeat_interleave(8, 3)
    torch.testing.assert_close(fine, 8 * blocks)


# Its file, and pictures of any size


@pytest.fixture
def weights(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, network: raft.Raft) -> Path:
    torch.save(network.state_dict(), tmp_path / raft.WEIGHTS)
    monkeypatch.setenv("GVCC_METRICS", str(tmp_path))
    monkeypatch.setenv("TORCH_HOME", str(tmp_path / "none"))
    raft._network.cache_clear()
    return tmp_path


def texture(frames: int, height: int, width: int, step: tuple[int, int]) -> np.ndarray:
    """A smooth random texture [T,H,W,3] that moves by `step`, x and y, from frame to frame."""
    from scipy.ndimage import gaussian_filter

    field = gaussian_filter(np.random.default_rng(0).normal(size=(200, 260, 3)), (1.5, 1.5, 0))
    field = (np.clip(field * 300 + 128, 0, 255)).astype(np.uint8)
    dx, dy = step
    y, x = (40 - t * dy for t in range(frames)), (40 - t * dx for t in range(frames))
    return np.stack([field[j : j + height, i : i + width] for j, i in zip(y, x, strict=True)])


@pytest.mark.parametrize("height, width", [(50, 141), (128, 136)])
def test_pictures_are_padded_by_their_edge(
    height: int, width: int, weights: Path, network: raft.Raft
) -> None:
    a, b = texture(2, height, width, (2, 1))
    found = raft.flow(a, b)
    assert found.shape == (height, width, 2) and found.dtype == np.float32
    more = 128 - height, -width % 8
    sides = [(n // 2, n - n // 2) for n in more]
    padded = [np.pad(p, (*sides, (0, 0)), mode="edge") for p in (a, b)]
    tensors = [torch.from_numpy(p).permute(2, 0, 1)[None] / 127.5 - 1 for p in padded]
    top, left = sides[0][0], sides[1][0]
    expected = network(*tensors)[0, :, top : top + height, left : left + width].permute(1, 2, 0)
    np.testing.assert_allclose(found, expected, rtol=1e-3, atol=1e-3)


def test_missing_and_other_weights_are_said(weights: Path) -> None:
    a, b = texture(2, 20, 20, (1, 0))
    torch.save({"x": torch.zeros(1)}, weights / raft.WEIGHTS)
    with pytest.raises(ConfigError, match=r"does not hold the weights of RAFT \(large\)"):
        raft.flow(a, b)
    (weights / raft.WEIGHTS).unlink()
    with pytest.raises(ConfigError, match="RAFT needs raft_large_C_T_SKHT_V2-ff5fadd5.pth"):
        warp.ewarp(np.stack([a, b]), np.stack([a, b]))


# E_warp


def exact(dx: float, dy: float) -> warp.Flow:
    """The flow of a texture that moves by (dx, dy), forwards and backwards in turn."""
    signs = iter([1, -1] * 100)

    def flow(before: np.ndarray, after: np.ndarray) -> np.ndarray:
        return np.broadcast_to(np.float32([dx, dy]) * next(signs), (*before.shape[:2], 2))

    return flow


def test_motion_alone_is_no_error() -> None:
    clip = texture(4, 60, 80, (3, -2))
    assert warp.error(clip, clip, exact(3, -2)) == 0
    assert warp.error(clip, clip[:1].repeat(4, 0), exact(3, -2)) > 1e-3  # it stands still
    assert warp.error(clip, clip, exact(0, 0)) > 1e-3


def test_flicker_is_its_variance() -> None:
    clip = texture(5, 60, 80, (3, -2)) // 2 + 50
    flicker = np.array([0, 7, -2, 4, 4])
    out = (clip + flicker[:, None, None, None]).astype(np.uint8)
    expected = np.mean(np.diff(flicker) ** 2.0) / 255**2
    assert warp.error(clip, out, exact(3, -2)) == pytest.approx(expected, rel=1e-5)
    # Of noise that is new in each frame, the difference has twice the variance.
    noise = np.random.default_rng(3).integers(-9, 10, clip.shape)
    found = warp.error(clip, (clip + noise).astype(np.uint8), exact(3, -2))
    assert found == pytest.approx(2 * noise.var() / 255**2, rel=0.03)


def test_half_a_pixel_is_interpolated() -> None:
    ramp = np.broadcast_to(np.arange(0, 80, 2.0, np.float32)[None, :, None], (30, 40, 1))
    found = warp.warped(ramp, np.broadcast_to(np.float32([0.5, -0.25]), (30, 40, 2)))
    np.testing.assert_allclose(found[:, :-1], ramp[:, :-1] + 1)
    assert (found[:, -1] == 78).all()  # the nearest inside


def test_visible_is_the_formula() -> None:
    rng = np.random.default_rng(4)
    forward, backward = np.zeros((2, 12, 15, 2), np.float32)
    forward[:] = [1, 2]
    forward[:, 8:] = [3, -1]
    forward[:, :4] = 0  # noise alone: some of its slopes are above 0.002
    backward[:] = -forward
    forward += rng.normal(0, 0.02, forward.shape)
    backward[5:9] += rng.normal(0, 0.8, (4, 15, 2))
    found = warp.visible(forward, backward)
    assert 0.2 < found.mean() < 0.8 and 0.1 < found[:4, :3].mean() < 0.9
    for y in range(12):
        for x in range(15):
            f = forward[y, x]
            at = np.array([x, y]) + f
            back = np.zeros(2)
            for q in range(12):
                for p in range(15):
                    share = max(0, 1 - abs(at[0] - p)) * max(0, 1 - abs(at[1] - q))
                    back += share * backward[q, p]
            slope = 0.0
            if x + 1 < 15:
                slope += ((forward[y, x + 1] - f) ** 2).sum()
            if y + 1 < 12:
                slope += ((forward[y + 1, x] - f) ** 2).sum()
            inside = 0 <= at[0] <= 14 and 0 <= at[1] <= 11
            same = ((f + back) ** 2).sum() <= 0.01 * ((f**2).sum() + (back**2).sum()) + 0.5
            assert found[y, x] == (inside and same and slope <= 0.01 * (f**2).sum() + 0.002)


def test_a_hidden_part_does_not_count() -> None:
    clip = texture(2, 60, 80, (0, 0))

    def flow(before: np.ndarray, after: np.ndarray) -> np.ndarray:
        found = np.zeros((60, 80, 2), np.float32)
        if before is not clip[0] and not np.array_equal(before, clip[0]):
            found[:, 40:] = 5  # what is there in the second picture comes from elsewhere
        return found

    ref = clip.copy()
    ref[1, 0, 0] ^= 1  # tells the second picture from the first
    out = clip.copy()
    out[1, :, 40:] = 0
    assert warp.error(ref, out, flow) == 0


def test_raft_is_the_flow(weights: Path) -> None:
    clip = texture(2, 50, 60, (2, 1))
    expected = warp.error(clip, clip, raft.flow)
    assert warp.ewarp(clip, clip) == expected


def test_where_it_is_not_defined() -> None:
    clip = texture(2, 20, 30, (1, 0))
    assert warp.ewarp(clip[:1], clip[:1]) is None
    assert warp.error(clip, clip, exact(100, 0)) is None  # everything leaves
    with pytest.raises(ConfigError, match="must have the same frames"):
        warp.ewarp(clip, clip[:1])
