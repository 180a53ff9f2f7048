"""What the exhibits say to each claim, as numbers in the ledger's units; what that means, the ledger decides."""

from __future__ import annotations

from collections.abc import Iterator

import pandas as pd

from paperlab.lab.record import Finding
from paperlab.mist.baselines import systems
from paperlab.mist.published import ACESO_L4_S, README_SPEEDUPS
from paperlab.mist.studies.against_published import BASELINES
from paperlab.mist.studies.end_to_end import MIST

ANALYTIC, SIMULATED, CPU = "analytic", "simulated", "measured-cpu"
_RELIEF = ("checkpointed", "zero", "optimizer_offload", "activation_offload", "grad_offload", "weight_offload")


def golden_findings(goldens: pd.DataFrame, comparison: pd.DataFrame) -> Iterator[Finding]:
    """Yield what `table_goldens` and `figure_11` say about the artifact's instance, GPT-1.3B on two L4."""
    for claim, value in zip(("MI-040", "MI-041", "MI-045", "MI-046"), goldens.here, strict=True):
        yield Finding(claim, float(value), ANALYTIC, "goldens")
    megatron, tuned = goldens.here[:2]
    yield Finding("MI-044", 100 * (megatron / tuned - 1), ANALYTIC, "goldens", "predicted")
    small = comparison[comparison["size"] == "1.3b"].set_index("system")
    mist, free = small.loc[MIST], small.iteration_s[systems.MEGATRON_FREE]
    shape = (mist.stages, mist.accumulation, mist.micro_batch, mist.layers, mist.checkpointed)
    offloads = {mist[name] for name in _RELIEF[2:]}
    same = shape == (2, 16, 2, "12 12", "5 0") and offloads == {"0 0"}
    yield Finding("MI-048", bool(same), ANALYTIC, "figure_11_table", f"layers {mist.layers}, ckpt {mist.checkpointed}")
    yield Finding("MI-074", float(free), ANALYTIC, "figure_11_table")
    for claim, over in (("MI-075", small.iteration_s[systems.MEGATRON_FORCED]), ("MI-076", free)):
        yield Finding(claim, float(100 * (over / mist.iteration_s - 1)), ANALYTIC, "figure_11_table")


def accuracy_findings(memory: pd.DataFrame, times: pd.DataFrame) -> Iterator[Finding]:
    """Yield what predictions for the artifact's runs say beside what it measured on L4."""
    error = 100 * memory.error.abs()
    yield Finding("MI-013", float(error.mean()), ANALYTIC, "memory_accuracy_table", "26 stages")
    gpt, llama = error[memory.family == "gpt"], error[memory.family == "llama"]
    for claim, value in (("MI-050", gpt.mean()), ("MI-051", gpt.max()), ("MI-052", llama.mean())):
        yield Finding(claim, float(value), ANALYTIC, "memory_accuracy_table")
    raw, shifted = (100 * times[name].abs() for name in ("error", "error_shifted"))
    note = f"eleven L4 runs: {shifted.mean():.1f} % mean-shifted, {raw.mean():.1f} % raw"
    yield Finding("MI-012", float(shifted.mean()), ANALYTIC, "time_accuracy_table", note)
    released = times[times.plan == "released plan"]
    for number, (family, attention) in ((30, ("gpt", "math")), (33, ("gpt", "flash")), (36, ("llama", "flash"))):
        own = released[(released.family == family) & (released.attention == attention)]
        for offset, row in enumerate(own.to_dict("records")):
            claim, note = f"MI-{number + offset:03}", f"{family} {row['size']}, predicted; {100 * row['error']:+.1f} %"
            yield Finding(claim, float(row["predicted_s"]), ANALYTIC, "time_accuracy_table", note)
    small = times[(times.family == "gpt") & (times["size"] == "1.3b") & (times.attention == "math")].set_index("plan")
    readme, other = small.loc["tuned plan of the README"], small.loc["released plan"]
    swapped = readme.predicted_s < other.predicted_s and readme.measured_s > other.measured_s
    note = f"predicted {readme.predicted_s:.2f} and {other.predicted_s:.2f} s"
    yield Finding("MI-080", bool(swapped), ANALYTIC, "time_accuracy_table", note)


def _gains(comparison: pd.DataFrame, baseline: str) -> pd.Series:
    """Return the baseline's time over Mist's, per family and size; what does not fit is left out."""
    wide = comparison.pivot_table(index=["family", "size"], columns="system", values="iteration_s")
    return (wide[baseline] / wide[MIST]).dropna() if baseline in wide else pd.Series(dtype=float)


