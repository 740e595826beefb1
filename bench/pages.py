"""What the scripts that write pages share: results by name, and Markdown tables."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

ROOT = Path(__file__).resolve().parents[1]
RESULTS = ROOT / "docs/results"


def load(name: str) -> dict[str, Any]:
    """docs/results/<name>.json"""
    out: dict[str, Any] = json.loads((RESULTS / f"{name}.json").read_text())
    return out


def table(head: list[str], rows: list[list[Any]]) -> str:
    """A Markdown table; floats with three digits after the point."""
    cells = [[f"{v:.3f}" if isinstance(v, float) else str(v) for v in row] for row in rows]
    lines = [head, ["---"] * len(head), *cells]
    return "\n".join("| " + " | ".join(line) + " |" for line in lines)
