"""The exhibits: made and drawn once each on tiny sizes, and findings on made-up tables."""

import pandas as pd
import pytest
from matplotlib import pyplot as plt

from paperlab.lab.claims import get_claim, judge
from paperlab.mist import accuracy_plots, experiments, plots
from paperlab.mist.baselines import systems
from paperlab.mist.config import Config
from paperlab.mist.studies import findings, mechanism_findings
from paperlab.mist.studies.end_to_end import MIST
from paperlab.mist.what_if import draw_speeds

TINY = Config(
    sizes=("1.3b",), breakdown_size="1.3b", sensitivity_size="1.3b", sensitivity_batches=(32,), pipeline_draws=4,
    front_draws=1, interference_points=60, interference_repeats=1, aceso_evaluations=20,
)  # fmt: skip
QUICK = (
    "exhibit_search_space", "exhibit_pipeline_formula", "exhibit_fronts", "exhibit_l4_flash", "exhibit_breakdown",
    "figure_16", "exhibit_batch",
)  # fmt: skip
LONG = (
    "exhibit_schedule", "exhibit_slots", "exhibit_memory", "exhibit_interference", "exhibit_interference_cpu",
    "exhibit_a100", "exhibit_layers", "exhibit_memory_accuracy", "exhibit_time_accuracy", "exhibit_overlap",
)  # fmt: skip


def draw(name, table):
    module = plots if hasattr(plots, name) else accuracy_plots
    assert getattr(module, name)(table).axes
    plt.close("all")


@pytest.mark.parametrize("name", [*QUICK, *(pytest.param(name, marks=pytest.mark.slow) for name in LONG)])
def test_every_exhibit_is_made_and_drawn(name):
    table = getattr(experiments, name)(TINY)
    assert len(table)
    assert set(table.evidence) <= {"analytic", "simulated", "measured-cpu"}
    draw(name, table)


def test_every_exhibit_has_a_figure_or_is_a_table():
    names = {name for name in vars(experiments) if name.startswith(("figure_", "exhibit_"))}
    drawn = {
        name for module in (plots, accuracy_plots) for name in vars(module) if name.startswith(("figure", "exhib"))
    }
    assert names <= drawn
    assert drawn <= names


def test_figure_11_decides_the_goldens_and_shows_both_megatron_rows():
    table, goldens = experiments.figure_11(TINY), experiments.table_goldens(TINY)
    draw("figure_11", table)
    assert {systems.MEGATRON_FORCED, systems.MEGATRON_FREE, systems.ACESO, MIST} <= set(table.system)
    for found in findings.golden_findings(goldens, table):
        verdict = judge(get_claim(found.claim_id), [found]).verdict
        assert verdict == ("pending-gpu" if found.claim_id == "MI-044" else "reproduced"), found
    speedups = experiments.table_speedups(TINY, table)
    assert set(speedups.baseline) == {"Megatron-LM-like", "DeepSpeed-like"}
    assert (speedups.over_forced >= speedups.over_free).all()
    assert {found.claim_id for found in findings.readme_findings(speedups, "x")} == {"MI-026", "MI-026d"}


def test_mechanism_findings_follow_the_tables():
    sizes = {
        found.claim_id: found.value
        for found in mechanism_findings.space_findings(experiments.exhibit_search_space(TINY))
    }
    assert sizes["MI-072"] is True
    assert mechanism_findings.budget_finding().value is True
    solvers = experiments.table_solvers(TINY)
    found = {f.claim_id: f.value for f in mechanism_findings.search_findings(experiments.exhibit_fronts(TINY), solvers)}
    assert found["MI-071"] is True
    wrong = solvers.assign(optimum=solvers.optimum.where(solvers.solver != "milp", solvers.optimum * 1.01))
    found = {f.claim_id: f.value for f in mechanism_findings.search_findings(experiments.exhibit_fronts(TINY), wrong)}
    assert found["MI-071"] is False


def plan_rows(**columns):
    base = {
        "system": MIST, "family": "gpt", "size": "13b", "checkpointed": "2 1", "zero": "1 1",
        "optimizer_offload": "1 0.5", "activation_offload": "0 0", "grad_offload": "0 0", "weight_offload": "0 0",
    }  # fmt: skip
    return pd.DataFrame([base | columns])


def test_shapes_of_plans_are_judged_by_what_they_choose():
    def value(claim, **tables):
        rows = {"math": plan_rows(), "l4": plan_rows(), "a100": plan_rows(zero="3 1")} | tables
        return {found.claim_id: found.value for found in findings.plan_findings(**rows)}[claim]

    assert all(value(claim) for claim in ("MI-077", "MI-078", "MI-079"))
    assert not value("MI-077", l4=plan_rows(grad_offload="0.25 0"))
    assert not value("MI-078", a100=plan_rows())
    assert not value("MI-078", l4=plan_rows(optimizer_offload="0 0"))
    assert not value("MI-079", math=plan_rows(checkpointed="1 2"))


def test_what_does_not_fit_is_said():
    _, axes = plt.subplots()
    draw_speeds(axes, capacity_GiB=6.0, attention="math")
    assert "does not fit" in [text.get_text() for text in axes.texts]
    plt.close("all")


@pytest.mark.parametrize(
    ("field", "value"), [("sizes", ("1.3b", "3b")), ("families", ("bert",)), ("executed_step", 0), ("seeds", ())]
)
def test_bad_sizes_are_told(field, value):
    with pytest.raises(ValueError, match=field.split("_")[0]):
        Config(**{field: value})
