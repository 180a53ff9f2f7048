"""What the grids say to each claim of §6, as numbers in the ledger's units; what that means, the ledger decides.

A claim "up to" is the largest ratio in the whole grid. A claim without "up to" is the median over the grid's rates and
seeds, and its note gives the range. Nothing is left out: points of low load count as much as overload.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from typing import TYPE_CHECKING, NamedTuple

import pandas as pd

from paperlab.nexus.studies.serving_study import ARXIV, LARGE, LDC, MIXED, latency_gains, sustained, throughput_gains

if TYPE_CHECKING:
    from paperlab.lab.record import Run

VLLM, SGLANG, FASTSERVE, PD = "vllm-like", "sglang-like", "fastserve-like", "vllm-pd-like"
NEAR = 0.1  # what counts as "about equal"


class Found(NamedTuple):
    """One finding: the claim, its value in the ledger's unit, the artifact that shows it, and a note."""

    claim_id: str
    value: float | bool
    artifact: str
    note: str


def record(run: Run, found: Iterable[Found]) -> None:
    """Record simulated findings in a notebook's run, and print what each leads to."""
    for item in found:
        verdict = run.record_claim(
            item.claim_id, item.value, evidence="simulated", artifact=item.artifact, note=item.note
        )
        value = item.value if isinstance(item.value, bool) else f"{item.value:.3g}"
        print(f"{item.claim_id:6} {value!s:8} {verdict:12} {item.note}")


def latency_findings(grid: pd.DataFrame) -> Iterator[Found]:
    """Yield what Fig. 9's grid says about latencies (one GPU, and two for vLLM-P/D)."""
    gains = latency_gains(grid)
    yield from single_gpu_findings(gains)
    apart = 100 * (_gains(gains, PD, "ttft_mean_s", (LDC.label, ARXIV.label)).gain - 1).abs()
    yield _median("N-23", apart, "figure_9_gains", "% apart on LDC and arXiv")
    yield mixed_tail_finding(gains)
    yield from _orders(grid, gains)


def single_gpu_findings(gains: pd.DataFrame) -> Iterator[Found]:
    """Yield the ratios to vLLM-like and SGLang-like on one GPU, from `latency_gains`."""
    for claim, over, metric in (("N-02", VLLM, "ttft"), ("N-03", VLLM, "tbt"), ("N-05", SGLANG, "ttft"),
                                ("N-06", SGLANG, "tbt"), ("N-22", SGLANG, "ttft")):  # fmt: skip
        part = _gains(gains, over, f"{metric}_mean_s")
        best = part.sort_values("gain").iloc[-1]
        where = f"largest at {best.scenario}, {best.rate_per_s:g} requests/s; smallest {part.gain.min():.2f}"
        yield Found(claim, float(best.gain), "figure_9_gains", where)
    for claim, metric in (("N-21", "ttft_mean_s"), ("N-24", "ttft_p95_s"), ("N-26", "tbt_mean_s")):
        yield _median(claim, _gains(gains, VLLM, metric).gain, "figure_9_gains")


def mixed_tail_finding(gains: pd.DataFrame) -> Found:
    """Return whether Nexus has the worse tail TTFT on Mixed, from `latency_gains`."""
    tail = _gains(gains, VLLM, "ttft_p95_s", (MIXED.label,)).gain.median()
    return Found(
        "N-25", bool(tail < 1), "figure_9_gains", f"median P95 TTFT of vLLM-like over Nexus on Mixed {tail:.2f}"
    )


