"""The tables behind the exhibits: what they must show, and that each open point is really swept."""

from __future__ import annotations

from dataclasses import fields, replace

import pytest

from paperlab.nexus.settings import Settings
from paperlab.nexus.studies import contention_study, inversion, saturation_study, sweeps, switching
from paperlab.serving.deployment import deployment
from paperlab.serving.events import EventLog
from paperlab.serving.grid import Cell
from paperlab.serving.policy import Limits

CELL = Cell("nexus", "llama-3.1-8b", "l20", "mixed", 2.0, 30, 0)


def test_every_setting_has_its_sweep_and_every_value_changes_the_run():
    """`window_s`, the service levels and the step belong to the reactive control, which is a baseline of its own."""
    swept = {key for sweep in sweeps.SWEEPS.values() for changes in sweep.values() for key in changes}
    reactive = {"ttft_slo_s", "tbt_slo_s", "window_s", "step_points"}
    assert {item.name for item in fields(Settings)} - reactive - {"literal_listing"} <= swept
    for name, sweep in sweeps.SWEEPS.items():
        cells = [sweeps.changed(CELL, changes) for changes in sweep.values()]
        keys = [(cell.system, cell.limits, str(cell.options), str(Settings.of(cell.policy_options))) for cell in cells]
        assert len(set(keys)) == len(keys) >= 2, name


def test_a_changed_cell_keeps_what_was_not_changed():
    cell = replace(CELL, limits=Limits(1024, 64), options={"kv_tokens": 9000}, policy_options={"alpha": 2.0})
    other = sweeps.changed(cell, {"token_budget": 512, "beta": 1.5})
    assert other.limits == Limits(512, 64)
    assert (other.options, other.policy_options) == ({"kv_tokens": 9000}, {"alpha": 2.0, "beta": 1.5})
    with pytest.raises(ValueError, match="no sweep 'colour'; there are saturation curve"):
        sweeps.sweep("colour", CELL, [0])


def test_a_sweep_has_a_row_per_value_and_seed():
    table = sweeps.sweep("static split", CELL, [0, 1])
    assert list(zip(table.value, table.seed, strict=True)) == [
        (value, seed) for value in ("50/50", "30/70", "70/30") for seed in (0, 1)
    ]
    assert set(table.prefill_percent) == {50.0, 30.0, 70.0}
    assert (table.layout_switches == 0).all()
    ttft = table.groupby("value").ttft_mean_s.mean()
    assert ttft["30/70"] > ttft["50/50"] > ttft["70/30"]


def test_control_row_averages_over_time():
    """By hand: 50 for 2 s, 25 for 3 s, 75 for 5 s; decode first from 4 s on."""
    log = EventLog()
    for time_s, kind, detail in (
        (2.0, "layout", "prefill 23 of 92 multiprocessors"),
        (4.0, "target", "decode"),
        (5.0, "layout", "prefill 69 of 92 multiprocessors"),
        (10.0, "finish", ""),
    ):
        log.note(time_s, kind, None, detail)
    row = sweeps.control_row(log)
    assert row == pytest.approx({"layout_switches": 2, "prefill_percent": 55.0, "decode_first": 0.6})


def test_fit_table_tells_inputs_from_results():
    table = saturation_study.fit_table()
    assert set(table.claim) == {"N-13", "N-14", "N-15", "N-16", "N-17"}
    slope = table[table.family == "slope"]
    assert slope.miss_percent.abs().max() < 0.2
    assert table[table.family == "exponential"].miss_percent.abs().max() > 1


def test_shares_and_operators_add_up():
    table = saturation_study.share_table((0.3, 0.6, 1.0))
    parts = table[table.operator != "all"].groupby(["family", "phase", "share"]).latency_s.sum()
    whole = table[table.operator == "all"].set_index(["family", "phase", "share"]).latency_s
    assert parts.to_dict() == pytest.approx(whole.to_dict())
    assert table[table.share == 1].normalized.to_list() == pytest.approx([1.0] * (table.share == 1).sum())


def test_slacks_decide_whether_decode_first_gives_decode_more():
    table = inversion.splits()
    assert (table.inverted == (table.need > 100)).all()
    published = table[(table.alpha == 1.3) & (table.beta == 1.1)].iloc[0]
    loose = table[(table.alpha == 2.0) & (table.beta == 1.5)].iloc[0]
    assert published.inverted
    assert not loose.inverted
    assert (
        table.sort_values("beta").groupby("alpha").prefill_first.apply(lambda item: item.is_monotonic_increasing).all()
    )
    assert (
        table.sort_values("alpha").groupby("beta").decode_first.apply(lambda item: item.is_monotonic_decreasing).all()
    )


def test_the_byte_form_forecasts_less_contention_from_a_longer_cache():
    """Against the paper's own Fig. 6a: the weights that dense layers move outweigh one chunk's attention."""
    table = contention_study.by_prefill_context().set_index(["contention", "prefill_context"])
    assert table.latency_s["bytes", 10_000] < table.latency_s["bytes", 2000]
    assert table.latency_s["none"].nunique() == 1
    overlap = contention_study.by_split((10, 50)).set_index(["contention", "prefill_percent"]).overlap
    assert overlap["bytes", 10] < overlap["bytes", 50]


def test_mechanisms_differ_as_in_figure_8():
    logs = switching.runs(CELL)
    table = switching.comparison(logs).set_index("mechanism")
    barrier, naive, buffered = (table.loc[name] for name in switching.MECHANISMS)
    assert barrier.overcommitted == 0 < barrier.barrier_wait
    assert naive.overcommitted > buffered.overcommitted
    assert naive.barrier_wait == buffered.barrier_wait == 0
    assert buffered.layout_switches < naive.layout_switches / 2
    stretch = switching.timeline(logs, 2.0, 4.0)
    assert set(stretch.mechanism) == set(switching.MECHANISMS)
    assert ((stretch.end_s > 2.0) & (stretch.start_s < 4.0)).all()


def test_profiling_the_device_from_outside_shows_what_the_form_cannot_follow():
    """The published form has decode's memory traffic untouched by the share; the simulator's device has not."""
    setup = deployment("qwen2.5-3b", "l20")
    found = saturation_study.profiled_fit(setup)
    misses = {phase: [] for phase in ("prefill", "decode")}
    for point, miss in zip(found.points, found.misses, strict=True):
        misses[point.step.kind].append(abs(miss))
    assert sorted(misses["prefill"])[len(misses["prefill"]) // 2] < 0.03
    assert max(misses["decode"]) > 0.05
