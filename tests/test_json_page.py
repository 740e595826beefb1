"""docs/json.md names every field that `--json` prints, with its type, and no other."""

from __future__ import annotations

import json
import re
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from fractions import Fraction
from pathlib import Path
from typing import Any, NamedTuple

import huggingface_hub.constants
import numpy as np
import pytest
import tiny_models
import typer
from cli_runner import Run, frames
from test_perceptual import weights  # noqa: F401  (a fixture)

import gvcc
from gvcc import cli
from gvcc.eval import ab, table6
from gvcc.metrics import weights as fetching
from gvcc.pictures import media, stillcodecs
from gvcc.priors import diffusion
from gvcc.records import Audio, Packet, Video

ROOT = Path(__file__).parents[1]
PAGE = (ROOT / "docs/json.md").read_text()
GAUSS = ("--prior", "gauss", "--json")

# -- the page ---------------------------------------------------------------------------------

# A type is one of these words, or ("list", type), ("map", type), ("object", table); several are
# a set.
_WORDS: dict[str, Callable[[Any], bool]] = {
    "int": lambda v: type(v) is int,
    "number": lambda v: type(v) in (int, float),
    "string": lambda v: type(v) is str,
    "bool": lambda v: type(v) is bool,
    "null": lambda v: v is None,
}
Types = frozenset[Any]


class Field(NamedTuple):
    types: Types
    optional: bool
    unit: str
    meaning: str


def types(text: str) -> Types:
    """What a cell of the column `type` allows; ValueError if it is not written as agreed."""
    if text.startswith("(") and text.endswith(")"):
        return types(text[1:-1])
    found = set()
    for one in re.split(r" or (?![^(]*\))", text):
        if one in _WORDS:
            found.add(one)
        elif one.startswith("list of "):
            found.add(("list", types(one.removeprefix("list of "))))
        elif one.startswith("object of "):
            found.add(("map", types(one.removeprefix("object of "))))
        elif link := re.fullmatch(r"object \[(\w+)\]\(#(\w+)\)", one):
            assert link[1] == link[2]
            found.add(("object", link[1]))
        else:
            raise ValueError(f"no type: {one!r}")
    return frozenset(found)


def tables(page: str) -> dict[str, dict[str, Field]]:
    """The fields below each heading that has a table."""
    found: dict[str, dict[str, Field]] = {}
    for part in re.split(r"^##+ ", page, flags=re.M)[1:]:
        name, _, body = part.partition("\n")
        rows = [line.strip("|").split("|") for line in body.splitlines() if line.startswith("|")]
        if not rows:
            continue
        head, rule, *rest = [[cell.strip() for cell in row] for row in rows]
        assert head == ["field", "type", "unit", "meaning"] and rule == ["---"] * 4, name
        assert name not in found, name
        found[name] = {}
        for field, kind, unit, meaning in rest:
            match = re.fullmatch(r"`(\w+)`( \(optional\))?", field)
            assert match and match[1] not in found[name] and unit and meaning, (name, field)
            found[name][match[1]] = Field(types(kind), bool(match[2]), unit, meaning)
    return found


TABLES = tables(PAGE)
OUTPUTS = dict(re.findall(r"^## `gvcc ([\w -]+)`\n\nOutput: (object|list of object)$", PAGE, re.M))


# -- comparing --------------------------------------------------------------------------------


@dataclass
class Check:
    """Compares objects with tables, and those inside them."""

    tables: dict[str, dict[str, Field]]

    def objects(self, name: str, found: list[dict[str, Any]]) -> None:
        """All objects that a table stands for: together they show all that it says."""
        table = self.tables[name]
        assert found and {key for o in found for key in o} == set(table), name
        for key, field in table.items():
            values = [o[key] for o in found if key in o]
            assert (len(values) < len(found)) == field.optional, (name, key)
            self.values(f"{name}: {key}", field.types, values)

    def values(self, what: str, kinds: Types, values: list[Any]) -> None:
        """All values of a field: each is of one of the types, and each type is there."""
        assert values, what
        rest = values
        for kind in kinds:
            of_kind = [v for v in rest if self.fits(kind, v)]
            assert of_kind, f"{what} is never {kind}"
            rest = [v for v in rest if not self.fits(kind, v)]
            if kind[0] == "object":
                self.objects(kind[1], of_kind)
            elif kind[0] == "list":
                self.values(what, kind[1], [v for one in of_kind for v in one])
            elif kind[0] == "map":
                self.values(what, kind[1], [v for one in of_kind for v in one.values()])
        assert not rest, f"{what} is {rest[0]!r}, expected {set(kinds)}"

    @staticmethod
    def fits(kind: Any, value: Any) -> bool:
        if isinstance(kind, str):
            return _WORDS[kind](value)
        return type(value) is (list if kind[0] == "list" else dict)


