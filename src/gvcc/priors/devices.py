"""Where tensors are: names of devices, what happens before a GPU is first used, and torch's
process-wide switches that change results.

The prior says where a stream's tensors are (priors.Prior.device); everything else follows it. Names
come from users, as "auto", "cpu", "cuda" or "cuda:1".
"""

from __future__ import annotations

import re
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from functools import cache, lru_cache, partial
from typing import TYPE_CHECKING, Any, NamedTuple, TypeVar

from gvcc.errors import ConfigError, GvccError

if TYPE_CHECKING:
    import torch

T = TypeVar("T")
_NAME = re.compile(r"auto|cpu(:0)?|cuda(:(0|[1-9]\d{0,3}))?")


def check_name(name: str) -> None:
    """ConfigError unless `name` is one that a device could have; torch is not imported."""
    if not _NAME.fullmatch(str(name)):
        raise ConfigError(
            f"device {str(name)!r}: expected cpu, cuda, cuda:1 and so on, or auto; gvcc runs on "
            "nothing else"
        )


def pick(name: str, gpu: bool = True) -> str:
    """The device that a user's name stands for, "auto" for a GPU if there is one and `gpu`.

    ConfigError for a name that is none, and for a GPU that is not there.
    """
    check_name(name)
    kind, _, number = str(name).partition(":")
    if kind == "cpu" or (kind == "auto" and not gpu):
        return "cpu"
    import torch

    count = torch.cuda.device_count() if torch.cuda.is_available() else 0
    if kind == "auto":
        return "cuda" if count else "cpu"
    if not count:
        raise ConfigError(f"device {name}: PyTorch finds no GPU here")
    if number and int(number) >= count:
        there = "cuda:0" if count == 1 else f"cuda:0 to cuda:{count - 1}"
        raise ConfigError(f"device {name}: PyTorch finds no such GPU here, only {there}")
    return str(name)


def ready(name: str | torch.device) -> torch.device:
    """A device that is ready to be used, with its number: torch.cuda.set_device changes nothing any
    more.

    ConfigError as `pick`; GvccError for a GPU whose integers are not what they should be.
    """
    import torch

    where = pick(str(name), gpu=False)
    if where == "cpu":
        return torch.device("cpu")
    try:
        at = torch.empty(0, dtype=torch.int64, device=where).device
    except RuntimeError as e:
        raise GvccError(f"device {where}: {(str(e).splitlines() or ['unusable'])[0]}") from None
    _tested(at)
    return at


@cache
def _tested(at: torch.device) -> None:
    """The random generator's own test, once for each GPU: a wrong word there is a file that no
    other machine can decode."""
    import torch

    from gvcc.format import rng

    try:
        rng.self_test(torch.empty(0, dtype=torch.int64, device=at))
    except AssertionError as e:
        raise GvccError(f"device {at} does not compute as it should: {e}") from None


# -- switches ---------------------------------------------------------------------------------


class _Switch(NamedTuple):
    """A setting of torch for the whole process, and the values at which results are exact, the
    first one for choice."""

    read: Callable[[], Any]
    write: Callable[[Any], None]
    good: tuple[Any, ...]

    def now(self) -> Any:
        """The setting; None where torch refuses to say, for it was made another way: newer versions
        of torch have a second set of names for the same things."""
        try:
            return self.read()
        except RuntimeError:
            return None


@lru_cache(maxsize=1)
def _switches() -> list[_Switch]:
    """Those that may be read and set in this order; all have to be read before one is set, for some
    move others."""
    import torch

    b: Any = torch.backends
    out = [_Switch(torch.get_float32_matmul_precision, torch.set_float32_matmul_precision,
                   ("highest",))]  # fmt: skip
    fields: list[tuple[Any, str, tuple[Any, ...]]] = [
        (b.cudnn, "allow_tf32", (False,)), (b.cudnn, "benchmark", (False,)),
        (b.cudnn, "deterministic", (True,)),
    ]  # fmt: skip
    parts = [(p, q) for p in (b.cudnn, b.mkldnn) for q in ("conv", "rnn", "matmul")]
    inner = [getattr(p, q) for p, q in parts if hasattr(p, q)]
    # The general one first: what was not set by itself follows it.
    for holder in (b, b.cudnn, b.cuda.matmul, *inner):
        if hasattr(holder, "fp32_precision"):
            fields.append((holder, "fp32_precision", ("ieee", "none")))
    return out + [
        _Switch(partial(getattr, o, name), partial(setattr, o, name), good)
        for o, name, good in fields
    ]


_lock = threading.Lock()
_inside, _found = 0, list[Any]()


@contextmanager
def exact() -> Iterator[None]:
    """Torch's switches that pictures depend on, at one setting whatever the process has: float32
    products and convolutions in full, and cuDNN's deterministic algorithms without trials.

    They are the process's own: several threads may be inside, and the last one out sets them back
    to what the first one found.
    """
    global _inside, _found
    with _lock:
        if not _inside:
            _found = [s.now() for s in _switches()]
            for s in _switches():
                if (now := s.now()) is not None and now not in s.good:
                    s.write(s.good[0])
        _inside += 1
    try:
        yield
    finally:
        with _lock:
            _inside -= 1
            if not _inside:
                for s, found in zip(_switches(), _found, strict=True):
                    if found is not None and s.now() != found:
                        s.write(found)


def exactly(made: Iterator[T]) -> Iterator[T]:
    """The items of an iterator, each of them made within `exact`; whoever takes them has the
    process's own switches meanwhile."""
    while True:
        with exact():
            try:
                item = next(made)
            except StopIteration:
                return
        yield item
