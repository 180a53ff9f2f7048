"""Drawings that several exhibits share: heatmaps over images, candidates of the search, grasps in space."""

from __future__ import annotations

from typing import Any

import numpy as np
from matplotlib import pyplot as plt
from matplotlib.axes import Axes
from matplotlib.collections import LineCollection
from matplotlib.colors import ListedColormap
from matplotlib.figure import Figure
from matplotlib.lines import Line2D
from matplotlib.patches import Patch
from matplotlib.ticker import MultipleLocator
from mpl_toolkits.mplot3d.art3d import Line3DCollection
from numpy.typing import NDArray

from paperlab.rgbd_grasp.geometry.cameras import Camera
from paperlab.rgbd_grasp.geometry.checks import Bools, Floats
from paperlab.rgbd_grasp.geometry.grasp import GraspGroup
from paperlab.rgbd_grasp.geometry.gripper import BASE_M
from paperlab.rgbd_grasp.search.fas import Found, Search

_SCORES = "viridis"
_VERDICTS = {"free": "#029e73", "collides": "#d55e00", "empty": "#cccccc"}
_WORKSPACES = {"depth_plane": "over the table", "gt": "true objects", "none": "everything"}
_STEM_M = 0.04  # the drawn handle behind the palm
_SHOWN_POINTS = 6000
_RAISED_CM, _MARGIN_CM = 1.0, 4.0


def outlines(grasps: GraspGroup) -> Floats:
    """Return each grasp (N, 3 lines, 2 ends, 3) as fingers, palm and handle, in the grasps' frame, in meters."""
    half, front = grasps.widths / 2, grasps.depths
    rear = np.full(len(grasps), -BASE_M)
    zero = np.zeros(len(grasps))
    corners = {
        "left": (rear, -half, front, -half),
        "palm": (rear, -half, rear, half),
        "right": (rear, half, front, half),
        "stem": (rear - _STEM_M, zero, rear, zero),
    }
    lines = np.zeros((len(grasps), len(corners), 2, 3))
    for k, (x0, y0, x1, y1) in enumerate(corners.values()):
        lines[:, k, 0, 0], lines[:, k, 0, 1], lines[:, k, 1, 0], lines[:, k, 1, 1] = x0, y0, x1, y1
    return np.einsum("nij,nkej->nkei", grasps.rotation_matrices, lines) + grasps.translations[:, None, None]


def draw_on_image(axes: Axes, rgb: NDArray[np.uint8], camera: Camera, grasps: GraspGroup) -> LineCollection:
    """Draw an image (H, W, 3) with grasps, colored by score, projected onto it; return the lines, for a color bar."""
    axes.imshow(rgb, extent=(-0.5, camera.width - 0.5, camera.height - 0.5, -0.5))
    pixels = camera.project(outlines(grasps).reshape(-1, 3)).reshape(-1, 2, 2)
    # One line per part of a grasp; the best grasp lies on top.
    lines = LineCollection(list(pixels[::-1]), array=np.repeat(grasps.scores, 4)[::-1], cmap=_SCORES, linewidths=1.6)
    axes.add_collection(lines)
    axes.set(xlim=(-0.5, camera.width - 0.5), ylim=(camera.height - 0.5, -0.5), xlabel="u (px)", ylabel="v (px)")
    axes.grid(False)
    return lines


def draw_heatmap(axes: Axes, heatmap: Floats | Bools, title: str, label: str) -> None:
    """Draw the sum over classes of a heatmap (C, rows, columns) or of labels."""
    image = axes.imshow(heatmap.sum(axis=0), cmap="magma", interpolation="nearest", aspect="auto")
    axes.set(title=title, xlabel="column (cell)", ylabel="row (cell)")
    axes.grid(False)
    axes.figure.colorbar(image, ax=axes, label=label)


def avh_panel(rgb: NDArray[np.uint8], mask: Bools, predicted: Floats, labels: Bools, kind: str) -> Figure:
    """Image, workspace (its `kind` in the title), and the sums of predicted and of labeled heatmap.

    `rgb` (H, W, 3); `mask` (rows, columns); `predicted` and `labels` (C, rows, columns).
    """
    figure, panels = plt.subplots(2, 2, figsize=(9, 6.4), layout="constrained")
    panels[0, 0].imshow(rgb, aspect="auto")
    panels[0, 0].set(title="Image", xlabel="u (px)", ylabel="v (px)")
    panels[0, 1].imshow(
        mask, cmap=ListedColormap(["0.15", "0.9"]), interpolation="nearest", vmin=0, vmax=1, aspect="auto"
    )
    panels[0, 1].set(
        title=f"Workspace, light: {_WORKSPACES.get(kind, kind)}", xlabel="column (cell)", ylabel="row (cell)"
    )
    for axes in panels[0]:
        axes.grid(False)
    draw_heatmap(panels[1, 0], predicted, "Predicted heatmap, summed", "expected classes per cell")
    draw_heatmap(panels[1, 1], labels, "Labels, summed", "labeled classes per cell")
    return figure


