"""Samples, augmentation, losses, metrics and training of the Angle-View Net, at the tiny size."""

import warnings
from dataclasses import replace

import numpy as np
import pytest
import torch
import torch.nn.functional as F

from paperlab.lab import paths
from paperlab.rgbd_grasp.labels.heatmap import heatmap_labels
from paperlab.rgbd_grasp.learning import trained as trained_module
from paperlab.rgbd_grasp.learning.augment import cropped, jittered
from paperlab.rgbd_grasp.learning.losses import heatmap_loss
from paperlab.rgbd_grasp.learning.metrics import (
    NEAR_RAD,
    judge_samples,
    judged,
    monitored,
    prior_heatmap,
    top_entries,
)
from paperlab.rgbd_grasp.learning.recipe import Recipe
from paperlab.rgbd_grasp.learning.samples import Samples, join
from paperlab.rgbd_grasp.learning.trained import net_key, trained
from paperlab.rgbd_grasp.learning.training import Checkpoint, Training, outputs_of
from paperlab.rgbd_grasp.network.avn import build
from paperlab.rgbd_grasp.network.config import SMALL, TINY
from tests.rgbd_grasp.small_scenes import boxes_view, samples

SHORT = Recipe(iterations=6, batch=2, validate_every=3)
NEAR = TINY.anchors.neighbors(NEAR_RAD)


@pytest.fixture(scope="module", autouse=True)
def _one_thread():
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(before)


def weights(net):
    return torch.cat([t.flatten().double() for t in net.state_dict().values()])


# --- samples ---------------------------------------------------------------------------------------------------------


def test_sparse_labels_become_the_dense_ones():
    found = samples(0, 1).labels([1, 0, 1])
    for i, scene in enumerate((1, 0, 1)):
        view, grasps = boxes_view(scene)
        assert np.array_equal(found[i].numpy(), heatmap_labels(grasps, view.camera, TINY.anchors, TINY.grid))


def test_class_prior_is_the_mean_of_the_labels():
    mean = samples(0, 1).labels([0, 1]).double().mean(dim=(0, 2, 3)).numpy()
    floor = 0.5 / (2 * 24 * 32)
    np.testing.assert_allclose(samples(0, 1).class_prior(), np.maximum(mean, floor))


def test_samples_split_by_scene_join_and_survive_a_file(tmp_path):
    both = samples(0, 1, 2)
    train, held = both.split([1])
    assert list(train.scenes) == [0, 2]
    assert held.digest() == samples(1).digest()
    assert join([samples(0), samples(1), samples(2)]).digest() == both.digest()
    path = both.save(tmp_path / "a folder" / "samples.npz")
    assert Samples.load(path).digest() == both.digest()
    with pytest.raises(ValueError, match="held_out: takes 0 of 3"):
        both.split([7])
    (tmp_path / "broken.npz").write_bytes(b"PK")
    with pytest.raises(ValueError, match=r"broken\.npz: .*needs a file that Samples\.save wrote"):
        Samples.load(tmp_path / "broken.npz")


def test_digest_sees_everything():
    base = samples(0, 1)
    changed = [
        replace(base, rgb=base.rgb ^ (np.arange(base.rgb.size) == 5).reshape(base.rgb.shape).astype(np.uint8)),
        replace(base, scenes=base.scenes + 1),
        replace(base, positives=np.roll(base.positives, 1)),
        replace(base, normals=base.normals[:0]),
    ]
    assert len({item.digest() for item in [base, *changed]}) == 5


def test_missing_normals_are_told():
    with pytest.raises(ValueError, match=r"normals: these samples have none; collect them with normals=True"):
        replace(samples(0), normals=samples(0).normals[:0]).images([0], "rgb_normals")


# --- augmentation ----------------------------------------------------------------------------------------------------


