"""Fast Analytic Searching against loops over candidates and points, and on solids of known width."""

import dataclasses

import numpy as np
import pytest

from paperlab.rgbd_grasp.geometry.cameras import Camera
from paperlab.rgbd_grasp.geometry.grasp import GraspGroup
from paperlab.rgbd_grasp.geometry.rotations import random_rotations, rigid, view_rotations
from paperlab.rgbd_grasp.geometry.shapes import box, cylinder, sphere
from paperlab.rgbd_grasp.geometry.voxels import voxel_average
from paperlab.rgbd_grasp.search.detector import Detector, detect
from paperlab.rgbd_grasp.search.fas import OFFICIAL_CODE, OFFICIAL_DEMO, Search, candidate_verdicts, search_grasps
from paperlab.rgbd_grasp.search.pipeline import observed_cloud

CAMERA = Camera(260.0, 260.0, 127.5, 95.5, 256, 192)
TABLE_M = 0.6  # from the camera, straight below it


def by_loop(grasp, points, detector=None):
    """The released detector's rule, point by point."""
    d = detector or Detector()
    blocked = inner = 0
    for point in points:
        x, y, z = grasp.rotation_matrix.T @ (point - grasp.translation)
        front, rear, half = grasp.depth, grasp.depth - d.finger_length_m, grasp.width / 2
        if not -0.01 < z < 0.01:
            continue
        if rear < x < front:
            inner += -half <= y <= half
            blocked += half < abs(y) < half + d.finger_m
        elif rear - d.finger_m < x <= rear or rear - d.finger_m - d.approach_m < x <= rear - d.finger_m:
            blocked += abs(y) < half + d.finger_m
    voxel = d.voxel_m**3
    outer = 0.02 * (grasp.width + 2 * d.finger_m)
    volume = 2 * 0.02 * d.finger_length_m * d.finger_m + outer * d.finger_m + outer * d.approach_m
    hit = blocked / (volume / voxel) > d.collision_share
    return hit, inner / (0.02 * d.finger_length_m * grasp.width / voxel) < d.empty_share


def random_seeds(count, seed=0, spread=0.05):
    rng = np.random.default_rng(seed)
    seeds = GraspGroup.from_parts(random_rotations(count, rng), rng.uniform(-spread, spread, (count, 3)))
    seeds.depths, seeds.scores = np.full(count, 0.04), rng.permutation(count) / count
    return seeds


def clump(count=900, seed=1):
    """Points in a few blobs, so that some candidates are free, some blocked and some empty."""
    rng = np.random.default_rng(seed)
    return rng.choice(rng.uniform(-0.05, 0.05, (3, 3)), count) + rng.normal(scale=0.012, size=(count, 3))


def test_detector_equals_a_loop_over_points():
    grasps, points = random_seeds(60), clump(400)
    grasps.widths = np.random.default_rng(2).uniform(0.01, 0.1, 60)
    hit, empty = detect(grasps, points)
    expected = [by_loop(grasp, points) for grasp in grasps]
    assert np.array_equal(hit, [h for h, _ in expected])
    assert np.array_equal(empty, [e for _, e in expected])
    assert 0 < hit.sum() < 60
    assert 0 < empty.sum() < 60


@pytest.mark.parametrize(("width", "volume", "points"), [(0.10, 1344, 9.6), (0.02, None, 1.92)])
def test_region_volumes_are_those_of_the_boxes(width, volume, points):
    widths = np.array([width])
    assert Detector().inner_voxels(widths)[0] * 0.01 == pytest.approx(points)
    if volume:
        assert Detector().blocked_voxels(widths)[0] == pytest.approx(volume)


def candidate(seeds, row, search, distance, width):
    grasp = seeds[row]
    axis = grasp.rotation_matrix[:, 0] if search.shift == "approach" else np.array([0.0, 0.0, 1.0])
    grasp.translation, grasp.width = grasp.translation + distance * axis, width
    return grasp


