"""Piles at rest, and a small generated data set: the same bytes again, read by the loader, evaluated, well labeled."""

import itertools
import json
import shutil

import numpy as np
import pytest

from paperlab.rgbd_grasp.dataset.layout import Layout
from paperlab.rgbd_grasp.evaluation.frame import evaluate
from paperlab.rgbd_grasp.evaluation.parallel import evaluate_frames
from paperlab.rgbd_grasp.geometry.anchors import avn_anchors
from paperlab.rgbd_grasp.geometry.gripper import collisions
from paperlab.rgbd_grasp.geometry.rotations import inverse, move
from paperlab.rgbd_grasp.labels.heatmap import CellGrid, heatmap_labels
from paperlab.rgbd_grasp.scenes import (
    Generated,
    Sizes,
    assets,
    catalog,
    dataset,
    make_dataset,
    make_datasets,
    make_scene,
    object_ids,
)
from paperlab.rgbd_grasp.scenes.drop import Pile, drop
from paperlab.rgbd_grasp.scenes.generate import take_views
from paperlab.rgbd_grasp.scenes.looks import random_looks

SIZES = Sizes(views=2, width=96, height=72, objects=6, grasps=150, label_points=1)


@pytest.fixture(scope="module")
def small(tmp_path_factory):
    """Coarse distances and few samples, kept in a cache of the test's own."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("PAPERLAB_CACHE", str(tmp_path_factory.mktemp("cache")))
        patch.setattr(assets, "SDF_CELLS", 24)
        patch.setattr(assets, "_SAMPLES", 250)
        yield


@pytest.fixture(scope="module")
def root(small, tmp_path_factory):
    root = tmp_path_factory.mktemp("generated data")
    assert make_dataset(root, 2, "similar", seed=5, sizes=SIZES, progress=False) == [130, 131]
    return root


@pytest.fixture(scope="module")
def data(root):
    return Generated(root)


@pytest.fixture(scope="module", params=["seen", "novel"])
def scene(request):
    return make_scene(0, 3, object_ids(request.param), 7)


def files(root):
    return {path.relative_to(root): path.read_bytes() for path in sorted(root.rglob("*")) if path.is_file()}


def test_piles_are_at_rest_above_the_table_and_apart(scene):
    world = scene.world()
    assert world.deepest_m() < 0.001
    world.step(100)
    assert world.speeds().max() < 0.01
    assert np.abs(world.poses[:, :3, 3] - scene.poses[:, :3, 3]).max() < 0.002
    clouds = [move(s.mesh.vertices, pose) for s, pose in zip(scene.solids, scene.poses, strict=True)]
    assert min(cloud[:, 2].min() for cloud in clouds) > -0.001
    assert max(np.linalg.norm(pose[:2, 3]) for pose in scene.poses) < Pile().reach_m
    parts = [[p.moved(pose) for p in s.parts] for s, pose in zip(scene.solids, scene.poses, strict=True)]
    for (i, _), (j, others) in itertools.permutations(enumerate(parts), 2):
        for part in others:  # no vertex of one inside a convex part of another
            above = (
                clouds[i] @ part.face_normals.T - np.einsum("ij,ij->i", part.face_normals, part.triangles[:, 0])
            ).max(1)
            assert above.min() > -0.001, (scene.solids[i].name, scene.solids[j].name)


def test_objects_touch_and_lie_in_many_ways(scene):
    up = scene.poses[:, 2, :3]
    assert len(np.unique(np.abs(up).argmax(axis=1))) >= 2
    gaps = [np.linalg.norm(a - b) for a, b in itertools.combinations(scene.poses[:, :3, 3], 2)]
    assert min(gaps) < 0.09  # a pile, not a shop window


def test_same_seed_same_bytes_and_a_killed_run_is_resumed(root, tmp_path):
    before = files(root)
    again = tmp_path / "again"
    make_dataset(again, 1, "similar", seed=5, sizes=SIZES, progress=False)
    shutil.rmtree(again / "scenes" / "scene_0130" / "realsense" / "depth")  # as a kill would leave it:
    (again / "scenes" / "scene_0130" / "object_id_list.txt").unlink()  # the list comes last
    make_dataset(again, 2, "similar", seed=5, sizes=SIZES, progress=False)
    assert files(again) == before


def test_other_seeds_give_other_scenes(scene):
    other = make_scene(0, 4, sorted(scene.object_ids), 7)
    assert not np.allclose(other.poses[:, :3, 3], scene.poses[:, :3, 3], atol=0.01)


def test_the_layout_is_whole_and_read_back(root, data, small):
    assert data.scene_ids() == [130, 131]
    assert Layout(root).missing([130, 131], "realsense", frames=2, labels=True) == []
    made = make_scene(130, 5, object_ids("similar"), 6)
    for shot in take_views(made, SIZES, 5):
        view = data.view(130, shot.view.frame_id)
        assert view.object_ids == made.object_ids
        assert np.array_equal(view.rgb, shot.view.rgb)
        assert np.array_equal(view.segmentation, shot.view.segmentation)
        assert np.array_equal(view.depth_mm, np.round(shot.view.depth_m * 1000))
        np.testing.assert_allclose(view.poses, shot.view.poses, atol=3e-4)
        normals = data.normals(130, view.frame_id)
        assert np.degrees(np.arccos(np.clip((normals * shot.normals).sum(axis=-1), -1, 1))).max() < 1.0
        np.testing.assert_allclose(np.linalg.norm(normals, axis=-1), 1, atol=1e-6)


def test_seen_points_lie_on_the_models_of_their_objects(data):
    view = data.view(131, 1)
    cloud = view.camera.cloud(view.depth_m)
    for object_id, pose in zip(view.object_ids, view.poses, strict=True):
        mine = view.segmentation == object_id + 1
        if mine.any():
            points = move(cloud[mine], inverse(pose))
            assert catalog()[object_id].mesh.distances(points).max() < 0.0015  # millimeters and four decimals


def test_sampled_labels_hold_without_collision_where_they_are_seen(data):
    view = data.view(130, 0)
    everything, shown = (data.antipodal(view, 0.4, visible=visible) for visible in (False, True))
    assert 0 < len(shown) < len(everything)
    assert (everything.scores >= 0.7 - 1e-6).all()
    assert (data.antipodal(view, 0.2, visible=False).scores > 0.85).all()
    frame = data.evaluation_frame(view)
    verdict = collisions(everything, np.concatenate([*frame.clouds, frame.table]))
    assert verdict.unusable.mean() < 0.01  # points on a box's border, moved by the annotations' rounding
    best = everything[np.argsort(-everything.scores)]
    held = evaluate(frame, best)
    assert (held.frictions[~held.collided] > 0).mean() > 0.9
    assert (shown.rotation_matrices[:, 2, 0] > 0).all()
    pixels = np.round(view.camera.project(shown.translations)).astype(int)
    labels = view.segmentation[pixels[:, 1], pixels[:, 0]]
    assert np.array_equal(labels, np.array(view.object_ids)[shown.object_ids.astype(int)] + 1)
    assert heatmap_labels(shown, view.camera, avn_anchors(12, 4), CellGrid(24, 18)).any()
    assert len(data.grasps(view, 1.0))  # exhaustive ones, too


def test_color_tells_no_object_apart():
    """Each object's nearest mean color in another scene is that of the same object no more often than by chance."""
    objects, scenes = 8, 40
    features = []
    for k in range(scenes):
        looks = random_looks(objects, np.random.default_rng([7, k]))
        points = np.random.default_rng(0).uniform(-0.03, 0.03, (200, 3))
        features.append([material.albedo(points).mean(axis=0) for material in looks.solids])
    features = np.array(features)
    flat = features.reshape(-1, 3)
    apart = np.linalg.norm(flat[:, None] - flat, axis=2)
    scene = np.repeat(np.arange(scenes), objects)
    apart[scene[:, None] == scene] = np.inf
    hits = (apart.argmin(axis=1) % objects) == np.tile(np.arange(objects), scenes)
    chance = 1 / objects
    assert abs(hits.mean() - chance) < 3 * np.sqrt(chance * (1 - chance) / len(hits))


