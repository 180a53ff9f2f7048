"""The gripper model of Fast Analytic Searching: boxes against an observed cloud, no object models.

In the gripper's frame, with d the grasp's depth: fingers of thickness f reach from x = d - L to d outside the opening;
behind them lie the palm, f thick, and the way along which the gripper comes. All are as high as the fingers.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from paperlab.rgbd_grasp.geometry.checks import Bools, Floats, Ints
from paperlab.rgbd_grasp.geometry.grasp import HEIGHT_M, GraspGroup
from paperlab.rgbd_grasp.geometry.gripper import in_grasp_frames, pairs_within


@dataclass(frozen=True)
class Detector:
    """Sizes in meters and thresholds, as shares of a region's volume in voxels; defaults are the released code's."""

    voxel_m: float = 0.005  # at which the cloud is averaged
    finger_length_m: float = 0.06
    finger_m: float = 0.01  # thickness; the code's GPU variant has 0.015
    approach_m: float = 0.05  # the way that must be free behind the palm
    collision_share: float = 0.001
    empty_share: float = 0.01  # the code's demo has 0.1

    def __post_init__(self) -> None:
        if min(self.voxel_m, self.finger_length_m, self.finger_m) <= 0 or self.approach_m < 0:
            raise ValueError(f"Detector: lengths must be positive, got {self}")
        if not (0 <= self.collision_share < 1 and 0 <= self.empty_share < 1):
            raise ValueError(f"Detector: shares must lie in [0, 1), got {self}")

    @property
    def behind_m(self) -> float:
        """How far palm and approach reach back from the fingers' rear end."""
        return self.finger_m + max(self.approach_m, self.finger_m)

    def blocked_voxels(self, widths: Floats) -> Floats:
        """Return the volume, in voxels, of fingers, palm and approach at each of `widths`."""
        f, outer = self.finger_m, widths + 2 * self.finger_m
        return HEIGHT_M * (2 * self.finger_length_m * f + outer * self.behind_m) / self.voxel_m**3

    def inner_voxels(self, widths: Floats) -> Floats:
        """Return the volume, in voxels, between the fingers at each of `widths`."""
        return HEIGHT_M * self.finger_length_m * widths / self.voxel_m**3

    def verdicts(self, blocked: Floats | Ints, inner: Floats | Ints, widths: Floats) -> tuple[Bools, Bools]:
        """Return what collides and what is empty, from point counts in the blocked regions and between the fingers."""
        hit = blocked > self.collision_share * self.blocked_voxels(widths)
        return hit, inner < self.empty_share * self.inner_voxels(widths)


def points_nearby(
    grasps: GraspGroup,
    cloud: Floats,
    detector: Detector,
    width_m: float,
    slack_m: float = 0.0,
    level_m: Floats | float = HEIGHT_M / 2,
) -> tuple[Ints, Floats]:
    """Return pairs of grasps and points that may touch: grasp rows (P,) and points in the grasps' frames (3, P).

    Grasps may move by `slack_m`; `level_m`, one for all or one for each (N,), bounds how far points lie from their
    middle planes.
    """
    rotations, length = grasps.rotation_matrices, detector.finger_length_m + detector.behind_m
    middles = grasps.translations + (grasps.depths - length / 2)[:, None] * rotations[:, :, 0]
    corner = (length / 2, width_m / 2 + detector.finger_m, HEIGHT_M / 2)
    row, point = pairs_within(middles, cloud, float(np.linalg.norm(corner)) + slack_m + 1e-6)
    row, _, local = in_grasp_frames(grasps, cloud, (row, point), level_m)
    return row, local


def detect(grasps: GraspGroup, cloud: Floats, detector: Detector | None = None) -> tuple[Bools, Bools]:
    """Return which grasps (N,) collide with an observed cloud (P, 3), and which have too little between the fingers.

    The cloud should be averaged over voxels of `detector.voxel_m`. This is the filter that GraspNet's baseline runs
    on its predictions; to judge any method with and without it, keep the grasps that are neither.
    """
    detector = detector or Detector()
    row, local = points_nearby(grasps, cloud, detector, float(grasps.widths.max(initial=0.0)))
    front, half = grasps.depths[row], grasps.widths[row] / 2
    x, y = local[0], np.abs(local[1])
    fingers = (x > front - detector.finger_length_m) & (x < front)
    rear = front - detector.finger_length_m
    behind = (x <= rear) & (x > rear - detector.behind_m)
    reached = y < half + detector.finger_m
    blocked = (behind & reached) | (fingers & reached & (y > half))
    counts = [np.bincount(row[mask], minlength=len(grasps)) for mask in (blocked, fingers & (y <= half))]
    return detector.verdicts(counts[0], counts[1], grasps.widths)
