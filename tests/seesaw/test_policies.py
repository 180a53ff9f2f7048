"""Schedulers: transitions that capacity predicts, phase rules, an independent simulator, and conservation."""

from __future__ import annotations

import random
from itertools import pairwise

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from paperlab.hardware import LinkSpec
from paperlab.seesaw.policies import DEPTH
from paperlab.seesaw.simulation import build_cluster
from paperlab.serving.events import EventLog
from paperlab.serving.policy import Limits, make_policy
from paperlab.serving.request import Request
from paperlab.serving.simulator import Simulator
from paperlab.serving.timing import Link, Pipeline
from tests.seesaw.clock import Ticks

RESHARDING = ("seesaw", "reshard-prefill-first", "reshard-decode-first")
COPY_S = 0.002  # per token


class Flat:
    """Prices: so many seconds per prompt token at each stage; a decode step grows with its batch and context."""

    def __init__(self, stages, load_s=0.5):
        self.stages, self.load_s = stages, load_s

    def compute_s(self, step):
        seconds = 0.01 * step.prefill_tokens + 0.02 * bool(step.decode_tokens) + 1e-4 * step.decode_context
        return [seconds] * self.stages

    def write_through_s(self, step):
        return [0.0] * self.stages

    def tail_s(self, step):
        return 0.0


