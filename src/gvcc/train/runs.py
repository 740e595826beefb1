"""The training runs of `nano`, from a folder of clips to a weights file.

Each lives in a folder of its own (see loop.py) and goes on where it stopped.
"""

from __future__ import annotations

from importlib.resources import files
from io import BytesIO
from pathlib import Path
from typing import Any, TypeVar

import torch
from safetensors.torch import load as load_safetensors
from torch import Tensor, nn

from gvcc.errors import ConfigError
from gvcc.files import write
from gvcc.priors import autoencoder as autoencoders
from gvcc.priors import devices, nano, transformer
from gvcc.priors.autoencoder import Autoencoder
from gvcc.priors.restorer import Restorer
from gvcc.priors.spectrum import StationaryGaussian
from gvcc.priors.transformer import Transformer
from gvcc.train import decoder as decoders
from gvcc.train import restorer as restorers
from gvcc.train.autoencoder import AutoencoderRecipe, AutoencoderTask
from gvcc.train.dataset import Dataset, manifest_text
from gvcc.train.decoder import DecoderRecipe, DecoderTask
from gvcc.train.flow import FlowRecipe, FlowTask, encode_pool, fit_spectrum, held_out_latents
from gvcc.train.kept import Counts
from gvcc.train.loop import Progress, Recipe, Run, load_recipe
from gvcc.train.pairs import pairs
from gvcc.train.restorer import RestorerRecipe, RestorerTask

R = TypeVar("R", bound=Recipe)


def autoencoder(
    data: Path,
    out: Path,
    recipe: str | None = None,
    cache: Path | None = None,
    device: str = "cpu",
    progress: Progress | None = None,
    begin: Path | None = None,
) -> Path:
    """Train nano's autoencoder into folder `out`; returns out/autoencoder.safetensors.

    `recipe` is the name of one that ships ("cpu", "cpu-fine", "gpu") or a file; by default the one
    in `out`, or by device. `begin` is a weights file to begin with instead of the linear
    autoencoder, of the recipe's shape. `device` is a name as of devices.pick. Raises ConfigError
    for a recipe, data or a checkpoint that does not fit, TrainingError if it diverges.
    """
    at = devices.ready(devices.pick(device))
    asked = prepare(out, "nano-autoencoder", recipe, at.type, AutoencoderRecipe)
    source = open_data(data, out, cache, asked, progress)
    model = start(asked)
    if begin is not None:
        model.load_state_dict(_state(begin, "autoencoder", model))
    task = AutoencoderTask(model, source, asked, at)
    model.load_state_dict(Run(task, asked, out).train(progress))
    path = out / "autoencoder.safetensors"
    write(path, nano.pack(*nano.parts(model)))
    return path


def flow(
    data: Path,
    out: Path,
    trained: Path,
    recipe: str | None = None,
    cache: Path | None = None,
    device: str = "cpu",
    progress: Progress | None = None,
    begin: Path | None = None,
) -> Path:
    """Train nano's denoiser on the latents of the `trained` autoencoder; returns
    out/nano.safetensors, which holds both. Otherwise as `autoencoder`."""
    at = devices.ready(devices.pick(device))
    asked = prepare(out, "nano-flow", recipe, at.type, FlowRecipe)
    config, tensors = _keep(trained, out / "autoencoder.safetensors")
    auto = nano.build_autoencoder(config, tensors, str(trained)).to(at).eval()
    source = open_data(data, out, cache, asked, progress)
    power_file = out / "power.pt"
    if not power_file.exists():
        fitted = BytesIO()
        torch.save(fit_spectrum(auto, source, asked.seed, progress), fitted)
        write(power_file, fitted.getvalue())
    # Rounded as the weights file rounds it, so that training sees what the codec will.
    power = torch.load(power_file, map_location="cpu", weights_only=True).half().float()
    pool = encode_pool(auto, source, asked, out / "latents.npy", progress)
    torch.manual_seed(asked.seed)
    net = Transformer(transformer.TransformerShape(auto.shape.channels, asked.width, asked.layers))
    if begin is not None:
        net.load_state_dict(_state(begin, "transformer", net))
    gauss = StationaryGaussian(power, at)
    task = FlowTask(net, gauss, pool, held_out_latents(auto, source), asked, at)
    average = Run(task, asked, out).train(progress)
    net.load_state_dict(average)
    path = out / "nano.safetensors"
    write(path, nano.pack(*nano.parts(auto, net, power)))
    return path


def decoder(
    data: Path,
    out: Path,
    recipe: str | None = None,
    cache: Path | None = None,
    device: str = "cpu",
    progress: Progress | None = None,
    trained: Path | None = None,
) -> Path:
    """Fine-tune the decoder of the `trained` nano (None: the one that ships); returns
    out/nano.safetensors, all else in it as before. Otherwise as `autoencoder`. The examples lie in
    a folder "examples" in the cache."""
    at = devices.ready(devices.pick(device))
    asked = prepare(out, "nano-decoder", recipe, at.type, DecoderRecipe)
    shipped = Path(str(files("gvcc.priors"))) / "weights/nano.safetensors"
    config, tensors = _keep(trained or shipped, out / "begin.safetensors")
    prior = nano.load(device, out / "begin.safetensors")
    source = open_data(data, out, cache, asked, progress)
    folder = (cache or out.parent / "cache") / f"examples-{prior.spec.digest.hex()}"
    counts = Counts(asked.examples, asked.held)
    examples = decoders.examples(source, prior, folder, counts, asked.seed, progress)
    auto = nano.build_autoencoder(config, tensors, str(out))
    task = DecoderTask(auto, *examples, asked, at)
    task.model.load_state_dict(Run(task, asked, out).train(progress))
    path = out / "nano.safetensors"
    changed = {f"autoencoder.{k}": v for k, v in auto.state_dict().items()}
    write(path, nano.pack(config, tensors | {k: v for k, v in changed.items() if k in tensors}))
    return path


