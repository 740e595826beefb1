"""What makes the numbers of an evaluation: code, libraries, weights, programs. A finished number is
used again only as long as these are the same."""

from __future__ import annotations

import ast
import hashlib
import importlib.metadata
import json
import shlex
import shutil
from collections.abc import Iterator, Sequence
from functools import lru_cache
from pathlib import Path
from typing import Any

from gvcc import priors
from gvcc.errors import GvccError
from gvcc.priors import Spec, restorers, store
from gvcc.priors.models import MODELS
from gvcc.search.config import EncodeConfig

_ROOT = Path(__file__).parents[2]  # the folder with the package
Stamp = tuple[str, int, int]
"""A file's path, its size in bytes, and when it was changed, in ns."""


def digest(about: Any) -> str:
    """24 hexadecimal digits that stand for anything that JSON can say."""
    return hashlib.sha256(json.dumps(about).encode()).hexdigest()[:24]


def stamps(path: Path) -> tuple[Stamp, ...]:
    """The stamp of a file, or of every file below a folder; none where there is nothing."""
    files = sorted(p for p in path.rglob("*") if p.is_file()) if path.is_dir() else [path]
    stats = [(str(p), p.stat()) for p in files if p.is_file()]
    return tuple((name, s.st_size, s.st_mtime_ns) for name, s in stats)


def content(path: Path) -> str:
    """The digest of what a file holds, or every file below a folder: a clip that was copied or
    fetched anew is the same clip. FileNotFoundError if there is none."""
    if not (found := stamps(path)):
        raise FileNotFoundError(path)
    return _content(path, found)


@lru_cache(maxsize=1024)
def _content(path: Path, found: tuple[Stamp, ...]) -> str:
    names = [Path(name) for name, _, _ in found]
    return digest([[str(p.relative_to(path)), _hash(p)] for p in names])


def _hash(path: Path) -> str:
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def programs(*commands: str) -> list[tuple[Stamp, ...]]:
    """The stamps of the programs, scripts and other files that command lines name."""
    words = [word for command in commands for word in shlex.split(command)]
    named = [shutil.which(word) or word.rpartition("=")[2] for word in words]
    return [stamps(p) for name in dict.fromkeys(named) if (p := Path(name)).is_file()]


# -- code -------------------------------------------------------------------------------------


def code(*modules: str, alone: Sequence[str] = ()) -> str:
    """The digest of modules of this package and of all that they import of it, and of those
    `alone` without what they import. Comments, docstrings and layout make no difference."""
    found: dict[str, str] = {}
    left = list(modules)
    while left:
        if (name := left.pop()) not in found and (path := _file(name)) is not None:
            found[name], imports = _module(*stamps(path)[0])
            left += imports
    # The package's own file has its version and the mode of the mathematics library.
    for name in ("gvcc", *alone):
        if (path := _file(name)) is not None:
            found[name], _ = _module(*stamps(path)[0])
    return digest(sorted(found.items()))


def _file(module: str) -> Path | None:
    """The source of a module; None for a name that is none."""
    at = _ROOT.joinpath(*module.split("."))
    return next((p for p in (at.with_suffix(".py"), at / "__init__.py") if p.is_file()), None)


@lru_cache(maxsize=1024)
def _module(path: str, size: int, time: int) -> tuple[str, list[str]]:
    """The digest of what a source file does, and what it imports."""
    tree = ast.parse(Path(path).read_bytes())
    imports = list(_imports(tree))
    for node in ast.walk(tree):
        if isinstance(node, ast.Module | ast.ClassDef | ast.FunctionDef):
            node.body = [
                n for n in node.body
                if not (isinstance(n, ast.Expr) and isinstance(n.value, ast.Constant))
            ]  # fmt: skip
    return digest(ast.dump(tree)), imports


def _imports(tree: ast.Module) -> Iterator[str]:
    """Names that may be modules of this package, wherever the import stands."""
    for node in ast.walk(tree):
        if isinstance(node, ast.Import):
            names = [a.name for a in node.names]
        elif isinstance(node, ast.ImportFrom) and node.module:
            names = [node.module, *(f"{node.module}.{a.name}" for a in node.names)]
        else:
            continue
        yield from (n for n in names if n.startswith("gvcc."))


@lru_cache
def libraries(*names: str) -> list[str | None]:
    """The versions of installed distributions; None for one that is not there."""

    def version(name: str) -> str | None:
        try:
            return importlib.metadata.version(name)
        except importlib.metadata.PackageNotFoundError:
            return None

    return [version(name) for name in names]


# -- our codec --------------------------------------------------------------------------------


def codec(prior: str) -> list[Any]:
    """The code of this codec with a prior (as of priors.load), without its weights."""
    published = ("diffusers", "transformers") if prior.partition(":")[0] in MODELS else ()
    return [code("gvcc.codec"), libraries("torch", "numpy", "constriction", "av", *published)]


def weights(asked: EncodeConfig) -> list[str]:
    """The digests of a configuration's prior and of what restores its bases ("" where nothing
    does), hexadecimal, as they are now; why there is none, where one cannot be loaded."""
    kind, _, path = asked.prior.partition(":")
    at = Path(path) if path else store.known(MODELS[kind]) if kind in MODELS else None
    spec = _prior(asked.prior, () if at is None else stamps(at))
    if isinstance(spec, str):
        return [spec]
    try:
        name = asked.resolved(spec).restorer
    except GvccError as e:
        return [spec.digest.hex(), str(e)]
    _, _, path = name.partition(":")
    return [spec.digest.hex(), _restorer(name, stamps(Path(path)) if path else ())]


@lru_cache
def _prior(name: str, _: tuple[Stamp, ...]) -> Spec | str:
    try:
        return priors.load(name).spec
    except GvccError as e:
        return str(e)


@lru_cache
def _restorer(name: str, _: tuple[Stamp, ...]) -> str:
    try:
        return restorers.load(name, 1.0).digest.hex() if name else ""
    except GvccError as e:
        return str(e)
