"""What published models are called with: recorded by hooks, in our priors and in diffusers' own
pipelines over the same folder, and compared tensor for tensor."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import tiny_models
import torch
from diffusers import (
    AutoencoderKLCogVideoX,
    AutoencoderKLWan,
    CogVideoXDDIMScheduler,
    CogVideoXTransformer3DModel,
    FlowMatchEulerDiscreteScheduler,
    WanImageToVideoPipeline,
    WanTransformer3DModel,
    WanVideoToVideoPipeline,
)
from diffusers.models.attention_dispatch import _AttentionBackendRegistry
from PIL import Image
from torch import Tensor
from transformers import (
    AutoTokenizer,
    CLIPImageProcessorPil,
    CLIPVisionModel,
    T5EncoderModel,
    UMT5EncoderModel,
)

from gvcc.priors import References

DTYPES = {"fp32": torch.float32, "bf16": torch.bfloat16}
# Of the tiny tokenizer's words; entities, tabs and double spaces.
PROMPTS = ("", "a fox runs in the snow", " a fox &amp;amp;  runs\tin   the &eacute; water ")


def white(seed: int, *shape: int) -> Tensor:
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed))


def pictures(seed: int, *shape: int) -> Tensor:
    """uint8 [*shape, 3]: white noise, which no resizing or filter leaves as it is."""
    generator = torch.Generator().manual_seed(seed)
    return torch.randint(0, 256, (*shape, 3), generator=generator, dtype=torch.uint8)


def agreed(seed: int, *shape: int) -> Tensor:
    """As `pictures`, of levels for which v / 127.5 - 1 and 2 (v / 255) - 1 are the same float: we
    compute the first and diffusers the second, so only of these it can make the same latent."""
    v = torch.arange(256).float()
    levels = (v / 127.5 - 1 == 2 * (v / 255) - 1).nonzero()[:, 0]
    assert len(levels) > 50
    return levels[pictures(seed, *shape).long() % len(levels)].byte()


def contents(frames: int, height: int, width: int) -> dict[str, Tensor]:
    """Odd-looking clips: extremes, noise, one lit picture, one lit corner, saturated stripes."""
    dark = torch.zeros(frames, height, width, 3, dtype=torch.uint8)
    flash, corner, stripes = dark.clone(), dark.clone(), dark.clone()
    flash[frames // 2] = 255
    corner[:, -1, -1] = 255
    stripes[:, :, ::2, 0], stripes[::2, ::3, :, 2] = 255, 255
    noise = pictures(frames, frames, height, width)
    return {"dark": dark, "noise": noise, "flash": flash, "corner": corner, "stripes": stripes}


def shown(
    two: bool, height: int, width: int, make: Any = agreed
) -> tuple[tuple[Tensor, Tensor | None], dict[str, Image.Image]]:
    """A first and perhaps a last picture, as `condition` takes them and as a pipeline does."""
    first, last = make(1, 1, height, width), make(2, height, width)
    given = {"image": Image.fromarray(np.asarray(first[0]))}
    if not two:
        return (first, None), given
    return (first, last), given | {"last_image": Image.fromarray(np.asarray(last))}


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


def ours(
    prior: Any, latents: list[Tensor], times: Any, first: Any = None, last: Any = None
) -> tuple[list[Call], list[Tensor]]:
    """Our calls at latents [C,F,h,w] and times, and what the denoiser says."""
    denoise = prior.condition(References(first, last), latents[0].shape[1]).denoise
    if prior.model.family == "wan":
        nets = {"transformer": prior.network(1.0)}
        if prior.boundary is not None:
            nets["transformer_2"] = prior.network(0.0)
    else:
        nets = {"transformer": prior.network}
    with recorded(**nets) as calls:
        guesses = [denoise(x.clone(), t) for x, t in zip(latents, times, strict=False)]
    return calls, guesses


def theirs(
    pipe: Any, start: Tensor, pixels: tuple[int, int, int], **more: Any
) -> tuple[list[Call], list[Tensor], Tensor]:
    """A pipeline's calls for a clip of so many frames, lines and columns, its latents before each
    step and after the last, and the scheduler's times."""
    seen = [start]

    def after_step(pipe: Any, step: int, t: Any, tensors: dict[str, Tensor]) -> dict[str, Any]:
        seen.append(tensors["latents"].clone())
        return {}

    nets = {n: getattr(pipe, n, None) for n in ("transformer", "transformer_2")}
    with recorded(**{n: net for n, net in nets.items() if net is not None}) as calls:
        pipe(
            num_frames=pixels[0], height=pixels[1], width=pixels[2], latents=start,
            output_type="latent", callback_on_step_end=after_step,
            **({"prompt": "", "guidance_scale": 1.0} | more),
        )  # fmt: skip
    return calls, [x[0].float() for x in seen], pipe.scheduler.timesteps


