"""Statistics by hand, exhibits that are tidy and drawn, profiles that hold valid settings, the ledger."""

from __future__ import annotations

import inspect
from collections.abc import Callable

import matplotlib.pyplot as plt
import numpy as np
import pandas as pd
import pytest

from paperlab.aquant import ablation_experiments, ablation_plots, experiments, plots
from paperlab.aquant.config import Config
from paperlab.aquant.studies import statistics
from paperlab.aquant.studies.cases import ARMS, Case
from paperlab.aquant.studies.element import theorem_gaps, theorem_table
from paperlab.lab.claims import all_claims
from paperlab.lab.evidence import Evidence
from paperlab.lab.profiles import get_profile, profile_names

TINY = Config(
    draws=2000, iterations=4, ablation_iterations=4, calibration_images=32, calibration_sizes=(64,),
    ablation_arms=("QDrop",), oracle_images=20, random_borders=1, timing_rounds=2, cost_stride=30,
)  # fmt: skip
EXHIBITS = [
    (name, function, getattr(drawings, name, None))
    for module, drawings in ((experiments, plots), (ablation_experiments, ablation_plots))
    for name, function in inspect.getmembers(module, inspect.isfunction)
    if function.__module__ == module.__name__ and not name.startswith("_")
]
FAST = {"exhibit_border", "exhibit_product_error", "table_theorems"}


@pytest.mark.parametrize(
    ("name", "exhibit", "draw"),
    [pytest.param(*item, marks=[] if item[0] in FAST else [pytest.mark.slow], id=item[0]) for item in EXHIBITS],
)
def test_exhibit_is_tidy_and_drawn(name: str, exhibit: Callable, draw: Callable | None) -> None:
    table = exhibit(TINY)
    assert len(table) > 0, name
    assert set(table.evidence) <= set(map(str, Evidence))
    assert table.columns.is_unique
    if draw is not None:
        figure = draw(table)
        assert figure.axes
        plt.close(figure)


@pytest.mark.parametrize("name", profile_names())
def test_profiles_hold_valid_settings(name: str) -> None:
    config = get_profile(name).config("aquant", Config)
    assert {"RTN", "QDrop", "AQuant"} <= set(config.arms)
    if name != "smoke":
        assert len(config.nets) >= 4
        assert len({*config.nets, *config.pair_nets}) >= 8
        assert config.iterations >= 800
        assert len(config.ablation_nets) >= 3
        assert config.ablation_iterations >= 200
        assert config.task == "gabor"


def test_bad_settings_are_told() -> None:
    with pytest.raises(ValueError, match="arms holds AQuantum"):
        Config(arms=("AQuantum",))
    with pytest.raises(ValueError, match="nets"):
        Config(nets=())
    with pytest.raises(ValueError, match="task is 'cifar'"):
        Config(task="cifar")
    with pytest.raises(ValueError, match="arm is 'none'"):
        Case("none")


def test_arms_of_the_ranking_differ_in_the_method_alone() -> None:
    for arm in ("RTN", "AdaRound", "BRECQ", "QDrop", "AQuant"):
        assert ARMS[arm] == (arm.lower(), {})


def test_interval_by_hand() -> None:
    mean, low, high = statistics.interval([1.0, 2.0, 3.0, 4.0])
    half = 3.182446 * np.std([1, 2, 3, 4], ddof=1) / 2  # t of 3 degrees of freedom, from a table
    assert (mean, low, high) == pytest.approx((2.5, 2.5 - half, 2.5 + half), rel=1e-5)
    assert np.isnan(statistics.interval([1.0])[1])


def test_mcnemar_by_hand() -> None:
    first = np.array([True] * 8 + [False] * 2 + [True] * 5)
    second = np.array([False] * 8 + [True] * 2 + [True] * 5)
    # 8 against 2 of 10 fair coins, two-sided: 2 (C(10,0) + C(10,1) + C(10,2)) / 1024
    assert statistics.mcnemar(first, second) == pytest.approx(2 * (1 + 10 + 45) / 1024)
    assert statistics.mcnemar(first, first) == 1.0


def test_pairs_use_nets_as_units() -> None:
    rows = [
        ("N1", arm, net, base + extra) for net, base in enumerate((50, 60, 70)) for arm, extra in (("A", 2), ("B", 0))
    ]
    table = pd.DataFrame(rows, columns=["network", "arm", "net_seed", "top1"])
    found = statistics.paired(table, [("A", "B"), ("B", "A"), ("A", "C")], by=("network",))
    assert found.difference.tolist() == [2, -2]
    assert found.verdict.tolist() == ["higher", "lower"]
    noisy = table.assign(top1=[50, 55, 60, 50, 70, 70])
    assert statistics.paired(noisy, [("A", "B")], by=("network",)).verdict.tolist() == ["not resolved"]
    assert statistics.in_words(found.iloc[0]) == "A − B +2.0 [+2.0, +2.0]"
    one = table[table.net_seed == 0]
    assert statistics.paired(one, [("A", "B")], by=("network",)).verdict.tolist() == ["one net: no interval"]


def test_theorems_hold_in_the_tables() -> None:
    gaps = theorem_gaps(20_000, 0)
    assert gaps["least_error"] < 1e-9
    assert gaps["bias"] < 1e-3
    table = theorem_table(50_000, 0).set_index(["relative_weight_error", "border"])
    for relative in (-0.1, 0.1):
        assert table.mean_error[relative, "nearest"] == pytest.approx(2 * relative, abs=0.01)
        assert abs(table.mean_error[relative, "zero bias"]) < 0.01


def test_ledger_has_every_row_and_decides_nothing_it_cannot() -> None:
    ledger = all_claims()["aquant"]
    wanted = (
        [f"AQ-{n:02}" for n in range(1, 12)] + [f"S-{n:02}" for n in range(1, 9)] + [f"RK-{n}" for n in range(1, 8)]
    )
    wanted += [f"QD-{n:02}" for n in range(1, 7)] + [f"PD-{n:02}" for n in range(1, 5)] + ["MR-01", "MR-02"]
    wanted += [f"MQ-{n:02}" for n in range(1, 4)]
    assert {item for item in wanted if item not in ledger} == set()
    for claim in ledger.values():
        if claim.unit == "% top-1":  # ImageNet numbers
            assert claim.evidence == "none", claim.claim_id
        if claim.claim_id.startswith(("QD", "PD", "MR", "MQ")):
            assert claim.comparison == "reference"
