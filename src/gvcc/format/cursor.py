"""Fields out of bytes, and the two of changing length into bytes, as docs/format.md section 1 has
them."""

from __future__ import annotations

from gvcc.errors import Corrupt, FormatError, Truncated, Unsupported


def varint(value: int) -> bytes:
    """Unsigned LEB128, shortest form."""
    out = bytearray()
    while value > 0x7F:
        out.append(value & 0x7F | 0x80)
        value >>= 7
    out.append(value)
    return bytes(out)


def blob(data: bytes) -> bytes:
    """Bytes after their length."""
    return varint(len(data)) + data


class Cursor:
    """A read position; running past the end raises `Truncated`, or `error` where it is given."""

    def __init__(self, data: bytes, error: type[FormatError] = Truncated) -> None:
        self.data, self.at, self.error = memoryview(data), 0, error

    def take(self, count: int, what: str) -> bytes:
        """So many bytes."""
        if count > len(self.data) - self.at:
            raise self.error(f"the data end inside {what}")
        self.at += count
        return bytes(self.data[self.at - count : self.at])

    def rest(self) -> bytes:
        """All that is left."""
        return self.take(len(self.data) - self.at, "")

    def byte(self, what: str) -> int:
        """A number of one byte."""
        return self.take(1, what)[0]

    def varint(self, what: str) -> int:
        """A varint."""
        value = 0
        for shift in range(0, 70, 7):
            b = self.byte(what)
            value |= (b & 0x7F) << shift
            if b < 0x80:
                if b == 0 and shift:
                    raise Corrupt(f"{what}: number not in its shortest form")
                if value >= 2**64:
                    break
                return value
        raise Corrupt(f"{what}: number exceeds 64 bits")

    def blob(self, what: str) -> bytes:
        """A blob's bytes."""
        return self.take(self.varint(what), what)

    def text(self, what: str) -> str:
        """A name."""
        raw = self.blob(what)
        if not is_name(raw):
            raise Corrupt(f"{what} is not a name")
        return raw.decode("ascii")

    def name(self, table: tuple[str, ...], what: str) -> str:
        """One of a table, by its number."""
        i = self.byte(what)
        if i >= len(table):
            raise Unsupported(f"{what} number {i} is not known to this version")
        return table[i]

    def done(self, what: str) -> None:
        """Corrupt unless nothing is left."""
        if self.at != len(self.data):
            raise Corrupt(f"{len(self.data) - self.at} bytes too many in {what}")


def is_name(raw: bytes) -> bool:
    """Whether the bytes may be a name in a stream."""
    return len(raw) <= 64 and all(33 <= c < 127 for c in raw)
