"""The tasks are functions of their fields; what makes them learnable and hard is there."""

from __future__ import annotations

from dataclasses import replace

import pytest
import torch

from paperlab.aquant.data.tasks import DigitsTask, GaborTask

SMALL = GaborTask(classes=5, train_images=60, test_images=40)


def test_the_same_task_is_the_same_to_the_bit_and_another_seed_is_another():
    first, second, other = SMALL.load(), SMALL.load(), replace(SMALL, seed=1).load()
    assert first.train.digest() == second.train.digest()
    assert first.test.digest() == second.test.digest()
    assert len({first.train.digest(), first.test.digest(), other.train.digest(), other.test.digest()}) == 4


def test_images_and_labels():
    data = SMALL.load()
    assert data.train.images.shape == (60, 3, 16, 16)
    assert data.train.images.dtype == torch.float32
    assert data.train.labels.bincount().tolist() == [12] * 5
    assert data.test.labels.bincount().tolist() == [8] * 5
    assert data.classes == 5
    assert replace(SMALL, size=32).load().train.images.shape == (60, 3, 32, 32)


def test_more_images_begin_with_the_same_classes():
    """The constellations depend on the seed alone, so that sizes of splits can be varied."""
    quiet = GaborTask(classes=3, distractors=0, jitter=0, shift=0, noise=0, train_images=3, test_images=3)
    few, many = quiet.load(), replace(quiet, train_images=30).load()
    by_class = {int(label): image for image, label in zip(*few.train, strict=True)}
    for image, label in zip(*many.train, strict=True):
        assert torch.equal(image, by_class[int(label)])


def test_noise_has_the_stated_deviation_and_images_of_a_class_resemble_each_other():
    quiet = replace(SMALL, train_images=2000, noise=0.0)
    clean, noisy = quiet.load().train, replace(quiet, noise=0.5).load().train
    assert len(clean) == 2000
    still = replace(quiet, distractors=0, jitter=0.0, shift=0.0)
    alone, under_noise = still.load().train, replace(still, noise=0.5).load().train
    assert (under_noise.images - alone.images).std().item() == pytest.approx(0.5, rel=0.02)
    assert noisy.images.var() > clean.images.var()
    means = torch.stack([clean.images[clean.labels == label].mean(0) for label in range(5)])
    between, within = means.var(0).mean(), (clean.images - means[clean.labels]).var(0).mean()
    assert 0.05 < between / within < 1


def test_calibration_draws_training_images_without_repeating():
    data = SMALL.load()
    images = data.calibration(60, seed=3)
    assert torch.equal(images.sum((1, 2, 3)).sort().values, data.train.images.sum((1, 2, 3)).sort().values)
    assert torch.equal(data.calibration(8, 3), images[:8])
    assert not torch.equal(data.calibration(8, 4), images[:8])
    for count in (0, 61):
        with pytest.raises(ValueError, match="the training split has 60"):
            data.calibration(count, 0)


def test_digits_are_scikit_learns():
    from sklearn.datasets import load_digits

    data = DigitsTask(seed=1).load()
    assert (len(data.train), len(data.test), data.classes) == (1000, 797, 10)
    ours = torch.cat([data.train.labels, data.test.labels]).bincount()
    assert ours.tolist() == torch.from_numpy(load_digits().target).bincount().tolist()
    assert data.train.images.mean().item() == pytest.approx(0, abs=1e-5)
    assert data.train.images.std().item() == pytest.approx(1, abs=1e-3)
    assert torch.equal(data.train.images[:, 0], data.train.images[:, 2])
    assert DigitsTask(seed=1).load().train.digest() == data.train.digest() != DigitsTask(seed=2).load().train.digest()


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"classes": 0}, "GaborTask.classes: 0 is not positive"),
        ({"noise": -1.0}, "GaborTask.noise: -1.0 is negative"),
    ],
)
def test_bad_tasks_are_told(arguments, message):
    with pytest.raises(ValueError, match=message):
        GaborTask(**arguments)
    with pytest.raises(ValueError, match=r"DigitsTask\.train_images: 1797 is not in 10 to 1700"):
        DigitsTask(train_images=1797)
