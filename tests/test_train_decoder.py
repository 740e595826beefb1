"""Fine-tuning nano's decoder on coded latents: examples, and what a run leaves as it was."""

from __future__ import annotations

from io import BytesIO
from pathlib import Path

import numpy as np
import pytest
import torch
from test_perceptual import weights  # noqa: F401  (a fixture)
from test_train_gauss import texture, write

from gvcc import codec
from gvcc.errors import ConfigError, PriorMismatch
from gvcc.priors import nano
from gvcc.records import Video
from gvcc.search.config import EncodeConfig
from gvcc.train import decoder, loop, runs

SHIPPED = Path(nano.__file__).parent / "weights/nano.safetensors"
RECIPE = (
    "steps = 2\nbatch = 2\nexamples = 3\nheld = 1\nwarmup = 1\nvalidate_every = 2\n"
    "checkpoint_every = 1\nadam_lr = 1e-3\nlr = 1e-3\n"
)


def test_an_example_is_a_clip_and_its_coded_latent() -> None:
    prior = nano.load()
    clip = texture(9, 48, 48, 1)
    made = decoder.coded(prior, clip, np.random.default_rng(3))
    assert made.latent.shape == (3, 6, 6, prior.spec.channels)
    clean = prior.encode(torch.from_numpy(clip)).permute(1, 2, 3, 0).numpy()
    off = np.square(made.latent - clean).mean() / np.square(clean).mean()
    assert 0.02 < off < 1  # it was coded, and is of this clip


def test_a_cut_makes_no_example_shorter(monkeypatch: pytest.MonkeyPatch) -> None:
    """Modes with coded pictures begin a GOP at a cut; examples of one batch have one length."""
    monkeypatch.setattr(decoder, "_MODES", ("i2v",))
    clip = np.concatenate([texture(5, 48, 48, 1), 255 - texture(4, 48, 48, 2)])
    assert len(decoder.coded(nano.load(), clip, np.random.default_rng(3)).latent) == 3


def test_examples_that_are_none(tmp_path: Path) -> None:
    path = tmp_path / "x.npz"
    for bad in (b"", b"PK nonsense"):
        path.write_bytes(bad)
        with pytest.raises(ConfigError, match="is no example"):
            decoder.read(path)


@pytest.mark.usefixtures("weights")
def test_a_run_changes_the_decoder_alone(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(loop, "plot_curve", lambda curve, path: None)
    monkeypatch.setattr(decoder, "FRAMES", 5)
    monkeypatch.setattr(decoder, "SIDE", 64)
    (tmp_path / "data").mkdir()
    for i in range(2):
        write(tmp_path / "data", f"{i}.y4m", texture(9, 64, 64, i))
    recipe = tmp_path / "tiny.toml"
    recipe.write_text(RECIPE)
    path = runs.decoder(tmp_path / "data", tmp_path / "run", str(recipe))
    before, after = (nano.unpack(p.read_bytes(), "")[1] for p in (SHIPPED, path))
    assert before.keys() == after.keys()
    moved = {k.split(".")[1] for k in before if not torch.equal(before[k], after[k])}
    assert moved == {"enter_latent", "decoder", "to_group", "to_first"}
    made = codec.encode(Video(texture(5, 48, 48, 2), 25), EncodeConfig(mode="t2v", size=400))  # type: ignore[arg-type]
    with pytest.raises(PriorMismatch, match="needs prior nano with weights"):
        codec.Decoder(BytesIO(made.data), f"nano:{path}")
