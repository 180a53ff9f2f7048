"""Two lanes, a split that really acts, switching, and the rules that every batch keeps."""

from __future__ import annotations

import random
from dataclasses import replace
from itertools import pairwise

import pytest

from paperlab.nexus.policy import PEER, Nexus, NexusWithoutControl, ReactiveSplit
from paperlab.serving.constants import constants
from paperlab.serving.policy import Limits, make_policy, policy_names
from tests.nexus.small import serve
from tests.serving import doubles

NAMES = ("nexus", "nexus-wo-sc", "pf-df-w-sc", "pf-df-wo-sc", "reactive")


def load(count=60, gap=0.25, seed=0, longest=6000):
    draw = random.Random(seed)
    return doubles.requests(*((draw.randint(100, longest), draw.randint(20, 120)) for _ in range(count)), gap=gap)


def served(name="nexus", requests=None, **options):
    policy = make_policy(name, **options)
    return policy, serve(policy, requests or load(), constants=constants("L20"))


def layout_changes(log):
    """Prefill's shares in the order of the notes."""
    notes = [note.detail.split() for note in log.notes if note.kind == "layout"]
    return [100 * int(words[1]) / int(words[3]) for words in notes]


def test_every_name_is_known_and_found():
    assert set(NAMES) <= set(policy_names())
    assert [make_policy(name).name for name in NAMES] == list(NAMES)


@pytest.mark.parametrize("name", NAMES)
def test_batches_keep_their_caps_and_never_mix(name):
    _, log = served(name)
    for step in log.steps:
        assert step.shape.kind == step.lane
        assert step.shape.tokens <= 2048
        assert len(step.requests) <= 256
    assert {step.lane for step in log.steps} == {"prefill", "decode"}


def test_the_baseline_does_mix_under_the_same_load():
    from paperlab.serving.policies.chunked import Chunked

    log = serve(Chunked(), load(), constants=constants("L20"))
    assert any(step.shape.kind == "mixed" for step in log.steps)


@pytest.mark.parametrize("name", NAMES)
def test_the_first_token_comes_from_the_prefill_lane_and_the_others_from_decode(name):
    _, log = served(name)
    seen = set()
    for step in sorted(log.steps, key=lambda step: step.end_s):
        for item in step.emitted:
            assert step.lane == ("decode" if item in seen else "prefill")
            seen.add(item)


@pytest.mark.parametrize("name", NAMES)
def test_the_lanes_overlap_in_time(name):
    _, log = served(name)
    prefill, decode = ([s for s in log.steps if s.lane == lane] for lane in PEER)
    assert any(a.start_s < b.end_s and b.start_s < a.end_s for a in prefill for b in decode)


def test_applied_changes_are_at_least_delta_and_an_infinite_delta_never_switches():
    requests, counts = load(120, 0.2, 1), []
    for delta in (0.0, 2.0, 5.0, 10.0, 20.0, float("inf")):
        policy, log = served(requests=requests, delta_points=delta)
        path = [50.0, *layout_changes(log)]
        assert all(abs(after - before) >= delta - 1e-9 for before, after in pairwise(path))
        assert sum(record.switched for record in policy.records) == len(path) - 1
        counts.append(len(path) - 1)
    assert counts[-1] == 0
    assert counts == sorted(counts, reverse=True)
    assert counts[0] > 3 * counts[2]


def test_every_switch_is_of_layout_and_the_steps_run_with_it():
    """Shares in the log are those of a layout, or the whole device while the peer has nothing to do."""
    policy, log = served()
    sms = {layout.prefill_sms for layout in policy.control.layouts}
    for step in log.steps:
        count = round(92 * step.share)
        assert step.share == pytest.approx(count / 92)
        assert step.share == 1 or (count if step.lane == "prefill" else 92 - count) in sms
    assert any(step.share == 1 for step in log.steps)
    assert len({step.share for step in log.steps}) > 3


def test_the_split_acts_on_latency():
    """R_p that only scaled a formula would leave the log's durations as they are."""
    requests = load(40, 0.1)
    runs = {split: served("nexus-wo-sc", requests, split_percent=split)[1] for split in (20, 80)}

    def slowdown(log, lane):
        """Time over that of the whole device alone, for the steps that had a share of it."""
        steps = [s for s in log.steps if s.lane == lane and s.share < 1]
        alone_s = sum(physics.seconds(physics.load(s.shape)) for s in steps)
        return sum(s.end_s - s.start_s for s in steps) / alone_s

    physics = doubles.setup(constants=constants("L20")).device_model
    assert slowdown(runs[20], "prefill") > 1.5 * slowdown(runs[80], "prefill")
    assert slowdown(runs[20], "decode") * 1.3 < slowdown(runs[80], "decode")


def test_a_lane_without_a_peer_gets_the_device_unless_told_otherwise():
    requests = doubles.requests((3000, 40))
    for flag, shares in ((True, {1.0}), (False, {0.5})):
        _, log = served(requests=requests, idle_peer_full=flag)
        assert {step.share for step in log.steps} == shares


def held_at(log, time_s):
    return sum(step.share for step in log.steps if step.start_s < time_s < step.end_s)


