import numpy as np
import pytest

from paperlab.rgbd_grasp.evaluation.frame import closing_frictions
from paperlab.rgbd_grasp.evaluation.scene import Frame, GraspObject
from paperlab.rgbd_grasp.geometry.anchors import Anchors, avn_anchors, fibonacci_views
from paperlab.rgbd_grasp.geometry.cameras import KINECT, REALSENSE, Camera
from paperlab.rgbd_grasp.geometry.grasp import GraspGroup
from paperlab.rgbd_grasp.geometry.gripper import collisions
from paperlab.rgbd_grasp.geometry.rotations import TWIN, random_rotations, view_rotations
from paperlab.rgbd_grasp.geometry.shapes import box, sphere
from paperlab.rgbd_grasp.geometry.voxels import voxel_average
from paperlab.rgbd_grasp.labels.grid import DEPTHS_M, ObjectLabels, label_object, openings, spread_points
from paperlab.rgbd_grasp.labels.heatmap import CellGrid, heatmap_labels
from paperlab.rgbd_grasp.labels.sampler import antipodal_grasps
from tests.rgbd_grasp import reference

FEW = Anchors(fibonacci_views(30), 4)


def sampled(mesh):
    return voxel_average(mesh.sample(20_000, np.random.default_rng(0))[0], 0.008)


@pytest.fixture(scope="module")
def mug():
    return reference.mesh(reference.load("scene_03"), 4)


@pytest.fixture(scope="module")
def mug_labels(mug):
    return label_object(mug, sampled(mug), spread_points(mug, 6), FEW)


def smallest_fit(cloud, point, rotation, depth):
    """The documented rule as a loop: the smallest opening whose fingers, clearance and palm are free."""
    x, y, z = ((cloud - point) @ rotation).T
    y, level = np.abs(y), np.abs(z) < 0.01
    fingers = level & (x >= -0.02) & (x < depth)
    palm = level & (x >= -0.03) & (x < -0.02)
    for k in range(1, 19):
        inside = (fingers & (y < k * 0.0025)).sum()
        reach = k * 0.0025 + 0.015
        beside = (fingers & (y >= k * 0.0025) & (y < reach)).sum()
        if inside >= 10 and not beside and not (palm & (y < reach)).any():
            return 2 * (k * 0.0025 + 0.005)
    return np.nan


@pytest.mark.parametrize("name", ["box", "mug"])
def test_openings_equal_a_loop_over_widths(name, mug):
    mesh = {"box": box(0.04, 0.06, 0.1), "mug": mug}[name]
    cloud, points = sampled(mesh), spread_points(mesh, 3)
    rotations = FEW.rotations[::3]
    found = openings(cloud, points, rotations)
    expected = [[[smallest_fit(cloud, p, r, d) for d in DEPTHS_M] for r in rotations] for p in points]
    assert 0 < np.isfinite(found).sum() < found.size
    assert np.mean(~np.isclose(found, expected, equal_nan=True)) < 2e-3  # single precision at a bin's edge


def test_opening_of_a_known_box():
    """Straight from above on a box 3.9 x 5.9 cm: 5 mm of clearance a side, in steps of 5 mm, make 5 and 7 cm."""
    top = np.array([[0.0, 0.0, 0.05]])
    across_x = np.stack([[0, 0, -1.0], [1.0, 0, 0], [0, -1.0, 0]], axis=-1)
    across_y = np.stack([[0, 0, -1.0], [0, 1.0, 0], [1.0, 0, 0]], axis=-1)
    found = openings(sampled(box(0.039, 0.059, 0.1)), top, np.stack([across_x, across_y]))
    np.testing.assert_allclose(found[0, :, 1:], [[0.05] * 3, [0.07] * 3])
    assert np.isnan(openings(sampled(box(0.12, 0.12, 0.1)), top, across_x[None])).all()


def test_labels_neither_collide_nor_are_empty_by_the_evaluators_test(mug, mug_labels):
    grasps = mug_labels.grasps(FEW.views, max_friction=1.0)
    assert len(grasps) > 20
    assert not collisions(grasps, sampled(mug)).unusable.any()


def test_labels_are_the_frictions_at_which_the_evaluator_finds_closure(mug, mug_labels):
    """Scored at 0.1 ... 1.0 in one, at 0.2 ... 1.2 in the other: one must be the other, rounded up."""
    grasps = mug_labels.grasps(FEW.views, max_friction=1.0)
    frame = Frame([GraspObject(sampled(mug), mug)], np.eye(4)[None])
    evaluated = closing_frictions(frame, 0, grasps)
    friction = 1.1 - grasps.scores
    assert len(np.unique(friction.round(3))) > 3
    expected = np.ceil((friction / 0.2).round(4)) * 0.2
    np.testing.assert_allclose(evaluated, expected, atol=1e-5)


def test_label_arrays_have_the_data_sets_layout(mug_labels, tmp_path):
    grid = (6, 30, 4, 4)
    assert mug_labels.scores.shape == mug_labels.collision.shape == grid
    np.testing.assert_allclose(mug_labels.offsets[0, 0, :, 0, 0], np.arange(4) * np.pi / 4, rtol=1e-6)
    np.testing.assert_allclose(mug_labels.offsets[2, 5, 1, :, 1], DEPTHS_M, rtol=1e-6)
    assert (mug_labels.scores[mug_labels.collision] == -1).all()
    assert (mug_labels.offsets[mug_labels.collision][:, 2] == 0).all()
    path = mug_labels.save(tmp_path / "000_labels.npz")
    with np.load(path, allow_pickle=False) as raw:
        assert sorted(raw.files) == ["collision", "offsets", "points", "scores"]
    back = ObjectLabels.load(path)
    for name in ("points", "offsets", "collision", "scores"):
        assert np.array_equal(getattr(back, name), getattr(mug_labels, name))
    np.savez(path, points=np.zeros((2, 3)))
    with pytest.raises(ValueError, match=r"000_labels.npz: .*needs points, offsets, collision and scores"):
        ObjectLabels.load(path)
    with pytest.raises(ValueError, match="scores: got shape"):
        ObjectLabels(back.points, back.offsets, back.collision, back.scores[:2])


