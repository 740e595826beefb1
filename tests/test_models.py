"""Published models as priors, with tiny weights: folders, fingerprints, loading, errors."""

import json
import os
import shutil
import sys
from functools import lru_cache
from pathlib import Path

import diffusers
import huggingface_hub.constants
import psutil
import pytest
import tiny_models
import torch
from safetensors.torch import load_file, save_file
from transformers import UMT5EncoderModel

from gvcc import priors
from gvcc.errors import BadSetting, ConfigError, GvccError
from gvcc.priors import MODELS, References, diffusion, parts, store

pytestmark = pytest.mark.usefixtures("one_thread")
T2V, I2V, FLF2V = "wan2.1-t2v-1.3b", "wan2.1-i2v-14b-720p", "wan2.1-flf2v-14b-720p"
A14B, TI2V, COG = "wan2.2-t2v-a14b", "wan2.2-ti2v-5b", "cogvideox-2b"
FP32 = {"dtype": "fp32"}


@pytest.fixture(autouse=True)
def cache(tmp_path, monkeypatch):
    monkeypatch.setenv("GVCC_CACHE", str(tmp_path / "cache"))
    monkeypatch.setenv("HF_HUB_OFFLINE", "1")
    monkeypatch.setattr(huggingface_hub.constants, "HF_HUB_CACHE", str(tmp_path / "hub"))
    return tmp_path / "cache"


@pytest.fixture(scope="module")
def made(tmp_path_factory, one_thread):
    at = tmp_path_factory.mktemp("models")
    return lru_cache(lambda name: tiny_models.make(name, at))


@pytest.fixture
def copied(made, tmp_path):
    """A model's folder to damage."""
    return lambda name, to="copy": shutil.copytree(made(name), tmp_path / to)


def load(name, folder, given=FP32, **more):
    return priors.load(f"{name}:{folder}", "cpu", given, **more)


def white(*shape):
    return torch.randn(*shape, generator=torch.Generator().manual_seed(1))


def change(path, **fields):
    path.write_text(json.dumps(json.loads(path.read_text()) | fields))


def weights(folder, part):
    return next((folder / part).glob("*.safetensors"))


# -- folders ----------------------------------------------------------------------------------


def test_the_folder_given_then_the_registered_then_the_hubs(made, copied, tmp_path, monkeypatch):
    model, hubs = MODELS[T2V], tmp_path / "hub" / "models--Wan-AI--Wan2.1-T2V-1.3B-Diffusers"
    with pytest.raises(ConfigError) as caught:
        priors.load(T2V)
    assert f"gvcc priors prepare {T2V} --from {model.hub}" in str(caught.value)
    assert f"gvcc priors prepare {T2V} --weights FOLDER" in str(caught.value)
    copied(T2V, f"hub/{hubs.name}/snapshots/abc")
    (hubs / "refs").mkdir()
    (hubs / "refs" / "main").write_text("abc")
    assert store.locate(model) == hubs / "snapshots" / "abc"
    monkeypatch.chdir(made(T2V))
    store.register(model, Path("."))
    monkeypatch.chdir(tmp_path)
    assert store.locate(model) == made(T2V)
    other = copied(T2V, "other")
    assert store.locate(model, other) == other
    store.register(model, other)
    shutil.rmtree(other)
    assert store.locate(model) == hubs / "snapshots" / "abc"
    with pytest.raises(ConfigError, match="other is no folder"):
        store.locate(model, other)


_INDEX = ("{", "{}", "[]", "\0", "7", '{"weight_map": [1]}', '{"weight_map": {"a": []}}')


def broken_index(text):
    return lambda at: (at / "vae" / "a.safetensors.index.json").write_text(text)


@pytest.mark.parametrize(
    ("damage", "says"),
    [
        (lambda at: (at / "vae" / "config.json").unlink(), "vae/config.json is missing"),
        (lambda at: shutil.rmtree(at / "transformer"), "transformer/config.json is missing"),
        (lambda at: weights(at, "vae").unlink(), "there are no weights in "),
        (broken_index('{"weight_map": {"a": "2.safetensors"}}'), "vae/2.safetensors is missing"),
        *((broken_index(text), "index.json is damaged") for text in _INDEX),
    ],
)
def test_a_folder_that_is_not_whole(copied, damage, says):
    folder = copied(T2V)
    damage(folder)
    with pytest.raises(ConfigError) as caught:
        load(T2V, folder)
    assert says in str(caught.value)
    assert f"fetch it anew: gvcc priors prepare {T2V} --from Wan-AI/" in str(caught.value)


