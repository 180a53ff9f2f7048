"""The evaluator's collision test: boxes for fingers and palm against all points of models and table."""

from __future__ import annotations

import numpy as np

from paperlab.rgbd_grasp.geometry.checks import Bools, Floats
from paperlab.rgbd_grasp.geometry.grasp import HEIGHT_M, GraspGroup

FINGER_M = 0.01  # thickness of a finger, and of the palm
BASE_M = 0.02  # from the grasp point back to the palm
_FEWEST_INSIDE = 10  # points between the fingers, or the grasp is empty


def crop(points: Floats, around: Floats, margin_m: float = 0.05) -> Floats:
    """Return the points (N, 3) inside the box around a cloud, in the same frame, widened by `margin_m` on all sides."""
    low, high = around.min(axis=0) - margin_m, around.max(axis=0) + margin_m
    return points[((points > low) & (points < high)).all(axis=1)]


def collisions(grasps: GraspGroup, points: Floats) -> tuple[Bools, Bools]:
    """Return which grasps (N,) collide with `points` (P, 3), a single one being enough, and which are empty.

    Empty means fewer than 10 points between the fingers; the evaluator counts those as collisions, too.
    """
    collided, empty = np.zeros((2, len(grasps)), dtype=bool)
    rotations = grasps.rotation_matrices
    for i, (width, depth, position) in enumerate(zip(grasps.widths, grasps.depths, grasps.translations, strict=True)):
        x, y, z = ((points - position) @ rotations[i]).T
        level = np.abs(z) < HEIGHT_M / 2
        x, y = x[level], np.abs(y[level])
        along_fingers = (x > -BASE_M) & (x < depth)
        reached = y < width / 2 + FINGER_M
        beside = along_fingers & (y > width / 2) & reached
        palm = (x > -(BASE_M + FINGER_M)) & (x < -BASE_M) & reached
        collided[i] = beside.any() or palm.any()
        empty[i] = np.count_nonzero(along_fingers & (y <= width / 2)) < _FEWEST_INSIDE
    return collided | empty, empty
