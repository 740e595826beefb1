"""The restorer of nano on a large GPU that has PyTorch and nothing else, lent for ten minutes.

Here, where the data are (one file of pairs for each time that something is carried there):

    python training/gpu.py pack ../shared/data/train .runs/gpu --begin RESTORER.safetensors

There, any number of times; it goes on where it stopped:

    python training/gpu.py run .runs/gpu --minutes 8

and here again, from the checkpoint that came back, to a weights file:

    python training/gpu.py finish .runs/gpu
"""

from __future__ import annotations

import argparse
import os
import sys
import time
from itertools import count
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parents[1] / "src"))
import torch  # noqa: E402

from gvcc.train import packed, restorer  # noqa: E402
from gvcc.train.loop import Run, load_recipe  # noqa: E402

RECIPE = Path(__file__).parents[1] / "src/gvcc/train/recipes/nano-restorer-gpu.toml"
VGG, HEADS = "vgg16-397923af.pth", "lpips-vgg.pth"
MOST = 64 * 2**20  # bytes that go there at once


def pack(data: Path, out: Path, begin: Path, files: int) -> None:
    """Weights of 16 bit and files of pairs; the first leaves room for the weights."""
    from gvcc.cli.terminal import progress_bar
    from gvcc.metrics import perceptual
    from gvcc.train import pairs, runs
    from gvcc.train.kept import Counts

    out.mkdir(parents=True, exist_ok=True)
    layers = perceptual.tensors(perceptual.find_file("packing", perceptual.TRUNKS["vgg"]))
    taken = {k: v.half() for k, v in layers.items() if k.startswith("features.")}
    torch.save(taken, out / VGG)
    heads = perceptual.find_file("packing", HEADS, "lpips", "weights/v0.1/vgg.pth")
    torch.save(perceptual.tensors(heads), out / HEADS)
    torch.save(runs.state_of(begin, "restorer"), out / "begin.pt")
    room = MOST - sum((out / n).stat().st_size for n in (VGG, HEADS, "begin.pt")) - 2**20
    recipe = load_recipe(RECIPE, restorer.RestorerRecipe)
    with progress_bar("pairs") as progress:
        source = runs.open_data(data, out, out / "cache", recipe, progress)
        made, _ = pairs.pairs(
            source, out / "cache/pairs", Counts(recipe.pairs, 0), recipe.codecs, recipe.seed,
            progress,
        )  # fmt: skip
    for i in range(files):
        used = packed.write(out / f"{i}.pairs", made, room if i == 0 else MOST - 2**20)
        print(f"{out / f'{i}.pairs'}: {used} pairs", file=sys.stderr)
        made = made[used:]


def run(out: Path, minutes: float) -> None:
    """Train until the time is over; the checkpoint is in the folder."""
    begin = time.monotonic()
    os.environ["GVCC_METRICS"] = str(out)
    device = torch.device("cuda" if torch.cuda.is_available() else "cpu")
    torch.backends.cudnn.benchmark = True
    recipe = load_recipe(RECIPE, restorer.RestorerRecipe)
    found = [p for path in sorted(out.glob("*.pairs")) for p in packed.read(path)]
    print(f"{len(found)} pairs in {time.monotonic() - begin:.0f} s, on {device}", file=sys.stderr)
    model = restorer.empty(recipe)
    model.load_state_dict(torch.load(out / "begin.pt", weights_only=True))
    task = restorer.RestorerTask(model, found, (), recipe, device)
    going, steps = Run(task, recipe, out), count(1)

    def told(what: str, step: int, of: int) -> None:
        if next(steps) % 50 == 0:
            print(f"{step}/{of} {time.monotonic() - begin:.0f} s", file=sys.stderr, flush=True)

    going.train(told, lambda: time.monotonic() - begin > 60 * minutes)


def finish(out: Path) -> None:
    """The averaged weights of the checkpoint as out/restorer.safetensors."""
    from gvcc.train import runs

    state = torch.load(out / "checkpoint.pt", map_location="cpu", weights_only=True)["average"]
    recipe = load_recipe(RECIPE, restorer.RestorerRecipe)
    model = restorer.empty(recipe)
    start = "restorer."
    model.load_state_dict({k.removeprefix(start): v for k, v in state.items()
                           if k.startswith(start)})  # fmt: skip
    print(runs.write_restorer(model, out))


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    kinds = parser.add_subparsers(dest="kind", required=True)
    here = kinds.add_parser("pack")
    here.add_argument("data", type=Path)
    here.add_argument("out", type=Path)
    here.add_argument("--begin", type=Path, required=True)
    here.add_argument("--files", type=int, default=1)
    there = kinds.add_parser("run")
    there.add_argument("out", type=Path)
    there.add_argument("--minutes", type=float, default=8)
    kinds.add_parser("finish").add_argument("out", type=Path)
    asked = vars(parser.parse_args())
    {"pack": pack, "run": run, "finish": finish}[asked.pop("kind")](**asked)


if __name__ == "__main__":
    main()
