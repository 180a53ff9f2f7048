"""Training throughput of the arms: forward, backward and an AdamW step, timed in turns so that drift cancels.

Arms that are compared live on the device together and take turns; the order reverses from round to round. The
first step of a turn pays for the change of arms and is not counted. Of each round the median step is taken;
intervals are the range over rounds (over six, it covers the median with 97 % confidence, by the sign test), and
ratios are formed within rounds. The numbers belong to one device: the paper's cards had another balance of
arithmetic and memory.
"""

from __future__ import annotations

import gc
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import cache
from typing import Any

import numpy as np
import pandas as pd
import torch

from paperlab.lab import timing
from paperlab.lab.gpu_run import FAILED
from paperlab.tempo.memory.capacity import synthetic_batch
from paperlab.tempo.ops import kernels
from paperlab.tempo.speed.workloads import OPTIMIZER, Trainer, Workload

BASELINE = "eager, modern"
OK, OUT_OF_MEMORY = "ok", "out of memory"


@dataclass(frozen=True)
class Point:
    """One thing to time: an arm of `baselines.ARMS` at a batch size.

    `compile_budget` puts the arm under `torch.compile` with that activation-memory budget in [0, 1], 1 being the
    compiler's default; None leaves it eager.
    """

    arm: str
    batch: int
    compile_budget: float | None = None

    def __post_init__(self) -> None:
        if self.batch < 1:
            raise ValueError(f"batch is {self.batch}; it must be positive")

    @property
    def label(self) -> str:
        """The arm's name in tables."""
        if self.compile_budget is None:
            return self.arm
        return f"{self.arm}, torch.compile, memory budget {self.compile_budget:g}"


@dataclass(frozen=True)
class Timing:
    """How often: `rounds` of turns with `steps` counted steps each, after `warmup` steps per point."""

    rounds: int = 6
    steps: int = 3
    warmup: int = 3

    def __post_init__(self) -> None:
        for name, value in vars(self).items():
            if value < 1:
                raise ValueError(f"{name} is {value}; it must be positive")


class _Session:
    """Models on the device, shared by points that differ only in batch size."""

    def __init__(self, workload: Workload, device: str) -> None:
        self.device, self.seq_len = device, workload.seq_len
        self.trainer = cache(lambda arm, budget: Trainer(workload, arm, device, budget))

    def turn(self, point: Point, steps: int) -> list[dict[str, float]]:
        """Take one uncounted step and `steps` counted ones."""
        trainer = self.trainer(point.arm, point.compile_budget)
        batch = synthetic_batch(trainer.model, point.batch, self.seq_len, self.device)
        trainer.step(batch)
        held_bytes, launched = self._reset_peak(), kernels.launches.total()
        times = timing.timed(lambda: trainer.step(batch), steps, self.device)
        peak_bytes = torch.cuda.max_memory_allocated() - held_bytes if self.device == "cuda" else np.nan
        launches = (kernels.launches.total() - launched) / steps
        return [{"step_s": t, "peak_bytes": peak_bytes, "triton_launches": launches} for t in times]

    def _reset_peak(self) -> int:
        if self.device != "cuda":
            return 0
        torch.cuda.synchronize()
        torch.cuda.reset_peak_memory_stats()
        return torch.cuda.memory_allocated()


def _attempt(session: _Session, point: Point, steps: int, keep_going: bool) -> tuple[str, list[dict[str, float]]]:
    try:
        return OK, session.turn(point, steps)
    except torch.OutOfMemoryError:
        return OUT_OF_MEMORY, []
    except Exception as error:
        if not keep_going:
            raise
        return f"{FAILED}: {type(error).__name__}: {error}".splitlines()[0], []


def _release(device: str) -> None:
    gc.collect()
    if device == "cuda":
        torch.cuda.empty_cache()


