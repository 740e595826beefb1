"""The prior `nano`: its file, what is refused, and a codec round trip with tiny networks."""

import json
import math
from fractions import Fraction

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from safetensors.torch import load as load_safetensors
from safetensors.torch import save as save_safetensors

from gvcc import codec, priors
from gvcc.errors import ConfigError, PriorMismatch
from gvcc.pictures.media import Video
from gvcc.priors import autoencoder, nano, transformer
from gvcc.priors.autoencoder import Autoencoder
from gvcc.priors.spectrum import dct3
from gvcc.priors.transformer import Transformer
from gvcc.search.config import EncodeConfig

CHANNELS = 4


def white(seed, *shape):
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed))


def clip(frames, height, width):
    """A smooth moving pattern, uint8 [T,H,W,3]."""
    t, y, x = np.mgrid[:frames, :height, :width].astype(float)
    waves = [np.sin(0.2 * x + 0.1 * f * y + 0.3 * t) * 60 + 120 for f in (1, 2, 3)]
    return np.stack(waves, -1).round().astype(np.uint8)


def made():
    """Configuration and tensors of two tiny networks with no zero layer left."""
    basis = [torch.linalg.qr(white(i, n, CHANNELS)).Q.T for i, n in ((1, 768), (2, 192))]
    basis = [torch.cat([b.new_ones(1, b.shape[1]) * b.shape[1] ** -0.5, b[1:]]) for b in basis]
    torch.manual_seed(1)
    auto = Autoencoder(autoencoder.Shape(CHANNELS, 8, 1, 1), *basis, torch.zeros(3), 0.5)
    net = Transformer(transformer.Shape(CHANNELS, 64, 2))
    with torch.no_grad():
        for i, p in enumerate((*auto.parameters(), *net.parameters())):
            p += 0.02 * white(10 + i, *p.shape)
    f = torch.arange(32) + 1.0
    power = -torch.log(f[:, None] ** 2 + f**2 + torch.arange(9)[:, None, None])
    power = power + 3 - torch.arange(CHANNELS)[:, None, None, None]
    return nano.parts(auto, net, power)


@pytest.fixture(scope="module")
def parts():
    return made()


@pytest.fixture(scope="module")
def data(parts):
    return nano.pack(*parts)


@pytest.fixture(scope="module")
def prior(data, tmp_path_factory):
    path = tmp_path_factory.mktemp("nano") / "nano.safetensors"
    path.write_bytes(data)
    return nano.load(path=path)


# -- the file ---------------------------------------------------------------------------------


def test_what_is_packed_is_unpacked_in_half_precision(parts, data):
    config, tensors, digest = nano.unpack(data, "a file")
    assert config == parts[0]
    assert tensors.keys() == parts[1].keys()
    for name, tensor in tensors.items():
        assert tensor.dtype == torch.float16
        assert torch.equal(tensor, parts[1][name].half())
    assert len(digest) == 8
    assert nano.unpack(nano.pack(config, tensors), "")[2] == digest
    assert len(data) < 2.2 * sum(v.numel() for v in tensors.values()) + 20_000


def test_the_loaded_networks_are_the_packed_ones(parts, prior, data):
    assert prior.spec.digest == nano.unpack(data, "")[2]
    for part, model in (("autoencoder", prior.autoencoder), ("transformer", prior.net)):
        for name, tensor in model.state_dict().items():
            assert tensor.dtype == torch.float32
            assert torch.equal(tensor, parts[1][f"{part}.{name}"].half().float())
    assert torch.equal(prior.model._log_power, parts[1]["power"].half().double())


def test_a_file_may_hold_the_autoencoder_alone(parts, prior, tmp_path):
    path = tmp_path / "autoencoder.safetensors"
    path.write_bytes(nano.pack(*nano.parts(prior.autoencoder)))
    config, tensors, _ = nano.unpack(path.read_bytes(), "")
    model = nano.build_autoencoder(config, tensors, "")
    x = white(3, 1, 5, 16, 16, 3)
    assert torch.equal(model.encode(x), prior.autoencoder.encode(x))
    with pytest.raises(ConfigError, match=r"autoencoder.safetensors.*no transformer"):
        nano.load(path=path)


def test_the_digest_names_tensors_and_configuration(parts):
    config, tensors = parts
    digests = {nano.unpack(nano.pack(config, tensors), "")[2]}
    others = [(config | {"note": 1}, tensors)]
    for name, tensor in tensors.items():
        changed = tensor.clone()
        changed.view(-1)[-1] += 1
        others.append((config, tensors | {name: changed}))
    others.append((config, tensors | {"more": torch.zeros(1)}))
    others.append((config, {k.replace("power", "strength"): v for k, v in tensors.items()}))
    others.append((config, tensors | {"power": tensors["power"].flip(1)}))
    others.append((config, tensors | {"power": tensors["power"].reshape(-1)}))
    for other in others:
        digests.add(nano.unpack(nano.pack(*other), "")[2])
    assert len(digests) == 1 + len(others)


