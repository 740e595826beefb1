"""The part of the page of systems on trajectory coding: stops, quality control, alignment."""

from __future__ import annotations

import numpy as np

from bench.pages import load, table


def systems() -> str:
    d = load("systems/systems")
    keys = ("knob", "bytes", "bits_per_pixel", "psnr_rgb_db", "vmaf", "tof")
    rows = [[s, *(r[k] for k in keys)] for s, points in d["means"].items() for r in points]
    equal = d["bits_over_reference_at_equal_psnr"]
    ratios = [[s, len(v["cells"]), v["geometric_mean"], min(v["cells"].values()),
               max(v["cells"].values())] for s, v in equal.items()]  # fmt: skip
    return (
        f"## The two systems\n\nMeans over the evaluation clips, prior {d['prior']}, "
        f"{d['width']}x{d['height']}, one GOP of {d['frames']} frames; bytes of real files. The "
        "knob is M for preset paper (K = 16384) and the target in bits per pixel for the others. "
        "MS-SSIM is not defined at this size (bench/systems/systems.py).\n\n"
        + table(["system", "knob", "bytes", "bits/pixel", "PSNR (RGB), dB", "VMAF", "tOF"], rows)
        + f"\n\nBits over those of {d['reference']} at equal PSNR, clip by clip, at the points of "
        f"{d['reference']} that lie within the other curve:\n\n"
        + table(["system", "points", "geometric mean", "least", "most"], ratios)
        + "\n\n![curves](systems.png)"
    )


def schedule() -> str:
    d = load("systems/schedule")
    of, names = list(d["priors"].values()), list(d["priors"])
    keys = ("times_in_65536ths", "information_bpp", "ideal_bpp")
    rows = [[i, *(p[k][i] for p in of for k in keys)] for i in range(d["steps"] + 1)]
    head = [f"{n}, {k.replace('_', ' ')}" for n in names for k in keys]
    return (
        f"## Schedules\n\nThe {d['steps']} coded steps of a trajectory, found by dynamic "
        f"programming over information measured on training clips ({d['frames']} frames, "
        f"{d['height']} px height): time after each step, the information of all steps up to "
        "there, and that of infinitely many steps, in bits per pixel "
        "(bench/systems/schedule.py).\n\n" + table(["step", *head], rows)
    )


def usable() -> str:
    d = load("systems/usable")
    keys = ("bits_per_pixel", "bits_per_value", "psnr_db")
    rows = [[r["clip"], *(r[k] for k in keys)] for r in d["rows"]]
    gains = []
    for clip in dict.fromkeys(r["clip"] for r in d["rows"]):
        last, most = [r for r in d["rows"] if r["clip"] == clip][-2:]
        gains.append(most["psnr_db"] - last["psnr_db"])
    return (
        f"## Bits that a latent can use\n\nPrior {d['prior']}, preset default, {d['frames']} "
        f"frames of {d['height']} lines; bits of the whole file. The last step of the rate gains "
        f"{max(gains):.2f} dB at most, so that an encode far above it is refused "
        "(bench/systems/usable.py, which sets USABLE_BITS).\n\n"
        + table(["clip", *(k.replace("_", " ") for k in keys)], rows)
    )


def control_rcc() -> str:
    return "## Quality control\n\n" + control("aqc")


def control_codebook() -> str:
    return "## Quality control with the codebook\n\n" + control("aqc_codebook")


