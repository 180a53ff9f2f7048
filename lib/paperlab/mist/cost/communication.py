"""Seconds of collectives, copies and messages between stages (§2.6)."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import ArrayLike

# Times of an all-gather of the same bytes.
REDUCE_SCATTER, ALL_REDUCE = 1.1, 2.1
Rates = tuple[float, float]  # B/s, s


@dataclass(frozen=True)
class Links:
    """Measured bandwidth and latency of collectives by group shape (nodes, devices per node), and of copies."""

    groups: Mapping[tuple[int, int], Rates]
    host_to_device: Rates
    device_to_host: Rates

    def __post_init__(self) -> None:
        for name, (bandwidth, latency_s) in [*self.groups.items(), ("copy", self.host_to_device)]:
            if not (bandwidth > 0 and latency_s >= 0):
                raise ValueError(f"link {name}: bandwidth {bandwidth}, latency {latency_s}; write positive numbers")

    def all_gather_s(self, size_bytes: ArrayLike, nodes: int, per_node: int) -> Any:
        """Return the seconds until every device of the group holds all `size_bytes`; 0 for a group of one.

        Raises:
            ValueError: no group of that shape was measured.
        """
        ranks, size = nodes * per_node, np.asarray(size_bytes, float)
        if ranks == 1:
            return np.zeros_like(size)[()]
        bandwidth, latency_s = self._group(nodes, per_node)
        return np.where(size > 0, size / bandwidth * (ranks - 1) / ranks + latency_s, 0.0)[()]

    def reduce_scatter_s(self, size_bytes: ArrayLike, nodes: int, per_node: int) -> Any:
        """Return the seconds to sum `size_bytes` and leave each device its part."""
        return REDUCE_SCATTER * self.all_gather_s(size_bytes, nodes, per_node)

    def all_reduce_s(self, size_bytes: ArrayLike, nodes: int, per_node: int) -> Any:
        """Return the seconds to sum `size_bytes` and leave every device all of it."""
        return ALL_REDUCE * self.all_gather_s(size_bytes, nodes, per_node)

    def send_s(self, size_bytes: ArrayLike, across_nodes: bool) -> Any:
        """Return the seconds of one message to the next stage: the bandwidth of a group of two."""
        bandwidth, latency_s = self._group(2, 1) if across_nodes else self._group(1, 2)
        return np.asarray(size_bytes, float)[()] / bandwidth + latency_s

    def to_device_s(self, size_bytes: ArrayLike) -> Any:
        """Return the seconds of a copy from the host; 0 for no bytes."""
        return _copy_s(size_bytes, self.host_to_device)

    def to_host_s(self, size_bytes: ArrayLike) -> Any:
        """Return the seconds of a copy to the host; 0 for no bytes."""
        return _copy_s(size_bytes, self.device_to_host)

    def _group(self, nodes: int, per_node: int) -> Rates:
        if (nodes, per_node) not in self.groups:
            known = ", ".join(f"{n}x{m}" for n, m in sorted(self.groups))
            raise ValueError(f"no collective of {nodes} nodes x {per_node} devices was measured; known: {known}")
        return self.groups[nodes, per_node]


def _copy_s(size_bytes: ArrayLike, rates: Rates) -> Any:
    size = np.asarray(size_bytes, float)
    return np.where(size > 0, size / rates[0] + rates[1], 0.0)[()]
