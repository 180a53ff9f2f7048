"""Where closing jaws touch an object: marched through signed distances, or exact on the mesh."""

from __future__ import annotations

from typing import NamedTuple

import numpy as np
from numpy.typing import ArrayLike

from paperlab.rgbd_grasp.geometry.checks import Bools, Floats, floats
from paperlab.rgbd_grasp.geometry.mesh import Mesh
from paperlab.rgbd_grasp.geometry.sdf import SdfGrid

_PATCH = 1.5  # radius in cells of the sphere on which the surface around a contact is sampled
_REACH = 1.0  # cells beyond which a zero crossing is not believed
_OFFSETS = np.stack(np.meshgrid(*[(-1.0, 0.0, 1.0)] * 3, indexing="ij"), axis=-1).reshape(-1, 3)
_OFFSETS = _PATCH * _OFFSETS / np.maximum(np.linalg.norm(_OFFSETS, axis=1, keepdims=True), 1.0)


class Contacts(NamedTuple):
    """Contacts of N grasps, the jaw that moves along +axis first; NaN where a jaw finds none."""

    points: Floats  # (N, 2, 3) in the object's frame, meters
    normals: Floats  # (N, 2, 3) unit, facing the jaw

    @property
    def found(self) -> Bools:
        """Which grasps (N,) touch with both jaws."""
        both = np.concatenate([self.points, self.normals], axis=2)
        return np.asarray(np.isfinite(both).all(axis=(1, 2)))


def _jaws(centers: ArrayLike, axes: ArrayLike, widths: ArrayLike) -> tuple[Floats, Floats, Floats]:
    """Return where the jaws start (N, 2, 3), which way they move (N, 2, 3), and how far (N,) to meet at the center."""
    center = floats("centers", centers, None, 3)
    axis = floats("axes", axes, len(center), 3)
    half = floats("widths", widths, len(center)) / 2
    toward = np.stack([axis, -axis], axis=1) / np.linalg.norm(axis, axis=1)[:, None, None]
    return center[:, None] - half[:, None, None] * toward, toward, half


def mesh_contacts(mesh: Mesh, centers: ArrayLike, axes: ArrayLike, widths: ArrayLike) -> Contacts:
    """Return exact contacts of grasps that close along `axes` (N, 3) from `widths` (N,) on `centers` (N, 3).

    Each jaw runs from half a width out to the center; the normal is that of the smooth surface.
    """
    start, toward, half = _jaws(centers, axes, widths)
    ends = start + half[:, None, None] * toward
    hits = mesh.first_hits(start.reshape(-1, 3), ends.reshape(-1, 3))
    return Contacts(hits.points.reshape(-1, 2, 3), _facing(hits.normals.reshape(-1, 2, 3), toward))


def _facing(normals: Floats, toward: Floats) -> Floats:
    along = np.einsum("nji,nji->nj", normals, toward)
    return np.where((along > 0)[..., None], -normals, normals)


def sdf_contacts(sdf: SdfGrid, centers: ArrayLike, axes: ArrayLike, widths: ArrayLike) -> Contacts:
    """Return the contacts that the reference evaluator finds; arguments as in `mesh_contacts`.

    A jaw takes about two samples per cell and stops at the first that is on the surface (to half a cell's diagonal)
    and no farther from it than the next; a parabola through three samples gives the zero crossing. The normal is that
    of a plane through the points on a sphere of 1.5 cells around the contact that are on the surface as well.
    """
    start, toward, half = _jaws(centers, axes, widths)
    steps = np.maximum((2 * half / sdf.cell_m).astype(int), 3)
    cells = _zero_crossings(sdf, sdf.to_cells(start), toward, half / sdf.cell_m, steps)
    flat = cells.reshape(-1, 3)
    normals = np.full(flat.shape, np.nan)
    seen = np.flatnonzero(np.isfinite(flat).all(axis=1))
    normals[seen] = _patch_normals(sdf, flat[seen])
    return Contacts(sdf.origin + sdf.cell_m * cells, _facing(normals.reshape(cells.shape), toward))


