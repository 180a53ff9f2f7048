"""The cell that judges grasps: average precision of nets, oracle and random orientations. It has not run on a GPU."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pandas as pd

from paperlab.lab import timing
from paperlab.lab.workers import in_processes
from paperlab.rgbd_grasp.baselines.geometric import random_orientation
from paperlab.rgbd_grasp.baselines.observation import Observation
from paperlab.rgbd_grasp.baselines.oracle import oracle_search
from paperlab.rgbd_grasp.dataset.view import View
from paperlab.rgbd_grasp.evaluation.table import Judged, judge, results_table
from paperlab.rgbd_grasp.gpu.bench import Bench
from paperlab.rgbd_grasp.gpu.frames import reader
from paperlab.rgbd_grasp.network.config import AvnConfig, Modality
from paperlab.rgbd_grasp.prediction.avn import Avn
from paperlab.rgbd_grasp.search.pipeline import Ranked, Settings, grasps_from_heatmap
from paperlab.rgbd_grasp.search.workspace import MaskKind, find_workspace

MASK: MaskKind = "depth_plane"  # nothing privileged


@dataclass(frozen=True, eq=False)
class _Task:
    tree: Path
    method: str
    config: AvnConfig
    max_friction: float
    scene_id: int
    frame_id: int
    heatmap: np.ndarray | None  # of a net


def _judge(task: _Task) -> list[Judged]:
    """Search and evaluate one view; the labels reach the oracle only."""
    data = reader(task.tree)
    view = data.view(task.scene_id, task.frame_id)
    workspace = find_workspace(MASK, task.config.grid, depth_m=view.depth_m, camera=view.camera)
    observation = Observation(view.depth_m, view.camera, workspace, Settings())
    rng, anchors = np.random.default_rng((task.scene_id, task.frame_id)), task.config.anchors
    found: Ranked
    if task.heatmap is not None:
        heatmap = task.heatmap.astype(np.float32)
        found = grasps_from_heatmap(heatmap, view.depth_m, view.camera, anchors, Settings(), workspace)
    elif task.method == "oracle":
        found = oracle_search(data.antipodal(view, task.max_friction), observation, anchors, rng)
    else:
        found = random_orientation(observation, anchors, rng)
    return judge(task.method, view.scene_id, data.evaluation_frame(view), found.grasps, observation.cloud)


def _table(bench: Bench, method: str, heatmap: Callable[[View], np.ndarray | None]) -> pd.DataFrame:
    scope, frames = bench.scope, bench.frames
    tasks, splits = [], []
    for split in scope.test_splits:
        for view in frames.judged(split):
            place = (view.scene_id, view.frame_id, heatmap(view))
            tasks.append(_Task(frames.tree(split), method, scope.net, scope.max_friction, *place))
            splits.append(split)
    verdicts = in_processes(_judge, tasks, scope.workers)  # all at once: processes take seconds to start
    parts = []
    for split in scope.test_splits:
        mine = [item for at, found in zip(splits, verdicts, strict=True) if at == split for item in found]
        parts.append(results_table(mine).assign(split=split, mask=MASK))
    return pd.concat(parts, ignore_index=True).assign(**timing.machine(bench.device))


def net_grasps(bench: Bench, modality: Modality, seed: int) -> pd.DataFrame:
    """Judge the grasps of a trained net; empty where it is not trained yet."""
    path = bench.weights(modality, seed)
    if not path.exists():
        return pd.DataFrame()
    avn = Avn.load(path)
    avn.net.to(bench.device)

    def heatmap(view: View) -> np.ndarray:
        return avn.heatmap(view.rgb, view.depth_m, view.camera).astype(np.float16)  # on their way to other processes

    return _table(bench, "AVN", heatmap).assign(modality=modality, seed=seed)


def other_grasps(bench: Bench, method: str) -> pd.DataFrame:
    """Judge the oracle's heatmap or random orientations, searched in the same way; empty without frames."""
    if not bench.has_frames():
        return pd.DataFrame()
    return _table(bench, method, lambda view: None)