@pytest.mark.parametrize("name", ["model_index.json", "vae/config.json"])
@pytest.mark.parametrize("text", ["[]", "{", "\xff"])
def test_a_damaged_configuration(copied, name, text):
    folder = copied(T2V)
    (folder / name).write_bytes(text.encode("latin-1"))
    with pytest.raises(ConfigError, match=f"{name} is damaged"):
        load(T2V, folder)


def test_variants_are_not_weights(tmp_path):
    names = "a.bf16.safetensors a.fp16.safetensors a.safetensors b.bin c.txt".split()
    for name in names:
        (tmp_path / name).touch()
    assert [p.name for p in store.files(tmp_path)] == ["a.safetensors"]
    (tmp_path / "a.safetensors").unlink()
    assert [p.name for p in store.files(tmp_path)] == names[:2]
    (tmp_path / "q.gguf").touch()
    assert [p.name for p in store.files(tmp_path)] == ["q.gguf"]


@pytest.mark.parametrize(
    ("name", "part"),
    [(I2V, "transformer"), (I2V, "vae"), (I2V, "image_encoder"), (I2V, "text_encoder"),
     (COG, "transformer"), (COG, "vae"), (COG, "text_encoder")],
)  # fmt: skip
@pytest.mark.parametrize("fault", ["missing", "shape", "truncated"])
def test_partial_weights(copied, name, part, fault):
    folder = copied(name)
    path = weights(folder, part)
    tensors = load_file(path)
    lost = sorted(n for n, v in tensors.items() if v.numel() > 8)[0]
    if fault == "missing":
        del tensors[lost]
    elif fault == "shape":
        tensors[lost] = torch.zeros(3, 3)
    save_file(tensors, path, {"format": "pt"})
    if fault == "truncated":
        path.write_bytes(path.read_bytes()[:-40])
    with pytest.raises(ConfigError, match=part) as caught:
        prior = load(name, folder)
        picture = torch.zeros(1, 32, 32, 3, dtype=torch.uint8)
        prior.condition(References(picture), 1).denoise(white(prior.spec.channels, 1, 4, 4), 0.5)
    assert "\n" not in str(caught.value)
    if fault == "missing":
        assert lost in str(caught.value) and "fetch it anew" in str(caught.value)


@pytest.mark.parametrize(
    "data",
    [b"", b"\xff" * 100, b"\x02" + bytes(7) + b"[]", b"\x09" + bytes(7) + b'{"a": {}}',
     b"\x02" + bytes(7) + b"{", (48).to_bytes(8, "little")
     + b'{"a":{"dtype":"F32","shape":[2],"data_offsets":[0,8]}}'[:48]],
)  # fmt: skip
def test_a_damaged_safetensors_file(copied, data):
    folder = copied(T2V)
    weights(folder, "transformer").write_bytes(data)
    with pytest.raises(ConfigError, match="is no whole safetensors file"):
        load(T2V, folder)


# -- fingerprints -----------------------------------------------------------------------------


def test_fingerprint_does_not_depend_on_shards_or_times(copied, tmp_path, monkeypatch):
    folder = copied(T2V)
    first = store.fingerprint(folder, "transformer")
    net = diffusers.WanTransformer3DModel.from_pretrained(folder / "transformer")
    net.save_pretrained(tmp_path / "sharded" / "transformer", max_shard_size="20KB")
    assert len(list((tmp_path / "sharded" / "transformer").glob("*.safetensors"))) > 2
    assert store.fingerprint(tmp_path / "sharded", "transformer") == first
    reads = []
    real = store._tensors
    monkeypatch.setattr(store, "_tensors", lambda p: (reads.append(p), real(p))[1])
    assert store.fingerprint(folder, "transformer") == first and not reads
    os.utime(weights(folder, "transformer"), (1, 1))
    assert store.fingerprint(folder, "transformer") == first and len(reads) == 1
    monkeypatch.setenv("GVCC_CACHE", str(tmp_path / "clip.txt" / "cannot be made"))
    (tmp_path / "clip.txt").touch()
    assert store.fingerprint(folder, "transformer") == first and len(reads) == 2


