"""Decode, search, suppress, rank: a heatmap and a depth image in, grasps out."""

from __future__ import annotations

from dataclasses import dataclass, field

from paperlab.rgbd_grasp.geometry.anchors import Anchors
from paperlab.rgbd_grasp.geometry.cameras import Camera
from paperlab.rgbd_grasp.geometry.checks import Floats
from paperlab.rgbd_grasp.geometry.grasp import GraspGroup
from paperlab.rgbd_grasp.geometry.voxels import voxel_average
from paperlab.rgbd_grasp.search.decode import Decoding, decode
from paperlab.rgbd_grasp.search.fas import Search, search_grasps
from paperlab.rgbd_grasp.search.workspace import MaskKind, Workspace


@dataclass(frozen=True)
class Settings:
    """Everything between heatmap and grasps."""

    decoding: Decoding = field(default_factory=Decoding)
    search: Search = field(default_factory=Search)
    top_grasps: int = 200

    def __post_init__(self) -> None:
        if self.top_grasps < 1:
            raise ValueError(f"top_grasps: got {self.top_grasps}, needs at least 1")


@dataclass(frozen=True, eq=False)
class Ranked:
    """Grasps, best first, in the camera's frame, and how they came about."""

    grasps: GraspGroup
    mask: MaskKind  # the workspace that was searched; "gt" is privileged
    counts: dict[str, int]  # seeds and what became of them


def observed_cloud(depth_m: Floats, camera: Camera, voxel_m: float) -> Floats:
    """Return what the camera sees as points (P, 3), averaged over voxels, holes left out."""
    return voxel_average(camera.cloud(depth_m)[depth_m > 0], voxel_m)


def grasps_from_seeds(seeds: GraspGroup, cloud: Floats, settings: Settings, mask: MaskKind) -> Ranked:
    """Search around seeds in an observed cloud, suppress what is near to a better grasp, and rank the rest.

    `mask` is the kind of workspace that the seeds come from.
    """
    found = search_grasps(seeds, cloud, settings.search)
    thresholds = settings.decoding.nms_translation_m, settings.decoding.nms_rotation_rad
    grasps = found.grasps.nms(*thresholds)[: settings.top_grasps]
    return Ranked(grasps, mask, {**found.counts, "grasps": len(grasps)})


def grasps_from_heatmap(
    heatmap: Floats, depth_m: Floats, camera: Camera, anchors: Anchors, settings: Settings, workspace: Workspace
) -> Ranked:
    """Return ranked grasps from a heatmap (C, rows, columns) and a depth image (H, W) in meters."""
    seeds = decode(heatmap, depth_m, camera, anchors, settings.decoding, workspace.cells)
    cloud = observed_cloud(depth_m, camera, settings.search.detector.voxel_m)
    return grasps_from_seeds(seeds, cloud, settings, workspace.kind)
