"""ImageNet from a user's folder: `ROOT/train/CLASS/*.JPEG` and `ROOT/val/CLASS/*.JPEG`, checked before anything runs.

Labels are the places of the class folders in sorted order, as in torchvision's ImageFolder. A folder that is laid out
in another way would give an accuracy near zero without a word; every such layout that is known is told here.
"""

from __future__ import annotations

import os
import re
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from typing import NamedTuple

import numpy as np
import torch
from torch import Tensor, nn

from paperlab.aquant.data.pictures import evaluation_view, read_picture, training_view

VARIABLE = "AQUANT_IMAGENET"
_PICTURES = (".jpeg", ".jpg", ".png", ".bmp", ".webp")


class Sample(NamedTuple):
    """A file and its label."""

    file: Path
    label: int


class Calibration(NamedTuple):
    """Images of (N, 3, size, size), and the files they were made from, relative to the root."""

    images: Tensor
    files: tuple[str, ...]


@dataclass(frozen=True)
class ImageFolder:
    """A checked folder; `classes` are the names of its class folders in the order of their labels."""

    root: Path
    classes: tuple[str, ...]

    def samples(self, split: str) -> list[Sample]:
        """Return every picture of "train" or "val", sorted by class and name."""
        return [
            Sample(file, label)
            for label, name in enumerate(self.classes)
            for file in _pictures(self.root / split / name)
        ]

    def calibration(self, count: int, seed: int, size: int = 224, augment: bool = True) -> Calibration:
        """Return `count` training pictures drawn by `seed`, randomly cropped and flipped as in training.

        Raises ValueError where the folder has fewer.
        """
        files = [sample.file for sample in self.samples("train")]
        if not 0 < count <= len(files):
            raise ValueError(f"count: {count} calibration images; {self.root / 'train'} has {len(files)}")
        draw = np.random.default_rng(seed)
        chosen = [files[index] for index in draw.permutation(len(files))[:count]]
        images = [
            training_view(read_picture(file), size, draw) if augment else evaluation_view(read_picture(file), size)
            for file in chosen
        ]
        return Calibration(torch.stack(images), tuple(str(file.relative_to(self.root)) for file in chosen))

    def batches(self, split: str, batch: int = 64, size: int = 224, every: int = 1) -> Iterator[tuple[Tensor, Tensor]]:
        """Yield (images, labels) of every `every`-th picture, resized and center-cropped; two threads read ahead."""
        samples = self.samples(split)[::every]
        with ThreadPoolExecutor(2) as pool:
            for begin in range(0, len(samples), batch):
                part = samples[begin : begin + batch]
                images = pool.map(lambda sample: evaluation_view(read_picture(sample.file), size), part)
                yield torch.stack(list(images)), torch.tensor([sample.label for sample in part])


def from_environment() -> ImageFolder | None:
    """Return the folder that the variable AQUANT_IMAGENET names; None where it is not set."""
    root = os.environ.get(VARIABLE)
    return open_folder(Path(root)) if root else None


def open_folder(root: Path | str) -> ImageFolder:
    """Check a folder's layout.

    Raises:
        ValueError: no folder, no `train` or `val`, pictures outside of class folders, other classes in `val` than in
            `train`, an empty class, or classes named by numbers, whose sorted order is not their own; one line that
            says what is right.
    """
    root = Path(root)
    if not root.is_dir():
        raise ValueError(f"ImageNet folder {root}: no such folder")
    names = {split: _classes(root, split) for split in ("train", "val")}
    if odd := sorted(set(names["train"]) ^ set(names["val"])):
        where = "train" if odd[0] in names["train"] else "val"
        raise ValueError(
            f"ImageNet folder {root}: class folder {odd[0]!r} is in {where} alone ({len(odd)} such); train and val "
            "must have the same classes, or their labels differ"
        )
    classes = names["train"]
    if len(classes) > 10 and all(re.fullmatch(r"\d+", name) for name in classes) and len(set(map(len, classes))) > 1:
        raise ValueError(
            f"ImageNet folder {root}: class folders are numbers, and sorted as text '10' comes before '2'; name them "
            "by WordNet id (n01440764, ...) or pad the numbers with zeros"
        )
    return ImageFolder(root, tuple(classes))


def _classes(root: Path, split: str) -> list[str]:
    folder = root / split
    if not folder.is_dir():
        found = ", ".join(sorted(entry.name for entry in root.iterdir() if not entry.name.startswith("."))[:3])
        raise ValueError(
            f"ImageNet folder {root}: no {split}/ in it, but {found or 'nothing'}; give the folder above it"
        )
    loose = _pictures(folder)
    if loose:
        raise ValueError(
            f"ImageNet folder {root}: {split}/ holds pictures such as {loose[0].name} itself; sort them into one "
            f"folder per class, {split}/n01440764/..."
        )
    names = sorted(entry.name for entry in folder.iterdir() if entry.is_dir() and not entry.name.startswith("."))
    for name in names:
        if not _pictures(folder / name):
            raise ValueError(f"ImageNet folder {root}: no pictures in {split}/{name}/; expected {split}/CLASS/*.JPEG")
    if len(names) < 2:
        raise ValueError(f"ImageNet folder {root}: {len(names)} class folders in {split}/; ImageNet has 1000")
    return names


def _pictures(folder: Path) -> list[Path]:
    found = (entry for entry in folder.iterdir() if entry.suffix.lower() in _PICTURES)
    return sorted(file for file in found if not file.name.startswith("."))


@torch.no_grad()
def top1(
    model: nn.Module, folder: ImageFolder, *, device: str = "cpu", batch: int = 64, size: int = 224, every: int = 1
) -> float:
    """Return the share of right first answers on `val`, in percent; `every` thins out the pictures.

    Raises ValueError where the network's answers are not as many as the folder's classes, for which no label holds.
    """
    right = total = 0
    for images, labels in folder.batches("val", batch, size, every):
        logits = model(images.to(device))
        if logits.shape[1] != len(folder.classes):
            raise ValueError(
                f"the network tells {logits.shape[1]} classes apart, {folder.root} has {len(folder.classes)}; their "
                "labels do not correspond"
            )
        right += int((logits.argmax(1).cpu() == labels).sum())
        total += len(labels)
    return 100 * right / total
