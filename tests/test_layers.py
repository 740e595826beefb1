"""Imports go downwards only, importing the package is cheap, and no file grows too long."""

from __future__ import annotations

import ast
import subprocess
import sys
from pathlib import Path

import pytest

SRC = Path(__file__).parents[1] / "src/gvcc"
# Lowest first. A module may import modules of lower layers only; modules of one layer do not
# import each other.
# fmt: off
LAYERS = [
    {"errors"},
    {"records", "files", "priors.models"},
    {"rng", "gop", "entropy", "draws", "colour", "scenes", "schedules", "eval.metrics",
     "eval.bd", "lossless", "media_structure", "media_time"},
    {"bitstream", "devices", "eval.perceptual", "audio", "media_notices"},
    {"parser", "stillcodecs", "eval.inception", "eval.raft", "audio_out", "media_audio"},
    {"media_out", "flow", "codebook", "rcc", "residual", "stills", "quality", "eval.warp"},
    {"media_clip", "media_source"},
    {"media_stills", "media_stream"},
    {"media", "priors"},
    {"allocation", "priors.spectrum", "priors.autoencoder", "priors.settings", "priors.store"},
    {"rate", "priors.gauss", "priors.transformer", "priors.parts"},
    {"priors.nano", "priors.diffusion", "trajectory"},
    {"priors.wan", "priors.cogvideox"},
    {"session"},
    {"decoder", "aqc", "resume"},
    {"encoder"},
    {"codec"},
    {"describe", "eval.clips", "eval.identity", "eval.temporal", "train.data", "train.loop"},
    {"train.gauss", "train.dataset", "eval.sidebyside", "eval.every", "eval.baselines",
     "eval.plots", "eval.table6"},
    {"eval.external", "eval.report"},
    {"eval.cells", "eval.ab"},
    {"eval.datasets", "eval.worker"},
    {"eval.run", "eval.sweep"},
    {"train.autoencoder", "train.flow"},
    {"train.runs"},
    {"demo", "terminal"},
    {"cli_train", "cli_encode", "cli_priors", "cli_eval"},
    {"cli"},
    {"__main__"},
]
# fmt: on
LEVEL = {name: i for i, layer in enumerate(LAYERS) for name in layer}
BYTES_LAYER = {"errors", "records", "rng", "gop", "bitstream", "parser", "entropy"}


def modules() -> dict[str, Path]:
    """Module name below gvcc -> file; the package's own lazy __init__ is no layer."""
    found = {}
    for path in SRC.rglob("*.py"):
        name = ".".join(path.relative_to(SRC).with_suffix("").parts)
        found[name.removesuffix(".__init__")] = path
    return {n: p for n, p in found.items() if n not in ("__init__", "eval", "train")}


def imports(source: str) -> set[str]:
    """Every module that the source imports, wherever the statement stands."""
    out = set()
    for node in ast.walk(ast.parse(source)):
        if isinstance(node, ast.Import):
            out |= {a.name for a in node.names}
        elif isinstance(node, ast.ImportFrom) and node.module:
            out |= {f"{node.module}.{a.name}" for a in node.names}
    return out


def own(source: str) -> set[str]:
    """The gvcc modules among a source's imports."""
    out = set()
    for name in imports(source):
        parts = name.removeprefix("gvcc.").split(".")
        if name.startswith("gvcc.") and parts[0]:
            for end in (2, 1):
                if ".".join(parts[:end]) in LEVEL:
                    out.add(".".join(parts[:end]))
                    break
    return out


def upward(name: str, source: str) -> set[str]:
    """The imports of module `name` that do not go down."""
    return {o for o in own(source) if o != name and LEVEL[o] >= LEVEL[name]}


def test_every_module_has_a_layer():
    assert set(modules()) == set(LEVEL)


def test_imports_go_down():
    # priors/__init__ loads its table's modules inside functions: that is the table's purpose.
    checked = {n: p.read_text() for n, p in modules().items() if n != "priors"}
    bad = {n: up for n, source in checked.items() if (up := upward(n, source))}
    assert bad == {}


def test_the_check_finds_an_upward_import():
    assert upward("flow", "from gvcc import codec\n") == {"codec"}
    assert upward("gop", "def f():\n    import gvcc.pictures.media\n") == {"media"}
    assert upward("rate", "from gvcc import flow\n") == set()


@pytest.mark.parametrize("name", sorted(BYTES_LAYER))
def test_bytes_layer_knows_no_torch(name):
    names = imports(modules()[name].read_text())
    assert not [n for n in names if n.split(".")[0] in ("torch", "av", "safetensors")]


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
    ("media_out", "(folder / f'{number:05d}.png').write_bytes(_png(pixels))"),
    ("eval.plots", "figure.savefig(out, format=path.suffix[1:], **options)"),
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
        (name, call) for name, path in modules().items() if name != "files"
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


def test_public_names_resolve():
    import gvcc

    for name in gvcc.__all__:
        assert getattr(gvcc, name) is not None
    with pytest.raises(AttributeError):
        gvcc.no_such_name  # noqa: B018


def test_no_file_is_too_long():
    long = {p.name: n for p in SRC.rglob("*.py") if (n := len(p.read_text().splitlines())) > 410}
    assert long == {}
