import numpy as np
import pytest

from paperlab.rgbd_grasp.geometry.anchors import avn_anchors
from paperlab.rgbd_grasp.geometry.cameras import REALSENSE, Camera
from paperlab.rgbd_grasp.geometry.grasp import GraspGroup
from paperlab.rgbd_grasp.geometry.rotations import rigid
from paperlab.rgbd_grasp.geometry.shapes import box
from paperlab.rgbd_grasp.labels.heatmap import CellGrid, heatmap_labels
from paperlab.rgbd_grasp.search.decode import Decoding, best_entries, cell_depths, decode
from paperlab.rgbd_grasp.search.pipeline import Settings, grasps_from_heatmap
from paperlab.rgbd_grasp.search.workspace import Workspace, find_workspace, fit_plane
from tests.rgbd_grasp.test_search import CAMERA, depth_of

ANCHORS = avn_anchors()


def one_hot(entries, grid=(72, 96)):
    heatmap = np.zeros((len(ANCHORS), *grid))
    for kind, row, column, score in entries:
        heatmap[kind, row, column] = score
    return heatmap


def test_a_label_decodes_to_its_class_and_within_its_cell():
    grasps = GraspGroup.from_parts(ANCHORS.rotations[[10, 200]], [[0.05, 0.1, 0.5], [-0.1, 0.02, 0.5]])
    labels = heatmap_labels(grasps, REALSENSE, ANCHORS).astype(float)
    depth = np.full((720, 1280), 0.5)
    seeds = decode(labels * [[[1.0]]], depth, REALSENSE, ANCHORS, Decoding(top_in_map=2))
    order = np.argsort(seeds.translations[:, 0])[::-1]
    np.testing.assert_allclose(seeds.rotation_matrices[order], ANCHORS.rotations[[10, 200]])
    off = np.abs(seeds.translations[order] - grasps.translations)
    assert (off <= np.array([13.34 / 2 / REALSENSE.fx, 5.01 / REALSENSE.fy, 1e-9]) * [0.5, 0.5, 1]).all()
    assert (seeds.depths == 0.04).all()


def test_the_official_corner_is_biased_by_half_a_cell():
    rng = np.random.default_rng(0)
    points = np.column_stack([rng.uniform(-0.25, 0.25, 300), rng.uniform(-0.15, 0.15, 300), np.full(300, 0.5)])
    cells, _ = CellGrid().cells(REALSENSE, points)
    cells, first = np.unique(cells, axis=0, return_index=True)
    points, depth = points[first], np.full((720, 1280), 0.5)
    heatmap = one_hot([(0, row, column, 1.0 - i / 1000) for i, (column, row) in enumerate(cells)])
    bias = {}
    for mode in ("official", "center_median_valid"):
        everything = Decoding(mode, 1, len(cells), len(cells), nms_translation_m=0.0)
        bias[mode] = (decode(heatmap, depth, REALSENSE, ANCHORS, everything).translations - points).mean(axis=0)[:2]
    np.testing.assert_allclose(bias["center_median_valid"], 0.0, atol=5e-4)
    expected = [-1280 / 96 / 2 * 0.5 / REALSENSE.fx, -720 / 72 / 2 * 0.5 / REALSENSE.fy]  # 3.6 and 2.7 mm
    np.testing.assert_allclose(bias["official"], expected, atol=5e-4)


def test_entries_equal_a_full_sort():
    rng = np.random.default_rng(0)
    heatmap = rng.random((20, 4, 5))
    kind, row, column = best_entries(heatmap, Decoding(top_in_cell=3, top_in_map=17), None)
    entries = []
    for r in range(4):
        for c in range(5):
            entries += [(heatmap[k, r, c], k, r, c) for k in np.argsort(-heatmap[:, r, c])[:3]]
    expected = sorted(entries, reverse=True)[:17]
    assert [(k, r, c) for _, k, r, c in expected] == list(zip(kind, row, column, strict=True))


def test_masked_cells_give_no_entry():
    mask = np.zeros((4, 5), dtype=bool)
    mask[1, 2] = True
    _, row, column = best_entries(np.random.default_rng(0).random((20, 4, 5)), Decoding(top_in_cell=3), mask)
    assert set(zip(row, column, strict=True)) == {(1, 2)}
    assert len(row) == 3


def test_depth_of_a_cell():
    depth = np.zeros((6, 8))
    depth[:3, :4] = [[0, 0.5, 0.5, 0], [0.5, 0.9, 0.9, 0], [0, 0, 0, 0]]
    grid, where = CellGrid(2, 2), (np.array([0, 0, 1]), np.array([0, 1, 1]))
    official = cell_depths(depth, *where, grid, "official")
    np.testing.assert_allclose(official, [(3 * 0.5 + 2 * 0.9) / 12, 0, 0])  # holes count as 0
    np.testing.assert_allclose(cell_depths(depth, *where, grid, "center_median_valid"), [0.5, 0, 0])
    depth[2, 0] = 0.9
    assert cell_depths(depth, *where, grid, "center_median_valid")[0] == 0.5  # never between two surfaces


