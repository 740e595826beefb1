"""CogVideoX as a prior: a variance-preserving path and v-prediction, by diffusers' models.

The network was trained at 1000 discrete noise levels; ours is continuous. It is called at the
(fractional) level whose signal-to-noise ratio is that of the path at t, and x0hat = alpha x -
sigma v.
"""

from __future__ import annotations

import math
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from gvcc import flow
from gvcc.errors import ConfigError
from gvcc.priors import Condition, References, parts, soft, store
from gvcc.priors.diffusion import Diffusion, kept
from gvcc.priors.models import Model
from gvcc.priors.settings import Settings


class CogVideoXPrior(Diffusion):
    """A model of the CogVideoX family (1.0) in diffusers' layout."""

    vae_class, network_class = "AutoencoderKLCogVideoX", "CogVideoXTransformer3DModel"
    text_class = "T5EncoderModel"
    causal = False  # two latent frames at a time share the statistics of its normalisation

    def __init__(
        self, model: Model, folder: Path, device: str, chosen: Settings, offload: bool
    ) -> None:
        net, vae = store.config(folder, "transformer"), store.config(folder, "vae")
        store.check_class(model, folder, net, "CogVideoXTransformer3DModel")
        store.check_class(model, folder, vae, self.vae_class)
        said = store.config(folder, "scheduler/scheduler_config.json")
        if said.get("prediction_type") != "v_prediction" or net.get("patch_size_t") is not None:
            raise ConfigError(f"prior {model.name}: {folder} holds another model's weights")
        self.log_snr = noise_levels(said)
        self.factor = float(vae.get("scaling_factor", 1.15258426))
        self.tokens = int(net.get("max_text_seq_length", 226))
        space = 2 ** (len(vae["block_out_channels"]) - 1)
        stride = int(vae.get("temporal_compression_ratio", 4)), space, space
        super().__init__(
            model, folder, device, chosen, offload, int(net["in_channels"]), stride,
            int(net["patch_size"]), "vp", [f"{self.log_snr.tolist()}"],
        )  # fmt: skip

    def normalise(self, z: Tensor) -> Tensor:
        """See Diffusion."""
        return z * self.factor

    def restore(self, latent: Tensor) -> Tensor:
        """See Diffusion."""
        return 1 / self.factor * latent

    def tiling(self, size: int) -> dict[str, Any]:
        """See Diffusion."""
        # diffusers' own factors give tiles whole latents for tiles of 240x360 only.
        return {"tile_overlap_factor_height": 0.25, "tile_overlap_factor_width": 0.25}

    def render(self, latent: Tensor) -> Tensor:
        """See priors.Prior. diffusers decodes two latent frames at a time, and of an even number
        makes four pictures each: one more goes in."""
        frames = latent.shape[1]
        if frames % 2 == 0:
            latent = torch.cat([latent, latent[:, -1:]], 1)
        return super().render(latent)[: self.spec.stride[0] * (frames - 1) + 1]

    @cached_property
    def network(self) -> Any:
        """The transformer."""
        import diffusers

        return parts.network(
            diffusers.CogVideoXTransformer3DModel, self.model, self.folder, "transformer",
            self.settings, self.device, self.offload,
        )  # fmt: skip

    def level(self, t: float) -> float:
        """The network's noise level, 0 to 999, with the signal-to-noise ratio of time t."""
        ratio = flow.snr(flow.PATHS["vp"], t)
        wanted = math.log(max(ratio, 1e-30))
        falling = self.log_snr[::-1]  # ascending in the ratio
        return float(np.interp(wanted, falling, np.arange(len(falling) - 1.0, -1.0, -1.0)))

    def rotary(self, frames: int, h: int, w: int) -> tuple[Tensor, Tensor] | None:
        """Rotary embeddings of the positions, for models that take them."""
        from diffusers.models.embeddings import get_3d_rotary_pos_embed

        said: Any = self.network.config
        if not said.use_rotary_positional_embeddings:
            return None
        p = said.patch_size
        grid, base = (h // p, w // p), (said.sample_height // p, said.sample_width // p)
        out: tuple[Tensor, Tensor] = get_3d_rotary_pos_embed(
            embed_dim=said.attention_head_dim, crops_coords=fitted(grid, base), grid_size=grid,
            temporal_size=frames, device=self.device,
        )  # fmt: skip
        return out

    @torch.inference_mode()
    def prediction(self, x: Tensor, t: float) -> Tensor:
        """The network's v at x [C,F,h,w], float32."""
        net, dtype = self.network, parts.DTYPES[self.settings.dtype]
        said: Any = net.config
        learned = said.use_learned_positional_embeddings
        if learned and tuple(x.shape[2:]) != (said.sample_height, said.sample_width):
            size = said.sample_width * self.spec.stride[2], said.sample_height * self.spec.stride[1]
            raise ConfigError(f"prior {self.model.name} does {size[0]}x{size[1]} pixels only")
        hidden = x.transpose(0, 1)[None].to(dtype)  # [1,F,C,h,w]
        level = self.level(t)
        if self.settings.timesteps == "bf16":
            level = float(torch.tensor(level).bfloat16())
        time, rotary = torch.tensor([level], device=self.device), self.rotary(*x.shape[1:])

        def call(text: Tensor) -> Tensor:
            out: Tensor = net(
                hidden_states=hidden, encoder_hidden_states=text, timestep=time,
                image_rotary_emb=rotary, return_dict=False,
            )[0]  # fmt: skip
            return out.float()

        return self.guided(call)[0].transpose(0, 1)

    def condition(self, references: References, frames: int) -> Condition:
        """See priors.Prior."""

        def denoise(x: Tensor, t: float) -> Tensor:
            alpha, sigma = self.path(t)
            return alpha * x - sigma * self.prediction(x, t)

        made = kept(denoise, {} if references.outside else self.known(references.first))
        return soft.over(made, references.base, self.path)


def fitted(grid: tuple[int, int], base: tuple[int, int]) -> tuple[tuple[int, int], tuple[int, int]]:
    """The region (top, left), (bottom, right) of the base grid that a grid of another shape fills
    when it is scaled to fit and centred."""
    (h, w), (high, wide) = grid, base
    if h / w > high / wide:
        size = high, round(high / h * w)
    else:
        size = round(wide / w * h), wide
    top, left = round((high - size[0]) / 2.0), round((wide - size[1]) / 2.0)
    return (top, left), (top + size[0], left + size[1])


def noise_levels(said: dict[str, Any]) -> NDArray[np.float64]:
    """Log of the signal-to-noise ratio at each noise level of a scheduler's configuration, falling.

    As in diffusers' CogVideoXDDIMScheduler: scaled linear betas, the ratio shifted (SD3), rescaled
    to nothing at the last level.
    """
    steps = int(said.get("num_train_timesteps", 1000))
    first, last = said.get("beta_start", 0.00085) ** 0.5, said.get("beta_end", 0.012) ** 0.5
    alphas = np.cumprod(1 - np.linspace(first, last, steps) ** 2)
    shift = said.get("snr_shift_scale", 3.0)
    alphas = alphas / (shift + (1 - shift) * alphas)
    if said.get("rescale_betas_zero_snr", False):
        root = np.sqrt(alphas)
        root = (root - root[-1]) * root[0] / (root[0] - root[-1])
        alphas = root**2
    out: NDArray[np.float64] = np.log(np.maximum(alphas, 1e-30) / np.maximum(1 - alphas, 1e-30))
    return out