def test_fingerprint_changes_with_bytes_configuration_and_type(copied):
    found = []

    def look():
        found.append(store.fingerprint(folder, "transformer"))

    folder = copied(T2V)
    path, whole = weights(folder, "transformer"), weights(folder, "transformer").read_bytes()
    look()
    for at in (len(whole) - 1, 8 + int.from_bytes(whole[:8], "little")):
        path.write_bytes(whole[:at] + bytes([whole[at] ^ 1]) + whole[at + 1 :])
        look()
    path.write_bytes(whole)
    assert store.fingerprint(folder, "transformer") == found[0]
    change(folder / "transformer" / "config.json", rope_max_seq_len=64)
    look()
    save_file({n: v.bfloat16() for n, v in load_file(path).items()}, path)
    look()
    tensors = load_file(path)
    save_file({n.replace("blocks.0.", "blocks.7."): v for n, v in tensors.items()}, path)
    look()
    assert len(set(found)) == len(found) == 6
    change(folder / "transformer" / "config.json", _name_or_path="elsewhere")
    assert store.fingerprint(folder, "transformer") == found[-1]


def test_fingerprint_of_a_large_file_reads_little_of_it(tmp_path):
    ten, part = 10_000_000, tmp_path / "transformer"
    table = {f"t{i}": {"dtype": "U8", "shape": [ten], "data_offsets": [i * ten, (i + 1) * ten]}
             for i in range(30)}  # fmt: skip
    head = json.dumps(table).encode()
    part.mkdir()
    (part / "config.json").write_text("{}")
    with (part / "a.safetensors").open("wb") as f:
        f.write(len(head).to_bytes(8, "little") + head)
        f.truncate(8 + len(head) + 30 * ten)
    process = psutil.Process()
    before = process.io_counters().read_chars
    assert len(store.fingerprint(tmp_path, "transformer")) == 64
    assert process.io_counters().read_chars - before < 1_000_000


# -- texts ------------------------------------------------------------------------------------


def test_the_text_encoder_is_used_once_and_may_go(copied, cache, monkeypatch):
    folder, made = copied(T2V), []
    real = UMT5EncoderModel.forward
    monkeypatch.setattr(
        UMT5EncoderModel, "forward", lambda *a, **k: (made.append(1), real(*a, **k))[1]
    )
    prior = load(T2V, folder, FP32 | {"prompt": "a fox"})
    text, digest = prior.text, prior.spec.digest
    assert text.shape == (1, 512, 32) and text[0, :3].abs().min() > 0 and not text[0, 3:].any()
    assert torch.equal(load(T2V, folder, FP32 | {"prompt": "a fox"}).text, text)
    assert len(made) == 1
    shutil.rmtree(folder / "text_encoder")
    prior = load(T2V, folder, FP32 | {"prompt": "a fox"})
    assert prior.spec.digest == digest and torch.equal(prior.text, text)
    for more in ({"prompt": "a"}, {"prompt": "a fox", "dtype": "bf16"}):
        with pytest.raises(ConfigError, match=r"text_encoder is missing.*gvcc priors prepare"):
            _ = load(T2V, folder, FP32 | more).text
    shutil.rmtree(cache)
    with pytest.raises(ConfigError, match=r"text_encoder is missing.*gvcc priors prepare"):
        _ = load(T2V, folder, FP32 | {"prompt": "a fox"}).text


def test_a_damaged_embedding_is_made_anew(made, cache):
    text = load(T2V, made(T2V)).text
    (path,) = (cache / "prompts").iterdir()
    path.write_bytes(path.read_bytes()[:-4])
    assert torch.equal(load(T2V, made(T2V)).text, text)


def test_a_tokenizer_that_is_missing(copied):
    folder = copied(T2V)
    shutil.rmtree(folder / "tokenizer")
    with pytest.raises(ConfigError, match="tokenizer"):
        _ = load(T2V, folder).text


def test_prompts_beyond_ascii_need_ftfy(monkeypatch):
    assert parts.cleaned(" a &amp;amp;\n b") == "a & b" and parts.cleaned("cafÃ©") == "café"
    monkeypatch.setitem(sys.modules, "ftfy", None)
    assert parts.cleaned("a") == "a"
    with pytest.raises(ConfigError, match=r"ftfy: pip install 'gvcc\[wan\]'"):
        parts.cleaned("é")


# -- what does not go -------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("gone", "given", "says"),
    [
        ("diffusers", {}, "needs diffusers: pip install 'gvcc[wan]'"),
        ("diffusers transformers", {}, "needs diffusers and transformers: pip install 'gvcc[wan]'"),
        ("torchao", {"quant": "int8"}, "needs torchao: pip install 'gvcc[quant]'"),
    ],
)
def test_a_missing_package(made, monkeypatch, gone, given, says):
    monkeypatch.setattr(parts, "find_spec", lambda n: None if n in gone.split() else n)
    with pytest.raises(ConfigError) as caught:
        load(T2V, made(T2V), given).network(1.0)
    assert says in str(caught.value)


