"""docs/papers.md names files that there are, and says of every element what became of it."""

from __future__ import annotations

import re
from pathlib import Path

ROOT = Path(__file__).parents[1]


def rows() -> list[list[str]]:
    lines = (ROOT / "docs/papers.md").read_text().splitlines()
    found = [[c.strip() for c in line.strip("|").split(" | ")] for line in lines if line[:1] == "|"]
    return [r for r in found if r[0] != "element" and not set(r[0]) <= {"-"}]


def test_every_file_is_there() -> None:
    for element, *_, files in rows():
        for name in files.replace("\\", "").split(", "):
            path = ROOT / "src/gvcc" / name
            assert name == "-" or path.exists(), f"{element}: {name}"


def test_every_element_has_its_four_columns() -> None:
    found = rows()
    assert len(found) > 40 and all(len(r) == 4 and all(r) for r in found)
    assert not [r for r in found if re.search("missing|todo", " ".join(r), re.IGNORECASE)]


def test_what_is_said_to_be_an_option_is_one() -> None:
    text = (ROOT / "docs/papers.md").read_text()
    known = "".join(p.read_text() for p in (ROOT / "tests/goldens").glob("help-*.txt"))
    for option in set(re.findall(r"`(--[a-z-]+)", text)):
        assert option in known, option