def check(command: str, outputs: list[Any], page: dict[str, dict[str, Field]] = TABLES) -> None:
    """AssertionError unless a command's section says what is in these outputs of it."""
    if OUTPUTS[command] == "list of object":
        assert all(type(one) is list for one in outputs)
        outputs = [row for one in outputs for row in one]
    Check(page).objects(f"`gvcc {command}`", outputs)


Printed = Callable[..., Any]


@pytest.fixture
def printed(run: Run) -> Printed:
    """What a command prints, which is one line of JSON, and its exit code is as expected."""

    def call(*args: str | Path, code: int = 0) -> Any:
        done = run(*args)
        assert done.code == code, done.err
        assert done.out.isascii() and done.out.endswith(b"\n") and done.out.count(b"\n") == 1
        return json.loads(done.out)

    return call


# -- the commands -----------------------------------------------------------------------------

VECTORS = ROOT / "tests/vectors"
# One with sound, one with settings, one as published, two with stills, one with bases, and a
# damaged one.
INSPECTED = (
    "audio",
    "settings",
    "paper",
    "flf2v",
    "flf2v-empty",
    "v2v-av1-half",
    "nano-v2v",
    "nano-restored",
)
DAMAGED = VECTORS / "faulty/body-checksum.gvcc"


def _with_json(group: Any, prefix: str = "") -> Iterator[str]:
    """The commands that have the option; a group of commands may have it too."""
    for name, command in group.commands.items():
        if any("--json" in p.opts for p in command.params):
            yield prefix + name
        if hasattr(command, "commands"):
            yield from _with_json(command, f"{prefix}{name} ")


def test_the_page_has_every_command() -> None:
    assert set(OUTPUTS) == set(_with_json(typer.main.get_command(cli.app)))
    assert {f"`gvcc {command}`" for command in OUTPUTS} <= set(TABLES)
    linked = set(re.findall(r"\]\(#(\w+)\)", PAGE))
    assert linked == {name for name in TABLES if not name.startswith("`")}
    assert "(docs/json.md)" in (ROOT / "README.md").read_text()


def test_encode(printed: Printed, clip: Path, tmp_path: Path) -> None:
    cut = tmp_path / "cut.y4m"
    cut.write_bytes(clip.read_bytes()[:-9])

    def encode(source: Path, *args: str) -> Any:
        return printed("encode", source, "-y", "-o", tmp_path / "a.gvcc", *GAUSS, *args)

    paper = ("--preset", "paper", "-M", "2", "-K", "64", "--steps", "4", "--gop", "5", "--verify")
    quality = ("--quality", "psnr:24", "--frames", "1", "--mode")
    check("encode", [
        encode(clip), encode(cut), encode(clip, *paper), encode(clip, *quality, "i2v"),
        encode(clip, *quality, "t2v"),
    ])  # fmt: skip


def test_decode(printed: Printed, tmp_path: Path) -> None:
    packets = tuple(Packet(960 * i, 960, bytes([i, 1]) * 960) for i in range(8))
    audio = Audio("pcm_s16le", 24000, "mono", Fraction(1, 24000), b"", packets)
    whole, cut = tmp_path / "a.gvcc", tmp_path / "cut.gvcc"
    config = gvcc.EncodeConfig(prior="gauss", gop=5, atoms=1)
    whole.write_bytes(gvcc.encode(Video(frames(), Fraction(25), audio=audio), config))
    cut.write_bytes(whole.read_bytes()[:-9])
    check("decode", [
        printed("decode", whole, "-o", tmp_path / "a.y4m", "--json"),
        printed("decode", cut, "-o", tmp_path / "b.y4m", "--json", code=1),
    ])  # fmt: skip


def inspected(printed: Printed) -> list[Any]:
    whole = [printed("inspect", VECTORS / f"valid/{name}.gvcc", "--json") for name in INSPECTED]
    return [*whole, printed("inspect", DAMAGED, "--json", code=1)]


def test_inspect(printed: Printed) -> None:
    check("inspect", inspected(printed))
    named = re.findall("`(.*?)`", TABLES["gop"]["still_codecs"].meaning)
    assert named == [*(codec.name for codec in stillcodecs.CODECS), "none", "?"]


