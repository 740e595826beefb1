"""The page of systems; here what is on modes, chains, references, sizes and long clips."""

from __future__ import annotations

from typing import Any

import numpy as np

from bench.pages import load, table
from bench.systems import page_control

TITLE = "Modes, systems, and where bits go"


def decided() -> str:
    equal = load("systems/systems")["bits_over_reference_at_equal_psnr"]
    ours, free = (equal[s]["geometric_mean"] for s in ("gvcc default t2v", "free-gvc codebook"))
    shared = load("systems/alignment")["bars"]["stop"]["ratios"]["pin_over_off_bytes"]
    tail = load("systems/chain")["mean_ratio"]
    return (
        "Which mode and which system, how a size is shared out, how a quality is held. At equal "
        f"PSNR preset default needs {ours:.3f} and free-gvc {free:.3f} of the bits of preset "
        f"paper; GOPs that share frames by `pin` take {shared:.2f} of the bytes of separate "
        f"ones at the same stop; our tail residual takes {tail:.1%} of the published one."
    )


def joints(row: dict[str, Any]) -> list[float]:
    """Error of the change at each GOP boundary over its median at the other joints of latent
    frames (every fourth frame of a GOP), where a decoded clip has steps of its own."""
    error, starts = np.array(row["error_profile"]), row["boundaries"]
    edges = [0, *starts]
    others = [
        e + k - 1
        for e, end in zip(edges, [*starts, row["frames"]], strict=True)
        for k in range(5 if e == 0 else 4, end - e, 4)
    ]
    own = max(0.1, float(np.median(error[[t for t in others if t + 1 not in starts]])))
    return [float(error[s - 1]) / own for s in starts]


def modes() -> str:
    d = load("systems/modes")
    keys = ("bytes", "stills", "residual", "symbols", "bits_per_pixel", "psnr_rgb_db", "ms_ssim",
            "vmaf")  # fmt: skip
    rows = [
        [c["clip"], c["target_bpp"], c["mode"], *(c[k] for k in keys),
         max(c["spikes"]), max(c["error_spikes"]), max(joints(c)),
         " ".join(c["gop_modes"]) if c["mode"] == "auto" else ""]
        for c in d["cells"]
    ]  # fmt: skip
    head = ["clip", "target", "mode", *keys, "step", "error", "error at joints", "auto chose"]
    names = ("t2v", "i2v", "flf2v", "auto")
    of = {m: [c for c in d["cells"] if c["mode"] == m] for m in names}
    means = [
        [m, *(float(np.mean([c[k] for c in of[m]])) for k in ("psnr_rgb_db", "ms_ssim", "vmaf")),
         *(float(max(max(f(c)) for c in of[m])) for f in (
             lambda c: c["spikes"], lambda c: c["error_spikes"], joints))]
        for m in names if of[m]
    ]  # fmt: skip
    return (
        f"## Modes\n\nPrior {d['prior']}, preset {d['preset']}, evaluation clips at "
        f"{d['height']} px height, GOPs of {d['gop']} frames; sizes of real files, encoded and "
        "decoded in processes of their own (bench/systems/modes.py). The last columns are "
        "the worst GOP boundary of a clip: `step`, the change from frame to frame over the "
        "source's own change and the clip's median ratio; `error`, the error of that change over "
        "its median; `error at joints`, the same over its median where two latent frames meet "
        "inside a GOP.\n\n"
        + table(head, rows)
        + "\n\nMeans over clips and rates; the last three columns are the worst of all:\n\n"
        + table(["mode", "PSNR, dB", "MS-SSIM", "VMAF", "step", "error", "error at joints"], means)
        + "\n\n![temporal profiles](temporal.png)"
    )


def chain() -> str:
    d = load("systems/chain")
    rows = [
        [c["clip"], c["bytes"], *c["psnr_of_gops_db"], c["gop2_below_gop0_db"],
         ", ".join(str(t["published_bytes"]) for t in c["tails"]),
         ", ".join(str(t["ours_bytes"]) for t in c["tails"]),
         ", ".join(str(t["plain_bytes"]) for t in c["tails"])]
        for c in d["clips"]
    ]  # fmt: skip
    return (
        f"## A chain of three GOPs\n\nMode i2v, prior {d['prior']}, {d['frames']} frames at "
        f"{d['height']} px height, {d['bpp']} bits per pixel; clips that are shorter go there and "
        "back (bench/systems/chain.py). Bytes: of the published tail residual (8 bits and zlib), "
        f"and of ours for the same PSNR of the last picture within {d['tolerance_db']} dB, with "
        f"and without `refine`. **Ours needs {d['mean_ratio']:.1%} of the published bytes on "
        f"average, {d['largest_ratio']:.1%} at most.**\n\n"
        + table(
            [
                "clip",
                "bytes",
                "PSNR of GOP 0",
                "1",
                "2",
                "GOP 2 below GOP 0, dB",
                "published",
                "ours",
                "ours, plain",
            ],
            rows,
        )  # fmt: skip
    )


