"""Voxel averages of point clouds."""

from __future__ import annotations

import numpy as np
from numpy.typing import ArrayLike

from paperlab.rgbd_grasp.geometry.checks import Floats, floats


def voxel_average(points: ArrayLike, voxel_m: float) -> Floats:
    """Return the mean point of every occupied cube of side `voxel_m`: (N, 3) -> (M, 3), cubes in row-major order.

    The cubes start half a side below the cloud's smallest coordinates, as open3d's do.
    """
    cloud = floats("points", points, None, 3).astype(np.float64)
    if not voxel_m > 0:
        raise ValueError(f"voxel_m: got {voxel_m}, needs a positive length in meters")
    if not len(cloud):
        return cloud
    cell = np.floor((cloud - (cloud.min(axis=0) - voxel_m / 2)) / voxel_m).astype(np.int64)
    flat = np.ravel_multi_index(tuple(cell.T), tuple(cell.max(axis=0) + 1))
    _, group, count = np.unique(flat, return_inverse=True, return_counts=True)
    sums = np.stack([np.bincount(group, weights=axis) for axis in cloud.T], axis=-1)
    return sums / count[:, None]
