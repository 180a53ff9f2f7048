"""Rooflines by hand, their invariants, and calibration on rows with a known answer."""

from __future__ import annotations

import numpy as np
import pandas as pd
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from paperlab import hardware
from paperlab.hardware import Roofline, calibrate

positive = st.floats(1e-3, 1e12)


def test_by_hand():
    roof = Roofline(100.0, 10.0, compute_efficiency=0.5, memory_efficiency=0.8, overhead_s=1.0)
    assert roof.ridge_flops_per_byte == 50 / 8
    assert roof.time_s(100, 8) == 1 + 2  # 100 FLOPs at 50 FLOP/s against 8 B at 8 B/s
    assert roof.time_s(10, 80) == 1 + 10
    assert roof.bound(100, 8) == "compute"
    assert list(roof.bound([100, 10], [8, 80])) == ["compute", "memory"]
    assert list(roof.attainable_flops_per_s([1.0, 6.25, 100.0])) == [8.0, 50.0, 50.0]
    assert roof.fraction_of_bound(100, 8, 2.0) == 0.5


@settings(deadline=None)
@given(positive, positive, st.floats(0.05, 1), st.floats(0.05, 1))
def test_time_and_attainable_rate_agree(flops, moved_bytes, compute, memory):
    roof = Roofline(3e12, 2e11, compute, memory)
    assert flops / roof.time_s(flops, moved_bytes) == pytest.approx(roof.attainable_flops_per_s(flops / moved_bytes))
    assert roof.fraction_of_bound(flops, moved_bytes, roof.time_s(flops, moved_bytes)) <= 1 + 1e-12
    assert (roof.bound(flops, moved_bytes) == "compute") == (roof.compute_s(flops) >= roof.memory_s(moved_bytes))


@settings(deadline=None)
@given(positive, positive, st.floats(1, 10))
def test_more_work_or_a_slower_device_never_takes_less_time(flops, moved_bytes, factor):
    roof = Roofline(3e12, 2e11)
    slower = Roofline(3e12 / factor, 2e11 / factor)
    base = roof.time_s(flops, moved_bytes)
    assert roof.time_s(flops * factor, moved_bytes) >= base
    assert roof.time_s(flops, moved_bytes * factor) >= base
    assert slower.time_s(flops, moved_bytes) == pytest.approx(base * factor)


def test_ridge_points_of_the_devices():
    # Tokens per step at which 16-bit linear layers turn compute-bound (2 FLOPs per 2-byte weight and token).
    expected = {"A10": (190, 210), "L4": (370, 410), "A100-SXM-40GB": (190, 205), "H200-SXM": (200, 210)}
    for name, (low, high) in expected.items():
        assert low <= Roofline.of(hardware.device(name), "fp16").ridge_flops_per_byte <= high


@pytest.mark.parametrize("field", ["peak_flops_per_s", "bandwidth_Bps", "compute_efficiency"])
@pytest.mark.parametrize("value", [0.0, -1.0, float("nan")])
def test_bad_ceilings_are_refused(field, value):
    arguments = {"peak_flops_per_s": 1.0, "bandwidth_Bps": 1.0} | {field: value}
    with pytest.raises(ValueError, match=field):
        Roofline(**arguments)


def measured(truth: Roofline, count: int = 200, noise: float = 0.0, seed: int = 0) -> pd.DataFrame:
    rng = np.random.default_rng(seed)
    moved_bytes = 10 ** rng.uniform(4, 9, count)
    flops = moved_bytes * 10 ** rng.uniform(-1, 4, count)
    latency_s = truth.time_s(flops, moved_bytes) * np.exp(noise * rng.standard_normal(count))
    return pd.DataFrame({"flops": flops, "bytes": moved_bytes, "latency_s": latency_s})


@pytest.mark.parametrize("truth", [
    Roofline(1e14, 1e12, 0.6, 0.8, 5e-6),
    Roofline(1e14, 1e12, 0.35, 0.9, 0.0),
    Roofline(1e14, 1e12, 0.9, 0.2, 1e-4),
])  # fmt: skip
def test_calibration_recovers_known_efficiencies(truth):
    result = calibrate(measured(truth), truth.ideal)
    assert result.roofline.compute_efficiency == pytest.approx(truth.compute_efficiency, rel=1e-3)
    assert result.roofline.memory_efficiency == pytest.approx(truth.memory_efficiency, rel=1e-3)
    assert result.roofline.overhead_s == pytest.approx(truth.overhead_s, rel=1e-3, abs=1e-9)
    assert result.held_out_max_error < 1e-3


def test_calibration_error_is_of_the_size_of_the_noise():
    truth = Roofline(1e14, 1e12, 0.6, 0.8, 5e-6)
    result = calibrate(measured(truth, noise=0.05), truth.ideal)
    assert 0.02 < result.held_out_mean_error < 0.07  # mean |N(0, 0.05)| is 0.04
    assert result.roofline.compute_efficiency == pytest.approx(0.6, rel=0.05)
    assert result.compute_rows + result.memory_rows == 150


def test_calibration_does_not_depend_on_the_assumed_peaks():
    truth = Roofline(1e14, 1e12, 0.6, 0.8, 5e-6)
    rows = measured(truth)
    assumed = calibrate(rows, Roofline(3e14, 5e11)).roofline
    assert assumed.compute_efficiency == pytest.approx(0.2, rel=1e-3)
    assert assumed.memory_efficiency == pytest.approx(1.6, rel=1e-3)


def test_rows_on_one_side_of_the_ridge_are_refused():
    truth = Roofline(1e14, 1e12, 0.6, 0.8, 5e-6)
    rows = measured(truth)
    with pytest.raises(ValueError, match="no compute-bound operation"):
        calibrate(rows.assign(flops=rows["bytes"] * 1e-3), truth.ideal)


@pytest.mark.parametrize(("rows", "message"), [
    (pd.DataFrame({"flops": [1.0]}), r"lack the columns \['bytes', 'latency_s'\]"),
    (pd.DataFrame({"flops": [1.0], "bytes": [1.0], "latency_s": [1.0]}), "has 1 rows"),
    (pd.DataFrame({"flops": [1.0] * 9, "bytes": [-1.0] * 9, "latency_s": [1.0] * 9}), "negative"),
    (pd.DataFrame({"flops": [1.0] * 9, "bytes": [1.0] * 9, "latency_s": [0.0] * 9}), "latency_s of 0"),
])  # fmt: skip
def test_bad_rows_are_refused(rows, message):
    with pytest.raises(ValueError, match=message):
        calibrate(rows, Roofline(1.0, 1.0))
