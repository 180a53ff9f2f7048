"""The theorems against brute force."""

from __future__ import annotations

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from paperlab.aquant import theory

DRAWS = 100_000


def draws(seed: int, relative: float = 0.6):
    generator = torch.Generator().manual_seed(seed)
    u = torch.rand(DRAWS, generator=generator, dtype=torch.float64) * 8 - 4
    w = torch.randn(DRAWS, generator=generator, dtype=torch.float64)
    w_hat = w * (1 + relative * (2 * torch.rand(DRAWS, generator=generator, dtype=torch.float64) - 1))
    return u, w, w_hat


@pytest.mark.parametrize("seed", range(3))
def test_least_error_border_is_the_better_of_the_two_neighbors(seed: int) -> None:
    u, w, w_hat = draws(seed)
    down, up = u.floor(), u.floor() + 1
    errors = torch.stack([(q * w_hat - u * w).abs() for q in (down, up)])
    chosen = theory.round_by_border(u, theory.least_error_border(u, w, w_hat))
    found = (chosen * w_hat - u * w).abs()
    torch.testing.assert_close(found, errors.amin(0), rtol=1e-9, atol=1e-12)


def test_both_forms_of_the_least_error_border_decide_alike() -> None:
    u, w, w_hat = draws(5)
    first = theory.round_by_border(u, theory.least_error_border(u, w, w_hat))
    second = theory.round_by_border(u, theory.least_error_border_of_cell(u, w, w_hat))
    assert (first != second).double().mean() < 1e-4  # exact ties alone


@pytest.mark.parametrize("relative", [-0.1, -0.05, 0.05, 0.1])
@pytest.mark.parametrize("w", [1.0, -2.0])
def test_biases_of_the_product(relative: float, w: float) -> None:
    """Nearest rounding is off by E[u] Δw; the borders are not."""
    u = torch.rand(2_000_000, generator=torch.Generator().manual_seed(0), dtype=torch.float64) * 4
    weight = torch.tensor(w, dtype=torch.float64)
    w_hat = weight * (1 + relative)
    bias = {
        "nearest": theory.product_error(u, weight, w_hat, 0.5),
        "least error": theory.product_error(u, weight, w_hat, theory.least_error_border(u, weight, w_hat)),
        "zero bias": theory.product_error(u, weight, w_hat, theory.zero_bias_border(u, weight, w_hat)),
    }
    mean = {name: error.mean().item() / abs(w) for name, error in bias.items()}
    assert mean["nearest"] == pytest.approx(2 * relative * (1 if w > 0 else -1), abs=5e-3)
    assert abs(mean["zero bias"]) < 5e-3
    assert abs(mean["least error"]) < 0.03
    assert bias["least error"].abs().mean() < bias["nearest"].abs().mean()


def test_zero_bias_border_has_no_bias_in_any_cell() -> None:
    w, w_hat = torch.tensor(1.0, dtype=torch.float64), torch.tensor(1.1, dtype=torch.float64)
    for cell in range(4):
        u = cell + (torch.arange(200_000, dtype=torch.float64) + 0.5) / 200_000
        error = theory.product_error(u, w, w_hat, theory.zero_bias_border(u, w, w_hat))
        assert abs(error.mean().item()) < 1e-5


@settings(max_examples=50, deadline=None)
@given(seed=st.integers(0, 10_000), outputs=st.integers(1, 20), scale=st.floats(0.01, 3))
def test_vector_border_is_brute_force_least_squares(seed: int, outputs: int, scale: float) -> None:
    g = torch.Generator().manual_seed(seed)
    n = 400
    u_float = torch.randn(n, generator=g, dtype=torch.float64) * 3
    u_seen = u_float + 0.4 * torch.randn(n, generator=g, dtype=torch.float64)
    w = torch.randn(outputs, generator=g, dtype=torch.float64)
    w_hat = w + 0.3 * torch.randn(outputs, generator=g, dtype=torch.float64)
    error = torch.randn(n, outputs, generator=g, dtype=torch.float64)
    terms = theory.vector_border(u_seen, u_float, w, w_hat, error, scale)
    chosen = theory.round_by_border(u_seen, terms.border)

    def cost(q: torch.Tensor) -> torch.Tensor:
        return ((scale * (q[:, None] * w_hat - u_float[:, None] * w) + error) ** 2).sum(1)

    best = torch.minimum(cost(u_seen.floor()), cost(u_seen.floor() + 1))
    torch.testing.assert_close(cost(chosen), best, rtol=1e-9, atol=1e-9)


def test_terms_vanish_with_their_causes() -> None:
    u, w = torch.linspace(0, 3, 50), torch.randn(8)
    w_hat = w + 0.2 * torch.randn(8)
    nothing = torch.zeros(50, 8)
    assert torch.equal(theory.vector_border(u, u, w, w_hat, nothing, 1.0).other, torch.zeros(50))
    assert torch.equal(theory.vector_border(u, u, w, w_hat, nothing, 1.0).propagated, torch.zeros(50))
    torch.testing.assert_close(theory.vector_border(u, u, w, w, nothing, 1.0).border, torch.full((50,), 0.5))


def test_one_output_is_the_two_number_case() -> None:
    u, w, w_hat = torch.linspace(-3, 3, 50), torch.tensor([0.8]), torch.tensor([0.9])
    terms = theory.vector_border(u, u, w, w_hat, torch.zeros(50, 1), 0.3)
    torch.testing.assert_close(terms.border, theory.least_error_border(u, w[0], w_hat[0]))


def test_unaligned_weight_errors_leave_almost_no_slope() -> None:
    """Why coarse borders gain little from independent errors over many outputs, and much from shrunken weights."""
    g = torch.Generator().manual_seed(0)
    w = torch.randn(4096, generator=g)
    independent = w + 0.1 * torch.randn(4096, generator=g)
    one = torch.ones(1)
    slope = {
        name: theory.vector_border(one, one, w, w_hat, torch.zeros(1, 4096), 1.0).weight.item()
        for name, w_hat in (("independent", independent), ("aligned", 0.9 * w))
    }
    assert abs(slope["independent"]) < 0.02
    assert slope["aligned"] == pytest.approx(1 - 1 / 0.9, abs=1e-5)
