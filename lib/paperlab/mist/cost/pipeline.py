"""Iteration time of a pipeline: the closed form (§2.9) and, independent of it, an event-driven 1F1B simulation."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from itertools import accumulate
from typing import Literal


def closed_form_s(stable_s: Sequence[float], extra_s: Sequence[float], accumulation: int) -> float:
    """Return (G−1)·max t + Σ t + max(0, max_i(d_i − Σ_{j<i} t_j)) for stages' t and d in seconds.

    A later stage has until the first micro-batch arrives to do what is extra, hence the sum over earlier stages.
    """
    before = accumulate([0.0, *stable_s[:-1]])
    late_s = max(extra - waited for extra, waited in zip(extra_s, before, strict=True))
    return (accumulation - 1) * max(stable_s) + sum(stable_s) + max(0.0, late_s)


def averaged_s(stable_s: Sequence[float], extra_s: Sequence[float], accumulation: int) -> float:
    """Return the imbalance-blind objective: d spread evenly over micro-batches (the paper's ablation)."""
    spread = [t + d / accumulation for t, d in zip(stable_s, extra_s, strict=True)]
    return (accumulation - 1) * max(spread) + sum(spread)


@dataclass(frozen=True)
class Work:
    """Forward or backward of one micro-batch on one stage of a simulated pipeline, from start to end in seconds."""

    stage: int
    micro_batch: int
    phase: Literal["forward", "backward"]
    start_s: float
    end_s: float


def one_forward_one_backward(stage: int, stages: int, accumulation: int) -> list[tuple[str, int]]:
    """Return a stage's order of work: stages − 1 − stage forwards to warm up, then alternation, then the rest."""
    warm_up = min(stages - 1 - stage, accumulation)
    order = [("forward", m) for m in range(warm_up)]
    for m in range(accumulation - warm_up):
        order += [("forward", warm_up + m), ("backward", m)]
    return order + [("backward", m) for m in range(accumulation - warm_up, accumulation)]


def simulate(
    forward_s: Sequence[float],
    backward_s: Sequence[float],
    first_extra_s: Sequence[float],
    last_extra_s: Sequence[float],
    accumulation: int,
    *,
    early_start: bool = True,
) -> list[Work]:
    """Run 1F1B event by event and return all work, plus the extras: the iteration ends with the last `end_s`.

    `first_extra_s` is what a stage does once before its first forward: from time 0 if `early_start`, else only when
    its first input has come. `last_extra_s` follows its last backward and delays nobody upstream.
    """
    stages = len(forward_s)
    orders = [one_forward_one_backward(stage, stages, accumulation) for stage in range(stages)]
    free_s = list(first_extra_s) if early_start else [0.0] * stages
    done: dict[tuple[str, int, int], float] = {}
    work: list[Work] = []
    position = [0] * stages
    while any(position[s] < len(orders[s]) for s in range(stages)):
        ready = [s for s in range(stages) if _input_s(orders, position, s, done, stages) is not None]
        stage = min(ready, key=lambda s: max(free_s[s], _input_s(orders, position, s, done, stages) or 0.0))
        phase, micro_batch = orders[stage][position[stage]]
        start_s = max(free_s[stage], _input_s(orders, position, stage, done, stages) or 0.0)
        if not early_start and position[stage] == 0:
            start_s += first_extra_s[stage]
        end_s = start_s + (forward_s if phase == "forward" else backward_s)[stage]
        done[phase, stage, micro_batch] = free_s[stage] = end_s
        position[stage] += 1
        if position[stage] == len(orders[stage]):
            end_s += last_extra_s[stage]
        work.append(Work(stage, micro_batch, phase, start_s, end_s))  # type: ignore[arg-type]
    return work


def _input_s(
    orders: list[list[tuple[str, int]]],
    position: list[int],
    stage: int,
    done: dict[tuple[str, int, int], float],
    stages: int,
) -> float | None:
    """Return when the next work of `stage` has its input, or None if that is not yet known."""
    if position[stage] == len(orders[stage]):
        return None
    phase, micro_batch = orders[stage][position[stage]]
    if phase == "forward":
        return 0.0 if stage == 0 else done.get(("forward", stage - 1, micro_batch))
    if stage == stages - 1:
        return done.get(("forward", stage, micro_batch))
    return done.get(("backward", stage + 1, micro_batch))


def iteration_s(work: Sequence[Work]) -> float:
    """Return when the last work ends."""
    return max(item.end_s for item in work)
