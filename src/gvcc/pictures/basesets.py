"""What a base's streams say of themselves before the first picture, and what of it a decoder can
derive from the size of the pictures: AV1's sequence header, VVC's parameter sets. It is the same
for every base of an encoder but for size, level and clock, and of these only the size matters.

A stream whose own are others, of another encoder or version, has them in itself. docs/format.md
section 16.
"""

from __future__ import annotations

from gvcc.format.base import KNOWN_SETS
from gvcc.format.cursor import varint
from gvcc.pictures import bits, stillcodecs

# AV1 specification 5.5: profile 0, no still picture, no timing information, one operating point;
# level 31 (no limits), tier 0. After the size the tools that SVT-AV1 takes at preset 4, 10 bit
# 4:2:0. Two of them depend on the size: superblocks of 128x128, and restoration.
_AV1_HEAD, _AV1_LEVEL = "0" * 24, "111110"
_AV1_TOOLS = "0{}1110101011111001{}10000000"
_SEQUENCE = b"\x0a"  # an OBU of that type, its length behind it

# H.266 7.3.2.4 and 7.3.2.5, as libvvenc 1.15 writes them at preset medium, 10 bit, for random
# access: the bits before the level, up to the size, up to the clock, and behind it.
# general_level_idc is 255 (level 15.5, no limits), the clock a tick a second.
_SPS = bits.of(bytes.fromhex("00ad02")), bits.of(bytes.fromhex("800000")) + "10"
_DEPTH_AT = 62  # in the tail: the last bit of ue(depth of binary and ternary splits) of 1 or 2
_SPS_TAIL_BITS, _CLOCK, _SPS_END = 1758, 2 * f"{1:032b}", "00011000"
_SPS_TAIL = bits.of(bytes.fromhex(
    "1a801cdd36e991a4526f384d958c10209c004c404104108184210b110859210b5085e8f56a4bc926a4b2445a88bc"
    "449a88914911264889351962210b24216a10bc2126a1091490849921097524212122210914442126221097511084"
    "8a32109319084ba8c8428105842080c442064883520133041041610020b100808408040542040203484080405881"
    "008088201016410080908040c80808840405908080910103408092040e08188042c8102210205908102440834102"
    "4820e106408b4209210e21a12e472a041610020b100808408040542040207fe9765fe724"
))[:_SPS_TAIL_BITS]  # fmt: skip


def av1(number: int, height: int, width: int) -> list[bytes]:
    """The sequence header, as an OBU: bit 0 of `number` is use_128x128_superblock, bit 1
    enable_restoration."""
    tools = _AV1_TOOLS.format(number & 1, number >> 1)
    content = bits.trailed(_AV1_HEAD + _AV1_LEVEL + stillcodecs.av1_size(height, width) + tools)
    return [_SEQUENCE + varint(len(content)) + content]


def av1_number(parts: list[bytes], height: int, width: int) -> int | None:
    """The number of a sequence header, an OBU with a length of one byte; None: it is not known."""
    if not parts:
        return None
    own = bits.untrailed(parts[0][2:])
    level = own[24:30] if own[24:29] > "00111" else own[24:29]  # up to 7 there is no tier
    found = own[:24] + _AV1_LEVEL + own[24 + len(level) :]
    for number in range(KNOWN_SETS["av1"]):
        if found == bits.untrailed(av1(number, height, width)[0][2:]):
            return number
    return None


def vvc(number: int, height: int, width: int) -> list[bytes]:
    """SPS and PPS, as NAL units without start codes: sps_max_mtt_hierarchy_depth_inter_slice is
    `number` + 1."""
    head = f"{255:08b}".join(_SPS) + stillcodecs.vvc_size(height, width)
    tail = _SPS_TAIL[:_DEPTH_AT] + str(number & 1) + _SPS_TAIL[_DEPTH_AT + 1 :]
    return stillcodecs.vvc_sets(head + tail + _CLOCK + _SPS_END, height, width)


def vvc_number(parts: list[bytes], height: int, width: int) -> int | None:
    """The number of an SPS and a PPS; None: they are not known."""
    if [p[:2] for p in parts] != [stillcodecs.NAL_SPS, stillcodecs.NAL_PPS]:
        return None
    own = _said(parts)
    for number in range(KNOWN_SETS["vvc"]):
        wanted = _said(vvc(number, height, width))
        level, clock = len(_SPS[0]), len(wanted[0]) - len(_SPS_END) - len(_CLOCK)
        for at, n in ((level, 8), (clock, len(_CLOCK))):
            own[0] = own[0][:at] + wanted[0][at : at + n] + own[0][at + n :]
        if own == wanted:
            return number
    return None


def _said(parts: list[bytes]) -> list[str]:
    return [bits.untrailed(bits.unescaped(p[2:])) for p in parts]
