import numpy as np
import pytest

from paperlab.rgbd_grasp.geometry.grasp import GraspGroup
from paperlab.rgbd_grasp.geometry.gripper import collisions, crop
from paperlab.rgbd_grasp.geometry.rotations import random_rotations, rigid
from paperlab.rgbd_grasp.labels.scene import place, scene_collisions


def random_grasps(count, seed=0):
    rng = np.random.default_rng(seed)
    group = GraspGroup.from_parts(random_rotations(count, rng), rng.uniform(-0.1, 0.1, (count, 3)))
    group.widths, group.depths = rng.uniform(0, 0.1, count), rng.choice([0.01, 0.02, 0.03, 0.04], count)
    return group


def in_boxes(grasp, point):
    """Whether a point is in a finger or the palm, and whether it is between the fingers."""
    x, y, z = grasp.rotation_matrix.T @ (point - grasp.translation)
    w, d = grasp.width / 2, grasp.depth
    level = -0.01 < z < 0.01
    left = level and -0.02 < x < d and -(w + 0.01) < y < -w
    right = level and -0.02 < x < d and w < y < w + 0.01
    palm = level and -0.03 < x < -0.02 and -(w + 0.01) < y < w + 0.01
    return left or right or palm, level and -0.02 < x < d and -w <= y <= w


def test_collisions_equal_a_loop_over_points_and_boxes():
    grasps, points = random_grasps(120), np.random.default_rng(1).uniform(-0.12, 0.12, (600, 3))
    found = collisions(grasps, points)
    for i, grasp in enumerate(grasps):
        verdicts = [in_boxes(grasp, point) for point in points]
        assert found.hit[i] == any(hit for hit, _ in verdicts)
        assert found.empty[i] == (sum(inside for _, inside in verdicts) < 10)
    assert 0 < found.hit.sum() < len(grasps)
    assert np.array_equal(found.unusable, found.hit | found.empty)


def test_nothing_around_is_empty_not_hit():
    found = collisions(random_grasps(5), np.zeros((0, 3)))
    assert not found.hit.any()
    assert found.empty.all()
    assert collisions(GraspGroup(), np.zeros((4, 3))).hit.shape == (0,)


def test_crop_is_strict_and_aligned_with_the_axes():
    around = np.array([[0.0, 0, 0], [0.1, 0.1, 0.1]])
    points = np.array([[-0.05, 0, 0], [-0.049, 0, 0], [0.05, 0.149, 0.05], [0.05, 0.151, 0.05]])
    assert np.array_equal(crop(points, around), points[1:3])


def test_placing_moves_and_numbers_each_objects_grasps():
    groups = [random_grasps(3, 0), random_grasps(2, 1)]
    poses = [rigid(random_rotations(1, np.random.default_rng(i))[0], (i, 0, 1)) for i in range(2)]
    placed = place(groups, poses)
    assert list(placed.object_ids) == [0, 0, 0, 1, 1]
    np.testing.assert_allclose(placed[3].translation, poses[1][:3, :3] @ groups[1][0].translation + poses[1][:3, 3])
    assert (groups[0].object_ids == -1).all()  # the object's own grasps stay as they are


def slab(y):
    x, z = np.meshgrid(np.arange(-0.015, 0.04, 0.005), np.arange(-0.03, 0.03, 0.006))
    return np.stack([x, np.full_like(x, y), z], axis=-1).reshape(-1, 3)


def test_a_neighbor_or_the_table_blocks_a_grasp():
    grasp = GraspGroup.from_parts(np.eye(3)[None], np.zeros((1, 3)), widths=0.06, depths=0.02, object_ids=0)
    mine = np.concatenate([slab(-0.02), slab(0.02)])
    far, near = slab(0.2), slab(0.035)  # a finger stands between y = 0.03 and 0.04
    assert not scene_collisions(grasp, [mine, far]).any()
    assert scene_collisions(grasp, [mine, near]).all()
    assert scene_collisions(grasp, [mine], table=near).all()
    grasp.object_ids = np.array([1.0])
    with pytest.raises(ValueError, match="object_ids: got 1 to 1, there are 1 objects"):
        scene_collisions(grasp, [mine])
