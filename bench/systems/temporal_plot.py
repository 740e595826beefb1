"""The change from frame to frame in the three modes -> docs/results/systems/temporal.png, from
modes.json (GVCC's Fig. 3), at 0.05 bits per pixel; GOP boundaries are marked."""

from __future__ import annotations

import json
import sys
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parents[2]))

import matplotlib

from bench.common import CLIPS, RESULTS

matplotlib.use("Agg")
import matplotlib.pyplot as plt  # noqa: E402


def main() -> None:
    cells = json.loads((RESULTS / "systems/modes.json").read_text())["cells"]
    figure, axes = plt.subplots(len(CLIPS), 1, figsize=(9, 2.2 * len(CLIPS)))
    for ax, name in zip(axes, CLIPS, strict=True):
        rows = [r for r in cells if r["clip"] == name and r["target_bpp"] == 0.05]
        ax.plot(range(1, rows[0]["frames"]), rows[0]["source_profile"], "k:", label="source")
        for r in rows:
            if r["mode"] != "auto":
                (line,) = ax.plot(range(1, r["frames"]), r["decoded_profile"], label=r["mode"])
                for b in r["boundaries"]:
                    ax.plot(b, r["decoded_profile"][b - 1], "o", color=line.get_color(), ms=4)
        ax.set(title=name, ylabel="grey levels", ylim=(0, None))
    axes[0].legend(ncol=4, fontsize=8)
    axes[-1].set_xlabel("frame; dots: first frame of a GOP. Mean absolute difference to the frame "
                        "before, prior nano, 0.05 bpp, 176 px height")  # fmt: skip
    figure.tight_layout()
    figure.savefig(RESULTS / "systems/temporal.png", dpi=80)


if __name__ == "__main__":
    main()
