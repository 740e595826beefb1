"""What the command line says, word for word: a change of it is seen in the diff."""

from __future__ import annotations

from pathlib import Path

import cli_goldens
import pytest
from cli_runner import Run


def test_what_the_command_line_says(
    run: Run, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """After a change that is meant: python tests/cli_goldens.py."""
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    monkeypatch.chdir(tmp_path)
    cli_goldens.prepare(tmp_path)

    def say(args: list[str]) -> tuple[str, int]:
        done = run(*args)
        return done.out.decode() + done.err, done.code

    found = cli_goldens.goldens(tmp_path, say)
    kept = {p.name: p.read_text() for p in cli_goldens.ROOT.iterdir()}
    assert set(found) == set(kept)
    assert {n: t for n, t in found.items() if t != kept[n]} == {}
