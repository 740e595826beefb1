"""What published models are called with: recorded by hooks, in our priors and in diffusers' own
pipelines over the same folder, and compared tensor for tensor."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import torch
from diffusers.models.attention_dispatch import _AttentionBackendRegistry
from PIL import Image
from torch import Tensor

DTYPES = {"fp32": torch.float32, "bf16": torch.bfloat16}
# Of the tiny tokenizer's words; entities, tabs and double spaces.
PROMPTS = ("", "a fox runs in the snow", " a fox &amp;amp;  runs\tin   the &eacute; water ")


def white(seed: int, *shape: int) -> Tensor:
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed))


def pictures(seed: int, *shape: int) -> Tensor:
    """uint8 [*shape, 3]: white noise, which no resizing or filter leaves as it is."""
    generator = torch.Generator().manual_seed(seed)
    return torch.randint(0, 256, (*shape, 3), generator=generator, dtype=torch.uint8)


def contents(frames: int, height: int, width: int) -> dict[str, Tensor]:
    """Odd-looking clips: extremes, noise, one lit picture, one lit corner, saturated stripes."""
    dark = torch.zeros(frames, height, width, 3, dtype=torch.uint8)
    flash, corner, stripes = dark.clone(), dark.clone(), dark.clone()
    flash[frames // 2] = 255
    corner[:, -1, -1] = 255
    stripes[:, :, ::2, 0], stripes[::2, ::3, :, 2] = 255, 255
    noise = pictures(frames, frames, height, width)
    return {"dark": dark, "noise": noise, "flash": flash, "corner": corner, "stripes": stripes}


def image(picture: Tensor) -> Image.Image:
    return Image.fromarray(np.asarray(picture))


@dataclass
class Call:
    """One call of a network: its name, every tensor that went in, what came out, and the attention
    backend of the time."""

    net: str
    inputs: dict[str, Tensor]
    backend: str
    output: Tensor = field(default_factory=lambda: torch.empty(0))


def _tensors(kwargs: dict[str, Any]) -> dict[str, Tensor]:
    found: dict[str, Tensor] = {}
    for name, value in kwargs.items():
        if isinstance(value, Tensor):
            found[name] = value.detach().clone()
        elif isinstance(value, tuple):
            found |= _tensors({f"{name}.{i}": v for i, v in enumerate(value)})
        else:
            assert value is None or value is False, f"{name} is {value!r}"
    return found


@contextmanager
def recorded(**nets: torch.nn.Module) -> Iterator[list[Call]]:
    """The calls of networks inside, in their order."""
    calls: list[Call] = []

    def before(name: str) -> Any:
        def hook(module: Any, args: Any, kwargs: dict[str, Any]) -> None:
            assert not args, "a tensor without a name"
            backend = _AttentionBackendRegistry.get_active_backend()[0]
            calls.append(Call(name, _tensors(kwargs), str(getattr(backend, "value", backend))))

        return hook

    def after(module: Any, args: Any, kwargs: dict[str, Any], output: Any) -> None:
        calls[-1].output = output[0].detach().clone()

    handles = []
    for name, net in nets.items():
        handles.append(net.register_forward_pre_hook(before(name), with_kwargs=True))
        handles.append(net.register_forward_hook(after, with_kwargs=True))
    try:
        yield calls
    finally:
        for handle in handles:
            handle.remove()


def same(ours: Tensor, theirs: Tensor, what: str = "tensor", within: float = 0.0) -> None:
    """Same shape, same numbers (up to `within`)."""
    assert ours.shape == theirs.shape, f"{what}: {tuple(ours.shape)}, not {tuple(theirs.shape)}"
    assert torch.isfinite(theirs).all(), f"{what} is not finite"
    off = float((ours.double() - theirs.double()).abs().max())
    assert off <= within, f"{what} is off by {off:.3g}"


def same_call(ours: Call, theirs: Call, within: float = 0.0, **at: float) -> None:
    """Same network, same tensors of the same types, same output (up to `within`); `at` says how far
    an input may be off. Times may be integers in one: both networks take them as floats."""
    assert ours.net == theirs.net
    assert ours.inputs.keys() == theirs.inputs.keys()
    for name, tensor in theirs.inputs.items():
        mine = ours.inputs[name]
        same(mine, tensor, name, at.get(name, 0.0))
        assert mine.dtype == tensor.dtype or (name, tensor.dtype) == ("timestep", torch.int64), name
    same(ours.output, theirs.output, "output", within)


class Latents:
    """A pipeline's latents before each step, and after the last: its `callback_on_step_end`."""

    def __init__(self, start: Tensor) -> None:
        self.seen = [start]

    def __call__(self, pipe: Any, step: int, t: Any, tensors: dict[str, Tensor]) -> dict[str, Any]:
        self.seen.append(tensors["latents"].clone())
        return {}


def part(kind: Any, folder: Path, name: str, dtype: str = "fp32") -> Any:
    """A part of a model, loaded as diffusers' documentation says and not by gvcc."""
    return kind.from_pretrained(folder, subfolder=name, torch_dtype=DTYPES[dtype]).eval()
