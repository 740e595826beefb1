"""The encoder's noise: symbols chosen towards the clip's own latent, and replayed."""

from __future__ import annotations

import math
from functools import singledispatch
from typing import Any, NamedTuple

from torch import Tensor

from gvcc import flow
from gvcc.decode import codebook, rcc
from gvcc.decode.codebook import Symbols, Where
from gvcc.decode.scheme import Scheme
from gvcc.format.entropy import Writer
from gvcc.priors import Metric
from gvcc.search import allocation
from gvcc.search.allocation import Budget


class Aim(NamedTuple):
    """What an encoder steers to: the latent, a metric of its error, and the GOP's atoms."""

    x0: Tensor
    metric: Metric | None
    budget: Budget | None


@singledispatch
def choose(scheme: Scheme, aim: Aim, step: int, t: float, s: float, x0hat: Tensor) -> Any:
    """The symbols of a step from t to s; there is one of these for each coder's scheme."""
    raise TypeError(f"nobody chooses for {type(scheme).__name__}")


@choose.register
def _(
    scheme: codebook.Atoms, aim: Aim, step: int, t: float, s: float, x0hat: Tensor
) -> dict[int, Symbols]:
    path = flow.PATHS[scheme.header.path]
    target, lengths = allocation.steering(aim.x0, x0hat, aim.metric, path, s)
    if aim.budget is None:
        counts = scheme.dealt[step]
    else:
        information = [flow.information(path, t, s, lengths[f]) for f in scheme.free]
        counts = aim.budget.counts(step, information, scheme.model.cost)
    asked = [
        (target[f], m, Where(scheme.gop, step, f))
        for f, m in zip(scheme.free, counts, strict=True)
    ]  # fmt: skip
    return dict(zip(scheme.free, scheme.coder.choose_all(asked), strict=True))


@choose.register
def _(
    scheme: rcc.Channel, aim: Aim, step: int, t: float, s: float, x0hat: Tensor
) -> rcc.Chunks:  # fmt: skip
    path = flow.PATHS[scheme.header.path]
    scale = math.sqrt(flow.snr(path, s) - flow.snr(path, t))
    mu = scale * (aim.x0 - x0hat)[:, scheme.free]
    return scheme.coder.choose(mu.flatten(), scheme.gop, step)


class Choose:
    """The encoder's noise: symbols chosen towards the aim, written, and replayed; `symbols` keeps
    them."""

    def __init__(self, scheme: Scheme, aim: Aim, stop: int) -> None:
        self.scheme, self.aim, self.stop = scheme, aim, stop
        self.writer, self.symbols = Writer(), list[Any]()

    def __call__(self, step: int, t: float, s: float, x0hat: Tensor) -> Tensor | None:
        if step >= self.stop:
            return None
        before = self.writer.total
        symbols = choose(self.scheme, self.aim, step, t, s, x0hat)
        self.scheme.write(symbols, self.writer)
        self.symbols.append(symbols)
        if self.aim.budget is not None:
            self.aim.budget.spend(self.writer.total - before)
        return self.scheme.replay(symbols, step, x0hat)
