"""What GPU runs left behind (`paperlab.nexus.gpu_evidence`), read back, and the numbers that the claims ask for.

A run's tables lie in `results/<device>/nexus_gpu/`. Only rows measured on a GPU count, and of systems whose lanes share
a device only those with a real partition. Where several devices have runs, the one with the most rows speaks. No GPU
run is stored yet.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator

import numpy as np
import pandas as pd

from paperlab.lab import tables
from paperlab.lab.claims import all_claims
from paperlab.lab.paths import results_dir
from paperlab.nexus.studies.findings import (
    SGLANG,
    VLLM,
    Found,
    ablation_findings,
    mixed_tail_finding,
    single_gpu_findings,
)
from paperlab.nexus.studies.serving_study import ABLATION, LDC, MIXED, latency_gains, sustained, throughput_gains

FOLDER, GPU = "nexus_gpu", "measured-gpu"
PARTITIONED = ("green contexts", "none")  # none: its lanes share no device
FLAT = 1.1  # projections within this factor of the whole device's latency have flattened
WIDEST_GAP = 0.2  # between measured shares, for latency between them to be interpolated
LIMITS = (2.0, 4.0, 8.0)  # a rate is sustained up to so many times the least mean normalized latency of the workload
_COLUMNS = ["claim_id", "value", "unit", "note", "device", "evidence"]


def read(stage: str) -> pd.DataFrame:
    """Return a stage's rows of all devices; empty where no run is stored."""
    files = sorted(results_dir().glob(f"*/{FOLDER}/{stage}.csv"))
    found = [tables.read_csv(path.read_text()) for path in files]
    return pd.concat(found, ignore_index=True) if found else pd.DataFrame()


def claim_values() -> pd.DataFrame:
    """Return what stored GPU runs say to the claims: claim_id, value, unit, note, device, evidence; maybe no rows.

    N-11, N-12 from kernels and kinds; N-13 to N-17 from shares, N-18 from contention; N-01 to N-06, N-21, N-22, N-24 to
    N-26 and N-47 to N-49b from serving. N-23 needs two GPUs and is not decided here.
    """
    makers: dict[str, Callable[[pd.DataFrame], Iterator[Found]]] = {
        "kernels": _kernels,
        "kinds": _kinds,
        "shares": _shares,
        "contention": _contention,
        "serving": _serving,
    }
    ledger, rows = all_claims()["nexus"], []
    for stage, make in makers.items():
        table = _measured(read(stage))
        if not table.empty:
            device = str(table.device.iloc[0])
            found = [f for f in make(table) if not np.isnan(f.value)]  # NaN: the run has not come so far
            rows += [(f.claim_id, f.value, ledger[f.claim_id].unit, f.note, device, GPU) for f in found]
    return pd.DataFrame(rows, columns=_COLUMNS)


def _measured(table: pd.DataFrame) -> pd.DataFrame:
    if table.empty:
        return table
    table = table[table.evidence == GPU]
    if "partition" in table:
        table = table[table.partition.isin(PARTITIONED)]
    return table[table.device == table.device.mode().iloc[0]] if len(table) else table


def _kernels(table: pd.DataFrame) -> Iterator[Found]:
    linear = table[table.kernels == "linear"].set_index("kind").seconds
    note = f"all linear kernels of a batch, {_batch(table)}"
    yield Found("N-11", float(linear["mixed"] / linear["decode"]), "kernels", note)


def _kinds(table: pd.DataFrame) -> Iterator[Found]:
    latency = table.set_index("kind").iteration_s
    note = f"decode-only {1e3 * latency['decode']:.3g} ms, mixed {1e3 * latency['mixed']:.3g} ms, {_batch(table)}"
    yield Found("N-12", float(latency["mixed"] / latency["decode"]), "kinds", note)


def _batch(table: pd.DataFrame) -> str:
    return f"{table.model.iloc[0]}, {table.sequences.iloc[0]} sequences decoding"


def _shares(table: pd.DataFrame) -> Iterator[Found]:
    curves = {phase: part.groupby("share").device_s.median() for phase, part in table.groupby("phase")}

    def drop(phase: str, low: float, high: float) -> float:
        before_s, after_s = (_at(curves[phase], share) for share in (low, high))
        return 100 * (1 - after_s / before_s)

    measured = "between layouts latency is interpolated"
    yield Found("N-13", drop("prefill", 0.3, 0.4), "shares", measured)
    yield Found("N-14", drop("prefill", 0.7, 0.8), "shares", measured)
    note = f"least share within {FLAT:g} x of the whole device's latency"
    yield Found("N-15", 100 * _flattens_at(curves["projections"]), "shares", note)
    yield Found("N-16", drop("decode", 0.3, 0.4), "shares", measured)
    beyond = [drop("decode", share / 10, share / 10 + 0.1) for share in range(5, 10)]
    steps = ", ".join(f"{value:.1f}" for value in beyond)
    yield Found("N-17", float(np.max(beyond)), "shares", f"largest of the steps from 50 %: {steps} %; {measured}")