def measure(
    workload: Workload,
    points: Sequence[Point],
    repeat: Timing | None = None,
    device: str | None = None,
    keep_going: bool = False,
) -> pd.DataFrame:
    """Time the training step of every point in turns and return each single step.

    Columns: arm, batch, status, round, step_s, peak_bytes (above the training state, GPU only), triton_launches
    (per step). A point that runs out of memory keeps one row that says so, and the others go on; with `keep_going`
    so does one that fails in any other way. Raises ValueError for TF32 on a CPU.
    """
    device = device or timing.default_device()
    if workload.precision == "tf32" and device != "cuda":
        raise ValueError("precision is 'tf32', which a CPU does not have; use 'fp32'")
    repeat = repeat or Timing()
    session = _Session(workload, device)
    status = dict.fromkeys(points, OK)
    rows: list[dict[str, Any]] = []
    with workload.matmul_precision():
        for number in range(repeat.rounds + 1):  # round 0 warms up
            for point in list(status)[:: 1 if number % 2 else -1]:
                if status[point] != OK:
                    continue
                steps = repeat.steps if number else repeat.warmup
                status[point], taken = _attempt(session, point, steps, keep_going)
                if status[point] != OK:
                    _release(device)
                rows += [{"point": point, "round": number, **step} for step in taken if number]
    del session  # models refer to themselves, so only the garbage collector returns their memory
    _release(device)
    return _step_table(status, rows)


def _step_table(status: Mapping[Point, str], rows: Sequence[dict[str, Any]]) -> pd.DataFrame:
    table = []
    for point, outcome in status.items():
        own = [row for row in rows if row["point"] == point] if outcome == OK else [{"round": 0}]
        table += [{**row, "arm": point.label, "batch": point.batch, "status": outcome} for row in own]
    columns = ["arm", "batch", "status", "round", "step_s", "peak_bytes", "triton_launches"]
    return pd.DataFrame(table, columns=columns)


def summarize(
    workload: Workload, steps: pd.DataFrame, baseline: str = BASELINE, device: str | None = None
) -> pd.DataFrame:
    """Reduce the steps of `measure` to one row per arm and batch.

    step_s, speedup (sequences per second over those of `baseline`, paired by round) and their ranges over rounds;
    sequences_per_s; overhead (of time per sequence, 1 / speedup - 1); the hardware's bound on the step, which is
    model FLOPs over the dense peak, and the fraction of it that was reached (empty where the peak is not known).
    """
    device = device or timing.default_device()
    ceiling = timing.roofline(device, workload.arithmetic)
    groups = [group for _, group in steps.groupby(["arm", "batch"], sort=False)]
    reference = next((_rate(group) for group in groups if group.arm.iloc[0] == baseline), pd.Series(dtype=float))
    rows = []
    for group in groups:
        first, rate = group.iloc[0], _rate(group)
        bound_s = float(ceiling.compute_s(workload.flops(first.batch))) if ceiling else np.nan
        rows.append(
            {
                **vars(workload),
                **first[["arm", "batch", "status"]],
                "optimizer": OPTIMIZER,
                **_spread("step_s", first.batch / rate),
                "sequences_per_s": rate.median(),
                "baseline": baseline,
                **_spread("speedup", rate / reference),
                "overhead": 1 / (rate / reference).median() - 1,
                "bound_s": bound_s,
                "fraction_of_bound": bound_s * rate.median() / first.batch,
                "peak_bytes": group.peak_bytes.max(),
                "triton_launches": group.triton_launches.max(),
                **timing.machine(device),
            }
        )
    return pd.DataFrame(rows)


def _rate(group: pd.DataFrame) -> pd.Series[float]:
    """Sequences per second of each round, by its median step."""
    return group.batch.iloc[0] / group.groupby("round").step_s.median()


def _spread(name: str, values: pd.Series[float]) -> dict[str, float]:
    return {name: values.median(), f"{name}_low": values.min(), f"{name}_high": values.max()}


def compare(
    workload: Workload,
    points: Sequence[Point],
    baseline: str = BASELINE,
    repeat: Timing | None = None,
    device: str | None = None,
    keep_going: bool = False,
) -> pd.DataFrame:
    """Measure `points` in turns and summarize them; see `measure` and `summarize`."""
    return summarize(workload, measure(workload, points, repeat, device, keep_going), baseline, device)


def iso_batch_overhead(workload: Workload, arms: Sequence[str], batch: int, **options: Any) -> pd.DataFrame:
    """Compare `arms` at one batch size; column `overhead` is what an arm costs over the baseline's time."""
    return compare(workload, [Point(arm, batch) for arm in arms], **options)


def throughput_at_largest_batch(workload: Workload, batches: Mapping[str, int], **options: Any) -> pd.DataFrame:
    """Compare arms, each at its own largest batch, as `probe.measure_max_batch` finds it under a memory cap.

    The batches are those of the cap; the timing itself is not capped, so that arms can take turns. Arms for which
    nothing fits (batch 0) are left out.
    """
    return compare(workload, [Point(arm, batch) for arm, batch in batches.items() if batch], **options)
