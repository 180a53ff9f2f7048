"""Timing bars of Mist's runtime on this machine; they need its cores to themselves and say so when they are not."""

import os

import pytest
import torch

from paperlab.mist.runtime.pool import RankPool
from paperlab.mist.studies import runtime_accuracy, schedule_trace

pytestmark = [pytest.mark.bench, pytest.mark.slow]


@pytest.fixture(autouse=True)
def _idle_cores():
    """Skip, visibly, where other processes keep the cores busy: two ranks need two of them."""
    busy, cores = os.getloadavg()[0], len(os.sched_getaffinity(0))
    if busy > cores / 2:
        pytest.skip(f"load average is {busy:.1f} on {cores} cores; timing needs them idle")
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(threads)


def test_copies_overlap_compute():
    table = schedule_trace.overlap_table()
    assert table.ratio.median() < 0.9
    assert (table.serial_s > table.overlapped_s).mean() > 0.8


def test_turning_overlap_off_changes_measured_time():
    table = schedule_trace.overlap_effect(repeats=7).set_index("overlap")
    assert table.iteration_s[True] < table.iteration_s[False]


def test_predicted_and_measured_times_rank_alike():
    with RankPool(2) as pool:
        plans = runtime_accuracy.timed_plans(runtime_accuracy.timed_model())
        table = runtime_accuracy.time_table(plans, pool, rounds=5)
    summary = runtime_accuracy.accuracy_summary(table)
    assert summary.plans[0] >= 20
    assert summary.kendall_tau[0] >= 0.8, table.to_string()
