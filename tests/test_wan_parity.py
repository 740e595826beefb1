"""Wan as a prior does what diffusers' own pipelines do, tensor for tensor: every input of every
call of the networks, the steps, the autoencoder and the texts, in miniature models."""

import math
import shutil
from functools import lru_cache

import numpy as np
import pytest
import tiny_models
import torch
from diffusers import (
    FlowMatchEulerDiscreteScheduler,
    WanImageToVideoPipeline,
    WanPipeline,
    WanTransformer3DModel,
)
from diffusers.models.attention_dispatch import _AttentionBackendRegistry
from diffusers.pipelines.wan.pipeline_wan import prompt_clean
from model_hooks import (
    DTYPES,
    PROMPTS,
    agreed,
    contents,
    ours,
    pictures,
    same,
    same_call,
    shown,
    theirs,
    wan_latent,
    wan_pipeline,
    white,
)

from gvcc import flow, priors
from gvcc.priors import References
from gvcc.priors.parts import cleaned

pytestmark = pytest.mark.usefixtures("one_thread")

T2V, I2V, FLF2V, A14B, TI2V = tiny_models.WANS
HEIGHT, WIDTH = 32, 64
TIMES = (1.0, 0.875, 0.87499, 0.3)  # 0.875 is where A14B's experts meet


@pytest.fixture(autouse=True)
def cache(monkeypatch, tmp_path):
    monkeypatch.setenv("GVCC_CACHE", str(tmp_path / "cache"))


@pytest.fixture(scope="module")
def folders(tmp_path_factory):
    at = tmp_path_factory.mktemp("wan")
    return {name: tiny_models.make(name, at) for name in tiny_models.WANS}


@pytest.fixture(scope="module")
def pipeline(folders):
    """A model as diffusers' pipeline, for pictures or without."""

    @lru_cache
    def made(name, dtype="fp32", kind=WanPipeline):
        return wan_pipeline(name, folders[name], dtype, kind)

    return made


@pytest.fixture
def load(folders, cache):
    def prior(name, **settings):
        return priors.load(f"{name}:{folders[name]}", settings={"dtype": "fp32"} | settings)

    return prior


