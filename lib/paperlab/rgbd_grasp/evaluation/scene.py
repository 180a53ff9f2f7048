"""What the evaluator knows of a frame: its objects, where they stand, and the table."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from functools import cached_property

import numpy as np
from numpy.typing import ArrayLike
from scipy.spatial import cKDTree

from paperlab.rgbd_grasp.geometry.checks import Floats, floats
from paperlab.rgbd_grasp.geometry.gripper import crop
from paperlab.rgbd_grasp.geometry.mesh import Mesh
from paperlab.rgbd_grasp.geometry.rotations import check_transform, inverse, move
from paperlab.rgbd_grasp.geometry.sdf import SdfGrid
from paperlab.rgbd_grasp.geometry.voxels import voxel_average
from paperlab.rgbd_grasp.labels.contacts import Contacts, mesh_contacts, sdf_contacts

VOXEL_M = 0.008  # at which models and table are sampled
_TABLE_M = (1.0, 1.0, 0.05)


@dataclass(frozen=True, eq=False)
class GraspObject:
    """An object in its own frame: its surface as a cloud (P, 3), and what contacts are found on.

    Contacts come from `surface`: a grid of signed distances, as in the evaluator, or a mesh, exactly.
    """

    cloud: Floats
    surface: SdfGrid | Mesh
    name: str = ""

    def __post_init__(self) -> None:
        if not len(floats("cloud", self.cloud, None, 3)):
            raise ValueError("cloud: is empty, needs points on the object's surface")

    def contacts(self, centers: Floats, axes: Floats, widths: Floats) -> Contacts:
        """Return where jaws touch that close along `axes` (N, 3) on `centers` (N, 3) from `widths` (N,)."""
        if isinstance(self.surface, Mesh):
            return mesh_contacts(self.surface, centers, axes, widths)
        return sdf_contacts(self.surface, centers, axes, widths)


@dataclass(frozen=True, eq=False)
class Frame:
    """One view of a scene: objects, the poses (n, 4, 4) of their frames in the camera's, and table points (T, 3).

    `voxel_m` is the side of the cubes over which the objects' clouds are averaged; 0 where they are already.
    """

    objects: Sequence[GraspObject]
    poses: ArrayLike
    table: Floats | None = None
    voxel_m: float = VOXEL_M
    clouds: list[Floats] = field(init=False, repr=False)  # of the objects, in the camera's frame

    def __post_init__(self) -> None:
        poses = [check_transform("poses", pose) for pose in floats("poses", self.poses, len(self.objects), 4, 4)]
        if not poses:
            raise ValueError("objects: got none, needs at least one")
        if self.table is not None:
            floats("table", self.table, None, 3)
        sampled = [voxel_average(o.cloud, self.voxel_m) if self.voxel_m else o.cloud for o in self.objects]
        object.__setattr__(self, "poses", np.stack(poses))
        object.__setattr__(self, "clouds", [move(c, pose) for c, pose in zip(sampled, poses, strict=True)])

    @cached_property
    def surroundings(self) -> list[cKDTree]:
        """For each object, what a gripper at it may hit: the points around its cloud, of objects and table."""
        scene = np.concatenate([*self.clouds, *([] if self.table is None else [self.table])])
        near = crop(scene, np.concatenate(self.clouds))  # most of the table is far from everything
        return [cKDTree(crop(near, cloud)) for cloud in self.clouds]


def table_points() -> Floats:
    """Return the evaluator's table (93,750, 3) in its own frame: 1 x 1 x 0.05 m, top at z = 0, in cells of 8 mm."""
    axes = [np.linspace(0.0, side, int(side / VOXEL_M)) for side in _TABLE_M]
    x, y, z = np.meshgrid(*axes, indexing="xy")
    return np.stack([x - _TABLE_M[0] / 2, y - _TABLE_M[1] / 2, z - _TABLE_M[2]], axis=-1).reshape(-1, 3)


def table_in_camera(table_from_camera: ArrayLike) -> Floats:
    """Return the table's points in the frame of a camera, whose pose in the table's frame is given (4, 4)."""
    return move(table_points(), inverse(check_transform("table_from_camera", table_from_camera)))
