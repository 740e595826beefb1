"""The weights of nano's restorer as they ship, from the two runs that made them.

    python training/join.py REALISM.safetensors FIDELITY.safetensors \\
        src/gvcc/priors/weights/restorer.safetensors
"""

from __future__ import annotations

import sys
from pathlib import Path

from gvcc.priors import nano, restorers
from gvcc.priors.restorer import BANDS
from gvcc.train import runs

# Added to what realism says of the noise's shares, before softplus: LPIPS by VGG-16 asks for less
# noise than the measures that judge (training/README.md).
LOUDER = 0.45


def join(realism: Path, fidelity: Path, out: Path) -> None:
    """Write both sets of weights to one file; ConfigError if they are of different networks."""
    config, tensors = {}, {}
    for name, path in (("realism", realism), ("fidelity", fidelity)):
        config[name] = nano.unpack(path.read_bytes(), str(path))[0]["restorer"]
        tensors |= {f"{name}.{k}": v for k, v in runs.state_of(path, "restorer").items()}
    tensors["realism.exit.bias"][-len(BANDS) :] += LOUDER
    out.write_bytes(nano.pack(config, tensors))
    restorers.load(f"nano:{out}", 1.5)


if __name__ == "__main__":
    join(*map(Path, sys.argv[1:4]))
