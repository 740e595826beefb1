"""CogVideoX as a prior does what diffusers' own pipeline does, tensor for tensor: every input of
every call of the network, the steps, the autoencoder and the texts, in miniature models. Below:
that the comparisons, which Wan's tests share, see a change."""

import math
import shutil
from dataclasses import replace
from functools import lru_cache

import numpy as np
import pytest
import tiny_models
import torch
from diffusers import (
    CogVideoXDDIMScheduler,
    CogVideoXPipeline,
    CogVideoXTransformer3DModel,
    CogVideoXVideoToVideoPipeline,
)
from diffusers.models.attention_dispatch import _AttentionBackendRegistry
from diffusers.models.autoencoders.vae import DiagonalGaussianDistribution
from model_hooks import (
    PROMPTS,
    agreed,
    cog_pipeline,
    contents,
    ours,
    pictures,
    recorded,
    same,
    same_call,
    theirs,
    white,
)

from gvcc import flow, priors
from gvcc.errors import BadSetting

pytestmark = pytest.mark.usefixtures("one_thread")

LEARNED, ROTARY = tiny_models.COGS  # by their positions
VP = flow.PATHS["vp"]
STEPS = 4  # at levels 999, 749, 499, 249


@pytest.fixture(autouse=True)
def cache(monkeypatch, tmp_path):
    monkeypatch.setenv("GVCC_CACHE", str(tmp_path / "cache"))


@pytest.fixture(scope="module")
def folders(tmp_path_factory):
    at = tmp_path_factory.mktemp("cogvideox")
    return {name: tiny_models.make(name, at) for name in tiny_models.COGS}


@pytest.fixture(scope="module")
def pipeline(folders):
    @lru_cache
    def made(name, dtype="fp32", kind=CogVideoXPipeline):
        return cog_pipeline(folders[name], dtype, kind)

    return made


@pytest.fixture
def load(folders, cache):
    def prior(name, **settings):
        return priors.load(f"{name}:{folders[name]}", settings={"dtype": "fp32"} | settings)

    return prior


def noise(frames=3, height=8, width=8):
    return white(1, 4, frames, height, width)


def piped(pipe, x, steps=STEPS, **more):
    """A pipeline's calls from the latent [C,F,h,w] on, its latents, and the noise levels."""
    _, frames, h, w = x.shape
    start = x.transpose(0, 1)[None].to(pipe.transformer.dtype)
    calls, latents, found = theirs(
        pipe, start, (4 * frames - 3, 8 * h, 8 * w), num_inference_steps=steps,
        max_sequence_length=16, **more,
    )  # fmt: skip
    return calls, [y.transpose(0, 1) for y in latents], found.tolist()


def time_of(level, scheduler):
    """The time of the path at a noise level of the scheduler."""
    alpha = float(scheduler.alphas_cumprod[level])
    return 2 / math.pi * math.atan2(math.sqrt(1 - alpha), math.sqrt(alpha))


def guess(x, t, v):
    alpha, sigma = VP(t)
    return alpha * x - sigma * v[0].float().transpose(0, 1)


# -- the calls --------------------------------------------------------------------------------


@pytest.mark.parametrize("prompt", PROMPTS)
@pytest.mark.parametrize(
    ("name", "size"),
    [(LEARNED, (8, 8)), *((ROTARY, s) for s in [(8, 8), (6, 12), (10, 4), (16, 16)])],
)
def test_calls(pipeline, load, name, size, prompt):
    pipe, prior = pipeline(name), load(name, prompt=prompt)
    calls, latents, found = piped(pipe, noise(3, *size), prompt=prompt)
    times = [time_of(level, pipe.scheduler) for level in found]
    assert found == [999, 749, 499, 249] and times[0] == 1
    assert [prior.level(t) for t in times] == pytest.approx(found, abs=1e-6)
    got, guesses = ours(prior, latents, times)
    assert len(got) == len(calls) == STEPS
    wanted = {"hidden_states", "timestep", "encoder_hidden_states"}
    wanted |= {"image_rotary_emb.0", "image_rotary_emb.1"} if name == ROTARY else set()
    assert calls[0].inputs.keys() == wanted
    for mine, call, h, x, t in zip(got, calls, guesses, latents, times, strict=False):
        same_call(mine, call)
        same(h, guess(x, t, call.output), "x0hat", 1e-6)


