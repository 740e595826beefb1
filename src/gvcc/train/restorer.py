"""Train the restorer: first for fidelity, then from there for the eye.

fidelity: Charbonnier's loss, without noise. realism: LPIPS by VGG-16, how often and how strongly
its features fire in each neighbourhood (which asks for texture where the clip has some, not for the
clip's own), a small error of a low-passed picture and of the picture itself, and a critic
(train/critic.py). The noise is drawn anew for each sample. DISTS and LPIPS by AlexNet are never
trained on: they judge.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn import functional

from gvcc.metrics import metrics, perceptual
from gvcc.priors.restorer import Restorer, RestorerShape, added, bands, described
from gvcc.priors.texture import SIDE
from gvcc.train.critic import Critic, critic_loss, fooled
from gvcc.train.loop import Recipe
from gvcc.train.packed import ODDS, Pair

_WINDOWS = (16, 8, 4, 2, 2)  # values of each tap of VGG-16 that are taken together


@dataclass(frozen=True)
class RestorerRecipe(Recipe):
    """`crop` in pixels. `codecs` of the bases, `pairs` and `held` how many are made. `perceptual`
    (LPIPS), `texture` (statistics of features), `low` (low-passed), `exact` (Charbonnier) and
    `critic` are weights of the losses; the critic counts from step `critic_from` on. The other
    names are RestorerShape's."""

    crop: int = 128
    pairs: int = 600
    held: int = 24
    codecs: tuple[str, ...] = ("av1", "vvc")
    perceptual: float = 0.0
    texture: float = 0.0
    low: float = 0.0
    exact: float = 1.0
    critic: float = 0.0
    critic_from: int = 0
    width: int = 80
    blocks: int = 8


class RestorerTask:
    """See the module. `model` holds the restorer and, if it counts, the critic: one optimiser has
    both."""

    def __init__(
        self, restorer: Restorer, training: Sequence[Pair], held: Sequence[Pair],
        recipe: RestorerRecipe, device: torch.device | str,
    ) -> None:  # fmt: skip
        self.recipe, self.device = recipe, torch.device(device)
        self.restorer = restorer
        self.critic = Critic() if recipe.critic else None
        parts = {"restorer": restorer, **({"critic": self.critic} if self.critic else {})}
        self.model = nn.ModuleDict(parts).to(device)
        self.held = held
        self.by_size = {s: [p for p in training if p.about.size == s] for s in ODDS}
        self.losses = perceptual.losses("vgg", str(self.device)) if self.for_the_eye else None

    @property
    def for_the_eye(self) -> bool:
        """Whether noise is given, and features compared."""
        return self.recipe.perceptual > 0 or self.recipe.texture > 0

    def batch(self, step: int) -> tuple[int, Tensor, Tensor, Tensor, Tensor, Tensor]:
        """Size, base [B,9,h,w], what is told of it [B,3] and of its texture [B,1,H/4,W/4], enlarged
        base and target [B,3,H,W]."""
        r = self.recipe
        rng = np.random.default_rng([r.seed, step])
        size = int(rng.choice(list(ODDS), p=list(ODDS.values())))
        chosen = [self.by_size[size][i] for i in rng.integers(0, len(self.by_size[size]), r.batch)]
        parts = [_cut(p, r.crop, rng) for p in chosen]
        base, big, target, strength = (torch.from_numpy(np.stack(x)).float()
                                       for x in zip(*parts, strict=True))  # fmt: skip
        about = torch.tensor([described(p.about.codec, p.about.quantiser) for p in chosen])
        at = self.device
        base, big, target = (x.to(at) / 255 for x in (base, big, target))
        return size, base, about.to(at), strength.to(at), big, target

    def loss(self, step: int) -> Tensor:
        """See the module. Random numbers come from (seed, step)."""
        r = self.recipe
        size, base, about, strength, big, target = self.batch(step)
        half = torch.autocast(self.device.type, torch.bfloat16, enabled=r.bf16)
        white = torch.zeros_like(big[:, :1])
        if self.for_the_eye:
            random = torch.Generator().manual_seed(r.seed * 2**32 + step)
            white = torch.randn(white.shape, generator=random).to(self.device)
        with half:
            correction, amplitude = self.restorer(base, about, white, strength, size)
        out = big + added(correction, amplitude, bands(white))
        total = r.exact * charbonnier(out, target)
        if r.low:
            total = total + r.low * low_passed(out, target)
        if self.losses is not None:
            total = total + seen(self.losses, out, target, r.perceptual, r.texture, half)
        if self.critic is not None and step >= r.critic_from:
            with half:
                total = total + r.critic * fooled(self.critic, out, target, big)
            total = total + critic_loss(self.critic, out.detach(), target, big, step)
        return total

    def validate(self) -> dict[str, float]:
        """Of the held-out pairs' middle pictures: PSNR gained, and LPIPS (alex) and DISTS over the
        base's, where their weights are here."""
        gain, ratios = [], dict[str, list[float]]()
        for i, pair in enumerate(self.held):
            _, big, target, _ = (x[None] for x in whole(pair))
            out = restored(self.restorer, pair, i if self.for_the_eye else None, self.device)
            shown = (out * 255).round().clamp(0, 255).to(torch.uint8).permute(1, 2, 0).numpy()[None]
            plain = big.transpose(0, 2, 3, 1)
            wanted = target.transpose(0, 2, 3, 1)
            gain.append(metrics.psnr(wanted, shown) - metrics.psnr(wanted, plain))
            if self.for_the_eye:
                for name, measure in (("alex", perceptual.lpips), ("dists", perceptual.dists)):
                    ratio = measure(wanted, shown) / max(measure(wanted, plain), 1e-6)
                    ratios.setdefault(f"{name} / base", []).append(ratio)
        means = {n: math.exp(sum(map(math.log, v)) / len(v)) for n, v in ratios.items()}
        return {"PSNR over base, dB": sum(gain) / len(gain), **means} if gain else {}


