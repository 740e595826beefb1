"""Where a base is to be restored."""

from __future__ import annotations

from gvcc.format.base import BaseRecord
from gvcc.priors.restorers import Restoring


def helps(restorer: Restoring, base: BaseRecord) -> bool:
    """Whether a restorer makes a base look better."""
    return base.size in restorer.sizes
