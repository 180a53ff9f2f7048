"""A saved state is the model: same outputs, recipe and reports; another network is told."""

from __future__ import annotations

import pandas as pd
import pytest
import torch
from safetensors.torch import save_file

from paperlab.aquant.border import BorderSpec
from paperlab.aquant.deploy.export import load_state, save_state
from paperlab.aquant.frame.quantize import quantize
from paperlab.aquant.networks import build
from tests.aquant.deploy.quantized import float_network

IMAGES = (32, 3, 16, 16)


@pytest.mark.parametrize(
    "settings",
    [
        {"method": "rtn", "a_bits": 3},
        {"method": "adaround", "iterations": 2},
        {"method": "aquant", "iterations": 2, "border": BorderSpec(degree=1, bound="none")},
        {"method": "aquant", "iterations": 2, "border": BorderSpec(granularity="kernel_pos")},
        {"method": "aquant", "iterations": 2, "border": BorderSpec(fusion="channel_context")},
    ],
)
def test_what_is_loaded_is_what_was_saved(settings, tmp_path):
    images = torch.randn(IMAGES)
    model = quantize(float_network(), images, w_bits=2, **{"a_bits": 2, **settings})
    path = tmp_path / "a state.safetensors"
    save_state(model, path)
    torch.manual_seed(7)
    loaded = load_state(path, build("N1", 5), images)  # another draw of weights
    with torch.no_grad():
        assert torch.equal(loaded(images), model(images))
    assert loaded.recipe == model.recipe
    pd.testing.assert_frame_equal(loaded.report(), model.report())
    assert not any(parameter.requires_grad for parameter in loaded.parameters())


def test_another_network_is_told(tmp_path):
    images = torch.randn(IMAGES)
    path = tmp_path / "state.safetensors"
    save_state(quantize(float_network(), images, method="rtn"), path)
    with pytest.raises(ValueError, match="give the network it was made from"):
        load_state(path, build("N2", 5), images)
    with pytest.raises(ValueError, match=r"fc\.bias has shape \[5\], the network's \[7\]"):
        load_state(path, build("N1", 7), images)


def test_other_files_are_told(tmp_path):
    path = tmp_path / "other.safetensors"
    with pytest.raises(ValueError, match="not readable"):
        load_state(path, build("N1", 5), torch.randn(IMAGES))
    save_file({"a": torch.ones(1)}, path)
    with pytest.raises(ValueError, match="format None; this version reads"):
        load_state(path, build("N1", 5), torch.randn(IMAGES))
