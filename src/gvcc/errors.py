"""Every error the package raises on purpose. Anything else that escapes is a bug.

Bytes we did not write raise `FormatError` only; user settings raise `ConfigError`; both also
inherit `ValueError`, so that callers who know nothing of gvcc can still catch them.
"""

from __future__ import annotations

import difflib
from collections.abc import Iterable


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
