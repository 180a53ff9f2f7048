"""Fast Analytic Searching: for each oriented seed, a grid of openings and distances, and the survivor one prefers."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Literal, get_args

import numpy as np

from paperlab.rgbd_grasp.geometry.checks import Bools, Floats, Ints, one_of
from paperlab.rgbd_grasp.geometry.grasp import HEIGHT_M, GraspGroup
from paperlab.rgbd_grasp.search.detector import Detector, points_nearby

Shift = Literal["approach", "camera_z"]
DistanceOrder = Literal["farthest", "middle", "nearest"]
WidthOrder = Literal["widest", "smallest"]
_EPS = 1e-9


@dataclass(frozen=True)
class Search:
    """The grid and the preferences; the defaults are the paper's grid and the released code's preference.

    Distances move the gripper into the scene, along its approach or along the camera's axis; the farthest from the
    object is the smallest. A survivor may open `width_margin_m` farther than preferred, where that survives as well.
    """

    widths_m: tuple[float, ...] = tuple(k / 100 for k in range(1, 11))
    distances_m: tuple[float, ...] = (-0.02, -0.01, 0.0, 0.01, 0.02)
    shift: Shift = "approach"
    distance_order: DistanceOrder = "farthest"
    width_order: WidthOrder = "widest"
    width_margin_m: float = 0.0
    ranks_candidates: bool = False  # add the candidate's merit w/10 - distance to the score, as the released code does
    detector: Detector = field(default_factory=Detector)

    def __post_init__(self) -> None:
        for name, kind in (("shift", Shift), ("distance_order", DistanceOrder), ("width_order", WidthOrder)):
            one_of(name, getattr(self, name), get_args(kind))
        for name in ("widths_m", "distances_m"):
            values = getattr(self, name)
            if not values or list(values) != sorted(set(values)):
                raise ValueError(f"{name}: got {values}, needs different values in ascending order")
        if self.widths_m[0] <= 0 or self.width_margin_m < 0:
            raise ValueError(f"Search: widths must be positive and the margin not negative, got {self}")


OFFICIAL_CODE = Search(
    widths_m=(0.1,), distances_m=(-0.01, 0.0, 0.01), shift="camera_z", ranks_candidates=True
)  # the released function's defaults
OFFICIAL_DEMO = Search(
    widths_m=(0.1,),
    distances_m=(-0.02, 0.0, 0.02),
    shift="camera_z",
    ranks_candidates=True,
    detector=Detector(empty_share=0.1),
)


@dataclass(frozen=True, eq=False)
class Found:
    """What the search found: one grasp for each seed that has a survivor, in the seeds' order."""

    grasps: GraspGroup
    seeds: Ints  # (M,) rows of the seeds
    distances: Ints  # (M,) indices of the chosen distance
    widths: Ints  # (M,) indices of the chosen opening
    hit: Bools  # (N, distances, widths) every candidate's verdict
    empty: Bools

    @property
    def counts(self) -> dict[str, int]:
        """How many seeds there were, how many were blocked or empty throughout, and how many survived."""
        blocked = self.hit.all(axis=(1, 2))
        survived = len(self.seeds)
        return {
            "seeds": len(self.hit),
            "blocked": int(blocked.sum()),
            "blocked or empty": len(self.hit) - survived - int(blocked.sum()),
            "survived": survived,
        }


def directions(seeds: GraspGroup, search: Search) -> Floats:
    """Return the unit vectors (N, 3), in the seeds' frame of reference, along which distances count."""
    if search.shift == "approach":
        return seeds.rotation_matrices[:, :, 0]
    return np.tile([0.0, 0.0, 1.0], (len(seeds), 1))