def test_uneven_cells_cover_the_image_once():
    camera, grid = (7, 11), CellGrid(4, 3)
    depth = np.arange(1.0, 78.0).reshape(camera)
    rows, columns = (a.ravel() for a in np.mgrid[:3, :4])
    means = cell_depths(depth, rows, columns, grid, "official")
    sizes = np.array(
        [
            (((r + 1) * 7 // 3) - r * 7 // 3) * (((c + 1) * 11 // 4) - c * 11 // 4)
            for r, c in zip(rows, columns, strict=True)
        ]
    )
    assert sizes.sum() == 77
    assert means @ sizes == pytest.approx(depth.sum())


def test_seeds_without_depth_are_dropped_and_near_ones_suppressed():
    depth = np.full((720, 1280), 0.5)
    heatmap = one_hot([(0, 30, 40, 0.9), (0, 30, 41, 0.8), (0, 60, 90, 0.7)])
    found = decode(heatmap, depth, REALSENSE, ANCHORS, Decoding(top_in_map=3))
    assert list(found.scores) == [0.9, 0.7]
    depth[600:] = 0
    assert list(decode(heatmap, depth, REALSENSE, ANCHORS, Decoding(top_in_map=3)).scores) == [0.9]


def test_bad_inputs_are_told():
    depth = np.full((720, 1280), 0.5)
    with pytest.raises(ValueError, match=r"heatmap: got shape \(3, 72, 96\), needs \(360, N, N\)"):
        decode(np.zeros((3, 72, 96)), depth, REALSENSE, ANCHORS)
    with pytest.raises(ValueError, match=r"mask: got shape \(2, 2\)"):
        decode(one_hot([]), depth, REALSENSE, ANCHORS, mask=np.ones((2, 2), dtype=bool))
    with pytest.raises(ValueError, match="mode: got 'mean'"):
        Decoding("mean")
    with pytest.raises(ValueError, match="mask 'gt' needs"):
        find_workspace("gt", CellGrid())
    with pytest.raises(ValueError, match="mask: got 'table'"):
        find_workspace("table", CellGrid())


def seen_box(tilt):
    placed = box(0.06, 0.06, 0.08).moved(rigid(np.eye(3), [0, 0, 0.04]))
    return depth_of([placed], tilt_rad=tilt), depth_of([], tilt_rad=tilt)[0]


@pytest.mark.parametrize("tilt", [0.0, 0.5])
def test_plane_of_the_table_and_what_stands_on_it(tilt):
    (depth, camera_from_table), bare = seen_box(tilt)
    rng = np.random.default_rng(0)
    noisy = depth + rng.normal(scale=0.002, size=depth.shape) * (depth > 0)
    normal, offset = fit_plane(CAMERA.cloud(noisy)[noisy > 0])
    np.testing.assert_allclose(normal, camera_from_table[:3, 2], atol=0.01)
    assert offset == pytest.approx(camera_from_table[:3, 2] @ camera_from_table[:3, 3], abs=0.003)
    grid = CellGrid(32, 24)
    mask = find_workspace("depth_plane", grid, depth_m=noisy, camera=CAMERA).cells
    truth = find_workspace("gt", grid, segmentation=(bare - depth > 1e-3).astype(np.uint8)).cells
    overlap = (mask & truth).sum() / (mask | truth).sum()
    assert overlap > 0.6
    assert 0 < mask.sum() < 0.4 * mask.size


def test_masks_of_other_kinds():
    grid = CellGrid(32, 24)
    assert find_workspace("none", grid).cells.all()
    assert find_workspace("none", grid).kind == "none"
    with pytest.raises(ValueError, match="cells: got float64"):
        Workspace("gt", np.ones((4, 4)))
    labels = np.zeros((192, 256), dtype=np.uint8)
    labels[84:92, 124:132] = 3  # the one cell around row 10, column 15 or 16
    mask = find_workspace("gt", grid, segmentation=labels).cells
    assert 1 <= mask.sum() <= 6
    with pytest.raises(ValueError, match="a plane needs 3"):
        find_workspace("depth_plane", grid, depth_m=np.zeros((192, 256)), camera=CAMERA)


def test_heatmap_to_grasps_on_a_box():
    """Right classes on a box's top come back as grasps that close around it; the mask is named with them."""
    (depth, camera_from_table), _ = seen_box(0.0)
    down = ANCHORS.rotations[:, 2, 0] > 0.98
    heatmap = np.zeros((len(ANCHORS), 24, 32))
    heatmap[down] = np.linspace(0.5, 0.9, down.sum())[:, None, None]
    mask = find_workspace("depth_plane", CellGrid(32, 24), depth_m=depth, camera=CAMERA)
    ranked = grasps_from_heatmap(heatmap, depth, CAMERA, ANCHORS, Settings(), mask)
    assert ranked.mask == "depth_plane"
    assert ranked.counts["seeds"] >= ranked.counts["survived"] >= ranked.counts["grasps"] == len(ranked.grasps) > 0
    assert (np.diff(ranked.grasps.scores) <= 0).all()
    inside = np.linalg.inv(camera_from_table)[:3, :3] @ (ranked.grasps.translations - camera_from_table[:3, 3]).T
    assert np.abs(inside[:2]).max() < 0.05
    with pytest.raises(ValueError, match="top_grasps: got 0"):
        Settings(top_grasps=0)


def test_small_camera_and_grid():
    camera = Camera(50.0, 50.0, 7.5, 5.5, 16, 12)
    heatmap = one_hot([(5, 1, 2, 1.0)], grid=(3, 4))
    seeds = decode(heatmap, np.full((12, 16), 0.5), camera, ANCHORS, Decoding(top_in_map=1))
    np.testing.assert_allclose(camera.project(seeds.translations), [[10.0, 6.0]])
