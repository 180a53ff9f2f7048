"""The serving core that Nexus and Seesaw share: one policy object drives a simulator and a real engine.

requests, sequences            request.py
workloads, lengths, loaders    workload.py, lengths.py, loaders.py
paged memory                   kv.py
state, and who changes it      cluster.py, lanes.py
what a policy may ask for      work.py, policy.py; baselines in policies/
cost of an iteration           cost.py, saturation.py, constants.py, device_model.py
a model on devices             deployment.py
virtual clock, resources       simulator.py, timing.py
real execution in torch        engine/
what happened                  events.py, metrics.py, timeline.py
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from paperlab.serving.deployment import Deployment, deployment
from paperlab.serving.events import EventLog
from paperlab.serving.lengths import fixed, uniform
from paperlab.serving.loaders import load_csv, load_jsonl, load_sharegpt
from paperlab.serving.policy import Limits, Policy, make_policy, policy_names, register
from paperlab.serving.simulator import simulate
from paperlab.serving.workload import Workload, workload

if TYPE_CHECKING:
    from paperlab.serving.engine import LLM

__all__ = [
    "LLM",
    "Deployment",
    "EventLog",
    "Limits",
    "Policy",
    "Workload",
    "deployment",
    "fixed",
    "load_csv",
    "load_jsonl",
    "load_sharegpt",
    "make_policy",
    "policy_names",
    "register",
    "simulate",
    "uniform",
    "workload",
]


def __getattr__(name: str) -> Any:
    if name == "LLM":  # loads torch
        from paperlab.serving.engine import LLM

        return LLM
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
