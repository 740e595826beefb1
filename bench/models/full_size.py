"""Models of the published sizes with random weights -> docs/results/models/full_size.json.

Builds Wan2.1 T2V 1.3B and 14B from their real configurations, at 480p and 720p, 33 frames, and
measures seconds per network call, the codebook's search and replay per step, a whole GOP encoded
and decoded, and peak memory; beside it, on the same machine, the published search written plainly
(K = 16384 atoms, one torch.randn each, on the device, all drawn again at the decoder). Random
weights take as long as real ones, and say nothing of pictures.

Without a GPU everything is reduced (4 blocks, 128x96, 9 frames) and the JSON says so: then only the
ratios between parts that are not the network mean anything.
"""

from __future__ import annotations

import argparse
import json
import os
import sys
import tempfile
import time
from collections.abc import Callable
from fractions import Fraction
from pathlib import Path
from typing import Any

sys.path.insert(0, str(Path(__file__).resolve().parents[2]))

import numpy as np
import torch
from safetensors.torch import save_file

from bench.common import save
from gvcc import codec, priors
from gvcc.decode import session, trajectory
from gvcc.format import parser
from gvcc.records import Video
from gvcc.search.config import EncodeConfig

WAN = dict(
    patch_size=(1, 2, 2), num_attention_heads=12, attention_head_dim=128, in_channels=16,
    out_channels=16, text_dim=4096, freq_dim=256, ffn_dim=8960, num_layers=30,
    cross_attn_norm=True, qk_norm="rms_norm_across_heads", rope_max_seq_len=1024,
)  # fmt: skip
MODELS = {
    "wan2.1-t2v-1.3b": WAN,
    "wan2.1-t2v-14b": WAN | dict(num_attention_heads=40, ffn_dim=13824, num_layers=40),
}
SIZES = {"480p": (480, 832), "720p": (720, 1280)}
REDUCED = dict(num_layers=4, ffn_dim=2048)
K, M, STEPS = 16384, 64, 17


class Clock:
    """Seconds and calls by name, each call waited for."""

    def __init__(self, device: torch.device) -> None:
        self.device, self.spent, self.calls = device, dict[str, float](), dict[str, int]()

    def wait(self) -> None:
        if self.device.type == "cuda":
            torch.cuda.synchronize()

    def around(self, name: str, call: Callable[..., Any]) -> Callable[..., Any]:
        def timed(*args: Any, **more: Any) -> Any:
            self.wait()
            begin = time.perf_counter()
            out = call(*args, **more)
            self.wait()
            self.spent[name] = self.spent.get(name, 0) + time.perf_counter() - begin
            self.calls[name] = self.calls.get(name, 0) + 1
            return out

        return timed

    def take(self) -> dict[str, dict[str, float]]:
        """What was spent since the last time."""
        out = {n: {"s": s, "calls": self.calls[n]} for n, s in self.spent.items()}
        self.spent, self.calls = {}, {}
        return out


def prior_of(name: str, config: dict[str, Any], device: str, folder: Path) -> Any:
    """A Wan prior whose network and autoencoder have random weights. What its folder holds is only
    configurations and a tensor that stands for the weights."""
    from diffusers import AutoencoderKLWan, WanTransformer3DModel

    made = {"transformer": config | {"_class_name": "WanTransformer3DModel"},
            "vae": {"_class_name": "AutoencoderKLWan"}}  # fmt: skip
    for part, said in made.items():
        (folder / part).mkdir(parents=True)
        (folder / part / "config.json").write_text(json.dumps(said))
        save_file({"none": torch.zeros(1)}, folder / part / "model.safetensors")
    (folder / "model_index.json").write_text("{}")
    prior: Any = priors.load(f"{name}:{folder}", device)
    default = torch.get_default_dtype()
    torch.set_default_dtype(torch.bfloat16)
    with torch.device(device):
        net = WanTransformer3DModel(**config).eval().requires_grad_(False)
        torch.set_default_dtype(default)
        vae = AutoencoderKLWan().eval().requires_grad_(False)
    for module in ("rope", "condition_embedder.time_embedder"):  # as from_pretrained keeps them
        net.get_submodule(module).float()
    prior._networks["transformer"] = net
    prior.__dict__ |= {
        "vae": vae, "text": torch.zeros(1, 512, config["text_dim"], device=device).bfloat16(),
        "sensitivities": [1.0] * 16,
    }  # fmt: skip
    return prior


def published_search(dim: int, device: str) -> dict[str, float]:
    """Seconds of one frame-step as published, drawn atom by atom: at the encoder all K, chosen and
    then drawn again to be summed; at the decoder up to the largest index."""
    target = torch.randn(dim, device=device)
    count = K if device != "cpu" else 256  # the rest by proportion

    def draw(upto: int, keep: set[int]) -> tuple[torch.Tensor, torch.Tensor]:
        generator = torch.Generator(device).manual_seed(1)
        corr, total = torch.empty(upto, device=device), torch.zeros(dim, device=device)
        for i in range(upto):
            z = torch.randn(dim, generator=generator, device=device)
            if keep:
                total += z if i in keep else 0
            else:
                corr[i] = z @ target
        return corr, total

    clock = Clock(torch.device(device))
    corr = clock.around("choose", draw)(count, set())[0]
    best = corr.abs().topk(min(M, count)).indices.sort().values.tolist()
    clock.around("replay", draw)(best[-1] + 1, set(best))
    spent = {n: v["s"] * K / count for n, v in clock.take().items()}
    return {"encoder_s": spent["choose"] + spent["replay"], "decoder_s": spent["replay"]}


