"""Integer-only inference agrees with the fake-quantized network, holds no float, and survives a file."""

from __future__ import annotations

import json

import numpy as np
import pytest
import torch
from torch import nn

from paperlab.aquant.border import BorderSpec
from paperlab.aquant.deploy import integer
from paperlab.aquant.deploy.export import export_thresholds, load_program
from paperlab.aquant.deploy.lower import lower
from paperlab.aquant.frame.insert import layers_of, quantizers_of
from paperlab.aquant.frame.quantize import quantize
from paperlab.aquant.quantizer import ActivationQuantizer
from tests.aquant.deploy.quantized import BORDERS, Odd, float_network, quantized


def levels_of(model, images):
    """Levels of every quantizer of the fake-quantized network, by the name of its node."""
    found = {}
    nodes = {node.target: node.name for node in model.network.graph.nodes if node.op == "call_module"}
    for target, name in nodes.items():
        module = model.network.get_submodule(target)
        if isinstance(module, ActivationQuantizer):
            module.register_forward_hook(
                lambda quantizer, args, out, name=name: found.update({name: quantizer.levels(args[0]).numpy()})
            )
    with torch.no_grad():
        return found, model(images).numpy()


@pytest.mark.parametrize(
    ("network", "border", "bits"),
    [
        *(("N1", border, 2) for border in BORDERS),
        ("N2", "channel", 4),
        ("N2", "kernel_pos", 2),
        ("N3", "channel", 2),
        ("N3", "free", 4),
    ],
)
def test_it_agrees_with_the_fake_quantized_network(network, border, bits):
    """Level by level, but for sums that float32 rounds across a threshold, which few are."""
    model = quantized(network, bits, BORDERS[border])
    images = torch.randn(12, 3, 16, 16)
    program = lower(model)
    tensors = program.tensors(images.numpy())
    expected, logits = levels_of(model, images)
    different = sum(int((tensors[name] != levels).sum()) for name, levels in expected.items())
    assert different <= 2e-5 * sum(levels.size for levels in expected.values()) + 1
    found = program.run(images.numpy())
    same = np.abs(found - logits).max(1) < 1e-4 * np.abs(logits).max()
    assert same.mean() > 0.75  # a level that differs changes its image's logits
    assert np.array_equal(program.predict(images.numpy()), found.argmax(1))


def exact_in_float(model):
    """Give a quantized model scales that are powers of two and dyadic biases: then float32 rounds no sum."""
    for quantizer in quantizers_of(model.network).values():
        quantizer.scale.data = 2.0 ** quantizer.scale.log2().round()
    for layer in layers_of(model.network).values():
        layer.weight_quantizer.scale.copy_(2.0 ** layer.weight_quantizer.scale.log2().round())
        if layer.bias is not None:
            layer.bias.copy_((layer.bias * 256).round() / 256)
    return model


@torch.no_grad()
@pytest.mark.parametrize("border", BORDERS)
def test_it_is_equal_to_the_bit_where_float32_is_exact(border):
    model = exact_in_float(quantized("N1", 2, BORDERS[border]))
    images = torch.randn(8, 3, 16, 16)
    program = lower(model)
    expected, logits = levels_of(model, images)
    tensors = program.tensors(images.numpy())
    assert expected
    for name, levels in expected.items():
        assert np.array_equal(tensors[name], levels), name
    assert np.array_equal(program.run(images.numpy()).astype(np.float32), logits)


@torch.no_grad()
def test_other_operators_are_exact_too():
    torch.manual_seed(0)
    model = exact_in_float(quantize(Odd().eval(), torch.randn(32, 3, 16, 16), method="rtn", w_bits=4, a_bits=4))
    images = torch.randn(8, 3, 16, 16)
    program = lower(model)
    assert {step.kind for step in program.steps} == set(integer._OPERATIONS) - {"sum_pixels"}
    assert np.array_equal(program.run(images.numpy()).astype(np.float32), model(images).numpy())


@pytest.mark.parametrize("border", ["none", "channel", "kernel_pos"])
def test_no_float_and_at_most_two_to_the_b_levels(border, tmp_path):
    model = quantized("N1", 2, BORDERS[border])
    program = lower(model)
    for name, array in program.arrays.items():
        if array.dtype.kind == "f":
            assert name == f"{program.steps[0].name}.thresholds", "only the image is compared with floats"
            assert program.steps[0].inputs == ("image",)
    tensors = program.tensors(np.random.default_rng(0).standard_normal((8, 3, 16, 16), np.float32))
    for step in program.steps:
        tensor = tensors[step.name]
        assert tensor.dtype.kind == "i"
        if step.kind == "quantize":
            bits = next(q.bits for n, q in quantizers_of(model.network).items() if n == step.name)
            assert 2 < len(np.unique(tensor)) <= 2**bits
        if "weight" in step.arrays:
            weight = program.arrays[step.arrays["weight"]]
            layer = layers_of(model.network)[_target(model, step.name)]
            assert max(len(np.unique(row)) for row in weight) <= 2**layer.weight_quantizer.bits
            restored = weight.astype(np.float32) * layer.weight_quantizer.scale.numpy()
            assert bool((restored == layer.quantized_weight().numpy()).all())


