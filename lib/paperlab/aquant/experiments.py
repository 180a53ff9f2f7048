"""One function per exhibit: each takes a `Config` and returns a tidy table with its evidence class.

The paper's tables and figures could not be read. S-01 to S-08 of the ledger are slots for them; exhibits carry names of
ours, and each names its slot.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import replace
from typing import Any

import numpy as np
import pandas as pd

from paperlab.aquant.border import BorderSpec
from paperlab.aquant.config import Config
from paperlab.aquant.data.training import one_thread, trained
from paperlab.aquant.deploy.cost import layer_cases, layer_costs
from paperlab.aquant.deploy.overhead import overhead_table
from paperlab.aquant.studies import cases, element, motivation
from paperlab.aquant.studies.cases import Case
from paperlab.aquant.studies.statistics import mcnemar, paired

CPU, ANALYTIC, SIMULATED = "measured-cpu", "analytic", "simulated"
COST_NETWORKS = ("ResNet-18", "MobileNetV2")
RANKING = (("AQuant", "QDrop"), ("AQuant, free", "QDrop"), ("QDrop", "BRECQ"), ("BRECQ", "AdaRound"), ("BRECQ", "RTN"))


def exhibit_border(config: Config) -> pd.DataFrame:
    """S-02: rounded value and border along the activation, for nearest rounding and three borders."""
    return element.border_curves().assign(evidence=ANALYTIC)


def exhibit_product_error(config: Config) -> pd.DataFrame:
    """S-03: error of the product along the activation, for a weight that is 10 % too large."""
    return element.product_errors(min(config.draws, 2_000), seed=0).assign(evidence=SIMULATED)


def table_theorems(config: Config) -> pd.DataFrame:
    """S-03: mean and mean absolute error of the product by relative weight error and border."""
    return element.theorem_table(config.draws, seed=0).assign(evidence=SIMULATED)


def exhibit_motivation(config: Config) -> pd.DataFrame:
    """S-04: output error and accuracy of one net with activations rounded to nearest, at random, and by an oracle."""
    net = trained(cases.training(_case(config, "RTN", config.nets[0])))
    return motivation.roundings(net, config.oracle_images, config.random_borders, seed=0).assign(evidence=CPU)


def table_accuracy(config: Config) -> pd.DataFrame:
    """S-01: top-1 of every arm on every net at W2A2, on the procedural task (N1, N2) and on real digits (N1)."""
    return _accuracy(config, _main_cases(config))


def table_differences(config: Config) -> pd.DataFrame:
    """S-01, RK-1: paired differences between arms, nets as units, with intervals."""
    table = paired(_accuracy(config, _main_cases(config)), RANKING, by=("network", "task"))
    return table.assign(evidence=CPU)


def table_mcnemar(config: Config) -> pd.DataFrame:
    """S-01: within each net, McNemar's exact test of neighboring arms on the test images."""
    found = cases.outcomes(_main_cases(config), config.workers)
    rows = []
    for first, second in RANKING:
        for case, outcome in found.items():
            other = found.get(_with_arm(case, second))
            if case.arm == first and other is not None:
                p_value = mcnemar(outcome.correct, other.correct)
                better = int((outcome.correct & ~other.correct).sum())
                worse = int((~outcome.correct & other.correct).sum())
                rows.append((case.network, case.task, case.seed, first, second, better, worse, p_value))
    columns = ["network", "task", "net_seed", "arm", "over", "only_arm_right", "only_over_right", "p_value"]
    return pd.DataFrame(rows, columns=columns).assign(evidence=CPU)


def table_units(config: Config) -> pd.DataFrame:
    """Units of AQuant on the first net: losses, flipped shares, clip rates, bits."""
    case = _case(config, "AQuant", config.nets[0])
    return cases.outcomes([case], config.workers)[case].units.assign(evidence=CPU)


def exhibit_drop_and_border(config: Config) -> pd.DataFrame:
    """S-05: the 2x2 of QDrop's drop and the border."""
    found = _accuracy(
        config, [_case(config, arm, seed) for seed in config.ablation_nets for arm in config.ablation_arms]
    )
    return found.assign(drop=found.arm.isin(["QDrop", "AQuant, drop", "AQuant, free, drop"]))


def exhibit_degrees(config: Config) -> pd.DataFrame:
    """S-05, RK-4: no border, constant, linear, quadratic, without drop; degree -1 is no border."""
    tables = []
    for degree in (-1, *config.degrees, 2):
        changes = () if degree in (-1, 2) else _border(degree=degree)
        arm = "no drop" if degree < 0 else "AQuant"
        part = _accuracy(config, [_case(config, arm, seed, changes=changes) for seed in config.ablation_nets])
        tables.append(part.assign(degree=degree))
    return pd.concat(tables, ignore_index=True)


