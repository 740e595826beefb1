"""The page of comparisons with classical codecs: `gvcc eval`, nano's curves, GVCC's study of its
parameters; and where we stand, for the first page."""

from __future__ import annotations

import math
from typing import Any

import numpy as np

from bench.anchors import nano_plot, versus
from bench.anchors.versus import ok
from bench.pages import RESULTS, load, table
from gvcc.eval.baselines import NEAR  # a curve is taken to go on as far as this, too
from gvcc.eval.bd import LOWER
from gvcc.eval.sweep import PUBLISHED
from gvcc.eval.table6 import ROWS

TITLE = "Beside the classical codecs"
ANCHOR = "x265"
METRICS = (("psnr_rgb_db", "PSNR (RGB), dB"), ("ms_ssim", "MS-SSIM"), ("vmaf", "VMAF"),
           ("vmaf_neg", "VMAF NEG"), ("lpips_alex", "LPIPS alex"), ("lpips_vgg", "LPIPS vgg"),
           ("dists", "DISTS"), ("tof", "tOF"), ("temporal_error", "temporal error"))  # fmt: skip
_SHORT = [(m, label) for m, label in METRICS if m in (
    "psnr_rgb_db", "vmaf", "vmaf_neg", "lpips_alex", "dists")]  # fmt: skip
SETS = {"256x33": "256 lines, 33 frames", "quick": "176 lines", "256": "256 lines",
        "480": "480 lines"}  # fmt: skip
_KINDS = {"gvcc:default": "the default (v2v, restored)",
          "gvcc:default+knob=2": "the default at knob 2",
          "gvcc:v2v+base-only": "its base alone"}  # fmt: skip


def _split(d: dict[str, Any]) -> tuple[list[str], list[str]]:
    """Our codecs and the others."""
    names = d["setup"]["codecs"]
    return [n for n in names if n.startswith("gvcc:")], [n for n in names if n[:5] != "gvcc:"]


def _measured(d: dict[str, Any]) -> list[tuple[str, str]]:
    """The metrics that every cell of a set has."""
    cells = [x for c in d["setup"]["codecs"] for x in ok(d, c)]
    return [(m, label) for m, label in METRICS
            if all(x["metrics"].get(m) is not None for x in cells)]  # fmt: skip


def _rows(d: dict[str, Any]) -> list[list[Any]]:
    rows = []
    for codec in d["setup"]["codecs"]:
        for rate in d["setup"]["rates"]:
            cells = [x for x in ok(d, codec) if x["rate"] == rate]
            if not cells:
                continue
            means = [float(np.mean([x["metrics"][m] for x in cells])) for m, _ in _measured(d)]
            size = float(np.mean([x["bits_per_pixel"] for x in cells]))
            rows.append([codec, f"{rate:g}", f"{size:.4f}", *means])
    return rows


def _standing(d: dict[str, Any]) -> str:
    """BD-rates over the anchor, with intervals."""
    lines = []
    for metric, label in _measured(d):
        if metric not in d["bd"]:
            continue
        names, m = d["bd"][metric]["codecs"], d["bd"][metric]["pchip"]
        at = names.index(ANCHOR)
        for i, codec in enumerate(names):
            percent, interval = m["rate_percent"][i][at], m["interval"][i][at]
            if i == at:
                continue
            span = "-" if interval is None else f"{interval[0]:+.0f} to {interval[1]:+.0f}"
            shown = "no quality in common" if percent is None else f"{percent:+.0f}"
            p = m.get("p_value", [[None] * len(names)] * len(names))[i][at]
            lines.append([label, codec, shown, span, "-" if p is None else f"{p:.2f}",
                          len(m["warnings"][i][at])])  # fmt: skip
    heads = ["equal", "codec", f"rate over {ANCHOR}, %", "95 % interval", "p", "warnings"]
    return table(heads, lines)


def _compared(
    d: dict[str, Any], metric: str, kind: str | None = None
) -> tuple[int, int, list[str]]:
    """Won and all comparisons of ours (of one kind) with the others, and in words where they were
    won."""
    ours, others = _split(d)
    ours = [c for c in ours if kind in (None, _kind(c))]
    won, of, where = 0, 0, []
    for a in ours:
        for b in others:
            found = versus.duels(d, a, b, metric)
            wins = {f"{r:g}": sum(v) for r, v in found.items() if any(v)}
            won, of = won + sum(wins.values()), of + sum(map(len, found.values()))
            if wins:
                at = ", ".join(f"{n} clip{'s' * (n > 1)} at {r}" for r, n in wins.items())
                where.append(f"{a} over {b} on {at}")
    return won, of, where


