"""Planar rectangles: grasps along the optical axis where the depth image falls off on two sides."""

from __future__ import annotations

import numpy as np

from paperlab.rgbd_grasp.baselines.observation import Observation
from paperlab.rgbd_grasp.geometry.checks import Floats
from paperlab.rgbd_grasp.geometry.grasp import GraspGroup
from paperlab.rgbd_grasp.geometry.gripper import FINGER_M, MAX_WIDTH_M
from paperlab.rgbd_grasp.geometry.rect_grasp import RectGraspGroup
from paperlab.rgbd_grasp.search.pipeline import Ranked

_EDGE_M = 0.015  # how far the surface must fall off beside the object for a finger to go down there
_CLEARANCE_M = 0.005
_STEP_M = 0.0025
_STEPS = round((MAX_WIDTH_M + FINGER_M) / _STEP_M)  # a place may lie anywhere between the edges


def rectangles(observation: Observation, rng: np.random.Generator, angles: int = 6) -> RectGraspGroup:
    """Return rectangles at random places of the workspace, those that the depth falls off steepest around best.

    From each place the depth is followed outward at `angles` directions; where it grows by 1.5 cm on both sides there
    are edges, and the rectangle is centered between them, with 5 mm of clearance.
    """
    camera = observation.camera
    places = np.repeat(observation.seeds(observation.settings.decoding.top_seeds, rng), angles, axis=0)
    turn = np.tile(np.arange(angles) * np.pi / angles, len(places) // angles)
    direction = np.stack([np.cos(turn), np.sin(turn), np.zeros(len(turn))], axis=-1)
    fall = np.stack([_profile(observation, places, side * direction) for side in (-1, 1)]) - places[:, 2, None]
    off = fall > _EDGE_M
    first = off[..., 1:].argmax(axis=2) + 1
    half = first * _STEP_M
    width = half.sum(axis=0) + 2 * _CLEARANCE_M
    # A cell's middle may miss what its median depth belongs to: then the very place has fallen off.
    good = off[..., 1:].any(axis=2).all(axis=0) & ~off[0, :, 0] & (width <= MAX_WIDTH_M)
    centers = places + ((half[1] - half[0]) / 2)[:, None] * direction
    opens = centers + (width / 2)[:, None] * direction
    scores = np.take_along_axis(fall, first[..., None], axis=2)[..., 0].min(axis=0) + 1e-6 * rng.random(len(places))
    height = 0.02 / places[:, 2] * camera.fx
    parts = [
        camera.project(centers),
        camera.project(opens),
        height[:, None],
        scores[:, None],
        np.full((len(places), 1), -1.0),
    ]
    return RectGraspGroup(np.concatenate(parts, axis=1)[good])


def _profile(observation: Observation, places: Floats, direction: Floats) -> Floats:
    """Return the depth (N, steps) seen from `places` (N, 3) on, every 2.5 mm outward; the place's own in holes."""
    camera, depth = observation.camera, observation.depth_m
    steps = np.arange(_STEPS)[:, None] * _STEP_M
    points = places[:, None] + steps * direction[:, None]
    u, v = np.round(camera.project(points.reshape(-1, 3))).astype(int).T
    inside = (u >= 0) & (u < camera.width) & (v >= 0) & (v < camera.height)
    seen = np.where(inside, depth[v.clip(0, camera.height - 1), u.clip(0, camera.width - 1)], 0.0)
    return np.where(seen > 0, seen, np.repeat(places[:, 2], _STEPS)).reshape(len(places), _STEPS)


def planar_grasps(observation: Observation, rng: np.random.Generator, angles: int = 6) -> Ranked:
    """Return the rectangles as grasps along the optical axis, suppressed and ranked; no search follows.

    Grasp points lie on the surface that is seen at each rectangle's center, fingertips 2 cm below.
    """
    found = rectangles(observation, rng, angles)
    grasps = found.to_grasp_group(observation.camera, observation.depth_m * 1000.0) if len(found) else None
    kept = (grasps or GraspGroup()).nms()[: observation.settings.top_grasps]
    return Ranked(kept, observation.workspace.kind, {"rectangles": len(found), "grasps": len(kept)})
