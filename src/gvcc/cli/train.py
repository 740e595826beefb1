"""The commands of `gvcc train`: one for each thing that ships in the package."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from gvcc import files
from gvcc.cli.terminal import Output, Overwrite, check_output, progress_bar, say

app = typer.Typer(help="Fit the priors that ship in the package.", no_args_is_help=True)
Data = Annotated[Path, typer.Argument(help="A folder with video files and pictures.")]
Out = Annotated[Path, typer.Option("-o", "--out", help="Folder of the run; a run that stopped "
    "there goes on.")]  # fmt: skip
RecipeName = Annotated[str | None, typer.Option("--recipe",
    help="cpu, cpu-fine, gpu or a TOML file; default: the run's own, or by device.")]  # fmt: skip
Cache = Annotated[Path | None, typer.Option(
    help="Where decoded clips are kept; default: a folder 'cache' beside the run.")]  # fmt: skip
Begin = Annotated[Path | None, typer.Option(
    help="Weights to begin with, for fine-tuning, of the recipe's shape.")]  # fmt: skip
TrainDevice = Annotated[str, typer.Option("--device",
    help="cpu, cuda, cuda:1 ..., or auto: a GPU if there is one.")]  # fmt: skip


@app.command("gauss")
def train_gauss(
    data: Annotated[Path, typer.Argument(help="A folder with video files.")],
    output: Output,
    overwrite: Overwrite = False,
    channels: Annotated[int, typer.Option(help="Channels of the latent.", min=1, max=192)] = 32,
    limit: Annotated[int | None, typer.Option(help="Use at most so many clips.", min=1)] = None,
    seed: Annotated[int, typer.Option(help="Seed of the crops.", min=0)] = 1,
) -> None:
    """Fit the analytic prior: Karhunen-Loeve bases and a power spectrum (a few minutes)."""
    from gvcc.train import gauss

    check_output(output, None, overwrite)
    with progress_bar("train gauss", lines=30) as progress:
        weights = gauss.fit(data, channels, seed, limit, progress)
    files.write(output, weights)
    say(f"{output}: {len(weights)} bytes")


@app.command("nano-autoencoder")
def train_autoencoder(
    data: Data,
    out: Out,
    recipe: RecipeName = None,
    begin: Begin = None,
    cache: Cache = None,
    device: TrainDevice = "cpu",
) -> None:
    """Train the autoencoder of nano; leaves autoencoder.safetensors, curve.csv and curve.png."""
    from gvcc.train import runs

    with progress_bar("train nano-autoencoder", lines=30) as progress:
        path = runs.autoencoder(data, out, recipe, cache, device, progress, begin)
    say(f"{path}: {path.stat().st_size} bytes")


@app.command("nano-decoder")
def train_decoder(
    data: Data,
    out: Out,
    nano: Annotated[Path | None, typer.Option("--nano",
        help="The nano.safetensors to begin with; default: the one that ships.")] = None,
    recipe: RecipeName = None,
    cache: Cache = None,
    device: TrainDevice = "cpu",
) -> None:  # fmt: skip
    """Fine-tune the decoder of nano's autoencoder on coded latents; leaves nano.safetensors for
    --prior nano:FILE."""
    from gvcc.train import runs

    with progress_bar("train nano-decoder", lines=30) as progress:
        path = runs.decoder(data, out, recipe, cache, device, progress, nano)
    say(f"{path}: {path.stat().st_size} bytes")


@app.command("nano-restorer")
def train_restorer(
    data: Data,
    out: Out,
    recipe: Annotated[str | None, typer.Option("--recipe", help="fidelity, realism (which begins "
        "with the weights of fidelity), or a TOML file; default: the run's own.")] = None,
    begin: Begin = None,
    cache: Cache = None,
    device: TrainDevice = "cpu",
) -> None:  # fmt: skip
    """Train the restorer of nano for mode v2v; leaves restorer.safetensors, curve.csv and
    curve.png."""
    from gvcc.train import runs

    with progress_bar("train nano-restorer", lines=60) as progress:
        path = runs.restorer(data, out, recipe, cache, device, progress, begin)
    say(f"{path}: {path.stat().st_size} bytes")


@app.command("nano-flow")
def train_flow(
    data: Data,
    out: Out,
    autoencoder: Annotated[Path, typer.Option(
        help="The autoencoder.safetensors of a finished run.")],
    recipe: RecipeName = None,
    begin: Begin = None,
    cache: Cache = None,
    device: TrainDevice = "cpu",
) -> None:  # fmt: skip
    """Train the denoiser of nano; leaves nano.safetensors for --prior nano:FILE."""
    from gvcc.train import runs

    with progress_bar("train nano-flow", lines=30) as progress:
        path = runs.flow(data, out, autoencoder, recipe, cache, device, progress, begin)
    say(f"{path}: {path.stat().st_size} bytes")
