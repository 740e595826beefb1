"""Loading the parts of published models: networks, autoencoders, encoders of texts and pictures.

diffusers' and transformers' models are used, never their pipelines. Everything that can go wrong
becomes one sentence with the way out.
"""

from __future__ import annotations

import hashlib
import html
import logging
from collections.abc import Iterator
from contextlib import contextmanager
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError
from safetensors.torch import load_file, save
from torch import Tensor

from gvcc import files
from gvcc.errors import BadSetting, ConfigError, GvccError
from gvcc.priors import store
from gvcc.priors.models import Model
from gvcc.priors.settings import Settings

DTYPES = {"bf16": torch.bfloat16, "fp32": torch.float32}


def _quiet() -> None:
    """Keeps the packages from drawing bars and telling news: that is for programs to do."""
    for name in ("torchao", "torch.utils._pytree", "diffusers", "transformers"):
        logging.getLogger(name).setLevel(logging.CRITICAL)
    import diffusers.utils.logging
    import transformers.utils.logging

    for made in (diffusers.utils.logging, transformers.utils.logging):
        made.set_verbosity(logging.CRITICAL)
        made.disable_progress_bar()


def need_packages(model: Model, *more: str) -> None:
    """ConfigError unless what runs the model is installed."""
    missing = [p for p in ("diffusers", "transformers", *more) if find_spec(p) is None]
    if missing:
        extra = "quant" if more and missing == [*more] else "wan"
        raise ConfigError(
            f"prior {model.name} needs {' and '.join(missing)}: pip install 'gvcc[{extra}]'"
        )
    _quiet()


@contextmanager
def enough_memory(model: Model, device: torch.device) -> Iterator[None]:
    """Turns a device's lack of memory into a sentence."""
    try:
        yield
    except torch.OutOfMemoryError:
        raise GvccError(
            f"{device} has too little memory for {model.name} at this size: try --offload, "
            "--set tile=256, --set quant=int8, shorter GOPs (--gop) or smaller pictures"
        ) from None


def load_part(kind: Any, model: Model, folder: Path, part: str, **how: Any) -> Any:
    """A part of a model from its folder, in evaluation mode on the CPU; ConfigError if the weights
    there are not those of the configuration."""
    again = f"gvcc priors prepare {model.name} --from {model.hub}"
    try:
        module, found = kind.from_pretrained(
            folder, subfolder=part, output_loading_info=True, local_files_only=True, **how
        )
    except (OSError, ValueError, RuntimeError, KeyError, TypeError, SafetensorError) as e:
        reason = (str(e).splitlines() or [type(e).__name__])[0]
        if "shape" in reason or "mismatched" in reason:
            reason = "the weights are not those of its config.json"
        raise ConfigError(f"prior {model.name}: cannot load {folder / part}: {reason}") from None
    missing = [*found["missing_keys"], *map(str, found.get("mismatched_keys", ()))]
    if missing:
        raise ConfigError(
            f"prior {model.name}: {len(missing)} tensors are missing in {folder / part}, among "
            f"them {sorted(missing)[0]}; fetch it anew: {again}"
        )
    return module.eval().requires_grad_(False)


def check_network(kind: Any, model: Model, folder: Path, part: str) -> None:
    """ConfigError unless the weights of a part of diffusers are, by name and shape, those of its
    configuration; without loading them."""
    found = store.tensors(folder / part)
    if found is None:
        return
    try:
        with torch.device("meta"):
            empty = kind.from_config(store.config(folder, part))
    except (ValueError, TypeError, RuntimeError, AttributeError) as e:
        reason = (str(e).splitlines() or [type(e).__name__])[0]
        raise ConfigError(f"{folder / part}/config.json is damaged: {reason}") from None
    wanted = {k: tuple(v.shape) for k, v in empty.state_dict().items()}
    wrong = sorted(k for k in wanted.keys() | found.keys() if wanted.get(k) != found.get(k))
    if wrong:
        raise ConfigError(
            f"prior {model.name}: {folder / part} does not hold the weights of its config.json: "
            f"{len(wrong)} tensors are missing, too many or of another shape, the first {wrong[0]}"
        )


def network(
    kind: Any, model: Model, folder: Path, part: str, settings: Settings, device: torch.device,
    offload: bool,
) -> Any:  # fmt: skip
    """The network that is called at each step, as the settings ask for it. It is on the device, or
    with `offload` in the main memory, from where its blocks go there one by one."""
    how: dict[str, Any] = {"torch_dtype": DTYPES[settings.dtype]}
    if settings.quant != "none":
        need_packages(model, "torchao")
        how["quantization_config"] = _quantised(settings.quant)
    gguf = [p for p in store.files(folder / part) if p.suffix == ".gguf"]
    if gguf:
        if settings.quant != "none":
            raise BadSetting(f"{gguf[0].name} is quantised already: no setting quant")
        net = _from_gguf(kind, model, gguf[0], settings)
    else:
        net = load_part(kind, model, folder, part, **how)
    if settings.compile == "yes":
        net.compile_repeated_blocks(fullgraph=True)
    if offload:
        net.enable_group_offload(
            onload_device=device, offload_device=torch.device("cpu"),
            offload_type="block_level", num_blocks_per_group=1,
            use_stream=device.type == "cuda",
        )  # fmt: skip
        return net
    with enough_memory(model, device):
        return net.to(device)


