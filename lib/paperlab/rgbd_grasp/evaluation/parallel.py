"""Many frames evaluated by several processes; results in the order of the frames, the same with any number of them."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path

from paperlab.lab.workers import in_processes
from paperlab.rgbd_grasp.dataset.reader import GraspNet, Surface
from paperlab.rgbd_grasp.evaluation.frame import Evaluated, evaluate
from paperlab.rgbd_grasp.geometry.grasp import GraspGroup


@dataclass(frozen=True, eq=False)
class _Task:
    root: Path
    camera: str
    surface: Surface
    scene_id: int
    frame_id: int
    grasps: GraspGroup


@lru_cache(maxsize=2)
def _data(root: Path, camera: str) -> GraspNet:
    """Return the data set of this process, so that models are read once."""
    return GraspNet(root, camera)


def _evaluate(task: _Task) -> Evaluated:
    data = _data(task.root, task.camera)
    view = data.view(task.scene_id, task.frame_id)
    return evaluate(data.evaluation_frame(view, task.surface), task.grasps)


def evaluate_frames(
    root: Path | str,
    predictions: Sequence[tuple[int, int, GraspGroup]],
    *,
    workers: int = 1,
    camera: str = "realsense",
    surface: Surface = "sdf",
    after_each: Callable[[], object] = lambda: None,
) -> list[Evaluated]:
    """Return the verdict on each prediction (scene, frame, grasps in the camera's frame), in order.

    Raises ValueError or FileNotFoundError where a frame cannot be read; `after_each` advances a progress bar.
    """
    folder = Path(root).resolve()
    tasks = [_Task(folder, camera, surface, *prediction) for prediction in predictions]
    return in_processes(_evaluate, tasks, workers, after_each)
