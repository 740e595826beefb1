"""Torch's process-wide switches: pictures do not depend on them, and the caller keeps its own."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import suppress
from fractions import Fraction
from io import BytesIO
from types import SimpleNamespace
from typing import Any

import cli_runner
import numpy as np
import pytest
import tiny_prior
import torch

from gvcc import codec
from gvcc.priors import devices, diffusion
from gvcc.records import Video
from gvcc.search.config import EncodeConfig

pytestmark = pytest.mark.usefixtures("one_thread")
CONFIG = EncodeConfig(prior="tiny", mode="i2v", gop=5, steps=6, bpp=3.0)
VIDEO = Video(cli_runner.frames(9, 16, 16), Fraction(25))
_B: Any = torch.backends
_PARTS = [
    (f"{name}.{part}", getattr(holder, part))
    for name, holder in (("cudnn", _B.cudnn), ("mkldnn", _B.mkldnn), ("cuda", _B.cuda))
    for part in ("conv", "rnn", "matmul") if hasattr(holder, part)
]  # fmt: skip
_NEW = [(n, h) for n, h in (("all", _B), ("cudnn", _B.cudnn), *_PARTS) if
        hasattr(h, "fp32_precision")]  # fmt: skip
_OLD: dict[str, Callable[[], Any]] = {
    "matmul": torch.get_float32_matmul_precision, "benchmark": lambda: _B.cudnn.benchmark,
    "matmul.allow_tf32": lambda: _B.cuda.matmul.allow_tf32,
    "cudnn.allow_tf32": lambda: _B.cudnn.allow_tf32, "deterministic": lambda: _B.cudnn.deterministic
}  # fmt: skip
PINNED = {"matmul": "highest", "matmul.allow_tf32": False, "cudnn.allow_tf32": False,
          "benchmark": False, "deterministic": True}  # fmt: skip


def switches() -> dict[str, Any]:
    """All of them, under both of torch's sets of names; without those it refuses to tell."""
    found = {f"fp32 {n}": h.fp32_precision for n, h in _NEW}
    for name, read in _OLD.items():
        with suppress(RuntimeError):
            found[name] = read()
    return found


CALLERS: dict[str, Callable[[], None]] = {
    "usual": lambda: None,
    "high": lambda: torch.set_float32_matmul_precision("high"),
    "medium": lambda: torch.set_float32_matmul_precision("medium"),
    "tf32": lambda: setattr(_B.cuda.matmul, "allow_tf32", True),
    "benchmark": lambda: setattr(_B.cudnn, "benchmark", True),
    "deterministic": lambda: setattr(_B.cudnn, "deterministic", True),
}
if _NEW:
    CALLERS |= {f"new {n}": lambda h=h: setattr(h, "fp32_precision", "tf32") for n, h in _NEW}  # type: ignore[misc]


@pytest.fixture(autouse=True)
def as_before() -> Iterator[None]:
    before = {n: h.fp32_precision for n, h in _NEW}
    yield
    torch.set_float32_matmul_precision("highest")
    _B.cudnn.allow_tf32, _B.cudnn.benchmark, _B.cudnn.deterministic = True, False, False
    for n, h in _NEW:
        h.fp32_precision = before[n]


def watched(seen: dict[str, list[dict[str, Any]]], fail: str = "") -> Any:
    """The tiny prior; each of its calls tells the switches it found."""
    prior = tiny_prior.load()

    def around(name: str, real: Any) -> Any:
        def call(*args: Any, **more: Any) -> Any:
            seen.setdefault(name, []).append(switches())
            if name == fail:
                raise ZeroDivisionError
            return real(*args, **more)

        return call

    for name in ("encode", "decode", "render", "denoise"):
        setattr(prior, name, around(name, getattr(prior, name)))
    return prior


@pytest.fixture(scope="module")
def usual() -> codec.Encoding:
    return codec.encode(VIDEO, CONFIG, tiny_prior.load())


@pytest.mark.parametrize("caller", CALLERS)
def test_pictures_are_made_with_switches_of_their_own(caller: str, usual: codec.Encoding) -> None:
    CALLERS[caller]()
    before, seen, made = switches(), dict[str, Any](), list[Any]()
    prior = watched(seen)
    for part in codec.encode_parts(VIDEO, CONFIG, prior):
        assert switches() == before
        made.append(part)
    assert seen.keys() == {"encode", "decode", "render", "denoise"}
    data = b"".join(p.data for p in made)
    for picture, want in zip(codec.Decoder(BytesIO(data), prior).pictures(), usual.frames,
                             strict=True):  # fmt: skip
        assert switches() == before and np.array_equal(picture, want)
    assert data == usual.data and switches() == before
    for found in (f for calls in seen.values() for f in calls):
        # Torch does not tell by an old name what was set by a new one.
        assert {n: v for n, v in found.items() if n in PINNED}.items() <= PINNED.items()
        assert {v for n, v in found.items() if n.startswith("fp32 ")} <= {"none", "ieee"}


def test_what_a_caller_sets_meanwhile_is_kept() -> None:
    seen: dict[str, Any] = {}
    for i, _ in enumerate(codec.encode_parts(VIDEO, CONFIG, watched(seen))):
        assert _B.cudnn.benchmark == (i % 2 == 0 and i > 0)
        _B.cudnn.benchmark = i % 2 == 1
    assert i > 1 and not any(f["benchmark"] for calls in seen.values() for f in calls)


@pytest.mark.parametrize("name", ["encode", "decode", "denoise"])
def test_an_error_or_an_end_sets_them_back(name: str, usual: codec.Encoding) -> None:
    torch.set_float32_matmul_precision("high")
    before, prior = switches(), watched({}, name)
    with pytest.raises(ZeroDivisionError):
        codec.encode(VIDEO, CONFIG, prior)
    assert switches() == before
    if name != "encode":
        with pytest.raises(ZeroDivisionError):
            codec.decode(usual.data, prior)
        assert switches() == before
    pictures = codec.Decoder(BytesIO(usual.data), tiny_prior.load()).pictures()
    next(pictures)
    pictures.close()  # type: ignore[attr-defined]
    assert switches() == before


def test_the_last_thread_out_sets_them_back() -> None:
    torch.set_float32_matmul_precision("high")
    before, one, other = switches(), devices.exact(), devices.exact()
    one.__enter__()
    inside = switches()
    other.__enter__()
    one.__exit__(None, None, None)
    assert switches() == inside != before
    other.__exit__(None, None, None)
    assert switches() == before


def test_sensitivities_are_measured_with_them(monkeypatch: pytest.MonkeyPatch) -> None:
    """They are kept in a cache, and files depend on them."""
    torch.set_float32_matmul_precision("high")
    monkeypatch.setattr(diffusion.store, "recall", lambda _: {})
    monkeypatch.setattr(diffusion.store, "remember", lambda *_: None)
    monkeypatch.setattr(diffusion, "sensitivity", lambda *_: switches())
    prior = SimpleNamespace(spec=SimpleNamespace(digest=b"", channels=1, patch=1), render=None,
                            device=None)  # fmt: skip
    found: Any = diffusion.Diffusion.sensitivities.func(prior)  # type: ignore[attr-defined]
    assert PINNED.items() <= found.items()
