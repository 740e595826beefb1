"""Do the stochastic steps keep the law of the ODE? -> docs/results/systems/marginals.json.

    python bench/systems/marginals.py

docs/theory.md has the derivation. Three checks of the rules of flow.noisy_step, T steps of which
the last three are ODE, as in preset paper:

- one known picture, so that the denoiser is exact: the noise that is left after the coded steps,
  over t of the time they end at. 1 is right; closed form, by recursion;
- a Gaussian source with its exact denoiser: variance of the result over the source's;
- prior nano: latents [32,2,8,8] from pure noise by the ODE and by each rule: mean square of x step
  by step, and a two-sample test of the results (energy distance of each sample's means and log
  variances by channel, 999 permutations).
"""

from __future__ import annotations

import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

sys.path.insert(0, str(Path(__file__).resolve().parents[2]))

from bench.common import save
from gvcc import flow, priors
from gvcc.priors import References

RF, TAIL, T = flow.PATHS["rf"], 3, 20
SAMPLES, SHAPE, PERMUTATIONS = 48, (32, 2, 8, 8), 999
RULES = [("em", g) for g in (1.0, 2.0, 3.0, 5.0, 8.0)] + [("ou", 3.0), ("posterior", 0.0)]


def left_over(rule: str, g: float, steps: int, shift: float) -> float:
    """Deviation of the noise after the coded steps over what it should be, one picture."""
    times, var = flow.schedule(steps, shift), 1.0
    for t, s in zip(times, times[1 : steps - TAIL + 1], strict=False):
        step = flow.noisy_step(rule, RF, t, s, g)
        var = step.a**2 * var + step.c**2
    return float(var**0.5 / times[steps - TAIL])


def of_gaussian(rule: str | None, g: float, steps: int, shift: float, v: float) -> float:
    """Variance of the result over v, that of the source; rule None: the ODE."""
    times, var = flow.schedule(steps, shift), 1.0
    for i, (t, s) in enumerate(zip(times, times[1:], strict=False)):
        gain = (1 - t) * v / ((1 - t) ** 2 * v + t**2)
        noisy = rule is not None and i < steps - TAIL
        step = flow.noisy_step(rule, RF, t, s, g) if noisy else flow.ode_step(RF, t, s, 1.0)  # type: ignore[arg-type]
        var = (step.a + step.b * gain) ** 2 * var + step.c**2
    return var / v


def generated(rule: str | None, g: float, seed: int) -> tuple[NDArray[np.float64], list[float]]:
    """Features of latents that nano makes of pure noise [samples, 64], and the mean square of x
    after each step."""
    prior = priors.load("nano")
    denoise: Callable[[Tensor, float], Tensor] = prior.condition(References(), SHAPE[1]).denoise
    times, out = flow.schedule(T, 3.0), []
    power = np.zeros(T)
    for n in range(SAMPLES):
        noise = torch.Generator().manual_seed(1000 * seed + n)

        def draw(i: int, t: float, s: float, h: Tensor, noise: torch.Generator = noise) -> Any:
            stays = rule is None or i >= T - TAIL
            return None if stays else torch.randn(h.shape, generator=noise)

        def seen(i: int, x: Tensor) -> None:
            power[i] += float(x.square().mean()) / SAMPLES

        x = torch.randn(SHAPE, generator=noise)
        x = flow.sample(denoise, x, times, draw, rule=rule or "posterior", path=RF, g_scale=g,
                        observe=seen)  # fmt: skip
        flat = x.flatten(1).double()
        out.append(torch.cat([flat.mean(1), flat.var(1).log()]).numpy())
    return np.stack(out), power.tolist()


def same_law(a: NDArray[np.float64], b: NDArray[np.float64]) -> float:
    """p of the energy distance between two samples of features, by permutation."""
    both = np.concatenate([a, b])
    both = (both - both.mean(0)) / both.std(0)
    apart = np.sqrt(np.square(both[:, None] - both[None]).sum(-1))
    n, rng = len(a), np.random.default_rng(1)

    def energy(order: NDArray[np.int64]) -> float:
        d = apart[order][:, order]
        return float(2 * d[:n, n:].mean() - d[:n, :n].mean() - d[n:, n:].mean())

    own = energy(np.arange(len(both)))
    others = [energy(rng.permutation(len(both))) for _ in range(PERMUTATIONS)]
    return (1 + sum(o >= own for o in others)) / (1 + PERMUTATIONS)


def main() -> None:
    out: dict[str, Any] = {"steps": T, "tail": TAIL, "samples": SAMPLES, "shape": SHAPE}
    out["left_over"] = [
        {"rule": rule, "g": g, "steps": n, "shift": shift,
         "ratio": left_over(rule, g, n, shift)}
        for rule, g in RULES for n, shift in ((20, 3.0), (20, 5.0), (40, 5.0), (80, 5.0))
    ]  # fmt: skip
    out["gaussian"] = [
        {"rule": rule or "ode", "g": g, "steps": n, "v": v,
         "ratio": of_gaussian(rule, g, n, 3.0, v)}
        for rule, g in [(None, 0.0), *RULES] for n in (20, 80) for v in (0.01, 1.0)
    ]  # fmt: skip
    torch.set_grad_enabled(False)
    own, power = generated(None, 0.0, 1)
    out["nano"] = [{"rule": "ode", "g": 0.0, "power": power,
                    "p": same_law(own, generated(None, 0.0, 2)[0])}]  # fmt: skip
    for rule, g in (("posterior", 0.0), ("ou", 3.0), ("em", 3.0), ("em", 5.0)):
        other, power = generated(rule, g, 3)
        out["nano"].append({"rule": rule, "g": g, "power": power, "p": same_law(own, other)})
        print(out["nano"][-1], file=sys.stderr)
    save("systems/marginals", out)


if __name__ == "__main__":
    main()
