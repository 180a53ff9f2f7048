"""Reading scenes, models and labels of a data set in GraspNet-1Billion's layout."""

from __future__ import annotations

from functools import cached_property, lru_cache
from pathlib import Path
from typing import Literal

import numpy as np
from scipy.io import loadmat
from scipy.io.matlab import MatReadError

from paperlab.rgbd_grasp.dataset.annotations import read_annotation
from paperlab.rgbd_grasp.dataset.images import read_png
from paperlab.rgbd_grasp.dataset.layout import Layout
from paperlab.rgbd_grasp.dataset.models import read_obj, read_points
from paperlab.rgbd_grasp.dataset.view import View
from paperlab.rgbd_grasp.evaluation.scene import Frame, GraspObject, table_in_camera
from paperlab.rgbd_grasp.geometry.anchors import Anchors, label_anchors
from paperlab.rgbd_grasp.geometry.cameras import Camera, metric_depth
from paperlab.rgbd_grasp.geometry.checks import Bools, Floats, one_of
from paperlab.rgbd_grasp.geometry.grasp import GraspGroup
from paperlab.rgbd_grasp.geometry.sdf import read_sdf
from paperlab.rgbd_grasp.labels.grid import ObjectLabels
from paperlab.rgbd_grasp.labels.scene import place

_POSE_TOLERANCE_M = 0.005  # the annotations are rounded to 0.1 mm
Surface = Literal["sdf", "mesh"]


class GraspNet:
    """A data set below `root`, seen by one camera; models and labels are read once."""

    def __init__(self, root: Path | str, camera: str = "realsense") -> None:
        self.layout, self.camera_name = Layout(Path(root)), camera
        if not (Path(root) / "scenes").is_dir():
            raise FileNotFoundError(f"{root}: has no folder scenes; needs the root of a GraspNet-1Billion tree")
        self.labels = lru_cache(maxsize=None)(self._labels)
        self.grasp_object = lru_cache(maxsize=None)(self._grasp_object)

    def scene_ids(self) -> list[int]:
        """Return the scenes that this camera has seen."""
        return [i for i in self.layout.scene_ids() if (self.layout.scene(i) / self.camera_name).is_dir()]

    def frame_count(self, scene_id: int) -> int:
        """Return how many frames a scene has."""
        return len(self._array(scene_id, "camera_poses.npy"))

    def _array(self, scene_id: int, name: str) -> Floats:
        path = self.layout.camera_file(scene_id, self.camera_name, name)
        try:
            return np.load(path, allow_pickle=False).astype(np.float64)
        except ValueError as error:
            raise ValueError(f"{path}: {error}; needs a plain .npy array") from None

    def view(self, scene_id: int, frame_id: int) -> View:
        """Return one frame; raises FileNotFoundError or ValueError that name the file."""
        images = {
            kind: read_png(self._frame_file(scene_id, kind, frame_id), kind) for kind in ("rgb", "depth", "label")
        }
        height, width = images["depth"].shape
        ids, poses = read_annotation(self._frame_file(scene_id, "annotations", frame_id))
        factor = self._check_meta(scene_id, frame_id, poses)
        table_from_camera = (
            self._array(scene_id, "cam0_wrt_table.npy") @ self._array(scene_id, "camera_poses.npy")[frame_id]
        )
        return View(
            scene_id=scene_id,
            frame_id=frame_id,
            camera=Camera.from_matrix(self._array(scene_id, "camK.npy"), width, height),
            rgb=images["rgb"],
            depth_m=self._depth(scene_id, frame_id, images["depth"], factor),
            segmentation=images["label"],
            object_ids=tuple(ids),
            poses=poses,
            table_from_camera=table_from_camera,
        )

    def _depth(self, scene_id: int, frame_id: int, raw: Floats, factor: float) -> Floats:
        try:
            return metric_depth(raw, factor)
        except ValueError as error:
            raise ValueError(f"{self._frame_file(scene_id, 'depth', frame_id)}: {error}") from None

    def _frame_file(self, scene_id: int, kind: str, frame_id: int) -> Path:
        return self.layout.frame_file(scene_id, self.camera_name, kind, frame_id)

    def _check_meta(self, scene_id: int, frame_id: int, poses: Floats) -> float:
        """Return the depth scale; raises ValueError where the frame's two records of the poses disagree."""
        path = self._frame_file(scene_id, "meta", frame_id)
        try:
            meta = loadmat(path)
            # MATLAB's format drops the last axis where there is one object only.
            stored = meta["poses"].reshape(3, 4, -1).transpose(2, 0, 1)
            factor = float(meta["factor_depth"].ravel()[0])
        except (KeyError, ValueError, TypeError, MatReadError) as error:
            raise ValueError(f"{path}: {error}; needs poses (3, 4, n) and factor_depth") from None
        if len(stored) != len(poses):
            raise ValueError(f"{path}: has {len(stored)} objects, the annotation of the frame has {len(poses)}")
        apart = np.abs(stored[:, :, 3] - poses[:, :3, 3]).max(initial=0.0)
        if apart > _POSE_TOLERANCE_M:
            annotation = self._frame_file(scene_id, "annotations", frame_id)
            raise ValueError(
                f"{annotation}: poses are {apart:.3f} m off {path.name}'s; labels of another camera or frame?"
            )
        return factor

    def _labels(self, object_id: int) -> ObjectLabels:
        return ObjectLabels.load(self.layout.grasp_labels(object_id))

    def _grasp_object(self, object_id: int, surface: Surface = "sdf") -> GraspObject:
        one_of("surface", surface, ("sdf", "mesh"))
        cloud = read_points(self.layout.model(object_id, "nontextured.ply"))
        if surface == "mesh":
            return GraspObject(cloud, read_obj(self.layout.model(object_id, "textured.obj")), f"{object_id:03d}")
        return GraspObject(cloud, read_sdf(self.layout.model(object_id, "textured.sdf")), f"{object_id:03d}")

    def evaluation_frame(self, view: View, surface: Surface = "sdf") -> Frame:
        """Return what the evaluator needs to know of a view; contacts on signed distances or on the mesh."""
        objects = [self.grasp_object(object_id, surface) for object_id in view.object_ids]
        return Frame(objects, view.poses, table_in_camera(view.table_from_camera))

    def scene_collisions(self, scene_id: int) -> list[Bools]:
        """Return the collision labels (P, V, A, D) of a scene, one array per object, in the annotations' order."""
        path = self.layout.collision_labels(scene_id)
        try:
            with np.load(path, allow_pickle=False) as file:
                return [file[f"arr_{i}"] for i in range(len(file.files))]
        except (KeyError, ValueError) as error:
            raise ValueError(f"{path}: {error}; needs arr_0, arr_1, ... per object") from None

    @cached_property
    def anchors(self) -> Anchors:
        """The orientations of the labels."""
        return label_anchors()

    def grasps(self, view: View, max_friction: float = 0.4, anchors: Anchors | None = None) -> GraspGroup:
        """Return the labeled grasps of a view that hold at `max_friction` and collide with nothing in the scene."""
        blocked = self.scene_collisions(view.scene_id)
        if len(blocked) != len(view.object_ids):
            path = self.layout.collision_labels(view.scene_id)
            raise ValueError(f"{path}: has {len(blocked)} objects, the view has {len(view.object_ids)}")
        views = (anchors or self.anchors).views
        groups = [
            self.labels(object_id).grasps(views, max_friction, keep=~mask)
            for object_id, mask in zip(view.object_ids, blocked, strict=True)
        ]
        return place(groups, view.poses)
