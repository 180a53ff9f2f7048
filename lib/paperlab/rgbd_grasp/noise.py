"""Noise of depth sensors in three families; color is never touched. The paper's own protocol could not be read.

gaussian  errors along the ray, level in millimeters at 0.5 m, growing with the square of the distance
missing   holes at depth edges and on dark or shining pixels, level the share of those pixels that is lost
lateral   pixels that take their neighbors' depth, level in pixels, rounded to steps that grow with distance
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, Literal, get_args

import numpy as np
from numpy.typing import NDArray
from scipy.ndimage import gaussian_filter, maximum_filter, minimum_filter

from paperlab.rgbd_grasp.geometry.checks import Bools, Floats, floats, one_of

Family = Literal["gaussian", "missing", "lateral"]
NOISE_FAMILIES: dict[Family, tuple[float, ...]] = {
    "gaussian": (0.0, 1.0, 2.0, 5.0, 10.0, 20.0),
    "missing": (0.0, 0.25, 0.5, 0.75, 1.0),
    "lateral": (0.0, 0.5, 1.0, 2.0, 4.0),
}  # each with the levels of the noise curves, the first of which changes nothing
_REFERENCE_M = 0.5
_EDGE_M = 0.01  # of depth across 3 pixels makes an edge
_DARK, _BRIGHT = 0.15, 0.97  # of white: where active stereo finds no texture, and where it is blinded
_PATCH_PX = 2.0  # holes come in patches of about this size
_STEP = 0.002  # rounding at 0.5 m and a level of one pixel, in meters: a disparity is a fraction of a pixel


@dataclass(frozen=True)
class Noise:
    """A family and how strong it is, in that family's units."""

    family: Family
    level: float

    def __post_init__(self) -> None:
        one_of("family", self.family, get_args(Family))
        highest = {"gaussian": 200.0, "missing": 1.0, "lateral": 20.0}[self.family]
        if not 0 <= self.level <= highest:
            raise ValueError(f"level: got {self.level}, {self.family} noise needs 0 to {highest:g}")


def add_noise(depth_m: Floats, noise: Noise, seed: int, *, rgb: NDArray[np.uint8] | None = None) -> Floats:
    """Return a depth image (H, W) in meters with noise; holes are 0 and stay holes. Level 0 changes nothing.

    `rgb` (H, W, 3) tells "missing" which pixels are dark or shine; the other families do not look at it.
    """
    depth = floats("depth_m", depth_m, None, None)
    if noise.level == 0:
        return depth.copy()
    rng = np.random.default_rng(seed)
    if noise.family == "gaussian":
        sigma = noise.level / 1000 * (depth / _REFERENCE_M) ** 2
        noisy = np.maximum(depth + sigma * rng.normal(size=depth.shape), 1e-3)
    elif noise.family == "missing":
        lost = _edges(depth) | _unreadable(rgb, depth.shape)
        noisy = np.where(lost & (_patches(depth.shape, rng) < noise.level), 0.0, depth)
    else:
        noisy = _rounded(_smeared(depth, noise.level, rng), noise.level)
    return np.where(depth > 0, noisy, 0.0)


def _edges(depth: Floats) -> Bools:
    jump: Bools = maximum_filter(depth, 3) - minimum_filter(depth, 3) > _EDGE_M
    return jump


def _unreadable(rgb: NDArray[Any] | None, shape: tuple[int, ...]) -> Bools:
    if rgb is None:
        raise ValueError("rgb: noise 'missing' needs the color image, to know what is dark or shines")
    if rgb.shape != (*shape, 3) or rgb.dtype != np.uint8:
        raise ValueError(f"rgb: got {rgb.dtype} of shape {rgb.shape}, needs uint8 {(*shape, 3)}")
    brightest = rgb.max(axis=2) / 255.0
    dull = rgb.min(axis=2) / 255.0
    return (brightest < _DARK) | (dull > _BRIGHT)


def _patches(shape: tuple[int, ...], rng: np.random.Generator) -> Floats:
    """Return smooth noise (H, W), uniform over [0, 1) by rank, so that a level is the share of pixels below it."""
    smooth = gaussian_filter(rng.normal(size=shape), _PATCH_PX)
    rank = np.empty(smooth.size)
    rank[smooth.ravel().argsort(kind="stable")] = np.arange(smooth.size)
    return (rank / smooth.size).reshape(shape)


def _smeared(depth: Floats, level_px: float, rng: np.random.Generator) -> Floats:
    """Return each pixel's depth from a place that is off by about `level_px`, in patches, as disparity maps are."""
    shift = np.stack([gaussian_filter(rng.normal(size=depth.shape), 1.0) for _ in range(2)])
    shift *= level_px / shift.std()
    row, column = np.indices(depth.shape)
    row = np.clip(np.round(row + shift[0]).astype(int), 0, depth.shape[0] - 1)
    column = np.clip(np.round(column + shift[1]).astype(int), 0, depth.shape[1] - 1)
    return depth[row, column]


def _rounded(depth: Floats, level_px: float) -> Floats:
    """Return depth rounded as disparity is: in steps of inverse depth."""
    step = level_px * _STEP / _REFERENCE_M**2
    inverse = np.where(depth > 0, 1.0 / np.maximum(depth, 1e-6), np.inf)
    return np.where(depth > 0, 1.0 / np.maximum(np.round(inverse / step) * step, step), 0.0)
