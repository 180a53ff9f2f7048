"""Algorithm 1: pick the phase to favor, then move the split in steps of 1 % while the other phase keeps its slack.

The cost model is consulted step by step, never over the whole grid: from a nearly converged start a search ends after
two to four evaluations (§4.1.3), and each is counted and logged.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import NamedTuple

from paperlab.nexus.cost_model import CoRun
from paperlab.nexus.layouts import Layout, at_most, moves_enough
from paperlab.nexus.settings import Settings


class Probe(NamedTuple):
    """One evaluation of the other phase's latency."""

    step: str  # "optimum", "shrink" (phase 1 of the search) or "grow" (phase 2)
    percent: int  # share of the target
    other_s: float


class Found(NamedTuple):
    """What a search came to: the target's share, whether the other phase keeps its slack there, and every probe."""

    target: str
    percent: int
    feasible: bool
    bound_s: float  # what the other phase may take
    trace: tuple[Probe, ...]

    @property
    def prefill_percent(self) -> int:
        """R_p."""
        return self.percent if self.target == "prefill" else 100 - self.percent

    @property
    def evaluations(self) -> int:
        """How often the cost model was consulted."""
        return len(self.trace)


def target_phase(kv_usage: float, settings: Settings) -> str:
    """Return the phase to favor (§4.1.2): prefill while there is memory, above the switch decode, which frees it."""
    return "prefill" if kv_usage <= settings.kv_switch else "decode"


class _Search:
    """The cost of the phase that is not the target, with its probes."""

    def __init__(self, co_run: CoRun, target: str, start: int, settings: Settings) -> None:
        self.co_run, self.target = co_run, target
        self.trace: list[Probe] = []
        prefill_share = start / 100 if settings.contention_in_optimum else None
        if target == "prefill":
            slack, optimum_s = settings.beta, co_run.decode_s(1.0, prefill_share)
        else:
            slack, optimum_s = settings.alpha, co_run.prefill_s(1.0)
        self.trace.append(Probe("optimum", 0, optimum_s))
        self.bound_s = slack * optimum_s

    def keeps_slack(self, step: str, percent: int) -> bool:
        other = (100 - percent) / 100
        if self.target == "prefill":
            other_s = self.co_run.decode_s(other, percent / 100)
        else:
            other_s = self.co_run.prefill_s(other)
        self.trace.append(Probe(step, percent, other_s))
        return other_s <= self.bound_s


def search(co_run: CoRun, target: str, start: int, settings: Settings, floor: int = 1) -> Found:
    """Return the target's share that the two-phase greedy search of Algorithm 1 reaches from `start`.

    Phase 1 shrinks the target's share until the other phase keeps its slack; phase 2 grows it as long as the next
    step keeps it. The listing has no lower end: here neither phase gets less than `floor`, the smallest that
    hardware can make. Where no share keeps the slack, `settings.infeasible` says what to return.

    Args:
        co_run: forecasts of the two batches.
        target: `prefill` or `decode`, the phase whose latency is minimized.
        start: the target's present share in percent; it is moved between the floors.
        settings: slacks and switches.
        floor: smallest share of either phase in percent.
    """
    if target not in ("prefill", "decode"):
        raise ValueError(f"target is {target!r}; use prefill or decode")
    if not 1 <= floor <= 50:
        raise ValueError(f"floor is {floor}; give 1 to 50 percent")
    start = percent = min(max(start, floor), 100 - floor)
    cost = _Search(co_run, target, start if target == "prefill" else 100 - start, settings)
    while not (feasible := cost.keeps_slack("shrink", percent)) and percent > floor:
        percent -= 1
    while feasible and percent < 100 - floor and cost.keeps_slack("grow", percent + 1):
        percent += 1
    if not feasible and settings.infeasible == "keep":
        percent = start
    return Found(target, percent, feasible, cost.bound_s, tuple(cost.trace))


def floor_percent(known: Sequence[Layout]) -> int:
    """Return the smallest whole percent that each phase can be given by some layout."""
    smallest = max(known[0].share("prefill"), known[-1].share("decode"))
    return max(1, math.ceil(100 * smallest - 1e-9))


def realize(found: Found, known: Sequence[Layout], current: Layout, settings: Settings) -> Layout:
    """Return the layout to use: the found split made realizable, or the `current` one where it is closer than δ.

    Rounding comes before the comparison, so that every switch is one of hardware (§4.2).
    """
    proposed = at_most(known, found.target, found.percent)
    return proposed if moves_enough(proposed, current, settings.delta_points) else current
