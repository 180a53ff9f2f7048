"""Evaluation of one frame's grasps: selection, collisions, force closure, precision."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from scipy.spatial import cKDTree

from paperlab.rgbd_grasp.evaluation.precision import TOP_K, precision_at
from paperlab.rgbd_grasp.evaluation.scene import Frame
from paperlab.rgbd_grasp.geometry.checks import Bools, Floats, Ints
from paperlab.rgbd_grasp.geometry.grasp import GraspGroup
from paperlab.rgbd_grasp.geometry.gripper import MAX_WIDTH_M, collisions
from paperlab.rgbd_grasp.geometry.nms import pose_nms
from paperlab.rgbd_grasp.geometry.rotations import inverse, move
from paperlab.rgbd_grasp.labels.force_closure import NO_CLOSURE, smallest_friction

PER_OBJECT = 10


@dataclass(frozen=True, eq=False)
class Evaluated:
    """The grasps that were judged, best confidence first, and the verdicts."""

    rows: Ints  # (M,) of the grasps that were handed in
    objects: Ints  # (M,) index of the object
    collided: Bools  # (M,) empty ones included
    empty: Bools  # (M,)
    frictions: Floats  # (M,) smallest friction coefficient in force closure, -1 for none and where collided
    precision: Floats  # (50, 6) among the best k grasps, by friction coefficient

    @property
    def counts(self) -> dict[str, int]:
        """How many were judged, collided, were empty, and are held at the largest friction."""
        held = int((self.frictions > 0).sum())
        collided = int((self.collided & ~self.empty).sum())
        return {"judged": len(self.rows), "collided": collided, "empty": int(self.empty.sum()), "held": held}


def nearest_objects(frame: Frame, points: Floats) -> Ints:
    """Return the index (N,) of the object that owns the model point nearest to each of `points` (N, 3)."""
    owner = np.repeat(np.arange(len(frame.clouds)), [len(cloud) for cloud in frame.clouds])
    return owner[cKDTree(np.concatenate(frame.clouds)).query(points)[1]]


def select(frame: Frame, grasps: GraspGroup) -> tuple[Ints, Ints]:
    """Return which rows of `grasps` are judged, and the object of each: object by object, best score first.

    After pose suppression each object keeps its best 10; of all these stay the ones that score at least as well as
    the 50th, or as the last where there are fewer.
    """
    rows = pose_nms(grasps.grasp_group_array)  # best first
    if not len(rows):
        return rows, rows
    objects = nearest_objects(frame, grasps.translations[rows])
    best = [np.flatnonzero(objects == i)[:PER_OBJECT] for i in range(len(frame.clouds))]
    kept = np.concatenate(best)
    scores = grasps.scores[rows[kept]]
    threshold = np.sort(scores)[::-1][min(TOP_K, len(scores)) - 1]
    kept = kept[scores >= threshold]
    return rows[kept], objects[kept]


def closing_frictions(frame: Frame, index: int, grasps: GraspGroup) -> Floats:
    """Return the smallest friction (N,) at which grasps, in the camera's frame, hold one object; -1 for none."""
    to_object = inverse(np.asarray(frame.poses)[index])
    rotations = to_object[:3, :3] @ grasps.rotation_matrices
    centers = move(grasps.translations, to_object) + grasps.depths[:, None] * rotations[:, :, 0]
    return smallest_friction(frame.objects[index].contacts(centers, rotations[:, :, 1], grasps.widths))


def evaluate(frame: Frame, grasps: GraspGroup) -> Evaluated:
    """Judge ranked grasps, in the camera's frame, as GraspNet-1Billion's evaluator does.

    Widths are clipped to [0, 0.1] m first; `grasps` itself is left as it is.
    """
    clipped = grasps[:]
    clipped.widths = np.clip(clipped.widths, 0.0, MAX_WIDTH_M)
    rows, objects = select(frame, clipped)
    chosen = clipped[rows]
    collided, empty = np.zeros((2, len(rows)), dtype=bool)
    frictions = np.full(len(rows), NO_CLOSURE)
    for index in np.unique(objects):
        mine = np.flatnonzero(objects == index)
        verdict = collisions(chosen[mine], frame.surroundings[index])
        collided[mine], empty[mine] = verdict.unusable, verdict.empty
        free = mine[~collided[mine]]
        frictions[free] = closing_frictions(frame, int(index), chosen[free])
    order = np.argsort(-chosen.scores, kind="stable")
    verdicts = frictions[order]
    return Evaluated(rows[order], objects[order], collided[order], empty[order], verdicts, precision_at(verdicts))
