"""The command `gvcc encode`."""

from __future__ import annotations

import hashlib
import json
import sys
import time
from dataclasses import asdict
from functools import partial
from io import BytesIO
from typing import TYPE_CHECKING, Annotated, Any

import typer

from gvcc import files, priors
from gvcc.cli.terminal import (
    OFFLOAD,
    RATE,
    Device,
    Json,
    Output,
    Overwrite,
    Source,
    VerificationFailed,
    check_output,
    codec_bar,
    growing,
    open_stream,
    rates,
    say,
    tell,
)
from gvcc.errors import ConfigError, GvccError, MediaError

if TYPE_CHECKING:
    from gvcc.records import Clip
    from gvcc.search.quality import Goal


def _figures(size: int, clip: Clip) -> dict[str, Any]:
    """What a report of encode or decode says of a file of `size` bytes and its clip."""
    shape = clip.count, clip.height, clip.width
    about = {"frames": clip.count, "width": clip.width, "height": clip.height}
    return about | {"fps": str(clip.fps)} | rates(size, shape, clip.fps)


_target = partial(typer.Option, rich_help_panel="Target (at most one)")
_read = partial(typer.Option, rich_help_panel="What is read")
_how = partial(typer.Option, rich_help_panel="How it is coded")
_model = partial(typer.Option, rich_help_panel="Of a published model as prior; kept in the file")
_trial = partial(typer.Option, rich_help_panel="Experiments")


