"""An evaluation: all cells of codecs, clips and rates, on this machine or on many.

Every finished cell is a file of its own below OUT/cells, written at once; a run that was broken off
goes on. Here each job is a process of its own, so that a codec that crashes costs its cell and no
other; with Ray the jobs go to the workers of a cluster (an embedded one by default), which need
neither this folder nor to survive.
"""

from __future__ import annotations

import dataclasses
import hashlib
import json
import os
import re
import subprocess
import sys
import tempfile
import threading
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor, as_completed
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np

from gvcc.errors import ConfigError, unknown
from gvcc.eval import baselines, bd, cells, cluster, every, seeds
from gvcc.eval.cells import Finished, Job, Made, Source
from gvcc.files import write
from gvcc.metrics import inception, perceptual
from gvcc.priors import devices

BD_METRICS = ("psnr_rgb_db", "ms_ssim", "vmaf", "vmaf_neg", "lpips_alex", "lpips_vgg", "dists",
              "tof")  # fmt: skip
QUICK_RATES, FULL_RATES = (0.02, 0.05, 0.1), (0.01, 0.02, 0.05, 0.1, 0.2)
_QUICK = ("psnr_rgb_db", "psnr_yuv_db", "ms_ssim", "vmaf", "vmaf_neg", "tof", "temporal_error",
          "lpips_alex", "dists")  # fmt: skip


@dataclass(frozen=True)
class Preset:
    """What an evaluation measures where nothing else is said: codecs, rates in bits per pixel,
    frames of each clip and the height they are scaled to (None: all, as it is), metrics."""

    codecs: tuple[str, ...]
    rates: tuple[float, ...]
    frames: int | None
    height: int | None
    metrics: tuple[str, ...] = ()
    stride: int = 1  # of the frames that LPIPS and DISTS are measured on


PRESETS = {
    "quick": Preset(
        ("gvcc:default", "gvcc:free-gvc", "x264", "x265", "svt-av1", "svt-av1+unsharp", "vvc",
         "vp9"), QUICK_RATES, 17, 176, _QUICK, 4,
    ),
    "full": Preset(
        ("gvcc:default", "gvcc:default+mode=i2v", "gvcc:free-gvc", "x264", "x265", "svt-av1",
         "svt-av1+unsharp", "vvc", "vp9"), FULL_RATES, 33, 256, (), 2,
    ),
}  # fmt: skip


@dataclass(frozen=True)
class Plan:
    """An evaluation: what is measured, and where its results go."""

    folder: Path
    name: str
    codecs: tuple[str, ...]
    sources: tuple[Source, ...]
    rates: tuple[float, ...]
    metrics: tuple[str, ...] = ()
    device: str = "cpu"
    adapters: str | None = None
    stride: int = 1

    def jobs(self) -> list[Job]:
        """One for each codec and clip; those of one clip together, so that a broken-off run has
        whole clips."""
        return [
            Job(c, s, self.rates, self.metrics, self.device, self.adapters, self.stride)
            for s in self.sources for c in self.codecs
        ]  # fmt: skip

    def check(self) -> None:
        """ConfigError for what cannot be run."""
        devices.check_name(self.device)
        for codec in self.codecs:
            cells.check(codec, self.adapters)
        if len(set(self.codecs)) < len(self.codecs):
            raise ConfigError("a codec is named twice")
        if not self.rates or not all(0 < r < 24 for r in self.rates):
            raise ConfigError("rates are bits per pixel, between 0 and 24")
        if len(set(self.rates)) < len(self.rates):
            raise ConfigError("a rate is named twice")
        for name in self.metrics:
            if name not in (known := (*every.NAMES, *every.SET_NAMES)):
                raise unknown("metric", name, known)


Tell = Callable[[str, int, int], None]
_UNMEASURED: dict[str, Any] = {"metrics": {}, "not_computed": {}}