def test_the_digest_does_not_depend_on_the_order(parts, data):
    config, tensors = parts
    turned = dict(reversed(tensors.items()))
    assert nano.unpack(nano.pack(config, turned), "")[2] == nano.unpack(data, "")[2]


# -- refusals ---------------------------------------------------------------------------------


def refused(tmp_path, data, says):
    """The file is refused with its name and a reason."""
    path = tmp_path / "mine.safetensors"
    path.write_bytes(data)
    with pytest.raises(ConfigError, match=says) as caught:
        priors.load(f"nano:{path}")
    assert str(path) in str(caught.value)


@pytest.mark.parametrize("name", ["nano:", "gauss:"])
def test_a_prior_with_a_colon_needs_a_file(name):
    with pytest.raises(ConfigError, match=f"'{name}': a file is expected after the colon"):
        priors.load(name)


@pytest.mark.parametrize("cut", [0, 1, 8, 100, 3000, -1])
def test_a_truncated_file_is_refused(data, tmp_path, cut):
    refused(tmp_path, data[:cut], "not a safetensors file")


def test_bytes_of_another_kind_are_refused(tmp_path):
    for other in (b"\x89PNG\r\n\x1a\n" * 20, bytes(100), b"\xff" * 64, b"\2" + bytes(7) + b"{}"):
        refused(tmp_path, other, "nano weights")


def test_a_missing_file_and_a_folder_are_refused(tmp_path):
    for path, says in ((tmp_path / "none", "No such file"), (tmp_path, "directory")):
        with pytest.raises(ConfigError, match=says) as caught:
            nano.load(path=path)
        assert str(path) in str(caught.value)


@pytest.mark.parametrize("place", [0.1, 0.5, 0.999])
def test_a_flipped_byte_of_the_tensors_is_refused(data, tmp_path, place):
    start = 8 + int.from_bytes(data[:8], "little")
    at = start + int(place * (len(data) - start))
    changed = data[:at] + bytes([data[at] ^ 1]) + data[at + 1 :]
    refused(tmp_path, changed, r"damaged: SHA-256 is [0-9a-f]{16}\.\.\., expected [0-9a-f]{16}")


def test_a_changed_configuration_is_refused(data, tmp_path):
    changed = data.replace(b'\\"layers\\": 2', b'\\"layers\\": 1')
    assert changed != data
    refused(tmp_path, changed, "damaged")


@settings(max_examples=150, deadline=None)
@given(st.data())
def test_no_flipped_bit_of_the_header_passes(data, draw):
    """Damage is refused, or (in white space, say) changes nothing."""
    header = 8 + int.from_bytes(data[:8], "little")
    changed = bytearray(data)
    changed[draw.draw(st.integers(0, header - 1))] ^= 1 << draw.draw(st.integers(0, 7))
    try:
        config, tensors, digest = nano.unpack(bytes(changed), "a file")
    except ConfigError as e:
        assert "a file" in str(e)
    else:
        want = nano.unpack(data, "")
        assert (config, digest) == (want[0], want[2])
        assert all(torch.equal(tensors[k], v) for k, v in want[1].items())


@pytest.mark.parametrize("metadata", [None, {}, {"format": "gvcc nano 2"}, {"format": "pt"}])
def test_another_format_is_refused(data, tmp_path, metadata):
    found = repr((metadata or {}).get("format"))
    other = save_safetensors(load_safetensors(data), metadata)
    refused(tmp_path, other, f"format is {found}, expected 'gvcc nano 1'")


def faulty():
    config, good = made()

    def without(name):
        return {k: v for k, v in good.items() if k != name}

    yield "no autoencoder .*Missing key.*to_latent", config, without("autoencoder.to_latent.1.bias")
    yield "no transformer .*Missing key.*enter.weight", config, without("transformer.enter.weight")
    yield r"power is \(0,\), expected \(4, 9, 32, 32\)", config, without("power")
    yield r"power is \(4, 9, 32\), expected", config, good | {"power": torch.zeros(4, 9, 32)}
    yield r"power is \(5, 9, 32, 32\)", config, good | {"power": torch.zeros(5, 9, 32, 32)}
    yield "size mismatch.*group", config, good | {"autoencoder.group": torch.zeros(4, 767)}
    yield "size mismatch.*to_patch", config, good | {"transformer.to_patch.bias": torch.zeros(5)}
    yield "Unexpected key.*more", config, good | {"transformer.more": torch.zeros(5)}
    yield "no autoencoder", {"transformer": config["transformer"]}, good
    yield "no transformer", {"autoencoder": config["autoencoder"]}, good
    yield "no transformer", config | {"transformer": {"widht": 64}}, good
    yield "no transformer", config | {"transformer": 3}, good
    yield "no autoencoder", config | {"autoencoder": {"channels": 5, "width": 8}}, good
    yield "no autoencoder", config | {"autoencoder": {"channels": -5, "width": 8}}, good
    for name in ("autoencoder.colour", "transformer.enter.weight", "power"):
        for value in (math.nan, math.inf, 1e6):  # 1e6 is infinite in half precision
            bad = good[name].clone()
            bad.view(-1)[-1] = value
            yield f"{name} has numbers that are not finite", config, good | {name: bad}


