from __future__ import annotations

import math

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from scipy.optimize import brentq
from scipy.special import ndtr
from torch._subclasses.fake_tensor import FakeTensorMode

from paperlab.tempo.ops import gelu_fit
from paperlab.tempo.ops.gelu_fit import derivative, exact, invert, minimum, side_threshold
from paperlab.tempo.studies.gelu_error import derivative_error, information_floor

FORMS = ["none", "tanh"]
HALF = [torch.float16, torch.bfloat16]


def scipy_slope(x: float, approximate: str) -> float:
    """g' written independently of the library, with numpy and scipy."""
    if approximate == "none":
        return ndtr(x) + x * math.exp(-x * x / 2) / math.sqrt(2 * math.pi)
    c = math.sqrt(2 / math.pi)
    t = math.tanh(c * (x + 0.044715 * x**3))
    return (1 + t) / 2 + x / 2 * (1 - t * t) * c * (1 + 3 * 0.044715 * x * x)


def error(x: torch.Tensor, approximate: str, evaluator: str = "fit", evaluated_as: str | None = None) -> torch.Tensor:
    """|D - g'| where D sees torch's own GELU output."""
    y = F.gelu(x, approximate=approximate)
    side = x >= side_threshold(x.dtype, approximate)
    found = derivative(y, side, evaluated_as or approximate, evaluator)
    return (found.double() - exact(x.double(), approximate)[1]).abs()


@pytest.mark.parametrize(
    ("approximate", "x", "y"),
    [("none", -0.7517915246935643, -0.16997120747990369), ("tanh", -0.7524614220710162, -0.17004075057125406)],
)
def test_minimum_is_the_root_of_the_slope(approximate, x, y):
    found = minimum(approximate)
    assert found.x == pytest.approx(brentq(scipy_slope, -1, -0.5, args=(approximate,), xtol=1e-15), abs=1e-15)
    assert (found.x, found.y) == pytest.approx((x, y), abs=4e-16)


@pytest.mark.parametrize("approximate", FORMS)
def test_exact_agrees_with_autograd(approximate):
    x = torch.linspace(-12, 12, 4801, dtype=torch.float64, requires_grad=True)
    y = F.gelu(x, approximate=approximate)
    (slope,) = torch.autograd.grad(y.sum(), x)
    value, found = exact(x.detach(), approximate)
    torch.testing.assert_close(value, y.detach(), rtol=0, atol=1e-14)
    torch.testing.assert_close(found, slope, rtol=0, atol=1e-14)


@pytest.mark.parametrize("approximate", FORMS)
def test_invert_undoes_gelu(approximate):
    x = torch.linspace(-8, 30, 7001, dtype=torch.float64)
    x = x[(x - minimum(approximate).x).abs() > 0.01]
    y, _ = exact(x, approximate)
    torch.testing.assert_close(invert(y, x > minimum(approximate).x, approximate), x, rtol=1e-12, atol=1e-12)


@pytest.mark.parametrize("approximate", FORMS)
def test_fit_meets_its_bars_in_float32(approximate):
    """On correctly rounded y; what torch's own y is worth differs between processors (next test)."""
    x = torch.linspace(-10, 10, 2_000_001)
    near = (x - minimum(approximate).x).abs() < 0.1
    value, slope = exact(x.double(), approximate)
    side = x >= side_threshold(x.dtype, approximate)
    found = (derivative(value.float(), side, approximate, "fit").double() - slope).abs()
    assert found[near].max() <= 2e-4
    assert found[~near].max() <= 1e-5


@pytest.mark.parametrize("approximate", FORMS)
def test_fit_adds_little_to_what_rounding_of_y_costs(approximate):
    """On torch's own y the error is what the exact inversion of that y has: some processors round it by 6 ulp."""
    x = torch.linspace(-10, 10, 2_000_001)
    near = (x - minimum(approximate).x).abs() < 0.1
    y = F.gelu(x, approximate=approximate)
    inverted = invert(y.double(), x >= side_threshold(x.dtype, approximate), approximate)
    floor = (exact(inverted, approximate)[1] - exact(x.double(), approximate)[1]).abs()
    found = error(x, approximate)
    for region in (near, ~near):
        assert found[region].max() <= 1.5 * floor[region].max() + 1e-5


@pytest.mark.parametrize("approximate", FORMS)
@pytest.mark.parametrize("dtype", [torch.float32, *HALF])
def test_fit_is_sane_far_out(approximate, dtype):
    x = torch.cat([torch.linspace(-40, -3.6, 20_001), torch.linspace(6, 40, 20_001), torch.tensor([6e4])]).to(dtype)
    assert error(x, approximate).max() <= 1e-5


@pytest.mark.parametrize("approximate", FORMS)
def test_fit_has_no_jump_at_its_knots(approximate):
    y_min = minimum(approximate).y
    low, high = gelu_fit.FIT_SIGMA_KNOTS
    knots = {
        False: [y_min, y_min + low**2, y_min * math.exp(-(gelu_fit.FIT_TAIL_W**2)), 0.0],
        True: [y_min, 0.0, y_min + high**2, gelu_fit.FIT_SATURATION_Y],
    }
    for side, values in knots.items():
        for knot in values:
            step = 1e-6 * max(abs(knot), 1e-3)
            y = torch.tensor([knot - 2 * step, knot - step, knot, knot + step, knot + 2 * step])
            y = y.clamp(np.float32(y_min).item(), math.inf if side else 0.0)
            sides = torch.full_like(y, side, dtype=torch.bool)
            true_change = derivative(y.double(), sides, approximate, "newton").diff()
            change = derivative(y, sides, approximate).diff()
            assert (change - true_change).abs().max() <= 2e-5, (side, knot)


