"""GPUs that are not there: tensors that say they are on cuda:0 or cuda:1, are as strict about it as
CUDA is, and compute on the CPU, so that what a machine with a GPU would refuse is refused here and
what it would compute can be compared with the CPU's, bit for bit.

Such a tensor has its values in a CPU tensor that nothing else can reach. Every operation is looked
at below torch's own front end (`__torch_dispatch__`), as a kernel would see it:

  * tensors of two devices do not meet; but a CPU tensor without dimensions may join element-wise
    operations, CPU integers may index, and `copy_` and `to` go from any device to any other;
  * a tensor made without a device is on the CPU, one made with a device is there;
  * random numbers come from a generator of the device;
  * numpy takes CPU tensors only.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from functools import cache
from typing import Any
from unittest import mock

import torch
from torch import Tensor
from torch.utils._python_dispatch import TorchDispatchMode

from gvcc.format import rng

COUNT = 2  # GPUs
_CPU = torch.device("cpu")
_aten = torch.ops.aten
_ANY_TO_ANY = (_aten.copy_.default, _aten._to_copy.default)
_INDEXING = (_aten.index.Tensor, _aten.index_put_.default, _aten.index_put.default,
             _aten._index_put_impl_.default, _aten._unsafe_index.Tensor)  # fmt: skip
# Where kernels take a CPU scalar, besides the element-wise ones.
_SCALARS = (_aten.fill_.Tensor, _aten.masked_fill.Tensor, _aten.masked_fill_.Tensor)


class OnGpu(Tensor):
    """A tensor of a pretended device. For torch's own code in C++, which has no CUDA here, it is on
    the device `meta`."""

    inner: Tensor
    _at: torch.device

    @staticmethod
    def __new__(cls, inner: Tensor, at: torch.device) -> OnGpu:
        out = torch.Tensor._make_wrapper_subclass(
            cls, inner.shape, strides=inner.stride(), storage_offset=inner.storage_offset(),
            dtype=inner.dtype, layout=inner.layout, device="meta",
        )  # fmt: skip
        out.inner, out._at = inner, at
        return out

    @property
    def device(self) -> torch.device:  # type: ignore[override]
        return self._at

    @property
    def is_cuda(self) -> bool:  # type: ignore[override]
        return True

    @property
    def is_meta(self) -> bool:  # type: ignore[override]
        return False

    def __repr__(self) -> str:  # type: ignore[override]
        return f"{self.inner!r} on {self._at}"

    def tolist(self) -> Any:  # torch knows no lists of subclasses
        return self.inner.tolist()

    def __getitem__(self, index: Any) -> Tensor:
        return super().__getitem__(_indices(index))

    def __setitem__(self, index: Any, value: Any) -> None:
        given = value if isinstance(value, Tensor) else torch.tensor(value, dtype=self.dtype)
        super().__setitem__(_indices(index), given)

    __torch_function__ = torch._C._disabled_torch_function_impl

    @classmethod
    def __torch_dispatch__(cls, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        return _dispatch(func, args, kwargs or {})


class _Everything(TorchDispatchMode):
    """Sees the operations that no tensor of a pretended device takes part in, too."""

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        return _dispatch(func, args, kwargs or {})


def _indices(given: Any) -> Any:
    """Indices without lists, of which torch would make tensors on `meta`."""
    if isinstance(given, tuple):
        return tuple(_indices(i) for i in given)
    return torch.tensor(given, dtype=torch.int64) if isinstance(given, list) else given


def _tensors(args: Any) -> Iterator[Tensor]:
    for a in args:
        if isinstance(a, Tensor):
            yield a
        elif isinstance(a, (list, tuple)):
            yield from _tensors(a)


def _where(func: Any, args: Any, kwargs: dict[str, Any]) -> torch.device:
    """The device of an operation's result; RuntimeError if CUDA would refuse it."""
    tensors = [*_tensors(args), *_tensors(kwargs.values())]
    asked = kwargs.get("device")
    if func is _aten.copy_.default:
        at = args[0].device
    elif func is _aten._to_copy.default or (asked is not None and len(tensors) < 2):
        at = asked or (tensors[0].device if tensors else _CPU)
    else:
        at = tensors[0].device if tensors else _CPU
        if any(t.device != at for t in tensors):
            at = _met(func, args, tensors)
    generator = kwargs.get("generator")
    if generator is not None and generator.device.type != at.type:
        raise RuntimeError(
            f"Expected a '{at.type}' device type for generator but found '{generator.device.type}'"
        )
    if at.type == "cuda":
        at = torch.device("cuda", at.index or 0)  # "cuda" is the current one
        if at.index >= COUNT:
            raise RuntimeError("CUDA error: invalid device ordinal")
    return at


