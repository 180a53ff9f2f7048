"""The what-if drawing of `60_grasp_idea`: a box from above, a neighbor beside it, and which candidates survive."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np
from matplotlib.colors import ListedColormap

from paperlab.rgbd_grasp.geometry.checks import Floats
from paperlab.rgbd_grasp.geometry.grasp import GraspGroup
from paperlab.rgbd_grasp.search.fas import Found, Search, search_grasps

if TYPE_CHECKING:
    from matplotlib.axes import Axes

_TOP_M, _TABLE_M = 0.5, 0.56  # distances of the box's top and of the table from a camera straight above
_COLORS = ("#029e73", "#d55e00", "#cccccc")  # free, collides, empty


def seen_from_above(side_cm: float, gap_cm: float) -> Floats:
    """Return what a camera above sees (P, 3) of a box of a side, a neighbor at a gap, and the table, every 5 mm.

    Raises:
        ValueError: a side or a gap is not positive.
    """
    if side_cm <= 0 or gap_cm < 0:
        raise ValueError(f"side_cm is {side_cm}, gap_cm {gap_cm}; needs a positive side and a gap of 0 or more")
    x, y = np.meshgrid(np.arange(-0.15, 0.1501, 0.005), np.arange(-0.15, 0.1501, 0.005))
    half, start = side_cm / 200, side_cm / 200 + gap_cm / 100
    box = (np.abs(x) <= half + 1e-9) & (np.abs(y) <= half + 1e-9)
    neighbor = (y >= start) & (y <= start + 0.05) & (np.abs(x) <= 0.04)
    z = np.where(box | neighbor, _TOP_M, _TABLE_M)
    return np.stack([x, y, z], axis=-1).reshape(-1, 3)


def candidates(side_cm: float, gap_cm: float) -> Found:
    """Return the search's verdicts for a grasp straight down that closes toward the neighbor."""
    down = np.array([[[0.0, 0.0, -1.0], [0.0, 1.0, 0.0], [1.0, 0.0, 0.0]]])  # approaches along z, closes along y
    seed = GraspGroup.from_parts(down, np.array([[0.0, 0.0, _TOP_M]]), depths=0.04)
    return search_grasps(seed, seen_from_above(side_cm, gap_cm), Search())


def draw_candidates(axes: Axes, side_cm: float, gap_cm: float) -> None:
    """Draw the 50 candidates: free, colliding or empty, the chosen one framed."""
    found, search = candidates(side_cm, gap_cm), Search()
    verdict = np.where(found.hit[0], 1, np.where(found.empty[0], 2, 0))
    axes.imshow(verdict, cmap=ListedColormap(_COLORS), vmin=0, vmax=2, aspect="auto")
    if len(found.seeds):
        axes.scatter(found.widths[0], found.distances[0], s=90, marker="s", facecolor="none", edgecolor="black")
    axes.set_xticks(range(len(search.widths_m)), [f"{100 * w:g}" for w in search.widths_m])
    axes.set_yticks(range(len(search.distances_m)), [f"{100 * d:g}" for d in search.distances_m])
    axes.set(xlabel="opening (cm)", ylabel="distance (cm)")
    axes.set_title(f"box of {side_cm:g} cm, neighbor {gap_cm:g} cm beside it", fontsize=9)
    axes.grid(False)