def serve(name, sizes, gpu=400, host=600, block_size=1, budget=64, cap=256, checked=True, **options):
    """Serve (prompt, output) sizes, all there at time 0, with every invariant checked after every event."""
    options = {"prefill": "P2", "decode": "T2"} | options if name in RESHARDING else options
    policy = make_policy(name, limits=Limits(budget, cap), **options)
    cluster = build_cluster(policy, gpu // block_size, host // block_size, block_size, 10_000, EventLog())
    if checked:
        for method in ("begin", "finish"):
            _watch(cluster, method)
    timings = {}
    for lane in policy.lanes:
        if lane.kind == "copy":
            spec = LinkSpec(name="x", source="test", confidence="recalled", bandwidth_Bps=1 / COPY_S, latency_s=1e-12)
            timings[lane.resource] = Link(spec, block_size)
        else:
            prices = {f"P{n}": Flat(n) for n in (2, 4)} | {f"T{n}": Flat(1) for n in (1, 2, 4)} | {"T2P2": Flat(2)}
            timings[lane.resource] = Pipeline(prices, policy.initial)
    requests = [Request(index, 0.0, *size) for index, size in enumerate(sizes)]
    return Simulator(policy, cluster, timings).run(requests), cluster


def _watch(cluster, method):
    original = getattr(cluster, method)

    def checked(*arguments):
        result = original(*arguments)
        cluster.check()
        return result

    setattr(cluster, method, checked)


def ended(log):
    return sorted(note.request_id for note in log.notes if note.kind == "finish")


@pytest.mark.parametrize("cycles", [1, 2, 3, 4, 6])
def test_transitions_are_those_that_the_hosts_capacity_predicts(cycles):
    """2·⌈K/C⌉ - 1 with equal prompts, while nothing is swapped in during prefill."""
    prompts = 12
    host = -(-prompts // cycles) * 50
    log, _ = serve("seesaw", [(50, 9)] * prompts, gpu=300, host=host, prefetch_in_prefill=False)
    assert ended(log) == list(range(prompts))
    assert -(-prompts * 50 // host) == cycles
    assert len(log.switches) == 2 * cycles - 1


@pytest.mark.parametrize("host", [100, 150, 300, 600])
def test_with_swapping_in_during_prefill_the_gpus_room_counts_too(host):
    prompts, gpu = 12, 300
    log, _ = serve("seesaw", [(50, 9)] * prompts, gpu=gpu, host=host)
    cycles = (len(log.switches) + 1) // 2
    assert -(-prompts * 50 // (host + gpu)) <= cycles <= -(-prompts * 50 // host)


def test_phases_turn_only_when_the_host_is_full_or_empty():
    generator = random.Random(3)
    sizes = [(generator.randint(20, 90), generator.randint(2, 40)) for _ in range(40)]
    log, cluster = serve("seesaw", sizes, gpu=500, host=400)
    assert ended(log) == list(range(40))
    turns = [note.detail for note in log.notes if note.kind == "phase"]
    assert len(turns) == len(log.switches) > 2
    for index, detail in enumerate(turns):
        phase = "prefill, the host is empty" if index % 2 else "decode, "
        assert phase in detail
    assert "no prompt is left" in turns[-1]
    assert {pool.used for pool in cluster.pools.values()} == {0}
    for switch in log.switches:
        assert (switch.source, switch.target) in (("P2", "T2"), ("T2", "P2"))
        beside = [s for s in log.steps if s.start_s < switch.end_s - 1e-12 and s.end_s > switch.start_s + 1e-12]
        assert not beside


def test_unfinished_sequences_stay_on_the_gpu_through_a_prefill_phase():
    sizes = [(50, 60)] * 4 + [(50, 200)] * 2 + [(50, 20)] * 10
    log, _ = serve("seesaw", sizes, gpu=1200, host=300, prefetch_in_prefill=False)
    back = [switch for switch in log.switches if switch.target == "P2"]
    assert back
    resident = next(step for step in log.steps if step.start_s >= back[0].end_s)
    assert resident.kv_used > 0
    out = [move for move in log.moves if move.target == "host0"]
    assert not out
    assert not [note for note in log.notes if note.kind == "preempt"]


@pytest.mark.parametrize("seed", range(4))
def test_an_independent_simulator_comes_to_the_same_end(seed):
    generator = random.Random(seed)
    sizes = [(generator.randint(5, 60), generator.randint(1, 12)) for _ in range(25)]
    gpu, host, budget = [(2000, 1500, 64), (1600, 120, 100), (1200, 300, 64), (1500, 80, 30)][seed]
    log, _ = serve("seesaw", sizes, gpu=gpu, host=host, budget=budget)
    assert not [move for move in log.moves if move.target == "host0"]  # the other simulator has no swapping out
    prefill, decode = Flat(2), Flat(1)
    ticks = Ticks(
        sizes,
        lambda tokens: [0.01 * sum(tokens)] * prefill.stages,
        lambda contexts: 0.02 + 1e-4 * sum(contexts),
        COPY_S, decode.load_s, gpu, host, budget, DEPTH * prefill.stages, dt=1e-4,
    )  # fmt: skip
    end_s = ticks.run()
    assert len(ticks.done) == 25
    assert ticks.turns == len(log.switches)
    assert log.end_s == pytest.approx(end_s, rel=0.01)


@pytest.mark.parametrize("name", RESHARDING)
@pytest.mark.parametrize("sizes", [[(81, 2)], [(90, 6), (5, 3), (90, 6)], [(95, 1), (60, 36), (60, 36)]])
@pytest.mark.parametrize("prefetch", [True, False])
def test_a_sequence_that_fills_a_tier_alone_is_served(name, sizes, prefetch):
    for gpu, host in ((96, 96), (96, 130), (130, 96)):
        log, _ = serve(name, sizes, gpu=gpu, host=host, block_size=16, prefetch_in_prefill=prefetch)
        assert ended(log) == list(range(len(sizes)))


@settings(deadline=None, max_examples=30)
@given(
    st.sampled_from([*RESHARDING, "static-prefill-first", "static-chunked"]),
    st.lists(st.tuples(st.integers(1, 90), st.integers(1, 40)), min_size=1, max_size=14),
    st.integers(100, 400),
    st.integers(100, 300),
    st.sampled_from([1, 4, 16]),
    st.sampled_from([1, 2]),
)
def test_every_request_ends_once_with_its_length_whatever_the_memory(name, sizes, gpu, host, block_size, replicas):
    options = {"replicas": replicas} if name in RESHARDING else {"layout": f"D{replicas}T2P2"}
    if name in RESHARDING:
        options |= {"prefill": "P4", "decode": "T2P2"}
    log, cluster = serve(name, sizes, gpu=gpu, host=host, block_size=block_size, budget=64, cap=8, **options)
    refused = {note.request_id for note in log.notes if note.kind == "refuse"}
    assert ended(log) == [index for index in range(len(sizes)) if index not in refused]
    emitted = [request_id for step in log.steps for request_id in step.emitted]
    for index, (_, output) in enumerate(sizes):
        assert emitted.count(index) == (0 if index in refused else output)
    assert {pool.used for pool in cluster.pools.values()} == {0}
    for step in log.steps:
        assert len(step.requests) <= 8


def test_growth_that_finds_no_room_goes_back_to_the_host_and_comes_again():
    log, _ = serve("seesaw", [(40, 80)] * 8, gpu=400, host=400)
    assert ended(log) == list(range(8))
    assert [move for move in log.moves if move.target == "host0"]
    assert not [note for note in log.notes if note.kind == "preempt"]


def test_decode_steps_serve_one_pth_of_the_resident_sequences():
    sizes = [(20, 40)] * 12
    log, _ = serve("seesaw", sizes, gpu=2000, host=2000, prefill="P4", decode="T2P2")
    full = [step for step in log.steps if step.shape.kind == "decode"][10:-30]
    assert {len(step.requests) for step in full} == {6}
    by_start = sorted(full, key=lambda step: step.start_s)
    overlapping = sum(a.end_s > b.start_s + 1e-9 for a, b in pairwise(by_start))
    assert overlapping > len(full) / 2


def test_a_policy_without_a_change_of_layout_loads_nothing():
    log, _ = serve("seesaw", [(50, 9)] * 6, prefill="T2", decode="T2")
    assert ended(log) == list(range(6))
    assert not log.switches


def test_prefill_first_turns_often_and_decode_first_runs_dry():
    generator = random.Random(1)
    sizes = [(40, generator.randint(5, 60)) for _ in range(80)]
    logs = {name: serve(name, sizes, gpu=500, host=2000)[0] for name in RESHARDING}
    turns = {name: len(log.switches) for name, log in logs.items()}
    assert turns["reshard-prefill-first"] >= 10 * turns["seesaw"]
    batch = {name: decode_batch(log) for name, log in logs.items()}
    assert batch["reshard-decode-first"] < 0.9 * batch["seesaw"]
    assert logs["seesaw"].end_s < min(logs[name].end_s for name in RESHARDING[1:])


def decode_batch(log):
    sizes = [len(step.requests) for step in log.steps if step.shape.kind == "decode"]
    return sum(sizes) / len(sizes)


@pytest.mark.parametrize(("options", "message"), [
    ({"prefill": "P2", "decode": "T4"}, "same number of GPUs"),
    ({"prefill": "D2P2", "decode": "T2"}, "two layouts of one replica"),
    ({"replicas": 0}, "replicas 0"),
    ({"prefill": "Q2"}, "layout is 'Q2'"),
])  # fmt: skip
def test_impossible_layouts_are_told(options, message):
    with pytest.raises(ValueError, match=message):
        make_policy("seesaw", **options)
