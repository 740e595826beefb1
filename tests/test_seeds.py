"""Several seeds of one codec, and paired tests of BD-rates."""

from __future__ import annotations

import itertools
import math

import numpy as np
import pytest

from gvcc.errors import ConfigError
from gvcc.eval import seeds
from gvcc.eval.bd import over_clips, sign_flips


def test_only_ours_get_seeds() -> None:
    assert seeds.expand(("gvcc:paper+M=4", "x265"), 2) == (
        "gvcc:paper+M=4+seed=1", "gvcc:paper+M=4+seed=2", "x265",
    )  # fmt: skip
    with pytest.raises(ConfigError, match="a seed of its own"):
        seeds.expand(("gvcc:paper+seed=7",), 2)


def cell(clip: str, rate: float, psnr: float | None) -> dict:
    return {"clip": clip, "rate": rate, "status": "ok", "metrics": {"psnr_rgb_db": psnr}}


def test_notes_are_means_and_deviations() -> None:
    values = {1: (20.0, 24.0), 2: (21.0, 25.0), 3: (19.0, 26.0)}
    found = {
        f"gvcc:paper+seed={i}": [cell("a", 0.1, a), cell("b", 0.1, b)]
        for i, (a, b) in values.items()
    }
    found["x265"] = [cell("a", 0.1, 30.0)]
    (note,) = seeds.notes("gvcc:paper+seed=1", found)
    means = [np.mean(v) for v in values.values()]
    spread = np.std(means, ddof=1)
    assert f"3 seeds, 0.1 bits per pixel: PSNR {np.mean(means):.2f} \u00b1 {spread:.2f} " in note
    assert not seeds.notes("gvcc:paper+seed=2", found) and not seeds.notes("x265", found)
    # One seed lacks a clip: means over different clips do not compare.
    found["gvcc:paper+seed=2"][0] = cell("a", 0.1, None)
    assert not seeds.notes("gvcc:paper+seed=1", found)


def test_other_settings_are_other_codecs() -> None:
    found = {f"gvcc:paper+M={m}+seed=1": [cell("a", 0.1, 20.0)] for m in (4, 8)}
    assert not seeds.notes("gvcc:paper+M=4+seed=1", found)


def test_sign_flips_are_counted() -> None:
    logs = [0.3, 0.1, -0.05, 0.2]
    sums = [abs(float(np.dot(s, logs))) for s in itertools.product((-1, 1), repeat=4)]
    assert sign_flips(logs) == sum(s >= sum(logs) - 1e-9 for s in sums) / 16
    assert sign_flips([0.1] * 5) == 2**-4  # the least there is
    assert sign_flips([0.0] * 5) == 1


def test_sign_flips_hold_their_level() -> None:
    """Of differences that are none at most 5 % are called one at .05; clear ones nearly always."""
    random = np.random.default_rng(1)
    null = [sign_flips(random.normal(0, 1, 8)) for _ in range(400)]
    assert 0.01 < np.mean(np.array(null) <= 0.05) < 0.08
    assert sign_flips(random.normal(3, 1, 20)) < 1e-3  # by draws


def test_a_bd_rate_has_its_p() -> None:
    curve = [(r, math.log(r)) for r in (0.01, 0.02, 0.05, 0.1)]
    anchor = {str(i): curve for i in range(6)}
    better = {n: [(0.8 * r, q) for r, q in c] for n, c in anchor.items()}
    assert over_clips(anchor, better).p_value == 2**-5
    few = {"0": curve, "1": curve}
    assert over_clips(few, few).p_value is None