@pytest.mark.parametrize("name", [LEARNED, ROTARY])
def test_calls_in_half_precision(pipeline, load, name):
    pipe = pipeline(name, "bf16")
    calls, latents, found = piped(pipe, noise(), prompt=PROMPTS[1])
    times = [time_of(level, pipe.scheduler) for level in found]
    got, guesses = ours(load(name, dtype="bf16", prompt=PROMPTS[1]), latents, times)
    for mine, call, h, x, t in zip(got, calls, guesses, latents, times, strict=False):
        assert mine.inputs["hidden_states"].dtype == mine.output.dtype == torch.bfloat16
        assert mine.inputs["timestep"].dtype == h.dtype == torch.float32
        same_call(mine, call)
        same(h, guess(x, t, call.output), "x0hat", 1e-6)


@pytest.mark.parametrize("name", [LEARNED, ROTARY])
def test_guidance(pipeline, load, name):
    """A pipeline's one call for both prompts is two of ours, equal up to the order of sums."""
    pipe, said = pipeline(name), {"prompt": PROMPTS[1], "negative": "blurred static"}
    calls, latents, found = piped(
        pipe, noise(), prompt=said["prompt"], negative_prompt=said["negative"], guidance_scale=5.0
    )
    times = [time_of(level, pipe.scheduler) for level in found]
    got, guesses = ours(load(name, guidance="5", **said), latents, times)
    assert len(got) == 2 * len(calls) == 2 * STEPS
    for i, (x, t, h) in enumerate(zip(latents, times, guesses, strict=False)):
        without, with_it = (half(calls[i], n) for n in (0, 1))
        assert not torch.equal(without.output, with_it.output)
        same_call(got[2 * i], with_it, within=1e-5)
        same_call(got[2 * i + 1], without, within=1e-5)
        v = without.output + 5.0 * (with_it.output - without.output)
        same(h, guess(x, t, v), "x0hat", 1e-4)


def half(call, n):
    """One of the two calls that are one in a batch of two."""
    inputs = {k: v if "rotary" in k else v[n : n + 1] for k, v in call.inputs.items()}
    return replace(call, inputs=inputs, output=call.output[n : n + 1])


def test_known_frames_come_out_as_they_are(load):
    """The network sees x as it is in these as in all frames."""
    prior, x, first = load(ROTARY), noise(), agreed(1, 1, 64, 64)
    (call,), (h,) = ours(prior, [x], [0.7], first)
    same(call.inputs["hidden_states"][0].transpose(0, 1), x)
    same(h[:, :1], prior.encode(first))
    same(h[:, 1:], prior.denoise(x, 0.7)[:, 1:])


# -- noise levels and steps -------------------------------------------------------------------


@pytest.mark.parametrize("name", [LEARNED, ROTARY])
def test_noise_levels_are_those_of_the_scheduler(pipeline, load, name):
    prior, scheduler = load(name), pipeline(name).scheduler
    same(torch.from_numpy(1 / (1 + np.exp(-prior.log_snr))), scheduler.alphas_cumprod, "", 1e-9)
    levels = range(0, 1000, 37)
    times = [time_of(n, scheduler) for n in levels]
    assert [prior.level(t) for t in times] == pytest.approx(list(levels), abs=1e-6)
    between = [prior.level((t + s) / 2) for t, s in zip(times, times[1:], strict=False)]
    assert all(n < level < n + 37 for n, level in zip(levels, between, strict=False))
    assert (prior.level(0.0), prior.level(1.0)) == (0, 999)


def test_levels_may_be_rounded_to_bfloat16(pipeline, load):
    t, x = time_of(499, pipeline(LEARNED).scheduler), noise()
    for rounded, level in (("fp32", 499), ("bf16", 500)):  # 8 bits
        (call,), _ = ours(load(LEARNED, timesteps=rounded), [x], [t])
        assert call.inputs["timestep"].tolist() == [level]


