"""RGBD-Grasp: 7-DoF grasps from color and depth, orientation from color alone (ICRA 2021, arXiv 2103.02184).

Of the paper the abstract could be read, two quoted paragraphs and the released code; methods follow these. From the
paper's parts to files:

    grasps, orientations, cameras, solids            geometry
    contacts, force closure, labels, heatmaps        labels
    average precision on GraspNet-1Billion           evaluation
"""

from paperlab.rgbd_grasp.evaluation.frame import Evaluated, evaluate
from paperlab.rgbd_grasp.evaluation.precision import average_precision
from paperlab.rgbd_grasp.evaluation.scene import Frame, GraspObject
from paperlab.rgbd_grasp.geometry.anchors import Anchors, avn_anchors, label_anchors
from paperlab.rgbd_grasp.geometry.cameras import Camera, metric_depth
from paperlab.rgbd_grasp.geometry.grasp import Grasp, GraspGroup, to_tcp
from paperlab.rgbd_grasp.geometry.mesh import Mesh
from paperlab.rgbd_grasp.geometry.rect_grasp import RectGrasp, RectGraspGroup
from paperlab.rgbd_grasp.geometry.sdf import SdfGrid, mesh_sdf

__all__ = [
    "Anchors",
    "Camera",
    "Evaluated",
    "Frame",
    "Grasp",
    "GraspGroup",
    "GraspObject",
    "Mesh",
    "RectGrasp",
    "RectGraspGroup",
    "SdfGrid",
    "average_precision",
    "avn_anchors",
    "evaluate",
    "label_anchors",
    "mesh_sdf",
    "metric_depth",
    "to_tcp",
]
