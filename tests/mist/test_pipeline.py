"""The closed form against an event-driven simulation of 1F1B."""

from itertools import pairwise

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from paperlab.mist.cost.pipeline import averaged_s, closed_form_s, iteration_s, one_forward_one_backward, simulate

pipelines = st.tuples(st.integers(1, 8), st.integers(1, 5), st.integers(0, 2**31))


@given(pipelines, st.sampled_from([0.0, 0.5, 2.0]))
@settings(deadline=None, max_examples=120)
def test_closed_form_is_exact_for_equal_stages(case, largest):
    """d lies in the first and the last micro-batch as forward and backward do, and may start at time 0."""
    stages, times, seed = case
    generator = np.random.default_rng(seed)
    forward, backward = generator.uniform(0.5, 2, 2)
    extra = generator.uniform(0, largest * (forward + backward), stages)
    share = forward / (forward + backward)
    accumulation = stages * times
    work = simulate(
        [forward] * stages, [backward] * stages, list(share * extra), list((1 - share) * extra), accumulation
    )  # fmt: skip
    form = closed_form_s([forward + backward] * stages, list(extra), accumulation)
    assert iteration_s(work) == pytest.approx(form, rel=1e-9)


def test_every_stage_does_everything_once_and_holds_few_at_a_time():
    for stages in (1, 2, 4):
        for stage in range(stages):
            order = one_forward_one_backward(stage, stages, 8)
            assert sorted(order) == sorted((p, m) for p in ("forward", "backward") for m in range(8))
            live = np.cumsum([1 if phase == "forward" else -1 for phase, _ in order])
            assert live.max() == stages - stage


def test_work_never_overlaps_on_a_stage_and_never_precedes_its_input():
    work = simulate([1, 2, 1.5], [2, 3, 2.5], [0.3, 0, 1], [0.2, 0.1, 0], 6)
    end = {(w.phase, w.stage, w.micro_batch): w.end_s for w in work}
    for stage in range(3):
        mine = sorted((w for w in work if w.stage == stage), key=lambda w: w.start_s)
        assert all(a.end_s <= b.start_s + 1e-12 for a, b in pairwise(mine))
    for w in work:
        if w.phase == "forward" and w.stage:
            assert w.start_s >= end["forward", w.stage - 1, w.micro_batch]
        if w.phase == "backward" and w.stage < 2:
            assert w.start_s >= end["backward", w.stage + 1, w.micro_batch] - 0.2


def test_averaging_hides_what_later_stages_do_while_they_wait():
    stable, extra = [1.0, 1.0], [0.0, 1.0]
    assert closed_form_s(stable, extra, 4) == 5.0
    assert averaged_s(stable, extra, 4) > 5.0