def references() -> str:
    stills, residual, shares = (
        load("systems/stills"),
        load("systems/residual"),
        load("systems/shares"),
    )
    rows = [
        [bpp, r["clips"], *(r["psnr"][c] or "-" for c in ("vvc", "av1", "x265, 10 bit", "avif"))]
        for bpp, r in stills["mean"].items()
    ]
    keys = ("mode", "still_share", "residual_share", "mean_db")
    s, presets = residual["summary"], stills["presets"]
    return (
        "## Reference pictures and tail residual\n\nMean PSNR (RGB) of a still at 256 px height; "
        "VVC and AV1 as in our files, all bytes counted; x265 without parameter sets, AVIF "
        "without boxes (bench/systems/stills.py).\n\n"
        + table(["bit/pixel", "clips", "VVC", "AV1", "x265", "AVIF"], rows)
        + "\n\nPresets of both codecs, the same pictures at a fixed quantiser, interpolated:\n\n"
        + table(list(presets[0]), [list(p.values()) for p in presets])
        + "\n\nTail residual on once-denoised latents, same PSNR of the last picture: "
        f"{s['refined']['mean ratio']:.1%} of the published bytes with `refine` (largest "
        f"{s['refined']['largest ratio']:.1%}), {s['plain']['mean ratio']:.1%} without "
        "(bench/systems/residual.py).\n\nShares of a GOP's bytes, mean PSNR over three clips at "
        f"{shares['bpp']} bits per pixel and {shares['height']} px height "
        "(bench/systems/shares.py):\n\n"
        + table([k.replace("_", " ") for k in keys], [[r[k] for k in keys] for r in shares["rows"]])
    )


def length() -> str:
    d, scenes = load("systems/long_clip"), load("systems/scenes")
    rows = [
        [r["frames"], r["raw_mb"], r["bytes"], r["decoded_frames"],
         *(r[w][k] for w in ("encode", "decode") for k in ("seconds", "peak_mb"))]
        for r in d["clips"]
    ]  # fmt: skip
    pairs, whole = scenes["pairs"].values(), scenes["whole"]
    return (
        f"## Long clips\n\n{d['width']}x{d['height']}, prior {d['prior']}, mode i2v; peak memory "
        "of each process (bench/systems/long_clip.py).\n\n"
        + table(
            [
                "frames",
                "raw, MB",
                "bytes",
                "decoded",
                "encode, s",
                "peak, MB",
                "decode, s",
                "peak, MB",
            ],
            rows,
        )  # fmt: skip
        + f"\n\nScene cuts: recall {min(p['recall'] for p in pairs):.3f}, precision "
        f"{min(p['precision'] for p in pairs):.3f} at joins of two clips; {whole['found']} of "
        f"{whole['cuts']} cuts found and {len(whole['false'])} false alarms in {whole['frames']} "
        f"frames of {whole['clips']} whole clips (bench/systems/scenes.py)."
    )


def clips() -> str:
    d = load("systems/eval_clips")
    keys = ("width", "height", "frames", "bytes", "bits_per_pixel", "psnr_db", "verified",
            "encode_s", "decode_s")  # fmt: skip
    rows = [[c["clip"], *(c[k] for k in keys)] for c in d["clips"]]
    return (
        f"## Clips at their own size\n\n`gvcc encode --bpp {d['bpp']}`, prior {d['prior']}, "
        f"preset {d['preset']}; sizes are of the real file, PSNR (RGB) of the decoded mp4. Times: "
        "on two cores shared with other work (bench/systems/eval_clips.py).\n\n"
        + table(["clip", *keys], rows)
    )