def _orders(grid: pd.DataFrame, gains: pd.DataFrame) -> Iterator[Found]:
    table = "figure_9_table"
    tbt = {
        name: _gains(gains, SGLANG, "tbt_mean_s", (name,)).gain.median()
        for name in (LDC.label, ARXIV.label, MIXED.label)
    }
    order = abs(tbt[LDC.label] - 1) < NEAR and tbt[ARXIV.label] < 1 < tbt[MIXED.label]
    yield Found(
        "N-27", bool(order), table, "SGLang-like over Nexus: " + ", ".join(f"{v:.2f} on {k}" for k, v in tbt.items())
    )
    best = [
        part.sort_values(metric).system.iloc[0]
        for metric in ("tbt_mean_s", "tbt_p95_s")
        for _, part in grid.groupby(["scenario", "rate_per_s", "seed"])
    ]
    share = pd.Series(best).eq(PD).mean()
    yield Found("N-28", bool(share == 1), table, f"best in {100 * share:.0f} % of the grid's points")
    wide = grid.pivot_table(
        index=["scenario", "rate_per_s", "seed"], columns="system", values=["ttft_mean_s", "ttft_p95_s"]
    )
    mean, p95 = (wide[metric][FASTSERVE] / wide[metric][VLLM] for metric in ("ttft_mean_s", "ttft_p95_s"))
    note = f"over vLLM-like: mean TTFT x{mean.median():.2f}, P95 x{p95.median():.2f} (medians)"
    yield Found("N-29", bool(mean.median() < 1 < p95.median()), table, note)
    others = {
        name: _gains(gains, name, "tbt_p95_s", (ARXIV.label,)).gain.median() for name in (VLLM, SGLANG, FASTSERVE)
    }
    note = "P95 TBT over Nexus on arXiv: " + ", ".join(f"{v:.2f} {k}" for k, v in others.items())
    yield Found("N-30", bool(min(others.values()) < 1), table, note)


def throughput_findings(grid: pd.DataFrame, large: pd.DataFrame) -> Iterator[Found]:
    """Yield what both grids say about sustained rates."""
    gains = throughput_gains(sustained(pd.concat([grid, large], ignore_index=True)))
    artifact = "throughput_gains"
    for claim, over in (("N-01", VLLM), ("N-04", SGLANG), ("N-07", PD)):
        part = gains[gains.over == over]
        best = part.sort_values("gain").iloc[-1]
        bound = "; the grid's end bounds it" if best.bounded else ""
        yield Found(claim, float(best.gain), artifact, f"{best.scenario}, limit {best.threshold_s:g} s/token{bound}")
    for claim, over, scenarios in (
        ("N-31", VLLM, (LDC.label, ARXIV.label)), ("N-32", SGLANG, (LDC.label, ARXIV.label)),
        ("N-33", VLLM, (MIXED.label,)), ("N-33b", SGLANG, (MIXED.label,)), ("N-33c", PD, (MIXED.label,)),
        ("N-34", VLLM, (LARGE.label,)), ("N-34b", SGLANG, (LARGE.label,)),
    ):  # fmt: skip
        part = gains[(gains.over == over) & gains.scenario.isin(scenarios)]
        yield _median(claim, part.gain, artifact, "over limits of 0.2, 0.5 and 1 s/token")


def large_findings(large: pd.DataFrame) -> Iterator[Found]:
    """Yield what Fig. 10's grid says."""
    gains, artifact = latency_gains(large), "figure_10_table"
    both = gains.over.isin([VLLM, SGLANG])
    for claim, metric in (("N-35", "ttft_mean_s"), ("N-36", "tbt_mean_s")):
        yield _median(claim, gains[both & (gains.metric == metric)].gain, artifact)
    tails = {(o, m): _gains(gains, o, m).gain.median() for o in (VLLM, SGLANG) for m in ("ttft_p95_s", "tbt_p95_s")}
    above = 1 - 2 * NEAR <= tails[SGLANG, "ttft_p95_s"] < 1
    equal = all(abs(tails[key] - 1) < NEAR for key in tails if key != (SGLANG, "ttft_p95_s"))
    yield Found("N-37", bool(above and equal), artifact, "; ".join(f"{o} {m} {v:.2f}" for (o, m), v in tails.items()))
    rows = large[large.system == PD]
    worst = large.groupby("system").normalized_latency_mean_s.mean().idxmax() == PD
    note = f"{int(rows.preemptions.sum())} evictions in {len(rows)} runs; worst normalized latency: {worst}"
    yield Found("N-38", bool(worst and rows.preemptions.sum() > 0), artifact, note)


