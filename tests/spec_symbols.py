"""The range-coded part of the second reader: atoms, chunks and residual, written from
docs/format.md."""

import itertools
import math
import struct
import zlib


class Bad(Exception):
    """The file breaks a rule: the name that section 9 gives the error, and which rule."""


def need(condition, why, error="Corrupt"):
    if not condition:
        raise Bad(error, why)


def zigzag(value):
    return value // 2 if value % 2 == 0 else -(value + 1) // 2


class Symbols:
    def __init__(self, data):  # section 4.1
        words = [int.from_bytes(data[i : i + 4], "little") for i in range(0, len(data), 4)]
        self.words, self.allowed = itertools.chain(words, itertools.repeat(0)), 8 * len(data)
        self.range, self.e = 2**64 - 1, next(self.words) << 32 | next(self.words)

    def quantile(self):  # where in [0, 2^24) the next symbol lies
        q = self.e // (self.range >> 24)
        need(q < 1 << 24, "range decoder")
        return q

    def take(self, low, size, cost):  # the symbol that has [low, low + size) of it
        self.allowed -= cost
        need(self.allowed >= 0, "more symbols than there are bytes")
        s = self.range >> 24
        self.e, self.range = self.e - s * low, s * size
        if self.range < 1 << 32:
            self.e, self.range = self.e << 32 | next(self.words), self.range << 32

    def number(self, k):
        v = self.quantile() >> 24 - k
        self.take(v << 24 - k, 1 << 24 - k, k)
        return v

    def table(self, f):  # section 4.7
        v, low, q = 0, 0, self.quantile()
        while low + f[v] <= q:
            low, v = low + f[v], v + 1
        self.take(low, f[v], 24 - f[v].bit_length())
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


