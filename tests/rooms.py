"""Who imports whom: the rooms of src/gvcc (files and folders directly in it), lowest first.

python tests/rooms.py      counts the pairs of importing and imported room, and lists them
"""

from __future__ import annotations

import ast
from pathlib import Path

SRC = Path(__file__).parents[1] / "src/gvcc"
ROOMS = (
    "errors", "records", "files", "flow",
    "format",  # what the bytes mean
    "pictures", "metrics", "priors",
    "decode", "decoder",  # what a decoder needs
    "search", "encoder",  # what only an encoder does
    "codec",
    "train", "eval", "cli", "__main__",
)  # fmt: skip


def modules() -> dict[str, Path]:
    """Name below gvcc -> file; the package's own lazy __init__ is in no room."""
    found = {}
    for path in SRC.rglob("*.py"):
        name = ".".join(path.relative_to(SRC).with_suffix("").parts)
        found[name.removesuffix(".__init__")] = path
    del found["__init__"]
    return found


def imports(source: str) -> set[str]:
    """Every module that the source imports, wherever the statement stands."""
    out = set()
    for node in ast.walk(ast.parse(source)):
        if isinstance(node, ast.Import):
            out |= {a.name for a in node.names}
        elif isinstance(node, ast.ImportFrom) and node.module:
            out |= {f"{node.module}.{a.name}" for a in node.names}
    return out


def own(source: str, known: dict[str, Path]) -> set[str]:
    """The gvcc modules among a source's imports, by their names below gvcc."""
    out = set()
    for name in imports(source):
        parts = name.split(".")
        if parts[0] == "gvcc":
            ends = (".".join(parts[1:end]) for end in range(len(parts), 1, -1))
            out |= {next((e for e in ends if e in known), parts[1] if len(parts) > 1 else "")}
    return out - {""}


def pairs() -> set[tuple[str, str]]:
    """(importing room, imported room), without a room's imports of its own modules."""
    known = modules()
    found = {
        (name.split(".")[0], other.split(".")[0])
        for name, path in known.items() for other in own(path.read_text(), known)
    }  # fmt: skip
    return {(a, b) for a, b in found if a != b}


if __name__ == "__main__":
    print(len(pairs()), "pairs of rooms")
    for room in ROOMS:
        print(f"{room}:", *sorted(b for a, b in pairs() if a == room))