def offline_findings(makespans: pd.DataFrame) -> Iterator[Found]:
    """Yield what Fig. 11's batches say, as percent of the other system's makespan."""
    wide = makespans.pivot_table(index=["scenario", "jobs"], columns="system", values="makespan_s")
    below = {name: 100 * (1 - wide["nexus"] / wide[name]) for name in (VLLM, SGLANG)}
    ldc = pd.concat([values[LDC.label] for values in below.values()])
    yield _median("N-39", ldc, "figure_11_table", "% below both")
    yield _median("N-40", below[VLLM][MIXED.label], "figure_11_table", "% below vLLM-like")
    yield _median("N-40b", -below[SGLANG][MIXED.label], "figure_11_table", "% above SGLang-like")
    yield _median("N-41", 100 * (1 - wide[PD] / wide["nexus"]), "figure_11_table", "% below Nexus")
    late = makespans[makespans.system == FASTSERVE].groupby("scenario").timed_out.any()
    note = f"timed out on {int(late.sum())} of {len(late)} workloads; the limit is three times the vLLM-like makespan"
    yield Found("N-42", bool(late.all()), "figure_11_table", note)


def stage_findings(stages: pd.DataFrame) -> Iterator[Found]:
    """Yield what Fig. 12's stages say."""
    artifact = "figure_12_table"
    wide = stages.pivot_table(index=["scenario", "rate_per_s", "system"], columns="stage", values="seconds_per_token")
    execution, waiting = wide.execution.unstack("system"), wide.waiting.unstack("system")
    ratio = pd.concat([execution["nexus"] / execution[name] for name in (VLLM, SGLANG)])
    lowest = (execution.idxmin(axis=1) == PD).all()
    note = f"Nexus over both: median {ratio.median():.2f}; vLLM-P/D-like lowest: {lowest}"
    yield Found("N-44", bool(((ratio - 1).abs() < NEAR).all() and lowest), artifact, note)
    for claim, over, scenario in (("N-45", (VLLM,), LDC), ("N-45b", (SGLANG,), LDC), ("N-46", (VLLM, SGLANG), MIXED),
                                  ("N-46b", (PD,), MIXED)):  # fmt: skip
        rows = waiting.loc[scenario.label]
        yield _median(claim, pd.concat([rows[name] / rows["nexus"] for name in over]), artifact)


def ablation_findings(grid: pd.DataFrame) -> Iterator[Found]:
    """Yield what Fig. 13's arms say, as percent of change."""
    wide = grid.pivot_table(index=["rate_per_s", "seed"], columns="system", values=["ttft_mean_s", "tbt_mean_s"])

    def change(after: str, before: str, metric: str) -> pd.Series:
        return 100 * (wide[metric][after] / wide[metric][before] - 1)

    artifact = "figure_13_table"
    yield _median("N-47", change("pf-df-w-sc", "pf-df-wo-sc", "tbt_mean_s"), artifact)
    yield _median("N-47b", change("pf-df-w-sc", "pf-df-wo-sc", "ttft_mean_s"), artifact)
    order = change("nexus-wo-sc", "pf-df-wo-sc", "ttft_mean_s")
    yield Found("N-48", float(order.min()), artifact, f"largest fall; median {order.median():.0f} %")
    slower = change("nexus-wo-sc", "pf-df-wo-sc", "tbt_mean_s")
    yield Found("N-48b", bool(slower.median() > 0), artifact, f"median change of mean TBT {slower.median():+.1f} %")
    yield _median("N-49", change("nexus", "nexus-wo-sc", "ttft_mean_s"), artifact)
    yield _median("N-49b", change("nexus", "nexus-wo-sc", "tbt_mean_s"), artifact)


def _gains(gains: pd.DataFrame, over: str, metric: str, scenarios: tuple[str, ...] = ()) -> pd.DataFrame:
    part = gains[(gains.over == over) & (gains.metric == metric)]
    return part[part.scenario.isin(scenarios)] if scenarios else part


def _median(claim_id: str, values: pd.Series, artifact: str, note: str = "") -> Found:
    spread = f"median of {len(values)}; {values.min():.3g} to {values.max():.3g}"
    return Found(claim_id, float(values.median()), artifact, f"{spread} {note}".strip())
