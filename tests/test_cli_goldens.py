"""What the command line says, word for word: a change of it is seen in the diff."""

from __future__ import annotations

from pathlib import Path

import cli_goldens


def test_what_the_command_line_says(tmp_path: Path) -> None:
    """After a change that is meant: python tests/cli_goldens.py."""
    found = cli_goldens.goldens(tmp_path)
    kept = {p.name: p.read_text() for p in cli_goldens.ROOT.iterdir()}
    assert set(found) == set(kept)
    assert {n: t for n, t in found.items() if t != kept[n]} == {}
