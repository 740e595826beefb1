"""Files of published models with tiny weights, and how their networks run."""

import os
import shutil
import subprocess
import sys
from dataclasses import replace
from fractions import Fraction
from functools import lru_cache
from io import BytesIO
from types import SimpleNamespace

import cli_runner
import diffusers
import gguf
import numpy as np
import pretend_gpu
import pytest
import tiny_models
import torch
import whole_files
from safetensors.torch import load_file

import gvcc
from gvcc import codec, encoder, priors
from gvcc.errors import ConfigError, PriorMismatch, TargetUnreachable, Unsupported
from gvcc.eval import published
from gvcc.format import parser
from gvcc.format.bitstream import Stream
from gvcc.format.gop import Gop
from gvcc.pictures.media import Video
from gvcc.priors import MODELS, References, store
from gvcc.records import Colour
from gvcc.search.config import EncodeConfig
from gvcc.search.pacer import free_frames

T2V, I2V, FLF2V = "wan2.1-t2v-1.3b", "wan2.1-i2v-14b-720p", "wan2.1-flf2v-14b-720p"
A14B, TI2V, COG = "wan2.2-t2v-a14b", "wan2.2-ti2v-5b", "cogvideox-2b"
FP32 = {"dtype": "fp32"}
GIVEN = FP32 | {"prompt": "a fox"}
CASES = [(name, mode) for name in tiny_models.NAMES for mode in MODELS[name].modes]


@pytest.fixture(scope="module", autouse=True)
def environment(tmp_path_factory, one_thread):
    with pytest.MonkeyPatch.context() as m:
        m.setenv("GVCC_CACHE", str(tmp_path_factory.mktemp("cache")))
        m.setenv("HF_HUB_OFFLINE", "1")
        yield


@pytest.fixture(scope="module")
def made(tmp_path_factory, environment):
    at = tmp_path_factory.mktemp("models")
    return lru_cache(lambda name, seed=0: tiny_models.make(name, at, seed))


@pytest.fixture(scope="module")
def load(made):
    """A prior; measuring the autoencoder's sensitivity takes longer than all the rest."""

    def loaded(name, given=FP32, device="cpu", folder=None, **more):
        prior = priors.load(f"{name}:{folder or made(name)}", device, given, **more)
        known = [1.0 + c % 3 for c in range(prior.spec.channels)]
        store.remember("sensitivities", prior.spec.digest.hex(), known)
        return prior

    return loaded


@pytest.fixture(scope="module")
def coded(load):
    """A clip of two GOPs, no side of which is a multiple of anything, in a model's mode."""

    @lru_cache
    def code(name, mode):
        return encode(load(name, GIVEN), frames=11, mode=mode, bpp=0.25)

    return code


def encode(prior, frames=9, height=34, width=50, progress=None, **how):
    clip = Video(cli_runner.frames(frames, height, width), Fraction(25))
    return codec.encode(clip, EncodeConfig(prior=prior.spec.id, gop=9, **how), prior, progress)


def pictures(data, *args, **more):
    return np.stack(list(codec.Decoder(BytesIO(data), *args, **more).pictures()))


def white(*shape):
    return torch.randn(*shape, generator=torch.Generator().manual_seed(1))


def velocity(prior, t=0.5):
    x = white(prior.spec.channels, 2, 8, 8)
    return (x - prior.denoise(x, t)) / t


# -- files ------------------------------------------------------------------------------------


@pytest.mark.parametrize(("name", "mode"), CASES)
def test_a_file_decodes_to_the_encoders_pictures(made, coded, name, mode):
    """By its name and folder alone: the settings are the file's."""
    done, drifts = coded(name, mode), []
    found = pictures(done.data, f"{name}:{made(name)}", progress=lambda e: drifts.append(e.drift))
    assert np.array_equal(found, done.frames) and found.shape == (11, 34, 50, 3)
    assert [d for d in drifts if d is not None] == [0, 0]
    stream = parser.parse(done.data)
    assert stream.header.settings == (("dtype", "fp32"), ("prompt", "a fox"))
    assert (stream.header.version, stream.header.prior) == (3, name)
    assert stream.header.gop == 9 and stream.header.path == ("vp" if name[0] == "c" else "rf")
    assert [r.gop.mode for r in stream.gops] == {
        "i2v": ["i2v"] * 2, "flf2v": ["flf2v"] * 2, "t2v": ["t2v"] * 2, "overlap": ["t2v", "i2v"],
    }[mode]  # fmt: skip
    assert all(r.stop == 16 and len(r.symbols) > 40 for r in stream.gops)


