"""The command `gvcc priors`: which generators there are, and getting a model ready."""

from __future__ import annotations

import json
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from gvcc.cli.terminal import Json, out, say
from gvcc.errors import ConfigError, unknown
from gvcc.priors.models import MODELS

if TYPE_CHECKING:
    from gvcc.priors.models import Model

app = typer.Typer(help="List the generators that can decode, or get a published model ready.")


@app.callback(invoke_without_command=True)
def show(context: typer.Context, as_json: Json = False) -> None:
    """List the priors: what is known of each, and what is on this machine."""
    if context.invoked_subcommand is not None:
        return
    rows = [_embedded("nano"), _embedded("gauss"), *map(_row, MODELS.values())]
    if as_json:
        sys.stdout.write(json.dumps(rows) + "\n")
        return
    from rich.table import Column, Table

    numbers = [Column(n, justify="right") for n in ("parameters", "GB", "on disk, GB")]
    table = Table(Column("prior", no_wrap=True), "modes", *numbers, "licence", box=None)
    for r in rows:
        disk = "-" if r["disk_gb"] is None else f"{r['disk_gb']:.3g}"
        table.add_row(r["name"], " ".join(r["modes"]), _count(r["parameters"]),
                      f"{r['weights_gb']:.2g}", disk, r["licence"])  # fmt: skip
    out.print(table)
    out.print("\nGB: the networks' weights in bfloat16; of two experts one is on the GPU at a "
              "time, with --offload\none block.", soft_wrap=True)  # fmt: skip
    for r in rows:
        where = f"in {r['folder']}" if r["folder"] else f"gvcc priors prepare {r['name']}"
        if r["hub"]:
            out.print(f"{r['name']}: {where}", soft_wrap=True)


def _embedded(name: str) -> dict[str, Any]:
    from importlib.resources import files

    from gvcc.search.plan import MODES

    size = len((files("gvcc.priors") / f"weights/{name}.safetensors").read_bytes())
    return {
        "name": name, "modes": list(MODES), "parameters": size // 2, "weights_gb": size / 1e9,
        "disk_gb": size / 1e9, "licence": "see docs/model-card.md", "folder": "in the package",
        "hub": None,
    }  # fmt: skip


def _row(model: Model) -> dict[str, Any]:
    from gvcc.priors import store

    folder = store.known(model)
    return {
        "name": model.name, "modes": list(model.modes),
        "parameters": round(model.parameters * model.experts), "weights_gb": model.gigabytes,
        "disk_gb": None if folder is None else _size(folder) / 1e9, "licence": model.licence,
        "folder": None if folder is None else str(folder), "hub": model.hub,
    }  # fmt: skip


def _count(parameters: int) -> str:
    billions = parameters >= 1e8
    return f"{parameters / 1e9:.3g} B" if billions else f"{parameters / 1e6:.3g} M"


def _size(folder: Path) -> int:
    return sum(p.stat().st_size for p in folder.rglob("*") if p.is_file())


@app.command()
def prepare(
    name: Annotated[str, typer.Argument(help="One of the published models (`gvcc priors`).")],
    weights: Annotated[Path | None, typer.Option(
        help="A folder with the weights, as diffusers keeps them.")] = None,
    hub: Annotated[str | None, typer.Option("--from", metavar="HUB-ID",
        help="Fetch them from this repository of the Hugging Face hub; default: the published "
        "one.")] = None,
    as_json: Json = False,
) -> None:  # fmt: skip
    """Fetch, check and fingerprint a model's weights, and keep what is made of them once: the
    embedding of the empty prompt (its text encoder is not needed again), the sensitivity of its
    autoencoder, and what its network leaves of a latent, for trajectories over a base."""
    from gvcc import priors
    from gvcc.format.base import GRID
    from gvcc.priors import parts, store

    if name not in MODELS:
        raise unknown("model", name, MODELS)
    model = MODELS[name]
    if weights is not None and hub is not None:
        raise ConfigError("give --weights or --from, not both")
    parts.need_packages(model)
    store.check_writable()
    if weights is None:
        weights = (None if hub else store.known(model)) or _fetched(model, hub or model.hub)
    say(f"{name}: checking {weights}")
    prior: Any = priors.load(f"{name}:{weights}")
    prior.check()
    say(f"{name}: the embedding of the empty prompt (a minute or more if it is not there yet)")
    _ = prior.text
    say(f"{name}: the autoencoder's sensitivity")
    sensitivities = prior.sensitivities
    say(f"{name}: what the network leaves of a latent ({len(GRID)} calls on a small clip)")
    variances = _variances(prior)
    store.register(model, weights)
    report = {"name": name, "folder": str(weights), "digest": prior.spec.digest.hex(),
              "modes": list(prior.spec.modes), "sensitivities": sensitivities,
              "variances": list(variances)}  # fmt: skip
    if as_json:
        sys.stdout.write(json.dumps(report) + "\n")
    say(f"{name}: ready, weights {report['digest']}")


def _variances(prior: Any) -> tuple[int, ...]:
    """Those of a model, measured on the built-in clip, small and of legal size, if it can be made
    here; else the usual ones."""
    import torch

    from gvcc.eval.clips import demo_clip

    spec = prior.spec
    height, width = (-(-n // m) * m for n, m in zip((128, 192), spec.multiple, strict=True))
    try:
        clip = demo_clip(2 * spec.stride[0] + 1, height, width)
    except ConfigError as e:
        say(f"{spec.id}: the usual values are taken instead: {e}")
        usual: tuple[int, ...] = spec.variances
        return usual
    found: tuple[int, ...] = prior.measure_variances([torch.from_numpy(clip)])
    return found


def _fetched(model: Model, hub: str) -> Path:
    """A model's weights from the hub, without what no part needs."""
    from huggingface_hub import snapshot_download

    folders = (*model.parts, "text_encoder", "tokenizer", "scheduler", "image_processor")
    say(f"{model.name}: fetching {hub} (about {model.gigabytes + 23:.0f} GB or more)")
    try:
        return Path(snapshot_download(
            hub, allow_patterns=["model_index.json", *(f"{f}/*" for f in folders)]
        ))  # fmt: skip
    except Exception as e:  # network, authentication, disk: the hub has an error class for each
        reason = (str(e).splitlines() or [repr(e)])[0].removeprefix("Got: ")
        raise ConfigError(
            f"{hub} cannot be fetched: {reason}; with the weights in a folder: --weights FOLDER"
        ) from None