def _kind(codec: str) -> str:
    return _KINDS.get(codec, "the generator without a base (t2v, i2v, free-gvc, paper)")


def _plainly(d: dict[str, Any]) -> str:
    lines = []
    for metric, label in _measured(d):
        won, of, where = _compared(d, metric)
        lines.append(f"- {label}: gvcc wins **{won} of {of}**{'; '.join(['', *where])}.")
    return "\n".join(lines)


def _slopes(d: dict[str, Any]) -> str:
    """dB per doubling of each codec, from the least to the highest of its mean points."""
    out = []
    for codec in d["setup"]["codecs"]:
        rows = [r for r in _rows(d) if r[0] == codec]
        (low, bottom), (high, top) = ((float(r[2]), r[3]) for r in (rows[0], rows[-1]))
        out.append(f"{codec} {(top - bottom) / math.log2(high / low):.2f} dB")
    return ", ".join(out)


def _over(d: dict[str, Any], codec: str) -> list[dict[str, Any]]:
    """Files that are larger than asked for."""
    return [c for c in ok(d, codec) if c["bits_per_pixel"] > c["rate"] * (1 + NEAR)]


def section(name: str, d: dict[str, Any]) -> str:
    """One set: wins, BD-rates, all means."""
    s = d["setup"]
    enlarged = " (akiyo_cif, of 288, is enlarged)" if s["height"] > 288 else ""
    above = [
        f"{o} ({len(over)} of {len(ok(d, o))} files)" for o in s["codecs"] if (over := _over(d, o))
    ]
    small = [c for c in s["codecs"] if "codebook=1024" in c]
    most = max((x["bits_per_pixel"] for c in small for x in ok(d, c)), default=0)
    smaller = (
        "Preset paper has K = 1024 in place of 16384, for the time it takes; with all the atoms "
        f"it may have it ends at {most:.3f} bits per pixel. " * bool(small)
    )
    plots = [f"![{label}](eval_{name}_{m}.png)" for m, label in METRICS
             if (RESULTS / f"anchors/eval_{name}_{m}.png").exists()]  # fmt: skip
    sheets = [f"\n[{p.stem.rpartition('_')[2]}: the same crop by every codec]({p.name})"
              for p in sorted((RESULTS / "anchors").glob(f"contact_{name}_*.jpg"))]  # fmt: skip
    stride = s.get("stride", 1)
    some = f"LPIPS and DISTS of one frame in {stride}. " * (stride > 1)
    return "\n\n".join(filter(None, [
        f"## {SETS[name]}",
        f"`gvcc eval` on the {len(s['clips'])} evaluation clips, {s['frames']} frames each, scaled "
        f"to {s['height']} px height{enlarged}, prior nano; sizes of real files, the others' at "
        f"the quality whose size is nearest to the target (bench/anchors/eval_results.py). "
        f"{some}{smaller}More than {NEAR:.0%} above the target, as no lower quality is there or "
        f"none nearer: {', '.join(above) or 'none'}.",
        "Is gvcc better at the size of its own file? The other codec's curve is a straight line "
        "between its points over the logarithm of the size; where it does not reach our size, "
        "nothing is compared.",
        _plainly(d),
        f"PSNR gained by each doubling of the rate, in the mean: {_slopes(d)}.",
        versus.bars(d, _measured(d)),
        "What it costs in bits, by Bjontegaard (PCHIP; bootstrap over clips):",
        _standing(d), "Means over the clips:",
        table(["codec", "asked", "bits/pixel", *(label for _, label in _measured(d))], _rows(d)),
        "\n".join([*plots, *sheets]),
    ]))  # fmt: skip


def _many(pairs: list[tuple[int, int]]) -> str:
    return "{} of {}".format(*(sum(n) for n in zip(*pairs, strict=True)))


def _sets() -> dict[str, dict[str, Any]]:
    """The sets that were measured."""
    return {n: load(f"anchors/eval_{n}") for n in SETS
            if (RESULTS / f"anchors/eval_{n}.json").exists()}  # fmt: skip


