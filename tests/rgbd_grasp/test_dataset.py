"""A small scene written in GraspNet-1Billion's layout, read back, and evaluated from the files."""

import dataclasses
import shutil

import numpy as np
import pytest
from PIL import Image

from paperlab.rgbd_grasp.dataset.annotations import read_annotation
from paperlab.rgbd_grasp.dataset.dump import evaluate_dump, save_prediction
from paperlab.rgbd_grasp.dataset.images import read_png, write_png
from paperlab.rgbd_grasp.dataset.layout import SPLITS, Layout
from paperlab.rgbd_grasp.dataset.models import read_obj, read_points, write_obj, write_points
from paperlab.rgbd_grasp.dataset.reader import GraspNet
from paperlab.rgbd_grasp.dataset.view import View
from paperlab.rgbd_grasp.dataset.writer import write_collisions, write_object, write_scene
from paperlab.rgbd_grasp.evaluation.frame import evaluate
from paperlab.rgbd_grasp.evaluation.scene import Frame, GraspObject, table_in_camera
from paperlab.rgbd_grasp.geometry.anchors import Anchors, fibonacci_views
from paperlab.rgbd_grasp.geometry.grasp import GraspGroup
from paperlab.rgbd_grasp.geometry.rotations import inverse, random_rotations, rigid
from paperlab.rgbd_grasp.geometry.sdf import mesh_sdf
from paperlab.rgbd_grasp.geometry.shapes import box, sphere
from paperlab.rgbd_grasp.geometry.voxels import voxel_average
from paperlab.rgbd_grasp.labels.grid import label_object, spread_points
from paperlab.rgbd_grasp.labels.scene import place, scene_collision_labels, scene_collisions
from tests.rgbd_grasp.test_search import CAMERA, depth_of

FEW = Anchors(fibonacci_views(20), 3)
MESHES = {3: sphere(0.03, 3), 12: box(0.04, 0.05, 0.06)}
ON_TABLE = [rigid(np.eye(3), [-0.06, 0, 0.03]), rigid(np.eye(3), [0.06, 0.02, 0.03])]


def sampled(mesh):
    return mesh.sample(6000, np.random.default_rng(0))[0]


def view(frame_id):
    depth, camera_from_table = depth_of(
        [m.moved(t) for m, t in zip(MESHES.values(), ON_TABLE, strict=True)], tilt_rad=0.3 * frame_id
    )
    rng = np.random.default_rng(frame_id)
    return View(
        scene_id=100,
        frame_id=frame_id,
        camera=CAMERA,
        rgb=rng.integers(0, 255, (192, 256, 3), dtype=np.uint8),
        depth_m=depth,
        segmentation=rng.choice(np.array([0, 4, 13], dtype=np.uint8), (192, 256)),
        object_ids=tuple(MESHES),
        poses=np.stack([camera_from_table @ pose for pose in ON_TABLE]),
        table_from_camera=inverse(camera_from_table),
    )


@pytest.fixture(scope="module")
def views():
    return [view(0), view(1)]


@pytest.fixture(scope="module")
def labels():
    return {i: label_object(m, voxel_average(sampled(m), 0.008), spread_points(m, 4), FEW) for i, m in MESHES.items()}


@pytest.fixture(scope="module")
def written(tmp_path_factory, views, labels):
    root = tmp_path_factory.mktemp("a data set")
    for object_id, mesh in MESHES.items():
        write_object(root, object_id, mesh, sampled(mesh), mesh_sdf(mesh, cells=26))
        labels[object_id].save(Layout(root).grasp_labels(object_id))
    write_scene(root, views)
    write_collisions(root, 100, [np.zeros_like(item.collision) for item in labels.values()])
    return root


@pytest.fixture
def root(written, tmp_path):
    return shutil.copytree(written, tmp_path / "copy")


def test_views_come_back_as_they_were(written, views):
    data = GraspNet(written)
    assert data.scene_ids() == [100]
    assert data.frame_count(100) == 2
    for original in views:
        back = data.view(100, original.frame_id)
        assert back.camera == original.camera
        assert back.object_ids == original.object_ids
        assert np.array_equal(back.rgb, original.rgb)
        assert np.array_equal(back.segmentation, original.segmentation)
        np.testing.assert_allclose(back.depth_m, original.depth_m, atol=0.0005 + 1e-9)
        np.testing.assert_allclose(back.poses, original.poses, atol=3e-4)  # the annotations' four decimals
        np.testing.assert_allclose(back.table_from_camera, original.table_from_camera, atol=1e-12)


def test_writing_what_was_read_gives_the_same_files(written, tmp_path):
    data = GraspNet(written)
    write_scene(tmp_path, [data.view(100, k) for k in range(2)])
    for path in sorted(p for p in tmp_path.rglob("*") if p.suffix in (".png", ".txt")):
        assert path.read_bytes() == (written / path.relative_to(tmp_path)).read_bytes()
    again = GraspNet(tmp_path).view(100, 1)
    np.testing.assert_allclose(again.poses, data.view(100, 1).poses, atol=3e-4)