def test_jitter_changes_color_only_as_it_says():
    images = torch.rand(3, 3, 8, 8)
    assert torch.allclose(jittered(images, 0.0, np.random.default_rng(0)), images, atol=1e-5)
    gray = torch.full((1, 3, 8, 8), 0.5)
    out = jittered(gray, 0.3, np.random.default_rng(1))[0, :, 0, 0]
    assert torch.allclose(out, out[:1].expand(3), atol=1e-5)  # neither saturation nor hue color a gray
    assert abs(float(out[0]) - 0.5) <= 0.151  # brightness alone
    strong = jittered(images, 0.3, np.random.default_rng(2))
    assert strong.min() >= 0
    assert strong.max() <= 1
    assert (strong - images).abs().mean() > 0.03


def test_crop_moves_labels_with_the_image():
    """An image that tells each pixel's cell: under a label's new cell lie pixels of the old one, after any crop."""
    row, column = torch.meshgrid(torch.arange(24), torch.arange(32), indexing="ij")
    cells = torch.stack([row, column])[None].expand(6, 2, 24, 32)
    image = cells.repeat_interleave(4, 2).repeat_interleave(4, 3)
    out, moved = cropped(image, cells, 0.5, np.random.default_rng(0))
    for axis in (0, 1):
        before, after = (out[:, axis, k::4, k::4] for k in (1, 2))  # the pixels on both sides of a cell's middle
        assert ((before <= moved[:, axis]) & (moved[:, axis] <= after)).all()
        assert (before == after).float().mean() > 0.6
    assert len({tuple(part.flatten().tolist()) for part in moved}) == 6
    same, _ = cropped(image, cells, 1.0, np.random.default_rng(0))
    assert torch.equal(same, image)


# --- losses ----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("kind", ["bce", "mse"])
@pytest.mark.parametrize("weight", [1.0, 7.0])
def test_loss_and_gradient_equal_the_formula(kind, weight):
    x = torch.randn(2, 3, 4, 5, dtype=torch.float32, requires_grad=True)
    y = torch.rand(2, 3, 4, 5) < 0.3
    loss = heatmap_loss(x, y, kind, weight)
    loss.backward()
    z, t = x.detach().double().numpy(), y.double().numpy()
    p = 1 / (1 + np.exp(-z))
    scale = np.where(t > 0, weight, 1.0)
    values = -np.where(t > 0, np.log(p), np.log(1 - p)) if kind == "bce" else (z - t) ** 2
    slopes = p - t if kind == "bce" else 2 * (z - t)
    assert float(loss.detach()) == pytest.approx((scale * values).mean(), rel=1e-5)
    np.testing.assert_allclose(x.grad.numpy(), scale * slopes / z.size, atol=1e-6)


def test_bce_at_the_prior_is_the_labels_entropy():
    labels = samples(0, 1).labels([0, 1])
    prior = torch.from_numpy(samples(0, 1).class_prior()).float()
    outputs = torch.logit(prior)[None, :, None, None].expand(labels.shape)
    entropy = F.binary_cross_entropy(prior, prior)
    assert float(heatmap_loss(outputs, labels, "bce")) == pytest.approx(float(entropy), rel=0.02)


# --- metrics ---------------------------------------------------------------------------------------------------------


def test_top_entries_are_a_full_sorts_and_ties_fall_at_random():
    heatmap = np.random.default_rng(0).random((5, 6, 7))
    kind, row, column = top_entries(heatmap, 20)
    order = np.argsort(-heatmap.ravel())[:20]
    assert set(np.ravel_multi_index((kind, row, column), heatmap.shape)) == set(order)
    flat = np.zeros((5, 6, 7))
    assert not np.array_equal(np.sort(top_entries(flat, 20, 0)[0]), np.sort(top_entries(flat, 20, 1)[0]))


def tolerant_by_loop(entry, labels, near):
    kind, row, column = entry
    return any(near[kind, k] and abs(r - row) <= 1 and abs(c - column) <= 1 for k, r, c in np.argwhere(labels))


