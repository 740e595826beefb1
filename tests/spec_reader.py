"""A second reader of gvcc files, written from docs/format.md alone: nothing of gvcc is imported.
Sections are those of the document. Everything but pictures is read."""

import itertools
import math
import zlib


class Bad(Exception):
    """The file breaks a rule: the name that section 9 gives the error, and which rule."""


def need(condition, why, error="Corrupt"):
    if not condition:
        raise Bad(error, why)


def zigzag(value):
    return value // 2 if value % 2 == 0 else -(value + 1) // 2


class Bytes:
    def __init__(self, data, error="Corrupt"):
        self.data, self.at, self.error = data, 0, error

    def take(self, n):  # section 1
        need(n <= len(self.data) - self.at, "ends too soon", self.error)
        self.at += n
        return self.data[self.at - n : self.at]

    def number(self, n=1, signed=False):
        return int.from_bytes(self.take(n), "little", signed=signed)

    def varint(self):
        value = 0
        for i in itertools.count():
            b = self.number()
            value += (b & 127) << 7 * i
            need(value < 1 << 64 and i < 10, "varint too large")
            if b < 128:
                need(b or not i, "varint not in its shortest form")
                return value

    def blob(self):
        return self.take(self.varint())

    def name(self):
        raw = self.blob()
        need(len(raw) <= 64 and all(33 <= c <= 126 for c in raw), "not a name")
        return raw.decode()

    def fraction(self):
        n, d = self.varint(), self.varint()
        need(n and math.gcd(n, d) == 1 and d, "not a fraction in lowest terms")
        return n, d

    def header(self):  # section 2.1
        need(self.data and b"\x8bGVC".startswith(self.data[:4]), "magic")
        need(self.take(5)[4] == 1, "version", "Unsupported")
        body, crc = Bytes(self.blob()), zlib.crc32(self.data[: self.at])
        need(self.number(4) == crc, "the header's checksum")
        return body.fields() | {"crc": crc}

    def fields(self):  # sections 2.2 and 8
        h = {"flags": self.number()}
        need(h["flags"] < 8, "reserved flag", "Unsupported")
        for field, known in (
            ("path", ("rf", "vp")), ("mode", ("t2v",)), ("rule", ("em", "ou", "posterior")),
            ("coder", ("gaussian", "hadamard")), ("allocation", ("uniform", "matched")),
        ):  # fmt: skip
            h[field] = dict(enumerate(known)).get(self.number())
            need(h[field], field, "Unsupported")
        h |= {field: self.number() for field in ("steps", "tail", "knob")}
        h |= {field: self.number(2) for field in ("shift", "g_scale")}
        h |= {"colour": list(self.take(3)), "digest": self.take(8).hex(), "prior": self.name()}
        h |= {field: self.varint() for field in ("width", "height", "frames")}
        n, d = h["fps"] = self.fraction()
        h |= {field: self.varint() for field in ("gop", "size", "seed")}
        need(self.at == len(self.data), "bytes left over in the header")
        seed, k = (2**31 - 1, (1, 2**16)) if h["coder"] == "gaussian" else (2**64 - 1, (0, 0))
        for field, low, high in (
            ("width", 16, 65535), ("height", 16, 65535), ("frames", 1, 2**32 - 1),
            ("gop", 1, 1024), ("steps", 2, 255), ("tail", 1, h["steps"]), ("shift", 1, 65280),
            ("g_scale", 0, 65280), ("knob", 64, 128), ("seed", 0, seed), ("size", *k),
        ):  # fmt: skip
            need(low <= h[field] <= high, field)
        need(d <= n << 16 and n <= d << 16, "frame rate")
        need(h["path"] == "rf" or h["rule"] == "posterior", "rule and path")
        pixels, gop = h["width"] * h["height"], min(h["gop"], h["frames"])
        need(max(h["width"], h["height"]) <= 16384, "side", "TooLarge")
        need(pixels * gop <= 2**29 and pixels * h["frames"] <= 2**32, "frames", "TooLarge")
        return h

    def record(self, kind, index, header_crc):  # section 2.3
        start = self.at
        found, payload = self.number(), self.blob()
        bound = header_crc.to_bytes(4, "little") + index.to_bytes(4, "little")
        crc = zlib.crc32(bound + self.data[start : self.at])
        need(self.number(4) == crc, f"checksum of record {index}")
        need(found == kind, "kind of record")
        return Bytes(payload)

    def gop(self, h):  # section 3.1
        g = {"stop": self.number(), "check": [self.number(1, signed=True) for _ in range(4)]}
        g |= {"atoms": self.varint(), "symbols": self.data[self.at :]}
        need(g["stop"] <= h["steps"] - h["tail"], "stop")
        need(g["atoms"] <= 8 * len(self.data) * (h["allocation"] == "uniform"), "atoms")
        need(len(g["symbols"]) % 4 == 0, "symbols are not whole words")
        return g

    def audio(self):  # section 11
        a = {"codec": self.name(), "layout": self.name(), "rate": self.varint()}
        a |= {"time_base": self.fraction(), "extradata": self.blob(), "packets": []}
        count, end = self.varint(), 0
        for _ in range(count):
            a["packets"].append((end + zigzag(self.varint()), self.varint(), self.blob()))
            end = sum(a["packets"][-1][:2])
        need(self.at == len(self.data), "bytes left over in the audio record")
        return a


