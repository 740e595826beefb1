"""Headers of video streams as strings of bits, "0" and "1", first to last."""

from __future__ import annotations


def of(data: bytes) -> str:
    """The bits of some bytes."""
    return "".join(f"{b:08b}" for b in data)


def trailed(bits: str) -> bytes:
    """Bits, a one, and zeros to the next byte: the trailing bits of AV1 and of VVC."""
    bits += "1"
    bits += "0" * (-len(bits) % 8)
    return int(bits, 2).to_bytes(len(bits) // 8, "big")


def untrailed(data: bytes) -> str:
    """The inverse of `trailed`; empty where there is no one."""
    return of(data).rstrip("0")[:-1]


def ue(value: int) -> str:
    """An unsigned Exp-Golomb code, H.266 9.2."""
    code = f"{value + 1:b}"
    return "0" * (len(code) - 1) + code


def escaped(payload: bytes) -> bytes:
    """With the emulation prevention bytes of H.266 7.4.2."""
    out = bytearray()
    for byte in payload:
        if byte < 4 and out[-2:] == b"\0\0":
            out.append(3)
        out.append(byte)
    return bytes(out)


def unescaped(payload: bytes) -> bytes:
    """The inverse."""
    out, zeros = bytearray(), 0
    for byte in payload:
        if zeros >= 2 and byte == 3:
            zeros = 0
            continue
        out.append(byte)
        zeros = zeros + 1 if byte == 0 else 0
    return bytes(out)
