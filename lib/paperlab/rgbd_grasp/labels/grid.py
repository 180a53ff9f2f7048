"""Exhaustive labels of one object in GraspNet-1Billion's format: every point, view, angle and depth."""

from __future__ import annotations

import io
from collections.abc import Callable
from dataclasses import dataclass
from os import PathLike
from pathlib import Path

import numpy as np

from paperlab.lab.files import write_atomic
from paperlab.rgbd_grasp.geometry.anchors import Anchors, label_anchors
from paperlab.rgbd_grasp.geometry.checks import Bools, Floats, floats
from paperlab.rgbd_grasp.geometry.grasp import HEIGHT_M, GraspGroup
from paperlab.rgbd_grasp.geometry.gripper import BASE_M, FEWEST_INSIDE, FINGER_M, MAX_WIDTH_M
from paperlab.rgbd_grasp.geometry.mesh import Mesh
from paperlab.rgbd_grasp.geometry.rotations import view_rotations
from paperlab.rgbd_grasp.labels.contacts import mesh_contacts
from paperlab.rgbd_grasp.labels.force_closure import LABELED_FRICTIONS, NO_CLOSURE, smallest_friction

DEPTHS_M = (0.01, 0.02, 0.03, 0.04)
CLEARANCE_M = 0.005  # between a finger and what it is about to touch
_BIN_M = 0.0025  # in which openings are tried
_BINS = round((MAX_WIDTH_M / 2 + FINGER_M) / _BIN_M)  # as far out as a finger can be
_FREE = round((CLEARANCE_M + FINGER_M) / _BIN_M)  # bins that a finger and its clearance take


@dataclass(frozen=True, eq=False)
class ObjectLabels:
    """Labels of P points by V views, A angles and D depths, in the object's frame.

    `offsets` (P, V, A, D, 3) hold angle, depth and width; `scores` (P, V, A, D) the smallest friction coefficient in
    force closure, -1 for none; `collision` whether no opening lets the gripper in.
    """

    points: Floats
    offsets: Floats
    collision: Bools
    scores: Floats

    def __post_init__(self) -> None:
        points = floats("points", self.points, None, 3)
        grid = floats("offsets", self.offsets, len(points), None, None, None, 3).shape[:-1]
        for name in ("collision", "scores"):
            if getattr(self, name).shape != grid:
                raise ValueError(f"{name}: got shape {getattr(self, name).shape}, needs {grid}, as offsets have")

    def save(self, path: Path) -> Path:
        """Write the labels as the data set's `NNN_labels.npz`."""
        buffer = io.BytesIO()
        np.savez_compressed(
            buffer, points=self.points, offsets=self.offsets, collision=self.collision, scores=self.scores
        )
        return write_atomic(path, buffer.getvalue())

    @classmethod
    def load(cls, path: str | PathLike[str]) -> ObjectLabels:
        """Read a `NNN_labels.npz`; raises ValueError, naming the file, where it is not one."""
        try:
            with np.load(path, allow_pickle=False) as file:
                return cls(*(file[key] for key in ("points", "offsets", "collision", "scores")))
        except (KeyError, ValueError, OSError) as error:
            raise ValueError(f"{path}: {error}; needs points, offsets, collision and scores") from None

    def grasps(self, views: Floats, max_friction: float, keep: Bools | None = None) -> GraspGroup:
        """Return the labels that hold at `max_friction` without collision as grasps that score 1.1 - friction.

        `views` (V, 3) are those of the labels; `keep` (P, V, A, D) thins them out, by scene collisions for instance.
        """
        good = (self.scores > 0) & (self.scores <= max_friction) & ~self.collision
        point, view, *_ = index = np.nonzero(good if keep is None else good & keep)
        angle, depth, width = self.offsets[index].astype(np.float64).T
        rotations = view_rotations(-views[view], angle)
        scores = 1.1 - self.scores[index]
        return GraspGroup.from_parts(rotations, self.points[point], scores=scores, widths=width, depths=depth)


def openings(cloud: Floats, points: Floats, rotations: Floats, depths_m: tuple[float, ...] = DEPTHS_M) -> Floats:
    """Return the smallest opening (P, R, D) with which the gripper fits around the object, NaN where none does.

    For every point, rotation and depth: the fingers and 5 mm beside them on the inside must be free of `cloud`
    (N, 3), as must the palm, and 10 points must lie in between. The cloud should be as dense as the evaluator's.
    Openings are tried in steps of 5 mm up to 10 cm.
    """
    return np.stack([_openings_at(cloud - point, rotations, depths_m) for point in points])


