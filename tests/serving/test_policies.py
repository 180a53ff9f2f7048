"""What every scheduler owes its users, whatever its order; then what makes each one itself."""

from __future__ import annotations

import copy
from dataclasses import replace

import pytest
from hypothesis import Phase, given, settings
from hypothesis import strategies as st

from paperlab.serving.cluster import Cluster
from paperlab.serving.events import EventLog
from paperlab.serving.kv import BlockPool
from paperlab.serving.policy import Limits, make_policy
from paperlab.serving.request import Request
from paperlab.serving.simulator import Simulator, simulate
from paperlab.serving.timing import resources
from paperlab.serving.workload import workload
from tests.serving import doubles

NAMES = doubles.one_device_policies()


def serve(policy, requests, blocks=400, host=400, block_size=16, watch=None):
    """Serve `requests` with every invariant checked after every event; returns the log."""
    setup = doubles.setup(host_kv_bytes=1e9)
    policy.bind(setup)
    names = sorted({lane.resource for lane in policy.lanes if lane.kind == "compute"})
    pools = [BlockPool(name, blocks, block_size) for name in names]
    if any(lane.resource == "host" for lane in policy.lanes):
        pools.append(BlockPool("host", host, block_size))
    cluster = Cluster(policy.lanes, pools, 10_000, EventLog())
    if watch:
        watch(policy, cluster)
    for method in ("begin", "finish"):
        _check_after(cluster, method)
    links = {"host": setup.host_link, "peer": setup.peer_link}
    log = Simulator(policy, cluster, resources(dict.fromkeys(names, setup.device_model), links, setup.block_bytes)).run(
        requests
    )
    for pool in pools:
        assert pool.used == 0
    return log


def _check_after(cluster, method):
    original = getattr(cluster, method)

    def checked(*arguments, **options):
        result = original(*arguments, **options)
        cluster.check()
        return result

    setattr(cluster, method, checked)


sizes = st.lists(st.tuples(st.integers(1, 150), st.integers(1, 25), st.floats(0, 0.3)), min_size=1, max_size=14)


@pytest.mark.parametrize("name", NAMES)
@settings(deadline=None, max_examples=25, phases=(Phase.explicit, Phase.reuse, Phase.generate))
@given(
    sizes=sizes, blocks=st.integers(11, 40), host=st.integers(1, 30), budget=st.integers(1, 64), cap=st.integers(1, 6)
)
def test_everything_ends_within_the_caps_whatever_the_memory(name, sizes, blocks, host, budget, cap):
    requests = [Request(index, arrival, *size) for index, (*size, arrival) in enumerate(sizes)]
    log = serve(make_policy(name, limits=Limits(budget, cap)), requests, blocks=blocks, host=host)
    emitted = [request_id for step in log.steps for request_id in step.emitted]
    for request in requests:
        assert emitted.count(request.request_id) == request.output_tokens
    for step in log.steps:
        assert step.shape.tokens <= budget
        assert len(step.requests) <= cap


@pytest.mark.parametrize("name", NAMES)
def test_scheduling_changes_nothing_in_the_cluster(name):
    def watch(policy, cluster):
        original = policy.schedule

        def checked(lane, seen):
            before = picture(seen)
            decision = original(lane, seen)
            assert picture(seen) == before
            return decision

        policy.schedule = checked

    serve(make_policy(name), doubles.requests(*[(90, 30)] * 12, gap=0.01), blocks=50, host=30, watch=watch)


def picture(cluster):
    """Return all that a policy could have changed."""
    sequences = [*cluster.waiting, *cluster.active.values(), *cluster.parked.values()]
    state = [(s.request, s.computed, s.generated, tuple(s.blocks), s.pool, s.lane, s.preemptions) for s in sequences]
    free = {name: tuple(pool._free) for name, pool in cluster.pools.items()}
    return state, free, len(cluster.log.steps), len(cluster.log.notes), list(cluster.jobs)


@pytest.mark.parametrize("name", NAMES)
def test_no_decision_depends_on_the_future(name):
    """Longer answers and later arrivals change nothing before the first request would have ended."""
    requests = doubles.requests(*[(200, 40)] * 10, gap=0.02)
    longer = [replace(request, output_tokens=70) for request in requests]
    first, second = serve(make_policy(name), requests), serve(make_policy(name), longer)
    end = min(note.time_s for note in first.notes if note.kind == "finish")
    before = [step for step in first.steps if step.end_s < end]
    assert len(before) > 20
    assert before == second.steps[: len(before)]