def encode(
    source: Source,
    output: Output,
    overwrite: Overwrite = False,
    resume: Annotated[bool, typer.Option("--resume",
        help="Go on with OUTPUT.part, which a broken-off encode left.")] = False,
    verify: Annotated[bool, typer.Option("--verify",
        help="Decode the finished file and compare with the encoder's pictures.")] = False,
    device: Device = "auto",
    as_json: Json = False,
    bpp: Annotated[float | None, _target(help="Bits per pixel, the whole file counted.")] = None,
    kbps: Annotated[float | None, _target(help="Kilobits per second.")] = None,
    size: Annotated[int | None, _target(help="Bytes of the file.")] = None,
    quality: Annotated[str | None, _target(help="What every GOP should have: psnr:28, "
        "ms-ssim:0.95, vmaf:60, lpips:0.2 or dists:0.1 (these two need weights), whatever it "
        "takes.")] = None,
    atoms: Annotated[int | None, _target("-M", "--atoms",
        help="Atoms per step and latent frame, the same everywhere.")] = None,
    frames: Annotated[int | None, _read(min=1, help="Only the first so many frames.")] = None,
    fps: Annotated[str | None, _read(help=RATE)] = None,
    audio: Annotated[bool, _read(help="Carry the audio track.")] = True,
    audio_track: Annotated[int | None, _read(min=1, help="Which of several audio tracks, from 1; "
        "default: the one that the file calls its default.")] = None,
    matrix: Annotated[str | None, _read(help="Colour matrix, whatever the file says: bt709, "
        "bt601, bt2020nc.")] = None,
    strict: Annotated[bool, _read("--strict", help="Refuse a source that is damaged: exit code 1, "
        "and no output.")] = False,
    preset: Annotated[str, _how(help="default (ours), v2v (a base by a classical codec), paper "
        "(GVCC's algorithm), free-gvc (trajectory coding), or free-gvc-paper (the same by reverse "
        "channel coding, with shared frames blended).")] = "default",
    mode: Annotated[str | None, _how(help="v2v (GOPs of up to 10 s by AV1 or VVC, which a network "
        "makes better or the generator goes on from; default with prior nano), t2v (no reference; "
        "default of others), i2v (each GOP starts from the last decoded picture), flf2v (coded "
        "pictures at both ends), auto (chooses per GOP; slow), or overlap (preset free-gvc: GOPs "
        "share frames).")] = None,
    base: Annotated[str | None, _how(help="Codec of bases (v2v, auto): vvc, av1, or auto (vvc "
        "where it can be encoded).")] = None,
    base_size: Annotated[str | None, _how(help="The base is coded at 1, 1/2 or 1/4 of each side: "
        "1, 2, 4, or auto (the largest that fits).")] = None,
    base_share: Annotated[float | None, _how(help="Part of a GOP's bytes for its base; below 1 the "
        "generator goes on from it. Default: 1, and 0.5 for the published models.")] = None,
    restorer: Annotated[str | None, _how(help="What makes the pictures of a base alone better: "
        "nano, realesrgan (of smaller bases; slow), NAME:PATH for weights of your own, or off. "
        "Default: nano with prior nano, else off.")] = None,
    prior: Annotated[str, _how(
        help="The generator that decodes: nano, gauss, a published model (`gvcc priors`), or "
        "NAME:PATH for weights of your own."
    )] = priors.DEFAULT,
    knob: Annotated[float | None, _how(help="Default k for the decoder: "
        "1 realism ... 2 fidelity.")] = None,
    gop: Annotated[int | None, _how(help="Frames per GOP: 4k+1, any number for bases alone.")]
    = None,
    overlap: Annotated[int | None, _how(help="Frames that GOPs share (t2v, overlap).")] = None,
    refresh: Annotated[int, _how(help="A coded picture every so many GOPs (i2v, auto); 0: only "
        "where a scene starts.")] = 0,
    still_bpp: Annotated[float | None, _how(help="Bits per pixel of each coded picture (i2v, "
        "flf2v, auto); default: a quarter of a frame's share, 0.3 with M.")] = None,
    cuts: Annotated[bool | None, _how("--cuts/--no-cuts",
        help="Start a GOP at each scene cut; default: not in t2v and preset paper.")] = None,
    residual: Annotated[str, _how(help="Of the picture that the next GOP starts from: coded, "
        "published (GVCC's own, 8 bits a value, of every GOP), or off.")] = "coded",
    reference: Annotated[str, _how(help="The picture that a GOP of mode i2v starts from is its "
        "first frame too (shared), or the one before it, as GVCC publishes.",
        metavar="shared|before")] = "shared",
    steps: Annotated[int | None, _how(help="Network calls per GOP.")] = None,
    ode_steps: Annotated[int | None, _trial(
        help="How many of them come after the coded ones, without symbols.")] = None,
    prompt: Annotated[str | None, _model(help="What the clip shows, in words; default: none.")]
    = None,
    guidance: Annotated[float | None, _model(
        help="Weight of classifier-free guidance; above 1 each step takes two calls.")] = None,
    setting: Annotated[list[str] | None, _model("--set", metavar="NAME=VALUE",
        help="dtype=fp32, timesteps=bf16, levels=truncated, clip=stretched, padding=latent, "
        "attention=BACKEND, tile=256, quant=int8, compile=yes, negative=TEXT; may be repeated.")]
    = None,
    offload: Annotated[bool, _model("--offload", help=OFFLOAD)] = False,
    coder: Annotated[str | None, _trial(help="codebook, or rcc (reverse channel coding); default: "
        "as the preset has it.")] = None,
    stop: Annotated[int | None, _trial(min=1, help="Coded steps of every GOP; a target.")] = None,
    codebook: Annotated[int | None, _trial("-K", "--codebook",
        help="Size of the gaussian codebook (preset paper), or candidates of rcc.")] = None,
    codebook_stream: Annotated[str | None, _trial(
        help="Atoms of preset paper: torch (the official ones), or counter (made on any device, "
        "the default on a GPU).")] = None,
    tail_atoms: Annotated[int | None, _trial(
        help="M for the last two latent frames of i2v (with -M or preset paper).")] = None,
    g_scale: Annotated[float | None, _trial(
        help="Strength of the noise in preset paper; published: 3.")] = None,
    alignment: Annotated[str | None, _trial(help="Of shared frames in mode overlap: pin (coded "
        "once, and the next GOP starts from them) or blend (coded twice; latents are blended and "
        "pictures cross-faded).")] = None,
    reuse: Annotated[int, _trial(help="Call the network at every so-many-th coded step only: "
        "faster, a little worse.")] = 1,
    seed: Annotated[int | None, _trial(help="Seed of all noise.")] = None,
) -> None:  # fmt: skip
    """Encode a video file. Without a target: M = 64 (preset paper), else 0.05 bits per pixel, and
    64 bytes a GOP at the least.

    The file grows as OUTPUT.part and gets its name when it is whole.
    """
    from gvcc import codec
    from gvcc.eval import published
    from gvcc.format import parser
    from gvcc.pictures import media, media_out, media_time
    from gvcc.search.config import EncodeConfig
    from gvcc.search.pacer import DEFAULT_BPP

    check_output(output, source, overwrite)
    place = files.target(output)
    if place.path.suffix.lower() in media_out.KINDS:
        say(f"note: {output} is a gvcc file, whatever its name says; `gvcc decode` makes a "
            f"{place.path.suffix} of it")  # fmt: skip
    if place.straight and resume:
        raise ConfigError(f"--resume does not go with -o {output}, which is no regular file")
    if place.is_stdout and as_json:
        raise ConfigError(f"--json does not go with -o {output}")
    rate = None if fps is None else media_time.parse(fps)
    device = priors.pick_device(device, prior)
    settings = _settings(prompt, guidance, setting or [])
    config = EncodeConfig(preset=preset, prior=prior, mode=mode, bpp=bpp, kbps=kbps, size=size,
                          quality=quality, stop=stop, coder=coder, atoms=atoms,
                          tail_atoms=tail_atoms, codebook=codebook,
                          codebook_stream=codebook_stream, seed=seed, steps=steps,
                          ode_steps=ode_steps, gop=gop, overlap=overlap, alignment=alignment,
                          refresh=refresh, still_bpp=still_bpp, cuts=cuts, residual=residual,
                          reference=reference, knob=knob, audio=audio,
                          device=device, reuse=reuse, g_scale=g_scale, base=base,
                          base_size=base_size, base_share=base_share, restorer=restorer,
                          settings=settings, offload=offload)  # fmt: skip
    # Settings out of range are told before a long file is read.
    config.resolved()
    model = priors.load(prior, device, settings, offload)
    try:
        clip = media.open_clip(source, frames=frames, fps=rate, matrix=matrix, audio=audio,
                               audio_track=audio_track)  # fmt: skip
    except MediaError as e:
        raise MediaError(f"{e} (stdin must be y4m)" if source == "-" else str(e)) from e
    tell(clip.notices)
    if strict and any(notice.kind == "broken" for notice in clip.notices):
        raise MediaError(f"{source} is damaged, and --strict")
    if clip.audio is not None and not media_out.takes(".mp4", clip.audio):
        takers = [s for s in (".mkv", ".mov") if media_out.takes(s, clip.audio)]
        way = f"decode to {' or '.join(takers)}, or it is" if takers else "decoding has it"
        say(f"note: .mp4 does not take {clip.audio.codec} audio: {way} re-encoded (FLAC or PCM, "
            "without loss)")  # fmt: skip
    parameters = config.resolved(model.spec, clip.height, model.device.type)
    goal = parameters.goal
    begin, total, kept, qualities = time.monotonic(), 0, b"", list[float | None]()
    promised = hashlib.sha256()
    with growing(output, resume, overwrite) as file, codec_bar("encode") as bar:
        begun = codec.Begun(file.begun, file.proofs) if resume else None
        for part in codec.encode_parts(clip, config, model, bar, begun, shown=verify):
            file.write(part.data, part.proof)
            if total and part.proof is not None:  # a GOP, not the header
                file.worth, q = True, part.quality
                qualities.append(q if q is None or goal is None else goal.shown(q))
            total += len(part.data)
            kept += part.data if place.straight and (verify or preset == "paper") else b""
            if part.pictures is not None:
                promised.update(part.pictures.tobytes())
    report: dict[str, Any] = {"file": output, "preset": preset, "prior": prior}
    report["mode"] = parameters.mode
    report |= _figures(total, clip)
    report["notices"] = [asdict(notice) for notice in clip.notices]
    report["seconds"] = round(time.monotonic() - begin, 2)
    if preset == "paper":
        with BytesIO(kept) if place.straight else open_stream(output) as coded:
            counts = [published.bits(s.header, r) or 0
                      for s in [parser.parse(coded.read())] for r in s.gops]  # fmt: skip
        report["published_bits"] = counts
    asked = config.target(clip.count, clip.height, clip.width, clip.fps)
    if asked is not None and total < 0.98 * asked and total < asked - 64:
        why = "no quantiser of a base comes nearer" if parameters.only_base else \
            "it holds all that preset and prior have a use for"  # fmt: skip
        say(f"note: the file stays {1 - total / asked:.0%} below its target of {asked} bytes: "
            f"{why}")  # fmt: skip
    usual = int(DEFAULT_BPP * clip.count * clip.height * clip.width / 8)
    if asked is None and parameters.only_base and goal is None and total > usual + 64:
        what = "bases and sound are" if clip.audio is not None and audio else "bases are"
        say(f"note: the file is {total - usual} bytes above the usual {DEFAULT_BPP} bits a pixel: "
            f"its {what} no smaller")  # fmt: skip
    if quality is not None and goal is not None:
        report["qualities"] = qualities
        _tell_missed(quality, goal, qualities)
    problem = ""
    if verify:
        try:
            found = hashlib.sha256()
            with BytesIO(kept) if place.straight else open_stream(output) as coded:
                with codec_bar("verify") as bar:
                    for picture in codec.Decoder(coded, model, progress=bar).pictures():
                        found.update(picture.tobytes())
            if found.digest() != promised.digest():
                problem = f"{output} does not decode to the encoder's own pictures"
        except GvccError as e:
            problem = f"{output} does not decode: {e}"
        report["verified"] = not problem
    if as_json:
        sys.stdout.write(json.dumps(report) + "\n")
    say(
        f"{output}: {report['bytes']} bytes, {report['bits_per_pixel']:.4f} bit/pixel, "
        f"{report['kbps']:.2f} kbit/s; {report['frames']} frames {report['width']}x"
        f"{report['height']} in {report['seconds']:.1f} s"
        + (", verified" if report.get("verified") else "")
    )
    if "published_bits" in report:
        first, whole = report["published_bits"][0], sum(report["published_bits"]) / 8
        say(f"GVCC's own count, M (log2 K + 1) bits a frame-step: {whole:.0f} bytes in all, "
            f"{first} bits in GOP 0")  # fmt: skip
    if problem:
        raise VerificationFailed(problem)


