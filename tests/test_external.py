"""Codecs that are commands, and raw video files."""

from __future__ import annotations

import re
import sys
from collections.abc import Callable
from fractions import Fraction
from pathlib import Path

import numpy as np
import pytest

from gvcc.errors import ConfigError, GvccError, MediaError
from gvcc.eval import baselines, cells, external
from gvcc.eval.cells import Job, Source
from gvcc.eval.external import Adapter, Coded, read_raw
from gvcc.records import Video

T, H, W = 5, 48, 64
PIXELS = T * H * W
# A codec of the tests' own: the samples without their `q` lowest bits, packed by zlib. `how` makes
# it misbehave; what it was called with goes to a file beside itself.
SCRIPT = """
import pathlib, sys, zlib
how, what, source, out, q = sys.argv[1:]
q, source, out = int(q), pathlib.Path(source), pathlib.Path(out)
with pathlib.Path(__file__).with_suffix(".log").open("a") as log:
    log.write(f"{what} {q}\\n")
if how == f"fail-{what}-{q}":
    sys.stderr.write("one\\nno such luck\\n")
    sys.exit(7)
if how == f"bytes-{what}-{q}":
    sys.stderr.buffer.write(b"caf\\xe9")
    sys.exit(1)
if how == f"nothing-{what}-{q}":
    sys.exit()
if what == "encode":
    data = zlib.compress(bytes(b >> q << q for b in source.read_bytes()))
    if how == "folder":
        (out / "parts").mkdir(parents=True)
        (out / "head").write_bytes(data[:10])
        (out / "parts/rest").write_bytes(data[10:])
    else:
        out.write_bytes(b"" if how == f"empty-encode-{q}" else data)
else:
    if source.is_dir():
        data = (source / "head").read_bytes() + (source / "parts/rest").read_bytes()
    else:
        data = source.read_bytes()
    raw = zlib.decompress(data)
    more = {"short": -len(raw) * 2 // 5, "long": len(raw) // 5}.get(how, 0)
    out.write_bytes((raw + raw)[: len(raw) + more])
"""
Make = Callable[..., Coded]


@pytest.fixture(scope="module")
def video() -> Video:
    y, x = np.mgrid[0:H, 0:W]
    rng = np.random.default_rng(0)
    frames = np.stack([np.stack([x * 3 + 5 * t, y * 4, x + y + 8 * t], -1) for t in range(T)])
    return Video((frames + rng.integers(0, 20, frames.shape)).clip(0, 255).astype(np.uint8),
                 Fraction(30000, 1001))  # fmt: skip


def table(folder: Path, how: str = "well", qualities: str = "[0, 2, 4, 6]", more: str = "") -> Path:
    """The TOML file with the codec `mine`."""
    (folder / "mine.py").write_text(SCRIPT)
    call, path = f"{sys.executable} {folder}/mine.py {how}", folder / "adapters.toml"
    path.write_text(
        f'[mine]\nencode = "{call} encode {{source}} {{coded}} {{quality}}"\n'
        f'decode = "{call} decode {{coded}} {{decoded}} {{quality}}"\n'
        f"qualities = {qualities}\n{more}"
    )
    return path


@pytest.fixture
def make(tmp_path: Path, video: Video) -> Make:
    def of(how: str = "well", qualities: str = "[0, 2, 4, 6]", more: str = "") -> Coded:
        return Coded(external.load(str(table(tmp_path, how, qualities, more)))["mine"], video)

    return of


def log(folder: Path) -> list[str]:
    return (folder / "mine.log").read_text().splitlines()


def test_of_all_qualities_the_nearest_size_is_taken(make: Make, video: Video, tmp_path: Path):
    coded = make()
    coded(1.0)
    sizes = list(coded.sizes.values())
    assert sizes == sorted(sizes, reverse=True) and len(set(sizes)) == 4
    errors = []
    for size, quality in zip(sizes, (0, 2, 4, 6), strict=True):
        for near in (0.97, 1.03):
            got = coded(near * size * 8 / PIXELS)
            assert got.size == len(got.stream) == size and got.about["quality"] == quality
            assert "coded files" in got.about["size_rule"] and got.seconds > 0
        shown = got.decode()
        assert shown.shape == video.frames.shape and shown.dtype == np.uint8
        errors.append(np.square(shown.astype(float) - video.frames).mean())
    assert errors == sorted(errors) and errors[0] < 60 < 200 < errors[3]
    # Between two sizes the ratio counts; far off, the last one.
    middle = (sizes[0] * sizes[1]) ** 0.5 * 8 / PIXELS
    assert coded(middle * 1.01).size == sizes[0] and coded(middle * 0.99).size == sizes[1]
    assert coded(20).size == sizes[0] and coded(1e-3).size == sizes[3]
    # Each quality was encoded once, whatever was asked for afterwards.
    calls = log(tmp_path)
    assert [c for c in calls if c.startswith("encode")] == [f"encode {q}" for q in (0, 2, 4, 6)]
    assert [c for c in calls if c.startswith("decode")] == [f"decode {q}" for q in (0, 2, 4, 6)]


