"""Where a base is to be restored."""

from __future__ import annotations

from gvcc.format.base import BaseRecord


def helps(base: BaseRecord) -> bool:
    """Whether the restorer makes a base look better."""
    return True
