"""Training samples that take long to make, kept in a folder: those that are there are not made
again."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from io import BytesIO
from pathlib import Path
from typing import Any, NamedTuple, TypeVar
from zipfile import BadZipFile

import numpy as np
from numpy.typing import NDArray

from gvcc import files
from gvcc.errors import ConfigError
from gvcc.train.loop import Progress

T = TypeVar("T")
Arrays = Mapping[str, NDArray[Any]]


class Counts(NamedTuple):
    """How many samples are to train on, and how many are held out; the latter have the first
    numbers."""

    training: int
    held: int


def kept(
    folder: Path, name: str, counts: Counts, seed: int, make: Callable[[int, bool], Arrays],
    read: Callable[[Path], T], progress: Progress | None = None,
) -> tuple[list[T], list[T]]:  # fmt: skip
    """Samples to train on, and those held out. `make(i, held)` gives the arrays of number i, which
    `read` makes a sample of, from their file."""
    folder.mkdir(parents=True, exist_ok=True)
    training, held = list[T](), list[T]()
    total = sum(counts)
    for i in range(total):
        out = i < counts.held
        path = folder / f"{'held' if out else name}-{seed}-{i:05d}.npz"
        if not path.exists():
            data = BytesIO()
            np.savez(data, **make(i, out))  # type: ignore[arg-type]
            files.write(path, data.getvalue())
        (held if out else training).append(read(path))
        if progress is not None:
            progress(f"{name}s", i + 1, total)
    return training, held


def load(path: Path, what: str, of: Callable[[Arrays], T]) -> T:
    """A sample from its file; ConfigError if it is no such."""
    try:
        with np.load(path) as found:
            return of(found)
    except (OSError, ValueError, KeyError, TypeError, EOFError, BadZipFile) as e:
        raise ConfigError(f"{path} is no {what}: {e}") from None