def test_masking_labels_thins_them_out(mug_labels):
    none = np.zeros_like(mug_labels.collision)
    assert len(mug_labels.grasps(FEW.views, 1.0, keep=none)) == 0
    assert 0 < len(mug_labels.grasps(FEW.views, 0.3)) < len(mug_labels.grasps(FEW.views, 1.0))


def test_sampled_grasps_hold_and_are_free():
    ball = sphere(0.03)
    cloud = sampled(ball)
    grasps = antipodal_grasps(ball, cloud, 300, max_friction=0.2, seed=1)
    assert len(grasps) > 100
    assert not collisions(grasps, cloud).unusable.any()
    centers = grasps.translations + grasps.depths[:, None] * grasps.rotation_matrices[:, :, 0]
    closing = grasps.rotation_matrices[:, :, 1]
    beside = np.linalg.norm(np.cross(centers, closing), axis=1)  # of the closing line from the ball's center
    lean = np.arcsin(beside / 0.03)
    assert (lean < np.arctan(0.2) + np.deg2rad(0.3)).all()
    sure = np.abs(np.tan(lean) - 0.1) > 0.01
    assert np.array_equal(grasps.scores[sure].round(3), np.where(np.tan(lean[sure]) <= 0.1, 1.0, 0.9))


def test_sampler_is_repeatable_and_wants_no_more_than_the_gripper_opens(mug):
    cloud = sampled(mug)
    first, again = (antipodal_grasps(mug, cloud, 200, seed=3) for _ in range(2))
    assert np.array_equal(first.grasp_group_array, again.grasp_group_array)
    assert len(first) > 0
    assert first.widths.max() <= 0.1
    big = box(0.2, 0.2, 0.2)
    assert len(antipodal_grasps(big, sampled(big), 200)) == 0


def test_spread_points_are_farther_apart_than_random_ones(mug):
    def nearest(points):
        gaps = np.linalg.norm(points[:, None] - points, axis=-1) + np.eye(len(points))
        return gaps.min()

    assert nearest(spread_points(mug, 24)) > 2 * nearest(mug.sample(24, np.random.default_rng(0))[0])


def visible_grasps(count=400, seed=0):
    rng = np.random.default_rng(seed)
    rotations = random_rotations(4 * count, rng)
    rotations = rotations[rotations[:, 2, 0] > 0][:count]
    places = np.column_stack([rng.uniform(-0.4, 0.4, (count, 2)), rng.uniform(0.4, 0.7, count)])
    return GraspGroup.from_parts(rotations, places)


def test_heatmap_equals_a_loop_over_grasps():
    grasps, anchors = visible_grasps(60), avn_anchors()
    labels = heatmap_labels(grasps, REALSENSE, anchors)
    expected = np.zeros((360, 72, 96), dtype=bool)
    for grasp in grasps:
        x, y, z = grasp.translation
        u, v = x / z * REALSENSE.fx + REALSENSE.cx, y / z * REALSENSE.fy + REALSENSE.cy
        column, row = int(np.floor(u / (1280 / 96))), int(np.floor(v / (720 / 72)))
        if 0 <= column < 96 and 0 <= row < 72:
            both = [grasp.rotation_matrix, grasp.rotation_matrix @ TWIN]
            traces = [max(np.trace(a.T @ r) for r in both) for a in anchors.rotations]
            expected[int(np.argmax(traces)), row, column] = True
    assert np.array_equal(labels, expected)
    assert 20 < labels.sum() <= 60


def test_swapping_jaws_changes_official_labels_only():
    grasps, anchors = visible_grasps(), avn_anchors()
    twins = grasps[:]
    twins.rotation_matrices = grasps.rotation_matrices @ TWIN
    both = [heatmap_labels(g, REALSENSE, anchors) for g in (grasps, twins)]
    assert np.array_equal(*both)
    official = [heatmap_labels(g, REALSENSE, anchors, symmetry="official") for g in (grasps, twins)]
    assert not np.array_equal(*official)


def test_another_cameras_intrinsics_move_labels():
    """Defect D2 of the released labels: one principal point for all cameras is off by nearly a cell."""
    grasps, anchors = visible_grasps(), avn_anchors()
    centered = Camera(REALSENSE.fx, REALSENSE.fy, 639.5, 359.5, 1280, 720)
    own, other = (heatmap_labels(grasps, camera, anchors).any(axis=0) for camera in (REALSENSE, centered))
    assert (own != other).sum() > 0.5 * own.sum()
    assert not np.array_equal(own, heatmap_labels(grasps, KINECT, anchors).any(axis=0))


def test_grasps_behind_or_beside_the_image_are_left_out():
    rotations = view_rotations(np.tile([0.0, 0, 1], (3, 1)), np.zeros(3))
    grasps = GraspGroup.from_parts(rotations, [[0, 0, -0.5], [2.0, 0, 0.5], [0, 0, 0.5]])
    labels = heatmap_labels(grasps, REALSENSE, avn_anchors(), CellGrid(32, 24))
    assert labels.shape == (360, 24, 32)
    assert labels.sum() == 1
    with pytest.raises(ValueError, match="needs one at least"):
        CellGrid(0, 72)