@pytest.mark.usefixtures("weights")
def test_compare(printed: Printed, tmp_path: Path) -> None:
    rng = np.random.default_rng(1)
    noise = rng.integers(0, 255, (2, 164, 168, 3), np.uint8)
    for name, pictures in (("moving", noise), ("tiny", noise[:1, :14, :14])):
        media.write(Video(pictures, Fraction(25)), tmp_path / f"{name}.y4m")
    moving, tiny = tmp_path / "moving.y4m", tmp_path / "tiny.y4m"
    check("compare", [
        printed("compare", moving, moving, "--json", "--perceptual"),
        printed("compare", tiny, tiny, "--gvcc", VECTORS / "valid/paper.gvcc", "--json"),
    ])  # fmt: skip


@pytest.mark.slow
def test_priors(printed: Printed, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    name = "wan2.1-t2v-1.3b"
    monkeypatch.setenv("GVCC_CACHE", str(tmp_path / "cache"))
    monkeypatch.setenv("HF_HUB_OFFLINE", "1")
    monkeypatch.setattr(huggingface_hub.constants, "HF_HUB_CACHE", str(tmp_path / "hub"))
    # Measuring it takes longer than all the rest.
    monkeypatch.setattr(diffusion, "sensitivity", lambda _, channels, *more: [2.0] * channels)
    model = tiny_models.make(name, tmp_path)
    check("priors prepare", [printed("priors", "prepare", name, "--weights", model, "--json")])
    check("priors", [printed("priors", "--json")])


def test_ab_report(printed: Printed, tmp_path: Path) -> None:
    key, answers = tmp_path / "key.json", tmp_path / "answers.json"
    trials = {"t": {"clip": "c", "rate": 1, "first": "a", "second": "b"}}
    about = {"format": ab.KEY, "experiment": "e", "pairs": [["a", "b"], ["a", "c"]]}
    key.write_text(json.dumps(about | {"trials": trials}))
    said = {"format": ab.ANSWERS, "experiment": "e", "participant": "p", "started": "2026-01-01"}
    answers.write_text(json.dumps(said | {"answers": [{"trial": "t", "choice": 1}]}))
    check("eval ab-report", [printed("eval", "ab-report", answers, "--key", key, "--json")])


def test_table6(printed: Printed, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "Beauty_1920x1080.yuv").touch()
    monkeypatch.setattr(table6, "read", lambda *_: frames(33))
    check("eval table6", [printed(
        "eval", "table6", "--uvg", tmp_path, "--out", tmp_path / "t.json", "--rows", "8:256",
        "--sequences", "Beauty", "--size", "48x32", "--gops", "1", *GAUSS,
    )])  # fmt: skip


# -- the check itself -------------------------------------------------------------------------


def test_a_page_that_says_something_else_is_found(printed: Printed) -> None:
    outputs = inspected(printed)
    lines = PAGE.splitlines(keepends=True)
    begin, end = (lines.index(f"## `gvcc {name}`\n") for name in ("inspect", "compare"))
    rows = [n for n in range(begin, end) if lines[n].startswith("| `")]
    assert len(rows) > 60
    for n in rows:
        field, kind = (cell.strip() for cell in lines[n].split("|")[1:3])
        optional = field.endswith(")")
        bare = field.split()[0]
        for row in (
            "",
            lines[n] + "| `other` | int | - | there is none |\n",
            lines[n].replace(field, bare if optional else f"{bare} (optional)", 1),
            lines[n].replace(f"| {kind} |", f"| {kind} or null |", 1)
            if "null" not in kind
            else lines[n].replace(f"| {kind} |", "| int |", 1),
            lines[n].replace(f"| {kind} |", "| int |" if kind != "int" else "| string |", 1),
        ):
            changed = tables("".join([*lines[:n], row, *lines[n + 1 :]]))
            with pytest.raises(AssertionError):
                check("inspect", outputs, changed)
    check("inspect", outputs)


@pytest.mark.parametrize("text", ["", "integer", "list", "int, null", "object", "object header"])
def test_a_type_that_is_none_is_refused(text: str) -> None:
    with pytest.raises(ValueError, match="no type"):
        types(text)


def test_types_are_read_as_written() -> None:
    assert types("list of (number or null)") == {("list", frozenset({"number", "null"}))}
    assert types("null or list of number") == {"null", ("list", frozenset({"number"}))}
    assert types("object of string") == {("map", frozenset({"string"}))}
    assert types("object [gop](#gop) or null") == {("object", "gop"), "null"}


def test_eval_weights(printed: Printed, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(fetching, "fetch", lambda _: dict(fetching.EXPECTED))
    check("eval weights", [printed("eval", "weights", "--json")])


def test_eval_adapters(printed: Printed, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("GVCC_DCVC_RT", raising=False)
    monkeypatch.setenv("GVCC_GLC", "/none")
    check("eval adapters", [printed("eval", "adapters", "--json")])