def _openings_at(cloud: Floats, rotations: Floats, depths_m: tuple[float, ...]) -> Floats:
    reach = np.sqrt(max(depths_m[-1], BASE_M + FINGER_M) ** 2 + (_BINS * _BIN_M) ** 2 + (HEIGHT_M / 2) ** 2)
    near = cloud[np.linalg.norm(cloud, axis=1) < reach].astype(np.float32)
    x, y, z = np.einsum("ni,rij->jrn", near, rotations.astype(np.float32), optimize=True)
    # One count per slab along the approach: the palm's, then up to the first depth, to the second, and so on.
    edges = np.array([-(BASE_M + FINGER_M), -BASE_M, *depths_m], dtype=np.float32)
    slab = np.searchsorted(edges, x.ravel(), side="right").reshape(x.shape) - 1
    side = (np.abs(y) / np.float32(_BIN_M)).astype(np.int32)
    used = (np.abs(z) < HEIGHT_M / 2) & (slab >= 0) & (slab < len(edges) - 1) & (side < _BINS)
    rotation = np.broadcast_to(np.arange(len(rotations))[:, None], x.shape)
    shape = (len(rotations), len(edges) - 1, _BINS)
    index = np.ravel_multi_index((rotation[used], slab[used], side[used]), shape)
    within = np.bincount(index, minlength=int(np.prod(shape))).reshape(shape).cumsum(axis=2)
    palm, fingers = within[:, :1], within[:, 1:].cumsum(axis=1)
    # Opening k holds k bins on each side and then the clearance.
    half = np.arange(1, _BINS - _FREE + 1)
    inside = fingers[..., half - 1]
    beside = fingers[..., half - 1 + _FREE] - inside
    fits = (inside >= FEWEST_INSIDE) & (beside == 0) & (palm[..., half - 1 + _FREE] == 0)
    width = 2 * (half * _BIN_M + CLEARANCE_M)
    return np.where(fits.any(axis=-1), width[fits.argmax(axis=-1)], np.nan)


def label_object(
    mesh: Mesh,
    cloud: Floats,
    points: Floats,
    anchors: Anchors | None = None,
    *,
    depths_m: tuple[float, ...] = DEPTHS_M,
    frictions: tuple[float, ...] = LABELED_FRICTIONS,
    progress: Callable[[int, int], None] = lambda done, total: None,
) -> ObjectLabels:
    """Return the labels of `points` (P, 3) on an object, over all orientations and depths.

    `cloud` (N, 3) are the points on the surface with which the gripper may collide; contacts are exact on `mesh`.
    `progress` is called with the number of points done and of all.
    """
    anchors = anchors or label_anchors()
    grid = (len(anchors.views), anchors.angle_count, len(depths_m))
    widths = np.empty((len(points), *grid), dtype=np.float32)
    scores = np.empty_like(widths)
    for i, point in enumerate(points):
        opening = openings(cloud, point[None], anchors.rotations, depths_m)[0]
        widths[i], scores[i] = np.nan_to_num(opening).reshape(grid), NO_CLOSURE
        rotation, depth = np.nonzero(np.isfinite(opening))
        turns = anchors.rotations[rotation]
        centers = point + np.array(depths_m)[depth, None] * turns[:, :, 0]
        found = mesh_contacts(mesh, centers, turns[:, :, 1], opening[rotation, depth])
        scores[i].reshape(-1, len(depths_m))[rotation, depth] = smallest_friction(found, frictions)
        progress(i + 1, len(points))
    offsets = np.empty((*widths.shape, 3), dtype=np.float32)
    offsets[..., 0] = anchors.angles[:, None]
    offsets[..., 1] = depths_m
    offsets[..., 2] = widths
    return ObjectLabels(points.astype(np.float32), offsets, widths == 0, scores)


def spread_points(mesh: Mesh, count: int, seed: int = 0) -> Floats:
    """Return `count` points (count, 3) on the surface, each new one as far from the others as can be."""
    candidates, _ = mesh.sample(max(4096, 8 * count), np.random.default_rng(seed))
    chosen = [0]
    distance = np.full(len(candidates), np.inf)
    for _ in range(count - 1):
        distance = np.minimum(distance, np.linalg.norm(candidates - candidates[chosen[-1]], axis=1))
        chosen.append(int(distance.argmax()))
    return candidates[chosen]
