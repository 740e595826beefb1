"""The training loop that the autoencoder and the flow model share.

A run lives in a folder: recipe.toml (what was asked), manifest.csv (what it saw), checkpoint.pt
(everything needed to go on), curve.csv and curve.png. Every random number of step i comes from
(seed, i), so a run that was killed goes on as if nothing had happened.
"""

from __future__ import annotations

import csv
import io
import math
import tomllib
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field, fields
from importlib.util import find_spec
from pathlib import Path
from typing import Any, Protocol, TypeVar

import torch
from torch import Tensor, nn

from gvcc import files
from gvcc.errors import ConfigError, TrainingError

Progress = Callable[[str, int, int], None]


@dataclass(frozen=True)
class Recipe:
    """What every run needs. Rates follow a trapezoid: `warmup` steps up, constant, and down to
    zero over the last `cooldown` share of the `steps`.

    `lr` is that of the matrices (Muon, scaled to AdamW's update size), `adam_lr` that of all
    other parameters. `ema` is the decay of the averaged weights. `bf16` runs the networks in
    bfloat16. `weights` and `pictures` as in Dataset.
    """

    steps: int
    batch: int
    seed: int = 1
    lr: float = 2e-3
    adam_lr: float = 2e-3
    weight_decay: float = 0.01
    warmup: int = 50
    cooldown: float = 0.4
    ema: float = 0.998
    clip: float = 1.0
    validate_every: int = 250
    checkpoint_every: int = 100
    bf16: bool = False
    pictures: float = 0.2
    weights: dict[str, float] = field(default_factory=dict)


R = TypeVar("R", bound=Recipe)


def load_recipe(path: Path, kind: type[R]) -> R:
    """The recipe in a TOML file; ConfigError for a file, key or value that does not fit."""
    try:
        table = tomllib.loads(path.read_text())
    except OSError as e:
        raise ConfigError(f"{path}: {e.strerror}") from e
    except (tomllib.TOMLDecodeError, UnicodeDecodeError) as e:
        raise ConfigError(f"{path}: not a TOML file: {e}") from e
    known = {f.name for f in fields(kind)}
    for key in table:
        if key not in known:
            raise ConfigError(f"{path}: unknown key {key!r}; known: {', '.join(sorted(known))}")
    try:
        recipe = kind(**table)
    except TypeError as e:
        raise ConfigError(f"{path}: {e}") from e
    for name in ("steps", "batch", "validate_every", "checkpoint_every"):
        if not isinstance(getattr(recipe, name), int) or getattr(recipe, name) < 1:
            raise ConfigError(f"{path}: {name} is {getattr(recipe, name)!r}, expected 1 or more")
    return recipe


class Task(Protocol):
    """What is trained: `model`, and two functions of it."""

    @property
    def model(self) -> nn.Module:
        """The network whose parameters are trained."""
        ...

    def loss(self, step: int) -> Tensor:
        """The loss of training step `step`; its random numbers follow from the step."""
        ...

    def validate(self) -> dict[str, float]:
        """Named numbers for the curve, measured on fixed samples with the averaged weights."""
        ...


def rate(recipe: Recipe, step: int) -> float:
    """The learning rate's factor at a step, in [0,1]."""
    left = (recipe.steps - step) / max(1.0, recipe.cooldown * recipe.steps)
    return max(0.0, min(1.0, (step + 1) / max(1, recipe.warmup), left))


def optimisers(model: nn.Module, recipe: Recipe) -> list[torch.optim.Optimizer]:
    """Muon (Jordan et al. 2024) for the matrices inside, AdamW for everything else."""
    if not hasattr(torch.optim, "Muon"):
        raise ConfigError(f"training needs torch 2.9 or newer, here is {torch.__version__}")
    inside = [
        m.weight
        for name, m in model.named_modules()
        # Not the first and last layers, nor those behind the time embedding.
        if isinstance(m, nn.Linear) and not name.startswith(("enter", "to_"))
    ]
    chosen = set(map(id, inside))
    other = [p for p in model.parameters() if id(p) not in chosen]
    decay = recipe.weight_decay
    adam = torch.optim.AdamW(other, lr=recipe.adam_lr, betas=(0.9, 0.98), weight_decay=0.0)
    if not inside:
        return [adam]
    muon = torch.optim.Muon(
        inside, lr=recipe.lr, weight_decay=decay, adjust_lr_fn="match_rms_adamw"
    )
    return [muon, adam]


