"""Scenes from a seed: objects chosen, dropped, looked at from all sides, labeled."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np

from paperlab.rgbd_grasp.dataset.view import View
from paperlab.rgbd_grasp.evaluation.scene import table_points
from paperlab.rgbd_grasp.geometry.checks import Bools, Floats
from paperlab.rgbd_grasp.geometry.grasp import GraspGroup
from paperlab.rgbd_grasp.geometry.gripper import BASE_M, FINGER_M
from paperlab.rgbd_grasp.geometry.rotations import move
from paperlab.rgbd_grasp.labels.scene import place, scene_collisions
from paperlab.rgbd_grasp.scenes.assets import sampled_grasps, surface_voxels
from paperlab.rgbd_grasp.scenes.catalog import catalog
from paperlab.rgbd_grasp.scenes.drop import Pile, drop
from paperlab.rgbd_grasp.scenes.looks import Looks, random_looks
from paperlab.rgbd_grasp.scenes.render import Quality, Renderer, with_ids
from paperlab.rgbd_grasp.scenes.solids import Solid
from paperlab.rgbd_grasp.scenes.viewpoints import Viewpoints, cropped_realsense, quarter_sphere
from paperlab.rgbd_grasp.scenes.world import World, build_world

FEWEST_OBJECTS = 6  # with fewer than 5 graspable ones a perfect detector does not reach an AP of 100
_TABLE_BELOW_M = 0.06  # the gripper reaches no farther below an object than this


@dataclass(frozen=True)
class Sizes:
    """How large scenes are; `grasps` are tried per object, `label_points` of 0 leaves exhaustive labels out."""

    views: int = 4
    width: int = 256
    height: int = 192
    objects: int = 7
    grasps: int = 1000
    label_points: int = 0

    def __post_init__(self) -> None:
        if not FEWEST_OBJECTS <= self.objects <= 8:
            raise ValueError(f"objects: got {self.objects}, needs {FEWEST_OBJECTS} to 8, as many as a family has")
        if self.views < 1 or min(self.width, self.height) < 16:
            raise ValueError(f"Sizes: needs at least 1 view of 16 x 16 pixels, got {self}")
        if self.grasps < 1 or self.label_points < 0:
            raise ValueError(f"Sizes: needs grasps of 1 or more and label_points of 0 or more, got {self}")


@dataclass(frozen=True, eq=False)
class Scene:
    """Solids with ids, where they lie in the table's frame (n, 4, 4), and how everything looks."""

    scene_id: int
    object_ids: tuple[int, ...]
    solids: tuple[Solid, ...]
    poses: Floats
    looks: Looks

    def world(self) -> World:
        """Return the scene as a MuJoCo model."""
        world = build_world(self.solids)
        world.place(self.poses)
        return world


def _rng(seed: int, scene_id: int, stage: int) -> np.random.Generator:
    return np.random.default_rng([seed, scene_id, stage])


def make_scene(
    scene_id: int, seed: int, ids: list[int], count: int, solids: Mapping[int, Solid] | None = None
) -> Scene:
    """Drop `count` of the objects `ids`, chosen at random, and return where they lie; the same seed, the same scene.

    `solids` are those of the ids, by default the catalog's.
    """
    if count > len(ids):
        raise ValueError(f"count: got {count}, there are {len(ids)} objects to choose from")
    solids = catalog() if solids is None else solids
    chosen = tuple(int(i) for i in _rng(seed, scene_id, 0).permutation(ids)[:count])
    picked = tuple(solids[i] for i in chosen)
    poses = drop(picked, _rng(seed, scene_id, 1), Pile())
    return Scene(scene_id, chosen, picked, poses, random_looks(count, _rng(seed, scene_id, 2)))


@dataclass(frozen=True, eq=False)
class Shot:
    """A view and the normals (H, W, 3) of what it shows, in the camera's frame."""

    view: View
    normals: Floats


def take_views(
    scene: Scene, sizes: Sizes, seed: int, *, quality: Quality | None = None, viewpoints: Viewpoints | None = None
) -> list[Shot]:
    """Return what cameras on a quarter sphere see of a scene."""
    camera = cropped_realsense(sizes.width, sizes.height)
    cameras = quarter_sphere(sizes.views, _rng(seed, scene.scene_id, 3), viewpoints)
    renderer = Renderer(scene.world(), scene.looks, quality or Quality())
    shots = []
    for frame_id, table_from_camera in enumerate(cameras):
        noise_seed = int(_rng(seed, scene.scene_id, 4 + frame_id).integers(2**31))
        picture = renderer(camera, table_from_camera, noise_seed)
        camera_from_table = np.linalg.inv(table_from_camera)
        view = View(
            scene_id=scene.scene_id,
            frame_id=frame_id,
            camera=camera,
            rgb=picture.rgb,
            depth_m=picture.depth_m,
            segmentation=with_ids(picture.segmentation, scene.object_ids),
            object_ids=scene.object_ids,
            poses=camera_from_table @ scene.poses,
            table_from_camera=table_from_camera,
        )
        shots.append(Shot(view, picture.normals))
    return shots


def label_scene(scene: Scene, per_object: int, seed: int) -> GraspGroup:
    """Return sampled grasps that are free in the scene, in the table's frame; object ids are rows of the scene's.

    Of each object's grasps that stay above the table `per_object` are tried, chosen at random, half of them, where
    there are as many, among the best, which hold at a friction of 0.2. What collides is judged as the evaluator does.
    """
    rng = _rng(seed, scene.scene_id, 100)
    tried = []
    for solid, pose in zip(scene.solids, scene.poses, strict=True):
        grasps = sampled_grasps(solid.mesh)
        grasps = grasps[rng.permutation(len(grasps))]
        grasps = grasps[above_table(grasps, pose)]
        best = np.flatnonzero(grasps.scores > 0.85)[: per_object // 2]
        rest = np.setdiff1d(np.arange(len(grasps)), best)[: per_object - len(best)]
        tried.append(grasps[np.concatenate([best, rest])])
    placed = place(tried, scene.poses)
    clouds = [move(surface_voxels(s.mesh), pose) for s, pose in zip(scene.solids, scene.poses, strict=True)]
    return placed[~scene_collisions(placed, clouds, _table_near(clouds))]


def above_table(grasps: GraspGroup, pose: Floats) -> Bools:
    """Return which grasps (N,) of an object at a pose (4, 4) keep fingertips and palm above the table."""
    placed = grasps[:].transform(pose)
    approach, closing = placed.rotation_matrices[:, 2, 0], placed.rotation_matrices[:, 2, 1]
    lowest = np.minimum(placed.depths * approach, -(BASE_M + FINGER_M) * approach)
    return placed.translations[:, 2] + lowest - (placed.widths / 2 + FINGER_M) * np.abs(closing) > 0


def _table_near(clouds: list[Floats]) -> Floats:
    """Return the evaluator's table points that a gripper at these clouds can reach."""
    table = table_points()
    everything = np.concatenate(clouds)
    low, high = everything.min(axis=0) - _TABLE_BELOW_M, everything.max(axis=0) + _TABLE_BELOW_M
    return table[((table > low) & (table < high)).all(axis=1)]