SEARCHES = {
    "paper": Search(),
    "camera axis": Search(shift="camera_z"),
    "code": OFFICIAL_CODE,
    "demo": OFFICIAL_DEMO,
    "robotiq": Search(detector=Detector(finger_length_m=0.04, finger_m=0.015, approach_m=0.03)),
}


@pytest.mark.parametrize("name", SEARCHES)
def test_grid_equals_the_detector_on_every_candidate(name):
    search, seeds, cloud = SEARCHES[name], random_seeds(25), clump()
    hit, empty = candidate_verdicts(seeds, cloud, search)
    assert hit.shape == (25, len(search.distances_m), len(search.widths_m))
    for i, distance in enumerate(search.distances_m):
        for j, width in enumerate(search.widths_m):
            group = GraspGroup()
            for row in range(25):
                group.add(candidate(seeds, row, search, distance, width))
            one_hit, one_empty = detect(group, cloud, search.detector)
            assert np.array_equal(hit[:, i, j], one_hit)
            assert np.array_equal(empty[:, i, j], one_empty)
    if name == "paper":
        assert 0.1 < hit.mean() < 0.95
        assert 0.05 < empty.mean() < 0.95


def preferred(alive, search):
    """The documented rule as a loop: the distance first, then the opening."""
    far = {"farthest": lambda d: d, "middle": abs, "nearest": lambda d: -d}[search.distance_order]
    wide = {"widest": lambda w: -w, "smallest": lambda w: w}[search.width_order]
    pairs = [
        (far(d), wide(w), i, j)
        for i, d in enumerate(search.distances_m)
        for j, w in enumerate(search.widths_m)
        if alive[i, j]
    ]
    return min(pairs)[2:] if pairs else None


@pytest.mark.parametrize("width_order", ["widest", "smallest"])
@pytest.mark.parametrize("distance_order", ["farthest", "nearest"])
def test_chosen_candidate_is_the_preferred_one(distance_order, width_order):
    search = Search(distance_order=distance_order, width_order=width_order)
    seeds, cloud = random_seeds(60), clump()
    found = search_grasps(seeds, cloud, search)
    choices = {row: preferred(alive, search) for row, alive in enumerate(~found.hit & ~found.empty)}
    assert list(found.seeds) == [row for row, choice in choices.items() if choice]
    assert 5 < len(found.seeds) < 60
    for row, i, j, grasp in zip(found.seeds, found.distances, found.widths, found.grasps, strict=True):
        assert (i, j) == choices[row]
        expected = candidate(seeds, int(row), search, search.distances_m[i], search.widths_m[j])
        np.testing.assert_allclose(grasp.grasp_array, expected.grasp_array, atol=1e-12)


def test_middle_distance_is_tried_first():
    search = Search(distance_order="middle")
    seeds = random_seeds(60)
    found = search_grasps(seeds, clump(), search)
    alive = (~found.hit & ~found.empty)[found.seeds]
    at_zero = alive[:, 2].any(axis=1)
    assert at_zero.any()
    assert (found.distances[at_zero] == 2).all()


def test_released_preset_ranks_by_the_candidate_too():
    seeds, cloud = random_seeds(60), clump()
    found = search_grasps(seeds, cloud, OFFICIAL_CODE)
    distance = np.array(OFFICIAL_CODE.distances_m)[found.distances]
    np.testing.assert_allclose(found.grasps.scores, seeds.scores[found.seeds] + 0.01 - distance)
    plain = search_grasps(seeds, cloud, Search())
    np.testing.assert_allclose(plain.grasps.scores, seeds.scores[plain.seeds])


