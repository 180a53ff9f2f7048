"""The generator's 28 objects: 12 to train on, 8 like them with other sizes, 8 of shapes never trained on."""

from __future__ import annotations

from functools import cache

import numpy as np

from paperlab.rgbd_grasp.geometry.mesh import Mesh
from paperlab.rgbd_grasp.geometry.rotations import rigid
from paperlab.rgbd_grasp.geometry.shapes import box, sphere
from paperlab.rgbd_grasp.scenes.solids import (
    FAMILIES,
    Family,
    Solid,
    capsule,
    hull,
    prism,
    regular,
    revolved,
    superquadric,
)

_WALL_M = 0.006
_OVERLAP = 0.02  # rad by which neighboring segments of a ring reach into each other


def _cylinder(radius_m: float, height_m: float) -> Mesh:
    return revolved([[radius_m, -height_m / 2], [radius_m, height_m / 2]], 96)


def _at(mesh: Mesh, x: float, y: float, z: float) -> Mesh:
    return mesh.moved(rigid(np.eye(3), (x, y, z)))


def _ring(inner_m: float, outer_m: float, height_m: float, segments: int = 24) -> list[Mesh]:
    """Return the wall of a tube about z as overlapping convex segments."""
    step = 2 * np.pi / segments
    parts = []
    for k in range(segments):
        turn = np.array([k * step - _OVERLAP, (k + 1) * step + _OVERLAP])
        corners = [[r * np.cos(t), r * np.sin(t)] for r, t in ((inner_m, turn[0]), (outer_m, turn[0]))]
        corners += [[r * np.cos(t), r * np.sin(t)] for r, t in ((outer_m, turn[1]), (inner_m, turn[1]))]
        parts.append(prism(corners, height_m))
    return parts


def _torus(
    radius_m: float, tube_m: float, first: float = 0.0, last: float = 2 * np.pi, segments: int = 28
) -> list[Mesh]:
    """Return an arc of a torus about z as overlapping convex segments."""
    around = 2 * np.pi * np.arange(16) / 16
    step = (last - first) / segments
    parts = []
    for k in range(segments):
        ends = []
        for turn in (first + k * step - _OVERLAP, first + (k + 1) * step + _OVERLAP):
            reach = radius_m + tube_m * np.cos(around)
            ends.append(np.stack([reach * np.cos(turn), reach * np.sin(turn), tube_m * np.sin(around)], axis=-1))
        parts.append(hull(np.concatenate(ends)))
    return parts


def _mug() -> list[Mesh]:
    """Return a mug: a wall, a bottom, and half a ring, stood upright, for a handle."""
    upright = rigid(np.array([[1.0, 0, 0], [0, 0, -1], [0, 1, 0]]), (0.029, 0, 0))
    handle = [part.moved(upright) for part in _torus(0.022, 0.005, -np.pi / 2, np.pi / 2, 12)]
    return [*_ring(0.032 - _WALL_M, 0.032, 0.075), _at(_cylinder(0.031, _WALL_M), 0, 0, -0.0345), *handle]


def _seen() -> dict[str, list[Mesh]]:
    return {
        "box": [box(0.04, 0.05, 0.08)],
        "slab": [box(0.028, 0.06, 0.09)],
        "cube": [box(0.05, 0.05, 0.05)],
        "tall cylinder": [_cylinder(0.022, 0.09)],
        "short cylinder": [_cylinder(0.031, 0.05)],
        "capsule": [capsule(0.02, 0.09)],
        "ball": [sphere(0.031, 4)],
        "ellipsoid": [superquadric((0.022, 0.03, 0.045), 1.0, 1.0)],
        "pillow": [superquadric((0.02, 0.036, 0.04), 0.4, 0.4)],
        "lozenge": [superquadric((0.03, 0.03, 0.04), 0.5, 1.6)],
        "hexagonal prism": [prism(regular(6, 0.028), 0.07)],
        "beaker": [revolved([[0.022, -0.035], [0.032, 0.035]])],
    }


def _similar() -> dict[str, list[Mesh]]:
    return {
        "long box": [box(0.034, 0.045, 0.1)],
        "thin slab": [box(0.022, 0.05, 0.08)],
        "thin cylinder": [_cylinder(0.017, 0.1)],
        "can": [_cylinder(0.027, 0.065)],
        "stout capsule": [capsule(0.025, 0.075)],
        "egg": [superquadric((0.026, 0.026, 0.038), 1.0, 1.0)],
        "soap": [superquadric((0.018, 0.03, 0.045), 0.7, 0.3)],
        "octagonal prism": [prism(regular(8, 0.025), 0.085)],
    }


def _novel() -> dict[str, list[Mesh]]:
    return {
        "mug": _mug(),
        "ring": _torus(0.036, 0.011),
        "ell": [_at(box(0.03, 0.028, 0.09), -0.02, 0, 0), _at(box(0.07, 0.028, 0.03), 0, 0, -0.03)],
        "tee": [_at(box(0.026, 0.026, 0.07), 0, 0, -0.01), _at(box(0.085, 0.026, 0.026), 0, 0, 0.032)],
        "channel": [
            _at(box(0.018, 0.04, 0.06), -0.028, 0, 0.005),
            _at(box(0.018, 0.04, 0.06), 0.028, 0, 0.005),
            _at(box(0.074, 0.04, 0.018), 0, 0, -0.026),
        ],
        "dumbbell": [
            _at(prism(regular(6, 0.03), 0.034), 0, 0, -0.038),
            _at(prism(regular(6, 0.03), 0.034), 0, 0, 0.038),
            _cylinder(0.011, 0.06),
        ],
        "cone": [revolved([[0.034, -0.035], [0.004, 0.045]])],
        "bottle": [_at(_cylinder(0.026, 0.07), 0, 0, -0.02), _at(_cylinder(0.012, 0.05), 0, 0, 0.035)],
    }


@cache
def catalog() -> dict[int, Solid]:
    """Return the objects by id: seen 0 to 11, similar 12 to 19, novel 20 to 27."""
    groups: tuple[tuple[Family, dict[str, list[Mesh]]], ...] = (
        ("seen", _seen()),
        ("similar", _similar()),
        ("novel", _novel()),
    )
    solids = [Solid(name, family, tuple(parts)) for family, group in groups for name, parts in group.items()]
    return dict(enumerate(solids))


def family_of(split: str) -> Family:
    """Return the family that a split's scenes are made of: training scenes are of seen objects, of course."""
    return "seen" if split == "train" else FAMILIES[FAMILIES.index(split)]


def object_ids(family: Family) -> list[int]:
    """Return the ids of a family."""
    return [object_id for object_id, solid in catalog().items() if solid.family == family]
