"""The page of codebooks: what names the noise, what that costs, how fast it is."""

from __future__ import annotations

from typing import Any

from bench.pages import load, table

TITLE = "Codebooks and coders"


def decided() -> str:
    at, gain = (
        load("codebooks/gaussian_rd")["at_mse"],
        load("codebooks/steering_metric")["gain_on_whitened_db"],
    )
    speed = load("codebooks/paper_speed")
    return (
        "Which code names the noise, and how. On a Gaussian source preset default needs "
        f"{at['default_over_paper']:.3f} of the bits of preset paper at equal error; a steering "
        f"metric is worth {max(gain.values()):.1f} dB where a prior's latents are not isometric; "
        f"drawing the published atoms once takes {speed['encode']['share']:.2f} of the time to "
        "encode."
    )


def codebooks() -> str:
    d = load("codebooks/codebook")
    keys = ("bits", "efficiency", "efficiency_stderr", "choose_s", "replay_s")
    rows = [
        [r["codebook"], r["D"], r.get("K", "= P"), r["M"], *(r[k] for k in keys),
         r.get("efficiency_as_published", "")]
        for r in d["rows"]
    ]  # fmt: skip
    return (
        "## Codebooks\n\nBits an ideal Gaussian channel needs for the same steering, over the bits "
        "written (bench/codebooks/codebook.py).\n\n"
        + table(["codebook", "D", "K", "M", *keys, "efficiency, bits as published"], rows)
    )


def gaussian() -> str:
    d = load("codebooks/gaussian_rd")
    rows = [[k.replace("_", " "), v] for k, v in d["at_mse"].items()]
    return (
        f"## Gaussian source\n\nD = {d['D']}, variances proportional to {d['spectrum']}, exact "
        f"denoiser, {d['calls']} network calls, at MSE {d['mse']} "
        '(bench/codebooks/gaussian_rd.py). `paper` here writes subset ranks; "as published" counts '
        "M (log2 K + 1) bits a step.\n\n"
        + table(["quantity", "value"], rows)
        + "\n\n![curves](gaussian_rd.png)"
    )


def coders() -> str:
    d = load("codebooks/gaussian_rd")
    found: dict[str, list[dict[str, Any]]] = d.get("coders_over_exact", {})
    rows = [[name, r["mse"], r["ratio"], r["power"]] for name, of in found.items() for r in of]
    if not rows:
        return ""
    return (
        "## Coders of a trajectory\n\nReverse channel coding and the sectioned Hadamard code on "
        f"the Gaussian source (D = {d['D']}), the same steps: bits over those of an exact channel "
        "(as many as the steps have information) at the same error, and the output's power over "
        "the source's (bench/codebooks/gaussian_rd.py).\n\n"
        + table(["coder", "MSE", "bits over exact", "power"], rows)
    )


def over() -> str:
    d = load("codebooks/over_rd")
    rows = [
        [b["S"], b["mse_of_base"], r["coder"], r["part"], r["bits"], r["over_bound"]]
        for b in d["bases"] for r in b["at"]
    ]  # fmt: skip
    return (
        f"## Over a base\n\nThe Gaussian source of D = {d['D']} with a base whose error has the "
        "variance S in every coefficient: bits of the trajectory over the conditional "
        "rate-distortion bound (reverse water-filling of what the base leaves), at parts of the "
        "error that the base alone leaves. `exact` is the channel itself "
        "(bench/codebooks/over_rd.py).\n\n"
        + table(["S", "MSE of the base", "coder", "part of it", "bits", "bits over bound"], rows)
        + "\n\n![curves](over_rd.png)"
    )


def metric() -> str:
    d = load("codebooks/steering_metric")
    keys = ("prior", "metric", "bpp", "bytes", "psnr_db", "ms_ssim")
    gains = ", ".join(f"{g:+.2f} dB at {b} bit/pixel" for b, g in d["gain_on_whitened_db"].items())
    return (
        f"## Steering metric\n\n{len(d['clips'])} evaluation clips, {d['frames']} frames, "
        f"{d['height']} px height, equal file sizes. A number p stands for W = sd^p. Best on the "
        f"whitened variant: {gains} (bench/codebooks/steering_metric.py).\n\n"
        + table(list(keys), [[r[k] for k in keys] for r in d["rows"]])
    )


def speed() -> str:
    d = load("codebooks/rcc_speed")
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
        f"height, prior {of['prior']} (bench/codebooks/rcc_speed.py). Slowest step, choosing and "
        "replaying: "
        f"{d['slowest_step_cpu_s']:.2f} s of processor time, {d['slowest_step_s']:.2f} s by the "
        f"wall clock; all steps: {d['of_gop_s']} s.\n\n"
        + table(["step", *(k.replace("_", " ") for k in keys)], rows)
    )


def paper_speed() -> str:
    d = load("codebooks/paper_speed")
    keys = ("before_s", "now_s", "share", "before_cpu_s", "now_cpu_s", "cpu_share")
    parts = [k for k, v in d.items() if isinstance(v, dict)]
    return (
        f"## Speed of the published codebook\n\nPreset paper, K = {d['K']}, M = {d['M']}, prior "
        f"{d['prior']}, {d['frames']} frames of {d['width']}x{d['height']}, {d['threads']} threads "
        f"on {d['cores']} cores. `before`: every atom drawn by itself, and again where it is "
        "replayed; `now`: side by side, and once in the encoder. The least of "
        f"{d['steps']} steps and {d['files']} file; files and pictures are the same, bit by bit "
        "(bench/codebooks/paper_speed.py).\n\n"
        + table(
            ["part", *(k.replace("_", " ") for k in keys)],
            [[p, *(d[p][k] for k in keys)] for p in parts],
        )
    )


def streams() -> str:
    d = load("codebooks/streams")
    rows = [[p, *(r[k] for k in ("torch_s", "counter_s", "ratio"))] for p, r in d["parts"].items()]
    return (
        f"## Streams of atoms\n\nPreset paper's codebook, K = {d['K']} atoms of D = {d['D']}, M = "
        f"{d['M']}, {d['threads']} threads on {d['cores']} cores, the least of three: the search "
        "of an encoder and the replay of a decoder, of one frame-step and of four "
        "(bench/codebooks/streams.py). The counter's atoms are made on any device, one without "
        "the others.\n\n" + table(["frame-steps", "torch, s", "counter, s", "ratio"], rows)
    )


SECTIONS = {
    streams: {"streams"},
    codebooks: {"codebook"},
    gaussian: {"gaussian_rd"},
    coders: {"gaussian_rd"},
    over: {"over_rd"},
    metric: {"steering_metric"},
    speed: {"rcc_speed"},
    paper_speed: {"paper_speed"},
}
