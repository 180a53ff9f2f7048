"""The schematics are read off the code: they change when it does."""

from __future__ import annotations

import sys

import pytest
from matplotlib import pyplot as plt

from paperlab.hardware import device
from paperlab.nexus import experiments, plots
from paperlab.nexus.config import Config
from paperlab.nexus.policy import Nexus
from paperlab.nexus.schematic_plots import PLACES
from paperlab.nexus.studies import schematics

TINY = Config(sweep_requests=12)


@pytest.mark.parametrize("name", ["figure_1", "figure_3", "figure_7"])
def test_every_schematic_is_drawn(name):
    table = getattr(experiments, name)(TINY)
    texts = [text.get_text() for axes in getattr(plots, name)(table).axes for text in axes.texts]
    assert texts
    plt.close("all")


def test_lanes_on_one_device_share_it():
    table = schematics.system_lanes()
    compute = table[table.kind == "compute"]
    assert (compute.groupby(["system", "resource"]).share.sum() == 1).all()
    assert compute.groupby("system").resource.nunique().to_dict() == {"nexus": 1, "vllm-like": 1, "vllm-pd-like": 2}


def test_a_layout_leaves_the_rest_to_decode():
    table = schematics.device_splits((25, 75))
    assert (table.sms == device("L20").sm_count).all()
    assert table.prefill_percent.between(20, 80).all()
    assert table.decode_bandwidth.between(0, 1).all()


@pytest.fixture(scope="module")
def calls():
    return schematics.call_graph(2.0, 12, 0)


def test_the_call_graph_is_what_a_run_does(calls):
    """Every file of Nexus that decides anything is in it and drawn; one that a policy does not use is not."""
    pairs = set(zip(calls.caller, calls.callee, strict=True))
    assert {("serving.simulator", "nexus.policy"), ("nexus.policy", "nexus.control"),
            ("nexus.control", "nexus.search"), ("nexus.search", "nexus.cost_model")} <= pairs  # fmt: skip
    seen = set(calls.caller) | set(calls.callee)
    assert set(PLACES) <= seen
    assert {name for name in seen if name.startswith("nexus")} <= set(PLACES)
    assert not any(name.startswith("serving.policies") for name in seen)


def test_each_iteration_is_priced_once(calls):
    priced = calls[(calls.caller == "serving.device_model") & (calls.callee == "serving.cost")]
    assert priced.calls_per_iteration.item() == 1


def test_a_policy_without_control_calls_no_search(monkeypatch):
    """The graph follows what runs, not what is written in the file."""
    monkeypatch.setattr(Nexus, "control_kind", "static")
    found = schematics.call_graph(2.0, 12, 0)
    assert "nexus.search" not in set(found.callee)


def test_watching_leaves_the_callers_profiler_in_place():
    def profiler(frame, event, argument):
        pass

    sys.setprofile(profiler)
    try:
        schematics.call_graph(2.0, 4, 0)
        assert sys.getprofile() is profiler
    finally:
        sys.setprofile(None)


def test_the_evolution_has_the_papers_ticks_beside_numbers():
    table = schematics.evolution(2.5, 12, 0)
    assert table.gpus.tolist() == [1, 2, 1]
    assert table.busy.between(0, 1).all()
    assert table.set_index("system").paper_utilization_good.to_dict() == {
        "vllm-like": True, "vllm-pd-like": False, "nexus": True,
    }  # fmt: skip