@pytest.mark.parametrize(("says", "config", "tensors"), list(faulty()))
def test_what_does_not_fit_is_refused(tmp_path, says, config, tensors):
    refused(tmp_path, nano.pack(config, tensors), f"(?s){says}")


# -- the prior --------------------------------------------------------------------------------


def test_spec(prior):
    spec = prior.spec
    assert (spec.id, spec.channels, spec.stride, spec.gop) == ("nano", CHANNELS, (4, 8, 8), 33)
    assert spec.path == "rf" and 1 <= spec.knob <= 2 and spec.metric is not None


@pytest.mark.parametrize(
    ("frames", "height", "width"), [(1, 16, 24), (5, 40, 16), (9, 8, 8), (33, 24, 32)]
)
def test_shapes(prior, frames, height, width):
    video = torch.from_numpy(clip(frames, height, width))
    latent = prior.encode(video)
    assert latent.shape == (CHANNELS, (frames - 1) // 4 + 1, height // 8, width // 8)
    assert latent.dtype == torch.float32 and latent.is_contiguous()
    shown = prior.decode(latent)
    assert shown.shape == video.shape and shown.dtype == torch.uint8
    for t in (1.0, 0.5, 0.01):
        guess = prior.denoise(latent, t)
        assert guess.shape == latent.shape and torch.isfinite(guess).all()
    assert prior.spec.metric(latent, 1.0).shape == latent.shape


def test_decoding_rounds_and_clips(prior):
    latent = prior.encode(torch.from_numpy(clip(5, 16, 16)))
    exact = prior.autoencoder.decode(latent.permute(1, 2, 3, 0)[None])[0]
    off = (prior.decode(latent).float() - (exact + 1) * 127.5).abs()
    assert 0.3 < off.max() < 0.501
    wide = prior.decode(latent * 1000)
    assert wide.min() == 0 and wide.max() == 255


def test_known_frames_condition_the_others(prior):
    x, known = (
        white(4, CHANNELS, 4, 5, 6),
        {0: white(5, CHANNELS, 5, 6), 2: white(6, CHANNELS, 5, 6)},
    )
    free, got = prior.denoise(x, 0.6), prior.denoise(x, 0.6, known)
    for f, y in known.items():
        assert torch.equal(got[:, f], y)
    for f in (1, 3):
        assert (got[:, f] - free[:, f]).abs().max() > 0.01
    other = x.clone()
    other[:, [0, 2]] += 10
    assert torch.equal(prior.denoise(other, 0.6, known), got)
    assert torch.equal(prior.denoise(x, 0.6, {}), free)
    assert torch.equal(prior.denoise(x, 0.6, None), free)


def test_the_metric_is_that_of_the_files_spectrum(prior):
    r = white(7, CHANNELS, 3, 4, 5)
    s = 2.0 * prior.model.spectrum((3, 4, 5))
    want = dct3(dct3(r) * (s / (1 + s)) ** 0.25, inverse=True)
    assert torch.allclose(prior.spec.metric(r, 2.0), want, atol=1e-5)


# -- the codec --------------------------------------------------------------------------------


@pytest.mark.parametrize("shape", [(9, 32, 48), (1, 16, 16), (6, 17, 33)], ids=str)
@pytest.mark.parametrize(
    "config", [EncodeConfig(size=300), EncodeConfig(atoms=2, gop=5, steps=6)], ids=["size", "gops"]
)
def test_decoder_shows_the_encoders_pictures(prior, shape, config):
    video = Video(clip(*shape), Fraction(25))
    coded = codec.encode(video, config, prior=prior)
    back = codec.decode(coded.data, prior=prior)
    assert back.frames.shape == video.frames.shape
    assert np.array_equal(back.frames, coded.frames)


def test_a_file_is_decoded_with_the_weights_that_made_it(parts, prior, data, tmp_path):
    config, tensors = parts
    path = tmp_path / "a.safetensors"
    path.write_bytes(data)
    coded = codec.encode(Video(clip(5, 16, 16), Fraction(25)), EncodeConfig(), prior=prior)
    assert np.array_equal(codec.decode(coded.data, prior=nano.load(path=path)).frames, coded.frames)
    path.write_bytes(nano.pack(config, tensors | {"power": tensors["power"] + 0.1}))
    other = nano.load(path=path)
    with pytest.raises(PriorMismatch, match=other.spec.digest.hex()):
        codec.decode(coded.data, prior=other)


def test_the_header_of_the_file_is_plain_json(parts, data):
    """Anyone can read sizes and digest without gvcc."""
    size = int.from_bytes(data[:8], "little")
    metadata = json.loads(data[8 : 8 + size])["__metadata__"]
    assert metadata["format"] == "gvcc nano 1"
    assert json.loads(metadata["config"]) == parts[0]
    assert bytes.fromhex(metadata["sha256"])[:8] == nano.unpack(data, "")[2]
