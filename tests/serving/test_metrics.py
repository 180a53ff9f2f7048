"""Metrics against a hand-computed case, a slow independent count, and the identities that define them."""

from __future__ import annotations

import math
import statistics
from itertools import pairwise

import numpy as np
import pytest

from paperlab.serving import metrics, simulate, workload
from paperlab.serving.events import EventLog, Step
from paperlab.serving.request import Request
from paperlab.serving.work import StepShape

PREFILL, DECODE, MIXED = StepShape(8, 0, 36, 0, 0, 1), StepShape(0, 0, 0, 2, 20, 2), StepShape(4, 0, 10, 1, 9, 2)


def by_hand():
    """Three requests: one with three tokens, one with two that arrives while busy, one refused."""
    log = EventLog(about={"system": "hand", "kv_blocks": 10})
    for request in (Request(0, 0.0, 8, 3), Request(1, 1.0, 4, 2), Request(2, 1.5, 900, 1)):
        log.requests[request.request_id] = request
        log.note(request.arrival_s, "arrive", request.request_id)
    log.note(1.5, "refuse", 2, "too long")
    log.steps.append(Step("main", 0.5, 2.0, 0.25, 1.0, PREFILL, (0,), (0,), 2))
    log.steps.append(Step("main", 2.0, 5.0, 0.0, 1.0, MIXED, (0, 1), (0, 1), 3))
    log.note(5.0, "preempt", 1)
    log.steps.append(Step("main", 6.0, 7.0, 0.5, 1.0, DECODE, (0, 1), (0, 1), 4))
    log.note(7.0, "finish", 0)
    log.note(7.0, "finish", 1)
    return log


def test_by_hand():
    rows = metrics.per_request(by_hand()).set_index("request_id")
    first, second, third = (rows.loc[index] for index in range(3))
    assert (first.ttft_s, first.latency_s, first.tbt_mean_s, first.tbt_max_s) == (2.0, 7.0, 2.5, 3.0)
    assert (first.execution_s, first.scheduler_s, first.waiting_s) == (5.5, 0.75, 0.75)
    assert (second.ttft_s, second.latency_s, second.normalized_latency_s, second.preemptions) == (4.0, 6.0, 3.0, 1)
    assert (third.status, third.output_tokens) == ("refused", 0)
    assert math.isnan(third.ttft_s)


def test_summary_by_hand():
    row = metrics.summary(by_hand()).iloc[0]
    assert row.system == "hand"
    assert row.ttft_mean_s == 3.0
    assert row.tbt_mean_s == statistics.mean([3.0, 2.0, 2.0])
    assert row.tbt_request_mean_s == statistics.mean([2.5, 2.0])
    assert row.normalized_latency_mean_s == statistics.mean([7 / 3, 3.0])
    assert (row.finished, row.refused, row.unfinished, row.preemptions) == (2, 1, 0, 1)
    assert [row.makespan_s, row.requests_per_s, row.output_tokens_per_s] == pytest.approx([7.0, 2 / 7, 5 / 7])
    assert (row.mixed_share, row.kv_usage_peak) == (1 / 3, 0.4)


def test_iterations_by_hand():
    table = metrics.iterations(by_hand()).set_index("kind")
    assert list(table["count"]) == [1, 1, 1]
    assert list(table.latency_s) == [1.5, 1.0, 3.0]
    assert table.share_percent.sum() == pytest.approx(100)


def test_an_empty_log_gives_missing_values_not_errors():
    log = EventLog(about={"system": "none"})
    log.requests[0] = Request(0, 0.0, 5, 5)
    log.note(0.0, "arrive", 0)
    row = metrics.summary(log).iloc[0]
    assert row.unfinished == 1
    assert math.isnan(row.ttft_mean_s)
    assert (metrics.iterations(log)["count"] == 0).all()


@pytest.fixture(scope="module")
def simulated():
    work = workload("sharegpt", rate_per_s=6.0, requests=120, seed=3)
    return simulate("vllm-like", model="llama3.1-8b", device="l20", workload=work, kv_tokens=20_000)


def test_a_slow_count_agrees(simulated):
    times, execution = {}, dict.fromkeys(simulated.requests, 0.0)
    for step in simulated.steps:
        for request_id in step.emitted:
            times.setdefault(request_id, []).append(step.end_s)
        for request_id in step.requests:
            execution[request_id] += step.end_s - step.start_s
    gaps = [b - a for stamps in times.values() for a, b in pairwise(stamps)]
    row = metrics.summary(simulated).iloc[0]
    assert row.tbt_mean_s == pytest.approx(statistics.mean(gaps))
    assert row.tbt_p95_s == pytest.approx(np.percentile(gaps, 95))
    first = [stamps[0] - simulated.requests[request_id].arrival_s for request_id, stamps in times.items()]
    assert row.ttft_p99_s == pytest.approx(np.percentile(first, 99))
    found = metrics.per_request(simulated).set_index("request_id")
    for request_id, stamps in times.items():
        assert found.output_tokens[request_id] == len(stamps) == simulated.requests[request_id].output_tokens
        assert found.execution_s[request_id] == pytest.approx(execution[request_id])
    assert found.preemptions.sum() > 0


def test_recomputed_tokens_are_what_was_computed_beyond_need(simulated):
    computed = sum(step.shape.tokens for step in simulated.steps)
    needed = sum(request.prompt_tokens + request.output_tokens - 1 for request in simulated.requests.values())
    assert metrics.summary(simulated).recomputed_tokens[0] == computed - needed > 0


def test_stages_and_gaps_add_up_to_the_latency(simulated):
    found = metrics.per_request(simulated)
    stages = found.execution_s + found.scheduler_s + found.waiting_s
    assert np.allclose(stages, found.latency_s, rtol=0, atol=1e-9)
    gaps = found.tbt_mean_s.fillna(0) * (found.output_tokens - 1)
    assert np.allclose(found.ttft_s + gaps, found.latency_s, rtol=0, atol=1e-9)
    assert (found.waiting_s > -1e-9).all()


def test_unfinished_requests_are_counted_not_dropped():
    work = workload("sharegpt", rate_per_s=20.0, requests=60, seed=3)
    log = simulate("vllm-like", model="llama3.1-8b", device="l20", workload=work, until_s=2.0)
    row, found = log.summary().iloc[0], log.per_request()
    assert row.unfinished == (found.status == "unfinished").sum() > 0
    assert row.finished + row.refused + row.unfinished == len(log.requests)
    started = found.dropna(subset="latency_s")
    assert np.allclose(started.execution_s + started.scheduler_s + started.waiting_s, started.latency_s)
