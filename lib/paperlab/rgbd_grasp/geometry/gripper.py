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
_CHUNK = 200  # grasps at a time, to bound memory and stay in the processor's cache


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


def pairs_within(centers: Floats, cloud: Floats | cKDTree, radius_m: float | Floats) -> tuple[Ints, Ints]:
    """Return the pairs (rows of `centers` (N, 3), rows of `cloud` (P, 3)) that are within `radius_m` of each other.

    The radius is one for all, or one for each center (N,). A cloud that is asked again and again comes as its tree.
    """
    tree = cloud if isinstance(cloud, cKDTree) else cKDTree(cloud)
    if not len(centers) or not tree.n:
        return np.zeros(0, dtype=int), np.zeros(0, dtype=int)
    near = cKDTree(centers).sparse_distance_matrix(tree, float(np.max(radius_m)), output_type="ndarray")
    center, point = near["i"].copy(), near["j"].copy()  # apart from each other, which makes what follows faster
    if np.ndim(radius_m):
        kept = near["v"] <= np.asarray(radius_m)[center]
        center, point = center[kept], point[kept]
    return center, point


def in_grasp_frames(
    grasps: GraspGroup, cloud: Floats, pairs: tuple[Ints, Ints], level_m: Floats | float = HEIGHT_M / 2
) -> tuple[Ints, Ints, Floats]:
    """Return the pairs (grasps, points) whose point is within `level_m` of the grasp's middle plane, and where it is.

    `level_m` is one for all, or one for each grasp. The third result, (3, pairs), is in the grasps' frames.
    """
    grasp, point = pairs
    # Coordinate by coordinate it is several times as fast as with arrays of vectors.
    at, points, axes = (np.ascontiguousarray(a.T) for a in (grasps.translations, cloud, grasps.rotation_matrices))
    offsets = [p[point] - a[grasp] for p, a in zip(points, at, strict=True)]

    def along(k: int) -> Floats:
        x, y, z = (offset * axis[grasp] for offset, axis in zip(offsets, axes[k], strict=True))
        return x + y + z

    across = along(2)
    level = np.abs(across) < np.broadcast_to(level_m, len(grasps))[grasp]
    grasp, point, offsets = grasp[level], point[level], [offset[level] for offset in offsets]
    return grasp, point, np.stack([along(0), along(1), across[level]])


def collisions(grasps: GraspGroup, cloud: Floats | cKDTree) -> Collisions:
    """Return which grasps hit a point of `cloud` (P, 3), and which have fewer than 10 of them in between."""
    tree = cloud if isinstance(cloud, cKDTree) else cKDTree(cloud)
    counts = np.zeros((2, len(grasps)), dtype=int)
    for start in range(0, len(grasps), _CHUNK):
        chunk = slice(start, start + _CHUNK)
        counts[:, chunk] = _counts(grasps[chunk], tree)
    return Collisions(counts[0] > 0, counts[1] < FEWEST_INSIDE)


def _counts(grasps: GraspGroup, tree: cKDTree) -> Floats:
    """Return how many points lie in the gripper's boxes and how many between its fingers (2, N)."""
    depths, half, back = grasps.depths, grasps.widths / 2, BASE_M + FINGER_M
    middles = grasps.translations + ((depths - back) / 2)[:, None] * grasps.rotation_matrices[:, :, 0]
    reach = np.sqrt(((depths + back) / 2) ** 2 + (half + FINGER_M) ** 2 + (HEIGHT_M / 2) ** 2) + 1e-6
    grasp, _, (x, y, _) = in_grasp_frames(grasps, tree.data, pairs_within(middles, tree, reach))
    y = np.abs(y)
    along_fingers = (x > -BASE_M) & (x < depths[grasp])
    reached = y < half[grasp] + FINGER_M
    beside = along_fingers & (y > half[grasp]) & reached
    palm = (x > -back) & (x < -BASE_M) & reached
    inside = along_fingers & (y <= half[grasp])
    return np.stack([np.bincount(grasp[mask], minlength=len(grasps)) for mask in (beside | palm, inside)])
