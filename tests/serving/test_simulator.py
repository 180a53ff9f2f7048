"""The virtual clock: queueing theory, processor sharing against small time steps, conservation, determinism."""

from __future__ import annotations

import random
from itertools import pairwise
from types import SimpleNamespace

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from paperlab.serving.cluster import Lane
from paperlab.serving.policy import Limits, Policy, make_policy
from paperlab.serving.request import Request
from paperlab.serving.simulator import Simulator, Stalled, simulate
from paperlab.serving.timing import resources
from paperlab.serving.work import IDLE, Chunk, Compute, Decision
from tests.serving import doubles


def run(policy, requests, blocks=1000, block_size=16, **options):
    """Serve `requests` with every invariant checked after every event."""
    cluster = doubles.cluster(blocks, block_size, policy.lanes)
    finish, begin = cluster.finish, cluster.begin
    cluster.begin = lambda *arguments: _checked(cluster, begin, arguments)
    cluster.finish = lambda *arguments: _checked(cluster, finish, arguments)
    setup = doubles.setup(**options)
    return Simulator(policy, cluster, resources({"gpu0": setup.device_model}, {}, setup.block_bytes)).run(requests)


def _checked(cluster, method, arguments):
    result = method(*arguments)
    cluster.check()
    return result


def test_fixed_lengths_first_come_first_served_is_an_m_d_1_queue():
    """Mean waiting time of M/D/1: ρ·D / (2·(1 - ρ)), Pollaczek and Khinchine."""
    policy = make_policy("vllm-like", limits=Limits(max_sequences=1))
    setup = doubles.setup()
    alone = simulate_one(setup)
    for load in (0.5, 0.8):
        generator, clock, requests = random.Random(1), 0.0, []
        for index in range(30_000):
            clock += generator.expovariate(load / alone)
            requests.append(Request(index, clock, 500, 1))
        cluster = doubles.cluster(1000, 16)
        log = Simulator(policy, cluster, resources({"gpu0": setup.device_model}, {}, 1.0)).run(requests)
        waits = [step.start_s - log.requests[step.requests[0]].arrival_s for step in log.steps]
        assert sum(waits) / len(waits) == pytest.approx(load * alone / (2 * (1 - load)), rel=0.05)


def simulate_one(setup):
    """Return the service time of one such request."""
    cluster = doubles.cluster(1000, 16)
    log = Simulator(make_policy("vllm-like"), cluster, resources({"gpu0": setup.device_model}, {}, 1.0)).run(
        [Request(0, 0, 500, 1)]
    )
    return log.end_s


class TwoLanes(Policy):
    """Prompts on one lane, decoding on the other, each first come, first served."""

    name = "two-lanes"
    lanes = (Lane("prefill", "gpu0"), Lane("decode", "gpu0"))

    def schedule(self, lane, cluster):
        if lane == "prefill":
            free = [
                item for item in [*cluster.active.values(), *cluster.waiting] if not item.decoding and not item.lane
            ]
            return Decision(Compute((Chunk(free[0], free[0].pending),), 0.6)) if free else IDLE
        ready = [item for item in cluster.active.values() if item.decoding and not item.lane]
        return Decision(Compute(tuple(Chunk(item, 1) for item in ready), 0.4)) if ready else IDLE


def test_processor_sharing_equals_small_time_steps():
    requests = doubles.requests((900, 30), (1500, 20), (300, 40), (2500, 5), gap=0.01)
    setup = doubles.setup()
    log = run(TwoLanes(), requests)
    assert {step.lane for step in log.steps} == {"prefill", "decode"}
    assert integrate(log, setup.device_model) == pytest.approx([1.0] * len(log.steps), abs=1e-9)


def integrate(log, physics):
    """Return how much of each step's work was done between its start and end, rates set anew at every instant."""
    instants = sorted({instant for step in log.steps for instant in (step.start_s, step.end_s)})
    done = [0.0] * len(log.steps)
    for low, high in pairwise(instants):
        active = [index for index, step in enumerate(log.steps) if step.start_s <= low and step.end_s >= high]
        if active:
            pairs = [(physics.load(log.steps[index].shape), log.steps[index].share) for index in active]
            for index, seconds in zip(active, physics.durations(pairs), strict=True):
                done[index] += (high - low) / seconds
    return done


@settings(deadline=None, max_examples=40)
@given(
    st.lists(st.tuples(st.integers(1, 120), st.integers(1, 30), st.floats(0, 0.2)), min_size=1, max_size=12),
    st.integers(10, 40),
    st.integers(1, 64),
    st.integers(1, 5),
)
def test_every_request_ends_once_with_its_length_whatever_the_memory(sizes, blocks, budget, cap):
    requests = [Request(index, arrival, *size) for index, (*size, arrival) in enumerate(sizes)]
    policy = make_policy("vllm-like", limits=Limits(budget, cap))
    log = run(policy, requests, blocks=blocks, block_size=16)
    emitted = [request_id for step in log.steps for request_id in step.emitted]
    refused = {note.request_id for note in log.notes if note.kind == "refuse"}
    finished = [note.request_id for note in log.notes if note.kind == "finish"]
    assert sorted(finished) == [item.request_id for item in requests if item.request_id not in refused]
    for request in requests:
        wanted = 0 if request.request_id in refused else request.output_tokens
        assert emitted.count(request.request_id) == wanted
    for step in log.steps:
        assert step.shape.tokens <= budget
        assert len(step.requests) <= cap
        assert step.end_s > step.start_s


def test_the_same_run_twice_gives_the_same_log():
    requests = doubles.requests((900, 30), (1500, 20), (300, 40), gap=0.05)
    first, second = (run(make_policy("vllm-like"), requests) for _ in range(2))
    assert first.steps == second.steps
    assert first.notes == second.notes


def test_a_policy_that_leaves_requests_lying_is_told():
    class Lazy(Policy):
        name = "lazy"

        def schedule(self, lane, cluster):
            return IDLE

    with pytest.raises(Stalled, match="lazy: 2 requests left"):
        run(Lazy(), doubles.requests((5, 5), (5, 5)))


def test_simulate_stops_at_a_time_limit_and_keeps_count():
    workload = SimpleNamespace(name="test", requests=doubles.requests((4000, 200), gap=0), rate_per_s=1.0, seed=0)
    log = simulate("vllm-like", model="qwen2.5-3b", device="l20", workload=workload, until_s=0.5)
    assert log.end_s <= 0.5
    assert not any(note.kind == "finish" for note in log.notes)
    assert log.about["evidence"] == "simulated"


def test_unknown_names_are_told():
    with pytest.raises(ValueError, match=r"unknown policy 'orca'; known: .*vllm-like"):
        make_policy("orca")
