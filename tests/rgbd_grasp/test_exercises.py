"""Right answers pass, and typical wrong ones get a hint that names the mistake; the what-if panel follows geometry."""

from __future__ import annotations

import numpy as np
import pytest

from paperlab.lab.exercises import ExerciseError
from paperlab.rgbd_grasp import exercises
from paperlab.rgbd_grasp.evaluation.precision import frame_ap, precision_at
from paperlab.rgbd_grasp.geometry.rotations import symmetric_distance
from paperlab.rgbd_grasp.what_if import candidates, seen_from_above


def back_project(u, v, z, K):
    return z * (np.linalg.inv(K) @ np.array([u, v, 1.0]))


def angle(a, b):
    return np.rad2deg(symmetric_distance(a, b))


def in_finger(points, width, depth, *, sides=True, tips=True, high=True):
    x, y, z = points.T
    y = np.abs(y) if sides else y
    inside = (y > width / 2) & (y < width / 2 + 0.01) & (x > depth - 0.06)
    inside &= (x < depth) if tips else True
    return bool((inside & ((np.abs(z) < 0.01) if high else True)).any())


def choose(free, distances, widths):
    rows = np.flatnonzero(free.any(axis=1))
    return (int(rows[0]), int(np.flatnonzero(free[rows[0]])[-1])) if len(rows) else None


def ap(frictions):
    return 100 * frame_ap(precision_at(frictions)[None])[0, 0]


@pytest.mark.parametrize(
    ("check", "answer"),
    [
        (exercises.check_back_project, back_project),
        (exercises.check_same_grasp, angle),
        (exercises.check_collides, in_finger),
        (exercises.check_choose, choose),
        (exercises.check_ap, ap),
    ],
)
def test_right_answers_pass(check, answer):
    check(answer)


@pytest.mark.parametrize(
    ("check", "answer", "hint"),
    [
        (exercises.check_back_project, lambda u, v, z, K: np.array([u * z / K[0, 0], v * z / K[1, 1], z]), "principal"),
        (
            exercises.check_back_project,
            lambda u, v, z, K: back_project(u, v, z, K) / np.linalg.norm(back_project(u, v, z, K)) * z,
            "length of the ray",
        ),
        (
            exercises.check_same_grasp,
            lambda a, b: np.rad2deg(np.arccos(np.clip((np.trace(a.T @ b) - 1) / 2, -1, 1))),
            "both twins",
        ),
        (exercises.check_collides, lambda p, w, d: in_finger(p, w, d, sides=False), "two fingers"),
        (exercises.check_collides, lambda p, w, d: in_finger(p, w, d, tips=False), "beyond the fingertips"),
        (exercises.check_collides, lambda p, w, d: in_finger(p, w, d, high=False), "2 cm high"),
        (exercises.check_choose, lambda f, d, w: choose(f[::-1], d, w), "free|distance comes first"),
        (
            exercises.check_choose,
            lambda f, d, w: (int(np.argwhere(f)[0][0]), int(np.argwhere(f)[0][1])) if f.any() else None,
            "widest",
        ),
        (exercises.check_ap, lambda f: 100 * np.mean([(np.asarray(f) > 0).mean() if len(f) else 0]), "mean over k"),
    ],
)
def test_wrong_answers_get_a_hint(check, answer, hint):
    with pytest.raises(ExerciseError, match=hint):
        check(answer)


def test_a_neighbor_takes_the_wide_openings():
    alone, beside = candidates(4, 10), candidates(4, 2)
    widths = [set(np.flatnonzero((~f.hit & ~f.empty)[0].any(axis=0))) for f in (alone, beside)]
    assert widths[1] < widths[0]
    assert not len(candidates(4, 0.5).seeds)  # no finger fits between
    assert not len(candidates(12, 10).seeds)  # nor around


def test_what_if_tells_bad_values():
    with pytest.raises(ValueError, match="side_cm is 0"):
        seen_from_above(0, 1)
