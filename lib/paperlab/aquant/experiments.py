"""One function per exhibit: each takes a `Config` and returns a tidy table with its evidence class.

The paper's tables and figures could not be read. S-01 to S-08 of the ledger are slots for them; exhibits carry names of
ours, and each names its slot. The ablations are in `ablation_experiments.py`.
"""

from __future__ import annotations

from dataclasses import replace

import pandas as pd

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
    net = trained(cases.training(config.case("RTN", config.nets[0])))
    return motivation.roundings(net, config.oracle_images, config.random_borders, seed=0).assign(evidence=CPU)


def table_accuracy(config: Config) -> pd.DataFrame:
    """S-01: top-1 of every arm on every net at W2A2, on the procedural task (N1, N2) and on real digits (N1)."""
    return cases.table(_main_cases(config), config.workers).assign(evidence=CPU)


def table_differences(config: Config) -> pd.DataFrame:
    """S-01, RK-1: paired differences between arms, nets as units, with intervals."""
    table = paired(cases.table(_main_cases(config), config.workers), RANKING, by=("network", "task"))
    return table.assign(evidence=CPU)


def table_mcnemar(config: Config) -> pd.DataFrame:
    """S-01: within each net, McNemar's exact test of neighboring arms on the test images."""
    found = cases.outcomes(_main_cases(config), config.workers)
    rows = []
    for first, second in RANKING:
        for case, outcome in found.items():
            other = found.get(replace(case, arm=second))
            if case.arm == first and other is not None:
                p_value = mcnemar(outcome.correct, other.correct)
                better = int((outcome.correct & ~other.correct).sum())
                worse = int((~outcome.correct & other.correct).sum())
                rows.append((case.network, case.task, case.seed, first, second, better, worse, p_value))
    columns = ["network", "task", "net_seed", "arm", "over", "only_arm_right", "only_over_right", "p_value"]
    return pd.DataFrame(rows, columns=columns).assign(evidence=CPU)


def table_units(config: Config) -> pd.DataFrame:
    """Units of AQuant on the first net: losses, flipped shares, clip rates, bits."""
    case = config.case("AQuant", config.nets[0])
    return cases.outcomes([case], config.workers)[case].units.assign(evidence=CPU)


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
    case = config.case("AQuant", config.nets[0])
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


def _main_cases(config: Config) -> list[Case]:
    small = tuple(arm for arm in config.arms if arm in ("RTN", "QDrop", "AQuant"))
    on_n1 = [
        *(config.case(arm, seed) for seed in config.nets for arm in config.arms),
        *(config.case("AdaRound", seed) for seed in config.layerwise_nets),
        *(config.case(arm, seed) for seed in config.pair_nets for arm in ("QDrop", "AQuant")),
    ]
    order = list(cases.ARMS)
    return [
        *sorted(on_n1, key=lambda case: (case.seed, order.index(case.arm))),
        *(config.case(arm, seed, network="N2") for seed in config.second_nets for arm in small),
        *(config.case(arm, seed, task="digits") for seed in config.digits_nets for arm in small),
    ]
