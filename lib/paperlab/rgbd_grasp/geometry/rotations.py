"""Rotations of the gripper and rigid motions.

The gripper's axes are the columns of R: x is the direction of approach, y that in which the jaws close, z = x × y.
"""

from __future__ import annotations

import numpy as np
from numpy.typing import ArrayLike

from paperlab.rgbd_grasp.geometry.checks import Floats, floats

TWIN = np.diag([1.0, -1.0, -1.0])  # half a turn about the approach axis: the same grasp, its jaws swapped


def view_rotations(towards: ArrayLike, angles: ArrayLike) -> Floats:
    """Return rotations that approach along `towards` and are turned by `angles` about that direction.

    Shapes: towards (N, 3), of any length but 0, angles (N,) in radians -> (N, 3, 3). At angle 0 the closing axis is
    level in the frame of `towards`: y ~ (-x1, x0, 0), or (0, 1, 0) where the approach is along z.
    """
    x = floats("towards", towards, None, 3).astype(np.float64)
    angle = floats("angles", angles, len(x))
    y = np.stack([-x[:, 1], x[:, 0], np.zeros(len(x))], axis=-1)
    y[np.linalg.norm(y, axis=-1) == 0] = (0.0, 1.0, 0.0)
    length = np.linalg.norm(x, axis=-1, keepdims=True)
    if (length == 0).any():
        raise ValueError("towards: holds a zero vector, needs directions")
    x, y = x / length, y / np.linalg.norm(y, axis=-1, keepdims=True)
    z = np.cross(x, y)
    cos, sin = np.cos(angle)[:, None], np.sin(angle)[:, None]
    return np.stack([x, cos * y + sin * z, cos * z - sin * y], axis=-1)


def rotation_distance(a: ArrayLike, b: ArrayLike) -> Floats:
    """Return the angle in radians between rotations (..., 3, 3), shapes broadcast against each other."""
    trace = np.einsum("...ij,...ij->...", np.asarray(a), np.asarray(b))
    return np.arccos((np.clip(trace, -1.0, 3.0) - 1.0) / 2.0)


def symmetric_distance(a: ArrayLike, b: ArrayLike) -> Floats:
    """Return the angle in radians between two grasps' rotations, the jaws being interchangeable."""
    return np.minimum(rotation_distance(a, b), rotation_distance(np.asarray(a) @ TWIN, b))


def check_rotations(name: str, value: ArrayLike, tolerance: float = 1e-3) -> Floats:
    """Return (N, 3, 3) rotations as an array; raises ValueError where one is not orthonormal and right-handed."""
    rotations = floats(name, value, None, 3, 3)
    error = np.abs(rotations @ rotations.swapaxes(1, 2) - np.eye(3)).max(axis=(1, 2))
    bad = (error > tolerance) | (np.linalg.det(rotations) < 0)
    if bad.any():
        raise ValueError(f"{name}: {int(bad.sum())} of {len(bad)} are no rotations, the first at {int(bad.argmax())}")
    return rotations


def check_transform(name: str, value: ArrayLike) -> Floats:
    """Return a (4, 4) rigid motion as float64; raises ValueError for anything else."""
    transform = floats(name, value, 4, 4).astype(np.float64)
    check_rotations(name, transform[None, :3, :3])
    if not np.allclose(transform[3], (0, 0, 0, 1)):
        raise ValueError(f"{name}: last row is {transform[3].tolist()}, needs [0, 0, 0, 1]")
    return transform


def rigid(rotation: ArrayLike, translation: ArrayLike) -> Floats:
    """Return the (4, 4) motion x -> rotation x + translation."""
    transform = np.eye(4)
    transform[:3, :3], transform[:3, 3] = rotation, translation
    return transform


def inverse(transform: Floats) -> Floats:
    """Return the inverse of a (4, 4) rigid motion."""
    rotation = transform[:3, :3].T
    return rigid(rotation, -rotation @ transform[:3, 3])


def move(points: Floats, transform: Floats) -> Floats:
    """Return points (N, 3) moved by a (4, 4) rigid motion."""
    return points @ transform[:3, :3].T + transform[:3, 3]


def random_rotations(count: int, rng: np.random.Generator) -> Floats:
    """Return `count` rotations (count, 3, 3), uniform over all of them."""
    w, x, y, z = (q := rng.normal(size=(4, count))) / np.linalg.norm(q, axis=0)
    rows = [
        [1 - 2 * (y * y + z * z), 2 * (x * y - z * w), 2 * (x * z + y * w)],
        [2 * (x * y + z * w), 1 - 2 * (x * x + z * z), 2 * (y * z - x * w)],
        [2 * (x * z - y * w), 2 * (y * z + x * w), 1 - 2 * (x * x + y * y)],
    ]
    return np.array(rows).transpose(2, 0, 1)