def standing() -> str:
    """The verdict over all sets, for the first page."""
    sets, lines = _sets(), []
    for kind in dict.fromkeys(_kind(c) for d in sets.values() for c in _split(d)[0]):
        shares = []
        for metric, label in METRICS:
            found = [_compared(d, metric, kind)[:2] for d in sets.values()
                     if (metric, label) in _measured(d)] or [(0, 0)]  # fmt: skip
            won, of = (sum(n) for n in zip(*found, strict=True))
            if of:
                shares.append(f"{label.removesuffix(', dB')} {won} of {of}")
        lines.append(f"- {kind}: {', '.join(shares)}")
    bound = load("priors/autoencoder")
    ours, others = (
        [(len(_over(d, c)), len(ok(d, c))) for d in sets.values() for c in _split(d)[i]]
        for i in (0, 1)
    )
    return "\n\n".join([
        "At the size of its own files gvcc with nano is better than a classical codec in so many "
        "comparisons (clips and rates, over x264, x265, SVT-AV1, VVC, VP9 where they were run):",
        "\n".join(lines),
        f"Files over {NEAR:.0%} above the size asked for: {_many(ours)} of gvcc, {_many(others)} "
        "of the others. nano is a thousand times smaller than the models of the papers: nothing "
        "here says anything of Wan.",
        f"Rate at equal quality over that of {ANCHOR}, in %, by Bjontegaard, means over the "
        "evaluation clips; -: no quality in common. With intervals: [anchors](anchors/README.md).",
        _rates(sets),
        "Why the generator's curves rise so slowly: nano's autoencoder alone, its latents uncoded, "
        f"gives {bound['mean']['nano_psnr_rgb_db']:.1f} dB in the mean of the clips "
        f"({bound['height']} px height, {bound['frames']} frames, bench/priors/autoencoder.py), "
        "and that is where they end.",
    ])  # fmt: skip


def _rates(sets: dict[str, dict[str, Any]]) -> str:
    """Each set's codecs: rate over the anchor's by metric."""
    lines = []
    for name, d in sets.items():
        for codec in (c for c in d["setup"]["codecs"] if c != ANCHOR):
            row = []
            for metric, _ in _SHORT:
                if metric not in d["bd"]:
                    row.append("not measured")
                    continue
                names, m = d["bd"][metric]["codecs"], d["bd"][metric]["pchip"]
                percent = m["rate_percent"][names.index(codec)][names.index(ANCHOR)]
                row.append("-" if percent is None else f"{percent:+.0f}")
            lines.append([SETS[name], codec, *row])
    return table(["pictures of", "codec", *(f"at equal {label}" for _, label in _SHORT)], lines)


def decided() -> str:
    """For the first page."""
    sets = _sets()
    others = dict.fromkeys(c for d in sets.values() for c in _split(d)[1])
    return (
        f"gvcc beside {', '.join(others)} at {', '.join(SETS[n] for n in sets)}: who wins, at what "
        "cost in bits, all means and curves; GVCC's study of its parameters, repeated on nano."
    )


def quick() -> str:
    return section("quick", load("anchors/eval_quick"))


def lines_256x33() -> str:
    return section("256x33", load("anchors/eval_256x33"))


def lines_256() -> str:
    return section("256", load("anchors/eval_256"))


def lines_480() -> str:
    return section("480", load("anchors/eval_480"))


def rate_distortion() -> str:
    curves, rows = nano_plot.curves(), []
    for name, points in curves.items():
        for r in points:
            keys = ("target_bpp", "bits_per_pixel", "psnr_rgb_db", "ms_ssim", "vmaf")
            rows.append([name, *(f"{r[k]:.4f}" if "b" in k[:8] else r[k] for k in keys)])
    d, anchors = load("priors/nano_rd"), load("anchors/anchors")
    quality = {n: [r["psnr_rgb_db"] for r in points] for n, points in curves.items()}
    gap = {
        n: np.subtract(q, quality["gvcc nano"])
        for n, q in quality.items()
        if not n.startswith("gvcc")
    }
    plainly = ", ".join(f"{n} by {g.min():.1f} to {g.max():.1f} dB" for n, g in gap.items())
    return (
        "## nano and gauss against x265, SVT-AV1 and VVC\n\nMeans over the five evaluation clips, "
        f"{d['frames']} frames, {d['height']} px height, prior nano or gauss, preset default, T2V, "
        "one GOP; sizes of real files. The others at their slow settings, at the size nearest to "
        f"the target; {anchors['size_rule']} (bench/priors/nano_rd.py, bench/anchors/anchors.py)"
        "\n\n"
        + table(["codec", "target bpp", "bits/pixel", "PSNR (RGB), dB", "MS-SSIM", "VMAF"], rows)
        + "\n\n**PSNR of the other codecs over nano's at the same target, least and most of the "
        + f"four rates: {plainly}.** "
        "A prior this small is a demonstration, not a competitor."
        "\n\n![curves](nano_rd.png)\n\n![one frame at equal size](nano_frame.png)"
    )


