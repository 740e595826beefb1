"""Where models' weights are on this machine, and what they are: folders, fingerprints, a cache.

The cache is a folder of small files, $GVCC_CACHE or gvcc in the user's cache: which folder holds
which model, fingerprints, prompts' embeddings, autoencoders' sensitivities. It can be deleted at
any time, and costs some minutes to make again.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

from gvcc.errors import ConfigError
from gvcc.files import cache, write
from gvcc.priors.models import Model

_WEIGHTS = (".safetensors", ".bin", ".gguf")
_PIECE = 64  # bytes of a sample
_PIECES, _OF_OTHERS = 8, 1024  # samples of a tensor, and of a file that is not safetensors


def recall(name: str) -> dict[str, Any]:
    """A JSON object of the cache, empty if there is none."""
    try:
        found = json.loads((cache() / f"{name}.json").read_text())
    except (OSError, ValueError):
        return {}
    return found if isinstance(found, dict) else {}


def remember(name: str, key: str, value: Any) -> None:
    """Put one entry into an object of the cache. Where the cache cannot be written, nothing is
    kept: it only saves time."""
    try:
        write(cache() / f"{name}.json", json.dumps(recall(name) | {key: value}, indent=1).encode())
    except OSError:
        pass


# -- folders ----------------------------------------------------------------------------------


def register(model: Model, folder: Path) -> None:
    """From now on the model's weights are those in a folder."""
    remember("folders", model.name, str(folder.resolve()))


def locate(model: Model, given: Path | None = None) -> Path:
    """The folder with a model's weights: the one given, the one registered, or the hub's own cache.

    ConfigError, with the command to run, if there is none or it is not whole.
    """
    folder = given or known(model)
    if folder is None:
        raise ConfigError(
            f"the weights of {model.name} are not on this machine: run "
            f"`gvcc priors prepare {model.name} --from {model.hub}` to fetch them, or "
            f"`gvcc priors prepare {model.name} --weights FOLDER` if you have them"
        )
    if not folder.is_dir():
        raise ConfigError(f"prior {model.name}: {folder} is no folder")
    for part in model.parts:
        check_part(model, folder, part)
    return folder


def known(model: Model) -> Path | None:
    """The folder that was registered for a model, or the hub's cache has; None if neither."""
    registered = recall("folders").get(model.name)
    if isinstance(registered, str) and Path(registered).is_dir():
        return Path(registered)
    try:
        from huggingface_hub import snapshot_download
    except ImportError:
        return None
    try:
        return Path(snapshot_download(model.hub, local_files_only=True))
    except (OSError, ValueError):
        return None


def check_part(model: Model, folder: Path, part: str) -> None:
    """ConfigError unless a part of a model is there and whole."""
    at, again = folder / part, f"fetch it anew: gvcc priors prepare {model.name} --from {model.hub}"
    if not (at / "config.json").is_file():
        raise ConfigError(f"prior {model.name}: {at / 'config.json'} is missing; {again}")
    for index in at.glob("*.index.json"):
        try:
            shards = set(json.loads(index.read_text())["weight_map"].values())
        except (OSError, ValueError, KeyError, TypeError, AttributeError):
            raise ConfigError(f"prior {model.name}: {index} is damaged; {again}") from None
        for shard in sorted(map(str, shards)):
            if not (at / shard).is_file():
                raise ConfigError(f"prior {model.name}: {at / shard} is missing; {again}")
    if not (found := files(at)):
        raise ConfigError(f"prior {model.name}: there are no weights in {at}; {again}")
    if any("-of-" in p.name for p in found) and not list(at.glob("*.index.json")):
        raise ConfigError(
            f"prior {model.name}: {at} holds shards without their index.json; {again}"
        )


def check_writable() -> None:
    """ConfigError if the cache cannot be written, where keeping something is what was asked for."""
    try:
        write(cache() / "writable", b"")
        (cache() / "writable").unlink()
    except OSError as e:
        raise ConfigError(
            f"the cache {cache()} cannot be written ({e.strerror}); $GVCC_CACHE names another"
        ) from None


def tensors(part: Path) -> dict[str, tuple[int, ...]] | None:
    """Names and shapes of all tensors in a part's safetensors files; None for other files."""
    out: dict[str, tuple[int, ...]] = {}
    for path in files(part):
        if path.suffix != ".safetensors":
            return None
        out |= {name: tuple(about["shape"]) for name, about, _ in _table(path)}
    return out


