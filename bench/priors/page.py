"""The page of priors: the autoencoders alone, the denoiser alone, and what both save."""

from __future__ import annotations

import math

from bench.pages import load, table

TITLE = "Priors in the package"


def decided() -> str:
    bits = load("priors/nano_rd")["bits_of_nano_over_gauss_at_equal_latent_mse"]["geometric_mean"]
    mean = load("priors/autoencoder")["mean"]
    return (
        f"What a learned prior is worth. nano's denoiser needs {bits:.3f} of the bits of the exact "
        "Gaussian one at equal latent error; its autoencoder alone gives "
        f"{mean['nano_psnr_rgb_db']:.1f} dB, the linear one of gauss "
        f"{mean['gauss_psnr_rgb_db']:.1f} dB."
    )


def autoencoder() -> str:
    d = load("priors/autoencoder")
    keys = list(d["mean"])
    rows = [[c["clip"], *(c[k] for k in keys)] for c in [*d["clips"], {"clip": "mean"} | d["mean"]]]
    response = d["nano_channel_response"]
    return (
        f"## Autoencoders alone\n\n{d['frames']} frames, {d['height']} px height; PSNR (RGB), dB. "
        "The bound columns are Karhunen-Loeve bases fitted to the very clip: no linear block basis "
        "of so many channels can do better there. nano's decoder: "
        f"{d['nano_decoder_gflop_per_256x256_frame']:.2f} GFLOP per 256x256 frame; the picture's "
        "response to noise in one channel, relative to the orthonormal basis, is between "
        f"{response['min']:.2f} and {response['max']:.2f} (bench/priors/autoencoder.py).\n\n"
        + table(["clip", *(k.removesuffix("_db").replace("_", " ") for k in keys)], rows)
    )


def denoiser() -> str:
    d = load("priors/nano_denoiser")
    rows = [
        [t, what, v["relative"], v["mean_of_ratios"]]
        for t, s in d["summary"].items()
        for what, v in s.items()
    ]
    return (
        "## nano's denoiser\n\nSquared error of x0hat over that of the exact Gaussian denoiser on "
        "the same latents; five clips, 17 and 33 frames, 128 and 256 px height, five noise seeds "
        "(bench/priors/nano_denoiser.py).\n\n"
        + table(["time", "known latent frames, measured over", "ratio", "mean of ratios"], rows)
    )


def variances() -> str:
    d = load("priors/variances")
    rows = [
        [g, sum(m) / len(m), min(m), max(m), rms(m, c)]
        for g, m, c in zip(d["log2_snr"], d["measured"], d["by_codes"], strict=True)
    ]
    return (
        f"## What nano leaves of a latent\n\nThe variance of the latent around x0hat on "
        f"{d['clips']} training clips, over the channels, and how far the codes that a header "
        "carries are from it: for trajectories over a base (docs/format.md 16.3; "
        "bench/priors/variances.py).\n\n"
        + table(["log2 SNR", "mean", "least", "most", "codes, RMS of log2"], rows)
    )


def rms(measured: list[float], made: list[float]) -> float:
    """Root mean square of the difference in log2."""
    off = [math.log2(a / b) ** 2 for a, b in zip(measured, made, strict=True)]
    return math.sqrt(sum(off) / len(off))


def saved() -> str:
    cells = load("priors/nano_rd")["bits_of_nano_over_gauss_at_equal_latent_mse"]
    presets, speed = load("priors/nano_presets"), load("priors/nano_speed")
    published = presets["bits_of_default_over_paper_at_equal_latent_mse"]
    return (
        "## What nano saves\n\n"
        f"At equal latent error nano needs {cells['geometric_mean']:.3f} of the bits of the exact "
        f"Gaussian denoiser on the same latents ({len(cells['cells'])} cells, "
        "bench/priors/nano_rd.py). Preset default "
        f"needs {published['geometric_mean']:.3f} of the bits of preset paper with nano "
        f"({published['geometric_mean_of_published_count']:.3f} of the published count of its "
        f"bits), measured at {presets['height']} px height and {presets['frames']} frames "
        "(bench/priors/nano_presets.py). Both priors beside the classical codecs: "
        "[anchors](../anchors/README.md).\n\n"
        f"`gvcc decode` of {speed['frames']} frames of {speed['width']}x{speed['height']}: "
        f"{speed['decode_s']} s and {speed['decode_peak_mb']} MB on {speed['cores']} cores; "
        f"encoding: {speed['encode_s']} s (bench/priors/nano_speed.py)."
    )


SECTIONS = {
    autoencoder: {"autoencoder"},
    denoiser: {"nano_denoiser"},
    variances: {"variances"},
    saved: {"nano_rd", "nano_presets", "nano_speed"},
}
