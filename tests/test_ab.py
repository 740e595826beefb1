"""The blind comparison: its page, answered by keyboard in a browser, and what its answers say."""

from __future__ import annotations

import base64
import json
import shutil
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import sample_results
from browser import Chromium, Page, chromium

from gvcc.errors import ConfigError
from gvcc.eval import ab

CODECS, CLIPS = sample_results.CODECS, sample_results.CLIPS


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return sample_results.make(tmp_path_factory.mktemp("results"))


@pytest.fixture(scope="module")
def written(folder: Path) -> Path:
    return ab.write(folder, folder / "ab.html", seed=3, rate=0.1)


@pytest.fixture(scope="module")
def key(written: Path) -> dict[str, Any]:
    found: dict[str, Any] = json.loads(written.with_name("ab-key.json").read_text())
    return found


@pytest.fixture(scope="module")
def browser(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Chromium]:
    with chromium(tmp_path_factory.mktemp("profile")) as found:
        yield found


@pytest.fixture
def page(browser: Chromium, written: Path, tmp_path: Path) -> Iterator[Page]:
    """The page as somebody new finds it; downloads go to tmp_path."""
    tab = Page(browser)
    tab.downloads(tmp_path)
    tab.open(written)
    tab.js("localStorage.clear()")
    tab.open(written)
    yield tab
    assert tab.errors == []
    tab.close()


SHOWN = "since !== null && document.getElementById('where').textContent"


def begin(page: Page, name: str) -> None:
    page.js("document.getElementById('participant').focus()")
    for letter in name:
        page.key(letter)
    page.key("Enter")
    page.wait(SHOWN)


def downloaded(folder: Path, page: Page) -> dict[str, Any]:
    page.wait("!document.getElementById('done').hidden")
    for _ in range(200):
        page.js("new Promise((r) => setTimeout(r, 20))")
        for path in folder.glob("*.json"):
            try:
                found: dict[str, Any] = json.loads(path.read_text())
            except ValueError:  # not yet whole
                continue
            return found
    raise AssertionError("no file was downloaded")


def test_all_trials_by_keyboard(page, key, written, tmp_path):
    assert "There are 2 comparisons." in page.text("#count")
    begin(page, "ada")
    page.wait(f"({SHOWN}) === '1 of 2'")
    page.key("3")
    assert page.text("#where") == "1 of 2"
    page.key("2")
    page.wait(f"({SHOWN}) === '2 of 2'")
    page.key("1")
    answers = downloaded(tmp_path, page)
    assert {k: answers[k] for k in ("format", "experiment", "participant")} == {
        "format": ab.ANSWERS, "experiment": key["experiment"], "participant": "ada",
    }  # fmt: skip
    assert "Chrome" in answers["user_agent"]
    assert answers["finished"] > answers["started"]
    assert [a["choice"] for a in answers["answers"]] == [2, 1]
    assert {a["trial"] for a in answers["answers"]} == set(key["trials"])
    assert all(0 <= a["response_s"] < 30 for a in answers["answers"])
    path = tmp_path / "ab-answers-ada.json"
    said = ab.report([path], written.with_name("ab-key.json"))
    wins = [0, 0]
    for a in answers["answers"]:
        side = ("first", "second")[a["choice"] - 1]
        wins[CODECS.index(key["trials"][a["trial"]][side])] += 1
    assert [(p["pair"], p["wins"], p["n"]) for p in said["pairs"]] == [(list(CODECS), wins, 2)]


def test_clips_run_together_and_again(page):
    begin(page, "a")
    page.js("times = () => clips.map((v) => v.currentTime)")
    page.wait("sync.at >= 3 && Math.max(...times()) - Math.min(...times()) < 0.08")
    page.wait("sync.at >= 7")
    page.wait("sync.at <= 2")
    assert page.js("document.querySelectorAll('video').length") == 3


def test_it_is_left_and_gone_on_with(page, written, tmp_path):
    begin(page, "eve")
    page.key("1")
    page.wait(f"({SHOWN}) === '2 of 2'")
    page.open(written)
    assert "eve has answered 1 of 2" in page.text("#resume-text")
    page.click("#go-on")
    page.wait(f"({SHOWN}) === '2 of 2'")
    page.click("#second button")
    answers = downloaded(tmp_path, page)
    assert [a["choice"] for a in answers["answers"]] == [1, 2]
    page.open(written)
    page.click("#anew")
    begin(page, "bob")
    assert page.text("#where") == "1 of 2"


