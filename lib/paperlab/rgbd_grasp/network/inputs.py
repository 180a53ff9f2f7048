"""What the net sees: color, surface normals, or depth, at the size of its input."""

from __future__ import annotations

from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from PIL import Image
from scipy.ndimage import distance_transform_edt
from torch import Tensor

from paperlab.rgbd_grasp.geometry.cameras import Camera
from paperlab.rgbd_grasp.geometry.checks import Floats
from paperlab.rgbd_grasp.network.config import Modality

Bytes = NDArray[np.uint8]
Shorts = NDArray[np.uint16]
_MEAN, _STD = (0.485, 0.456, 0.406), (0.229, 0.224, 0.225)  # of ImageNet, as in the released code
_REACH_PX = 2  # a normal's plane runs through 5x5 pixels: at 256x192 about as wide as the code's 150 points
_JUMP = 0.03  # of the depth: what differs more is another surface


def resized_rgb(rgb: Bytes, size: tuple[int, int]) -> Bytes:
    """Return a color image (H, W, 3) at `size`, width and height, averaged where it shrinks."""
    if rgb.shape[1::-1] == size:
        return rgb
    return np.array(Image.fromarray(rgb).resize(size, Image.Resampling.BILINEAR))


def resized_depth(depth_m: Floats, size: tuple[int, int]) -> Floats:
    """Return a depth image (H, W) at `size`: the nearest pixel's, since a mean may lie between two surfaces."""
    height, width = depth_m.shape
    columns = ((np.arange(size[0]) + 0.5) * width / size[0]).astype(int)
    rows = ((np.arange(size[1]) + 0.5) * height / size[1]).astype(int)
    return depth_m[np.ix_(rows, columns)]


def filled(depth_m: Floats) -> Floats:
    """Return a depth image (H, W) whose holes, 0, have the nearest measured pixel's depth.

    The released code inpaints with OpenCV; this needs no further package. Raises ValueError for an empty image.
    """
    holes = depth_m <= 0
    if holes.all():
        raise ValueError("depth_m: is empty, every pixel is 0; needs at least one measured pixel")
    if not holes.any():
        return depth_m
    nearest = distance_transform_edt(holes, return_distances=False, return_indices=True)
    return depth_m[tuple(nearest)]


def surface_normals(depth_m: Floats, camera: Camera) -> Floats:
    """Return the unit normal (H, W, 3) of every pixel, toward the camera, of the plane through the pixels around.

    `depth_m` (H, W) has no holes. Pixels of another surface, more than 3 % nearer or farther, are left out.
    """
    cloud = camera.cloud(depth_m)
    padded = np.pad(cloud, ((_REACH_PX, _REACH_PX), (_REACH_PX, _REACH_PX), (0, 0)), mode="edge")
    height, width = depth_m.shape
    count, first, second = np.zeros((height, width)), np.zeros((height, width, 3)), np.zeros((height, width, 3, 3))
    for dv in range(2 * _REACH_PX + 1):
        for du in range(2 * _REACH_PX + 1):
            step = padded[dv : dv + height, du : du + width] - cloud
            weight = np.abs(step[..., 2]) < _JUMP * depth_m
            step = step * weight[..., None]
            count += weight
            first += step
            second += step[..., :, None] * step[..., None, :]
    mean = first / count[..., None]
    spread = second / count[..., None, None] - mean[..., :, None] * mean[..., None, :]
    normal = np.linalg.eigh(spread)[1][..., 0]
    away = np.einsum("hwi,hwi->hw", normal, cloud) > 0
    return np.where(away[..., None], -normal, normal)


def normal_image(depth_m: Floats, camera: Camera, size: tuple[int, int]) -> Bytes:
    """Return normals as an image (H, W, 3) at `size`: components from -1 to 1 become 0 to 255, as in the code."""
    depth = filled(resized_depth(depth_m, size))
    return np.round((surface_normals(depth, camera.resized(*size)) + 1) / 2 * 255).astype(np.uint8)


def depth_image(depth_m: Floats, size: tuple[int, int]) -> Shorts:
    """Return depth as an image (H, W) at `size`: its least becomes 0, its most 65535 (min-max, as in the code)."""
    depth = filled(resized_depth(depth_m, size))
    span = float(np.ptp(depth))
    return np.round((depth - depth.min()) / (span or 1.0) * 65535).astype(np.uint16)


def as_images(array: NDArray[Any], device: torch.device | str = "cpu") -> Tensor:
    """Return images (B, H, W, C) or (B, H, W) of integers as float channels (B, C, H, W) from 0 to 1.

    One channel becomes three equal ones.
    """
    top = np.iinfo(array.dtype).max
    wide = array if array.dtype == np.uint8 else array.astype(np.int32)  # torch knows few unsigned types
    x = torch.from_numpy(np.ascontiguousarray(wide)).to(device).float() / top
    return x.permute(0, 3, 1, 2) if x.ndim == 4 else x[:, None].expand(-1, 3, -1, -1)


def normalized(images_BCHW: Tensor, modality: Modality) -> Tensor:
    """Return the net's input: color channels by ImageNet's mean and deviation, others as they are."""
    if not modality.startswith("rgb"):
        return images_BCHW.contiguous(memory_format=torch.channels_last)
    mean, std = (images_BCHW.new_tensor(v)[:, None, None] for v in (_MEAN, _STD))
    parts = [(images_BCHW[:, :3] - mean) / std, images_BCHW[:, 3:]]
    return torch.cat(parts, dim=1).contiguous(memory_format=torch.channels_last)