def test_annotations_are_read_by_position_not_by_name(written):
    path = Layout(written).frame_file(100, "realsense", "annotations", 0)
    text = path.read_text()
    assert (
        text.index("<obj_id>") < text.index("<obj_name>") < text.index("<pos_in_world>") < text.index("<ori_in_world>")
    )
    renamed = path.parent / "renamed.xml"
    renamed.write_text(text.replace("pos_in_world", "position").replace("ori_in_world", "quaternion"))
    ids, poses = read_annotation(renamed)
    assert ids == [3, 12]
    np.testing.assert_allclose(poses, read_annotation(path)[1])
    renamed.unlink()


def test_complete_and_missing_files(root):
    layout = Layout(root)
    layout.require([100], "realsense", frames=2, labels=True)
    layout.frame_file(100, "realsense", "rgb", 1).unlink()
    layout.model(12, "textured.sdf").unlink()
    missing = layout.missing([100], "realsense", frames=2)
    assert [path.name for path in missing] == ["0001.png", "textured.sdf"]
    with pytest.raises(FileNotFoundError, match=r"2 files are missing, the first is .*rgb.*0001\.png"):
        layout.require([100], "realsense", frames=2)
    with pytest.raises(FileNotFoundError, match="has no folder scenes"):
        GraspNet(root / "models")
    assert GraspNet(root, "kinect").scene_ids() == []


def test_splits_are_those_of_the_paper():
    assert [len(SPLITS[name]) for name in ("train", "seen", "similar", "novel")] == [100, 30, 30, 30]
    assert sorted(i for ids in SPLITS.values() for i in ids) == list(range(190))


def test_grasps_from_files_equal_those_from_memory(written, views, labels):
    found = GraspNet(written).grasps(views[1], max_friction=0.4, anchors=FEW)
    expected = place([item.grasps(FEW.views, 0.4) for item in labels.values()], views[1].poses)
    assert len(found) > 20
    np.testing.assert_allclose(found.grasp_group_array, expected.grasp_group_array, atol=1e-6)


def test_scene_collisions_thin_labels_out(root, labels):
    data = GraspNet(root)
    seen = data.view(100, 0)
    frame = data.evaluation_frame(seen)
    everything = place([item.grasps(FEW.views, 1.0) for item in labels.values()], seen.poses)
    blocked = scene_collisions(everything, frame.clouds, frame.table)
    assert 0 < blocked.sum() < len(blocked)
    masks = scene_collision_labels(list(labels.values()), FEW.views, seen.poses, frame.clouds, frame.table)
    write_collisions(root, 100, masks)
    kept = data.grasps(seen, 1.0, FEW)
    np.testing.assert_allclose(kept.grasp_group_array, everything[~blocked].grasp_group_array, atol=1e-6)


def test_evaluation_from_files_equals_evaluation_from_memory(written, views):
    data = GraspNet(written)
    back = data.view(100, 1)
    grasps = data.grasps(back, 1.0, FEW)
    grasps.scores = np.random.default_rng(0).permutation(len(grasps)) / len(grasps)
    objects = [GraspObject(sampled(mesh), mesh_sdf(mesh, cells=26)) for mesh in MESHES.values()]
    memory = evaluate(Frame(objects, views[1].poses, table_in_camera(views[1].table_from_camera)), grasps)
    files = evaluate(data.evaluation_frame(back), grasps)
    assert np.array_equal(files.rows, memory.rows)
    assert (files.collided == memory.collided).mean() > 0.9  # single precision and rounded poses
    assert (files.frictions == memory.frictions).mean() > 0.85
    exact = evaluate(data.evaluation_frame(back, surface="mesh"), grasps)
    assert np.array_equal(exact.collided, files.collided)
    assert exact.counts["held"] > 5


def test_a_folder_of_predictions_is_evaluated_frame_by_frame(written, tmp_path):
    data = GraspNet(written)
    for k in range(2):
        grasps = data.grasps(data.view(100, k), 0.4, FEW)
        grasps.scores = np.random.default_rng(k).permutation(len(grasps)) / len(grasps)
        save_prediction(tmp_path, 100, "realsense", k, grasps)
        if k == 0:
            with pytest.raises(FileNotFoundError, match=r"1 of 2 predictions are missing, the first is .*0001\.npy"):
                evaluate_dump(data, tmp_path)
    precision, scenes = evaluate_dump(data, tmp_path, [100])
    assert list(scenes) == [100, 100]
    single = evaluate(data.evaluation_frame(data.view(100, 1)), GraspGroup(tmp_path / "scene_0100/realsense/0001.npy"))
    assert np.array_equal(precision[1], single.precision)
    assert single.precision.max() > 0


def test_labels_of_another_frame_or_camera_are_told(root):
    layout = Layout(root)
    shutil.copy(
        layout.frame_file(100, "realsense", "annotations", 1), layout.frame_file(100, "realsense", "annotations", 0)
    )
    with pytest.raises(ValueError, match=r"annotations.0000\.xml: poses are .* m off 0000\.mat's"):
        GraspNet(root).view(100, 0)


