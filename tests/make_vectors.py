"""Writes tests/vectors anew; run by hand, on purpose, from anywhere:

python tests/make_vectors.py              all of them
python tests/make_vectors.py nano         only these valid ones (after refitting a shipped prior)
python tests/make_vectors.py schedules    section 14 of docs/format.md, the valid ones that have a
                                          schedule, and the faulty ones
"""

from __future__ import annotations

import dataclasses
import hashlib
import json
import shutil
import sys
import textwrap
import zlib
from collections.abc import Callable
from fractions import Fraction
from functools import partial
from typing import Any

import faulty_bases
import faulty_settings
import faulty_trajectories
import faulty_vectors
import numpy as np
import tiny_prior
from faulty_vectors import ROOT, SHORT
from PIL import Image
from valid_vectors import PRESETS, VALID

from gvcc import codec, errors, priors
from gvcc.decode import rcc, residual, trajectory
from gvcc.decode.session import Left, Session
from gvcc.format import parser, schedules, texture
from gvcc.format.base import BaseRecord
from gvcc.format.bitstream import GopRecord, Header, Stream
from gvcc.format.levels import shape as levels_shape
from gvcc.pictures import basecodecs, basesets, stills
from gvcc.pictures.media import Video
from gvcc.search import config as conf
from gvcc.search import pacer as pacing
from gvcc.search import plan as planning

RMS, PEAK = 0.5, 4  # grey levels by which another machine's pictures may differ
LOADERS: dict[str, Callable[[], Any]] = {
    "tiny": tiny_prior.load,
    "tiny-vp": lambda: tiny_prior.load("vp"),
    "tiny-settings": tiny_prior.with_settings,
    "gauss": lambda: priors.load("gauss"),
    "nano": lambda: priors.load("nano"),
}
FORMAT = ROOT.parents[1] / "docs" / "format.md"


def clip(frames: int, height: int, width: int) -> np.ndarray:
    """Waves that drift, in colour."""
    t, y, x, c = np.mgrid[:frames, :height, :width, :3]
    wave = np.sin(x / 5 + t / 4 + c) + np.cos(y / 7 - t / 6 + 2 * c)
    return (128 + 55 * wave).astype(np.uint8)


YOUNGER = {
    "schedule": 0,
    "alignment": "fade",
    "context": 1,
    "reuse": 1,
    "settings": [],
    "pixel_aspect": "1",
    "base": False,
    "plain_residual": False,
    "outside": False,
    "bases": False,
    "variances": [],
    "restorer": None,
}  # fields, and what they are in old files


def plain(value: Any) -> Any:
    """Dataclasses, bytes and fractions as JSON knows them."""
    if dataclasses.is_dataclass(value):
        fields = {f.name: plain(getattr(value, f.name)) for f in dataclasses.fields(value)}
        return {
            SHORT.get(n, n): v for n, v in fields.items() if n not in YOUNGER or v != YOUNGER[n]
        }
    if isinstance(value, (list, tuple)):
        return [plain(v) for v in value]
    return value.hex() if isinstance(value, bytes) else str(value) if isinstance(value, Fraction) \
        else value  # fmt: skip


def coded(stream: Stream, prior: Any) -> list[list[Any]]:
    """By gvcc's own reader, for each GOP and step: of each latent frame the atoms as (index,
    minus); with rcc the chunks as [c, numbers]."""
    h, out = stream.header, []
    session, before = Session(h, prior), Left()
    for i, r in enumerate(stream.gops):
        if r.base is not None and r.base.over is None:
            out.append([])
            before = Left(np.zeros((1, h.height, h.width, 3), np.uint8))
            continue
        # There are pictures; which, is all one.
        pictures = np.zeros((r.gop.context, h.height, h.width, 3), np.uint8)
        shape = session.shape(r.gop)
        given = session.given(r.gop, r.stills, before._replace(pictures=pictures), r.base)
        before = session.after(r.gop, given, pictures)
        known = session.condition(r.gop, given).known
        free = trajectory.free_of(known, shape[1])
        noise = trajectory.Read(session.coder(), h, i, r, shape, free)
        steps = noise.stop if free else 0
        out.append([plain_symbols(noise.symbols(j), shape[1]) for j in range(steps)])
    return out


