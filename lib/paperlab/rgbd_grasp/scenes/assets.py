"""What each object brings: cloud, signed distances, sampled and exhaustive grasps; computed once, kept by content."""

from __future__ import annotations

import io
from pathlib import Path

import numpy as np

from paperlab.lab.cache import content_key
from paperlab.lab.files import write_atomic
from paperlab.lab.paths import cache_dir
from paperlab.rgbd_grasp import geometry, labels
from paperlab.rgbd_grasp.dataset.layout import Layout
from paperlab.rgbd_grasp.dataset.models import read_obj
from paperlab.rgbd_grasp.dataset.writer import write_object
from paperlab.rgbd_grasp.evaluation.scene import VOXEL_M
from paperlab.rgbd_grasp.geometry.checks import Floats
from paperlab.rgbd_grasp.geometry.grasp import GraspGroup
from paperlab.rgbd_grasp.geometry.mesh import Mesh
from paperlab.rgbd_grasp.geometry.sdf import SdfGrid, mesh_sdf
from paperlab.rgbd_grasp.geometry.voxels import voxel_average
from paperlab.rgbd_grasp.labels.grid import ObjectLabels, label_object, spread_points
from paperlab.rgbd_grasp.labels.sampler import antipodal_grasps
from paperlab.rgbd_grasp.scenes.solids import Solid, hull

CLOUD_POINTS = 20_000
SDF_CELLS = 64
MAX_FRICTION = 0.4  # of sampled grasps
_SAMPLES = 2000
_LONGEST_M = (0.01, 0.3)  # of an object's sides: anything else is in other units


def surface_cloud(mesh: Mesh) -> Floats:
    """Return 20,000 points (N, 3) spread over a surface, always the same ones."""
    return mesh.sample(CLOUD_POINTS, np.random.default_rng(0))[0]


def surface_voxels(mesh: Mesh) -> Floats:
    """Return the surface (M, 3) as the evaluator sees it: the cloud, averaged over voxels of 8 mm."""
    return voxel_average(surface_cloud(mesh), VOXEL_M)


def _kept(mesh: Mesh, kind: str, **settings: float) -> Path:
    shape = (mesh.vertices.tobytes(), mesh.faces.tobytes())
    key = content_key(settings, shape, code=(geometry.__name__, labels.__name__))
    return cache_dir() / "rgbd_grasp" / f"{kind}-{key[:24]}.npz"


def signed_distances(mesh: Mesh) -> SdfGrid:
    """Return a mesh's signed distances, 64 cells along its longest side."""
    path = _kept(mesh, "sdf", cells=SDF_CELLS)
    if not path.exists():
        grid = mesh_sdf(mesh, SDF_CELLS)
        _save(path, values=grid.values, origin=grid.origin, cell_m=np.array(grid.cell_m))
    with np.load(path, allow_pickle=False) as file:
        return SdfGrid(file["values"], file["origin"], float(file["cell_m"]))


def sampled_grasps(mesh: Mesh) -> GraspGroup:
    """Return antipodal grasps of an object in its frame, some thousands, that hold at a friction of 0.4."""
    path = _kept(mesh, "antipodal", samples=_SAMPLES, max_friction=MAX_FRICTION)
    if not path.exists():
        found = antipodal_grasps(mesh, surface_voxels(mesh), _SAMPLES, max_friction=MAX_FRICTION)
        _save(path, grasps=found.grasp_group_array.astype(np.float32))
    with np.load(path, allow_pickle=False) as file:
        return GraspGroup(file["grasps"].astype(np.float64))


def exhaustive_labels(mesh: Mesh, points: int) -> ObjectLabels:
    """Return labels in GraspNet-1Billion's format: `points` points by 300 views, 12 angles and 4 depths."""
    if points < 1:
        raise ValueError(f"points: got {points}, needs at least 1")
    path = _kept(mesh, "labels", points=points)
    if not path.exists():
        label_object(mesh, surface_voxels(mesh), spread_points(mesh, points)).save(path)
    return ObjectLabels.load(path)


def _save(path: Path, **arrays: np.ndarray) -> None:
    buffer = io.BytesIO()
    np.savez_compressed(buffer, allow_pickle=False, **arrays)
    write_atomic(path, buffer.getvalue())


def write_assets(root: Path, object_id: int, solid: Solid, label_points: int = 0) -> None:
    """Write an object's model and, for `label_points` above 0, its labels, where they are not there yet."""
    layout, mesh = Layout(root), solid.mesh
    if not layout.model(object_id, "textured.sdf").exists():  # which is written last
        write_object(root, object_id, mesh, surface_cloud(mesh), signed_distances(mesh))
    if label_points and not layout.grasp_labels(object_id).exists():
        exhaustive_labels(mesh, label_points).save(layout.grasp_labels(object_id))


def solid_from_file(path: Path) -> Solid:
    """Return a user's object from an OBJ file in meters; physics takes its convex hull, and so does everything else.

    Raises ValueError, naming the file, for what is no mesh, is flat, or has no size that a gripper could hold.
    """
    mesh = read_obj(path)
    longest = float(np.ptp(mesh.bounds, axis=0).max())
    if not _LONGEST_M[0] <= longest <= _LONGEST_M[1]:
        raise ValueError(f"{path}: is {longest:g} m long, needs {_LONGEST_M[0]} to {_LONGEST_M[1]} m; is it in meters?")
    try:
        body = hull(mesh.vertices)
    except ValueError as error:
        raise ValueError(f"{path}: {error}") from None
    middle = body.bounds.mean(axis=0)
    return Solid(path.stem, "novel", (Mesh(body.vertices - middle, body.faces),))
