"""Whatever is made beside a model lies on the model's device; torch's meta device shows it without a GPU."""

from __future__ import annotations

import pytest
import torch

from paperlab.aquant.border import BorderSpec
from paperlab.aquant.frame.insert import prepare
from paperlab.aquant.frame.recipe import Recipe
from paperlab.aquant.networks import build


@pytest.mark.parametrize("granularity", ["channel", "kernel_pos"])
def test_quantizers_and_borders_lie_where_the_model_does(granularity):
    recipe = Recipe(method="aquant", w_bits=2, a_bits=2, border=BorderSpec(granularity=granularity))
    network = prepare(build("N1", 5).to("meta"), recipe, torch.empty(4, 3, 16, 16, device="meta"))
    assert {tensor.device.type for tensor in network.state_dict().values()} == {"meta"}
