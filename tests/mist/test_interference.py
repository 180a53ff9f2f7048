"""The interference model's properties and its fit."""

from itertools import permutations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from paperlab.mist.clusters import interference
from paperlab.mist.cost.interference import RESOURCES, SUBSETS, Interference
from paperlab.mist.cost.interference_fit import fit, relative_errors
from paperlab.mist.studies.interference_study import synthetic_points

SETS = ("l4", "a100", "l4_readme")
times = st.lists(st.sampled_from([0.0, 0.3, 1.0, 2.5, 7.0]), min_size=4, max_size=4)
IDLE = Interference((1.0,) * 28)


def one_by_one(model: Interference, alone: list[float]) -> float:
    """The same model, written for one point with plain loops."""
    factors = dict(zip([(s, r) for s in SUBSETS for r in s], model.factors, strict=True))
    left, total = {r: x for r, x in zip(RESOURCES, alone, strict=True) if x > 0}, 0.0
    while len(left) > 1:
        subset = "".join(left)
        end = min(x * factors[subset, r] for r, x in left.items())
        total += end
        left = {r: (x * factors[subset, r] - end) / factors[subset, r] for r, x in left.items()}
        left = {r: x for r, x in left.items() if x > 1e-15}
    return total + sum(left.values())


@pytest.mark.parametrize("name", SETS)
@given(alone=times)
@settings(deadline=None)
def test_arrays_equal_the_loop(name, alone):
    model = interference(name)
    assert model.time_s(*alone) == pytest.approx(one_by_one(model, alone), rel=1e-12, abs=1e-12)


@pytest.mark.parametrize("name", SETS)
@given(alone=times)
@settings(deadline=None)
def test_never_faster_than_the_longest(name, alone):
    assert interference(name).time_s(*alone) >= max(alone) * (1 - 1e-12)


def test_alone_nothing_is_slowed():
    for name in SETS:
        for index in range(4):
            alone = [0.0] * 4
            alone[index] = 2.0
            assert interference(name).time_s(*alone) == 2.0
        assert interference(name).time_s(0, 0, 0, 0) == 0.0


@given(alone=times)
@settings(deadline=None)
def test_without_slowdown_the_longest_decides(alone):
    assert IDLE.time_s(*alone) == pytest.approx(max(alone))


@given(alone=times)
@settings(deadline=None)
def test_at_most_the_sum_if_no_factor_exceeds_the_number_running(alone):
    full = Interference(tuple(float(len(subset)) for subset in SUBSETS for _ in subset))
    assert full.time_s(*alone) <= sum(alone) * (1 + 1e-12)
    busy = [x for x in alone if x]
    if len(set(busy)) == 1:
        assert full.time_s(*alone) == pytest.approx(sum(alone))


def test_renaming_resources_renames_the_result():
    model, alone = interference("l4_readme"), np.array([3.0, 1.0, 2.0, 0.7])
    factors = dict(zip([(s, r) for s in SUBSETS for r in s], model.factors, strict=True))
    for order in permutations(range(4)):
        name = {RESOURCES[new]: RESOURCES[old] for new, old in enumerate(order)}
        renamed = {
            subset: [factors["".join(sorted((name[r] for r in subset), key=RESOURCES.index)), name[r]] for r in subset]
            for subset in SUBSETS
        }
        assert Interference.of(renamed).time_s(*alone[list(order)]) == pytest.approx(model.time_s(*alone))


@pytest.mark.parametrize("name", SETS)
def test_fit_predicts_held_out_points(name):
    alone, together = synthetic_points(name, 500, noise=0.01, seed=1)
    unseen, unseen_together = synthetic_points(name, 400, noise=0.0, seed=2)
    errors = relative_errors(fit(alone, together), unseen, unseen_together)
    assert errors.mean() <= 0.03
    serial = np.abs(unseen.sum(1) / unseen_together - 1)
    assert errors.mean() < 0.3 * serial.mean()


def test_bad_factors_and_points_are_told():
    with pytest.raises(ValueError, match="has 27 numbers"):
        Interference((1.0,) * 27)
    with pytest.raises(ValueError, match="none may be below 1"):
        Interference((0.5,) * 28)
    with pytest.raises(ValueError, match="unknown interference set 'h100'"):
        interference("h100")
    with pytest.raises(ValueError, match="it must be N x 4"):
        fit(np.ones((3, 2)), np.ones(3))
