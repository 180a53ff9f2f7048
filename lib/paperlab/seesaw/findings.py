"""What tables say to each claim of the ledger, in its units; what that means, the ledger decides."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any, NamedTuple

import pandas as pd

from paperlab.seesaw.disaggregation import least_gpus
from paperlab.seesaw.hardware import node
from paperlab.seesaw.studies.end_to_end import speedups
from paperlab.seesaw.studies.published import LABELS, SPECIFICATIONS
from paperlab.transformer import preset, weight_bytes

NEAR = 0.02  # what counts as equal between simulated throughputs


class Found(NamedTuple):
    """One finding: the claim, its value in the ledger's unit, the artifact that shows it, and a note."""

    claim_id: str
    value: float | bool
    artifact: str
    note: str = ""


def specification_findings(table: pd.DataFrame) -> Iterator[Found]:
    """Yield Table 1's nine figures, from `table_1`."""
    for index, name in enumerate(SPECIFICATIONS):
        row = table[table.device == name].iloc[0]
        for offset, column in enumerate(("memory_GiB", "bandwidth_GBps", "fp16_TFLOP_per_s")):
            note = "the datasheets' unit is 1e9 B/s where the paper prints GiB/s" if offset == 1 else ""
            yield Found(f"SS-{20 + 3 * index + offset:03}", float(row[column]), "table_1", note)


def breakdown_findings(table: pd.DataFrame) -> Iterator[Found]:
    """Yield what Fig. 1's bars say, from `figure_1`."""
    seconds = table.pivot_table("seconds", ["phase", "tp"], "part")
    total: Any = seconds.sum(axis=1)
    network = seconds["communication"]["prefill"]
    yield Found("SS-090", bool(network.is_monotonic_increasing), "figure_1")
    yield Found(
        "SS-091",
        bool(total["prefill", 8] > total["prefill", 1]),
        "figure_1",
        _times(total["prefill", 8], total["prefill", 1]),
    )
    yield Found(
        "SS-092",
        bool(total["decode", 1] > total["decode", 8]),
        "figure_1",
        _times(total["decode", 1], total["decode", 8]),
    )
    pipeline: Any = seconds.loc[("decode", 1)]
    yield Found("SS-093", bool(pipeline["weight transfer"] == pipeline.max()), "figure_1")


def disaggregation_findings(table: pd.DataFrame) -> Iterator[Found]:
    """Yield the mismatch and the decode ratio of Fig. 4 on the even 512/512 workload over PCIe."""
    row = table[(table.interconnect == "pcie") & (table.prompt_tokens == 512)].iloc[0]
    spread = f"over workloads and links {table.mismatch.min():.1f} to {table.mismatch.max():.1f}"
    yield Found("SS-009", float(row.mismatch), "figure_4", spread)
    ratios = f"over workloads and links {table.decode_4_over_8.min():.2f} to {table.decode_4_over_8.max():.2f}"
    yield Found("SS-010", float(row.decode_4_over_8), "figure_4", ratios)


def weight_findings() -> Iterator[Found]:
    """Yield the size of the 70B model and the GPUs it needs (§3.2)."""
    model, on = preset("llama2-70b"), node("A100-SXM-40GB")
    yield Found("SS-011", least_gpus(model, on), "figure_4")
    yield Found("SS-012", weight_bytes(model, "fp16") / 1e9, "figure_4")


def policy_findings(table: pd.DataFrame) -> Iterator[Found]:
    """Yield what distinguishes the policies of Fig. 2, from `table_policies`, means over the seeds."""
    rows = table.groupby("policy").mean(numeric_only=True)
    ours, prefill, decode = (rows.loc[name] for name in ("seesaw", "reshard-prefill-first", "reshard-decode-first"))
    yield Found("SS-150", bool(prefill.transitions >= 10 * ours.transitions), "table_policies",
                f"{prefill.transitions:.0f} transitions against {ours.transitions:.0f}")  # fmt: skip
    yield Found("SS-151", bool(decode.mean_decode_batch < 0.9 * ours.mean_decode_batch), "table_policies",
                f"mean batch {decode.mean_decode_batch:.1f} against {ours.mean_decode_batch:.1f}")  # fmt: skip
    best = ours.makespan_s < min(prefill.makespan_s, decode.makespan_s)
    yield Found("SS-152", bool(best and ours.transitions < prefill.transitions), "table_policies",
                f"makespans {ours.makespan_s:.0f}, {prefill.makespan_s:.0f}, {decode.makespan_s:.0f} s")  # fmt: skip


