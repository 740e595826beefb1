"""A second reader of gvcc files, written from docs/format.md alone: nothing of gvcc is imported.
Sections are those of the document. Everything but pictures is read; spec_symbols.py reads what the
range coder wrote."""

import math
import re
import zlib
from pathlib import Path

from spec_bytes import Bytes
from spec_symbols import (
    Bad,
    Symbols,
    atoms,
    chunks,
    need,
    plain_residual,
    residual,
    texture,
    zigzag,
)

__all__ = ["Bad", "Symbols", "read"]
TEXT = (Path(__file__).parents[1] / "docs" / "format.md").read_text()
LENGTHS = [int(n) for n in re.findall(r"Schedule \d+, (\d+) steps:", TEXT)]  # section 14


class Part(Bytes):
    def header(self):  # section 2.1
        need(self.data and b"\x8bGVC".startswith(self.data[:4]), "magic")
        version = self.take(5)[4]
        need(version in (2, 3, 4), "version", "Unsupported")
        body, crc = Part(self.blob()), zlib.crc32(self.data[: self.at])
        need(self.number(4) == crc, "the header's checksum")
        return body.fields(version) | {"crc": crc}

    def settings(self):  # sections 2.4 and 8
        count, found = self.varint(), []
        need(count <= 32, "number of settings", "TooLarge")
        for _ in range(count):
            name, raw = self.name(), self.blob()
            try:
                found.append((name, raw.decode()))
            except UnicodeDecodeError:
                raise Bad("Corrupt", "a setting is no text") from None
        return tuple(found)

    def fields(self, version):  # sections 2.2 and 8
        h = {"flags": self.number()}
        need(h["flags"] < 64, "reserved flag", "Unsupported")
        for field, known in (
            ("path", ("rf", "vp")), ("rule", ("em", "ou", "posterior")),
            ("coder", ("gaussian", "hadamard", "rcc", "gaussian-counter")),
            ("allocation", ("uniform", "matched")),
        ):  # fmt: skip
            h[field] = dict(enumerate(known)).get(self.number())
            need(h[field], field, "Unsupported")
        h |= {field: self.number() for field in ("steps", "tail", "knob")}
        h |= {field: self.number(2) for field in ("shift", "g_scale")}
        h |= {"colour": list(self.take(3)), "digest": self.take(8).hex(), "prior": self.name()}
        h |= {field: self.varint() for field in ("width", "height", "frames")}
        n, d = h["fps"] = self.fraction()
        h |= {field: self.varint() for field in ("gop", "overlap", "size", "seed")}
        h["table"] = self.varint() if h["flags"] & 8 else None
        need(h["table"] != 0, "a schedule numbered 0")
        h["reuse"], h["settings"] = (self.varint(), self.settings()) if version > 2 else (1, ())
        need(version != 3 or h["reuse"] != 1 or h["settings"], "version 3 for nothing")
        extras = self.varint() if version > 3 else 0
        need(extras < 64, "extras", "Unsupported")
        a, b = h["pixel_aspect"] = self.fraction() if extras & 1 else (1, 1)
        need(version < 4 or (a != b if extras & 1 else extras), "version 4 for nothing")
        h["bases"], h["plain_residual"] = extras & 2 > 0, extras & 16 > 0
        h["outside"] = extras & 32 > 0
        need(not h["outside"] or not h["overlap"] and not h["bases"], "pictures outside of GOPs")
        h["variances"] = list(self.blob()) if extras & 4 else []
        need(not extras & 4 or h["bases"] and 9 < len(h["variances"]) <= 1024, "variances")
        h["restorer"] = [self.name(), self.take(8).hex()] if extras & 8 else None
        need(not extras & 8 or h["bases"] and h["restorer"][0], "a restorer")
        need(h["flags"] < (48 if h["overlap"] else 32), "pin")
        h["alignment"] = ("fade", "blend", "pin")[h["flags"] >> 4]
        need(self.at == len(self.data), "bytes left over in the header")
        k = {"hadamard": (0, 0), "rcc": (16, 2**16)}.get(h["coder"], (1, 2**16))
        seed = 2**31 - 1 if h["coder"] == "gaussian" else 2**64 - 1
        for field, low, high in (
            ("width", 16, 65535), ("height", 16, 65535), ("frames", 1, 2**32 - 1),
            ("gop", 1, 1024), ("overlap", 0, h["gop"] // 2), ("steps", 2, 255),
            ("tail", 1, h["steps"]), ("shift", 1, 65280), ("g_scale", 0, 65280),
            ("knob", 64, 128), ("seed", 0, seed), ("size", *k), ("reuse", 1, 255),
        ):  # fmt: skip
            need(low <= h[field] <= high, field)
        need(d <= n << 16 and n <= d << 16, "frame rate")
        need(b <= a << 8 and a <= b << 8, "pixel aspect")
        need(h["path"] == "rf" or h["rule"] == "posterior", "rule and path")
        if h["coder"] == "rcc":
            need((h["rule"], h["allocation"]) == ("posterior", "matched"), "rule of rcc")
            need(h["size"].bit_count() == 1, "candidates")
        if h["table"]:
            need(h["table"] <= len(LENGTHS), "schedule", "Unsupported")
            right = h["steps"] - h["tail"] == LENGTHS[h["table"] - 1] and h["shift"] == 256
            need(right and h["reuse"] == 1, "steps, shift or reuse of a schedule")
        names = [n for n, _ in h["settings"]]
        need(names == sorted(set(names)) and "" not in names, "order or names of settings")
        need(all(len(t.encode()) <= 4096 for _, t in h["settings"]), "a setting", "TooLarge")
        pixels, gop = h["width"] * h["height"], min(h["gop"], h["frames"])
        need(max(h["width"], h["height"]) <= 16384, "side", "TooLarge")
        need(h["bases"] or pixels * gop <= 2**29, "a GOP's pixels", "TooLarge")
        return h

    def record(self, kind, index, header_crc):  # section 2.3: head, body, whether it checks
        start = self.at
        found, head = self.number(), self.blob()
        bound = header_crc.to_bytes(4, "little") + index.to_bytes(4, "little")
        crc = zlib.crc32(bound + self.data[start : self.at])
        need(self.number(4) == crc, f"checksum of record {index}'s head")
        need(found == kind, "kind of record")
        head = Part(head)
        body = Part(self.take(head.varint()))
        crc = zlib.crc32(crc.to_bytes(4, "little") + body.data)
        return head, body, self.number(4) == crc

    def place(self, h, before):  # section 3.1
        layout, g = self.number(), {"frames": self.varint()}
        need(self.at == len(self.data), "bytes left over in a GOP's head")
        need(layout < (128 if h["bases"] else 64), "layout", "Unsupported")
        need(layout < 64 or layout & ~32 == 64, "a base and more")
        g |= {
            "base": layout & 64 > 0,
            "first": ("none", "still", "previous", "shared")[layout & 3],
            "last": layout & 4 > 0,
        }
        need(not layout & 8 or h["overlap"], "a cross-fade without overlap")
        g["fade"] = h["overlap"] if layout & 8 else 0
        need(not h["outside"] or layout & 7 in (1, 2), "a picture outside")
        g["outside"] = h["outside"]
        g["context"] = h["overlap"] if h["flags"] & 32 and g["first"] == "previous" else 1
        skip = 0 if h["outside"] else g["context"] * (layout & 3 > 1)
        end = before["start"] + before["frames"] if before else 0
        g["start"] = end - skip - g["fade"]
        need(skip + g["fade"] < g["frames"] <= h["gop"], "frames of a GOP")
        need(g["start"] + g["frames"] <= h["frames"], "frames of the clip")
        need(before or g["start"] == 0 and layout & 3 < 2, "the first GOP")
        need(g["first"] != "shared" or before["last"], "a still that is not there")
        need(g["first"] != "previous" or before["frames"] >= skip, "pictures that are not there")
        need(h["alignment"] != "blend" or g["first"] == "none", "a condition and blend")
        need(not g["last"] or g["first"] != "none" and g["frames"] > 1, "a last still")
        fits = g["first"] == "none" and before and before["frames"] >= h["overlap"]
        need(not g["fade"] or fits, "a cross-fade")
        return g, layout & 16 > 0, layout & 32 > 0

    def gop(self, h, place, more, parted):  # section 3.2
        g = {"gop": place, "stop": self.number(), "part": self.number() if parted else 0}
        need(not parted or g["part"] and h["table"], "a part of no step")
        g["check"] = [self.number(1, signed=True) for _ in range(4)]
        g |= {"atoms": self.varint(), "tail_atoms": self.varint()}
        number = (place["first"] == "still") + place["last"]
        g["stills"] = tuple(self.blob() for _ in range(number))
        g["residual"] = self.blob() if more else b""
        g["base"] = Part(self.blob()).base(h) if place["base"] else None
        g["symbols"] = self.data[self.at :]
        need(not more or g["residual"], "an empty residual")
        need(g["stop"] + parted <= h["steps"] - h["tail"], "stop")
        most = 8 * len(self.data) * (h["allocation"] == "uniform")
        need(g["atoms"] + g["tail_atoms"] <= most, "atoms")
        need(len(g["symbols"]) % 4 == 0, "symbols are not whole words")
        taken = g["stop"] or g["atoms"] or g["tail_atoms"] or g["symbols"] or any(g["check"])
        need(not g["base"] or g["base"]["over"] or not taken, "a trajectory that is none")
        return g

    def base(self, h):  # section 16
        names = ("codec", "size", "quantiser", "use")
        b = dict(zip(names, map(int, self.take(4)), strict=True))
        need(b["codec"] < 2, "a base's codec", "Unsupported")
        need(b["size"] < 3, "a base's size")
        use = b.pop("use")
        number = use & 3 if use & 4 else None
        need(use < 64 and (number is not None or not use & 3), "a base's use", "Unsupported")
        need((number or 0) < (4, 2)[b["codec"]], "a base's sets", "Unsupported")
        need(use & 8 or not use & 16, "a difference to nothing")
        b["over"] = None
        if use & 8:
            start = self.number(2)
            errors = list(self.take(self.number()))
            need(start, "the start of a trajectory")
            b["over"] = {"start": start, "errors": errors, "difference": use & 16 > 0}
        need(not use & 32 or h["restorer"] and not use & 8, "a base that is restored")
        b["restored"] = use & 32 > 0
        b["texture"] = self.blob() if use & 32 else b""
        need(len(b["texture"]) % 4 == 0, "words of a texture")
        need(self.at < len(self.data), "an empty base")
        return b | {"sets": number, "stream": self.data[self.at :]}

    def audio(self):  # section 11
        a = {"codec": self.name(), "layout": self.name(), "rate": self.varint()}
        a |= {"time_base": self.fraction(), "extradata": self.blob(), "packets": []}
        count, end = self.varint(), 0
        for _ in range(count):
            a["packets"].append((end + zigzag(self.varint()), self.varint(), self.blob()))
            end = sum(a["packets"][-1][:2])
        need(self.at == len(self.data), "bytes left over in the audio record")
        return a


def latent_frames(place, stills, shared, stride):  # section 3.3: their number, and the known ones
    groups = -(-(place["frames"] - 1 - place["last"]) // stride)
    frames = 1 + groups + place["last"]
    given = {"none": False, "still": stills[:1] > (b"",), "previous": True, "shared": shared}
    fixed = given[place["first"]] and not place["outside"]
    known = set(range((place["context"] - 1) // stride + 1) if fixed else ())
    return frames, known | {frames - 1} if place["last"] and stills[-1] else known


def read(data, channels=None, strides=(4, 8, 8)):  # sections 2 and 3
    file, gops, audio, place, end = Part(data, "Truncated"), [], None, None, 0
    h = file.header()
    lengths = [h["gop"], h["overlap"] if h["flags"] & 32 else 1]
    lengths = [] if h["bases"] else lengths
    need(not channels or all(n % strides[0] == 1 % strides[0] for n in lengths), "GOP or overlap")
    sound = h["flags"] >> 1 & 1
    if sound:
        head, body, whole = file.record(0x41, 0, h["crc"])
        need(head.at == len(head.data) and whole, "the audio record")
        audio = body.audio()
    size = [-(-h[side] // q) for side, q in zip(("height", "width"), strides[1:], strict=True)]
    shared = False  # whether the last still of the GOP before is given
    while end < h["frames"]:
        head, body, whole = file.record(0x47, len(gops) + sound, h["crc"])
        place, more, parted = head.place(h, place)
        end = place["start"] + place["frames"]
        need(whole, "checksum of a GOP's body")
        g = body.gop(h, place, more, parted)
        gops.append(g)
        over = g["base"] and g["base"]["over"]
        need(not channels or not over or len(over["errors"]) == channels, "variances of a base")
        if g["base"] and g["base"]["restored"]:
            g["texture"] = texture(g["base"]["texture"], h, place["frames"])
        if channels and not (g["base"] and not g["base"]["over"]):
            need(all(s[0] < 3 for s in g["stills"] if s), "a still's codec", "Unsupported")
            frames, known = latent_frames(place, g["stills"], shared, strides[0])
            shared = place["last"] and frames - 1 in known
            coded = chunks if h["coder"] == "rcc" else atoms
            g["coded"] = coded(h, g, frames, known, channels * math.prod(size))
            kind = plain_residual if h["plain_residual"] else residual
            g["levels"] = kind(g["residual"], channels, *size) if more else None
    need(file.at == len(data), "bytes after the last record")
    return {"header": h, "gops": gops, "audio": audio}
