"""Times of the coded steps, as tables that headers name by their number, from 1. Only ever append.

Each was found by bench/systems/schedule.py for one prior, but any prior on any path may use it. A
table has the times after each step, in 65536ths; the first step starts at t = 1.
"""

from __future__ import annotations

UNIT = 65536
SCHEDULES: tuple[tuple[int, ...], ...] = (
    # nano
    (63710, 61181, 57969, 54554, 50517, 46138, 41759, 37003, 32058, 27837, 23777, 19995, 16576,
     13567, 10982, 9142, 7567, 6233, 5114, 4182, 3410, 2774, 2252, 1826),
    # gauss
    (63858, 61681, 58796, 55323, 51497, 47300, 43055, 39076, 34894, 31349, 27837, 24437, 21219,
     18236, 16045, 14039, 12222, 10592, 9142, 7862, 6740, 5762, 4914, 4182),
)  # fmt: skip
