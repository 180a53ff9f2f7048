"""The data set's parallel-jaw gripper as boxes, and what they hit.

In the gripper's frame, the grasp point at the origin, fingers reach from x = -2 cm to x = depth and touch the opening
at |y| = width/2; the palm closes them behind. All are 2 cm high along z.
"""

from __future__ import annotations

from typing import NamedTuple

import numpy as np
from scipy.spatial import cKDTree

from paperlab.rgbd_grasp.geometry.checks import Bools, Floats, Ints
from paperlab.rgbd_grasp.geometry.grasp import HEIGHT_M, GraspGroup

FINGER_M = 0.01  # thickness of a finger, and of the palm
BASE_M = 0.02  # from the grasp point back to the palm
MAX_WIDTH_M = 0.1
FEWEST_INSIDE = 10  # points between the fingers, or the grasp is empty
_CHUNK = 2000  # grasps at a time, to bound memory


class Collisions(NamedTuple):
    """Which grasps (N,) hit something, and between whose fingers there is nothing."""

    hit: Bools
    empty: Bools

    @property
    def unusable(self) -> Bools:
        """What the evaluator calls a collision: hit or empty."""
        return self.hit | self.empty


def crop(points: Floats, around: Floats, margin_m: float = 0.05) -> Floats:
    """Return the points (N, 3) inside the box around a cloud, in the same frame, widened by `margin_m` on all sides."""
    low, high = around.min(axis=0) - margin_m, around.max(axis=0) + margin_m
    return points[((points > low) & (points < high)).all(axis=1)]


def pairs_within(centers: Floats, points: Floats, radius_m: float) -> tuple[Ints, Ints]:
    """Return the pairs (rows of `centers` (N, 3), rows of `points` (P, 3)) that are within `radius_m` of each other."""
    if not len(centers) or not len(points):
        return np.zeros(0, dtype=int), np.zeros(0, dtype=int)
    near = cKDTree(centers).sparse_distance_matrix(cKDTree(points), radius_m, output_type="ndarray")
    return near["i"], near["j"]


def collisions(grasps: GraspGroup, points: Floats) -> Collisions:
    """Return which grasps hit `points` (P, 3), a single one being enough, and have fewer than 10 in between."""
    counts = np.zeros((2, len(grasps)), dtype=int)
    for start in range(0, len(grasps), _CHUNK):
        chunk = slice(start, start + _CHUNK)
        counts[:, chunk] = _counts(grasps[chunk], points)
    return Collisions(counts[0] > 0, counts[1] < FEWEST_INSIDE)


def _counts(grasps: GraspGroup, points: Floats) -> Floats:
    """Return how many points lie in the gripper's boxes and how many between its fingers (2, N)."""
    at, depths, half = grasps.translations, grasps.depths, grasps.widths / 2
    axes = [np.ascontiguousarray(grasps.rotation_matrices[:, :, k]) for k in range(3)]
    back = BASE_M + FINGER_M
    middles = at + ((depths - back) / 2)[:, None] * axes[0]
    reach = np.sqrt(((depths + back) / 2) ** 2 + (half + FINGER_M) ** 2 + (HEIGHT_M / 2) ** 2) + 1e-6
    grasp, point = pairs_within(middles, points, float(reach.max(initial=0.0)))

    def along(k: int) -> Floats:
        # Column by column it is twice as fast as with arrays of vectors.
        return sum((points[point, i] - at[grasp, i]) * axes[k][grasp, i] for i in range(3))

    level = np.abs(along(2)) < HEIGHT_M / 2
    grasp, point = grasp[level], point[level]
    x, y = along(0), np.abs(along(1))
    along_fingers = (x > -BASE_M) & (x < depths[grasp])
    reached = y < half[grasp] + FINGER_M
    beside = along_fingers & (y > half[grasp]) & reached
    palm = (x > -back) & (x < -BASE_M) & reached
    inside = along_fingers & (y <= half[grasp])
    return np.stack([np.bincount(grasp[mask], minlength=len(grasps)) for mask in (beside | palm, inside)])
