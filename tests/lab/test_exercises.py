"""Exercises of every notebook: solutions pass, stubs fail, and a wrong solution gets a hint."""

import nbformat
import pytest

from paperlab.lab import exercises
from paperlab.lab.exercises import ExerciseError, tagged
from paperlab.lab.notebooks import notebook_names, notebook_path
from paperlab.tempo import exercises as tempo_checks

WITH_EXERCISES = [
    name for name in notebook_names() if tagged(nbformat.read(notebook_path(name), as_version=4), "solution")
]


def run_exercises(node):
    """Run the cells tagged setup, solution and check in order; return the errors of the checks."""
    scope, errors = {}, []
    for cell in node.cells:
        tags = set(cell.metadata.get("tags", []))
        if tags & {"setup", "solution"}:
            exec(cell.source, scope)
        elif "check" in tags:
            try:
                exec(cell.source, scope)
            except (NotImplementedError, ExerciseError) as error:
                errors.append(error)
    return errors


@pytest.mark.parametrize("name", WITH_EXERCISES)
def test_solutions_pass_and_stubs_fail(name, capsys):
    teacher = nbformat.read(notebook_path(name), as_version=4)
    count = len(tagged(teacher, "check"))
    assert count == len(tagged(teacher, "solution")) > 0
    assert run_exercises(teacher) == []
    assert [type(error) for error in run_exercises(exercises.student_copy(name))] == [NotImplementedError] * count


def test_idea_notebooks_have_at_least_four_exercises():
    for name in notebook_names():
        if name.endswith("_idea"):
            assert len(tagged(nbformat.read(notebook_path(name), as_version=4), "solution")) >= 4


@pytest.mark.parametrize(
    ("check", "wrong", "hint"),
    [
        (tempo_checks.check_attention_bytes, lambda b, a, s: 13 * b * a * s * s, "modern torch keeps no input"),
        (tempo_checks.check_attention_bytes, lambda b, a, s: 5 * b * a * s * s, "three tensors are kept"),
        (tempo_checks.check_attention_bytes, lambda b, a, s: 9 * b * s, "units of B·A·S²"),
        (tempo_checks.check_invert_gelu, lambda y: y, "off by up to"),
        (tempo_checks.check_invert_gelu, lambda y: y - 5, "other branch"),
        (tempo_checks.check_layernorm_backward, lambda dy, y, r, g, b: dy * g * r, "two means"),
        (tempo_checks.check_layernorm_backward, lambda dy, y, r, g, b: dy, "x-hat is"),
        (
            tempo_checks.check_attention_backward,
            lambda d, P, m, v, p: (P, (P * m).T @ d),
            r"did you scale by 1 / \(1 - p\)",
        ),
        (
            tempo_checks.check_attention_backward,
            lambda d, P, m, v, p: (P, (P * m / (1 - p)).T @ d),
            "softmax's gradient is",
        ),
    ],
)
def test_wrong_solutions_get_a_hint(check, wrong, hint):
    with pytest.raises(ExerciseError, match=hint):
        check(wrong)
