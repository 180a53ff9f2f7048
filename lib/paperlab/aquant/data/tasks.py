"""Two classification tasks that need no download: procedural Gabor constellations, and scikit-learn's digits.

Both are functions of their fields alone. Images are float32 of (N, 3, H, W), labels int64.
"""

from __future__ import annotations

import hashlib
from dataclasses import dataclass
from typing import NamedTuple, Protocol

import numpy as np
import torch
from torch import Tensor


class Split(NamedTuple):
    """Images of (N, 3, H, W) and their labels."""

    images: Tensor
    labels: Tensor

    def __len__(self) -> int:
        return len(self.labels)

    def digest(self) -> str:
        """Return the SHA-256 of images and labels, which tells splits apart wherever they are shown."""
        digest = hashlib.sha256()
        for tensor in self:
            digest.update(tensor.cpu().contiguous().numpy().tobytes())
        return digest.hexdigest()


class Data(NamedTuple):
    """A task's images to learn from and to test on."""

    train: Split
    test: Split
    classes: int

    def calibration(self, count: int, seed: int) -> Tensor:
        """Return `count` training images drawn without replacement; ValueError where there are fewer."""
        if not 0 < count <= len(self.train):
            raise ValueError(f"count: {count} calibration images; the training split has {len(self.train)}")
        order = np.random.default_rng(seed).permutation(len(self.train))[:count]
        return self.train.images[torch.from_numpy(order).to(self.train.images.device)]


class Task(Protocol):
    """What can be trained on."""

    def load(self, device: str = "cpu") -> Data:
        """Return the data on `device`."""


@dataclass(frozen=True)
class GaborTask:
    """Constellations of Gabor patches: a class is the places, orientations, frequencies and colors of its patches.

    Each image shows its class's constellation, shifted as a whole and jittered patch by patch, among patches that
    mean nothing, under pixel noise. The image spans [-1, 1] in both directions.
    """

    seed: int = 0
    classes: int = 20
    size: int = 16
    patches: int = 4
    distractors: int = 3
    shift: float = 0.25
    jitter: float = 0.05  # of place, in the image's coordinates; of orientation and phase, in radians times three
    noise: float = 0.5
    train_images: int = 8_000
    test_images: int = 10_000

    def __post_init__(self) -> None:
        for name in ("classes", "size", "patches", "train_images", "test_images"):
            if getattr(self, name) < 1:
                raise ValueError(f"GaborTask.{name}: {getattr(self, name)} is not positive")
        for name in ("distractors", "shift", "jitter", "noise"):
            if getattr(self, name) < 0:
                raise ValueError(f"GaborTask.{name}: {getattr(self, name)} is negative")

    def load(self, device: str = "cpu") -> Data:
        """Return the data, rendered on `device`."""
        draw = np.random.default_rng((self.seed, 0))
        prototypes = _Patches.random(draw, (self.classes, self.patches))
        splits = []
        for number, count in enumerate((self.train_images, self.test_images), 1):
            draw = np.random.default_rng((self.seed, number))
            labels = draw.permutation(np.arange(count) % self.classes)
            splits.append(Split(self._images(draw, prototypes, labels, device), torch.from_numpy(labels).to(device)))
        return Data(splits[0], splits[1], self.classes)

    def _images(self, draw: np.random.Generator, prototypes: _Patches, labels: np.ndarray, device: str) -> Tensor:
        images = torch.empty(len(labels), 3, self.size, self.size, device=device)
        for begin in range(0, len(labels), 1000):
            part = labels[begin : begin + 1000]
            shown = self._varied(draw, prototypes.of(part))
            meaningless = _Patches.random(draw, (len(part), self.distractors))
            clean = shown.with_others(meaningless).render(self.size, device)
            noise = draw.standard_normal(clean.shape, dtype=np.float32)
            images[begin : begin + 1000] = clean + self.noise * torch.from_numpy(noise).to(device)
        return images

    def _varied(self, draw: np.random.Generator, patches: _Patches) -> _Patches:
        count, number = patches.angle.shape
        shift = draw.uniform(-self.shift, self.shift, (count, 1, 2))
        return _Patches(
            place=patches.place + shift + self.jitter * draw.standard_normal((count, number, 2)),
            angle=patches.angle + 3 * self.jitter * draw.standard_normal((count, number)),
            phase=patches.phase + 3 * self.jitter * draw.standard_normal((count, number)),
            frequency=patches.frequency * np.exp(self.jitter * draw.standard_normal((count, number))),
            color=patches.color + self.jitter * draw.standard_normal((count, number, 3)),
        )


