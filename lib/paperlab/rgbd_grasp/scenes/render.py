"""Pictures without OpenGL: rays through a MuJoCo model give depth, segmentation and normals, and are then shaded.

Everything is a pure function of its arguments, with the same bits on every run. Depth, segmentation and normals do
not depend on looks.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

import numpy as np
from numpy.typing import NDArray
from scipy.ndimage import gaussian_filter

from paperlab.rgbd_grasp.geometry.cameras import Camera
from paperlab.rgbd_grasp.geometry.checks import Floats, Ints
from paperlab.rgbd_grasp.geometry.rotations import check_transform
from paperlab.rgbd_grasp.scenes.looks import Light, Looks, Material
from paperlab.rgbd_grasp.scenes.world import SEEN, World

FARTHEST_M = 5.0  # beyond which rays see nothing
_SHADOW_M = 0.002  # how much nearer to the lamp something must be to shade a point
_SHININESS = 40.0


@dataclass(frozen=True)
class Quality:
    """How color is made: rays per pixel along each side, lamp positions for soft shadows, blur, sensor noise."""

    supersample: int = 1
    lamp_points: int = 1
    lamp_radius_m: float = 0.12
    blur_px: float = 0.5
    noise: float = 0.006  # standard deviation, as a fraction of white

    def __post_init__(self) -> None:
        if self.supersample < 1 or self.lamp_points < 1 or min(self.lamp_radius_m, self.blur_px, self.noise) < 0:
            raise ValueError(f"Quality: needs at least one ray and lamp point and nothing negative, got {self}")


PICTURE = Quality(supersample=2, lamp_points=12, blur_px=0.0, noise=0.0)  # for figures


@dataclass(frozen=True, eq=False)
class Hits:
    """What each ray of an image meets: the geom (-1: nothing), depth along the optical axis, points and normals."""

    geoms: Ints  # (H, W)
    depth_m: Floats  # (H, W), 0 for nothing
    points: Floats  # (H, W, 3) in the table's frame
    normals: Floats  # (H, W, 3) unit, toward the camera, in the table's frame; 0 for nothing


@dataclass(frozen=True, eq=False)
class Picture:
    """An image of a world: segmentation is 0 for the table, else index of the solid + 1."""

    rgb: NDArray[np.uint8]  # (H, W, 3)
    depth_m: Floats  # (H, W)
    segmentation: NDArray[np.uint8]  # (H, W)
    normals: Floats  # (H, W, 3) in the camera's frame


def _cast(world: World, origin: Floats, directions: Floats) -> tuple[Ints, Floats, Floats]:
    """Return geom, distance and normal of rays with unit `directions` (N, 3) from one point."""
    import mujoco

    count = len(directions)
    geoms, distance, normals = np.full(count, -1, dtype=np.int32), np.full(count, -1.0), np.zeros(3 * count)
    groups = np.zeros(6, dtype=np.uint8)
    groups[SEEN] = 1
    mujoco.mj_multiRay(
        world.model, world.data, origin, directions.ravel(), groups, 1, -1, geoms, distance, normals, count, FARTHEST_M
    )
    # The cutoff only spares far geoms; the table's plane goes on.
    geoms[distance > FARTHEST_M] = -1
    distance[geoms < 0] = np.inf
    return geoms, distance, normals.reshape(-1, 3)


def trace(world: World, camera: Camera, table_from_camera: Floats) -> Hits:
    """Return what a camera sees, one ray through the middle of each pixel."""
    pose = check_transform("table_from_camera", table_from_camera)
    rays = camera.cloud(np.ones((camera.height, camera.width))).reshape(-1, 3)
    length = np.linalg.norm(rays, axis=1)
    directions = (rays / length[:, None]) @ pose[:3, :3].T
    geoms, distance, normals = _cast(world, pose[:3, 3].copy(), directions)
    hit = geoms >= 0
    facing = np.where(np.einsum("ni,ni->n", normals, directions) > 0, -1.0, 1.0)
    distance = np.where(hit, distance, 0.0)
    size = (camera.height, camera.width)
    return Hits(
        geoms.reshape(size),
        (distance / length).reshape(size),
        (pose[:3, 3] + distance[:, None] * directions).reshape(*size, 3),
        np.where(hit[:, None], normals * facing[:, None], 0.0).reshape(*size, 3),
    )


@dataclass(frozen=True, eq=False)
class Renderer:
    """Takes pictures of a world in given looks; `others` are materials of further geoms, by their number."""

    world: World
    looks: Looks
    quality: Quality = field(default_factory=Quality)
    others: Mapping[int, Material] = field(default_factory=dict)

    def __post_init__(self) -> None:
        if len(self.looks.solids) != len(self.world.solids):
            raise ValueError(f"looks: are of {len(self.looks.solids)} solids, the world has {len(self.world.solids)}")

    def __call__(self, camera: Camera, table_from_camera: Floats, seed: int = 0) -> Picture:
        """Return the picture of a camera at a pose (4, 4) in the table's frame; `seed` is of the sensor's noise."""
        hits = trace(self.world, camera, table_from_camera)
        times = self.quality.supersample
        fine = camera.resized(camera.width * times, camera.height * times)
        color = self._color(hits if times == 1 else trace(self.world, fine, table_from_camera), table_from_camera)
        color = color.reshape(camera.height, times, camera.width, times, 3).mean(axis=(1, 3))
        bodies = self.world.model.geom_bodyid[hits.geoms]
        owned = (hits.geoms >= 0) & (bodies <= len(self.world.solids))
        return Picture(
            self._develop(color, np.random.default_rng(seed)),
            hits.depth_m,
            np.where(owned, bodies, 0).astype(np.uint8),
            hits.normals @ table_from_camera[:3, :3],
        )

    def _develop(self, color: Floats, rng: np.random.Generator) -> NDArray[np.uint8]:
        """Return linear light as an image: optics blur, film curve, sensor noise."""
        if self.quality.blur_px:
            color = gaussian_filter(color, (self.quality.blur_px, self.quality.blur_px, 0))
        value = np.clip(color, 0.0, 1.0) ** (1 / 2.2) + self.quality.noise * rng.normal(size=color.shape)
        return np.round(255 * np.clip(value, 0.0, 1.0)).astype(np.uint8)

    def _color(self, hits: Hits, table_from_camera: Floats) -> Floats:
        """Return linear colors (N, 3): ambient light, Lambert's law with a shadow, a highlight (Blinn and Phong)."""
        seen = hits.geoms.ravel() >= 0
        points, normals = hits.points.reshape(-1, 3)[seen], hits.normals.reshape(-1, 3)[seen]
        albedo, gloss = self._surface(hits.geoms.ravel()[seen], points)
        light = self.looks.light
        to_lamp = light.position - points
        to_lamp /= np.linalg.norm(to_lamp, axis=1, keepdims=True)
        to_eye = table_from_camera[:3, 3] - points
        half = to_lamp + to_eye / np.linalg.norm(to_eye, axis=1, keepdims=True)
        half /= np.linalg.norm(half, axis=1, keepdims=True)
        facing = np.maximum(np.einsum("ni,ni->n", normals, to_lamp), 0.0)
        lit = np.zeros(len(points))
        lit[facing > 0] = self._lit(points[facing > 0], light)  # what faces away is dark, whatever is in between
        shine = gloss * np.maximum(np.einsum("ni,ni->n", normals, half), 0.0) ** _SHININESS * (facing > 0)
        sky = 0.55 + 0.45 * normals[:, 2:]  # less light comes from below
        shaded = albedo * (light.ambient * sky + (lit * facing)[:, None] * light.color)
        color = np.zeros((len(seen), 3))
        color[seen] = shaded + (lit * shine)[:, None] * light.color
        return color

    def _surface(self, geoms: Ints, points: Floats) -> tuple[Floats, Floats]:
        """Return albedo (N, 3) and gloss (N,) at points of the table's frame."""
        albedo, gloss = np.zeros((len(geoms), 3)), np.zeros(len(geoms))
        for geom in np.unique(geoms):
            mine, body = geoms == geom, int(self.world.model.geom_bodyid[geom])
            if geom in self.others:
                material = self.others[geom]
            else:
                material = self.looks.solids[body - 1] if body else self.looks.table
            turn = self.world.data.xmat[body].reshape(3, 3)
            albedo[mine] = material.albedo((points[mine] - self.world.data.xpos[body]) @ turn)
            gloss[mine] = material.gloss
        return albedo, gloss

    def _lit(self, points: Floats, light: Light) -> Floats:
        """Return which share (N,) of the lamp each point sees."""
        count = self.quality.lamp_points
        turn, radius = np.arange(count) * np.pi * (3 - np.sqrt(5)), np.sqrt((np.arange(count) + 0.5) / count)
        spread = self.quality.lamp_radius_m * (radius if count > 1 else 0 * radius)
        offsets = np.stack([spread * np.cos(turn), spread * np.sin(turn), 0 * turn], axis=-1)
        total = np.zeros(len(points))
        for offset in offsets:
            lamp = light.position + offset
            rays = points - lamp
            length = np.linalg.norm(rays, axis=1)
            _, reached, _ = _cast(self.world, lamp, rays / length[:, None])
            total += reached > length - _SHADOW_M
        return total / count


def with_ids(segmentation: NDArray[Any], object_ids: tuple[int, ...]) -> NDArray[np.uint8]:
    """Return a segmentation in the data set's numbers: object id + 1 in place of index + 1."""
    numbers = np.array([0, *(object_id + 1 for object_id in object_ids)], dtype=np.uint8)
    return numbers[segmentation]
