"""Lost texture: levels, their symbols, how they are measured, and what a restorer is told."""

from __future__ import annotations

import json
from fractions import Fraction
from pathlib import Path

import numpy as np
import pytest
import torch
from cli_runner import Run
from hypothesis import given
from hypothesis import strategies as st
from PIL import Image
from test_restorer import config, video

from gvcc import codec
from gvcc.errors import Corrupt
from gvcc.format import levels, parser, texture
from gvcc.format.base import BaseRecord
from gvcc.format.levels import BLOCK, EVERY, LEVELS
from gvcc.pictures import base
from gvcc.pictures.basecodecs import Spool
from gvcc.priors.texture import blurred, lost, strength
from gvcc.search.textures import TextureMeter, lacking

# -- levels and symbols -----------------------------------------------------------------------


def test_shapes() -> None:
    assert [levels.shape(n, 1, 1)[0] for n in (1, 2, 17, 18, 33, 34)] == [1, 2, 2, 3, 3, 4]
    assert levels.shape(1, 33, 32) == (1, 2, 1)


def test_levels_and_deviations() -> None:
    all_levels = np.arange(LEVELS, dtype=np.uint8)
    deviations = levels.deviation(all_levels)
    assert deviations[0] == 0 and np.allclose(deviations[3::2], 2.0 ** np.arange(6))
    assert np.allclose(levels.fraction(deviations)[1:], all_levels[1:])
    assert levels.fraction(np.float32([0, 0.3, 1e9])).tolist() == [0, 0, LEVELS - 1]


@given(st.data())
def test_symbols_say_the_levels(data: st.DataObject) -> None:
    shape = tuple(data.draw(st.integers(1, n)) for n in (4, 6, 6))
    random = np.random.default_rng(data.draw(st.integers(0, 2**32)))
    wanted = random.integers(0, data.draw(st.integers(1, LEVELS)), shape, dtype=np.uint8)
    coded = texture.write(wanted)
    assert len(coded) % 4 == 0
    assert np.array_equal(texture.read(coded, shape), wanted)


def test_what_is_alike_costs_little() -> None:
    random = np.random.default_rng(0)
    first = np.full((8, 15), 6) + random.integers(0, 2, (8, 15))
    same = np.stack([first] * 3).astype(np.uint8)
    alone, three = len(texture.write(same[:1])), len(texture.write(same))
    assert alone < 30 and three < alone + 20
    noise = random.integers(0, LEVELS, (3, 8, 15), dtype=np.uint8)
    assert len(texture.write(noise)) > 3 * three


def test_no_symbols_are_no_texture() -> None:
    assert not texture.read(b"", (2, 3, 4)).any()


@pytest.mark.parametrize("data", [b"\x12\x34\x56\x78", bytes(range(8))])
def test_too_few_symbols(data: bytes) -> None:
    with pytest.raises(Corrupt):
        texture.read(data, (3, 8, 15))


