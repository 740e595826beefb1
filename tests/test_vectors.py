"""Every vector listed in vectors/README.md: valid ones decode, faulty ones are refused as listed.

The list and the folders must agree, so a vector that is lost or forgotten fails.
"""

from __future__ import annotations

import dataclasses
import json
import shutil
from functools import cache
from pathlib import Path
from typing import Any

import faulty_vectors
import make_vectors
import numpy as np
import pytest
import spec_reader
import whole_files
from PIL import Image
from test_bitstream import as_spec

from gvcc import codec, errors
from gvcc.format import bitstream, parser, schedules

ROOT = Path(__file__).parent / "vectors"
# What gvcc must say of those that could also be refused for something else.
REASONS = {
    "rank": "subset rank", "too-large-set": "65 atoms", "negative-count": "-1 atoms",
    "absurd-count": "1048577 atoms", "outside-range": "range coder", "half-word": "words",
    "too-many-atoms": "more symbols", "too-many-counted": "more symbols", "swapped": "checksum",
    "absurd-atoms": "do not fit", "matched-atoms": "do not fit", "gop-length": "modulo",
    "kind": "kind 0x42", "no-audio": "kind 0x47", "long-varint": "shortest", "zero-rate": "0/1",
    "huge-varint": "64 bits", "unreduced-rate": "5/5", "wrong-path": "path", "rule-path": "path",
    "gaussian-seed": "seed", "large-codebook": "codebook size", "codebook-size": "codebook size",
    "trailing": "after the last record", "header-leftover": "too many in the header",
    "audio-packets": "audio packet", "short-body": "check", "stop": "coded steps",
    "prior-name": "not a name", "tail": "ODE steps", "zero-frames": "frames", "too-small": "width",
    "unknown-layout": "layout 0x40", "layout": "announced where there is none",
    "reserved-flag": "inside schedule", "coder": "codebook size",
    "no-frames": "GOP of 0 frames", "long-gop": "GOP of 6 frames",
    "first-chained": "before it", "no-shared-still": "shares a still", "no-overlap": "overlap",
    "only-repeats": "GOP of 1 frames", "fade-from-still": "cross-fade",
    "fade-too-short": "GOP of 2", "fade-after-short": "cross-fade", "start-code": "start code",
    "fade-first": "starts at frame -2", "head-leftover": "too many in a GOP's head",
    "last-alone": "last still", "last-of-one": "last still", "wide-overlap": "overlap",
    "short-residual": "within its head", "torn-residual": "words", "cut-residual": "more symbols",
    "residual-range": "range coder", "still-codec": "still codec 200", "still-length": "a still",
    "schedule-zero": "without a number", "schedule-unknown": "schedule number 127",
    "schedule-steps": "expected the schedule's", "schedule-tail": "expected the schedule's",
    "schedule-shift": "with a shift", "schedule-stop": "coded steps", "part-beyond": "coded steps",
    "part-zero": "announced where there is none", "part-alone": "announced where there is none",
    "blend-and-pin": "both blended and pinned", "pin-alone": "from no frames",
    "pin-stride": "overlap is 2", "pin-after-short": "from 5 frames of one of 3",
    "pin-only-repeats": "GOP of 5 frames", "blend-condition": "condition",
    "blend-still": "condition", "rcc-rule": "step rule ou", "rcc-allocation": "uniform",
    "rcc-size": "codebook size 100", "rcc-small": "codebook size 8", "rcc-atoms": "do not fit",
    "rcc-large": "codebook size 131072", "no-chunks": " 0 chunks", "many-chunks": " 271 chunks",
    "absurd-chunks": " 2147483647 chunks", "empty-chunks": " 200 chunks",
    "chunks-beyond": "announced than", "cut-chunks": "announced than",
    "version-4-without": "inside extras", "no-extras": "nothing new",
    "square-pixels": "nothing new", "unreduced-aspect": "16/14", "narrow-pixels": "pixel aspect",
    "second-step": " 0 chunks", "tail-atoms": "do not fit",
    "base-codec": "base codec number 2", "base-size": "size number 3", "base-use": "use 0x1",
    "base-empty": "an empty base", "base-unannounced": "layout 0x40", "base-symbols": "trajectory",
    "base-and-fade": "layout 0x50", "base-fewer": "pictures, not 17", "base-cut": "base",
    "base-other-size": "not yuv420p10le of", "base-other-codec": "base", "base-vvc-cut": "base",
    "base-start-code": "base", "base-delimiter": "type 2", "base-many": "base",
    "base-use-bit": "use 0x40", "base-restored": "no restorer",
    "texture-words": "32-bit words", "texture-short": "announced than",
    "over-restored": "goes on from it", "base-vvc-number": "use 0x6",
    "base-difference": "without one", "over-start": "at its end",
    "over-errors": "fit the prior", "over-part": "there is none",
    "variances-few": "too few", "head-checksum": "head", "body-checksum": "checksum of GOP 1",
}  # fmt: skip
# What the second reader does not see, which knows no prior and decodes no picture.
UNSEEN = ("wrong-path", "cut-still", "start-code", "base-fewer", "base-other-size", "base-many",
          "base-other-codec", "base-cut", "base-vvc-cut", "base-start-code",
          "base-delimiter")  # fmt: skip
