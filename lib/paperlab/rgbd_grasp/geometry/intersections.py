"""Segments, boxes, points and triangles, pair by pair."""

from __future__ import annotations

import numpy as np

from paperlab.rgbd_grasp.geometry.bvh import BoxTest
from paperlab.rgbd_grasp.geometry.checks import Bools, Floats, Ints

_BLOCK = 8192  # pairs at a time, so that what is computed for them stays in the processor's cache
_EDGE = 1e-9  # how far outside a triangle, as a fraction of it, a segment still hits it: none slips between two


def segments_meet_boxes(start: Floats, step: Floats) -> BoxTest:
    """Return the test whether segments start + [0, 1]·step meet boxes."""
    inverse = 1.0 / np.where(step == 0.0, 1e-30, step)

    def test(query: Ints, low: Floats, high: Floats) -> Bools:
        a = (low - start[query]) * inverse[query]
        b = (high - start[query]) * inverse[query]
        enter, leave = np.minimum(a, b).max(axis=1), np.maximum(a, b).min(axis=1)
        return np.maximum(enter, 0.0) <= np.minimum(leave, 1.0) + _EDGE

    return test


def cross_segments(start: Floats, step: Floats, triangles: Floats) -> tuple[Floats, Floats]:
    """Return the fraction (P,) of each segment at which it crosses its triangle, infinite where it does not.

    Shapes: start, step (P, 3), triangles (P, 3, 3). The second result, (P, 3), weights the triangle's corners.
    """
    a, b, c = triangles.swapaxes(0, 1)
    edge_b, edge_c, from_a = b - a, c - a, start - a
    p = np.cross(step, edge_c)
    determinant = np.einsum("ij,ij->i", edge_b, p)
    scale = 1.0 / np.where(determinant == 0.0, np.inf, determinant)
    q = np.cross(from_a, edge_b)
    u = np.einsum("ij,ij->i", from_a, p) * scale
    v = np.einsum("ij,ij->i", step, q) * scale
    fraction = np.einsum("ij,ij->i", edge_c, q) * scale
    hit = (determinant != 0.0) & (u >= -_EDGE) & (v >= -_EDGE) & (u + v <= 1 + _EDGE)
    hit &= (fraction >= 0.0) & (fraction <= 1.0)
    return np.where(hit, fraction, np.inf), np.stack([1 - u - v, u, v], axis=-1)


def distances_to_triangles(points: Floats, triangles: Floats) -> Floats:
    """Return the squared distance (P,) of each point (P, 3) from its triangle (P, 3, 3)."""
    squared = np.empty(len(points))
    for start in range(0, len(points), _BLOCK):
        part = slice(start, start + _BLOCK)
        squared[part] = _distances(points[part].T, triangles[part].transpose(1, 2, 0))
    return squared


def _distances(point: Floats, corners: Floats) -> Floats:
    """Return squared distances (P,) of points (3, P) from triangles (3 corners, 3, P)."""
    squared = np.full(point.shape[1], np.inf)
    first = corners[0].copy()
    normal = _cross(corners[1] - first, corners[2] - first)
    area = _dot(normal, normal)
    above = area > 0.0  # whether the foot of the perpendicular lies inside: on the inner side of all edges
    for i in range(3):
        edge, offset = corners[(i + 1) % 3] - corners[i], point - corners[i]
        length = _dot(edge, edge)
        along = _dot(offset, edge) / np.where(length == 0.0, 1.0, length)
        gap = offset - np.clip(along, 0.0, 1.0) * edge
        squared = np.minimum(squared, _dot(gap, gap))
        above &= _dot(_cross(edge, offset), normal) >= 0.0
    height = _dot(point - first, normal) ** 2 / np.where(area == 0.0, 1.0, area)
    return np.where(above, height, squared)


def _dot(a: Floats, b: Floats) -> Floats:
    """Return the products (P,) of vectors (3, P)."""
    return a[0] * b[0] + a[1] * b[1] + a[2] * b[2]


def _cross(a: Floats, b: Floats) -> Floats:
    """Return the vectors (3, P) at right angles to `a` and `b` (3, P); numpy's own takes three times as long."""
    return np.stack([a[i - 2] * b[i - 1] - a[i - 1] * b[i - 2] for i in range(3)])
