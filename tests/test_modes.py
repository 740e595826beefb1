"""All modes: exact to the bit, within their target, and no atoms for what references fix."""

from __future__ import annotations

import functools
import hashlib
import subprocess
import sys
from dataclasses import replace
from fractions import Fraction
from pathlib import Path
from typing import Any

import decoding
import numpy as np
import pytest
from test_roundtrip import clip, psnr

import gvcc
from gvcc import codec, priors
from gvcc.decode import codebook, trajectory
from gvcc.decode.session import Session
from gvcc.decoder import decode_record
from gvcc.errors import ConfigError
from gvcc.format import parser
from gvcc.pictures import stills
from gvcc.pictures.media import Video
from gvcc.search.config import EncodeConfig
from gvcc.search.plan import MODES

CASES: dict[str, dict[str, Any]] = {
    "t2v": {}, "t2v-overlap": {"overlap": 3}, "i2v": {}, "i2v-refresh": {"refresh": 2},
    "i2v-plain": {"residual": "off"}, "flf2v": {}, "auto": {}, "overlap": {"overlap": 1},
    "overlap-blend": {"overlap": 5, "gop": 13, "alignment": "blend"},
    "t2v-longer-overlap": {"overlap": 5, "gop": 13},
    "overlap-refresh": {"overlap": 5, "gop": 13, "refresh": 2},
}  # fmt: skip
DECODE = """
import hashlib, sys
import gvcc
for name in sys.argv[1:]:
    print(hashlib.sha256(gvcc.decode(open(name, "rb").read()).frames.tobytes()).hexdigest())
"""
CODERS: dict[str, dict[str, Any]] = {
    "default": {}, "paper": {"preset": "paper", "codebook": 256}, "rcc": {"coder": "rcc"},
}  # fmt: skip


@pytest.fixture(autouse=True)
def quick_stills(monkeypatch: pytest.MonkeyPatch) -> None:
    """AV1 for stills: its encoder starts ten times faster than VVC's."""
    monkeypatch.setattr(stills, "ffmpeg", lambda: None)


@functools.cache
def prior() -> priors.Prior:
    return priors.load("gauss")


@functools.cache
def made(
    case: str, frames: int, size: int, gop: int = 9, coder: str = "default"
) -> tuple[Video, codec.Encoding]:
    """A clip of 17 x 33 and what one of the cases makes of it."""
    video = clip(frames, 17, 33)
    return video, codec.encode(video, config(case, size, gop, coder), prior())


def config(case: str, size: int, gop: int = 9, coder: str = "default") -> EncodeConfig:
    settings = {"gop": gop} | CASES[case] | CODERS[coder]
    if case == "auto" and coder != "paper":
        settings["base"] = "av1"  # starts ten times faster than VVC
    return EncodeConfig(mode=case.split("-")[0], size=size, **settings)


@pytest.mark.parametrize("case", CASES)
@pytest.mark.parametrize(
    ("coder", "frames", "gop", "size"),
    [
        ("default", 1, 9, 400), ("default", 2, 9, 500), ("default", 34, 9, 1000),
        ("default", 70, 33, 800), ("paper", 1, 9, 400), ("paper", 34, 17, 800),
        ("rcc", 34, 9, 1000),
    ],
)  # fmt: skip
def test_the_decoder_shows_the_encoders_pictures_and_the_file_lands_just_under_its_target(
    case: str, coder: str, frames: int, gop: int, size: int
) -> None:
    video, encoded = made(case, frames, size, gop, coder)
    back = codec.decode(encoded.data, prior())
    assert back.frames.shape == video.frames.shape
    assert np.array_equal(back.frames, encoded.frames)
    # The finest base of such small pictures has fewer bytes than it may.
    based = any(r.base for r in parser.parse(encoded.data).gops)
    assert (0 if based else size - 64) <= len(encoded.data) <= size
    assert psnr(video.frames, back.frames) > 12


@pytest.mark.parametrize("mode", [m for m in MODES if m != "v2v"])  # tests/test_v2v.py has it
@pytest.mark.parametrize("more", [0, 20, 120])
def test_the_smallest_targets_are_kept_too(mode: str, more: int) -> None:
    video = clip(34, 33, 17)
    with pytest.raises(gvcc.TargetUnreachable) as caught:
        codec.encode(video, EncodeConfig(mode=mode, size=1), prior())
    size = caught.value.smallest + more
    encoded = codec.encode(video, EncodeConfig(mode=mode, size=size), prior())
    assert size - 64 <= len(encoded.data) <= size
    assert np.array_equal(codec.decode(encoded.data, prior()).frames, encoded.frames)


