"""Grasps as rows of 17 numbers, and groups of them, in the layout and under the names of graspnetAPI.

A row is score, width, height, depth, rotation (9, row-major), translation (3), object id (-1: unknown), in meters.
The translation is the grasp point; the fingertips are `depth` farther along the approach axis x, the palm 2 cm behind
it; `width` is the opening along y. `GraspGroup` reads and writes the `.npy` files of that package.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import ArrayLike

from paperlab.rgbd_grasp.geometry.cameras import Camera
from paperlab.rgbd_grasp.geometry.checks import Floats, floats
from paperlab.rgbd_grasp.geometry.nms import ROTATION_RAD, TRANSLATION_M, pose_nms
from paperlab.rgbd_grasp.geometry.rotations import check_rotations, check_transform, rigid
from paperlab.rgbd_grasp.geometry.table import Row, Table, column, named

if TYPE_CHECKING:
    from paperlab.rgbd_grasp.geometry.rect_grasp import RectGraspGroup

HEIGHT_M = 0.02  # of every gripper finger in the data set
_ROTATION, _TRANSLATION = slice(4, 13), slice(13, 16)
_DEFAULT = (0, 0.02, HEIGHT_M, 0.02, 1, 0, 0, 0, 1, 0, 0, 0, 1, 0, 0, 0, -1)


class Grasp(Row):
    """One grasp, from nothing, an array of 17, or score, width, height, depth, rotation, translation, object id."""

    length = 17
    score = named(0, "Confidence, higher is better.")
    width = named(1, "Opening in meters.")
    height = named(2, "Height of the fingers in meters.")
    depth = named(3, "From the grasp point to the fingertips, in meters.")
    object_id = named(16, "Index of the grasped object, -1 where it is not known.", int)

    def __init__(self, *args: Any) -> None:
        if len(args) == 7:
            *numbers, rotation, translation, object_id = args
            args = (np.array([*numbers, *np.ravel(rotation), *np.ravel(translation), object_id], dtype=np.float64),)
        if len(args) > 1:
            raise ValueError(f"Grasp: got {len(args)} arguments, needs none, one array of 17 or 7 parts")
        super().__init__(args[0] if args else np.array(_DEFAULT, dtype=np.float64))

    @property
    def grasp_array(self) -> Floats:
        """The 17 numbers."""
        return self._array

    @property
    def rotation_matrix(self) -> Floats:
        """The rotation (3, 3): approach, closing and height axes as columns."""
        return self._array[_ROTATION].reshape(3, 3)

    @rotation_matrix.setter
    def rotation_matrix(self, value: ArrayLike) -> None:
        self._array[_ROTATION] = check_rotations("rotation_matrix", np.reshape(value, (1, 3, 3))).ravel()

    @property
    def translation(self) -> Floats:
        """The grasp point (3,) in meters."""
        return self._array[_TRANSLATION]

    @translation.setter
    def translation(self, value: ArrayLike) -> None:
        self._array[_TRANSLATION] = floats("translation", value, 3)

    def transform(self, T: ArrayLike) -> Grasp:
        """Move this grasp by a rigid motion (4, 4), in place, and return it."""
        GraspGroup(self._array[None]).transform(T)
        return self


class GraspGroup(Table[Grasp]):
    """Grasps (N, 17), from nothing, an array, which is shared and not copied, or the name of an `.npy` file.

    An int picks a `Grasp`; a slice, list, index or mask array picks a new group.
    """

    length, row_type, score_column = 17, Grasp, 0
    scores = column(0, "scores (N,)")
    widths = column(1, "widths (N,) in meters")
    heights = column(2, "heights (N,) of the fingers in meters")
    depths = column(3, "depths (N,) from grasp points to fingertips, in meters")
    translations = column(_TRANSLATION, "translations (N, 3) in meters")
    object_ids = column(16, "object_ids (N,), floats; -1 where not known")

    @property
    def grasp_group_array(self) -> Floats:
        """The array (N, 17)."""
        return self._array

    @grasp_group_array.setter
    def grasp_group_array(self, value: ArrayLike) -> None:
        self._array = floats("grasp_group_array", value, None, self.length)

    @property
    def rotation_matrices(self) -> Floats:
        """The rotations (N, 3, 3)."""
        return self._array[:, _ROTATION].reshape(-1, 3, 3)

    @rotation_matrices.setter
    def rotation_matrices(self, value: ArrayLike) -> None:
        self._array[:, _ROTATION] = floats("rotation_matrices", value, len(self), 3, 3).reshape(-1, 9)

    @classmethod
    def from_parts(
        cls,
        rotations: ArrayLike,
        translations: ArrayLike,
        *,
        scores: ArrayLike = 0.0,
        widths: ArrayLike = 0.1,
        depths: ArrayLike = 0.02,
        object_ids: ArrayLike = -1,
    ) -> GraspGroup:
        """Return a group from rotations (N, 3, 3) and translations (N, 3); the rest is (N,) or one for all."""
        turns = check_rotations("rotations", rotations)
        array = np.empty((len(turns), cls.length))
        for index, value in ((0, scores), (1, widths), (2, HEIGHT_M), (3, depths), (16, object_ids)):
            array[:, index] = value
        array[:, _ROTATION] = turns.reshape(-1, 9)
        array[:, _TRANSLATION] = floats("translations", translations, len(turns), 3)
        return cls(array)

    def transform(self, T: ArrayLike) -> GraspGroup:
        """Move all grasps by a rigid motion (4, 4), in place, and return the group."""
        motion = check_transform("T", T)
        self.translations = self.translations @ motion[:3, :3].T + motion[:3, 3]
        self.rotation_matrices = motion[:3, :3] @ self.rotation_matrices
        return self

    def nms(self, translation_thresh: float = TRANSLATION_M, rotation_thresh: float = ROTATION_RAD) -> GraspGroup:
        """Return the grasps that no better one is near to in both position (m) and rotation (rad), best first."""
        return self[pose_nms(self._array, translation_thresh, rotation_thresh)]

    def to_rect_grasp_group(self, camera: Camera | str) -> RectGraspGroup | None:
        """Return the grasps within about 8° of the optical axis as rectangles, None where there is none."""
        from paperlab.rgbd_grasp.geometry.rect_grasp import to_rectangles  # which needs this module

        return to_rectangles(self, camera)


def to_tcp(grasp: Grasp, camera_from_base: ArrayLike | None = None, tip_to_tcp_m: float = 0.0) -> Floats:
    """Return the pose (4, 4) that a robot's tool must take: z approaches, y is the closing direction.

    The origin lies `tip_to_tcp_m` behind the fingertips, which are `grasp.depth` beyond the grasp point. In the
    camera's frame, or in the base's where the base's pose in the camera frame is given.
    """
    x, y, z = grasp.rotation_matrix.T
    pose = rigid(np.stack([-z, y, x], axis=-1), grasp.translation + (grasp.depth - tip_to_tcp_m) * x)
    if camera_from_base is None:
        return pose
    return np.linalg.inv(check_transform("camera_from_base", camera_from_base)) @ pose
