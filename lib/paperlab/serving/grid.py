"""Many simulations at once: systems x workloads x rates x seeds, over worker processes."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

from paperlab.lab.workers import in_processes
from paperlab.serving.policy import Limits
from paperlab.serving.simulator import simulate
from paperlab.serving.workload import workload

if TYPE_CHECKING:
    import pandas as pd

    from paperlab.serving.events import EventLog


@dataclass(frozen=True)
class Cell:
    """One simulation; `rate_per_s` None means that all requests arrive at once.

    `options` go to `simulate` (tp, constants …), `policy_options` to the policy; `columns` are added to the row.
    """

    system: str
    model: str
    device: str
    lengths: str
    rate_per_s: float | None
    requests: int
    seed: int
    limits: Limits = field(default_factory=Limits)
    until_s: float = float("inf")
    options: Mapping[str, Any] = field(default_factory=dict, hash=False)
    policy_options: Mapping[str, Any] = field(default_factory=dict, hash=False)
    columns: Mapping[str, Any] = field(default_factory=dict, hash=False)

    def run(self) -> EventLog:
        """Simulate this cell and return its log."""
        arrivals = "at_once" if self.rate_per_s is None else "poisson"
        return simulate(
            self.system,
            model=self.model,
            device=self.device,
            workload=workload(self.lengths, self.rate_per_s, self.requests, self.seed, arrivals),
            limits=self.limits,
            policy_options=self.policy_options,
            until_s=self.until_s,
            **self.options,
        )


def run_cells(cells: Iterable[Cell], workers: int = 1) -> pd.DataFrame:
    """Return one row of `EventLog.summary` per cell, in the order of `cells`, with each cell's `columns` in front.

    The rows do not depend on `workers`, the number of processes.
    """
    import pandas as pd

    return pd.concat(in_processes(_row, list(cells), workers), ignore_index=True)


def _row(cell: Cell) -> pd.DataFrame:
    summary = cell.run().summary()
    for index, (name, value) in enumerate(cell.columns.items()):
        summary.insert(index, name, value)
    return summary