@pytest.mark.parametrize("name", NAMES)
def test_the_same_run_twice_gives_the_same_log(name):
    requests = doubles.requests(*[(150, 20), (600, 10), (40, 60)] * 4, gap=0.01)
    first, second = (serve(make_policy(name), copy.deepcopy(requests)) for _ in range(2))
    assert first.steps == second.steps
    assert first.notes == second.notes


@pytest.mark.parametrize("name", NAMES)
def test_with_little_load_all_policies_are_alike(name):
    """A request alone has nobody to wait for: its first token comes after its own prefill."""
    requests = doubles.requests(*[(300, 5)] * 4, gap=5.0)
    log = serve(make_policy(name), requests)
    alone = serve(make_policy("vllm-like"), requests).per_request().ttft_s
    assert log.per_request().ttft_s.to_numpy() == pytest.approx(alone.to_numpy(), rel=1e-9)


def test_a_policy_with_links_of_its_own_is_refused_by_name():
    load = workload("sharegpt", rate_per_s=1.0, requests=2)
    with pytest.raises(ValueError, match=r"seesaw: copies over link0\.in.*paperlab\.seesaw"):
        simulate("seesaw", model="qwen2.5-3b", device="L20", workload=load)


def test_chunked_prefill_mixes_under_load_and_admits_in_order():
    log = serve(make_policy("vllm-like", limits=Limits(128, 16)), doubles.requests(*[(300, 30)] * 8))
    assert any(step.shape.kind == "mixed" for step in log.steps)
    firsts = log.per_request().sort_values("request_id").ttft_s
    assert firsts.is_monotonic_increasing


def test_the_newest_is_preempted_first():
    log = serve(make_policy("vllm-like"), doubles.requests(*[(60, 60)] * 5, gap=0.001), blocks=20)
    preempted = [note.request_id for note in log.notes if note.kind == "preempt"]
    assert preempted
    assert 0 not in preempted
    assert preempted[0] == 4


def test_shortest_prompts_overtake_and_age_protects_long_ones():
    requests = [Request(0, 0.0, 2000, 2), *(Request(index, 0.001 * index, 100, 2) for index in range(1, 40))]
    order = {}
    for gamma in (0.0, 1e12):
        log = serve(make_policy("spf-chunked", limits=Limits(128, 8), gamma_tokens_per_s=gamma), requests)
        order[gamma] = log.per_request().set_index("request_id").ttft_s
    assert order[0.0][0] == order[0.0].max()
    assert order[1e12][0] < order[0.0][0]
    fcfs = serve(make_policy("vllm-like", limits=Limits(128, 8)), requests)
    assert order[1e12].to_numpy() == pytest.approx(fcfs.per_request().ttft_s.to_numpy())


def test_prompts_first_never_mixes_unless_asked():
    requests = doubles.requests(*[(300, 30)] * 8, gap=0.01)
    limits = Limits(128, 16)
    plain, mixed = (serve(make_policy(name, limits=limits), requests) for name in ("sglang-like", "sglang-mixed"))
    assert not any(step.shape.kind == "mixed" for step in plain.steps)
    assert any(step.shape.kind == "mixed" for step in mixed.steps)
    waiting = {request.request_id for request in requests}
    for step in plain.steps:
        if step.shape.kind == "decode":
            assert not any(requests[item].arrival_s < step.start_s for item in waiting)
        waiting -= set(step.emitted)


def test_a_reserve_for_decodes_spares_preemptions():
    requests = doubles.requests(*[(100, 60)] * 12)
    lost = []
    for ahead_tokens in (1, 64):
        log = serve(make_policy("sglang-like", ahead_tokens=ahead_tokens), requests, blocks=40)
        lost.append(sum(note.kind == "preempt" for note in log.notes))
    assert lost[0] > lost[1] == 0


def test_skip_join_places_by_prefill_time():
    policy = make_policy("fastserve-like", quantum_s=0.1, levels=4, prefill_s_per_token=1e-3)
    levels = [policy.queue.entry_level(tokens) for tokens in (1, 100, 101, 200, 201, 400, 401, 10**6)]
    assert levels == [0, 0, 1, 1, 2, 2, 3, 3]
    estimated = make_policy("fastserve-like")
    estimated.bind(doubles.setup())
    assert estimated.queue.entry_level(10) == 0 < estimated.queue.entry_level(100_000)