class Symbols:
    def __init__(self, data):  # section 4.1
        words = [int.from_bytes(data[i : i + 4], "little") for i in range(0, len(data), 4)]
        self.words, self.allowed = itertools.chain(words, itertools.repeat(0)), 8 * len(data)
        self.range, self.e = 2**64 - 1, next(self.words) << 32 | next(self.words)

    def number(self, k):
        self.allowed -= k
        need(self.allowed >= 0, "more symbols than the record holds")
        s = self.range >> 24
        need(self.e // s < 1 << 24, "range decoder")
        v = self.e // s >> 24 - k
        self.e, self.range = self.e - s * (v << 24 - k), s << 24 - k
        if self.range < 1 << 32:
            self.e, self.range = self.e << 32 | next(self.words), self.range << 32
        return v

    def bits(self, n):  # section 4.2
        value = sum(self.number(16) << 16 * i for i in range(n // 16))
        return value + (self.number(n % 16) << n // 16 * 16 if n % 16 else 0)

    def rice(self, k):  # section 4.3
        q = next(q for q in itertools.count() if q == 24 or not self.number(1))
        return self.bits(32) if q == 24 else (q << k) + self.bits(k)

    def counts(self, steps, frames):  # section 4.4
        m = []
        for f in range(frames):
            g, k = (m[-1], 0) if m else (0, 3)
            if steps:
                a, b = map(sum, (m, steps[-1][:f]) if f else (steps[-1], steps[-2:][0]))
                g = min(2**20, (steps[-1][f] * (2 * a + 1) + b) // (2 * b + 1))
                k = max(0, g.bit_length() - (5 if f else 4))
            m.append(g + zigzag(self.rice(k)))
            need(0 <= m[-1] <= 2**20, "count")
        return m

    def hadamard(self, m, dim):  # section 4.5
        n = 1 + max(1, (dim - 1).bit_length())
        high = [self.number(n - 16) << 16 for _ in range(m)] if n > 24 else [0] * m
        return [divmod(v + self.number(16 if n > 24 else n), 2) for v in high]

    def gaussian(self, m, size):  # section 4.6
        need(m <= min(size, 4096), "too many atoms of a set")
        rank, c, index = self.bits((math.comb(size, m) - 1).bit_length()), size, []
        need(rank < math.comb(size, m), "rank")
        for i in range(m, 0, -1):
            c = next(c for c in range(c - 1, -1, -1) if math.comb(c, i) <= rank)
            rank -= math.comb(c, i)
            index.insert(0, c)
        return [(c, self.number(1)) for c in index]


def atoms(h, g, frames, dim):  # section 3.2: [step][frame] -> list of (index, minus)
    coder, steps, out, n = Symbols(g["symbols"]), [], [], g["stop"] * frames
    read = coder.gaussian if h["coder"] == "gaussian" else coder.hadamard
    for j in range(g["stop"]):
        dealt = [(g["atoms"] + n - 1 - j * frames - f) // n for f in range(frames)]
        steps.append(coder.counts(steps, frames) if h["allocation"] == "matched" else dealt)
        out.append([read(m, h["size"] or dim) for m in steps[j]])
    return out


def read(data, channels=None, strides=(4, 8, 8)):  # sections 2 and 3
    file, gops = Bytes(data, "Truncated"), []
    h = file.header()
    number = -(-h["frames"] // h["gop"])
    for i in range(number):
        gops.append(file.record(0x47, i, h["crc"]).gop(h))
        if channels:
            need((h["gop"] - 1) % strides[0] == 0, "GOP length")
            frames = 1 - (1 - min(h["gop"], h["frames"] - i * h["gop"])) // strides[0]
            dim = channels * -(-h["height"] // strides[1]) * -(-h["width"] // strides[2])
            gops[i]["coded"] = atoms(h, gops[i], frames, dim)
    audio = file.record(0x41, number, h["crc"]).audio() if h["flags"] & 2 else None
    need(file.at == len(data), "bytes after the last record")
    return {"header": h, "gops": gops, "audio": audio}
