"""Seesaw's bars at paper scale: how long planning and simulating take, and how good a plan is."""

from __future__ import annotations

import time
from dataclasses import replace

import pytest

from paperlab.lab.profiles import get_profile
from paperlab.seesaw import Config, experiments, plan, workload
from paperlab.seesaw.hardware import node
from paperlab.seesaw.search import resharding_runs, static_runs
from paperlab.transformer import preset

pytestmark = pytest.mark.bench


@pytest.mark.parametrize(("model", "name"), [("llama2-70b", "arxiv"), ("codellama-34b", "sharegpt")])
def test_a_plan_for_eight_gpus_takes_ten_seconds_at_most(benchmark, model, name):
    found = benchmark.pedantic(lambda: plan(model, 8, "a10", workload(name)), rounds=1)
    benchmark.extra_info["candidates"] = len(found.candidates)
    assert benchmark.stats.stats.min <= 10


@pytest.mark.parametrize("name", ["arxiv", "sharegpt"])
def test_regret_against_exhaustive_simulation_is_three_percent_at_most(name):
    work, model, on = workload(name, 300), preset("llama2-70b"), node("a10")
    found = plan(model, 8, on, work)
    for chosen, runs in ((found.best_static, static_runs), (found.best_resharding, resharding_runs)):
        exhaustive = min(item.simulate(work).end_s for item in runs(model, on, 8))
        assert chosen.makespan_s <= 1.03 * exhaustive


def test_all_of_figures_10_to_15_take_three_minutes_at_most():
    config = replace(get_profile("cpu").config("seesaw", Config), seeds=(0,))
    started_s = time.perf_counter()
    for number in range(10, 16):
        getattr(experiments, f"figure_{number}")(config)
    assert time.perf_counter() - started_s <= 180
