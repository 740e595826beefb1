"""A critic of textures: which of two pictures is the clip's, and which the restorer's?

Relativistic, with gradient penalties on both pictures (Huang et al., "The GAN is dead; long live
the GAN!", 2024): with them the game has one end, and it is reached. It sees the base beside each
picture, and small patches only.
"""

from __future__ import annotations

import torch
from torch import Tensor, nn
from torch.func import functional_call
from torch.nn import functional

_WIDTHS = (32, 64, 96, 128)
_EVERY = 4  # steps from one penalty to the next
_PENALTY = 0.5


class Critic(nn.Module):
    """Pictures and their bases [B,3,H,W] in [0,1] -> a score for each patch [B,1,H/8,W/8]."""

    def __init__(self) -> None:
        super().__init__()
        layers: list[nn.Module] = []
        before = 6
        for i, width in enumerate(_WIDTHS):
            layers += [nn.Conv2d(before, width, 3, 1 + (i > 0), 1), nn.LeakyReLU(0.2)]
            before = width
        self.layers = nn.Sequential(*layers, nn.Conv2d(before, 1, 3, padding=1))

    def forward(self, picture: Tensor, base: Tensor) -> Tensor:
        out: Tensor = self.layers(torch.cat([picture, base], 1) * 2 - 1)
        return out


def fooled(critic: Critic, made: Tensor, real: Tensor, base: Tensor) -> Tensor:
    """The restorer's loss; the critic itself learns nothing from it."""
    frozen = {k: v.detach() for k, v in critic.named_parameters()}
    with torch.no_grad():
        true = critic(real, base)
    score = functional_call(critic, frozen, (made, base))
    return functional.softplus(true.float() - score.float()).mean()


def critic_loss(critic: Critic, made: Tensor, real: Tensor, base: Tensor, step: int) -> Tensor:
    """The critic's own loss; every few steps with the penalty."""
    penal = step % _EVERY == 0
    made, real = (x.detach().requires_grad_(penal) for x in (made, real))
    false, true = critic(made, base), critic(real, base)
    loss = functional.softplus(false - true).mean()
    if penal:
        slopes = torch.autograd.grad((true.sum(), false.sum()), (real, made), create_graph=True)
        # In units of the pixels that a score sees.
        power = sum(s.square().sum((1, 2, 3)).mean() for s in slopes) / true[0].numel()
        loss = loss + _EVERY * _PENALTY * power
    return loss