def _target(model, name):
    return next(node.target for node in model.network.graph.nodes if node.name == name)


def test_the_float_network_is_not_used(monkeypatch):
    model = float_network()
    fake = quantized(model=model)
    program = lower(fake)
    images = torch.randn(4, 3, 16, 16)
    with torch.no_grad():
        expected = fake(images).numpy()
    for module in (nn.Conv2d, nn.Linear, nn.BatchNorm2d):
        monkeypatch.setattr(module, "forward", None)
    with torch.no_grad():
        assert np.array_equal(fake(images).numpy(), expected)
    monkeypatch.setattr(torch, "conv2d", None)
    monkeypatch.setattr(torch.nn.functional, "conv2d", None)
    assert np.allclose(program.run(images.numpy()), expected, rtol=0, atol=1e-4 * np.abs(expected).max())


def test_zero_padding_is_zero_whatever_the_border():
    """A border that sends zero to a level above it still pads with zero."""
    model = quantized("N1", 2, BorderSpec(granularity="kernel_pos", bound="none", degree=0))
    for quantizer in quantizers_of(model.network).values():
        if quantizer.border is not None:
            quantizer.border.coefficients.data.fill_(-0.9)  # every zero becomes level 1
    images = torch.randn(4, 3, 16, 16)
    program = lower(model)
    with torch.no_grad():
        logits = model(images).numpy()
    assert np.allclose(program.run(images.numpy()), logits, rtol=0, atol=1e-4 * np.abs(logits).max())


def test_a_file_keeps_the_program(tmp_path):
    model = quantized("N2", 2, BORDERS["channel"])
    path = tmp_path / "a model.npz"
    report = export_thresholds(model, path)
    assert report.monotone.all()
    program, loaded = lower(model), load_program(path)
    images = torch.randn(4, 3, 16, 16).numpy()
    assert np.array_equal(program.run(images), loaded.run(images))
    assert loaded.fraction_bits == program.fraction_bits


def test_files_of_another_kind_are_told(tmp_path):
    path = tmp_path / "bad.npz"
    for content in (b"", b"no zip"):
        path.write_bytes(content)
        with pytest.raises(ValueError, match=r"program .*bad\.npz: not readable"):
            load_program(path)
    np.savez(path, header=np.array(json.dumps({"format": "other"})))
    with pytest.raises(ValueError, match="format 'other'; this version reads 'paperlab-aquant-program-1'"):
        load_program(path)
    np.savez(path, header=np.array([object()]))
    with pytest.raises(ValueError, match="not readable"):
        load_program(path)
    export_thresholds(quantized(), path)
    with np.load(path) as file:
        arrays = {name: file[name] for name in file.files if name != "conv1.weight"}
    np.savez(path, **arrays)
    with pytest.raises(ValueError, match=r"array conv1\.weight is missing"):
        load_program(path)


class Unsupported(nn.Module):
    def __init__(self, middle):
        super().__init__()
        self.a, self.middle, self.b = nn.Conv2d(3, 4, 3), middle, nn.Conv2d(4, 4, 1)

    def forward(self, x):
        return self.b(self.middle(torch.relu(self.a(x))))


@pytest.mark.parametrize(
    ("middle", "message"),
    [
        (nn.AdaptiveAvgPool2d(2), "middle: adaptive pooling to 2; only to one pixel"),
        (nn.MaxPool2d(2, ceil_mode=True), "middle: a pool with ceil_mode=True"),
        (nn.AvgPool2d(3, padding=1, count_include_pad=False), "middle: a padded average without its padding"),
    ],
)
def test_what_has_no_integer_form_is_named(middle, message):
    model = quantize(Unsupported(middle).eval(), torch.randn(32, 3, 8, 8), method="rtn")
    with pytest.raises(ValueError, match=message):
        lower(model)


def test_sums_that_would_overflow_are_told_not_wrapped():
    model = quantized()
    layers_of(model.network)["layer1.0.conv1"].weight_quantizer.scale.fill_(1e9)
    with pytest.raises(ValueError, match=r"layer1_0_conv1: its sums can reach 2\^.*does not fit 62 bits"):
        lower(model)


def test_large_activations_get_fewer_fraction_bits():
    model = quantized()
    assert lower(model).fraction_bits == 48
    layers_of(model.network)["fc"].weight_quantizer.scale.mul_(1e5)
    assert lower(model).fraction_bits < 48


def test_images_of_another_kind_or_size_are_told():
    program = lower(quantized())
    with pytest.raises(ValueError, match="images are float64"):
        program.run(np.zeros((1, 3, 16, 16)))
    with pytest.raises(ValueError, match=r"exported for images that give \(4, 4\)"):
        program.run(np.zeros((1, 3, 32, 32), np.float32))
