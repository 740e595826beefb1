"""A stationary Gaussian model of latents: independent coefficients in the 3-D DCT of each channel.

Its denoiser is exact (a Wiener filter). It is the model of `gauss`, and what `nano` is measured
against and built upon.
"""

from __future__ import annotations

from functools import lru_cache

import torch
from torch import Tensor


@lru_cache(maxsize=32)
def dct_matrix(n: int, device: str = "cpu") -> Tensor:
    """The orthonormal DCT-II as a float32 matrix [n, n]; row k is frequency k."""
    i = torch.arange(n, dtype=torch.float64)
    m = torch.cos(torch.pi / n * (i[None] + 0.5) * i[:, None]) * (2 / n) ** 0.5
    m[0] /= 2**0.5
    out: Tensor = m.float().to(device)
    return out


def dct(x: Tensor, axes: tuple[int, ...], inverse: bool = False) -> Tensor:
    """Orthonormal DCT-II over the given axes, or its inverse."""
    for axis in axes:
        m = dct_matrix(x.shape[axis], str(x.device))
        x = torch.tensordot(x, m if inverse else m.T, dims=([axis], [0])).movedim(-1, axis)
    return x.contiguous()


def dct3(x: Tensor, inverse: bool = False) -> Tensor:
    """Orthonormal 3-D DCT over the last three axes of x [..., F, h, w], or its inverse."""
    return dct(x, (-3, -2, -1), inverse)


def resample_spectrum(log_power: Tensor, n: int, axis: int) -> Tensor:
    """Log power on N DCT bins of one axis -> on n bins, float64.

    Bin k of n stands for the band [k, k+1]/n. Fewer bins average the power over their bands, which
    keeps the total variance; more bins interpolate linearly in log frequency and log power, and
    go on below the lowest known bin with its slope (natural spectra are power laws there).
    """
    p = log_power.double().movedim(axis, -1)
    known = p.shape[-1]
    if n < known:
        edges = torch.arange(n + 1, dtype=torch.float64) * known / n
        left = torch.arange(known, dtype=torch.float64)
        overlap = torch.minimum(edges[1:, None], left + 1) - torch.maximum(edges[:-1, None], left)
        p = (p.exp() @ (overlap.clamp(min=0) * n / known).T).log()
    elif n > known:
        u = torch.log((torch.arange(known, dtype=torch.float64) + 0.5) / known)
        v = torch.log((torch.arange(n, dtype=torch.float64) + 0.5) / n)
        i = (torch.searchsorted(u, v) - 1).clamp(0, known - 2)
        a = ((v - u[i]) / (u[i + 1] - u[i])).clamp(max=1.0)
        p = p[..., i] + a * (p[..., i + 1] - p[..., i])
    return p.movedim(-1, axis)


class StationaryGaussian:
    """Variances of the 3-D DCT coefficients, `log_power` [C,9,32,32], resampled to any size."""

    def __init__(self, log_power: Tensor, device: torch.device | str = "cpu") -> None:
        self._log_power = log_power.double()
        self._device = device
        self._cache: dict[tuple[int, ...], Tensor] = {}

    def spectrum(self, size: tuple[int, ...]) -> Tensor:
        """Variance of each 3-D DCT coefficient for latents of `size` (F, h, w): [C,F,h,w]."""
        if size not in self._cache:
            p = self._log_power
            for axis, n in enumerate(size, start=1):
                p = resample_spectrum(p, n, axis)
            if len(self._cache) > 7:  # a run of training sees a few sizes, a codec one or two
                self._cache.clear()
            self._cache[size] = p.exp().float().to(self._device)
        return self._cache[size]

    def scale(self) -> Tensor:
        """Standard deviation of each channel, [C]."""
        return self._log_power.exp().mean((1, 2, 3)).sqrt().float().to(self._device)

    def denoise(self, x: Tensor, alpha: float | Tensor, sigma: float | Tensor) -> Tensor:
        """E[x0 | x = alpha x0 + sigma eps], x [...,C,F,h,w]; per DCT coefficient
        alpha S / (alpha^2 S + sigma^2). Tensors alpha and sigma broadcast against x."""
        s = self.spectrum(tuple(x.shape[-3:]))
        return dct3(dct3(x) * (alpha * s / (alpha**2 * s + sigma**2)), inverse=True)

    def denoise_known(
        self, x: Tensor, alpha: float | Tensor, sigma: float | Tensor, known: dict[int, Tensor]
    ) -> Tensor:
        """E[x0 | x, and the latent frames in `known`], x [C,F,h,w], frame number -> [C,h,w].

        With m and P mean and covariance of x0 given x, which is diagonal in frequency, and K the
        known frames: m + P_K (P_KK)^-1 (y_K - m_K), for each channel and spatial frequency. What
        x holds at the known frames does not matter.
        """
        c, f, h, w = x.shape
        frames = sorted(known)
        y = torch.stack([known[i] for i in frames], 1)
        x = x.clone()
        x[:, frames] = alpha * y
        s = self.spectrum((f, h, w))
        noise = alpha**2 * s + sigma**2
        mean = dct(dct3(x) * (alpha * s / noise), (-3,), inverse=True)  # frames, not frequencies
        wave = dct_matrix(f, str(x.device))
        pairs = (wave[:, :, None] * wave[:, None, frames]).reshape(f, -1)  # frequency, two frames
        spread = (s * sigma**2 / noise).permute(0, 2, 3, 1) @ pairs
        spread = spread.reshape(c, h, w, f, len(frames))
        off = (dct(y, (-2, -1)) - mean[:, frames]).permute(0, 2, 3, 1)[..., None]
        inner = spread[..., frames, :]
        tiny = 1e-5 * inner.diagonal(dim1=-2, dim2=-1).mean(-1) + 1e-12
        inner = inner + tiny[..., None, None] * torch.eye(len(frames), device=x.device)
        weight = off / inner if len(frames) == 1 else torch.linalg.solve(inner, off)
        mean = mean + (spread @ weight)[..., 0].permute(0, 3, 1, 2)
        out = dct(mean, (-2, -1), inverse=True)
        out[:, frames] = y
        return out

    def metric(self, r: Tensor, snr: float) -> Tensor:
        """The steering metric W r, r [C,F,h,w]: the fourth root of the Wiener gain, by coefficient.

        What stays below the noise at the end of a step will hardly be known better for the bits
        it is given. Worth about 0.1 dB PSNR and 0.01 MS-SSIM at equal size
        (bench/codebooks/steering_metric.py).
        """
        s = snr * self.spectrum(tuple(r.shape[1:]))
        return dct3(dct3(r) * (s / (1 + s)) ** 0.25, inverse=True)
