"""The learned prior that ships in the package: a causal autoencoder and a rectified-flow
transformer of its latents, both trained by `gvcc train nano-autoencoder` and `nano-flow`
(docs/model-card.md).
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping, Sequence
from dataclasses import asdict
from functools import partial
from importlib.resources import files
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError
from safetensors.torch import load as load_safetensors
from safetensors.torch import save as save_safetensors
from torch import Tensor, nn

from gvcc import flow
from gvcc.errors import ConfigError
from gvcc.format.base import GRID
from gvcc.priors import (
    Condition,
    References,
    Spec,
    autoencoder,
    devices,
    known_latents,
    levels,
    soft,
    transformer,
)
from gvcc.priors.autoencoder import Autoencoder
from gvcc.priors.spectrum import StationaryGaussian
from gvcc.priors.transformer import Transformer

STRIDE = (4, 8, 8)
GOP = 33
KNOB = 1.15
# Of the shipped weights, at the SNRs and of the channels (bench/priors/variances.py).
VARIANCES = (
    248, 220, 199, 180, 164, 149, 133, 115, 94, 224, 197, 194, 182, 177, 191, 174, 180, 175, 177,
    166, 165, 161, 170, 166, 167, 159, 160, 165, 156, 155, 154, 160, 154, 155, 153, 154, 154, 155,
    161, 158, 156,
)  # fmt: skip
_FORMAT = "gvcc nano 1"
_POWER = "power"  # log power of the latents' 3-D DCT coefficients [C,9,32,32]


class NanoPrior:
    """The prior made of trained networks; `digest` names their weights in file headers."""

    def __init__(
        self,
        auto: Autoencoder,
        net: Transformer,
        log_power: Tensor,
        digest: bytes,
        device: str = "cpu",
    ) -> None:
        self.device = at = devices.ready(device)
        self.autoencoder = auto.to(at).eval().requires_grad_(False)
        self.net = net.to(at).eval().requires_grad_(False)
        self.model = StationaryGaussian(log_power, at)
        channels = auto.shape.channels
        fits = len(VARIANCES) == len(GRID) + channels
        self.spec = Spec(
            "nano", digest, channels, STRIDE, GOP, "rf", KNOB, self.model.metric,
            variances=VARIANCES if fits else soft.usual(channels), restorer="nano",
        )  # fmt: skip

    @torch.inference_mode()
    def encode(self, frames: Tensor) -> Tensor:
        """uint8 [T,H,W,3], T = 1 mod 4, H and W multiples of 8 -> latent [C,F,h,w]."""
        x = frames.to(self.device).float() / 127.5 - 1
        return self.autoencoder.encode(x[None])[0].permute(3, 0, 1, 2).contiguous()

    @torch.inference_mode()
    def decode(self, latent: Tensor) -> Tensor:
        """Latent [C,F,h,w] -> uint8 [4(F-1)+1, 8h, 8w, 3]."""
        return levels(self.render(latent))

    def render(self, latent: Tensor) -> Tensor:
        """See priors.Prior."""
        out: Tensor = self.autoencoder.decode(latent.permute(1, 2, 3, 0)[None].contiguous())[0]
        return out

    @torch.inference_mode()
    def denoise(self, x: Tensor, t: float, known: Mapping[int, Tensor] | None = None) -> Tensor:
        """x0hat(x_t, t), [C,F,h,w] -> [C,F,h,w].

        `known` maps numbers of latent frames to their clean latents [C,h,w]: they condition the
        others and come out as they are.
        """
        clean, mask = torch.zeros_like(x), torch.zeros(1, x.shape[1], device=x.device)
        for f, y in (known or {}).items():
            clean[:, f], mask[0, f] = y, 1
        times = torch.full((1,), t, device=x.device)
        return transformer.denoise(self.net, self.model, x[None], times, clean[None], mask)[0]

    def condition(self, references: References, frames: int) -> Condition:
        """See priors.Prior."""
        known = known_latents(self, references, frames)
        made = Condition(partial(self.denoise, known=known), known)
        return soft.over(made, references.base, flow.PATHS[self.spec.path])

    def variances(self, size: tuple[int, ...], codes: Sequence[int]) -> soft.Variance:
        """See priors.Prior."""
        return soft.table(codes, flow.PATHS[self.spec.path], self.device)


def load(device: str = "cpu", path: Path | None = None) -> NanoPrior:
    """The prior that ships in the package, or the one in a file of `gvcc train nano-flow`."""
    at = path or files("gvcc.priors") / "weights/nano.safetensors"
    try:
        data = at.read_bytes()
    except OSError as e:
        raise ConfigError(f"nano weights {at}: {e.strerror}") from e
    config, tensors, digest = unpack(data, str(at))
    net = build(Transformer, transformer.TransformerShape, config, "transformer", tensors, str(at))
    power = tensors.get(_POWER, torch.zeros(0))
    expected = (net.shape.channels, 9, 32, 32)
    if power.shape != expected:
        raise ConfigError(f"nano weights {at}: power is {tuple(power.shape)}, expected {expected}")
    return NanoPrior(build_autoencoder(config, tensors, str(at)), net, power, digest, device)


def build_autoencoder(
    config: Mapping[str, Any], tensors: Mapping[str, Tensor], name: str
) -> Autoencoder:
    """The autoencoder in unpacked weights."""

    def empty(shape: autoencoder.AutoencoderShape) -> Autoencoder:
        c = shape.channels
        return Autoencoder(shape, torch.zeros(c, 768), torch.zeros(c, 192), torch.zeros(3), 1.0)

    out: Autoencoder = build(
        empty, autoencoder.AutoencoderShape, config, "autoencoder", tensors, name
    )
    return out


def build(
    make: Any, shape: Any, config: Mapping[str, Any], part: str, tensors: Mapping[str, Tensor],
    name: str,
) -> Any:  # fmt: skip
    """One network of unpacked weights; ConfigError, naming the file, if they do not fit it."""
    try:
        model: nn.Module = make(shape(**config[part]))
        model.load_state_dict(state(part, tensors))
    except (KeyError, TypeError, RuntimeError) as e:
        raise ConfigError(f"nano weights {name}: no {part} of the expected shape: {e}") from e
    return model


def state(part: str, tensors: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """The float32 tensors of one network in unpacked weights, by their names in it."""
    start = part + "."
    return {k.removeprefix(start): v.float() for k, v in tensors.items() if k.startswith(start)}


def pack(config: Mapping[str, Any], tensors: Mapping[str, Tensor]) -> bytes:
    """A safetensors file, float16, with the configuration and a SHA-256 in its metadata."""
    half = {k: v.detach().cpu().half().contiguous() for k, v in tensors.items()}
    text = json.dumps(config, sort_keys=True)
    metadata = {"format": _FORMAT, "config": text, "sha256": _hash(text, half)}
    out: bytes = save_safetensors(half, metadata)
    return out


def parts(auto: Autoencoder, net: Transformer | None = None, power: Tensor | None = None
          ) -> tuple[dict[str, Any], dict[str, Tensor]]:  # fmt: skip
    """Configuration and tensors of networks, as `pack` wants them."""
    config: dict[str, Any] = {"autoencoder": asdict(auto.shape)}
    tensors = {f"autoencoder.{k}": v for k, v in auto.state_dict().items()}
    if net is not None and power is not None:
        config["transformer"] = asdict(net.shape)
        tensors |= {f"transformer.{k}": v for k, v in net.state_dict().items()}
        tensors[_POWER] = power
    return config, tensors


def unpack(data: bytes, name: str) -> tuple[dict[str, Any], dict[str, Tensor], bytes]:
    """Configuration, tensors and digest of a file that `pack` made; ConfigError if it is none, is
    damaged, or holds numbers that are not finite."""
    try:
        tensors: dict[str, Tensor] = load_safetensors(data)
        size = int.from_bytes(data[:8], "little")
        metadata = json.loads(data[8 : 8 + size]).get("__metadata__", {})
    except (SafetensorError, ValueError) as e:
        raise ConfigError(f"nano weights {name}: not a safetensors file: {e}") from e
    if metadata.get("format") != _FORMAT:
        raise ConfigError(
            f"nano weights {name}: format is {metadata.get('format')!r}, expected {_FORMAT!r}"
        )
    text = metadata.get("config", "")
    found = _hash(text, tensors)
    if metadata.get("sha256") != found:
        raise ConfigError(
            f"nano weights {name}: damaged: SHA-256 is {found[:16]}..., "
            f"expected {metadata.get('sha256', '')[:16]}..."
        )
    for k, v in tensors.items():
        if not torch.isfinite(v).all():
            raise ConfigError(f"nano weights {name}: {k} has numbers that are not finite")
    return json.loads(text), tensors, bytes.fromhex(found)[:8]


def _hash(text: str, tensors: Mapping[str, Tensor]) -> str:
    """SHA-256 over the configuration and every tensor's name, type, shape and bytes."""
    sha = hashlib.sha256(text.encode())
    for k in sorted(tensors):
        v = tensors[k]
        sha.update(f"\n{k} {v.dtype} {tuple(v.shape)}\n".encode())
        sha.update(v.contiguous().view(torch.uint8).numpy().tobytes())
    return sha.hexdigest()
