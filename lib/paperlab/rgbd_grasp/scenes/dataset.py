"""A data set of generated scenes in GraspNet-1Billion's layout: written, resumed, read back with its own labels."""

from __future__ import annotations

import dataclasses
import io
import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from paperlab.lab.files import write_atomic, write_json
from paperlab.lab.workers import in_processes
from paperlab.rgbd_grasp.dataset.images import read_png, write_png
from paperlab.rgbd_grasp.dataset.layout import SPLITS, Layout
from paperlab.rgbd_grasp.dataset.reader import GraspNet
from paperlab.rgbd_grasp.dataset.view import View
from paperlab.rgbd_grasp.dataset.writer import write_collisions, write_scene
from paperlab.rgbd_grasp.evaluation.scene import table_points
from paperlab.rgbd_grasp.geometry.anchors import label_anchors
from paperlab.rgbd_grasp.geometry.checks import Bools, Floats, one_of
from paperlab.rgbd_grasp.geometry.grasp import GraspGroup
from paperlab.rgbd_grasp.geometry.rotations import inverse, move
from paperlab.rgbd_grasp.labels.scene import scene_collision_labels
from paperlab.rgbd_grasp.scenes.assets import exhaustive_labels, surface_voxels, write_assets
from paperlab.rgbd_grasp.scenes.catalog import catalog, family_of, object_ids
from paperlab.rgbd_grasp.scenes.generate import Scene, Sizes, label_scene, make_scene, take_views

CAMERA = "realsense"
_MARKER, _GRASPS = "generated.json", "antipodal.npz"


@dataclasses.dataclass(frozen=True)
class _Job:
    """One scene to write, or one object's assets where `scene_id` is -1."""

    root: Path
    scene_id: int
    object_ids: tuple[int, ...]
    seed: int
    sizes: Sizes


def make_dataset(
    folder: Path | str,
    scenes: int = 90,
    split: str = "train",
    seed: int = 0,
    sizes: Sizes | None = None,
    *,
    workers: int = 1,
    progress: bool = True,
) -> list[int]:
    """Write the first `scenes` scenes of a split into a folder, those that are not there yet, and return their ids.

    Splits have the data set's numbers: train 0 to 99 and seen 100 to 129 with seen objects, similar 130 to 159, novel
    160 to 189. The same seed gives the same bytes with any number of workers; a killed run is resumed by calling
    again. Raises ValueError where the folder holds scenes of another seed or size.
    """
    return make_datasets(folder, {split: scenes}, seed, sizes, workers=workers, progress=progress)


def make_datasets(
    folder: Path | str,
    scenes: Mapping[str, int],
    seed: int = 0,
    sizes: Sizes | None = None,
    *,
    workers: int = 1,
    progress: bool = True,
) -> list[int]:
    """Write the first scenes of several splits, as many as `scenes` says of each, as `make_dataset` does."""
    root, sizes = Path(folder), sizes or Sizes()
    for split, count in scenes.items():
        one_of("split", split, tuple(SPLITS))
        if not 1 <= count <= len(SPLITS[split]):
            raise ValueError(f"scenes: got {count}, needs 1 to {len(SPLITS[split])}, as many as split {split!r} has")
    _check_marker(root, seed, sizes)
    chosen = {i: tuple(object_ids(family_of(split))) for split, n in scenes.items() for i in SPLITS[split][:n]}
    objects = sorted({i for ids in chosen.values() for i in ids})
    _run([_Job(root, -1, (i,), seed, sizes) for i in objects], workers, progress, "objects")
    layout = Layout(root)
    todo = [_Job(root, i, ids, seed, sizes) for i, ids in chosen.items() if not layout.object_list(i).exists()]
    _run(todo, workers, progress, "scenes")
    return list(chosen)


def _run(jobs: Sequence[_Job], workers: int, progress: bool, title: str) -> None:
    from tqdm.auto import tqdm

    with tqdm(total=len(jobs), desc=title, disable=not (progress and jobs)) as bar:
        in_processes(_work, jobs, workers, bar.update)


def _work(job: _Job) -> None:
    if job.scene_id < 0:
        object_id = job.object_ids[0]
        write_assets(job.root, object_id, catalog()[object_id], job.sizes.label_points)
        return
    scene = make_scene(job.scene_id, job.seed, list(job.object_ids), job.sizes.objects)
    write_generated(job.root, scene, job.sizes, job.seed)