def length_findings(table: pd.DataFrame) -> Iterator[Found]:
    """Yield how inputs compare with outputs, from `figure_9`."""
    means = table.assign(weight=table.tokens * table.density * 128).groupby(["workload", "side"]).weight.sum()
    arxiv, sharegpt = (means[name, "prompt"] / means[name, "output"] for name in ("arxiv", "sharegpt"))
    yield Found("SS-140", bool(arxiv > 4), "figure_9", f"inputs {arxiv:.1f} times as long")
    yield Found("SS-141", bool(0.5 < sharegpt < 2), "figure_9", f"inputs {sharegpt:.1f} times as long")


def cell_findings(table: pd.DataFrame) -> Iterator[Found]:
    """Yield the speed-ups and layouts of Fig. 10, from `figure_10`."""
    rows: Any = speedups(table).set_index("device")
    everywhere = rows.loc["all"]
    yield Found(
        "SS-001", float(everywhere.largest), "speedups", "the baseline has no host time beyond 1 ms per iteration"
    )
    yield Found("SS-002", float(everywhere.geometric_mean), "speedups")
    yield Found("SS-003", float(everywhere.least), "speedups")
    for device, mean, largest in (("A10", "SS-004", "SS-005"), ("L4", "SS-006", "SS-007")):
        if device in rows.index:
            yield Found(mean, float(rows.geometric_mean[device]), "speedups")
            yield Found(largest, float(rows.largest[device]), "speedups")
    if {"A10", "L4"} <= set(rows.index):
        a10, l4 = rows.geometric_mean["A10"], rows.geometric_mean["L4"]
        yield Found("SS-008", bool(a10 > l4), "speedups", f"A10 {a10:.2f}, L4 {l4:.2f}; see the sensitivity table")
    first = table[table.seed == table.seed.min()]
    for index, key in enumerate(LABELS):
        for offset, kind in enumerate(("static", "re-sharding")):
            row = first[
                (first.device == key[0]) & (first.workload == key[1]) & (first.model == key[2]) & (first.kind == kind)
            ]
            if len(row):
                yield Found(
                    f"SS-{40 + 2 * index + offset:03}",
                    bool(row.same_layout.iloc[0]),
                    "figure_10",
                    f"here {row.layout.iloc[0]}",
                )


def interconnect_findings(table: pd.DataFrame) -> Iterator[Found]:
    """Yield Fig. 11's bars and gains, from `figure_11`."""
    value = table.groupby(["workload", "kind", "interconnect"]).normalized.mean()
    order = [("static", "pcie"), ("re-sharding", "pcie"), ("static", "nvlink"), ("re-sharding", "nvlink")]
    for index, (kind, link) in enumerate(order):
        for offset, work in enumerate(("arxiv", "sharegpt")):
            yield Found(f"SS-{70 + 2 * index + offset:03}", float(value[work, kind, link]), "figure_11")
    gain = {(work, link): 100 * (value[work, "re-sharding", link] / value[work, "static", link] - 1)
            for work in ("arxiv", "sharegpt") for link in ("pcie", "nvlink")}  # fmt: skip
    yield Found("SS-078", gain["arxiv", "pcie"], "figure_11")
    yield Found("SS-079", gain["sharegpt", "pcie"], "figure_11")
    yield Found("SS-080", gain["sharegpt", "nvlink"], "figure_11")
    static, ours = (100 * value[:, kind, "pcie"] for kind in ("static", "re-sharding"))
    yield Found("SS-081", float(static.mean()), "figure_11", f"{static.min():.0f} and {static.max():.0f}")
    yield Found("SS-082", float(ours.mean()), "figure_11", f"{ours.min():.0f} and {ours.max():.0f}")