class _Patches(NamedTuple):
    """Gabor patches: place (..., 2) in [-1, 1], angle, phase, frequency (cycles per half image), color (..., 3)."""

    place: np.ndarray
    angle: np.ndarray
    phase: np.ndarray
    frequency: np.ndarray
    color: np.ndarray

    @staticmethod
    def random(draw: np.random.Generator, shape: tuple[int, int]) -> _Patches:
        color = draw.standard_normal((*shape, 3))
        return _Patches(
            place=draw.uniform(-0.7, 0.7, (*shape, 2)),
            angle=draw.uniform(0, np.pi, shape),
            phase=draw.uniform(0, 2 * np.pi, shape),
            frequency=draw.choice([1.0, 1.5, 2.25], shape),
            color=color / np.linalg.norm(color, axis=-1, keepdims=True),
        )

    def of(self, labels: np.ndarray) -> _Patches:
        return _Patches(*(values[labels] for values in self))

    def with_others(self, others: _Patches) -> _Patches:
        return _Patches(*(np.concatenate(pair, axis=1) for pair in zip(self, others, strict=True)))

    def render(self, size: int, device: str, radius: float = 0.3) -> Tensor:
        """Return images of (N, 3, size, size), the sum of each row's patches."""
        place, angle, phase, frequency, color = (
            torch.from_numpy(np.asarray(values, dtype=np.float32)).to(device) for values in self
        )
        axis = torch.linspace(-1, 1, size, device=device)
        x_NPW = axis - place[..., 0, None]
        y_NPH = axis - place[..., 1, None]
        envelope_NPHW = _bell(y_NPH, radius)[..., :, None] * _bell(x_NPW, radius)[..., None, :]
        turns = 2 * torch.pi * frequency
        along_x = (turns * angle.cos())[..., None] * x_NPW + phase[..., None]
        along_y = (turns * angle.sin())[..., None] * y_NPH
        wave_NPHW = (along_y[..., :, None] + along_x[..., None, :]).cos()
        return torch.einsum("nphw,npc->nchw", envelope_NPHW * wave_NPHW, color)


def _bell(distance: Tensor, radius: float) -> Tensor:
    return torch.exp(-(distance**2) / (2 * radius**2))


@dataclass(frozen=True)
class DigitsTask:
    """scikit-learn's handwritten digits: 1 797 real images of 8×8, of which `train_images` are learned from."""

    seed: int = 0
    train_images: int = 1_000

    def __post_init__(self) -> None:
        if not 10 <= self.train_images <= 1_700:
            raise ValueError(f"DigitsTask.train_images: {self.train_images} is not in 10 to 1700, of 1797 in all")

    def load(self, device: str = "cpu") -> Data:
        """Return the data: gray levels in three equal channels, of mean 0 and deviation 1 over the training images."""
        from sklearn.datasets import load_digits

        pixels, targets = load_digits(return_X_y=True)
        order = np.random.default_rng(self.seed).permutation(len(targets))
        gray = torch.from_numpy(pixels[order].astype(np.float32)).reshape(-1, 1, 8, 8)
        learned = gray[: self.train_images]
        images = ((gray - learned.mean()) / learned.std()).expand(-1, 3, -1, -1).contiguous().to(device)
        labels = torch.from_numpy(targets[order].astype(np.int64)).to(device)
        cut = self.train_images
        return Data(Split(images[:cut], labels[:cut]), Split(images[cut:], labels[cut:]), 10)