def test_shares_equal_loops_over_labels():
    labels = samples(0).labels([0])[0].numpy()
    objects = samples(0).objects[0]
    heatmap = np.random.default_rng(0).random(labels.shape) * objects
    found = judged(heatmap, labels, objects, NEAR)
    entries = list(zip(*top_entries(heatmap), strict=True))
    assert found["exact"] == pytest.approx(np.mean([labels[e] for e in entries]))
    assert found["tolerant"] == pytest.approx(np.mean([tolerant_by_loop(e, labels, NEAR) for e in entries]))
    assert found["on_object"] == 1.0
    assert 0 < found["tolerant"] < 1
    perfect = judged(labels.astype(float), labels, objects, NEAR)
    assert perfect["exact"] == perfect["tolerant"] == 1.0


def test_monitoring_counts():
    labels = np.zeros((2, 5, 10), dtype=bool)
    labels[0, 0, :4] = True
    probability = np.full(labels.shape, 0.1)
    probability[0, 0, 2:8] = [0.9, 0.6, 0.9, 0.6, 0.6, 0.6]
    found = monitored(probability, labels)
    assert found["recall"] == 0.5
    assert found["true_negatives"] == pytest.approx(92 / 96)
    assert found["precision_at_0.5"] == pytest.approx(2 / 6)
    assert found["precision_at_0.8"] == 0.5
    assert found["predicted"] == 6
    assert np.isnan(monitored(probability / 10, labels)["precision_at_0.5"])


# --- training --------------------------------------------------------------------------------------------------------


def test_overfits_two_images_and_beats_prior_and_untrained():
    both = samples(0, 1)
    recipe = Recipe(iterations=50, batch=2, jitter=0, learning_rate=1e-2, precision="fp32", validate_every=50)
    training = Training(build(TINY), both, samples(2), recipe)
    untrained = judge_samples(lambda i: outputs_of(training.net, both, i)[0].numpy(), both, TINY.anchors)
    prior = judge_samples(lambda i: prior_heatmap(both, both.objects[i]), both, TINY.anchors)
    history = training.run()
    found = judge_samples(lambda i: outputs_of(training.net, both, i)[0].numpy(), both, TINY.anchors)
    assert training.losses[0] == pytest.approx(float(history.loss.iloc[-1]) * 1.0, rel=2)
    assert training.losses[-1] < training.losses[0] / 2
    assert found.exact.mean() > 0.85
    assert found.exact.mean() > prior.exact.mean() + 0.3
    assert found.tolerant.mean() > untrained.tolerant.mean() + 0.3


def test_starts_at_the_loss_of_the_prior():
    both = samples(0, 1)
    training = Training(build(TINY), both, samples(2), SHORT)
    prior = torch.from_numpy(both.class_prior())
    entropy = float(F.binary_cross_entropy(prior, prior))
    assert training.step() == pytest.approx(entropy, rel=0.03)


@pytest.mark.parametrize("precision", ["fp32", "bf16"])
def test_resumed_training_equals_an_uninterrupted_one_to_the_bit(tmp_path, precision):
    recipe = replace(SHORT, precision=precision, smallest_crop=0.6)
    splits = samples(0, 1, 3), samples(2)
    whole = Training(build(TINY), *splits, recipe)
    expected = whole.run()
    path = tmp_path / "state"
    cut = Training(build(TINY), *splits, recipe)
    for _ in range(4):
        cut.step()
        if cut.done == 3:
            cut.history.append(cut.validated())
    cut.keep(path)
    resumed = Training(build(TINY, seed=9), *splits, recipe)
    found = resumed.run(Checkpoint(path))
    assert torch.equal(weights(whole.net), weights(resumed.net))
    assert whole.losses == resumed.losses
    assert expected.equals(found)
    other = Training(build(TINY), *splits, replace(recipe, seed=1))
    other.run()
    assert not torch.equal(weights(whole.net), weights(other.net))


