import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from paperlab.rgbd_grasp.geometry.cameras import REALSENSE
from paperlab.rgbd_grasp.geometry.grasp import Grasp, GraspGroup, to_tcp
from paperlab.rgbd_grasp.geometry.nms import pose_nms
from paperlab.rgbd_grasp.geometry.rect_grasp import RectGrasp, RectGraspGroup
from paperlab.rgbd_grasp.geometry.rotations import TWIN, random_rotations, rigid, view_rotations
from paperlab.rgbd_grasp.geometry.voxels import voxel_average
from tests.rgbd_grasp import reference


def some(count=8, seed=0):
    rng = np.random.default_rng(seed)
    group = GraspGroup.from_parts(random_rotations(count, rng), rng.normal(size=(count, 3)), scores=rng.random(count))
    group.widths, group.depths = rng.uniform(0.01, 0.1, count), rng.choice([0.01, 0.02, 0.03, 0.04], count)
    return group


def test_layout_is_that_of_graspnet_api():
    rotation = random_rotations(1, np.random.default_rng(0))[0]
    grasp = Grasp(0.9, 0.05, 0.02, 0.03, rotation, np.array([1.0, 2.0, 3.0]), 7)
    expected = [0.9, 0.05, 0.02, 0.03, *rotation[0], *rotation[1], *rotation[2], 1, 2, 3, 7]
    assert np.array_equal(grasp.grasp_array, expected)
    assert (grasp.score, grasp.width, grasp.height, grasp.depth, grasp.object_id) == (0.9, 0.05, 0.02, 0.03, 7)
    assert np.array_equal(grasp.rotation_matrix, rotation)
    assert np.array_equal(Grasp().grasp_array, [0, 0.02, 0.02, 0.02, 1, 0, 0, 0, 1, 0, 0, 0, 1, 0, 0, 0, -1])


def test_group_picks_rows_and_groups():
    group = some()
    assert isinstance(group[2], Grasp)
    assert np.array_equal(group[np.int64(2)].grasp_array, group.grasp_group_array[2])
    assert np.array_equal(group[-1].translation, group.translations[-1])
    for index in (slice(1, 4), [1, 2, 3], np.arange(1, 4), np.isin(np.arange(8), [1, 2, 3])):
        assert np.array_equal(group[index].grasp_group_array, group.grasp_group_array[1:4])
    assert len(list(group)) == 8
    with pytest.raises(TypeError, match="needs an int, slice, list or array"):
        group["first"]


def test_setters_write_and_check():
    group = some()
    group.scores = np.arange(8)
    group[0].score = 5.0  # a copy, as in graspnetAPI
    assert group.scores[0] == 0
    with pytest.raises(ValueError, match=r"widths.*got shape \(3,\), needs \(8\)"):
        group.widths = np.ones(3)
    grasp = group[1]
    grasp.translation, grasp.rotation_matrix, grasp.object_id = (1, 2, 3), np.eye(3), 4
    assert np.array_equal(grasp.grasp_array[4:], [1, 0, 0, 0, 1, 0, 0, 0, 1, 1, 2, 3, 4])
    with pytest.raises(ValueError, match="rotation_matrix: 1 of 1 are no rotations"):
        grasp.rotation_matrix = np.ones((3, 3))


def test_sorting_adding_removing_sampling():
    group = some().sort_by_score()
    assert (np.diff(group.scores) <= 0).all()
    assert (np.diff(group.sort_by_score(reverse=True).scores) >= 0).all()
    both = GraspGroup().add(group[0]).add(group)
    assert len(both) == 9
    assert len(both.remove([0, 1])) == 7
    sample = group.random_sample(5, np.random.default_rng(0))
    assert len(np.unique(sample.scores)) == 5
    with pytest.raises(ValueError, match="the group has 8"):
        group.random_sample(9)


