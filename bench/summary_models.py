"""Parts of the results page on the published models; also fills the table of drift in
docs/format.md (`python bench/summary_models.py`)."""

from __future__ import annotations

from pages import RESULTS, load, table

FORMAT = RESULTS.parent / "format.md"
MARK = "<!-- drift -->\n"


def full_size() -> str:
    d = load("full_size")
    rows = []
    for r in d["rows"]:
        for part, side in (("encode", "encoder"), ("decode", "decoder")):
            p = r[part]
            rows.append([
                r["model"], r["size"], part, p["s"], p["network_calls"], p["s_per_call"],
                p["codebook_s"], f"{p['codebook_share']:.2%}",
                f"{r['published_search'][f'over_ours_{side}']:.0f}", str(r.get("peak_gb", "-")),
            ])  # fmt: skip
    reduced = (
        "**No GPU was at hand: a network of 4 blocks, 9 frames of 128x96, on two CPU cores. Only "
        "the ratio of the two searches says anything.** " if d["reduced"] else ""
    )  # fmt: skip
    return (
        f"## Models of full size\n\nRandom weights, {d['device']}, PyTorch {d['torch']}. {reduced}"
        "`published`: time of the published search (K = 16384 atoms drawn one by one, and again at "
        "the decoder) for a whole GOP over ours (bench/full_size.py).\n\n"
        + table(
            [
                "model",
                "size",
                "",
                "s",
                "network calls",
                "s a call",
                "codebook, s",
                "share",
                "published over ours",
                "peak GB",
            ],
            rows,
        )  # fmt: skip
    )


def few_calls() -> str:
    d = load("few_calls")
    keys = ("case", "bpp", "calls", "decode_s", "psnr_db", "over_20_steps_db")
    return (
        f"## Fewer network calls\n\nPrior {d['prior']}, preset default, t2v, {d['frames']} frames "
        f"at {d['height']} px height, means over the evaluation clips at equal file size. `reuse "
        "p` calls the network at every p-th coded step and keeps its x0hat between; the others "
        "take fewer steps. Seconds of the whole decode on one core shared with other work "
        "(bench/few_calls.py).\n\n" + table(list(keys), [[m[k] for k in keys] for m in d["means"]])
    )


def drift_table() -> str:
    d = load("drift")
    rows = [
        [r["prior"], r["case"], r["check"], "yes" if r["equal"] else "no",
         "-" if r["equal"] else f"{r['pictures_db']:.1f}", f"{r['loss_db']:.4f}"]
        for r in d["rows"]
    ]  # fmt: skip
    return table(["prior", "decoded with", "check", "same bits", "pictures, dB", "loss, dB"], rows)


def drift() -> str:
    d = load("drift")
    return (
        f"## Drift\n\n{d['clip']}, {d['frames']} frames, {d['bpp']} bits per pixel; a file encoded "
        "here and decoded on another set-up, see docs/format.md, section 15 (bench/drift.py).\n\n"
        + drift_table()
    )


if __name__ == "__main__":
    text = FORMAT.read_text()
    FORMAT.write_text(text.partition(MARK)[0] + MARK + "\n" + drift_table() + "\n")
