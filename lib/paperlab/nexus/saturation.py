"""Per-operator saturation curves, fitted by least squares to stage latencies at several shares (§3.2, §4.1.1).

The controller is calibrated offline: `profile` collects measurements from whatever can run an iteration at a share, and
`fit` turns them, or the figures that the paper states, into a `Belief`.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from functools import cache
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from paperlab.hardware import DeviceSpec, device
from paperlab.nexus.belief import KEYS, PUBLISHED_ROWS, Belief, Curve
from paperlab.nexus.cost_model import CostModel
from paperlab.serving.cost import ModelCost
from paperlab.serving.saturation import Saturation
from paperlab.serving.work import StepShape
from paperlab.transformer import preset

STARTS = (0.4, 0.6, 0.8)  # knees to start from: the curve has a kink, so the fit has several local optima
# What points say nothing about stays at its prior. A decode batch of 20 fills about that part of a matrix tile of 128
# rows; starting from there also keeps its arithmetic in sight, which a memory-bound latency says nothing about.
EFFICIENCY = {"prefill": math.log(0.75), "decode": math.log(0.15)}  # efficiencies go by logarithm
PRIOR = {"slope": (0.6, 0.5), "exponential": (1.0, 0.5)}  # knee, decay
PRIOR_WEIGHT = (0.01, 1e-3, 1e-3)  # of efficiency, knee, decay; a point weighs 1
BOUNDS = {
    "slope": ((math.log(0.01), 0.05, 0.0), (math.log(1.5), 1.0, 1.0)),
    "exponential": ((math.log(0.01), 0.99, 0.02), (math.log(1.5), 1.0, 10.0)),
}
MEMORY_PRIOR, MEMORY_BOUNDS = (0.85, 1.0), ((0.3, 0.0), (1.5, 20.0))  # efficiency, fixed milliseconds

# The paper's motivation experiments: Qwen2.5-3B on one L20 (§3). Batches are ours: a full chunk in the middle of a
# prompt of 5,905 tokens, and 20 sequences of such a prompt, whose decoding takes about the 15 ms of Fig. 4a.
PUBLISHED_PREFILL = StepShape(2048, 2048, 2048 * 2048 + 2048 * 2049 // 2)
PUBLISHED_DECODE = StepShape(decode_tokens=PUBLISHED_ROWS, decode_context=PUBLISHED_ROWS * 6000, logits=PUBLISHED_ROWS)


@dataclass(frozen=True)
class Point:
    """One stage latency: seconds at `share`, or relative to that at `reference_share` where one is given.

    `operator` narrows it to one operator; `relation` makes the value a bound. `origin` names the claim or measurement.
    """

    step: StepShape
    share: float
    value: float
    reference_share: float | None = None
    operator: str | None = None
    relation: str = "equal"
    origin: str = ""

    def __post_init__(self) -> None:
        for share in (self.share, self.reference_share or self.share):
            if not 0 < share <= 1:
                raise ValueError(f"Point: share is {share}; it must be above 0 and at most 1")
        if not self.value > 0:
            raise ValueError(f"Point: value is {self.value}; a latency must be positive")
        if self.relation not in ("equal", "at_least", "at_most"):
            raise ValueError(f"Point: relation is {self.relation!r}; use equal, at_least or at_most")

    def predicted(self, model: CostModel) -> float:
        """Return what `model` makes of this point."""
        value = self._latency_s(model, self.share)
        return value if self.reference_share is None else value / self._latency_s(model, self.reference_share)

    def miss(self, model: CostModel) -> float:
        """Return predicted / value - 1, and 0 inside a bound."""
        error = self.predicted(model) / self.value - 1
        if self.relation == "at_least":
            return min(error, 0.0)
        return max(error, 0.0) if self.relation == "at_most" else error

    def _latency_s(self, model: CostModel, share: float) -> float:
        times = model.times(self.step, share)
        return sum(times.values()) if self.operator is None else times[self.operator]


class Fit(NamedTuple):
    """A fitted belief and, point by point, how far it misses."""

    belief: Belief
    points: tuple[Point, ...]
    misses: tuple[float, ...]


def published_points() -> list[Point]:
    """Return what §3.2 states about latency and share, as points to fit: claims C13 to C17 of the ledger.

    They enter the belief, so the belief cannot reproduce them: they are inputs. A gain
    "below 3 %" is read as the middle, 1.5 %, and "flat" as at most 3 % per step of 10 points.
    """
    prefill, decode = PUBLISHED_PREFILL, PUBLISHED_DECODE
    steps = [(0.6, 0.7), (0.7, 0.8), (0.8, 0.9), (0.9, 1.0)]
    points = [
        Point(prefill, 0.4, 0.75, 0.3, relation="at_most", origin="N-13"),
        Point(prefill, 0.8, 0.90, 0.7, origin="N-14"),
        Point(decode, 0.4, 0.90, 0.3, origin="N-16"),
    ]
    for low, high in steps:
        points += [Point(prefill, high, 0.97, low, name, "at_least", "N-15") for name in ("qkv", "out")]
    points += [Point(decode, high, 0.985, low, origin="N-17") for low, high in [(0.5, 0.6), *steps]]
    return points


def profile(
    measure: Callable[[StepShape, float], float], steps: Iterable[StepShape], shares: Sequence[float]
) -> list[Point]:
    """Return points from running each step at each share; `measure` returns the seconds that it took."""
    return [Point(step, share, measure(step, share), origin="profile") for step in steps for share in shares]


def fit(points: Sequence[Point], cost: ModelCost, on: DeviceSpec, family: str = "slope") -> Fit:
    """Fit efficiency, knee and decay of every operator to `points`.

    Memory efficiency and a fixed cost are fitted too where points give seconds; else they stay at 1 and 0, as
    published. Squared relative misses are minimized.

    Raises:
        ValueError: no points, or an unknown family.
    """
    from scipy.optimize import least_squares  # slow to import, and only fits need it

    if not points:
        raise ValueError("points is empty; give at least one")
    if family not in PRIOR:
        raise ValueError(f"family is {family!r}; use one of {', '.join(PRIOR)}")
    low, high, prior = _ranges(family, any(point.reference_share is None for point in points))

    weights = np.resize(PRIOR_WEIGHT, len(prior))

    def residuals(x: NDArray[np.float64]) -> NDArray[np.float64]:
        model = CostModel(cost, on, _belief(x, family))
        return np.array([*(point.miss(model) for point in points), *(weights * (x - prior))])

    solutions = []
    margin = 1e-6 * (high - low)
    for knee in STARTS if family == "slope" else (1.0,):
        start = prior.copy()
        start[1 : 3 * len(KEYS) : 3] = knee
        start = np.clip(start, low + margin, high - margin)
        solutions.append(least_squares(residuals, start, bounds=(low, high), x_scale="jac", ftol=1e-6, max_nfev=60))
    best = _belief(min(solutions, key=lambda solution: solution.cost).x, family)
    model = CostModel(cost, on, best)
    return Fit(best, tuple(points), tuple(point.miss(model) for point in points))


def _ranges(family: str, absolute: bool) -> tuple[NDArray[np.float64], ...]:
    """Return lower bounds, upper bounds and priors of all parameters, those of memory last if they are fitted."""
    low, high = (
        np.array([*curve * len(KEYS), *(memory if absolute else ())])
        for curve, memory in zip(BOUNDS[family], MEMORY_BOUNDS, strict=True)
    )
    curves = [value for phase, _ in KEYS for value in (EFFICIENCY[phase], *PRIOR[family])]
    return low, high, np.array([*curves, *(MEMORY_PRIOR if absolute else ())])


def _belief(x: NDArray[np.float64], family: str) -> Belief:
    values = x.tolist()
    curves = {}
    for index, key in enumerate(KEYS):
        efficiency, knee, decay = values[3 * index : 3 * index + 3]
        curves[key] = Curve(math.exp(efficiency), Saturation(knee, decay, family))
    rest: dict[str, Any] = {}
    if len(values) > 3 * len(KEYS):
        memory_efficiency, overhead_ms = values[3 * len(KEYS) :]
        rest = {"memory_efficiency": memory_efficiency, "overhead_s": 1e-3 * overhead_ms}
    return Belief(curves, **rest)


@cache
def published_fit(family: str = "slope") -> Fit:
    """Return the fit to what the paper states about its L20, which `belief.published_belief` keeps."""
    return fit(published_points(), ModelCost(preset("qwen2.5-3b")), device("L20"), family)
