"""GOPs that share frames: blended latents, pinned latents, cross-fades; parts and damage of such
streams (test_modes and test_streaming have what they share with the other modes)."""

from __future__ import annotations

import functools
from dataclasses import replace
from io import BytesIO
from typing import Any

import decoding
import numpy as np
import pytest
import tiny_prior
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from test_roundtrip import clip, psnr

import gvcc
from gvcc import codec
from gvcc.decode.assemble import blend
from gvcc.decode.session import Session
from gvcc.format import parser
from gvcc.format.gop import ALIGNMENTS, needed
from gvcc.pictures import stills
from gvcc.priors import Prior
from gvcc.search.config import EncodeConfig
from gvcc.search.plan import SHARING

FRAMES, GOP, SIZE = 34, 13, 1800


pytestmark = pytest.mark.usefixtures("short_schedules")


@functools.cache
def prior() -> Prior:
    return tiny_prior.load()


@functools.cache
def made(alignment: str, **more: Any) -> codec.Encoding:
    settings = {"overlap": 5, "size": SIZE, "coder": "rcc"} | more
    how = {"mode": "t2v"} if alignment == "fade" else {"mode": "overlap", "alignment": alignment}
    asked = EncodeConfig(gop=GOP, **how, **settings)
    return codec.encode(clip(FRAMES, 33, 49), asked, prior())


# -- blending ---------------------------------------------------------------------------------


@settings(deadline=None, max_examples=30)
@given(st.integers(1, 4), st.integers(0, 3), st.integers(0, 99))
def test_equal_latents_are_blended_to_themselves(count: int, more: int, seed: int) -> None:
    g = torch.Generator().manual_seed(seed)
    before = 50 * torch.randn(3, count + more, 4, 5, generator=g)
    after = torch.cat([torch.randn(3, 1, 4, 5, generator=g), before[:, more:],
                       torch.randn(3, more, 4, 5, generator=g)], 1)  # fmt: skip
    one, two = blend(before, after, count)
    assert torch.equal(one, before) and torch.equal(two, after)


@pytest.mark.parametrize("count", [0, 1, 2, 3])
def test_the_weights_of_a_blend(count: int) -> None:
    """(j + 1) / (count + 1) of the newer GOP; nothing but the shared frames changes, in place
    least of all."""
    before, after = torch.zeros(2, 5, 3, 3), torch.ones(2, 6, 3, 3)
    one, two = blend(before, after, count)
    want = [(j + 1) / (count + 1) for j in range(count)]
    assert one[0, :, 0, 0].tolist() == pytest.approx([0.0] * (5 - count) + want)
    assert two[0, :, 0, 0].tolist() == pytest.approx([1.0, *want] + [1.0] * (5 - count))
    assert torch.equal(one, one[:1, :, :1, :1].expand_as(one))
    assert not before.any() and bool((after == 1).all())


def test_blended_pictures_are_those_of_blended_latents() -> None:
    """By hand from the latents of each GOP alone; then the pictures are cross-faded too."""
    encoded = made("blend")
    stream = parser.parse(encoded.data)
    assert len(stream.gops) > 1
    session = Session(stream.header, prior())
    latents = [g.latent for g in decoding.made(stream, prior())]
    for a, b in zip(latents, latents[1:], strict=False):  # one latent frame in common
        mean = a[:, -1] + 0.5 * (b[:, 1] - a[:, -1])
        a[:, -1], b[:, 1] = mean, mean
    shown = [session.render(r, y) for r, y in zip(stream.gops, latents, strict=True)]
    for i, record in enumerate(stream.gops):
        g, fade = record.gop, 5 if i else 0
        end = g.end if i + 1 == len(stream.gops) else g.end - 5
        assert np.array_equal(shown[i][fade : end - g.start], encoded.frames[g.start + fade : end])
        if i:
            w = np.arange(1, 6)[:, None, None, None]
            mixed = shown[i - 1][-5:] * (6 - w) + shown[i][:5].astype(int) * w
            faded = encoded.frames[g.start : g.start + 5]
            assert np.abs(mixed / 6 - faded).max() <= 0.51


