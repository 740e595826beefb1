"""Every error the package raises on purpose. Anything else that escapes is a bug.

Bytes we did not write raise `FormatError` only; user settings raise `ConfigError`; both also
inherit `ValueError`, so that callers who know nothing of gvcc can still catch them.
"""

from __future__ import annotations

import difflib
from collections.abc import Iterable, Mapping
from dataclasses import fields
from numbers import Integral, Real
from typing import Any


class GvccError(Exception):
    """Base of all errors raised by gvcc."""


class FormatError(GvccError, ValueError):
    """The bytes are not a stream this decoder can read."""


class Truncated(FormatError):
    """The stream ends before its last GOP. `whole_gops` GOPs before the cut are intact."""

    def __init__(self, message: str, whole_gops: int = 0) -> None:
        super().__init__(message)
        self.whole_gops = whole_gops


class Corrupt(FormatError):
    """A checksum does not match, or a field contradicts another."""


class Unsupported(FormatError):
    """Well formed, but of a version or with a parameter this decoder does not know."""


class TooLarge(FormatError):
    """Well formed, but asks for more memory than the limits allow."""


class PriorMismatch(GvccError, ValueError):
    """The file was made with another prior, or with other weights of the same prior."""


class ConfigError(GvccError, ValueError):
    """A setting is outside its legal range, or two settings contradict each other."""


class BadSetting(ConfigError):
    """A prior has no such setting, or not with this value."""


class MediaError(GvccError, ValueError):
    """A video file cannot be read or written."""


class SourceWarning(UserWarning):
    """A source is damaged, or holds something that is not carried."""


class TrainingError(GvccError, ArithmeticError):
    """A training run has left the finite numbers."""


class TargetUnreachable(GvccError, ValueError):
    """The target size is below the smallest possible file. `smallest` is that size in bytes."""

    def __init__(self, message: str, smallest: int) -> None:
        super().__init__(message)
        self.smallest = smallest


def unknown(kind: str, name: str, known: Iterable[str]) -> ConfigError:
    """The error for a name that is not in a table, with the nearest one that is."""
    known = list(known)
    near = difflib.get_close_matches(name, known, n=1)
    hint = f"; did you mean {near[0]!r}?" if near else ""
    return ConfigError(f"unknown {kind} {name!r}; known: {', '.join(known)}{hint}")


_KINDS: dict[str, tuple[type, ...]] = {
    "str": (str,), "int": (Integral,), "float": (Real,), "bool": (bool,), "None": (type(None),),
    "Mapping[str, str]": (Mapping,),
}  # fmt: skip


def check_types(settings: Any) -> None:
    """ConfigError for a field of a dataclass that is not of its annotated type: a text, a number,
    a yes or no, or None where that is allowed. (True is no number.)"""
    for field in fields(settings):
        value, names = getattr(settings, field.name), str(field.type).split(" | ")
        kinds = tuple(kind for name in names for kind in _KINDS[name])
        if not isinstance(value, kinds) or (isinstance(value, bool) and bool not in kinds):
            raise ConfigError(f"{field.name} is {value!r}, expected {' or '.join(names)}")
