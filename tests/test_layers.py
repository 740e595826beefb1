"""Imports go downwards only, importing the package is cheap, and no file grows too long."""

from __future__ import annotations

import ast
import graphlib
import re
import subprocess
import sys

import pytest
import rooms

MOST_PAIRS = 95
LONGEST = 400  # lines of a file


def upward(name: str, source: str) -> set[str]:
    """The imports of module `name` that go up, or to another room of the same height."""
    known = rooms.modules()
    room = name.split(".")[0]
    return {
        o for o in rooms.own(source, known)
        if (other := o.split(".")[0]) != room
        and rooms.ROOMS.index(other) >= rooms.ROOMS.index(room)
    }  # fmt: skip


def test_every_module_is_in_a_room():
    assert {name.split(".")[0] for name in rooms.modules()} == set(rooms.ROOMS)


def test_imports_go_down():
    bad = {n: up for n, p in rooms.modules().items() if (up := upward(n, p.read_text()))}
    assert bad == {} and len(rooms.pairs()) <= MOST_PAIRS


def test_no_circle_inside_a_room():
    # priors/__init__ loads its table's modules inside functions: that is the table's purpose.
    known = rooms.modules()
    below = {n: rooms.own(p.read_text(), known) - {n} for n, p in known.items() if n != "priors"}
    order = list(graphlib.TopologicalSorter(below).static_order())
    assert set(order) == set(known)


def test_the_check_finds_an_upward_import():
    assert upward("flow", "from gvcc import codec\n") == {"codec"}
    assert upward("decode.rcc", "def f():\n    import gvcc.search.pacer\n") == {"search.pacer"}
    assert upward("decoder", "from gvcc.search import config\n") == {"search.config"}
    assert upward("search.pacer", "from gvcc.eval.metrics import x\n") == {"eval"}
    assert upward("search.pacer", "from gvcc import flow\nfrom gvcc.search import plan\n") == set()


def test_the_bytes_know_no_torch():
    for name, path in rooms.modules().items():
        if name.split(".")[0] in ("errors", "records", "files", "format"):
            names = {n.split(".")[0] for n in rooms.imports(path.read_text())}
            assert not names & {"torch", "av", "safetensors"}, name


def test_import_is_cheap():
    """Nothing beside the standard library is loaded, and of the package its errors alone."""
    code = (
        "import sys; before = set(sys.modules); import gvcc; new = set(sys.modules) - before\n"
        "print(*(m for m in new if m.split('.')[0] not in sys.stdlib_module_names))"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, check=True, text=True)
    assert set(done.stdout.split()) == {"gvcc", "gvcc.errors"}


# Calls that write a file bit by bit, under its own name.
IN_PLACE = {"write_text", "write_bytes", "savefig", "rename"}
# Files that nobody but the writer reads, and those that get their name once they are whole.
SCRATCH = {
    ("eval.external", "self._path('source.yuv').write_bytes(raw)"),
    ("eval.external", "self._path(f'coded{at}').write_bytes(stream)"),
    ("pictures.media_out", "(folder / f'{number:05d}.png').write_bytes(_png(pixels))"),
    ("eval.plots", "figure.savefig(out, format=path.suffix[1:], **options)"),
    ("cli", "open(1, 'w', closefd=False)"),  # where there is no stdout
    ("train.loop", "figure.savefig(out, format='png', dpi=110)"),
}


def in_place(source: str) -> set[str]:
    """The calls in a source that may write a file in place."""
    out = set()
    for node in ast.walk(ast.parse(source)):
        if not isinstance(node, ast.Call):
            continue
        f = node.func
        name = f.attr if isinstance(f, ast.Attribute) else getattr(f, "id", "")
        text = [a.value for a in node.args if isinstance(a, ast.Constant)]
        text += [k.value.value for k in node.keywords if isinstance(k.value, ast.Constant)]
        modes = [t for t in text if isinstance(t, str) and set(t) <= set("rwaxbt+")]
        opens = name == "open" and any(set("wax+") & set(mode) for mode in modes)
        # PyAV writes into the file object that it is given.
        if (opens and not ast.unparse(f).startswith("av.")) or name in IN_PLACE:
            out.add(ast.unparse(node))
    return out


def test_results_are_written_whole():
    """Whoever is stopped while writing leaves the file as it was: gvcc.files sees to it."""
    found = {
        (name, call) for name, path in rooms.modules().items() if name != "files"
        for call in in_place(path.read_text())
    }  # fmt: skip
    assert found == SCRATCH


@pytest.mark.parametrize("line", [
    "path.write_text(x)", "path.write_bytes(x)", "open(path, 'w')", "path.open('wb')",
    "path.open(mode='a')", "figure.savefig(path)",
])  # fmt: skip
def test_the_check_finds_what_writes_in_place(line):
    assert len(in_place(line)) == 1
    assert in_place("files.write(path, b'w')\npath.open('rb')\npath.open()\n") == set()


def test_a_room_takes_no_public_name():
    code = (
        "import gvcc, importlib, sys\n"
        "for name in sys.argv[1:]: importlib.import_module('gvcc.' + name)\n"
        "from gvcc import decode; assert callable(gvcc.decode) and decode is gvcc.decode"
    )
    names = [n for n in rooms.modules() if n.split(".")[0] in ("decode", "search", "format")]
    subprocess.run([sys.executable, "-c", code, *names], check=True)


def test_the_design_names_every_room_and_walks_through_what_there_is():
    page = (rooms.SRC.parents[1] / "docs/design.md").read_text()
    table, walks = page.split("## The rooms")[1].split("## A walk of one encode")
    named = {name for cell in re.findall(r"^\| ([a-z_, /]+) \|", table, re.M)
             for name in re.split(r"[, /]+", cell) if name}  # fmt: skip
    assert named - {"room"} == set(rooms.ROOMS) - {"__main__"}
    files = {str(p.relative_to(rooms.SRC)): p.read_text() for p in rooms.modules().values()}
    steps = re.findall(r"`([a-z_/]*\w+\.py): ([\w.]+)`", walks.split("## Decisions")[0])
    assert len(steps) > 25
    for file, name in steps:
        text = next(t for n, t in files.items() if n.endswith(file))
        for word in name.split("."):
            assert re.search(rf"\b(def|class) {word}\b", text), (file, name)


def test_public_names_resolve():
    import gvcc

    for name in gvcc.__all__:
        assert getattr(gvcc, name) is not None
    with pytest.raises(AttributeError):
        gvcc.no_such_name  # noqa: B018


def test_no_file_is_too_long():
    sizes = {p.name: len(p.read_text().splitlines()) for p in rooms.SRC.rglob("*.py")}
    long = {name: n for name, n in sizes.items() if n > LONGEST}
    assert long == {}
