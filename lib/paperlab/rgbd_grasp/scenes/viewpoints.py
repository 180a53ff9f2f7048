"""Cameras on a quarter of a sphere around the pile, all looking at it."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import ArrayLike

from paperlab.rgbd_grasp.geometry.cameras import REALSENSE, Camera
from paperlab.rgbd_grasp.geometry.checks import Floats, floats
from paperlab.rgbd_grasp.geometry.rotations import rigid


def cropped_realsense(width: int = 256, height: int = 192) -> Camera:
    """Return the data set's RealSense with its image cropped to the middle 960 x 720 pixels and scaled.

    Cropped, because squeezing 16:9 into 4:3 would waste a quarter of a small image on bare table.
    """
    scale_x, scale_y = width / 960, height / 720
    cx, cy = (REALSENSE.cx - 160 + 0.5) * scale_x - 0.5, (REALSENSE.cy + 0.5) * scale_y - 0.5
    return Camera(REALSENSE.fx * scale_x, REALSENSE.fy * scale_y, cx, cy, width, height)


@dataclass(frozen=True)
class Viewpoints:
    """Ranges from which cameras are drawn: elevation in degrees, distance in meters, azimuth over half a turn."""

    elevation_deg: tuple[float, float] = (35.0, 85.0)
    distance_m: tuple[float, float] = (0.46, 0.64)

    def __post_init__(self) -> None:
        low, high = self.elevation_deg
        if not 5 <= low <= high <= 90 or not 0.1 <= self.distance_m[0] <= self.distance_m[1] <= 5:
            raise ValueError(f"Viewpoints: needs 5 to 90 degrees and 0.1 to 5 m in ascending order, got {self}")


def look_at(position: ArrayLike, target: ArrayLike) -> Floats:
    """Return the pose (4, 4) of a camera at `position` (3,) that looks at `target` (3,), the table's z axis upward.

    Looking straight down, the table's y axis is upward in the image.
    """
    eye, aim = floats("position", position, 3), floats("target", target, 3)
    forward = aim - eye
    length = np.linalg.norm(forward)
    if length == 0:
        raise ValueError("target: is where the camera is, needs another point")
    forward = forward / length
    right = np.cross(forward, (0.0, 0.0, 1.0))
    if np.linalg.norm(right) < 1e-6:
        right = np.array([1.0, 0.0, 0.0])
    right /= np.linalg.norm(right)
    return rigid(np.stack([right, np.cross(forward, right), forward], axis=-1), eye)


def quarter_sphere(
    count: int, rng: np.random.Generator, viewpoints: Viewpoints | None = None, target: ArrayLike = (0.0, 0.0, 0.02)
) -> Floats:
    """Return camera poses (count, 4, 4) in the table's frame, spread over the azimuth, elsewhere drawn at random.

    Half a turn of azimuth times the upper half of elevations is a quarter of a sphere, as in the data set.
    """
    if count < 1:
        raise ValueError(f"views: got {count}, needs at least 1")
    ranges = viewpoints or Viewpoints()
    azimuth = rng.uniform(0, 2 * np.pi) + np.pi * (rng.permutation(count) + rng.random(count)) / count
    elevation = np.deg2rad(rng.uniform(*ranges.elevation_deg, count))
    distance = rng.uniform(*ranges.distance_m, count)
    level = np.cos(elevation)
    direction = np.stack([level * np.cos(azimuth), level * np.sin(azimuth), np.sin(elevation)], axis=-1)
    aims = floats("target", target, 3) + rng.uniform(-0.02, 0.02, (count, 3)) * (1, 1, 0)
    return np.stack([look_at(a + d * v, a) for a, d, v in zip(aims, distance, direction, strict=True)])
