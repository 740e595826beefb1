"""The report's page, in a browser; and what goes into it."""

from __future__ import annotations

import json
import shutil
from collections.abc import Iterator
from pathlib import Path

import pytest
import sample_results
from browser import Chromium, Page, chromium

from gvcc.errors import ConfigError
from gvcc.eval import plots, report


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return sample_results.make(tmp_path_factory.mktemp("results"))


@pytest.fixture(scope="module")
def written(folder: Path) -> Path:
    return report.write(folder)


@pytest.fixture(scope="module")
def browser(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Chromium]:
    with chromium(tmp_path_factory.mktemp("profile")) as found:
        yield found


@pytest.fixture
def page(browser: Chromium, written: Path) -> Iterator[Page]:
    """The report, with its player ready; a test that leaves an error on the console fails."""
    tab = Page(browser)
    tab.open(written)
    tab.wait(f"({READY})")
    yield tab
    assert tab.errors == []
    tab.close()


READY = (
    "player.sync.ready && !player.sync.seeking && document.querySelector('#video-a').readyState > 1"
)
# The number of the frame that a video shows: the left half of frame n has the level 20 + 25 n.
SHOWN = """(() => { const c = document.createElement('canvas'); c.width = 96; c.height = 64;
  const pen = c.getContext('2d'); return ['video-a', 'video-b'].map((id) => {
  pen.drawImage(document.getElementById(id), 0, 0, 96, 64);
  return Math.round((pen.getImageData(10, 30, 1, 1).data[0] - 20) / 25); }); })()"""
DIFFERENCE = """(() => { const c = document.getElementById('difference');
  const d = c.getContext('2d').getImageData(0, 0, c.width, c.height).data;
  return [d[(32 * 96 + 10) * 4], d[(32 * 96 + 80) * 4]]; })()"""


def sources(page: Page) -> list[str]:
    page.wait(READY)
    return [str(page.js(f"document.getElementById('video-{x}').src")) for x in "ab"]


def test_it_asks_the_network_for_nothing(page):
    kinds = {u.split(":")[0] for u in page.requests}
    assert kinds <= {"file", "blob", "data"}
    assert len([u for u in page.requests if u.startswith("file:")]) == 1  # the page itself


def test_a_request_would_be_seen(page, tmp_path):
    """The check above can fail: the page's policy refuses a request and says so."""
    (tmp_path / "other.html").write_text("<img src='http://127.0.0.1:9/x.png'>")
    page.open(tmp_path / "other.html")
    assert any(u.startswith("http:") for u in page.requests)
    page.wait("document.images[0].complete")
    assert page.errors
    page._chromium.events.clear()


def test_title_and_notices(page):
    assert page.js("document.title").startswith("gvcc evaluation: eval, 20")
    notices = page.text("#notices")
    assert "nano is a small embedded prior; nothing here says anything of Wan." in notices
    assert "1 of 8 results failed" in notices


def test_the_name_of_a_clip_is_text(page):
    assert page.js("document.querySelectorAll('b').length") == 0
    assert sample_results.CLIPS[1] in page.text("#pick-clip")
    assert sample_results.CLIPS[1] in page.text("#tables-body")


def test_divider_by_mouse(page):
    x, y = page.place("#stage", 0.5, 0.4)
    to, _ = page.place("#stage", 0.25)
    page.mouse("Pressed", x, y, down=True)
    page.mouse("Moved", to, y, down=True)
    page.mouse("Released", to, y)
    assert page.js("document.getElementById('divider').ariaValueNow") == "25"
    clip = page.js("getComputedStyle(document.getElementById('video-b')).clipPath")
    assert clip == "inset(0px 0px 0px 25%)"
    page.mouse("Moved", x, y)  # without the button: nothing
    assert page.js("document.getElementById('divider').ariaValueNow") == "25"


def test_divider_by_keyboard(page):
    page.js("document.getElementById('divider').focus()")
    for key, value in (("ArrowRight", 52), ("ArrowLeft", 50), ("End", 100), ("Home", 0)):
        page.key(key)
        assert page.js("document.getElementById('divider').ariaValueNow") == str(value)


def test_selectors_change_the_sources(page):
    first, second = sources(page)
    page.choose("#pick-b", 1)
    assert sources(page)[0] == first
    other = sources(page)[1]
    assert other != second
    page.choose("#pick-a", 0)
    assert sources(page)[0] == second
    page.choose("#pick-rate", 0.1)
    assert not {first, second, other} & set(sources(page))
    page.choose("#pick-clip", 1)
    page.choose("#pick-a", -1)
    assert sources(page)[0] != first


