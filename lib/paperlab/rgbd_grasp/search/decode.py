"""From the heatmap's best entries to oriented seeds in space."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal, get_args

import numpy as np

from paperlab.rgbd_grasp.geometry.anchors import Anchors
from paperlab.rgbd_grasp.geometry.cameras import Camera
from paperlab.rgbd_grasp.geometry.checks import Bools, Floats, Ints, floats, one_of
from paperlab.rgbd_grasp.geometry.grasp import GraspGroup
from paperlab.rgbd_grasp.geometry.gripper import MAX_WIDTH_M
from paperlab.rgbd_grasp.labels.heatmap import CellGrid

DecodeMode = Literal["center_median_valid", "official"]


@dataclass(frozen=True)
class Decoding:
    """How many entries are kept, and where in its cell a seed lies; the numbers are the released demo's.

    "official" puts a seed at its cell's upper left corner, at the mean depth over all the cell's pixels, holes
    counting as 0; "center_median_valid" at its center, at the median of the depths that were measured.
    """

    mode: DecodeMode = "center_median_valid"
    top_in_cell: int = 5
    top_in_map: int = 1000
    top_seeds: int = 200
    nms_translation_m: float = 0.04
    nms_rotation_rad: float = np.pi / 6
    depth_m: float = 0.04  # of the seeds, from grasp point to fingertips

    def __post_init__(self) -> None:
        one_of("mode", self.mode, get_args(DecodeMode))
        if min(self.top_in_cell, self.top_in_map, self.top_seeds) < 1:
            raise ValueError(f"Decoding: numbers of entries must be at least 1, got {self}")


def cell_depths(depth_m: Floats, rows: Ints, columns: Ints, grid: CellGrid, mode: DecodeMode) -> Floats:
    """Return the depth (N,) in meters of each of the cells, 0 where none of its pixels was measured."""
    height, width = depth_m.shape
    top, left = (rows * height // grid.rows, columns * width // grid.columns)
    bottom, right = ((rows + 1) * height // grid.rows, (columns + 1) * width // grid.columns)
    v = top[:, None] + np.arange((bottom - top).max(initial=1))
    u = left[:, None] + np.arange((right - left).max(initial=1))
    inside = (v < bottom[:, None])[:, :, None] & (u < right[:, None])[:, None, :]
    block = depth_m[np.minimum(v, height - 1)[:, :, None], np.minimum(u, width - 1)[:, None, :]]
    flat = (len(rows), v.shape[1] * u.shape[1])
    inside, block = inside.reshape(flat), block.reshape(flat)
    if mode == "official":
        return np.where(inside, block, 0.0).sum(axis=1) / inside.sum(axis=1)
    valid = inside & (block > 0)
    count = valid.sum(axis=1)
    ordered = np.sort(np.where(valid, block, np.inf), axis=1)
    # Of an even number the lower one of both in the middle: their mean may lie between two surfaces.
    middle = ordered[np.arange(len(rows)), np.maximum(count - 1, 0) // 2]
    return np.where(count > 0, middle, 0.0)


def best_entries(heatmap: Floats, decoding: Decoding, mask: Bools | None) -> tuple[Ints, Ints, Ints]:
    """Return class, row and column of the entries that are kept: the best of each cell, then of the whole map."""
    classes, rows, columns = heatmap.shape
    allowed = heatmap if mask is None else np.where(mask, heatmap, -np.inf)
    flat = allowed.reshape(classes, -1)
    kept = min(decoding.top_in_cell, classes)
    top = np.argpartition(-flat, kept - 1, axis=0)[:kept]
    cell = np.broadcast_to(np.arange(rows * columns), top.shape)
    score = flat[top, cell].ravel()
    order = np.argsort(-score, kind="stable")[: decoding.top_in_map]
    order = order[np.isfinite(score[order])]
    cell = cell.ravel()[order]
    return top.ravel()[order], cell // columns, cell % columns


def decode(
    heatmap: Floats,
    depth_m: Floats,
    camera: Camera,
    anchors: Anchors,
    decoding: Decoding | None = None,
    mask: Bools | None = None,
) -> GraspGroup:
    """Return oriented seeds, best first, in the camera's frame, from a heatmap (C, rows, columns).

    An entry of -infinity is never taken. `depth_m` (H, W) is the camera's depth image in meters, 0 for holes; `mask`
    (rows, columns) the workspace. Seeds
    have the largest opening; those without depth are dropped, and of those near to each other the best stays.
    """
    decoding = decoding or Decoding()
    values = floats("heatmap", heatmap, len(anchors), None, None, finite=False)
    if np.isnan(values).any():
        raise ValueError(f"heatmap: holds NaN in {int(np.isnan(values).sum())} places, needs scores")
    depth = floats("depth_m", depth_m, camera.height, camera.width)
    grid = CellGrid(columns=values.shape[2], rows=values.shape[1])
    if mask is not None and mask.shape != (grid.rows, grid.columns):
        raise ValueError(f"mask: got shape {mask.shape}, needs {(grid.rows, grid.columns)}, as the heatmap has")
    kind, row, column = best_entries(values, decoding, mask)
    z = cell_depths(depth, row, column, grid, decoding.mode)
    seen = z > 0
    kind, row, column, z = kind[seen], row[seen], column[seen], z[seen]
    inside = 0.5 if decoding.mode == "center_median_valid" else 0.0
    pixels = (np.stack([column, row], axis=-1) + inside) * grid.cell_px(camera)
    seeds = GraspGroup.from_parts(
        anchors.rotations[kind],
        camera.back_project(pixels, z),
        scores=values[kind, row, column],
        widths=MAX_WIDTH_M,
        depths=decoding.depth_m,
    )
    return seeds.nms(decoding.nms_translation_m, decoding.nms_rotation_rad)[: decoding.top_seeds]
