"""Rendered depth, normals and segmentation against geometry; color against nothing but looks."""

import dataclasses

import numpy as np
import pytest

from paperlab.rgbd_grasp.geometry.rotations import rigid
from paperlab.rgbd_grasp.geometry.shapes import box, sphere
from paperlab.rgbd_grasp.scenes.catalog import catalog
from paperlab.rgbd_grasp.scenes.looks import PATTERNS, random_looks, random_material
from paperlab.rgbd_grasp.scenes.render import Quality, Renderer, trace, with_ids
from paperlab.rgbd_grasp.scenes.solids import Solid
from paperlab.rgbd_grasp.scenes.viewpoints import Viewpoints, cropped_realsense, look_at, quarter_sphere
from paperlab.rgbd_grasp.scenes.world import build_world

CAMERA = cropped_realsense(96, 72)
BALL, BLOCK = Solid("ball", "seen", (sphere(0.04, 5),)), Solid("block", "seen", (box(0.06, 0.08, 0.1),))


@pytest.fixture(scope="module")
def world():
    made = build_world([BALL, BLOCK])
    made.place([rigid(np.eye(3), (-0.06, 0, 0.04)), rigid(np.eye(3), (0.06, 0.02, 0.05))])
    return made


@pytest.fixture(scope="module")
def pose():
    return look_at((0.15, -0.35, 0.4), (0, 0, 0.02))


def rays(pose):
    rays = CAMERA.cloud(np.ones((72, 96))).reshape(-1, 3)
    return np.broadcast_to(pose[:3, 3], rays.shape), rays @ pose[:3, :3].T  # per meter of depth


def test_depth_equals_plane_box_and_sphere(world, pose):
    origin, step = rays(pose)
    plane = -origin[:, 2] / step[:, 2]
    center = np.array([-0.06, 0, 0.04])
    a, b = np.einsum("ni,ni->n", step, step), np.einsum("ni,ni->n", step, origin - center)
    root = b**2 - a * (((origin - center) ** 2).sum(axis=1) - 0.04**2)
    ball = np.where(root > 0, (-b - np.sqrt(np.maximum(root, 0))) / a, np.inf)
    low, high = np.array([0.03, -0.02, 0.0]), np.array([0.09, 0.06, 0.1])
    ends = np.stack([(low - origin) / step, (high - origin) / step])
    enter, leave = ends.min(axis=0).max(axis=1), ends.max(axis=0).min(axis=1)
    block = np.where(enter < leave, enter, np.inf)
    expected = np.stack([plane, ball, block])
    picture = Renderer(world, random_looks(2, np.random.default_rng(0)))(CAMERA, pose)
    depth, seen = picture.depth_m.ravel(), picture.segmentation.ravel()
    flat = seen != 1
    nearest = expected.argmin(axis=0)
    assert (seen == nearest).mean() > 0.999  # the ball of triangles is a little smaller at its rim
    np.testing.assert_allclose(
        depth[flat & (seen == nearest)], expected.min(axis=0)[flat & (seen == nearest)], atol=1e-9
    )
    round_ = (seen == 1) & (nearest == 1)
    assert round_.sum() > 100
    assert np.median(np.abs(depth - ball)[round_]) < 2e-5  # flat triangles of 1.3 mm
    assert np.abs(depth - ball)[round_].max() < 1e-3  # where rays graze


def test_normals_are_unit_and_face_the_camera(world, pose):
    picture = Renderer(world, random_looks(2, np.random.default_rng(0)))(CAMERA, pose)
    toward = -CAMERA.cloud(np.ones((72, 96)))
    np.testing.assert_allclose(np.linalg.norm(picture.normals, axis=-1), 1.0, atol=1e-9)
    assert (np.einsum("hwi,hwi->hw", picture.normals, toward) > 0).all()
    table = picture.segmentation == 0
    np.testing.assert_allclose(
        picture.normals[table] @ pose[:3, :3].T, np.tile([0, 0, 1.0], (table.sum(), 1)), atol=1e-9
    )


