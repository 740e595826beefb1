"""The page of published models, and the table of drift in docs/format.md."""

from __future__ import annotations

from bench.pages import ROOT, load, table

TITLE = "Published models"
FORMAT = ROOT / "docs/format.md"
MARK = "<!-- drift -->\n"


def decided() -> str:
    found = {
        (m["case"], m["bpp"]): m["over_20_steps_db"] for m in load("models/few_calls")["means"]
    }
    reuse, steps = ([v for (c, _), v in found.items() if c == k] for k in ("reuse 2", "12 steps"))
    drifts = [r["pictures_db"] for r in load("models/drift")["rows"] if r["prior"] == "nano"]
    return (
        "What fewer network calls cost, how long full-size networks take, and how far pictures "
        "drift on another machine. On nano, x0hat kept for every second step loses up to "
        f"{-min(reuse):.2f} dB, 12 steps with a call at each up to {-min(steps):.2f} dB; across "
        f"instruction sets nano's pictures agree to {min(drifts):.0f} dB. No real weights were at "
        "hand."
    )


def full_size() -> str:
    d = load("models/full_size")
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
        "the decoder) for a whole GOP over ours (bench/models/full_size.py).\n\n"
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
    d = load("models/few_calls")
    keys = ("case", "bpp", "calls", "decode_s", "psnr_db", "over_20_steps_db")
    return (
        f"## Fewer network calls\n\nPrior {d['prior']}, preset default, t2v, {d['frames']} frames "
        f"at {d['height']} px height, means over the evaluation clips at equal file size. `reuse "
        "p` calls the network at every p-th coded step and keeps its x0hat between; the others "
        "take fewer steps. Seconds of the whole decode on one core shared with other work "
        "(bench/models/few_calls.py).\n\n"
        + table(list(keys), [[m[k] for k in keys] for m in d["means"]])
    )


def drift_table() -> str:
    d = load("models/drift")
    rows = [
        [r["prior"], r["case"], r["check"], "yes" if r["equal"] else "no",
         "-" if r["equal"] else f"{r['pictures_db']:.1f}", f"{r['loss_db']:.4f}"]
        for r in d["rows"]
    ]  # fmt: skip
    return table(["prior", "decoded with", "check", "same bits", "pictures, dB", "loss, dB"], rows)


def drift() -> str:
    d = load("models/drift")
    return (
        f"## Drift\n\n{d['clip']}, {d['frames']} frames, {d['bpp']} bits per pixel; a file encoded "
        "here and decoded on another set-up, see docs/format.md, section 15 "
        "(bench/models/drift.py).\n\n" + drift_table()
    )


def fill_format() -> None:
    """Put the table of drift at the end of its section of docs/format.md."""
    before, _, behind = FORMAT.read_text().partition(MARK)
    rest = "".join(behind.partition("\n## ")[1:])
    FORMAT.write_text(before + MARK + "\n" + drift_table() + "\n" + rest)


SECTIONS = {
    few_calls: {"few_calls"},
    full_size: {"full_size"},
    drift: {"drift"},
}
