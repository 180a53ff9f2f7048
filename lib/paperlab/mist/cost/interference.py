"""How long operations take that run side by side: the 28-factor interference model (§2.5) and its fit.

Resources, in this order everywhere: C compute, G collective between GPUs, H copy to the device, D copy to the host.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Any

import numpy as np
from numpy.typing import ArrayLike, NDArray

RESOURCES = "CGHD"
SUBSETS = ("CGHD", "CGH", "CGD", "CHD", "GHD", "CG", "CH", "CD", "GH", "GD", "HD")
BOUNDS = (1.0, 50.0)
Array = NDArray[Any]
_BITS = np.array([[1], [2], [4], [8]], dtype=np.uint8)  # of the resources, in a set's number
_RUNNING = (np.arange(16) & _BITS) > 0  # 4 x 16: whether a resource is in a set
_SEVERAL = _RUNNING.sum(axis=0) > 1
_NEVER = np.where(_RUNNING, 0.0, np.inf)  # when a resource outside of the set ends


def _mask(subset: str) -> int:
    return sum(1 << RESOURCES.index(resource) for resource in subset)


@dataclass(frozen=True)
class Interference:
    """Slowdown of every member of every set of two to four operations that run at once; 28 factors of at least 1.

    `factors` are in the order of `SUBSETS`, and within a subset in the order of its letters.
    """

    factors: tuple[float, ...]

    def __post_init__(self) -> None:
        if len(self.factors) != sum(map(len, SUBSETS)):
            raise ValueError(f"factors has {len(self.factors)} numbers; the model has 28")
        if not all(factor >= 1 for factor in self.factors):
            raise ValueError(f"factors are {self.factors}; none may be below 1")

    @classmethod
    def of(cls, by_subset: Mapping[str, Sequence[float]]) -> Interference:
        """Build the model from a mapping of subsets to factors; ValueError if a subset is missing or unknown."""
        if set(by_subset) != set(SUBSETS):
            raise ValueError(f"interference has subsets {', '.join(by_subset)}; needs {', '.join(SUBSETS)}")
        if wrong := [subset for subset in SUBSETS if len(by_subset[subset]) != len(subset)]:
            raise ValueError(f"interference {wrong[0]}: give one factor per letter")
        return cls(tuple(float(factor) for subset in SUBSETS for factor in by_subset[subset]))

    @cached_property
    def table(self) -> Array:
        """The factors as a 16 x 4 array by set (a bit per resource) and resource; 1 where nothing overlaps."""
        table, rest = np.ones((16, 4)), list(self.factors)
        for subset in SUBSETS:
            for resource in subset:
                table[_mask(subset), RESOURCES.index(resource)] = rest.pop(0)
        return table

    def time_s(self, compute: ArrayLike, collective: ArrayLike, to_device: ArrayLike, to_host: ArrayLike) -> Any:
        """Return the seconds until all four are done, given the seconds that each takes alone; arrays broadcast.

        While a set runs, each member is slowed by its factor; when the first ends, the rest goes on as a smaller set.
        """
        arrays = np.broadcast_arrays(*(np.asarray(x, float) for x in (compute, collective, to_device, to_host)))
        shape = arrays[0].shape
        alone = np.stack([array.reshape(-1) for array in arrays])
        return overlapped_s(alone.T, self.table).reshape(shape)[()]


def overlapped_s(alone_s: Array, table: Array) -> Array:
    """Return the time of every row of `alone_s` (N x 4, seconds alone) under a 16 x 4 `table` of factors."""
    # Laid out as 4 x N, and without masks: NumPy is many times slower along a last axis of four, and where it branches.
    left, total, factors = np.ascontiguousarray(alone_s.T), np.zeros(len(alone_s)), np.ascontiguousarray(table.T)
    for _ in range(3):  # every round ends at least one operation
        running = ((left > 0) * _BITS).sum(axis=0, dtype=np.uint8)
        several = _SEVERAL[running]
        if not several.any():
            break
        factor = factors.take(running, axis=1)  # 1 for what runs alone, which so stays what it is
        stretched = left * factor
        shared = np.where(several, (stretched + _NEVER.take(running, axis=1)).min(axis=0), 0.0)
        total += shared
        left = np.maximum((stretched - shared) / factor, 0.0)
    return total + left.sum(axis=0)
