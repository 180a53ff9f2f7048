"""Signed distances on a grid: negative inside, in meters, trilinear between the nodes."""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property
from pathlib import Path

import numpy as np
from numpy.typing import ArrayLike
from scipy.ndimage import distance_transform_edt, map_coordinates

from paperlab.lab.files import write_atomic
from paperlab.rgbd_grasp.geometry.checks import Floats, floats
from paperlab.rgbd_grasp.geometry.mesh import Mesh

_BAND = 4  # cells on either side of the surface where distances are exact; nothing looks farther
_PADDING = 5  # cells around the object, as in GraspNet-1Billion's files


@dataclass(frozen=True, eq=False)
class SdfGrid:
    """Signed distances (X, Y, Z) in meters; node (0, 0, 0) is at `origin`, nodes are `cell_m` apart."""

    values: Floats
    origin: Floats
    cell_m: float

    def __post_init__(self) -> None:
        values = floats("values", self.values, None, None, None)
        floats("origin", self.origin, 3)
        if min(values.shape) < 2 or not self.cell_m > 0:
            raise ValueError(f"SdfGrid: got {values.shape} nodes {self.cell_m} m apart, needs 2 a side and a distance")
        if values.min() >= 0 or values.max() <= 0:
            raise ValueError("SdfGrid: all values have one sign, so there is no surface; inside must be negative")
        object.__setattr__(self, "values", values.astype(np.float64))

    @property
    def surface_m(self) -> float:
        """How near to the surface counts as on it: half of a cell's face diagonal, in meters."""
        return self.cell_m * np.sqrt(2.0) / 2.0

    def to_cells(self, points: ArrayLike) -> Floats:
        """Return points (..., 3) in meters as positions on the grid."""
        return (np.asarray(points) - self.origin) / self.cell_m

    def at_cells(self, cells: Floats) -> Floats:
        """Return the distances (...,) at positions (..., 3) on the grid.

        Outside the grid it is the distance at its border and the way there.
        """
        flat = cells.reshape(-1, 3)
        border = np.clip(flat, 0.0, self._last)
        distance = map_coordinates(self.values, border.T, order=1, mode="nearest")
        distance += np.linalg.norm(flat - border, axis=1) * self.cell_m
        return distance.reshape(cells.shape[:-1])

    @cached_property
    def _last(self) -> Floats:
        return np.array(self.values.shape) - 1.0

    def at(self, points: ArrayLike) -> Floats:
        """Return the distances (...,) at points (..., 3) in meters."""
        return self.at_cells(self.to_cells(points))


def mesh_sdf(mesh: Mesh, cells: int = 64) -> SdfGrid:
    """Return the signed distances of a watertight mesh, `cells` along its longest side, padding included.

    Exact up to 4 cells from the surface, a little too far from it beyond.

    Raises ValueError for a mesh that does not enclose a volume.
    """
    if not mesh.is_watertight:
        raise ValueError("mesh: is not watertight, so it has no inside; close its holes first")
    if cells <= 2 * _PADDING + 1:
        raise ValueError(f"cells: got {cells}, needs more than {2 * _PADDING + 1}")
    low, high = mesh.bounds
    cell_m = float((high - low).max() / (cells - 1 - 2 * _PADDING))
    counts = np.ceil((high - low) / cell_m).astype(int) + 1 + 2 * _PADDING
    origin = low - _PADDING * cell_m
    axes = [o + cell_m * np.arange(n) for o, n in zip(origin, counts, strict=True)]
    nodes = np.stack(np.meshgrid(*axes, indexing="ij"), axis=-1)
    distances = mesh.distances(nodes.reshape(-1, 3), within_m=_BAND * cell_m).reshape(counts)
    # Beyond the band the way there is added: cheap, and nothing asks how far exactly.
    way, nearest = distance_transform_edt(np.isinf(distances), return_indices=True)
    distances = way * cell_m + distances[tuple(nearest)]
    return SdfGrid(np.where(mesh.inside_grid(*axes), -distances, distances), origin, cell_m)


def read_sdf(path: Path) -> SdfGrid:
    """Read a grid in the data set's text format: sizes, origin, cell size, then values, x fastest.

    Raises ValueError, naming the file, where it is not in that format.
    """
    lines = path.read_text().split()
    try:
        shape = tuple(int(word) for word in lines[:3])
        numbers = np.array(lines[3:], dtype=np.float64)
        return SdfGrid(numbers[4:].reshape(shape[::-1]).transpose(2, 1, 0), numbers[:3], float(numbers[3]))
    except (ValueError, IndexError) as error:
        raise ValueError(f"{path}: {error}; needs sizes, origin, cell size and one distance per node") from None


def write_sdf(path: Path, grid: SdfGrid) -> Path:
    """Write a grid in the data set's text format."""
    head = [" ".join(map(str, grid.values.shape)), " ".join(map(repr, map(float, grid.origin))), repr(grid.cell_m)]
    values = grid.values.transpose(2, 1, 0).ravel()
    return write_atomic(path, "\n".join(head) + "\n%.9g" * len(values) % tuple(values.tolist()) + "\n")
