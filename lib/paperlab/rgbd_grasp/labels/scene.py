"""Labels of a scene: its objects' grasps where the objects stand, without those that something is in the way of."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from numpy.typing import ArrayLike

from paperlab.rgbd_grasp.geometry.checks import Bools, Floats, floats
from paperlab.rgbd_grasp.geometry.grasp import GraspGroup
from paperlab.rgbd_grasp.geometry.gripper import collisions, crop
from paperlab.rgbd_grasp.geometry.rotations import check_transform
from paperlab.rgbd_grasp.labels.grid import ObjectLabels


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


def scene_collision_labels(
    labels: Sequence[ObjectLabels],
    views: Floats,
    poses: ArrayLike,
    clouds: Sequence[Floats],
    table: Floats | None = None,
) -> list[Bools]:
    """Return the data set's collision labels of a scene: one array (P, V, A, D) per object.

    `views` (V, 3) are those of the labels, `poses` (n, 4, 4) the objects', in the frame of `clouds` and `table`. Only
    what is in force closure and free on the object alone is tried in the scene; everything else counts as collision.
    """
    good = [(item.scores > 0) & ~item.collision for item in labels]
    grasps = place([item.grasps(views, np.inf) for item in labels], poses)
    blocked = scene_collisions(grasps, clouds, table)
    masks = [~free for free in good]
    for mask, free, part in zip(masks, good, np.split(blocked, np.cumsum([m.sum() for m in good])[:-1]), strict=True):
        mask[free] = part
    return masks