def prediction_panel(rgb: NDArray[np.uint8], camera: Camera, grasps: GraspGroup, heatmap: Floats, title: str) -> Figure:
    """Grasps on the image beside the heatmap's sum; `title` says what was searched and found."""
    figure, (left, right) = plt.subplots(1, 2, figsize=(11, 4), layout="constrained")
    lines = draw_on_image(left, rgb, camera, grasps)
    left.set_title(f"Best {len(grasps)} grasps")
    if len(grasps):
        figure.colorbar(lines, ax=left, label="score")
    draw_heatmap(right, heatmap, "Angle-View Heatmap, summed", "sum of scores per cell")
    figure.suptitle(title, fontsize=9)
    return figure


def fas_candidates(found: Found, search: Search, shown: int = 4) -> Figure:
    """Verdicts on the grid of distances and openings for `shown` seeds, the chosen candidate framed.

    Seeds with the most mixed verdicts are shown, best mixed first.
    """
    alive = ~found.hit & ~found.empty
    mixed = np.argsort(-(alive.mean(axis=(1, 2)) * (1 - alive.mean(axis=(1, 2)))), kind="stable")[:shown]
    figure, panels = plt.subplots(
        1, len(mixed), figsize=(2.9 * len(mixed) + 0.6, 3.1), sharey=True, squeeze=False, layout="constrained"
    )
    for axes, seed in zip(panels[0], mixed, strict=True):
        verdict = np.where(found.hit[seed], 1, np.where(found.empty[seed], 2, 0))
        axes.imshow(verdict, cmap=ListedColormap(list(_VERDICTS.values())), vmin=0, vmax=2, aspect="auto")
        row = np.flatnonzero(found.seeds == seed)
        if len(row):
            at = (found.widths[row[0]], found.distances[row[0]])
            axes.scatter(*at, s=110, marker="s", facecolor="none", edgecolor="black", linewidth=1.8)
        axes.set(title=f"Seed {seed}", xlabel="opening (cm)")
        axes.set_xticks(range(len(search.widths_m)), [f"{100 * w:g}" for w in search.widths_m])
        axes.set_yticks(range(len(search.distances_m)), [f"{100 * d:g}" for d in search.distances_m])
        axes.grid(False)
    panels[0, 0].set_ylabel("distance along approach (cm)" if search.shift == "approach" else "distance along z (cm)")
    handles: list[Any] = [Patch(color=color, label=name) for name, color in _VERDICTS.items()]
    handles.append(Line2D([], [], marker="s", color="none", markeredgecolor="black", label="chosen"))
    figure.legend(handles=handles, loc="outside lower center", ncols=4)
    return figure


def scene_3d(
    cloud: Floats,
    colors: NDArray[np.uint8],
    grasps: GraspGroup,
    table_from_camera: Floats | None = None,
    title: str = "",
) -> Figure:
    """The observed points (P, 3) in their colors (P, 3) and grasps, colored by score, in space, in centimeters.

    With `table_from_camera` (4, 4) everything stands on the table, z upward, cut to what is on it; else the picture is
    in the camera's frame, looked at from its side.
    """
    figure = plt.figure(figsize=(7.5, 4.8), layout="constrained")
    axes: Any = figure.add_subplot(projection="3d")
    motion = np.diag([1.0, -1.0, -1.0, 1.0]) if table_from_camera is None else table_from_camera
    points = 100 * (cloud @ motion[:3, :3].T + motion[:3, 3])
    ends = 100 * (outlines(grasps).reshape(-1, 3) @ motion[:3, :3].T + motion[:3, 3])
    focus = points if table_from_camera is None else points[points[:, 2] > _RAISED_CM]
    low, high = _box(np.concatenate([focus if len(focus) else points, ends]))
    inside = np.flatnonzero(((points > low) & (points < high)).all(axis=1))
    some = np.random.default_rng(0).permutation(inside)[:_SHOWN_POINTS]
    axes.scatter(*points[some].T, c=colors[some] / 255, s=4, depthshade=False)
    if len(grasps):
        lines = Line3DCollection(
            list(ends.reshape(-1, 2, 3)), array=np.repeat(grasps.scores, 4), cmap=_SCORES, linewidths=1.8
        )
        axes.add_collection3d(lines)
        figure.colorbar(lines, ax=axes, label="score", shrink=0.5, pad=0.08)
    axes.set(xlabel="x (cm)", ylabel="y (cm)", zlabel="z (cm)", title=title)
    for name, a, b in zip("xyz", low, high, strict=True):
        getattr(axes, f"set_{name}lim")(a, b)
        getattr(axes, f"{name}axis").set_major_locator(MultipleLocator(10 if b - a > 15 else 5))
    axes.set_box_aspect(high - low, zoom=1.1)
    axes.view_init(elev=40, azim=-60)
    return figure


def _box(points: Floats) -> tuple[Floats, Floats]:
    """Return the corners of a box around all but the outermost 2 % of points, 4 cm to each side."""
    low, high = np.percentile(points, [1, 99], axis=0)
    return low - _MARGIN_CM, high + _MARGIN_CM
