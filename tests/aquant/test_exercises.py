"""Right answers pass, and typical wrong ones get a hint that names the mistake."""

from __future__ import annotations

import math

import pytest
import torch

from paperlab.aquant import exercises
from paperlab.aquant.what_if import errors
from paperlab.lab.exercises import ExerciseError


def quantize(x, scale, zero_point, bits):
    return ((x / scale).round().clamp(-zero_point, 2**bits - 1 - zero_point)) * scale


def border(u, w, w_hat):
    return 0.5 + u * (w_hat - w) / w_hat


def start(fraction):
    return -torch.log(1.2 / (fraction + 0.1) - 1)


def slope(w, w_hat):
    return 1 - (w @ w_hat) / (w_hat @ w_hat)


def thresholds(a0, a1, a2, levels):
    found = []
    for k in range(levels - 1):
        b, c = a1 - 1, a0 + k + 0.5
        found.append(-c / b if a2 == 0 else (-b - math.sqrt(b * b - 4 * a2 * c)) / (2 * a2))
    return found


@pytest.mark.parametrize(
    ("check", "answer"),
    [
        (exercises.check_quantize, quantize),
        (exercises.check_border, border),
        (exercises.check_soft_rounding, start),
        (exercises.check_slope, slope),
        (exercises.check_thresholds, thresholds),
    ],
)
def test_right_answers_pass(check, answer):
    check(answer)


@pytest.mark.parametrize(
    ("check", "answer", "hint"),
    [
        (exercises.check_quantize, lambda x, s, z, b: (x / s).round() * s, "q from 0"),
        (exercises.check_quantize, lambda x, s, z, b: (x / s).floor().clamp(-z, 2**b - 1 - z) * s, "nearest value"),
        (exercises.check_border, lambda u, w, w_hat: 0.5 - u * (w_hat - w) / w_hat, "sign of w_hat"),
        (exercises.check_border, lambda u, w, w_hat: 0.5 + 0 * u, "nearest to u"),
        (exercises.check_soft_rounding, lambda f: torch.logit(f, eps=1e-6), "solve 1.2"),
        (exercises.check_slope, lambda w, w_hat: 1 - (w @ w_hat) / (w @ w), "w_hat"),
        (exercises.check_thresholds, lambda a0, a1, a2, n: [0.5, 1.5, 2.5], "instead of"),
    ],
)
def test_wrong_answers_get_a_hint(check, answer, hint):
    with pytest.raises(ExerciseError, match=hint):
        check(answer)


def test_what_if_shows_the_bias_of_nearest_rounding():
    for percent in (-10, 5, 10):
        _, nearest = errors(percent, "nearest")
        _, unbiased = errors(percent, "zero bias")
        assert nearest.mean() == pytest.approx(2 * percent / 100, abs=1e-3)
        assert abs(unbiased.mean()) < 5e-3
    with pytest.raises(ValueError, match="border is 'odd'"):
        errors(1, "odd")
    with pytest.raises(ValueError, match="must be above -100"):
        errors(-100, "nearest")
