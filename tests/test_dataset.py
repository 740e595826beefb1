"""Training samples: repeatable crops of clips and smooth pans over pictures."""

import hashlib
from fractions import Fraction

import numpy as np
import pytest
import torch
from test_train_gauss import texture, write

from gvcc.errors import ConfigError
from gvcc.pictures import media
from gvcc.train import dataset
from gvcc.train.dataset import Dataset, Item, manifest_text

COLOURS = {"a.y4m": 40, "b.y4m": 90, "b2.y4m": 140, "c.y4m": 200}


def plain(grey, frames=6, height=32, width=40):
    """One grey level, by which a sample's source is known."""
    return np.full((frames, height, width, 3), grey, np.uint8)


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    """Four plain clips, a textured one, two pictures and files that are none of these."""
    root = tmp_path_factory.mktemp("data")
    (root / "more").mkdir()
    for name, grey in COLOURS.items():
        write(root, name, plain(grey))
    write(root, "more/moving.y4m", texture(24, 80, 96, 1))
    write(root, "still.png", texture(1, 90, 120, 2))
    write(root, "more/Tiny.png", texture(1, 20, 30, 3))
    (root / "broken.mp4").write_bytes(b"no video at all")
    (root / "broken.jpg").write_bytes(b"no picture either")
    (root / "notes.txt").write_text("not a clip")
    return root


@pytest.fixture(scope="module")
def cache(tmp_path_factory):
    return tmp_path_factory.mktemp("cache")


@pytest.fixture(scope="module")
def data(folder, cache):
    return Dataset(folder, cache)


def only(tmp_path, **clips):
    """A data set of these clips or pictures alone."""
    for name, frames in clips.items():
        write(tmp_path, f"{name}.{'y4m' if len(frames) > 1 else 'png'}", frames)
    return tmp_path, tmp_path.parent / f"{tmp_path.name}-cache"


def source(sample):
    """Which of the plain clips a sample is from."""
    level = float(sample.float().mean())
    name = min(COLOURS, key=lambda n: abs(COLOURS[n] - level))
    flat = int(sample.amax()) - int(sample.amin()) <= 2
    return name if flat and abs(COLOURS[name] - level) < 3 else None


# -- what is found ----------------------------------------------------------------------------


def test_what_decodes_is_found_and_the_rest_passed_over(folder, data):
    names = ["a.y4m", "b.y4m", "b2.y4m", "c.y4m", "more/moving.y4m", "more/Tiny.png", "still.png"]
    frames = [6, 6, 6, 6, 24, 1, 1]
    assert data.manifest() == [
        (n, hashlib.sha256((folder / n).read_bytes()).hexdigest(), f)
        for n, f in zip(names, frames, strict=True)
    ]
    text = manifest_text(data.manifest()).splitlines()
    assert text[0] == "file,sha256,frames" and len(text) == 8
    assert text[1] == f"a.y4m,{data.items[0].sha256},6"


def test_the_arrays_are_the_decoded_files(folder, data):
    for item in data.items:
        assert np.array_equal(item.frames, media.read(folder / item.name).frames)


def test_progress_counts_every_file(folder, cache):
    said = []
    Dataset(folder, cache, progress=lambda *event: said.append(event))
    assert said == [("decode", i + 1, 9) for i in range(9)]


def test_the_second_opening_decodes_nothing(folder, data, cache, monkeypatch):
    """But for what could not be decoded the first time; and it is the same data set."""
    asked, read = [], media.read
    monkeypatch.setattr(media, "read", lambda p, **k: asked.append(p.name) or read(p, **k))
    again = Dataset(folder, cache)
    assert asked == ["broken.mp4", "broken.jpg"]
    assert again.manifest() == data.manifest()
    assert torch.equal(again.batch(1, 0, 8, 5, 24), data.batch(1, 0, 8, 5, 24))
    assert not list(cache.glob("*.part*"))


def test_a_file_that_changed_is_decoded_again(tmp_path):
    root, cache = only(tmp_path, a=plain(40))
    before = Dataset(root, cache)
    media.write(media.Video(plain(90), Fraction(25)), root / "a.y4m", overwrite=True)
    after = Dataset(root, cache)
    assert after.manifest() != before.manifest()
    assert abs(int(after.items[0].frames[0, 0, 0, 0]) - 90) < 3


def test_a_folder_without_clips_is_refused(tmp_path):
    cache = tmp_path / "cache"
    (tmp_path / "data").mkdir()
    with pytest.raises(ConfigError, match="no video files below"):
        Dataset(tmp_path / "data", cache)
    (tmp_path / "data" / "broken.mkv").write_bytes(bytes(100))
    write(tmp_path / "data", "still.png", plain(40, frames=1))
    with pytest.raises(ConfigError, match=f"no clip below {tmp_path / 'data'} can be decoded"):
        Dataset(tmp_path / "data", cache)


