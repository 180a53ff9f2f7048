"""The frame's bars: identities between methods, what is deployed, reproducibility, and bad input."""

from __future__ import annotations

import copy

import pytest
import torch
from torch import Tensor, nn

from paperlab.aquant.border import BorderSpec
from paperlab.aquant.frame.insert import layers_of, prepare, quantizers_of
from paperlab.aquant.frame.learning import beta, rounding_regularizer
from paperlab.aquant.frame.quantize import QuantizedModel, calibrate, quantize
from paperlab.aquant.frame.recipe import METHODS, Recipe, make_recipe
from paperlab.aquant.frame.sweep import _seed
from paperlab.aquant.layers import QuantConv2d
from tests.aquant.tiny import NETS, QUICK, images, net


def same(first: QuantizedModel, second: QuantizedModel) -> bool:
    """Whether everything that both hold is equal to the bit, borders of either aside."""
    a, b = first.state_dict(), second.state_dict()
    shared = {name for name in a if ".border." not in name}
    return shared == {name for name in b if ".border." not in name} and all(torch.equal(a[n], b[n]) for n in shared)


@pytest.mark.parametrize("name", NETS)
@pytest.mark.parametrize("method", METHODS)
def test_deployed_networks_hold_integers_alone(name: str, method: str) -> None:
    x = images()
    quantized = quantize(net(name), x, method, w_bits=2, a_bits=3, **QUICK)
    levels: dict[str, Tensor] = {}
    for key, item in quantizers_of(quantized).items():
        item.register_forward_hook(lambda module, _, output, key=key: levels.__setitem__(key, output))
    out = quantized(x)
    assert out.isfinite().all()
    assert levels.keys() == quantizers_of(quantized).keys()
    for key, output in levels.items():
        item = quantizers_of(quantized)[key]
        assert len(output.unique()) <= 2**item.bits
        codes = output / item.scale + item.zero_point
        assert codes.min() >= -1e-4
        assert codes.max() <= item.top + 1e-4
        assert torch.equal((codes.round() - item.zero_point) * item.scale, output)
    for layer in layers_of(quantized).values():
        assert layer.weight is None
        assert layer.codes().dtype == torch.uint8
        assert layer.codes().max() <= 2**layer.weight_quantizer.bits - 1
        assert all(len(channel.unique()) <= 2**layer.weight_quantizer.bits for channel in layer.quantized_weight())
    floats = [name for name, value in quantized.state_dict().items() if name.endswith(".weight")]
    assert floats == []


@pytest.mark.parametrize("granularity", ["tensor", "channel", "kernel_pos"])
def test_evaluation_is_free_of_randomness_and_of_the_float_network(granularity: str) -> None:
    model, x = net(), images()
    border = BorderSpec(granularity=granularity)
    quantized = quantize(model, x, "aquant", 2, 2, drop="qdrop", border=border, **QUICK)
    outputs = quantized(x)

    def refuse(*args: object) -> None:
        raise AssertionError("the float network was called")

    for module in model.modules():
        module.forward = refuse  # type: ignore[method-assign]
    for parameter in model.parameters():
        parameter.data.fill_(float("nan"))
    torch.manual_seed(123)
    assert torch.equal(quantized(x), outputs)
    one_by_one = torch.cat([quantized(image[None]) for image in x])
    torch.testing.assert_close(one_by_one, outputs, atol=1e-4, rtol=1e-4)  # nothing depends on the batch


@pytest.mark.parametrize("name", NETS)
def test_frozen_zero_border_is_the_qdrop_loop(name: str) -> None:
    x = images()
    qdrop = quantize(net(name), x, "qdrop", 2, 2, **QUICK)
    for border in (BorderSpec(0, bound="none"), BorderSpec(2, fusion="channel_context")):
        aquant = quantize(net(name), x, "aquant", 2, 2, drop="qdrop", border=border, border_travel=0.0, **QUICK)
        assert same(aquant, qdrop)
        assert torch.equal(aquant(x), qdrop(x))


def test_brecq_on_one_layer_blocks_is_adaround() -> None:
    x = images()
    brecq = quantize(net("plain"), x, "brecq", 2, 2, **QUICK)
    adaround = quantize(net("plain"), x, "adaround", 2, 2, **QUICK)
    assert same(brecq, adaround)
    blocks, layers = (quantize(net("residual"), x, method, 2, 2, **QUICK) for method in ("brecq", "adaround"))
    assert not same(blocks, layers)