def test_play_runs_both_together_and_again(page):
    page.key(" ")
    page.wait("player.sync.at >= 3 && document.querySelector('#video-b').currentTime > 0.08")
    assert page.text("#play") == "Pause"
    assert page.js("[player.a.paused, player.b.paused]") == [False, False]
    page.wait("player.sync.playing && Math.abs(player.a.currentTime - player.b.currentTime) < 0.08")
    page.wait("player.sync.at >= 7")
    page.wait("player.sync.at <= 2")
    page.click("#play")
    page.wait(f"!player.sync.playing && {READY}")
    a, b = page.js(SHOWN)
    assert a == b == page.js("player.sync.at")


def test_stepping_moves_both_by_one_frame(page):
    assert page.js(SHOWN) == [0, 0]
    for key, n in ((".", 1), (".", 2), (",", 1), (",", 0), (",", 8), (".", 0)):
        page.key(key)
        page.wait(f"player.sync.at === {n} && {READY}")
        assert page.js(SHOWN) == [n, n]
        assert page.text("#counter") == f"frame {n + 1} of 9"
    page.click("#forward")
    page.wait(f"player.sync.at === 1 && {READY}")
    assert page.js(SHOWN) == [1, 1]
    for _ in range(5):  # faster than a video can be sought in: none is lost
        page.key(".")
    page.wait(f"player.sync.at === 6 && {READY}")
    assert page.js(SHOWN) == [6, 6]
    assert page.js("player.psnr.cells[2].textContent").startswith("36")


def test_difference(page):
    page.key("d")
    left, right = page.js(DIFFERENCE)
    assert left <= 12 and 28 <= right <= 52  # 10 grey levels, 4 times, as far as H.264 keeps them
    page.choose("#gain", 1)
    assert 7 <= page.js(DIFFERENCE)[1] <= 13
    page.choose("#gain", 16)
    page.choose("#pick-b", -1)
    page.wait(READY)
    assert page.js("player.pair.b.name") == "original"
    page.wait(f"({DIFFERENCE})[1] === 0")
    page.key(" ")  # plays frame by frame, with both on the same one
    page.wait("player.sync.at === 4")
    page.key(" ")
    page.wait(READY)
    assert page.js(DIFFERENCE) == [0, 0]


def test_hover_and_keyboard_tell_values(page):
    where = page.js(
        "(() => { const s = document.querySelector('#plot-vmaf .mark');"
        " s.scrollIntoView({block: 'center', behavior: 'instant'});"
        " const b = s.getBoundingClientRect(); return [b.x + b.width / 2, b.y + b.height / 2]; })()"
    )
    page.mouse("Moved", where[0] + 3, where[1])
    tip = page.text("#plot-vmaf .tip")
    assert "gvcc:default" in tip and "52" in tip and "0.0198" in tip
    assert "138 B on average, 2 of 2 clips" in tip
    page.mouse("Moved", 1, 1)
    assert page.js("document.querySelector('#plot-vmaf .tip').hidden")
    page.js("document.querySelector('#plot-vmaf svg').focus()")
    page.key("ArrowLeft")  # the first point, if it is not chosen yet
    page.key("ArrowDown")
    assert "x265" in page.text("#plot-vmaf .tip")
    assert "1 of 2 clips" in page.text("#plot-vmaf .tip")
    assert page.js("document.querySelectorAll('#plot-vmaf .hollow').length") == 1
    assert "fewer clips" in page.text("#hollow")


def test_legend_and_clip_of_the_plots(page):
    marks = "document.querySelectorAll('#plot-vmaf .mark').length"
    assert page.js(marks) == 4
    page.click("#legend button:nth-child(2)")
    assert page.js(marks) == 2
    page.click("#legend button:nth-child(2)")
    page.choose("#curves-clip", 1)
    assert page.js(marks) == 3
    assert page.js("[...document.querySelectorAll('#plots figure')].map((f) => f.id)") == [
        "plot-psnr_rgb_db", "plot-vmaf", "plot-tof", "plot-fid_256",
    ]  # fmt: skip


def test_a_metric_of_the_whole_set_has_a_plot_and_no_column(page):
    points = "report.means.fid_256.map((c) => c.map((p) => [p.rate, p.value, p.clips]))"
    assert page.js(points) == [[[0.1, 31.5, 2]], [[0.1, 32.5, 2]]]
    assert page.js("document.querySelectorAll('#plot-fid_256 .mark').length") == 2
    assert "FID" not in page.text("#tables-body")
    page.choose("#curves-clip", 1)  # one clip has none
    assert page.js("document.querySelectorAll('#plot-fid_256 .mark').length") == 0
    page.choose("#curves-clip", -1)


def test_failures(page):
    assert sample_results.ERROR in page.text("#failures-body")
    page.choose("#pick-clip", 1)
    page.choose("#pick-b", 1)
    assert sample_results.ERROR in page.text("#stage-message")
    assert page.js("document.getElementById('play').disabled")
    page.key(".")
    page.choose("#pick-rate", 0.1)
    page.wait(READY)
    assert page.js("document.getElementById('stage-message').hidden")


