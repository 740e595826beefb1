"""Fixtures that several test files share."""

import os
import tempfile
from collections.abc import Iterator

import hypothesis
import pytest
import torch
from cli_runner import clip, coded, large, run

from gvcc.format import schedules

# What a user keeps there, such as weights of metrics, is none of the tests' business.
os.environ["XDG_CACHE_HOME"] = tempfile.mkdtemp(prefix="gvcc-tests-")

__all__ = ["clip", "coded", "large", "run"]

# An example takes as long as the other work on the machine lets it.
hypothesis.settings.register_profile("gvcc", deadline=None)
hypothesis.settings.load_profile("gvcc")


@pytest.fixture(scope="module")
def one_thread() -> Iterator[None]:
    """Products as small as the tiny prior's only wait for a second thread, above all on busy
    cores."""
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(threads)


@pytest.fixture(scope="module")
def short_schedules(one_thread: None) -> Iterator[None]:
    """Eight coded steps: every third time of the priors' schedules."""
    with pytest.MonkeyPatch.context() as m:
        m.setattr(schedules, "SCHEDULES", tuple(t[2::3] for t in schedules.SCHEDULES))
        yield
