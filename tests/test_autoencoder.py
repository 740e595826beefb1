"""The autoencoder of `nano`: the linear one at its start, causal at any, isometry as a number."""

from importlib.resources import files

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import nn
from torch.utils.flop_counter import FlopCounterMode

from gvcc.errors import ConfigError
from gvcc.priors import gauss, transformer
from gvcc.priors.autoencoder import Autoencoder, AutoencoderShape, Block
from gvcc.priors.transformer import Transformer
from gvcc.train import runs
from gvcc.train.autoencoder import AutoencoderRecipe, isometry
from gvcc.train.flow import FlowRecipe
from gvcc.train.loop import Recipe, Run, load_recipe, optimisers, rate

CHANNELS = 6


def white(seed, *shape):
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed))


def pictures(frames, height, width, seed=1):
    """Blocks of 4x4 random pixels, float32 [1,T,H,W,3] in [-1,1], equal to bytes."""
    g = torch.Generator().manual_seed(seed)
    size = (1, frames, height // 4, width // 4, 3)
    small = torch.randint(0, 256, size, generator=g).float() / 127.5 - 1
    return small.repeat_interleave(4, 2).repeat_interleave(4, 3)


def stir(model, seed=1, size=0.05):
    """Give every parameter, the zeros of the last layers too, a random change."""
    with torch.no_grad():
        for i, p in enumerate(model.parameters()):
            p += size * white(1000 * seed + i, *p.shape)
    return model.eval().requires_grad_(False)


def small():
    recipe = AutoencoderRecipe(
        1, 1, channels=CHANNELS, width=16, encoder_blocks=2, decoder_blocks=3
    )
    return runs.start(recipe).eval().requires_grad_(False)


@pytest.fixture(scope="module")
def start():
    """The untrained autoencoder with all the channels of the basis."""
    recipe = AutoencoderRecipe(1, 1, width=16, encoder_blocks=1, decoder_blocks=2)
    return runs.start(recipe).eval().requires_grad_(False)


@pytest.fixture(scope="module")
def stirred():
    return stir(small())


# -- the start --------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("frames", "height", "width"), [(1, 16, 24), (5, 40, 16), (9, 8, 8), (33, 24, 32)]
)
def test_the_untrained_autoencoder_is_the_linear_one(start, frames, height, width):
    linear, x = gauss.load(), pictures(frames, height, width)
    z = start.encode(x)[0].permute(3, 0, 1, 2)
    want = linear.encode(((x[0] + 1) * 127.5).round().to(torch.uint8))
    assert z.shape == want.shape
    assert torch.allclose(z, want, atol=1e-4)
    shown = start.decode(want.permute(1, 2, 3, 0)[None])[0]
    levels = ((shown + 1) * 127.5).clamp(0, 255)
    off = (levels - linear.decode(want).float()).abs()
    assert off.max() < 0.51  # the linear prior rounds to bytes
    assert torch.allclose(start.linear(x)[0], shown, atol=1e-4)


def test_latents_of_unit_variance_and_a_doubled_first_frame(start):
    """A still picture has about the same latent in all frames, at the scale of its basis."""
    z = start.encode(pictures(1, 64, 64).expand(1, 9, 64, 64, 3))[0]
    assert torch.allclose(z[1], z[2], atol=1e-4)
    brightness = z[..., 0]
    assert torch.allclose(brightness[0], brightness[1], rtol=0.1, atol=0.1)


def test_noise_added_to_the_linear_autoencoder_is_noise_of_its_latent(start):
    x = pictures(5, 16, 16)
    noise = 0.3 * white(2, 1, 2, 2, 2, 32)
    assert torch.allclose(start.linear(x, noise), start.decode(start.encode(x) + noise), atol=1e-4)


def test_fewer_channels_are_the_first_of_the_basis(start):
    x = pictures(5, 16, 24)
    assert torch.allclose(small().encode(x), start.encode(x)[..., :CHANNELS], atol=1e-5)


def test_more_channels_than_the_basis_has_are_refused():
    with pytest.raises(ConfigError, match="channels is 33, expected at most 32"):
        runs.start(AutoencoderRecipe(1, 1, channels=33))


