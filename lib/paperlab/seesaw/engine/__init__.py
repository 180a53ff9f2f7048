"""The real engine: tensor- and pipeline-parallel ranks as processes, re-sharded between prefill and decode (§4, §5).

    ReshardingEngine: generate, trace       resharding.py, options.py, trace.py
    policies in real time                   driver.py, messages.py
    processes                               pool.py, worker.py, session.py
    shards and their links                  shard_model.py, communicators.py
    weights: one host copy, reloaded shards weights.py, host_memory.py, shared.py
    keys and values: two tiers, HND         tiers.py, kernels.py (Triton)
    swap-out behind prefill (§5.2)          write_through.py
    streams, pinned memory, emulated links  transfers.py
    what the simulator learns of a machine  measured_prices.py

On CPUs everything runs and is tested with gloo. What is for CUDA alone (NCCL, side streams, pinned memory, the compiled
kernel) has not run on a GPU yet.
"""

from paperlab.seesaw.engine.options import EngineOptions
from paperlab.seesaw.engine.pool import RankError, RankPool
from paperlab.seesaw.engine.resharding import ReshardingEngine
from paperlab.seesaw.engine.trace import Trace

__all__ = ["EngineOptions", "RankError", "RankPool", "ReshardingEngine", "Trace"]
