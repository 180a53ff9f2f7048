"""The net as a detector, one call for a user's own image, swapped modalities, and their pictures."""

import subprocess
import sys
from dataclasses import replace
from functools import partial

import numpy as np
import pytest
import torch
from matplotlib import pyplot as plt

from paperlab.rgbd_grasp import GraspGroup
from paperlab.rgbd_grasp.labels.heatmap import heatmap_labels
from paperlab.rgbd_grasp.learning.recipe import Recipe
from paperlab.rgbd_grasp.learning.training import Training, outputs_of
from paperlab.rgbd_grasp.network.avn import build
from paperlab.rgbd_grasp.network.config import TINY
from paperlab.rgbd_grasp.pictures import avh_panel, fas_candidates, outlines, scene_3d
from paperlab.rgbd_grasp.prediction import default
from paperlab.rgbd_grasp.prediction.avn import Avn
from paperlab.rgbd_grasp.prediction.predict import predict
from paperlab.rgbd_grasp.prediction.swaps import with_noise_for_depth, with_rgb_of
from paperlab.rgbd_grasp.scenes import Sizes
from paperlab.rgbd_grasp.search.decode import Decoding, decode
from paperlab.rgbd_grasp.search.fas import Search, search_grasps
from paperlab.rgbd_grasp.search.pipeline import observed_cloud
from tests.rgbd_grasp.small_scenes import boxes_view, samples


@pytest.fixture(scope="module")
def avn():
    """A net that has learned two images by heart."""
    recipe = Recipe(iterations=40, batch=2, jitter=0, learning_rate=1e-2, precision="fp32", validate_every=40)
    training = Training(build(TINY), samples(0, 1), samples(2), recipe)
    training.run()
    return Avn(training.net)


VIEW = boxes_view(0)[0]
NOISY = with_noise_for_depth(VIEW, np.random.default_rng(0))


def seen_by(modality, view):
    return Avn(build(replace(TINY, modality=modality))).heatmap(view.rgb, view.depth_m, view.camera)


def test_labels_survive_the_round_trip_through_decoding():
    """A perfect heatmap, decoded: every seed has the class of a label and lies in its cell."""
    view, grasps = boxes_view(0)
    labels = heatmap_labels(grasps, view.camera, TINY.anchors, TINY.grid)
    everything = Decoding(top_in_cell=48, top_in_map=int(labels.sum()), top_seeds=10_000, nms_translation_m=0.0)
    seeds = decode(np.where(labels, 1.0, -np.inf), view.depth_m, view.camera, TINY.anchors, everything)
    assert len(seeds) == labels.sum()
    assert np.array_equal(heatmap_labels(seeds, view.camera, TINY.anchors, TINY.grid), labels)


def test_heatmap_is_what_training_saw(avn):
    view, _ = boxes_view(1)
    expected = outputs_of(avn.net, samples(0, 1), 1)[0].sigmoid().numpy()
    np.testing.assert_allclose(avn.heatmap(view.rgb, view.depth_m, view.camera), expected, atol=1e-6)


@pytest.mark.parametrize("modality", ["normals", "rgb_normals", "depth"])
def test_every_modality_sees_at_detection_what_it_saw_in_training(modality):
    net = build(replace(TINY, modality=modality))
    expected = outputs_of(net, samples(0, 1), 0)[0].sigmoid().numpy()
    np.testing.assert_allclose(seen_by(modality, VIEW), expected, atol=1e-6)


@pytest.mark.parametrize(
    ("modality", "by_rgb", "by_depth"),
    [("rgb", True, False), ("depth", False, True), ("normals", False, True), ("rgb_normals", True, True)],
)
def test_a_swap_reaches_the_modalities_that_look_at_it_and_no_other(modality, by_rgb, by_depth):
    whole = seen_by(modality, VIEW)
    assert np.array_equal(whole, seen_by(modality, with_rgb_of(VIEW, boxes_view(1)[0]))) is not by_rgb
    assert np.array_equal(whole, seen_by(modality, NOISY)) is not by_depth


def test_another_scenes_color_destroys_what_was_learned(avn):
    labels = samples(0).labels([0])[0].numpy()
    exact = {}
    for name, view in (("own", VIEW), ("other", with_rgb_of(VIEW, boxes_view(1)[0]))):
        heatmap = avn.heatmap(view.rgb, view.depth_m, view.camera)
        exact[name] = labels.ravel()[np.argsort(-heatmap.ravel())[:50]].mean()
    assert exact["own"] > 0.75
    assert exact["other"] < exact["own"] - 0.4


