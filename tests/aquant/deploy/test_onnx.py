"""The ONNX file, run by ONNX's own reference, gives the fake-quantized network's logits."""

from __future__ import annotations

import numpy as np
import onnx
import pytest
import torch
from onnx.reference import ReferenceEvaluator

from paperlab.aquant.deploy.onnx_export import export_onnx
from paperlab.aquant.frame.quantize import quantize
from tests.aquant.deploy.quantized import BORDERS, Odd, quantized


@torch.no_grad()
@pytest.mark.parametrize("border", ["none", "channel", "tensor", "free"])
@pytest.mark.parametrize("network", ["N1", "N2"])
def test_the_reference_runs_it_to_the_same_logits(network, border, tmp_path):
    model = quantized(network, 2, BORDERS[border])
    path = tmp_path / "a model.onnx"
    export_onnx(model, path)
    images = torch.randn(4, 3, 16, 16)
    (found,) = ReferenceEvaluator(str(path)).run(None, {"image": images.numpy()})
    expected = model(images).numpy()
    assert np.abs(found - expected).max() < 1e-4 * np.abs(expected).max()


@torch.no_grad()
def test_other_operators_and_weights_stay_integer(tmp_path):
    torch.manual_seed(0)
    model = quantize(Odd().eval(), torch.randn(32, 3, 16, 16), method="rtn", w_bits=4, a_bits=4)
    found = export_onnx(model, tmp_path / "odd.onnx")
    images = torch.randn(4, 3, 16, 16)
    (logits,) = ReferenceEvaluator(found).run(None, {"image": images.numpy()})
    assert np.abs(logits - model(images).numpy()).max() < 1e-5
    weights = [item for item in found.graph.initializer if item.name.endswith(".weight")]
    assert len(weights) == 5
    assert all(item.data_type == onnx.TensorProto.UINT8 for item in weights)
    assert {node.domain for node in found.graph.node} == {""}


def test_a_border_per_kernel_position_is_told(tmp_path):
    with pytest.raises(ValueError, match="a border per kernel position has no standard form in ONNX"):
        export_onnx(quantized("N1", 2, BORDERS["kernel_pos"]), tmp_path / "no.onnx")
    assert not list(tmp_path.iterdir())
