"""Writes tests/vectors anew; run by hand, on purpose, from anywhere:

python tests/make_vectors.py          all of them
python tests/make_vectors.py nano     only these valid ones (after refitting a shipped prior)
"""

from __future__ import annotations

import dataclasses
import hashlib
import json
import shutil
import sys
from collections.abc import Callable
from fractions import Fraction
from functools import partial
from typing import Any

import numpy as np
import tiny_prior
from faulty_vectors import ROOT, faulty
from PIL import Image

from gvcc import (
    codec,
    errors,
    gop,
    parser,
    priors,
    rate,
    residual,
    stills,
    trajectory,
)
from gvcc.bitstream import Stream
from gvcc.gop import Gop
from gvcc.media import Video
from gvcc.records import Audio, Colour, Packet
from gvcc.session import Session

RMS, PEAK = 0.5, 4  # grey levels by which another machine's pictures may differ
LOADERS: dict[str, Callable[[], Any]] = {
    "tiny": tiny_prior.load,
    "tiny-vp": lambda: tiny_prior.load("vp"),
    "gauss": lambda: priors.load("gauss"),
    "nano": lambda: priors.load("nano"),
}
SOUND = Audio(
    "opus", 48000, "mono", Fraction(1, 48000), b"OpusHead",
    (Packet(-312, 960, b"\0\1\2"), Packet(648, 960, b"\3"), Packet(1700, 960, b"")),
)  # fmt: skip
_BASE = rate.PRESETS["default"]
_UNIFORM = _BASE | dict(allocation="uniform", shift=3.0, steps=8, tail=2, atoms=2)
PRESETS: dict[str, dict[str, Any]] = {
    "short": _BASE | dict(steps=8, tail=2),
    "ou": _UNIFORM | dict(rule="ou", g_scale=3.0, multistep=False),
    "em": _UNIFORM | dict(rule="em", g_scale=2.0),
    "gaussian-matched": _BASE | dict(coder="gaussian", size=100, steps=8, tail=2),
    "paper-short": rate.PRESETS["paper"] | dict(steps=8, size=64, atoms=4, tail_atoms=8),
}
MIXED = (
    Gop(0, 9, "still", True), Gop(8, 6, "shared", tail=True), Gop(13, 2, "previous", tail=True),
    Gop(14, 3, "previous"), Gop(14, 5, fade=3), Gop(16, 7, fade=3),
)  # fmt: skip
# name: what it covers, prior, (frames, height, width), settings, fields of the Video
VALID: dict[str, tuple[str, str, tuple[int, int, int], dict[str, Any], dict[str, Any]]] = {
    "default": (
        "the default preset: hadamard, matched, posterior, multistep",
        "tiny", (9, 24, 32), dict(size=220), {},
    ),
    "paper": (
        "gaussian codebook of 64 atoms, uniform, em, no multistep",
        "tiny", (5, 16, 16), dict(preset="paper-short", gop=5), {},
    ),
    "gaussian-matched": (
        "gaussian codebook of 100 atoms with matched counts, some of them 0",
        "tiny", (9, 16, 16), dict(preset="gaussian-matched", size=110), {},
    ),
    "ou": (
        "step rule ou, uniform, hadamard, no multistep",
        "tiny", (5, 16, 16), dict(preset="ou", gop=5), {},
    ),
    "em": (
        "step rule em with multistep, uniform atoms that do not divide evenly, knob 1.5",
        "tiny", (5, 24, 16), dict(preset="em", gop=5, size=120, knob=1.5), {},
    ),
    "vp": (
        "variance preserving path",
        "tiny-vp", (5, 16, 16), dict(preset="short", size=110, gop=5), {},
    ),
    "one-frame": (
        "one frame of 17x33: no size is a multiple of a stride",
        "tiny", (1, 33, 17), dict(preset="short", size=110), {},
    ),
    "short-gop": (
        "GOPs of 5 and 2 frames, 30000/1001 Hz, full range, BT.2020 colour",
        "tiny", (7, 16, 24), dict(preset="short", size=140, gop=5),
        dict(fps=Fraction(30000, 1001), colour=Colour(9, 9, 16, True)),
    ),
    "audio": (
        "audio after two GOPs: packets that start early, on time and late",
        "tiny", (7, 16, 16), dict(preset="short", size=200, gop=5), dict(audio=SOUND),
    ),
    "uncoded": (
        "no coded step at all: the smallest file",
        "tiny", (5, 16, 16), dict(size=0, gop=5), {},
    ),
    "overlap": (
        "t2v, three GOPs, 3 frames cross-faded; 17x33 is odd in everything",
        "tiny", (19, 33, 17), dict(size=340, gop=9, overlap=3), {},
    ),
    "i2v": (
        "i2v: a still, two GOPs chained on decoded pictures, tail residuals",
        "tiny", (15, 48, 56), dict(mode="i2v", size=1500, gop=5, still_codec="av1"), {},
    ),
    "i2v-refresh": (
        "i2v with a new still for GOP 2, in odd sizes; stills are VVC",
        "tiny", (14, 47, 61), dict(mode="i2v", size=1800, gop=5, refresh=2, still_codec="vvc"), {},
    ),
    "i2v-tail-atoms": (
        "i2v, uniform, gaussian codebook, more atoms for the last two latent frames",
        "tiny", (16, 48, 48), dict(mode="i2v", preset="paper-short", gop=13, still_codec="av1"), {},
    ),
    "i2v-uniform": (
        "i2v, uniform atoms of hadamard with a target: the tail has twice as many",
        "tiny", (17, 40, 48),
        dict(mode="i2v", preset="em", size=1500, gop=13, still_codec="av1"), {},
    ),
    "flf2v": (
        "flf2v: stills at every boundary, one each, the last GOP short",
        "tiny", (12, 48, 56), dict(mode="flf2v", size=2200, gop=5, still_codec="av1"), {},
    ),
    "flf2v-empty": (
        "flf2v with empty stills: nothing is given, everything is sampled",
        "tiny", (9, 24, 32), dict(mode="flf2v", size=120, gop=5, still_codec="av1"), {},
    ),
    "cut": (
        "flf2v over a scene cut at frame 4: the second scene starts with a still of its own",
        "tiny", (9, 48, 48), dict(mode="flf2v", size=2200, gop=9, still_codec="av1", cut=4), {},
    ),
    "auto": (
        "auto: modes mixed in one file",
        "tiny", (18, 48, 56),
        dict(mode="auto", size=2600, gop=5, still_codec="av1", residual=False), {},
    ),
    "mixed": (
        "every kind of GOP in a row: still and last, shared, previous, two cross-fades, one short",
        "tiny", (23, 33, 49),
        dict(preset="short", size=1500, gop=9, overlap=3, still_codec="av1", plan=MIXED), {},
    ),
    "gauss": (
        "the prior gauss as shipped; follows its weights",
        "gauss", (5, 16, 24), dict(preset="short", size=110, gop=5), {},
    ),
    "nano": (
        "the prior nano as shipped; follows its weights",
        "nano", (5, 40, 56), dict(preset="short", size=160, gop=5), {},
    ),
    "nano-i2v": (
        "nano, i2v: known latent frames and a residual; follows its weights",
        "nano", (9, 48, 64),
        dict(preset="short", mode="i2v", size=900, gop=5, still_codec="av1"), {},
    ),
}  # fmt: skip


