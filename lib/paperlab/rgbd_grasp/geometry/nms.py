"""Non-maximum suppression of grasp poses."""

from __future__ import annotations

import numpy as np
from scipy.spatial import cKDTree

from paperlab.rgbd_grasp.geometry.checks import Floats, Ints, floats

TRANSLATION_M = 0.03  # the evaluator's thresholds
ROTATION_RAD = np.pi / 6


def pose_nms(array: Floats, translation_m: float = TRANSLATION_M, rotation_rad: float = ROTATION_RAD) -> Ints:
    """Return the rows of grasps (N, 17) that survive, best first.

    A grasp falls to a better one that is nearer than *both* thresholds; the twin of a grasp, half a turn about the
    approach axis away, does not count as near. Among equal scores the earlier row goes first.
    """
    grasps = floats("grasps", array, None, 17)
    order = np.argsort(-grasps[:, 0], kind="stable")
    rotation, position = grasps[order, 4:13], grasps[order, 13:16]
    alive = np.ones(len(order), dtype=bool)
    tree = cKDTree(position)
    for i in range(len(order)):
        if not alive[i]:
            continue
        near = np.array(tree.query_ball_point(position[i], translation_m * (1 + 1e-9)), dtype=int)
        near = near[alive[near] & (near > i)]
        near = near[np.linalg.norm(position[near] - position[i], axis=1) < translation_m]
        trace = np.clip(rotation[near] @ rotation[i], -1.0, 3.0)
        alive[near[np.arccos((trace - 1.0) / 2.0) < rotation_rad]] = False
    return order[alive]
