"""Write the pages of docs/results from the JSON files beside them, and the table of drift in
docs/format.md; no number there is typed.

    python bench/summary.py        seconds; --out FOLDER writes the pages, and only these, elsewhere
"""

from __future__ import annotations

import argparse
import sys
from pathlib import Path
from types import ModuleType

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

import bench.anchors.page
import bench.codebooks.page
import bench.models.page
import bench.priors.page
import bench.systems.page
from bench.pages import RESULTS

TOPICS: dict[str, ModuleType] = {
    "anchors": bench.anchors.page,
    "systems": bench.systems.page,
    "codebooks": bench.codebooks.page,
    "priors": bench.priors.page,
    "models": bench.models.page,
}
SCRIPTS = "bench/README.md"


def first_page() -> str:
    """Where we stand, and where to find the rest."""
    topics = [f"- [{t.TITLE}]({n}/README.md). {t.decided()}" for n, t in TOPICS.items()]
    return "\n\n".join([
        "# Where we stand",
        bench.anchors.page.standing(),
        "## What was measured, and what it decided",
        "\n".join(topics),
        f"Which script decides what, and how long it takes: [{SCRIPTS}](../../{SCRIPTS}). "
        "bench/summary.py writes these pages.",
    ])  # fmt: skip


def topic_page(name: str) -> str:
    """All sections of a topic; a bench that was not run yet has none."""
    topic, measured = TOPICS[name], {p.stem for p in (RESULTS / name).glob("*.json")}
    sections = [section() for section, needs in topic.SECTIONS.items() if needs <= measured]
    return "\n\n".join([
        f"# {topic.TITLE}",
        f"{topic.decided()} [Where we stand](../README.md); [scripts](../../../{SCRIPTS}).",
        *filter(None, sections),
    ])  # fmt: skip


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--out", type=Path, default=RESULTS)
    folder = parser.parse_args().out
    pages = {"README.md": first_page()}
    pages |= {f"{name}/README.md": topic_page(name) for name in TOPICS}
    for name, text in pages.items():
        path = folder / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text + "\n")
    if folder == RESULTS:
        bench.models.page.fill_format()


if __name__ == "__main__":
    main()
