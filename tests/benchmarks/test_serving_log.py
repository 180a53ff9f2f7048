"""Bars of the serving core: reading a long log, planning and carrying out an iteration."""

import time
import timeit

import pytest

from paperlab.serving import Limits, make_policy, metrics
from paperlab.serving.events import EventLog, Step
from paperlab.serving.request import Request
from paperlab.serving.work import StepShape
from tests.serving import doubles

pytestmark = pytest.mark.bench
CALLS = 200_000


def test_a_log_of_100000_tokens_is_summarized_within_half_a_second():
    log, shape = EventLog(about={"kv_blocks": 100}), StepShape(0, 0, 0, 5, 50, 5)
    for index in range(1000):
        log.requests[index] = Request(index, index / 10, 8, 100)
        log.note(index / 10, "arrive", index)
    for step in range(20_000):
        ids = tuple(range(step // 20, min(step // 20 + 5, 1000)))
        log.steps.append(Step("main", 100.0 + step, 101.0 + step, 0.0, 1.0, shape, ids, ids, 3))
    assert min(timeit.repeat(lambda: metrics.summary(log), number=1, repeat=5, timer=time.process_time)) < 0.5


@pytest.mark.parametrize("name", ["vllm-like", "sglang-like", "sglang-mixed", "spf-chunked", "fastserve-like"])
def test_an_iteration_costs_the_scheduler_little(name):
    """Planning, beginning and finishing a batch of decodes costs less than 100 empty calls a sequence."""
    policy = make_policy(name, limits=Limits(2048, 256))
    policy.bind(doubles.setup())
    cluster = doubles.cluster(10_000, 16, policy.lanes, host=1000)
    for request in doubles.requests(*[(10, 5000)] * 200):
        cluster.arrive(request)

    def iterate():
        cluster.begin("main", policy.schedule("main", cluster))
        cluster.now_s += 0.01
        cluster.finish("main")

    iterate()
    assert len(cluster.active) == 200
    call_s = min(timeit.repeat(lambda: None, number=CALLS, repeat=3, timer=time.process_time)) / CALLS
    iteration_s = min(timeit.repeat(iterate, number=20, repeat=10, timer=time.process_time)) / 20
    assert iteration_s < 100 * call_s * 200
