"""Write docs/results/README.md from the JSON files beside it; no number on that page is typed."""

from __future__ import annotations

import argparse
from pathlib import Path

import nano_plot
import numpy as np
import summary_eval
import summary_free
import summary_models
import summary_modes
from pages import RESULTS, load, table


def clips() -> str:
    d = load("eval_clips")
    keys = ("width", "height", "frames", "bytes", "bits_per_pixel", "psnr_db", "verified",
            "encode_s", "decode_s")  # fmt: skip
    rows = [[c["clip"], *(c[k] for k in keys)] for c in d["clips"]]
    return (
        f"## Clips at their own size\n\n`gvcc encode --bpp {d['bpp']}`, prior {d['prior']}, "
        f"preset {d['preset']}; sizes are of the real file, PSNR (RGB) of the decoded mp4. Times: "
        "on two cores shared with other work (bench/eval_clips.py).\n\n"
        + table(["clip", *keys], rows)
    )


def codebooks() -> str:
    d = load("codebook")
    keys = ("bits", "efficiency", "efficiency_stderr", "choose_s", "replay_s")
    rows = [
        [r["codebook"], r["D"], r.get("K", "= P"), r["M"], *(r[k] for k in keys),
         r.get("efficiency_as_published", "")]
        for r in d["rows"]
    ]  # fmt: skip
    return (
        "## Codebooks\n\nBits an ideal Gaussian channel needs for the same steering, over the bits "
        "written (bench/codebook.py).\n\n"
        + table(["codebook", "D", "K", "M", *keys, "efficiency, bits as published"], rows)
    )


def gaussian() -> str:
    d = load("gaussian_rd")
    rows = [[k.replace("_", " "), v] for k, v in d["at_mse"].items()]
    return (
        f"## Gaussian source\n\nD = {d['D']}, variances proportional to {d['spectrum']}, exact "
        f"denoiser, {d['calls']} network calls, at MSE {d['mse']} (bench/gaussian_rd.py). `paper` "
        'here writes subset ranks; "as published" counts M (log2 K + 1) bits a step.\n\n'
        + table(["quantity", "value"], rows)
        + "\n\n![curves](gaussian_rd.png)"
    )


def metric() -> str:
    d = load("steering_metric")
    keys = ("prior", "metric", "bpp", "bytes", "psnr_db", "ms_ssim")
    gains = ", ".join(f"{g:+.2f} dB at {b} bit/pixel" for b, g in d["gain_on_whitened_db"].items())
    return (
        f"## Steering metric\n\n{len(d['clips'])} evaluation clips, {d['frames']} frames, "
        f"{d['height']} px height, equal file sizes. A number p stands for W = sd^p. Best on the "
        f"whitened variant: {gains} (bench/steering_metric.py).\n\n"
        + table(list(keys), [[r[k] for k in keys] for r in d["rows"]])
    )


def autoencoder() -> str:
    d = load("autoencoder")
    keys = list(d["mean"])
    rows = [[c["clip"], *(c[k] for k in keys)] for c in [*d["clips"], {"clip": "mean"} | d["mean"]]]
    response = d["nano_channel_response"]
    return (
        f"## Autoencoders alone\n\n{d['frames']} frames, {d['height']} px height; PSNR (RGB), dB. "
        "The bound columns are Karhunen-Loeve bases fitted to the very clip: no linear block basis "
        "of so many channels can do better there. nano's decoder: "
        f"{d['nano_decoder_gflop_per_256x256_frame']:.2f} GFLOP per 256x256 frame; the picture's "
        "response to noise in one channel, relative to the orthonormal basis, is between "
        f"{response['min']:.2f} and {response['max']:.2f} (bench/autoencoder.py).\n\n"
        + table(["clip", *(k.removesuffix("_db").replace("_", " ") for k in keys)], rows)
    )


def denoiser() -> str:
    d = load("nano_denoiser")
    rows = [
        [t, what, v["relative"], v["mean_of_ratios"]]
        for t, s in d["summary"].items()
        for what, v in s.items()
    ]
    return (
        "## nano's denoiser\n\nSquared error of x0hat over that of the exact Gaussian denoiser on "
        "the same latents; five clips, 17 and 33 frames, 128 and 256 px height, five noise seeds "
        "(bench/nano_denoiser.py).\n\n"
        + table(["time", "known latent frames, measured over", "ratio", "mean of ratios"], rows)
    )