def seen(
    losses: perceptual.Losses, out: Tensor, target: Tensor, lpips: float, statistics: float,
    precision: torch.autocast,
) -> Tensor:  # fmt: skip
    """LPIPS and `texture` of pictures [B,3,H,W] in [0,1], with their weights; the features are
    computed in the `precision` of a context."""
    with precision:
        made = list(losses.features(out))
        with torch.no_grad():
            wanted = list(losses.features(target))
    total = lpips * losses.lpips(made, wanted).mean()
    return total + statistics * texture(made, wanted) if statistics else total


def low_passed(out: Tensor, target: Tensor) -> Tensor:
    """Charbonnier's loss of means of 4x4 pixels."""
    return charbonnier(*(functional.avg_pool2d(x, 4) for x in (out, target)))


def texture(made: list[Tensor], wanted: list[Tensor]) -> Tensor:
    """How much mean and spread of features [B,C,h,w] differ in each neighbourhood, in units of what
    is wanted of each channel."""
    total = made[0].new_zeros(())
    for a, b, window in zip(made, wanted, _WINDOWS, strict=True):
        scale = b.square().mean((0, 2, 3), keepdim=True).sqrt() + 1e-3
        (ma, sa), (mb, sb) = (_spread(x / scale, window) for x in (a, b))
        total = total + (ma - mb).abs().mean() + (sa - sb).abs().mean()
    return total / len(made)


def _spread(x: Tensor, window: int) -> tuple[Tensor, Tensor]:
    """Mean and standard deviation in windows."""
    mean = functional.avg_pool2d(x, window)
    power = functional.avg_pool2d(x.square(), window)
    return mean, ((power - mean.square()).clamp(min=0) + 1e-4).sqrt()


def charbonnier(x: Tensor, y: Tensor) -> Tensor:
    """Mean of sqrt(d^2 + 1e-6)."""
    return ((x - y).square() + 1e-6).sqrt().mean()


def _neighbours(pair: Pair, t: int) -> np.ndarray:
    """Base pictures t-1, t, t+1: [9,h,w]."""
    at = [max(t - 1, 0), t, min(t + 1, len(pair.base) - 1)]
    return np.concatenate([pair.base[i].transpose(2, 0, 1) for i in at])


def whole(pair: Pair) -> tuple[np.ndarray, np.ndarray, np.ndarray, np.ndarray]:
    """Of a pair's middle picture: neighbours [9,h,w], enlarged [3,H,W], target [3,H,W], strength of
    the texture that is lost [1,H/4,W/4]."""
    t = len(pair.clip) // 2
    big, target = (x[t].transpose(2, 0, 1) for x in (pair.enlarged, pair.clip))
    return _neighbours(pair, t), big, target, pair.strength[None]


def _cut(pair: Pair, crop: int, rng: np.random.Generator) -> tuple[np.ndarray, ...]:
    """A random crop of a random picture, as `whole`."""
    size = pair.about.size
    t = int(rng.integers(len(pair.clip)))
    h, w = pair.clip.shape[1:3]
    crop = min(crop, h, w)
    y, x = (int(rng.integers(0, (n - crop) // SIDE + 1)) * SIDE for n in (h, w))
    small = _neighbours(pair, t)[:, y // size : (y + crop) // size, x // size : (x + crop) // size]
    big, target = (a[t, y : y + crop, x : x + crop].transpose(2, 0, 1)
                   for a in (pair.enlarged, pair.clip))  # fmt: skip
    rows, columns = (slice(n // SIDE, (n + crop) // SIDE) for n in (y, x))
    out: list[np.ndarray] = [small, big, target, pair.strength[None, rows, columns]]
    flip, turn = rng.random(2) < 0.5
    if flip:
        out = [a[:, :, ::-1] for a in out]
    if turn:
        out = [a.transpose(0, 2, 1) for a in out]
    return tuple(np.ascontiguousarray(a) for a in out)


@torch.no_grad()
def restored(
    model: Restorer, pair: Pair, noise: int | None, device: torch.device | str = "cpu"
) -> Tensor:
    """The middle picture of a pair, [3,H,W]; with the noise of a seed, or None."""
    base, big, _, strength = (torch.from_numpy(np.ascontiguousarray(x)).float()[None]
                              for x in whole(pair))  # fmt: skip
    base, big = base / 255, big / 255
    about = torch.tensor([described(pair.about.codec, pair.about.quantiser)])
    white = torch.zeros(1, 1, *big.shape[2:])
    if noise is not None:
        white = torch.randn(white.shape, generator=torch.Generator().manual_seed(noise))
    correction, amplitude = (
        x.cpu()
        for x in model(*(x.to(device) for x in (base, about, white, strength)), pair.about.size)
    )
    more: Tensor = added(correction, amplitude, bands(white))
    return big[0] + more[0]


def empty(recipe: RestorerRecipe) -> Restorer:
    """The untrained network: the base as it is."""
    torch.manual_seed(recipe.seed)
    return Restorer(RestorerShape(recipe.width, recipe.blocks))