def _study(name: str, rows: list[dict[str, Any]]) -> str:
    lines = []
    for value in sorted({r["value"] for r in rows}):
        found = [r for r in rows if r["value"] == value]
        keys = ("psnr_db", "bits_per_pixel", "published_bits_per_pixel")
        psnr, size, bits = (float(np.mean([r[k] for r in found])) for k in keys)
        row, theirs = found[0], _theirs(name, found[0])
        label = f"M {row['atoms']}, K {row['codebook']}" if name == "rd" else f"{value:g}"
        lines.append([label, f"{size:.4f}", f"{bits:.4f}", psnr, theirs or "-"])
    frames = ", ".join(sorted({r["source"].split()[-2] for r in rows}))
    heads = [name, "bits/pixel", "as published", "PSNR, dB", "PSNR as published, dB"]
    return (f"{name}, {len({r['clip'] for r in rows})} clips of {frames} frames:\n\n"
            + table(heads, lines) + f"\n\n![{name}](sweep-{name}.png)")  # fmt: skip


def sweep() -> str:
    """GVCC's study of its parameters."""
    d = load("anchors/sweep")
    names = dict.fromkeys(r["study"] for r in d["rows"])
    base = ", ".join(f"{k} {v}" for k, v in d["setup"]["base"].items())
    heights = ", ".join(sorted({r["source"].split()[-1] for r in d["rows"]}))
    return "\n\n".join([
        f"## The published study of parameters, on {d['setup']['prior']}",
        f"`gvcc eval sweep`, preset paper, mode t2v, {heights} px height, around {base}; one "
        "parameter at a time, means over clips (bench/anchors/sweep_results.py). Published: Wan2.1 "
        "1.3B on Beauty at 720p around M 64, K 16384, T 20, g_scale 3, GOP 33, and for rd its "
        "Table 6 at 848x480: another prior, other clips and another size, so only the shapes "
        "compare. Size: of our file, and as the papers count it. GOPs longer than the shortest "
        "clip and K = 65536 are left out.",
        *(_study(n, [r for r in d["rows"] if r["study"] == n]) for n in names),
    ])  # fmt: skip


def _theirs(study: str, row: dict[str, Any]) -> float | None:
    if study != "rd":
        return PUBLISHED[study][row["value"]]
    (found,) = (r for r in ROWS if (r.atoms, r.codebook) == (row["atoms"], row["codebook"]))
    return found.psnr


def metric_speed() -> str:
    d = load("anchors/metric_speed")
    return "\n\n".join([
        "## What measuring takes",
        f"{d['frames']} frames of {d['width']}x{d['height']}, two cores, seconds "
        "(bench/anchors/metric_speed.py); LPIPS and DISTS in proportion to the frames that "
        "`--stride` leaves.",
        table(["metric", "seconds"], [[n, f"{s:g}"] for n, s in d["seconds"].items()]),
    ])  # fmt: skip


def over_bases() -> str:
    d = load("anchors/eval_v2v")
    s, measured = d["setup"], _measured(d)
    means = {(r[0], r[1]): dict(zip([m for m, _ in measured], r[3:], strict=True))
             for r in _rows(d)}  # fmt: skip
    lines = []
    for prior in ("", "+prior=gauss"):
        alone = "gvcc:v2v+base=av1"  # without a trajectory the prior is all one
        start = f"{alone}{prior}+base_share"
        shared = [c for c in s["codecs"] if c.startswith(start)]
        better = [
            f"{label} at {rate:g} ({codec.rpartition('=')[2]})"
            for m, label in measured for rate in s["rates"] for codec in shared
            if (-1 if m in LOWER else 1)
            * (means[codec, f"{rate:g}"][m] - means[alone, f"{rate:g}"][m]) > 0
        ]  # fmt: skip
        of = len(measured) * len(s["rates"]) * len(shared)
        lines.append(
            f"- {prior.rpartition('=')[2] or 'nano'}: a trajectory over the base is better than "
            f"the base alone in **{len(better)} of {of}** means{': ' * bool(better)}"
            + ", ".join(better) + "."
        )  # fmt: skip
    return (
        f"## Trajectories over a base\n\n{s['frames']} frames, {s['height']} lines, the mean over "
        f"{len(s['clips'])} clips; LPIPS and DISTS on every {s['stride']}th frame. `base_share` is "
        "the part of the bytes that the base has (without: all); `mode=t2v` has no base. "
        "Do atoms over a base pay, at equal bytes?\n\n"
        + "\n".join(lines)
        + "\n\n"
        + table(["codec", "rate", "bit/pixel", *(label for _, label in measured)], _rows(d))
    )


SECTIONS = {
    metric_speed: {"metric_speed"},
    quick: {"eval_quick"},
    lines_256x33: {"eval_256x33"},
    lines_256: {"eval_256"},
    lines_480: {"eval_480"},
    over_bases: {"eval_v2v"},
    rate_distortion: {"anchors"},
    sweep: {"sweep"},
}