def test_ten_bits_lose_less(make: Make, video: Video) -> None:
    error = []
    for more in ("", 'pixels = "yuv444p10le"'):
        shown = make(qualities="[0]", more=more)(1.0).decode()
        error.append(np.square(shown.astype(float) - video.frames).mean())
    assert error[1] < 1 < error[0]


def test_all_files_of_a_folder_count(make: Make) -> None:
    single = make("well")
    single(1.0)
    several = make("folder")
    several(1.0)
    assert several.sizes == single.sizes
    assert several(1.0).stream == b"" and len(single(1.0).stream) == single(1.0).size
    assert several(1.0).decode().shape == (T, H, W, 3)


@pytest.mark.parametrize(
    ("how", "says"),
    [
        ("fail-encode-2", f"^{re.escape(sys.executable)} ended with 7: no such luck$"),
        ("bytes-encode-2", "ended with 1: caf\ufffd$"),
        ("nothing-encode-2", "^the encoder left nothing at coded1$"),
        ("empty-encode-2", "^the encoder left nothing at coded1$"),
    ],
)
def test_an_encoder_that_fails(how: str, says: str, make: Make, tmp_path: Path) -> None:
    coded = make(how)
    for _ in range(2):  # the second rate must not do with the qualities before the failure
        with pytest.raises(MediaError, match=says):
            coded(1.0)


def test_a_decoder_that_fails(make: Make) -> None:
    decode = make("fail-decode-2", qualities="[2]")(1.0).decode
    with pytest.raises(MediaError, match="ended with 7: no such luck$"):
        decode()
    decode = make("nothing-decode-2", qualities="[2]")(1.0).decode
    with pytest.raises(MediaError, match="the decoder left nothing at {decoded}"):
        decode()
    decode = make("short", qualities="[2]")(1.0).decode
    with pytest.raises(MediaError, match="decoded.yuv has 3 frames, 5 are needed"):
        decode()
    decode = make("long", qualities="[2]")(1.0).decode
    with pytest.raises(MediaError, match="decoded.yuv has 6 frames, 5 are needed"):
        decode()


def test_what_an_earlier_decode_left_is_not_taken(make: Make) -> None:
    coded = make("nothing-decode-6")
    assert coded(20).decode().shape == (T, H, W, 3)
    with pytest.raises(MediaError, match="the decoder left nothing at {decoded}"):
        coded(1e-3).decode()


def test_a_program_that_is_not_there(video: Video) -> None:
    coded = Coded(Adapter("/none/enc {source} {coded}", "true", (1,)), video)
    with pytest.raises(MediaError, match="^/none/enc: No such file or directory$"):
        coded(1.0)


def test_folders_with_blanks(tmp_path: Path, video: Video, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "a b'c").mkdir()
    monkeypatch.setattr("tempfile.tempdir", str(tmp_path / "a b'c"))
    coded = Coded(Adapter("cp {source} {coded}", "cp {coded} {decoded}", (1,)), video)
    assert coded(1.0).size == PIXELS * 3 // 2 and coded(1.0).decode().shape == (T, H, W, 3)


def test_the_clip_is_told_to_the_commands(tmp_path: Path, video: Video) -> None:
    words = "{width} {height} {frames} {fps} {quality}"
    shell = f"sh -c 'echo {words} > {tmp_path}/told; cp {{source}} {{coded}}'"
    assert Coded(Adapter(shell, "true", (3.5,)), video)(1.0).about["quality"] == 3.5
    told = (tmp_path / "told").read_text().split()
    assert told == ["64", "48", "5", str(30000 / 1001), "3.5"]


GOOD = 'encode = "a {source} {coded}"\ndecode = "b {coded} {decoded}"\nqualities = [1]\n'