def run_time_findings(table: pd.DataFrame, every: pd.DataFrame) -> Iterator[Found]:
    """Yield what Fig. 12 says, from `figure_12` and `table_12`, means over the seeds."""
    seconds = table.pivot_table("seconds", "schedule", "phase")
    total = table.groupby("schedule").makespan_s.mean()
    prefill, decode = seconds["prefill"], seconds["decode"]
    near = abs(prefill["p4→t4"] / prefill["pp4"] - 1) < 0.1
    yield Found("SS-100", bool(near), "figure_12", f"{prefill['p4→t4']:.0f} and {prefill['pp4']:.0f} s")
    near = abs(decode["p4→t4"] / decode["tp4"] - 1) < 0.1
    yield Found("SS-101", bool(near), "figure_12", f"{decode['p4→t4']:.0f} and {decode['tp4']:.0f} s")
    yield Found("SS-102", bool(total["p4→t4"] < total["tp2pp2+chunked"]), "figure_12")
    means: Any = every.groupby(["layout", "chunk_tokens"], as_index=False).makespan_s.mean()
    best = means.loc[means.makespan_s.idxmin()]
    chunk = f" chunk {best.chunk_tokens}" if best.chunk_tokens else ""
    yield Found("SS-103", bool(best.layout == "T2P2"), "table_12", f"the best here is {best.layout}{chunk}")
    steps = table[(table.schedule == "tp2pp2+chunked") & (table.phase == "decode")].steps.min()
    yield Found("SS-104", bool(steps > 0), "figure_12", f"at least {steps} decode-only steps")


def ratio_findings(table: pd.DataFrame) -> Iterator[Found]:
    """Yield the order of layouts along Fig. 13, from `figure_13`."""
    rate = table.pivot_table("requests_per_s", "ratio", "layout")
    ours, static = rate["P8→T4P2"], rate.drop(columns="P8→T4P2")
    least, winners = rate.index.min(), static.idxmax(axis=1)
    apart = ours[least] / static["P8"][least] - 1
    yield Found("SS-111", bool(abs(apart) <= 2 * NEAR), "figure_13", f"{apart:+.1%} at one output token")
    yield Found("SS-112", bool(static.loc[least].idxmin() == "T4P2"), "figure_13")
    middle = [ratio for ratio in winners.index if winners[ratio] == "T2P4"]
    yield Found(
        "SS-113",
        bool(middle),
        "figure_13",
        f"best static at ratios {', '.join(f'{ratio:g}' for ratio in middle) or 'none'}",
    )
    yield Found(
        "SS-114",
        bool(winners[rate.index.max()] == "T4P2"),
        "figure_13",
        f"at the largest ratio {winners[rate.index.max()]}",
    )
    worst = (ours / static.max(axis=1)).min()
    yield Found("SS-115", bool(worst >= 1 - NEAR), "figure_13", f"at worst {worst:.3f} of the best static layout")


def link_findings(table: pd.DataFrame) -> Iterator[Found]:
    """Yield who wins where along Fig. 14, from `figure_14`."""
    rate = table.pivot_table("requests_per_s", "factor", "layout")
    ours, static = rate["D2P4→D2T4"], rate.drop(columns="D2P4→D2T4")
    slow, fast = static.loc[rate.index.min()].idxmax(), static.loc[rate.index.max()].idxmax()
    yield Found("SS-120", bool(slow in ("P8", "D2P4")), "figure_14", f"best static at x{rate.index.min():g} is {slow}")
    yield Found("SS-121", bool(fast in ("T8", "D2T4")), "figure_14", f"best static at x{rate.index.max():g} is {fast}")
    wins = [factor for factor in rate.index if ours[factor] >= (1 - NEAR) * static.loc[factor].max()]
    text = f"best or within 2 % at {', '.join(f'x{factor:g}' for factor in wins) or 'no point'}"
    yield Found("SS-122", float(min(wins, default=float("nan"))), "figure_14", text)
    yield Found("SS-123", float(max(wins, default=float("nan"))), "figure_14", text)


def replica_findings(table: pd.DataFrame) -> Iterator[Found]:
    """Yield what more replicas cost, from `figure_15`."""
    alone = table[table.runs_out_of_memory].layout.tolist()
    yield Found("SS-130", alone == ["TP1 DP8"], "figure_15", f"out of memory: {', '.join(alone) or 'none'}")
    fitting = table[~table.runs_out_of_memory].sort_values("dp")
    yield Found("SS-131", bool(fitting.load_weights_ms.is_monotonic_increasing), "figure_15")
    yield Found("SS-132", bool(table.sort_values("dp").batch.is_monotonic_decreasing), "figure_15")


def _times(large: float, small: float) -> str:
    return f"{large / small:.1f} times"
