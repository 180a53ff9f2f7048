"""Nexus's performance bars."""

from __future__ import annotations

import time

import pytest

from paperlab.hardware import device
from paperlab.lab.profiles import get_profile
from paperlab.nexus.belief import published_belief
from paperlab.nexus.config import Config
from paperlab.nexus.cost_model import CostModel
from paperlab.nexus.experiments import figure_9
from paperlab.nexus.layouts import layouts
from paperlab.nexus.policy import Nexus
from paperlab.nexus.search import floor_percent, search
from paperlab.nexus.settings import Settings
from paperlab.serving.cost import ModelCost
from paperlab.serving.grid import Cell
from paperlab.serving.work import StepShape
from paperlab.transformer import preset

pytestmark = pytest.mark.bench
PREFILL = StepShape(2048, 4096, 2048 * 4096 + 2048 * 2049 // 2)
DECODE = StepShape(decode_tokens=64, decode_context=64 * 3000, logits=64)


@pytest.mark.parametrize("start", [5, 50, 95])
@pytest.mark.parametrize("target", ["prefill", "decode"])
def test_a_search_takes_at_most_a_millisecond(benchmark, start, target):
    """From forecasts to split, however far the start is; the shares' rates are computed once per device."""
    model = CostModel(ModelCost(preset("llama3.1-8b")), device("L20"), published_belief())
    floor = floor_percent(layouts(device("L20")))

    def decide():
        return search(model.co_run(PREFILL, DECODE), target, start, Settings(), floor)

    benchmark.extra_info["evaluations"] = benchmark(decide).evaluations
    assert benchmark.stats.stats.median < 1e-3


def test_scheduling_takes_little_of_an_iteration(benchmark, monkeypatch):
    """At most 2 % of the time of the iterations that it starts, at the paper's scale: planning, forecast and search."""
    spent = []
    schedule = Nexus.schedule

    def timed(self, lane, cluster):
        start = time.perf_counter()
        decision = schedule(self, lane, cluster)
        spent.append((time.perf_counter() - start, decision.work is not None))
        return decision

    monkeypatch.setattr(Nexus, "schedule", timed)
    cell = Cell("nexus", "llama-3.1-8b", "l20", "mixed", 2.5, 200, 0)
    log = benchmark.pedantic(cell.run, rounds=1)
    iteration_s = sum(step.end_s - step.start_s for step in log.steps) / len(log.steps)
    decision_s = sum(seconds for seconds, _ in spent) / sum(started for _, started in spent)
    benchmark.extra_info.update(decision_us=1e6 * decision_s, share_of_iteration=decision_s / iteration_s)
    assert decision_s < 0.02 * iteration_s


@pytest.mark.slow
def test_the_whole_grid_of_figure_9_takes_at_most_four_minutes(benchmark):
    """3 workloads x 5 systems x 6 rates x 3 seeds x 500 requests, on two cores."""
    config = get_profile("cpu").config("nexus", Config)
    grid = benchmark.pedantic(figure_9, (config,), rounds=1)
    assert len(grid) == 3 * 5 * 6 * 3
    assert (grid.finished + grid.refused + grid.unfinished == 500).all()
    assert benchmark.stats.stats.max < 240
