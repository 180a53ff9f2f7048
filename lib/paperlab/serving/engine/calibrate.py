"""What the simulator has to know of this machine to predict the engine: constants fitted to measured iterations.

The model is the simulator's own (`device_model`): per operator the longer of arithmetic and memory traffic, a fixed
overhead, sweeps of attention over memory, a penalty for mixed batches, one for lanes side by side.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import replace
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from paperlab.hardware import DeviceSpec
from paperlab.serving.constants import DeviceConstants
from paperlab.serving.cost import OPERATORS, ModelCost
from paperlab.serving.device_model import DeviceModel
from paperlab.serving.engine.machine import processor
from paperlab.serving.events import EventLog, Step
from paperlab.serving.saturation import Saturation
from paperlab.transformer import ModelShape

FEWEST_STEPS = 30
_FLAT = Saturation(knee=0.01, decay=0.0)  # a lane on a CPU is one thread, whatever share it was promised
_START = (1 / 50e9, 1 / 10e9, 1e-3, 1.0, 1.0, 1.1)  # s per FLOP, s per byte, s, sweeps, sweeps, penalty: any will do
_PREFILL, _DECODE = OPERATORS.index("prefill_attention"), OPERATORS.index("decode_attention")


class Iterations(NamedTuple):
    """Measured iterations as arrays: FLOPs and bytes (N, operators), seconds, and which of them are mixed."""

    flops: NDArray[np.float64]
    moved_bytes: NDArray[np.float64]
    seconds: NDArray[np.float64]
    mixed: NDArray[np.bool_]

    def where(self, kept: NDArray[np.bool_]) -> Iterations:
        """Return some of them."""
        return Iterations(*(column[kept] for column in self))


def calibrate(logs: EventLog | Sequence[EventLog], model: ModelShape, dtype: str = "fp32") -> dict[str, Any]:
    """Fit this machine to the iterations of measured logs; returns options for `simulate(policy, workload=w, **options)`.

    The fit minimizes squared relative errors, outliers damped; then all times are scaled by one factor so that they
    add up to the measured total, since a busy machine's stragglers belong to the mean. Lanes side by side: their
    penalty is what makes the overlapping iterations come out. Pools and limits are those of the first log.

    Raises:
        ValueError: fewer than 30 iterations outside of overlaps.
    """
    logs = [logs] if isinstance(logs, EventLog) else list(logs)
    cost = ModelCost(model, dtype)
    alone, beside = [], []
    for log in logs:
        for step, peer, share in _overlaps(log):
            (beside if share > 0.05 else alone).append((step, peer, share))
    if len(alone) < FEWEST_STEPS:
        raise ValueError(f"calibrate: {len(alone)} iterations outside of overlaps; at least {FEWEST_STEPS} are needed")
    spec, constants = _fit(_iterations(cost, [step for step, _, _ in alone]), dtype)
    corun = _corun_penalty(DeviceModel(cost, spec, constants), [item for item in beside if item[1] is not None])
    about = logs[0].about
    return {
        "model": model,
        "device": spec,
        "dtype": dtype,
        "constants": replace(constants, corun_penalty=corun),
        "block_size": about["block_size"],
        "kv_tokens": about["kv_blocks"] * about["block_size"],
    }


def _iterations(cost: ModelCost, steps: Sequence[Step]) -> Iterations:
    flops = np.zeros((len(steps), len(OPERATORS)))
    moved = np.zeros_like(flops)
    for row, step in enumerate(steps):
        for demand in cost.demands(step.shape):
            column = OPERATORS.index(demand.operator)
            flops[row, column], moved[row, column] = demand.flops, demand.moved_bytes
    seconds = np.array([step.scheduler_s + step.end_s - step.start_s for step in steps])
    return Iterations(flops, moved, seconds, np.array([step.shape.kind == "mixed" for step in steps]))


def _predict(x: NDArray[np.float64], rows: Iterations) -> NDArray[np.float64]:
    per_flop, per_byte, overhead, prefill_sweeps, decode_sweeps, penalty = x
    sweeps = np.ones(len(OPERATORS))
    sweeps[_PREFILL], sweeps[_DECODE] = prefill_sweeps, decode_sweeps
    longer = np.maximum(rows.flops * per_flop, rows.moved_bytes * sweeps * per_byte).sum(1)
    return longer * np.where(rows.mixed, penalty, 1.0) + overhead


def _fit(rows: Iterations, dtype: str) -> tuple[DeviceSpec, DeviceConstants]:
    """Return a device whose peaks are the fitted rates, and the constants beside them."""
    from scipy.optimize import least_squares  # slow to import

    def residuals(logarithms: NDArray[np.float64]) -> NDArray[np.float64]:
        return _predict(np.exp(logarithms), rows) / rows.seconds - 1

    low = np.log([1e-13, 1e-13, 1e-7, 1.0, 1.0, 1.0]) - 1e-9
    start = np.maximum(np.log(_START), low + 1e-6)
    found = least_squares(residuals, start, bounds=(low, np.log(1e3)), loss="soft_l1", f_scale=0.2)
    x = np.maximum(np.exp(found.x), [0, 0, 0, 1, 1, 1])
    x[:3] *= rows.seconds.sum() / _predict(x, rows).sum()
    rates = {"bandwidth_Bps": float(1 / x[1]), "peak_flops_per_s": {dtype: float(1 / x[0])}}
    spec = replace(processor(), **rates, source="rates fitted to the engine's iterations")
    curves: dict[str, Any] = {"compute_curves": dict.fromkeys(OPERATORS, _FLAT), "memory_curve": _FLAT}
    sweeps = {"attention_sweeps": float(x[3]), "decode_sweeps": float(x[4]), "mixed_penalty": float(x[5])}
    return spec, DeviceConstants(1.0, 1.0, float(x[2]), source="fitted to a log", **sweeps, **curves)


def _overlaps(log: EventLog) -> Iterable[tuple[Step, Step | None, float]]:
    """Yield each iteration with the one of another lane it ran beside longest, and the share of its time beside any."""
    ordered = sorted(log.steps, key=lambda step: step.start_s)
    for index, step in enumerate(ordered):
        peers: list[tuple[float, Step]] = []
        for other in [*ordered[max(0, index - 200) : index], *_started_before(ordered, index, step.end_s)]:
            if other.lane != step.lane:
                peers.append((min(step.end_s, other.end_s) - max(step.start_s, other.start_s), other))
        common = [(length, other) for length, other in peers if length > 0]
        total = sum(length for length, _ in common)
        longest = max(common, key=lambda item: item[0])[1] if common else None
        yield step, longest, total / (step.end_s - step.start_s)


def _started_before(ordered: list[Step], index: int, end_s: float) -> Iterable[Step]:
    for other in ordered[index + 1 :]:
        if other.start_s >= end_s:
            return
        yield other


def _corun_penalty(model: DeviceModel, pairs: Sequence[tuple[Step, Step | None, float]]) -> float:
    """Return the stretch beyond shared bandwidth that explains the iterations beside another; 1 where there are none.

    An iteration of y seconds, a share f of them beside another, does (1 - f)·y / alone of its work alone, the rest at a
    pace of penalty · side by side.
    """
    stretched = rest = 0.0
    for step, peer, share in pairs:
        assert peer is not None
        load, other = model.load(step.shape), model.load(peer.shape)
        seconds = step.end_s - step.start_s
        side_by_side = model.durations([(load, 1.0), (other, 1.0)])[0]
        stretched += seconds * share / side_by_side
        rest += max(0.0, 1 - seconds * (1 - share) / model.seconds(load))
    return max(1.0, stretched / rest) if rest else 1.0
