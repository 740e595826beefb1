"""The same codec with several seeds: how far what was measured depends on the seed."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from gvcc.errors import ConfigError

_SHOWN = {"psnr_rgb_db": ("PSNR", 2), "ms_ssim": ("MS-SSIM", 4), "vmaf_neg": ("VMAF NEG", 2),
          "lpips_alex": ("LPIPS", 4), "dists": ("DISTS", 4)}  # fmt: skip


def expand(codecs: Sequence[str], count: int) -> tuple[str, ...]:
    """The codecs, those of ours once for each of the seeds 1 to `count`; ConfigError where one says
    its own."""
    out = []
    for name in codecs:
        if not name.startswith("gvcc:"):
            out.append(name)
            continue
        if "+seed=" in name:
            raise ConfigError(f"{name} has a seed of its own: leave it out, or the seeds")
        out += [f"{name}+seed={i}" for i in range(1, count + 1)]
    return tuple(out)


def _base(name: str) -> str:
    return "+".join(o for o in name.split("+") if not o.startswith("seed="))


def notes(codec: str, found: Mapping[str, Sequence[Mapping[str, Any]]]) -> list[str]:
    """What a report says of a codec that was measured with several seeds: for each rate the mean
    over clips and seeds and the standard deviation over seeds of the mean over clips."""
    alike = [name for name in found if _base(name) == _base(codec)]
    if len(alike) < 2 or codec != alike[0]:
        return []
    out = []
    for rate in dict.fromkeys(c["rate"] for c in found[codec]):
        said = []
        for metric, (label, digits) in _SHOWN.items():
            means = [
                [c["metrics"][metric] for c in found[name]
                 if c["rate"] == rate and c.get("metrics", {}).get(metric) is not None]
                for name in alike
            ]  # fmt: skip
            if all(means) and len({len(m) for m in means}) == 1:
                of = [float(np.mean(m)) for m in means]
                spread = float(np.std(of, ddof=1))
                said.append(f"{label} {np.mean(of):.{digits}f} \u00b1 {spread:.{digits}f}")
        if said:
            out.append(f"{len(alike)} seeds, {rate:g} bits per pixel: {', '.join(said)} "
                       "(mean, standard deviation over seeds)")  # fmt: skip
    return out
