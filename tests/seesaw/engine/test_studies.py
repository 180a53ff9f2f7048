"""The studies' tables: what their rows say follows from the runs; rates that are put in come out of the fit."""

import numpy as np
import pytest

from paperlab.seesaw.engine import measured_prices
from paperlab.seesaw.engine.driver import MicroBatch, Record
from paperlab.seesaw.engine.measured_prices import TERMS, MeasuredPrices, MeasuredRates, demands, fit, simulate
from paperlab.seesaw.engine.messages import Span
from paperlab.seesaw.engine.trace import Trace
from paperlab.seesaw.layout import Layout
from paperlab.seesaw.studies import engine_study, overlap_study, prediction_study
from paperlab.seesaw.studies.engine_study import Way, pairs
from paperlab.serving import EventLog, fixed, make_policy, uniform, workload
from paperlab.serving.work import StepShape
from tests.seesaw.engine.oracle import engine, prompts
from tests.seesaw.small import TINY

WORK = workload(uniform((8, 40), (2, 6)), requests=5, seed=1, arrivals="at_once")
SECONDS = dict(zip(TERMS, (1e-3, 1e-4, 1e-10, 1e-10, 2e-10, 3e-10, 5e-4, 1e-9, 2e-10), strict=True))
RATES = MeasuredRates(tuple(SECONDS.values()), 0.0, 1e9, 2e8, 4e8, 0.0)


