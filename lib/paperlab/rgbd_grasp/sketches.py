"""Drawings of the idea notebook: the gripper and its boxes, a gallery of scenes, views of the hemisphere."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
from matplotlib import pyplot as plt
from matplotlib.figure import Figure
from matplotlib.patches import Rectangle

from paperlab.rgbd_grasp.dataset.view import View
from paperlab.rgbd_grasp.geometry.anchors import Anchors
from paperlab.rgbd_grasp.geometry.checks import Floats
from paperlab.rgbd_grasp.search.detector import Detector

_FINGER, _PALM, _WAY, _INNER = "#0173b2", "#029e73", "#cccccc", "#ece133"


def gripper(width_m: float = 0.06, depth_m: float = 0.04) -> Figure:
    """The search's gripper from above: x is the approach, y closes; regions that must be free, one that must not."""
    detector = Detector()
    length, finger, behind = (100 * x for x in (detector.finger_length_m, detector.finger_m, detector.behind_m))
    half, front = 50 * width_m, 100 * depth_m
    rear = front - length
    regions = [
        ((rear, -half - finger), length, finger, _FINGER, "finger"),
        ((rear, half), length, finger, _FINGER, "finger"),
        ((rear - finger, -half - finger), finger, 2 * (half + finger), _PALM, "palm"),
        ((rear - behind, -half - finger), behind - finger, 2 * (half + finger), _WAY, "way of approach"),
        ((rear, -half), length, 2 * half, _INNER, "must hold something"),
    ]
    figure, axes = plt.subplots(figsize=(8, 4.2), layout="constrained")
    for corner, long, high, color, name in regions:
        axes.add_patch(Rectangle(corner, long, high, facecolor=color, edgecolor="0.3", alpha=0.65))
        axes.text(
            corner[0] + long / 2,
            corner[1] + high / 2,
            name,
            ha="center",
            va="center",
            fontsize=9,
            rotation=90 * (name == "palm"),
        )
    axes.plot(0, 0, "k+", markersize=12, markeredgewidth=2)
    axes.annotate("grasp point", (0, 0), xytext=(6, 6), textcoords="offset points", fontsize=9)
    for end, text in (((front + 2.5, 0), "x: approach"), ((0, half + finger + 1.6), "y: closing")):
        axes.annotate("", end, xytext=(0, 0), arrowprops={"arrowstyle": "->", "color": "k"})
        axes.text(*end, f" {text}", va="center", fontsize=9)
    at = -half - finger - 0.9
    axes.annotate("", (0, at), xytext=(front, at), arrowprops={"arrowstyle": "<->"})
    axes.text(front / 2, at - 0.55, "depth", ha="center", fontsize=9)
    axes.annotate("", (front + 0.8, -half), xytext=(front + 0.8, half), arrowprops={"arrowstyle": "<->"})
    axes.text(front + 1.0, -half / 2, "width", fontsize=9)
    axes.set(xlim=(rear - behind - 0.5, front + 6), ylim=(-half - 3.2, half + 3.6), xlabel="x (cm)", ylabel="y (cm)")
    axes.set(aspect="equal", title="The gripper as boxes, 2 cm high")
    axes.grid(False)
    return figure


def gallery(views: Sequence[View], titles: Sequence[str]) -> Figure:
    """Color above, depth below, of some views."""
    figure, panels = plt.subplots(2, len(views), figsize=(3.1 * len(views), 4.9), squeeze=False, layout="constrained")
    low = min(float(view.depth_m[view.depth_m > 0].min()) for view in views)
    high = max(float(view.depth_m.max()) for view in views)
    image: Any = None
    for column, (view, title) in enumerate(zip(views, titles, strict=True)):
        panels[0, column].imshow(view.rgb)
        panels[0, column].set_title(title)
        image = panels[1, column].imshow(view.depth_m, cmap="viridis_r", vmin=low, vmax=high)
        for axes in panels[:, column]:
            axes.set(xticks=[], yticks=[])
            axes.grid(False)
    figure.colorbar(image, ax=panels[1], label="depth (m)", shrink=0.9)
    return figure


def views_of(anchors: Anchors, directions: Floats) -> Figure:
    """The classes' directions of approach, seen along the optical axis, over those of labeled grasps (N, 3)."""
    figure, axes = plt.subplots(figsize=(5, 4.6), layout="constrained")
    some = directions[np.random.default_rng(0).permutation(len(directions))[:1500]]
    axes.plot(some[:, 0], some[:, 1], ".", color="#de8f05", markersize=3, label="labeled grasps of a view")
    axes.plot(*-anchors.views[:, :2].T, "o", color="#0173b2", markersize=5, label=f"{len(anchors.views)} views")
    turn = np.linspace(0, 2 * np.pi, 200)
    axes.plot(np.cos(turn), np.sin(turn), color="0.5", linewidth=0.8)
    axes.set(aspect="equal", xlabel="x of the approach", ylabel="y of the approach (down in the image)")
    axes.invert_yaxis()
    axes.set_title("Directions of approach, from the camera")
    axes.legend(loc="upper left", bbox_to_anchor=(0, -0.14), ncols=2)
    return figure