@pytest.mark.parametrize("where", ["WanTransformer3DModel.forward", "AutoencoderKLWan.encode"])
def test_lack_of_memory_is_told(made, monkeypatch, where):
    def full(*_, **__):
        raise torch.OutOfMemoryError

    kind, method = where.split(".")
    monkeypatch.setattr(getattr(diffusers, kind), method, full)
    prior = load(T2V, made(T2V))
    with pytest.raises(GvccError, match=r"cpu has too little memory for wan.*--offload"):
        prior.denoise(prior.encode(torch.zeros(1, 32, 32, 3, dtype=torch.uint8)), 0.5)


@pytest.mark.parametrize(
    ("name", "folder"),
    [(T2V, A14B), (T2V, I2V), (T2V, TI2V), (T2V, COG), (I2V, T2V), (I2V, FLF2V), (A14B, T2V),
     (COG, T2V), (TI2V, T2V)],
)  # fmt: skip
def test_another_models_folder(made, name, folder):
    with pytest.raises(ConfigError):
        load(name, made(folder))


def test_another_models_index_or_scheduler(copied):
    folder = copied(A14B, "a")
    change(folder / "model_index.json", boundary_ratio=None)
    with pytest.raises(ConfigError, match="holds another model's weights"):
        load(A14B, folder)
    folder = copied(COG, "b")
    change(folder / "scheduler" / "scheduler_config.json", prediction_type="epsilon")
    with pytest.raises(ConfigError, match="holds another model's weights"):
        load(COG, folder)


def test_sizes_a_model_cannot_do(made, copied):
    prior = load(T2V, made(T2V))
    for shape in ((1, 66, 8), (1, 8, 66), (33, 2, 2)):
        with pytest.raises(ConfigError, match="at most 512x512 pixels and 125 frames a GOP"):
            prior.denoise(white(16, *shape), 0.5)
    assert prior.denoise(white(16, 1, 64, 2), 0.5).shape == (16, 1, 64, 2)
    folder = copied(COG)
    shape = tiny_models.COGVIDEOX | dict(
        use_rotary_positional_embeddings=True, use_learned_positional_embeddings=True
    )
    diffusers.CogVideoXTransformer3DModel(**shape).save_pretrained(folder / "transformer")
    prior = load(COG, folder)
    with pytest.raises(ConfigError, match="does 64x64 pixels only"):
        prior.denoise(white(4, 1, 8, 6), 0.5)


def test_an_attention_backend_that_is_none_is_told_at_once(made):
    for name in ("bogus", "flash"):
        with pytest.raises(BadSetting, match=f"attention '{name}': "):
            load(T2V, made(T2V), {"attention": name})


def test_what_embedded_priors_have_not():
    with pytest.raises(BadSetting, match="prior nano has no settings, but was given dtype"):
        priors.load("nano", "cpu", FP32)
    with pytest.raises(ConfigError, match="nothing to offload"):
        priors.load("nano", offload=True)
    with pytest.raises(ConfigError, match=f"did you mean '{T2V}'"):
        priors.load("wan2.1-t2v-1.3")


def test_sensitivity_finds_the_gains_of_a_render():
    gains = torch.tensor([0.5, 2.0, 1.0, 0.01])

    def render(z):
        return torch.einsum("c,cfhw->fhw", gains, z)[..., None].expand(-1, -1, -1, 3)

    found = torch.tensor(diffusion.sensitivity(render, 4, 2, "cpu"))
    assert torch.allclose(found, gains, rtol=0.1)
    assert torch.allclose(found / found[2], gains, rtol=1e-3)


def test_pick_device(monkeypatch):
    for there in (False, True):
        monkeypatch.setattr(torch.cuda, "is_available", lambda there=there: there)
        monkeypatch.setattr(torch.cuda, "device_count", lambda there=there: 2 * there)
        assert {priors.pick_device("auto", n) for n in ("nano", "gauss", "nano:a", "x")} == {"cpu"}
        large = {priors.pick_device("auto", n) for n in (*MODELS, f"{T2V}:folder")}
        assert large == {"cuda" if there else "cpu"}
        assert priors.pick_device("cpu", T2V) == "cpu"
        if there:
            assert priors.pick_device("cuda:1", "nano") == "cuda:1"
        else:
            with pytest.raises(ConfigError, match="device cuda:1: PyTorch finds no GPU here"):
                priors.pick_device("cuda:1", "nano")
