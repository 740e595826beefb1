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
        self.coder = BaseCoder(session, parameters)

    def code(
        self, i: int, g: Gop, frames: Pictures, grant: Grant, share: float
    ) -> tuple[GopRecord, Pictures, float | None]:
        """GOP number i with its base, of a share of its bytes, and nothing else; the base's
        pictures, and their quality where one was asked for and the share is 1. Raises Refused
        where no base is as small as it must be."""
        p = self.parameters
        room = most = grant.record
        if room is None and p.goal is None:  # a number of steps or atoms is asked for
            room = int(DEFAULT_BPP * math.prod(frames.shape[:3]) / 8)
        if most is not None and p.mode == "v2v":
            most = self.pacer.most(i)
        if room is not None:
            room = int(share * room)
        head = 0 if share == 1 else self.session.prior.spec.channels + 3  # of the trajectory
        fits = None if most is None else most - head
        coded = self.coder.code(g, iter(frames), room, fits, lambda n: None, share)
        if coded is None:
            raise base.Refused(f"no base of GOP {i} has {room} bytes")
        assert coded.record.base is not None
        shown = self.session.base_pictures(g, coded.record.base)
        return coded.record, np.stack([*shown]), coded.quality

    def go_on(
        self, record: GopRecord, pictures: Pictures, frames: Pictures, own: Tensor
    ) -> tuple[GopRecord, Given]:
        """The record with how a trajectory goes on from its base, whose pictures are given, and
        what the trajectory is given. `own` is the latent of the GOP's own pictures `frames`."""
        assert record.base is not None
        session = self.session
        latent = session.prior.encode(session.padded(record.gop, pictures))
        errors = tuple(variance_code(v) for v in (latent - own).square().mean((1, 2, 3)).tolist())
        variances = session.prior.variances(tuple(own.shape[1:]), session.header.variances)
        path = flow.PATHS[session.header.path]
        start = soft.start(variances, torch.tensor([variance(c) for c in errors]), path)
        again = session.prior_pictures(latent, pictures.shape)
        # Where the autoencoder takes more from the base's pictures than it gives them.
        loss = np.square((again.cpu().numpy() + 1) * 127.5 - frames).mean()
        difference = bool(loss > np.square(pictures - frames.astype("f4")).mean())
        start_code = max(1, min(round(START_UNIT * start), START_UNIT - 1))
        over = Over(start_code, errors, difference)
        given = Base(pictures, session.soft(latent, over), again if difference else None)
        return replace(record, base=replace(record.base, over=over)), Given(base=given)