def test_gvcc_decode_takes_the_files_settings(made, coded):
    done = coded(T2V, "t2v")
    assert np.array_equal(gvcc.decode(done.data, prior=f"{T2V}:{made(T2V)}").frames, done.frames)


_DECODE = """
import sys, torch
from gvcc import codec
torch.set_num_threads(1)
with open(sys.argv[1], "rb") as file:
    for picture in codec.Decoder(file, sys.argv[2]).pictures():
        sys.stdout.buffer.write(picture.tobytes())
"""


def test_another_process_decodes_the_same(made, coded, tmp_path):
    done, file = coded(I2V, "i2v"), tmp_path / "a.gvcc"
    file.write_bytes(done.data)
    command = [sys.executable, "-c", _DECODE, file, f"{I2V}:{made(I2V)}"]
    told = subprocess.run(command, capture_output=True, env=os.environ)
    assert told.stdout == done.frames.tobytes()
    assert told.stderr == b""


@pytest.mark.parametrize("name", [T2V, COG])
def test_offloaded_blocks_decode_the_same(made, coded, name):
    done = coded(name, "t2v")
    found = pictures(done.data, f"{name}:{made(name)}", offload=True)
    assert np.array_equal(found, done.frames)


def test_usual_settings_need_no_new_version(load, made):
    prior = load(T2V, {"dtype": "bf16", "prompt": "", "guidance": "1.0"})
    done = encode(prior, bpp=0.25)
    header = parser.parse(done.data).header
    assert (header.version, header.settings) == (2, ())
    assert np.array_equal(pictures(done.data, f"{T2V}:{made(T2V)}"), done.frames)


def test_other_weights_are_told_by_both_digests(load, made, coded):
    other = made(T2V, 1)
    digests = [load(T2V).spec.digest.hex(), load(T2V, folder=other).spec.digest.hex()]
    with pytest.raises(PriorMismatch) as caught:
        pictures(coded(T2V, "t2v").data, f"{T2V}:{other}")
    assert str(caught.value) == (
        f"the file needs prior {T2V} with weights {digests[0]}; "
        f"here is {T2V} with weights {digests[1]}"
    )


@pytest.mark.parametrize(
    ("name", "mode", "has"),
    [(T2V, "i2v", "t2v, overlap"), (A14B, "flf2v", "t2v, overlap"), (I2V, "t2v", "i2v"),
     (FLF2V, "overlap", "flf2v"), (TI2V, "flf2v", "t2v, i2v, overlap"),
     (COG, "auto", "t2v, overlap")],
)  # fmt: skip
def test_a_mode_that_a_model_has_not(load, name, mode, has):
    with pytest.raises(ConfigError) as caught:
        encode(load(name), mode=mode)
    assert str(caught.value) == f"prior {name} has no mode {mode}; it has {has}"


@pytest.mark.parametrize("name", tiny_models.NAMES)
def test_a_mode_left_out_is_the_presets_or_the_models_own(load, name):
    def mode(preset):
        return EncodeConfig(preset=preset, prior=name).resolved(load(name).spec, 64).mode

    modes = MODELS[name].modes
    for preset, usual in (("default", "t2v"), ("paper", "t2v"), ("free-gvc", "overlap")):
        assert mode(preset) == (usual if usual in modes else modes[0])


def test_without_a_mode_a_file_is_the_same(load, coded):
    assert encode(load(I2V, GIVEN), frames=11, bpp=0.25).data == coded(I2V, "i2v").data


def test_of_a_last_still_no_latent_frame_is_known(load, coded):
    prior, g = load(FLF2V), Gop(0, 9, "still", True)
    first, last = (white(n, 48, 64, 3).byte() for n in (1, 1))
    frames = g.latent_frames(4, prior.spec.last_alone)
    assert (frames, free_frames(g, prior.spec)) == (3, 2)
    made = prior.condition(References(first, last[0]), frames)
    assert made.known.keys() == {0}
    assert torch.equal(made.known[0], prior.encode(first)[:, 0])
    x = white(16, 3, 6, 8)
    assert torch.equal(made.denoise(x, 0.5)[:, 0], made.known[0])
    records = parser.parse(coded(FLF2V, "flf2v").data).gops
    assert [(r.gop.frames, r.gop.first, r.gop.last) for r in records] == [
        (9, "still", True), (3, "shared", True)
    ]  # fmt: skip
    assert all(s for r in records for s in r.stills[:1])