def test_broken_files_are_told_by_name(root):
    data, layout = GraspNet(root), Layout(root)
    seen = data.view(100, 0)
    rgb = layout.frame_file(100, "realsense", "rgb", 0)
    rgb.write_bytes(b"no image")
    with pytest.raises(ValueError, match=r"rgb.0000\.png: .*needs a PNG image"):
        data.view(100, 0)
    shutil.copy(layout.frame_file(100, "realsense", "label", 0), rgb)
    with pytest.raises(ValueError, match="is an image of mode L, needs RGB for rgb"):
        data.view(100, 0)
    write_png(layout.frame_file(100, "realsense", "depth", 1), np.zeros((192, 256), dtype=np.uint16), "depth")
    with pytest.raises(ValueError, match=r"depth.0001\.png: depth: is empty"):
        data.view(100, 1)
    layout.frame_file(100, "realsense", "meta", 1).write_bytes(b"x" * 200)
    with pytest.raises(ValueError, match=r"meta.0001\.mat: .*needs poses"):
        data.view(100, 1)
    layout.model(3, "nontextured.ply").write_text("ply\nformat ascii 1.0\nend_header\n")
    with pytest.raises(ValueError, match=r"nontextured\.ply: .*needs a PLY file"):
        data.grasp_object(3)
    layout.model(12, "textured.obj").write_text("v 0 0 zero\n")
    with pytest.raises(ValueError, match=r"textured\.obj: .*needs an OBJ file"):
        data.grasp_object(12, "mesh")
    write_collisions(root, 100, [np.zeros((1, 1, 1, 1), dtype=bool)])
    with pytest.raises(ValueError, match=r"collision_labels\.npz: has 1 objects, the view has 2"):
        data.grasps(seen)


def test_points_and_meshes_there_and_back(tmp_path):
    points = np.random.default_rng(0).normal(size=(50, 3))
    np.testing.assert_allclose(read_points(write_points(tmp_path / "p.ply", points)), points, rtol=1e-6)
    rows = "\n".join(f"{x} {y} {z} 255" for x, y, z in points)
    header = "ply\nformat ascii 1.0\ncomment made by hand\nelement vertex 50\nproperty float x\nproperty float y\n"
    (tmp_path / "a.ply").write_text(
        f"{header}property float z\nproperty uchar red\nelement face 0\nend_header\n{rows}\n"
    )
    np.testing.assert_allclose(read_points(tmp_path / "a.ply"), points)
    mesh = sphere(0.03, 2)
    back = read_obj(write_obj(tmp_path / "m.obj", mesh))
    np.testing.assert_allclose(back.vertices, mesh.vertices, rtol=1e-7)
    assert np.array_equal(back.faces, mesh.faces)
    (tmp_path / "q.obj").write_text(
        "v 0 0 0\nv 1 0 0\nv 1 1 0\nv 0 1 0\nvt 0 0\nf 1/1/1 2/1/1 3/1/1 4/1/1\nf -4 -3 -2\n"
    )
    assert read_obj(tmp_path / "q.obj").faces.tolist() == [[0, 1, 2], [0, 2, 3], [0, 1, 2]]


def test_images_there_and_back(tmp_path):
    depth = np.random.default_rng(0).integers(0, 65535, (5, 7), dtype=np.uint16)
    assert np.array_equal(read_png(write_png(tmp_path / "d.png", depth, "depth"), "depth"), depth)
    with Image.open(tmp_path / "d.png") as image:
        assert image.mode.startswith("I")  # 16 bits
    with pytest.raises(ValueError, match="depth: got float64, needs uint16"):
        write_png(tmp_path / "d.png", depth / 1000.0, "depth")
    with pytest.raises(FileNotFoundError):
        read_png(tmp_path / "none.png", "rgb")


def test_scene_with_one_object(tmp_path, views):
    one = dataclasses.replace(views[0], object_ids=(3,), poses=views[0].poses[:1])
    write_scene(tmp_path, [one])
    back = GraspNet(tmp_path).view(100, 0)
    assert back.object_ids == (3,)
    np.testing.assert_allclose(back.poses, one.poses, atol=3e-4)


def test_views_of_different_scenes_do_not_mix(views):
    other = dataclasses.replace(views[1], scene_id=101)
    with pytest.raises(ValueError, match="views: frame 1 is of another scene"):
        write_scene("/nonexistent", [views[0], other])
    with pytest.raises(ValueError, match=r"rgb: got float64 of shape \(192, 256, 3\), needs uint8"):
        dataclasses.replace(views[0], rgb=views[0].rgb / 255.0)
    with pytest.raises(ValueError, match="depth_m: got shape"):
        dataclasses.replace(views[0], depth_m=np.zeros((4, 4)))
    with pytest.raises(ValueError, match="no rotations"):
        dataclasses.replace(
            views[0], table_from_camera=rigid(2 * random_rotations(1, np.random.default_rng(0))[0], [0, 0, 0])
        )
