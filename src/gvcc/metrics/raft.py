"""RAFT, large (Teed and Deng 2020, arXiv 2003.12039): the optical flow of two pictures.

Parameters have the names of torchvision's `raft_large`, whose file WEIGHTS (trained on
FlyingChairs, FlyingThings3D, Sintel, KITTI and HD1K) is looked for as LPIPS' are; the authors' own
raft-things.pth has other names. Given the same weights, the flow is torchvision's
(tests/test_raft.py).

All pairs of positions, an eighth of the picture's sides apart, are correlated once and kept:
4/3 x 4 x (HW/64)^2 bytes, which is 1.1 GB for 720p, 5.6 GB for 1080p and 90 GB for 2160p.
"""

from __future__ import annotations

from collections import OrderedDict
from functools import lru_cache

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn
from torch.nn import functional

from gvcc.metrics.perceptual import fill, find_file, tensors

WEIGHTS = "raft_large_C_T_SKHT_V2-ff5fadd5.pth"
ITERATIONS = 12
_LEVELS, _RADIUS = 4, 4
_LEAST = 128  # pixels a side: the coarsest level then has 2 positions, between which to interpolate
_HIDDEN = 128  # channels of the recurrent state; as many more are its context


def _conv(
    inputs: int, outputs: int, kernel: int, stride: int = 1, norm: type[nn.Module] | None = None,
    relu: bool = True,
) -> nn.Sequential:  # fmt: skip
    layers: list[nn.Module] = [nn.Conv2d(inputs, outputs, kernel, stride, kernel // 2)]
    layers += [norm(outputs)] if norm else []
    return nn.Sequential(*layers, *([nn.ReLU()] if relu else []))


class _Residual(nn.Module):
    def __init__(self, inputs: int, outputs: int, stride: int, norm: type[nn.Module]) -> None:
        super().__init__()
        self.convnormrelu1 = _conv(inputs, outputs, 3, stride, norm)
        self.convnormrelu2 = _conv(outputs, outputs, 3, 1, norm)
        self.downsample: nn.Module = nn.Identity()
        if stride > 1:
            self.downsample = _conv(inputs, outputs, 1, stride, norm, relu=False)

    def forward(self, x: Tensor) -> Tensor:
        out: Tensor = (self.downsample(x) + self.convnormrelu2(self.convnormrelu1(x))).relu()
        return out


def _encoder(norm: type[nn.Module]) -> nn.Sequential:
    """Pictures [n,3,H,W] to features [n,256,H/8,W/8]."""
    layers: OrderedDict[str, nn.Module] = OrderedDict(convnormrelu=_conv(3, 64, 7, 2, norm))
    width = 64
    for i, (outputs, stride) in enumerate(((64, 1), (96, 2), (128, 2)), 1):
        layers[f"layer{i}"] = nn.Sequential(
            _Residual(width, outputs, stride, norm), _Residual(outputs, outputs, 1, norm)
        )
        width = outputs
    layers["conv"] = nn.Conv2d(width, 2 * _HIDDEN, 1)
    return nn.Sequential(layers)


class _Motion(nn.Module):
    """The flow so far and the correlations around it, as features [n,128,h,w]."""

    def __init__(self) -> None:
        super().__init__()
        self.convcorr1 = _conv(_LEVELS * (2 * _RADIUS + 1) ** 2, 256, 1)
        self.convcorr2 = _conv(256, 192, 3)
        self.convflow1 = _conv(2, 128, 7)
        self.convflow2 = _conv(128, 64, 3)
        self.conv = _conv(192 + 64, 128 - 2, 3)

    def forward(self, flow: Tensor, correlations: Tensor) -> Tensor:
        known = self.convcorr2(self.convcorr1(correlations)), self.convflow2(self.convflow1(flow))
        return torch.cat([self.conv(torch.cat(known, 1)), flow], 1)


class _Gru(nn.Module):
    def __init__(self, kernel: tuple[int, int]) -> None:
        super().__init__()
        padding = (kernel[0] // 2, kernel[1] // 2)
        self.convz, self.convr, self.convq = (
            nn.Conv2d(3 * _HIDDEN, _HIDDEN, kernel, padding=padding) for _ in range(3)
        )

    def forward(self, h: Tensor, x: Tensor) -> Tensor:
        both = torch.cat([h, x], 1)
        z, r = self.convz(both).sigmoid(), self.convr(both).sigmoid()
        q = self.convq(torch.cat([r * h, x], 1)).tanh()
        out: Tensor = (1 - z) * h + z * q
        return out


class _Update(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.motion_encoder = _Motion()
        self.recurrent_block = nn.ModuleDict({"convgru1": _Gru((1, 5)), "convgru2": _Gru((5, 1))})
        self.flow_head = nn.Sequential(
            OrderedDict(
                conv1=nn.Conv2d(_HIDDEN, 256, 3, padding=1),
                relu=nn.ReLU(),
                conv2=nn.Conv2d(256, 2, 3, padding=1),
            )
        )

    def forward(
        self, h: Tensor, context: Tensor, correlations: Tensor, flow: Tensor
    ) -> tuple[Tensor, Tensor]:
        x = torch.cat([context, self.motion_encoder(flow, correlations)], 1)
        for gru in self.recurrent_block.values():
            h = gru(h, x)
        return h, self.flow_head(h)


class Raft(nn.Module):
    """The network; random weights until a file fills it."""

    def __init__(self) -> None:
        super().__init__()
        self.feature_encoder = _encoder(nn.InstanceNorm2d)
        self.context_encoder = _encoder(nn.BatchNorm2d)
        self.update_block = _Update()
        self.mask_predictor = nn.Sequential(
            OrderedDict(convrelu=_conv(_HIDDEN, 256, 3), conv=nn.Conv2d(256, 64 * 9, 1))
        )

    def forward(self, before: Tensor, after: Tensor, iterations: int = ITERATIONS) -> Tensor:
        """Flow [n,2,H,W] of pictures [n,3,H,W] in [-1,1], H and W multiples of 8 from 128 on.

        x then y, in pixels: what `before` shows at p, `after` shows at p + flow.
        """
        features = self.feature_encoder(torch.cat([before, after])).chunk(2)
        levels = pyramid(*features)
        h, context = self.context_encoder(before).chunk(2, 1)
        h, context = h.tanh(), context.relu()
        start = _grid(features[0])
        flow = torch.zeros_like(start)
        for _ in range(iterations):
            h, change = self.update_block(h, context, lookup(levels, start + flow), flow)
            flow = flow + change
        # The factor is the authors', who so weaken the gradient of this branch.
        return upsampled(flow, 0.25 * self.mask_predictor(h))


def _grid(like: Tensor) -> Tensor:
    """Each position's own x and y, [n,2,h,w]."""
    n, _, h, w = like.shape
    y, x = (torch.arange(size, device=like.device, dtype=torch.float32) for size in (h, w))
    return torch.stack([x.expand(h, w), y[:, None].expand(h, w)]).expand(n, 2, h, w)


def pyramid(a: Tensor, b: Tensor) -> list[Tensor]:
    """Correlations [n h w, 1, h/2^l, w/2^l] of features [n,c,h,w], level by level.

    The scalar product of each position of `a` with each of `b`, over sqrt(c); then means of four.
    """
    n, c, h, w = a.shape
    found = [(a.flatten(2).mT @ b.flatten(2) / c**0.5).view(n * h * w, 1, h, w)]
    for _ in range(_LEVELS - 1):
        found.append(functional.avg_pool2d(found[-1], 2))
    return found


def lookup(levels: list[Tensor], at: Tensor) -> Tensor:
    """Correlations [n, 4*81, h, w] around the positions `at` [n,2,h,w], which are x and y in `b`.

    At each level 9x9 offsets by whole positions, x the slower one; bilinear, 0 outside.
    """
    n, _, h, w = at.shape
    centre = at.permute(0, 2, 3, 1).reshape(n * h * w, 1, 1, 2)
    steps = torch.arange(-_RADIUS, _RADIUS + 1, device=at.device, dtype=at.dtype)
    offsets = torch.stack(torch.meshgrid(steps, steps, indexing="ij"), -1)
    found = []
    for i, level in enumerate(levels):
        last = torch.tensor([level.shape[3] - 1, level.shape[2] - 1], device=at.device)
        where = 2 * (centre / 2**i + offsets) / last - 1
        values = functional.grid_sample(level, where, align_corners=True)
        found.append(values.view(n, h, w, -1))
    return torch.cat(found, -1).permute(0, 3, 1, 2)


def upsampled(flow: Tensor, mask: Tensor) -> Tensor:
    """Flow [n,2,8h,8w], in its pixels, from `flow` [n,2,h,w] in positions.

    Each is a mean of the 3x3 flows around, by the softmax of its nine of `mask` [n,9*64,h,w].
    """
    n, _, h, w = flow.shape
    shares = mask.view(n, 1, 9, 8, 8, h, w).softmax(2)
    around = functional.unfold(8 * flow, 3, padding=1).view(n, 2, 9, 1, 1, h, w)
    fine = (shares * around).sum(2)  # [n, 2, 8, 8, h, w]
    return fine.permute(0, 1, 4, 2, 5, 3).reshape(n, 2, 8 * h, 8 * w)


@lru_cache(maxsize=1)
def _network(device: str) -> Raft:
    path = find_file("RAFT", WEIGHTS)
    net = Raft()
    fill(net, tensors(path), path, "RAFT (large)", device)
    return net


def flow(
    before: NDArray[np.uint8], after: NDArray[np.uint8], device: str = "cpu"
) -> NDArray[np.float32]:
    """Flow [H,W,2], x then y in pixels, of two uint8 RGB pictures [H,W,3] of any size.

    They are padded by their edge, all around, to multiples of 8 and to 128 at least. ConfigError if
    the weights are not on this machine, or are others.
    """
    net = _network(device)
    height, width = before.shape[:2]
    more = [max(_LEAST, -(-size // 8) * 8) - size for size in (width, height)]
    sides = [part for total in more for part in (total // 2, total - total // 2)]
    with torch.inference_mode():
        a, b = (
            functional.pad(
                torch.from_numpy(np.ascontiguousarray(p)).to(device).permute(2, 0, 1)[None].float()
                / 127.5 - 1, sides, mode="replicate",
            ) for p in (before, after)
        )  # fmt: skip
        found = net(a, b)[0, :, sides[2] :, sides[0] :][:, :height, :width]
    out: NDArray[np.float32] = found.permute(1, 2, 0).cpu().numpy()
    return out