def _check_marker(root: Path, seed: int, sizes: Sizes) -> None:
    """Raise ValueError where a folder was made otherwise, or holds scenes that were not made here at all."""
    marker = root / _MARKER
    wanted = {"seed": seed, **dataclasses.asdict(sizes)}
    if marker.exists():
        found = json.loads(marker.read_text())
        for name, value in wanted.items():
            if found.get(name) != value:
                raise ValueError(f"{root}: was made with {name} {found.get(name)}, now {value}; use another folder")
    elif (root / "scenes").exists():
        raise ValueError(f"{root}: holds scenes that were not generated here; use another folder")
    else:
        write_json(marker, wanted)


def write_generated(root: Path, scene: Scene, sizes: Sizes, seed: int) -> None:
    """Write a scene's frames, normals and labels; the list of its objects comes last, and tells that it is whole."""
    layout = Layout(root)
    grasps = label_scene(scene, sizes.grasps, seed)
    buffer = io.BytesIO()
    np.savez_compressed(buffer, grasps=grasps.grasp_group_array.astype(np.float32), object_ids=scene.object_ids)
    write_atomic(layout.scene(scene.scene_id) / _GRASPS, buffer.getvalue())
    shots = take_views(scene, sizes, seed)
    for index, shot in enumerate(shots):
        pixels = np.round(127.5 * (shot.normals + 1)).astype(np.uint8)
        write_png(_normals_path(layout, scene.scene_id, CAMERA, index), pixels, "rgb")
    if sizes.label_points:
        write_collisions(root, scene.scene_id, _exhaustive_collisions(scene, sizes.label_points))
    write_scene(root, [shot.view for shot in shots], CAMERA, [solid.name for solid in scene.solids])


def _exhaustive_collisions(scene: Scene, label_points: int) -> list[Bools]:
    labels = [exhaustive_labels(solid.mesh, label_points) for solid in scene.solids]
    clouds = [move(surface_voxels(s.mesh), pose) for s, pose in zip(scene.solids, scene.poses, strict=True)]
    return scene_collision_labels(labels, label_anchors().views, scene.poses, clouds, table_points())


def _normals_path(layout: Layout, scene_id: int, camera: str, frame_id: int) -> Path:
    return layout.scene(scene_id) / camera / "normals" / f"{frame_id:04d}.png"


class Generated(GraspNet):
    """A folder of generated scenes, read like the real data, with sampled grasps and normals besides."""

    def __init__(self, root: Path | str) -> None:
        super().__init__(root, CAMERA)

    def normals(self, scene_id: int, frame_id: int) -> NDArray[np.float32]:
        """Return the true unit normals (H, W, 3) of a frame, in the camera's frame and toward it; 0 for nothing."""
        pixels: NDArray[Any] = read_png(_normals_path(self.layout, scene_id, self.camera_name, frame_id), "rgb")
        normals = pixels.astype(np.float32) / 127.5 - 1
        length = np.linalg.norm(normals, axis=-1, keepdims=True)
        return np.where(length > 0.5, normals / np.maximum(length, 0.5), 0.0).astype(np.float32)

    def antipodal(self, view: View, max_friction: float = 0.2, *, visible: bool = True) -> GraspGroup:
        """Return sampled grasps of a view that hold at `max_friction`, up to 0.4, free of the scene, in its frame.

        Object ids are rows of `view.object_ids`. `visible` keeps those whose grasp point appears on their own object,
        which an image can tell, and that approach away from the camera, as all of the network's classes do.
        """
        path = self.layout.scene(view.scene_id) / _GRASPS
        try:
            with np.load(path, allow_pickle=False) as file:
                rows, owners = file["grasps"].astype(np.float64), tuple(file["object_ids"].tolist())
        except (KeyError, ValueError) as error:
            raise ValueError(f"{path}: {error}; needs grasps and object_ids") from None
        if owners != view.object_ids:
            raise ValueError(f"{path}: labels objects {owners}, the view shows {view.object_ids}; of another scene?")
        grasps = GraspGroup(rows)
        grasps = grasps[grasps.scores > 1.1 - max_friction - 0.05].transform(inverse(view.table_from_camera))
        return grasps[_visible(grasps, view)] if visible else grasps


def _visible(grasps: GraspGroup, view: View) -> Bools:
    pixels = view.camera.project(grasps.translations)
    column, row = np.nan_to_num(np.round(pixels), nan=-1.0).astype(int).T
    inside = (column >= 0) & (column < view.camera.width) & (row >= 0) & (row < view.camera.height)
    shown = np.zeros(len(grasps), dtype=int)
    shown[inside] = view.segmentation[row[inside], column[inside]]
    own = np.array(view.object_ids)[grasps.object_ids.astype(int)] + 1
    away: Floats = grasps.rotation_matrices[:, 2, 0]
    return (shown == own) & (away > 0)
