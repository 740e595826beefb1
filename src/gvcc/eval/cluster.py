"""The cells of an evaluation on the workers of a Ray cluster."""

from __future__ import annotations

import dataclasses
import socket
from collections.abc import Iterator, Sequence
from typing import Any

from gvcc.errors import ConfigError
from gvcc.eval import cells
from gvcc.eval.cells import Job, Made


def run(work: Sequence[Job], address: str, workers: int) -> Iterator[tuple[Job, Made]]:
    """The cells of jobs as Ray's workers finish them. A worker that dies is replaced and its job
    done again; a cell is handed out once."""
    try:
        import ray
    except ImportError:
        raise ConfigError("--ray needs Ray: pip install 'gvcc[ray]'") from None
    _check_reachable(address)
    mine = not ray.is_initialized()
    if mine and address == "local":
        ray.init(num_cpus=workers, include_dashboard=False, log_to_driver=False)
    elif mine:
        ray.init(address=address, log_to_driver=False)

    @ray.remote(max_retries=3)  # type: ignore[untyped-decorator]
    def cells_of(fields: dict[str, Any]) -> list[Made]:
        return list(cells.run(Job.of(fields)))

    try:
        on_gpu = [j.device.startswith("cuda") for j in work]
        waiting = {
            cells_of.options(num_gpus=int(gpu)).remote(one.as_dict()): one
            for whole, gpu in zip(work, on_gpu, strict=True) for one in _single(whole)
        }  # fmt: skip
        while waiting:
            (ready, *_), _ = ray.wait(list(waiting))
            job = waiting.pop(ready)
            try:
                found = ray.get(ready)
            except ray.exceptions.RayError as e:
                found = [cells.crashed(job, r, str(e).splitlines()[0]) for r in job.rates]
            for made in found:
                yield job, made
    finally:
        if mine:
            ray.shutdown()


def _check_reachable(address: str) -> None:
    """ConfigError where nobody listens: Ray itself would try for minutes."""
    host, _, port = address.rpartition("//")[2].rpartition(":")
    if host and port.isdigit():
        try:
            socket.create_connection((host, int(port)), timeout=5).close()
        except OSError as e:
            raise ConfigError(f"--ray {address}: {e.strerror or e}") from None


def _single(job: Job) -> Iterator[Job]:
    """A job in parts that may run on different machines: a baseline's rates share their encodes."""
    if job.codec.startswith("gvcc:"):
        for rate in job.rates:
            yield dataclasses.replace(job, rates=(rate,))
    else:
        yield job
