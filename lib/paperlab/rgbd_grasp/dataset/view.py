"""One frame of a scene as a camera gave it and an annotator described it."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from paperlab.rgbd_grasp.geometry.cameras import Camera
from paperlab.rgbd_grasp.geometry.checks import Floats, floats
from paperlab.rgbd_grasp.geometry.rotations import check_transform


@dataclass(frozen=True, eq=False)
class View:
    """Images of size (H, W) and poses, all in the camera's frame.

    `segmentation` is 0 for the background, else the object's id + 1; `poses` (n, 4, 4) are those of `object_ids`.
    """

    scene_id: int
    frame_id: int
    camera: Camera
    rgb: NDArray[np.uint8]  # (H, W, 3)
    depth_m: Floats  # (H, W), 0 for holes
    segmentation: NDArray[np.uint8]  # (H, W)
    object_ids: tuple[int, ...]
    poses: Floats
    table_from_camera: Floats  # (4, 4)

    def __post_init__(self) -> None:
        size = (self.camera.height, self.camera.width)
        for name, array, shape in (("rgb", self.rgb, (*size, 3)), ("segmentation", self.segmentation, size)):
            if array.dtype != np.uint8 or array.shape != shape:
                raise ValueError(f"{name}: got {array.dtype} of shape {array.shape}, needs uint8 {shape}")
        floats("depth_m", self.depth_m, *size)
        floats("poses", self.poses, len(self.object_ids), 4, 4)
        check_transform("table_from_camera", self.table_from_camera)

    @property
    def depth_mm(self) -> NDArray[Any]:
        """The depth image as the data set stores it: uint16 millimeters."""
        return np.clip(np.round(self.depth_m * 1000), 0, 65535).astype(np.uint16)