@dataclass
class _Kept:
    """The finished cells of a run, and how many there will be."""

    plan: Plan
    tell: Tell
    done: int = 0
    lock: threading.Lock = field(default_factory=threading.Lock)
    workers: set[subprocess.Popen[str]] = field(default_factory=set)
    stopped: bool = False

    def stop(self) -> None:
        """End the run's workers; what they were at is not kept."""
        with self.lock:
            self.stopped = True
            for worker in self.workers:
                worker.kill()

    @property
    def total(self) -> int:
        return len(self.plan.codecs) * len(self.plan.sources) * len(self.plan.rates)

    def path(self, job: Job, rate: float) -> Path:
        return self.plan.folder / "cells" / f"{job.key(rate)}.json"

    def open(self, job: Job) -> Job | None:
        """The job with the rates that are not measured yet; None if there are none. Cells that
        failed are tried again. Those that lack a metric, or lacked its weights when there were
        others, are measured again, and not encoded."""
        left, finished = list[float](), list[Finished]()
        for rate in job.rates:
            cell = self.read(job, rate)
            if cell.get("status") != "ok":
                left.append(rate)
                continue
            files = {n: self.plan.folder / cell[n] for n in ("video", "stream") if cell.get(n)}
            lacks = self._lacks(job, rate, cell)
            if not lacks and all(p.is_file() for p in files.values()):
                continue
            left.append(rate)
            if "stream" in files and files["stream"].is_file():
                known = cell if cell["measuring"] == job.measuring else {**cell, **_UNMEASURED}
                finished.append(Finished(rate, known, files["stream"].read_bytes(), lacks))
        with self.lock:
            self.done += len(job.rates) - len(left)
        if not left:
            return None
        return dataclasses.replace(job, rates=tuple(left), finished=tuple(finished))

    def _lacks(self, job: Job, rate: float, cell: dict[str, Any]) -> tuple[str, ...]:
        """The metrics that a finished cell is still to be given."""
        if cell["measuring"] != job.measuring:
            return job.wanted
        reasons = cell["not_computed"]
        if cell.get("metric_weights", perceptual.present()) != perceptual.present():
            reasons = {}
        has = {*reasons, *(n for n, v in cell["metrics"].items() if v is not None)}
        if self.path(job, rate).with_suffix(".npz").is_file():
            has.update(every.SET_NAMES)
        return tuple(n for n in job.wanted if n not in has)

    def read(self, job: Job, rate: float) -> dict[str, Any]:
        try:
            found = json.loads(self.path(job, rate).read_text())
        except (OSError, ValueError):
            return {}
        return found if isinstance(found, dict) else {}

    def keep(self, job: Job, made: Made) -> None:
        """Write a finished cell; its clip first, so that a cell that is there has one."""
        cell = {k: v for k, v in made.cell.items() if k != "metric_weights"}
        if cell.get("not_computed"):
            cell["metric_weights"] = perceptual.present()
        # The key: the same clip at another size must not take its place.
        name = f"{safe(job.codec)}/{job.source.name}-{made.rate:g}-{job.key(made.rate)[:8]}"
        for kind, at, data in (("stream", f"streams/{name}{made.suffix}", made.stream),
                               ("video", f"media/{name}.mp4", made.video)):  # fmt: skip
            if data:
                write(self.plan.folder / at, data)
                cell[kind] = at
        if made.features:
            write(self.path(job, made.rate).with_suffix(".npz"), made.features)
        write(self.path(job, made.rate), json.dumps(cell).encode())
        with self.lock:
            self.done += 1
            self.tell("cells", self.done, self.total)


def safe(name: str) -> str:
    """A codec's name as part of a file's."""
    return re.sub(r"[^A-Za-z0-9.-]", "_", name)


def run(plan: Plan, workers: int, tell: Tell = lambda *_: None, ray: str | None = None) -> int:
    """Measure what is not measured yet, and write setup.json, results/, bd.json; returns how many
    cells failed. `ray`: the address of a cluster, or "local" for one of this process's own."""
    plan.check()
    if ray is None:  # a cluster may have what this machine has not
        devices.pick(plan.device)
    try:
        plan.folder.mkdir(parents=True, exist_ok=True)
    except OSError as e:
        raise ConfigError(f"{plan.folder}: {e.strerror}") from None
    kept = _Kept(plan, tell)
    work = [job for j in plan.jobs() if (job := kept.open(j)) is not None]
    tell("cells", kept.done, kept.total)
    if ray is None:
        with ThreadPoolExecutor(workers) as pool:
            try:
                for future in as_completed([pool.submit(_in_processes, j, kept) for j in work]):
                    future.result()
            except BaseException:  # Ctrl-C above all: the pool would wait for all its jobs
                pool.shutdown(wait=False, cancel_futures=True)
                kept.stop()
                raise
    else:
        for job, made in cluster.run(work, ray, workers):
            kept.keep(job, made)
    return _summed(plan, kept)


# -- on this machine --------------------------------------------------------------------------


