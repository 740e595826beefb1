"""Weights of the restorer between those of two runs, with louder or fainter texture.

    python training/mix.py A.safetensors B.safetensors SHARE LOUDER OUT.safetensors

SHARE is B's. LOUDER is added to what the network says of the noise's shares, before softplus.
"""

from __future__ import annotations

import sys
from pathlib import Path

from gvcc.priors import nano
from gvcc.priors.restorer import BANDS


def mix(first: Path, second: Path, share: float, louder: float, out: Path) -> None:
    """Write the mean of two files of one network."""
    config, a, _ = nano.unpack(first.read_bytes(), str(first))
    other, b, _ = nano.unpack(second.read_bytes(), str(second))
    if config != other:
        raise SystemExit(f"{first} and {second} are of different networks")
    mixed = {k: a[k].float().lerp(b[k].float(), share) for k in a}
    mixed["restorer.exit.bias"][-len(BANDS) :] += louder
    out.write_bytes(nano.pack(config, mixed))


if __name__ == "__main__":
    one, two, part, more, path = sys.argv[1:]
    mix(Path(one), Path(two), float(part), float(more), Path(path))
