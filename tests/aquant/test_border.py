"""The border: nearest rounding at zero, a rounding where it is bounded, gradients that are what they say."""

from __future__ import annotations

import itertools

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from paperlab.aquant.border import BOUNDS, FUSIONS, GRANULARITIES, Border, BorderSpec
from paperlab.aquant.quantizer import ActivationQuantizer


def specs() -> list[BorderSpec]:
    found = []
    for degree, granularity, bound, fusion in itertools.product(range(3), GRANULARITIES, BOUNDS, FUSIONS):
        if fusion.startswith("kernel") and granularity != "kernel_pos":
            continue
        found.append(BorderSpec(degree, granularity, bound, fusion))
    return found


def quantizer(bits: int, zero_point: int, spec: BorderSpec | None, channels: int = 3, scale: float = 0.5):
    item = ActivationQuantizer(bits)
    if spec is not None:
        item.border = Border(spec, channels, 9 if spec.granularity == "kernel_pos" else 1)
    item.set_grid(torch.tensor(scale), torch.tensor(float(zero_point)))
    return item


def randomize(border: Border, size: float = 0.5, seed: int = 0) -> None:
    generator = torch.Generator().manual_seed(seed)
    for parameter in border.parameters():
        parameter.data = size * torch.randn(parameter.shape, generator=generator)


@pytest.mark.parametrize("spec", specs(), ids=str)
@pytest.mark.parametrize(("bits", "zero_point"), [(2, 0), (2, 1), (4, 7), (8, 0)])
def test_zero_parameters_are_nearest_rounding_to_the_bit(spec: BorderSpec, bits: int, zero_point: int) -> None:
    entries = 27 if spec.granularity == "kernel_pos" else 3
    ties = (torch.arange(-40, 40) + 0.5) * 0.5
    x = torch.cat([ties, torch.randn(80, generator=torch.Generator().manual_seed(1)) * 3, torch.zeros(20)])
    x = x.repeat(entries, 1)[None]
    with_border, nearest = quantizer(bits, zero_point, spec), quantizer(bits, zero_point, None)
    assert torch.equal(with_border(x), nearest(x))
    u = x / 0.5
    assert torch.equal(nearest.codes(x).float(), (u.round() + zero_point).clamp(0, 2**bits - 1))


@settings(max_examples=60, deadline=None)
@given(
    spec=st.sampled_from([spec for spec in specs() if spec.bound != "none"]),
    seed=st.integers(0, 1000),
    bits=st.integers(2, 5),
)
def test_bounded_border_gives_floor_or_ceil(spec: BorderSpec, seed: int, bits: int) -> None:
    item = quantizer(bits, 1, spec)
    assert item.border is not None
    randomize(item.border, 2.0, seed)
    entries = 27 if spec.granularity == "kernel_pos" else 3
    x = torch.randn(2, entries, 50, generator=torch.Generator().manual_seed(seed)) * 2
    levels, u = item.levels(x), x / item.scale
    low, high = item.low.item(), item.high.item()
    assert ((levels == u.floor().clamp(low, high)) | (levels == u.ceil().clamp(low, high))).all()
    inside = (u > low) & (u < high)
    assert ((levels - u).abs() < 1)[inside].all()


def test_free_thresholds_can_move_further() -> None:
    item = quantizer(2, 0, BorderSpec(0, bound="none"))
    item.border.coefficients.data.fill_(1.5)
    assert item.levels(torch.full((1, 3), 1.0)).unique().tolist() == [0.0]  # u = 2, two levels down but one


def test_offset_is_the_documented_polynomial() -> None:
    item = quantizer(3, 2, BorderSpec(2, bound="none"))
    randomize(item.border)
    a0, a1, a2 = item.border.coefficients.double()
    u = torch.linspace(-2, 5, 15).double()  # the whole range of 3 bits with zero point 2
    t = u / 7
    expected = torch.stack([a0[c] + a1[c] * t + a2[c] * t**2 for c in range(3)], 1)
    found = item.border.offset(u.float()[:, None].expand(-1, 3))
    torch.testing.assert_close(found.double(), expected, atol=1e-6, rtol=1e-5)
    beyond = item.border.offset(torch.full((1, 3), 100.0))
    torch.testing.assert_close(beyond, found[-1:])