# -- samples ----------------------------------------------------------------------------------


@pytest.mark.parametrize(("frames", "side"), [(1, 8), (5, 24), (17, 20), (9, 64), (33, 30)])
def test_samples_have_the_size_asked_for(data, frames, side):
    """However short or small the source, and whatever its kind."""
    for i in range(24):
        x = data.sample(1, i, frames, side)
        assert x.shape == (frames, side, side, 3) and x.dtype == torch.uint8
    assert data.held_out(0, frames, side).shape == (frames, side, side, 3)


def test_samples_are_repeatable_and_all_different(folder, cache, data):
    again = Dataset(folder, cache)
    some = [data.sample(1, i, 9, 32) for i in range(40)]
    for i in (39, 3, 0):  # in any order
        assert torch.equal(again.sample(1, i, 9, 32), some[i])
    moving = [x for x in some if source(x) is None]
    assert len(moving) > 8
    assert len({x.numpy().tobytes() for x in moving}) == len(moving)
    other = torch.stack([data.sample(2, i, 9, 32) for i in range(40)])
    assert not torch.equal(other, torch.stack(some))
    assert torch.equal(data.batch(1, 2, 3, 9, 32), torch.stack(some[2:5]))


def pieces(clip, x, speed):
    """Whether x [T,s,s,3] is a piece of the clip, each `speed`-th frame of it."""
    t, side = (len(x) - 1) * speed, x.shape[1]
    corners = clip[: len(clip) - t, : clip.shape[1] - side + 1, : clip.shape[2] - side + 1]
    return any(
        np.array_equal(clip[i : i + t + 1 : speed, y : y + side, x0 : x0 + side], x)
        for i, y, x0 in np.argwhere((corners == x[0, 0, 0]).all(-1))
    )


def test_crops_of_a_clip_of_their_size_are_pieces_of_it(tmp_path):
    """Forwards or backwards, mirrored or not, some of them twice as fast."""
    clips = Dataset(*only(tmp_path, a=texture(12, 20, 28, 1)))
    clip, found, fast = clips.items[0].frames, dict.fromkeys(np.ndindex(2, 2), 0), 0
    for i in range(80):
        x = clips.sample(1, i, 3, 20).numpy()
        for back, mirror in found:
            y = x[:: 1 - 2 * back, :, :: 1 - 2 * mirror]
            once, twice = pieces(clip, y, 1), pieces(clip, y, 2)
            found[back, mirror] += once or twice
            fast += twice
    assert min(found.values()) > 8
    assert sum(found.values()) == 80
    assert 0.1 < fast / 80 < 0.45


def test_crops_of_a_larger_clip_are_shrunk_by_random_factors(tmp_path):
    """Up to the whole picture. Red tells the column: a crop's range of it is its width."""
    ramp = np.full((4, 80, 80, 3), 100, np.uint8)
    ramp[..., 0] = np.arange(60, 220, 2)
    clips = Dataset(*only(tmp_path, a=ramp))
    widths = []
    for i in range(60):
        x = clips.sample(1, i, 1, 20)[0, :, :, 0].float()
        assert float((x - x[:1]).abs().max()) <= 4  # columns are columns
        widths.append(float(x[:, -1].mean() - x[:, 0].mean()) / 2 * 20 / 19)
    widths = np.abs(widths)
    assert 18 < widths.min() < 45 and 70 < widths.max() < 83
    assert len(set(widths.round())) > 15


def test_a_clip_too_short_turns_back_and_one_too_small_is_enlarged(tmp_path):
    ramp = np.repeat(40 + 40 * np.arange(4, dtype=np.uint8), 32 * 24 * 3).reshape(4, 32, 24, 3)
    clips = Dataset(*only(tmp_path, a=ramp))
    for i in range(12):
        x = clips.sample(1, i, 11, 48)
        assert x.shape == (11, 48, 48, 3)
        levels = [round((float(f.float().mean()) - 40) / 40) for f in x]
        assert set(levels) == {0, 1, 2, 3}
        steps = np.abs(np.diff(levels))
        assert (steps == 1).all()  # neither a jump nor a frame twice


