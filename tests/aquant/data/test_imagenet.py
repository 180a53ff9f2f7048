"""The ImageNet path on a fake tree: what it reads, how it prepares pictures, and which layouts it refuses."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from PIL import Image
from torch import nn

from paperlab.aquant.data import imagenet
from paperlab.aquant.data.imagenet import from_environment, open_folder, top1
from paperlab.aquant.data.pictures import DEVIATION, MEAN, evaluation_view, read_picture, training_view

CLASSES = ("n01440764", "n01443537", "n01484850")


def picture(path, color, size=(60, 40), mode="RGB"):
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.new("RGB", size, color).convert(mode).save(path)


@pytest.fixture
def tree(tmp_path):
    """Three classes, each of one primary color: three training pictures and two validation pictures per class."""
    root = tmp_path / "image net"
    for label, name in enumerate(CLASSES):
        color = tuple(255 if channel == label else 0 for channel in range(3))
        for number in range(3):
            picture(root / "train" / name / f"{name}_{number}.JPEG", color)
        for number, mode in enumerate(("RGB", "CMYK")):
            picture(root / "val" / name / f"ILSVRC2012_val_{number}{label}.JPEG", color, (40, 70), mode)
    (root / "train" / ".DS_Store").write_text("")
    (root / "val" / CLASSES[0] / "._ILSVRC2012.JPEG").write_text("")
    return root


class ByColor(nn.Module):
    """Answers with the brightest channel, `classes` of them."""

    def __init__(self, classes=3):
        super().__init__()
        self.classes = classes

    def forward(self, x):
        return nn.functional.pad(x.mean((2, 3)), (0, self.classes - 3), value=-9)


def test_a_good_tree_is_read_and_judged(tree):
    folder = open_folder(tree)
    assert folder.classes == CLASSES
    assert [sample.label for sample in folder.samples("train")] == [0, 0, 0, 1, 1, 1, 2, 2, 2]
    assert len(folder.samples("val")) == 6
    assert top1(ByColor(), folder, batch=4, size=32) == 100.0
    (images, labels), *_ = folder.batches("val", batch=2, size=32, every=2)
    assert images.shape == (2, 3, 32, 32)
    assert labels.tolist() == [0, 1]


def test_calibration_is_chosen_by_seed_and_says_what_it_chose(tree):
    folder = open_folder(tree)
    first, again, other = (folder.calibration(4, seed, 32) for seed in (0, 0, 1))
    assert first.images.shape == (4, 3, 32, 32)
    assert torch.equal(first.images, again.images)
    assert first.files == again.files != other.files
    assert all((tree / file).is_file() and file.startswith("train/") for file in first.files)
    assert len(set(folder.calibration(9, 0, 32).files)) == 9
    plain = folder.calibration(1, 0, 32, augment=False)
    assert torch.equal(plain.images[0], evaluation_view(read_picture(tree / plain.files[0]), 32))
    with pytest.raises(ValueError, match=r"count: 10 calibration images; .* has 9"):
        folder.calibration(10, 0)


def test_the_environment_names_the_folder(tree, monkeypatch):
    monkeypatch.delenv(imagenet.VARIABLE, raising=False)
    assert from_environment() is None
    monkeypatch.setenv(imagenet.VARIABLE, str(tree))
    assert from_environment() == open_folder(tree)


def test_other_layouts_are_told(tree):
    """Among them the ones in which torchvision's reader gives wrong labels and an accuracy near zero in silence."""
    with pytest.raises(ValueError, match="no such folder"):
        open_folder(tree / "absent")
    with pytest.raises(
        ValueError, match="no train/ in it, but n01440764, n01443537, n01484850; give the folder above it"
    ):
        open_folder(tree / "train")
    (tree / "val" / "wrapped").mkdir()
    picture(tree / "val" / "wrapped" / "a.JPEG", "red")
    with pytest.raises(ValueError, match="class folder 'wrapped' is in val alone"):
        open_folder(tree)


def test_a_flat_validation_folder_is_told(tree):
    for sample in open_folder(tree).samples("val"):
        sample.file.rename(tree / "val" / sample.file.name)
    with pytest.raises(ValueError, match=r"val/ holds pictures such as ILSVRC2012_val_00\.JPEG itself; sort them"):
        open_folder(tree)


def test_empty_and_missing_classes_are_told(tree):
    for file in (tree / "train" / CLASSES[1]).iterdir():
        file.unlink()
    with pytest.raises(ValueError, match="no pictures in train/n01443537/"):
        open_folder(tree)
    (tree / "train" / CLASSES[1]).rmdir()
    with pytest.raises(ValueError, match="class folder 'n01443537' is in val alone"):
        open_folder(tree)


def test_numbered_classes_that_sort_as_text_are_told(tmp_path):
    for split in ("train", "val"):
        for label in range(12):
            picture(tmp_path / split / str(label) / "a.png", "red")
    with pytest.raises(ValueError, match="sorted as text '10' comes before '2'"):
        open_folder(tmp_path)


def test_a_network_of_other_classes_is_told(tree):
    with pytest.raises(ValueError, match=r"the network tells 1000 classes apart, .* has 3"):
        top1(ByColor(1000), open_folder(tree), size=32)


def test_broken_pictures_are_named(tree):
    (tree / "val" / CLASSES[2] / "ILSVRC2012_val_02.JPEG").write_bytes(b"no picture")
    with pytest.raises(ValueError, match=r"picture .*ILSVRC2012_val_02\.JPEG: not readable"):
        top1(ByColor(), open_folder(tree), size=32)


def denormalized(view):
    return view * torch.tensor(DEVIATION)[:, None, None] + torch.tensor(MEAN)[:, None, None]


@pytest.mark.parametrize(("width", "height"), [(512, 512), (300, 400), (700, 260)])
def test_the_evaluation_view_is_the_center_of_the_resized_picture(width, height):
    """A horizontal and a vertical ramp say which part of the picture is seen."""
    x, y = np.meshgrid(np.arange(width) / width, np.arange(height) / height)
    ramps = (255 * np.stack([x, y, np.zeros_like(x)], -1)).astype(np.uint8)
    seen = denormalized(evaluation_view(Image.fromarray(ramps)))
    assert seen.shape == (3, 224, 224)
    share = 224 / 256
    for channel, side in ((0, width), (1, height)):
        part = share * min(width, height) / side
        values = seen[channel]
        assert values.max() - values.min() == pytest.approx(part, abs=0.02)
        assert values.mean().item() == pytest.approx(0.5, abs=0.01)


def test_training_views_are_crops_of_the_stated_areas():
    x = np.tile(np.arange(256, dtype=np.uint8), (256, 1))
    ramp = Image.fromarray(np.stack([x, x.T, x * 0], -1))
    draw = np.random.default_rng(0)
    areas, flips = [], 0
    for _ in range(300):
        seen = denormalized(training_view(ramp, 32, draw))
        spans = [(seen[channel].max() - seen[channel].min()).item() * 32 / 31 for channel in (0, 1)]
        areas.append(spans[0] * spans[1])
        flips += int(seen[0, 0, 0] > seen[0, 0, -1])
    assert 0.06 < min(areas) < 0.15
    assert 0.9 < max(areas) <= 1.05
    assert 110 < flips < 190
    assert training_view(Image.new("RGB", (500, 3)), 32, draw).shape == (3, 32, 32)
