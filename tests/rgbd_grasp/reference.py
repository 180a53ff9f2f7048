"""Scenes that the real graspnetAPI has judged (data/README.md)."""

from functools import cache
from pathlib import Path

import numpy as np

from paperlab.rgbd_grasp.evaluation.scene import Frame, GraspObject, table_in_camera
from paperlab.rgbd_grasp.geometry.grasp import GraspGroup
from paperlab.rgbd_grasp.geometry.mesh import Mesh
from paperlab.rgbd_grasp.geometry.sdf import SdfGrid

DATA = Path(__file__).parent / "data"
SCENES = ("scene_00", "scene_01", "scene_02", "scene_03")


@cache
def load(name):
    with np.load(DATA / f"{name}.npz", allow_pickle=False) as file:
        return {key: file[key] for key in file.files}


def sdf(data, k):
    return SdfGrid(data[f"obj{k}_sdf"], data[f"obj{k}_sdf_origin"], float(data[f"obj{k}_sdf_cell"]))


def mesh(data, k):
    return Mesh(data[f"obj{k}_vertices"], data[f"obj{k}_faces"])


def frame(data, surface=sdf):
    objects = [GraspObject(data[f"obj{k}_cloud"], surface(data, k)) for k in range(len(data["poses"]))]
    return Frame(objects, data["poses"], table_in_camera(data["cam0_wrt_table"] @ data["camera_pose"]))


def grasps(data):
    return GraspGroup(data["grasps"])
