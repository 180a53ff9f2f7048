"""Meshes of simple solids, centered on the origin, watertight, in meters."""

from __future__ import annotations

import numpy as np

from paperlab.rgbd_grasp.geometry.mesh import Mesh


def box(x_m: float, y_m: float, z_m: float) -> Mesh:
    """Return a box with the given sides."""
    corners = np.array([[i & 1, i >> 1 & 1, i >> 2 & 1] for i in range(8)]) - 0.5
    quads = [(0, 2, 3, 1), (4, 5, 7, 6), (0, 1, 5, 4), (2, 6, 7, 3), (0, 4, 6, 2), (1, 3, 7, 5)]
    faces = [triangle for a, b, c, d in quads for triangle in ((a, b, c), (a, c, d))]
    return Mesh(corners * (x_m, y_m, z_m), np.array(faces))


def cylinder(radius_m: float, height_m: float, segments: int = 64) -> Mesh:
    """Return a cylinder about the z axis."""
    turn = 2 * np.pi * np.arange(segments) / segments
    ring = np.stack([np.cos(turn) * radius_m, np.sin(turn) * radius_m, np.zeros(segments)], axis=-1)
    up = np.array([0, 0, height_m / 2])
    vertices = np.concatenate([ring - up, ring + up, [-up, up]])
    low, below, above = np.arange(segments), 2 * segments, 2 * segments + 1
    following = (low + 1) % segments
    high, high_following = low + segments, following + segments
    faces = np.concatenate([
        np.stack([low, following, high_following], axis=-1),
        np.stack([low, high_following, high], axis=-1),
        np.stack([following, low, np.full(segments, below)], axis=-1),
        np.stack([high, high_following, np.full(segments, above)], axis=-1),
    ])  # fmt: skip
    return Mesh(vertices, faces)


def sphere(radius_m: float, subdivisions: int = 4) -> Mesh:
    """Return an icosahedron whose faces are halved `subdivisions` times and moved onto the sphere."""
    golden = (1 + np.sqrt(5)) / 2
    signs = [(s, t * golden) for s in (-1.0, 1.0) for t in (-1.0, 1.0)]
    vertices = np.array([np.roll((0.0, s, t), k) for k in range(3) for s, t in signs])
    edge = np.linalg.norm(vertices[:, None] - vertices, axis=-1) < 2.1
    faces = [
        (a, b, c) for a in range(12) for b in range(a) for c in range(b) if edge[a, b] and edge[b, c] and edge[a, c]
    ]
    corners = vertices[np.array(faces)]
    inward = np.einsum(
        "ij,ij->i", np.cross(corners[:, 1] - corners[:, 0], corners[:, 2] - corners[:, 0]), corners[:, 0]
    )
    corners[inward < 0] = corners[inward < 0][:, ::-1]
    for _ in range(subdivisions):
        a, b, c = corners.swapaxes(0, 1)
        ab, bc, ca = (a + b) / 2, (b + c) / 2, (c + a) / 2
        corners = np.concatenate([np.stack(t, axis=1) for t in ((a, ab, ca), (ab, b, bc), (ca, bc, c), (ab, bc, ca))])
    points = corners.reshape(-1, 3)
    points = (points / np.linalg.norm(points, axis=1, keepdims=True)).round(12)
    unique, faces_ = np.unique(points, axis=0, return_inverse=True)
    return Mesh(unique * radius_m, faces_.reshape(-1, 3))
