"""The stages of the GPU run and their cells, in order of value. They have not run on a GPU yet."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from functools import partial
from typing import Any

import pandas as pd

from paperlab.lab.gpu_run import Cell, Stage
from paperlab.rgbd_grasp.gpu import bench as measure
from paperlab.rgbd_grasp.gpu import judging
from paperlab.rgbd_grasp.gpu.bench import Bench


def _cell(bench: Bench, name: str, function: Callable[..., pd.DataFrame], *args: Any) -> Cell:
    return Cell(name, partial(function, bench, *args))


def _frames(bench: Bench) -> Iterator[Cell]:
    for split, total in bench.scope.scenes.items():
        step = bench.scope.scenes_per_cell
        for scenes in [*range(step, total, step), total]:
            yield _cell(bench, f"{split}, {scenes} scenes", measure.frames, split, scenes)


def _speed(bench: Bench) -> Iterator[Cell]:
    for modality in ("rgb", "rgb_normals"):  # depth and normals alone cost what RGB does
        for batch in bench.scope.batches:
            yield _cell(bench, f"{modality}, B={batch}", measure.speed, modality, batch)


def _of_nets(bench: Bench, function: Callable[..., pd.DataFrame]) -> Iterator[Cell]:
    for seed in bench.scope.seeds:  # all modalities first, so that what the time admits can be compared
        for modality in bench.scope.modalities:
            yield _cell(bench, f"{modality}, seed {seed}", function, modality, seed)


def _heatmaps(bench: Bench) -> Iterator[Cell]:
    yield _cell(bench, "class prior", measure.prior)
    yield from _of_nets(bench, measure.heatmaps)


def _grasps(bench: Bench) -> Iterator[Cell]:
    for method in ("oracle", "random orientation"):
        yield _cell(bench, method, judging.other_grasps, method)
    yield from _of_nets(bench, judging.net_grasps)


_MAKERS: dict[str, tuple[float, Callable[[Bench], Iterator[Cell]]]] = {
    "frames": (0.3, _frames),
    "speed": (0.05, _speed),
    "training": (0.4, partial(_of_nets, function=measure.training)),
    "heatmaps": (0.1, _heatmaps),
    "grasps": (0.15, _grasps),
}
STAGES = tuple(_MAKERS)


def stages(bench: Bench) -> tuple[Stage, ...]:
    """Return all stages of a run, what others build on first."""
    return tuple(Stage(name, share, tuple(make(bench))) for name, (share, make) in _MAKERS.items())
