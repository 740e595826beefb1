"""Fine-tune the decoder of nano's autoencoder on latents as they come out of decoding.

It was trained on clean latents, and shows what coding leaves of them as blur. Here it sees latents
that were coded at random rates, and learns to make pictures of them that look like the clip's:
losses as of the restorer (train/restorer.py). The encoder and the linear basis stay as they are,
and with them the meaning of every latent and of every file's bytes.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from fractions import Fraction
from pathlib import Path

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from gvcc import codec
from gvcc.decode.gops import decode_record
from gvcc.decode.session import Left, Session
from gvcc.format import parser
from gvcc.metrics import metrics, perceptual
from gvcc.priors import Prior
from gvcc.priors.autoencoder import Autoencoder
from gvcc.records import Video
from gvcc.search.config import EncodeConfig
from gvcc.train.dataset import Dataset
from gvcc.train.kept import Arrays, Counts, kept, load
from gvcc.train.loop import Progress, Recipe
from gvcc.train.restorer import charbonnier, low_passed, seen

FRAMES, SIDE = 17, 128
_MODES = ("t2v", "t2v", "t2v", "i2v", "flf2v")
_RATES = (0.006, 0.08)  # bits per pixel, of the whole file
_LEAST = 220  # bytes
_LOOKED_AT = 3  # pictures of a clip whose features are compared


@dataclass(frozen=True)
class DecoderRecipe(Recipe):
    """`examples` and `held`: how many clips are coded. `perceptual`, `texture`, `low` and `exact`
    are weights of the losses (RestorerRecipe)."""

    examples: int = 600
    held: int = 16
    perceptual: float = 1.0
    texture: float = 0.1
    low: float = 2.0
    exact: float = 0.5


@dataclass(frozen=True)
class Example:
    """A clip [T,H,W,3], uint8, and its latent [F,h,w,C], float16, after coding and decoding."""

    clip: NDArray[np.uint8]
    latent: NDArray[np.float16]


def examples(
    data: Dataset, prior: Prior, folder: Path, counts: Counts, seed: int,
    progress: Progress | None = None,
) -> tuple[list[Example], list[Example]]:  # fmt: skip
    """Examples of a data set's samples and of its held-out ones, kept in a folder."""

    def make(i: int, held: bool) -> Arrays:
        rng = np.random.default_rng([seed, 78, i])
        clip = data.held_out(i, FRAMES, SIDE) if held else data.sample(seed, i, FRAMES, SIDE)
        return vars(coded(prior, clip.numpy(), rng))

    return kept(folder, "example", counts, seed, make, read, progress)


def coded(prior: Prior, clip: NDArray[np.uint8], rng: np.random.Generator) -> Example:
    """A clip and what coding leaves of its latent, in a mode and at a rate drawn at random."""
    low, high = np.log(_RATES)
    size = max(_LEAST, int(np.exp(rng.uniform(low, high)) * clip[..., 0].size / 8))
    config = EncodeConfig(mode=str(rng.choice(_MODES)), size=size, cuts=False)
    stream = parser.parse(codec.encode(Video(clip, Fraction(25)), config, prior).data)
    session = Session(stream.header, prior)
    latent = decode_record(session, 0, stream.gops[0], Left(), lambda *_: None).latent
    whole = latent.permute(1, 2, 3, 0).half().cpu().numpy()
    return Example(clip, whole[: 1 + (len(clip) - 1) // prior.spec.stride[0]])


def read(path: Path) -> Example:
    """An example from its file; ConfigError if it is none."""
    return load(path, "example", lambda found: Example(found["clip"], found["latent"]))


class DecoderTask:
    """See the module. `model` is the part of the autoencoder that is trained."""

    def __init__(
        self, auto: Autoencoder, training: Sequence[Example], held: Sequence[Example],
        recipe: DecoderRecipe, device: torch.device | str,
    ) -> None:  # fmt: skip
        self.auto, self.recipe, self.device = auto.to(device), recipe, torch.device(device)
        self.training, self.held = training, held
        parts = ("enter_latent", "decoder", "to_group", "to_first")
        self.model = nn.ModuleDict({name: getattr(auto, name) for name in parts})
        self.losses = perceptual.losses("vgg", str(self.device))

    def loss(self, step: int) -> Tensor:
        """See the module. Random numbers come from (seed, step)."""
        r = self.recipe
        rng = np.random.default_rng([r.seed, step])
        chosen = [self.training[i] for i in rng.integers(0, len(self.training), r.batch)]
        z = torch.from_numpy(np.stack([e.latent for e in chosen])).float().to(self.device)
        clips = torch.from_numpy(np.stack([e.clip for e in chosen])).to(self.device).float() / 255
        half = torch.autocast(self.device.type, torch.bfloat16, enabled=r.bf16)
        with half:
            made = (self.auto.decode(z).float() + 1) / 2
        times = torch.from_numpy(rng.integers(0, clips.shape[1], (r.batch, _LOOKED_AT)))
        rows = torch.arange(r.batch)[:, None]
        out, target = (x[rows, times].flatten(0, 1).permute(0, 3, 1, 2) for x in (made, clips))
        total = r.exact * charbonnier(made, clips) + r.low * low_passed(out, target)
        return total + seen(self.losses, out, target, r.perceptual, r.texture, half)

    def validate(self) -> dict[str, float]:
        """Of the held-out examples: PSNR, LPIPS (alex) and DISTS."""
        found: list[tuple[float, ...]] = []
        for e in self.held:
            z = torch.from_numpy(e.latent).float()[None].to(self.device)
            made = self.auto.decode(z)[0].add(1).mul(127.5).round().clamp(0, 255)
            shown = made.to(torch.uint8).cpu().numpy()
            some = slice(None, None, 4)
            pair = e.clip[some], shown[some]
            found.append((metrics.psnr(e.clip, shown), perceptual.lpips(*pair),
                          perceptual.dists(*pair)))  # fmt: skip
        means = np.mean(found, 0).tolist() if found else []
        return dict(zip(("PSNR, dB", "LPIPS alex", "DISTS"), means, strict=False))