def test_alignments_differ_in_what_they_code() -> None:
    """Of the shared frames pin codes none, the others all; the layouts say so."""
    gops = {a: [r.gop for r in parser.parse(made(a).data).gops] for a in ALIGNMENTS}
    assert gops["blend"] == gops["fade"]
    assert [(g.start, g.end, g.first, g.fade) for g in gops["fade"]] == [
        (0, 13, "none", 0), (8, 21, "none", 5), (16, 29, "none", 5), (24, 34, "none", 5),
    ]  # fmt: skip
    assert [(g.start, g.end, g.first, g.fade, g.context) for g in gops["pin"]] == [
        (0, 13, "none", 0, 1), (8, 21, "previous", 0, 5), (16, 29, "previous", 0, 5),
        (24, 34, "previous", 0, 5),
    ]  # fmt: skip
    assert [g.known_frames(4) for g in gops["pin"]] == [0, 2, 2, 2]
    frames = {a: made(a).frames for a in ALIGNMENTS}
    assert all(psnr(frames[a], clip(FRAMES, 33, 49).frames) > 14 for a in ALIGNMENTS)
    assert not np.array_equal(frames["fade"], frames["blend"])


def test_pinned_latents_are_those_of_the_decoded_pictures() -> None:
    encoded = made("pin")
    stream = parser.parse(encoded.data)
    assert len(stream.gops) > 1
    for i, (record, latent, _, _) in enumerate(decoding.made(stream, prior())):
        if i:
            given = encoded.frames[record.gop.start : record.gop.start + 5]
            grown = np.pad(given, ((0, 0), (0, 7), (0, 7), (0, 0)), mode="edge")
            assert torch.equal(latent[:, :2], prior().encode(torch.from_numpy(grown)))


# -- every combination ------------------------------------------------------------------------

_CONTROLS: dict[str, dict[str, Any]] = {
    "bpp": {"bpp": 0.25}, "quality": {"quality": "psnr:19"}, "stop": {"stop": 5},
}  # fmt: skip
_MODES: dict[str, dict[str, Any]] = {
    "t2v": {"mode": "t2v"}, "t2v-overlap": {"mode": "t2v", "overlap": 3}, "i2v": {"mode": "i2v"},
    "flf2v": {"mode": "flf2v"}, "auto": {"mode": "auto", "base": "av1"},
    **{a: {"mode": "overlap", "alignment": a, "gop": 13, "overlap": 5} for a in SHARING},
}  # fmt: skip


