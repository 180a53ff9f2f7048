"""Order of work: 1F1B, hooks, lanes, the decoupled optimizer, and whether lanes overlap."""

import threading
import time

import pytest
import torch

from paperlab.mist.runtime.build import Options
from paperlab.mist.runtime.engine import train
from paperlab.mist.runtime.lanes import SIDE_LANES, make_lanes
from paperlab.mist.runtime.optimizer import Adam
from paperlab.mist.runtime.schedule import one_forward_one_backward
from paperlab.mist.runtime.trace import LANES, Trace, spans_table
from paperlab.mist.studies import decoupled, schedule_trace
from tests.mist.runtime.plans import offload, plan_of

CPU = torch.device("cpu")


@pytest.mark.parametrize("stages", [1, 2, 3, 4, 8])
@pytest.mark.parametrize("microbatches", [8, 11])
def test_1f1b_runs_everything_once_with_bounded_depth(stages, microbatches):
    for stage in range(stages):
        depth, deepest, done = 0, 0, {"forward": [], "backward": []}
        for step in one_forward_one_backward(stage, stages, microbatches):
            depth += 1 if step.kind == "forward" else -1
            deepest = max(deepest, depth)
            done[step.kind].append(step.microbatch)
            assert set(done["backward"]) <= set(done["forward"])
        assert done == {"forward": list(range(microbatches)), "backward": list(range(microbatches))}
        assert deepest == stages - stage


def spans_of(result, iteration=1, lane=None):
    return [span for span in result.spans if span.iteration == iteration and lane in (None, span.lane)]


def test_stages_work_at_the_same_time_in_1f1b_order(pool):
    first, second = pool.run(train, plan_of(2, 4), 2)[:2]
    order = {
        result.stage: [(s.label, s.microbatch) for s in spans_of(result, lane="compute") if s.module == 1]
        for result in (first, second)
    }
    f, b = "forward", "backward"
    assert order[0] == [(f, 0), (f, 1), (b, 0), (f, 2), (b, 1), (f, 3), (b, 2), (b, 3)]
    assert order[1] == [(f, 0), (b, 0), (f, 1), (b, 1), (f, 2), (b, 2), (f, 3), (b, 3)]


def test_adam_of_a_module_runs_before_its_first_forward_of_the_next_iteration():
    result = train(plan_of(1, **offload(1.0)), 2)
    assert not spans_of(result, 0, "optimizer")
    steps, first = {}, {}
    for span in spans_of(result, 1, "optimizer"):
        steps.setdefault(span.module, span)  # what follows is the flush at the end of training
    for span in spans_of(result, 1, "compute"):
        first.setdefault(span.module, span)
    assert sorted(steps) == sorted(first) == [0, 1, 2, 3, 4, 5]
    assert all(steps[index].stop_s <= first[index].start_s for index in range(6))


def test_adam_of_the_next_module_is_queued_while_this_one_computes():
    """The span of Adam k + 1 begins before compute k ends; with a machine's only free core taken, at least once."""
    result = train(plan_of(1, 1, micro_batch=8), 4)
    beside = 0
    for iteration in (1, 2, 3):
        forward = {s.module: s for s in spans_of(result, iteration, "compute") if s.label == "forward"}
        adam = {s.module: s for s in spans_of(result, iteration, "optimizer") if s.label == "adam"}
        beside += sum(adam[k + 1].start_s < forward[k].stop_s for k in range(5))
    assert beside > 0


def test_prefetch_and_swap_out_follow_the_hooks():
    result = train(plan_of(1, 2, checkpointed=1, **offload(0.5)), 2)
    compute = {(s.label, s.module, s.microbatch): s for s in spans_of(result, lane="compute")}
    fetched = {}
    for span in spans_of(result, lane="swap-in"):
        if span.label == "weights":
            fetched.setdefault((span.module, span.microbatch), []).append(span)
    for module in (2, 3):  # with two modules before and behind
        ahead, back = fetched[module, 1]  # for forward, beside its predecessor; for backward, beside its successor
        assert compute["forward", module - 2, 1].stop_s <= ahead.start_s
        assert ahead.stop_s <= compute["forward", module, 1].start_s
        assert compute["backward", module + 2, 1].stop_s <= back.start_s
        assert back.stop_s <= compute["backward", module, 1].start_s
    for span in spans_of(result, lane="swap-out"):
        if span.label == "activations":
            assert span.start_s >= compute["forward", span.module, span.microbatch].stop_s
        if span.label == "gradients":
            assert span.start_s >= compute["backward", span.module, span.microbatch].stop_s


def test_trace_has_the_same_spans_every_time():
    plan = plan_of(1, 2, checkpointed=1, **offload(0.5))
    runs = []
    for _ in range(2):
        table = spans_table(train(plan, 2).spans)
        assert set(table.lane) <= set(LANES)
        assert (table.stop_s >= table.start_s).all()
        runs.append(
            {lane: list(zip(own.label, own.module, own.microbatch, strict=True)) for lane, own in table.groupby("lane")}
        )
    assert runs[0] == runs[1]
    assert not train(plan, 1, Options(trace=False)).spans


def test_lanes_run_on_threads_of_their_own_and_in_order():
    lanes = make_lanes(Trace(0, CPU), CPU)
    gate, seen = threading.Event(), []
    held = lanes["swap-in"].submit("held", gate.wait)
    later = lanes["swap-out"].submit("later", lambda: seen.append("later"), [held])
    lanes["reduce"].submit("free", lambda: seen.append(threading.current_thread().name)).wait()
    assert seen == ["mist reduce"]
    gate.set()
    later.wait()
    assert seen == ["mist reduce", "later"]
    for lane in lanes.values():
        lane.close()
    inline = make_lanes(Trace(0, CPU), CPU, overlap=False)
    assert set(inline) == set(SIDE_LANES)
    inline["reduce"].submit("here", lambda: seen.append(threading.current_thread())).wait()
    assert seen[-1] is threading.current_thread()


def test_an_error_on_a_lane_reaches_whoever_waits():
    lanes = make_lanes(Trace(0, CPU), CPU)
    failed = lanes["swap-in"].submit("fails", lambda: 1 / 0)
    with pytest.raises(ZeroDivisionError):
        lanes["unshard"].submit("after", time.time, [failed]).wait()
    for lane in lanes.values():
        lane.close()


@pytest.mark.parametrize("wrong", [{"learning_rate": 0}, {"eps": -1}, {"beta1": 1.0}, {"beta2": -0.1}])
def test_bad_hyperparameters_are_told(wrong):
    with pytest.raises(ValueError, match=next(iter(wrong))):
        Adam(**wrong)


def test_decoupled_optimizer_saves_what_is_predicted(pool):
    table = decoupled.decoupled_table(decoupled.decoupled_plans()[1:], pool)
    assert (table.saved_MiB > 0).all()
    assert table.error_percent.abs().max() <= 5, table.to_string()
    assert table.same_weights.all()


def test_traced_schedule_feeds_the_gantt_figure(pool):
    spans = schedule_trace.traced_schedule(schedule_trace.traced_plan(hidden=32, seq_len=16), pool)
    assert set(spans["rank"]) == {0, 1}
    assert {"compute", "pipeline", "swap-in", "swap-out", "optimizer"} <= set(spans.lane)
    hidden = schedule_trace.hidden_fraction(spans)
    assert hidden.hidden_fraction.between(0, 1).all()
