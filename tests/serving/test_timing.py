"""Pipelines against brute force: a tandem queue's end is the longest path through jobs and stages."""

from __future__ import annotations

from itertools import combinations

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from paperlab.serving.lanes import Job
from paperlab.serving.timing import Pipeline, resources
from paperlab.serving.work import Compute, Copy, Reconfigure, StepShape
from tests.serving import doubles


class Fixed:
    """Prices by the number of prompt tokens, from 1 on."""

    def __init__(self, seconds, load_s=0.0, copy_s=0.0, tail_s=0.0):
        self.seconds, self.load_s, self.copy_s, self._tail_s = seconds, load_s, copy_s, tail_s
        self.stages = len(seconds[0])

    def compute_s(self, step):
        return self.seconds[step.prefill_tokens - 1]

    def write_through_s(self, step):
        return [self.copy_s] * self.stages

    def tail_s(self, step):
        return self._tail_s


def job(index, target=None, now_s=0.0):
    return Job(Compute((object(),), target=target), now_s, 0.0, StepShape(prefill_tokens=index + 1))


@settings(deadline=None, max_examples=50)
@given(
    st.integers(1, 4).flatmap(
        lambda stages: st.lists(st.lists(st.floats(0.01, 5), min_size=stages, max_size=stages), min_size=1, max_size=6)
    )
)
def test_jobs_end_at_the_longest_path(seconds):
    pipeline = Pipeline({"only": Fixed(seconds)}, "only")
    ends = [pipeline.begin("a", job(index), 0.0).end_s for index in range(len(seconds))]
    for row, end_s in enumerate(ends):
        assert end_s == pytest.approx(longest_path(seconds[: row + 1]))


def longest_path(seconds):
    """Return the largest sum along a path from the first job's first stage to the last job's last, all paths tried."""
    rows, stages = len(seconds), len(seconds[0])
    sums = []
    for down in combinations(range(rows + stages - 2), rows - 1):  # which steps go to the next job, not the next stage
        row = stage = 0
        total = seconds[0][0]
        for step in range(rows + stages - 2):
            row, stage = (row + 1, stage) if step in down else (row, stage + 1)
            total += seconds[row][stage]
        sums.append(total)
    return max(sums)


def test_equal_jobs_take_turns():
    pipeline = Pipeline({"only": Fixed([[2.0] * 3])}, "only")
    assert [pipeline.begin("a", job(0), 0.0).end_s for _ in range(4)] == [6, 8, 10, 12]


def test_what_is_written_through_hides_behind_computation_up_to_its_tail():
    hidden = Pipeline({"only": Fixed([[2.0, 2.0]], copy_s=1.0, tail_s=0.1)}, "only")
    assert hidden.begin("a", job(0, "host"), 0.0).end_s == pytest.approx(4.1)
    slow = Pipeline({"only": Fixed([[2.0, 2.0]], copy_s=5.0, tail_s=0.1)}, "only")
    ends = [slow.begin("a", job(0, "host"), 0.0).end_s for _ in range(3)]
    assert ends == pytest.approx([7.0, 12.0, 17.0])  # the link of the last stage is the bottleneck
    assert slow.begin("b", job(0), 0.0).end_s == pytest.approx(10.0)  # and holds up no computation


def test_a_reconfiguration_loads_and_changes_the_prices():
    heard = []
    pipeline = Pipeline({"slow": Fixed([[3.0, 3.0]]), "fast": Fixed([[1.0]], load_s=0.5)}, "slow", heard.append)
    assert pipeline.begin("a", job(0), 0.0).end_s == 6
    assert pipeline.begin("a", Job(Reconfigure("fast"), 6.0, 0.0), 6.0).end_s == 6.5
    assert pipeline.begin("a", job(0), 6.5).end_s == 7.5
    assert [visit.kind for visit in heard] == ["prefill", "prefill", "load", "prefill"]
    with pytest.raises(ValueError, match=r"configuration is 'none'; this pipeline has slow, fast"):
        Pipeline(pipeline.configurations, "none")


def test_a_shared_device_cannot_reconfigure():
    device = resources({"gpu0": doubles.setup().device_model}, {}, 1.0)["gpu0"]
    with pytest.raises(TypeError, match="Reconfigure needs a pipeline"):
        device.begin("main", Job(Reconfigure("x"), 0.0, 0.0), 0.0)
    assert Copy((object(),), "host")
