"""Pictures to tensors as ImageNet networks are trained and judged: crops, flips, normalization."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import torch
from PIL import Image, UnidentifiedImageError
from torch import Tensor

MEAN, DEVIATION = (0.485, 0.456, 0.406), (0.229, 0.224, 0.225)
RESIZED_OVER_CROP = 256 / 224


def read_picture(file: Path) -> Image.Image:
    """Return a file's picture in RGB; ValueError that names the file where it cannot be read."""
    try:
        with Image.open(file) as picture:
            return picture.convert("RGB")
    except (UnidentifiedImageError, OSError) as error:
        raise ValueError(f"picture {file}: not readable ({error})") from None


def evaluation_view(picture: Image.Image, size: int = 224) -> Tensor:
    """Return (3, size, size): the shorter side resized to 256/224 of `size`, the center cropped, normalized."""
    short = round(size * RESIZED_OVER_CROP)
    width, height = picture.size
    if width <= height:
        resized = (short, int(short * height / width))
    else:
        resized = (int(short * width / height), short)
    left, top = (round((side - size) / 2) for side in resized)
    scaled = picture.resize(resized, Image.Resampling.BILINEAR)
    return _normalized(scaled.crop((left, top, left + size, top + size)))


def training_view(picture: Image.Image, size: int, draw: np.random.Generator) -> Tensor:
    """Return (3, size, size): a random crop of 8 to 100 % of the area, resized, and flipped half of the time."""
    box = _random_box(*picture.size, draw)
    view = picture.resize((size, size), Image.Resampling.BILINEAR, box=box)
    if draw.random() < 0.5:
        view = view.transpose(Image.Transpose.FLIP_LEFT_RIGHT)
    return _normalized(view)


def _random_box(width: int, height: int, draw: np.random.Generator) -> tuple[int, int, int, int]:
    """Return a crop of random area and aspect ratio (3/4 to 4/3, log-uniform); the largest center crop in the end."""
    for _ in range(10):
        area = width * height * draw.uniform(0.08, 1.0)
        ratio = float(np.exp(draw.uniform(np.log(3 / 4), np.log(4 / 3))))
        crop_width, crop_height = round((area * ratio) ** 0.5), round((area / ratio) ** 0.5)
        if 0 < crop_width <= width and 0 < crop_height <= height:
            left = int(draw.integers(0, width - crop_width + 1))
            top = int(draw.integers(0, height - crop_height + 1))
            return left, top, left + crop_width, top + crop_height
    crop_width, crop_height = min(width, round(height * 4 / 3)), min(height, round(width * 4 / 3))
    left, top = (width - crop_width) // 2, (height - crop_height) // 2
    return left, top, left + crop_width, top + crop_height


def _normalized(picture: Image.Image) -> Tensor:
    pixels_HWC = torch.from_numpy(np.array(picture, dtype=np.float32)) / 255
    return ((pixels_HWC - torch.tensor(MEAN)) / torch.tensor(DEVIATION)).permute(2, 0, 1).contiguous()