KINDS = {"valid": {".gvcc", ".json", ".png"}, "faulty": {".gvcc"}}


def listed(group: str, root: Path = ROOT) -> dict[str, str]:
    """Vector name -> the last column of the group's table in README.md."""
    section = (root / "README.md").read_text().partition(f"\n## {group}\n")[2].split("\n## ")[0]
    rows = [[cell.strip("` ") for cell in line.split("|")[1:-1]] for line in section.splitlines()]
    return {r[0].removesuffix(".gvcc"): r[-1] for r in rows if r and r[0].endswith(".gvcc")}


def check_group(group: str, root: Path = ROOT) -> None:
    """AssertionError unless the group is there, not empty, and as listed."""
    wanted = {name + kind for name in listed(group, root) for kind in KINDS[group]}
    assert wanted, f"no {group} vector is listed"
    found = {p.name for p in (root / group).iterdir()} if (root / group).is_dir() else set()
    assert found == wanted, f"{group}: missing {wanted - found}, not listed {found - wanted}"


def check_pictures(frames: np.ndarray, expected: np.ndarray, rms: float, peak: int) -> None:
    """AssertionError if the pictures differ by more than the vector's tolerance."""
    assert frames.shape == expected.shape
    off = frames.astype(float) - expected
    assert np.sqrt((off**2).mean()) <= rms and np.abs(off).max() <= peak


@cache
def prior(name: str) -> Any:
    return make_vectors.LOADERS[name]()


def valid(name: str) -> tuple[bytes, dict[str, Any]]:
    path = ROOT / "valid" / f"{name}.gvcc"
    return path.read_bytes(), json.loads(path.with_suffix(".json").read_text())


@pytest.mark.parametrize("group", KINDS)
def test_groups_are_as_listed(group: str) -> None:
    check_group(group)
    assert set(listed(group)) == set(
        make_vectors.VALID if group == "valid" else make_vectors.faulty()
    )


@pytest.mark.parametrize("group", KINDS)
def test_a_missing_vector_fails(group: str, tmp_path: Path) -> None:
    shutil.copytree(ROOT, tmp_path / "v")
    next((tmp_path / "v" / group).iterdir()).unlink()
    with pytest.raises(AssertionError):
        check_group(group, tmp_path / "v")
    shutil.rmtree(tmp_path / "v" / group)
    with pytest.raises(AssertionError):
        check_group(group, tmp_path / "v")
    (tmp_path / "v" / "README.md").write_text("# Vectors\n\n## valid\n\n## faulty\n")
    with pytest.raises(AssertionError):
        check_group(group, tmp_path / "v")


@pytest.mark.parametrize("name", listed("valid"))
def test_valid_bytes_and_symbols(name: str) -> None:
    data, expected = valid(name)
    made = prior(expected["prior"])
    found = make_vectors.expectation(data, made)
    assert json.loads(json.dumps(found)) == {key: expected[key] for key in found}
    assert whole_files.write(parser.parse(data)) == data


@pytest.mark.parametrize("name", listed("valid"))
def test_valid_as_the_spec_reader_sees_it(name: str) -> None:
    data, expected = valid(name)
    spec = prior(expected["prior"]).spec
    seen = spec_reader.read(data, spec.channels, spec.stride)
    for i, g in enumerate(seen["gops"]):
        atoms, levels = g.pop("coded", []), g.pop("levels", None)
        assert g.pop("texture", None) == expected["gops"][i].get("texture")
        if levels is not None:
            levels = [levels[0], np.array(levels[1]).ravel().tolist()]
        found = None if levels is None else make_vectors.digest(levels)
        assert found == expected["gops"][i]["residual"]
        assert make_vectors.digest(atoms) == expected["gops"][i]["sha256"]
        assert [make_vectors.sizes(step) for step in atoms] == expected["gops"][i]["counts"]
    assert seen == as_spec(data)


