"""One call that seeds every generator a notebook may touch."""

from __future__ import annotations

import random


def seed_everything(seed: int) -> None:
    """Seed Python's, NumPy's and torch's global generators with `seed`, an integer in [0, 2**32).

    Raises:
        ValueError: `seed` is out of range.
    """
    if not 0 <= seed < 2**32:
        raise ValueError(f"seed: {seed} is out of range; use an integer from 0 to 2**32 - 1")
    import numpy
    import torch

    random.seed(seed)
    numpy.random.seed(seed)
    torch.manual_seed(seed)
