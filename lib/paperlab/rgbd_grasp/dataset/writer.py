"""Writing scenes, models and labels in GraspNet-1Billion's layout, every file at once or not at all."""

from __future__ import annotations

import io
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
from scipy.io import savemat

from paperlab.lab.files import write_atomic
from paperlab.rgbd_grasp.dataset.annotations import write_annotation
from paperlab.rgbd_grasp.dataset.images import write_png
from paperlab.rgbd_grasp.dataset.layout import Layout
from paperlab.rgbd_grasp.dataset.models import write_obj, write_points
from paperlab.rgbd_grasp.dataset.view import View
from paperlab.rgbd_grasp.geometry.checks import Bools, Floats
from paperlab.rgbd_grasp.geometry.mesh import Mesh
from paperlab.rgbd_grasp.geometry.rotations import inverse
from paperlab.rgbd_grasp.geometry.sdf import SdfGrid, write_sdf


def write_object(root: Path, object_id: int, mesh: Mesh, cloud: Floats, sdf: SdfGrid) -> None:
    """Write an object's model: a dense cloud (N, 3) on its surface, its mesh and its signed distances."""
    layout = Layout(root)
    write_points(layout.model(object_id, "nontextured.ply"), cloud)
    write_obj(layout.model(object_id, "textured.obj"), mesh)
    write_sdf(layout.model(object_id, "textured.sdf"), sdf)


def write_scene(root: Path, views: Sequence[View], camera_name: str = "realsense", names: Sequence[str] = ()) -> None:
    """Write the frames of one scene; `views[k]` becomes frame k, and all show the same objects in the same order.

    `names` are the objects', by default their ids. Raises ValueError where the views are not of one scene and camera.
    """
    first, layout = views[0], Layout(root)
    for view in views:
        if (view.scene_id, view.camera, view.object_ids) != (first.scene_id, first.camera, first.object_ids):
            raise ValueError(f"views: frame {view.frame_id} is of another scene, camera or set of objects")
    scene_id = first.scene_id
    for index, view in enumerate(views):
        _write_frame(layout, view, camera_name, index, names or [f"{i:03d}" for i in first.object_ids])
    table_from_first = first.table_from_camera
    poses = [inverse(table_from_first) @ view.table_from_camera for view in views]
    arrays = {"camK": first.camera.matrix, "camera_poses": np.stack(poses), "cam0_wrt_table": table_from_first}
    for name, array in arrays.items():
        _write_array(layout.camera_file(scene_id, camera_name, f"{name}.npy"), array)
    write_atomic(layout.object_list(scene_id), "".join(f"{i}\n" for i in first.object_ids))


def _write_frame(layout: Layout, view: View, camera_name: str, index: int, names: Sequence[str]) -> None:
    images = {"rgb": view.rgb, "depth": view.depth_mm, "label": view.segmentation}
    for kind, image in images.items():
        write_png(layout.frame_file(view.scene_id, camera_name, kind, index), image, kind)
    path = layout.frame_file(view.scene_id, camera_name, "annotations", index)
    write_annotation(path, view.object_ids, names, view.poses)
    meta = {
        "cls_indexes": np.array(view.object_ids) + 1,
        "poses": view.poses[:, :3].transpose(1, 2, 0),
        "intrinsic_matrix": view.camera.matrix,
        "factor_depth": np.array([[1000]]),
    }
    buffer = io.BytesIO()
    savemat(buffer, meta)
    # The format's first line is free text, into which scipy writes the time: the same scene must give the same bytes.
    content = b"MATLAB 5.0 MAT-file, written by paperlab".ljust(116) + buffer.getvalue()[116:]
    write_atomic(layout.frame_file(view.scene_id, camera_name, "meta", index), content)


def write_collisions(root: Path, scene_id: int, blocked: Sequence[Bools]) -> Path:
    """Write a scene's collision labels, one array (P, V, A, D) per object in the annotations' order."""
    buffer = io.BytesIO()
    np.savez_compressed(buffer, *blocked)
    return write_atomic(Layout(root).collision_labels(scene_id), buffer.getvalue())


def _write_array(path: Path, array: np.ndarray[Any, Any]) -> None:
    buffer = io.BytesIO()
    np.save(buffer, array, allow_pickle=False)
    write_atomic(path, buffer.getvalue())