def _zero_crossings(sdf: SdfGrid, start: Floats, toward: Floats, half: Floats, steps: np.ndarray) -> Floats:
    """Return the positions (N, 2, 3) in cells at which the jaws first touch, NaN where they do not."""
    contacts = np.full(start.shape, np.nan)
    if not len(start) or not half.max():
        return contacts
    sample = np.arange(steps.max())
    last = (steps - 1)[:, None, None]
    at = np.minimum(sample, last) * (half / (steps - 1))[:, None, None]  # (N, 1, S) cells from the start
    points = start[:, :, None] + at[..., None] * toward[:, :, None]
    distance = sdf.at_cells(points)
    on_surface = (np.abs(distance) < sdf.surface_m) & (sample <= last)
    grasp, jaw, i = np.nonzero(on_surface)
    spacing = (half / (steps - 1))[grasp]
    end = steps[grasp] - 1
    first = np.clip(i - 1, 0, end - 2)  # of three samples around i
    y = [distance[grasp, jaw, first + k] for k in range(3)]
    root = _parabola_root(spacing, *y)
    following = np.abs(distance[grasp, jaw, np.minimum(i + 1, end)])
    good = np.isfinite(root) & ((i == end) | (following >= np.abs(distance[grasp, jaw, i])))
    grasp, jaw, first, root = grasp[good], jaw[good], first[good], root[good]
    _, order = np.unique(2 * grasp + jaw, return_index=True)  # samples come in order: the first one of each jaw
    grasp, jaw, first, root = grasp[order], jaw[order], first[order], root[order]
    contacts[grasp, jaw] = points[grasp, jaw, first] + root[:, None] * toward[grasp, jaw]
    return contacts


def _parabola_root(spacing: Floats, y0: Floats, y1: Floats, y2: Floats) -> Floats:
    """Return where the parabola through (0, y0), (spacing, y1), (2·spacing, y2) is zero, at least 0 and the smallest.

    Without such a root it is where the parabola turns; NaN farther than one cell away.
    """
    square = (y2 - 2 * y1 + y0) / (2 * spacing**2)
    slope = (4 * y1 - 3 * y0 - y2) / (2 * spacing)
    discriminant = slope**2 - 4 * square * y0
    # In this form of the solution the second root stays right where the parabola is nearly straight.
    q = -(slope + np.copysign(np.sqrt(np.maximum(discriminant, 0.0)), slope)) / 2
    with np.errstate(divide="ignore", invalid="ignore"):
        roots, turn = np.stack([q / square, y0 / q]), -slope / (2 * square)
    allowed = (roots >= 0) & (roots <= 10) & (discriminant >= 0)
    nearest = np.where(allowed, roots, np.inf).min(axis=0)
    root = np.where(np.isfinite(nearest), nearest, turn)
    return np.where(np.abs(root) <= _REACH, root, np.nan)


def _patch_normals(sdf: SdfGrid, cells: Floats) -> Floats:
    """Return unit normals (M, 3) at positions (M, 3) in cells, NaN where these are not on the surface."""
    around = cells[:, None] + _OFFSETS
    weight = (np.abs(sdf.at_cells(around)) < sdf.surface_m).astype(float)
    here = sdf.at_cells(cells)
    count = np.maximum(weight.sum(axis=1), 1.0)
    mean = np.einsum("mk,mki->mi", weight, around) / count[:, None]
    spread = (around - mean[:, None]) * weight[..., None]
    _, vectors = np.linalg.eigh(np.einsum("mki,mkj->mij", spread, spread))
    normals = vectors[:, :, 0]
    inward = sdf.at_cells(cells + 0.01 * normals) < here
    normals = np.where(inward[:, None], -normals, normals)
    return np.where((np.abs(here) < sdf.surface_m)[:, None], normals, np.nan)