def speedup_findings(math: pd.DataFrame, l4: pd.DataFrame, a100: pd.DataFrame) -> Iterator[Finding]:
    """Yield predicted speedups over both Megatron-LM rows, and over the Aceso-like search."""
    forced, free = (
        {name: _gains(table, row) for name, table in (("math", math), ("l4", l4), ("a100", a100))}
        for row in (systems.MEGATRON_FORCED, systems.MEGATRON_FREE)
    )
    for claim, name, artifact in (
        ("MI-005", "l4", "l4_flash_table"), ("MI-006", "a100", "a100_table"), ("MI-008", "math", "figure_11_table")
    ):  # fmt: skip
        note = f"predicted, recompute forced; free: {free[name].mean():.2f}"
        yield Finding(claim, float(forced[name].mean()), ANALYTIC, artifact, note)
    every, fair = pd.concat(forced.values()), pd.concat(free.values())
    for claim, how in (("MI-001", "mean"), ("MI-002", "max")):
        note = f"predicted, recompute forced; free: {getattr(fair, how)():.2f}; {len(every)} workloads"
        yield Finding(claim, float(getattr(every, how)()), ANALYTIC, "l4_flash_table", note)
    aceso = _gains(math, systems.ACESO)
    for claim, how in (("MI-003", "mean"), ("MI-004", "max")):
        note = f"predicted against an Aceso-like search; {len(aceso)} workloads"
        yield Finding(claim, float(getattr(aceso, how)()), ANALYTIC, "figure_11_table", note)
    times = math[math.system == systems.ACESO].set_index("size").iteration_s
    for number, size in enumerate(ACESO_L4_S, start=56):
        if size in times.index:
            yield Finding(f"MI-{number:03}", float(times[size]), ANALYTIC, "figure_11_table", "Aceso-like, predicted")


def readme_findings(speedups: pd.DataFrame, artifact: str) -> Iterator[Finding]:
    """Yield the README's speedups as `table_speedups` predicts them: as the artifact runs baselines, and free."""
    numbers = {key: f"MI-{number:03}" for number, key in enumerate(README_SPEEDUPS, start=20)}
    suffix = {forced.partition(",")[0]: end for (forced, _), end in zip(BASELINES, ("", "d"), strict=True)}
    for row in speedups.to_dict("records"):
        claim = numbers[row["family"], row["attention"], row["size"]] + suffix[row["baseline"]]
        note = f"predicted, recompute forced; free: {row['over_free']:.2f}"
        yield Finding(claim, float(row["over_forced"]), ANALYTIC, artifact, note)


def plan_findings(math: pd.DataFrame, l4: pd.DataFrame, a100: pd.DataFrame) -> Iterator[Finding]:
    """Yield what shapes the tuned plans have."""
    tables = {"L4 math": math, "L4": l4, "A100": a100}
    plans = pd.concat([t[t.system == MIST].assign(where=name) for name, t in tables.items()], ignore_index=True)

    def names(mask: pd.Series) -> str:
        chosen = plans[mask]
        return ", ".join(f"{r['family']} {r['size']} {r['where']}" for r in chosen.to_dict("records")) or "none"

    values = {name: plans[name].map(_numbers) for name in _RELIEF}
    moved = values["weight_offload"].map(any) | values["grad_offload"].map(any)
    note = f"chosen in {int(moved.sum())} of {len(plans)} plans: {names(moved)}"
    yield Finding("MI-077", not moved.any(), ANALYTIC, "l4_flash_table", note)
    rising = values["checkpointed"].map(lambda counts: counts != sorted(counts, reverse=True))
    note = f"not so in {int(rising.sum())} of {len(plans)} plans: {names(rising)}"
    yield Finding("MI-079", not rising.any(), ANALYTIC, "l4_flash_table", note)
    large = plans["size"].isin(["13b", "22b"]) & (plans.family == "gpt") & (plans["where"] != "L4 math")
    if large.any():
        offloads = values["optimizer_offload"].map(any) | values["activation_offload"].map(any)
        sharded = values["zero"].map(lambda levels: 3 in levels)
        on = {where: large & (plans["where"] == where) for where in ("L4", "A100")}
        holds = offloads[on["L4"]].all() and sharded[on["A100"]].all()
        note = f"offload on L4: {names(on['L4'] & offloads)}; ZeRO-3 on A100: {names(on['A100'] & sharded)}"
        yield Finding("MI-078", bool(holds), ANALYTIC, "l4_flash_table", note)


def _numbers(cell: str) -> list[float]:
    return [] if cell == "does not fit" else [float(part) for part in cell.split()]
