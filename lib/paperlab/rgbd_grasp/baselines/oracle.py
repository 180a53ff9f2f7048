"""Upper bounds: the labels themselves as predictions, and a perfect heatmap in place of the network's."""

from __future__ import annotations

import numpy as np

from paperlab.rgbd_grasp.baselines.observation import Observation
from paperlab.rgbd_grasp.geometry.anchors import Anchors, Symmetry
from paperlab.rgbd_grasp.geometry.checks import Floats
from paperlab.rgbd_grasp.geometry.grasp import GraspGroup
from paperlab.rgbd_grasp.labels.heatmap import heatmap_labels
from paperlab.rgbd_grasp.search.pipeline import Ranked, grasps_from_heatmap

_TIES = 1e-3  # of the labels' scores, which are 0.1 apart


def oracle_labels(labels: GraspGroup, rng: np.random.Generator) -> GraspGroup:
    """Return labeled grasps, in the camera's frame, as predictions: best score first, ties in random order.

    They see the whole scene and still do not reach 100: what the evaluator takes for a collision differs from what
    labels avoid, and nearly equal grasps suppress each other.
    """
    shuffled = labels[rng.permutation(len(labels))]
    shuffled.scores = shuffled.scores + _TIES * rng.random(len(labels))
    return shuffled.sort_by_score()


def oracle_heatmap(
    labels: GraspGroup, observation: Observation, anchors: Anchors, symmetry: Symmetry = "canonical"
) -> Floats:
    """Return the heatmap (C, rows, columns) that the labels make: each entry the best score of its grasps, else 0."""
    grid = observation.workspace.grid
    heatmap = np.zeros((len(anchors), grid.rows, grid.columns))
    for score in np.unique(labels.scores):
        level = labels[labels.scores == score]
        heatmap[heatmap_labels(level, observation.camera, anchors, grid, symmetry=symmetry)] = score
    return heatmap


def oracle_search(
    labels: GraspGroup,
    observation: Observation,
    anchors: Anchors,
    rng: np.random.Generator,
    symmetry: Symmetry = "canonical",
) -> Ranked:
    """Decode and search a perfect heatmap: what Fast Analytic Searching can reach, whatever the network."""
    heatmap = oracle_heatmap(labels, observation, anchors, symmetry)
    heatmap = np.where(heatmap > 0, heatmap + _TIES * rng.random(heatmap.shape), -np.inf)
    return grasps_from_heatmap(
        heatmap, observation.depth_m, observation.camera, anchors, observation.settings, observation.workspace
    )
