"""The exhibits of executed plans, made and drawn once."""

import pandas as pd
import pytest
from matplotlib import pyplot as plt

from paperlab.mist import accuracy_plots, experiments
from paperlab.mist.config import Config
from paperlab.mist.runtime.pool import RankPool
from paperlab.mist.studies import mechanism_findings, schedule_trace

TINY = Config(executed_step=15, timing_rounds=1)


def test_executed_plans_say_what_the_ledger_asks(pool):
    numerics = experiments.table_numerics(TINY, pool)
    memory = experiments.exhibit_executed_memory(TINY, pool)
    decoupled = experiments.exhibit_decoupled(TINY, pool)
    values = {f.claim_id: f.value for f in mechanism_findings.execution_findings(numerics, memory, decoupled)}
    assert values["MI-081"] <= 1e-5
    assert values["MI-082"] <= 3
    assert values["MI-084"] <= 5
    assert values["MI-085"] is True
    assert accuracy_plots.exhibit_executed_memory(memory).axes
    assert accuracy_plots.exhibit_decoupled(decoupled).axes
    plt.close("all")


def test_a_traced_pipeline_stands_beside_its_simulation(pool):
    spans = schedule_trace.traced_schedule(schedule_trace.traced_plan(hidden=32, seq_len=16), pool)
    passes = experiments.exhibit_pipeline(TINY, spans)
    measured, simulated = (passes[passes.source == name] for name in ("measured", "simulated"))
    assert len(measured) == len(simulated) == 16  # two stages, four micro-batches, forward and backward
    for stage, part in passes.groupby(["source", "stage"]):
        ordered = part.sort_values("start_s")
        assert (ordered.end_s.to_numpy()[:-1] <= ordered.start_s.to_numpy()[1:] + 1e-9).all(), stage
    orders = [
        list(
            part.sort_values(["stage", "start_s"])[["stage", "micro_batch", "phase"]].itertuples(index=False, name=None)
        )
        for part in (measured, simulated)
    ]
    assert orders[0] == orders[1]
    assert set(passes.evidence) == {"measured-cpu", "simulated"}
    assert accuracy_plots.exhibit_pipeline(passes).axes
    assert accuracy_plots.exhibit_lanes(spans).axes
    assert not pd.isna(experiments.table_hidden(TINY, spans).hidden_fraction).any()
    plt.close("all")


@pytest.mark.slow
def test_times_are_predicted_from_a_profile_of_this_machine(pool):
    with RankPool(2) as two:
        times = experiments.exhibit_executed_times(TINY, two)
    with pytest.raises(ValueError, match="the pool has 4 ranks; a profile is taken on 2"):
        experiments.exhibit_executed_times(TINY, pool)
    assert (times.predicted_s > times.published_s).all()
    assert times.predicted_s.between(times.measured_s / 5, times.measured_s * 5).all()
    assert accuracy_plots.exhibit_executed_times(times).axes
    plt.close("all")
