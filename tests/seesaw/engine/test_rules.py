"""What the notebook reads from runs: rules that hold in real events and are seen broken where the events say so."""

import inspect

import pandas as pd
import pytest
from matplotlib import pyplot as plt

from paperlab.lab.claims import get_claim
from paperlab.seesaw import Config, engine_experiments, engine_findings, engine_plots
from paperlab.seesaw.studies import engine_rules
from paperlab.seesaw.studies.engine_study import Way
from tests.seesaw.engine.oracle import engine, prompts
from tests.seesaw.small import TINY

EXHIBITS = [
    name for name, function in inspect.getmembers(engine_experiments, inspect.isfunction)
    if list(inspect.signature(function).parameters) == ["config", "pool"] and name != "example"
]  # fmt: skip


def test_turns_are_judged_by_what_the_host_held(two):
    with engine(two, "P2", "T2", host_blocks=6, prefetch_in_prefill=False) as made:
        made.generate(prompts((20,) * 8), [1, 12, 12, 12, 12, 12, 12, 12])  # one ends with its prompt
        trace = made.trace()
    table = engine_rules.turns(trace)
    assert table.target.tolist() == ["decode", "prefill"] * 2 + ["decode"]
    assert table.host_used.tolist() == [6, 0, 6, 0, 2]
    assert table.next_blocks.tolist() == [2, 2, 2, 2, 0]
    (found,) = engine_findings.turn_findings(table)
    assert found.value is True
    trace.log.about["host_blocks"] = 8  # then the host was not full
    (found,) = engine_findings.turn_findings(engine_rules.turns(trace))
    assert found.value is False
    assert "3 of 5" in found.note


@pytest.mark.parametrize(("prefill", "decode", "served"), [("P2", "T2", 8), ("T2", "P2", 4)])
def test_groups_are_the_resident_sequences_over_the_stages(two, prefill, decode, served):
    with engine(two, prefill, decode, host_blocks=16) as made:
        made.generate(prompts((20,) * 8), 12)
        table = engine_rules.decode_groups(made.trace())
    assert table.resident.max() == 8
    assert table[table.resident == 8].served.mode().tolist() == [served]
    (found,) = engine_findings.group_findings(table)
    assert found.value is True
    (found,) = engine_findings.group_findings(table.assign(served=table.served + 1))
    assert found.value is False


def test_growth_is_an_exponent():
    rows = pd.DataFrame({"sequences": [2, 4, 8], "reload_s": [3.0, 3.0, 3.0], "swap_s": [0.2, 0.4, 0.8]})
    assert engine_rules.growth(rows, "swap_s") == pytest.approx(1)
    (found,) = engine_findings.reload_findings(rows)
    assert (found.claim_id, found.value) == ("SS-154", True)
    (found,) = engine_findings.reload_findings(rows.assign(reload_s=rows.swap_s))
    assert found.value is False


def test_reloads_move_the_weights_and_swaps_the_batch(two):
    table = engine_rules.reload_against_swap(two, (1, 2), Way("P2", "T2"), repeats=1, prompt=16, model=TINY)
    assert table.transitions.eq(1).all()
    assert table.weight_bytes.nunique() == 1
    assert table.kv_bytes.tolist() == [table.kv_bytes[0], 2 * table.kv_bytes[0]]


def test_findings_are_claims_that_a_measurement_here_decides():
    for claim in ("SS-153", "SS-154", "SS-158"):
        assert get_claim(claim).evidence == "measured-cpu"
        assert get_claim(claim).is_qualitative


@pytest.mark.slow
@pytest.mark.parametrize("name", EXHIBITS)
def test_every_exhibit_has_rows_evidence_and_a_drawing(two, name):
    table = getattr(engine_experiments, name)(Config(engine_requests=3), two)
    assert len(table)
    assert table.evidence.eq("measured-cpu").all()
    if name == "table_tokens":
        assert (table.equal == table.prompts).all()
    if hasattr(engine_plots, name):
        getattr(engine_plots, name)(table)
        plt.close("all")