def test_adaround_against_a_loop_written_here() -> None:
    """Layer by layer: input from the quantized prefix, target the float layer after its ReLU, everything by hand."""
    x, iterations, batch = images(), 25, 16
    model = net("plain")
    found = quantize(model, x, "adaround", 2, 8, iterations=iterations, batch=batch)
    network = prepare(model, Recipe("adaround", 2, 8), x)
    calibrate(network, x, Recipe("adaround", 2, 8))
    float_, prefix = x, x
    for index, (name, layer) in enumerate(layers_of(network).items()):
        weight, item = layer.weight.clone(), layer.weight_quantizer
        s, z, top = item.scale, item.zero_point, item.top

        def run(values: Tensor, w: Tensor, layer: nn.Module = layer) -> Tensor:
            if isinstance(layer, QuantConv2d):
                return torch.conv2d(values, w, layer.bias, layer.stride, layer.padding).relu()
            return torch.nn.functional.linear(values.mean((2, 3)), w, layer.bias)

        target = run(float_, weight)
        fraction = weight / s - (weight / s).floor()
        v = (-torch.log(1.2 / (fraction + 0.1) - 1)).requires_grad_(True)
        adam = torch.optim.Adam([v], lr=20 / 400)
        sampler = torch.Generator().manual_seed(_seed(0, 0, index, 0))
        for step in range(iterations):
            rows = torch.randint(len(x), (batch,), generator=sampler)
            h = (v.sigmoid() * 1.2 - 0.1).clamp(0, 1)
            soft = (((weight / s).floor() + h + z).clamp(0, top) - z) * s
            loss = ((run(prefix[rows], soft) - target[rows]) ** 2).sum(1).mean()
            exponent = beta(step, iterations, 0.2)
            if exponent is not None:
                loss = loss + 0.01 * rounding_regularizer(h, exponent)
            adam.zero_grad()
            loss.backward()
            adam.step()
        codes = ((weight / s).floor() + (v >= 0) + z).clamp(0, top)
        mine = (codes - z) * s
        agree = (layers_of(found.network)[name].codes() == codes).double().mean()
        assert agree > 0.99, name  # the last bit of a sum may tip a weight that sits at V = 0
        float_, prefix = target, run(prefix, mine).detach()


@pytest.mark.parametrize("method", ["qdrop", "aquant", "brecq"])
def test_runs_repeat_to_the_bit_and_seeds_matter(method: str) -> None:
    x = images()
    first, again = (quantize(net(), x, method, 2, 2, **QUICK) for _ in range(2))
    assert all(torch.equal(first.state_dict()[key], value) for key, value in again.state_dict().items())
    assert not same(first, quantize(net(), x, method, 2, 2, seed=7, **QUICK))


def test_learning_reduces_the_error_on_other_images() -> None:
    model, x, other = net(), images(64), images(64, seed=9)
    with torch.no_grad():
        errors = {
            method: ((quantize(model, x, method, 2, 2, iterations=150)(other) - model(other)) ** 2).mean().item()
            for method in ("rtn", "brecq", "qdrop", "aquant")
        }
    assert all(errors[method] < 0.8 * errors["rtn"] for method in errors if method != "rtn"), errors


def test_units_improve_and_borders_move() -> None:
    quantized = quantize(net(), images(64), "aquant", 2, 2, iterations=150)
    report = quantized.report()
    assert (report.loss_after <= report.loss_before * 1.01).mean() >= 0.9
    bordered = report[report.bits.str.contains("A 2")]
    assert (bordered.activations_flipped > 0.01).all()
    assert (bordered.weights_flipped.between(0.001, 0.5)).all()
    assert report.clip_rate.between(0, 0.5).all()
    for item in quantizers_of(quantized).values():
        if item.border is not None:
            assert (item.border.coefficients != 0).any(0).double().mean() > 0.95


def test_padding_stays_zero() -> None:
    """A border that rounds every zero up must not touch the padding: a wider explicit padding gives the same output."""
    for granularity in ("channel", "kernel_pos"):
        border = BorderSpec(0, granularity=granularity)
        quantized = quantize(net("plain"), images(), "aquant", 2, 2, border=border, **QUICK)
        conv = layers_of(quantized.network)["3"]
        assert isinstance(conv, QuantConv2d)
        item = conv.patch_quantizer or quantizers_of(quantized.network)["quantize__2"]
        item.border.coefficients.data.fill_(-2.0)  # B close to 0: whatever is above an integer goes up
        x = torch.full((1, 4, 8, 8), 0.3) * item.scale
        inner = conv(x if conv.patch_quantizer else item(x))
        level = 1.0
        expected = torch.conv2d(
            torch.full_like(x, level * item.scale.item()), conv.quantized_weight(), conv.bias, conv.stride, conv.padding
        )
        torch.testing.assert_close(inner, expected)


def test_kernel_positions_with_equal_borders_are_the_channel_border() -> None:
    x = images()
    by_channel = quantize(net(), x, "aquant", 2, 2, border_travel=0.0, **QUICK)
    by_position = quantize(
        net(), x, "aquant", 2, 2, border=BorderSpec(granularity="kernel_pos"), border_travel=0.0, **QUICK
    )
    torch.testing.assert_close(by_channel(x), by_position(x), atol=0.2, rtol=0.2)


def test_brecq_leaves_the_stem_in_its_own_setting() -> None:
    report = quantize(net(), images(), "brecq", 2, 2, stem_head="brecq", **QUICK).report()
    assert (report[report.unit == "stem.0"].weights_flipped == 0).all()