@pytest.mark.parametrize("name", [I2V, TI2V])
def test_a_first_still_that_does_not_fit(load, made, name):
    prior = load(name)
    with pytest.raises(TargetUnreachable) as caught:
        encode(prior, mode="i2v", size=20)
    done = encode(prior, mode="i2v", size=caught.value.smallest + 40)
    (record,) = parser.parse(done.data).gops
    assert record.stills == (b"",)
    assert np.array_equal(pictures(done.data, f"{name}:{made(name)}"), done.frames)


@pytest.mark.parametrize(
    ("changes", "says"),
    [
        (dict(settings=(("colour", "red"),)), f"prior {T2V} has no setting 'colour'"),
        (dict(settings=(("dtype", "fp64"),)), "dtype is 'fp64'"),
        (dict(settings=(("attention", "bogus"),)), "attention 'bogus'"),
        (dict(prior="nano"), "prior nano has no settings"),
        (dict(prior="gauss"), "prior gauss has no settings"),
    ],
)
def test_settings_that_this_version_does_not_know(made, coded, changes, says):
    stream = parser.parse(coded(T2V, "t2v").data)
    data = whole_files.write(Stream(replace(stream.header, **changes), stream.gops))
    with pytest.raises(Unsupported, match=says):
        pictures(data, None if "prior" in changes else f"{T2V}:{made(T2V)}")


def test_other_settings_are_no_error_but_drift(load, coded):
    done, drifts = coded(T2V, "t2v"), []

    def hear(event):
        drifts.extend([] if event.drift is None else [event.drift])

    for given in (GIVEN, {"prompt": "a fox"}, FP32 | {"prompt": "water", "guidance": "100"}):
        found = pictures(done.data, load(T2V, given), progress=hear)
        assert found.shape == done.frames.shape
    assert len(drifts) == 6 and drifts[:2] == [0, 0]
    assert min(drifts) >= 0 and max(drifts[4:]) > 0


# -- as published -----------------------------------------------------------------------------


def test_published_bits(load, made):
    done = encode(load(T2V), height=16, width=16, preset="paper")
    stream = parser.parse(done.data)
    assert published.bits(stream.header, *stream.gops) == 17 * 3 * 64 * 15
    assert (stream.header.shift, stream.header.codebook_size) == (3, 16384)
    assert np.array_equal(pictures(done.data, f"{T2V}:{made(T2V)}"), done.frames)


@pytest.mark.parametrize("name", [T2V, A14B, I2V, FLF2V])
def test_published_shift_and_atoms(load, name):
    prior, found = load(name), []
    for height in (480, 482, 720, 722, 1080):
        p = EncodeConfig(preset="paper", prior=name).resolved(prior.spec, height)
        clip = SimpleNamespace(
            width=64,
            height=height,
            count=33,
            fps=Fraction(25),
            colour=Colour(),
            audio=None,
            pixel_aspect=Fraction(1),
        )
        found.append((encoder._header(clip, p, prior).shift, p.atoms))
        assert p.tail_atoms == 128 or p.mode != "i2v"
    high = 3 if "t2v" in name else 5
    assert found == [(3, 64), (high, 64), (high, 64), (high, 80), (high, 80)]


def test_reuse_calls_the_network_less_often(load, made, monkeypatch):
    calls, real = [], diffusers.WanTransformer3DModel.forward
    monkeypatch.setattr(
        diffusers.WanTransformer3DModel, "forward",
        lambda *a, **k: (calls.append(1), real(*a, **k))[1],
    )  # fmt: skip
    prior = load(T2V, {})
    done = encode(
        prior, bpp=0.25, reuse=2, progress=lambda e: calls.clear() if e.stage == "measure" else None
    )
    assert len(calls) == 16 // 2 + 4
    header = parser.parse(done.data).header
    assert (header.reuse, header.version, header.settings) == (2, 3, ())
    calls.clear()
    assert np.array_equal(pictures(done.data, prior), done.frames)
    assert len(calls) == 16 // 2 + 4
    for how in (dict(preset="free-gvc"), dict(quality="psnr:20"), dict(stop=4)):
        with pytest.raises(ConfigError, match="reuse does not go with"):
            encode(prior, reuse=2, **how)