def test_held_out_clips_are_never_sampled(tmp_path):
    """And validation draws from nothing else."""
    write(tmp_path, "in0.y4m", plain(30))
    for i in range(400):  # one file in 32 is held out: make them until one is
        file = tmp_path / "out.y4m"
        write(tmp_path, file.name, plain(200, width=32 + i))
        if hashlib.sha256(file.read_bytes()).digest()[0] < 8:
            break
        file.unlink()
    clips = Dataset(tmp_path, tmp_path / "cache")
    assert [i.name for i in clips.validation] == ["out.y4m"]
    assert [i.name for i in clips.clips] == ["in0.y4m"]
    assert all(clips.sample(1, i, 3, 16).float().mean() < 40 for i in range(100))
    assert all(clips.held_out(i, 3, 16).float().mean() > 190 for i in range(8))


def test_the_held_out_are_one_in_thirty_two(folder, data):
    names = [hashlib.sha256(bytes([i % 256, i // 256])).hexdigest() for i in range(6400)]
    held = sum(dataset._held_out(Item("", n, plain(0))) for n in names)
    assert 140 < held < 260
    assert data.validation and data.clips  # never empty, however few the clips
    for i in data.clips:
        assert i in data.items


def test_held_out_samples_are_fixed(folder, cache, data):
    other = Dataset(folder, cache, weights={"a": 5.0}, pictures=0.7)
    for i in range(6):
        assert torch.equal(data.held_out(i, 5, 32), other.held_out(i, 5, 32))


# -- frequencies ------------------------------------------------------------------------------


def counts(data, n=400):
    names = [source(data.sample(3, i, 1, 16)) for i in range(n)]
    return {name: names.count(name) / n for name in (*COLOURS, None)}


def test_weights_change_how_often_a_clip_is_drawn(folder, cache):
    """By the beginning of the file's name; the others count 1."""
    assert not any(dataset._held_out(i) for i in Dataset(folder, cache).clips)
    even = counts(Dataset(folder, cache, pictures=0))
    for share in even.values():
        assert share == pytest.approx(0.2, abs=0.07)
    odds = counts(Dataset(folder, cache, weights={"b": 0.25, "mov": 2.5}, pictures=0))
    total = 1 + 0.25 + 0.25 + 1 + 2.5
    for name, weight in (("a.y4m", 1), ("b.y4m", 0.25), ("b2.y4m", 0.25), (None, 2.5)):
        assert odds[name] == pytest.approx(weight / total, abs=0.07)


def test_pictures_are_the_share_of_samples_asked_for(tmp_path):
    root, cache = only(tmp_path, a=plain(40), b=plain(200, frames=1))
    for share in (0.0, 0.3, 1.0):
        data = Dataset(root, cache, pictures=share)
        found = np.mean([data.sample(1, i, 1, 16).float().mean() > 150 for i in range(300)])
        assert found == pytest.approx(share, abs=0.09 if share == 0.3 else 0)
    (root / "b.png").unlink()
    assert Dataset(root, cache, pictures=1.0).sample(1, 0, 3, 16).float().mean() < 50


# -- the moving camera ------------------------------------------------------------------------


def test_a_pan_moves_smoothly():
    """Frames differ, far less than pictures of other places do, and at a pace that hardly
    changes from frame to frame."""
    picture = texture(1, 90, 120, 2)[0]
    pans = [dataset._pan(picture, 9, 48, np.random.default_rng([7, i])).float() for i in range(16)]
    other = np.mean([(a - b).abs().mean() for a, b in zip(pans, pans[1:], strict=False)])
    for x in pans:
        assert x.shape == (9, 48, 48, 3)
        step = (x[1:] - x[:-1]).abs().mean((1, 2, 3))
        assert 0.5 < step.min() and step.max() < 0.8 * other and step.mean() < 0.6 * other
        pace = step[1:] / step[:-1]
        assert 0.4 < pace.min() and pace.max() < 2.5
        assert (x[-1] - x[0]).abs().mean() > 1.2 * step.mean()


def test_a_pan_shows_nothing_but_the_picture():
    """Red tells the column and green the row: the camera sees each place as it is, on a path
    without jumps, and no border of another colour."""
    picture = np.full((100, 140, 3), 77, np.uint8)
    picture[..., 0] = np.linspace(60, 200, 140).round()
    picture[..., 1] = np.linspace(80, 180, 100).round()[:, None]
    inside = []
    for i in range(16):
        x = dataset._pan(picture, 17, 32, np.random.default_rng([8, i])).float()
        assert (x[..., 2] == 77).all()
        assert x[..., 0].min() >= 58 and x[..., 0].max() <= 202
        assert x[..., 1].min() >= 78 and x[..., 1].max() <= 182
        centre = x[:, 15:17, 15:17, :2].mean((1, 2))
        assert (centre[1:] - centre[:-1]).abs().max() < 12
        bend = centre[2:] - 2 * centre[1:-1] + centre[:-2]
        inside.append(float(bend.abs().max()) < 2)
    assert np.mean(inside) > 0.7  # elsewhere the path meets the picture's edge and turns back
