"""The table equals the function: on a million values per channel, and on every float32 number next to a threshold."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from paperlab.aquant.border import Border, BorderSpec
from paperlab.aquant.deploy.export import monotonicity
from paperlab.aquant.deploy.thresholds import ThresholdTable, neighbors, table_of
from paperlab.aquant.quantizer import ActivationQuantizer
from tests.aquant.deploy.quantized import quantized


def make(bits, zero_point, border=None, channels=4, size=0.3, scale=0.37):
    quantizer = ActivationQuantizer(bits)
    if border is not None:
        quantizer.border = Border(border, channels)
        quantizer.border.coefficients.data = size * torch.randn_like(quantizer.border.coefficients)
    quantizer.set_grid(torch.tensor(scale), torch.tensor(float(zero_point)))
    return quantizer


def spread(quantizer, count, channels):
    """Values over the represented range and well beyond it."""
    levels = torch.rand(count, channels) * (quantizer.top + 4) - float(quantizer.zero_point) - 2
    return levels * quantizer.scale.detach()


@pytest.mark.parametrize("bound", ["none", "clip", "sigmoid"])
@pytest.mark.parametrize(("degree", "bits", "zero_point"), [(2, 2, 0), (1, 2, 1), (0, 2, 0), (2, 4, 6)])
def test_a_million_values_per_channel(bound, degree, bits, zero_point):
    quantizer = make(bits, zero_point, BorderSpec(degree=degree, bound=bound), channels=2)
    x = spread(quantizer, 1_000_000, 2)
    table = table_of(quantizer)
    assert np.array_equal(table(x.numpy()), quantizer.codes(x).numpy())
    assert table.monotone.all()
    assert table.staircase().shape == (2, 2**bits - 1)
    counted = (x.numpy()[:, :, None] >= table.staircase()).sum(2)
    assert np.array_equal(counted, table(x.numpy()))


@pytest.mark.parametrize("bits", [2, 3, 8])
@pytest.mark.parametrize("bound", ["none", "clip", "sigmoid"])
def test_every_float_next_to_a_threshold(bits, bound):
    quantizer = make(bits, 1, BorderSpec(bound=bound))
    table = table_of(quantizer)
    near = neighbors(table.thresholds.T, 100).reshape(-1, 4)
    assert np.array_equal(table(near), quantizer.codes(torch.from_numpy(near)).numpy())
    at, before = (neighbors(table.thresholds.T, 1)[i] for i in (1, 0))
    assert (table(at) > table(before)).all()


@pytest.mark.parametrize("bits", [2, 5, 8])
@pytest.mark.parametrize("zero_point", [0, 3])
def test_without_a_border_thresholds_are_ties(bits, zero_point):
    """With a power of two as scale the ties are exact numbers, and even levels win them."""
    quantizer = make(bits, zero_point, scale=0.25)
    table = table_of(quantizer)
    levels = np.arange(1, 2**bits) - zero_point
    ties = (levels - 0.5) * 0.25
    expected = np.where(levels % 2 == 0, ties, np.nextafter(ties.astype(np.float32), np.float32(np.inf)))
    # around zero, numbers whose quotient by the scale rounds to the tie's are few; one ulp is all
    assert np.array_equal(table.thresholds[0], expected.astype(np.float32))


def test_steps_down_are_found_and_reported():
    """Offsets that grow faster than the activation make it fall back; the table still is the function."""
    quantizer = make(3, 0, BorderSpec(bound="none"), channels=3)
    quantizer.border.coefficients.data = torch.tensor([[0.0, 0.0, 0.0], [0.0, -2.0, 0.0], [0.0, 0.0, 10.0]])
    table = table_of(quantizer)
    assert table.monotone.tolist() == [True, True, False]
    x = spread(quantizer, 300_000, 3)
    assert np.array_equal(table(x.numpy()), quantizer.codes(x).numpy())
    with pytest.raises(ValueError, match=r"1 of 3 rows are not monotone \(row 2 first\)"):
        table.staircase()


@given(
    bits=st.integers(2, 5), zero=st.integers(0, 3), size=st.floats(0, 30), degree=st.integers(0, 2),
    bound=st.sampled_from(["none", "clip", "sigmoid"]), scale=st.floats(1e-3, 10), seed=st.integers(0, 99),
)  # fmt: skip
@settings(max_examples=30, deadline=None)
def test_any_border_equals_its_table_up_to_rounding(bits, zero, size, degree, bound, scale, seed):
    """However wild: they differ at most on a few float32 values where the function itself flickers."""
    torch.manual_seed(seed)
    quantizer = make(bits, zero, BorderSpec(degree=degree, bound=bound), size=size, scale=scale)
    table = table_of(quantizer)
    x = spread(quantizer, 5_000, 4)
    wrong = table(x.numpy()) != quantizer.codes(x).numpy()
    ordinals = neighbors(table.thresholds.T, 64).reshape(-1, 4)
    assert all(np.isin(x.numpy()[wrong[:, row], row], ordinals[:, row]).all() for row in range(4))


def test_granularities_give_rows():
    assert table_of(make(2, 0)).thresholds.shape == (1, 3)
    assert table_of(make(2, 0, BorderSpec(granularity="tensor"))).thresholds.shape == (1, 3)
    assert table_of(make(2, 0, BorderSpec())).thresholds.shape == (4, 3)
    table = table_of(make(2, 0, BorderSpec()))
    with pytest.raises(ValueError, match=r"dimension 1 must be the table's 4 rows"):
        table(np.zeros((2, 3), np.float32))


def test_what_has_no_table_is_told():
    with pytest.raises(ValueError, match="fusion 'channel_context' looks at other activations"):
        table_of(make(2, 0, BorderSpec(fusion="channel_context")))
    with pytest.raises(ValueError, match="no scale yet; calibrate"):
        table_of(ActivationQuantizer(2))


def test_the_report_tells_what_a_staircase_cannot_show():
    report = monotonicity(quantized(border=BorderSpec(bound="none"), size=0.2))
    inner = report[report.bits == 2]
    assert inner.monotone.all()
    assert inner.steps.eq(3).all()
    assert report.undecided.sum() == 0
    assert set(report.bits) == {2, 8}
    table = ThresholdTable(2, 0, np.array([[1, 1, 2, 3]], np.float32), np.array([[0, 1, 2, 3, 2]], np.uint8))
    assert not table.monotone.any()
    wild = monotonicity(quantized(border=BorderSpec(bound="none"), size=8.0))
    assert not wild.monotone.all()
    assert (wild.steps_down > 0).equals(~wild.monotone)


def test_the_level_of_zero_is_the_functions():
    model = quantized(border=BorderSpec(bound="none"), size=2.0)
    report = monotonicity(model).set_index("quantizer")
    for name, quantizer in model.network.named_children():
        if isinstance(quantizer, ActivationQuantizer) and quantizer.border is not None:
            zeros = torch.zeros(1, quantizer.border.channels, 1, 1)
            assert report.loc[name].zero_level.tolist() == quantizer.levels(zeros).flatten().tolist()
    assert (report.zero_level != 0).any()
