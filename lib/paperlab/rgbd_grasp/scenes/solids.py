"""Solids as unions of convex parts: what physics collides with, and one watertight mesh for everything else."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Literal

import numpy as np
from numpy.typing import ArrayLike
from scipy.ndimage import maximum_filter, minimum_filter
from scipy.spatial import ConvexHull, QhullError

from paperlab.rgbd_grasp.geometry.checks import Bools, Floats, Ints, floats, one_of
from paperlab.rgbd_grasp.geometry.mesh import Mesh

Family = Literal["seen", "similar", "novel"]
FAMILIES: tuple[Family, ...] = ("seen", "similar", "novel")
CELL_M = 0.002  # of the grid on which unions are meshed: edges are blunt by less than this
_TRIES = 8


@dataclass(frozen=True, eq=False)
class Solid:
    """An object of the generator: convex `parts`, which may overlap, in meters in the object's frame."""

    name: str
    family: Family
    parts: tuple[Mesh, ...]

    def __post_init__(self) -> None:
        one_of("family", self.family, FAMILIES)
        if not self.parts:
            raise ValueError(f"{self.name}: has no parts, needs at least one")

    @cached_property
    def mesh(self) -> Mesh:
        """The surface of the union: the part itself where there is one, else a mesh on a grid of 2 mm."""
        return self.parts[0] if len(self.parts) == 1 else union_mesh(self.parts)


def hull(points: ArrayLike) -> Mesh:
    """Return the convex hull of points (N, 3) as a watertight mesh; raises ValueError where they enclose nothing."""
    cloud = floats("points", points, None, 3)
    try:
        found = ConvexHull(cloud)
    except (QhullError, ValueError) as error:
        raise ValueError(f"points: have no hull; needs four that are not in a plane: {str(error)[:60]}") from None
    used, faces = np.unique(found.simplices, return_inverse=True)
    faces = faces.reshape(-1, 3)
    a, b, c = cloud[used][faces].swapaxes(0, 1)
    inward = np.einsum("ij,ij->i", np.cross(b - a, c - a), found.equations[:, :3]) < 0
    faces[inward] = faces[inward][:, ::-1]
    return Mesh(cloud[used], faces)


def revolved(profile: ArrayLike, segments: int = 64) -> Mesh:
    """Return the hull of a profile (N, 2) of radii and heights turned about z: cylinders, cones, frustums, capsules."""
    radius, height = floats("profile", profile, None, 2).T
    turn = 2 * np.pi * np.arange(segments) / segments
    rings = [radius[:, None] * np.cos(turn), radius[:, None] * np.sin(turn), np.repeat(height[:, None], segments, 1)]
    return hull(np.unique(np.stack(rings, axis=-1).reshape(-1, 3).round(12), axis=0))


def capsule(radius_m: float, length_m: float) -> Mesh:
    """Return a cylinder with round ends about z, `length_m` long in all."""
    up = np.linspace(0, np.pi / 2, 13)
    cap = np.stack([radius_m * np.cos(up), length_m / 2 - radius_m + radius_m * np.sin(up)], axis=-1)
    return revolved(np.concatenate([cap, cap * (1, -1)]), 48)


def superquadric(half_axes_m: Sequence[float], e1: float, e2: float, count: int = 40) -> Mesh:
    """Return a superquadric with exponents `e1` along z and `e2` around it, above 0 to 2; 1, 1 is an ellipsoid.

    `count` points along a meridian, twice as many around.
    """
    if not (0 < e1 <= 2 and 0 < e2 <= 2):
        raise ValueError(f"superquadric: got exponents {e1}, {e2}, needs above 0 and at most 2 to be convex")
    up, around = np.meshgrid(
        np.linspace(-np.pi / 2, np.pi / 2, count), np.linspace(-np.pi, np.pi, 2 * count, endpoint=False), indexing="ij"
    )

    def power(value: Floats, exponent: float) -> Floats:
        return np.sign(value) * np.abs(value) ** exponent

    ring = power(np.cos(up), e1)
    shape = [ring * power(np.cos(around), e2), ring * power(np.sin(around), e2), power(np.sin(up), e1)]
    points = np.stack(shape, axis=-1).reshape(-1, 3) * half_axes_m
    return hull(np.unique(points.round(9), axis=0))


def prism(corners: ArrayLike, height_m: float) -> Mesh:
    """Return the upright prism over a convex polygon with corners (N, 2)."""
    flat = floats("corners", corners, None, 2)
    return hull([[x, y, z] for z in (-height_m / 2, height_m / 2) for x, y in flat])


def regular(sides: int, radius_m: float) -> Floats:
    """Return the corners (sides, 2) of a regular polygon."""
    turn = 2 * np.pi * (np.arange(sides) + 0.5) / sides
    return radius_m * np.stack([np.cos(turn), np.sin(turn)], axis=-1)


