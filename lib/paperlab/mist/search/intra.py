"""Intra-stage search: every policy of every stage and layer count, summarized by its front of (t, d)."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from paperlab.mist.cost.memory import Position, peaks, safety_factor
from paperlab.mist.cost.schedule import BlockTimes, block_times, stage_times
from paperlab.mist.cost.setting import Policies, Setting
from paperlab.mist.search.fronts import ALPHAS, pareto, sampled
from paperlab.mist.search.space import Space

_CHUNK = 100_000  # configurations evaluated at once, so that they stay in the cache


@dataclass(frozen=True)
class Cell:
    """What one stage can do with one number of layers: arrays of feasible, undominated choices.

    stable_s, extra_s: t and d. checkpointed, policy: the choice behind each. missing_bytes: by how much the leanest
    policy exceeds the budget, negative if it fits. evaluated: configurations looked at.
    """

    layers: int
    stable_s: NDArray[np.float64]
    extra_s: NDArray[np.float64]
    checkpointed: NDArray[np.int64]
    policy: NDArray[np.int64]
    missing_bytes: float
    evaluated: int

    def __len__(self) -> int:
        return len(self.stable_s)


@dataclass(frozen=True)
class Selection:
    """How a cell's choices are thinned out: the full front, or `alphas` sampled points of it."""

    method: str = "front"
    alphas: int = ALPHAS

    def __post_init__(self) -> None:
        if self.method not in ("front", "alpha"):
            raise ValueError(f"method is {self.method!r}; choose front or alpha")


def stage_position(setting: Setting, stage: int, layers: int) -> Position:
    """Return the position of stage number `stage` with `layers` layers."""
    later = setting.stages - 1 - stage
    return Position(layers, later, first=stage == 0, last=later == 0)


class IntraSearch:
    """Evaluates the cells of one setting; times of single blocks are computed once and shared by all cells."""

    def __init__(self, setting: Setting, space: Space, selection: Selection, policies: Policies | None = None) -> None:
        self.setting, self.space, self.selection = setting, space, selection
        self.policies = space.policies(setting.dp) if policies is None else policies
        self.blocks: BlockTimes = block_times(setting, self.policies)
        self._times: dict[tuple[int, int, bool, bool], Any] = {}  # stages amid a pipeline have the same

    def cell(self, stage: int, layers: int) -> Cell:
        """Evaluate every policy and number of checkpointed layers of one stage."""
        counts = self.space.checkpointed(layers)
        rows = max(1, _CHUNK // len(self.policies))
        parts = [self._part(stage, layers, counts[i : i + rows]) for i in range(0, len(counts), rows)]
        stable, extra, checkpointed, policy = (
            np.concatenate(column) for column in zip(*(p[:4] for p in parts), strict=True)
        )
        chosen = self._choose(stable, extra)
        return Cell(
            layers, stable[chosen], extra[chosen], checkpointed[chosen], policy[chosen],
            missing_bytes=float(min(part[4] for part in parts)),
            evaluated=len(counts) * len(self.policies),
        )  # fmt: skip

    def _part(self, stage: int, layers: int, counts: NDArray[np.int64]) -> tuple[Any, ...]:
        """Evaluate some numbers of checkpointed layers: the front's t, d, count and policy, and the missing bytes."""
        position = stage_position(self.setting, stage, layers)
        stable, extra = self._stage_times(position, counts)
        forward, backward = peaks(self.setting, self.policies, position, counts)
        need = np.maximum(forward, backward) * safety_factor(self.setting, self.policies, position)
        missing = need - self.setting.cluster.budget_bytes
        row, policy = np.nonzero(missing <= 0)
        t, d = stable[row, policy], np.maximum(extra[row, policy], 0.0)
        if not self.space.imbalance:
            t, d = t + d / self.setting.accumulation, np.zeros_like(d)
        front = pareto(t, d)
        return t[front], d[front], counts[row[front]], policy[front], missing.min()

    def _stage_times(self, position: Position, counts: NDArray[np.int64]) -> Any:
        first, last = position.first, position.last
        key = (position.layers, int(counts[0]), first, last)
        if key not in self._times:
            self._times[key] = stage_times(self.setting, self.blocks, position.layers, counts, first=first, last=last)
        return self._times[key]

    def _choose(self, t: NDArray[np.float64], d: NDArray[np.float64]) -> NDArray[np.int64]:
        if self.selection.method == "front":
            return pareto(t, d)
        return sampled(t, d, 1 / self.setting.accumulation, self.selection.alphas)

    def table(self) -> list[list[Cell]]:
        """Return the cells of all stages: `table[stage]` lists its layer counts."""
        counts = self.space.layer_counts(self.setting)
        return [[self.cell(stage, layers) for layers in counts] for stage in range(self.setting.stages)]