def test_moving_there_and_back():
    group = some()
    motion = rigid(random_rotations(1, np.random.default_rng(5))[0], (0.1, 0.2, 0.3))
    moved = group[:].transform(motion)
    tip = group[0].translation + 0.05 * group[0].rotation_matrix[:, 0]
    assert moved[0].translation + 0.05 * moved[0].rotation_matrix[:, 0] == pytest.approx(
        motion[:3, :3] @ tip + motion[:3, 3]
    )
    back = moved.transform(np.linalg.inv(motion))
    np.testing.assert_allclose(back.grasp_group_array, group.grasp_group_array, atol=1e-12)
    one = group[0].transform(motion)
    np.testing.assert_allclose(one.translation, motion[:3, :3] @ group.translations[0] + motion[:3, 3])
    with pytest.raises(ValueError, match="T: last row"):
        group.transform(np.ones((4, 4)) * 0 + np.diag([1, 1, 1, 0]))


def test_files_interchange_without_pickle(tmp_path):
    path = tmp_path / "some grasps.npy"
    group = some()
    group.save_npy(path)
    assert np.array_equal(np.load(path, allow_pickle=False), group.grasp_group_array)
    assert np.array_equal(GraspGroup(str(path)).grasp_group_array, group.grasp_group_array)
    assert np.array_equal(GraspGroup().from_npy(path).grasp_group_array, group.grasp_group_array)
    np.save(path, np.array([{"a": 1}], dtype=object), allow_pickle=True)
    with pytest.raises(ValueError, match=r"needs a plain \.npy array"):
        GraspGroup().from_npy(path)
    np.save(path, np.zeros((3, 7)))
    with pytest.raises(ValueError, match=r"some grasps.npy: got shape \(3, 7\), needs \(N, 17\)"):
        GraspGroup().from_npy(path)


@pytest.mark.parametrize(
    ("bad", "message"),
    [(np.full((2, 17), np.nan), "NaN"), (np.zeros((2, 16)), "shape"), (np.zeros((2, 17), dtype=complex), "real")],
)
def test_bad_arrays_are_told(bad, message):
    with pytest.raises(ValueError, match=message):
        GraspGroup(bad)
    with pytest.raises(TypeError, match="needs a numpy array"):
        GraspGroup([1, 2])


@pytest.mark.parametrize("number", range(3))
def test_suppression_equals_grasp_nms(number):
    data = reference.load("nms_00")
    kept = pose_nms(
        data[f"set{number}_grasps"],
        float(data[f"set{number}_translation_thresh"]),
        float(data[f"set{number}_rotation_thresh"]),
    )
    assert np.array_equal(kept, data[f"set{number}_keep"])


def test_suppression_keeps_twins_and_drops_repeats():
    group = some(1)
    twin = group[:]
    twin.rotation_matrices = group.rotation_matrices @ TWIN
    assert len(group[:].add(twin).nms()) == 2
    assert len(group[:].add(group).nms()) == 1


@settings(max_examples=25, deadline=None)
@given(st.integers(0, 10_000), st.integers(1, 40))
def test_suppression_leaves_no_near_pair_and_no_orphan(seed, count):
    rng = np.random.default_rng(seed)
    axis = np.tile([0.0, 0.0, 1.0], (count, 1))
    rotations = view_rotations(axis, rng.uniform(0, np.pi, count))
    group = GraspGroup.from_parts(rotations, rng.uniform(0, 0.05, (count, 3)), scores=rng.permutation(count))

    def near(a, b):
        turn = np.arccos(np.clip((np.trace(a.rotation_matrix.T @ b.rotation_matrix) - 1) / 2, -1, 1))
        return np.linalg.norm(a.translation - b.translation) < 0.03 and turn < np.pi / 6

    kept = group.nms()
    assert not any(near(a, b) for i, a in enumerate(kept) for b in list(kept)[:i])
    for grasp in group:
        assert any(near(grasp, better) and better.score >= grasp.score for better in kept)


def test_voxel_average_equals_open3d():
    data = reference.load("voxel_00")
    ours, theirs = voxel_average(data["set1_points"], float(data["voxel_size"])), data["set1_down"]
    by_row = [points[np.lexsort(points.T[::-1])] for points in (ours, theirs)]
    np.testing.assert_allclose(*by_row, rtol=0, atol=1e-15)
    assert voxel_average(np.zeros((0, 3)), 0.01).shape == (0, 3)


