"""Triangle meshes: areas, normals, samples, where segments hit them, how far points are from them."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from functools import cached_property
from typing import NamedTuple

import numpy as np
from numpy.typing import ArrayLike
from scipy.sparse import coo_array
from scipy.spatial import cKDTree

from paperlab.rgbd_grasp.geometry.bvh import Bvh
from paperlab.rgbd_grasp.geometry.checks import Bools, Floats, Ints, floats
from paperlab.rgbd_grasp.geometry.intersections import cross_segments, distances_to_triangles, segments_meet_boxes
from paperlab.rgbd_grasp.geometry.rotations import move

_SAMPLES = 20_000
_CREASE_RAD = np.deg2rad(30.0)  # faces that meet at a smaller angle belong to one smooth surface


class Hits(NamedTuple):
    """Where segments first meet a mesh: faces are -1, fractions infinite, and the rest NaN where they do not."""

    fractions: Floats  # (N,) of the segment
    faces: Ints  # (N,)
    points: Floats  # (N, 3)
    normals: Floats  # (N, 3) of the smooth surface, outward


@dataclass(frozen=True, eq=False)
class Mesh:
    """Vertices (V, 3) in meters and faces (F, 3) of vertex indices, counterclockwise seen from outside."""

    vertices: Floats
    faces: Ints

    def __post_init__(self) -> None:
        floats("vertices", self.vertices, None, 3)
        faces = np.asarray(self.faces)
        if faces.ndim != 2 or faces.shape[1:] != (3,) or faces.dtype.kind not in "iu" or not len(faces):
            raise ValueError(f"faces: got {faces.dtype} of shape {faces.shape}, needs integers (F, 3), F at least 1")
        if faces.min() < 0 or faces.max() >= len(self.vertices):
            raise ValueError(f"faces: refer to vertices {faces.min()} to {faces.max()}, there are {len(self.vertices)}")
        object.__setattr__(self, "vertices", np.asarray(self.vertices, dtype=np.float64))
        object.__setattr__(self, "faces", faces.astype(np.int64))

    @cached_property
    def triangles(self) -> Floats:
        """Corners (F, 3, 3)."""
        return self.vertices[self.faces]

    @cached_property
    def _crosses(self) -> Floats:
        a, b, c = self.triangles.swapaxes(0, 1)
        return np.cross(b - a, c - a)

    @cached_property
    def face_areas(self) -> Floats:
        """Areas (F,) in square meters."""
        return np.linalg.norm(self._crosses, axis=1) / 2

    @cached_property
    def face_normals(self) -> Floats:
        """Outward unit normals (F, 3); zero for faces without area."""
        return self._crosses / np.maximum(2 * self.face_areas, 1e-30)[:, None]

    @cached_property
    def _same_vertex(self) -> Ints:
        """Faces (F, 3) in indices that are equal where vertices coincide."""
        _, index = np.unique(self.vertices.round(9), axis=0, return_inverse=True)
        return index[self.faces]

    @cached_property
    def corner_normals(self) -> Floats:
        """Unit normals (F, 3 corners, 3): the mean over the faces around the vertex, by area, across no crease."""
        face_count, vertex = len(self.faces), self._same_vertex.ravel()
        face = np.repeat(np.arange(face_count), 3)
        at = coo_array((np.ones(len(face)), (np.arange(len(face)), vertex)))
        around = coo_array((np.ones(len(face)), (vertex, face)), shape=(at.shape[1], face_count))
        corner, other = (at.tocsr() @ around.tocsr()).nonzero()
        smooth = np.einsum("ij,ij->i", self.face_normals[face[corner]], self.face_normals[other]) > np.cos(_CREASE_RAD)
        corner, other = corner[smooth], other[smooth]
        sums = np.stack([np.bincount(corner, self._crosses[other, i], len(face)) for i in range(3)], axis=-1)
        length = np.linalg.norm(sums, axis=1, keepdims=True)
        return (sums / np.maximum(length, 1e-30)).reshape(-1, 3, 3)

    @property
    def is_watertight(self) -> bool:
        """Whether every edge is shared by two faces that run along it in opposite directions."""
        edges = self._same_vertex[:, [[0, 1], [1, 2], [2, 0]]].reshape(-1, 2)
        forward = edges[np.lexsort(edges.T)]
        backward = edges[:, ::-1][np.lexsort(edges[:, ::-1].T)]
        return np.array_equal(forward, backward) and len(np.unique(edges, axis=0)) == len(edges)

    @property
    def bounds(self) -> Floats:
        """The smallest and the largest coordinates (2, 3)."""
        return np.stack([self.vertices.min(axis=0), self.vertices.max(axis=0)])

    def moved(self, transform: Floats) -> Mesh:
        """Return the mesh moved by a (4, 4) rigid motion."""
        return Mesh(move(self.vertices, transform), self.faces)

    def sample(self, count: int, rng: np.random.Generator) -> tuple[Floats, Floats]:
        """Return points (count, 3) spread evenly over the surface, and the smooth normals (count, 3) there."""
        face = rng.choice(len(self.faces), size=count, p=self.face_areas / self.face_areas.sum())
        a, b = np.sqrt(rng.random(count)), rng.random(count)
        weights = np.stack([1 - a, a * (1 - b), a * b], axis=-1)
        return np.einsum("nk,nki->ni", weights, self.triangles[face]), self._normals(face, weights)

    def _normals(self, face: Ints, weights: Floats) -> Floats:
        normals = np.einsum("nk,nki->ni", weights, self.corner_normals[face])
        return normals / np.linalg.norm(normals, axis=1, keepdims=True)

    @cached_property
    def _bvh(self) -> Bvh:
        return Bvh(self.triangles)

    def first_hits(self, starts: ArrayLike, ends: ArrayLike) -> Hits:
        """Return where the segments from `starts` (N, 3) to `ends` (N, 3) first meet the surface, from either side."""
        start = floats("starts", starts, None, 3)
        step = floats("ends", ends, len(start), 3) - start
        hits = Hits(
            np.full(len(start), np.inf),
            np.full(len(start), -1),
            np.full((len(start), 3), np.nan),
            np.full((len(start), 3), np.nan),
        )
        for query, triangle, fraction, weights in self._crossings(start, step):
            order = np.lexsort((fraction, query))
            first = order[np.unique(query[order], return_index=True)[1]]
            q, face = query[first], self._bvh.faces[triangle[first]]
            hits.fractions[q], hits.faces[q] = fraction[first], face
            hits.points[q] = start[q] + fraction[first, None] * step[q]
            hits.normals[q] = self._normals(face, weights[first])
        return hits

    def _crossings(self, start: Floats, step: Floats) -> Iterator[tuple[Ints, Ints, Floats, Floats]]:
        for query, triangle in self._bvh.candidates(len(start), segments_meet_boxes(start, step)):
            fraction, weights = cross_segments(start[query], step[query], self._bvh.triangles[triangle])
            hit = np.isfinite(fraction)
            yield query[hit], triangle[hit], fraction[hit], weights[hit]

    def inside_grid(self, xs: Floats, ys: Floats, zs: Floats) -> Bools:
        """Return which nodes (X, Y, Z) of a grid with these coordinates lie inside; for watertight meshes.

        One ray runs along x through every (y, z) and counts crossings. Rays are moved aside by 1/10000 of a cell, or
        they would run along the edges of shapes that were made to fit the grid.
        """
        aside = 1e-4 * np.array([0.59 * (ys[1] - ys[0]), 0.83 * (zs[1] - zs[0])])
        start = np.stack(np.meshgrid(xs[:1] - 1.0, ys + aside[0], zs + aside[1], indexing="ij"), axis=-1).reshape(-1, 3)
        length = xs[-1] - xs[0] + 2.0
        step = np.broadcast_to([length, 0.0, 0.0], start.shape)
        crossed = np.zeros((len(start), len(xs) + 1), dtype=int)
        for query, _, fraction, _ in self._crossings(start, step):
            np.add.at(crossed, (query, np.searchsorted(xs, start[query, 0] + fraction * length)), 1)
        inside = crossed.cumsum(axis=1)[:, :-1] % 2 == 1
        return inside.reshape(len(ys), len(zs), len(xs)).transpose(2, 0, 1)

    def distances(self, points: ArrayLike, within_m: float = np.inf) -> Floats:
        """Return the distances (N,) in meters of points (N, 3) from the surface, without sign.

        Infinite for points farther than `within_m` from all of 20,000 samples of the surface.
        """
        p = floats("points", points, None, 3)
        samples, _ = self.sample(_SAMPLES, np.random.default_rng(0))
        tree = cKDTree(np.concatenate([self.vertices, samples]), leafsize=32)
        distances, _ = tree.query(p, distance_upper_bound=within_m)
        near = np.flatnonzero(np.isfinite(distances))
        p, squared = p[near], distances[near] ** 2
        bound = squared * (1 + 1e-9)

        def in_box(query: Ints, low: Floats, high: Floats) -> Bools:
            gap = np.maximum(np.maximum(low - p[query], p[query] - high), 0.0)
            return np.einsum("ij,ij->i", gap, gap) <= bound[query]

        corners = self._bvh.triangles
        lows, highs = corners.min(axis=1), corners.max(axis=1)
        for query, triangle in self._bvh.candidates(len(p), in_box):
            keep = in_box(query, lows[triangle], highs[triangle])  # a leaf's box holds four triangles
            query, triangle = query[keep], triangle[keep]
            # Every query has a candidate, and its candidates are together: the samples lie on the surface.
            found, first = np.unique(query, return_index=True)
            best = np.minimum.reduceat(distances_to_triangles(p[query], self._bvh.triangles[triangle]), first)
            squared[found] = np.minimum(squared[found], best)
        distances[near] = np.sqrt(squared)
        return distances
