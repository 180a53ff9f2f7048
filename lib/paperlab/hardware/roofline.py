"""The roofline: how fast an operation can be, given its FLOPs and the bytes it moves.

All methods take scalars or NumPy arrays and broadcast. Model: Williams, Waterman and Patterson, "Roofline"
(2009), with an efficiency per ceiling and a fixed overhead per operation.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import Any

import numpy as np
from numpy.typing import ArrayLike

from paperlab.hardware.specs import DeviceSpec


@dataclass(frozen=True)
class Roofline:
    """Two ceilings (FLOP/s and B/s), the reachable fraction of each, and seconds per operation on top.

    An efficiency above 1 is allowed, since a calibration may find that a stated peak is too low.
    """

    peak_flops_per_s: float
    bandwidth_Bps: float
    compute_efficiency: float = 1.0
    memory_efficiency: float = 1.0
    overhead_s: float = 0.0

    def __post_init__(self) -> None:
        for name in ("peak_flops_per_s", "bandwidth_Bps", "compute_efficiency", "memory_efficiency"):
            if not getattr(self, name) > 0:
                raise ValueError(f"{name} is {getattr(self, name)}; it must be positive")
        if not self.overhead_s >= 0:
            raise ValueError(f"overhead_s is {self.overhead_s}; it must not be negative")

    @classmethod
    def of(cls, device: DeviceSpec, dtype: str, **fitted: float) -> Roofline:
        """Return the roofline of `device` for `dtype`; `fitted` sets efficiencies and overhead."""
        return cls(device.peak(dtype), device.bandwidth_Bps, **fitted)

    @property
    def ideal(self) -> Roofline:
        """The same ceilings at full efficiency and without overhead."""
        return replace(self, compute_efficiency=1.0, memory_efficiency=1.0, overhead_s=0.0)

    @property
    def ridge_flops_per_byte(self) -> float:
        """The intensity above which an operation is compute-bound."""
        return self._reachable_flops_per_s / self._reachable_Bps

    @property
    def _reachable_flops_per_s(self) -> float:
        return self.peak_flops_per_s * self.compute_efficiency

    @property
    def _reachable_Bps(self) -> float:
        return self.bandwidth_Bps * self.memory_efficiency

    def attainable_flops_per_s(self, flops_per_byte: ArrayLike) -> Any:
        """Return the FLOP/s reachable at an arithmetic intensity, without overhead."""
        return np.minimum(self._reachable_flops_per_s, np.asarray(flops_per_byte) * self._reachable_Bps)

    def compute_s(self, flops: ArrayLike) -> Any:
        """Return the seconds of the arithmetic alone."""
        return np.asarray(flops) / self._reachable_flops_per_s

    def memory_s(self, moved_bytes: ArrayLike) -> Any:
        """Return the seconds of the memory traffic alone."""
        return np.asarray(moved_bytes) / self._reachable_Bps

    def time_s(self, flops: ArrayLike, moved_bytes: ArrayLike) -> Any:
        """Return overhead + max(arithmetic, traffic) in seconds."""
        return self.overhead_s + np.maximum(self.compute_s(flops), self.memory_s(moved_bytes))

    def bound(self, flops: ArrayLike, moved_bytes: ArrayLike) -> Any:
        """Return `"compute"` or `"memory"`, whichever takes longer (compute on the ridge itself)."""
        return np.where(self.compute_s(flops) >= self.memory_s(moved_bytes), "compute", "memory")[()]

    def fraction_of_bound(self, flops: ArrayLike, moved_bytes: ArrayLike, latency_s: ArrayLike) -> Any:
        """Return the least time the ceilings allow over the measured `latency_s` (1: at the bound)."""
        return self.ideal.time_s(flops, moved_bytes) / np.asarray(latency_s)