def test_margin_opens_farther_but_only_where_that_survives():
    seeds, cloud = random_seeds(80), clump()
    tight = search_grasps(seeds, cloud, Search(width_order="smallest"))
    loose = search_grasps(seeds, cloud, Search(width_order="smallest", width_margin_m=0.01))
    assert np.array_equal(tight.seeds, loose.seeds)
    wider = loose.widths - tight.widths
    assert set(wider) == {0, 1}
    alive = ~tight.hit & ~tight.empty
    for row, i, j, more in zip(tight.seeds, tight.distances, tight.widths, wider, strict=True):
        assert more == (j + 1 < 10 and alive[row, i, min(j + 1, 9)])


def test_counts_add_up():
    found = search_grasps(random_seeds(60), clump(), Search())
    counts = found.counts
    assert counts["seeds"] == counts["blocked"] + counts["blocked or empty"] + counts["survived"] == 60
    assert search_grasps(GraspGroup(), clump()).counts["survived"] == 0
    nothing = search_grasps(random_seeds(5), np.zeros((0, 3)))
    assert nothing.counts["survived"] == 0
    assert nothing.empty.all()
    assert not nothing.hit.any()


def depth_of(meshes, camera=CAMERA, tilt_rad=0.0):
    """What a camera above a table sees: depth (H, W) in meters, and the table's pose in its frame."""
    turn = np.array([[1, 0, 0], [0, np.cos(tilt_rad), -np.sin(tilt_rad)], [0, np.sin(tilt_rad), np.cos(tilt_rad)]])
    flip = np.diag([1.0, -1.0, -1.0])
    camera_from_table = rigid(turn @ flip, [0, 0, TABLE_M])
    far = camera.cloud(np.full((camera.height, camera.width), 2.0)).reshape(-1, 3)
    table = box(1.0, 1.0, 0.1).moved(rigid(np.eye(3), [0, 0, -0.05]))
    depth = np.full(len(far), np.inf)
    for mesh in [table, *meshes]:
        hits = mesh.moved(camera_from_table).first_hits(np.zeros_like(far), far)
        depth = np.minimum(depth, hits.fractions * 2.0)
    depth[~np.isfinite(depth)] = 0.0
    return depth.reshape(camera.height, camera.width), camera_from_table


def widths_of(mesh, height_m, closing, tilt_rad=0.0, others=()):
    """Smallest free opening (5 distances) for a grasp from straight above the table at the top of a solid."""
    placed = mesh.moved(rigid(np.eye(3), [0, 0, height_m / 2]))
    depth, camera_from_table = depth_of([placed, *others], tilt_rad=tilt_rad)
    closing = np.array(closing, dtype=float)
    rotation = np.stack([[0, 0, -1.0], closing, np.cross([0, 0, -1.0], closing)], axis=-1)
    just_below = [[0, 0, height_m - 0.001]]  # the top: or at the deepest distance it would be on the palm's edge
    seed = GraspGroup.from_parts(rotation[None], just_below, depths=0.04).transform(camera_from_table)
    hit, empty = candidate_verdicts(seed, observed_cloud(depth, CAMERA, 0.005), Search())
    alive = (~hit & ~empty)[0]
    return [Search().widths_m[row.argmax()] if row.any() else None for row in alive]


@pytest.mark.parametrize("tilt", [0.0, 0.5], ids=["top view", "oblique view"])
@pytest.mark.parametrize("side_cm", [2, 4, 6, 9])
def test_box_needs_its_width(side_cm, tilt):
    mesh = box(side_cm / 100 - 0.002, 0.06, 0.08)
    found = widths_of(mesh, 0.08, [1, 0, 0], tilt)
    assert found[:4] == pytest.approx([side_cm / 100] * 4)
    assert found[4] is None  # 2 cm deeper the palm meets the top face


@pytest.mark.parametrize("tilt", [0.0, 0.5], ids=["top view", "oblique view"])
def test_cylinder_and_sphere_need_their_diameters(tilt):
    # At the top of an upright cylinder the outline is the circle; the fingers reach a ball's widest part.
    assert widths_of(cylinder(0.029, 0.08), 0.08, [0.6, 0.8, 0], tilt)[2] == pytest.approx(0.06)
    ball = widths_of(sphere(0.029, 4), 0.058, [1, 0, 0], tilt)[2]
    assert ball == pytest.approx(0.06)


