"""Small ray-cast scenes of colored boxes on a table with antipodal labels: enough to learn from in seconds."""

from __future__ import annotations

from functools import lru_cache

import numpy as np

from paperlab.rgbd_grasp.dataset.view import View
from paperlab.rgbd_grasp.geometry.cameras import Camera
from paperlab.rgbd_grasp.geometry.grasp import GraspGroup
from paperlab.rgbd_grasp.geometry.rotations import inverse, rigid
from paperlab.rgbd_grasp.geometry.shapes import box
from paperlab.rgbd_grasp.labels.sampler import antipodal_grasps
from paperlab.rgbd_grasp.labels.scene import place
from paperlab.rgbd_grasp.learning.samples import collect
from paperlab.rgbd_grasp.network.config import TINY

CAMERA = Camera(150.0, 150.0, 63.5, 47.5, 128, 96)
SIDES_M = ((0.04, 0.06, 0.05), (0.03, 0.03, 0.08), (0.05, 0.09, 0.03))
_HEIGHT_M = 0.5


@lru_cache
def labels_of(index: int) -> GraspGroup:
    """Grasps of one of the boxes, in its frame."""
    mesh = box(*SIDES_M[index])
    cloud, _ = mesh.sample(1500, np.random.default_rng(0))
    return antipodal_grasps(mesh, cloud, 150, approaches=4, max_friction=0.2)


@lru_cache
def boxes_view(scene_id: int) -> tuple[View, GraspGroup]:
    """One view from straight above three boxes, and their grasps in the camera's frame."""
    rng = np.random.default_rng(scene_id)
    camera_from_table = rigid(np.diag([1.0, -1.0, -1.0]), [0, 0, _HEIGHT_M])
    poses = []
    for sides, x in zip(SIDES_M, (-0.1, 0.0, 0.1), strict=True):
        turn = rng.uniform(0, np.pi)
        cos, sin = np.cos(turn), np.sin(turn)
        rotation = np.array([[cos, -sin, 0], [sin, cos, 0], [0, 0, 1.0]])
        where = [x + rng.uniform(-0.01, 0.01), rng.uniform(-0.06, 0.06), sides[2] / 2]
        poses.append(camera_from_table @ rigid(rotation, where))
    rays = CAMERA.cloud(np.full((CAMERA.height, CAMERA.width), 2.0)).reshape(-1, 3)
    nearest = np.full(len(rays), _HEIGHT_M / 2)  # the table's plane, as a share of the 2 m
    label, rgb = np.zeros(len(rays), dtype=np.uint8), np.full((len(rays), 3), 90.0)
    for i, (sides, pose) in enumerate(zip(SIDES_M, poses, strict=True)):
        hits = box(*sides).moved(pose).first_hits(np.zeros_like(rays), rays)
        front = hits.fractions < nearest
        nearest[front], label[front] = hits.fractions[front], i + 1
        shade = 0.4 + 0.6 * np.abs(hits.normals[front] @ np.array([0.3, 0.2, -0.93]))
        rgb[front] = shade[:, None] * rng.uniform(60, 255, 3)
    size = (CAMERA.height, CAMERA.width)
    grasps = place([labels_of(i) for i in range(len(SIDES_M))], poses)
    view = View(
        scene_id=scene_id,
        frame_id=0,
        camera=CAMERA,
        rgb=np.clip(rgb + rng.normal(scale=6, size=rgb.shape), 0, 255).astype(np.uint8).reshape(*size, 3),
        depth_m=nearest.reshape(size) * 2.0,
        segmentation=label.reshape(size),
        object_ids=(0, 1, 2),
        poses=np.stack(poses),
        table_from_camera=inverse(camera_from_table),
    )
    return view, grasps


@lru_cache
def samples(*scene_ids: int):
    """Views of scenes as samples for tiny nets, normals included."""
    return collect((boxes_view(i) for i in scene_ids), TINY, normals=True)