# -- autoencoders ----------------------------------------------------------------------------


@pytest.mark.parametrize("name", [T2V, TI2V, COG])
def test_an_autoencoder_gives_as_many_pictures_as_it_got(load, name):
    prior = load(name)
    for frames in (1, 5, 9, 13):
        latent = prior.encode(torch.zeros(frames, 32, 32, 3, dtype=torch.uint8))
        assert latent.shape[:2] == (prior.spec.channels, frames // 4 + 1)
        assert prior.decode(latent).shape == (frames, 32, 32, 3)


@pytest.mark.parametrize(
    ("name", "tile", "size"),
    [(T2V, "64", (128, 192)), (TI2V, "64", (128, 192)), (COG, "64", (128, 192)),
     (COG, "256", (32, 544))],
)  # fmt: skip
def test_tiles_fit_together(load, name, tile, size):
    """They differ, for attention and norms see one tile only, but are where they should be."""
    frames = white(1, *size, 3).mul(60).add(128).clamp(0, 255).byte()
    whole, tiled = load(name, {"tile": "0"}), load(name, {"tile": tile})
    latent = whole.encode(frames)
    for want, found in (
        (latent, tiled.encode(frames)), (whole.render(latent), tiled.render(latent))
    ):  # fmt: skip
        assert found.shape == want.shape
        assert 0 < (found - want).norm() < 0.9 * (want - want.mean()).norm()


# -- networks ---------------------------------------------------------------------------------


@pytest.mark.parametrize(("quant", "within"), [("int8", 0.05), ("fp8", 0.2)])
@pytest.mark.parametrize("name", [T2V, COG])
def test_weights_in_8_bits(load, name, quant, within):
    exact = velocity(load(name))
    off = velocity(load(name, FP32 | {"quant": quant})) - exact
    assert 0 < off.norm() < within * exact.norm()


def test_a_network_from_a_gguf_file(load, made, tmp_path):
    folder = shutil.copytree(made(T2V), tmp_path / "copy")
    (path,) = (folder / "transformer").glob("*.safetensors")
    writer = gguf.GGUFWriter(path.with_name("net.gguf"), "wan")
    for name, tensor in load_file(path).items():
        writer.add_tensor(name, tensor.numpy())
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_tensors_to_file()
    writer.close()
    path.unlink()
    prior = load(T2V, folder=folder)
    assert torch.allclose(velocity(prior), velocity(load(T2V)), atol=1e-5)
    assert prior.spec.digest != load(T2V).spec.digest
    whole = path.with_name("net.gguf").read_bytes()
    for data in (b"no network", whole[:-100], whole[:50]):
        path.with_name("net.gguf").write_bytes(data)
        with pytest.raises(ConfigError, match=r"cannot load .*net.gguf") as caught:
            velocity(load(T2V, folder=folder))
        assert "\n" not in str(caught.value)


def test_compile_compiles_blocks(load, monkeypatch):
    calls = []
    monkeypatch.setattr(
        diffusers.WanTransformer3DModel, "compile_repeated_blocks",
        lambda *_, **how: calls.append(how),
    )  # fmt: skip
    exact = velocity(load(T2V))
    assert not calls
    assert torch.equal(velocity(load(T2V, FP32 | {"compile": "yes"})), exact)
    assert calls == [{"fullgraph": True}]


@pytest.mark.parametrize("name", [I2V, A14B, COG])
def test_offloading_changes_no_bit(load, name):
    here, there = load(name), load(name, offload=True)
    for t in (0.95, 0.5):
        assert torch.equal(velocity(here, t), velocity(there, t))


def test_at_most_one_expert_is_on_the_device(load, monkeypatch):
    where, real = {}, diffusers.WanTransformer3DModel.to

    def to(net, device):
        where[id(net)] = str(device)
        assert list(where.values()).count("cuda:0") <= 1
        return real(net, device)

    monkeypatch.setattr(diffusers.WanTransformer3DModel, "to", to)
    used = []
    with pretend_gpu.gpus():
        prior = load(A14B, device="cuda")
        for t in (1.0, 0.875, 0.874, 0.1, 1.0, 0.9, 0.5):
            used.append(prior.network(t))
            assert where[id(used[-1])] == "cuda:0"
    assert [used.index(net) for net in used] == [0, 0, 2, 2, 0, 0, 2]