def rate_distortion() -> str:
    rows = []
    for name, points in nano_plot.curves().items():
        for r in points:
            keys = ("target_bpp", "bits_per_pixel", "psnr_rgb_db", "ms_ssim", "vmaf")
            rows.append([name, *(f"{r[k]:.4f}" if "b" in k[:8] else r[k] for k in keys)])
    d, anchors, presets = load("nano_rd"), load("anchors"), load("nano_presets")
    cells = d["bits_of_nano_over_gauss_at_equal_latent_mse"]
    published = presets["bits_of_default_over_paper_at_equal_latent_mse"]
    speed = load("nano_speed")
    quality = {n: [r["psnr_rgb_db"] for r in points] for n, points in nano_plot.curves().items()}
    gap = {
        n: np.subtract(q, quality["gvcc nano"])
        for n, q in quality.items()
        if not n.startswith("gvcc")
    }
    plainly = ", ".join(f"{n} by {g.min():.1f} to {g.max():.1f} dB" for n, g in gap.items())
    return (
        "## Against gauss, x265, SVT-AV1 and VVC\n\nMeans over the five evaluation clips, "
        f"{d['frames']} frames, {d['height']} px height, prior nano or gauss, preset default, T2V, "
        "one GOP; sizes of real files. The others at their slow settings, at the size nearest to "
        f"the target; {anchors['size_rule']} (bench/nano_rd.py, bench/anchors.py)\n\n"
        + table(["codec", "target bpp", "bits/pixel", "PSNR (RGB), dB", "MS-SSIM", "VMAF"], rows)
        + "\n\n**PSNR of the other codecs over nano's at the same target, least and most of the "
        + f"four rates: {plainly}.** "
        "A prior this small is a demonstration, not a competitor."
        "\n\n![curves](nano_rd.png)\n\n![one frame at equal size](nano_frame.png)\n\n"
        f"At equal latent error nano needs {cells['geometric_mean']:.3f} of the bits of the exact "
        f"Gaussian denoiser on the same latents ({len(cells['cells'])} cells). Preset default "
        f"needs {published['geometric_mean']:.3f} of the bits of preset paper with nano "
        f"({published['geometric_mean_of_published_count']:.3f} of the published count of its "
        f"bits), measured at {presets['height']} px height and {presets['frames']} frames "
        "(bench/nano_presets.py).\n\n"
        f"`gvcc decode` of {speed['frames']} frames of {speed['width']}x{speed['height']}: "
        f"{speed['decode_s']} s and {speed['decode_peak_mb']} MB on {speed['cores']} cores; "
        f"encoding: {speed['encode_s']} s (bench/nano_speed.py)."
    )


SECTIONS = {
    summary_eval.standing: {"eval_quick", "autoencoder"},
    summary_eval.sweep: {"sweep"},
    summary_modes.modes: {"modes"},
    summary_modes.chain: {"chain"},
    summary_modes.references: {"stills", "residual", "shares"},
    summary_modes.length: {"long_clip", "scenes"},
    summary_free.systems: {"systems"},
    summary_free.control_rcc: {"aqc"},
    summary_free.control_codebook: {"aqc_codebook"},
    summary_free.alignment: {"alignment"},
    summary_free.speed: {"rcc_speed"},
    summary_free.own_size: {"own_size"},
    summary_models.few_calls: {"few_calls"},
    summary_models.full_size: {"full_size"},
    summary_models.drift: {"drift"},
    rate_distortion: {"nano_rd", "anchors", "nano_presets", "nano_speed"},
    clips: {"eval_clips"},
    autoencoder: {"autoencoder"},
    denoiser: {"nano_denoiser"},
    gaussian: {"gaussian_rd"},
    summary_free.coders: {"gaussian_rd"},
    codebooks: {"codebook"},
    metric: {"steering_metric"},
}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--out", type=Path, default=RESULTS / "README.md")
    measured = {p.stem for p in RESULTS.glob("*.json")}
    parts = ["# Results"]
    for section, needs in SECTIONS.items():
        if needs <= measured:  # a bench that was not run yet has no section
            parts.append(section())
    parser.parse_args().out.write_text("\n\n".join(filter(None, parts)) + "\n")


if __name__ == "__main__":
    main()