def atoms(h, g, frames, known, dim):  # section 3.4: [step][frame] -> list of (index, minus)
    coder, steps, out = Symbols(g["symbols"]), [], []
    free = [f for f in range(frames) if f not in known]
    read = coder.hadamard if h["coder"] == "hadamard" else coder.gaussian
    tail = min(2, len(free)) if g["tail_atoms"] else 0
    coded = g["stop"] + (g["part"] > 0)
    for j in range(coded):
        dealt = []
        for total, width in ((g["atoms"], len(free) - tail), (g["tail_atoms"], tail)):
            n = coded * width
            dealt += [(total + n - 1 - j * width - f) // n for f in range(width)]
        matched = h["allocation"] == "matched"
        steps.append(coder.counts(steps, len(free)) if matched else dealt)
        read_now = dict(zip(free, (read(m, h["size"] or dim) for m in steps[j]), strict=True))
        out.append([read_now.get(f, []) for f in range(frames)])
    return out


def chunks(h, g, frames, known, dim):  # section 4.9: [step] -> [b, numbers]
    coder, tables, out = Symbols(g["symbols"]), {}, []
    values = (frames - len(known)) * dim
    for _ in range((g["stop"] + (g["part"] > 0)) * (values > 0)):
        n, b = coder.bits(coder.bits(5)), coder.bits(6)
        need(0 < n < 2**20 and n <= values, "number of chunks")
        need((n - 1) * -(-values // n) < values, "an empty chunk")
        top = min(h["size"].bit_length() - 1, -(-b // 4) + 2)  # log2 K'
        m = tables.get(top) or law(b, top)
        f = frequencies(m)
        need(n * (24 - max(f).bit_length()) <= coder.allowed, "more chunks than bits")
        lengths = [coder.table(f) for _ in range(n)]
        numbers = [int(e == 1) for e in lengths]
        for e in range(2, top + 1):
            for i in range(n):
                if lengths[i] == e:
                    numbers[i] = 2 ** (e - 1) + coder.number(e - 1)
        tables[top] = [c + 16 * lengths.count(e) for e, c in enumerate(m)]
        out.append([b, numbers])
    return out


def law(b, top):  # section 4.9: the initial counts of a table
    r, w, m = round(2**16 * 2 ** (-100 / (25 * b + 153))), 2**16, []
    for e in range(top + 1):
        first = 2 ** (e - 1) + 1 if e else 1
        m.append(1 + (w * sum(2**24 // i for i in range(first, 2**e + 1)) >> 32))
        w = w * r >> 16
    return m


LIMITS = [32, 48, 64, 96, 128, 176, 256, 368, 512, 720, 1024, 1456, 2048, 2896, 4096, 5792, 8192]
LIMITS += [11584, 16384, 23168, 32768, 46336]


def start(low, high):  # section 4.8: the initial counts of a table
    b, rest, m = (low + high) // 2, 1024, []
    for _ in range(15):
        share = rest * 4096 // (4096 + b)
        m, rest = [*m, 1 + share], rest - share
    return [*m, 1 + rest]


def frequencies(m):  # section 4.7
    f = [1 + c * (2**24 - len(m)) // sum(m) for c in m]
    return [f[0] + 2**24 - sum(f), *f[1:]]


def plain_residual(data, channels, h, w):  # section 4.8: largest values, and levels
    need(len(data) > 4 * channels, "a plain residual")
    most = struct.unpack(f"<{channels}f", data[: 4 * channels])
    need(all(0 < m < math.inf for m in most), "a largest value")
    unpacker = zlib.decompressobj()
    try:
        levels = unpacker.decompress(data[4 * channels :], channels * h * w + 1)
    except zlib.error:
        raise Bad("Corrupt", "zlib") from None
    need(len(levels) == channels * h * w and unpacker.eof and not unpacker.unused_data, "levels")
    rows = [list(levels[i : i + w]) for i in range(0, len(levels), w)]
    return list(most), [rows[i : i + h] for i in range(0, len(rows), h)]


def residual(data, channels, h, w):  # section 4.8: step index, and levels [channel][row][column]
    need(len(data) >= 2 and len(data) % 4 == 2, "words of a residual")
    coder = Symbols(data[2:])
    tables = [start(a, b) for a, b in zip([0, *LIMITS], [*LIMITS, 139008], strict=True)]
    planes, recent, mean = [], [[512] * w for _ in range(h)], 512
    before = [[0] * w for _ in range(h)]

    def around(p, y, x, places):
        inside = [(y + i, x + j) for i, j in places if 0 <= y + i < h and 0 <= x + j < w]
        return sum(p[i][j] for i, j in inside)

    edges, corners = ((0, 1), (1, 0), (0, -1), (-1, 0)), ((1, 1), (1, -1), (-1, 1), (-1, -1))
    for _ in range(channels):
        plane, seen = [[0] * w for _ in range(h)], []
        for k, (u, v) in enumerate(((0, 0), (1, 1), (0, 1), (1, 0))):
            f, found = [frequencies(m) for m in tables], []
            for y, x in itertools.product(range(u, h, 2), range(v, w, 2)):
                b, d = around(plane, y, x, edges), around(plane, y, x, corners)
                n = (0, 1024 * d, 1024 * b, 256 * (3 * b + d))[k]
                expected = (4 * n + recent[y][x] + 3 * mean) >> 3
                if k == 0:
                    b = around(before, y, x, edges)
                    expected = (3072 * b + 7 * recent[y][x] + 5 * mean) >> 4
                level = sum(limit <= expected for limit in LIMITS)
                found.append((y, x, level, coder.table(f[level])))
            for y, x, level, s in found:
                plane[y][x] = s
                tables[level][s] += 32
                seen.append(s)
            if found:
                tables = [[(c + 1) >> 1 for c in m] if sum(m) > 2**14 else m for m in tables]
                mean = (sum(seen) << 12) // len(seen)
        for y, x in itertools.product(range(h), range(w)):
            recent[y][x] += 512 * plane[y][x] - (recent[y][x] >> 3)
        planes.append(plane)
        before = plane
    places = list(itertools.product(range(channels), range(h), range(w)))
    out = [[row[:] for row in plane] for plane in planes]
    for c, y, x in places:
        out[c][y][x] += coder.number(12) if planes[c][y][x] == 15 else 0
    for c, y, x in places:
        out[c][y][x] *= -1 if planes[c][y][x] and coder.number(1) else 1
    return int.from_bytes(data[:2], "little"), out


def texture(data, h, n):  # section 16.6: levels [map][row][column]
    rows, columns, maps = -(-h["height"] // 32), -(-h["width"] // 32), 1 + -(-(n - 1) // 16)
    levels = [[[0] * columns for _ in range(rows)] for _ in range(maps)]
    coder = Symbols(data) if data else None
    steps = range(14)
    tables = [[[1 + 2 ** max(0, 6 - 2 * abs(v - p)) for v in steps] for p in steps] for _ in "ab"]
    for k, y, x in itertools.product(range(maps), range(rows), range(columns) if data else ()):
        near = ([levels[k][y][x - 1]] if x else []) + ([levels[k][y - 1][x]] if y else []) or [7]
        p = levels[k - 1][y][x] if k else (near[0] + near[-1] + 1) >> 1
        m = tables[k > 0][p]
        levels[k][y][x] = v = coder.table(frequencies(m))
        m[v] += 16
    return levels
