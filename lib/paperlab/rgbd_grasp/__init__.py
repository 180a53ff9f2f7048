"""RGBD-Grasp: 7-DoF grasps from color and depth, orientation from color alone (ICRA 2021, arXiv 2103.02184).

Of the paper the abstract could be read, two quoted paragraphs and the released code; methods follow these. From the
paper's parts to files:

    grasps, orientations, cameras, solids            geometry
    contacts, force closure, labels, heatmaps        labels
    Angle-View Net: encoder, upsampling, modalities  network
    labels to batches, losses, training, trained     learning
    a net as a detector, one's own image, swaps      prediction
    Fast Analytic Searching, decoding, workspace     search
    average precision on GraspNet-1Billion           evaluation
    baselines: oracles, methods without learning     baselines
    GraspNet-1Billion's files, read and written      dataset
    heatmaps, candidates, grasps in space, drawn     pictures.py
    scenes made from a seed, in the same layout      scenes
    noise of depth sensors                           noise.py
    picks in simulation, in place of the robot       physics
    tables and figures, from studies                 experiments.py, plots.py; sizes in config.py
    depth noise, picks, seconds                      robust_experiments.py, robust_plots.py
    what tables say to the ledger's claims           findings.py
    the notebook's exercises, panel, drawings        exercises.py, what_if.py, sketches.py
    what only a GPU shows, in one call               gpu_evidence.py, gpu
"""

from typing import TYPE_CHECKING, Any

from paperlab.rgbd_grasp.config import Config
from paperlab.rgbd_grasp.dataset.dump import evaluate_dump
from paperlab.rgbd_grasp.dataset.reader import GraspNet
from paperlab.rgbd_grasp.dataset.view import View
from paperlab.rgbd_grasp.evaluation.frame import Evaluated, evaluate
from paperlab.rgbd_grasp.evaluation.precision import average_precision
from paperlab.rgbd_grasp.evaluation.scene import Frame, GraspObject
from paperlab.rgbd_grasp.evaluation.table import judge, results_table
from paperlab.rgbd_grasp.geometry.anchors import Anchors, avn_anchors, label_anchors
from paperlab.rgbd_grasp.geometry.cameras import Camera, metric_depth
from paperlab.rgbd_grasp.geometry.grasp import Grasp, GraspGroup, to_tcp
from paperlab.rgbd_grasp.geometry.mesh import Mesh
from paperlab.rgbd_grasp.geometry.rect_grasp import RectGrasp, RectGraspGroup
from paperlab.rgbd_grasp.geometry.sdf import SdfGrid, mesh_sdf
from paperlab.rgbd_grasp.labels.grid import ObjectLabels, label_object
from paperlab.rgbd_grasp.labels.heatmap import heatmap_labels
from paperlab.rgbd_grasp.labels.sampler import antipodal_grasps
from paperlab.rgbd_grasp.network.config import FULL, SMALL, TINY, AvnConfig
from paperlab.rgbd_grasp.search.decode import Decoding, decode
from paperlab.rgbd_grasp.search.detector import Detector, detect
from paperlab.rgbd_grasp.search.fas import Search, search_grasps
from paperlab.rgbd_grasp.search.workspace import Workspace, find_workspace

if TYPE_CHECKING:
    from paperlab.rgbd_grasp.learning.recipe import Recipe
    from paperlab.rgbd_grasp.learning.samples import Samples, collect
    from paperlab.rgbd_grasp.learning.trained import trained
    from paperlab.rgbd_grasp.prediction.avn import Avn
    from paperlab.rgbd_grasp.prediction.predict import Prediction, predict

__all__ = [
    "FULL",
    "SMALL",
    "TINY",
    "Anchors",
    "Avn",
    "AvnConfig",
    "Camera",
    "Config",
    "Decoding",
    "Detector",
    "Evaluated",
    "Frame",
    "Grasp",
    "GraspGroup",
    "GraspNet",
    "GraspObject",
    "Mesh",
    "ObjectLabels",
    "Prediction",
    "Recipe",
    "RectGrasp",
    "RectGraspGroup",
    "Samples",
    "SdfGrid",
    "Search",
    "View",
    "Workspace",
    "antipodal_grasps",
    "average_precision",
    "avn_anchors",
    "collect",
    "decode",
    "detect",
    "evaluate",
    "evaluate_dump",
    "find_workspace",
    "heatmap_labels",
    "judge",
    "label_anchors",
    "label_object",
    "mesh_sdf",
    "metric_depth",
    "predict",
    "results_table",
    "search_grasps",
    "to_tcp",
    "trained",
]

# These load torch.
_LATE = {
    "Avn": "prediction.avn",
    "Prediction": "prediction.predict",
    "predict": "prediction.predict",
    "Recipe": "learning.recipe",
    "Samples": "learning.samples",
    "collect": "learning.samples",
    "trained": "learning.trained",
}


def __getattr__(name: str) -> Any:
    if name in _LATE:
        from importlib import import_module

        return getattr(import_module(f"{__name__}.{_LATE[name]}"), name)
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