def whole(prior: Any, height: int, width: int, frames: int, bpp: float) -> dict[str, Any]:
    """One GOP encoded and decoded: seconds of each part, peak memory."""
    clock = Clock(prior.device)
    rng = np.random.default_rng(0)
    small = rng.integers(0, 256, (frames, height // 16, width // 16, 3), np.uint8)
    video = Video(small.repeat(16, 1).repeat(16, 2), Fraction(16))
    net = prior._networks["transformer"]
    net.forward, plain = clock.around("network", net.forward), net.forward
    made = trajectory.make_coder

    def coder(*args: Any) -> Any:
        out = made(*args)
        for part in ("choose", "replay"):
            setattr(out, part, clock.around(part, getattr(out, part)))
        return out

    session.make_coder = coder
    report: dict[str, Any] = {}
    if prior.device.type == "cuda":
        torch.cuda.reset_peak_memory_stats()
    config = EncodeConfig(prior=prior.spec.id, bpp=bpp, gop=33, audio=False)
    data = codec.encode(video, config, prior).data  # also warms up
    clock.take()
    for name, call in (
        ("encode", lambda: codec.encode(video, config, prior)),
        ("decode", lambda: codec.decode(data, prior)),
    ):
        begin = time.perf_counter()
        call()
        clock.wait()
        seconds, spent = time.perf_counter() - begin, clock.take()
        book = sum(spent.get(n, {"s": 0})["s"] for n in ("choose", "replay"))
        report[name] = {
            "s": round(seconds, 3), "network_calls": spent["network"]["calls"],
            "s_per_call": round(spent["network"]["s"] / spent["network"]["calls"], 4),
            "codebook_s": round(book, 4), "codebook_share": round(book / seconds, 4),
            "frame_steps": spent["replay"]["calls"],
        }  # fmt: skip
    net.forward, session.make_coder = plain, made
    if prior.device.type == "cuda":
        report["peak_gb"] = round(torch.cuda.max_memory_allocated() / 1e9, 2)
    stream = parser.parse(data)
    c, _, h, w = session.Session(stream.header, prior).shape(stream.gops[0].gop)
    report |= {"bytes": len(data), "values_of_a_latent_frame": c * h * w}
    return report


def compared(old: dict[str, float], row: dict[str, Any], frame_steps: int) -> dict[str, float]:
    """The published search of a whole GOP, and its time over ours."""
    out = {f"frame_step_{n}": s for n, s in old.items()}
    for side, part in (("encoder", "encode"), ("decoder", "decode")):
        out[f"gop_{side}_s"] = frame_steps * old[f"{side}_s"]
        out[f"over_ours_{side}"] = out[f"gop_{side}_s"] / row[part]["codebook_s"]
    return out


def main() -> None:
    ask = argparse.ArgumentParser(description=__doc__)
    ask.add_argument("--device", default="cuda" if torch.cuda.is_available() else "cpu")
    ask.add_argument("--models", nargs="*", default=list(MODELS), choices=MODELS)
    ask.add_argument("--sizes", nargs="*", default=list(SIZES), choices=SIZES)
    ask.add_argument("--out", type=Path, help="a JSON file, instead of docs/results")
    args = ask.parse_args()
    small = args.device == "cpu"
    rows = []
    os.environ["GVCC_CACHE"] = tempfile.mkdtemp()
    for name in args.models[:1] if small else args.models:
        config = MODELS[name] | (REDUCED if small else {})
        with tempfile.TemporaryDirectory() as folder:
            prior = prior_of(name, config, args.device, Path(folder) / "m")
            for size in args.sizes[:1] if small else args.sizes:
                height, width = (96, 128) if small else SIZES[size]
                row = {"model": name, "size": f"{width}x{height}"}
                row["parameters"] = sum(
                    p.numel() for p in prior._networks["transformer"].parameters()
                )
                row |= whole(prior, height, width, 9 if small else 33, 0.05 if small else 0.01)
                old = published_search(row["values_of_a_latent_frame"], args.device)
                row["published_search"] = compared(old, row, STEPS * (3 if small else 9))
                rows.append(row)
                print(row, file=sys.stderr, flush=True)
        del prior
        if not small:
            torch.cuda.empty_cache()
    result = {
        "reduced": small, "device": torch.cuda.get_device_name() if not small else "CPU",
        "torch": torch.__version__, "rows": rows,
    }  # fmt: skip
    if args.out:
        args.out.write_text(json.dumps(result, indent=1) + "\n")
    else:
        save("models/full_size", result)


if __name__ == "__main__":
    main()
