"""What makes pictures of a base's: the networks by name, with their weights.

`nano` ships in the package, two sets of weights of one network, which the knob interpolates:
realism (k = 1) and fidelity (k = 2). `realesrgan` is esrgan.py's.
"""

from __future__ import annotations

from importlib.resources import files
from typing import Protocol

import torch
from torch import Tensor

from gvcc.errors import ConfigError
from gvcc.format.base import SIZES, BaseRecord
from gvcc.priors import devices, esrgan, named, nano
from gvcc.priors.restorer import Inputs, Restorer, RestorerShape, added, bands, described
from gvcc.priors.texture import SIDE

NAMES = ("nano", "realesrgan")


class Restoring(Protocol):
    """One way to restore; `digest` names its weights in a header, `sizes` are those of the bases
    that it takes (BaseRecord.size), `reach` are the pixels around one that it is given, what is
    `textured` is told of lost texture, and what is not `noisy` needs no noise."""

    @property
    def name(self) -> str: ...

    @property
    def digest(self) -> bytes: ...

    @property
    def device(self) -> torch.device: ...

    @property
    def sizes(self) -> tuple[int, ...]: ...

    @property
    def reach(self) -> int: ...

    @property
    def noisy(self) -> bool: ...

    @property
    def textured(self) -> bool: ...

    def restore(self, x: Inputs, about: BaseRecord) -> Tensor:
        """Pictures [B,3,H,W], about in [0,1], of a base that `about` describes."""
        ...


class NanoRestorer:
    """The network that ships."""

    name = "nano"
    sizes = SIZES

    def __init__(self, realism: Restorer, fidelity: Restorer, digest: bytes, knob: float,
                 device: str = "cpu") -> None:  # fmt: skip
        self.device, self.digest = devices.ready(device), digest
        self.loud = 2 - knob
        self.noisy = self.textured = knob < 2
        with torch.no_grad():
            pairs = zip(realism.parameters(), fidelity.parameters(), strict=True)
            for own, other in pairs:
                own.lerp_(other, knob - 1)
        self.net = realism.to(self.device).eval().requires_grad_(False)
        for layer in self.net.modules():
            if isinstance(layer, torch.nn.Conv2d):
                kernel = layer.weight.data.contiguous(memory_format=torch.channels_last)
                layer.weight.data = kernel
        self.reach = SIDE * (realism.shape.reach + 1)

    @torch.inference_mode()
    def restore(self, x: Inputs, about: BaseRecord) -> Tensor:
        """See Restoring."""
        told = torch.tensor([described(about.codec, about.quantiser)], device=self.device)
        told, white = told.expand(len(x.base), -1), x.white * self.loud
        correction, amplitude = self.net(x.base, told, white, x.strength, about.size)
        return x.enlarged + added(correction, amplitude, bands(white))


def load(name: str, knob: float, device: str = "cpu") -> Restoring:
    """The restorer called `name`, or "name:path" with weights of one's own, for a knob k.
    ConfigError if there is none, or its weights are not what they should be."""
    kind, path = named("restorer", name, NAMES)
    if kind == "realesrgan":
        return esrgan.load(knob, device, path)
    at = path or files("gvcc.priors") / "weights/restorer.safetensors"
    try:
        data = at.read_bytes()
    except OSError as e:
        raise ConfigError(f"restorer weights {at}: {e.strerror}") from e
    config, tensors, digest = nano.unpack(data, str(at))
    realism, fidelity = (
        nano.build(Restorer, RestorerShape, config, part, tensors, str(at))
        for part in ("realism", "fidelity")
    )
    if realism.shape != fidelity.shape:
        raise ConfigError(f"restorer weights {at} are of different networks")
    return NanoRestorer(realism, fidelity, digest, knob, device)
