"""How a net learns."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal, get_args

from paperlab.rgbd_grasp.geometry.checks import one_of
from paperlab.rgbd_grasp.learning.losses import LossKind

Precision = Literal["bf16", "fp32"]


@dataclass(frozen=True)
class Recipe:
    """Adam under a one-cycle schedule; the defaults train the small net in two minutes on one core.

    The released code has MSE, a rate of 4e-4 that falls by steps, and 120,000 iterations on a GPU. `jitter` is the
    strength of the color jitter, `smallest_crop` the smallest part of the sides that a crop keeps; 1 turns it off.
    With loss "bce" the last bias starts at the class priors. `threads` are torch's, on which weights depend.
    """

    iterations: int = 250
    batch: int = 8
    learning_rate: float = 4e-3
    loss: LossKind = "bce"
    positive_weight: float = 1.0
    jitter: float = 0.3
    smallest_crop: float = 1.0
    gradient_norm: float = 5.0
    validate_every: int = 50
    precision: Precision = "bf16"
    seed: int = 0
    threads: int = 1

    def __post_init__(self) -> None:
        one_of("loss", self.loss, get_args(LossKind))
        one_of("precision", self.precision, get_args(Precision))
        for name in ("iterations", "batch", "learning_rate", "positive_weight", "validate_every", "threads"):
            if getattr(self, name) <= 0:
                raise ValueError(f"{name}: got {getattr(self, name)}, needs a positive number")
        if not 0 <= self.jitter < 0.5:
            raise ValueError(f"jitter: got {self.jitter}, needs a strength from 0 to below 0.5")
        if not 0 < self.smallest_crop <= 1:
            raise ValueError(f"smallest_crop: got {self.smallest_crop}, needs a share above 0, at most 1")
