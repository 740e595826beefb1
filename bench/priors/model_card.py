"""Write docs/model-card.md: what nano is, what it was made from, and what it measures.

Numbers come from docs/results, the shipped weights, the recipes and the run's manifest; sources and
licences from SOURCES.csv beside the training data (--sources; kept as nano_sources.csv).
"""

from __future__ import annotations

import argparse
import collections
import csv
import re
import sys
from pathlib import Path
from typing import Any

sys.path.insert(0, str(Path(__file__).resolve().parents[2]))

from bench.pages import RESULTS, ROOT, load, table
from gvcc.priors import nano, restorers

RECIPES = ("nano-autoencoder-cpu", "nano-flow-cpu", "nano-autoencoder-cpu-fine",
           "nano-flow-cpu-fine")  # fmt: skip


def sources(path: Path) -> list[list[Any]]:
    """[files, source, licence], most files first, from SOURCES.csv."""
    groups: collections.Counter[tuple[str, str]] = collections.Counter()
    with path.open(newline="") as f:
        for row in csv.DictReader(f):
            groups[row["source"], row["licence"]] += 1
    return [[n, *key] for key, n in groups.most_common()]


def data() -> str:
    with (RESULTS / "priors/nano_manifest.csv").open(newline="") as f:
        rows = list(csv.DictReader(f))
    clips = [r for r in rows if int(r["frames"]) > 1]
    pictures = collections.Counter(
        re.sub(r"_\d+$", "", Path(r["file"]).stem) for r in rows if int(r["frames"]) == 1
    )
    with (RESULTS / "priors/nano_sources.csv").open(newline="") as f:
        listed = [[int(r["files"]), r["source"], r["licence"]] for r in csv.DictReader(f)]
    frames = sum(int(r["frames"]) for r in clips)
    stills = ", ".join(f"{n} {name}" for name, n in pictures.most_common())
    return (
        f"{len(clips)} clips ({frames} frames) and {sum(pictures.values())} pictures ({stills}); "
        "every file with its SHA-256 is in [nano_manifest.csv](results/priors/nano_manifest.csv). "
        "The pictures have no entry in the sources table handed to us: by their names they are "
        "from ImageNet and the Berkeley segmentation data set (both research-only) and "
        "wallpapers.\n\n"
        "**Some of these clips may be used for non-commercial research only, and for some no "
        "licence is stated.** The weights are offered for research; whoever wants more must judge "
        "the sources below or train anew on other clips, which takes two commands. None of the "
        "evaluation clips is among them; other sequences of DAVIS are.\n\n"
        + table(["files", "source", "licence, as noted by the collector"], listed)
    )


def bars() -> str:
    auto, flow = load("priors/autoencoder"), load("priors/nano_denoiser")
    mean = auto["mean"]
    rows: list[list[Any]] = [
        ["autoencoder, PSNR (RGB), dB", "31.5 or more", mean["nano_psnr_rgb_db"]],
        ["the linear autoencoder of gauss, same clips", "", mean["gauss_psnr_rgb_db"]],
        ["autoencoder, VMAF over the linear one", "4 or more",
         mean["nano_vmaf"] - mean["gauss_vmaf"]],
        ["decoder, GFLOP per 256x256 frame", "below 6",
         auto["nano_decoder_gflop_per_256x256_frame"]],
        ["picture's response to noise in one channel, largest / smallest", "about 1",
         auto["nano_channel_response"]["max"] / auto["nano_channel_response"]["min"]],
    ]  # fmt: skip
    for t, bar in (("t=0.3", 0.51), ("t=0.5", 0.51), ("t=0.7", 0.56)):
        s = flow["summary"][t]
        none, first = s["none, frames 1-4"], s["first known, frames 1-4"]
        between, both = s["first known, frames between"], s["both known, frames between"]
        rows += [
            [f"error of x0hat over the Gaussian's, {t}", f"{bar} or less", s["none"]["relative"]],
            [f"... first frame known, latent frames 1-4, over unconditioned, {t}", "0.85 or less",
             first["relative"] / none["relative"]],
            [f"... both ends known, over first known, {t}", "0.90 or less",
             both["relative"] / between["relative"]],
        ]  # fmt: skip
    for what, name, key, bar in (
        ("bits of nano over the Gaussian's at equal latent MSE", "nano_rd",
         "bits_of_nano_over_gauss_at_equal_latent_mse", 0.5),
        ("bits of preset default over paper at equal latent MSE", "nano_presets",
         "bits_of_default_over_paper_at_equal_latent_mse", 0.6),
    ):  # fmt: skip
        known = (RESULTS / f"priors/{name}.json").exists()
        value = load(f"priors/{name}")[key]["geometric_mean"] if known else "not measured yet"
        rows.append([what, f"{bar} or less", value])
    return table(["on the five evaluation clips", "asked", "measured"], rows)


