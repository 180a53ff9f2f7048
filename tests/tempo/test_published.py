from __future__ import annotations

import pytest
import torch
import torch.nn.functional as F

from paperlab.tempo.ops.gelu import inplace_gelu
from paperlab.tempo.studies.published import SignSlippedGELU, defect_table, sign_slipped_gelu


@pytest.fixture(scope="module")
def table():
    return defect_table(points=200_001).set_index(["variant", "x_low"])


def test_the_slip_shows_where_the_released_kernel_shows_it(table):
    slipped, repaired = table.loc["sign-slipped"], table.loc["left-knot"]
    differs = slipped.max_error > repaired.max_error
    assert differs[differs].index.tolist() == [1.1, 2.0, -10.0]
    ours, released = slipped.max_error[differs], slipped.released_max_error[differs]
    assert (ours / released).between(0.5, 2).all(), "the same size within a factor of 2, not the same coefficients"


def test_repairing_the_sign_repairs_the_piece(table):
    assert table.loc["left-knot"].max_error[[1.1, 2.0]].max() < 1e-5


def test_the_power_basis_is_a_defect_of_its_own(table):
    """Its noise near y -> 0- exceeds the method's designed 1e-2; well conditioned, the polynomials have none."""
    far_left = [-10.0, -3.0]
    assert (table.loc["left-knot"].iloc[:-1].max_error[far_left] > 2e-2).all()
    assert (table.loc["centered"].iloc[:-1].max_error[far_left] < 1e-3).all()


def test_weighted_rms_orders_the_variants(table):
    rms = [table.loc[variant].rms_error.iloc[-1] for variant in ("centered", "left-knot", "sign-slipped")]
    assert rms == sorted(rms)
    assert rms[2] > 5 * rms[1]


def test_released_values_are_for_the_erf_form_only():
    assert defect_table("tanh", points=2001).filter(like="released").isna().all(axis=None)


@pytest.mark.parametrize("approximate", ["none", "tanh"])
@pytest.mark.parametrize("gelu", [sign_slipped_gelu, lambda x, a: SignSlippedGELU(a)(x)])
def test_control_arm_has_the_right_value_and_a_wrong_gradient(approximate, gelu):
    torch.manual_seed(0)
    x = torch.randn(10_000, requires_grad=True)
    value = F.gelu(x, approximate=approximate)
    (right,) = torch.autograd.grad(value.sum(), x)
    relative = {}
    for name, function in (("slipped", gelu), ("in-place", inplace_gelu)):
        y = function(x, approximate)
        assert torch.equal(y, value)
        (found,) = torch.autograd.grad(y.sum(), x)
        relative[name] = ((found - right).norm() / right.norm()).item()
    assert relative["slipped"] > 1e-2
    assert relative["in-place"] < 5e-6
