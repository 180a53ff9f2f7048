"""Pinhole cameras: x right, y down, z forward; pixel (u, v) is column and row, whole numbers at pixel centers."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import ArrayLike, NDArray

from paperlab.rgbd_grasp.geometry.checks import Floats, floats


@dataclass(frozen=True)
class Camera:
    """Intrinsics in pixels and image size of one camera."""

    fx: float
    fy: float
    cx: float
    cy: float
    width: int
    height: int

    def __post_init__(self) -> None:
        if min(self.fx, self.fy) <= 0 or min(self.width, self.height) < 1:
            raise ValueError(f"Camera: focal lengths and image size must be positive, got {self}")

    @classmethod
    def from_matrix(cls, intrinsics: ArrayLike, width: int, height: int) -> Camera:
        """Return the camera of a (3, 3) intrinsic matrix K; raises ValueError for skew or a wrong last row."""
        K = floats("intrinsics", intrinsics, 3, 3)
        if K[0, 1] or K[1, 0] or not np.array_equal(K[2], (0, 0, 1)):
            raise ValueError(f"intrinsics: got {K.tolist()}, needs [[fx, 0, cx], [0, fy, cy], [0, 0, 1]]")
        return cls(float(K[0, 0]), float(K[1, 1]), float(K[0, 2]), float(K[1, 2]), width, height)

    @property
    def matrix(self) -> Floats:
        """The intrinsic matrix K (3, 3)."""
        return np.array([[self.fx, 0, self.cx], [0, self.fy, self.cy], [0, 0, 1.0]])

    def resized(self, width: int, height: int) -> Camera:
        """Return the camera whose image is this one's, stretched to another size."""
        sx, sy = width / self.width, height / self.height
        cx, cy = (self.cx + 0.5) * sx - 0.5, (self.cy + 0.5) * sy - 0.5
        return Camera(self.fx * sx, self.fy * sy, cx, cy, width, height)

    def project(self, points: ArrayLike) -> Floats:
        """Return pixels (N, 2) of points (N, 3) in meters; NaN for points not in front of the camera."""
        p = floats("points", points, None, 3)
        z = np.where(p[:, 2] > 0, p[:, 2], np.nan)
        return np.stack([p[:, 0] / z * self.fx + self.cx, p[:, 1] / z * self.fy + self.cy], axis=-1)

    def back_project(self, pixels: ArrayLike, depths_m: ArrayLike) -> Floats:
        """Return points (N, 3) in meters at pixels (N, 2) and depths (N,) along the optical axis."""
        uv = floats("pixels", pixels, None, 2)
        z = floats("depths_m", depths_m, len(uv))
        return np.stack([(uv[:, 0] - self.cx) / self.fx * z, (uv[:, 1] - self.cy) / self.fy * z, z], axis=-1)

    def cloud(self, depth_m: ArrayLike) -> Floats:
        """Return the point of every pixel (H, W, 3) of a depth image (H, W) in meters; holes become (0, 0, 0)."""
        z = floats("depth_m", depth_m, self.height, self.width)
        x = (np.arange(self.width) - self.cx) / self.fx * z
        y = ((np.arange(self.height) - self.cy) / self.fy)[:, None] * z
        return np.stack([x, y, z], axis=-1)


REALSENSE = Camera(927.17, 927.37, 651.32, 349.62, 1280, 720)  # GraspNet-1Billion's, where a scene brings no camK.npy
KINECT = Camera(631.55, 631.21, 638.43, 366.50, 1280, 720)
_NAMED = {"realsense": REALSENSE, "kinect": KINECT}
_FARTHEST_M = 10.0  # no tabletop is farther away, and no depth in millimeters is that small


def as_camera(camera: Camera | str) -> Camera:
    """Return a camera by its name in the data set, or as it is given."""
    if isinstance(camera, Camera):
        return camera
    if camera not in _NAMED:
        raise ValueError(f"camera: got {camera!r}, needs a Camera or one of {', '.join(_NAMED)}")
    return _NAMED[camera]


def metric_depth(depth: NDArray[np.generic], depth_scale: float = 1000.0) -> Floats:
    """Return a depth image (H, W) in meters from the sensor's units, `depth_scale` of which make a meter.

    Holes are 0. Raises ValueError for another shape, NaN, an empty image, and for units that do not fit the values.
    """
    raw = floats("depth", depth, None, None)
    if not depth_scale > 0:
        raise ValueError(f"depth_scale: got {depth_scale}, needs units per meter, such as 1000 for millimeters")
    metric = raw / depth_scale
    seen = metric[metric != 0]
    if not len(seen):
        raise ValueError("depth: is empty, every pixel is 0; needs at least one measured pixel")
    if seen.min() < 0:
        raise ValueError(f"depth: the smallest value is {raw.min():g}, needs values of 0 (no depth) or more")
    typical = float(np.median(seen))
    if not 0.05 <= typical <= _FARTHEST_M:
        raise ValueError(
            f"depth: its median is {typical:g} m with depth_scale {depth_scale:g}, which no tabletop camera sees; "
            "needs depth_scale 1000 for millimeters, 1 for meters"
        )
    return metric
