"""What a method without learning gets to see: depth, the camera, and the workspace."""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property

import numpy as np
from scipy.spatial import cKDTree

from paperlab.rgbd_grasp.geometry.cameras import Camera
from paperlab.rgbd_grasp.geometry.checks import Floats, Ints, floats
from paperlab.rgbd_grasp.search.decode import cell_depths
from paperlab.rgbd_grasp.search.pipeline import Settings, observed_cloud
from paperlab.rgbd_grasp.search.workspace import Workspace

_NEIGHBORS = 30  # points of 5 mm voxels for a normal: a patch of about 3 cm


@dataclass(frozen=True, eq=False)
class Observation:
    """A depth image (H, W) in meters, its camera, and the workspace where grasps may start."""

    depth_m: Floats
    camera: Camera
    workspace: Workspace
    settings: Settings

    def __post_init__(self) -> None:
        floats("depth_m", self.depth_m, self.camera.height, self.camera.width)

    @cached_property
    def cloud(self) -> Floats:
        """What is seen (P, 3), averaged over the detector's voxels."""
        return observed_cloud(self.depth_m, self.camera, self.settings.search.detector.voxel_m)

    def seeds(self, count: int, rng: np.random.Generator) -> Floats:
        """Return `count` points (count, 3) at random cells of the workspace that have depth; none where none has."""
        grid = self.workspace.grid
        row, column = np.nonzero(self.workspace.cells)
        z = cell_depths(self.depth_m, row, column, grid, "center_median_valid")
        seen = np.flatnonzero(z > 0)
        if not len(seen):
            return np.zeros((0, 3))
        chosen = rng.choice(seen, count)
        pixels = (np.stack([column[chosen], row[chosen]], axis=-1) + 0.5) * grid.cell_px(self.camera)
        return self.camera.back_project(pixels, z[chosen])

    @cached_property
    def _tree(self) -> cKDTree:
        return cKDTree(self.cloud)

    @cached_property
    def normals(self) -> Floats:
        """Unit normals (P, 3) of the cloud, toward the camera, of planes through the 30 nearest points."""
        return self._frames(self.cloud)[:, :, 0]

    def frames_at(self, points: Floats) -> Floats:
        """Return the surface's axes (N, 3, 3) near points (N, 3): normal, then directions of more and less curvature.

        The normal is toward the camera; the second column is the direction in which the cloud's normals turn most.
        """
        axes = self._frames(points)
        around = self.normals[self.nearest(points)]
        turn = around - np.einsum("nki,ni->nk", around, axes[:, :, 0])[..., None] * axes[:, None, :, 0]
        _, vectors = np.linalg.eigh(np.einsum("nki,nkj->nij", turn, turn))
        most = vectors[:, :, 2]
        most = most - np.einsum("ni,ni->n", most, axes[:, :, 0])[:, None] * axes[:, :, 0]
        length = np.linalg.norm(most, axis=1, keepdims=True)
        most = np.where(length > 1e-6, most / np.maximum(length, 1e-6), axes[:, :, 1])
        return np.stack([axes[:, :, 0], most, np.cross(axes[:, :, 0], most)], axis=-1)

    def nearest(self, points: Floats) -> Ints:
        """Return the rows (N, 30) of the cloud's points nearest to each of `points` (N, 3)."""
        count = min(_NEIGHBORS, len(self.cloud))
        return self._tree.query(points, k=count)[1].reshape(len(points), count)

    def _frames(self, points: Floats) -> Floats:
        around = self.cloud[self.nearest(points)]
        spread = around - around.mean(axis=1, keepdims=True)
        _, vectors = np.linalg.eigh(np.einsum("nki,nkj->nij", spread, spread))
        normal, along = vectors[:, :, 0], vectors[:, :, 2]
        normal = np.where((np.einsum("ni,ni->n", normal, points) > 0)[:, None], -normal, normal)
        return np.stack([normal, along, np.cross(normal, along)], axis=-1)