def test_bd_rates(page):
    shown = page.text("#bd-body table")
    for part in ("−23.4 %", "−30.0 % to −15.0 %", "+30.5 %", "1 warning"):
        assert part in shown
    page.click("#bd-body .warn")
    assert page.js("document.querySelector('#bd-body details').open")
    assert "overlap by only 20%" in page.text("#bd-body details")
    page.choose("#bd-body label:nth-child(2) select", "akima")
    shown = page.text("#bd-body table")
    assert "−21.7 %" in shown and "30.5" not in shown and "none" in shown
    page.choose("#bd-body label:nth-child(2) select", "pchip")


def test_tables_sort_and_lead_to_the_player(page):
    def column(i: int) -> list[str]:
        return page.js("[...document.querySelectorAll('#tables details:first-of-type tbody tr')]"
                       f".map((r) => r.cells[{i}].textContent)")  # fmt: skip

    page.click("#tables thead th:nth-child(4) button")
    assert column(3) == sorted(column(3), key=int)
    page.click("#tables thead th:nth-child(4) button")
    assert column(3) == sorted(column(3), key=int, reverse=True)
    head = "document.querySelector('#tables th:nth-child(4)').ariaSort"
    assert page.js(head) == "descending"
    page.click("#tables tbody tr:nth-child(2) button")
    page.wait(READY)
    assert page.js("[player.pair.b.name, player.pair.rate]") == ["x265", 0.1]
    page.js("document.querySelectorAll('#tables details')[1].open = true")
    page.wait("document.querySelectorAll('#tables table').length === 2")
    assert "needs alexnet.pth" in page.text("#tables-body")
    for _ in range(2):  # what failed has no size, and stands last both ways
        page.click("#tables details:nth-of-type(2) thead th:nth-child(4) button")
        rows = page.js("[...document.querySelectorAll('#tables details:nth-of-type(2) tbody tr')]"
                       ".map((r) => r.className)")  # fmt: skip
        assert rows == ["", "", "", "failed"]


def test_profile_follows_and_leads(page):
    cursor = "document.querySelector('#profile .cursor').getAttribute('d')"
    before = page.js(cursor)
    page.key(".")
    page.key(".")
    page.wait(f"player.sync.at === 2 && {READY}")
    assert page.js(cursor) != before
    page.click("#profile-plot svg")
    page.wait(f"player.sync.at !== 2 && {READY}")
    assert page.js(SHOWN) == [page.js("player.sync.at")] * 2


def test_everything_is_reached_by_tab(page):
    page.js("document.activeElement.blur()")
    reached = set()
    for _ in range(60):
        page.key("Tab")
        reached.add(page.js("document.activeElement.id || document.activeElement.tagName"))
    wanted = {"pick-clip", "pick-a", "pick-b", "pick-rate", "divider", "play", "back", "forward",
              "frame", "speed", "show-difference", "curves-clip", "svg"}  # fmt: skip
    assert wanted <= reached


@pytest.mark.parametrize("width", [390, 320])
def test_a_phone_scrolls_in_one_direction_only(page, width):
    page.size(width, 844, mobile=True)
    page.js("new Promise(requestAnimationFrame)")  # the plots have taken their new width
    wide = page.js(
        "[...document.querySelectorAll('body *')]"
        ".filter((e) => !e.closest('.scroll, .hidden, .skip')"
        f" && e.getBoundingClientRect().right > {width} + 1).map((e) => e.outerHTML.slice(0, 80))"
    )
    assert wide == []
    assert page.js("document.documentElement.scrollWidth") <= width


def test_dark(page):
    paper = "getComputedStyle(document.body).backgroundColor"
    page.media(prefers_color_scheme="light")
    light = page.js(paper)
    page.media(prefers_color_scheme="dark")
    assert sum(json.loads(f"[{page.js(paper)[4:-1]}]")) < 120 < 600 < sum(
        json.loads(f"[{light[4:-1]}]")
    )  # fmt: skip


def test_large_videos_are_links(browser, folder, tmp_path):
    copy = tmp_path / "a folder"
    shutil.copytree(folder, copy)
    path = report.write(copy, copy / "pages" / "linked.html", max_embed_mb=0.001)
    assert (copy / "pages/plots/vmaf.svg").exists()
    assert path.stat().st_size < report.write(copy).stat().st_size
    page = Page(browser)
    page.open(path)
    page.wait(READY)
    assert "too large to be in this page" in page.text("#notices")
    assert sources(page)[1].endswith("/media/gvcc_default/first-0.02.mp4")
    page.key(".")
    page.wait(f"player.sync.at === 1 && {READY}")
    page.key("d")
    page.choose("#pick-clip", 1)
    page.wait(READY)
    assert page.errors == []
    page.close()