@pytest.mark.parametrize(
    ("text", "says"),
    [
        ("[mine\n", "Expected"),
        ("mine = 1\n", "mine is no table"),
        ("[x265]\n" + GOOD, "x265. is the name of another codec"),
        (
            "[mine]\n" + GOOD.replace("qualities", "quality"),
            ".mine. has 'quality'; known are encode",
        ),
        ("[mine]\n" + GOOD.replace("encode", "code"), "code"),
        ("[mine]\n" + "\n".join(GOOD.splitlines()[1:]), "lacks 'encode'"),
        ("[mine]\n" + GOOD + "bits = 8\n", "'bits'"),
        ("[mine]\n" + GOOD.replace("[1]", "1"), "expected a list of numbers"),
        ("[mine]\n" + GOOD.replace("[1]", "['a']"), "expected a list of numbers"),
        ("[mine]\n" + GOOD.replace("[1]", "[]"), "qualities"),
        ("[mine]\n" + GOOD.replace("{coded}", "{nonsense}"), "nonsense"),
        ("[mine]\n" + GOOD.replace("{decoded}", "{nonsense}"), "nonsense"),
        ("[mine]\n" + GOOD.replace("{coded}", "{}"), "adapters"),
        ("[mine]\n" + GOOD.replace("{coded}", "{coded"), "adapters"),
        ("[mine]\n" + GOOD.replace('"a {source} {coded}"', "5"), "expected text"),
        ("[mine]\n" + GOOD.replace('"a {source} {coded}"', '""'), "adapters"),
        ("[mine]\n" + GOOD.replace("a {source}", "'a {source}"), "quot"),
        ("\xff", "adapters"),
    ],
)
def test_a_table_that_is_none_is_refused(text: str, says: str, tmp_path: Path) -> None:
    path = tmp_path / "bad.toml"
    path.write_bytes(text.encode("latin-1"))
    with pytest.raises(ConfigError, match=says) as caught:
        cells.check("mine", str(path))
    assert str(caught.value).startswith(f"adapters {path}: ")
    assert "\n" not in str(caught.value)
    path = tmp_path / "good.toml"
    path.write_text("[mine]\n" + GOOD)
    cells.check("mine", str(path))


def test_a_cell_of_an_adapter(tmp_path: Path, video: Video) -> None:
    """As an evaluation runs it: from a raw file to numbers, failures as sentences."""
    yuv = tmp_path / "clip.yuv"
    yuv.write_bytes(raw_of(video, "yuv420p"))
    source = Source("clip", str(yuv), 4, None, (W, H, "yuv420p", "30"))
    path = str(table(tmp_path, "fail-decode-6"))
    made = list(cells.run(Job("mine", source, (20.0, 1e-3), ("psnr_rgb_db",), adapters=path)))
    good, bad = (m.cell for m in made)
    assert good["status"] == "ok" and good["frames"] == 4 and good["quality"] == 0
    assert good["metrics"]["psnr_rgb_db"] > 40  # the source itself has been through 4:2:0
    assert bad["status"] == "failed" and bad["error"].endswith("ended with 7: no such luck")


# -- raw files --------------------------------------------------------------------------------


def raw_of(video: Video, pixels: str) -> bytes:
    command = f"{baselines.RAW_RGB} {baselines.TO_YUV},format={pixels} -f rawvideo -"
    given = baselines.fields(video.frames, video.fps)
    return baselines.ffmpeg(command, video.frames.tobytes(), **given)


@pytest.mark.parametrize(
    ("pixels", "each"), [("yuv420p", 3 / 2), ("yuv420p10le", 3), ("yuv444p12le", 6)]
)
def test_raw_files_of_8_and_more_bits(
    pixels: str, each: float, tmp_path: Path, video: Video
) -> None:
    path = tmp_path / "a.yuv"
    path.write_bytes(raw_of(video, pixels))
    assert path.stat().st_size == PIXELS * each
    raw = (W, H, pixels, "30000/1001")
    whole = read_raw(path, raw, None)
    assert whole.frames.shape == video.frames.shape and whole.fps == video.fps
    assert np.square(whole.frames.astype(float) - video.frames).mean() < 60
    for n in (1, 3, T):
        assert np.array_equal(read_raw(path, raw, n).frames, whole.frames[:n])
    with pytest.raises(MediaError, match=r"a.yuv has 5 frames, 6 are needed"):
        read_raw(path, raw, 6)


def test_grey_levels_of_raw_files(tmp_path: Path) -> None:
    """Limited range: 16 is black and 235 white, in 10 bits four times as much."""
    for pixels, unit, kind in (("yuv420p", 1, np.uint8), ("yuv420p10le", 4, "<u2")):
        y = np.full((16, 16), 235 * unit, kind)
        y[:8] = 16 * unit
        (tmp_path / "g.yuv").write_bytes(y.tobytes() + np.full(128, 128 * unit, kind).tobytes())
        shown = read_raw(tmp_path / "g.yuv", (16, 16, pixels, "25"), 1).frames[0]
        assert (shown[:8] == 0).all() and (shown[8:] == 255).all()


def test_raw_files_that_are_none(tmp_path: Path) -> None:
    path = tmp_path / "a.yuv"
    raw = (16, 16, "yuv420p", "25")
    with pytest.raises(MediaError, match="a.yuv: No such file"):
        read_raw(path, raw, None)
    path.write_bytes(b"")
    for frames in (None, 1):
        with pytest.raises(MediaError):
            read_raw(path, raw, frames)
    path.write_bytes(bytes(16 * 16))
    with pytest.raises(GvccError):
        read_raw(path, raw, 1)
    with pytest.raises(MediaError, match="nonsense"):
        read_raw(path, (16, 16, "nonsense", "25"), 1)