def bases() -> str:
    d = load("systems/base_speed")
    t, rows = d["times"], []
    for codec in ("av1", "vvc"):
        for bpp in sorted({r["bpp"] for r in d["rows"]}):
            over = [r["over"] for r in d["rows"] if (r["codec"], r["bpp"]) == (codec, bpp)]
            each = f"{sum(over) / len(over):+.2%}", f"{min(over):+.2%}", f"{max(over):+.2%}"
            rows.append([codec, bpp, *each])
    keys = ("frames", "gops", "encode_mb", "decode_mb")
    return (
        f"## A base alone\n\nMode v2v, share 1, {d['frames']} frames, {d['height']} lines, "
        "evaluation clips: bytes of the file over those of the stream that its encoder wrote at "
        "the same settings, which has what a decoder can derive "
        "(bench/systems/base_speed.py). Times "
        f"(AV1, one clip, {d['cores']} cores, without the start of Python): encoding "
        f"{t['encode_s']:.1f} s, {t['encode_ratio']:.1f} of one SVT-AV1 encode by ffmpeg; decoding "
        f"{t['decode_s']:.2f} s, {t['decode_ratio']:.1f} of ffmpeg's decode to PNG. Then the peak "
        "memory of one GOP of 854x480.\n\n"
        + table(["codec", "bit/pixel", "mean", "least", "most"], rows)
        + "\n\n"
        + table(
            [k.replace("_mb", ", MiB") for k in keys], [[r[k] for k in keys] for r in d["memory"]]
        )
    )


def restorer() -> str:
    d = load("systems/restorer")
    rows = [[c["codec"], c["size"], c["quantiser"], f"{c['bpp']:.4f}",
             *(f"{c['realism'][m]:.3f}" for m in ("alex", "dists")), f"{c['realism']['psnr']:+.2f}",
             *(f"{c['fidelity'][m]:.3f}" for m in ("alex", "dists")),
             f"{c['fidelity']['psnr']:+.2f}"]
            for c in d["cells"]]  # fmt: skip
    smaller = [[r["codec"], f"1/{r['size']}", r["quantiser"], r["clips"],
                f"{r['ratio']:.3f}", f"{r['better']} of {r['clips']}"]
               for r in d["sizes"]]  # fmt: skip
    return (
        f"## Bases restored\n\n{d['clips']} held-out clips and pictures under a moving camera of "
        "the training data, 256x256, 17 frames; what is shown over the base as it is: LPIPS (alex) "
        "and DISTS as ratios, PSNR in dB, at knob 1 (realism) and 2 (fidelity) "
        "(bench/systems/restorer.py). `quantiser` is the codec's own, in quarters for VVC, of the "
        "first clip.\n\n"
        + table(["codec", "size", "quantiser", "bits/pixel", "LPIPS, k = 1", "DISTS", "PSNR",
                 "LPIPS, k = 2", "DISTS", "PSNR"], rows)
        + "\n\nA smaller base at the bytes of a full-size one, both restored at knob 1: "
        "sqrt(LPIPS * DISTS) as a ratio to the full-size one's.\n\n"
        + table(["codec", "size", "full size's quantiser", "clips", "ratio", "better"], smaller)
    )  # fmt: skip


def restorer_speed() -> str:
    d = load("systems/restorer_speed")
    keys = ("bytes", "encode_s", "decode_s")
    return (
        f"## Seconds of the default\n\n{d['clip']}, {d['frames']} frames of {d['width']}x"
        f"{d['height']}, {d['rate']} bit/pixel, {d['cores']} cores, the least of three "
        "(bench/systems/restorer_speed.py). Encoding takes "
        f"{d['encode_over_vvenc_slow']:.2f} of one encode by VVenC slow "
        f"({d['vvenc_slow_s']:.1f} s), decoding "
        f"{d['decode_over_t2v']:.2f} of the decode of t2v.\n\n"
        + table(["mode", "bytes", "encode, s", "decode, s"],
                [[m, *(f"{r[k]:.4g}" for k in keys)] for m, r in d["modes"].items()])
    )  # fmt: skip


