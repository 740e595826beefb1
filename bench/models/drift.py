"""What a decoder on another set-up makes of a file -> docs/results/models/drift.json.

A file is encoded here and decoded in processes with another number of threads, with other
instruction sets (which stand for another machine), with another attention kernel and with other
number formats. `check` is what the file's drift check reports (RMS of the latents' difference, in
their own scale), `pictures_db` the PSNR of the pictures against the encoder's own, and `loss_db`
what the source loses by it in PSNR. The Wan model is a small one (8 blocks, width 192) with random
weights, so its rows show that drift is found and how it is named, not how large it is with real
weights; nano's are real.
"""

from __future__ import annotations

import json
import os
import subprocess
import sys
import tempfile
from pathlib import Path
from typing import Any

sys.path.insert(0, str(Path(__file__).resolve().parents[2]))

import numpy as np
import torch

from bench.common import clip, save
from gvcc import codec, priors
from gvcc.metrics import metrics
from gvcc.search.config import EncodeConfig

OLD = {"ATEN_CPU_CAPABILITY": "default", "DNNL_MAX_CPU_ISA": "SSE41",
       "MKL_CBWR": "COMPATIBLE"}  # fmt: skip
AVX2 = {"ATEN_CPU_CAPABILITY": "avx2", "DNNL_MAX_CPU_ISA": "AVX2", "MKL_CBWR": "AVX2,STRICT"}
ONE = {"OMP_NUM_THREADS": "1"}
CASES: dict[str, dict[str, tuple[dict[str, str], dict[str, str]]]] = {
    "nano": {
        "the same set-up, another process": ({}, {}), "1 thread": (ONE, {}),
        "3 threads": ({"OMP_NUM_THREADS": "3"}, {}), "AVX2 only": (AVX2, {}),
        "no vector instructions beyond SSE4.1": (OLD, {}),
    },
    "wan": {
        "the same set-up, another process": ({}, {}), "1 thread": (ONE, {}),
        "AVX2 only": (AVX2, {}), "attention _native_math": ({}, {"attention": "_native_math"}),
        "bf16 instead of fp32": ({}, {"dtype": "bf16"}),
        "bf16, timesteps rounded as published": ({}, {"dtype": "bf16", "timesteps": "bf16"}),
    },
}  # fmt: skip
DECODE = """
import json, sys, numpy
from gvcc import codec, priors
file, name, settings, out = sys.argv[1:]
found = []
prior = priors.load(name, settings=json.loads(settings))
shown = codec.decode(open(file, "rb").read(), prior, progress=lambda e: found.append(e.drift))
numpy.save(out, shown.frames)
print(max(d for d in found if d is not None))
"""
FP32 = {"dtype": "fp32"}


def small_wan(folder: Path) -> str:
    """A folder with a Wan model of random weights, as a prior's name."""
    from diffusers import AutoencoderKLWan, WanTransformer3DModel
    from safetensors.torch import save_file

    torch.manual_seed(1)
    WanTransformer3DModel(
        num_attention_heads=4, attention_head_dim=48, text_dim=64, ffn_dim=512, num_layers=8,
    ).save_pretrained(folder / "transformer")  # fmt: skip
    AutoencoderKLWan(base_dim=16, num_res_blocks=1).save_pretrained(folder / "vae")
    (folder / "model_index.json").write_text("{}")
    # A prompt's embedding in the cache stands for the text encoder.
    from gvcc.priors import parts

    rows = {"rows": torch.zeros(1, 64)}
    for dtype in ("fp32", "bf16"):
        import hashlib

        key = f"{parts.text_identity(folder)} UMT5EncoderModel 512 {dtype} "
        at = Path(os.environ["GVCC_CACHE"]) / "prompts"
        at.mkdir(parents=True, exist_ok=True)
        name = hashlib.sha256(key.encode()).hexdigest()
        save_file({n: r.to(parts.DTYPES[dtype]) for n, r in rows.items()},
                  at / f"{name}.safetensors")  # fmt: skip
    return f"wan2.1-t2v-1.3b:{folder}"


def main() -> None:
    rows: list[dict[str, Any]] = []
    with tempfile.TemporaryDirectory() as work:
        os.environ["GVCC_CACHE"] = f"{work}/cache"
        for kind, cases in CASES.items():
            name = "nano" if kind == "nano" else small_wan(Path(work) / "wan")
            given = {} if kind == "nano" else FP32
            prior = priors.load(name, settings=given)
            video = clip("davis_dog", 17, 128 if kind == "nano" else 64)
            config = EncodeConfig(prior=prior.spec.id, mode="t2v", bpp=0.1, gop=17, audio=False)
            made = codec.encode(video, config, prior)
            file = Path(work) / f"{kind}.gvcc"
            file.write_bytes(made.data)
            for case, (env, settings) in cases.items():
                out = Path(work) / "shown.npy"
                run = subprocess.run(
                    [sys.executable, "-c", DECODE, str(file), name, json.dumps(given | settings),
                     str(out)],
                    env=os.environ | env, capture_output=True, text=True, check=True,
                )  # fmt: skip
                shown = np.load(out)
                rows.append({
                    "prior": kind, "case": case, "check": float(run.stdout.split()[-1]),
                    "equal": bool((shown == made.frames).all()),
                    "pictures_db": metrics.psnr(made.frames, shown),
                    "loss_db": metrics.psnr(video.frames, made.frames)
                    - metrics.psnr(video.frames, shown),
                })  # fmt: skip
                print(rows[-1], file=sys.stderr, flush=True)
    save("models/drift", {"clip": "davis_dog", "frames": 17, "bpp": 0.1, "heights": {"nano": 128,
                   "wan": 64}, "rows": rows})  # fmt: skip


if __name__ == "__main__":
    main()