def plain_symbols(symbols: Any, frames: int) -> list[Any]:
    """A step's symbols, as `coded` gives them."""
    if isinstance(symbols, rcc.Chunks):
        return [symbols.c, symbols.numbers.tolist()]
    part = [symbols.get(f, np.zeros(0, np.int64)) for f in range(frames)]
    return [[(int(s) >> 1, int(s) & 1) for s in one] for one in part]


def sizes(step: list[Any]) -> list[int]:
    """How many atoms each latent frame of a step has; with rcc its c and number of chunks."""
    return [f if isinstance(f, int) else len(f) for f in step]


def levels(stream: Stream, prior: Any) -> list[list[Any] | None]:
    """Step index (of a plain one the largest values) and quantised values of each GOP's residual,
    flattened; None without one."""
    out: list[list[Any] | None] = []
    for r in stream.gops:
        if not r.residual:
            out.append(None)
            continue
        c, _, h, w = Session(stream.header, prior).shape(r.gop)
        if stream.header.plain_residual:
            most = np.frombuffer(r.residual[: 4 * c], "<f4")
            out.append([most.tolist(), list(zlib.decompress(r.residual[4 * c :]))])
            continue
        index = int.from_bytes(r.residual[:2], "little")
        values = residual.decode(r.residual, (c, 1, h, w)) / 2.0 ** (index / 4096 - 8)
        out.append([index, values.round().int().ravel().tolist()])
    return out


def digest(atoms: Any) -> str:
    return hashlib.sha256(json.dumps(atoms, separators=(",", ":")).encode()).hexdigest()


def expectation(data: bytes, prior: Any) -> dict[str, Any]:
    """What the JSON beside a valid vector says, but for the tolerance."""
    stream = parser.parse(data)
    gops = [
        {"gop": plain(r.gop), "stop": r.stop, "atoms": r.atoms, "tail_atoms": r.tail_atoms,
         "check": list(r.check), "stills": [len(x) for x in r.stills],
         "counts": [sizes(step) for step in atoms], "sha256": digest(atoms),
         "residual": None if level is None else digest(level)}
        | ({"part": r.fraction} if r.fraction else {})
        | ({"base": base_of(r.base)} if r.base else {})
        | ({"texture": texture_of(stream.header, r)} if r.base and r.base.restored else {})
        for r, atoms, level in zip(
            stream.gops, coded(stream, prior), levels(stream, prior), strict=True)
    ]  # fmt: skip
    return {"header": plain(stream.header), "gops": gops, "audio": plain(stream.audio)}


def base_of(base: BaseRecord) -> dict[str, Any]:
    """What a JSON says of a base."""
    found = dataclasses.asdict(base) | {"stream": hashlib.sha256(base.stream).hexdigest()}
    del found["texture"]  # which has a line of its own
    return {k: v for k, v in plain(found).items() if v is not None and v is not False}


def texture_of(header: Header, record: GopRecord) -> list[Any]:
    """Levels [map][row][column] of a base's lost texture."""
    assert record.base is not None
    shape = levels_shape(record.gop.frames, header.height, header.width)
    found: list[Any] = texture.read(record.base.texture, shape).tolist()
    return found


def compact(d: dict[str, Any]) -> str:
    """JSON with a line for each key, and for each GOP."""
    lines = []
    for key, value in d.items():
        if key == "gops":
            value = ",\n  ".join(map(json.dumps, value))
            lines.append(f' "gops": [\n  {value}\n ]')
        else:
            lines.append(f" {json.dumps(key)}: {json.dumps(value)}")
    return "{\n" + ",\n".join(lines) + "\n}"