def _met(func: Any, args: Any, tensors: list[Tensor]) -> torch.device:
    """Where an operation on tensors of several devices is done, if CUDA does it."""
    met = tensors
    if func in _INDEXING and isinstance(args[0], OnGpu):
        on_cpu = {id(t) for t in args[1] if t is not None and t.device == _CPU}
        met = [t for t in tensors if id(t) not in on_cpu]
    if torch.Tag.pointwise in func.tags or func in (*_SCALARS, *_INDEXING):
        met = [t for t in met if t.ndim or isinstance(t, OnGpu)]
    devices = {t.device for t in met}
    if len(devices) > 1:
        names = " and ".join(sorted(map(str, devices)))
        raise RuntimeError(
            f"Expected all tensors to be on the same device, but found at least two, {names}! "
            f"(in {func})"
        )
    return devices.pop()


def _mapped(change: Callable[[Any], Any], given: Any) -> Any:
    """`change` of what is in lists and tuples (torch's own tree_map takes longer than the rest)."""
    if isinstance(given, (list, tuple)):
        return type(given)(_mapped(change, g) for g in given)
    return change(given)


def _dispatch(func: Any, args: Any, kwargs: dict[str, Any]) -> Any:
    if _composite(func):  # as it comes in inference mode: look at what it is made of
        with _Everything():
            return func.decompose(*args, **kwargs)
    at = _where(func, args, kwargs)
    if func is _aten._fused_sdp_choice.default and at.type == "cuda":
        return 0  # plain products: the CPU's own kernel is none of a GPU's
    inside = _mapped(_inner, args)
    more = {n: _mapped(_inner, v) for n, v in kwargs.items()} if kwargs else {}
    if "device" in more:
        more["device"] = _CPU if at.type == "cuda" else at
    out = func(*inside, **more)
    if at.type != "cuda":
        return out
    if func._schema.is_mutable:
        return args[0] if isinstance(out, Tensor) else out
    if not _view(func):
        return _placed(out, at)
    with torch.inference_mode(args[0].is_inference()):  # a view is what its base is
        return _placed(out, at)


def _placed(out: Any, at: torch.device) -> Any:
    return _mapped(lambda t: OnGpu(t, at) if isinstance(t, Tensor) else t, out)


@cache
def _composite(func: Any) -> bool:
    return torch._C._dispatch_has_kernel_for_dispatch_key(func.name(), "CompositeImplicitAutograd")


@cache
def _view(func: Any) -> bool:
    return any(a.alias_info for a in func._schema.arguments)


def _inner(given: Any) -> Any:
    return given.inner if isinstance(given, OnGpu) else given


_to, _signs = Tensor.to, rng.signs


def _moved(x: Tensor, *args: Any, **kwargs: Any) -> Tensor:
    """x.to(...), where C++ asks too much: x.to(y) is where y pretends to be."""
    if args and isinstance(args[0], OnGpu):
        args = (args[0].device, args[0].dtype, *args[1:])
    elif args and str(args[0]) == "cuda":
        args = (torch.device("cuda:0"), *args[1:])
    return _to(x, *args, **kwargs)


def _one_kernel(key: rng.Key, start: int, count: int, like: Any = None) -> Any:
    """rng.signs, on a pretended device in one go: its 200 operations are most of a search's. (They
    are done one by one in test_the_generator_on_a_gpu.)"""
    found = _signs(key, start, count)
    if not isinstance(like, OnGpu):
        return found if like is None else torch.from_numpy(found).long()
    assert like.dtype == torch.int64
    return OnGpu(torch.from_numpy(found).long(), like.device)


@contextmanager
def gpus() -> Iterator[None]:
    """Two GPUs, cuda:0 and cuda:1, until the end of the context."""
    lifted = torch._C._only_lift_cpu_tensors()
    torch._C._set_only_lift_cpu_tensors(True)  # torch.tensor(..., device=...) goes by way of `to`
    try:
        with (
            mock.patch.object(torch.cuda, "is_available", lambda: True),
            mock.patch.object(torch.cuda, "device_count", lambda: COUNT),
            mock.patch.object(torch.cuda, "_lazy_init", lambda: None),
            mock.patch.object(Tensor, "to", _moved),
            mock.patch.object(rng, "signs", _one_kernel),
            _Everything(),
        ):
            yield
    finally:
        torch._C._set_only_lift_cpu_tensors(lifted)
