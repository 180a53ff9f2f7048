"""Colors, patterns and light, drawn anew for every scene and independent of shapes: color tells no object apart.

Patterns are functions of the point in the object's own, randomly turned frame, so they need no texture coordinates.
"""

from __future__ import annotations

import colorsys
from dataclasses import dataclass
from typing import Literal, get_args

import numpy as np
from scipy.ndimage import map_coordinates

from paperlab.rgbd_grasp.geometry.checks import Floats
from paperlab.rgbd_grasp.geometry.rotations import random_rotations

Pattern = Literal["plain", "stripes", "checks", "spots", "marble", "grain"]
PATTERNS: tuple[Pattern, ...] = get_args(Pattern)
_LATTICE = 16  # cells after which noise repeats


@dataclass(frozen=True, eq=False)
class Material:
    """Two colors (3,) in linear RGB, mixed by a pattern of `scale_m` in a frame turned by `rotation` (3, 3)."""

    pattern: Pattern
    colors: Floats  # (2, 3)
    scale_m: float
    rotation: Floats
    offset: Floats
    gloss: float  # strength of the highlight, 0 for matt
    lattice: Floats  # (16, 16, 16) in [0, 1], the noise

    def albedo(self, points: Floats) -> Floats:
        """Return the color (N, 3) at points (N, 3) of the object's frame."""
        mix = self._mix(points @ self.rotation.T / self.scale_m + self.offset)[:, None]
        return (1 - mix) * self.colors[0] + mix * self.colors[1]

    def _mix(self, p: Floats) -> Floats:
        """Return the share (N,) of the second color; edges are soft over a few percent of the pattern."""
        if self.pattern == "plain":
            return np.zeros(len(p))
        if self.pattern == "stripes":
            return _edge(np.sin(2 * np.pi * p[:, 0]))
        if self.pattern == "checks":
            return _edge(np.prod(np.sin(np.pi * p), axis=1) * 3)
        if self.pattern == "spots":
            return _edge((self._noise(1.5 * p) - 0.58) * 8)
        if self.pattern == "marble":
            return 0.5 + 0.5 * np.sin(2 * np.pi * (p[:, 0] + 1.5 * self._noise(p)))
        return self._noise(p * (1.0, 6.0, 6.0)) * 0.7 + 0.3 * self._noise(3 * p)  # grain

    def _noise(self, p: Floats) -> Floats:
        return map_coordinates(self.lattice, p.T, order=1, mode="grid-wrap")


def _edge(value: Floats) -> Floats:
    return np.clip(0.5 + 4 * value, 0.0, 1.0)


def random_material(rng: np.random.Generator, *, table: bool = False) -> Material:
    """Return a material; a table's is duller, coarser and never checked."""
    patterns = ("plain", "stripes", "marble", "grain") if table else PATTERNS
    saturation, value = ((0.0, 0.4), (0.3, 0.9)) if table else ((0.1, 0.95), (0.2, 1.0))
    hues = rng.random(2)
    colors = [colorsys.hsv_to_rgb(hue, rng.uniform(*saturation), rng.uniform(*value)) for hue in hues]
    if table:  # two shades of nearly one color
        colors[1] = tuple(np.clip(np.array(colors[0]) * rng.uniform(0.6, 1.3), 0, 1))
    return Material(
        pattern=str(rng.choice(patterns)),  # type: ignore[arg-type]
        colors=np.array(colors) ** 2.2,
        scale_m=float(rng.uniform(0.04, 0.2) if table else rng.uniform(0.012, 0.04)),
        rotation=np.eye(3) if table else random_rotations(1, rng)[0],
        offset=rng.uniform(0, _LATTICE, 3),
        gloss=float(0.15 * rng.random() if table else 0.8 * rng.random() ** 2),
        lattice=rng.random((_LATTICE,) * 3),
    )


@dataclass(frozen=True, eq=False)
class Light:
    """A lamp at a point of the table's frame, and light from all around; colors (3,) in linear RGB."""

    position: Floats
    color: Floats
    ambient: Floats


def random_light(rng: np.random.Generator) -> Light:
    """Return a lamp 0.9 to 1.6 m from the table's middle, at least 40° high, warm or cold, and a softer fill."""
    azimuth, elevation = rng.uniform(0, 2 * np.pi), rng.uniform(np.deg2rad(40), np.deg2rad(80))
    level = np.cos(elevation)
    direction = np.array([level * np.cos(azimuth), level * np.sin(azimuth), np.sin(elevation)])
    warmth = rng.uniform(-0.15, 0.15)
    tint = np.array([1 + warmth, 1.0, 1 - warmth])
    color = rng.uniform(0.6, 1.0) * tint
    return Light(rng.uniform(0.9, 1.6) * direction, color, rng.uniform(0.18, 0.4) * tint[::-1])


@dataclass(frozen=True, eq=False)
class Looks:
    """Materials of the table and of each solid, and the light."""

    table: Material
    solids: tuple[Material, ...]
    light: Light


def random_looks(count: int, rng: np.random.Generator) -> Looks:
    """Return the looks of a scene of `count` solids."""
    return Looks(random_material(rng, table=True), tuple(random_material(rng) for _ in range(count)), random_light(rng))