def test_sigmoid_bound_is_the_logistic_function() -> None:
    item = quantizer(2, 0, BorderSpec(2))
    randomize(item.border)
    free = Border(BorderSpec(2, bound="none"), 3)
    free.load_state_dict(item.border.state_dict())
    u = torch.rand(20, 3) * 3
    torch.testing.assert_close(0.5 + item.border.offset(u), torch.sigmoid(4 * free.offset(u)))


def mean_output_slope(item: ActivationQuantizer, x: torch.Tensor) -> float:
    """Finite difference of the mean output over a constant border, in float64 counts."""
    outputs = []
    for value in (-0.05, 0.05):
        item.border.coefficients.data.fill_(value)
        outputs.append(item.levels(x).double().mean().item())
    return (outputs[1] - outputs[0]) / 0.1


@pytest.mark.parametrize("bits", [2, 3, 4])
@pytest.mark.parametrize("ste", ["clip_before_round", "clamp_after_round"])
def test_gradient_of_a_constant_border_against_the_mean_output(bits: int, ste: str) -> None:
    """A pointwise difference would be zero nearly everywhere; the mean over a dense grid is smooth."""
    item = ActivationQuantizer(bits, ste)
    item.border = Border(BorderSpec(0, bound="none"), 1)
    zero_point = 2 ** (bits - 1)
    item.set_grid(torch.tensor(1.0), torch.tensor(float(zero_point)))
    x = torch.linspace(-zero_point - 2, 2**bits - 1 - zero_point + 2, 400_001)[:, None]  # beyond both ends
    slope = mean_output_slope(item, x)
    item.border.coefficients.data.zero_()
    item.border.requires_grad_(True)
    item.levels(x).mean().backward()
    ratio = item.border.coefficients.grad.item() / slope
    expected = 1.0 if ste == "clip_before_round" else 2**bits / (2**bits - 1)
    assert ratio == pytest.approx(expected, rel=1e-2)


@pytest.mark.parametrize("degree", [1, 2])
def test_gradient_of_every_coefficient_against_the_mean_output(degree: int) -> None:
    """The mean output is a sum over transitions, so the slope in a_k is that of the transitions weighted by t^k."""
    item = ActivationQuantizer(2)
    item.border = Border(BorderSpec(degree, bound="none"), 1)
    item.set_grid(torch.tensor(1.0), torch.tensor(1.0))
    x = torch.linspace(-3, 4, 700_001)[:, None]
    item.border.requires_grad_(True)
    item.levels(x).mean().backward()
    for k in range(degree + 1):
        outputs = []
        for value in (-0.02, 0.02):
            item.border.coefficients.data.zero_()
            item.border.coefficients.data[k] = value
            outputs.append(item.levels(x).double().mean().item())
        slope = (outputs[1] - outputs[0]) / 0.04
        # Three transitions stand for the integral over three cells: equal for k = 0, close for higher powers.
        found = item.border.coefficients.grad[k].item()
        cells = torch.tensor([-0.5, 0.5, 1.5]) / 3
        assert slope == pytest.approx(-(cells**k).sum().item() / 7, abs=2e-3)
        edges = torch.tensor([-1.0, 2.0]) / 3
        integral = 3 * (edges[1] ** (k + 1) - edges[0] ** (k + 1)).item() / (k + 1)
        assert found == pytest.approx(-integral / 7, abs=2e-3)


