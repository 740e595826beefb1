"""Stills: the integer colour conversion, the stripped streams, the search, hostile bytes."""

from __future__ import annotations

import numpy as np
import pytest

from gvcc.cli import describe
from gvcc.errors import ConfigError, Corrupt, FormatError, Unsupported
from gvcc.pictures import stillcodecs, stills
from gvcc.pictures.stillcodecs import CODECS, NUMBERS, Unpackable

VVC = pytest.param(
    "vvc", marks=pytest.mark.skipif(stillcodecs.ffmpeg() is None, reason="no libvvenc here")
)
BOTH = pytest.mark.parametrize("codec", ["av1", VVC])


def picture(height: int, width: int) -> np.ndarray:
    """Smooth waves with an edge, uint8 [height, width, 3]."""
    y, x = np.mgrid[0:height, 0:width]
    waves = [128 + 90 * np.sin(x / a + y / b) for a, b in ((9, 14), (17, -11), (-13, 23))]
    out = np.stack(waves, -1)
    out[height // 3 :, width // 2 :] *= 0.6
    return out.astype(np.uint8)


def psnr(a: np.ndarray, b: np.ndarray) -> float:
    return float(10 * np.log10(255**2 / np.mean((a.astype(float) - b) ** 2)))


def planar(luma: int, cb: int, cr: int, dtype: str = "u1") -> np.ndarray:
    """An even 16 x 16 picture."""
    return np.concatenate(
        [np.full((16, 16), luma), np.full((4, 16), cb), np.full((4, 16), cr)]
    ).astype(dtype)


@pytest.mark.parametrize(
    ("luma", "cb", "cr", "depth", "rgb"),
    [
        (255, 128, 128, 8, (255, 255, 255)),
        (0, 512, 512, 10, (0, 0, 0)),
        (76, 85, 255, 8, (254, 0, 0)),  # 76 + 1.402*127 = 254.05; 76 + 14.80 - 90.69 = 0.11
        (401, 512, 514, 10, (101, 100, 100)),  # 100.25 + 0.701; 100.25 - 0.357
        (402, 512, 512, 10, (101, 101, 101)),  # exactly 100.5 rounds up
    ],
)
def test_colour_by_hand(luma, cb, cr, depth, rgb):
    out = stills.to_rgb(planar(luma, cb, cr, "u1" if depth == 8 else "<u2"), depth)
    assert (out == rgb).all() and out.shape == (16, 16, 3)


def test_chroma_interpolation_by_hand():
    planes = planar(100, 128, 128)
    planes[20, 0] = 144  # the first Cr sample, over a centre of 128
    red = stills.to_rgb(planes, 8)[..., 0]
    # Weights 4/4 (edge repeated), 3/4, 1/4, 0 in either direction, of 1.402 * 16 = 22.43.
    assert red[0, :4].tolist() == [122, 117, 106, 100]
    assert red[:4, 1].tolist() == [117, 113, 104, 100]


def test_extremes_fit_32_bits():
    for depth, dtype in ((8, "u1"), (10, "<u2")):
        top = (1 << depth) - 1
        for luma, cb, cr in np.ndindex(2, 2, 2):
            got = stills.to_rgb(planar(luma * top, cb * top, cr * top, dtype), depth)[5, 5]
            y, b, r = (int(v) * top / 2 ** (depth - 8) for v in (luma, cb, cr))
            b, r = b - 128, r - 128
            want = [y + 1.402 * r, y - 0.344136 * b - 0.714136 * r, y + 1.772 * b]
            assert np.abs(got - np.clip(want, 0, 255)).max() <= 0.51


@pytest.mark.parametrize(("depth", "least"), [(8, 44), (10, 45)])
def test_conversion_alone_is_nearly_lossless(depth, least):
    original = picture(64, 96)
    original[:] = picture(192, 288)[:64, :96]  # no edge: 4:2:0 must lose nothing that it can keep
    back = stills.to_rgb(stills.from_rgb(original, depth), depth)
    assert psnr(back, original) > least


@BOTH
@pytest.mark.parametrize(("height", "width"), [(64, 96), (67, 45), (200, 136)])
def test_round_trip(codec, height, width):
    original = picture(height, width)
    sizes = (120, 300, 900) if height < 100 else (400, 1200)
    quality = []
    for size in sizes:
        data = stills.encode(original, size, codec)
        assert size * 0.6 < len(data) <= size and data[0] == NUMBERS[codec]
        back = stills.decode(data, height, width)
        assert back.shape == original.shape and back.dtype == np.uint8
        quality.append(psnr(back, original))
    assert quality == sorted(quality) and quality[0] > 15 and quality[-1] > quality[0] + 3


@pytest.mark.parametrize(("height", "width"), [(16, 16), (16, 33), (24, 200)])
def test_default_codec_takes_every_size(height, width):
    data = stills.encode(picture(height, width), 100)
    assert stills.decode(data, height, width).shape == (height, width, 3)


@BOTH
def test_smallest_if_nothing_fits(codec):
    data = stills.encode(picture(64, 96), 0, codec)
    assert len(data) < 60
    stills.decode(data, 64, 96)


@pytest.mark.parametrize(("coarsest", "halving"), [(63, 6), (280, 24)])
def test_search_finds_a_best_fit_in_few_steps(coarsest, halving):
    rng = np.random.default_rng(0)
    for _ in range(50):
        top, half = rng.uniform(8, 14), halving * rng.uniform(0.7, 1.5)
        lengths = [int(np.exp(top - q / half * np.log(2)) + 8) for q in range(coarsest + 1)]
        size, asked = int(rng.choice(lengths)), set()

        def length(q, lengths=lengths, asked=asked):
            asked.add(q)
            return lengths[q]

        got = stills._finest_within(size, coarsest, halving, coarsest // 2, length)
        best = next((n for n in lengths if n <= size), lengths[-1])
        assert stills.NEAR * best <= lengths[got] <= best
        assert len(asked) <= 9
    assert stills._finest_within(0, coarsest, halving, 5, length) == coarsest


def test_stripped_av1_is_the_plain_stream_minus_what_is_known():
    height, width = 64, 96
    stream = CODECS[0].write(stills.from_rgb(picture(height, width), 8), "4", 160)
    short = CODECS[0].pack(stream, height, width)
    assert short[0] < 64 and len(short) <= len(stream) - 10
    # A sequence header that the size does not give is carried whole.
    header_at = stream.index(b"\x0a") + 2
    header = stream[header_at : header_at + stream[header_at - 1]]
    long = bytes([64 + len(header)]) + header + short[1:]
    a, b = (stills.decode(b"\0" + data, height, width) for data in (short, long))
    assert (a == b).all()
    with pytest.raises(Unpackable):
        CODECS[0].pack(stream + stream, height, width)


def test_parameter_sets_that_are_not_known_are_stored_whole(monkeypatch):
    """As of an encoder that is newer than the constants: still VVC, and said in inspect."""
    original = picture(64, 96)
    known = stills.encode(original, 300)
    assert known[0] == NUMBERS["vvc"]
    decoded = stills.decode(known, 64, 96)
    with monkeypatch.context() as m:
        m.setattr(stillcodecs, "_SPS_TAIL", b"\x1b" + stillcodecs._SPS_TAIL[1:])
        whole = stills.encode(original, 900)
        same = stills.encode(original, len(known) + 200)
    assert whole[0] == same[0] == NUMBERS["vvc-sets"]
    assert psnr(stills.decode(whole, 64, 96), original) > psnr(decoded, original)
    # The same picture by both, the known sets being the only difference.
    stream = CODECS[1].write(stills.from_rgb(original, 10), "medium", 40)
    one, two = (bytes([n]) + CODECS[n].pack(stream, 64, 96) for n in (1, 2))
    assert len(two) > len(one) + 140
    assert (stills.decode(one, 64, 96) == stills.decode(two, 64, 96)).all()
    assert describe._codecs((one, two, b"", b"\x63")) == ["vvc", "vvc-sets", "none", "?"]


@pytest.mark.parametrize("seed", range(40))
def test_damaged_sets_are_corrupt_or_a_picture_of_the_size(seed):
    stream = CODECS[2].write(stills.from_rgb(picture(64, 96), 10), "faster", 50)
    data, rng = bytearray(b"\2" + CODECS[2].pack(stream, 64, 96)), np.random.default_rng(seed)
    for at in rng.integers(1, 180 if seed % 2 else len(data), rng.integers(1, 4)):
        data[at] ^= 1 << rng.integers(8)
    try:
        assert stills.decode(bytes(data), 64, 96).shape == (64, 96, 3)
    except Corrupt:
        pass


def test_without_ffmpeg_the_core_codec_is_used(monkeypatch):
    monkeypatch.setattr(stills, "ffmpeg", lambda: None)
    monkeypatch.setattr(stillcodecs, "ffmpeg", lambda: None)
    assert stills.encode(picture(64, 96), 300)[0] == NUMBERS["av1"]
    with pytest.raises(ConfigError, match="imageio-ffmpeg"):
        stills.encode(picture(64, 104), 300, "vvc")


def test_a_still_that_decodes_differently_is_not_written(monkeypatch):
    wrong = CODECS[0]._replace(read=lambda stream, h, w: np.zeros((h * 3 // 2, w), np.uint8))
    monkeypatch.setattr(stills, "CODECS", (wrong, *CODECS[1:]))
    with pytest.raises(ConfigError, match="another picture"):
        stills.encode(picture(64, 96), 300, "av1")


def test_bad_settings():
    for bad in (np.zeros((64, 64), np.uint8), np.zeros((64, 64, 3)), np.zeros((8, 64, 3), "u1")):
        with pytest.raises(ConfigError):
            stills.encode(bad, 100)
    with pytest.raises(ConfigError, match="did you mean 'av1'"):
        stills.encode(picture(64, 64), 100, "av")


@BOTH
def test_another_size_is_corrupt(codec):
    data = stills.encode(picture(64, 96), 300, codec)
    with pytest.raises(Unsupported):
        stills.decode(data, 8, 96)
    for bad in (b"", data[:1], data[:2]):
        with pytest.raises(Corrupt):
            stills.decode(bad, 64, 96)
    with pytest.raises(Unsupported):
        stills.decode(bytes([len(CODECS)]) + data[1:], 64, 96)


@pytest.mark.parametrize(("height", "width"), [(4096, 4096), (64, 96)])
def test_a_stream_cannot_ask_for_more_than_its_size(height, width):
    """A carried sequence header of another size, larger or smaller than the picture."""
    small = stills.encode(picture(64, 64), 200, "av1")
    header = stillcodecs._av1_header(f"{small[1]:06b}", height, width)
    data = bytes([0, 64 + len(header)]) + header + small[2:]
    with pytest.raises(Corrupt):
        stills.decode(data, 64, 64)


def test_a_start_code_in_a_still_is_corrupt():
    """The VVC decoder never sees a parameter set of the sender's."""
    sps = stillcodecs._vvc_sets(8192, 8192)[0]
    with pytest.raises(Corrupt, match="start code"):
        stills.decode(b"\1\0" + b"\0\0\1" + sps, 64, 64)


@BOTH
def test_damage_is_refused_or_gives_a_picture_of_the_size(codec):
    rng = np.random.default_rng(1)
    data = stills.encode(picture(67, 45), 300, codec)
    refused = 0
    for _ in range(150):
        bad = bytearray(data)
        for at in rng.integers(1, len(data), rng.integers(1, 4)):
            bad[at] ^= 1 << rng.integers(8)
        bad = bad[: rng.integers(1, len(bad))] if rng.random() < 0.3 else bad
        try:
            assert stills.decode(bytes(bad), 67, 45).shape == (67, 45, 3)
        except FormatError:
            refused += 1
    assert refused > 5


def test_decoding_is_silent_and_repeatable(capfd):
    data = stills.encode(picture(67, 45), 301)
    pictures = [stills.decode(data, 67, 45) for _ in range(3)]
    assert all((p == pictures[0]).all() for p in pictures)
    assert capfd.readouterr() == ("", "")
