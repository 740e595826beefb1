"""Groups of pictures: what they may be, and how they depend on each other. Integers only.

Legend of `Gop.first`, where the picture comes from that conditions a GOP's first frame:

    none      no condition
    still     a picture coded in this GOP
    previous  the last decoded picture of the GOP before (or the last few, `Gop.context`); both
              GOPs have those frames, unless `Gop.outside`
    shared    the last still of the GOP before; both GOPs have that frame
"""

from __future__ import annotations

import bisect
from collections.abc import Sequence
from dataclasses import dataclass, field

from gvcc.errors import Corrupt

FIRSTS = ("none", "still", "previous", "shared")
ALIGNMENTS = ("fade", "blend", "pin")
"""What is done with the frames that overlapping GOPs share: both GOPs code them and their pictures
are cross-faded; their latents are blended too, before the autoencoder decodes; or the second GOP
does not code them, but starts from the latents of the decoded pictures."""


@dataclass(frozen=True)
class Gop:
    """Frames start .. end - 1 of the clip, coded together.

    `last`: the last frame is coded as a still too, which conditions this GOP and may condition the
    next. `fade`: so many frames at the start are in the GOP before as well, and are cross-faded.
    `context`: how many pictures `first` = previous stands for. `outside`: the picture of `first` =
    still or previous conditions the GOP and is none of its frames: all of them are coded. `base`:
    it has a base, and no condition else.
    `chained`: the next GOP may start from the last decoded picture, so its quality counts more (the
    encoder's business; not in the file).
    """

    start: int
    frames: int
    first: str = "none"
    last: bool = False
    fade: int = 0
    context: int = 1
    base: bool = False
    outside: bool = False
    chained: bool = field(default=False, compare=False)

    @property
    def end(self) -> int:
        return self.start + self.frames

    @property
    def skip(self) -> int:
        """Frames at the start that are not shown: the GOP before has shown them."""
        if self.outside:
            return 0
        return {"previous": self.context, "shared": 1}.get(self.first, 0)

    @property
    def stills(self) -> int:
        """Pictures coded in this GOP's record."""
        return (self.first == "still") + self.last

    @property
    def mode(self) -> str:
        """The mode it belongs to."""
        if self.base:
            return "v2v"
        if self.fade or self.skip > 1:
            return "overlap"
        return "flf2v" if self.last else "t2v" if self.first == "none" else "i2v"

    def length(self, stride: int, alone: bool = True) -> int:
        """Frames it is coded as, 1 modulo `stride`; those past its own repeat the last one.

        `alone`: a last still gets a latent frame of its own, made of nothing but that picture, for
        the frames before it in its group of `stride` are not known from it. Without (a prior that
        was trained on the last picture of a group, see priors.Spec) it is in the last group.
        """
        if self.last and alone:
            return legal_length(self.frames - 1, stride) + stride
        return legal_length(self.frames, stride)

    def latent_frames(self, stride: int, alone: bool = True) -> int:
        """Latent frames it is coded as."""
        return (self.length(stride, alone) - 1) // stride + 1

    def known_frames(self, stride: int, alone: bool = True) -> int:
        """Latent frames that its pictures fix, if all of them are given."""
        start = 0 if self.first == "none" or self.outside else (max(1, self.skip) - 1) // stride + 1
        return start + (self.last and alone)

    def check(self, before: Gop | None, frames: int, gop: int, overlap: int) -> None:
        """Corrupt unless this GOP may follow `before` in a clip of so many frames.

        `gop` is the most frames of a GOP, `overlap` the clip's number of cross-faded frames.
        """
        low = self.skip + self.fade + 1
        if not low <= self.frames <= gop or self.end > frames:
            raise Corrupt(f"a GOP of {self.frames} frames from {self.start} of {frames}")
        if self.first in ("previous", "shared") and before is None:
            raise Corrupt("the first GOP refers to one before it")
        if self.start != (0 if before is None else before.end - self.skip - self.fade):
            raise Corrupt(f"a GOP starts at frame {self.start}, not where the last one ended")
        if self.first == "shared" and not (before is not None and before.last):
            raise Corrupt("a GOP shares a still that the GOP before does not have")
        if self.first == "previous" and before is not None and before.frames < self.context:
            raise Corrupt(f"a GOP starts from {self.context} frames of one of {before.frames}")
        if self.outside and (self.last or self.first not in ("still", "previous")):
            raise Corrupt("a picture outside of a GOP that it does not condition alone")
        if self.last and (self.first == "none" or self.frames < 2):
            raise Corrupt("a last still without a first picture")
        if self.fade:
            fits = before is not None and before.frames >= overlap
            if self.fade != overlap or self.first != "none" or not fits:
                raise Corrupt(f"a cross-fade of {self.fade} frames does not fit")


def legal_length(frames: int, stride: int) -> int:
    """The smallest L >= frames with L = 1 mod stride."""
    return -(-(frames - 1) // stride) * stride + 1


def needed(
    gops: Sequence[Gop], start: int, end: int, blended: bool = False, causal: bool = True
) -> tuple[set[int], set[int]]:
    """Numbers of the GOPs to decode for frames start .. end - 1, and of those of which only the
    last still is wanted. `blended`: latents are, so that pictures depend on the GOPs before, and
    those of an autoencoder that is not `causal` on the GOP after. (With a causal one that changes
    none but the shared frames.)"""
    first = bisect.bisect_right([g.end for g in gops], start)
    if first == len(gops):  # of a stream that breaks off
        return set(), set()
    # Not the first that starts later: one that repeats much may be followed by one that fades more.
    last = max(i for i in range(first, len(gops)) if gops[i].start + gops[i].skip < end)
    while gops[first].first == "previous":
        first -= 1
    decode = set(range(first, last + 1))
    if blended:
        if not causal and last + 1 < len(gops) and gops[last + 1].fade:
            decode |= {last + 1}
        while gops[first].fade:
            first -= 1
            decode.add(first)
            if gops[first].frames >= gops[first].fade + gops[first + 1].fade:
                break  # else what it was blended with goes on into the next blend
    stills = {i - 1 for i in decode if gops[i].first == "shared"}
    return decode, stills - decode


def dependents(gops: Sequence[Gop], lost: int) -> list[int]:
    """Numbers of the later GOPs that cannot be decoded without GOP number `lost`."""
    out: list[int] = []
    for i in range(lost + 1, len(gops)):
        # A still stays readable where only the GOP around it cannot be decoded.
        if gops[i].first != "previous" and not (gops[i].first == "shared" and i == lost + 1):
            break
        out.append(i)
    return out