def _settings(prompt: str | None, guidance: float | None, more: list[str]) -> dict[str, str]:
    """A model's settings as the options give them; ConfigError for one that is given twice."""
    given = [("prompt", prompt), ("guidance", None if guidance is None else str(guidance))]
    for text in more:
        name, sign, value = text.partition("=")
        if not sign:
            raise ConfigError(f"--set {text!r}: expected NAME=VALUE")
        given.append((name, value))
    out: dict[str, str] = {}
    for name, asked in given:
        if asked is None:
            continue
        if name in out:
            raise ConfigError(f"setting {name} is given twice")
        out[name] = asked
    return out


def _tell_missed(asked: str, aim: Goal, found: list[float | None]) -> None:
    """Say which GOPs have not the quality asked for: the prior cannot do better, or worse. Those
    without one are nothing but stills."""
    wanted = aim.shown(aim.value)
    off = {i: q for i, q in enumerate(found) if q is not None and abs(q - wanted) > aim.tolerance}
    if off:
        named = ", ".join(f"{i} ({q:.4g})" for i, q in list(off.items())[:12])
        named += ", ..." if len(off) > 12 else ""
        say(f"note: {len(off)} of {len(found)} GOPs are not within {aim.tolerance:g} of {asked}: "
            f"{named}")  # fmt: skip