def candidate_verdicts(seeds: GraspGroup, cloud: Floats, search: Search) -> tuple[Bools, Bools]:
    """Return which candidates (N, D, W) of seeds collide with `cloud` (P, 3), and which are empty.

    One pass over the points near each seed: along the closing axis a point counts for all openings at once.
    """
    detector, widths = search.detector, np.array(search.widths_m)
    slack = max(abs(distance) for distance in search.distances_m)
    steps = np.einsum("ni,nij->nj", directions(seeds, search), seeds.rotation_matrices)  # in the seeds' own frames
    level = HEIGHT_M / 2 + slack * np.abs(steps[:, 2]) + _EPS
    row, local = points_nearby(seeds, cloud, detector, search.widths_m[-1], slack, level)
    step = np.ascontiguousarray(steps.T)[:, row]
    front = seeds.depths[row]
    rear = front - detector.finger_length_m
    shape = (2, len(search.distances_m), len(seeds), len(widths))
    blocked, inner = np.zeros(shape[1:]), np.zeros(shape[1:])
    for i, distance in enumerate(search.distances_m):
        x, y, z = local - distance * step
        used = (np.abs(z) < HEIGHT_M / 2) & (x < front) & (x > rear - detector.behind_m)
        at, y, fingers = row[used], np.abs(y[used]), (x > rear)[used]
        outer = _counts(at, np.searchsorted(widths / 2 + detector.finger_m, y, side="right"), shape[2:])
        inner[i] = _counts(at[fingers], np.searchsorted(widths / 2, y[fingers], side="left"), shape[2:])
        blocked[i] = outer - inner[i]
    hit, empty = detector.verdicts(blocked, inner, widths)
    return hit.transpose(1, 0, 2), empty.transpose(1, 0, 2)


def _counts(row: Ints, first: Ints, shape: tuple[int, ...]) -> Ints:
    """Return how many points (N, W) lie within each opening, from the first opening that holds each point."""
    seeds, widths = shape
    flat = np.bincount(row * (widths + 1) + first, minlength=seeds * (widths + 1))
    return flat.reshape(seeds, widths + 1)[:, :widths].cumsum(axis=1)


def merits(search: Search) -> Floats:
    """Return what each candidate (D, W) is worth; distances come before openings.

    Farthest and widest is the released code's w/10 - distance.
    """
    distance, width = np.array(search.distances_m)[:, None], np.array(search.widths_m) / 10
    rank = {"farthest": -distance, "middle": -np.abs(distance), "nearest": distance}[search.distance_order]
    return rank + (width if search.width_order == "widest" else -width)


def search_grasps(seeds: GraspGroup, cloud: Floats, search: Search | None = None) -> Found:
    """Return the preferred surviving candidate of each seed (N grasps: score, rotation, translation and depth count).

    `cloud` (P, 3) is what the camera sees, table included, in the frame of the seeds, averaged over voxels of
    `search.detector.voxel_m`. Seeds without a survivor are dropped.
    """
    search = search or Search()
    hit, empty = candidate_verdicts(seeds, cloud, search)
    alive = ~hit & ~empty
    merit = merits(search)
    best = np.where(alive, merit, -np.inf).reshape(len(seeds), merit.size).argmax(axis=1)
    rows = np.flatnonzero(alive.any(axis=(1, 2)))
    distance, width = np.unravel_index(best[rows], merit.shape)
    width = _widened(alive[rows, distance], width, search)
    moved = seeds[rows]
    steps = np.array(search.distances_m)[distance, None] * directions(moved, search)
    moved.translations = moved.translations + steps
    moved.widths = np.array(search.widths_m)[width]
    if search.ranks_candidates:
        moved.scores = moved.scores + moved.widths / 10 - np.array(search.distances_m)[distance]
    return Found(moved, rows, distance, width, hit, empty)


def _widened(alive: Bools, chosen: Ints, search: Search) -> Ints:
    """Return the index (M,) of the widest surviving opening within the margin above the chosen one."""
    widths = np.array(search.widths_m)
    allowed = (
        alive & (widths <= widths[chosen][:, None] + search.width_margin_m + _EPS) & (widths >= widths[chosen][:, None])
    )
    return len(widths) - 1 - allowed[:, ::-1].argmax(axis=1)