def write_valid(name: str) -> None:
    text, prior_name, size, settings, fields = VALID[name]
    prior = LOADERS[prior_name]()
    settings = dict(settings)
    codec_name, cut = settings.pop("still_codec", None), settings.pop("cut", None)
    plan, own_sets = settings.pop("plan", None), settings.pop("own_sets", False)
    depth, basecodecs.DEPTH = basecodecs.DEPTH, settings.pop("depth", basecodecs.DEPTH)
    pictures = clip(*size)
    if cut is not None:
        pictures[cut:] = 255 - clip(*size)[cut:, ::-1]
    video = Video(pictures, **({"fps": Fraction(25)} | fields))
    conf.PRESETS.update(PRESETS)
    config = conf.EncodeConfig(cuts=cut is not None, **settings)
    whole, stills.encode = stills.encode, partial(stills.encode, codec=codec_name)
    planner, numbers = planning.plan, (basesets.av1_number, basesets.vvc_number)
    if own_sets:  # as of an encoder that nobody knows
        basesets.av1_number = basesets.vvc_number = lambda *_: None
    if plan is not None:  # what no mode makes, but a reader must read
        planning.plan = lambda *_, **__: plan
    share, pacing.RESIDUAL_SHARE = (
        pacing.RESIDUAL_SHARE,
        0.3,
    )  # pictures this small want it for nothing
    try:
        if config.size == 0:  # as small as can be
            try:
                codec.encode(video, dataclasses.replace(config, size=1), prior)
            except errors.TargetUnreachable as e:
                config = dataclasses.replace(config, size=e.smallest)
        made = codec.encode(video, config, prior)
    finally:
        stills.encode, pacing.RESIDUAL_SHARE, planning.plan = whole, share, planner
        basesets.av1_number, basesets.vvc_number = numbers
        basecodecs.DEPTH = depth
    expected = {"covers": text, "prior": prior_name, "rms": RMS, "peak": PEAK}
    path = ROOT / "valid" / f"{name}.gvcc"
    path.write_bytes(made.data)
    lines = compact(expected | expectation(made.data, prior))
    path.with_suffix(".json").write_text(lines + "\n")
    Image.fromarray(made.frames.reshape(-1, size[2], 3)).save(path.with_suffix(".png"))


def faulty() -> dict[str, tuple[str, str, bytes]]:
    """All faulty vectors: what each lies about, the error, the bytes."""
    made = faulty_vectors.faulty() | faulty_trajectories.faulty() | faulty_settings.faulty()
    return made | faulty_bases.faulty()


def write_faulty() -> None:
    for name, (_, _, data) in faulty().items():
        (ROOT / "faulty" / f"{name}.gvcc").write_bytes(data)


def write_list() -> None:
    """README.md; the tests read it, and demand that it and the folders agree."""
    lines = [
        "# Vectors", "", "Written by `tests/make_vectors.py`, this list too.", "",
        "## valid", "",
        "Beside each: what a decoder must find in it (`.json`: header, layouts, counts, SHA-256 of",
        "atoms and residual, tolerance of the pictures in grey levels) and its frames, one below",
        "the other (`.png`). The prior `tiny` is in `tests/tiny_prior.py`.", "",
        "| file | covers |", "|---|---|",
        *(f"| `{name}.gvcc` | {v[0]} |" for name, v in VALID.items()),
        "", "## faulty", "",
        "| file | lies about | error |", "|---|---|---|",
        *(f"| `{name}.gvcc` | {text} | {error} |" for name, (text, error, _) in faulty().items()),
    ]  # fmt: skip
    (ROOT / "README.md").write_text("\n".join(lines) + "\n")


def schedule_section() -> str:
    """The tables at the end of docs/format.md."""
    out = ""
    for number, table in enumerate(schedules.SCHEDULES, start=1):
        lines = textwrap.wrap(", ".join(map(str, table)), 92)
        out += f"\nSchedule {number}, {len(table)} steps:\n\n"
        out += "".join(f"    {line}\n" for line in lines)
    return out


def write_schedules() -> None:
    whole, title, section = FORMAT.read_text().partition("\n## 14. Schedules\n")
    text = section.partition("\nSchedule 1,")[0].rstrip("\n")
    after = "".join(section.partition("\n## 15. ")[1:])
    FORMAT.write_text(whole + title + text + "\n" + schedule_section() + after)


def scheduled(name: str) -> bool:
    """Whether a valid vector has a schedule."""
    fields = VALID[name][3]
    return any(fields.get(n) == v for n, v in (("preset", "free-gvc"), ("coder", "rcc"))) or (
        "quality" in fields
    )


def main(names: list[str]) -> None:
    if names == ["faulty"]:
        write_faulty()
        write_list()
        return
    if names == ["schedules"]:
        write_schedules()
        for name in filter(scheduled, VALID):
            write_valid(name)
        write_faulty()
        write_list()
        return
    if not names:
        for group in ("valid", "faulty"):
            shutil.rmtree(ROOT / group, ignore_errors=True)
            (ROOT / group).mkdir(parents=True)
    for name in names or VALID:
        write_valid(name)
    if not names:
        write_faulty()
    write_list()


if __name__ == "__main__":
    main(sys.argv[1:])
