"""Times of the coded steps, as tables that headers name by their number, from 1. Only ever append.

Each was found by bench/schedule.py for one prior, but any prior on any path may use it. A table has
the times after each step, in 65536ths; the first step starts at t = 1.
"""

from __future__ import annotations

UNIT = 65536
TABLES: tuple[tuple[int, ...], ...] = (
    (
        64528,
        64194,
        63753,
        63172,
        62411,
        61422,
        60146,
        58519,
        56476,
        53955,
        50915,
        47345,
        43285,
        38830,
        34130,
        29373,
        24757,
        20456,
        16598,
        13253,
        10439,
        8129,
        6273,
        4804,
    ),
)
