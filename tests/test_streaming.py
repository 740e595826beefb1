"""Parts of a stream: random access, damage, broken-off encodings, and reading no further ahead."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import replace
from fractions import Fraction
from functools import cache
from io import BytesIO
from typing import Any

import numpy as np
import pytest
from test_modes import config, made, prior, quick_stills
from test_roundtrip import clip

import gvcc
from gvcc import codec, priors
from gvcc.decode import trajectory
from gvcc.format import gop, parser
from gvcc.format.bitstream import GopRecord
from gvcc.pictures.media import Video
from gvcc.records import Audio, Packet
from gvcc.search import steer
from gvcc.search.config import EncodeConfig

__all__ = ["quick_stills"]
CASES = (
    "t2v", "t2v-overlap", "i2v", "i2v-refresh", "flf2v", "auto", "overlap", "overlap-blend",
    "t2v-longer-overlap", "overlap-refresh",
)  # fmt: skip
FRAMES, SIZE = 34, 1000  # four GOPs of 9 and a short one, as in test_modes


@pytest.fixture
def sampled(monkeypatch: pytest.MonkeyPatch) -> list[int]:
    """Numbers of the GOPs whose trajectories have been run."""
    numbers: list[int] = []
    real = trajectory.run

    def run(condition: Any, header: Any, number: int, *rest: Any) -> Any:
        numbers.append(number)
        return real(condition, header, number, *rest)

    monkeypatch.setattr(trajectory, "run", run)
    return numbers


def shown(clip: codec.Decoder) -> np.ndarray:
    return np.stack(list(clip.pictures()))


# -- random access ----------------------------------------------------------------------------


@pytest.mark.parametrize("case", CASES)
@pytest.mark.parametrize(("start", "end"), [(0, 5), (8, 9), (9, 20), (26, 27), (33, 34), (0, 34)])
def test_some_frames_are_a_slice_of_all_and_no_gop_is_decoded_in_vain(
    case: str, start: int, end: int, sampled: list[int]
) -> None:
    encoded = made(case, FRAMES, SIZE)[1]
    sampled.clear()
    part = codec.Decoder(BytesIO(encoded.data), prior(), start=start, end=end)
    assert (part.count, part.height, part.width) == (end - start, 17, 33)
    assert np.array_equal(shown(part), encoded.frames[start:end])
    gops = [g.gop for g in parser.parse(encoded.data).gops]
    decode = gop.needed(gops, start, end, blended=case == "overlap-blend")[0]
    assert sampled == sorted(i for i in decode if not gops[i].base)  # which are not sampled
    assert np.array_equal(shown(part), encoded.frames[start:end])  # every pass is a new one


def test_frames_from_a_pipe() -> None:
    encoded = made("flf2v", FRAMES, SIZE)[1]
    part = codec.Decoder(Pipe(encoded.data), prior(), start=20, end=30)  # type: ignore[arg-type]
    assert np.array_equal(shown(part), encoded.frames[20:30])


@pytest.mark.parametrize(("start", "end"), [(-1, 5), (5, 5), (6, 5), (0, 35), (34, None)])
def test_frames_that_are_not_there(start: int, end: int | None) -> None:
    data = made("t2v", FRAMES, SIZE)[1].data
    with pytest.raises(gvcc.ConfigError, match="are not within|beyond the clip's 34"):
        codec.Decoder(BytesIO(data), prior(), start=start, end=end)


def test_the_sound_goes_with_its_frames() -> None:
    packets = tuple(Packet(100 * i, 100, bytes([i])) for i in range(10))
    sound = Audio("flac", 1000, "mono", Fraction(1, 1000), b"", packets)
    video = Video(clip(10, 16, 16).frames, Fraction(10), audio=sound)
    data = codec.encode(video, config("t2v", 900), prior()).data
    part = codec.Decoder(BytesIO(data), prior(), start=3, end=5).audio
    assert part is not None
    assert [(p.pts, p.data[0]) for p in part.packets] == [(0, 3), (100, 4)]
    assert codec.Decoder(BytesIO(data), prior()).audio == sound


# -- damage -----------------------------------------------------------------------------------

PARTS: dict[str, Callable[[GopRecord], bytes]] = {
    "what is coded": lambda g: g.base.stream if g.base else g.symbols,
    "a still": lambda r: r.stills[-1], "the residual": lambda r: r.residual,
    "the symbols": lambda r: r.symbols,
}  # fmt: skip


def damaged(data: bytes, number: int, part: str = "the symbols") -> bytes:
    """One byte flipped within a part of GOP number `number`."""
    found = PARTS[part](parser.parse(data).gops[number])
    at = data.index(found) + len(found) // 2
    assert len(found) > 8 and data.count(found) == 1
    return data[:at] + bytes([data[at] ^ 0x10]) + data[at + 1 :]


def repeated(frames: np.ndarray, first: int, last: int) -> np.ndarray:
    """The frames with those from `first` to `last` lost: the one before stays."""
    out = frames.copy()
    out[first : last + 1] = frames[first - 1] if first else 128
    return out


def concealed(data: bytes, **asked: Any) -> tuple[np.ndarray, list[str]]:
    decoder = codec.Decoder(BytesIO(data), prior(), keep_going=True, **asked)
    return shown(decoder), decoder.damage


@pytest.mark.parametrize(
    ("case", "size", "number", "part", "lost", "says"),
    [
        ("t2v", 1000, 1, "the symbols", (9, 17), "GOP 1, frames 9 to 17, "),
        ("t2v", 1000, 0, "the symbols", (0, 8), "GOP 0, frames 0 to 8, "),
        ("i2v", 3200, 0, "a still", (0, 33), "GOP 0.*; GOPs 1 to 4 depend on it"),
        ("i2v", 3200, 1, "the residual", (9, 33), "GOP 1, frames 9 to 16.*; GOPs 2 to 4 depend on"),
        ("i2v", 3200, 3, "the symbols", (25, 33), "GOP 3.*; GOP 4 depends on it"),
        ("i2v", 3200, 4, "the symbols", (33, 33), "GOP 4, frames 33 to 33, "),
        ("i2v-refresh", 1000, 0, "the symbols", (0, 16), "GOP 0.*; GOP 1 depends on it"),
        ("i2v-refresh", 1000, 2, "a still", (17, 33), "GOP 2.*; GOP 3 depends on it"),
        ("flf2v", 1000, 1, "a still", (9, 24), "GOP 1, frames 9 to 16.*; GOP 2 depends on it"),
        ("flf2v", 1000, 0, "the symbols", (0, 16), "GOP 0.*; GOP 1 depends on it"),
    ],
)  # fmt: skip
def test_damage_is_named_and_costs_what_depends_on_it(
    case: str, size: int, number: int, part: str, lost: tuple[int, int], says: str,
    sampled: list[int],
) -> None:  # fmt: skip
    encoded = made(case, FRAMES, size)[1]
    data = damaged(encoded.data, number, part)
    with pytest.raises(gvcc.Corrupt, match=says) as caught:
        codec.decode(data, prior())
    assert ("depend" in str(caught.value)) == ("depend" in says)
    sampled.clear()
    got, damage = concealed(data)
    assert np.array_equal(got, repeated(encoded.frames, *lost))
    gops = [r.gop for r in parser.parse(encoded.data).gops]
    gone = [i for i, g in enumerate(gops) if lost[0] <= g.start + g.skip <= lost[1]]
    assert sampled == [i for i in range(len(gops)) if i not in gone]
    assert [int(text.split(",")[0].removeprefix("GOP ")) for text in damage] == gone
    if number:  # what comes before is shown as soon as it is there
        decoder, before = codec.Decoder(BytesIO(data), prior()), []
        with pytest.raises(gvcc.Corrupt):
            for picture in decoder.pictures():
                before.append(picture)
        assert np.array_equal(np.stack(before), encoded.frames[: lost[0]])


def test_a_cross_fade_hides_the_damage_a_little() -> None:
    encoded = made("t2v-overlap", FRAMES, SIZE)[1]
    data = damaged(encoded.data, 2)  # frames 12 to 20
    got, damage = concealed(data)
    assert np.array_equal(got[:12], encoded.frames[:12]) and len(damage) == 1
    assert np.array_equal(got[21:], encoded.frames[21:])
    assert not np.array_equal(got[18:21], encoded.frames[18:21])


def test_damage_elsewhere_does_not_matter_to_a_range() -> None:
    encoded = made("flf2v", FRAMES, 1600)[1]
    for number, start, end in ((0, 18, 25), (4, 10, 30), (2, 0, 17), (1, 26, 30)):
        part = codec.Decoder(BytesIO(damaged(encoded.data, number, "a still")), prior(),
                             start=start, end=end)  # fmt: skip
        assert np.array_equal(shown(part), encoded.frames[start:end])
    part = codec.Decoder(BytesIO(damaged(encoded.data, 1, "a still")), prior(), start=18, end=20)
    with pytest.raises(gvcc.Corrupt, match="GOP 2, frames 17 to 24.* depends on the GOP before"):
        shown(part)


def test_a_head_that_does_not_check_ends_the_pictures() -> None:
    """Where the next record begins is not known then."""
    encoded = made("i2v", FRAMES, SIZE)[1]
    parts = [p.data for p in codec.encode_parts(*encoding("i2v"))]
    at = sum(map(len, parts[:3])) + 2
    data = encoded.data[:at] + bytes([encoded.data[at] ^ 1]) + encoded.data[at + 1 :]
    with pytest.raises(gvcc.Corrupt, match="record 2's head"):
        codec.decode(data, prior())
    decoder = codec.Decoder(BytesIO(data), prior(), keep_going=True)
    assert np.array_equal(shown(decoder), encoded.frames[:17])
    assert isinstance(decoder.cut, gvcc.Corrupt) and decoder.delivered == 17


@pytest.mark.parametrize("case", ["t2v-overlap", "i2v", "flf2v"])
def test_a_truncated_stream_gives_its_whole_gops(case: str) -> None:
    encoded = made(case, FRAMES, SIZE)[1]
    whole = [r.gop.end for r in parser.parse(encoded.data).gops][-2]
    cut = encoded.data[:-1]
    with pytest.raises(gvcc.Truncated, match="of 34 frames"):
        codec.decode(cut, prior())
    decoder = codec.Decoder(BytesIO(cut), prior(), partial=True)
    got = shown(decoder)
    assert isinstance(decoder.cut, gvcc.Truncated) and len(got) == whole
    exact = whole - (3 if case == "t2v-overlap" else 0)  # the last ones would have been faded
    assert np.array_equal(got[:exact], encoded.frames[:exact])
    part = codec.Decoder(BytesIO(cut), prior(), start=5, end=12)  # the cut is behind them
    assert np.array_equal(shown(part), encoded.frames[5:12])


# -- an encoding that was broken off ----------------------------------------------------------


def encoding(case: str, size: int = SIZE) -> tuple[Any, ...]:
    """Arguments of an encoding that `made` has made."""
    return clip(FRAMES, 17, 33), config(case, size), prior()


@cache
def parts_of(case: str) -> list[codec.Part]:
    return list(codec.encode_parts(*encoding(case)))


def begun(case: str, data: bytes) -> codec.Begun:
    """Bytes as the beginning of that encoding, with all its proofs."""
    return codec.Begun(data, [p.proof for p in parts_of(case) if p.proof is not None])


@pytest.mark.parametrize("case", CASES)
def test_an_encoding_goes_on_where_it_was_broken_off(
    case: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    encoded = made(case, FRAMES, SIZE)[1]
    sizes = [len(p.data) for p in parts_of(case)]
    ends = np.cumsum(sizes).tolist()
    chosen: list[int] = []
    real = steer.Choose.__init__

    def spy(self: Any, scheme: Any, *rest: Any) -> None:
        chosen.append(scheme.gop)
        real(self, scheme, *rest)

    monkeypatch.setattr(steer.Choose, "__init__", spy)
    later = min(3, len(ends) - 2)
    for given, done in (
        (encoded.data[: ends[0]], 0),
        (encoded.data[: ends[2]] + b"\x47\x03ab", 2),
        (
            damaged(encoded.data, later, "what is coded"),
            later,
        ),  # and what follows the damage is not trusted
        (encoded.data, len(ends) - 1),
    ):
        chosen.clear()
        parts = list(codec.encode_parts(*encoding(case), begun=begun(case, given)))
        assert b"".join(p.data for p in parts) == encoded.data
        pictures = [p.pictures for p in parts if p.pictures is not None]
        assert np.array_equal(np.concatenate(pictures), encoded.frames)
        assert sorted(set(chosen)) == list(range(done, len(ends) - 1))


def test_a_stream_that_breaks_off_in_its_header_starts_anew() -> None:
    encoded = made("t2v", FRAMES, SIZE)[1]
    for given in (b"", encoded.data[:20]):
        parts = codec.encode_parts(*encoding("t2v"), begun=begun("t2v", given))
        assert b"".join(p.data for p in parts) == encoded.data


SOUND = Audio("flac", 1000, "mono", Fraction(1, 1000), b"", (Packet(0, 100, b"la"),))
FREE = EncodeConfig(preset="free-gvc", stop=2, gop=9)
OTHERS: dict[str, tuple[Any, EncodeConfig, str]] = {
    "clip": (clip(FRAMES, 17, 33, seed=9), FREE, "another clip: they differ within frames 0 to 8"),
    "last picture": (None, FREE, "another clip: they differ within frames 33 to 33"),
    "length": (clip(FRAMES - 1, 17, 33), FREE, "another clip: frames 34, now 33"),
    "rate": (replace(clip(FRAMES, 17, 33), fps=Fraction(25)), FREE, "another clip: fps"),
    "sound": (replace(clip(FRAMES, 17, 33), audio=SOUND), FREE, "another clip: audio None, now"),
    "stop": (clip(FRAMES, 17, 33), replace(FREE, stop=3), "other settings: stop 2, now 3"),
    "target": (clip(FRAMES, 17, 33), replace(FREE, stop=None, quality="psnr:20"),
               "other settings: quality None, now psnr:20; stop 2, now None"),
    "cuts": (clip(FRAMES, 17, 33), replace(FREE, cuts=False), "other settings: cuts None, now"),
}  # fmt: skip


@pytest.mark.parametrize("other", OTHERS)
def test_the_beginning_of_another_encoding_is_refused(other: str) -> None:
    """With a preset whose header does not depend on the clip."""
    parts = list(codec.encode_parts(clip(FRAMES, 17, 33), FREE, prior()))
    data = b"".join(p.data for p in parts)
    video, asked, says = OTHERS[other]
    if video is None:
        frames = clip(FRAMES, 17, 33).frames.copy()
        frames[-1, 3, 4, 1] ^= 1
        video = replace(clip(FRAMES, 17, 33), frames=frames)
    proofs = [p.proof for p in parts if p.proof is not None]
    began = codec.encode_parts(video, asked, prior(), begun=codec.Begun(data, proofs))
    with pytest.raises(gvcc.ConfigError, match=f"the unfinished file is of {says}"):
        next(began)


def test_what_is_no_beginning_of_a_stream_is_refused_and_not_replaced() -> None:
    other = codec.encode(clip(FRAMES, 17, 33), config("i2v", SIZE + 9), prior()).data
    for given in (b"hours of somebody's work", other[:20], b"\0" * 400):
        with pytest.raises(gvcc.ConfigError, match="is not of this encoding"):
            next(codec.encode_parts(*encoding("t2v"), begun=begun("t2v", given)))


def test_the_beginning_of_an_encoding_with_other_weights_is_refused() -> None:
    parts = list(codec.encode_parts(clip(FRAMES, 17, 33), FREE, prior()))
    begun = codec.Begun(b"".join(p.data for p in parts), [p.proof for p in parts if p.proof])
    other: Any = priors.load("gauss")  # of the same name
    other.spec = replace(other.spec, digest=b"retrained"[:8])
    with pytest.raises(gvcc.ConfigError, match="other settings: weights .*, now 7265747261696e65"):
        next(codec.encode_parts(clip(FRAMES, 17, 33), FREE, other, begun=begun))


@pytest.mark.parametrize("proofs", [[], ["{}"], ["no JSON", ""], ['["a"]']])
def test_a_beginning_that_proves_nothing_is_refused(proofs: list[str]) -> None:
    data = made("t2v", FRAMES, SIZE)[1].data
    with pytest.raises(gvcc.ConfigError, match="what proves|nothing proves"):
        next(codec.encode_parts(*encoding("t2v"), begun=codec.Begun(data, proofs)))


def test_a_gop_without_its_proof_is_coded_again() -> None:
    parts = parts_of("t2v")
    proofs = [p.proof for p in parts if p.proof is not None][:2]
    begun = codec.Begun(b"".join(p.data for p in parts), proofs)
    sampled = list(codec.encode_parts(*encoding("t2v"), begun=begun))
    assert [p.data for p in sampled] == [p.data for p in parts]


# -- memory -----------------------------------------------------------------------------------


class Counting(Video):
    """A clip that counts how far each pass over it has come."""

    passes: list[int]

    def pictures(self) -> Iterator[np.ndarray]:
        self.__dict__.setdefault("passes", []).append(0)
        for picture in self.frames:
            self.passes[-1] += 1
            yield picture


@pytest.mark.parametrize("case", ["t2v-overlap", "i2v", "auto"])
def test_the_encoder_reads_no_further_than_the_gop_it_writes(case: str) -> None:
    video, asked, model = encoding(case)
    counting, end = Counting(video.frames, video.fps), 0
    looks = 1 if case.startswith("t2v") else 2  # for the target; for scene cuts
    data = b""
    for part in codec.encode_parts(counting, asked, model):
        data += part.data
        if part.pictures is None:
            assert counting.passes == [FRAMES] * looks
        else:
            end += len(part.pictures)
            assert len(counting.passes) == looks + 1
            assert end <= counting.passes[-1] <= end + (asked.overlap or 0)
    assert end == FRAMES and data == made(case, FRAMES, SIZE)[1].data


class Pipe:
    """A file that can only be read on, and remembers how far it was."""

    def __init__(self, data: bytes) -> None:
        self._file = BytesIO(data)

    def read(self, count: int = -1) -> bytes:
        return self._file.read(count)

    def seekable(self) -> bool:
        return False

    @property
    def place(self) -> int:
        return self._file.tell()


@pytest.mark.parametrize("case", CASES)
def test_the_decoder_reads_no_further_than_the_gop_it_shows(case: str) -> None:
    encoded = made(case, FRAMES, SIZE)[1]
    sizes = [len(p.data) for p in parts_of(case)]
    ends = np.cumsum(sizes)
    pipe = Pipe(encoded.data)
    decoder = codec.Decoder(pipe, prior())  # type: ignore[arg-type]
    assert pipe.place == ends[0]
    gops = [r.gop for r in parser.parse(encoded.data).gops]
    faded = decoder.header.overlap  # what a GOP shows last may fade into the next
    for at, picture in enumerate(decoder.pictures()):
        number = next(i for i, g in enumerate(gops) if g.end - faded * (g.end < FRAMES) > at)
        if case == "overlap-blend":  # and is decoded with it
            number += number + 1 < len(gops)
        assert pipe.place == ends[1 + number]
        assert np.array_equal(picture, encoded.frames[at])
    assert decoder.delivered == FRAMES
    with pytest.raises(gvcc.ConfigError, match="a pipe can be read only once"):
        next(decoder.pictures())
