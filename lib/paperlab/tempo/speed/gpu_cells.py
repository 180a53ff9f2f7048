"""What one cell of the GPU run measures: rows of a table that belong together, each in fresh processes.

On a CPU the same code runs on tiny models; there a probe compares the tracked live bytes of a real step with the
cap instead of running out of memory.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from typing import Any

import pandas as pd
import torch

from paperlab.tempo.memory.capacity import (
    STATE_BYTES_PER_PARAMETER,
    Capacity,
    Card,
    capacity,
    step_bytes,
    synthetic_batch,
)
from paperlab.tempo.memory.probe import Probe, ProbeResult, build_model, measure_max_batch, run
from paperlab.tempo.speed.fresh import Caller
from paperlab.tempo.speed.kernel_speed import Sizes, kernel_table
from paperlab.tempo.speed.throughput import BASELINE, Point, Timing, compare, throughput_at_largest_batch
from paperlab.tempo.speed.workloads import OPTIMIZER, Workload

EAGER = "eager, torch as it is"
CELL_TIMEOUT_S = 300.0
BF16_STATE_BYTES = 8  # weight, gradient and two Adam moments


@dataclass(frozen=True)
class Bench:
    """Where to measure and how often; `read` returns the table of another stage, empty where there is none yet."""

    device: str
    repeat: Timing
    call: Caller
    read: Callable[[str], pd.DataFrame]

    def timed(self, function: Callable[..., pd.DataFrame], *args: Any) -> pd.DataFrame:
        """Run a function of `throughput` in a fresh process."""
        options = {"repeat": self.repeat, "device": self.device, "keep_going": True}
        return self.call(function, *args, timeout_s=CELL_TIMEOUT_S, **options)


def expected(workload: Workload, card: Card, arm: str) -> Capacity:
    """Return the largest batch by the capacity model; autocast, which meta does not know, counts as fp32."""
    with torch.device("meta"):
        model = build_model(workload.probe(EAGER))
    state = BF16_STATE_BYTES if workload.precision == "bf16" else STATE_BYTES_PER_PARAMETER
    return capacity(
        model,
        card.memory_bytes,
        workload.seq_len,
        arm,
        reserve_bytes=card.reserve_bytes,
        state_bytes_per_parameter=state,
    )


def run_capped(workload: Workload, probe: Probe) -> ProbeResult:
    """Run a probe in the workload's precision; needs a GPU that this process has not touched."""
    torch.set_float32_matmul_precision("high")  # TF32 changes no size and saves minutes
    # Without its cache, autocast casts each weight once per step, as where it ends with the forward pass
    with workload.autocast("cuda", cache_enabled=False):
        return run(probe)


def rehearse(state_bytes: int, probe: Probe) -> ProbeResult:
    """Stand in for `run_capped` on a CPU: do the training state and a real step's live bytes fit under the cap?"""
    model = build_model(probe)
    needed_bytes = state_bytes + step_bytes(model, synthetic_batch(model, probe.batch, probe.seq_len, "cpu"))
    fits = needed_bytes <= probe.memory_bytes - probe.reserve_bytes
    return ProbeResult(probe.batch, fits, probe.steps if fits else 0, needed_bytes, 0, "cpu", "")


def largest_batch(bench: Bench, workload: Workload, card: Card, arm: str) -> pd.DataFrame:
    """Bisect for the largest batch that trains under a card's memory, starting from the capacity model."""
    model = expected(workload, card, arm)
    on_gpu = bench.device == "cuda"
    how: tuple[Any, ...] = (run_capped, workload) if on_gpu else (rehearse, model.state_bytes)
    run_probe = partial(bench.call, *how, timeout_s=CELL_TIMEOUT_S)
    probe = workload.probe(arm, card.memory_bytes, card.reserve_bytes)
    best, probes = measure_max_batch(probe, model.batch, run_probe)
    fitted, beyond = (probes[probes.batch == batch] for batch in (best, best + 1))
    row = {
        **vars(workload),
        "card": card.name,
        "memory_bytes": card.memory_bytes,
        "reserve_bytes": card.reserve_bytes,
        "arm": arm,
        "optimizer": OPTIMIZER,
        "model_batch": None if workload.precision == "autocast bf16" else model.batch,
        "measured_batch": best,
        "allocated_bytes": fitted.allocated_bytes.max(),
        "reserved_bytes": fitted.reserved_bytes.max(),
        "failed_batch": best + 1,
        "failed_after_steps": beyond.steps_done.max(),
        "probes": len(probes),
        "evidence": "measured-gpu" if on_gpu else "measured-cpu",
        "device": probes.device.iloc[0],
    }
    return pd.DataFrame([row])


def at_largest_batch(bench: Bench, workload: Workload, card: Card, arms: tuple[str, ...]) -> pd.DataFrame:
    """Compare arms, each at the largest batch found for it under the card's memory; empty until all are found."""
    table = bench.read("largest_batch")
    if table.empty:
        return table
    # TF32 changes no size, so both kinds of fp32 share the batches
    precision = "fp32" if workload.precision == "tf32" else workload.precision
    same = (table.model == workload.model) & (table.seq_len == workload.seq_len) & (table.precision == precision)
    found = table[same & (table.card == card.name)].set_index("arm").measured_batch
    if not set(arms) <= set(found.index):
        return pd.DataFrame()
    batches = {arm: int(found[arm]) for arm in arms}
    return bench.timed(throughput_at_largest_batch, workload, batches).assign(card=card.name)


def at_one_batch(bench: Bench, workload: Workload, batch: int, arms: tuple[str, ...]) -> pd.DataFrame:
    """Compare arms at one batch size with torch's own eager model."""
    return bench.timed(compare, workload, [Point(arm, batch) for arm in (EAGER, *arms)], EAGER)


def compiled(bench: Bench, workload: Workload, batch: int, arm: str, budget: float) -> pd.DataFrame:
    """Compare an arm under torch.compile, with an activation-memory budget, with the eager model and Tempo."""
    points = [Point(EAGER, batch), Point("Tempo", batch), Point(arm, batch, budget)]
    return bench.timed(compare, workload, points, EAGER)


def over_batches(bench: Bench, workload: Workload, batches: tuple[int, ...]) -> pd.DataFrame:
    """Throughput over batch size; `speedup` is over the eager model's smallest batch."""
    points = [Point(arm, batch) for batch in batches for arm in (BASELINE, "Tempo")]
    return bench.timed(compare, workload, points)


def kernels(bench: Bench, sizes: Sizes, dtype: torch.dtype) -> pd.DataFrame:
    """Time the operators alone beside a plain copy."""
    return bench.call(kernel_table, sizes, dtype, device=bench.device, timeout_s=CELL_TIMEOUT_S)
