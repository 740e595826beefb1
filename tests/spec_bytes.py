"""Numbers, blobs and names of the second reader, from section 1 of docs/format.md."""

import itertools
import math

from spec_symbols import need


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
