"""Grasps seen along the optical axis as rectangles in the image, in the layout and under the names of graspnetAPI.

A row is center x, y, open point x, y, height, score, object id, in pixels: the open point is the middle of the side
at which the left finger stands, the height is the length of that side.
"""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray

from paperlab.rgbd_grasp.geometry.cameras import Camera, as_camera
from paperlab.rgbd_grasp.geometry.checks import Floats, floats
from paperlab.rgbd_grasp.geometry.grasp import HEIGHT_M, GraspGroup
from paperlab.rgbd_grasp.geometry.table import Row, Table, column, named

BASE_M = 0.02  # rectangles are drawn where the palm is, this far behind the grasp point
DEPTH_M = 0.02  # of grasps made from rectangles
_ALONG_AXIS = 0.99  # of the approach direction's z, to count as seen along the optical axis
_TINY = 1e-8


class RectGrasp(Row):
    """One rectangle, from an array of 7 or center x, y, open x, y, height, score, object id."""

    length = 7
    height = named(4, "Length in pixels of the side at the open point.")
    score = named(5, "Confidence, higher is better.")
    object_id = named(6, "Index of the grasped object, -1 where it is not known.", int)

    def __init__(self, *args: Any) -> None:
        if len(args) not in (1, 7):
            raise ValueError(f"RectGrasp: got {len(args)} arguments, needs one array of 7 or 7 numbers")
        super().__init__(args[0] if len(args) == 1 else np.array(args, dtype=np.float64))

    @property
    def rect_grasp_array(self) -> Floats:
        """The 7 numbers."""
        return self._array

    @property
    def center_point(self) -> Floats:
        """The rectangle's center (2,) in pixels."""
        return self._array[:2]

    @property
    def open_point(self) -> Floats:
        """The middle (2,) of the left finger's side, in pixels."""
        return self._array[2:4]

    def corners(self) -> Floats:
        """Return the corners (4, 2) in pixels, the first two at the open point's end, in order around."""
        half = self.open_point - self.center_point
        normal = np.array([-half[1], half[0]]) / max(float(np.linalg.norm(half)), _TINY) * self.height / 2
        offsets = np.stack([half + normal, half - normal, -half - normal, -half + normal])
        return self.center_point + offsets


class RectGraspGroup(Table[RectGrasp]):
    """Rectangles (N, 7), from nothing, an array or the name of an `.npy` file; picked as in `GraspGroup`."""

    length, row_type, score_column = 7, RectGrasp, 5
    center_points = column(slice(0, 2), "center_points (N, 2) in pixels")
    open_points = column(slice(2, 4), "open_points (N, 2) in pixels")
    heights = column(4, "heights (N,) in pixels")
    scores = column(5, "scores (N,)")
    object_ids = column(6, "object_ids (N,), floats; -1 where not known")

    @property
    def rect_grasp_group_array(self) -> Floats:
        """The array (N, 7)."""
        return self._array

    def to_grasp_group(self, camera: Camera | str, depth_mm: NDArray[np.generic]) -> GraspGroup | None:
        """Return the rectangles as grasps along the optical axis, at the depth of their center's pixel.

        `depth_mm` (H, W) is in millimeters, as GraspNet-1Billion's depth images are. Rectangles outside the image,
        without depth or without size are dropped; None where none is left. The closing axis points to the open point,
        so a grasp that went through a rectangle comes back with its jaws swapped.
        """
        lens = as_camera(camera)
        image = floats("depth_mm", depth_mm, lens.height, lens.width)
        along = self.open_points - self.center_points
        length = np.linalg.norm(along, axis=1)
        column_, row = np.round(self.center_points).astype(int).T
        inside = (column_ >= 0) & (column_ < lens.width) & (row >= 0) & (row < lens.height)
        z = np.where(inside, image[row.clip(0, lens.height - 1), column_.clip(0, lens.width - 1)], 0.0) / 1000.0
        good = (z > _TINY) & (length > _TINY) & (self.heights > _TINY)
        if not good.any():
            return None
        kept, z, unit = self[good], z[good], along[good] / length[good, None]
        upper_points = kept.center_points + np.stack([-unit[:, 1], unit[:, 0]], axis=-1) * kept.heights[:, None] / 2
        center, opened, upper = (
            lens.back_project(points, z) for points in (kept.center_points, kept.open_points, upper_points)
        )
        y, half_width = _directions(opened - center)
        across, half_height = _directions(upper - center)
        rotations = np.stack([np.broadcast_to([0.0, 0.0, 1.0], y.shape), y, across], axis=-1)
        group = GraspGroup(np.zeros((len(kept), GraspGroup.length)))
        group.scores, group.widths, group.heights = kept.scores, 2 * half_width, 2 * half_height
        group.depths, group.rotation_matrices = np.full(len(kept), DEPTH_M), rotations
        group.translations, group.object_ids = center, kept.object_ids
        return group


def _directions(vectors: Floats) -> tuple[Floats, Floats]:
    length = np.linalg.norm(vectors, axis=1)
    return vectors / length[:, None], length


def to_rectangles(group: GraspGroup, camera: Camera | str) -> RectGraspGroup | None:
    """Return the grasps within about 8° of the optical axis as rectangles, None where there is none."""
    lens = as_camera(camera)
    kept = group[group.rotation_matrices[:, 2, 0] > _ALONG_AXIS]
    if not len(kept):
        return None
    half = kept.widths / 2
    local = np.zeros((len(kept), 4, 3))  # center, open point, and the two ends of the open side
    local[:, :, 0] = -BASE_M
    local[:, 1:, 1] = -half[:, None]
    local[:, 2, 2], local[:, 3, 2] = HEIGHT_M / 2, -HEIGHT_M / 2
    points = local @ kept.rotation_matrices.swapaxes(1, 2) + kept.translations[:, None]
    pixels = lens.project(points.reshape(-1, 3)).reshape(-1, 4, 2)
    heights = np.linalg.norm(pixels[:, 2] - pixels[:, 3], axis=1)
    parts = [pixels[:, 0], pixels[:, 1], heights[:, None], kept.scores[:, None], kept.object_ids[:, None]]
    return RectGraspGroup(np.concatenate(parts, axis=1))
