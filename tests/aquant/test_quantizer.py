"""Grids, LSQ's gradient, AdaRound's soft and hard rounding, and the search for scales."""

from __future__ import annotations

import itertools

import pytest
import torch

from paperlab.aquant.frame.learning import beta, rounding_regularizer
from paperlab.aquant.frame.scales import EXPONENT, grid
from paperlab.aquant.quantizer import ActivationQuantizer, WeightQuantizer, check_bits


def weight_quantizer(bits: int = 3, seed: int = 0) -> tuple[torch.Tensor, WeightQuantizer]:
    weight = torch.randn(6, 4, 3, 3, generator=torch.Generator().manual_seed(seed))
    item = WeightQuantizer(bits, weight)
    item.set_grid(*grid(weight.flatten(1), bits))
    return weight, item


@pytest.mark.parametrize("bits", [1, 0, 9, 2.0, True, "4"])
def test_bits_outside_two_to_eight_are_told(bits: object) -> None:
    with pytest.raises(ValueError, match=r"w_bits is .*; use an integer from 2 to 8"):
        check_bits("w_bits", bits)


@pytest.mark.parametrize("bits", range(2, 9))
def test_weights_take_at_most_two_to_the_bits_values_per_channel(bits: int) -> None:
    weight, item = weight_quantizer(bits)
    codes = item.codes(weight)
    assert codes.min() >= 0
    assert codes.max() <= 2**bits - 1
    assert torch.equal(item(weight), item.dequantize(codes.to(torch.uint8)))
    nearest = (weight / item.scale).round() + item.zero_point
    assert torch.equal(codes, nearest.clamp(0, 2**bits - 1))


def test_soft_weights_start_as_the_float_weights() -> None:
    weight, item = weight_quantizer()
    item.start_learning(weight)
    unclipped = (weight / item.scale > -item.zero_point) & (weight / item.scale < item.top - item.zero_point)
    gap = ((item(weight) - weight) / item.scale).abs()[unclipped]
    assert unclipped.float().mean() > 0.7
    assert gap.max() < 1e-5


def test_hard_weights_are_neighbors_as_v_says() -> None:
    weight, item = weight_quantizer()
    v = item.start_learning(weight)
    v.data = torch.randn(v.shape, generator=torch.Generator().manual_seed(2))
    item.harden()
    u = weight / item.scale
    expected = (u.floor() + (v >= 0)).clamp(-item.zero_point, item.top - item.zero_point)
    torch.testing.assert_close(item(weight), (expected * item.scale).detach())


def test_regularizer_schedule() -> None:
    assert [beta(step, 1000, 0.2) for step in (0, 199)] == [None, None]
    assert beta(200, 1000, 0.2) == 20.0
    assert beta(999, 1000, 0.2) == pytest.approx(2.0)
    middle = [beta(step, 1000, 0.2) for step in range(200, 1000)]
    steps = {round(a - b, 9) for a, b in itertools.pairwise(middle)}
    assert len(steps) == 1  # linear


def test_regularizer_is_zero_at_decisions_alone() -> None:
    assert rounding_regularizer(torch.tensor([0.0, 1.0, 1.0]), 3.0) == 0
    assert rounding_regularizer(torch.tensor([0.5]), 3.0) == 1


@pytest.mark.parametrize("zero_point", [0, 2])
def test_lsq_gradient(zero_point: int) -> None:
    item = ActivationQuantizer(3)
    item.set_grid(torch.tensor(0.5), torch.tensor(float(zero_point)))
    item.scale.requires_grad_(True)
    x = torch.linspace(-3.01, 5.02, 101)
    for value in x:
        (gradient,) = torch.autograd.grad(item(value[None, None]).sum(), item.scale)
        u = value / 0.5
        if -zero_point < u < 7 - zero_point:
            expected = u.round() - u
        else:
            expected = torch.tensor(float(-zero_point if u <= -zero_point else 7 - zero_point))
        torch.testing.assert_close(gradient, expected)


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_drop_keeps_about_half_while_learning_alone(dtype: torch.dtype) -> None:
    item = ActivationQuantizer(2).to(dtype)
    item.set_grid(torch.tensor(1.0), torch.tensor(0.0))
    x = torch.full((1, 1, 10_000), 0.3, dtype=dtype)
    assert torch.equal(item(x), torch.zeros_like(x))
    item.drop, item.generator = True, torch.Generator().manual_seed(0)
    assert (item(x) == 0.3).float().mean().item() == pytest.approx(0.5, abs=0.03)


def brute_force(row: torch.Tensor, bits: int) -> float:
    """The least error over the documented candidates, by plain loops."""
    top, low, high = 2**bits - 1, min(0.0, row.min().item()), max(0.0, row.max().item())
    best = float("inf")
    for step in range(1, 101):
        scale = (high - low) / top * step / 100
        points = range(top + 1) if low < 0 < high else [round(-low / ((high - low) / top))]
        for point in points:
            quantized = (row / scale).round().clamp(-point, top - point) * scale
            best = min(best, ((quantized - row).abs() ** EXPONENT).mean().item())
    return best


@pytest.mark.parametrize("bits", [2, 3])
@pytest.mark.parametrize("kind", ["both signs", "one sign", "negative"])
def test_searched_grid_has_the_least_error(bits: int, kind: str) -> None:
    row = torch.randn(200, generator=torch.Generator().manual_seed(bits)) + 0.3
    row = {"both signs": row, "one sign": row.relu(), "negative": -row.relu()}[kind]
    scale, point = grid(row[None], bits)
    assert 0 <= point.item() <= 2**bits - 1
    quantized = (row / scale).round().clamp(-point, 2**bits - 1 - point) * scale
    found = ((quantized - row).abs() ** EXPONENT).mean().item()
    assert found == pytest.approx(brute_force(row, bits), rel=1e-4)


def test_rows_are_searched_one_by_one() -> None:
    rows = torch.randn(5, 100) * torch.tensor([[0.1], [1.0], [3.0], [0.5], [10.0]])
    together = grid(rows, 2)
    for index, row in enumerate(rows):
        alone = grid(row[None], 2)
        torch.testing.assert_close(together[0][index], alone[0][0])
        assert together[1][index] == alone[1][0]


def test_constant_rows_and_extremes() -> None:
    scale, point = grid(torch.zeros(1, 10), 2)
    assert scale.isfinite().all()
    assert point == 0
    scale, point = grid(torch.tensor([[-1.0, 2.0]]), 2, "minmax")
    assert (scale.item(), point.item()) == (1.0, 1.0)
    with pytest.raises(ValueError, match="scales is 'percentile'"):
        grid(torch.zeros(1, 2), 2, "percentile")