def test_frames_evaluated_by_processes_equal_one_by_one(root, data):
    predictions = [(i, k, data.antipodal(data.view(i, k), 0.4)) for i in (130, 131) for k in (0, 1)]
    alone = evaluate_frames(root, predictions, surface="mesh")
    both = evaluate_frames(root, predictions, workers=2, surface="mesh")
    for a, b, (i, k, grasps) in zip(alone, both, predictions, strict=True):
        expected = evaluate(data.evaluation_frame(data.view(i, k), "mesh"), grasps)
        for one in (a, b):
            assert np.array_equal(one.precision, expected.precision)
            assert np.array_equal(one.rows, expected.rows)


def test_splits_share_their_objects_and_their_workers(tmp_path, monkeypatch):
    lots = []
    monkeypatch.setattr(dataset, "_run", lambda jobs, workers, progress, title: lots.append(jobs))
    assert make_datasets(tmp_path, {"train": 2, "seen": 1, "novel": 1}) == [0, 1, 100, 160]
    objects, scenes = lots
    assert [job.object_ids for job in objects] == [(i,) for i in sorted([*object_ids("seen"), *object_ids("novel")])]
    assert [(job.scene_id, job.object_ids) for job in scenes] == [
        *((i, tuple(object_ids("seen"))) for i in (0, 1, 100)),
        (160, tuple(object_ids("novel"))),
    ]


def test_impossible_requests_are_told_in_one_line(root, tmp_path):
    with pytest.raises(ValueError, match=r"scenes: got 31, needs 1 to 30, as many as split 'novel' has"):
        make_dataset(tmp_path, 31, "novel")
    with pytest.raises(ValueError, match="split: got 'test', needs one of train, seen"):
        make_dataset(tmp_path, 1, "test")
    with pytest.raises(ValueError, match="objects: got 5, needs 6 to 8"):
        Sizes(objects=5)
    with pytest.raises(ValueError, match="was made with seed 5, now 6; use another folder"):
        make_dataset(root, 1, "similar", seed=6, sizes=SIZES)
    with pytest.raises(ValueError, match="count: got 9, there are 8"):
        make_scene(0, 0, object_ids("novel"), 9)
    with pytest.raises(ValueError, match="solids: got none"):
        drop([], np.random.default_rng(0))
    (tmp_path / "scenes").mkdir()
    with pytest.raises(ValueError, match="holds scenes that were not generated here"):
        make_dataset(tmp_path, 1, "novel")
    assert json.loads((root / "generated.json").read_text())["seed"] == 5


def test_labels_of_another_scene_are_told(root, data, tmp_path):
    copy = shutil.copytree(root / "scenes", tmp_path / "scenes")
    (copy / "scene_0130" / "antipodal.npz").write_bytes((copy / "scene_0131" / "antipodal.npz").read_bytes())
    mixed = Generated(tmp_path)
    with pytest.raises(ValueError, match="of another scene"):
        mixed.antipodal(mixed.view(130, 0))
    for kind, ending in (("annotations", "xml"),):
        source = copy / "scene_0130" / "realsense" / kind
        (source / f"0000.{ending}").write_bytes((source / f"0001.{ending}").read_bytes())
    with pytest.raises(ValueError, match="labels of another camera or frame"):
        mixed.view(130, 0)
