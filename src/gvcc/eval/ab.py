"""A blind comparison by people: a page that asks which of two decoded clips is closer to the
original, and what follows from the answers.

The page does not know what it shows. Which codec stands on which side is in the key, a file that
stays with whoever evaluates the answers. (The clips themselves are in the page: a participant who
takes them out can compare them with published ones.)
"""

from __future__ import annotations

import hashlib
import html
import itertools
import json
import random
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

from gvcc import files
from gvcc.errors import ConfigError, unknown
from gvcc.eval.report import Results, page, parsed, read, script_json, write_page

KEY, ANSWERS = "gvcc-ab-key/1", "gvcc-ab-answers/1"
_SCRIPTS = ("dom.js", "sync.js", "ab.js")
UNEQUAL = 1.2  # files whose sizes differ more, in ratio, are not compared


def write(
    folder: Path,
    out: Path,
    seed: int,
    pairs: Sequence[tuple[str, str]] | None = None,
    rate: float | None = None,
) -> Path:
    """Write the page `out` of the results in `folder`, and its key beside it (ab-key.json of
    ab.html); returns the page's path.

    A trial is a clip and a pair of codecs, both at the asked `rate` in bits per pixel (None: the
    middle one). `pairs`: of codecs; None: all of them. `seed` decides the order of the trials and
    of the sides; each viewer has an order of their own. Trials that lack a video are left out, and
    those with one file over UNEQUAL times the other: the key lists them.

    ConfigError for codecs and rates that the results do not have, and where no trial is left.
    """
    results = read(folder)
    cells = results.cells()
    rates = results.setup["rates"]
    if rate is None:
        rate = rates[(len(rates) - 1) // 2]
    if rate not in rates:
        raise ConfigError(f"the rate {rate:g} is none of {', '.join(f'{r:g}' for r in rates)}")
    chosen = list(itertools.combinations(cells, 2)) if pairs is None else list(pairs)
    for name in itertools.chain(*chosen):
        if name not in cells:
            raise unknown("codec", name, cells)
    if same := [a for a, b in chosen if a == b]:
        raise ConfigError(f"{same[0]} is compared with itself")
    if len({frozenset(pair) for pair in chosen}) < len(chosen):
        raise ConfigError("a pair is named twice")
    found, skipped = _trials(results, chosen, rate)
    if not found:
        why = "; ".join(f"{s['clip']}: {s['why']}" for s in skipped)
        raise ConfigError(f"{folder}: nothing to compare at {rate:g} bits/pixel: {why}")

    rng = random.Random(seed)
    rng.shuffle(found)
    videos: dict[Path, str] = {}
    shown, key = [], {}
    for clip, names, paths in found:
        side = rng.randrange(2)  # which of the pair stands first
        for path in paths:
            videos.setdefault(path, f"v{rng.getrandbits(48):012x}")
        original, *both = (videos[p] for p in paths)
        trial = f"t{rng.getrandbits(48):012x}"
        shown.append({
            "id": trial, "original": original, "first": both[side], "second": both[1 - side],
            "hz": clip["hz"], "frames": clip["frames"],
        })  # fmt: skip
        key[trial] = {"clip": clip["name"], "rate": rate,
                      "first": names[side], "second": names[1 - side]}  # fmt: skip
    experiment = hashlib.sha256(json.dumps([key, shown]).encode()).hexdigest()[:16]
    data = {"experiment": experiment, "format": ANSWERS, "trials": shown}
    fields = {
        "title": html.escape("Which is closer to the original?"),
        "js": "\n".join(map(page, _SCRIPTS)),
        "data": script_json(data),
    }
    # By their names, which say nothing; the order of the trials would tell what belongs together.
    write_page(out, page("ab.html"), fields, {i: p for p, i in sorted(videos.items(), key=_name)})
    about = {"format": KEY, "experiment": experiment, "set": results.setup["set"], "seed": seed,
             "pairs": chosen, "trials": key, "skipped": skipped}  # fmt: skip
    files.write(key_of(out), json.dumps(about, indent=1).encode())
    return out


def key_of(page: Path) -> Path:
    """The file with a page's key."""
    return page.with_name(f"{page.stem}-key.json")


_Trial = tuple[dict[str, Any], tuple[str, str], tuple[Path, Path, Path]]
"""Clip, names of the pair, videos: of the original and of the pair."""


def _trials(
    results: Results, pairs: Sequence[tuple[str, str]], rate: float
) -> tuple[list[_Trial], list[dict[str, str]]]:
    at = {
        (name, c["clip"]): (results.decoded(c), c["bytes"])
        for name, cells in results.cells().items()
        for c in cells if c["rate"] == rate and c["status"] == "ok"
    }  # fmt: skip
    found: list[_Trial] = []
    skipped = []
    for clip, (a, b) in itertools.product(results.clips(), pairs):
        original = results.original(clip["name"])
        first, small = at.get((a, clip["name"]), (None, 1))
        second, large = at.get((b, clip["name"]), (None, 1))
        if original and first and second and max(small / large, large / small) <= UNEQUAL:
            found.append((clip, (a, b), (original, first, second)))
            continue
        lack = [n for n, p in (("original", original), (a, first), (b, second)) if not p]
        why = f"no video of {', '.join(lack)}" if lack else f"{a} has {small} bytes, {b} {large}"
        skipped.append({"clip": clip["name"], "why": why})
    return found, skipped


def _name(item: tuple[Path, str]) -> str:
    return item[1]


def report(answers: Sequence[Path], key: Path) -> dict[str, Any]:
    """What the answers say, ready for JSON.

    `pairs`: for each pair of codecs its `wins` [of the first, of the second], `n` answers, `share`
    of the first, `interval` (its exact 95 % binomial interval, Clopper-Pearson) and `p_value` (two
    sides, against a share of one half). Besides `participants`, `answers` that count, and
    `repeated`: answers left out since the same participant had answered the same trial before.

    The interval takes all answers for independent. Those of one person, or about one clip, are not
    quite: with few people or few clips it is too narrow.

    ConfigError for a file that is none, or that belongs to another key.
    """
    try:
        from scipy.stats import binomtest
    except ImportError:
        raise ConfigError("scipy is missing: pip install 'gvcc[eval]'") from None
    about = _load(key, KEY)
    sessions = [_load(path, ANSWERS) for path in answers]
    for path, session in zip(answers, sessions, strict=True):
        if session["experiment"] != about["experiment"]:
            raise ConfigError(f"{path}: answers to another page than the one of {key}")
    wins = {tuple(pair): [0, 0] for pair in about["pairs"]}
    counted: set[tuple[str, str]] = set()
    repeated = 0
    # The oldest session first: a second look at a trial is no longer the first impression.
    for path, trial, choice, who in _answers(answers, sessions):
        if trial not in about["trials"] or choice not in (1, 2):
            raise ConfigError(f"{path}: {trial!r}, answer {choice!r}, is no trial of {key}")
        if (who, trial) in counted:
            repeated += 1
            continue
        counted.add((who, trial))
        both = (about["trials"][trial]["first"], about["trials"][trial]["second"])
        winner, loser = both if choice == 1 else both[::-1]
        if (winner, loser) in wins:
            wins[winner, loser][0] += 1
        else:
            wins[loser, winner][1] += 1

    def line(pair: tuple[str, ...], won: list[int]) -> dict[str, Any]:
        n = sum(won)
        out: dict[str, Any] = {"pair": list(pair), "wins": won, "n": n}
        if n == 0:
            return out | {"share": None, "interval": None, "p_value": None}
        test = binomtest(won[0], n)
        bounds = test.proportion_ci(0.95, "exact")
        return out | {"share": won[0] / n, "interval": [float(bounds.low), float(bounds.high)],
                      "p_value": float(test.pvalue)}  # fmt: skip

    return {
        "experiment": about["experiment"],
        "participants": len({who for who, _ in counted}),
        "answers": len(counted),
        "repeated": repeated,
        "pairs": [line(pair, won) for pair, won in wins.items()],
    }


def _answers(
    paths: Sequence[Path], sessions: Sequence[Mapping[str, Any]]
) -> Iterator[tuple[Path, str, int, str]]:
    """File, trial, choice, participant of all answers, session by session as they began."""
    for path, session in sorted(
        zip(paths, sessions, strict=True), key=lambda both: str(both[1]["started"])
    ):
        for answer in session["answers"]:
            who = session["participant"].strip().casefold()
            yield path, answer["trial"], answer["choice"], who


def _load(path: Path, kind: str) -> dict[str, Any]:
    """A key or a file of answers; both may come from anyone."""
    needed = {
        KEY: {"experiment": str, "trials": dict, "pairs": list},
        ANSWERS: {"experiment": str, "participant": str, "started": str, "answers": list},
    }
    found = parsed(path)
    if not isinstance(found, dict) or found.get("format") != kind:
        raise ConfigError(f"{path}: not a file of the format {kind}")
    for name, of in needed[kind].items():
        if not isinstance(found.get(name), of):
            raise ConfigError(f"{path}: {name!r} is missing or of the wrong kind")
    for answer in found["answers"] if kind == ANSWERS else ():
        if not isinstance(answer, dict) or not isinstance(answer.get("trial"), str):
            raise ConfigError(f"{path}: an answer without its trial")
        answer.setdefault("choice", None)
    return found