# -- diffusers' side, loaded as its documentation says and not by gvcc ------------------------


def part(kind: Any, folder: Path, name: str, dtype: str = "fp32") -> Any:
    """A part of a model."""
    return kind.from_pretrained(folder, subfolder=name, torch_dtype=DTYPES[dtype]).eval()


class Grid(FlowMatchEulerDiscreteScheduler):
    """diffusers' scheduler at times of our own, whatever number of steps a pipeline asks for."""

    times: tuple[float, ...] = (1.0,)

    def set_timesteps(self, num_inference_steps: Any = None, device: Any = None, **_: Any) -> None:
        super().set_timesteps(sigmas=list(self.times), device=device)


class Clean(Grid):
    """A scheduler that adds no noise: the latents that a pipeline would start from."""

    def scale_noise(self, sample: Tensor, timestep: Any, noise: Any) -> Tensor:
        return sample


def wan_pipeline(name: str, folder: Path, dtype: str, kind: Any) -> Any:
    """A model of the Wan family as a pipeline of diffusers."""
    more = dict(tiny_models.WANS[name][2])
    if (folder / "transformer_2").is_dir():
        more["transformer_2"] = part(WanTransformer3DModel, folder, "transformer_2", dtype)
    if kind is WanImageToVideoPipeline and (folder / "image_encoder").is_dir():
        more["image_encoder"] = part(CLIPVisionModel, folder, "image_encoder")
        processor = CLIPImageProcessorPil.from_pretrained(folder / "image_processor")
        more["image_processor"] = processor
    made = kind(
        tokenizer=AutoTokenizer.from_pretrained(folder / "tokenizer"),
        text_encoder=part(UMT5EncoderModel, folder, "text_encoder", dtype),
        vae=part(AutoencoderKLWan, folder, "vae"), scheduler=Grid(),
        transformer=part(WanTransformer3DModel, folder, "transformer", dtype), **more,
    )  # fmt: skip
    made.set_progress_bar_config(disable=True)
    return made


@torch.no_grad()
def wan_latent(pipe: Any, pixels: Tensor) -> Tensor:
    """The latent of pixels [1,3,T,H,W], as diffusers' pipeline from videos to videos makes it."""
    maker = WanVideoToVideoPipeline(
        pipe.tokenizer, pipe.text_encoder, pipe.transformer, pipe.vae, Clean()
    )
    maker.vae_scale_factor_spatial = pipe.vae_scale_factor_spatial  # it takes TI2V's for 8
    channels, size = pipe.vae.config.z_dim, pixels.shape[3:]
    return maker.prepare_latents(pixels, 1, channels, *size, torch.float32, "cpu", timestep=0)


def cog_pipeline(folder: Path, dtype: str, kind: Any) -> Any:
    """A model of the CogVideoX family as a pipeline of diffusers, with the folder's scheduler."""
    made = kind(
        tokenizer=AutoTokenizer.from_pretrained(folder / "tokenizer"),
        text_encoder=part(T5EncoderModel, folder, "text_encoder", dtype),
        vae=part(AutoencoderKLCogVideoX, folder, "vae"),
        transformer=part(CogVideoXTransformer3DModel, folder, "transformer", dtype),
        scheduler=CogVideoXDDIMScheduler.from_pretrained(folder / "scheduler"),
    )
    made.set_progress_bar_config(disable=True)
    return made
