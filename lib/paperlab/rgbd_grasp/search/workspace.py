"""Where in the image grasps are looked for: the objects' true masks, what stands on the table, or everywhere."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, Literal, get_args

import numpy as np
from numpy.typing import NDArray
from scipy.ndimage import binary_dilation

from paperlab.rgbd_grasp.geometry.cameras import Camera
from paperlab.rgbd_grasp.geometry.checks import Bools, Floats, floats, one_of
from paperlab.rgbd_grasp.labels.heatmap import CellGrid

MaskKind = Literal["gt", "depth_plane", "none"]
_INLIER_M = 0.008  # from the table's plane
_TRIALS, _POINTS = 200, 2000


@dataclass(frozen=True, eq=False)
class Workspace:
    """The cells (rows, columns) in which grasps may start, and how they were found; "gt" is privileged."""

    kind: MaskKind
    cells: Bools

    def __post_init__(self) -> None:
        one_of("mask", self.kind, get_args(MaskKind))
        if self.cells.ndim != 2 or self.cells.dtype != bool:
            raise ValueError(f"cells: got {self.cells.dtype} of shape {self.cells.shape}, needs bool (rows, columns)")

    @property
    def grid(self) -> CellGrid:
        """The grid of its cells."""
        return CellGrid(columns=self.cells.shape[1], rows=self.cells.shape[0])


def find_workspace(
    kind: MaskKind,
    grid: CellGrid,
    *,
    segmentation: NDArray[np.integer[Any]] | None = None,
    depth_m: Floats | None = None,
    camera: Camera | None = None,
    above_m: float = 0.01,
) -> Workspace:
    """Return the cells in which grasps may start.

    "gt" takes the true object masks `segmentation` (H, W), 0 for the background, as the released code does: nothing
    that a robot has. "depth_plane" finds the table in `depth_m` (H, W) and takes what rises `above_m` over it.
    "none" takes every cell.
    """
    one_of("mask", kind, get_args(MaskKind))
    if kind == "none":
        return Workspace(kind, np.ones((grid.rows, grid.columns), dtype=bool))
    if kind == "gt":
        if segmentation is None or np.ndim(segmentation) != 2:
            raise ValueError("segmentation: mask 'gt' needs the frame's label image (H, W)")
        rows, columns = (_middles(n, m) for n, m in zip(segmentation.shape, (grid.rows, grid.columns), strict=True))
        return Workspace(kind, binary_dilation(segmentation[np.ix_(rows, columns)] > 0, np.ones((2, 2))))
    if depth_m is None or camera is None:
        raise ValueError("depth_m: mask 'depth_plane' needs the depth image and its camera")
    cloud = camera.cloud(depth_m)
    seen = floats("depth_m", depth_m, camera.height, camera.width) > 0
    normal, offset = fit_plane(cloud[seen])
    raised = seen & (cloud @ normal - offset > above_m)
    return Workspace(kind, _any_in_cell(raised, grid))


def _middles(pixels: int, cells: int) -> NDArray[np.int_]:
    return ((np.arange(cells) + 0.5) * pixels / cells).astype(int)


def _any_in_cell(pixels: Bools, grid: CellGrid) -> Bools:
    rows = (np.arange(grid.rows) * pixels.shape[0] / grid.rows).astype(int)
    columns = (np.arange(grid.columns) * pixels.shape[1] / grid.columns).astype(int)
    counts = np.add.reduceat(np.add.reduceat(pixels.astype(int), rows, axis=0), columns, axis=1)
    return counts > 0


def fit_plane(points: Floats, seed: int = 0) -> tuple[Floats, float]:
    """Return the plane that most points (N, 3) lie on, as unit normal (3,) and offset: normal·p = offset.

    The normal points to the origin's side, that of the camera. Raises ValueError for fewer than three points.
    """
    if len(points) < 3:
        raise ValueError(f"depth_m: got {len(points)} measured pixels, a plane needs 3")
    rng = np.random.default_rng(seed)
    some = points[rng.integers(len(points), size=_POINTS)]
    a, b, c = some[rng.integers(_POINTS, size=(3, _TRIALS))]
    normals = np.cross(b - a, c - a)
    length = np.linalg.norm(normals, axis=1)
    normals /= np.where(length > 0, length, np.inf)[:, None]
    close = np.abs(some @ normals.T - np.einsum("ij,ij->i", normals, a)) < _INLIER_M
    votes = np.where(length > 0, close.sum(axis=0), -1)
    inliers = some[close[:, votes.argmax()]]
    middle = inliers.mean(axis=0)
    normal = np.linalg.svd(inliers - middle, full_matrices=False)[2][2]
    normal = normal if normal @ middle < 0 else -normal
    return normal, float(normal @ middle)