def test_noise_keeps_holes_and_range():
    holed = replace(VIEW, depth_m=np.where(np.arange(128) < 10, 0.0, VIEW.depth_m))
    noisy = with_noise_for_depth(holed, np.random.default_rng(0)).depth_m
    assert (noisy[:, :10] == 0).all()
    assert noisy[:, 10:].min() >= VIEW.depth_m.min()
    assert noisy.max() <= VIEW.depth_m.max()
    with pytest.raises(ValueError, match="needs a view of another scene"):
        with_rgb_of(VIEW, VIEW)


def test_detection_and_prediction_agree(avn):
    found = predict(VIEW.rgb, VIEW.depth_m.astype(np.float32), VIEW.camera.matrix, 1.0, avn=avn)
    ranked = avn.detect(replace(VIEW, depth_m=VIEW.depth_m.astype(np.float32).astype(float)))
    np.testing.assert_allclose(found.grasps.grasp_group_array, ranked.grasps.grasp_group_array)
    assert found.counts == ranked.counts
    assert len(found.grasps) > 5
    assert (np.diff(found.grasps.scores) <= 0).all()
    assert found.mask == ranked.mask == "depth_plane"
    assert "workspace: depth_plane" in found.summary


def test_grasps_are_on_the_objects(avn):
    """In millimeters this time: grasp points, in the table's frame, lie near one of the boxes."""
    found = predict(VIEW.rgb, VIEW.depth_mm, VIEW.camera.matrix, avn=avn)
    distance = np.linalg.norm(found.grasps.translations[:, None] - VIEW.poses[:, :3, 3], axis=-1).min(axis=1)
    assert (distance[:10] < 0.08).all()


@pytest.mark.parametrize("mask", ["gt", "depth_plane", "none"])
def test_workspace_is_reported(avn, mask):
    found = predict(VIEW.rgb, VIEW.depth_mm, VIEW.camera.matrix, avn=avn, mask=mask, segmentation=VIEW.segmentation)
    assert found.mask == mask
    assert f"workspace: {mask}" in found.summary


def test_a_detector_survives_a_file(avn, tmp_path):
    path = avn.save(tmp_path / "a folder" / "net.safetensors")
    again = Avn.load(path)
    assert again.config == avn.config
    assert np.array_equal(
        again.heatmap(VIEW.rgb, VIEW.depth_m, VIEW.camera), avn.heatmap(VIEW.rgb, VIEW.depth_m, VIEW.camera)
    )
    (tmp_path / "x").write_bytes(b"no tensors")
    for name in ("x", "absent"):
        with pytest.raises(ValueError, match=rf"{name}: holds no Angle-View Net .*needs a file that Avn\.save wrote"):
            Avn.load(tmp_path / name)


RGB, MM, K = VIEW.rgb, VIEW.depth_mm, VIEW.camera.matrix
BAD = {
    "float rgb": ((RGB / 255.0, MM, K), {}, r"rgb: got float64, needs uint8.*pass \(rgb \* 255\)"),
    "alpha": ((np.dstack([RGB, RGB[..., :1]]), MM, K), {}, r"alpha channel; pass rgb\[\.\.\., :3\]"),
    "gray": ((RGB[..., 0], MM, K), {}, r"rgb: got shape \(96, 128\), needs \(H, W, 3\)"),
    "channels first": ((RGB.transpose(2, 0, 1), MM, K), {}, r"pass rgb\.transpose\(1, 2, 0\)"),
    "other size": ((RGB, MM[::2, ::2], K), {}, r"depth: got shape \(48, 64\), rgb has \(96, 128\); align"),
    "depth channel": ((RGB, MM[..., None], K), {}, r"needs \(H, W\); pass depth\[\.\.\., 0\]"),
    "meters as mm": ((RGB, VIEW.depth_m, K), {}, "needs depth_scale 1000 for millimeters, 1 for meters"),
    "mm as meters": ((RGB, MM, K, 1.0), {}, "needs depth_scale 1000 for millimeters, 1 for meters"),
    "nan": ((RGB, np.where(MM > 400, np.nan, MM), K), {}, r"depth: holds NaN in \d+ places; mark holes by 0"),
    "empty": ((RGB, np.zeros_like(MM), K), {}, "depth: is empty, every pixel is 0"),
    "text": ((RGB, MM.astype(str), K), {}, "depth: got <U5, needs real numbers"),
    "half-size K": (
        (RGB[::2, ::2], MM[::2, ::2], K),
        {},
        "at the edge of the image of 64 x 48; needs the intrinsics at",
    ),
    "flat K": ((RGB, MM, [150, 150, 63.5, 47.5]), {}, "intrinsics: got shape"),
    "no labels": ((RGB, MM, K), {"mask": "gt"}, "segmentation: mask 'gt' needs the frame's label image"),
    "wrong labels": ((RGB, MM, K), {"mask": "gt", "segmentation": RGB}, r"segmentation: got uint8 of shape \(96"),
    "no such mask": ((RGB, MM, K), {"mask": "all"}, "mask: got 'all', needs one of gt, depth_plane, none"),
    "no scale": ((RGB, MM, K, 0.0), {}, "depth_scale: got 0.0, needs units per meter"),
}


