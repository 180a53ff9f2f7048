"""The overhead table against figures worked out by hand from the architectures."""

from __future__ import annotations

import pytest

from paperlab.aquant.deploy.cost import NEAREST, layer_cases, layer_costs, overheads, patch_costs
from paperlab.aquant.deploy.overhead import overhead_table

# GMAC, then per cent: operations per MAC and parameters per weight, by channel and by kernel position; computed
# independently from the published architectures.
WORKED_OUT = {
    "ResNet-18": (1.814, 0.22, 1.42, 0.10, 0.80),
    "ResNet-50": (4.089, 0.51, 0.98, 0.27, 0.62),
    "MobileNetV2": (0.301, 4.40, 15.7, 1.36, 6.30),
    "RegNetX-600M": (0.601, 1.44, 3.08, 0.76, 2.80),
    "RegNetX-3.2G": (3.177, 0.735, 2.03, 0.58, 2.13),
    "MNasNet": (1.135, 1.90, 10.9, 0.86, 8.24),
}


@pytest.fixture(scope="module")
def table():
    return overhead_table().set_index(["network", "granularity"])


@pytest.mark.parametrize("name", WORKED_OUT)
def test_the_six_networks_to_three_digits(table, name):
    rows = [table.loc[name, granularity] for granularity in ("channel", "kernel_pos")]
    found = [rows[0].gmac]
    found += [100 * row.fma_per_mac for row in rows] + [100 * row.parameters_per_weight for row in rows]
    for value, expected in zip(found, WORKED_OUT[name], strict=True):
        digits = len(str(expected).split(".")[1])
        assert round(value, digits) == pytest.approx(expected, abs=10**-digits / 100)


def test_the_formula_of_one_layer(table):
    """Per MAC: 2·stride²/(C_out·k²) by channel and 2/C_out by kernel position; depthwise the C_out is 1."""
    resnet = table.loc["ResNet-18", "kernel_pos"]
    assert resnet.fma_per_mac == pytest.approx(2 / 128, rel=0.5)  # widths 64 to 512, most work at the wide ones
    halved = overhead_table(["ResNet-18"], degree=1).fma_per_mac
    assert halved.tolist() == pytest.approx([row / 2 for row in table.loc["ResNet-18"].fma_per_mac])
    assert overhead_table(["ResNet-18"], degree=0).fma_per_mac.eq(0).all()


def test_shared_tensors_are_rounded_once(table):
    by_channel = table.xs("channel", level="granularity")
    assert (by_channel.fma_per_mac_shared <= by_channel.fma_per_mac).all()
    assert by_channel.loc["ResNet-18"].fma_per_mac_shared < by_channel.loc["ResNet-18"].fma_per_mac
    assert by_channel.loc["MobileNetV2"].fma_per_mac_shared == by_channel.loc["MobileNetV2"].fma_per_mac


def test_layers_of_a_network_are_counted():
    cases = layer_cases("ResNet-18")
    assert sum(case.count for case in cases) == 19  # 20 convolutions less the first
    assert {case.label: case.count for case in cases}["64x56x56 3x3/1 to 64"] == 4


def test_costs_are_measured(device):
    case = layer_cases("N1", (3, 16, 16), 5)[0]
    costs = layer_costs(case, 2, 2, 3, device.type)
    assert (costs.time_s > 0).all()
    assert (costs.conv_s > 0).all()
    assert overheads(costs)[NEAREST] == 0
    patches = patch_costs(case, 2, 2, 1, device.type)
    assert patches.arm.tolist() == ["channel", "kernel_pos"]
