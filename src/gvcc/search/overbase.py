"""The base of a GOP that the generator goes on from, or that is all there is of it: a share of the
GOP's bytes, and what the prior is told of it."""

from __future__ import annotations

import math
from dataclasses import replace

import numpy as np
import torch
from torch import Tensor

from gvcc import flow
from gvcc.decode.session import Base, Given, Session
from gvcc.format.base import START_UNIT, Over, variance, variance_code
from gvcc.format.bitstream import GopRecord
from gvcc.format.gop import Gop
from gvcc.pictures import base
from gvcc.priors import soft
from gvcc.records import Pictures
from gvcc.search.basecoder import BaseCoder
from gvcc.search.config import Parameters
from gvcc.search.pacer import DEFAULT_BPP, Grant, Pacer


class OverBase:
    """Codes the bases of a stream's GOPs; `coder` remembers where the last search ended."""

    def __init__(self, session: Session, parameters: Parameters, pacer: Pacer) -> None:
        self.session, self.parameters, self.pacer = session, parameters, pacer
        self.coder = BaseCoder(session.header, parameters)

    def code(
        self, i: int, g: Gop, frames: Pictures, own: Tensor, grant: Grant, share: float
    ) -> tuple[GopRecord, Given, float | None]:
        """GOP number i with its base, of a share of its bytes, and nothing else; what its
        trajectory is given, and the quality that was asked for if there is none (with a share of
        1). `own` is the latent of the GOP's own pictures. Raises Refused where no base is as small
        as it must be."""
        p, session = self.parameters, self.session
        room = most = grant.record
        if room is None and p.goal is None:  # a number of steps or atoms is asked for
            room = int(DEFAULT_BPP * math.prod(frames.shape[:3]) / 8)
        if most is not None and p.mode == "v2v":
            most = self.pacer.most(i)
        if room is not None:
            room = int(share * room)
        head = 0 if share == 1 else len(own) + 3  # of the trajectory
        fits = None if most is None else most - head
        coded = self.coder.code(g, iter(frames), room, fits, lambda n: None, share)
        if coded is None:
            raise base.Refused(f"no base of GOP {i} has {room} bytes")
        record = coded.record
        assert record.base is not None
        header = session.header
        pictures = np.stack([*base.decode(record.base, header.height, header.width, g.frames)])
        if share == 1:
            return record, Given(base=Base(pictures)), coded.quality
        latent = session.prior.encode(session.padded(g, pictures))
        over = self._over(pictures, frames, latent, own)
        made = replace(record.base, over=over)
        given = Given(base=Base(pictures, session.soft(latent, over)))
        return replace(record, base=made), given, None

    def _over(self, pictures: Pictures, frames: Pictures, latent: Tensor, own: Tensor) -> Over:
        """How a trajectory goes on from a base of these pictures and this latent."""
        session, (n, h, w, _) = self.session, pictures.shape
        errors = tuple(variance_code(v) for v in (latent - own).square().mean((1, 2, 3)).tolist())
        variances = session.prior.variances(tuple(own.shape[1:]), session.header.variances)
        path = flow.PATHS[session.header.path]
        start = soft.start(variances, torch.tensor([variance(c) for c in errors]), path)
        with torch.inference_mode():
            again = (session.prior.render(latent)[:n, :h, :w].cpu().numpy() + 1) * 127.5
        loss = np.square(again - frames).mean() - np.square(pictures - frames.astype("f4")).mean()
        # Where the autoencoder takes more from the base's pictures than it gives them.
        return Over(max(1, min(round(START_UNIT * start), START_UNIT - 1)), errors, bool(loss > 0))