def test_a_barrier_never_overcommits_and_leaves_bubbles_where_asynchronous_switching_overcommits():
    """Fig. 8: (a) both lanes wait for each other, (b) each switches at its own next iteration."""
    requests = load(60, 0.2, 2)
    asynchronous = served(requests=requests, delta_points=0.0)[1]
    barrier = served(requests=requests, delta_points=0.0, barrier=True)[1]

    def most_held(log):
        return max(held_at(log, step.start_s + 1e-9) for step in log.steps)

    assert most_held(barrier) <= 1 + 1e-9
    assert most_held(asynchronous) > 1.05
    assert any(note.kind == "barrier" for note in barrier.notes)
    switches = [note.time_s for note in barrier.notes if note.kind == "layout"]
    assert len(switches) > 5
    for time_s in switches:
        assert not any(step.start_s < time_s - 1e-12 and step.end_s > time_s + 1e-12 for step in barrier.steps)


def test_the_buffer_switches_rarely():
    requests = load(60, 0.2, 2)
    naive, buffered = (len(layout_changes(served(requests=requests, delta_points=delta)[1])) for delta in (0.0, 5.0))
    assert 0 < buffered < naive / 3


def test_records_tell_what_the_control_saw_and_did():
    policy, log = served()
    assert policy.records
    for record in policy.records:
        assert 0 <= record.kv_usage <= 1
        assert record.target == ("prefill" if record.kv_usage <= 0.7 else "decode")
        assert record.evaluations >= 2
        assert 0 < record.layout_percent < 100
    assert [record.time_s for record in policy.records] == sorted(record.time_s for record in policy.records)
    assert policy.records[-1].time_s <= log.end_s


def test_the_period_thins_out_the_searches():
    every, tenth = (served(period=period)[0].records for period in (1, 10))
    assert 5 < len(every) / len(tenth) < 20


def test_a_full_pool_turns_the_target_to_decode():
    policy = make_policy("nexus")
    serve(policy, load(40, 0.05), constants=constants("L20"), kv_tokens=16_000)
    assert {record.target for record in policy.records} == {"prefill", "decode"}


def test_static_splits_never_move():
    policy, log = served("nexus-wo-sc", split_percent=30)
    assert policy.records == []
    assert layout_changes(log) == []
    assert {step.share for step in log.steps} <= {28 / 92, 64 / 92, 1.0}


def test_feedback_moves_towards_the_phase_that_is_late():
    requests = load(80, 0.15, 4)
    late = {"prefill": {"ttft_slo_s": 1e-3, "tbt_slo_s": 1e3}, "decode": {"ttft_slo_s": 1e9, "tbt_slo_s": 1e-6}}
    ends = {phase: served("reactive", requests, window_s=1.0, **slo)[0].layout.percent for phase, slo in late.items()}
    assert ends["decode"] < 50 < ends["prefill"]
    calm = served("reactive", requests, ttft_slo_s=1e9, tbt_slo_s=1e3)[0]
    assert calm.layout.percent == 50


def test_feedback_reads_the_log_only_once_per_window():
    policy, log = served("reactive", window_s=2.0)
    assert len(policy.records) <= log.end_s / 2.0 + 1
    assert isinstance(policy, ReactiveSplit)


class Opaque:
    """A deployment that refuses to show the simulator's physics."""

    def __init__(self, setup):
        self.cost, self.device, self.limits = setup.cost, setup.device, setup.limits


def test_the_controller_knows_the_data_sheet_and_not_the_truth():
    policy = Nexus()
    policy.bind(Opaque(doubles.setup()))
    requests = load(20)
    slow = replace(constants("L20"), compute_efficiency=0.3)
    logs = []
    for physics in (constants("L20"), slow):
        policy = Nexus()
        logs.append(serve(policy, requests, constants=physics))
        assert policy.control._model.belief == Nexus().control._belief
    assert logs[0].end_s < logs[1].end_s


def test_output_lengths_stay_unknown_to_the_policy():
    """The decisions up to the first end of a sequence do not depend on how long the answers will be."""
    requests = load(10, 0.0)
    longer = [replace(request, output_tokens=500) for request in requests]
    short = [replace(request, output_tokens=200) for request in requests]
    one, other = served(requests=longer)[1], served(requests=short)[1]
    until = min(note.time_s for note in other.notes if note.kind == "finish")
    first = [[s for s in log.steps if s.end_s < until] for log in (one, other)]
    assert first[0] == first[1]
    assert len(first[0]) > 50


def test_a_request_that_cannot_fit_is_refused_alone():
    requests = doubles.requests((500, 5), (9000, 5), (600, 5))
    log = serve(NexusWithoutControl(), requests, kv_tokens=4000)
    assert [(note.kind, note.request_id) for note in log.notes if note.kind == "refuse"] == [("refuse", 1)]
    assert sum(note.kind == "finish" for note in log.notes) == 2


def test_misuse_is_refused_in_one_line():
    with pytest.raises(ValueError, match="order is 'lifo'"):
        Nexus(order="lifo")
    with pytest.raises(ValueError, match="unknown speed"):
        make_policy("nexus", speed=3)
    with pytest.raises(RuntimeError, match="call bind"):
        Nexus(Limits()).schedule("prefill", doubles.cluster(lanes=Nexus.lanes))


@pytest.mark.parametrize("name", ["nexus", "reactive"])
def test_a_policy_can_serve_again_after_another_bind(name):
    policy = make_policy(name, period=3) if name == "nexus" else make_policy(name)
    one, other = (serve(policy, load(30), constants=constants("L20")) for _ in range(2))
    assert one.steps == other.steps
    assert one.notes == other.notes
