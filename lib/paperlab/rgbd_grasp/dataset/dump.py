"""Evaluating a folder of predictions, one `.npy` per frame, as graspnetAPI's users keep them."""

from __future__ import annotations

from collections.abc import Iterable
from pathlib import Path

import numpy as np

from paperlab.rgbd_grasp.dataset.layout import Layout
from paperlab.rgbd_grasp.dataset.reader import GraspNet, Surface
from paperlab.rgbd_grasp.evaluation.frame import evaluate
from paperlab.rgbd_grasp.geometry.checks import Floats, Ints
from paperlab.rgbd_grasp.geometry.grasp import GraspGroup


def save_prediction(dump: Path, scene_id: int, camera_name: str, frame_id: int, grasps: GraspGroup) -> Path:
    """Write a frame's ranked grasps into a dump."""
    path = Layout(dump).prediction(scene_id, camera_name, frame_id)
    path.parent.mkdir(parents=True, exist_ok=True)
    grasps.save_npy(path)
    return path


def evaluate_dump(
    data: GraspNet, dump: Path, scene_ids: Iterable[int] | None = None, surface: Surface = "sdf"
) -> tuple[Floats, Ints]:
    """Return the precision (F, 50, 6) of every frame of scenes, and the scene (F,) of each.

    Both go into `average_precision`. Raises FileNotFoundError, before any work, where a prediction is missing.
    """
    frames = [
        (i, k) for i in (data.scene_ids() if scene_ids is None else scene_ids) for k in range(data.frame_count(i))
    ]
    paths = [Layout(dump).prediction(i, data.camera_name, k) for i, k in frames]
    missing = [path for path in paths if not path.exists()]
    if missing or not frames:
        first = f", the first is {missing[0]}" if missing else ""
        raise FileNotFoundError(f"{dump}: {len(missing)} of {len(frames)} predictions are missing{first}")
    precision = [
        evaluate(data.evaluation_frame(data.view(i, k), surface), GraspGroup(path)).precision
        for (i, k), path in zip(frames, paths, strict=True)
    ]
    return np.stack(precision), np.array([i for i, _ in frames])