# -- causality --------------------------------------------------------------------------------


@pytest.mark.parametrize("latent", [0, 1, 3])
def test_a_latent_depends_on_no_later_frame(stirred, latent):
    x = pictures(17, 24, 16)
    before = stirred.encode(x)
    other = x.clone()
    other[:, 4 * latent + 1 :] = pictures(17, 24, 16, seed=2)[:, 4 * latent + 1 :]
    after = stirred.encode(other)
    assert torch.equal(after[:, : latent + 1], before[:, : latent + 1])
    assert ((after - before)[:, latent + 1 :].abs().amax((0, 2, 3, 4)) > 0.1).all()


def test_the_networks_look_at_the_frames_before(stirred):
    """What the causality tests allow does happen: the past is used, in both directions."""
    x = pictures(9, 16, 16)
    other = x.clone()
    other[:, 0] = -x[:, 0]
    assert (stirred.encode(other) - stirred.encode(x))[:, 1].abs().max() > 1e-3
    z = stirred.encode(x)
    moved = z.clone()
    moved[:, 0] += 1
    assert (stirred.decode(moved) - stirred.decode(z))[:, 1:5].abs().max() > 1e-3


@pytest.mark.parametrize("first", range(1, 6))
def test_the_first_latents_decode_to_the_first_pictures(stirred, first):
    z = white(3, 1, 6, 3, 5, CHANNELS)
    shown = stirred.decode(z)
    alone = stirred.decode(z[:, :first])
    assert alone.shape[1] == 4 * first - 3
    assert torch.allclose(alone, shown[:, : 4 * first - 3], atol=1e-5)


def test_a_block_sees_a_frame_and_the_one_before():
    block, x = stir(Block(8)), white(4, 1, 5, 6, 6, 8)
    for f in range(5):
        other = x.clone()
        other[:, f] += 1
        changed = ((block(other) - block(x)).abs().amax((0, 2, 3, 4)) > 0).tolist()
        assert changed == [g in (f, f + 1) for g in range(5)]


# -- sizes ------------------------------------------------------------------------------------


@settings(max_examples=15, deadline=None)
@given(st.integers(1, 9), st.integers(1, 6), st.integers(1, 6), st.integers(1, 2))
def test_any_multiple_of_eight_and_any_number_of_latents(stirred, f, h, w, batch):
    x = pictures(4 * f - 3, 8 * h, 8 * w).expand(batch, -1, -1, -1, -1)
    z = stirred.encode(x)
    assert z.shape == (batch, f, h, w, CHANNELS)
    shown = stirred.decode(z)
    assert shown.shape == x.shape
    assert torch.isfinite(shown).all()


def test_clips_of_a_batch_do_not_see_each_other(stirred):
    x = torch.cat([pictures(9, 24, 16, seed) for seed in (1, 2)])
    both = stirred.encode(x)
    shown = stirred.decode(both)
    for i in range(2):
        assert torch.allclose(stirred.encode(x[i : i + 1])[0], both[i], atol=1e-5)
        assert torch.allclose(stirred.decode(both[i : i + 1])[0], shown[i], atol=1e-5)


# -- isometry and cost ------------------------------------------------------------------------


class Damping(Autoencoder):
    """Decodes channel 2 at half its size."""

    def decode(self, z):
        factor = torch.ones(z.shape[-1])
        factor[2] = 0.5
        return super().decode(z * factor)


def test_isometry_is_all_ones_on_the_linear_model(start):
    response = isometry(start, white(5, 1, 3, 4, 4, 32))
    assert response.shape == (32,)
    assert torch.allclose(response, torch.ones(32), atol=1e-3)


def test_isometry_shows_a_channel_that_is_damped(stirred):
    model, z = small(), white(6, 1, 3, 4, 4, CHANNELS)
    model.__class__ = Damping
    want = torch.ones(CHANNELS)
    want[2] = 0.25
    assert torch.allclose(isometry(model, z), want, atol=1e-3)
    assert (isometry(stirred, z) - 1).abs().max() > 0.01