def test_too_wide_for_the_gripper():
    assert widths_of(box(0.13, 0.13, 0.08), 0.08, [1, 0, 0]) == [None] * 5


def test_a_neighbor_blocks_the_fingers():
    """A wall of the same height 2.3 cm beside the box leaves room for openings up to the wall only."""
    mesh = box(0.038, 0.06, 0.08)
    wall = box(0.02, 0.06, 0.08).moved(rigid(np.eye(3), [0.052, 0, 0.04]))  # from x = 0.042 on
    placed = mesh.moved(rigid(np.eye(3), [0, 0, 0.04]))
    depth, camera_from_table = depth_of([placed, wall])
    rotation = np.stack([[0, 0, -1.0], [1.0, 0, 0], [0, -1.0, 0]], axis=-1)
    seed = GraspGroup.from_parts(rotation[None], [[0, 0, 0.08]], depths=0.04).transform(camera_from_table)
    hit, empty = candidate_verdicts(seed, observed_cloud(depth, CAMERA, 0.005), Search())
    free = np.array(Search().widths_m)[(~hit & ~empty)[0, 2]]
    assert list(free) == pytest.approx([0.04, 0.05, 0.06])
    alone, _ = candidate_verdicts(seed, observed_cloud(depth_of([placed])[0], CAMERA, 0.005), Search())
    assert not alone[0, 2, 3:].any()


def test_search_moves_with_scene_and_seeds():
    seeds, cloud = random_seeds(40), clump()
    motion = rigid(random_rotations(1, np.random.default_rng(7))[0], (0.3, 0.1, 0.5))
    here = search_grasps(seeds, cloud)
    there = search_grasps(seeds[:].transform(motion), cloud @ motion[:3, :3].T + motion[:3, 3])
    assert np.array_equal(here.seeds, there.seeds)
    assert np.array_equal(here.widths, there.widths)
    np.testing.assert_allclose(
        here.grasps[:].transform(motion).grasp_group_array, there.grasps.grasp_group_array, atol=1e-9
    )


def test_shifts_coincide_along_the_optical_axis():
    rotations = view_rotations(np.tile([0.0, 0, 1.0], (20, 1)), np.linspace(0, 3, 20))
    seeds = GraspGroup.from_parts(rotations, np.random.default_rng(0).uniform(-0.04, 0.04, (20, 3)), depths=0.04)
    both = [candidate_verdicts(seeds, clump(), Search(shift=shift)) for shift in ("approach", "camera_z")]
    assert np.array_equal(both[0][0], both[1][0])
    assert np.array_equal(both[0][1], both[1][1])


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"widths_m": (0.02, 0.01)}, "ascending"),
        ({"distances_m": ()}, "distances_m: got"),
        ({"shift": "world_z"}, "shift: got 'world_z', needs one of approach, camera_z"),
        ({"width_margin_m": -0.01}, "margin not negative"),
        ({"width_order": "best"}, "width_order"),
    ],
)
def test_bad_settings_are_told(change, message):
    with pytest.raises(ValueError, match=message):
        dataclasses.replace(Search(), **change)


def test_bad_detectors_are_told():
    with pytest.raises(ValueError, match="lengths must be positive"):
        Detector(voxel_m=0.0)
    with pytest.raises(ValueError, match="shares must lie"):
        Detector(empty_share=1.5)


def test_cloud_leaves_holes_out():
    depth = np.zeros((192, 256))
    depth[90:100, 120:130] = 0.5
    cloud = observed_cloud(depth, CAMERA, 0.005)
    np.testing.assert_allclose(cloud[:, 2], 0.5)
    assert len(cloud) < 100
    assert np.array_equal(cloud, voxel_average(CAMERA.cloud(depth)[depth > 0], 0.005))
