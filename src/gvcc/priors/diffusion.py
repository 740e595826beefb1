"""What the published models have in common as priors: autoencoder, known frames, metric, memory."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from functools import cached_property
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from gvcc import flow
from gvcc.format.base import GRID
from gvcc.priors import Condition, References, Spec, devices, levels, parts, soft, store
from gvcc.priors.models import Model
from gvcc.priors.settings import Settings

Known = dict[int, Tensor]
_BASE_SHARE = 0.5  # not measured: nobody here has real weights
_EXPONENT = 0.75  # of the sensitivity, as steering metric (bench/codebooks/steering_metric.py)


class Diffusion:
    """A published model: its autoencoder `vae` (float32), its settings, and where it runs.

    A family says how its latents are scaled (`normalise`, `restore`: [1,C,F,h,w] as the
    autoencoder's and as the network's) and what the network makes of them (`velocity`-like calls,
    in `condition`). Latent frames that pictures fix come out of the denoiser as they are; so x
    takes, in these frames, a path of its own from noise to them, which is what the network sees.
    """

    vae_class = network_class = text_class = ""
    tokens = 0  # of a prompt
    causal = True  # its decoder; see Spec

    def __init__(
        self, model: Model, folder: Path, device: str, chosen: Settings, offload: bool,
        channels: int, stride: tuple[int, int, int], patch: int, path: str, identity: list[str],
    ) -> None:  # fmt: skip
        self.model, self.folder, self.device = model, folder, devices.ready(device)
        self.settings, self.offload = chosen, offload
        digest = store.digest(model, folder, parts.text_identity(folder), identity)
        self.path = flow.PATHS[path]
        measured = store.recall("variances").get(digest.hex())
        if not (isinstance(measured, list) and len(measured) == len(GRID) + channels):
            measured = soft.usual(channels)
        self.spec = Spec(
            model.name, digest, channels, stride, model.gop, path, knob=1.0, metric=self._metric,
            patch=patch, last_alone=False, causal=self.causal, refine=False, modes=model.modes,
            shifts=model.shifts, settings=chosen.changed, base_share=_BASE_SHARE,
            variances=tuple(measured), grows=chosen.padding == "latent",
        )  # fmt: skip

    # -- the autoencoder ----------------------------------------------------------------------

    @cached_property
    def vae(self) -> Any:
        """The autoencoder, float32, on the device."""
        import diffusers

        kind = getattr(diffusers, self.vae_class)
        made = parts.load_part(kind, self.model, self.folder, "vae", torch_dtype=torch.float32)
        with parts.enough_memory(self.model, self.device):
            return made.to(self.device)

    def normalise(self, z: Tensor) -> Tensor:
        """The autoencoder's latent -> the network's."""
        raise NotImplementedError

    def restore(self, latent: Tensor) -> Tensor:
        """The network's latent -> the autoencoder's."""
        raise NotImplementedError

    def _tiled(self, height: int, width: int) -> None:
        """Tiles as the settings have them, for pictures of that size."""
        if size := self.settings.tiles(height * width):
            self.vae.enable_tiling(
                tile_sample_min_height=size, tile_sample_min_width=size, **self.tiling(size)
            )
        else:
            self.vae.disable_tiling()

    def tiling(self, size: int) -> dict[str, Any]:
        """What `enable_tiling` takes for tiles of that size to overlap by a quarter."""
        raise NotImplementedError

    def pixels(self, frames: Tensor) -> Tensor:
        """uint8 [T,H,W,3] -> float32 [1,3,T,H,W] in [-1,1] on the device."""
        return (frames.to(self.device).float() / 127.5 - 1).permute(3, 0, 1, 2)[None]

    @torch.inference_mode()
    def encoded(self, x: Tensor) -> Tensor:
        """Pixels [1,3,T,H,W] -> normalised latent [1,C,F,h,w], the mode of the posterior."""
        q = self.spec.stride[0]
        # Anything else would be cut silently by diffusers.
        assert (x.shape[2] - 1) % q == 0, f"{x.shape[2]} frames"
        assert not x.shape[3] % self.spec.multiple[0] and not x.shape[4] % self.spec.multiple[1]
        self._tiled(*x.shape[3:])
        with parts.enough_memory(self.model, self.device):
            out = self.normalise(self.vae.encode(x).latent_dist.mode()).float()
        return out

    def encode(self, frames: Tensor) -> Tensor:
        """See priors.Prior."""
        return self.grown(self.encoded(self.pixels(frames))[0])

    def grown(self, latent: Tensor) -> Tensor:
        """A latent [...,F,h,w] with its last row and column repeated up to whole patches."""
        h, w = latent.shape[-2:]
        rows, columns = (torch.arange(-(-n // self.spec.patch) * self.spec.patch).clamp(max=n - 1)
                         for n in (h, w))  # fmt: skip
        return latent[..., rows.to(latent.device)[:, None], columns.to(latent.device)]

    @torch.inference_mode()
    def render(self, latent: Tensor) -> Tensor:
        """See priors.Prior; not differentiable."""
        _, _, h, w = latent.shape
        self._tiled(h * self.spec.stride[1], w * self.spec.stride[2])
        with parts.enough_memory(self.model, self.device):
            out: Tensor = self.vae.decode(self.restore(latent[None]), return_dict=False)[0]
        return out[0].permute(1, 2, 3, 0).float()

    def decode(self, latent: Tensor) -> Tensor:
        """See priors.Prior."""
        return levels(self.render(latent), self.settings.levels == "truncated")

    def check(self) -> None:
        """ConfigError unless the weights of networks and autoencoder are those of their
        configurations, by name and shape."""
        import diffusers

        kinds = {"vae": self.vae_class} | dict.fromkeys(
            ("transformer", "transformer_2"), self.network_class
        )
        for part in self.model.parts:
            if part in kinds:
                kind = getattr(diffusers, kinds[part])
                parts.check_network(kind, self.model, self.folder, part)

    # -- the network --------------------------------------------------------------------------

    def condition(self, references: References, frames: int) -> Condition:
        """See priors.Prior."""
        raise NotImplementedError

    def denoise(self, x: Tensor, t: float) -> Tensor:
        """See priors.Prior."""
        return self.condition(References(), x.shape[1]).denoise(x, t)

    def variances(self, size: tuple[int, ...], codes: Sequence[int]) -> soft.Variance:
        """See priors.Prior."""
        return soft.table(codes, self.path, self.device)

    def known(self, first: Tensor | None) -> Known:
        """The latent frames that first pictures fix."""
        return {} if first is None else dict(enumerate(self.encode(first).unbind(1)))

    def guided(self, call: Callable[[Tensor], Tensor]) -> Tensor:
        """What the network says to the prompt, with classifier-free guidance away from what it says
        to the negative one; `call` takes an embedding."""
        with parts.attention(self.settings.attention), parts.enough_memory(self.model, self.device):
            out = call(self.text)
            if self.settings.weight > 1:
                other = call(self.negative)
                out = other + self.settings.weight * (out - other)
        return out

    def _embedding(self, prompt: str) -> Tensor:
        with devices.exact():
            made = parts.embedding(
                self.text_class, self.model, self.folder, prompt, self.tokens, self.settings
            )
        return made.to(self.device)

    @cached_property
    def text(self) -> Tensor:
        """Embedding of the prompt, [1, tokens, width] on the device."""
        return self._embedding(self.settings.prompt)

    @cached_property
    def negative(self) -> Tensor:
        """Embedding of the negative prompt."""
        return self._embedding(self.settings.negative)

    def measure_variances(self, clips: Sequence[Tensor]) -> tuple[int, ...]:
        """Measure what Spec.variances wants, on pictures uint8 [T,H,W,3] of legal size, and keep it
        for the next time that the model is loaded."""
        with devices.exact():
            found = soft.fitted(soft.measure(self, clips))
        store.remember("variances", self.spec.digest.hex(), list(found))
        return found

    # -- the steering metric ------------------------------------------------------------------

    def _metric(self, r: Tensor, snr: float) -> Tensor:
        """Each channel weighted by how much it moves the pictures (shared design, section 3)."""
        return r * self._weights[:, None, None, None]

    @cached_property
    def sensitivities(self) -> list[float]:
        """Of the autoencoder's decoder to each channel, from the cache or measured."""
        key = self.spec.digest.hex()
        found = store.recall("sensitivities").get(key)
        if not (isinstance(found, list) and len(found) == self.spec.channels):
            with devices.exact():
                found = sensitivity(self.render, self.spec.channels, self.spec.patch, self.device)
            store.remember("sensitivities", key, found)
        return found

    @cached_property
    def _weights(self) -> Tensor:
        w = torch.tensor(self.sensitivities, device=self.device)
        return (w / w.square().mean().sqrt()) ** _EXPONENT


def kept(denoise: Callable[[Tensor, float], Tensor], known: Known) -> Condition:
    """A condition whose known latent frames come out of the denoiser as they are."""

    def call(x: Tensor, t: float) -> Tensor:
        h = denoise(x, t)
        for f, y in known.items():
            h[:, f] = y
        return h

    return Condition(call, known)


def sensitivity(
    render: Callable[[Tensor], Tensor], channels: int, patch: int, device: torch.device
) -> list[float]:
    """For each channel of a latent: RMS change of the pictures for a little white noise in that
    channel alone, over the noise's own, around a latent of white noise."""
    side, small = 8 * patch, 0.1
    generator = torch.Generator().manual_seed(1)
    z = torch.randn(channels, 2, side, side, generator=generator)
    noise = small * torch.randn(2, side, side, generator=generator)
    base = render(z.to(device))
    out = []
    for c in range(channels):
        moved = z.clone()
        moved[c] += noise
        change = render(moved.to(device)) - base
        out.append(max(float(change.square().mean().sqrt()) / small, 1e-6))
    return out