def _quantised(quant: str) -> Any:
    from diffusers import TorchAoConfig
    from torchao.quantization import Float8WeightOnlyConfig, Int8WeightOnlyConfig

    return TorchAoConfig({"int8": Int8WeightOnlyConfig, "fp8": Float8WeightOnlyConfig}[quant]())


def _from_gguf(kind: Any, model: Model, path: Path, settings: Settings) -> Any:
    """A network from a GGUF file that lies beside its config.json."""
    need_packages(model, "gguf")
    from diffusers import GGUFQuantizationConfig

    dtype = DTYPES[settings.dtype]
    try:
        # `config` must be given: by their tensors alone some models are taken for others.
        net = kind.from_single_file(
            str(path), config=str(path.parent), torch_dtype=dtype,
            quantization_config=GGUFQuantizationConfig(compute_dtype=dtype),
        )  # fmt: skip
    except (OSError, ValueError, RuntimeError, KeyError) as e:
        reason = (str(e).splitlines() or [type(e).__name__])[0]
        raise ConfigError(f"prior {model.name}: cannot load {path}: {reason}") from None
    return net.eval().requires_grad_(False)


@contextmanager
def attention(backend: str) -> Iterator[None]:
    """diffusers' attention backend for the calls inside. Named at each call: what somebody else in
    this process chose must not change a file."""
    from diffusers.models.attention_dispatch import attention_backend

    try:
        scope = attention_backend(backend)
        scope.__enter__()
    except (ValueError, RuntimeError) as e:
        raise BadSetting(f"attention {backend!r}: {str(e).splitlines()[0]}") from None
    try:
        yield
    finally:
        scope.__exit__(None, None, None)


# -- texts ------------------------------------------------------------------------------------


def text_identity(folder: Path) -> str:
    """The fingerprint of a model's text encoder; that of a folder whose encoder was deleted once
    the prompts it is used with were in the cache."""
    if (folder / "text_encoder").is_dir():
        found = store.fingerprint(folder, "text_encoder")
        if store.recall("texts").get(str(folder.resolve())) != found:
            store.remember("texts", str(folder.resolve()), found)
        return found
    return str(store.recall("texts").get(str(folder.resolve()), ""))


def embedding(
    kind: str, model: Model, folder: Path, prompt: str, tokens: int, settings: Settings
) -> Tensor:
    """The embedding of a prompt, [1, tokens, width] in the network's type, from the cache or made
    by the model's text encoder `kind`, which is on the CPU and not kept: it is larger than most
    networks, and so every machine makes the same.

    Wan (kind UMT5EncoderModel): cleaned text, padding masked, and rows of padding zero. CogVideoX
    (T5EncoderModel): neither, as diffusers has it.
    """
    name = f"{text_identity(folder)} {kind} {tokens} {settings.dtype} {prompt}"
    path = files.cache() / "prompts" / f"{hashlib.sha256(name.encode()).hexdigest()}.safetensors"
    try:
        rows = load_file(path)["rows"]
    except (OSError, KeyError, SafetensorError):
        rows = None  # not there, or damaged
    if rows is None:
        if not (folder / "text_encoder").is_dir():
            raise ConfigError(
                f"prior {model.name}: {folder / 'text_encoder'} is missing, and no embedding of "
                f"this prompt is in the cache; run `gvcc priors prepare {model.name} --from "
                f"{model.hub}`"
            )
        store.check_part(model, folder, "text_encoder")
        rows = _encoded(kind, model, folder, prompt, tokens, settings)
        try:
            files.write(path, save({"rows": rows}))
        except OSError:
            pass  # it is made again the next time
    out: Tensor = rows.new_zeros(1, tokens, rows.shape[1])
    out[0, : len(rows)] = rows
    return out


@torch.inference_mode()
def _encoded(
    kind: str, model: Model, folder: Path, prompt: str, tokens: int, settings: Settings
) -> Tensor:
    """The rows of a prompt's embedding, without those of padding if that is masked."""
    import transformers

    encoder = load_part(
        getattr(transformers, kind), model, folder, "text_encoder",
        dtype=DTYPES[settings.dtype],
    )  # fmt: skip
    masked = kind == "UMT5EncoderModel"
    if not (folder / "tokenizer").is_dir():
        raise ConfigError(f"prior {model.name}: {folder / 'tokenizer'} is missing")
    try:
        tokenizer = transformers.AutoTokenizer.from_pretrained(folder / "tokenizer")
    except (OSError, ValueError) as e:
        reason = str(e).splitlines()[0]
        raise ConfigError(f"prior {model.name}: {folder / 'tokenizer'}: {reason}") from None
    ids = tokenizer(
        [cleaned(prompt) if masked else prompt], padding="max_length", max_length=tokens,
        truncation=True, add_special_tokens=True, return_tensors="pt",
    )  # fmt: skip
    if masked:
        rows = encoder(ids.input_ids, ids.attention_mask).last_hidden_state[0]
        rows = rows[: int(ids.attention_mask.sum())]
    else:
        rows = encoder(ids.input_ids)[0][0]
    out: Tensor = rows.to(DTYPES[settings.dtype]).clone()
    return out


def cleaned(text: str) -> str:
    """A prompt as Wan's own code cleans it: mended encoding, no entities, single spaces."""
    if "&" in text or not all(" " <= c <= "~" or c.isspace() for c in text):
        try:
            import ftfy
        except ImportError:
            raise ConfigError("a prompt beyond ASCII needs ftfy: pip install 'gvcc[wan]'") from None
        text = ftfy.fix_text(text)
    return " ".join(html.unescape(html.unescape(text)).split())