class Run:
    """A training run in folder `out`; it resumes from the checkpoint there if there is one."""

    def __init__(self, task: Task, recipe: Recipe, out: Path) -> None:
        self.task, self.recipe, self.out = task, recipe, out
        self.optimisers = optimisers(task.model, recipe)
        self.average = {k: v.detach().clone() for k, v in task.model.state_dict().items()}
        self.step = 0
        self.curve: list[dict[str, float]] = []
        self._losses: list[float] = []  # since the last row of the curve
        self.checkpoint = out / "checkpoint.pt"
        if self.checkpoint.exists():
            self._resume()

    def train(
        self, progress: Progress | None = None, over: Callable[[], bool] = lambda: False
    ) -> dict[str, Tensor]:
        """Train to the recipe's last step, or until it is `over` (then a checkpoint is left);
        returns the averaged weights.

        Raises TrainingError, naming the checkpoint to go on from, if the loss or its gradient is
        not finite.
        """
        recipe, model = self.recipe, self.task.model
        while self.step < recipe.steps:
            for optimiser in self.optimisers:
                peak = recipe.lr if isinstance(optimiser, torch.optim.Muon) else recipe.adam_lr
                for group in optimiser.param_groups:
                    group["lr"] = peak * rate(recipe, self.step)
            loss = self.task.loss(self.step)
            self._check("loss", value := loss.item())
            loss.backward()  # type: ignore[no-untyped-call]
            norm = nn.utils.clip_grad_norm_(model.parameters(), recipe.clip)
            self._check("gradient's norm", norm.item())
            for optimiser in self.optimisers:
                optimiser.step()
                optimiser.zero_grad(set_to_none=True)
            self.step += 1
            self._losses.append(value)
            decay = min(recipe.ema, (1 + self.step) / (10 + self.step))
            with torch.no_grad():
                for k, v in model.state_dict().items():
                    self.average[k].lerp_(v, 1 - decay)
            if progress is not None:
                progress("train", self.step, recipe.steps)
            last = self.step == recipe.steps
            if self.step % recipe.validate_every == 0 or last:
                row = {"step": float(self.step), "loss": sum(self._losses) / len(self._losses)}
                self.curve.append(row | self._validate())
                self._losses = []
                self._write_curve()
            stopped = over()
            if self.step % recipe.checkpoint_every == 0 or last or stopped:
                self._save()
            if stopped:
                break
        return self.average

    def _check(self, what: str, value: float) -> None:
        if not math.isfinite(value):
            raise TrainingError(
                f"the {what} of step {self.step} is {value}; the last good state is in "
                f"{self.checkpoint}: lower lr or adam_lr in {self.out / 'recipe.toml'}"
            )

    def _validate(self) -> dict[str, float]:
        """Validate with the averaged weights in place."""
        now = {k: v.clone() for k, v in self.task.model.state_dict().items()}
        self.task.model.load_state_dict(self.average)
        self.task.model.eval()
        try:
            with torch.no_grad():
                return self.task.validate()
        finally:
            self.task.model.load_state_dict(now)
            self.task.model.train()

    def _save(self) -> None:
        self.out.mkdir(parents=True, exist_ok=True)
        state = {
            "step": self.step,
            "model": self.task.model.state_dict(),
            "average": self.average,
            "optimisers": [o.state_dict() for o in self.optimisers],
            "curve": self.curve,
            "losses": self._losses,
        }
        with files.replacing(self.checkpoint) as file:
            torch.save(state, file)

    def _resume(self) -> None:
        expected = f"{self.checkpoint}: expected a checkpoint of this model"
        try:
            # To the CPU first: the run may have begun on another device than it goes on on.
            state: Mapping[str, Any] = torch.load(
                self.checkpoint, map_location="cpu", weights_only=True
            )
            self.task.model.load_state_dict(state["model"])
            for o, s in zip(self.optimisers, state["optimisers"], strict=True):
                o.load_state_dict(s)
            self.average = {k: v.to(self.average[k].device) for k, v in state["average"].items()}
            self.step, self.curve = state["step"], list(state["curve"])
            self._losses = list(state["losses"])
        except Exception as e:  # torch.load raises whatever the damage makes it raise
            raise ConfigError(f"{expected}: {e}") from e

    def _write_curve(self) -> None:
        """curve.csv, and curve.png with one panel per column."""
        text = io.StringIO()
        writer = csv.DictWriter(text, list(self.curve[-1]), restval="", extrasaction="ignore")
        writer.writeheader()
        writer.writerows(self.curve)
        files.write(self.out / "curve.csv", text.getvalue().encode())
        if find_spec("matplotlib"):
            plot_curve(self.curve, self.out / "curve.png")


def plot_curve(curve: list[dict[str, float]], path: Path) -> None:
    """Every column of a curve against the step, one panel each."""
    from matplotlib.figure import Figure

    names = [n for n in curve[-1] if n != "step"]
    figure = Figure(figsize=(3.2 * len(names), 2.8), layout="constrained")
    for axes, name in zip(figure.subplots(1, len(names), squeeze=False)[0], names, strict=True):
        rows = [r for r in curve if name in r]
        axes.plot([r["step"] for r in rows], [r[name] for r in rows])
        axes.set(title=name, xlabel="step")
        axes.grid(alpha=0.3)
    out = io.BytesIO()
    figure.savefig(out, format="png", dpi=110)
    files.write(path, out.getvalue())
