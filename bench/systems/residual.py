"""The tail residual against the published one -> docs/results/systems/residual.json.

Five evaluation clips, 33 frames, 256 px height, prior nano. What the decoder has, x_final, is the
latent noised to t = 0.3 or 0.5 and denoised once. The tail is the last latent frame (four
pictures).

- `published`: per channel max |R|, 8 bits uniform, zlib level 9; bytes are zlib's plus a float16
  per channel.
- `plain`, `refined`: the smallest size of ours at which the last picture's PSNR (RGB) is at most
  TOLERANCE dB below that of `published` (to 1 %); without and with `refine`, which moves the target
  but costs no bits. `ratio` is of bytes; `mean4` the mean PSNR of the tail's four pictures.
- `curve`: bytes -> PSNR of the last picture, mean of the four, error of the latent.
- `transform`: latent error of the same coder, at the same sizes, on the residual itself, on its
  DCT over the frame, and on its 8x8 DCT (a plane for each frequency).
"""

from __future__ import annotations

import sys
import time
from pathlib import Path
from typing import Any

sys.path.insert(0, str(Path(__file__).resolve().parents[2]))

import numpy as np
import torch
from torch import Tensor
from torch.nn.functional import pad

from bench.common import CLIPS, clip, published, save
from gvcc.decode import residual
from gvcc.priors import nano
from gvcc.priors.spectrum import dct

TOLERANCE = 0.005
SIZES = (200, 500, 1000, 2000, 5000, 10000, 20000)
torch.set_num_threads(1)
prior = nano.load()


def smooth_decode(z: Tensor) -> Tensor:
    """nano's decoder in floats and with gradients."""
    out: Tensor = prior.autoencoder.decode(z.permute(1, 2, 3, 0)[None])[0]
    return out


def blocks(r: Tensor) -> Tensor:
    """8x8 DCT of r [C,1,h,w], repeated at the borders: [64 C,1,h/8,w/8], channel by channel."""
    _, _, h, w = r.shape
    x = pad(r, (0, -w % 8, 0, -h % 8), mode="replicate")
    c, _, h, w = x.shape
    y = dct(x.reshape(c, h // 8, 8, w // 8, 8), (2, 4))
    out: Tensor = y.permute(0, 2, 4, 1, 3).reshape(64 * c, 1, h // 8, w // 8)
    return out


def case(name: str, t: float) -> dict[str, Any]:
    frames = torch.from_numpy(clip(name).frames)
    x0 = prior.encode(frames)
    eps = torch.randn(x0.shape, generator=torch.Generator().manual_seed(0))
    final = prior.denoise((1 - t) * x0 + t * eps, t)
    base, last = final[:, -1:], frames[-4:].float()

    def quality(r: Tensor) -> tuple[float, float]:
        """PSNR of the last picture, and mean PSNR of the tail's."""
        out = prior.decode(torch.cat([final[:, :-1], base + r], 1))[-4:].float()
        db = 10 * torch.log10(255**2 / (out - last).pow(2).mean((1, 2, 3)))
        return db[-1].item(), db.mean().item()

    def smallest(target: Tensor, db: float) -> dict[str, Any]:
        low, high = 100, 2 * target.numel()
        found: dict[str, Any] = {"bytes": None}
        while high > 1.01 * low:
            data, r = residual.encode(target, round((low * high) ** 0.5))
            now = quality(r)
            if now[0] >= db:
                high = len(data)
                found = {"bytes": high, "last": now[0], "mean4": now[1]}
            else:
                low = round((low * high) ** 0.5)
        return found

    plain = x0[:, -1:] - base
    start = time.perf_counter()
    refined = residual.refine(smooth_decode, final[:, -3:], x0[:, -1:], frames[-4:]) - base
    seconds = time.perf_counter() - start
    size, r = published(plain)
    db = quality(r)
    row: dict[str, Any] = {"clip": name, "t": t, "values": plain.numel(), "x_final": quality(0 * r)}
    row["published"] = {"bytes": size, "last": db[0], "mean4": db[1]}
    row["target"] = {"plain": quality(plain), "refined": quality(refined)}
    for way, target in (("plain", plain), ("refined", refined)):
        row[way] = smallest(target, db[0] - TOLERANCE)
        row[way]["ratio"] = row[way]["bytes"] / size if row[way]["bytes"] else None
        row[f"curve {way}"] = [
            {"bytes": len(data), "last": q[0], "mean4": q[1], "latent": (r - plain).pow(2).mean()}
            for data, r in (residual.encode(target, n) for n in SIZES)
            for q in [quality(r)]
        ]
        for point in row[f"curve {way}"]:
            point["latent"] = point["latent"].item()
    ways = {"none": plain, "frame DCT": dct(plain, (2, 3)), "8x8 DCT": blocks(plain)}
    row["transform"] = {
        way: [(residual.encode(x, n)[1] - x).pow(2).sum().item() / plain.numel() for n in SIZES]
        for way, x in ways.items()
    }
    start = time.perf_counter()
    data, _ = residual.encode(refined, 5000)
    middle = time.perf_counter()
    shape = (len(plain), 1, *plain.shape[2:])
    residual.decode(data, (shape[0], shape[1], shape[2], shape[3]))
    row["seconds"] = {
        "refine": seconds, "encode": middle - start, "decode": time.perf_counter() - middle
    }  # fmt: skip
    return row


rows = []
for name in CLIPS:
    for t in (0.3, 0.5):
        rows.append(case(name, t))
        keys = ("clip", "t", "published", "plain", "refined", "seconds")
        print({k: rows[-1][k] for k in keys}, flush=True)


def mean(values: list[Any]) -> float:
    return float(np.mean(values))


summary: dict[str, Any] = {
    way: {
        "mean ratio": mean([r[way]["ratio"] for r in rows]),
        "largest ratio": max(r[way]["ratio"] for r in rows),
        "bits per value": mean([8 * r[way]["bytes"] / r["values"] for r in rows]),
    }
    for way in ("plain", "refined")
}
summary["published bits per value"] = mean(
    [8 * r["published"]["bytes"] / r["values"] for r in rows]
)
summary["dB gained by refine at equal bytes"] = {
    n: {
        k: mean([r["curve refined"][i][k] - r["curve plain"][i][k] for r in rows])
        for k in ("last", "mean4")
    }
    for i, n in enumerate(SIZES)
}
summary["latent error over that without transform"] = {
    way: [mean([r["transform"][way][i] / r["transform"]["none"][i] for r in rows])
          for i in range(len(SIZES))]
    for way in ("frame DCT", "8x8 DCT")
}  # fmt: skip
save(
    "systems/residual",
    {
        "weights": prior.spec.digest.hex(),
        "tolerance_db": TOLERANCE,
        "sizes": SIZES,
        "summary": summary,
        "rows": rows,
    },
)