def test_segmentation_and_depth_agree_with_the_meshes():
    """Every point that is seen lies on the mesh of the solid that it is said to belong to."""
    solids = [catalog()[i] for i in (20, 9, 25)]
    made = build_world(solids)
    poses = [rigid(np.eye(3), (0.09 * (i - 1), 0.02 * i, 0.06)) for i in range(3)]
    made.place(poses)
    eye = look_at((0.1, -0.4, 0.35), (0, 0, 0.04))
    hits = trace(made, CAMERA, eye)
    for index, (solid, where) in enumerate(zip(solids, poses, strict=True)):
        mine = made.model.geom_bodyid[hits.geoms] == index + 1
        mine &= hits.geoms >= 0
        assert mine.sum() > 50
        assert solid.mesh.distances(hits.points[mine][::5] - where[:3, 3]).max() < 1e-6
    cloud = CAMERA.cloud(hits.depth_m)[hits.geoms >= 0]
    np.testing.assert_allclose(cloud @ eye[:3, :3].T + eye[:3, 3], hits.points[hits.geoms >= 0], atol=1e-9)


def test_looks_change_color_and_nothing_else(world, pose):
    one, other = (Renderer(world, random_looks(2, np.random.default_rng(seed)))(CAMERA, pose) for seed in (1, 2))
    assert np.abs(one.rgb.astype(int) - other.rgb).mean() > 10
    for name in ("depth_m", "segmentation", "normals"):
        assert np.array_equal(getattr(one, name), getattr(other, name))
    again = Renderer(world, random_looks(2, np.random.default_rng(1)))(CAMERA, pose)
    assert np.array_equal(again.rgb, one.rgb)


def test_shadows_fall_away_from_the_lamp(world):
    looks = random_looks(2, np.random.default_rng(0))
    clean = Quality(noise=0.0, blur_px=0.0)
    lamp = dataclasses.replace(looks.light, position=np.array([-1.0, 0.02, 0.7]))
    looks = dataclasses.replace(looks, light=lamp, table=dataclasses.replace(looks.table, pattern="plain", gloss=0.0))
    above = look_at((0.04, 0.02, 0.5), (0.04, 0.02, 0))
    picture = Renderer(world, looks, clean)(CAMERA, above)
    hits = trace(world, CAMERA, above)
    table = picture.segmentation == 0
    shade = table & (np.abs(hits.points[..., 1] - 0.02) < 0.02) & (np.abs(hits.points[..., 0] - 0.12) < 0.02)
    open_ = table & (hits.points[..., 1] < -0.08)
    assert picture.rgb[shade].mean() < 0.8 * picture.rgb[open_].mean()


@pytest.mark.parametrize("pattern", PATTERNS)
def test_patterns_stay_between_their_colors(pattern):
    rng = np.random.default_rng(0)
    material = dataclasses.replace(random_material(rng), pattern=pattern)
    colors = material.albedo(rng.uniform(-0.05, 0.05, (500, 3)))
    low, high = material.colors.min(axis=0), material.colors.max(axis=0)
    assert ((colors >= low - 1e-9) & (colors <= high + 1e-9)).all()
    assert (np.ptp(colors, axis=0).max() > 0.01) == (pattern != "plain")


def test_cameras_are_on_a_quarter_sphere_and_look_at_the_pile():
    ranges = Viewpoints()
    poses = quarter_sphere(64, np.random.default_rng(0))
    center = np.array([0, 0, 0.02])
    offset = poses[:, :3, 3] - center
    distance = np.linalg.norm(offset, axis=1)
    assert (np.abs(distance - np.clip(distance, *ranges.distance_m)) < 0.03).all()
    elevation = np.rad2deg(np.arcsin(offset[:, 2] / distance))
    assert elevation.min() > 30
    assert np.ptp(elevation) > 35
    azimuth = np.sort(np.arctan2(offset[:, 1], offset[:, 0]))
    assert np.diff([*azimuth, azimuth[0] + 2 * np.pi]).max() > np.deg2rad(150)  # the other half turn is empty
    np.testing.assert_allclose(np.linalg.det(poses[:, :3, :3]), 1)
    aim = np.einsum("nji,nj->ni", poses[:, :3, :3], center - poses[:, :3, 3])
    assert np.abs(aim[:, :2] / aim[:, 2:]).max() < 0.08  # near the middle of the image
    assert (poses[:, 2, 1] < 0).all()  # down in the image is down


def test_bad_input_is_told(world):
    with pytest.raises(ValueError, match="looks: are of 1 solids, the world has 2"):
        Renderer(world, random_looks(1, np.random.default_rng(0)))
    with pytest.raises(ValueError, match="views: got 0"):
        quarter_sphere(0, np.random.default_rng(0))
    with pytest.raises(ValueError, match="at least one ray"):
        Quality(supersample=0)
    with pytest.raises(ValueError, match="target: is where the camera is"):
        look_at((0, 0, 1), (0, 0, 1))
    assert with_ids(np.array([[0, 1, 2]], dtype=np.uint8), (7, 30)).tolist() == [[0, 8, 31]]
