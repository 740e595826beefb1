"""Faulty vectors of what versions 3 and 4 have: `reuse`, the prior's settings, a pixel aspect."""

from __future__ import annotations

from fractions import Fraction

from faulty_vectors import ROOT, header_end, patched, rebuilt

from gvcc.format import parser


def faulty() -> dict[str, tuple[str, str, bytes]]:
    """name: what it lies about, the error, the bytes."""
    whole = (ROOT / "valid" / "settings.gvcc").read_bytes()
    base = parser.parse(whole)
    plain = (ROOT / "valid" / "default.gvcc").read_bytes()
    stop = parser.parse((ROOT / "valid" / "rcc-stop.gvcc").read_bytes())
    text = whole.index("café".encode())
    count = whole.index(b"\x08guidance") - 1
    wide = (ROOT / "valid" / "pixel-aspect.gvcc").read_bytes()
    tall = parser.parse(wide)
    extras = header_end(wide) - 4 - 3  # and the three before the checksum: 1, 16, 15
    c, large = "Corrupt", "TooLarge"
    many = tuple((f"s{i:02}", "") for i in range(33))
    return {
        "version-3-without": ("version 3, with the fields of version 2 only", c,
                              patched(plain, 4, b"\3")),
        "version-2-with": ("version 2, with the fields of version 3", c, patched(whole, 4, b"\2")),
        "nothing-new": ("version 3 for a header that says nothing new", c,
                        patched(whole, count - 1, b"\1\0", header_end(whole) - 4 - count + 1)),
        "reuse-zero": ("the network is called at every 0th step", c, rebuilt(base, reuse=0)),
        "reuse-large": ("the network is called at every 256th step", c, rebuilt(base, reuse=256)),
        "reuse-schedule": ("a schedule and reuse", c, rebuilt(stop, reuse=2)),
        "settings-order": ("settings out of order", c,
                           rebuilt(base, settings=tuple(reversed(base.header.settings)))),
        "settings-twice": ("a setting given twice", c,
                           rebuilt(base, settings=(("prompt", "a"), ("prompt", "b")))),
        "setting-name": ("a setting without a name", c, rebuilt(base, settings=(("", "a"),))),
        "setting-text": ("a setting that is no UTF-8", c, patched(whole, text + 3, b"\xff\xff")),
        "setting-length": ("a setting of 4097 bytes", large,
                           rebuilt(base, settings=(("prompt", "x" * 4097),))),
        "setting-cut": ("a setting longer than the header", c,
                        patched(whole, text - 3, b"\x7f")),
        "version-4-without": ("version 4, with the fields of version 3 only", c,
                              patched(whole, 4, b"\4")),
        "no-extras": ("version 4 for a header that says nothing new", c,
                      patched(wide, extras, b"\0", 3)),
        "square-pixels": ("version 4 for square pixels", c, patched(wide, extras + 1, b"\1\1")),
        "reserved-extras": ("reserved bit of the extras", "Unsupported",
                            patched(wide, extras, b"\x41")),
        "unreduced-aspect": ("pixels of 16:14", c, patched(wide, extras + 2, b"\x0e")),
        "narrow-pixels": ("pixels of 1:257", c, rebuilt(tall, pixel_aspect=Fraction(1, 257))),
        "many-settings": ("33 settings", large, rebuilt(base, settings=many)),
    }  # fmt: skip
