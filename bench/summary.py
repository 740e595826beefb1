"""Write docs/results/README.md from the JSON files beside it; no number on that page is typed."""

from __future__ import annotations

import argparse
import json
from pathlib import Path
from typing import Any

RESULTS = Path(__file__).resolve().parents[1] / "docs/results"


def load(name: str) -> dict[str, Any]:
    return json.loads((RESULTS / f"{name}.json").read_text())


def table(head: list[str], rows: list[list[Any]]) -> str:
    """A Markdown table; floats with three digits after the point."""
    cells = [[f"{v:.3f}" if isinstance(v, float) else str(v) for v in row] for row in rows]
    lines = [head, ["---"] * len(head), *cells]
    return "\n".join("| " + " | ".join(line) + " |" for line in lines)


def clips() -> str:
    d = load("eval_clips")
    keys = ("width", "height", "frames", "bytes", "bits_per_pixel", "psnr_db", "verified",
            "encode_s", "decode_s")  # fmt: skip
    rows = [[c["clip"], *(c[k] for k in keys)] for c in d["clips"]]
    return (
        f"## Clips at their own size\n\n`gvcc encode --bpp {d['bpp']}`, prior {d['prior']}, "
        f"preset {d['preset']}; sizes are of the real file, PSNR (RGB) of the decoded mp4. Times: "
        "on two cores shared with other work (bench/eval_clips.py).\n\n"
        + table(["clip", *keys], rows)
    )


def codebooks() -> str:
    d = load("codebook")
    keys = ("bits", "efficiency", "efficiency_stderr", "choose_s", "replay_s")
    rows = [
        [r["codebook"], r["D"], r.get("K", "= P"), r["M"], *(r[k] for k in keys),
         r.get("efficiency_as_published", "")]
        for r in d["rows"]
    ]  # fmt: skip
    return (
        "## Codebooks\n\nBits an ideal Gaussian channel needs for the same steering, over the bits "
        "written (bench/codebook.py).\n\n"
        + table(["codebook", "D", "K", "M", *keys, "efficiency, bits as published"], rows)
    )


def gaussian() -> str:
    d = load("gaussian_rd")
    rows = [[k.replace("_", " "), v] for k, v in d["at_mse"].items()]
    return (
        f"## Gaussian source\n\nD = {d['D']}, variances proportional to {d['spectrum']}, exact "
        f"denoiser, {d['calls']} network calls, at MSE {d['mse']} (bench/gaussian_rd.py). `paper` "
        'here writes subset ranks; "as published" counts M (log2 K + 1) bits a step.\n\n'
        + table(["quantity", "value"], rows)
        + "\n\n![curves](gaussian_rd.png)"
    )


def metric() -> str:
    d = load("steering_metric")
    keys = ("prior", "metric", "bpp", "bytes", "psnr_db", "ms_ssim")
    gains = ", ".join(f"{g:+.2f} dB at {b} bit/pixel" for b, g in d["gain_on_whitened_db"].items())
    return (
        f"## Steering metric\n\n{len(d['clips'])} evaluation clips, {d['frames']} frames, "
        f"{d['height']} px height, equal file sizes. A number p stands for W = sd^p. Best on the "
        f"whitened variant: {gains} (bench/steering_metric.py).\n\n"
        + table(list(keys), [[r[k] for k in keys] for r in d["rows"]])
    )


def autoencoder() -> str:
    d = load("gauss_autoencoder")
    keys = [k for k in d["mean"]]
    rows = [[c["clip"], *(c[k] for k in keys)] for c in d["clips"]]
    rows.append(["mean", *(d["mean"][k] for k in keys)])
    return (
        f"## Autoencoder of `gauss`\n\n{d['frames']} frames, {d['height']} px height, PSNR (RGB), "
        "in dB. The bound columns are Karhunen-Loeve bases fitted to the very clip: no linear "
        "block basis of so many channels can do better there (bench/autoencoder.py).\n\n"
        + table(["clip", *(k.removesuffix("_db").replace("_", " ") for k in keys)], rows)
    )


parser = argparse.ArgumentParser(description=__doc__)
parser.add_argument("--out", type=Path, default=RESULTS / "README.md")
parts = ["# Results", clips(), gaussian(), codebooks(), metric(), autoencoder()]
parser.parse_args().out.write_text("\n\n".join(parts) + "\n")
