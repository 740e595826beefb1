"""The restorer of a base: its noise by definition, tiles, the knob, and files that have it."""

from __future__ import annotations

import dataclasses
import json
from collections.abc import Iterator
from fractions import Fraction
from io import BytesIO
from pathlib import Path

import numpy as np
import pytest
import torch
from cli_runner import Run

from gvcc import codec
from gvcc.decode import restore
from gvcc.decode.anchored import AnchoredNoise
from gvcc.errors import ConfigError, Corrupt, PriorMismatch
from gvcc.format import bitstream, parser, rng
from gvcc.format.base import BaseRecord, RestorerId
from gvcc.format.bitstream import Stream
from gvcc.priors import nano, restorers
from gvcc.priors.restorer import Inputs, Restorer, RestorerShape, bands
from gvcc.records import Video
from gvcc.search.config import EncodeConfig

SMALL = RestorerShape(8, 1)
LOST = np.random.default_rng(3).integers(0, 10, (1, 5, 5), dtype=np.uint8)  # texture


def clip(frames: int = 6, height: int = 48, width: int = 72) -> np.ndarray:
    """A textured picture that moves by 3 and -2 pixels, with a part that stands still, and one
    that is new in each picture."""
    random = np.random.default_rng(5)
    big = random.integers(0, 256, (height // 4 + 10, width // 4 + 10, 3), dtype=np.uint8)
    big = big.repeat(4, 0).repeat(4, 1)
    out = []
    for t in range(frames):
        picture = big[20 + 2 * t :, 20 - 3 * t :][:height, :width].copy()
        picture[:16, :24] = big[:16, :24]
        picture[-8:, -8:] = random.integers(0, 256, (8, 8, 3), dtype=np.uint8)
        out.append(picture)
    return np.stack(out)


def shipped(knob: float = 1.0) -> restorers.Restoring:
    return restorers.load("nano", knob)


def random_net(reach: RestorerShape = SMALL) -> Restorer:
    torch.manual_seed(3)
    net = Restorer(reach)
    with torch.no_grad():
        for parameter in net.exit.parameters():
            parameter.normal_(0, 0.05)
    return net


def by_definition(pictures: np.ndarray, seed: int, start: int, size: int) -> Iterator[np.ndarray]:
    """docs/format.md 16.5, block by block."""
    _, h, w, _ = pictures.shape
    before, noise = None, np.zeros(0)
    for t, picture in enumerate(pictures.astype(int)):
        luma = (picture[..., 0] + 2 * picture[..., 1] + picture[..., 2]) >> 2
        half = np.array([[luma[y : y + 2, x : x + 2].sum() >> 2 for x in range(0, w, 2)]
                         for y in range(0, h, 2)])  # fmt: skip
        key = rng.derive(seed, start, t, 0, rng.Purpose.TEXTURE)
        fresh = rng.normals(key, size * h * size * w).reshape(size * h, size * w)
        now = fresh.copy()
        for y in range(0, h, 8) if before is not None else ():
            for x in range(0, w, 8):
                dy, dx, off = moved(luma, half, *before, y, x)
                top, left, side = size * (y + dy), size * (x + dx), 8 * size
                inside = 0 <= top <= size * h - side and 0 <= left <= size * w - side
                if off <= 512 and inside:
                    now[size * y : size * y + side, size * x : size * x + side] = \
                        noise[top : top + side, left : left + side]  # fmt: skip
        before, noise = (luma, half), now
        yield now


def moved(luma, half, old, old_half, y, x):
    def off(a, b, y, x, dy, dx, side):
        rows, columns = np.arange(y, y + side), np.arange(x, x + side)
        there = b[(rows + dy).clip(0, len(b) - 1)][:, (columns + dx).clip(0, b.shape[1] - 1)]
        return int(np.abs(a[y : y + side, x : x + side] - there).sum())

    tried = []
    for dy in range(-6, 7):
        for dx in range(-6, 7):
            cost = 4 * off(half, old_half, y // 2, x // 2, dy, dx, 4) + 64 * ((dy, dx) != (0, 0))
            tried.append((cost, dy, dx))
    _, cy, cx = min(tried, key=lambda c: c[0])
    taken, bound = (0, 0), off(luma, old, y, x, 0, 0, 8)
    least, bound = bound, bound - 64
    for dy in (2 * cy - 1, 2 * cy, 2 * cy + 1):
        for dx in (2 * cx - 1, 2 * cx, 2 * cx + 1):
            if (cost := off(luma, old, y, x, dy, dx, 8)) < bound:
                taken, bound, least = (dy, dx), cost, cost
    return *taken, least


@pytest.mark.parametrize("size", [1, 2])
def test_noise_by_definition(size):
    pictures = clip()
    made = AnchoredNoise(9, 33, size)
    for picture, wanted in zip(pictures, by_definition(pictures, 9, 33, size), strict=True):
        assert np.array_equal(made.next(picture), wanted)


def test_noise_moves_with_the_picture():
    pictures, made = clip(2), AnchoredNoise(1, 0, 1)
    first, second = (made.next(p) for p in pictures)
    assert np.array_equal(second[:16, :24], first[:16, :24])  # what stands still
    inner = np.s_[24:40, 24:56]
    assert np.array_equal(second[inner], first[26:42, 21:53])
    assert not np.isin(second[-8:, -8:], first).all()  # what is new
    assert abs(second.std() - 1) < 0.05


def test_noise_depends_on_seed_and_place():
    picture = clip(1)[0]
    made = [AnchoredNoise(*k, 1).next(picture) for k in ((1, 0), (2, 0), (1, 33))]
    assert not any(np.array_equal(made[0], other) for other in made[1:])


def test_bands_have_unit_variance():
    torch.manual_seed(0)
    power = bands(torch.randn(4, 1, 128, 128)).square().mean((0, 2, 3))
    assert torch.allclose(power, torch.ones(3), atol=0.15)


@pytest.mark.parametrize(("size", "side"), [(1, 160), (2, 80), (4, 40)])
def test_tiles_are_as_one(monkeypatch, size, side):
    random = np.random.default_rng(0)
    pictures = random.integers(0, 256, (3, side, side + 8, 3), dtype=np.uint8)
    net = restorers.NanoRestorer(random_net(), random_net(), bytes(8), 1.25)
    made = []
    for tile in (512, 32, 64):
        monkeypatch.setattr(restore, "TILE", tile)
        coded = BaseRecord("av1", size, 99, None, b"x")
        noise = AnchoredNoise(4, 0, size)
        shown = restore.restored(pictures, coded, 150, 155, noise, LOST, net)
        made.append(np.stack(list(shown)))
    assert made[0].shape == (3, 150, 155, 3)
    assert all(np.array_equal(m, made[0]) for m in made[1:])


def test_neighbours_and_batches(monkeypatch):
    """A picture depends on those beside it, whatever is computed together."""
    pictures, coded = clip(5), BaseRecord("vvc", 1, 150, None, b"x")
    net = restorers.NanoRestorer(random_net(), random_net(), bytes(8), 2.0)

    def made(clip: np.ndarray) -> np.ndarray:
        noise = AnchoredNoise(1, 0, 1)
        return np.stack(list(restore.restored(clip, coded, 48, 72, noise, LOST, net)))

    whole = made(pictures)
    monkeypatch.setattr(restore, "_TOGETHER", 0)
    assert np.array_equal(made(pictures), whole)
    other = pictures.copy()
    other[4] = 255 - other[4]
    changed = [not np.array_equal(a, b) for a, b in zip(made(other), whole, strict=True)]
    assert changed == [False, False, False, True, True]
    alone = made(pictures[2:3])
    assert alone.shape == (1, 48, 72, 3) and not np.array_equal(alone[0], whole[2])


def test_the_knob_interpolates():
    a, b = random_net(), random_net()
    with torch.no_grad():
        for parameter in b.parameters():
            parameter.mul_(3)
    want = {k: a.state_dict()[k] * 0.75 + b.state_dict()[k] * 0.25 for k in a.state_dict()}
    made = restorers.NanoRestorer(a, b, bytes(8), 1.25)
    assert all(torch.allclose(made.net.state_dict()[k], v, atol=1e-6) for k, v in want.items())


def test_no_noise_at_fidelity():
    coded, size = BaseRecord("av1", 1, 99, None, b"x"), (1, 3, 32, 48)
    random = torch.Generator().manual_seed(1)
    base = torch.rand(1, 9, 32, 48, generator=random)
    strong = torch.full((1, 1, 8, 12), 0.05)
    for knob, same in ((2.0, True), (1.0, False)):
        net = shipped(knob)
        noise = [torch.randn(1, 1, 32, 48, generator=random) for _ in range(2)]
        first, second = (net.restore(Inputs(base, base[:, 3:6], n, strong), coded) for n in noise)
        assert first.shape == size and torch.equal(first, second) is same


def test_weights_that_are_none(tmp_path: Path):
    with pytest.raises(ConfigError, match="unknown restorer 'x'"):
        restorers.load("x", 1.0)
    with pytest.raises(ConfigError, match="No such file"):
        restorers.load(f"nano:{tmp_path}/none", 1.0)
    config = {"realism": vars(SMALL), "fidelity": vars(RestorerShape(8, 2))}
    state = {f"{n}.{k}": v for n in config for k, v in Restorer(SMALL).state_dict().items()}
    path = tmp_path / "bad.safetensors"
    path.write_bytes(nano.pack(config, state))
    with pytest.raises(ConfigError, match="no fidelity of the expected shape"):
        restorers.load(f"nano:{path}", 1.0)


# -- files ------------------------------------------------------------------------------------


def config(**more: object) -> EncodeConfig:
    asked = {"mode": "v2v", "base": "av1", "size": 1500, "gop": 5}
    return EncodeConfig(**(asked | more))  # type: ignore[arg-type]


def video(frames: int = 9) -> Video:
    """Smooth pictures that move, so that a base of a few bytes shows something."""
    y, x = np.mgrid[:48, :72]
    out = [127 + 60 * np.sin((x + 2 * t) / 7) + 40 * np.cos((y - t) / 5) for t in range(frames)]
    return Video(np.stack(out).clip(0, 255).astype(np.uint8)[..., None].repeat(3, 3), Fraction(25))


@pytest.fixture(scope="module")
def coded() -> codec.Encoding:
    return codec.encode(video(), config())


def pictures(data: bytes, **more: object) -> np.ndarray:
    return np.stack(list(codec.Decoder(BytesIO(data), **more).pictures()))  # type: ignore[arg-type]


def with_restorer(stream: Stream, restorer: RestorerId | None, restored: bool = True) -> bytes:
    """The file with another restorer in its header, and with bases that ask for it or not."""
    header = dataclasses.replace(stream.header, restorer=restorer)
    out = head = bitstream.write_header(header)
    for i, gop in enumerate(stream.gops):
        assert gop.base is not None
        base = dataclasses.replace(gop.base, restored=restored)
        out += bitstream.write_gop(dataclasses.replace(gop, base=base), i, head)
    return out


def test_a_file_is_restored(coded: codec.Encoding):
    stream = parser.parse(coded.data)
    assert stream.header.restorer == RestorerId("nano", shipped().digest)
    assert [g.base is not None and g.base.restored for g in stream.gops] == [True, True]
    assert np.array_equal(pictures(coded.data), coded.frames)
    bases = pictures(coded.data, base_only=True)
    assert np.array_equal(bases, pictures(with_restorer(stream, None, restored=False)))
    assert not np.array_equal(bases, coded.frames)
    plain = parser.parse(codec.encode(video(), config(restorer="off")).data)
    assert plain.header.restorer is None and not any(g.base.restored for g in plain.gops if g.base)


def test_parts_are_as_the_whole(coded: codec.Encoding):
    assert np.array_equal(pictures(coded.data, start=6, end=8), coded.frames[6:8])
    parts = list(codec.encode_parts(video(), config()))
    head = parts[0].data + parts[1].data
    proofs = [p.proof for p in parts[:2]]
    assert b"".join(p.data for p in parts) == coded.data
    begun = codec.Begun(head, proofs)  # type: ignore[arg-type]
    again = list(codec.encode_parts(video(), config(), begun=begun))
    assert b"".join(p.data for p in again) == coded.data
    shown = [p.pictures for p in again if p.pictures is not None]
    assert np.array_equal(np.concatenate(shown), coded.frames)


def test_the_viewer_has_the_knob(coded: codec.Encoding):
    soft, sharp = (pictures(coded.data, knob=k) for k in (2.0, 1.0))
    assert not np.array_equal(soft, sharp)
    own = codec.encode(video(), config(knob=2.0))
    assert np.array_equal(pictures(own.data), own.frames)
    assert np.array_equal(pictures(own.data, knob=2.0), own.frames)
    assert not np.array_equal(pictures(own.data, knob=1.0), own.frames)


def test_other_weights_are_refused(coded: codec.Encoding):
    stream = parser.parse(coded.data)

    for other, message in (
        (RestorerId("nano", bytes(8)), "with weights 0000000000000000; here are"),
        (RestorerId("none", bytes(8)), "needs restorer none, which is not installed"),
    ):
        with pytest.raises(PriorMismatch, match=message):
            pictures(with_restorer(stream, other))
        assert pictures(with_restorer(stream, other), base_only=True).shape == (9, 48, 72, 3)
    with pytest.raises(Corrupt, match="no restorer"):
        pictures(with_restorer(stream, None))


def test_weights_of_ones_own(coded: codec.Encoding, run: Run, tmp_path: Path):
    config_ = {"realism": vars(SMALL), "fidelity": vars(SMALL)}
    state = {f"{n}.{k}": v for n in config_ for k, v in random_net().state_dict().items()}
    own, file, out = tmp_path / "own.safetensors", tmp_path / "a.gvcc", tmp_path / "a.y4m"
    own.write_bytes(nano.pack(config_, state))
    made = codec.encode(video(), config(restorer=f"nano:{own}"))
    assert not np.array_equal(made.frames, coded.frames)
    assert np.array_equal(pictures(made.data, restorer=f"nano:{own}"), made.frames)
    file.write_bytes(made.data)
    done = run("decode", file, "-o", out)
    assert done.code == 1 and "needs restorer nano with weights" in done.err
    assert run("decode", file, "-o", out, "--restorer", f"nano:{own}").code == 0
    with pytest.raises(PriorMismatch, match="needs restorer nano, not realesrgan"):
        pictures(made.data, restorer="realesrgan")
    with pytest.raises(ConfigError, match="a file is expected after the colon"):
        codec.encode(video(), config(restorer="nano:"))
    plain = codec.encode(video(1), config(restorer="off")).data
    with pytest.raises(ConfigError, match="names no restorer"):
        pictures(plain, restorer="nano")


@pytest.mark.parametrize("bad", [
    ({"restorer": "x"}, "unknown restorer 'x'"),
    ({"base_share": 0.5, "restorer": "nano"}, "bases alone"),
    ({"mode": "t2v", "base": None, "gop": None, "restorer": "nano"}, "modes v2v and auto"),
    ({"base_share": 1.0, "restorer": "off", "knob": 1.5}, "knob changes nothing"),
])  # fmt: skip
def test_what_does_not_go_together(bad):
    asked, message = bad
    with pytest.raises(ConfigError, match=message):
        config(**asked).resolved()


def test_quality_is_of_what_is_shown():
    """With the restorer a quality is measured of its pictures."""
    made = codec.encode(video(), config(size=None, quality="psnr:30"))
    stream = parser.parse(made.data)
    assert all(g.base and g.base.restored for g in stream.gops)
    off = video().frames.astype(float) - made.frames
    assert abs(10 * np.log10(255**2 / np.square(off).mean()) - 30) < 1.5


def test_a_knob_that_changes_nothing_is_said(run: Run, tmp_path: Path):
    plain, out = tmp_path / "a.gvcc", tmp_path / "a.y4m"
    plain.write_bytes(codec.encode(video(), config(restorer="off")).data)
    done = run("decode", plain, "-o", out, "--knob", "1.5", "--json")
    assert done.code == 0 and "--knob changes nothing" in done.err
    assert "--knob changes nothing" in json.loads(done.out)["notices"][0]["text"]
    plain.write_bytes(codec.encode(video(), config()).data)
    done = run("decode", plain, "-o", out, "-y", "--knob", "1.5")
    assert done.code == 0 and "changes nothing" not in done.err
    done = run("decode", plain, "-o", out, "-y", "--base-only", "--json")
    assert json.loads(done.out)["base_only"] is True and "bases alone" in done.err


def test_auto_has_restored_bases():
    made = codec.encode(video(5), config(mode="auto", size=2500))
    stream = parser.parse(made.data)
    assert stream.header.restorer is not None
    assert np.array_equal(pictures(made.data), made.frames)