@given(st.binary(max_size=40))
def test_any_words_are_levels_or_corrupt(data: bytes) -> None:
    words = data[: len(data) // 4 * 4]
    try:
        found = texture.read(words, (2, 3, 4))
    except Corrupt:
        return
    assert found.max() < LEVELS


# -- measure ----------------------------------------------------------------------------------


def noise(frames: int, height: int, width: int, deviation: float) -> np.ndarray:
    random = np.random.default_rng(7)
    grey = 128 + deviation * random.standard_normal((frames, height, width, 1))
    return grey.round().clip(0, 255).astype(np.uint8).repeat(3, 3)


def flat(frames: int, height: int, width: int) -> np.ndarray:
    return np.full((frames, height, width, 3), 128, np.uint8)


def test_lost_is_of_its_block() -> None:
    own = noise(1, 96, 96, 12)
    own[:, :64] = 128
    top, near, busy = lost(own, flat(1, 96, 96))[0].max(1)
    assert top < 0.1 and near < 0.5 * busy
    assert lost(noise(2, 40, 33, 9), flat(2, 40, 33)).shape == (2, 2, 2)
    assert lost(noise(1, 3, 2, 9), flat(1, 3, 2)).shape == (1, 1, 1)
    assert not lost(own, own).any()


def test_lost_is_fine_and_everywhere() -> None:
    """Neither a slope nor edges are texture, whatever the error there."""
    plain = flat(1, 64, 64)
    slope, edges = plain.copy(), plain.copy()
    slope[:] = np.linspace(60, 200, 64)[:, None].astype(np.uint8)
    edges[:, :, ::16] = 255
    assert lost(slope, plain).max() < 2
    per_power = [lost(x, plain).max() / (x - 128.0).std() for x in (edges, noise(1, 64, 64, 16))]
    assert per_power[0] < 0.2 * per_power[1]


def test_even_noise_is_told_at_its_strength() -> None:
    """Of white noise that is what the filters leave."""
    white = noise(4, 128, 128, 16)
    luma = torch.from_numpy(white[:, None, ..., 0].astype(np.float32))
    band = blurred(luma, 0.6) - blurred(luma, 2.4)
    found = lost(white, flat(4, 128, 128)).mean()
    assert 1.4 < found / float(band.std()) < 1.7


def deviations(frames: int, first: float, last: float) -> np.ndarray:
    return np.geomspace(first, last, frames).astype(np.float32)[:, None, None]


def test_levels_stay_where_little_changes() -> None:
    found = lacking(deviations(33, 4, 4))
    assert found.shape == (3, 1, 1) and (found == 7).all()
    grows = lacking(deviations(33, 4, 20))[:, 0, 0].tolist()
    assert 7 <= grows[0] <= 8 and grows[1] > grows[0] and grows[2] > grows[1]
    assert (lacking(deviations(33, 4, 5)) == 7).all()


def meter(pictures: np.ndarray) -> tuple[TextureMeter, BaseRecord]:
    """A meter of them, and a rough base of theirs."""
    t, h, w, _ = pictures.shape
    kept = Spool(h, w, rgb=True)
    spool = base.spooled(pictures, h, w, (1,), kept)[1]
    coded = base.coded(spool, "av1", 1, Fraction(25), base.codec("av1").coarsest, "9")
    spool.close()
    return TextureMeter(kept), coded


def test_no_more_bytes_than_there_are() -> None:
    pictures = noise(18, 96, 128, 2)
    pictures[12:] = noise(6, 96, 128, 30)
    found, coded = meter(pictures)
    whole = found.lost(coded)
    shape = levels.shape(18, 96, 128)
    read = texture.read(whole, shape)
    assert (read[0] < read[2]).all()
    assert found.lost(coded, len(whole)) == whole
    still = found.lost(coded, len(whole) - 1)
    assert 0 < len(still) < len(whole)
    read = texture.read(still, shape)
    assert (read == read[0]).all()
    assert found.lost(coded, 3) == b""


# -- what a restorer is told ------------------------------------------------------------------


def test_strength_between_blocks_and_maps() -> None:
    found = np.array([[[0, 11]], [[7, 11]]], np.uint8)
    first, later = (strength(found, i, 40, 72) * 255 for i in (0, EVERY // 2))
    assert first.shape == (10, 18)
    middle = BLOCK // 8  # of a block, in values
    assert np.allclose(first[:, : middle - 1], 0) and np.allclose(first[:, -5:], 16)
    assert (np.diff(first[0]) >= 0).all()
    assert np.allclose(later[:, : middle - 1], 2) and np.allclose(later[:, -5:], 16)
    assert np.array_equal(strength(found, EVERY, 40, 72), strength(found, EVERY + 5, 40, 72))


def test_a_file_says_its_texture_and_shows_it() -> None:
    """Pictures have more fine detail than their base's where that had lost some."""
    clip = video(3)
    clip.frames[:] = noise(3, *clip.frames.shape[1:3], 14)
    found = codec.encode(clip, config(size=400, knob=1.0, gop=3))
    coded = parser.parse(found.data).gops[0].base
    assert coded is not None and coded.restored and coded.texture
    shown = np.stack([*base.decode(coded, *clip.frames.shape[1:3], 3)])
    own, made, plain = (float(lost(x, shown).mean()) for x in (clip.frames, found.frames, shown))
    assert own > 5 and 0.2 * own < made < 1.2 * own and plain == 0
    again = codec.decode(found.data)
    assert np.array_equal(again.frames, found.frames)


def test_fidelity_has_no_texture() -> None:
    """At k = 2 nothing of it would be heard."""
    for knob, told in ((1.0, True), (1.9, True), (2.0, False)):
        coded = parser.parse(codec.encode(video(3), config(knob=knob, gop=3)).data).gops[0].base
        assert coded is not None and coded.restored and bool(coded.texture) == told


def test_inspect_names_the_bytes_and_no_trajectory(run: Run, tmp_path: Path) -> None:
    path = tmp_path / "a.gvcc"
    path.write_bytes(codec.encode(video(3), config(size=600, gop=3)).data)
    table = run("inspect", str(path)).out.decode()
    assert "textures" in table and "restorer" in table
    assert not any(word in table for word in ("codebook", "g_scale", "hadamard", "multistep"))
    found = json.loads(run("inspect", "--json", str(path)).out)
    assert found["where"]["textures"] == found["gops"][0]["base"]["texture_bytes"] > 0
    assert sum(found["where"].values()) == path.stat().st_size


def test_a_small_picture_is_above_the_usual_rate_and_says_so(run: Run, tmp_path: Path) -> None:
    folder = tmp_path / "frames"
    folder.mkdir()
    for i, picture in enumerate(noise(3, 16, 16, 30)):
        Image.fromarray(picture).save(folder / f"{i}.png")
    done = run("encode", str(folder), "-o", str(tmp_path / "b.gvcc"))
    assert "above the usual 0.05 bits a pixel: its bases are no smaller" in done.err
    done = run("encode", str(folder), "-o", str(tmp_path / "c.gvcc"), "--size", "900")
    assert "above the usual" not in done.err
