"""Timing bars of RGBD-Grasp's search and evaluator, in CPU seconds of one core."""

import time

import numpy as np
import pytest

from paperlab.rgbd_grasp.evaluation.frame import evaluate
from paperlab.rgbd_grasp.geometry.grasp import GraspGroup
from paperlab.rgbd_grasp.geometry.rotations import random_rotations, rigid
from paperlab.rgbd_grasp.geometry.shapes import box, cylinder, sphere
from paperlab.rgbd_grasp.labels.grid import label_object, spread_points
from paperlab.rgbd_grasp.scenes import catalog
from paperlab.rgbd_grasp.scenes.assets import surface_voxels
from paperlab.rgbd_grasp.search.fas import Search, search_grasps
from paperlab.rgbd_grasp.search.pipeline import observed_cloud
from tests.rgbd_grasp import reference
from tests.rgbd_grasp.test_search import CAMERA, depth_of

pytestmark = [pytest.mark.bench, pytest.mark.slow]


def best_cpu_s(function, rounds=10):
    """The fastest of some runs: what else the machine does only ever adds."""
    times = []
    for _ in range(rounds):
        start = time.process_time()
        function()
        times.append(time.process_time() - start)
    return min(times)


def test_search_of_two_hundred_seeds_takes_at_most_60_ms():
    rng = np.random.default_rng(0)
    solids = [box(0.05, 0.06, 0.08), cylinder(0.03, 0.08), sphere(0.035, 3)]
    placed = [solids[i % 3].moved(rigid(np.eye(3), [*rng.uniform(-0.15, 0.15, 2), 0.04])) for i in range(8)]
    depth, _ = depth_of(placed)
    cloud = observed_cloud(depth, CAMERA, 0.005)
    assert len(cloud) > 8000
    rotations = random_rotations(1000, rng)
    rotations = rotations[rotations[:, 2, 0] > 0.3][:200]
    raised = cloud[cloud[:, 2] < 0.59]
    seeds = GraspGroup.from_parts(rotations, raised[rng.integers(len(raised), size=200)], depths=0.04)
    search = Search()
    assert len(search.widths_m) * len(search.distances_m) == 50
    assert best_cpu_s(lambda: search_grasps(seeds, cloud, search)) <= 0.060


def test_evaluation_of_a_frame_takes_at_most_150_ms():
    data = reference.load("scene_03")
    frame, grasps = reference.frame(data), reference.grasps(data)
    counts = evaluate(frame, grasps).counts
    assert counts["judged"] == 50
    assert counts["held"] > 30  # most reach the contact search and close
    assert best_cpu_s(lambda: evaluate(frame, grasps)) <= 0.150


def test_all_objects_are_labeled_exhaustively_within_six_minutes():
    """At 24 points of 300 views, 12 angles and 4 depths each; three of the 28 objects stand for all."""
    solids = catalog()
    chosen = [solids[i].mesh for i in list(solids)[::10]]
    seconds = [
        best_cpu_s(lambda m=mesh: label_object(m, surface_voxels(m), spread_points(m, 24)), 1) for mesh in chosen
    ]
    assert len(solids) * float(np.mean(seconds)) <= 360
