"""Seesaw: another sharding for prefill than for decode, on the same GPUs (arXiv 2503.06433).

From the paper's parts to files:

    layouts and shards (§2, Fig. 5)                  layout.py
    cost analysis (§3.1, App. A, Tables 2-3)         cost.py
    disaggregation and why not (§3.2, Fig. 4)        disaggregation.py
    rates of GPUs and links, how they are fitted     hardware.py, calibration.py
    price of an iteration at each stage              prices.py
    re-sharding schedulers (§4.2, Figs. 2, 6)        policies.py
    static baselines (§6.1)                          baselines.py
    simulated runs, a fast forecast of them          simulation.py, estimate.py
    plan search (§6.2)                               search.py
    real processes (§5)                              engine
    what only a GPU shows                            gpu_evidence.py, from gpu
    workloads (§6.1, Fig. 9)                         workloads.py
    tables and figures                               experiments.py, plots.py, sweep_plots.py, from studies
    the same of the real processes                   engine_experiments.py, engine_plots.py
    what they say to each claim                      findings.py, engine_findings.py
    how much of them a profile runs                  config.py
    the notebook's exercises, panel                  exercises.py, what_if.py
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from paperlab.seesaw import baselines, policies  # noqa: F401 - registers the schedulers
from paperlab.seesaw.config import Config
from paperlab.seesaw.layout import Layout, Shard

if TYPE_CHECKING:
    from paperlab.seesaw.engine import ReshardingEngine
    from paperlab.seesaw.hardware import Node, node
    from paperlab.seesaw.search import Plan, plan
    from paperlab.seesaw.simulation import Run, run
    from paperlab.seesaw.workloads import workload

# What loads pandas, scipy or torch is loaded at first use: worker processes import this package too.
_LATE = {
    "Node": "hardware", "node": "hardware", "Plan": "search", "plan": "search", "Run": "simulation",
    "run": "simulation", "workload": "workloads", "ReshardingEngine": "engine",
}  # fmt: skip

__all__ = ["Config", "Layout", "Node", "Plan", "ReshardingEngine", "Run", "Shard", "node", "plan", "run", "workload"]


def __getattr__(name: str) -> Any:
    if name in _LATE:
        from importlib import import_module

        return getattr(import_module(f"paperlab.seesaw.{_LATE[name]}"), name)
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