def check_class(model: Model, folder: Path, said: dict[str, Any], name: str) -> None:
    """ConfigError unless a part's configuration is of that class."""
    if said.get("_class_name") != name:
        raise ConfigError(f"prior {model.name}: {folder} holds another model's weights")


def files(part: Path) -> list[Path]:
    """The weights in a part's folder; variants (fp16 and the like) that nobody loads are none."""
    found = sorted(p for p in part.iterdir() if p.suffix in _WEIGHTS)
    for kind in (".gguf", ".safetensors"):
        if of_kind := [p for p in found if p.suffix == kind]:
            plain = [p for p in of_kind if ".fp16." not in p.name and ".bf16." not in p.name]
            return plain or of_kind
    return found


def config(folder: Path, name: str = "model_index.json") -> dict[str, Any]:
    """A JSON file of a model's folder, by default its index, or the configuration of the part that
    is named; ConfigError if it is none."""
    at = folder / name if name.endswith(".json") else folder / name / "config.json"
    try:
        found = json.loads(at.read_text())
    except OSError as e:
        raise ConfigError(f"{at}: {e.strerror}") from None
    except ValueError:
        found = None
    if not isinstance(found, dict):
        raise ConfigError(f"{at} is damaged")
    return found


# -- fingerprints -----------------------------------------------------------------------------


def fingerprint(folder: Path, part: str) -> str:
    """What a part's weights are: SHA-256, in hexadecimal, of its configuration, of every tensor's
    name, type and shape, and of samples of its bytes.

    Takes seconds for 28 GB, and is kept until a file changes. How tensors are spread over files
    makes no difference. Files of other kinds than safetensors count by size and samples.
    """
    at = folder / part
    said = {k: v for k, v in config(folder, part).items() if not k.startswith("_")}
    stats: list[Any] = [(p.name, s.st_size, s.st_mtime_ns) for p in files(at) for s in [p.stat()]]
    stats.append(said)
    key = json.dumps([str(at.resolve()), stats])
    if isinstance(found := recall("fingerprints").get(key), str):
        return found
    sha = hashlib.sha256(json.dumps(said, sort_keys=True).encode())
    samples: list[bytes] = []
    for path in files(at):
        samples += _tensors(path) if path.suffix == ".safetensors" else _samples(path)
    for sample in sorted(samples):
        sha.update(sample)
    remember("fingerprints", key, sha.hexdigest())
    return sha.hexdigest()


def _table(path: Path) -> list[tuple[str, dict[str, Any], tuple[int, int]]]:
    """What the head of a safetensors file says of each tensor, and where its bytes are."""
    out = []
    with path.open("rb") as f:
        try:
            size = int.from_bytes(f.read(8), "little")
            if size > path.stat().st_size:
                raise ValueError
            for name, about in json.loads(f.read(size)).items():
                if name == "__metadata__":
                    continue
                begin, end = (8 + size + at for at in about["data_offsets"])
                if not 0 <= begin <= end <= path.stat().st_size:
                    raise ValueError
                tuple(about["shape"]), about["dtype"]
                out.append((name, about, (begin, end)))
        except (ValueError, KeyError, TypeError, AttributeError):
            raise ConfigError(f"{path} is no whole safetensors file") from None
    return out


def _tensors(path: Path) -> Iterator[bytes]:
    """A line and sampled bytes for every tensor of a safetensors file."""
    with path.open("rb") as f:
        for name, about, (begin, end) in _table(path):
            head = f"{name} {about['dtype']} {about['shape']}\n".encode()
            yield head + b"".join(_pieces(f, begin, end, _PIECES))


def _samples(path: Path) -> Iterator[bytes]:
    size = path.stat().st_size
    with path.open("rb") as f:
        yield f"{path.name} {size}\n".encode() + b"".join(_pieces(f, 0, size, _OF_OTHERS))


def _pieces(f: Any, begin: int, end: int, count: int) -> Iterator[bytes]:
    """Bytes spread evenly over a range of a file, all of it if that is no more."""
    if end - begin <= count * _PIECE:
        f.seek(begin)
        yield f.read(end - begin)
        return
    for i in range(count):
        f.seek(begin + (end - begin - _PIECE) * i // (count - 1))
        yield f.read(_PIECE)


def digest(model: Model, folder: Path, text: str, more: Sequence[str] = ()) -> bytes:
    """The digest of a prior in file headers: of its parts' fingerprints, the text encoder's, and
    `more` of what makes its output."""
    sha = hashlib.sha256()
    for part in model.parts:
        sha.update(f"{part} {fingerprint(folder, part)}\n".encode())
    sha.update("\n".join([text, *more]).encode())
    return sha.digest()[:8]
