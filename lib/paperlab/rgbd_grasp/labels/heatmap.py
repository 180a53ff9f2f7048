"""The Angle-View Heatmap's targets: which orientation classes hold in which cells of the image."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from paperlab.rgbd_grasp.geometry.anchors import Anchors, Symmetry
from paperlab.rgbd_grasp.geometry.cameras import Camera
from paperlab.rgbd_grasp.geometry.checks import Bools, Floats, Ints
from paperlab.rgbd_grasp.geometry.grasp import GraspGroup


@dataclass(frozen=True)
class CellGrid:
    """The image in `columns` by `rows` cells; they are not square where the image is squeezed."""

    columns: int = 96
    rows: int = 72

    def __post_init__(self) -> None:
        if min(self.columns, self.rows) < 1:
            raise ValueError(f"CellGrid: got {self.columns} x {self.rows} cells, needs one at least")

    def cell_px(self, camera: Camera) -> tuple[float, float]:
        """Return a cell's width and height in the camera's pixels."""
        return camera.width / self.columns, camera.height / self.rows

    def cells(self, camera: Camera, points: Floats) -> tuple[Ints, Bools]:
        """Return the column and row (N, 2) that points (N, 3) fall into, and which of them are in the image."""
        cell = np.floor(camera.project(points) / self.cell_px(camera))
        seen = np.isfinite(cell).all(axis=1) & (cell >= 0).all(axis=1) & (cell < (self.columns, self.rows)).all(axis=1)
        return np.where(seen[:, None], cell, -1).astype(int), seen


def heatmap_labels(
    grasps: GraspGroup,
    camera: Camera,
    anchors: Anchors,
    grid: CellGrid | None = None,
    *,
    symmetry: Symmetry = "canonical",
) -> Bools:
    """Return the classes (C, rows, columns) of which a grasp, in the camera's frame, exists in each cell.

    A grasp belongs to the cell in which its grasp point appears and to the nearest orientation. `symmetry`
    "official" ignores, like the released label code, that a grasp with its jaws swapped is the same: then half of the
    grasps land in a class of another view. Pass the scene's own camera; the released code has one for all.
    """
    grid = grid or CellGrid()
    cell, seen = grid.cells(camera, grasps.translations)
    labels = np.zeros((len(anchors), grid.rows, grid.columns), dtype=bool)
    labels[anchors.nearest(grasps.rotation_matrices[seen], symmetry), cell[seen, 1], cell[seen, 0]] = True
    return labels
