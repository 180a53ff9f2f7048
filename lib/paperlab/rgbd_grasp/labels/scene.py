"""Labels of a scene: its objects' grasps where the objects stand, without those that something is in the way of."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from numpy.typing import ArrayLike

from paperlab.rgbd_grasp.geometry.checks import Bools, Floats, floats
from paperlab.rgbd_grasp.geometry.grasp import GraspGroup
from paperlab.rgbd_grasp.geometry.gripper import collisions, crop
from paperlab.rgbd_grasp.geometry.rotations import check_transform


def place(grasps: Sequence[GraspGroup], poses: ArrayLike) -> GraspGroup:
    """Return grasps of objects, in their frames, as one group in the frame of `poses` (n, 4, 4), with object ids."""
    motions = floats("poses", poses, len(grasps), 4, 4)
    placed = GraspGroup()
    for index, (group, pose) in enumerate(zip(grasps, motions, strict=True)):
        moved = group[:].transform(check_transform("poses", pose))
        moved.object_ids = np.full(len(moved), index)
        placed.add(moved)
    return placed


def scene_collisions(grasps: GraspGroup, clouds: Sequence[Floats], table: Floats | None = None) -> Bools:
    """Return which grasps (N,) hit the objects' `clouds` or the `table`, or are empty, as the evaluator judges.

    Everything is in one frame; each grasp's object id is its index in `clouds`, and only what is within 5 cm of that
    object's bounding box counts, as in the evaluator. Clouds should be voxel averages of 8 mm.
    """
    blocked = np.zeros(len(grasps), dtype=bool)
    points = np.concatenate([*clouds, *([] if table is None else [table])])
    ids = grasps.object_ids.astype(int)
    if len(ids) and not 0 <= ids.min() <= ids.max() < len(clouds):
        raise ValueError(f"object_ids: got {ids.min()} to {ids.max()}, there are {len(clouds)} objects")
    for index in np.unique(ids):
        mine = np.flatnonzero(ids == index)
        blocked[mine] = collisions(grasps[mine], crop(points, clouds[index])).unusable
    return blocked