@pytest.mark.parametrize("control", _CONTROLS)
@pytest.mark.parametrize("mode", _MODES)
@pytest.mark.parametrize("coder", ["rcc", "codebook"])
def test_coder_mode_and_control_are_independent(
    coder: str, mode: str, control: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """At an odd size, with a short last GOP."""
    monkeypatch.setattr(stills, "ffmpeg", lambda: None)  # AV1 starts quicker
    video = clip(20, 17, 35)
    asked = EncodeConfig(coder=coder, cuts=False, **_MODES[mode], **_CONTROLS[control])
    encoded = codec.encode(video, asked, prior())
    stream = parser.parse(encoded.data)
    last = [r.gop.frames for r in stream.gops][-1]
    assert len(stream.gops) > 1 and last < stream.gops[0].gop.frames
    back = codec.decode(encoded.data, prior()).frames
    assert back.shape == video.frames.shape and np.array_equal(back, encoded.frames)
    if control == "stop":
        assert {(r.stop, r.fraction) for r in stream.gops} <= {(5, 0), (0, 0)}
    if control == "bpp":
        assert stream.header.schedule == (2 if coder == "rcc" else 0)
        target = int(0.25 * 20 * 17 * 35 / 8)
        assert target - 64 <= len(encoded.data) <= target


@pytest.mark.parametrize(("frames", "height", "width"), [(9, 33, 49), (29, 17, 35)])
@pytest.mark.parametrize("asked", [
    {"coder": "rcc"}, {"preset": "free-gvc"}, {"preset": "free-gvc", "coder": "rcc"},
    {"preset": "free-gvc-paper", "ode_steps": 6},
    {"preset": "free-gvc", "coder": "rcc", "codebook": 256, "mode": "i2v"},
], ids=str)  # fmt: skip
def test_files_with_a_schedule_land_just_under_their_target(
    asked: dict[str, Any], frames: int, height: int, width: int
) -> None:
    """Unless the schedule ends first: then all GOPs are at its last stop."""
    reached = []
    for bpp in (0.15, 0.25, 2.0):
        size = int(bpp * frames * height * width / 8)
        data = codec.encode(clip(frames, height, width), EncodeConfig(size=size, **asked),
                            prior()).data  # fmt: skip
        stops = {r.stop for r in parser.parse(data).gops}
        reached.append(size - max(64, size // 100) <= len(data) <= size)
        assert len(data) <= size and (reached[-1] or stops == {8})
    assert reached[0]


# -- parts and damage -------------------------------------------------------------------------


@pytest.mark.parametrize("alignment", ALIGNMENTS)
def test_frames_asked_for_are_a_slice_of_all(alignment: str) -> None:
    encoded = made(alignment)
    gops = [r.gop for r in parser.parse(encoded.data).gops]
    for start, end in ((0, 1), (7, 9), (10, 14), (16, 17), (20, 29), (28, 34), (33, 34)):
        part = codec.Decoder(BytesIO(encoded.data), prior(), start=start, end=end)
        assert np.array_equal(np.stack(list(part.pictures())), encoded.frames[start:end])
    decode = needed(gops, 14, 15, blended=alignment == "blend")[0]
    assert decode == {"pin": {0, 1}, "fade": {1}, "blend": {0, 1}}[alignment]


def damaged(data: bytes, number: int) -> bytes:
    """One byte of the symbols of GOP `number` flipped."""
    symbols = parser.parse(data).gops[number].symbols
    at = data.index(symbols) + len(symbols) // 2
    return data[:at] + bytes([data[at] ^ 0x10]) + data[at + 1 :]


@pytest.mark.parametrize(
    ("alignment", "more", "number", "same", "lost", "says"),
    [
        # Of the pinned ones all after it are lost, but those after a fresh start.
        ("pin", {}, 1, [(0, 13)], {1, 2, 3}, "GOP 1, frames 13 to 20, .*GOPs 2 to 3 depend on it"),
        ("pin", {}, 3, [(0, 29)], {3}, "GOP 3, frames 29 to 33, "),
        ("pin", {"refresh": 2}, 0, [(21, 34)], {0, 1}, "GOP 0, .*GOP 1 depends on it"),
        # Of the blended ones itself, and its neighbours where they share frames.
        ("blend", {}, 1, [(0, 8), (21, 34)], {1}, "GOP 1, frames 8 to 20, "),
        ("blend", {}, 3, [(0, 24)], {3}, "GOP 3, frames 24 to 33, "),
        ("fade", {}, 1, [(0, 8), (21, 34)], {1}, "GOP 1, frames 8 to 20, "),
    ],
)  # fmt: skip
def test_damage_is_named_with_what_depends_on_it(
    alignment: str, more: dict[str, Any], number: int, same: list[tuple[int, int]],
    lost: set[int], says: str,
) -> None:  # fmt: skip
    encoded = made(alignment, **more)
    data = damaged(encoded.data, number)
    with pytest.raises(gvcc.Corrupt, match=says) as caught:
        codec.decode(data, prior())
    assert ("depend" in str(caught.value)) == (len(lost) > 1)
    decoder = codec.Decoder(BytesIO(data), prior(), keep_going=True)
    got = np.stack(list(decoder.pictures()))
    assert got.shape == encoded.frames.shape
    assert {int(text.split(",")[0].removeprefix("GOP ")) for text in decoder.damage} == lost
    for begin, end in same:
        assert np.array_equal(got[begin:end], encoded.frames[begin:end])
    for i in lost:
        g = parser.parse(encoded.data).gops[i].gop
        begin, end = g.start + g.skip, g.end
        assert not np.array_equal(got[begin:end], encoded.frames[begin:end])


@pytest.mark.parametrize("alignment", ALIGNMENTS)
def test_a_broken_off_encode_goes_on(alignment: str) -> None:
    encoded = made(alignment)
    how = {"mode": "t2v"} if alignment == "fade" else {"mode": "overlap", "alignment": alignment}
    asked = EncodeConfig(**how, gop=GOP, overlap=5, size=SIZE, coder="rcc")  # type: ignore
    video = clip(FRAMES, 33, 49)
    made_of = list(codec.encode_parts(video, asked, prior()))
    whole, proofs = [p.data for p in made_of], [p.proof for p in made_of if p.proof is not None]
    assert b"".join(whole) == encoded.data
    for keep in (1, 3):
        begun = codec.Begun(b"".join(whole[:keep]) + whole[keep][:9], proofs)
        parts = list(codec.encode_parts(video, asked, prior(), begun=begun))
        assert b"".join(p.data for p in parts) == encoded.data
        shown = np.concatenate([p.pictures for p in parts if p.pictures is not None])
        assert np.array_equal(shown, encoded.frames)
    begun = codec.Begun(encoded.data, proofs)
    with pytest.raises(gvcc.ConfigError, match="of other settings: overlap 5, now 1"):
        list(codec.encode_parts(video, replace(asked, overlap=1), prior(), begun=begun))