@pytest.mark.parametrize("mode", ["t2v", "i2v", "flf2v"])
def test_large_files_keep_to_the_hundredth(mode: str) -> None:
    video = clip(10, 32, 48)
    encoded = codec.encode(video, EncodeConfig(mode=mode, gop=5, size=9000), prior())
    assert 8910 <= len(encoded.data) <= 9000


@pytest.mark.slow
def test_a_second_process_shows_the_same(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.undo()  # the stills that a user gets
    want, files = [], []
    for case, coder in (
        ("t2v-overlap", "default"), ("i2v", "default"), ("flf2v", "default"), ("auto", "default"),
        ("t2v", "rcc"), ("overlap-refresh", "rcc"), ("overlap-blend", "rcc"),
        ("overlap-blend", "default"),
    ):  # fmt: skip
        encoded = codec.encode(clip(22, 33, 47), config(case, 900, coder=coder), prior())
        files.append(tmp_path / f"{case}-{coder}")
        files[-1].write_bytes(encoded.data)
        want.append(hashlib.sha256(encoded.frames.tobytes()).hexdigest())
    run = [sys.executable, "-c", DECODE, *map(str, files)]
    got = subprocess.run(run, capture_output=True, check=True, text=True).stdout.split()
    assert got == want


# -- what references are worth ----------------------------------------------------------------


@pytest.mark.parametrize("coder", ["default", "paper"])
@pytest.mark.parametrize("case", ["t2v", "i2v", "flf2v", "overlap-refresh"])
def test_known_latent_frames_take_no_atoms(
    case: str, coder: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Neither choose nor replay sees them, and the symbols hold what was chosen and no more."""
    chosen: dict[tuple[int, int], int] = {}
    for kind in (codebook.Hadamard, codebook.Gaussian):

        def choose_all(self: Any, asked: Any, real: Any = kind.choose_all) -> Any:
            for _, m, where in asked:
                at = where.gop, where.frame
                chosen[at] = chosen.get(at, 0) + m
            return real(self, asked)

        monkeypatch.setattr(kind, "choose_all", choose_all)
    encoded = codec.encode(clip(20, 17, 33), config(case, 1200, coder=coder), prior())
    stream = parser.parse(encoded.data)
    session = Session(stream.header, prior())
    for i, record in enumerate(stream.gops):
        frames = (record.gop.length(4) - 1) // 4 + 1
        known = {"none": 0, "previous": (record.gop.context - 1) // 4 + 1}
        free = list(range(known.get(record.gop.first, 1), frames - record.gop.last))
        assert sorted(f for g, f in chosen if g == i) == free
        shape = session.shape(record.gop)
        read = trajectory.Read(session.coder(), stream.header, i, record, shape, free)
        counts = dict.fromkeys(free, 0)
        for step in range(record.stop):
            for f, symbols in read.symbols(step).items():
                counts[f] += len(symbols)
        assert counts == {f: chosen[i, f] for f in free} and sum(counts.values()) > 0
        if coder == "paper":
            assert record.atoms + record.tail_atoms == sum(counts.values())
            front = [counts[f] for f in free[:-2]]
            if case == "i2v" and front:  # M_tail
                assert counts[free[-1]] == pytest.approx(2 * front[0], rel=0.15)


def test_the_pictures_of_a_reference_are_those_of_its_still() -> None:
    """But for what the autoencoder loses."""
    encoded = made("flf2v", 33, 1600)[1]
    gops = parser.parse(encoded.data).gops
    places = [0, *(g.gop.end - 1 for g in gops)]
    assert places == [0, 8, 16, 24, 32]
    for i, still in enumerate(still for g in gops for still in g.stills):
        near = [psnr(stills.decode(still, 17, 33), encoded.frames[at]) for at in places]
        assert near.index(max(near)) == i and near[i] > 20


def test_flf2v_codes_each_boundary_once() -> None:
    for count in (1, 4):
        encoded = made("flf2v", 8 * count + 1, 400 * count)[1]
        gops = parser.parse(encoded.data).gops
        assert [g.gop.frames for g in gops] == [9] * count
        assert sum(len(g.stills) for g in gops) == count + 1
        assert all(still for g in gops for still in g.stills)


def test_i2v_refreshes_its_still_and_codes_residuals_where_a_chain_goes_on() -> None:
    for case, stills_at, residual_at in (
        ("i2v", [0], {0, 1}), ("i2v-refresh", [0, 2], {0}), ("i2v-plain", [0], set()),
    ):  # fmt: skip
        gops = parser.parse(made(case, 13, 2400, 5)[1].data).gops
        assert len(gops) == 3
        assert [i for i, g in enumerate(gops) if g.stills] == stills_at
        assert {i for i, g in enumerate(gops) if g.residual} == residual_at


def test_the_residual_takes_the_last_picture_nearer() -> None:
    video, encoded = made("i2v", 13, 2400, 5)
    stream = parser.parse(encoded.data)
    session = Session(stream.header, prior())
    assert [bool(r.residual) for r in stream.gops] == [True, True, False]
    for i, (record, _, _, before) in enumerate(decoding.made(stream, prior())):
        errors = []
        for given in (replace(record, residual=b""), record):
            latent = decode_record(session, i, given, before, lambda *_: None).latent
            shown = session.render(record, latent)
            errors.append(psnr(video.frames[record.gop.end - 1], shown[-1]))
            if i + 1 < len(stream.gops):  # only the last latent frame's pictures change
                want = encoded.frames[record.gop.start + record.gop.skip : record.gop.end - 4]
                assert np.array_equal(shown[record.gop.skip : -4], want)
        assert (errors[1] > errors[0] + 0.3) == bool(record.residual)


def test_auto_chooses_by_content_and_its_choice_is_in_the_file() -> None:
    """A still scene is cheapest from references or as a base; noise is no reference for other
    noise."""
    rng = np.random.default_rng(3)
    scene = np.kron(rng.integers(0, 256, (1, 8, 12, 3)), np.ones((9, 4, 4, 1)))
    noise = rng.integers(0, 256, (9, 32, 48, 3))
    video = Video(np.concatenate([scene, noise]).astype(np.uint8), Fraction(24))
    encoded = codec.encode(video, EncodeConfig(mode="auto", base="av1", gop=9, size=2000), prior())
    gops = [r.gop for r in parser.parse(encoded.data).gops]
    modes = {"scene": {g.mode for g in gops if g.end <= 9},
             "noise": {g.mode for g in gops if g.start + g.skip >= 9}}  # fmt: skip
    assert "t2v" not in modes["scene"] and not modes["noise"] & {"i2v", "flf2v"}
    assert np.array_equal(codec.decode(encoded.data, prior()).frames, encoded.frames)


def test_no_reference_crosses_a_scene_cut() -> None:
    one, two = clip(13, 32, 48), 255 - clip(12, 32, 48, seed=5).frames[:, ::-1]
    video = Video(np.concatenate([one.frames, two]), one.fps)
    for mode, cuts in (("i2v", True), ("i2v", False), ("flf2v", True)):
        asked = EncodeConfig(mode=mode, gop=9, size=900, cuts=cuts)
        gops = [r.gop for r in parser.parse(codec.encode(video, asked, prior()).data).gops]
        assert (13 in {g.start for g in gops if not g.skip}) == cuts


def test_another_knob_would_break_a_chain() -> None:
    data = made("i2v", 34, 1000)[1].data
    with pytest.raises(ConfigError, match="another knob would change them"):
        codec.decode(data, prior(), knob=1.0)
    sharp, soft = (codec.decode(made("flf2v", 34, 1000)[1].data, prior(), knob=k).frames
                   for k in (1.0, 2.0))  # fmt: skip
    assert not np.array_equal(sharp, soft)


def test_a_clip_that_ends_too_soon_is_an_error() -> None:
    class Short(Video):
        @property
        def count(self) -> int:
            return len(self.frames) + 1

    video = clip(12, 32, 32)
    with pytest.raises(gvcc.MediaError, match="ends at frame 12, before it should"):
        codec.encode(Short(video.frames, video.fps), EncodeConfig(size=900, gop=9), prior())