def table_terms(config: Config) -> pd.DataFrame:
    """S-05, AQ-08: the border in closed form from weight error alone, with propagated and with global error."""
    tables = []
    for terms in ("none", "weight", "propagated", "all"):
        arm, changes = ("RTN", ()) if terms == "none" else ("closed form", (("terms", terms),))
        part = _accuracy(config, [_case(config, arm, seed, changes=changes) for seed in config.nets])
        tables.append(part.assign(terms=terms))
    return pd.concat(tables, ignore_index=True)


def exhibit_bits(config: Config) -> pd.DataFrame:
    """S-01, RK-2, RK-5: top-1 by bits on the first net."""
    wanted = [
        _case(config, arm, config.nets[0], w_bits=w, a_bits=a)
        for w, a in ((2, 2), *config.bit_pairs)
        for arm in ("RTN", "QDrop", "AQuant")
    ]
    return _accuracy(config, wanted)


def exhibit_sensitivity(config: Config) -> pd.DataFrame:
    """S-08: top-1 against calibration images, iterations, granularity, straight-through estimator, 8-bit rule."""
    seed = config.sensitivity_net
    varied: dict[str, list[tuple[str, Case]]] = {
        "calibration images": [
            (str(n), _case(config, "AQuant", seed, images=n))
            for n in (*config.calibration_sizes, config.calibration_images)
        ],
        "iterations": [
            (str(n), _case(config, arm, seed, iterations=n))
            for n in (*config.iteration_counts, config.iterations)
            for arm in ("QDrop", "AQuant")
        ],
        "granularity": [
            (name, _case(config, "AQuant", seed, changes=() if name == "channel" else _border(granularity=name)))
            for name in (*config.granularities, "channel")
        ],
        "8-bit rule": [
            (rule, _case(config, "AQuant", seed, changes=(("stem_head", rule),) if rule != "qdrop" else ()))
            for rule in (*config.stem_rules, "qdrop")
        ],
    }  # fmt: skip
    cases.outcomes([case for items in varied.values() for _, case in items], config.workers)
    tables = [
        _accuracy(config, [case]).assign(varied=name, value=value)
        for name, items in varied.items()
        for value, case in items
    ]
    return pd.concat(tables, ignore_index=True)


def table_overhead(config: Config) -> pd.DataFrame:
    """S-06: multiply-adds and parameters that a quadratic border adds to the six networks at 224x224."""
    return overhead_table()


def exhibit_border_cost(config: Config) -> pd.DataFrame:
    """S-06, RK-7: measured time of quantizers with and without border, and of the convolution behind them."""
    found = [case for name in COST_NETWORKS for case in layer_cases(name)[:: config.cost_stride]]
    with one_thread():
        return pd.concat([layer_costs(case, 1, 2, config.timing_rounds, "cpu") for case in found], ignore_index=True)


def exhibit_learned_borders(config: Config) -> pd.DataFrame:
    """S-07: the borders AQuant learned on the first net: quantizer, channel, u, border."""
    case = _case(config, "AQuant", config.nets[0])
    found = pd.DataFrame(cases.outcomes([case], config.workers)[case].borders)
    return found.assign(border=0.5 + found.offset, evidence=CPU)


def table_bias(config: Config) -> pd.DataFrame:
    """RK-6: how much of the networks' output error is a constant per class, by arm, on the nets of the main table."""
    rows = []
    for case, outcome in cases.outcomes(_main_cases(config), config.workers).items():
        rows.append(
            (case.network, case.task, case.seed, case.arm, outcome.row["mean_offset"], outcome.row["output_error"])
        )
    columns = ["network", "task", "net_seed", "arm", "mean_offset", "output_error"]
    return pd.DataFrame(rows, columns=columns).assign(evidence=CPU)


def _case(config: Config, arm: str, seed: int, **changes: Any) -> Case:
    sizes: dict[str, Any] = {
        "iterations": config.iterations,
        "images": config.calibration_images,
        "task": config.task,
    }
    return Case(arm, seed=seed, **{**sizes, **changes})


def _border(**spec: Any) -> tuple[tuple[str, BorderSpec], ...]:
    return (("border", BorderSpec(**spec)),)


def _with_arm(case: Case, arm: str) -> Case:
    return replace(case, arm=arm)


def _main_cases(config: Config) -> list[Case]:
    small = tuple(arm for arm in config.arms if arm in ("RTN", "BRECQ", "QDrop", "AQuant"))
    return [
        *(_case(config, arm, seed) for seed in config.nets for arm in config.arms),
        *(_case(config, arm, seed, network="N2") for seed in config.second_nets for arm in small),
        *(_case(config, arm, seed, task="digits") for seed in config.digits_nets for arm in small),
    ]


def _accuracy(config: Config, wanted: Iterable[Case]) -> pd.DataFrame:
    table = cases.table(wanted, config.workers).assign(evidence=CPU)
    assert np.isfinite(table.top1).all()
    return table