def _in_processes(job: Job, kept: _Kept) -> None:
    """A job in a process of its own; one that dies loses the cell it was at, and the rest of its
    cells go to another."""
    rates = list(job.rates)
    while rates:
        rest = dataclasses.replace(job, rates=tuple(rates))
        with tempfile.TemporaryFile("w+") as errors, tempfile.TemporaryFile("w+") as asked:
            json.dump(rest.as_dict(), asked)
            asked.seek(0)
            worker = subprocess.Popen(
                [sys.executable, "-m", "gvcc.eval.worker"],
                stdin=asked, stdout=subprocess.PIPE, stderr=errors, text=True,
                env=os.environ | {"OMP_NUM_THREADS": os.environ.get("OMP_NUM_THREADS", "1")},
            )  # fmt: skip
            with kept.lock:
                kept.workers.add(worker)
                if kept.stopped:
                    worker.kill()
            assert worker.stdout is not None
            with worker, worker.stdout:
                for line in worker.stdout:
                    made = Made(**json.loads(line))
                    rates.remove(made.rate)
                    binary: dict[str, Any] = {
                        n: bytes.fromhex(getattr(made, n)) for n in cells.BINARY
                    }
                    kept.keep(job, dataclasses.replace(made, **binary))
            with kept.lock:
                kept.workers.discard(worker)
                if kept.stopped:
                    return
            errors.seek(0)
            why = errors.read().strip().splitlines() or ["it said nothing"]
        if rates:
            kept.keep(job, cells.crashed(job, rates.pop(0), f"{worker.returncode}: {why[-1]}"))


# -- what comes of it -------------------------------------------------------------------------


def _set_metrics(plan: Plan, kept: _Kept, codec: str, rate: float) -> dict[str, float]:
    """FID and KID of a codec at a rate, over the patches of all clips; empty unless every clip has
    features."""
    paths = [kept.path(job, rate).with_suffix(".npz") for job in plan.jobs() if job.codec == codec]
    if not all(p.exists() for p in paths):
        return {}
    loaded = [np.load(p) for p in paths]
    a, b = (np.concatenate([f[n] for f in loaded]) for n in ("arr_0", "arr_1"))
    if len(a) < 2:
        return {}
    return dict(zip(every.SET_NAMES, inception.distances(a, b), strict=True))


def _clip(plan: Plan, source: Source, cell: dict[str, Any] | None) -> dict[str, Any]:
    """What a report says of a clip, and the original as a video; little if every cell failed."""
    clip: dict[str, Any] = {"name": source.name}
    if cell is None:
        return clip
    at = f"media/original/{source.name}-{hashlib.sha256(source.identity.encode()).hexdigest()[:8]}"
    if not (path := plan.folder / f"{at}.mp4").exists():
        video = source.read()
        write(path, cells.as_mp4(video.frames, video.fps))
    return (
        clip | {k: cell[k] for k in ("frames", "width", "height", "fps")} | {"video": f"{at}.mp4"}
    )


def _summed(plan: Plan, kept: _Kept) -> int:
    """Write the files that reports are made of; returns how many cells failed."""
    found: dict[str, list[dict[str, Any]]] = {c: [] for c in plan.codecs}
    about: dict[str, dict[str, Any]] = {}
    for job in plan.jobs():
        for rate in job.rates:
            cell = kept.read(job, rate) or cells.crashed(job, rate, "no result").cell
            for kind in {"metrics", "not_computed"} & cell.keys():  # others may be there, too
                cell[kind] = {n: v for n, v in cell[kind].items() if n in job.wanted}
            found[job.codec].append(cell)
            about[job.codec] = {"command": cells.command(job), "prior": cell.get("prior")}
            if rule := cell.get("size_rule"):
                about[job.codec]["size_rule"] = rule
    for codec in plan.codecs:
        of_set = {f"{r:g}": _set_metrics(plan, kept, codec, r) for r in plan.rates}
        found_codec = baselines.find(codec)
        notes = [f"encoder preset {found_codec.preset}"] if found_codec else []
        notes += seeds.notes(codec, found)
        notes += [f"FID/256 {m['fid_256']:.2f}, KID/256 {m['kid_256']:.4f} at {r} bits per pixel"
                 for r, m in of_set.items() if m]  # fmt: skip
        result = {"codec": codec, "set": plan.name, **about[codec], "notes": notes,
                  "set_metrics": of_set, "cells": found[codec]}  # fmt: skip
        path = plan.folder / "results" / f"{safe(codec)}__{safe(plan.name)}.json"
        write(path, json.dumps(result, indent=1).encode())
    fine = {c["clip"]: c for cs in found.values() for c in cs if c["status"] == "ok"}
    clips = [_clip(plan, source, fine.get(source.name)) for source in plan.sources]
    setup = {"set": plan.name, "height": plan.sources[0].height, "frames": plan.sources[0].frames,
             "stride": plan.stride, "rates": list(plan.rates),
             "codecs": list(plan.codecs), "clips": clips}  # fmt: skip
    write(plan.folder / "setup.json", json.dumps(setup, indent=1).encode())
    tables = bd.matrix(
        {n: [c for c in cs if c["status"] == "ok"] for n, cs in found.items()}, BD_METRICS
    )
    write(plan.folder / "bd.json", json.dumps(tables, indent=1).encode())
    return sum(c["status"] != "ok" for cs in found.values() for c in cs)
