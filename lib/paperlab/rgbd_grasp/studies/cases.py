"""Cases evaluated on test frames: the unit of every table of average precision; each runs once a process."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
import pandas as pd

from paperlab.lab.workers import in_processes
from paperlab.rgbd_grasp.config import Config
from paperlab.rgbd_grasp.dataset.layout import SPLITS
from paperlab.rgbd_grasp.evaluation.precision import frame_ap
from paperlab.rgbd_grasp.evaluation.table import Judged, judge, results_table
from paperlab.rgbd_grasp.studies import material, methods
from paperlab.rgbd_grasp.studies.methods import AVN, Case

Place = tuple[int, int]  # scene and frame


@dataclass(frozen=True)
class _Task:
    place: Place
    cases: tuple[Case, ...]


_DONE: dict[tuple[Case, Place], list[Judged]] = {}


def judged(config: Config, cases: Iterable[Case], places: Sequence[Place]) -> dict[Case, list[Judged]]:
    """Return the verdicts on every case, frame by frame, without and with collision filter.

    Nets that are missing are trained first; then each frame's missing cases are one piece of work.
    """
    wanted = list(dict.fromkeys(cases))
    material.train(config, [case.net for case in wanted if case.method in AVN.values()])
    tasks = []
    for place in dict.fromkeys(places):
        missing = tuple(case for case in wanted if (case, place) not in _DONE)
        if missing:
            tasks.append(_Task(place, missing))
    for task, found in zip(tasks, in_processes(_run, tasks, config.workers, reuse=True), strict=True):
        _DONE.update({(case, task.place): verdicts for case, verdicts in zip(task.cases, found, strict=True)})
    return {case: [item for place in places for item in _DONE[case, place]] for case in wanted}


def _run(task: _Task) -> list[list[Judged]]:
    data = material.data()
    frame = data.evaluation_frame(data.view(*task.place))
    found = []
    for case in task.cases:
        grasps, cloud = methods.run(case, data, *task.place)
        found.append(judge(case.method, task.place[0], frame, grasps, cloud, case.settings.search.detector))
    return found


def split_of(scene_id: int) -> str:
    """Return the split that a scene belongs to."""
    return next(name for name, ids in SPLITS.items() if scene_id in ids)


def ap_table(found: dict[Case, list[Judged]], names: dict[Case, str] | None = None) -> pd.DataFrame:
    """Return one row per split, method and collision filter: AP, AP_0.8, AP_0.4 with intervals, and mean counts.

    Cases of one name, such as nets of several seeds, share their rows. `names` are the methods' by default.
    """
    rows: dict[str, list[Judged]] = {}
    masks = {}
    for case, items in found.items():
        name = case.method if names is None else names[case]
        masks[name] = case.mask
        for item in items:
            rows.setdefault(split_of(item.scene_id), []).append(replace(item, method=name))
    tables = [results_table(items).assign(split=split) for split, items in rows.items()]
    table = pd.concat(tables, ignore_index=True)
    table.insert(0, "split", table.pop("split"))
    table.insert(2, "mask", table.method.map(masks))
    return table


def pooled_row(items: Sequence[Judged]) -> dict[str, Any]:
    """Return AP with its interval over all scenes, whatever the split, and mean counts; without collision filter."""
    kept = [item for item in items if not item.collision_filter]
    row = results_table(kept).iloc[0]
    return {str(key): value for key, value in row.items() if key not in ("method", "collision_filter", "survivors")}


def scene_ap(items: Sequence[Judged], filtered: bool = False) -> pd.Series:
    """Return the mean AP, in percent, of each scene's frames."""
    chosen = [item for item in items if item.collision_filter == filtered]
    values = 100 * frame_ap(np.stack([item.result.precision for item in chosen]))[:, 0]
    return pd.Series(values, index=[item.scene_id for item in chosen]).groupby(level=0).mean()