def test_every_epoch_sees_every_sample_once():
    training = Training(build(TINY), samples(0, 1, 3, 4), samples(2), SHORT)
    epochs = [np.concatenate([training.chosen(2 * e), training.chosen(2 * e + 1)]) for e in range(6)]
    assert all(sorted(epoch) == [0, 1, 2, 3] for epoch in epochs)
    assert len({tuple(epoch) for epoch in epochs}) > 1


@pytest.mark.parametrize("modality", ["normals", "rgb_normals", "depth"])
def test_other_modalities_and_the_papers_loss_train(modality):
    recipe = replace(SHORT, iterations=2, validate_every=2, loss="mse")
    history = Training(build(replace(TINY, modality=modality)), samples(0, 1), samples(2), recipe).run()
    assert np.isfinite(history.to_numpy()).all()
    assert history.iteration.tolist() == [2]


def test_trained_nets_are_kept_by_content(tmp_path, monkeypatch):
    monkeypatch.setattr(trained_module, "cache_dir", lambda: tmp_path / "a cache")
    first = trained(TINY, samples(0, 1), samples(2), SHORT)
    assert [p.suffix for p in (tmp_path / "a cache" / "rgbd_grasp").iterdir()] == [".safetensors"]
    monkeypatch.setattr(Training, "step", None)
    again = trained(TINY, samples(0, 1), samples(2), SHORT)
    assert torch.equal(weights(first.avn.net), weights(again.avn.net))
    assert np.array_equal(first.history.to_numpy(), again.history.to_numpy())
    base = net_key(TINY, samples(0, 1), samples(2), SHORT)
    others = [
        net_key(replace(TINY, modality="depth"), samples(0, 1), samples(2), SHORT),
        net_key(TINY, samples(0, 3), samples(2), SHORT),
        net_key(TINY, samples(0, 1), samples(4), SHORT),
        net_key(TINY, samples(0, 1), samples(2), replace(SHORT, seed=1)),
    ]
    assert len({base, *others}) == 5


def test_a_cache_that_cannot_be_written_is_a_warning(tmp_path, monkeypatch):
    (tmp_path / "file").write_text("")
    monkeypatch.setattr(trained_module, "cache_dir", lambda: tmp_path / "file")
    with pytest.warns(UserWarning, match="set PAPERLAB_CACHE"):
        found = trained(TINY, samples(0, 1), samples(2), replace(SHORT, iterations=1))
    assert len(found.history) == 1
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        trained(TINY, samples(0, 1), samples(2), replace(SHORT, iterations=1), cached=False)
    assert paths.cache_dir  # the real one is never touched


def test_a_broken_checkpoint_is_told(tmp_path):
    path = tmp_path / "state"
    path.write_bytes(b"nothing")
    with pytest.raises(ValueError, match=r"state: is no checkpoint of this training .*delete it to begin anew"):
        Training(build(TINY), samples(0, 1), samples(2), SHORT).run(Checkpoint(path))


def test_unfit_splits_are_told():
    with pytest.raises(ValueError, match="validation: shares scene 1 with the training split"):
        Training(build(TINY), samples(0, 1), samples(1, 2), SHORT)
    with pytest.raises(ValueError, match=r"train: samples have heatmaps \(48, 24, 32\).*the net has \(360, 48, 64\)"):
        Training(build(SMALL), samples(0), samples(1), SHORT)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"loss": "focal"}, "loss: got 'focal', needs one of bce, mse"),
        ({"iterations": 0}, "iterations: got 0, needs a positive number"),
        ({"jitter": 0.7}, "jitter: got 0.7"),
        ({"smallest_crop": 0.0}, "smallest_crop: got 0.0"),
        ({"precision": "fp8"}, "precision"),
    ],
)
def test_bad_recipes_are_told(change, message):
    with pytest.raises(ValueError, match=message):
        Recipe(**change)
