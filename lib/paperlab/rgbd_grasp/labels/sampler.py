"""A fast sampler of antipodal grasps: pairs of opposite surface points, approached from all sides."""

from __future__ import annotations

import numpy as np

from paperlab.rgbd_grasp.geometry.checks import Floats
from paperlab.rgbd_grasp.geometry.grasp import GraspGroup
from paperlab.rgbd_grasp.geometry.gripper import MAX_WIDTH_M, collisions
from paperlab.rgbd_grasp.geometry.mesh import Mesh
from paperlab.rgbd_grasp.labels.contacts import mesh_contacts
from paperlab.rgbd_grasp.labels.force_closure import LABELED_FRICTIONS, smallest_friction
from paperlab.rgbd_grasp.labels.grid import CLEARANCE_M, DEPTHS_M

_INSIDE_M = 1e-6  # below the surface, where the search for the opposite point starts


def antipodal_grasps(
    mesh: Mesh,
    cloud: Floats,
    samples: int = 2000,
    *,
    approaches: int = 8,
    max_friction: float = 0.4,
    seed: int = 0,
) -> GraspGroup:
    """Return grasps of an object, in its frame, that hold at `max_friction` and hit no point of `cloud` (N, 3).

    From each of `samples` surface points a line runs into the object, within the friction cone of that point; where
    it leaves the object is the second contact. Each pair is approached from `approaches` random directions, at a
    random depth of 1 to 4 cm, with 5 mm of clearance on both sides. Contacts are then found as jaws find them, so a
    pair that a jaw cannot reach drops out. Scores are 1.1 - friction, as of GraspNet-1Billion's labels.
    """
    rng = np.random.default_rng(seed)
    first, normals = mesh.sample(samples, rng)
    inward = _within_cone(-normals, np.arctan(max_friction), rng)
    exits = mesh.first_hits(first + _INSIDE_M * inward, first + MAX_WIDTH_M * inward)
    width = np.linalg.norm(exits.points - first, axis=1) + 2 * CLEARANCE_M
    good = (exits.faces >= 0) & (width <= MAX_WIDTH_M)
    pairs = np.repeat(np.flatnonzero(good), approaches)
    closing = inward[pairs]
    approach = _perpendicular(closing, rng)
    rotations = np.stack([approach, closing, np.cross(approach, closing)], axis=-1)
    depths = rng.choice(DEPTHS_M, len(pairs))
    centers = (first + exits.points)[pairs] / 2
    grasps = GraspGroup.from_parts(rotations, centers - depths[:, None] * approach, widths=width[pairs], depths=depths)
    grasps = grasps[~collisions(grasps, cloud).unusable]
    return _scored(mesh, grasps, max_friction)


def _scored(mesh: Mesh, grasps: GraspGroup, max_friction: float) -> GraspGroup:
    rotations = grasps.rotation_matrices
    centers = grasps.translations + grasps.depths[:, None] * rotations[:, :, 0]
    friction = smallest_friction(mesh_contacts(mesh, centers, rotations[:, :, 1], grasps.widths), LABELED_FRICTIONS)
    held = (friction > 0) & (friction <= max_friction)
    grasps = grasps[held]
    grasps.scores = 1.1 - friction[held]
    return grasps


def _perpendicular(axes: Floats, rng: np.random.Generator) -> Floats:
    """Return unit vectors (N, 3) at right angles to `axes` (N, 3), turned at random about them."""
    random = rng.normal(size=axes.shape)
    across = random - np.einsum("ij,ij->i", random, axes)[:, None] * axes
    return across / np.linalg.norm(across, axis=1, keepdims=True)


def _within_cone(axes: Floats, angle_rad: float, rng: np.random.Generator) -> Floats:
    """Return unit vectors (N, 3), uniform over the cones of half-angle `angle_rad` about `axes` (N, 3)."""
    cos = rng.uniform(np.cos(angle_rad), 1.0, len(axes))[:, None]
    return cos * axes + np.sqrt(1 - cos**2) * _perpendicular(axes, rng)
