"""How well the simulator, calibrated on some runs of the engine, predicts others: other workloads, other layouts."""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

import numpy as np
import pandas as pd

from paperlab.seesaw.engine import RankPool
from paperlab.seesaw.engine.measured_prices import MeasuredRates, fit, simulate
from paperlab.seesaw.engine.trace import Trace
from paperlab.seesaw.studies.engine_study import LIMITS, SMALL, Way, about, pairs, serve
from paperlab.serving import Workload, make_policy, uniform, workload
from paperlab.serving.lengths import LengthSource
from paperlab.transformer import ModelShape

SEEN = uniform((16, 256), (4, 48), "seen")
UNSEEN = (
    uniform((16, 64), (24, 64), "chat"),
    uniform((200, 400), (2, 16), "documents"),
    uniform((64, 128), (8, 24), "both"),
)
HOST_SHARE = 0.5  # of the prompts' keys and values: two cycles or more


class Case(NamedTuple):
    """A way to serve, and a workload."""

    way: Way
    work: Workload


def prediction(
    pool: RankPool,
    sources: Sequence[LengthSource] = UNSEEN,
    requests: int = 12,
    rounds: int = 3,
    seed: int = 0,
    model: ModelShape = SMALL,
) -> pd.DataFrame:
    """Calibrate on runs of `SEEN` and predict the makespans of `sources` under every pair of layouts.

    In each round the runs to calibrate on and those to predict take turns, so both see the same machine.

    Returns:
        One row per way and workload that the calibration has not seen: measured_s (median of the rounds),
        simulated_s, error (simulated / measured - 1), transitions of both, the fit's mean error, and noise: the
        relative standard error of the measured times. An error of that order says nothing about the simulator.
    """
    ways = pairs(pool.ranks, model)
    seen = [Case(way, _workload(SEEN, requests, seed)) for way in ways]
    unseen = [Case(way, _workload(source, requests, seed + 1)) for source in sources for way in ways]
    training: list[Trace] = []
    measured: list[list[Trace]] = [[] for _ in unseen]
    for round_number in range(-1, rounds):  # the first round warms up
        for index, case in enumerate(unseen):
            calibrating = _serve(pool, seen[index % len(seen)], model)
            trace = _serve(pool, case, model)
            if round_number >= 0:
                training.append(calibrating)
                measured[index].append(trace)
    rates = fit(training, model)
    return pd.DataFrame([_row(case, found, rates, model) for case, found in zip(unseen, measured, strict=True)])


def accuracy(table: pd.DataFrame) -> pd.DataFrame:
    """Return one row: held-out runs, rank correlation of makespans (Spearman), mean and worst absolute error."""
    errors = table.error.abs()
    rho = table.measured_s.corr(table.simulated_s, method="spearman")
    row = {"runs": len(table), "spearman": rho, "mean_error": errors.mean(), "worst_error": errors.max()}
    return pd.DataFrame([row | {"fit_error": table.fit_error.iloc[0], "evidence": "measured-cpu"}])


def _row(case: Case, found: list[Trace], rates: MeasuredRates, model: ModelShape) -> dict[str, object]:
    log = found[-1].log
    prefill, decode, name = case.way
    policy = make_policy(name, limits=LIMITS, prefill=prefill, decode=decode, prefetch_in_prefill=False)
    predicted = simulate(policy, model, rates, log, case.work)
    times_s = [trace.log.end_s for trace in found]
    measured_s = float(np.median(times_s))
    noise = float(np.std(times_s) / np.mean(times_s) / np.sqrt(len(times_s)))
    return {
        "way": case.way.label, "workload": case.work.name, "measured_s": measured_s,
        "simulated_s": predicted.end_s, "error": predicted.end_s / measured_s - 1,
        "transitions": len(log.switches), "simulated_transitions": len(predicted.switches),
        "fit_error": rates.fit_error, "noise": noise,
    } | about(found[-1])  # fmt: skip


def _workload(source: LengthSource, requests: int, seed: int) -> Workload:
    return workload(source, requests=requests, seed=seed, arrivals="at_once")


def _serve(pool: RankPool, case: Case, model: ModelShape) -> Trace:
    return serve(pool, case.work, case.way, HOST_SHARE, model)
