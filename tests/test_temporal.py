"""The temporal profile and its spikes, on clips whose answer is known."""

from __future__ import annotations

import numpy as np
import pytest

from gvcc.eval.temporal import changes, profile


def ramp(steps: list[int]) -> np.ndarray:
    """Flat frames whose level grows by these steps: uint8 [T,8,8,3]."""
    levels = np.cumsum([10, *steps])
    return np.broadcast_to(levels[:, None, None, None], (len(levels), 8, 8, 3)).astype(np.uint8)


def test_changes_are_mean_absolute_differences():
    assert changes(ramp([1, 4, 0, 2])).tolist() == [1, 4, 0, 2]
    assert changes(ramp([3])[::-1]).tolist() == [3]  # downwards: no wrap of the bytes


def test_a_spike_stands_out_from_the_clips_own_profile():
    source, decoded = ramp([2] * 8), ramp([4] * 4 + [8] + [4] * 3)
    found = profile(source, decoded, [5])
    assert found["spikes"] == [2.0] and found["boundaries"] == [5]
    assert found["largest_inside"] == 1.0
    # The source's own jump at the boundary is no spike.
    jump = ramp([2] * 4 + [4] + [2] * 3)
    assert profile(jump, decoded, [5])["spikes"] == [1.0]


@pytest.mark.parametrize("starts", [[], [3], [2, 4]])
def test_as_many_spikes_as_boundaries(starts):
    found = profile(ramp([1] * 6), ramp([1] * 6), starts)
    assert len(found["spikes"]) == len(starts) and set(found["spikes"]) <= {1.0}
    assert len(found["decoded_profile"]) == 6


def test_the_error_of_a_change_counts_where_changes_cancel():
    # Same sizes of change, opposite direction: the plain profile sees nothing.
    source, decoded = ramp([2, 2, 2, 2, 2]), ramp([2, 2, 2, 2, 2])
    decoded = decoded.copy()
    decoded[3:] = decoded[2] - 2 + (decoded[3:] - decoded[3])
    found = profile(source, decoded, [3])
    assert found["spikes"] == [1.0]
    assert found["error_spikes"][0] > 10