@pytest.mark.parametrize("name", [LEARNED, ROTARY])
def test_steps_are_those_of_the_scheduler(pipeline, load, name):
    prior, x = load(name), noise()
    scheduler = CogVideoXDDIMScheduler.from_config(pipeline(name).scheduler.config)
    scheduler.set_timesteps(20)
    levels = scheduler.timesteps.tolist()
    times = [*(time_of(n, scheduler) for n in levels), 0.0]
    for level, t, s in zip(levels, times, times[1:], strict=False):
        (call,), (h,) = ours(prior, [x], [t])
        step = flow.ode_step(VP, t, s, 1.0)
        mine, v = step.a * x + step.b * h, call.output[0].transpose(0, 1)
        theirs, clean = scheduler.step(v, level, x, eta=0.0, return_dict=False)
        same(h, clean, "x0hat", 2e-6)
        same(mine, theirs, f"step at {level}", 5e-6)
        assert (theirs - x).abs().max() > 0.01
        x = theirs.float()


@pytest.mark.parametrize("name", [LEARNED, ROTARY])
def test_a_whole_trajectory(pipeline, load, name):
    """Our sampling loop ends where the pipeline does."""
    pipe = pipeline(name)
    _, latents, found = piped(pipe, noise())
    times = [*(time_of(level, pipe.scheduler) for level in found), 0.0]
    x = flow.sample(load(name).denoise, noise(), times, lambda *_: None, rule="posterior", path=VP)
    same(x, latents[-1], "latent", 2e-5)


# -- the autoencoder --------------------------------------------------------------------------


