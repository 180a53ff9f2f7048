"""The order of micro-batches on one stage: one forward, one backward, not interleaved (§2.3)."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Literal


@dataclass(frozen=True)
class Step:
    """One pass of one micro-batch, and whether it is the iteration's last one in its direction."""

    kind: Literal["forward", "backward"]
    microbatch: int


def one_forward_one_backward(stage: int, stages: int, microbatches: int) -> Iterator[Step]:
    """Yield the steps of `stage`: S − 1 − stage forward passes, then pairs, then the backward passes left.

    At most S − stage micro-batches are between forward and backward at any time.
    """
    warm_up = min(stages - 1 - stage, microbatches)
    yield from (Step("forward", index) for index in range(warm_up))
    for index in range(warm_up, microbatches):
        yield Step("forward", index)
        yield Step("backward", index - warm_up)
    yield from (Step("backward", index) for index in range(microbatches - warm_up, microbatches))