@pytest.mark.parametrize("case", BAD)
def test_bad_images_are_told_in_one_line(case):
    arguments, options, message = BAD[case]
    with pytest.raises(ValueError, match=message) as raised:
        predict(*arguments, avn=Avn(build(TINY)), **options)
    assert "\n" not in str(raised.value)


def test_public_names_load_torch_only_when_used():
    code = (
        "import sys, paperlab.rgbd_grasp as r; heavy = 'torch' in sys.modules; missing = [n for n in r.__all__ if "
        "getattr(r, n, None) is None]; print(heavy, missing, 'torch' in sys.modules)"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "False [] True"


# --- pictures --------------------------------------------------------------------------------------------------------


def labeled(figure):
    """Every drawn axis has labels on its axes or is a color bar with one."""
    return all(axes.get_xlabel() or axes.get_ylabel() for axes in figure.axes)


def test_outlines_follow_the_gripper():
    grasp = GraspGroup.from_parts(np.eye(3)[None], [[1.0, 2.0, 3.0]], widths=0.06, depths=0.04)
    ends = (outlines(grasp)[0] - (1, 2, 3)).reshape(-1, 3)
    assert ends[:, 0].max() == pytest.approx(0.04)
    assert sorted({round(float(abs(y)), 6) for y in ends[:, 1]}) == [0.0, 0.03]
    assert (ends[:, 2] == 0).all()


def test_pictures_are_drawn_with_labels(avn):
    found = predict(VIEW.rgb, VIEW.depth_mm, VIEW.camera.matrix, avn=avn)
    labels = samples(0).labels([0])[0].numpy()
    cloud = observed_cloud(VIEW.depth_m, VIEW.camera, 0.005)
    seeds = decode(found.heatmap, VIEW.depth_m, VIEW.camera, avn.anchors)
    colors = np.full((len(cloud), 3), 128, dtype=np.uint8)
    figures = [
        found.picture(),
        replace(found, grasps=GraspGroup()).picture(),
        avh_panel(VIEW.rgb, samples(0).objects[0], found.heatmap, labels, "gt"),
        fas_candidates(search_grasps(seeds, cloud), Search()),
        scene_3d(cloud, colors, found.grasps[:5], VIEW.table_from_camera),
        scene_3d(cloud, colors, GraspGroup()),
    ]
    assert all(labeled(figure) for figure in figures)
    for figure in figures:
        figure.canvas.draw()
        plt.close(figure)


def test_nothing_learns_at_detection(avn):
    assert not avn.net.training
    assert not any(p.requires_grad for p in avn.net.parameters())
    with torch.no_grad():
        first = avn.heatmap(VIEW.rgb, VIEW.depth_m, VIEW.camera)
    assert np.array_equal(first, avn.heatmap(VIEW.rgb, VIEW.depth_m, VIEW.camera))
    assert 0 <= first.min() <= first.max() <= 1


@pytest.mark.slow
def test_without_a_net_one_is_trained_on_generated_scenes(tmp_path, monkeypatch):
    monkeypatch.setenv("PAPERLAB_CACHE", str(tmp_path))
    few = {"config": TINY, "recipe": Recipe(iterations=2, batch=2), "scenes": 2}
    sizes = Sizes(views=2, width=128, height=96, objects=6, grasps=100)
    net = default.default_avn(**few, sizes=sizes)
    default.default_avn.cache_clear()
    monkeypatch.setattr(Training, "step", None)
    monkeypatch.setattr(default, "default_avn", partial(default.default_avn, **few, sizes=sizes))
    found = predict(VIEW.rgb, VIEW.depth_mm, VIEW.camera.matrix)
    assert np.array_equal(found.heatmap, net.heatmap(VIEW.rgb, VIEW.depth_mm / 1000, VIEW.camera))