def test_nothing_leaves_and_nothing_is_told(page, written, key):
    begin(page, "a")
    assert {u.split(":")[0] for u in page.requests} <= {"file", "blob", "data"}
    source = written.read_text()
    for word in (*CODECS, CLIPS[1], "gvcc_default", "media/", str(written.parent)):
        assert word not in source, word
    told = json.loads(source.split('id="data">')[1].split("</script>")[0])
    assert {k for t in told["trials"] for k in t} == {
        "id", "original", "first", "second", "hz", "frames",
    }  # fmt: skip
    assert {t["id"] for t in told["trials"]} == set(key["trials"])


@pytest.mark.parametrize(("width", "height"), [(390, 844), (1280, 720)])
def test_it_fits_the_screen(page, width, height):
    page.size(width, height, mobile=width < 600)
    begin(page, "a")
    assert page.js("document.documentElement.scrollWidth") <= width
    assert page.js("document.documentElement.scrollHeight") <= height
    sizes = page.js("[...document.querySelectorAll('video')].map((v) => v.clientHeight)")
    assert min(sizes) > 120
    bottom = page.js("document.querySelector('#second button').getBoundingClientRect().bottom")
    assert bottom <= height


# -- without a browser ------------------------------------------------------------------------


def test_the_key_says_what_is_shown(folder, written, key):
    """The videos in the page are those of the codecs that the key names."""
    source = written.read_text()
    told = json.loads(source.split('id="data">')[1].split("</script>")[0])

    def embedded(name: str) -> bytes:
        return base64.b64decode(source.split(f'id="{name}">')[1].split("</script>")[0])

    assert len(told["trials"]) == 2
    for trial in told["trials"]:
        says = key["trials"][trial["id"]]
        original = folder / f"media/original/{says['clip']}.mp4"
        assert embedded(trial["original"]) == original.read_bytes()
        for side in ("first", "second"):
            name = says[side].replace(":", "_")
            path = folder / f"media/{name}/{says['clip']}-0.1.mp4"
            assert embedded(trial[side]) == path.read_bytes()


def test_seed_decides(folder, tmp_path):
    def made(name: str, seed: int) -> tuple[bytes, str]:
        (tmp_path / name).mkdir()
        path = ab.write(folder, tmp_path / name / "p.html", seed=seed, rate=0.1)
        return path.read_bytes(), (tmp_path / name / "p-key.json").read_text()

    assert made("a", 1) == made("b", 1)
    assert made("c", 2) != made("d", 1)
    sides = set()
    for seed in range(12):
        trials = json.loads(made(f"s{seed}", seed)[1])["trials"].values()
        sides |= {(t["clip"], t["first"]) for t in trials}
    assert sides == {(clip, codec) for clip in CLIPS for codec in CODECS}


def test_trials_without_videos_are_left_out(folder, tmp_path):
    ab.write(folder, tmp_path / "p.html", seed=0)  # the middle of two rates is the lower
    key = json.loads((tmp_path / "p-key.json").read_text())
    assert [t["clip"] for t in key["trials"].values()] == [CLIPS[0]]
    assert key["skipped"] == [{"clip": CLIPS[1], "why": "no video of x265"}]


def test_files_of_other_sizes_are_no_pair(folder, tmp_path):
    """One codec's file is half again as large as was asked for."""
    copy = tmp_path / "r"
    shutil.copytree(folder, copy)
    path = copy / "results/x265__eval.json"
    result = json.loads(path.read_text())
    (cell,) = (c for c in result["cells"] if (c["clip"], c["rate"]) == (CLIPS[0], 0.1))
    cell["bytes"] = round(cell["bytes"] * 1.5)
    path.write_text(json.dumps(result))
    key = json.loads(ab.key_of(ab.write(copy, tmp_path / "p.html", 0, rate=0.1)).read_text())
    assert [t["clip"] for t in key["trials"].values()] == [CLIPS[1]]
    assert key["skipped"] == [
        {"clip": CLIPS[0], "why": f"gvcc:default has 691 bytes, x265 {cell['bytes']}"}
    ]


