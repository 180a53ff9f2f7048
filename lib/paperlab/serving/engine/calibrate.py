"""What the simulator has to know of this machine to predict the engine: constants fitted to measured iterations.

The model is the simulator's own (`device_model`): per operator the longer of arithmetic and memory traffic, a fixed
overhead per iteration and per token that comes out, sweeps of attention over memory, a penalty for mixed batches, one
for lanes side by side.
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
SHORT_OVERLAP = 0.05  # of an iteration: so little beside another lane counts as none
_FLAT = Saturation(knee=0.01, decay=0.0)  # a lane on a CPU is one thread, whatever share it was promised
# Seconds per FLOP, per byte, per iteration, per token that comes out; sweeps of prefill and decode; mixed penalty.
_START = (1 / 50e9, 1 / 10e9, 1e-3, 1e-4, 1.0, 1.0, 1.1)
_LOWEST = (1e-13, 1e-13, 1e-7, 1e-9, 1.0, 1.0, 1.0)
_PREFILL, _DECODE = OPERATORS.index("prefill_attention"), OPERATORS.index("decode_attention")


class Overlap(NamedTuple):
    """An iteration, the one of another lane that it ran beside longest, and the share of its time beside any."""

    step: Step
    peer: Step | None
    share: float


class Iterations(NamedTuple):
    """Measured iterations as arrays: FLOPs and bytes (N, operators), seconds, tokens that came out, which are mixed."""

    flops: NDArray[np.float64]
    moved_bytes: NDArray[np.float64]
    seconds: NDArray[np.float64]
    emitted: NDArray[np.float64]
    mixed: NDArray[np.bool_]


def calibrate(logs: EventLog | Sequence[EventLog], model: ModelShape, dtype: str = "fp32") -> dict[str, Any]:
    """Fit this machine to measured iterations; returns options for `simulate(policy, workload=w, **options)`.

    The fit minimizes squared relative errors, outliers damped; then all times are scaled by one factor so that they
    add up to the measured total, since a busy machine's stragglers belong to the mean. Lanes side by side: their
    penalty is what makes the overlapping iterations come out. Pools and limits are those of the first log.

    Raises:
        ValueError: fewer than 30 iterations outside of overlaps.
    """
    logs = [logs] if isinstance(logs, EventLog) else list(logs)
    cost = ModelCost(model, dtype)
    alone: list[Overlap] = []
    beside: list[Overlap] = []
    for log in logs:
        for item in _overlaps(log):
            (beside if item.share > SHORT_OVERLAP else alone).append(item)
    if len(alone) < FEWEST_STEPS:
        raise ValueError(f"calibrate: {len(alone)} iterations outside of overlaps; at least {FEWEST_STEPS} are needed")
    spec, constants = _fit(_iterations(cost, [item.step for item in alone]), dtype)
    corun = _corun_penalty(DeviceModel(cost, spec, constants), beside)
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
    emitted = np.array([step.shape.logits for step in steps], dtype=float)
    return Iterations(flops, moved, seconds, emitted, np.array([step.shape.kind == "mixed" for step in steps]))


def _predict(x: NDArray[np.float64], rows: Iterations) -> NDArray[np.float64]:
    per_flop, per_byte, per_step, per_token, prefill_sweeps, decode_sweeps, penalty = x
    sweeps = np.ones(len(OPERATORS))
    sweeps[_PREFILL], sweeps[_DECODE] = prefill_sweeps, decode_sweeps
    longer = np.maximum(rows.flops * per_flop, rows.moved_bytes * sweeps * per_byte).sum(1)
    return longer * np.where(rows.mixed, penalty, 1.0) + per_step + per_token * rows.emitted


def _fit(rows: Iterations, dtype: str) -> tuple[DeviceSpec, DeviceConstants]:
    """Return a device whose peaks are the fitted rates, and the constants beside them."""
    from scipy.optimize import least_squares  # slow to import

    def residuals(logarithms: NDArray[np.float64]) -> NDArray[np.float64]:
        return _predict(np.exp(logarithms), rows) / rows.seconds - 1

    low = np.log(_LOWEST) - 1e-9
    start = np.maximum(np.log(_START), low + 1e-6)
    found = least_squares(residuals, start, bounds=(low, np.log(1e3)), loss="soft_l1", f_scale=0.2)
    x = np.maximum(np.exp(found.x), _LOWEST)
    x[:4] *= rows.seconds.sum() / _predict(x, rows).sum()
    rates: dict[str, Any] = {"bandwidth_Bps": float(1 / x[1]), "peak_flops_per_s": {dtype: float(1 / x[0])}}
    spec = replace(processor(), **rates, source="rates fitted to the engine's iterations")
    return spec, DeviceConstants(
        compute_efficiency=1.0,
        memory_efficiency=1.0,
        step_overhead_s=float(x[2]),
        source="fitted to the engine's iterations",
        token_overhead_s=float(x[3]),
        attention_sweeps=float(x[4]),
        decode_sweeps=float(x[5]),
        mixed_penalty=float(x[6]),
        compute_curves=dict.fromkeys(OPERATORS, _FLAT),
        memory_curve=_FLAT,
    )


def _overlaps(log: EventLog) -> Iterable[Overlap]:
    """Yield each iteration with its overlap; the steps of one lane never overlap each other."""
    ordered = sorted(log.steps, key=lambda step: step.start_s)
    running: list[Step] = []
    beside: dict[Step, list[tuple[float, Step]]] = {step: [] for step in ordered}
    for step in ordered:
        running = [other for other in running if other.end_s > step.start_s]
        for other in running:
            common_s = min(step.end_s, other.end_s) - step.start_s
            beside[step].append((common_s, other))
            beside[other].append((common_s, step))
        running.append(step)
    for step, peers in beside.items():
        longest = max(peers, key=lambda item: item[0])[1] if peers else None
        yield Overlap(step, longest, sum(common_s for common_s, _ in peers) / (step.end_s - step.start_s))


def _corun_penalty(model: DeviceModel, overlaps: Sequence[Overlap]) -> float:
    """Return the stretch beyond shared bandwidth that explains the iterations beside another; 1 where there are none.

    An iteration of y seconds, a share f of them beside another, does (1 - f)·y / alone of its work alone, the rest at a
    pace of penalty · side by side.
    """
    stretched = rest = 0.0
    for step, peer, share in overlaps:
        assert peer is not None, "an overlap has a peer"
        load, other = model.load(step.shape), model.load(peer.shape)
        seconds = step.end_s - step.start_s
        side_by_side = model.durations([(load, 1.0), (other, 1.0)])[0]
        stretched += seconds * share / side_by_side
        rest += max(0.0, 1 - seconds * (1 - share) / model.seconds(load))
    return max(1.0, stretched / rest) if rest else 1.0