def restorer(
    data: Path,
    out: Path,
    recipe: str | None = None,
    cache: Path | None = None,
    device: str = "cpu",
    progress: Progress | None = None,
    begin: Path | None = None,
) -> Path:
    """Train the restorer of nano; returns out/restorer.safetensors, one set of weights. `begin` is
    the file of another such run; else as `autoencoder`. The pairs lie in a folder "pairs" in the
    cache."""
    at = devices.ready(devices.pick(device))
    asked = prepare(out, "nano-restorer", recipe, at.type, RestorerRecipe)
    source = open_data(data, out, cache, asked, progress)
    folder = (cache or out.parent / "cache") / "pairs"
    counts = Counts(asked.pairs, asked.held)
    found = pairs(source, folder, counts, asked.codecs, asked.seed, progress)
    model = restorers.empty(asked)
    if begin is not None:
        model.load_state_dict(_state(begin, "restorer", model))
    task = RestorerTask(model, *found, asked, at)
    task.model.load_state_dict(Run(task, asked, out).train(progress))
    return write_restorer(model, out)


def write_restorer(model: Restorer, out: Path) -> Path:
    """One set of weights of the restorer as out/restorer.safetensors."""
    path = out / "restorer.safetensors"
    state = {f"restorer.{k}": v for k, v in model.state_dict().items()}
    write(path, nano.pack({"restorer": vars(model.shape)}, state))
    return path


def state_of(path: Path, part: str) -> dict[str, Tensor]:
    """The float32 tensors of one network in a weights file."""
    return nano.state(part, _unpack(path)[1])


def _unpack(path: Path) -> tuple[dict[str, Any], dict[str, Tensor], bytes]:
    try:
        return nano.unpack(path.read_bytes(), str(path))
    except OSError as e:
        raise ConfigError(f"{path}: {e.strerror}") from e


def _keep(trained: Path, own: Path) -> tuple[dict[str, Any], dict[str, Tensor]]:
    """Configuration and tensors in `trained`, after a check that the run began with the same;
    a copy goes to `own`."""
    config, tensors, digest = _unpack(trained)
    if not own.exists():
        write(own, trained.read_bytes())
    elif _unpack(own)[2] != digest:
        raise ConfigError(f"{own.parent} holds a run on another autoencoder than {trained}")
    return config, tensors


def _state(path: Path, part: str, like: nn.Module) -> dict[str, Tensor]:
    """One network's tensors in a weights file; ConfigError if they are not shaped as `like`."""
    state = state_of(path, part)
    for name, value in like.state_dict().items():
        if name not in state or state[name].shape != value.shape:
            got = tuple(state[name].shape) if name in state else "missing"
            raise ConfigError(f"{path}: {part}.{name} is {got}, expected {tuple(value.shape)}")
    return state


def start(recipe: AutoencoderRecipe) -> Autoencoder:
    """The untrained autoencoder: exactly the linear one that ships as `gauss`."""
    basis = load_safetensors((files("gvcc.priors") / "weights/gauss.safetensors").read_bytes())
    channels = len(basis["group"])
    if recipe.channels > channels:
        raise ConfigError(f"channels is {recipe.channels}, expected at most {channels}")
    gain = float(basis["power"].double().exp().mean().rsqrt())
    torch.manual_seed(recipe.seed)
    shape = autoencoders.AutoencoderShape(
        recipe.channels, recipe.width, recipe.encoder_blocks, recipe.decoder_blocks
    )
    group, first = (basis[k][: recipe.channels] for k in ("group", "first"))
    return Autoencoder(shape, group, first, basis["colour"], gain)


def prepare(out: Path, name: str, recipe: str | None, device: str, kind: type[R]) -> R:
    """Make the run's folder and its recipe.toml; returns the recipe."""
    own = out / "recipe.toml"
    if recipe is None and own.exists():
        return load_recipe(own, kind)
    which = recipe or ("cpu" if device == "cpu" else "gpu")
    shipped = Path(str(files("gvcc.train"))) / f"recipes/{name}-{which}.toml"
    path = shipped if shipped.is_file() else Path(which)
    asked = load_recipe(path, kind)
    text = path.read_text()
    if own.exists() and own.read_text() != text:
        raise ConfigError(f"{out} holds a run with another recipe; choose another folder")
    write(own, text.encode())
    return asked


def open_data(
    data: Path, out: Path, cache: Path | None, recipe: Recipe, progress: Progress | None
) -> Dataset:
    """The data set, after a check that it is what the run began with."""
    source = Dataset(data, cache or out.parent / "cache", recipe.weights, recipe.pictures, progress)
    text, path = manifest_text(source.manifest()), out / "manifest.csv"
    if path.exists() and path.read_text() != text:
        raise ConfigError(f"the files below {data} are not those of {path}")
    write(path, text.encode())
    return source