def base_depth() -> str:
    d = load("systems/base_depth")
    rows = [[clip, way, f"{g['psnr_db']:+.3f}", f"{g['vmaf']:+.2f}", f"{g['seconds']:.2f}"]
            for clip, c in [*d["clips"].items(), ("mean", {"over_medium": d["mean"]})]
            for way, g in c["over_medium"].items() if way != "medium"]  # fmt: skip
    return (
        f"## Tools of VVenC\n\n{d['frames']} frames of 256 lines, three QPs around .02 bit/pixel: "
        "over preset medium at equal bytes, and the time as a ratio to its own "
        "(bench/systems/base_depth.py). Bases take `depth`.\n\n"
        + table(["clip", "tools", "PSNR, dB", "VMAF", "seconds"], rows)
    )


def marginals() -> str:
    d = load("systems/marginals")
    left = [[r["rule"], r["g"], r["steps"], r["shift"], f"{r['ratio']:.3f}"]
            for r in d["left_over"]]  # fmt: skip
    of = [[r["rule"], r["g"], r["steps"], r["v"], f"{r['ratio']:.3f}"] for r in d["gaussian"]]
    nano = [[r["rule"], r["g"], f"{r['power'][-1]:.3f}", f"{r['p']:.3f}"] for r in d["nano"]]
    return (
        "## Laws of stochastic steps\n\ndocs/theory.md; g is g_scale, the last "
        f"{d['tail']} steps are ODE (bench/systems/marginals.py). One known picture, its denoiser "
        "exact: deviation of the noise after the coded steps over what it should be.\n\n"
        + table(["rule", "g", "steps", "shift", "ratio"], left)
        + "\n\nGaussian source of variance v, its denoiser exact, shift 3: variance of the result "
        "over v.\n\n"
        + table(["rule", "g", "steps", "v", "ratio"], of)
        + f"\n\nLatents of nano, {d['samples']} of {d['shape']} each, {d['steps']} steps: mean "
        "square at the end, and p of a permutation test of energy distance (means and log "
        "variances by channel) against the ODE's.\n\n"
        + table(["rule", "g", "mean square", "p"], nano)
    )


def ablations() -> str:
    d = load("systems/ablations")
    shown = [("psnr_rgb_db", "PSNR, dB"), ("last_psnr_db", "PSNR of the last frame"),
             ("lpips_alex", "LPIPS alex"), ("temporal_error", "temporal error"),
             ("activity_ratio", "change, decoded / original")]  # fmt: skip
    shown = [(m, label) for m, label in shown if all(m in r for r in d["rows"])]

    def cell(row: dict[str, Any], name: str) -> str:
        low, high = row[f"{name}_interval"]
        off, least, most = row[f"{name}_over_first"]
        change = f"; {off:+.3f} [{least:+.3f}, {most:+.3f}]" * (off != 0)
        return f"{row[name]:.3f} [{low:.3f}, {high:.3f}]{change}"

    rows = [
        [r["group"], r["arm"], f"{r['bits_per_pixel']:.4f}", f"{r['published_bits_per_pixel']:.4f}",
         *(cell(r, m) for m, _ in shown)]
        for r in d["rows"]
    ]  # fmt: skip
    return (
        f"## What each part brings\n\nPreset paper with few atoms, prior nano, {len(d['clips'])} "
        f"evaluation clips at {d['height']} px height, {d['frames']} frames in GOPs of {d['gop']}, "
        f"{d['seeds']} seeds (bench/systems/ablations.py): means with 95 % bootstrap intervals "
        "over clips and seeds; after the semicolon the paired difference to the first arm of the "
        "group. Bits per pixel of the file, and by the published count.\n\n"
        + table(["group", "arm", "bits per pixel", "published count", *(n for _, n in shown)], rows)
        + "\n\n![One frame of davis_blackswan over the stops of one file, preset free-gvc-paper, "
        "prior nano](stops.jpg)\n\nThe same file, decoded to fewer of its steps "
        "(bench/systems/stops_plot.py)."
    )


SECTIONS = {
    ablations: {"ablations"},
    marginals: {"marginals"},
    restorer_speed: {"restorer_speed"},
    base_depth: {"base_depth"},
    restorer: {"restorer"},
    bases: {"base_speed"},
    modes: {"modes"},
    chain: {"chain"},
    references: {"stills", "residual", "shares"},
    length: {"long_clip", "scenes"},
    page_control.systems: {"systems"},
    page_control.schedule: {"schedule"},
    page_control.usable: {"usable"},
    page_control.control_rcc: {"aqc"},
    page_control.control_codebook: {"aqc_codebook"},
    page_control.alignment: {"alignment"},
    page_control.own_size: {"own_size"},
    clips: {"eval_clips"},
}
