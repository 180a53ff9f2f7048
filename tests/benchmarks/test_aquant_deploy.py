"""What AQuant's border costs at inference: ratios of medians within one run, so that they hold on any machine."""

from __future__ import annotations

import pandas as pd
import pytest
import torch

from paperlab.aquant.deploy.cost import layer_cases, layer_costs, overheads

pytestmark = pytest.mark.bench


def report(benchmark, measure):
    ratios = benchmark.pedantic(measure, rounds=1)
    benchmark.extra_info.update(ratios)
    return ratios


def costs(network, batch, bits, repeats, device):
    return pd.concat([layer_costs(case, batch, bits, repeats, device) for case in layer_cases(network)])


def test_the_border_against_plain_quantization_on_a_cpu(benchmark):
    """ResNet-18 at 224x224: thresholds cost no more than rounding, and a polynomial little beside the convolutions."""

    def measure():
        table = costs("ResNet-18", 1, 2, 5, "cpu")
        totals = (table.time_s * table["count"]).groupby(table.arm).sum()
        over_nearest = {f"{arm} over nearest": totals[arm] / totals["nearest"] for arm in totals.index}
        return over_nearest | {f"{arm}, overhead": value for arm, value in overheads(table).items()}

    ratios = report(benchmark, measure)
    assert ratios["thresholds over nearest"] < 1.2
    assert ratios["thresholds, overhead"] < 0.05


@pytest.mark.gpu
@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a CUDA device")
@pytest.mark.parametrize("network", ["ResNet-18", "RegNetX-600M"])
def test_the_border_is_at_most_five_percent_on_a_gpu(benchmark, network):
    """Of the time of quantizer and convolution, in the fused kernel."""

    def measure():
        return {str(arm): value for arm, value in overheads(costs(network, 32, 2, 20, "cuda")).items()}

    assert report(benchmark, measure)["thresholds"] <= 0.05
