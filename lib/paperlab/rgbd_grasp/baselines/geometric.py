"""Methods without learning: random orientations, surface normals, and an antipodal sampler on the observed cloud."""

from __future__ import annotations

import numpy as np

from paperlab.rgbd_grasp.baselines.observation import Observation
from paperlab.rgbd_grasp.geometry.anchors import Anchors
from paperlab.rgbd_grasp.geometry.checks import Floats
from paperlab.rgbd_grasp.geometry.grasp import GraspGroup
from paperlab.rgbd_grasp.geometry.gripper import BASE_M, MAX_WIDTH_M, in_grasp_frames, pairs_within
from paperlab.rgbd_grasp.geometry.rotations import view_rotations
from paperlab.rgbd_grasp.search.fas import search_grasps
from paperlab.rgbd_grasp.search.pipeline import Ranked, grasps_from_seeds

_CONTACT_M = 0.01  # how deep behind the outermost point a finger presses, for counting contacts


def _seeds(observation: Observation, rotations: Floats, points: Floats, scores: Floats) -> GraspGroup:
    depth = observation.settings.decoding.depth_m
    return GraspGroup.from_parts(rotations, points, scores=scores, widths=MAX_WIDTH_M, depths=depth)


def random_orientation(observation: Observation, anchors: Anchors, rng: np.random.Generator) -> Ranked:
    """Search around random orientations at random places of the workspace, ranked at random."""
    points = observation.seeds(observation.settings.decoding.top_seeds, rng)
    rotations = anchors.rotations[rng.integers(len(anchors), size=len(points))]
    return grasps_from_seeds(
        _seeds(observation, rotations, points, rng.random(len(points))),
        observation.cloud,
        observation.settings,
        observation.workspace.kind,
    )


def surface_normal(observation: Observation, rng: np.random.Generator, *, places: int = 100, angles: int = 6) -> Ranked:
    """Approach against the surface's normal at random places, at `angles` in-plane angles; flat places come first.

    The score is how well the normals around agree with the place's own.
    """
    at = observation.seeds(places, rng)
    normal = observation.frames_at(at)[:, :, 0]
    flatness = np.einsum("nki,ni->nk", observation.normals[observation.nearest(at)], normal).mean(axis=1)
    turns = np.tile(np.arange(angles) * np.pi / angles, len(at))
    rotations = view_rotations(np.repeat(-normal, angles, axis=0), turns)
    scores = np.repeat(flatness, angles) + 1e-6 * rng.random(len(turns))  # ties fall at random
    seeds = _seeds(observation, rotations, np.repeat(at, angles, axis=0), scores)
    return grasps_from_seeds(seeds, observation.cloud, observation.settings, observation.workspace.kind)


def antipodal_sampler(
    observation: Observation, rng: np.random.Generator, *, places: int = 50, angles: int = 8, friction: float = 0.4
) -> Ranked:
    """Sample as GPD does: frames of the surface at random places, turned about the normal and about the curvature.

    About the normal the gripper comes straight down on the surface; about the axis of less curvature it closes along
    the curve, approaching within 90° of the normal. The search sets opening and distance. A survivor's score is the
    `antipodality` that is seen, plus how well it comes along the line of sight: where the camera sees past an object
    there is room for the gripper, and a face in its shadow may still be there to hold.
    """
    normal, most, least = np.moveaxis(observation.frames_at(at := observation.seeds(places, rng)), 2, 0)
    turn = np.arange(angles) * np.pi / angles
    spread = turn + (np.pi / angles - np.pi) / 2  # from -90° to 90°, centered on the normal
    cos, sin = (f(np.stack([turn, spread]))[:, :, None, None] for f in (np.cos, np.sin))
    approach = np.stack([np.broadcast_to(-normal, (angles, *normal.shape)), -(cos[1] * normal + sin[1] * most)])
    closing = np.stack([cos[0] * most + sin[0] * least, cos[1] * most - sin[1] * normal])
    approach, closing = approach.reshape(-1, 3), closing.reshape(-1, 3)
    rotations = np.stack([approach, closing, np.cross(approach, closing)], axis=-1)
    seeds = _seeds(observation, rotations, np.tile(at, (2 * angles, 1)), np.zeros(len(rotations)))
    found = search_grasps(seeds, observation.cloud, observation.settings.search)
    grasps = found.grasps
    sight = grasps.translations / np.linalg.norm(grasps.translations, axis=1, keepdims=True)
    along = np.einsum("ni,ni->n", sight, grasps.rotation_matrices[:, :, 0])
    grasps.scores = antipodality(grasps, observation.cloud, observation.normals, friction) + along
    kept = grasps.nms()[: observation.settings.top_grasps]
    return Ranked(kept, observation.workspace.kind, {**found.counts, "grasps": len(kept)})


def antipodality(grasps: GraspGroup, cloud: Floats, normals: Floats, friction: float) -> Floats:
    """Return the share (N,) of points near each finger whose normals a finger could press on, at the worse side.

    A point is near a finger where it lies within 1 cm of the outermost point on that side, between the fingers.
    """
    pairs = pairs_within(grasps.translations, cloud, float(np.linalg.norm([0.04, MAX_WIDTH_M / 2, 0.01])))
    row, point, (x, y, _) = in_grasp_frames(grasps, cloud, pairs)
    inside = (x > -BASE_M) & (x < grasps.depths[row]) & (np.abs(y) < grasps.widths[row] / 2)
    row, y = row[inside], y[inside]
    lean = np.einsum("pi,pi->p", normals[point[inside]], grasps.rotation_matrices[row, :, 1])
    shares = []
    for side in (-1.0, 1.0):
        outermost = np.full(len(grasps), -np.inf)
        np.maximum.at(outermost, row, side * y)
        near = side * y > outermost[row] - _CONTACT_M
        pressed = near & (side * lean > np.cos(np.arctan(friction)))
        total = np.bincount(row[near], minlength=len(grasps))
        shares.append(np.bincount(row[pressed], minlength=len(grasps)) / np.maximum(total, 1))
    return np.minimum(*shares) + 0.1 * np.mean(shares, axis=0)  # one side alone still beats none