def _depth(points: Floats, parts: Sequence[Mesh], margin_m: float) -> tuple[Floats, Floats]:
    """Return how far points (N, 3) are outside the union of convex parts, negative inside, and along which normal.

    A part tells nothing of points farther than `margin_m` from its bounding box: for these it is infinite.
    """
    best = np.full(len(points), np.inf)
    direction = np.zeros((len(points), 3))
    for part in parts:
        low, high = part.bounds
        near = np.flatnonzero(((points > low - margin_m) & (points < high + margin_m)).all(axis=1))
        solid = part.face_areas > 1e-12
        normals, offsets = part.face_normals[solid], np.einsum("ij,ij->i", part.face_normals, part.triangles[:, 0])
        above = points[near] @ normals.T - offsets[solid]
        face = above.argmax(axis=1)
        value = above[np.arange(len(near)), face]
        nearer = value < best[near]
        best[near[nearer]], direction[near[nearer]] = value[nearer], normals[face[nearer]]
    return best, direction


def union_mesh(parts: Sequence[Mesh], cell_m: float = CELL_M) -> Mesh:
    """Return a watertight mesh of the union of convex parts, with their sharp edges.

    Dual contouring (Ju et al. 2002): one vertex in each cell of a grid that the surface passes, where the planes that
    cross the cell's edges meet; one quadrilateral across each edge that is crossed. Parts must overlap where they
    join. Raises ValueError where a wall is thinner than the grid can tell.
    """
    low = np.min([part.bounds[0] for part in parts], axis=0) - 2 * cell_m
    high = np.max([part.bounds[1] for part in parts], axis=0) + 2 * cell_m
    for attempt in range(_TRIES):
        # Nodes must not lie on faces, and now and then two sheets meet in one vertex: then the grid moves a little.
        origin = low - cell_m * (np.array([0.31, 0.17, 0.43]) + 0.11 * attempt)
        counts = ((high - origin) / cell_m).astype(int) + 2
        nodes = origin + cell_m * np.stack(np.meshgrid(*map(np.arange, counts), indexing="ij"), axis=-1)
        inside = (_depth(nodes.reshape(-1, 3), parts, 0.0)[0] < 0).reshape(nodes.shape[:3])
        mesh = _contoured(nodes, inside, parts, cell_m)
        if mesh.is_watertight:
            return mesh
    raise ValueError(f"parts: their union is pinched at {cell_m} m; needs walls of 3 cells, or a smaller cell_m")


def _contoured(nodes: Floats, inside: Bools, parts: Sequence[Mesh], cell_m: float) -> Mesh:
    mixed = minimum_filter(inside, 2) != maximum_filter(inside, 2)  # a node and the seven before it
    mixed = mixed[1:, 1:, 1:]
    index = np.full(mixed.shape, -1)
    index[mixed] = np.arange(mixed.sum())
    quads, points, normals = [], [], []
    for axis in range(3):
        step, u, v = np.roll(np.eye(3, dtype=int), -axis, axis=0)
        first = np.take(inside, range(inside.shape[axis] - 1), axis)
        at = np.argwhere(first != np.take(inside, range(1, inside.shape[axis]), axis))
        outward = first[tuple(at.T)]
        around = np.stack([index[tuple((at - back).T)] for back in (u + v, v, 0 * u, u)], axis=-1)
        quads.append(np.where(outward[:, None], around, around[:, ::-1]))
        start, end = nodes[tuple(at.T)], nodes[tuple((at + step).T)]
        point, normal = _crossing(np.where(outward[:, None], start, end), np.where(outward[:, None], end, start), parts)
        points.append(np.repeat(point, 4, axis=0))
        normals.append(np.repeat(normal, 4, axis=0))
    faces = np.concatenate(quads)
    middles = nodes[:-1, :-1, :-1][mixed] + cell_m / 2
    vertices = _where_planes_meet(faces.ravel(), np.concatenate(points), np.concatenate(normals), middles, cell_m)
    return Mesh(vertices, np.concatenate([faces[:, [0, 1, 2]], faces[:, [0, 2, 3]]]))


def _crossing(inner: Floats, outer: Floats, parts: Sequence[Mesh]) -> tuple[Floats, Floats]:
    """Return where edges (E, 3) from inside to outside cross the surface, and its normal there."""
    margin = float(np.abs(outer - inner).max(initial=0.0))
    low, high = np.zeros(len(inner)), np.ones(len(inner))
    for _ in range(12):
        middle = (low + high) / 2
        out = _depth(inner + middle[:, None] * (outer - inner), parts, margin)[0] >= 0
        low, high = np.where(out, low, middle), np.where(out, middle, high)
    point = inner + high[:, None] * (outer - inner)
    return point, _depth(point, parts, margin)[1]


def _where_planes_meet(cell: Ints, points: Floats, normals: Floats, middles: Floats, cell_m: float) -> Floats:
    """Return per cell the point (V, 3) nearest to all its planes, and, where they leave it free, to their middle."""
    count = len(middles)
    number = np.maximum(np.bincount(cell, minlength=count), 1)[:, None]
    center = np.stack([np.bincount(cell, points[:, i], count) for i in range(3)], axis=-1) / number
    offset = np.einsum("ni,ni->n", normals, points - center[cell])
    square = np.zeros((count, 3, 3))
    right = np.zeros((count, 3))
    np.add.at(square, cell, normals[:, :, None] * normals[:, None])
    np.add.at(right, cell, normals * offset[:, None])
    moved = center + np.linalg.solve(square + 0.02 * np.eye(3), right[..., None])[..., 0]
    return np.clip(moved, middles - 0.5 * cell_m, middles + 0.5 * cell_m)