@pytest.mark.parametrize("drop", ["case1", "case3"])
def test_cases_of_qdrop_run_and_differ(drop: str) -> None:
    x = images()
    assert not same(quantize(net(), x, "qdrop", 2, 2, drop=drop, **QUICK), quantize(net(), x, "qdrop", 2, 2, **QUICK))


def test_refresh_moves_steps_and_borders_alone() -> None:
    x = images()
    plain = quantize(net("plain"), x, "aquant", 2, 2, **QUICK)
    fresh = quantize(net("plain"), x, "aquant", 2, 2, refresh=10, **QUICK)
    first = next(name for name in plain.state_dict() if name.endswith("weight_codes"))
    assert torch.equal(plain.state_dict()[first], fresh.state_dict()[first])
    assert not torch.equal(plain(x), fresh(x))


def test_an_interrupted_run_goes_on_to_the_same_result(tmp_path, monkeypatch) -> None:
    from paperlab.aquant.frame import sweep

    x, folder, calls = images(), tmp_path / "a run", []
    learn = sweep.learn

    def interrupted(*args: object) -> None:
        calls.append(1)
        if len(calls) == 3:
            raise KeyboardInterrupt
        learn(*args)

    monkeypatch.setattr(sweep, "learn", interrupted)
    with pytest.raises(KeyboardInterrupt):
        quantize(net(), x, "aquant", 2, 2, resume=folder, **QUICK)
    stored = sorted(path.name for path in folder.glob("*.safetensors"))
    assert len(stored) == 2
    resumed = quantize(net(), x, "aquant", 2, 2, resume=folder, **QUICK)
    assert len(calls) == 3 + 2  # four units, two of them stored
    whole = quantize(net(), x, "aquant", 2, 2, **QUICK)
    assert all(torch.equal(whole.state_dict()[key], value) for key, value in resumed.state_dict().items())
    assert whole.report().equals(resumed.report())
    with pytest.raises(ValueError, match="holds another run"):
        quantize(net(), x, "aquant", 2, 3, resume=folder, **QUICK)


@pytest.mark.parametrize("method", ["brecq", "adaround"])
def test_a_stored_two_pass_run_is_restored(tmp_path, method: str) -> None:
    x = images()
    first = quantize(net(), x, method, 2, 2, resume=tmp_path, **QUICK)
    again = quantize(net(), x, method, 2, 2, resume=tmp_path, **QUICK)
    assert same(first, again)


def test_the_model_given_is_left_alone() -> None:
    model = net()
    before = copy.deepcopy(model.state_dict())
    quantize(model, images(), "aquant", 2, 2, **QUICK)
    assert all(torch.equal(model.state_dict()[key], value) for key, value in before.items())


def test_loaders_and_tensors_give_the_same() -> None:
    x = images()
    loader = [(batch, torch.zeros(len(batch))) for batch in x.split(10)]
    assert same(quantize(net(), loader, "rtn", 2, 2), quantize(net(), x, "rtn", 2, 2))


def nan_model() -> nn.Module:
    model = net()
    model.stem[0].bias.data[0] = float("inf")  # finite weights, infinite activations
    return model


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"calibration": images(5)}, "5 images; give at least 32"),
        ({"calibration": []}, "0 images"),
        ({"calibration": images(40) * float("nan")}, "40 of 40 images hold NaN"),
        ({"calibration": torch.zeros(40, 3, 8, 8, dtype=torch.uint8)}, "give float images"),
        ({"calibration": torch.zeros(40, 3, 8)}, "give float images"),
        ({"w_bits": 1}, "w_bits is 1; use an integer from 2 to 8"),
        ({"a_bits": 16}, "a_bits is 16"),
        ({"a_bits": 2.5}, "a_bits is 2.5"),
        ({"method": "gptq"}, "method is 'gptq'; use one of rtn"),
        ({"iteration": 5}, "unknown setting iteration; known are"),
        ({"iterations": 0}, "iterations is 0"),
        ({"drop": "half"}, "drop is 'half'"),
        ({"method": "qdrop", "border": BorderSpec()}, "method 'qdrop' has no border"),
        ({"method": "aquant_cf", "border": BorderSpec(granularity="kernel_pos")}, "use 'channel'"),
        ({"model": nan_model()}, "activation .* holds NaN or infinity"),
    ],
)
def test_bad_input_is_told_in_one_line(arguments: dict, message: str) -> None:
    given = {"model": net(), "calibration": images(40), **arguments}
    with pytest.raises(ValueError, match=message) as caught:
        quantize(**given)
    assert "\n" not in str(caught.value)


def test_recipes_differ_only_where_methods_do() -> None:
    qdrop, aquant = make_recipe("qdrop", 2, 2, {}), make_recipe("aquant", 2, 2, {"drop": "qdrop"})
    different = {name for name in vars(qdrop) if getattr(qdrop, name) != getattr(aquant, name)}
    assert different == {"method", "border"}
