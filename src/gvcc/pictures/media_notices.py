"""What a user should be told of a source: what of it is damaged, and what is not carried."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from fractions import Fraction
from typing import Any

from gvcc.pictures import colour as colours
from gvcc.records import Colour, Notice

_HDR = {16: "PQ", 18: "HLG"}  # transfer characteristics of H.273

# Of these every packet is one picture to show, so that those which do not come can be counted.
_ONE_EACH = {"av1", "ffv1", "h264", "hevc", "libdav1d", "mjpeg", "mpeg2video", "png", "prores"}

_SPLICE = 8  # packets before a splice that a container may call damaged on account of it


def counted(count: int, thing: str) -> str:
    """ "1 picture", "2 pictures"."""
    return f"{count} {thing}" if count == 1 else f"{count} {thing}s"


@dataclass
class Looks:
    """What the pictures of a source are, gathered as they are decoded."""

    words: str = ""  # ffmpeg's of the stream
    hidden_alpha: bool = False  # coded apart, and not decoded
    transfer: int = 2
    deep: int = 8  # bits of a sample
    transparent: bool = False
    askew: float = 0  # degrees, from the nearest right angle
    interlaced: int = 0

    def notices(self) -> list[Notice]:
        out = []
        if self.transfer in _HDR:
            out.append(Notice("lost", f"HDR: its pictures stay {_HDR[self.transfer]}-coded, now in "
                              "8 bits, without mastering and light level data"))  # fmt: skip
        elif self.deep > 8:
            out.append(Notice("lost", f"its {self.deep}-bit samples become 8-bit ones"))
        if "DOVI" in self.words:
            out.append(Notice("lost", "its Dolby Vision data are not applied"))
        if self.askew:
            out.append(Notice("lost", f"it is turned by {self.askew:.3g} degrees besides right "
                              "angles: that is left out"))  # fmt: skip
        if self.transparent:
            out.append(Notice("lost", "its alpha channel is composited over black"))
        if self.hidden_alpha:
            out.append(Notice("lost", "its alpha channel is left out"))
        if self.interlaced:
            out.append(Notice("note", f"{counted(self.interlaced, 'picture')} of it interlaced: "
                              "the two fields stay woven into one picture"))  # fmt: skip
        return out

    def see(self, picture: Any, colour: Colour) -> None:
        """Note what a decoded `av.VideoFrame` is."""
        self.interlaced += picture.interlaced_frame
        self.askew = self.askew or picture.rotation - 90 * round(picture.rotation / 90)
        self.deep = max(self.deep, *(part.bits for part in picture.format.components))
        self.transfer = colour.transfer
        self.transparent = self.transparent or colours.is_transparent(picture)


def of_tracks(box: Any, video: Any, sound: Any, asked: bool) -> list[Notice]:
    """The tracks that stay behind; of audio only if some was `asked` for."""
    out = []
    kinds: dict[str, list[Any]] = {}
    for stream in box.streams:
        if stream is video or stream is sound:
            continue
        kind = "cover picture" if is_cover(stream) else stream.type
        kinds.setdefault(kind, []).append(stream)
    if not asked:
        kinds.pop("audio", None)
    for kind, streams in kinds.items():
        thing = {"attachment": "attachment"}.get(kind, kind if "cover" in kind else f"{kind} track")
        names = sorted({name for stream in streams if (name := _codec(stream))})
        text = counted(len(streams), thing) + (f" ({', '.join(names)})" if names else "")
        are = "is" if len(streams) == 1 else "are"
        if kind == "audio":
            which = "" if sound is None else (
                f"; track {box.streams.audio.index(sound) + 1} of {len(box.streams.audio)} is "
                "carried (--audio-track)")  # fmt: skip
            why = " that cannot be carried" if sound is None else ""
            text = f"{text}{why} {are} left out{which}"
        else:
            text = f"{text} {are} left out"
        out.append(Notice("lost", text))
    if chapters := len(box.chapters()):
        out.append(Notice("lost", f"{counted(chapters, 'chapter mark')} left out"))
    return out


def is_cover(stream: Any) -> bool:
    """Whether a video stream is a still beside the film or the music."""
    from av.stream import Disposition

    still = Disposition.attached_pic | Disposition.timed_thumbnails
    return stream.type == "video" and bool(stream.disposition & still)


def _codec(stream: Any) -> str:
    context = getattr(stream, "codec_context", None)
    return "" if context is None else str(context.codec.canonical_name)


@dataclass
class Marked:
    """When the packets of a stream are that its container calls damaged, in seconds.

    Not those at a splice of two files: there its count of packets jumps, and time goes back.
    """

    times: list[Fraction] = field(default_factory=list)
    numbers: list[int] = field(default_factory=list)  # of the same packets
    count: int = 0
    last: int | None = None

    def see(self, packet: Any) -> None:
        self.count += 1
        order = packet.pts if packet.dts is None else packet.dts
        spliced = self.last is not None and order is not None and order < self.last
        if packet.is_corrupt:
            stamp = packet.dts if packet.pts is None else packet.pts
            self.times.append((stamp or 0) * packet.time_base)
            self.numbers.append(self.count)
        while spliced and self.numbers and self.numbers[-1] > self.count - _SPLICE:
            self.numbers.pop()
            self.times.pop()
        self.last = self.last if order is None else order


@dataclass
class Damage:
    """What is wrong with a source, gathered as it is read. Times are in seconds of the source."""

    codec: str = ""
    error: str | None = None  # of the container, where reading ended
    flaw: Fraction | None = None  # where its structure breaks
    cut: bool = False  # nothing comes after that
    missing: int = 0  # packets that an index knows, but nobody gave
    packets: int = 0  # of pictures, since the first shown
    pictures: int = 0
    failed: int = 0
    bad_video: Marked = field(default_factory=Marked)
    bad_sound: Marked = field(default_factory=Marked)
    bad_pictures: int = 0
    complaint: str = ""  # of the decoder, which shows something all the same

    def notices(
        self, start: Fraction, end: Fraction, part: bool, length: Fraction | None, woven: bool
    ) -> list[Notice]:
        """In words, for the pictures shown from `start` to `end` seconds of a file of `length`.

        `part`: there is more than these, so that only what is wrong before `end` counts. `woven`:
        a packet may be a field.
        """
        texts = []
        breaks_off = not part and (self.cut or self.error is not None)
        if breaks_off:
            more = length is not None and length >= end - start + Fraction(1, 100)
            whole = f" of {_seconds(length)}" if length is not None and more else ""
            texts.append(f"breaks off at {_seconds(end - start)}{whole}")
        failed = self.failed
        if self.codec in _ONE_EACH and not woven:
            failed = max(failed, self.packets - self.pictures)
        if failed:
            texts.append(
                f"{counted(failed, 'picture')} {'does' if failed == 1 else 'do'} not decode"
            )
        if self.bad_pictures:
            verb = "decodes" if self.bad_pictures == 1 else "decode"
            texts.append(f"{counted(self.bad_pictures, 'picture')} {verb} with errors")
        if self.missing and not part and not breaks_off:
            texts.append(f"{counted(self.missing, 'picture')} of its index cannot be found")
        spots = [time for time in self.bad_video.times if not part or time < end]
        if self.flaw is not None and not self.cut and (not part or self.flaw < end):
            spots.append(self.flaw)
        if spots and not texts:
            texts.append(f"is damaged at {_seconds(max(Fraction(0), min(spots) - start))}, where "
                         "pictures may be missing")  # fmt: skip
        if self.complaint and not texts:
            texts.append(f"is damaged: its decoder says {self.complaint!r}")
        sound = [time for time in self.bad_sound.times if not part or time < end]
        if sound and not breaks_off:
            texts.append(f"{counted(len(sound), 'packet')} of its sound damaged")
        return [Notice("broken", text) for text in texts]


def _seconds(time: Fraction) -> str:
    return f"{float(time):.2f} s"


def of_rate(shown: int, index: Sequence[int], fps: Fraction, asked: bool) -> list[Notice]:
    """How many of the `shown` pictures have no tick of their own in `index`."""
    lost = shown - len(set(index))
    if not lost:
        return []
    how = "the rate asked for" if asked else "their times are too close together"
    rate = f"{float(fps):.6g}"
    return [Notice("lost", f"{lost} of {counted(shown, 'picture')} left out at {rate} fps: {how}")]