def restorer() -> str:
    """The section on the restorer."""
    found = restorers.load("nano", 1.0)
    if not isinstance(found, restorers.NanoRestorer):
        raise SystemExit("the restorer nano is no network of nano's")
    size = (ROOT / "src/gvcc/priors/weights/restorer.safetensors").stat().st_size
    count = sum(p.numel() for p in found.net.parameters())
    runs = ("src/gvcc/train/recipes/nano-restorer-fidelity.toml",
            "training/nano-restorer/realism.toml")  # fmt: skip
    recipes = "\n".join(f"`{r}`:\n\n```toml\n{(ROOT / r).read_text().strip()}\n```\n" for r in runs)
    curves = "\n\n".join(
        f"![{name}](results/priors/restorer_{name}_curve.png)" for name in ("fidelity", "realism")
    )
    return f"""## The restorer

What makes the pictures of a base better in mode v2v, the default: one network of convolutions
({count / 1e6:.1f} M parameters), one call a picture. Two sets of weights, which the knob
interpolates: `src/gvcc/priors/weights/restorer.safetensors`, {size / 1e6:.1f} MB, float16, SHA-256
beginning `{found.digest.hex()}`, in the header of every file that it restores.

Realism (knob 1) adds noise where the encoder found that the base has lost fine texture, as loud as
the lost texture and in bands that the network chooses; it moves with the picture. That noise is of
the right strength, not the clip's own: grass becomes grain, not blades. Letters, faces and objects
that the base has lost stay lost. Fidelity (knob 2) adds no noise.

Trained on the data above, but for most of the robot scenes (realism: a twelfth of them), coded as
bases by AV1 and VVC at three sizes and random quantisers. Losses: Charbonnier for fidelity; for
realism LPIPS by VGG-16, statistics of VGG-16's features, a low-passed and a plain error, and a
critic. So the weights depend on VGG-16 as trained on ImageNet and on LPIPS's heads, whose licences
are in [metrics.md](metrics.md). LPIPS by AlexNet and DISTS, the curves' measures, are never trained
on. How the runs followed one another: [training/README.md](../training/README.md).

{recipes}
{curves}
"""


def card() -> str:
    prior = nano.load()
    size = (ROOT / "src/gvcc/priors/weights/nano.safetensors").stat().st_size
    count = {
        n: sum(p.numel() for p in m.parameters())
        for n, m in (("autoencoder", prior.autoencoder), ("transformer", prior.net))
    }
    recipes = "\n".join(
        f"`{name}`:\n\n```toml\n"
        + (ROOT / f"src/gvcc/train/recipes/{name}.toml").read_text().strip()
        + "\n```\n"
        for name in RECIPES
    )
    curves = "\n\n".join(
        f"![{name}](results/priors/{name.replace('-', '_').replace('_cpu', '')}_curve.png)"
        for name in RECIPES
    )
    return f"""# Model card: nano

The prior that ships in the package: a causal 3-D autoencoder
({count["autoencoder"] / 1e6:.1f} M parameters) and a rectified-flow transformer of its latents
({count["transformer"] / 1e6:.1f} M). Weights: `src/gvcc/priors/weights/nano.safetensors`,
{size / 1e6:.1f} MB, float16, SHA-256 (of configuration and tensors) beginning
`{prior.spec.digest.hex()}`, which is also what every file coded with it carries in its header.
Nothing here says anything about Wan, CogVideoX or any other large model: nano is a thousand times
smaller.

## What it is for

To show and to test what a codec with a generative decoder does, without a download. It knows
edges, textures and motion of small pictures; it does not know objects, faces or text.

## What it can't do

Pictures above some 256 lines look to it like larger objects than it was trained on; it works at any
size, at a quality that nobody has optimised. Its autoencoder, not the bits, limits quality at high
rates. It has seen few faces, little text and no cartoons. It was trained without guidance and
without text. Long-range structure is limited: it looks 128 pixels far and 33 frames long.

## Data

{data()}

## Measured

All from autoencoder.py, nano_denoiser.py, nano_rd.py and nano_presets.py in bench/priors; where a
bar is missed it is missed.

{bars()}

Rate and distortion against gauss, x265, SVT-AV1 and VVC: [results](results/anchors/README.md).

## How it was trained

On two CPU cores, each recipe with its fixed seed. The autoencoder first, then the flow model on its
latents; then both again on sharper pictures:

    gvcc train nano-autoencoder DATA --out runs/a1 --recipe cpu
    gvcc train nano-flow DATA --out runs/f1 --recipe cpu \\
        --autoencoder runs/a1/autoencoder.safetensors
    gvcc train nano-autoencoder DATA --out runs/a2 --recipe cpu-fine \\
        --begin runs/a1/autoencoder.safetensors
    gvcc train nano-flow DATA --out runs/f2 --recipe cpu-fine --begin runs/f1/nano.safetensors \\
        --autoencoder runs/a2/autoencoder.safetensors

A run that is killed goes on from its last checkpoint when the same command is given again. The
recipes for a GPU (`--recipe gpu`) are larger; they were tested in miniature and never run in full.

{recipes}
The curves, in the same order:

{curves}

What happened in fact: {(RESULTS / "priors/nano_history.txt").read_text().strip()}

{restorer()}"""


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--sources", type=Path, help="SOURCES.csv of the training data")
    parser.add_argument("--out", type=Path, default=ROOT / "docs/model-card.md")
    asked = parser.parse_args()
    if asked.sources:
        with (RESULTS / "priors/nano_sources.csv").open("w", newline="") as f:
            writer = csv.writer(f, lineterminator="\n")
            writer.writerows([["files", "source", "licence"], *sources(asked.sources)])
    asked.out.write_text(card())


if __name__ == "__main__":
    main()