def levels_over_time(policy, requests, **options):
    """Serve and return (time, request, level) as each decision finds them."""
    found = []

    def watch(policy, cluster):
        original = policy.schedule

        def noting(lane, seen):
            decision = original(lane, seen)
            line = list(policy.queue.line())
            assert {s.request.request_id for s in line} == {
                s.request.request_id for s in [*seen.waiting, *seen.active.values(), *seen.parked.values()]
            }
            assert [policy.queue.level(s) for s in line] == sorted(policy.queue.level(s) for s in line)
            found.extend((seen.now_s, s.request.request_id, policy.queue.level(s)) for s in line)
            return decision

        policy.schedule = noting

    return serve(policy, requests, watch=watch, **options), found


def test_quanta_double_and_requests_sink():
    policy = make_policy("fastserve-like", quantum_s=0.01, levels=4)
    log, found = levels_over_time(policy, doubles.requests((10, 500)))
    levels = [level for _, _, level in found]
    assert levels == sorted(levels)
    entered = {level: min(time for time, _, seen in found if seen == level) for level in range(4)}
    step_s = max(step.end_s - step.start_s for step in log.steps)
    for level, quantum_s in ((0, 0.01), (1, 0.02), (2, 0.04)):
        assert quantum_s <= entered[level + 1] - entered[level] < quantum_s + step_s


def test_starved_requests_rise():
    """A long prompt behind a stream of short ones is served long before they end."""
    requests = [Request(0, 0.0, 4000, 2), *(Request(index, 0.01 * index, 200, 30) for index in range(1, 200))]
    first_s = {}
    for starvation_s in (0.3, 1e6):
        options = {"quantum_s": 0.02, "starvation_s": starvation_s, "prefill_s_per_token": 1e-4}
        policy = make_policy("fastserve-like", limits=Limits(256, 8), **options)
        log, found = levels_over_time(policy, requests)
        first_s[starvation_s] = log.per_request().set_index("request_id").ttft_s[0]
        risen = any(level == 0 for _, request_id, level in found if request_id == 0)
        assert risen == (starvation_s < 1)
    assert first_s[0.3] < first_s[1e6]


def test_low_priorities_are_swapped_out_and_come_back():
    log = serve(
        make_policy("fastserve-like", quantum_s=0.005),
        doubles.requests(*[(100, 80)] * 10, gap=0.05),
        blocks=45,
        host=200,
    )
    moves = [(move.source, move.target) for move in log.moves]
    assert ("gpu0", "host") in moves
    assert ("host", "gpu0") in moves
    assert moves.count(("gpu0", "host")) == moves.count(("host", "gpu0"))


def test_a_full_host_falls_back_to_recomputing():
    log = serve(make_policy("fastserve-like"), doubles.requests(*[(100, 80)] * 10, gap=0.01), blocks=40, host=1)
    assert not log.moves
    assert any(note.kind == "preempt" for note in log.notes)


def test_disaggregation_sends_every_request_once_and_decodes_on_the_peer():
    requests = doubles.requests(*[(300, 30)] * 8, gap=0.01)
    log = serve(make_policy("vllm-pd-like"), requests)
    sent = sorted(request_id for move in log.moves for request_id in move.requests)
    assert sent == [request.request_id for request in requests]
    for step in log.steps:
        assert step.shape.kind == step.lane
    assert sum(move.blocks for move in log.moves) >= sum(-(-request.prompt_tokens // 16) for request in requests)


def test_a_full_transfer_buffer_evicts_and_recomputes():
    policy = make_policy("vllm-pd-like", buffer_bytes=30e6, batch=1)
    log = serve(policy, doubles.requests(*[(800, 10)] * 20))
    evicted = [note for note in log.notes if note.kind == "preempt"]
    assert evicted
    computed = sum(step.shape.prefill_tokens for step in log.steps)
    assert computed > sum(request.prompt_tokens for request in log.requests.values())


@pytest.mark.parametrize(
    ("name", "option", "message"),
    [
        ("fastserve-like", {"quantum_s": 0.0}, "quantum_s is 0.0"),
        ("sglang-like", {"ahead_tokens": 0}, "ahead_tokens is 0"),
        ("fastserve-like", {"watermark": 1.0}, "watermark is 1.0"),
        ("spf-chunked", {"gamma_tokens_per_s": -1.0}, "gamma_tokens_per_s is -1.0"),
        ("vllm-pd-like", {"buffer_bytes": 0.0}, "buffer_bytes is 0.0"),
    ],
)
def test_bad_options_are_told(name, option, message):
    with pytest.raises(ValueError, match=message):
        make_policy(name, **option)
