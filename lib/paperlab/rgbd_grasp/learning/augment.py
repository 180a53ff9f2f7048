"""Augmentation: other colors, and crops of image and labels alike; every draw is a function of its generator."""

from __future__ import annotations

from typing import cast

import numpy as np
import torch
from torch import Tensor

from paperlab.rgbd_grasp.geometry.checks import Floats
from paperlab.rgbd_grasp.network.config import CELL_PX

_LUMA = np.array([0.299, 0.587, 0.114])
_YIQ = np.array([_LUMA, [0.596, -0.274, -0.322], [0.211, -0.523, 0.312]])


def jittered(rgb_BCHW: Tensor, strength: float, rng: np.random.Generator) -> Tensor:
    """Return color images (B, 3, H, W) from 0 to 1, each in another brightness, contrast, saturation and hue.

    Factors lie within 1 ± `strength`, the hue turns by up to `strength` of the circle, as in the released code's
    variant with 0.3. The hue turns in the plane of chroma, so all four are one affine map of a pixel's color.
    """
    count = len(rgb_BCHW)
    brightness, contrast, saturation = rng.uniform(1 - strength, 1 + strength, (3, count))
    turn = rng.uniform(-strength, strength, count) * 2 * np.pi
    mix = np.stack([_color_map(s, t) for s, t in zip(saturation, turn, strict=True)])
    scale = torch.from_numpy(mix * (brightness * contrast)[:, None, None]).to(rgb_BCHW)
    gray = torch.einsum("bchw,c->b", rgb_BCHW, torch.from_numpy(_LUMA).to(rgb_BCHW)) / rgb_BCHW[0, 0].numel()
    offset = gray * torch.from_numpy(brightness * (1 - contrast)).to(rgb_BCHW)
    return (torch.einsum("bij,bjhw->bihw", scale, rgb_BCHW) + offset[:, None, None, None]).clamp(0, 1)


def _color_map(saturation: float, turn: float) -> Floats:
    """Return (3, 3): luma stays, the two chroma axes turn and stretch."""
    cos, sin = saturation * np.cos(turn), saturation * np.sin(turn)
    chroma = np.array([[1, 0, 0], [0, cos, -sin], [0, sin, cos]])
    return cast(Floats, np.linalg.solve(_YIQ, chroma @ _YIQ))


def cropped(
    images_BCHW: Tensor, labels_BCRW: Tensor, smallest: float, rng: np.random.Generator
) -> tuple[Tensor, Tensor]:
    """Return images and labels, each sample cut to the same random part of both and stretched back, unblended.

    The part's sides are at least the share `smallest` of the whole's and run along cells, so every label stays over
    what it labels. As in the released code, orientations stay, although a part of an image is another camera's.
    """
    size = labels_BCRW.shape[2:]
    images, labels = [], []
    for image, label in zip(images_BCHW, labels_BCRW, strict=True):
        share = rng.uniform(smallest, 1.0)
        kept = [max(1, round(share * n)) for n in size]
        first = [int(rng.integers(n - k + 1)) for n, k in zip(size, kept, strict=True)]
        rows, columns = (
            f + (2 * torch.arange(n) + 1) * k // (2 * n) for f, n, k in zip(first, size, kept, strict=True)
        )
        v, u = (
            CELL_PX * f + (2 * torch.arange(CELL_PX * n) + 1) * k // (2 * n)
            for f, n, k in zip(first, size, kept, strict=True)
        )
        labels.append(label[:, rows.to(label.device)][:, :, columns.to(label.device)])
        images.append(image[:, v.to(image.device)][:, :, u.to(image.device)])
    return torch.stack(images), torch.stack(labels)
