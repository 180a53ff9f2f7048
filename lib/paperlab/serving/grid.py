"""Many simulations at once: systems x workloads x rates x seeds, over worker processes."""

from __future__ import annotations

import multiprocessing
import os
import threading
import time
from collections.abc import Callable, Iterable, Mapping
from concurrent.futures import ProcessPoolExecutor
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, TypeVar

from paperlab.serving.policy import Limits
from paperlab.serving.simulator import simulate
from paperlab.serving.workload import workload

if TYPE_CHECKING:
    import pandas as pd

    from paperlab.serving.events import EventLog


Item = TypeVar("Item")
Result = TypeVar("Result")


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

    return pd.concat(spread(_row, cells, workers), ignore_index=True)


def spread(function: Callable[[Item], Result], items: Iterable[Item], workers: int) -> list[Result]:
    """Return `function` of every item, in their order, over at most `workers` processes that end with this one."""
    todo = list(items)
    if workers <= 1 or len(todo) == 1:
        return [function(item) for item in todo]
    # Spawned, not forked: the caller may hold threads of torch.
    context = multiprocessing.get_context("spawn")
    with ProcessPoolExecutor(min(workers, len(todo)), context, _end_with, (os.getpid(),)) as pool:
        return list(pool.map(function, todo, chunksize=max(1, len(todo) // (8 * workers))))


def _end_with(parent: int) -> None:
    """End this worker when its parent is gone; a killed parent cannot tell it."""

    def watch() -> None:
        while os.getppid() == parent:
            time.sleep(1)
        os._exit(1)

    threading.Thread(target=watch, daemon=True).start()


def _row(cell: Cell) -> pd.DataFrame:
    summary = cell.run().summary()
    for index, (name, value) in enumerate(cell.columns.items()):
        summary.insert(index, name, value)
    return summary