def test_ticks_of_frames_are_whole(page):
    assert page.js("linearTicks(1, 5, 10, 1)") == [1, 2, 3, 4, 5]
    assert page.js("linearTicks(0, 0.9, 4)") == [0, 0.5]
    assert page.js("linearTicks(1, 100, 4, 1)") == [50, 100]


def test_files_of_another_size_than_asked_for_are_marked(page, folder, browser, tmp_path):
    assert "≠" not in page.text("#tables-body") and "off the size" not in page.text("#notices")
    copy = tmp_path / "r"
    shutil.copytree(folder, copy)
    path = copy / "results/x265__eval.json"
    result = json.loads(path.read_text())
    result["cells"][1]["bits_per_pixel"] *= 1.2
    path.write_text(json.dumps(result))
    other = Page(browser)
    other.open(report.write(copy))
    other.wait(READY)
    assert "1 file is over 6 % off the size asked for" in other.text("#notices")
    assert other.text("#tables-body").count("≠ ") == 1
    assert other.errors == []
    other.close()


def test_long_names_do_not_stand_upright(browser, written):
    """A codec's name breaks where it must; the labels of rows do not."""
    page = Page(browser)
    page.open(written)
    page.js("document.querySelectorAll('#readings thead th').forEach((h) => "
            "{ h.textContent = 'gvcc:default+prior=wan2.1-t2v-1.3b+mode=i2v'; })")  # fmt: skip
    labels = "[...document.querySelectorAll('#readings tbody th')]"
    # Three lines at most.
    assert max(page.js(f"{labels}.map((h) => h.offsetHeight)")) < 100
    page.close()


# -- without a browser ------------------------------------------------------------------------


def test_plots(folder, written):
    names = {p.name for p in (folder / "plots").iterdir()}
    assert names == {f"{m}.{s}" for m in ("psnr_rgb_db", "vmaf", "tof", "fid_256")
                     for s in ("png", "svg")}  # fmt: skip
    drawn = (folder / "plots/vmaf.svg").read_text()
    assert drawn.startswith("<?xml")
    report.write(folder)
    assert (folder / "plots/vmaf.svg").read_text() == drawn


def test_mean_curve_counts_its_clips(folder):
    cells = report.read(folder).cells()["x265"]
    few, all_ = plots.mean_curve(cells, "vmaf")
    assert (few.rate, few.clips, few.value, few.bytes) == (0.02, 1, 47, 138)
    assert (all_.rate, all_.clips) == (0.1, 2)
    assert plots.mean_curve(cells, "lpips_alex") == []


def test_json_in_a_script_is_inert():
    text = report.script_json({"a": "</script><!--", "b": float("nan"), "c": [float("inf"), 1.5]})
    assert "<" not in text
    assert json.loads(text) == {"a": "</script><!--", "b": None, "c": [None, 1.5]}


def test_fields_are_not_looked_into(tmp_path):
    fields = {"x": "@@y@@", "y": "2"}
    report.write_page(tmp_path / "a.html", "@@x@@ @@videos@@ @@y@@", fields, {})
    assert (tmp_path / "a.html").read_text() == "@@y@@  2"


def test_a_folder_without_results_is_refused(folder, tmp_path):
    with pytest.raises(ConfigError, match="setup.json"):
        report.write(tmp_path)
    (tmp_path / "setup.json").write_text("{")
    with pytest.raises(ConfigError, match="no JSON"):
        report.write(tmp_path)
    shutil.copy(folder / "setup.json", tmp_path)
    with pytest.raises(ConfigError, match="no results of the set 'eval'"):
        report.write(tmp_path)


def test_a_results_file_cannot_reach_out(folder, tmp_path):
    (tmp_path / "secret.mp4").write_bytes(b"x")
    results = report.Results(tmp_path / "in", {}, [], {})
    (tmp_path / "in").mkdir()
    assert results.decoded({"video": "../secret.mp4"}) is None
    (tmp_path / "in/a.mp4").write_bytes(b"x")
    assert results.decoded({"video": "a.mp4"}) is not None


def test_what_the_setup_lacks_comes_from_the_cells():
    """A clip whose first cell failed has no size in the setup."""
    setup = {"clips": [{"name": "c", "frames": None, "fps": None}]}
    cells = [{"clip": "c"}, {"clip": "d", "frames": 3}, {"clip": "c", "frames": 5, "fps": "30/1.5"}]
    (clip,) = report.Results(Path(), setup, [{"cells": cells}], {}).clips()
    assert (clip["frames"], clip["hz"], clip["width"]) == (5, 20, None)
