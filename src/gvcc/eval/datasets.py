"""The data sets of the field by their usual folder layouts, and what of them is missing.

Nothing is ever downloaded. Sequences are looked for by name anywhere below the folder, as raw YUV
(the size is in the name, or the set's own), Y4M or MP4.
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from pathlib import Path

from gvcc.errors import ConfigError, unknown
from gvcc.eval.cells import Source

_SUFFIXES = (".yuv", ".y4m", ".mp4", ".mkv", ".mov", ".webm")
_TEN_BITS = re.compile(r"10 ?bit|10le", re.I)


@dataclass(frozen=True)
class DataSet:
    """Sequences of a set; `fps` by name where it is not the first one's. `frames` is the protocol
    of the neural codecs' tables, the first so many."""

    where: str
    size: tuple[int, int]
    names: dict[str, float]
    frames: int = 96
    pixels: str = "yuv420p"


_UVG = dict.fromkeys(
    ("Beauty", "Bosphorus", "HoneyBee", "Jockey", "ReadySteadyGo", "ShakeNDry", "YachtRide"), 120.0
)
SETS = {
    "uvg": DataSet("https://ultravideo.fi/dataset.html (1080p, 8 bit, YUV)", (1920, 1080), _UVG),
    "mcl-jcv": DataSet(
        "https://mcl.usc.edu/mcl-jcv-dataset/ (720p and 1080p source clips)", (1920, 1080),
        {f"videoSRC{i:02}": 30.0 for i in range(1, 31)},
    ),
    "hevc-b": DataSet(
        "the JCT-VC common test sequences, class B", (1920, 1080),
        {"Kimono": 24, "ParkScene": 24, "Cactus": 50, "BQTerrace": 60, "BasketballDrive": 50},
    ),
    "hevc-c": DataSet(
        "the JCT-VC common test sequences, class C", (832, 480),
        {"RaceHorses": 30, "BQMall": 60, "PartyScene": 50, "BasketballDrill": 50},
    ),
    "hevc-d": DataSet(
        "the JCT-VC common test sequences, class D", (416, 240),
        {"RaceHorses": 30, "BQSquare": 60, "BlowingBubbles": 50, "BasketballPass": 50},
    ),
    "hevc-e": DataSet(
        "the JCT-VC common test sequences, class E", (1280, 720),
        {"FourPeople": 60, "Johnny": 60, "KristenAndSara": 60},
    ),
}  # fmt: skip


def find(name: str, folder: Path, frames: int | None, height: int | None) -> list[Source]:
    """The sequences of a set below a folder; ConfigError that names all that are missing, and where
    the set comes from. `frames`: the set's protocol without."""
    if name not in SETS:
        raise unknown("data set", name, SETS)
    if not folder.is_dir():
        raise ConfigError(f"data set {name}: {folder} is no folder")
    chosen = SETS[name]
    files = sorted((p for p in folder.rglob("*") if p.suffix.lower() in _SUFFIXES), key=_order)
    found, missing = [], []
    for sequence, fps in chosen.names.items():
        at = next((p for p in files if _is(p, sequence, chosen.size)), None)
        if at is None:
            missing.append(sequence)
            continue
        raw = None
        if at.suffix.lower() == ".yuv":
            w, h = _size(at) or chosen.size
            pixels = "yuv420p10le" if _TEN_BITS.search(at.name) else chosen.pixels
            raw = (w, h, pixels, f"{_rate(at) or fps:g}")
        found.append(Source(sequence, str(at), frames or chosen.frames, height, raw))
    if missing:
        raise ConfigError(
            f"data set {name}: {len(missing)} of {len(chosen.names)} sequences are not in "
            f"{folder}: {', '.join(missing)}; they come from {chosen.where}"
        )
    return found


def _order(path: Path) -> tuple[int, bool, Path]:
    """Of two files of a sequence the raw one before a coded one, and that of 8 bits."""
    return _SUFFIXES.index(path.suffix.lower()), bool(_TEN_BITS.search(path.name)), path


def _is(path: Path, sequence: str, size: tuple[int, int]) -> bool:
    """Whether a file is a sequence; of two with one name that of the set's own size."""
    stem = path.stem.lower()
    if not re.match(rf"{re.escape(sequence.lower())}(?:(?<!\d)\d)?(?![a-z0-9])", stem):
        return False
    own = _size(path)
    return own is None or own == size


def _size(path: Path) -> tuple[int, int] | None:
    """Width and height as many names have them: Kimono1_1920x1080_24.yuv."""
    found = re.search(r"(\d{3,4})x(\d{3,4})", path.name)
    return (int(found[1]), int(found[2])) if found else None


def _rate(path: Path) -> float | None:
    """Frames a second as many names have them: _120fps, or the number after the size."""
    found = re.search(r"(\d+(?:\.\d+)?) ?fps", path.name, re.I) or re.search(
        r"\d{3,4}x\d{3,4}_(?!4(?:20|22|44)(?!\d))(\d{2,3})(?!\d|bit)", path.name, re.I
    )
    return float(found[1]) if found else None


def clips(paths: list[str], frames: int | None, height: int | None) -> list[Source]:
    """Files and folders of files as clips; ConfigError for what is not there, or two of a name."""
    files: list[Path] = []
    for text in paths:
        path = Path(text)
        if path.is_dir():
            files += sorted(p for p in path.iterdir() if p.suffix.lower() in _SUFFIXES[1:])
        else:
            files.append(path)
    for path in files:
        if not path.is_file():
            raise ConfigError(f"{path}: there is no such file")
    names = [p.stem for p in files]
    if twice := {n for n in names if names.count(n) > 1}:
        raise ConfigError(f"two clips are called {', '.join(sorted(twice))}")
    if not files:
        raise ConfigError("no clips: name files, folders or --dataset")
    return [Source(p.stem, str(p), frames, height) for p in files]