def clip(frames: int, height: int, width: int) -> np.ndarray:
    """Waves that drift, in colour."""
    t, y, x, c = np.mgrid[:frames, :height, :width, :3]
    wave = np.sin(x / 5 + t / 4 + c) + np.cos(y / 7 - t / 6 + 2 * c)
    return (128 + 55 * wave).astype(np.uint8)


def plain(value: Any) -> Any:
    """Dataclasses, bytes and fractions as JSON knows them."""
    if dataclasses.is_dataclass(value):
        return {f.name: plain(getattr(value, f.name)) for f in dataclasses.fields(value)}
    if isinstance(value, (list, tuple)):
        return [plain(v) for v in value]
    return value.hex() if isinstance(value, bytes) else str(value) if isinstance(value, Fraction) \
        else value  # fmt: skip


def coded(stream: Stream, prior: Any) -> list[list[list[list[tuple[int, int]]]]]:
    """The atoms of each GOP, step and latent frame as (index, minus), by gvcc's own reader."""
    h, out = stream.header, []
    session = Session(h, prior, "cpu")
    session.picture = np.zeros((h.height, h.width, 3), np.uint8)  # there is one; which, is all one
    for i, r in enumerate(stream.gops):
        frames = session.shape(r.gop)[1]
        known = session.condition(r.gop, session.references(r.gop, r.stills)).known
        free = trajectory.free_of(known, frames)
        noise = trajectory.Read(session.coder(), h, i, r, free)
        out.append([])
        for step in range(r.stop):
            symbols = noise.symbols(step)
            part = [symbols.get(f, np.zeros(0, np.int64)) for f in range(frames)]
            out[-1].append([[(int(s) >> 1, int(s) & 1) for s in one] for one in part])
    return out


def levels(stream: Stream, prior: Any) -> list[list[Any] | None]:
    """Step index and quantised values of each GOP's residual, flattened; None without one."""
    out: list[list[Any] | None] = []
    for r in stream.gops:
        if not r.residual:
            out.append(None)
            continue
        c, _, h, w = Session(stream.header, prior, "cpu").shape(r.gop)
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
         "counts": [[len(f) for f in step] for step in atoms], "sha256": digest(atoms),
         "residual": None if level is None else digest(level)}
        for r, atoms, level in zip(
            stream.gops, coded(stream, prior), levels(stream, prior), strict=True)
    ]  # fmt: skip
    return {"header": plain(stream.header), "gops": gops, "audio": plain(stream.audio)}


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
    plan = settings.pop("plan", None)
    pictures = clip(*size)
    if cut is not None:
        pictures[cut:] = 255 - clip(*size)[cut:, ::-1]
    video = Video(pictures, **({"fps": Fraction(25)} | fields))
    rate.PRESETS.update(PRESETS)
    config = rate.EncodeConfig(cuts=cut is not None, **settings)
    whole, stills.encode = stills.encode, partial(stills.encode, codec=codec_name)
    planner = gop.plan
    if plan is not None:  # what no mode makes, but a reader must read
        gop.plan = lambda *_, **__: plan
    share, rate.RESIDUAL_SHARE = rate.RESIDUAL_SHARE, 0.3  # pictures this small want it for nothing
    try:
        if config.size == 0:  # as small as can be
            try:
                codec.encode(video, dataclasses.replace(config, size=1), prior)
            except errors.TargetUnreachable as e:
                config = dataclasses.replace(config, size=e.smallest)
        made = codec.encode(video, config, prior)
    finally:
        stills.encode, rate.RESIDUAL_SHARE, gop.plan = whole, share, planner
    expected = {"covers": text, "prior": prior_name, "rms": RMS, "peak": PEAK}
    path = ROOT / "valid" / f"{name}.gvcc"
    path.write_bytes(made.data)
    lines = compact(expected | expectation(made.data, prior))
    path.with_suffix(".json").write_text(lines + "\n")
    Image.fromarray(made.frames.reshape(-1, size[2], 3)).save(path.with_suffix(".png"))


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


def main(names: list[str]) -> None:
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