def test_tool_pose_is_at_the_fingertips_and_approaches_along_z():
    grasp = some()[0]
    pose = to_tcp(grasp)
    x, y, _ = grasp.rotation_matrix.T
    np.testing.assert_allclose(pose[:3, 2], x)
    np.testing.assert_allclose(pose[:3, 1], y)
    assert np.linalg.det(pose[:3, :3]) == pytest.approx(1.0)
    np.testing.assert_allclose(pose[:3, 3], grasp.translation + grasp.depth * x)
    np.testing.assert_allclose(to_tcp(grasp, tip_to_tcp_m=0.03)[:3, 3], pose[:3, 3] - 0.03 * x)
    base = rigid(random_rotations(1, np.random.default_rng(3))[0], (0.5, 0, 0.2))
    np.testing.assert_allclose(base @ to_tcp(grasp, base), pose, atol=1e-12)


def along_axis(count=6, depth_m=0.5):
    rng = np.random.default_rng(0)
    rotations = view_rotations(np.tile([0.0, 0.0, 1.0], (count, 1)), rng.uniform(0, np.pi, count))
    places = np.column_stack([rng.uniform(-0.1, 0.1, (count, 2)), np.full(count, depth_m + 0.02)])
    return GraspGroup.from_parts(rotations, places, widths=rng.uniform(0.02, 0.1, count), scores=rng.random(count))


def test_rectangles_there_and_back():
    group = along_axis()
    rectangles = group.to_rect_grasp_group("realsense")
    image = np.full((720, 1280), 500, dtype=np.uint16)
    back = rectangles.to_grasp_group("realsense", image)
    np.testing.assert_allclose(back.widths, group.widths, atol=1e-3)
    np.testing.assert_allclose(back.heights, 0.02, atol=1e-4)
    np.testing.assert_allclose(back.translations, group.translations - [0, 0, 0.02], atol=1e-3)
    again = GraspGroup(back.grasp_group_array.copy())
    again.translations = again.translations + np.array([0, 0, 0.02])
    second = again.to_rect_grasp_group("realsense")
    np.testing.assert_allclose(second.center_points, rectangles.center_points, atol=0.5)
    other_end = 2 * rectangles.center_points - rectangles.open_points  # the jaws swap on the way back
    np.testing.assert_allclose(second.open_points, other_end, atol=0.5)


def test_rectangle_of_a_known_grasp():
    rotation = view_rotations([[0.0, 0.0, 1.0]], [0.0])  # closes along y
    group = GraspGroup.from_parts(rotation, [[0.0, 0.0, 0.52]], widths=0.1, scores=0.5)
    row = group.to_rect_grasp_group(REALSENSE)[0]
    assert row.center_point == pytest.approx([REALSENSE.cx, REALSENSE.cy])
    assert row.open_point == pytest.approx([REALSENSE.cx, REALSENSE.cy - 0.05 / 0.5 * REALSENSE.fy])
    assert row.height == pytest.approx(0.02 / 0.5 * REALSENSE.fx)
    corners = row.corners()
    assert np.linalg.norm(corners[0] - corners[1]) == pytest.approx(row.height)
    assert np.linalg.norm(corners[1] - corners[2]) == pytest.approx(0.1 / 0.5 * REALSENSE.fy)


def test_rectangles_without_depth_are_dropped():
    rectangles = along_axis().to_rect_grasp_group("realsense")
    image = np.zeros((720, 1280), dtype=np.uint16)
    assert rectangles.to_grasp_group("realsense", image) is None
    u, v = np.round(rectangles.center_points[0]).astype(int)
    image[v, u] = 500
    assert len(rectangles.to_grasp_group("realsense", image)) == 1
    with pytest.raises(ValueError, match=r"depth_mm: got shape \(480, 640\), needs \(720, 1280\)"):
        rectangles.to_grasp_group("realsense", np.zeros((480, 640)))
    oblique = GraspGroup.from_parts(view_rotations([[0.3, 0.0, 1.0]], [0.0]), [[0, 0, 0.5]])
    assert oblique.to_rect_grasp_group("kinect") is None


def test_rectangle_classes_share_the_interface(tmp_path):
    row = RectGrasp(10, 20, 15, 20, 8, 0.7, 3)
    group = RectGraspGroup().add(row).add(RectGrasp(np.array([1.0, 2, 3, 4, 5, 0.9, 6])))
    group.sort_by_score().save_npy(tmp_path / "r.npy")
    assert np.array_equal(RectGraspGroup(tmp_path / "r.npy").scores, [0.9, 0.7])
    assert group[1].object_id == 3