def noise(name, frames=3):
    net, vae, _ = tiny_models.WANS[name]
    space = vae.get("scale_factor_spatial", 8)
    return white(1, net["out_channels"], frames, HEIGHT // space, WIDTH // space)


def piped(pipe, x, times=TIMES, **more):
    """A pipeline's calls from the latent x on, its latents and its times."""
    pipe.scheduler.times = times
    pixels = 4 * x.shape[1] - 3, HEIGHT, WIDTH
    calls, latents, found = theirs(pipe, x[None], pixels, num_inference_steps=len(times), **more)
    return calls, latents, [float(t) / 1000 for t in found]


def guess(x, t, velocity):
    return x - torch.tensor(t, dtype=torch.float32) * velocity[0].float()


# -- the calls --------------------------------------------------------------------------------


@pytest.mark.parametrize("dtype", ["fp32", "bf16"])
@pytest.mark.parametrize("prompt", PROMPTS)
@pytest.mark.parametrize("name", [T2V, A14B, TI2V])
def test_calls_without_pictures(pipeline, load, name, prompt, dtype):
    calls, latents, times = piped(pipeline(name, dtype), noise(name), prompt=prompt)
    got, guesses = ours(load(name, dtype=dtype, prompt=prompt), latents, times)
    assert len(got) == len(calls) == len(TIMES) and len(calls[0].inputs) == 3
    for mine, call, h, x, t in zip(got, calls, guesses, latents, times, strict=False):
        assert mine.inputs["hidden_states"].dtype == mine.output.dtype == DTYPES[dtype]
        assert mine.inputs["timestep"].dtype == h.dtype == torch.float32
        same_call(mine, call)
        same(h, guess(x, t, call.output), "x0hat", 1e-6)


@pytest.mark.parametrize("dtype", ["fp32", "bf16"])
@pytest.mark.parametrize("name", [I2V, FLF2V, TI2V])
def test_calls_with_pictures(pipeline, load, name, dtype):
    (first, last), given = shown(name == FLF2V, HEIGHT, WIDTH)
    pipe = pipeline(name, dtype, WanImageToVideoPipeline)
    calls, latents, times = piped(pipe, noise(name), prompt=PROMPTS[2], **given)
    got, guesses = ours(load(name, dtype=dtype, prompt=PROMPTS[2]), latents, times, first, last)
    assert len(got) == len(calls) == len(TIMES)
    assert ("encoder_hidden_states_image" in calls[0].inputs) == (name != TI2V)
    for mine, call, h, x, t in zip(got, calls, guesses, latents, times, strict=False):
        same_call(mine, call)
        same(h[:, 1:], guess(x, t, call.output)[:, 1:], "x0hat", 1e-6)


@pytest.mark.parametrize("name", [I2V, FLF2V, TI2V])
def test_calls_with_pictures_of_all_levels(pipeline, load, name):
    """Up to the last bit of the pixels: see `agreed`."""
    (first, last), given = shown(name == FLF2V, HEIGHT, WIDTH, pictures)
    pipe = pipeline(name, "fp32", WanImageToVideoPipeline)
    calls, latents, times = piped(pipe, noise(name), **given)
    got, _ = ours(load(name), latents, times, first, last)
    for mine, call in zip(got, calls, strict=True):
        same_call(mine, call, within=1e-4, hidden_states=1e-5)


@pytest.mark.parametrize("dtype", ["fp32", "bf16"])
@pytest.mark.parametrize("name", [T2V, A14B, FLF2V, TI2V])
def test_guidance(pipeline, load, name, dtype):
    said = {"prompt": PROMPTS[1], "negative": "blurred static"}
    images, given, kind = (None, None), {}, WanPipeline
    if name in (FLF2V, TI2V):
        (images, given), kind = shown(name == FLF2V, HEIGHT, WIDTH), WanImageToVideoPipeline
    calls, latents, times = piped(
        pipeline(name, dtype, kind), noise(name), guidance_scale=5.0, prompt=said["prompt"],
        negative_prompt=said["negative"], **given,
    )  # fmt: skip
    got, guesses = ours(load(name, dtype=dtype, guidance="5", **said), latents, times, *images)
    assert len(got) == len(calls) == 2 * len(TIMES)
    for mine, call in zip(got, calls, strict=True):
        same_call(mine, call)
    for i, (x, t, h) in enumerate(zip(latents, times, guesses, strict=False)):
        with_it, without = calls[2 * i].output, calls[2 * i + 1].output
        assert not torch.equal(with_it, without)
        want = guess(x, t, without + 5.0 * (with_it - without))
        same(h[:, 1:], want[:, 1:], "x0hat", 1e-6)


def test_the_expert_changes_at_the_boundary(pipeline, load):
    prior, (calls, latents, times) = load(A14B), piped(pipeline(A14B), noise(A14B))
    got, _ = ours(prior, latents, times)
    want = ["transformer", "transformer", "transformer_2", "transformer_2"]
    assert [c.net for c in got] == [c.net for c in calls] == want
    high, low = prior.network(1.0), prior.network(0.0)
    assert not torch.equal(high.proj_out.weight, low.proj_out.weight)
    for t, net in ((0.875, high), (np.nextafter(np.float32(0.875), 0), low), (0.9, high)):
        assert prior.network(float(t)) is net


def test_the_expert_is_that_of_the_time_it_is_told(load):
    """Seven eighths come out of the published schedule one bit low."""
    prior, t = load(A14B), flow.schedule(20, 3.0)[6]
    assert float(prior.timestep(t, [], noise(A14B).shape)) == 875
    assert prior.network(t) is prior.network(0.875)


@pytest.mark.parametrize(
    ("name", "count", "rows"),
    [
        (I2V, 1, [[1, 1, 1, 1], [0, 0, 0, 0], [0, 0, 0, 0]]),
        (I2V, 5, [[1, 1, 1, 1], [1, 1, 1, 1], [0, 0, 0, 0]]),
        (FLF2V, 1, [[1, 1, 1, 1], [0, 0, 0, 0], [0, 0, 0, 1]]),
        (FLF2V, 5, [[1, 1, 1, 1], [1, 1, 1, 1], [0, 0, 0, 1]]),
    ],
)
def test_masks_and_known_frames(pipeline, load, name, count, rows):
    prior, x = load(name), noise(name)
    first = agreed(1, count, HEIGHT, WIDTH)
    last = agreed(2, HEIGHT, WIDTH) if name == FLF2V else None
    (call,), _ = ours(prior, [x], [0.7], first, last)
    hidden = call.inputs["hidden_states"]
    assert hidden.shape == (1, 36, 3, HEIGHT // 8, WIDTH // 8)
    same(hidden[0, :16], x)
    mask = torch.tensor(rows).float().T[:, :, None, None]
    same(hidden[0, 16:20], mask.expand(4, 3, HEIGHT // 8, WIDTH // 8), "mask")
    clip = torch.zeros(1, 3, 9, HEIGHT, WIDTH)
    clip[0, :, :count] = (first / 127.5 - 1).permute(3, 0, 1, 2)
    if last is not None:
        clip[0, :, -1] = (last / 127.5 - 1).permute(2, 0, 1)
    same(hidden[:, 20:], wan_latent(pipeline(name), clip), "channels")
    known = prior.condition(References(first, last), 3).known
    assert sorted(known) == list(range((count + 3) // 4))
    for f, y in known.items():
        same(y, hidden[0, 20:, f])
        same(y, prior.encode(first)[:, f], within=1e-5)


@pytest.mark.parametrize("count", [1, 5])
def test_known_frames_are_put_in_clean_at_time_zero(load, count):
    """Of TI2V only; a T2V model sees x as it is."""
    prior, x, first = load(TI2V), noise(TI2V), agreed(1, count, HEIGHT, WIDTH)
    known = range((count + 3) // 4)
    (call,), (h,) = ours(prior, [x], [0.7], first)
    hidden, time = call.inputs["hidden_states"][0], call.inputs["timestep"]
    assert time.shape == (1, 3 * 1 * 2)
    assert time.view(3, 2).tolist() == [[0.0 if f in known else 700.0] * 2 for f in range(3)]
    y = prior.encode(first)
    for f in range(3):
        same(hidden[:, f], y[:, f] if f in known else x[:, f])
        assert torch.equal(h[:, f], y[:, f]) if f in known else not torch.equal(h[:, f], x[:, f])
    x = noise(T2V)
    (call,), (h,) = ours(load(T2V), [x], [0.7], first)
    same(call.inputs["hidden_states"][0], x)
    same(h[:, 0], load(T2V).encode(first)[:, 0])


# -- steps ------------------------------------------------------------------------------------


@pytest.mark.parametrize("shift", [3.0, 5.0])
def test_steps_are_those_of_the_scheduler(load, shift):
    scheduler = FlowMatchEulerDiscreteScheduler(shift=shift)
    scheduler.set_timesteps(sigmas=np.linspace(1, 1 / 20, 20))
    times, prior, x = flow.schedule(20, shift), load(T2V), noise(T2V)
    want = torch.tensor(times[:-1], dtype=torch.float64) * 1000
    same(scheduler.timesteps, want, "times", 2e-4)
    rf = flow.PATHS["rf"]
    for i, time in enumerate(scheduler.timesteps):
        t, s = times[i], times[i + 1]
        (call,), (h,) = ours(prior, [x], [t])
        step = flow.ode_step(rf, t, s, 1.0)
        mine = step.a * x + step.b * h
        theirs = scheduler.step(call.output, time, x[None], return_dict=False)[0][0]
        assert (theirs - x).abs().max() > 0.01
        same(mine, theirs, f"step {i}", 5e-6)
        x = theirs


@pytest.mark.parametrize("name", [T2V, A14B, TI2V])
def test_a_whole_trajectory(pipeline, load, name):
    """Our sampling loop ends where a pipeline does. (Not with I2V and FLF2V: there a pipeline
    lets known frames wander, and ours take the straight path to what they are.)"""
    times, images, given, kind = flow.schedule(4, 5.0), (None, None), {}, WanPipeline
    if name == TI2V:
        (images, given), kind = shown(name == FLF2V, HEIGHT, WIDTH), WanImageToVideoPipeline
    latents = piped(pipeline(name, "fp32", kind), noise(name), times[:-1], **given)[1]
    denoise, known, *_ = load(name).condition(References(*images), 3)
    x = flow.sample(
        denoise, noise(name), times, lambda *_: None, rule="posterior", path=flow.PATHS["rf"]
    )
    assert sorted(known) == ([0] if name == TI2V else [])
    free = [f for f in range(3) if f not in known]
    same(x[:, free], latents[-1][:, free], "latent", 2e-5)
    for f, y in known.items():
        same(x[:, f], y)


_SHIFT_3 = """1 .98276 .96429 .94444 .92308 .9 .875 .84783 .81818 .78571 .75 .71053 .66667 .61765
.5625 .5 .42857 .34615 .25 .13636 0"""
_SHIFT_5 = """1 .98958 .97826 .96591 .95238 .9375 .92105 .90278 .88235 .85938 .83333 .80357 .76923
.72917 .68182 .625 .55556 .46875 .35714 .20833 0"""


@pytest.mark.parametrize(("shift", "listed"), [(3.0, _SHIFT_3), (5.0, _SHIFT_5)])
def test_published_times(load, shift, listed):
    """As the published runner has them, which rounds them to bfloat16 (8 bits)."""
    times, x = flow.schedule(20, shift), noise(T2V)
    assert times == pytest.approx([float(v) for v in listed.split()], abs=5.1e-6)
    exact, rounded = load(T2V), load(T2V, timesteps="bf16")
    for t in times[:-1]:
        said = float(np.float32(t * 1000))
        ulp = 2.0 ** (math.floor(math.log2(said)) - 7)
        for prior, want in ((exact, said), (rounded, round(said / ulp) * ulp)):
            (call,), _ = ours(prior, [x], [t])
            same(call.inputs["timestep"], torch.tensor([want]))
    assert float(rounded.timestep(0.73125, [], x.shape)) == 732
    per_token = load(TI2V, timesteps="bf16").timestep(0.73125, [0], noise(TI2V).shape)
    assert per_token.tolist() == [[0, 0, 732, 732, 732, 732]]


# -- the autoencoder --------------------------------------------------------------------------


@pytest.mark.parametrize("frames", [9, 17])
@pytest.mark.parametrize("name", [T2V, TI2V])
def test_encoding(pipeline, load, name, frames):
    prior = load(name)
    for what, clip in contents(frames, HEIGHT, WIDTH).items():
        z = prior.encode(clip)
        pixels = (clip / 127.5 - 1).permute(3, 0, 1, 2)[None]
        assert z.dtype == torch.float32 and z.shape[1] == (frames + 3) // 4
        same(z[None], wan_latent(pipeline(name), pixels), what)


@pytest.mark.parametrize("frames", [9, 17])
@pytest.mark.parametrize("name", [T2V, TI2V])
def test_decoding(pipeline, load, monkeypatch, name, frames):
    """Of what a pipeline has at its end, from noise and from odd contents."""
    prior, pipe = load(name), pipeline(name)
    into, out_of, ends, decode = [], [], [], pipe.vae.decode

    def spy(latent, **how):
        into.append(latent.clone())
        out_of.append(decode(latent, **how))
        return out_of[-1]

    def after_step(pipe, step, t, tensors):
        ends.append(tensors["latents"])
        return {}

    monkeypatch.setattr(pipe.vae, "decode", spy)
    pipe.scheduler.times = (0.5,)
    starts = [noise(name, (frames + 3) // 4)]
    starts += [prior.encode(clip) for clip in contents(frames, HEIGHT, WIDTH).values()]
    for x in starts:
        video = pipe(
            prompt="", guidance_scale=1.0, height=HEIGHT, width=WIDTH, num_frames=frames,
            num_inference_steps=1, latents=x[None], callback_on_step_end=after_step,
        ).frames[0]  # fmt: skip
        same(prior.restore(ends[-1]), into[-1], "latent")
        rendered = prior.render(ends[-1][0])
        same(rendered.permute(3, 0, 1, 2)[None], out_of[-1][0], "pictures")
        same(prior.decode(ends[-1][0]), torch.from_numpy(video * 255), "levels", 0.501)
        assert rendered.shape == (frames, HEIGHT, WIDTH, 3) and rendered.std() > 1e-3


@pytest.mark.parametrize("name", [T2V, TI2V])
def test_tiles_cover_the_pictures(load, name):
    prior, clip = load(name, tile="64"), pictures(1, 5, 96, 128)
    assert prior.decode(prior.encode(clip)).shape == clip.shape


# -- texts ------------------------------------------------------------------------------------


@pytest.mark.parametrize("dtype", ["fp32", "bf16"])
@pytest.mark.parametrize("prompt", [*PROMPTS, "fox " * 600])
def test_prompts(pipeline, load, prompt, dtype):
    prior, pipe = load(T2V, prompt=prompt, negative="snow", dtype=dtype), pipeline(T2V, dtype)
    with torch.no_grad():
        want, other = pipe.encode_prompt(prompt, "snow", max_sequence_length=512)
    assert want.shape == (1, 512, 32)
    same(prior.text, want)
    same(prior.negative, other)
    assert prior.text.dtype == want.dtype
    words = min(len(prompt.split()) + 1, 512)  # tokens are words, and an end
    assert prior.text[0, :words].any(1).all() and not prior.text[0, words:].any()


@pytest.mark.parametrize("prompt", ["it&rsquo;s", "&EACUTE;t", "&Atilde;&copy;", "a\x07fox"])
def test_what_ftfy_changes_in_ascii(prompt):
    assert cleaned(prompt) == prompt_clean(prompt)


def test_prompts_outlive_their_encoder(folders, tmp_path):
    at = shutil.copytree(folders[T2V], tmp_path / "model")
    said = {"dtype": "fp32", "prompt": PROMPTS[2]}
    before = priors.load(f"{T2V}:{at}", settings=said)
    text, guess = before.text, before.denoise(noise(T2V), 0.6)
    shutil.rmtree(at / "text_encoder")
    after = priors.load(f"{T2V}:{at}", settings=said)
    assert after.spec.digest == before.spec.digest
    assert torch.equal(after.text, text) and text.any()
    assert torch.equal(after.denoise(noise(T2V), 0.6), guess)
    with pytest.raises(priors.ConfigError, match=r"text_encoder is missing.*priors prepare"):
        _ = priors.load(f"{T2V}:{at}", settings=said | {"prompt": "a fox"}).text


# -- attention --------------------------------------------------------------------------------


def test_anothers_attention_backend_is_not_ours(load, monkeypatch):
    usual = _AttentionBackendRegistry._active_backend
    monkeypatch.setattr(_AttentionBackendRegistry, "_active_backend", usual)  # and put it back
    prior, x = load(T2V), noise(T2V)
    (call,), (before,) = ours(prior, [x], [0.6])
    assert call.backend == "native"
    WanTransformer3DModel(**tiny_models.WAN).set_attention_backend("_native_math")
    assert _AttentionBackendRegistry._active_backend != usual
    (call,), (after,) = ours(prior, [x], [0.6])
    assert call.backend == "native" and torch.equal(after, before)
    assert _AttentionBackendRegistry._active_backend == "_native_math"
    _AttentionBackendRegistry._active_backend = usual
    (call,), (other,) = ours(load(T2V, attention="_native_math"), [x], [0.6])
    assert call.backend == "_native_math"
    same(other, before, "x0hat", 1e-5)
    assert _AttentionBackendRegistry._active_backend == usual