@pytest.mark.parametrize("name", listed("valid"))
def test_valid_pictures(name: str) -> None:
    data, expected = valid(name)
    drifts: list[float] = []

    def note(event: codec.Event) -> None:
        if event.drift is not None:
            drifts.append(event.drift)

    video = codec.decode(data, prior(expected["prior"]), progress=note)
    image = np.asarray(Image.open(ROOT / "valid" / f"{name}.png"))
    pictures = image.reshape(-1, video.frames.shape[1], *image.shape[1:])
    check_pictures(video.frames, pictures, expected["rms"], expected["peak"])
    sampled = [g for g in expected["gops"] if "over" in g.get("base", ("over",))]
    assert len(drifts) == len(sampled) and max(drifts, default=0) < 0.25
    header = parser.read_header(data)[0]
    assert (len(video.frames), video.fps) == (header.frames, header.fps)
    assert video.colour == header.colour
    assert make_vectors.plain(video.audio) == expected["audio"]


def test_the_picture_checker_fails() -> None:
    flat = np.full((1, 16, 16, 3), 100, np.uint8)
    check_pictures(flat, flat, 0.5, 4)
    spot = flat.copy()
    spot[0, 3, 3, 0] += 5
    for wrong in (flat + 1, spot, flat[:, :15]):
        with pytest.raises(AssertionError):
            check_pictures(wrong, flat, 0.5, 4)


def test_the_document_has_the_schedules() -> None:
    whole, title, section = make_vectors.FORMAT.read_text().partition("\n## 14. Schedules\n")
    section = section.partition("\n## 15. ")[0]
    assert title and section.endswith("\n" + make_vectors.schedule_section())
    assert section.count("Schedule ") == len(schedules.SCHEDULES) == len(spec_reader.LENGTHS)


def test_every_kind_of_stream_has_a_vector() -> None:
    streams = [parser.parse(valid(name)[0]) for name in listed("valid")]
    kinds = {(s.header.coder, s.header.schedule > 0, s.header.alignment) for s in streams}
    assert kinds >= {("rcc", True, "pin"), ("rcc", True, "blend"), ("rcc", True, "fade"),
                     ("hadamard", True, "fade"), ("hadamard", True, "blend")}  # fmt: skip
    parts = {(s.header.coder, r.fraction > 0) for s in streams if s.header.schedule for r in s.gops}
    assert parts == {(coder, part) for coder in ("rcc", "hadamard") for part in (False, True)}


def test_another_atom_changes_the_digest() -> None:
    data, expected = valid("default")
    stream = parser.parse(data)
    symbols = bytearray(stream.gops[0].symbols)
    symbols[-6] ^= 1
    other = dataclasses.replace(stream.gops[0], symbols=bytes(symbols))
    changed = whole_files.write(bitstream.Stream(stream.header, (other,)))
    found = make_vectors.expectation(changed, prior("tiny"))
    assert found["gops"][0]["sha256"] != expected["gops"][0]["sha256"]


@pytest.mark.parametrize("name", listed("faulty"))
def test_faulty(name: str) -> None:
    data = (ROOT / "faulty" / f"{name}.gvcc").read_bytes()
    kind, _, whole = listed("faulty")[name].partition(", ")
    with pytest.raises(getattr(errors, kind)) as caught:
        known = prior("nano" if name.startswith("texture-") else "tiny")
        codec.decode(data, None if name == "unknown-prior" else known)
    assert caught.type.__name__ == kind and REASONS.get(name, "") in str(caught.value)
    if isinstance(caught.value, errors.Truncated):
        assert whole == f"{caught.value.whole_gops} GOPs whole"
    spec = prior("tiny").spec
    if kind == "PriorMismatch" or name in UNSEEN:
        spec_reader.read(data, spec.channels, spec.stride)
    else:
        with pytest.raises(spec_reader.Bad) as bad:
            spec_reader.read(data, spec.channels, spec.stride)
        assert bad.value.args[0] == kind


def test_every_reason_belongs_to_a_vector() -> None:
    assert set(REASONS) <= set(listed("faulty"))


def test_faulty_files_are_what_their_maker_makes() -> None:
    for name, (_, error, data) in make_vectors.faulty().items():
        assert (ROOT / "faulty" / f"{name}.gvcc").read_bytes() == data
        assert listed("faulty")[name] == error


@pytest.mark.parametrize("name", sorted(make_vectors.VALID))
def test_repair_leaves_valid_files_alone(name: str) -> None:
    data, _ = valid(name)
    assert faulty_vectors.repair(data) == data
    broken = data[:-1] + bytes([data[-1] ^ 1])
    assert faulty_vectors.repair(broken) == data
