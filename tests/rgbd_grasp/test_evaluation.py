"""The evaluator against graspnetAPI's verdicts, and what any evaluator must do."""

from functools import cache

import numpy as np
import pytest

from paperlab.rgbd_grasp.evaluation.frame import evaluate, select
from paperlab.rgbd_grasp.evaluation.precision import frame_ap
from paperlab.rgbd_grasp.evaluation.scene import Frame, GraspObject, table_in_camera
from paperlab.rgbd_grasp.geometry.grasp import GraspGroup
from paperlab.rgbd_grasp.geometry.rotations import random_rotations, rigid, rotation_distance
from paperlab.rgbd_grasp.geometry.shapes import sphere
from tests.rgbd_grasp import reference


@pytest.mark.parametrize("name", reference.SCENES)
def test_verdicts_and_precision_equal_graspnet_api(name):
    data = reference.load(name)
    result = evaluate(reference.frame(data), reference.grasps(data))
    assert np.array_equal(result.rows, data["eval_keep"])
    assert np.array_equal(result.objects, data["eval_object"])
    assert np.array_equal(result.collided, data["eval_collision"])
    assert np.array_equal(result.empty, data["eval_empty"])
    assert np.array_equal(result.frictions, data["eval_score"])
    assert np.array_equal(result.precision, data["precision"])
    assert frame_ap(result.precision[None])[0] == pytest.approx(
        [float(data[k]) for k in ("ap", "ap_08", "ap_04")], abs=1e-12
    )


@pytest.mark.parametrize("name", reference.SCENES)
def test_exact_contacts_give_the_analytic_scores(name):
    data = reference.load(name)
    result = evaluate(reference.frame(data, surface=reference.mesh), reference.grasps(data))
    clear = ~result.collided & (data["exact_margin_deg"] > 1.5)  # of a cone's edge: meshes have facets
    assert clear.sum() >= 4
    assert np.array_equal(result.frictions[clear], data["exact_score"][clear])


def test_table_stands_where_the_evaluator_puts_it():
    data = reference.load("scene_03")
    table = table_in_camera(data["cam0_wrt_table"] @ data["camera_pose"])
    assert len(table) == 93_750
    np.testing.assert_allclose(table[data["table_check_index"]], data["table_check_point"], atol=1e-12)


@cache
def spread_rotations(count, apart_rad):
    """Rotations that pose suppression keeps apart at one place."""
    candidates = random_rotations(2000, np.random.default_rng(0))
    kept = []
    while len(kept) < count and len(candidates):
        kept.append(candidates[0])
        candidates = candidates[rotation_distance(candidates, candidates[0]) > apart_rad]
    return np.array(kept)


def floating_spheres(count, grasps_each=10):
    """Spheres in the air, and perfect grasps of each."""
    ball = sphere(0.03, subdivisions=3)
    item = GraspObject(ball.sample(4000, np.random.default_rng(1))[0], ball)
    rotations = spread_rotations(grasps_each, np.deg2rad(31))
    assert len(rotations) == grasps_each
    centers = np.array([[0.3 * i, 0.0, 0.6] for i in range(count)])
    depth = 0.02
    groups = [
        GraspGroup.from_parts(rotations, center - depth * rotations[:, :, 0], widths=0.08, depths=depth)
        for center in centers
    ]
    merged = GraspGroup(np.concatenate([group.grasp_group_array for group in groups]))
    merged.scores = np.random.default_rng(2).permutation(len(merged)) / len(merged)
    return Frame([item] * count, np.array([rigid(np.eye(3), center) for center in centers])), merged


@pytest.mark.parametrize(("objects", "ceiling"), [(1, 0.514), (2, 0.761), (3, 0.903), (4, 0.977), (5, 1.0), (6, 1.0)])
def test_perfect_detector_reaches_the_ceiling_of_its_object_count(objects, ceiling):
    result = evaluate(*floating_spheres(objects))
    assert set(result.frictions) == {0.2}
    assert frame_ap(result.precision[None])[0] == pytest.approx([ceiling] * 3, abs=6e-4)


def test_at_most_ten_grasps_of_an_object_are_judged():
    frame, grasps = floating_spheres(1, grasps_each=14)
    rows, _ = select(frame, grasps)
    assert sorted(rows) == sorted(np.argsort(-grasps.scores)[:10])


def test_moving_scene_and_grasps_together_changes_nothing():
    frame, grasps = floating_spheres(2)
    grasps.translations = grasps.translations + np.random.default_rng(3).normal(scale=0.01, size=(len(grasps), 3))
    before = evaluate(frame, grasps)
    turn = rigid(np.eye(3), (0.1, -0.2, 0.3))
    moved = Frame(frame.objects, [turn @ pose for pose in frame.poses])
    after = evaluate(moved, grasps[:].transform(turn))
    assert np.array_equal(before.frictions, after.frictions)
    assert len(set(before.frictions)) > 2


def test_no_grasps_no_precision():
    frame, _ = floating_spheres(1)
    result = evaluate(frame, GraspGroup())
    assert result.precision.shape == (50, 6)
    assert result.precision.max() == 0
    assert result.counts == {"judged": 0, "collided": 0, "empty": 0, "held": 0}


def test_grasps_are_left_as_they_are():
    frame, grasps = floating_spheres(1)
    grasps.widths = np.full(len(grasps), 0.2)
    evaluate(frame, grasps)
    assert (grasps.widths == 0.2).all()


def test_table_points_block_grasps_from_below():
    frame, grasps = floating_spheres(1)
    table = np.stack(np.meshgrid(*[np.arange(-0.1, 0.1, 0.004)] * 2, [0.63]), axis=-1).reshape(-1, 3)
    blocked = evaluate(Frame(frame.objects, frame.poses, table), grasps)
    assert 0 < blocked.collided.sum() < len(grasps)
    below = grasps.rotation_matrices[blocked.rows][:, 2, 0] < -0.5  # the gripper stands under the tabletop
    assert blocked.collided[below].all()


def test_bad_frames_are_told():
    ball = sphere(0.03, 2)
    item = GraspObject(ball.vertices, ball)
    with pytest.raises(ValueError, match=r"poses: got shape \(2, 4, 4\), needs \(1, 4, 4\)"):
        Frame([item], np.stack([np.eye(4)] * 2))
    with pytest.raises(ValueError, match="no rotations"):
        Frame([item], 2 * np.eye(4)[None])
    with pytest.raises(ValueError, match="cloud: is empty"):
        GraspObject(np.zeros((0, 3)), ball)
