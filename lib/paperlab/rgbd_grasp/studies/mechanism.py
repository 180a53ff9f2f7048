"""What follows without learning: objects, labels, orientations, force closure, ceilings, sizes of nets, oracles."""

from __future__ import annotations

from typing import Any

import numpy as np
import pandas as pd

from paperlab.rgbd_grasp.config import Config
from paperlab.rgbd_grasp.evaluation.precision import TOP_K, frame_ap, precision_at
from paperlab.rgbd_grasp.geometry.anchors import avn_anchors
from paperlab.rgbd_grasp.geometry.rotations import random_rotations, symmetric_distance
from paperlab.rgbd_grasp.geometry.sdf import SdfGrid
from paperlab.rgbd_grasp.geometry.shapes import sphere
from paperlab.rgbd_grasp.labels.contacts import mesh_contacts, sdf_contacts
from paperlab.rgbd_grasp.labels.force_closure import EVALUATED_FRICTIONS, smallest_friction
from paperlab.rgbd_grasp.labels.heatmap import heatmap_labels
from paperlab.rgbd_grasp.network.config import FULL, SMALL, TINY
from paperlab.rgbd_grasp.studies import material
from paperlab.rgbd_grasp.studies.material import LABEL_FRICTION, TEST_SPLITS

PER_OBJECT = 10  # grasps of an object that the metric keeps
CLASSES = ((60, 6), (60, 12), (120, 6), (120, 12))
# Of the paper, by a third party: positive entries of 100 scenes of 256 frames, by camera.
PUBLISHED_POSITIVES = {"RealSense": 143e6, "Kinect": 110e6}
PUBLISHED_FRAMES = 100 * 256


def object_table() -> pd.DataFrame:
    """Return one row per object of the generator: id, family, name, sides of its bounding box in centimeters."""
    from paperlab.rgbd_grasp.scenes import catalog

    rows = []
    for object_id, solid in catalog().items():
        sides = np.sort(100 * np.ptp(solid.mesh.vertices, axis=0))
        rows.append((object_id, solid.family, solid.name, len(solid.parts), *sides.round(1)))
    columns = ["object_id", "family", "name", "convex_parts", "shortest_cm", "middle_cm", "longest_cm"]
    return pd.DataFrame(rows, columns=columns)


def label_table(config: Config) -> pd.DataFrame:
    """Return per source the frames, positives per frame, entries per frame, and the share that is positive.

    Rows of the paper's cameras follow from the quoted totals; the others are counted on generated frames, for the
    full net's grid and classes too, so that shares compare.
    """
    entries = FULL.classes * FULL.grid.rows * FULL.grid.columns
    rows = [
        (f"paper, {camera} (derived)", PUBLISHED_FRAMES, total / PUBLISHED_FRAMES, entries, "analytic")
        for camera, total in PUBLISHED_POSITIVES.items()
    ]
    data = material.data()
    for split in ("train", *TEST_SPLITS):
        count = config.test_scenes
        for name, net in (("full", FULL), ("small", SMALL)):
            positives = []
            for place in material.places(split, count, config.test_views):
                view = data.view(*place)
                grasps = data.antipodal(view, LABEL_FRICTION)
                positives.append(heatmap_labels(grasps, view.camera, net.anchors, net.grid).sum())
            size = net.classes * net.grid.rows * net.grid.columns
            source = f"generated, {split}, {name} grid"
            rows.append((source, len(positives), float(np.mean(positives)), size, "measured-cpu"))
    table = pd.DataFrame(rows, columns=["source", "frames", "positives_per_frame", "entries_per_frame", "evidence"])
    return table.assign(positive_percent=100 * table.positives_per_frame / table.entries_per_frame)


def orientation_errors(seed: int, draws: int = 4000) -> pd.DataFrame:
    """Return the angle, in degrees, between random orientations of the hemisphere and the class they fall into.

    Columns views, angles, symmetry, draw, error_deg (the jaws being interchangeable), right_view.
    """
    rng = np.random.default_rng(seed)
    rotations = random_rotations(4 * draws, rng)
    rotations = rotations[rotations[:, 2, 0] > 0][:draws]
    tables = []
    for views, angles in CLASSES:
        anchors = avn_anchors(views, angles)
        nearest_view = (rotations[:, :, 0] @ -anchors.views.T).argmax(axis=1)
        for symmetry in ("canonical", "official"):
            found = anchors.nearest(rotations, symmetry)  # type: ignore[arg-type]
            error = np.rad2deg(symmetric_distance(anchors.rotations[found], rotations))
            part = {"views": views, "angles": angles, "symmetry": symmetry, "error_deg": error}
            tables.append(pd.DataFrame({**part, "right_view": found // angles == nearest_view}))
    return pd.concat(tables, ignore_index=True)


def sphere_closure(radius_m: float = 0.03) -> pd.DataFrame:
    """Return the smallest friction at which jaws hold a ball beside its center, by the lean of its normals.

    Analytically it is the smallest evaluated coefficient of at least tan(lean); signed distances and mesh beside it.
    """
    lean = np.array([0, 5, 10, 14, 20, 25, 30, 37, 40, 44, 48, 52], dtype=float)
    centers = np.zeros((len(lean), 3))
    centers[:, 2] = radius_m * np.sin(np.deg2rad(lean))
    axes, widths = np.tile([0.0, 1.0, 0.0], (len(lean), 1)), np.full(len(lean), 0.08)
    axis = np.arange(-radius_m - 0.0035, radius_m + 0.0035, 0.0007)
    nodes = np.stack(np.meshgrid(axis, axis, axis, indexing="ij"), axis=-1)
    grid = SdfGrid(np.linalg.norm(nodes, axis=-1) - radius_m, np.full(3, axis[0]), 0.0007)
    levels = np.append(EVALUATED_FRICTIONS, -1.0)
    needed = np.tan(np.deg2rad(lean))
    return pd.DataFrame(
        {
            "lean_deg": lean,
            "tangent": needed,
            "analytic": levels[np.searchsorted(EVALUATED_FRICTIONS, needed)],
            "mesh": smallest_friction(mesh_contacts(sphere(radius_m, 5), centers, axes, widths)),
            "signed_distances": smallest_friction(sdf_contacts(grid, centers, axes, widths)),
        }
    )


def ceilings(most: int = 7) -> pd.DataFrame:
    """Return the AP of a perfect detector by number of graspable objects."""
    rows = []
    for objects in range(1, most + 1):
        tensor = precision_at(np.full(min(TOP_K, PER_OBJECT * objects), 0.2))
        rows.append((objects, 100 * frame_ap(tensor[None])[0, 0]))
    return pd.DataFrame(rows, columns=["objects", "ap"])


def architecture() -> pd.DataFrame:
    """Return one row per net: input, grid, classes, and parameters in millions of its parts."""
    from paperlab.rgbd_grasp.network.avn import build, parameters

    rows: list[dict[str, Any]] = []
    for name, config in (("full (paper)", FULL), ("small", SMALL), ("tiny", TINY)):
        net = build(config)
        stream: Any = net.streams[0]
        parts = {"encoder": [stream[0]], "upsampling": [stream[2], stream[3]], "head": [stream[4]]}
        millions = {
            f"{part}_M": sum(map(parameters, item)) / 1e6
            for part, item in parts.items()
        }
        sizes = {"image": "{}x{}".format(*config.image), "grid": f"{config.grid.columns}x{config.grid.rows}"}
        counts = {"views": config.views, "angles": config.angles, "classes": config.classes}
        rows.append({"net": name, **sizes, **counts, **millions, "total_M": parameters(net) / 1e6})
    return pd.DataFrame(rows)