def _at(curve: pd.Series, share: float) -> float:
    """Return the latency at a share; NaN outside of what was measured and within wide gaps."""
    shares, values = curve.index.to_numpy(dtype=float), curve.to_numpy(dtype=float)
    above = min(max(1, int(np.searchsorted(shares, share))), len(shares) - 1)
    if shares[above] - shares[above - 1] > WIDEST_GAP + 1e-9:
        return np.nan
    return float(np.interp(share, shares, values, left=np.nan, right=np.nan))


def _flattens_at(curve: pd.Series) -> float:
    """Return the least share that is `FLAT`; NaN where the shares measured leave gaps, or the least of all is flat."""
    shares = curve.index.to_numpy(dtype=float)
    flat = curve.to_numpy(dtype=float) <= FLAT * curve.iloc[-1]
    if len(shares) < 2 or flat[0] or np.diff(shares).max() > WIDEST_GAP + 1e-9:
        return np.nan
    return float(shares[flat].min())


def _contention(table: pd.DataFrame) -> Iterator[Found]:
    beside = table.dropna(subset=["stored_tokens"]).set_index("stored_tokens").device_s.sort_index()
    alone = table[table.stored_tokens.isna()].device_s
    if not {2000, 10_000} <= set(beside.index):
        return
    apart = f"; alone {1e3 * alone.iloc[0]:.3g} ms" if len(alone) else ""
    sms = f"{table.decode_sms.iloc[0]:.0f} multiprocessors for decode"
    note = f"{sms}, {1e3 * beside.min():.3g} to {1e3 * beside.max():.3g} ms{apart}"
    yield Found("N-18", 100 * float(beside[10_000] / beside[2000] - 1), "contention", note)


def _serving(table: pd.DataFrame) -> Iterator[Found]:
    grid = table[table.scenario.isin([LDC.label, MIXED.label])]
    censored = int((grid.unfinished > 0).sum())
    loads = ", ".join(f"{load:g}" for load in sorted(grid.load.unique()))
    about = f"loads {loads} of capacity, {grid.seed.nunique()} seeds" + (
        f", {censored} runs cut off" if censored else ""
    )
    for found in _comparisons(grid):
        yield found._replace(note=f"{found.note}; {about}")


def _comparisons(grid: pd.DataFrame) -> Iterator[Found]:
    main = _complete(grid, {"nexus", VLLM, SGLANG})
    if not main.empty:
        gains = latency_gains(main)
        yield from single_gpu_findings(gains)
        if MIXED.label in set(gains.scenario):
            yield mixed_tail_finding(gains)
        yield from _throughput(main)
    arms = _complete(grid[grid.scenario == MIXED.label], set(ABLATION))
    if not arms.empty:
        yield from ablation_findings(arms)


def _complete(grid: pd.DataFrame, systems: set[str]) -> pd.DataFrame:
    """Return the rows of `systems` at the points that all of them have: a run that was cut short favors nobody."""
    rows = grid[grid.system.isin(systems)]
    counts = rows.groupby(["scenario", "rate_per_s", "seed"]).system.transform("nunique")
    return rows[counts == len(systems)]


def _throughput(grid: pd.DataFrame) -> Iterator[Found]:
    """Yield N-01 and N-04: limits on latency are relative, since the paper's are unknown and its GPU is slower."""
    parts = []
    for _, rows in grid.groupby("scenario"):
        least_s = rows.groupby(["system", "rate_per_s"]).normalized_latency_mean_s.mean().min()
        parts.append(throughput_gains(sustained(rows, [factor * least_s for factor in LIMITS])))
    gains = pd.concat(parts, ignore_index=True)
    for claim, over in (("N-01", VLLM), ("N-04", SGLANG)):
        best = gains[gains.over == over].sort_values("gain").iloc[-1]
        bound = "; the grid's end bounds it" if best.bounded else ""
        note = f"{best.scenario}, limit {best.threshold_s:.3g} s/token{bound}"
        yield Found(claim, float(best.gain), "serving", note)
