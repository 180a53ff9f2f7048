"""Every exhibit of the smallest configuration: rows, evidence, drawing; and what findings say of made-up tables."""

from __future__ import annotations

import inspect

import pandas as pd
import pytest
from matplotlib import pyplot as plt

from paperlab.lab.claims import all_claims
from paperlab.seesaw import Config, experiments, findings, plots, run, workload
from paperlab.seesaw.estimate import estimate_s
from paperlab.seesaw.studies import mechanism, sweeps
from paperlab.seesaw.studies.end_to_end import VARIANTS, Cell, best_runs, sensitivity, speedups, varied
from paperlab.seesaw.studies.published import LABELS
from paperlab.serving.events import EventLog, Step
from paperlab.serving.work import StepShape

CONFIG = Config(
    seeds=(0, 1), workers=1, arxiv_requests=10, sharegpt_requests=10, devices=("A10",), ratio_requests=4,
    ratios=(0.0, 0.02), link_requests=5, link_factors=(1.0,), policy_requests=8, host_GiB=(60.0,),
)  # fmt: skip
SIMPLE = [
    name for name, function in inspect.getmembers(experiments, inspect.isfunction)
    if function.__module__ == experiments.__name__ and not name.startswith("_")
    and list(inspect.signature(function).parameters) == ["config"] and "engine" not in name
]  # fmt: skip
SLOW = {
    "figure_10",
    "figure_11",
    "figure_14",
    "table_12",
    "table_sensitivity",
    "figure_2",
    "figure_6",
    "table_policies",
}


@pytest.mark.parametrize("name", [item for item in SIMPLE if item not in SLOW])
def test_every_exhibit_has_rows_evidence_and_a_drawing(name):
    _check(name)


@pytest.mark.slow
@pytest.mark.parametrize("name", sorted(SLOW))
def test_the_larger_exhibits_too(name):
    _check(name)


def _check(name):
    table = getattr(experiments, name)(CONFIG)
    assert len(table)
    assert table["evidence"].isin(["simulated", "analytic", "measured-cpu"]).all()
    if hasattr(plots, name):
        getattr(plots, name)(table)
        plt.close("all")


def test_the_ledger_has_every_claim_of_the_paper():
    ledger = all_claims()["seesaw"]
    wanted = {*range(1, 13), *range(20, 36), *range(40, 65), *range(70, 83), *range(90, 95), *range(100, 106),
              *range(110, 116), *range(120, 124), *range(130, 133), 140, 141, *range(150, 159)}  # fmt: skip
    assert set(ledger) == {f"SS-{number:03}" for number in wanted}
    for index, (static, pair) in enumerate(LABELS.values()):
        assert static in ledger[f"SS-{40 + 2 * index:03}"].statement
        assert pair.replace("→", "->") in ledger[f"SS-{41 + 2 * index:03}"].statement


def test_findings_name_claims_and_speak_their_language():
    ledger = all_claims()["seesaw"]
    tables = {
        name: getattr(experiments, name)(CONFIG)
        for name in ("table_1", "figure_1", "figure_4", "figure_9", "figure_15")
    }
    found = [
        *findings.specification_findings(tables["table_1"]), *findings.breakdown_findings(tables["figure_1"]),
        *findings.disaggregation_findings(tables["figure_4"]), *findings.length_findings(tables["figure_9"]),
        *findings.replica_findings(tables["figure_15"]), *findings.weight_findings(),
    ]  # fmt: skip
    assert len({item.claim_id for item in found}) == len(found) > 20
    for item in found:
        assert isinstance(item.value, bool) == ledger[item.claim_id].is_qualitative, item.claim_id
        assert ledger[item.claim_id].evidence == "analytic"


def test_link_findings_report_the_range_where_re_sharding_wins():
    rows = [(factor, layout, rate) for factor, rates in {0.1: (3, 2, 1), 1.0: (2, 2, 3), 10.0: (1, 3, 2)}.items()
            for layout, rate in zip(("P8", "T8", "D2P4→D2T4"), rates, strict=True)]  # fmt: skip
    table = pd.DataFrame(rows, columns=["factor", "layout", "requests_per_s"])
    found = {item.claim_id: item.value for item in findings.link_findings(table)}
    assert found == {"SS-120": True, "SS-121": True, "SS-122": 1.0, "SS-123": 1.0}


