"""Write src/gvcc/format/normal16.npy: the upper half of the normal quantile table of rng.py.

Run once; the file is part of the format and must never change (tests hold its hash).
"""

from pathlib import Path

import numpy as np
from scipy.special import ndtri

q = ndtri((np.arange(32768, 65536) + 0.5) / 65536)
q /= np.sqrt(np.mean(q**2))
np.save(Path(__file__).parents[2] / "src/gvcc/format/normal16.npy", q.astype(np.float32))
