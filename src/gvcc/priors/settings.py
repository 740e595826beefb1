"""Settings of the published models that change what they put out, and so are part of a file.

A file carries those that are not as usual; the rest is fixed here. What only moves work about (the
device, offloading) is none of them.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass, fields

from gvcc.errors import BadSetting

CHOICES = {
    "dtype": ("bf16", "fp32"),
    "timesteps": ("fp32", "bf16"),
    "quant": ("none", "int8", "fp8"),
    "compile": ("no", "yes"),
    "levels": ("rounded", "truncated"),
    "clip": ("cropped", "stretched"),
    "padding": ("pictures", "latent"),
}


@dataclass(frozen=True)
class Settings:
    """`prompt` and `negative` are texts; the second is used with `guidance` above 1 only (weight of
    classifier-free guidance). `dtype` is that of the network's weights and products; the latents,
    the steps and the autoencoder are float32. `timesteps`: fp32, or rounded to bf16 as in the
    published code. `attention` is a backend of diffusers. `tile` is the side in pixels of the tiles
    in which the autoencoder works, 0 for none, or auto: tiles of 256 above 1280x720. `quant`:
    weights in 8 bits by torchao. `compile`: the network's blocks by torch.compile. `levels`: the
    pictures' 8 bits are the nearest ones, or the next lower ones as in the published code (not with
    a base, which it has not). `clip`: what CLIP sees of a picture is cropped to a square after
    resizing, as its processor in transformers does, or all of it stretched to one by a bicubic
    filter without antialiasing, as in the published code. `padding`: where a size is no multiple of
    a patch (1080 lines), pictures are grown before the autoencoder, or latents behind it, as in the
    published code; both by repeating the last row and column."""

    prompt: str = ""
    negative: str = ""
    guidance: str = "1"
    dtype: str = "bf16"
    timesteps: str = "fp32"
    attention: str = "native"
    tile: str = "auto"
    quant: str = "none"
    compile: str = "no"
    levels: str = "rounded"
    clip: str = "cropped"
    padding: str = "pictures"

    @property
    def changed(self) -> tuple[tuple[str, str], ...]:
        """Those that are not as usual, sorted by name: what a file carries."""
        usual = Settings()
        names = sorted(f.name for f in fields(self))
        return tuple((n, getattr(self, n)) for n in names if getattr(self, n) != getattr(usual, n))

    @property
    def weight(self) -> float:
        """Of classifier-free guidance; up to 1 there is none."""
        return float(self.guidance)

    def tiles(self, pixels: int) -> int:
        """Side of the autoencoder's tiles for pictures of so many pixels, 0: none."""
        if self.tile == "auto":
            return 256 if pixels > 1280 * 736 else 0  # 736: 720 lines, padded
        return int(self.tile)


def parse(model: str, given: Mapping[str, str]) -> Settings:
    """Settings of a model as a user or a file gives them. Raises BadSetting for a name or a value
    that is none."""
    names = [f.name for f in fields(Settings)]
    for name in given:
        if name not in names:
            raise BadSetting(f"prior {model} has no setting {name!r}; it has {', '.join(names)}")
    return Settings(**{name: _value(name, text) for name, text in given.items()})


def _value(name: str, text: str) -> str:
    """The one spelling of a value."""
    try:
        text.encode()
    except UnicodeEncodeError:
        raise BadSetting(f"{name} is {text!r}, which is no text") from None
    if name in CHOICES:
        if text not in CHOICES[name]:
            raise BadSetting(f"{name} is {text!r}, expected {' or '.join(CHOICES[name])}")
    elif name == "attention" and "hub" in text:
        # diffusers would fetch and run a kernel: not on the word of a file.
        raise BadSetting(f"attention {text!r} comes from a hub; expected an installed backend")
    elif name == "guidance":
        try:
            value = float(text)
        except ValueError:
            value = math.nan
        if not 0 <= value <= 100:
            raise BadSetting(f"guidance is {text!r}, expected a number from 0 to 100")
        return f"{abs(value):g}"  # there is no -0
    elif name == "tile" and text != "auto":
        digits = text.isascii() and text.isdigit() and len(text) <= 8
        if not digits or (size := int(text)) % 32 or size > 8192:
            raise BadSetting(f"tile is {text!r}, expected auto, 0 or a multiple of 32")
        return str(size)
    return text
