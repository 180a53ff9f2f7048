"""Seconds of one core: search, evaluation, heatmap, whole methods, on frames of the test scenes."""

from __future__ import annotations

import time
from collections.abc import Callable

import pandas as pd

from paperlab.rgbd_grasp.config import Config
from paperlab.rgbd_grasp.evaluation.frame import evaluate
from paperlab.rgbd_grasp.search.decode import Decoding, decode
from paperlab.rgbd_grasp.search.fas import search_grasps
from paperlab.rgbd_grasp.search.pipeline import observed_cloud
from paperlab.rgbd_grasp.studies import material, methods
from paperlab.rgbd_grasp.studies.material import NetSpec, trained_net
from paperlab.rgbd_grasp.studies.methods import Case, shown


def stage_times(config: Config, spec: NetSpec) -> pd.DataFrame:
    """Return CPU seconds per frame of each stage, the fastest of some rounds, mean over frames.

    What else the machine does only ever adds, so the fastest round is the stage's own.
    """
    frames = material.places("seen", min(4, config.test_scenes), 1)
    rows = [row for place in frames for row in _frame_times(place, spec, config.timing_rounds)]
    table = pd.DataFrame(rows, columns=["stage", "items", "cpu_s"])
    return table.groupby("stage", sort=False).mean().reset_index().assign(frames=len(frames))


def _frame_times(place: tuple[int, int], spec: NetSpec, rounds: int) -> list[tuple[str, int, float]]:
    data = material.data()
    scene = shown(Case("AVN-RGB + FAS", spec), data, *place)
    view, avn, cells = scene.view, trained_net(spec).avn, scene.observation.workspace.cells
    heatmap = avn.heatmap(view.rgb, view.depth_m, view.camera)
    many = Decoding(nms_translation_m=0.0)  # suppresses nothing, so that there are 200 seeds
    seeds = decode(heatmap, view.depth_m, view.camera, avn.anchors, many, cells)
    cloud = observed_cloud(view.depth_m, view.camera, 0.005)
    grasps, _ = methods.run(Case("labels as predictions", spec), data, *place)
    frame = data.evaluation_frame(view)
    stages: dict[str, tuple[int, Callable[[], object]]] = {
        "net: image to heatmap": (1, lambda: avn.heatmap(view.rgb, view.depth_m, view.camera)),
        "decode: heatmap to seeds": (1, lambda: decode(heatmap, view.depth_m, view.camera, avn.anchors, None, cells)),
        "cloud: depth to voxels": (1, lambda: observed_cloud(view.depth_m, view.camera, 0.005)),
        "search: seeds to grasps": (len(seeds), lambda: search_grasps(seeds, cloud)),
        "evaluation: grasps to AP": (evaluate(frame, grasps).counts["judged"], lambda: evaluate(frame, grasps)),
    }
    return [(name, items, _fastest(stage, rounds)) for name, (items, stage) in stages.items()]


def _fastest(stage: Callable[[], object], rounds: int) -> float:
    times = []
    for _ in range(rounds):
        start = time.process_time()
        stage()
        times.append(time.process_time() - start)
    return min(times)