@pytest.mark.parametrize(
    ("pairs", "rate", "words"),
    [
        ([("x265", "x266")], 0.1, "unknown codec 'x266'"),
        ([("x265", "x265")], 0.1, "compared with itself"),
        (None, 0.3, "the rate 0.3 is none of 0.02, 0.1"),
        ([("x265", "gvcc:default"), ("gvcc:default", "x265")], 0.1, "a pair is named twice"),
        ([], 0.1, "nothing to compare at 0.1"),
    ],
)
def test_what_cannot_be_compared_is_refused(folder, tmp_path, pairs, rate, words):
    with pytest.raises(ConfigError, match=words):
        ab.write(folder, tmp_path / "p.html", 0, pairs, rate)


class Study:
    """A key of 20 trials, "a" against "b", of which "a" stands first in the even ones; and answers
    to it."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        names = [("a", "b"), ("b", "a")]
        trials = {f"t{i}": {"clip": "c", "rate": 1, "first": names[i % 2][0],
                            "second": names[i % 2][1]} for i in range(20)}  # fmt: skip
        self.key = self.file("key.json", {"format": ab.KEY, "experiment": "e",
                                          "pairs": [["a", "b"]], "trials": trials})  # fmt: skip

    def file(self, name: str, data: Any) -> Path:
        path = self.folder / name
        path.write_text(json.dumps(data))
        return path

    def answers(self, who: str, wins: list[int], started: str = "2026-01-01", **more: Any) -> Path:
        """`who` prefers "a" in the trials of `wins` (1) or "b" (0), from the first trial on."""
        found = [{"trial": f"t{i}", "choice": 1 if won == (i % 2 == 0) else 2}
                 for i, won in enumerate(wins)]  # fmt: skip
        return self.file(f"{who}-{started}.json", {
            "format": ab.ANSWERS, "experiment": "e", "participant": who, "started": started,
            "answers": found} | more)  # fmt: skip


@pytest.fixture
def study(tmp_path: Path) -> Study:
    return Study(tmp_path)


def test_counts_and_interval(study):
    said = ab.report(
        [study.answers("p", [1] * 10), study.answers("q", [1] * 5 + [0] * 5)], study.key
    )
    (pair,) = said["pairs"]
    assert (said["participants"], said["answers"], said["repeated"]) == (2, 20, 0)
    assert (pair["pair"], pair["wins"], pair["n"], pair["share"]) == (["a", "b"], [15, 5], 20, 0.75)
    # Clopper-Pearson of 15 of 20, and the sum of binomial terms up to 5 and from 15 on.
    assert pair["interval"] == pytest.approx([0.508954, 0.913429], abs=1e-6)
    assert pair["p_value"] == pytest.approx(2 * 21700 / 2**20)


def test_a_participant_counts_once(study):
    early = study.answers("p", [1, 1], "2026-01-01")
    late = study.answers("P ", [0, 0, 0], "2026-01-02")
    said = ab.report([late, early, early], study.key)
    assert said["pairs"][0]["wins"] == [2, 1]  # the first answers, and the trial that is new
    assert (said["participants"], said["answers"], said["repeated"]) == (1, 3, 4)


def test_no_answers(study):
    (pair,) = ab.report([study.answers("p", [])], study.key)["pairs"]
    assert pair == {"pair": ["a", "b"], "wins": [0, 0], "n": 0, "share": None,
                    "interval": None, "p_value": None}  # fmt: skip


@pytest.mark.parametrize(
    ("more", "words"),
    [
        ({"experiment": "other"}, "answers to another page"),
        ({"format": "x"}, "not a file of the format gvcc-ab-answers/1"),
        ({"answers": [{"trial": "t99", "choice": 1}]}, "'t99', answer 1, is no trial"),
        ({"answers": [{"trial": "t1", "choice": 3}]}, "'t1', answer 3, is no trial"),
        ({"answers": [{"trial": "t1"}]}, "answer None"),
        ({"answers": [{"choice": 1}]}, "an answer without its trial"),
        ({"answers": {}}, "'answers' is missing or of the wrong kind"),
        ({"participant": None}, "'participant' is missing"),
    ],
)
def test_answers_that_do_not_belong_are_refused(study, more, words):
    with pytest.raises(ConfigError, match=words):
        ab.report([study.answers("p", [1], **more)], study.key)


def test_files_that_are_none_are_refused(study):
    with pytest.raises(ConfigError, match="cannot read"):
        ab.report([study.folder / "no.json"], study.key)
    (study.folder / "no.json").write_text("[")
    with pytest.raises(ConfigError, match="no JSON"):
        ab.report([study.folder / "no.json"], study.key)
