"""Rows of a results table: average precision with intervals, with and without the collision filter, and survivors."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np

from paperlab.rgbd_grasp.evaluation.frame import Evaluated, evaluate
from paperlab.rgbd_grasp.evaluation.precision import average_precision
from paperlab.rgbd_grasp.evaluation.scene import Frame
from paperlab.rgbd_grasp.geometry.checks import Floats
from paperlab.rgbd_grasp.geometry.grasp import GraspGroup
from paperlab.rgbd_grasp.search.detector import Detector, detect

if TYPE_CHECKING:
    import pandas as pd


@dataclass(frozen=True, eq=False)
class Judged:
    """A method's grasps in one frame, and the verdicts."""

    method: str
    scene_id: int
    collision_filter: bool  # whether grasps that hit the observed cloud were left out before
    handed_in: int
    survivors: int  # of the filter
    result: Evaluated


def judge(
    method: str, scene_id: int, frame: Frame, grasps: GraspGroup, cloud: Floats, detector: Detector | None = None
) -> list[Judged]:
    """Evaluate a method's grasps as they are, and without those that collide with, or are empty in, what is seen.

    `cloud` (P, 3) is the observed one, averaged over the detector's voxels. The filter needs no knowledge of the
    scene, and alone moves AP by many points, so no method should be compared with it on one side only.
    """
    hit, empty = detect(grasps, cloud, detector)
    free = grasps[~(hit | empty)]
    plain = evaluate(frame, grasps)
    # After a search that has the same detector nothing is left to filter.
    filtered = plain if len(free) == len(grasps) else evaluate(frame, free)
    return [
        Judged(method, scene_id, False, len(grasps), len(grasps), plain),
        Judged(method, scene_id, True, len(grasps), len(free), filtered),
    ]


def results_table(judged: Iterable[Judged], seed: int = 0) -> pd.DataFrame:
    """Return one row per method and filter setting, in order of appearance.

    AP, AP_0.8 and AP_0.4 in percent with 95 % intervals over scenes; counts are means per frame.
    """
    import pandas as pd

    groups: dict[tuple[str, bool], list[Judged]] = {}
    for item in judged:
        groups.setdefault((item.method, item.collision_filter), []).append(item)
    return pd.DataFrame([_row(method, filtered, items, seed) for (method, filtered), items in groups.items()])


def _row(method: str, filtered: bool, items: list[Judged], seed: int) -> dict[str, object]:
    precision = np.stack([item.result.precision for item in items])
    scenes = [item.scene_id for item in items]
    row: dict[str, object] = {
        "method": method,
        "collision_filter": filtered,
        "scenes": len(set(scenes)),
        "frames": len(items),
    }
    for name, interval in average_precision(precision, scenes, seed=seed)._asdict().items():
        row |= {name: interval.mean, f"{name}_low": interval.low, f"{name}_high": interval.high}
    row["handed_in"] = np.mean([item.handed_in for item in items])
    row["survivors"] = np.mean([item.survivors for item in items])
    for name in ("judged", "collided", "empty", "held"):
        row[name] = np.mean([item.result.counts[name] for item in items])
    return row
