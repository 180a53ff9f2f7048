"""Right answers pass, and typical wrong ones get a hint that names the mistake."""

import pytest

from paperlab.lab.exercises import ExerciseError
from paperlab.mist import exercises
from paperlab.mist.cost.pipeline import closed_form_s, one_forward_one_backward


def state_bytes(parameters, dp, zero):
    sizes = {3: 2, 2: 2, 1: 12}
    return sum(size * parameters / (dp if zero >= level else 1) for level, size in sizes.items())


def together(x, y, slow_x, slow_y):
    if not (x and y):
        return x + y
    shared = min(x * slow_x, y * slow_y)
    return shared + x - shared / slow_x + y - shared / slow_y


def iteration_time(t, d, accumulation):
    return closed_form_s([t] * len(d), d, accumulation)


def front(points):
    return [p for p in set(points) if not any(q != p and q[0] <= p[0] and q[1] <= p[1] for q in points)]


def first_all_forward(stage, stages, accumulation):
    return [(phase, number) for phase in ("forward", "backward") for number in range(accumulation)]


@pytest.mark.parametrize(
    ("check", "answer"),
    [
        (exercises.check_state_bytes, state_bytes), (exercises.check_together, together),
        (exercises.check_order, one_forward_one_backward), (exercises.check_iteration_time, iteration_time),
        (exercises.check_front, front),
    ],
)  # fmt: skip
def test_right_answers_pass(check, answer):
    check(answer)


@pytest.mark.parametrize(
    ("check", "answer", "hint"),
    [
        (exercises.check_state_bytes, lambda n, dp, zero: 16 * n, "from ZeRO-1 on"),
        (exercises.check_state_bytes, lambda n, dp, zero: state_bytes(n, dp, min(zero, 2)), "splits weights, too"),
        (exercises.check_state_bytes, lambda n, dp, zero: 14 * n, "it should be"),
        (exercises.check_together, lambda x, y, a, b: max(x, y) / 2, "faster than it is alone"),
        (exercises.check_together, lambda x, y, a, b: max(x * a, y * b) if x and y else x + y, "goes on at full speed"),
        (exercises.check_together, lambda x, y, a, b: x * a, "not slowed down|at full speed|faster"),
        (exercises.check_order, first_all_forward, "1F1B needs"),
        (exercises.check_order, lambda *_: [], "make 16 passes"),
        (exercises.check_iteration_time, lambda t, d, g: g * t, "travel through all stages|event simulation"),
        (exercises.check_iteration_time, lambda t, d, g: (g - 1) * t + len(d) * t + max(d) + t / 9, "event simulation"),
        (exercises.check_front, lambda points: points, "beaten by another"),
        (exercises.check_front, lambda points: [min(points)], "are missing"),
    ],
)
def test_wrong_answers_get_a_hint(check, answer, hint):
    with pytest.raises(ExerciseError, match=hint):
        check(answer)
