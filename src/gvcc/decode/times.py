"""What a file leaves to arithmetic: the times of a GOP's steps, and atoms that are dealt evenly."""

from __future__ import annotations

from gvcc import flow
from gvcc.format import schedules
from gvcc.format.bitstream import Header

TAIL = 2  # latent frames at the end of a GOP that the uniform allocation may treat apart


def times(header: Header, stop: int, fraction: int = 0, start: float = 1.0) -> list[float]:
    """The times of a GOP whose coded steps end after `stop` of them and `fraction` 256ths of one;
    those of one that begins at `start` are as much smaller.

    With a schedule the ODE goes from there to 0 in `tail` equal steps, so that a GOP that stops
    early takes fewer network calls; without one the times are the same for every stop.
    """
    if not header.schedule:
        return [start * t for t in flow.schedule(header.steps, header.shift)]
    coded = [start, *(start * t / schedules.UNIT for t in schedules.SCHEDULES[header.schedule - 1])]
    out = coded[: stop + 1]
    if fraction:
        out.append(out[-1] + (coded[stop + 1] - out[-1]) * fraction / 256)
    return out + [out[-1] * (1 - i / header.ode_steps) for i in range(1, header.ode_steps + 1)]


def uniform_counts(atoms: int, tail_atoms: int, stop: int, frames: int) -> list[list[int]]:
    """Atoms for each coded step and latent frame: dealt evenly, the first ones get one more.

    With tail atoms (the published I2V's M_tail) the last two latent frames share those, and the
    others share `atoms`. `frames` counts the latent frames that are coded.
    """
    tail = min(TAIL, frames) if tail_atoms else 0
    front = frames - tail

    def dealt(total: int, step: int, width: int) -> list[int]:
        pairs = max(1, stop * width)
        return [total // pairs + (step * width + f < total % pairs) for f in range(width)]

    return [dealt(atoms, step, front) + dealt(tail_atoms, step, tail) for step in range(stop)]
