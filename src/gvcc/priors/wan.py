"""Wan 2.1 and 2.2 as priors: rectified flow, by diffusers' transformer and autoencoder.

x0hat = x_t - t v with v the network's velocity. The calls are those of diffusers' pipelines, tensor
for tensor (tests/test_wan_parity.py): channels of mask and condition and embeddings of the pictures
for I2V and FLF2V, two experts by time for Wan 2.2 A14B, a time for each token for TI2V 5B.
"""

from __future__ import annotations

import dataclasses
from functools import cached_property
from pathlib import Path
from typing import Any

import torch
from torch import Tensor
from torch.nn.functional import interpolate

from gvcc.errors import ConfigError
from gvcc.priors import Condition, References, parts, soft, store
from gvcc.priors.diffusion import Diffusion, kept
from gvcc.priors.models import Model
from gvcc.priors.settings import Settings

TOKENS = 512  # of a prompt; the transformer tells them from a picture's by this very number
_MASKS = 4  # channels of the mask: one for each frame of a group


class WanPrior(Diffusion):
    """A model of the Wan family in diffusers' layout."""

    vae_class, network_class = "AutoencoderKLWan", "WanTransformer3DModel"
    text_class, tokens = "UMT5EncoderModel", TOKENS

    def __init__(
        self, model: Model, folder: Path, device: str, chosen: Settings, offload: bool
    ) -> None:
        index, net = store.config(folder), store.config(folder, "transformer")
        vae = store.config(folder, "vae")
        store.check_class(model, folder, net, "WanTransformer3DModel")
        store.check_class(model, folder, vae, self.vae_class)
        self.boundary: float | None = index.get("boundary_ratio")
        self.per_token = bool(index.get("expand_timesteps"))
        self.with_channels = net["in_channels"] > net["out_channels"]
        self.two_images = net.get("pos_embed_seq_len") is not None
        kind = self.boundary is not None, self.with_channels, self.two_images, self.per_token
        if kind != (
            model.experts == 2, model.images, "flf2v" in model.modes, "ti2v" in model.name
        ):  # fmt: skip
            raise ConfigError(f"prior {model.name}: {folder} holds another model's weights")
        self._longest = int(net.get("rope_max_seq_len", 1024))
        space = int(vae.get("scale_factor_spatial", 8))
        stride = int(vae.get("scale_factor_temporal", 4)), space, space
        super().__init__(
            model, folder, device, chosen, offload, int(net["out_channels"]), stride,
            int(net["patch_size"][1]), "rf", [f"{self.boundary} {self.per_token}"],
        )  # fmt: skip
        self.spec = dataclasses.replace(self.spec, told=self.with_channels)

    # -- the autoencoder ----------------------------------------------------------------------

    def _scale(self, like: Tensor) -> tuple[Tensor, Tensor]:
        said: Any = self.vae.config
        mean, std = (torch.tensor(v).to(like) for v in (said.latents_mean, said.latents_std))
        return mean.view(1, -1, 1, 1, 1), std.view(1, -1, 1, 1, 1)

    def normalise(self, z: Tensor) -> Tensor:
        """See Diffusion."""
        mean, std = self._scale(z)
        return (z - mean) * (1.0 / std)

    def restore(self, latent: Tensor) -> Tensor:
        """See Diffusion."""
        mean, std = self._scale(latent)
        return latent / (1.0 / std) + mean

    def tiling(self, size: int) -> dict[str, Any]:
        """See Diffusion."""
        # diffusers' own stride of 192 is for tiles of 256.
        space = self.spec.stride[1]
        stride = max(size * 3 // 4 // space, 1) * space
        return {"tile_sample_stride_height": stride, "tile_sample_stride_width": stride}

    # -- texts and pictures -------------------------------------------------------------------

    @cached_property
    def _image_encoder(self) -> Any:
        import transformers

        return parts.load_part(
            transformers.CLIPVisionModel, self.model, self.folder, "image_encoder",
            dtype=torch.float32,
        )  # fmt: skip

    @cached_property
    def _preprocess(self) -> Any:
        # By name: with torchvision installed transformers would take another, whose resizing gives
        # other numbers.
        from transformers import CLIPImageProcessorPil

        return CLIPImageProcessorPil.from_pretrained(self.folder / "image_processor")

    def _stretched(self, picture: Tensor, side: int) -> Tensor:
        """A picture uint8 [H,W,3] as the published code shows it to CLIP: float32 [1,3,side,side]
        (CLIPModel.visual of Wan's own code)."""
        x = picture.float().permute(2, 0, 1)[None] / 255
        x = interpolate(x, (side, side), mode="bicubic", align_corners=False)
        mean, std = (torch.tensor(v).to(x)[:, None, None] for v in (
            self._preprocess.image_mean, self._preprocess.image_std))  # fmt: skip
        return (x - mean) / std

    @torch.inference_mode()
    def image_embeddings(self, pictures: list[Tensor | None]) -> Tensor:
        """CLIP's last hidden state but one of pictures uint8 [H,W,3], [n, tokens, width] in the
        network's type; zeros for a picture that is not given. With `offload` the encoder is
        on the device for this call only."""
        from PIL import Image

        dtype, out = parts.DTYPES[self.settings.dtype], []
        with parts.enough_memory(self.model, self.device):
            encoder = self._image_encoder.to(self.device)
            size = encoder.config.image_size // encoder.config.patch_size
            for p in pictures:
                if p is None:
                    out.append(torch.zeros(1, size * size + 1, encoder.config.hidden_size))
                    continue
                if self.settings.clip == "stretched":
                    pixels = self._stretched(p, encoder.config.image_size)
                else:
                    picture = Image.fromarray(p.cpu().numpy())
                    pixels = self._preprocess(images=picture, return_tensors="pt").pixel_values
                hidden = encoder(pixels.to(self.device), output_hidden_states=True)
                out.append(hidden.hidden_states[-2].cpu())
        if self.offload:
            encoder.to("cpu")
        return torch.cat(out).to(self.device, dtype)

    def channels(
        self, first: Tensor | None, last: Tensor | None, frames: int, h: int, w: int
    ) -> Tensor:
        """The condition's channels [1, 4 + C, frames, h, w]: a mask of the frames that are given,
        and the latent of a clip in which the others are mid-grey."""
        q, qh, qw = self.spec.stride
        length = q * (frames - 1) + 1
        clip = torch.zeros(1, 3, length, h * qh, w * qw, device=self.device)
        given = torch.zeros(length, device=self.device)
        if first is not None:
            clip[:, :, : len(first)], given[: len(first)] = self.pixels(first), 1
        if last is not None:
            clip[:, :, -1:], given[-1] = self.pixels(last[None]), 1
        # The first frame stands for a whole group.
        mask = torch.cat([given[:1].expand(_MASKS), given[1:]]).reshape(frames, _MASKS).T
        mask = mask[None, :, :, None, None].expand(1, _MASKS, frames, h, w)
        return self.grown(torch.cat([mask, self.encoded(clip)], 1))

    # -- the network --------------------------------------------------------------------------

    @cached_property
    def _networks(self) -> dict[str, Any]:
        return {}

    def network(self, t: float) -> Any:
        """The network for time t; of two experts the other one leaves the device."""
        import diffusers

        low = self.boundary is not None and float(self._told(t)) < self.boundary * 1000
        part = "transformer_2" if low else "transformer"
        if part not in self._networks:
            if not self.offload:
                for other in self._networks.values():
                    other.to("cpu")
            self._networks[part] = parts.network(
                diffusers.WanTransformer3DModel, self.model, self.folder, part, self.settings,
                self.device, self.offload,
            )  # fmt: skip
        elif len(self._networks) > 1 and not self.offload:
            for name, net in self._networks.items():
                if name != part:  # first: there may not be room for both
                    net.to("cpu")
            with parts.enough_memory(self.model, self.device):
                self._networks[part].to(self.device)
        return self._networks[part]

    def _told(self, t: float) -> Tensor:
        """Time, 0 to 1000, as the network is told it, [1]."""
        time = torch.tensor([t * 1000], dtype=torch.float32)
        return time.bfloat16().float() if self.settings.timesteps == "bf16" else time

    def timestep(self, t: float, known: list[int], shape: torch.Size) -> Tensor:
        """Time as the network takes it, 0 to 1000: [1], or [1, tokens] with 0 for known frames."""
        time = self._told(t).to(self.device)
        if not self.per_token:
            return time
        p, (_, frames, h, w) = self.spec.patch, shape
        mask = torch.ones(frames, -(-h // p), -(-w // p), device=self.device)
        mask[known] = 0
        return (mask * time).flatten()[None]

    @torch.inference_mode()
    def velocity(
        self, x: Tensor, t: float, known: dict[int, Tensor], more: dict[str, Any],
        channels: Tensor | None,
    ) -> Tensor:  # fmt: skip
        """The network's velocity at x [C,F,h,w], float32."""
        if max(x.shape[1], *(n // self.spec.patch for n in x.shape[2:])) > self._longest:
            q, *sides = self.spec.stride
            most = [self._longest * self.spec.patch * m for m in sides]
            raise ConfigError(
                f"prior {self.model.name} can do at most {most[1]}x{most[0]} pixels and "
                f"{q * (self._longest - 1) + 1} frames a GOP"
            )
        net, dtype = self.network(t), parts.DTYPES[self.settings.dtype]
        hidden = x[None]
        if self.per_token and known:
            hidden = hidden.clone()
            for f, y in known.items():
                hidden[0, :, f] = y
        if channels is not None:
            hidden = torch.cat([hidden, channels], 1)
        hidden, time = hidden.to(dtype), self.timestep(t, list(known), x.shape)

        def call(text: Tensor) -> Tensor:
            out: Tensor = net(hidden_states=hidden, timestep=time, encoder_hidden_states=text,
                              return_dict=False, **more)[0]  # fmt: skip
            return out

        return self.guided(call)[0].float()

    def condition(self, references: References, frames: int) -> Condition:
        """See priors.Prior. Models made for it are told the pictures; others see their latents in
        the first frames, at the noise of each step."""
        first, last, base, outside = references
        more: dict[str, Any] = {}
        channels: Tensor | None = None
        if not self.with_channels:
            known = {} if outside else self.known(first)
        else:
            if self.model.images:
                pictures = [None if first is None else first[0]]
                pictures += [last] if self.two_images else []
                more["encoder_hidden_states_image"] = self.image_embeddings(pictures)
            known = {}
            one = first if first is not None else None if last is None else last[None]
            if one is not None:
                _, q, p = self.spec.stride
                h, w = one.shape[1] // q, one.shape[2] // p
                channels = self.channels(first, last, frames, h, w)
                if first is not None and not outside:
                    count = (len(first) - 1) // self.spec.stride[0] + 1
                    known = {f: channels[0, _MASKS:, f] for f in range(count)}

        def denoise(x: Tensor, t: float) -> Tensor:
            nonlocal channels
            if self.with_channels and channels is None:
                channels = self.channels(None, None, frames, *x.shape[2:])
            return x - t * self.velocity(x, t, known, more, channels)

        return soft.over(kept(denoise, known), base, self.path)