def test_ratio_findings_see_the_order():
    rates = {0.0: (1, 2, 3, 3), 0.05: (2, 3, 2, 4), 0.3: (3, 2, 1, 4)}
    rows = [
        (ratio, layout, rate)
        for ratio, values in rates.items()
        for layout, rate in zip(sweeps.RATIO_LAYOUTS, values, strict=True)
    ]
    table = pd.DataFrame(rows, columns=["ratio", "layout", "requests_per_s"])
    assert all(item.value for item in findings.ratio_findings(table))
    worse = table.assign(requests_per_s=table.requests_per_s.where(table.layout != "P8→T4P2", 1.0))
    assert not next(item for item in findings.ratio_findings(worse) if item.claim_id == "SS-115").value


def test_time_is_divided_among_what_runs():
    prefill, decode = StepShape(prefill_tokens=5), StepShape(decode_tokens=2)
    steps = [(0, 4, prefill), (2, 6, decode), (8, 10, decode)]
    log = EventLog(steps=[Step("a", start, end, 0.0, 1.0, shape, (), (), 0) for start, end, shape in steps])
    assert sweeps.phase_times(log) == {"prefill": 3.0, "mixed": 0.0, "decode": 5.0, "other": 2.0}


def test_speedups_are_over_the_static_run_of_the_same_cell():
    cell = Cell("llama3-15b", experiments.end_to_end.node("a10"), 4, "arxiv", 12, 0, 1)
    static, pair = best_runs(cell)
    assert (static["kind"], pair["kind"]) == ("static", "re-sharding")
    assert 0 < static["ideal_s"] < static["makespan_s"]
    table = experiments.end_to_end.table([cell], 1)
    assert table["speedup"].iloc[1] == pytest.approx(static["makespan_s"] / pair["makespan_s"])
    assert speedups(table).set_index("device").loc["all"].geometric_mean == pytest.approx(table["speedup"].iloc[1])
    assert (table["fraction_of_bound"] < 1).all()


def test_intervals_of_speedups_are_over_seeds():
    rows = [("A10", "re-sharding", 0, 1.0), ("A10", "re-sharding", 0, 4.0), ("A10", "re-sharding", 1, 3.0),
            ("A10", "re-sharding", 1, 3.0), ("A10", "static", 0, 1.0)]  # fmt: skip
    found = speedups(pd.DataFrame(rows, columns=["device", "kind", "seed", "speedup"])).set_index("device").loc["A10"]
    assert (found.cells, found.seeds, found.least, found.largest) == (2, 2, 1.0, 4.0)
    assert (found.mean_low, found.mean_high) == pytest.approx((2, 3))
    assert found.geometric_mean == pytest.approx(6**0.5)


def test_every_variant_changes_what_its_name_says():
    on = experiments.end_to_end.node("a10")
    work = workload("arxiv", 12)
    layouts = {
        text: run("llama3-15b", varied(on, "all-reduce at a quarter of the rate"), text) for text in ("T4", "P4")
    }
    assert estimate_s(layouts["T4"], work.requests) > 1.2 * estimate_s(run("llama3-15b", on, "T4"), work.requests)
    assert estimate_s(layouts["P4"], work.requests) == estimate_s(run("llama3-15b", on, "P4"), work.requests)
    for variant in VARIANTS:
        assert (varied(on, variant) == on) == (variant == "as calibrated"), variant
    table = sensitivity([Cell("llama3-15b", on, 4, "arxiv", 6, 0, 1)], 1)
    assert list(table["variant"].unique()) == list(VARIANTS)


def test_occupancy_ends_empty_and_never_falls_below():
    log = mechanism.policy_run("seesaw", 30, 0)
    tiers = mechanism.occupancy(log)
    assert (tiers[["host", "gpu"]] >= 0).all(axis=None)
    assert tiers[["host", "gpu"]].iloc[-1].tolist() == [0, 0]
    assert set(tiers["phase"]) == {"prefill", "decode"}


@pytest.mark.parametrize(("bad", "message"), [
    ({"simulate": 0}, "simulate is 0"), ({"ratios": ()}, "ratios is empty"), ({"host_GiB": (0.0,)}, "must be positive"),
])  # fmt: skip
def test_impossible_configurations_are_told(bad, message):
    with pytest.raises(ValueError, match=message):
        Config(**bad)