@pytest.mark.parametrize("approximate", FORMS)
def test_fit_is_not_interchangeable_between_forms(approximate):
    other = {"none": "tanh", "tanh": "none"}[approximate]
    x = torch.linspace(0, 4, 10_001)
    assert error(x, approximate, evaluated_as=other).max() > 1e-4


@pytest.mark.parametrize("approximate", FORMS)
@pytest.mark.parametrize("dtype", [torch.float32, torch.float64, *HALF])
@pytest.mark.parametrize("evaluator", ["fit", "newton"])
def test_corner_values(approximate, dtype, evaluator):
    y = torch.tensor([0.0, -0.0, 0.0, -0.0, -1.0, -1.0, math.nan, math.nan, math.inf, 3e4], dtype=dtype)
    side = torch.tensor([1, 1, 0, 0, 1, 0, 1, 0, 1, 1]).bool()
    found = derivative(y, side, approximate, evaluator)
    assert found.dtype == (torch.float64 if dtype == torch.float64 else torch.float32)
    torch.testing.assert_close(found[:2], torch.full_like(found[:2], 0.5), rtol=0, atol=2e-6)
    assert (found[2:4] == 0).all()
    assert found[4:6].abs().max() < 1e-6, "below y* counts as y*"
    assert found[6:9].isnan().all()
    assert found[9] == 1


@pytest.mark.parametrize("approximate", FORMS)
@pytest.mark.parametrize("dtype", HALF)
def test_half_types_sit_on_the_information_floor(approximate, dtype):
    ratio = derivative_error(dtype, approximate).max_error / information_floor(dtype, approximate).max_error
    assert (ratio <= 1.5).all()
    assert ratio[0] >= 0.9, "more accurate near x* than y allows: the input must have been kept"


@pytest.mark.parametrize(("dtype", "near", "away"), [(torch.float16, 6.4e-3, 6.5e-4), (torch.bfloat16, 1.5e-2, 4.9e-3)])
def test_information_floor_has_the_known_size(dtype, near, away):
    assert information_floor(dtype).max_error.tolist() == pytest.approx([near, away], rel=0.03)


@pytest.mark.parametrize("approximate", FORMS)
def test_fit_on_float64_is_the_inversion(approximate):
    x = torch.linspace(-10, 10, 2001, dtype=torch.float64)
    found = error(x, approximate)
    assert found.max() < 1e-7
    assert found[(x - minimum(approximate).x).abs() > 0.1].max() < 1e-13


@pytest.mark.parametrize("approximate", FORMS)
def test_paper_has_the_accuracy_of_a_polynomial_in_y(approximate):
    x = torch.linspace(-10, 10, 200_001)
    found = error(x, approximate, "paper")
    assert 5e-3 < found[(x - minimum(approximate).x).abs() < 0.1].max() < 2e-2
    assert found[(x > 0.3) & (x < 3.0)].max() < 1e-6
    assert 5e-3 < found[x > 3.01].max() < 1.5e-2, "the cut to 1 at y = 3"


@pytest.mark.parametrize("approximate", FORMS)
@pytest.mark.parametrize("dtype", HALF)
def test_side_threshold_splits_every_half_value_as_x_min_does(approximate, dtype):
    x = torch.arange(-(2**15), 2**15).to(torch.int16).view(dtype)
    assert torch.equal(x >= side_threshold(dtype, approximate), x.double() >= minimum(approximate).x)


@pytest.mark.parametrize("approximate", FORMS)
def test_side_threshold_is_the_next_float32(approximate):
    threshold = np.float32(side_threshold(torch.float32, approximate))
    assert float(threshold) == side_threshold(torch.float32, approximate)
    assert np.nextafter(threshold, np.float32(-1)).item() < minimum(approximate).x <= threshold.item()


def test_constants_ignore_torchs_ambient_modes():
    """They may be derived first inside a model built on the meta device, or while a graph is traced."""
    functions = (minimum, gelu_fit.fit_pieces, gelu_fit.paper_pieces)
    expected = [function() for function in functions]
    for mode in (torch.device("meta"), FakeTensorMode(), torch.inference_mode()):
        for function in functions:
            function.cache_clear()
        with mode:
            assert [function() for function in functions] == expected


def test_unknown_options_are_named():
    y = torch.zeros(1)
    with pytest.raises(ValueError, match="approximate must be one of none, tanh; got 'erf'"):
        derivative(y, y.bool(), "erf")
    with pytest.raises(ValueError, match="evaluator must be one of fit, paper, newton; got 'exact'"):
        derivative(y, y.bool(), evaluator="exact")
    with pytest.raises(ValueError, match="low must be below high"):
        gelu_fit.Piece(1.0, 1.0, (0.0,))
