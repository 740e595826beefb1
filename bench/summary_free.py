"""The sections of the results page on trajectory coding: systems, quality control, alignment."""

from __future__ import annotations

from typing import Any

import numpy as np
from pages import load, table


def systems() -> str:
    d = load("systems")
    keys = ("knob", "bytes", "bits_per_pixel", "psnr_rgb_db", "vmaf", "tof")
    rows = [[s, *(r[k] for k in keys)] for s, points in d["means"].items() for r in points]
    equal = d["bits_over_reference_at_equal_psnr"]
    ratios = [[s, len(v["cells"]), v["geometric_mean"], min(v["cells"].values()),
               max(v["cells"].values())] for s, v in equal.items()]  # fmt: skip
    return (
        f"## The two systems\n\nMeans over the evaluation clips, prior {d['prior']}, "
        f"{d['width']}x{d['height']}, one GOP of {d['frames']} frames; bytes of real files. The "
        "knob is M for preset paper (K = 16384) and the target in bits per pixel for the others. "
        "MS-SSIM is not defined at this size (bench/systems.py).\n\n"
        + table(["system", "knob", "bytes", "bits/pixel", "PSNR (RGB), dB", "VMAF", "tOF"], rows)
        + f"\n\nBits over those of {d['reference']} at equal PSNR, clip by clip, at the points of "
        f"{d['reference']} that lie within the other curve:\n\n"
        + table(["system", "points", "geometric mean", "least", "most"], ratios)
        + "\n\n![curves](systems.png)"
    )


def control_rcc() -> str:
    return "## Quality control\n\n" + control("aqc")


def control_codebook() -> str:
    return "## Quality control with the codebook\n\n" + control("aqc_codebook")


def control(name: str) -> str:
    d = load(name)
    keys = (
        "goal", "tolerance", "gops", "after_third", "within", "share_within", "probes_per_gop",
        "bytes", "bits_per_pixel", "variance", "variance_fixed_stop", "variance_ratio",
    )  # fmt: skip
    rows = [[*what.split(), *(j[k] for k in keys)] for what, j in d["judged"].items()]
    single = {m: [j for n, j in d["judged"].items()
                  if n.endswith(m) and not n.startswith("programme")]
              for m in ("psnr", "vmaf")}  # fmt: skip
    together = [
        [m, sum(j["within"] for j in of) / sum(j["after_third"] for j in of),
         sum(j["variance"] * j["gops"] for j in of)
         / sum(j["variance_fixed_stop"] * j["gops"] for j in of)]
        for m, of in single.items() if of
    ]  # fmt: skip
    forms = list(next(iter(d["surrogate"].values()))["psnr"])
    left = [[n, m, *(e[f] for f in forms)] for n, of in d["surrogate"].items()
            for m, e in of.items()]  # fmt: skip
    for m in ("psnr", "vmaf"):
        of = [e[m] for e in d["surrogate"].values()]
        left.append(["mean", m, *(float(np.mean([e[f] for e in of])) for f in forms)])
    return (
        f"Prior {d['prior']}, preset {d['preset']}, coder {d['coder']}, mode "
        f"{d['mode']}, {d['width']}x{d['height']}, GOPs of {d['gop']} frames, the evaluation clips "
        "whole (but for frames of no whole GOP); `programme` is all of them joined, so that it has "
        "scene changes. Real files with a goal. `variance` is that of the quality over GOPs; "
        "beside it that of a fixed stop at the same mean rate, interpolated between two stops; "
        "`within` counts GOPs after the third (bench/aqc.py).\n\n"
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
    d = load("alignment")
    parts = [
        f"## Alignment of GOPs\n\nPrior {d['prior']}, preset {d['preset']}, coder {d['coder']}, "
        f"{d['frames']} frames at {d['height']} px height, GOPs of {d['gop']}, overlap "
        f"{d['overlap']}; bytes of real files, means over clips. Error of the change from frame to "
        "frame in grey levels, tOF in pixels. `excess`: the worst change of the six around a "
        "boundary less the median of those near it; `control`: the same of six changes that are at "
        "no boundary; `net`: excess less control; `mean excess`: the mean of the six in place of "
        "the worst (bench/alignment.py)."
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


def speed() -> str:
    d = load("rcc_speed")
    keys = ("bits", "chunks", "candidates", "choose_s", "choose_slowest_s", "choose_cpu_s",
            "replay_s", "replay_slowest_s", "replay_cpu_s")  # fmt: skip
    rows = [[i, *(s[k] for k in keys)] for i, s in enumerate(d["steps"])]
    rows.append(["mean step", *(d["mean_step"][k] for k in keys)])
    of = d["shares_of"]
    return (
        f"## Speed of reverse channel coding\n\nEach coded step of a {d['frames']}-frame GOP of "
        f"{d['width']}x{d['height']} (D = {d['D']}) at {d['bpp']} bits per pixel, {d['threads']} "
        f"threads on {d['cores']} cores shared with other work (load {d['load']}); least (and "
        f"slowest) of {d['repeats']} repetitions, and the processor time of all threads together. "
        f"Bits as in {of['frames']} frames of {of['clip']} at {of['height']} px "
        f"height, prior {of['prior']} (bench/rcc_speed.py). Slowest step, choosing and replaying: "
        f"{d['slowest_step_cpu_s']:.2f} s of processor time, {d['slowest_step_s']:.2f} s by the "
        f"wall clock; all steps: {d['of_gop_s']} s.\n\n"
        + table(["step", *(k.replace("_", " ") for k in keys)], rows)
    )


def coders() -> str:
    d = load("gaussian_rd")
    found: dict[str, list[dict[str, Any]]] = d.get("coders_over_exact", {})
    rows = [[name, r["mse"], r["ratio"], r["power"]] for name, of in found.items() for r in of]
    if not rows:
        return ""
    return (
        "## Coders of a trajectory\n\nReverse channel coding and the sectioned Hadamard code on "
        f"the Gaussian source (D = {d['D']}), the same steps: bits over those of an exact channel "
        "(as many as the steps have information) at the same error, and the output's power over "
        "the source's (bench/gaussian_rd.py).\n\n"
        + table(["coder", "MSE", "bits over exact", "power"], rows)
    )


def own_size() -> str:
    d = load("own_size")
    keys = ("width", "height", "frames", "bytes", "target_bytes", "bits_per_pixel", "verified",
            "encode_and_verify_s", "decode_s")  # fmt: skip
    rows = [[c["clip"], c.get("case", c.get("mode")),
             *("" if c.get(k) is None else c[k] for k in keys), " ".join(c["gop_modes"])]
            for c in d["cells"]]  # fmt: skip
    cases = "; ".join(f"{c}: `{options}`" for c, options in d.get("cases", {}).items())
    return (
        f"## Every clip at its own size\n\nPrior {d['prior']}, GOPs of {d['gop']} frames; encoded, "
        "verified and decoded by the command line in processes of its own; bytes of real files "
        f"(bench/own_size.py). {cases}\n\n"
        + table(["clip", "case", *(k.replace("_", " ") for k in keys), "modes of the GOPs"], rows)
    )
