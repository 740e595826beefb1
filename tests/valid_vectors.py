"""The valid vectors: what is encoded into each, with which settings. make_vectors.py does it."""

from __future__ import annotations

from dataclasses import replace
from fractions import Fraction
from typing import Any

from gvcc.format.gop import Gop
from gvcc.records import Audio, Colour, Packet
from gvcc.search import config as conf

SOUND = Audio(
    "opus", 48000, "mono", Fraction(1, 48000), b"OpusHead",
    (Packet(-312, 960, b"\0\1\2"), Packet(648, 960, b"\3"), Packet(1700, 960, b"")),
)  # fmt: skip
_BASE = conf.PRESETS["default"]
_UNIFORM = replace(_BASE, allocation="uniform", shift=3.0, steps=8, ode_steps=2, atoms=2)
PRESETS = {
    "short": replace(_BASE, steps=8, ode_steps=2),
    "ou": replace(_UNIFORM, rule="ou", g_scale=3.0, multistep=False),
    "em": replace(_UNIFORM, rule="em", g_scale=2.0),
    "gaussian-matched": replace(_BASE, coder="gaussian", codebook_size=100, steps=8, ode_steps=2),
    "paper-short": replace(conf.PRESETS["paper"], steps=8, codebook_size=64, atoms=4, tail_atoms=8),
}
MIXED = (
    Gop(0, 9, "still", True), Gop(8, 6, "shared", chained=True),
    Gop(13, 2, "previous", chained=True),
    Gop(14, 3, "previous"), Gop(14, 5, fade=3), Gop(16, 7, fade=3),
)  # fmt: skip
# name: what it covers, prior, (frames, height, width), settings, fields of the Video
VALID: dict[str, tuple[str, str, tuple[int, int, int], dict[str, Any], dict[str, Any]]] = {
    "default": (
        "the default preset: hadamard, matched, posterior, multistep",
        "tiny", (9, 24, 32), dict(size=220), {},
    ),
    "paper": (
        "gaussian codebook of 64 atoms, uniform, em, no multistep",
        "tiny", (5, 16, 16), dict(preset="paper-short", gop=5), {},
    ),
    "plain-residual": (
        "i2v with GVCC's own residual in every GOP, M_tail as published",
        "tiny", (16, 16, 20), dict(mode="i2v", preset="paper-short", gop=5, residual="published"),
        {},
    ),
    "outside": (
        "i2v as GVCC publishes it: references before their GOPs, all frames new, residuals plain",
        "tiny", (16, 16, 20), dict(mode="i2v", preset="paper-short", gop=5, residual="published",
                                   reference="before"), {},
    ),
    "counter": (
        "gaussian codebook of 64 atoms from counters",
        "tiny", (9, 16, 20), dict(preset="paper-short", gop=5, codebook_stream="counter"), {},
    ),
    "gaussian-matched": (
        "gaussian codebook of 100 atoms with matched counts, some of them 0",
        "tiny", (9, 16, 16), dict(preset="gaussian-matched", size=110), {},
    ),
    "ou": (
        "step rule ou, uniform, hadamard, no multistep",
        "tiny", (5, 16, 16), dict(preset="ou", gop=5), {},
    ),
    "em": (
        "step rule em with multistep, uniform atoms that do not divide evenly, knob 1.5",
        "tiny", (5, 24, 16), dict(preset="em", gop=5, size=120, knob=1.5), {},
    ),
    "vp": (
        "variance preserving path",
        "tiny-vp", (5, 16, 16), dict(preset="short", size=110, gop=5), {},
    ),
    "one-frame": (
        "one frame of 17x33: no size is a multiple of a stride",
        "tiny", (1, 33, 17), dict(preset="short", size=110), {},
    ),
    "short-gop": (
        "GOPs of 5 and 2 frames, 30000/1001 Hz, full range, BT.2020 colour",
        "tiny", (7, 16, 24), dict(preset="short", size=140, gop=5),
        dict(fps=Fraction(30000, 1001), colour=Colour(9, 9, 16, True)),
    ),
    "audio": (
        "audio after two GOPs: packets that start early, on time and late",
        "tiny", (7, 16, 16), dict(preset="short", size=200, gop=5), dict(audio=SOUND),
    ),
    "uncoded": (
        "no coded step at all: the smallest file",
        "tiny", (5, 16, 16), dict(size=0, gop=5), {},
    ),
    "overlap": (
        "t2v, three GOPs, 3 frames cross-faded; 17x33 is odd in everything",
        "tiny", (19, 33, 17), dict(size=340, gop=9, overlap=3), {},
    ),
    "i2v": (
        "i2v: a still, two GOPs chained on decoded pictures, tail residuals",
        "tiny", (15, 48, 56), dict(mode="i2v", size=1500, gop=5, still_codec="av1"), {},
    ),
    "i2v-refresh": (
        "i2v with a new still for GOP 2, in odd sizes; stills are VVC",
        "tiny", (14, 47, 61), dict(mode="i2v", size=1800, gop=5, refresh=2, still_codec="vvc"), {},
    ),
    "i2v-tail-atoms": (
        "i2v, uniform, gaussian codebook, more atoms for the last two latent frames",
        "tiny", (16, 48, 48), dict(mode="i2v", preset="paper-short", gop=13, still_codec="av1"), {},
    ),
    "i2v-uniform": (
        "i2v, uniform atoms of hadamard with a target: the tail has twice as many",
        "tiny", (17, 40, 48),
        dict(mode="i2v", preset="em", size=1500, gop=13, still_codec="av1"), {},
    ),
    "flf2v": (
        "flf2v: stills at every boundary, one each, the last GOP short",
        "tiny", (12, 48, 56), dict(mode="flf2v", size=2200, gop=5, still_codec="av1"), {},
    ),
    "flf2v-empty": (
        "flf2v with empty stills: nothing is given, everything is sampled",
        "tiny", (9, 24, 32), dict(mode="flf2v", size=120, gop=5, still_codec="av1"), {},
    ),
    "cut": (
        "flf2v over a scene cut at frame 4: the second scene starts with a still of its own",
        "tiny", (9, 48, 48), dict(mode="flf2v", size=2200, gop=9, still_codec="av1", cut=4), {},
    ),
    "auto": (
        "auto: modes mixed in one file",
        "tiny", (18, 48, 56),
        dict(mode="auto", size=2600, gop=5, still_codec="av1", residual="off"), {},
    ),
    "mixed": (
        "every kind of GOP in a row: still and last, shared, previous, two cross-fades, one short",
        "tiny", (23, 33, 49),
        dict(preset="short", size=1500, gop=9, overlap=3, still_codec="av1", plan=MIXED), {},
    ),
    "rcc-pin": (
        "free-gvc with rcc: a schedule, GOPs pinned on 5 decoded pictures; GOP 3 starts anew",
        "tiny", (45, 24, 48), dict(preset="free-gvc", coder="rcc", size=800, gop=17, refresh=3), {},
    ),
    "rcc-part": (
        "rcc in t2v: GOPs that stop inside a step",
        "tiny", (12, 24, 40), dict(preset="free-gvc", coder="rcc", mode="t2v", size=260, gop=9), {},
    ),
    "rcc-stop": (
        "rcc: every GOP stops after 9 steps; chunks of at most 64 candidates; 17x33",
        "tiny", (9, 33, 17),
        dict(preset="free-gvc", coder="rcc", mode="t2v", stop=9, codebook=64), {},
    ),
    "rcc-i2v": (
        "rcc in i2v: a still, a chain, residuals",
        "tiny", (13, 48, 56),
        dict(coder="rcc", mode="i2v", size=1100, gop=5, still_codec="av1"), {},
    ),
    "rcc-flf2v": (
        "rcc in flf2v: free latent frames between known ones, and a GOP without any",
        "tiny", (10, 48, 56),
        dict(coder="rcc", mode="flf2v", size=1500, gop=9, still_codec="av1"), {},
    ),
    "rcc-vp": (
        "rcc with a schedule on the variance preserving path",
        "tiny-vp", (5, 24, 24), dict(coder="rcc", size=150, gop=5), {},
    ),
    "schedule-quality": (
        "hadamard with a schedule: each GOP stops where it has its quality",
        "tiny", (14, 32, 40), dict(quality="psnr:22", gop=9), {},
    ),
    "fade": (
        "mode overlap, cross-faded: hadamard with a schedule",
        "tiny", (21, 24, 32),
        dict(preset="free-gvc", mode="t2v", overlap=5, size=420, gop=13), {},
    ),
    "blend-rcc": (
        "mode overlap: three GOPs, two latent frames blended at each joint, rcc",
        "tiny", (40, 24, 32),
        dict(preset="free-gvc", coder="rcc", alignment="blend", overlap=9, size=500, gop=21), {},
    ),
    "blend-cut": (
        "mode overlap: blended GOPs, and a scene cut at frame 16 with none; hadamard, a schedule",
        "tiny", (34, 24, 32),
        dict(preset="free-gvc", alignment="blend", stop=11, gop=13, cut=16), {},
    ),
    "vvc-sets": (
        "i2v: a still in VVC with its parameter sets",
        "tiny", (9, 48, 56), dict(mode="i2v", size=1500, gop=5, still_codec="vvc-sets"), {},
    ),
    "settings": (
        "version 3: two settings of the prior, one of them no ASCII",
        "tiny-settings", (9, 24, 32), dict(size=280), {},
    ),
    "reuse": (
        "version 3: the network is called at every third coded step; two GOPs",
        "tiny", (14, 24, 32), dict(size=340, reuse=3), {},
    ),
    "pixel-aspect": (
        "version 4: pixels of 16:15, and nothing that version 3 has",
        "tiny", (5, 24, 32), dict(size=170), {"pixel_aspect": Fraction(16, 15)},
    ),
    "pixel-aspect-settings": (
        "version 4: pixels of 10:11, a setting of the prior, and reuse",
        "tiny-settings", (5, 24, 32), dict(size=240, reuse=2), {"pixel_aspect": Fraction(10, 11)},
    ),
    "v2v-av1": (
        "version 4, v2v: two bases in AV1, 17 and 3 frames; no sides that are multiples of 8",
        "tiny", (20, 46, 50), dict(mode="v2v", base="av1", size=1500, gop=17, own_sets=True), {},
    ),
    "v2v-av1-half": (
        "v2v: a base in AV1 at half of each side, and a pixel aspect",
        "tiny", (5, 40, 60), dict(mode="v2v", base="av1", base_size="2", size=500, own_sets=True),
        {"pixel_aspect": Fraction(16, 15)},
    ),
    "v2v-vvc": (
        "v2v: a base in VVC, and a scene cut at frame 9",
        "tiny", (14, 48, 60), dict(mode="v2v", base="vvc", size=1900, cut=9, own_sets=True), {},
    ),
    "v2v-av1-quarter": (
        "v2v: a base in AV1 at a quarter of each side, one frame",
        "tiny", (1, 60, 64), dict(mode="v2v", base="av1", base_size="4", size=300, own_sets=True),
        {},
    ),
    "v2v-av1-sets": (
        "v2v: a base in AV1 whose sequence header is derived",
        "tiny", (5, 40, 60), dict(mode="v2v", base="av1", size=500), {},
    ),
    "v2v-vvc-sets": (
        "v2v: a base in VVC whose parameter sets, number 0, are derived",
        "tiny", (5, 48, 60), dict(mode="v2v", base="vvc", size=700, depth=1), {},
    ),
    "v2v-vvc-depth": (
        "v2v: a base in VVC whose parameter sets, number 1, are derived",
        "tiny", (5, 48, 60), dict(mode="v2v", base="vvc", size=700), {},
    ),
    "v2v-over": (
        "v2v: trajectories over bases of half the bytes, a part of a step; two GOPs",
        "tiny", (12, 40, 60), dict(mode="v2v", base="av1", size=900, base_share=0.5), {},
    ),
    "v2v-over-vp": (
        "v2v: rcc over a base at half of each side, on the variance preserving path, knob 1.5",
        "tiny-vp", (5, 48, 64),
        dict(mode="v2v", base="av1", base_size="2", coder="rcc", size=700, base_share=0.4,
             knob=1.5), {},
    ),
    "v2v-over-uniform": (
        "v2v: four atoms a step over a base in VVC, without a schedule",
        "tiny", (5, 48, 64), dict(mode="v2v", base="vvc", atoms=4, base_share=0.8), {},
    ),
    "gauss": (
        "the prior gauss as shipped; follows its weights",
        "gauss", (5, 16, 24), dict(preset="short", size=110, gop=5), {},
    ),
    "nano": (
        "the prior nano as shipped; follows its weights",
        "nano", (5, 40, 56), dict(preset="short", size=160, gop=5), {},
    ),
    "nano-i2v": (
        "nano, i2v: known latent frames and a residual; follows its weights",
        "nano", (9, 48, 64),
        dict(preset="short", mode="i2v", size=900, gop=5, still_codec="av1"), {},
    ),
    "nano-restored": (
        "nano, v2v: a base at half of each side that is restored, three maps of texture; follows "
        "the restorer's weights",
        "nano", (18, 48, 64), dict(mode="v2v", base="av1", base_size="2", size=700, seed=7), {},
    ),
    "nano-v2v": (
        "nano, v2v: a trajectory over a base, variances in the header; follows its weights",
        "nano", (5, 48, 64), dict(mode="v2v", base="av1", size=900, base_share=0.6), {},
    ),
}  # fmt: skip