def test_the_shipped_decoder_is_cheap():
    """Under 6 GFLOP for a frame of 256x256: real time at 24 fps needs 0.15 TFLOP/s."""
    with torch.device("meta"):
        c = AutoencoderShape().channels
        model = Autoencoder(
            AutoencoderShape(), torch.empty(c, 768), torch.empty(c, 192), torch.empty(3), 1.0
        )
        with FlopCounterMode(display=False) as counter:
            shown = model.decode(torch.empty(1, 9, 32, 32, c))
    assert shown.shape == (1, 33, 256, 256, 3)
    assert 0.1e9 < counter.get_total_flops() / 33 < 6e9


# -- what trains it ---------------------------------------------------------------------------


@pytest.mark.parametrize("kind", ["autoencoder", "transformer"])
def test_every_parameter_has_one_optimiser(kind):
    """Muon takes the matrices inside, AdamW the first and last layers and all that is no matrix."""
    model = (
        small() if kind == "autoencoder" else Transformer(transformer.TransformerShape(4, 64, 2))
    )
    muon, adam = optimisers(model, Recipe(1, 1))
    groups = [{id(p) for g in o.param_groups for p in g["params"]} for o in (muon, adam)]
    assert not groups[0] & groups[1]
    assert groups[0] | groups[1] == {id(p) for p in model.parameters()}
    inside = {n for n, p in model.named_parameters() if id(p) in groups[0]}
    ends = (".up.weight", ".down.weight", ".qkv.weight", ".out.weight")
    assert inside == {n for n, _ in model.named_parameters() if n.endswith(ends)}


def test_rates_rise_stay_and_fall():
    recipe = Recipe(100, 1, warmup=10, cooldown=0.4)
    rates = [rate(recipe, i) for i in range(100)]
    assert rates[:10] == pytest.approx([(i + 1) / 10 for i in range(10)])
    assert rates[10:60] == [1.0] * 50
    assert rates[60:] == pytest.approx([1 - i / 40 for i in range(40)])


@pytest.mark.parametrize(
    ("name", "kind"), [("nano-autoencoder", AutoencoderRecipe), ("nano-flow", FlowRecipe)]
)
def test_shipped_recipes_load_and_are_chosen_by_device(tmp_path, name, kind):
    for device, which in (("cpu", "cpu"), ("cuda:1", "gpu")):
        recipe = runs.prepare(tmp_path / which, name, None, device, kind)
        shipped = files("gvcc.train") / f"recipes/{name}-{which}.toml"
        assert recipe == load_recipe(shipped, kind)
        assert recipe.bf16 == (which == "gpu")
        assert (tmp_path / which / "recipe.toml").read_text() == shipped.read_text()
        assert runs.prepare(tmp_path / which, name, None, "cpu", kind) == recipe  # its own


class Toy:
    """A task of one matrix that is to become the identity."""

    def __init__(self):
        self.model = nn.Sequential(nn.Linear(4, 4))
        self.corner = self.model[0].weight[0, :1]

    def loss(self, step):
        return ((self.model(torch.eye(4)) - torch.eye(4)) ** 2).mean()

    def validate(self):
        return {"corner": self.corner.item(), "training": float(self.model.training)}


def test_validation_sees_the_averaged_weights_and_training_its_own(tmp_path, monkeypatch):
    monkeypatch.setattr("gvcc.train.loop.plot_curve", lambda curve, path: None)
    toy, seen = Toy(), []
    run = Run(toy, Recipe(12, 1, warmup=1, validate_every=6, ema=0.8), tmp_path)
    average = run.train(lambda *_: seen.append(toy.corner.item()))
    assert len(set(seen)) == 12
    assert [row["step"] for row in run.curve] == [6, 12]
    assert run.curve[-1]["corner"] == average["0.weight"][0, 0]
    assert min(seen) < run.curve[-1]["corner"] < max(seen)
    assert toy.corner.item() == seen[-1] != run.curve[-1]["corner"]
    assert run.curve[-1]["training"] == 0 and toy.model.training
    assert run.curve[-1]["loss"] < run.curve[0]["loss"]