def test_values_do_not_depend_on_the_straight_through_estimator() -> None:
    x = torch.randn(4, 3, 100) * 4
    outputs = []
    for ste in ("clip_before_round", "clamp_after_round"):
        item = ActivationQuantizer(2, ste)
        item.border = Border(BorderSpec(2), 3)
        item.set_grid(torch.tensor(0.7), torch.tensor(1.0))
        randomize(item.border)
        outputs.append(item(x))
    assert torch.equal(*outputs)


@pytest.mark.parametrize("gradient", ["detach", "full"])
def test_gradient_to_the_activation(gradient: str) -> None:
    item = quantizer(2, 0, BorderSpec(2, bound="none", gradient=gradient), channels=1, scale=1.0)
    item.border.coefficients.data = torch.tensor([[0.1], [0.3], [-0.2]])
    x = torch.tensor([[0.6], [1.3]], requires_grad=True)
    item.levels(x).sum().backward()
    expected = torch.ones(2, 1) if gradient == "detach" else 1 - (0.3 - 2 * 0.2 * x / 3) / 3
    torch.testing.assert_close(x.grad, expected.detach())


def test_the_border_never_pulls_at_its_scale() -> None:
    grads, x = [], torch.rand(50, 3) * 2
    for gradient in ("detach", "full"):
        item = quantizer(2, 0, BorderSpec(2, gradient=gradient), channels=3)
        randomize(item.border, 0.2)
        item.scale.requires_grad_(True)
        (item.levels(x) * item.scale).sum().backward()
        levels, u = item.levels(x), x / item.scale
        v = u - item.border.offset(u)
        inside = (v > 0) & (v < 3)
        expected = torch.where(inside, levels - u, levels).sum()
        torch.testing.assert_close(item.scale.grad, expected.detach())
        grads.append(item.scale.grad)
    assert torch.equal(*grads)


def test_context_sees_the_other_channels_of_its_group() -> None:
    spec = BorderSpec(0, bound="none", fusion="channel_context")
    border = Border(spec, 4, groups=2)
    border.set_range(torch.tensor(0.0), torch.tensor(1.0))
    border.context_gain.data.fill_(1.0)
    u = torch.tensor([[0.2, 0.4, 0.6, 1.0]])
    torch.testing.assert_close(border.offset(u), torch.tensor([[0.3, 0.3, 0.8, 0.8]]))


def test_kernel_fusion_is_a_mean_over_the_patch() -> None:
    means = {}
    for fusion in ("kernel_mean", "kernel_weighted"):
        border = Border(BorderSpec(1, "kernel_pos", "none", fusion), 2, positions=9)
        border.set_range(torch.tensor(0.0), torch.tensor(3.0))
        border.coefficients.data = torch.randn(2, 18, generator=torch.Generator().manual_seed(3))
        u = torch.rand(2, 18, 5, generator=torch.Generator().manual_seed(4)) * 3
        means[fusion] = border.offset(u)
        plain = Border(BorderSpec(1, "kernel_pos", "none"), 2, positions=9)
        plain.set_range(torch.tensor(0.0), torch.tensor(3.0))
        plain.coefficients.data = border.coefficients.data
        expected = plain.offset(u).reshape(2, 2, 9, 5).mean(2, keepdim=True).expand(-1, -1, 9, -1).reshape(2, 18, 5)
        torch.testing.assert_close(means[fusion], expected)
    border.position_logits.data[:, 4] = 50.0
    torch.testing.assert_close(border.offset(u)[:, 0], plain.offset(u)[:, 4])


@pytest.mark.parametrize(
    ("settings_", "message"),
    [
        ({"degree": 3}, "degree is 3"),
        ({"granularity": "pixel"}, "granularity is 'pixel'"),
        ({"bound": "tanh"}, "bound is 'tanh'"),
        ({"fusion": "kernel_mean"}, "needs granularity 'kernel_pos'"),
        ({"gradient": "none"}, "gradient is 'none'"),
    ],
)
def test_bad_specs_are_told(settings_: dict, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        BorderSpec(**settings_)
