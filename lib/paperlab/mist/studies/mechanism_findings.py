"""What the exhibits of single mechanisms and of executed plans say to each claim, in the ledger's units."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace

import pandas as pd

from paperlab.lab.record import Finding
from paperlab.mist.clusters import cluster
from paperlab.mist.cost.evaluate import MIB, evaluate
from paperlab.mist.studies.against_published import tuned_plan
from paperlab.mist.studies.findings import ANALYTIC, CPU, SIMULATED

PUBLISHED_SIZES = [54, 138, 1104, 8832, 52992, 273792]
FITTED = "28 factors, fitted"


def space_findings(sizes: pd.DataFrame) -> Iterator[Finding]:
    """Yield what `exhibit_search_space` counts, and how little more memory stage 0 of the tuned plan may use."""
    same = sizes.configurations.tolist() == PUBLISHED_SIZES
    yield Finding("MI-072", same, ANALYTIC, "search_space_table")
    yield Finding("MI-073", float(sizes.artifact_counts.iloc[-1]), ANALYTIC, "search_space_table")


def budget_finding() -> Finding:
    """Return by how many MiB the tuned plan would miss its budget with one checkpointed layer less."""
    where, plan = cluster("l4", 1, 2), tuned_plan()
    first, last = plan.stages
    report = evaluate(replace(plan, stages=(replace(first, checkpointed=4), last)), where)[0]
    needed = float(report.worst.bytes.squeeze()) * report.safety_factor
    missing = (needed - where.budget_bytes) / MIB
    return Finding("MI-049", missing > 0, ANALYTIC, "goldens", f"by {missing:.0f} MiB")


def pipeline_findings(errors: pd.DataFrame) -> Iterator[Finding]:
    """Yield the errors of both formulas where all stages have the same t."""
    equal = errors[errors.scenario.str.startswith("equal t")]
    worst = 100 * equal.assign(error=equal.error.abs()).groupby("formula").error.max()
    yield Finding("MI-066", float(worst["closed form"]), SIMULATED, "pipeline_formula")
    yield Finding("MI-067", float(worst["d averaged over G"]), SIMULATED, "pipeline_formula")


def interference_findings(made_up: pd.DataFrame, here: pd.DataFrame) -> Iterator[Finding]:
    """Yield held-out errors of the fitted model."""
    fitted = made_up[made_up.model == FITTED].groupby("points_of").mean_error.mean()
    note = ", ".join(f"{name} {100 * value:.1f} %" for name, value in fitted.items())
    yield Finding("MI-068", float(100 * fitted.max()), SIMULATED, "interference", note)
    errors = here.set_index("model").mean_error
    note = f"serial sum {100 * errors['serial sum']:.0f} %, longest alone {100 * errors['longest alone']:.0f} %"
    yield Finding("MI-069", float(100 * errors[FITTED]), CPU, "interference_cpu", note)


def search_findings(fronts: pd.DataFrame, solvers: pd.DataFrame) -> Iterator[Finding]:
    """Yield what α-sampling loses, and whether solvers agree with brute force."""
    loss = 100 * fronts[fronts.alphas == fronts.alphas.max()].loss
    note = f"mean {loss.mean():.2f} %, largest {loss.max():.2f} % with {fronts.alphas.max()} values of α"
    yield Finding("MI-070", bool((loss > 0).any()), SIMULATED, "fronts", note)
    wide = solvers.set_index(["stages", "policies", "instance", "solver"]).optimum.unstack("solver")
    small = solvers[solvers.solver == "brute force"].set_index(["stages", "policies", "instance"]).index
    tried = wide.loc[small]
    gap = (tried["milp"] / tried["brute force"] - 1).abs()
    agree = (gap.dropna() < 1e-9).all() and (tried["milp"].isna() == tried["brute force"].isna()).all()
    note = f"{len(tried)} instances, {int(tried['brute force'].isna().sum())} of them infeasible"
    yield Finding("MI-071", bool(agree), CPU, "solvers", note)


def speed_findings(speed: pd.DataFrame, steps: pd.DataFrame) -> Iterator[Finding]:
    """Yield the speed of batched evaluation, and how tuning time grows."""
    per_s = speed.configurations_per_s
    yield Finding("MI-014", float(per_s[0] / per_s[1]), CPU, "symbolic_speed")
    yield Finding("MI-087", float(per_s[0]), CPU, "symbolic_speed", "one core")
    first, last = steps.tuning_s.iloc[0], steps.tuning_s.iloc[-1]
    yield Finding("MI-017", bool(last > first), CPU, "figure_16_table", f"{first:.2f} and {last:.2f} s")
    yield Finding("MI-016", float(last), CPU, "figure_16_table", "the full space of the study's model, here")


def breakdown_findings(steps: pd.DataFrame) -> Iterator[Finding]:
    """Yield what groups of search dimensions add to the predicted speed."""
    time_s = steps.set_index("space").iteration_s
    plain, flexible, blind, aware = (time_s.iloc[index] for index in (0, 1, -2, -1))
    yield Finding("MI-009", float(plain / flexible), ANALYTIC, "breakdown_table", "predicted")
    yield Finding("MI-010", float(100 * (flexible / blind - 1)), ANALYTIC, "breakdown_table", "predicted")
    yield Finding("MI-011", float(100 * (blind / aware - 1)), ANALYTIC, "breakdown_table", "predicted")


def execution_findings(numerics: pd.DataFrame, memory: pd.DataFrame, decoupled: pd.DataFrame) -> Iterator[Finding]:
    """Yield what executed plans say: numbers, peaks, and the decoupled optimizer."""
    worst = numerics[["loss", "gradients", "weights"]].max()
    note = ", ".join(f"{name} {value:.0e}" for name, value in worst.items()) + f"; {len(numerics)} plans"
    yield Finding("MI-081", float(worst.max()), CPU, "numerics", note)
    error = memory.error_percent.abs()
    published = memory.published_error_percent.abs().max()
    note = f"mean {error.mean():.2f} %; {memory.plan.nunique()} plans; the published formula up to {published:.1f} %"
    yield Finding("MI-082", float(error.max()), CPU, "executed_memory_table", note)
    yield Finding("MI-084", float(decoupled.error_percent.abs().max()), CPU, "decoupled_table")
    yield Finding(
        "MI-085", bool(decoupled.same_weights.all() and (decoupled.saved_MiB > 0).all()), CPU, "decoupled_table"
    )


def timing_findings(overlap: pd.DataFrame, accuracy: pd.DataFrame) -> Iterator[Finding]:
    """Yield whether copies overlap, and how predicted times rank."""
    note = f"{overlap.ratio.min():.2f} to {overlap.ratio.max():.2f} in {len(overlap)} repeats"
    yield Finding("MI-086", float(overlap.ratio.median()), CPU, "overlap", note)
    row = accuracy.iloc[0]
    if row.plans < 20:  # a rank correlation of a few plans says nothing
        return
    errors = f"{row.raw_error_percent:.0f} % raw, {row.mean_shifted_error_percent:.0f} % shifted"
    note = f"{row.plans:.0f} plans; mean error {errors}"
    yield Finding("MI-083", float(row.kendall_tau), CPU, "executed_accuracy", note)
