"""Seesaw: another sharding for prefill than for decode, on the same GPUs (arXiv 2503.06433).

From the paper's parts to files:

    layouts and shards (§2, Fig. 5)                  layout.py
    real processes (§5)                              engine
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from paperlab.seesaw import baselines, policies  # noqa: F401 - registers the schedulers
from paperlab.seesaw.layout import Layout, Shard

if TYPE_CHECKING:
    from paperlab.seesaw.engine import ReshardingEngine

__all__ = ["Layout", "ReshardingEngine", "Shard"]


def __getattr__(name: str) -> Any:
    if name == "ReshardingEngine":  # loads torch
        from paperlab.seesaw.engine import ReshardingEngine

        return ReshardingEngine
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