def made_trace(layouts, generator):
    """Return a trace whose spans take exactly what `RATES` say."""
    record = Record()
    clock = 0.0
    for job in range(60):
        layout = layouts[job % len(layouts)]
        tokens = int(generator.integers(8, 200))
        prefill = StepShape(tokens, 0, tokens * (tokens + 1) // 2, 0, 0, int(generator.integers(1, 5)))
        sequences = int(generator.integers(1, 20))
        decode = StepShape(0, 0, 0, sequences, sequences * int(generator.integers(20, 400)), sequences)
        shape = decode if job // len(layouts) % 2 else prefill
        began = clock
        for rank, shard in enumerate(Layout.parse(layout).shards(TINY)):
            seconds = float(demands(shard, shape) @ np.array(RATES.seconds_per))
            begin = began if shard.layout.tp > 1 else clock
            record.spans.append(Span(rank, "compute", shape.kind, begin, begin + seconds, job))
            clock = max(clock, begin + seconds)
        record.micro_batches[job] = MicroBatch(layout, shape, began, clock)
    record.spans.append(Span(0, "compute", "load", 0.0, 2.0, 61, moved_bytes=int(2e9)))
    record.spans.append(Span(0, "out", "swap-out", 0.0, 1.0, 61, moved_bytes=int(2e8)))
    record.spans.append(Span(0, "in", "swap-in", 0.0, 1.0, 61, moved_bytes=int(4e8)))
    return Trace(EventLog(), record)


def test_the_fit_finds_the_rates_that_made_the_times():
    generator = np.random.default_rng(0)
    found = fit([made_trace(["P2", "T2", "T1"], generator) for _ in range(3)], TINY)
    assert found.fit_error < 1e-3
    assert (found.load_Bps, found.swap_out_Bps, found.swap_in_Bps) == pytest.approx((1e9, 2e8, 4e8))
    assert found.dispatch_s == pytest.approx(0.0, abs=1e-9)
    for layout in ("P2", "T2"):  # also where two terms cannot be told apart, times come out
        ours, truth = (MeasuredPrices(TINY, Layout.parse(layout), rates) for rates in (found, RATES))
        for shape in (StepShape(100, 0, 5050, 0, 0, 2), StepShape(0, 0, 0, 7, 900, 7)):
            assert ours.compute_s(shape) == pytest.approx(truth.compute_s(shape), rel=0.02)


def test_a_fit_needs_enough_micro_batches():
    with pytest.raises(ValueError, match="0 different micro-batches at a stage; at least 30"):
        fit([Trace(EventLog(), Record())], TINY)


def test_the_simulator_takes_the_decisions_of_the_engine(two):
    """One policy over the same tiers: the same prompt batches, copies and re-shardings, whatever the clock."""
    work = workload(fixed(20, 12), requests=8, arrivals="at_once")
    with engine(two, "P2", "T2", host_blocks=6, prefetch_in_prefill=False) as made:
        real = made.serve(work)
    policy = make_policy("seesaw", prefill="P2", decode="T2", limits=made.options.limits, prefetch_in_prefill=False)
    virtual = simulate(policy, TINY, RATES, real, work)
    for log in (real, virtual):
        assert sum(step.shape.prefill_tokens for step in log.steps) == 160
        assert sum(step.shape.decode_tokens for step in log.steps) == 8 * 11
    assert [switch.target for switch in real.switches] == [switch.target for switch in virtual.switches]
    assert sorted(move.requests for move in real.moves) == sorted(move.requests for move in virtual.moves)
    assert [step.requests for step in real.steps if step.target] == [s.requests for s in virtual.steps if s.target]


def test_phases_and_parts_add_up(two):
    ways = [Way("P2", "T2"), Way("T2", "T2", "static-chunked")]
    table = engine_study.phase_times(two, WORK, ways, repeats=1, model=TINY)
    assert table.way.tolist() == ["P2→T2", "T2, chunked"]
    parts = table[["prefill_s", "decode_s", "mixed_s", "load_s", "other_s"]].sum(axis=1)
    assert (parts - table.makespan_s).abs().max() < 0.05 * table.makespan_s.max()
    assert table.evidence.eq("measured-cpu").all()
    assert (table.transitions > 0).tolist() == [True, False]


def test_breakdown_counts_collectives_only_where_there_are_some(two):
    table = engine_study.breakdown(two, WORK, ["P2", "T2"], repeats=1, model=TINY, peer_bus_Bps=1e8)
    by = table.set_index(["layout", "phase"])
    assert by.network_s["P2"].eq(0).all()
    assert by.network_s["T2"].gt(0).all()
    assert by.wait_s["T2"].eq(0).all()
    assert by.peer_bus_Bps.eq(1e8).all()
    decoding = sum(request.output_tokens - 1 for request in WORK.requests)
    assert by.forwards["P2", "decode"] <= decoding


def test_reloads_and_bytes_follow_from_the_shards(two):
    table = engine_study.reloads(two, WORK, [Way("P2", "T2")], model=TINY)
    shards = {name: Layout.parse(name).shards(TINY) for name in ("P2", "T2")}
    sizes = {rank: {shards[name][rank].weight_bytes("fp32") for name in shards} for rank in (0, 1)}
    assert all(row.weight_bytes in sizes[row.rank] for row in table.itertuples())
    assert len(table) >= 2 * 3  # two cycles or more
    counts = engine_study.moved_bytes(two, WORK, [Way("P2", "T2")], model=TINY)
    loads = len(table) / 2
    assert counts.loads.eq(loads).all()


def test_schedulers_differ_in_transitions(two):
    ways = [Way("P2", "T2", name) for name in ("seesaw", "reshard-prefill-first")]
    work = workload(fixed(32, 8), requests=7, arrivals="at_once")
    table = engine_study.schedulers(two, work, ways, [1.0], device_share=0.3, model=TINY).set_index("policy")
    assert table.transitions["seesaw"] == 1
    assert table.transitions["reshard-prefill-first"] > 1


def test_overlap_sets_the_share_of_copies(two):
    table = overlap_study.overlap(two, prompts=2, repeats=1, model=TINY)
    assert table.copies.tolist() == ["none", "overlapped", "blocking"]
    base = table.iloc[0]
    for row in table.iloc[1:].itertuples():
        assert row.copy_s >= 0.99 * 0.3 * base.compute_s  # a link is at least as slow as it was made
    assert base.ratio == 1


@pytest.mark.slow
def test_prediction_is_made_of_unseen_runs(two):
    table = prediction_study.prediction(two, prediction_study.UNSEEN[:1], requests=4, rounds=2, model=TINY)
    assert table.way.tolist() == [way.label for way in pairs(2)]
    assert set(table.workload) == {"chat"}
    assert (table.transitions == table.simulated_transitions).all()
    assert table.simulated_s.gt(0).all()
    summary = prediction_study.accuracy(table).iloc[0]
    assert summary.runs == 4
    assert summary.worst_error >= summary.mean_error


def test_a_trace_draws_and_saves(two, tmp_path):
    import json

    import matplotlib.pyplot as plt

    with engine(two, "P2", "T2", host_blocks=6) as made:
        made.generate(prompts(), 4)
        trace = made.trace()
    figure, axes = plt.subplots()
    trace.draw(axes)
    labels = [text.get_text() for text in axes.get_yticklabels()]
    assert labels == [f"rank {rank} {lane}" for rank in (1, 0) for lane in ("from host", "to host", "compute")]
    plt.close(figure)
    events = json.loads(trace.save(tmp_path / "a trace.json").read_text())["traceEvents"]
    assert len(events) == len(trace.table())
    assert trace.table().start_s.min() >= 0
    steps = trace.table().query("kind == 'prefill' or kind == 'decode'")
    assert set(steps.job) == set(trace._record.micro_batches)


def test_terms_are_of_one_length():
    assert len(demands(Layout().shard(TINY, 0), StepShape(1, 0, 1, 0, 0, 1))) == len(TERMS)
    assert measured_prices.FEWEST_SPANS == 30