def control(name: str) -> str:
    d = load(f"systems/{name}")
    keys = (
        "goal", "tolerance", "gops", "after_third", "within", "share_within", "probes_per_gop",
        "bytes", "bits_per_pixel", "variance", "variance_fixed_stop", "variance_ratio",
    )  # fmt: skip
    rows = [[*what.split(), *(j[k] for k in keys)] for what, j in d["judged"].items()]
    measured = list(next(iter(d["surrogate"].values())))
    single = {m: [j for n, j in d["judged"].items()
                  if n.endswith(m) and not n.startswith("programme")]
              for m in measured}  # fmt: skip
    together = [
        [m, sum(j["within"] for j in of) / sum(j["after_third"] for j in of),
         sum(j["variance"] * j["gops"] for j in of)
         / sum(j["variance_fixed_stop"] * j["gops"] for j in of)]
        for m, of in single.items() if of
    ]  # fmt: skip
    forms = list(next(iter(d["surrogate"].values()))["psnr"])
    left = [[n, m, *(e[f] for f in forms)] for n, of in d["surrogate"].items()
            for m, e in of.items()]  # fmt: skip
    for m in measured:
        of = [e[m] for e in d["surrogate"].values()]
        left.append(["mean", m, *(float(np.mean([e[f] for e in of])) for f in forms)])
    return (
        f"Prior {d['prior']}, preset {d['preset']}, coder {d['coder']}, mode "
        f"{d['mode']}, {d['width']}x{d['height']}, GOPs of {d['gop']} frames, the evaluation clips "
        "whole (but for frames of no whole GOP); `programme` is all of them joined, so that it has "
        "scene changes. Real files with a goal. `variance` is that of the quality over GOPs; "
        "beside it that of a fixed stop at the same mean rate, interpolated between two stops; "
        "`within` counts GOPs after the third; LPIPS and DISTS are negated "
        "(bench/systems/aqc.py).\n\n"
        + table(["clip", "metric", *(k.replace("_", " ") for k in keys)], rows)
        + "\n\nAll clips, each with its own goal:\n\n"
        + table(["metric", "share within", "variance over that of fixed stops"], together)
        + f"\n\nLeave-one-out error of the surrogate's forms, fitted to the qualities of a GOP at "
        f"stops {', '.join(map(str, d['stops']))} (root mean square over GOPs; `best`: the form "
        "chosen anew for each GOP):\n\n"
        + table(["clip", "metric", *forms], left)
        + f"\n\n![quality control]({name}.png)"
    )


def alignment() -> str:
    d = load("systems/alignment")
    parts = [
        f"## Alignment of GOPs\n\nPrior {d['prior']}, preset {d['preset']}, coder {d['coder']}, "
        f"{d['frames']} frames at {d['height']} px height, GOPs of {d['gop']}, overlap "
        f"{d['overlap']}; bytes of real files, means over clips. Error of the change from frame to "
        "frame in grey levels, tOF in pixels. `excess`: the worst change of the six around a "
        "boundary less the median of those near it; `control`: the same of six changes that are at "
        "no boundary; `net`: excess less control; `mean excess`: the mean of the six in place of "
        "the worst (bench/systems/alignment.py)."
    ]
    names = {"stop": f"stop {d['stop']} in every GOP", "size": f"{d['bpp']} bits per pixel"}
    keys = (
        "bytes", "bits_per_pixel", "psnr_rgb_db", "tof", "error_excess", "error_control",
        "error_net", "error_mean_excess", "motion_excess", "motion_control", "motion_net",
    )  # fmt: skip
    for target, bar in d["bars"].items():
        rows = [[v, *(m[k] for k in keys)]
                for v, m in bar["means"].items()]  # fmt: skip
        head = [k.replace("_", " ").replace("motion", "tOF") for k in keys]
        ratios = [[k.split("_")[0], k.split("_")[2], " ".join(k.split("_")[3:]), v]
                  for k, v in bar["ratios"].items()]  # fmt: skip
        for row in ratios:
            row[2] = row[2].replace("motion", "tOF")
        parts.append(
            f"{names[target]}, {bar['clips']} clips:\n\n"
            + table(["alignment", *head], rows)
            + "\n\n"
            + table(["of", "over", "quantity", "ratio"], ratios)
        )
    head = ["clip", "target", "alignment", "bytes", "PSNR, dB", "tOF", "error excess",
            "error control", "tOF excess", "tOF control"]  # fmt: skip
    rows = [
        [c["clip"], c["target"], c["variant"], c["bytes"], c["psnr_rgb_db"], c["tof"],
         c["error"]["excess"], c["error"]["control"],
         c["motion"]["excess"], c["motion"]["control"]]
        for c in d["cells"]
    ]  # fmt: skip
    parts += [table(head, rows), "![alignment](alignment.png)"]
    return "\n\n".join(parts)


def own_size() -> str:
    d = load("systems/own_size")
    keys = ("width", "height", "frames", "bytes", "target_bytes", "bits_per_pixel", "verified",
            "encode_and_verify_s", "decode_s")  # fmt: skip
    rows = [[c["clip"], c.get("case", c.get("mode")),
             *("" if c.get(k) is None else c[k] for k in keys), " ".join(c["gop_modes"])]
            for c in d["cells"]]  # fmt: skip
    cases = "; ".join(f"{c}: `{options}`" for c, options in d.get("cases", {}).items())
    return (
        f"## Every clip at its own size\n\nPrior {d['prior']}, GOPs of {d['gop']} frames; encoded, "
        "verified and decoded by the command line in processes of its own; bytes of real files "
        f"(bench/systems/own_size.py). {cases}\n\n"
        + table(["clip", "case", *(k.replace("_", " ") for k in keys), "modes of the GOPs"], rows)
    )
