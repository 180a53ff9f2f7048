"""The same policies on real execution: a small model on this machine, its lanes as threads.

What it can show: true iteration times by kind of batch, the scheduler's cost, that the policies run and give the same
tokens. What it cannot: a partition. A CPU has no multiprocessors to split, so shares change nothing and lanes compete
for cores; the `share` column of its log is what the policy asked for.
"""

from __future__ import annotations

from collections.abc import Sequence

import pandas as pd

from paperlab.serving import LLM, EventLog, Limits, make_policy, metrics, workload
from paperlab.transformer import ModelShape

LENGTHS, FACTOR = "ldc", 1 / 32  # of the motivation workload: prompts of about 185 tokens
BUDGET = 64  # tokens per batch, as 2,048 / 32
SYSTEMS = ("vllm-like", "sglang-like", "nexus")


def small_model(layers: int) -> ModelShape:
    """Return a Llama-style shape that a CPU core runs in milliseconds."""
    return ModelShape(
        name=f"small-{layers}", layers=layers, hidden=256, heads=8, kv_heads=2, ffn=704, vocab=2048, max_positions=1024,
        mlp="gated", norm="rmsnorm", position="rope",
    )  # fmt: skip


def serve(system: str, requests: int, layers: int, seed: int, rate_per_s: float) -> EventLog:
    """Return the log of a scaled workload served in real time by `system`."""
    policy = make_policy(system, limits=Limits(token_budget=BUDGET))
    engine = LLM(small_model(layers), policy, seed=seed, device="cpu")
    return engine.serve(workload(LENGTHS, rate_per_s, requests, seed).scaled(tokens=FACTOR))


def logs(
    requests: int, layers: int, seed: int, rate_per_s: float, systems: Sequence[str] = SYSTEMS
) -> dict[str, EventLog]:
    """Return one log per system, all serving the same requests."""
    return {system: serve(system, requests, layers, seed, rate_per_s) for system in systems}


def iteration_kinds(found: dict[str, EventLog]) -> pd.DataFrame:
    """Return `metrics.iterations` per system."""
    return pd.concat([metrics.iterations(log).assign(system=name) for name, log in found.items()], ignore_index=True)


def overhead(found: dict[str, EventLog]) -> pd.DataFrame:
    """Return per system the median time of a decision and of an iteration, and the share of all time spent deciding."""
    rows = []
    for name, log in found.items():
        deciding = pd.Series([step.scheduler_s for step in log.steps])
        running = pd.Series([step.end_s - step.start_s for step in log.steps])
        percent = 100 * deciding.sum() / running.sum()
        rows.append((name, 1e6 * deciding.median(), 1e3 * running.median(), percent))
    return pd.DataFrame(rows, columns=["system", "decision_us", "iteration_ms", "deciding_percent"])


def summaries(found: dict[str, EventLog]) -> pd.DataFrame:
    """Return `EventLog.summary` of every log."""
    return pd.concat([log.summary() for log in found.values()], ignore_index=True)