@pytest.mark.parametrize("frames", [9, 17])
def test_encoding_and_decoding(pipeline, load, monkeypatch, frames):
    """As diffusers' pipeline from videos to videos has it, but for the noise of its posterior and
    the one it adds."""
    prior, pipe = load(LEARNED), pipeline(LEARNED, "fp32", CogVideoXVideoToVideoPipeline)
    mode = DiagonalGaussianDistribution.mode
    monkeypatch.setattr(DiagonalGaussianDistribution, "sample", lambda q, generator=None: mode(q))
    monkeypatch.setattr(pipe.scheduler, "add_noise", lambda latent, noise, time: latent)
    latents = {"white": noise((frames + 3) // 4, 2, 6)}
    for what, clip in contents(frames, 16, 48).items():
        pixels = (clip / 127.5 - 1).permute(3, 0, 1, 2)[None]
        with torch.no_grad():
            want = pipe.prepare_latents(pixels, 1, 4, 16, 48, torch.float32, "cpu", timestep=0)
        latents[what] = z = prior.encode(clip)
        assert z.dtype == torch.float32 and z.shape[1] == (frames + 3) // 4
        same(z.transpose(0, 1)[None], want, what)
    for what, z in latents.items():
        with torch.no_grad():
            want = pipe.decode_latents(z.transpose(0, 1)[None])
        rendered = prior.render(z)
        assert rendered.shape == (frames, 16, 48, 3) and rendered.std() > 1e-3
        same(rendered.permute(3, 0, 1, 2)[None], want, what)
        shown = (want[0].permute(1, 2, 3, 0) / 2 + 0.5).clamp(0, 1) * 255
        same(prior.decode(z), shown, what, 0.501)


@pytest.mark.parametrize("frames", [5, 13])
def test_even_numbers_of_latent_frames(load, frames):
    prior, clip = load(LEARNED), pictures(1, frames, 32, 48)
    assert prior.decode(prior.encode(clip)).shape == clip.shape


@pytest.mark.parametrize("tile", ["64", "256"])
def test_tiles_cover_the_pictures(load, tile):
    prior, clip = load(LEARNED, tile=tile), pictures(1, 9, 16, 4 * int(tile) + 48)
    assert prior.decode(prior.encode(clip)).shape == clip.shape


# -- texts ------------------------------------------------------------------------------------


@pytest.mark.parametrize("dtype", ["fp32", "bf16"])
@pytest.mark.parametrize("prompt", [*PROMPTS, "fox " * 40])
def test_prompts(pipeline, load, prompt, dtype):
    """As they are, padding and all."""
    prior = load(LEARNED, prompt=prompt, negative="snow", dtype=dtype)
    with torch.no_grad():
        want, other = pipeline(LEARNED, dtype).encode_prompt(prompt, "snow", max_sequence_length=16)
    assert want.shape == (1, 16, 32)
    same(prior.text, want)
    same(prior.negative, other)
    assert prior.text.dtype == want.dtype and prior.text[0].any(1).all()


def test_prompts_outlive_their_encoder(folders, tmp_path):
    at = shutil.copytree(folders[ROTARY], tmp_path / "model")
    said = {"dtype": "fp32", "prompt": PROMPTS[2]}
    before = priors.load(f"{ROTARY}:{at}", settings=said)
    text, guessed = before.text, before.denoise(noise(), 0.6)
    shutil.rmtree(at / "text_encoder")
    after = priors.load(f"{ROTARY}:{at}", settings=said)
    assert after.spec.digest == before.spec.digest
    assert torch.equal(after.text, text) and text.any()
    assert torch.equal(after.denoise(noise(), 0.6), guessed)


# -- attention --------------------------------------------------------------------------------


def test_anothers_attention_backend_is_not_ours(load, monkeypatch):
    usual = _AttentionBackendRegistry._active_backend
    monkeypatch.setattr(_AttentionBackendRegistry, "_active_backend", usual)  # and put it back
    prior, x = load(ROTARY), noise()
    (call,), (before,) = ours(prior, [x], [0.6])
    CogVideoXTransformer3DModel(**tiny_models.COGVIDEOX).set_attention_backend("_native_math")
    assert _AttentionBackendRegistry._active_backend == "_native_math" != usual
    (other,), (after,) = ours(prior, [x], [0.6])
    assert call.backend == other.backend == "native" and torch.equal(after, before)
    # Its processor in diffusers asks no backend: a setting that does nothing is refused.
    with pytest.raises(BadSetting, match="has one attention backend only, native"):
        load(ROTARY, attention="_native_math")


# -- the comparisons themselves ---------------------------------------------------------------


def test_a_changed_number_is_seen():
    x = white(1, 2, 3)
    same(x, x.clone())
    same(x + 1e-3, x, within=2e-3)
    for other in (x + 1e-6, x[:, :2], x[None], x * torch.nan):
        with pytest.raises(AssertionError):
            same(x, other)
        with pytest.raises(AssertionError):
            same(other, x)


def test_a_changed_call_is_seen(load):
    (call,), _ = ours(load(ROTARY), [noise()], [0.7])
    assert len(call.inputs) == 5
    same_call(call, call)
    wrong = [replace(call, net="transformer_2"), replace(call, output=call.output + 1e-5)]
    for name, tensor in call.inputs.items():
        changed = tensor.clone().contiguous()
        changed.view(-1)[-1] += 0.01
        others = [changed, tensor.double(), tensor[None]]
        wrong += [replace(call, inputs=call.inputs | {name: t}) for t in others]
        left = {n: t for n, t in call.inputs.items() if n != name}
        wrong += [replace(call, inputs=left), replace(call, inputs=left | {f"{name}.0": tensor})]
    for other in wrong:
        with pytest.raises(AssertionError):
            same_call(call, other)
        with pytest.raises(AssertionError):
            same_call(other, call)
    time = call.inputs["timestep"]
    whole = replace(call, inputs=call.inputs | {"timestep": time.long()})
    same_call(replace(call, inputs=call.inputs | {"timestep": time.floor()}), whole)
    with pytest.raises(AssertionError, match="timestep is off"):
        same_call(replace(call, inputs=call.inputs | {"timestep": time.floor() + 0.1}), whole)


def test_what_a_network_is_given_is_recorded():
    """Before it can change it, whatever the names; tensors without a name and other values are
    refused, since they would go uncompared."""

    class Net(torch.nn.Module):
        def forward(self, *args, **kwargs):
            return (kwargs["a"].add_(1),)

    net, x = Net(), torch.zeros(2)
    with recorded(net=net) as calls:
        net(a=x, b=(x, None), c=None, d=False)
        for args, kwargs in (([x], {}), ([], {"a": 3}), ([], {"a": [x]}), ([], {"a": True})):
            with pytest.raises(AssertionError):
                net(*args, **kwargs)
    net(a=x)
    (call,) = calls
    assert call.net == "net" and call.inputs.keys() == {"a", "b.0"}
    assert call.inputs["a"].tolist() == [0, 0] and call.output.tolist() == [1, 1]
