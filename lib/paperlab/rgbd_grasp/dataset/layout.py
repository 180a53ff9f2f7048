"""Where GraspNet-1Billion keeps its files, and which of them are missing."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path

FRAMES = 256  # per scene and camera in the real data
CAMERAS = ("realsense", "kinect")
SPLITS = {"train": range(100), "seen": range(100, 130), "similar": range(130, 160), "novel": range(160, 190)}
_PER_FRAME = {"rgb": "png", "depth": "png", "label": "png", "annotations": "xml", "meta": "mat"}
_PER_CAMERA = ("camK.npy", "camera_poses.npy", "cam0_wrt_table.npy")


@dataclass(frozen=True)
class Layout:
    """Paths below the data set's root."""

    root: Path

    def scene(self, scene_id: int) -> Path:
        """Return a scene's folder."""
        return self.root / "scenes" / f"scene_{scene_id:04d}"

    def object_list(self, scene_id: int) -> Path:
        """Return the list of a scene's objects."""
        return self.scene(scene_id) / "object_id_list.txt"

    def camera_file(self, scene_id: int, camera: str, name: str) -> Path:
        """Return a file that a scene's camera has once, such as camK.npy."""
        return self.scene(scene_id) / camera / name

    def frame_file(self, scene_id: int, camera: str, kind: str, frame_id: int) -> Path:
        """Return a frame's file of a kind: rgb, depth, label, annotations or meta."""
        return self.scene(scene_id) / camera / kind / f"{frame_id:04d}.{_PER_FRAME[kind]}"

    def model(self, object_id: int, name: str) -> Path:
        """Return a file of an object's model: nontextured.ply, textured.obj or textured.sdf."""
        return self.root / "models" / f"{object_id:03d}" / name

    def grasp_labels(self, object_id: int) -> Path:
        """Return an object's grasp labels."""
        return self.root / "grasp_label" / f"{object_id:03d}_labels.npz"

    def collision_labels(self, scene_id: int) -> Path:
        """Return a scene's collision labels."""
        return self.root / "collision_label" / f"scene_{scene_id:04d}" / "collision_labels.npz"

    def prediction(self, scene_id: int, camera: str, frame_id: int) -> Path:
        """Return a frame's predicted grasps, where the root is that of a dump of predictions."""
        return self.root / f"scene_{scene_id:04d}" / camera / f"{frame_id:04d}.npy"

    def scene_ids(self) -> list[int]:
        """Return the scenes that have a folder, in order."""
        return sorted(int(path.name[-4:]) for path in (self.root / "scenes").glob("scene_[0-9][0-9][0-9][0-9]"))

    def _needed(self, scene_ids: Iterable[int], camera: str, frames: int) -> Iterator[Path]:
        for scene_id in scene_ids:
            yield self.object_list(scene_id)
            yield from (self.camera_file(scene_id, camera, name) for name in _PER_CAMERA)
            for kind in _PER_FRAME:
                yield from (self.frame_file(scene_id, camera, kind, frame) for frame in range(frames))

    def missing(
        self, scene_ids: Iterable[int], camera: str, frames: int = FRAMES, *, labels: bool = False
    ) -> list[Path]:
        """Return the files of scenes that are not there, those of their objects' models included.

        `labels` asks for grasp and collision labels as well.
        """
        chosen = list(scene_ids)
        needed = list(self._needed(chosen, camera, frames))
        lists = [self.object_list(scene_id) for scene_id in chosen if self.object_list(scene_id).exists()]
        objects = sorted({int(word) for path in lists for word in path.read_text().split()})
        needed += [self.model(i, name) for i in objects for name in ("nontextured.ply", "textured.sdf")]
        if labels:
            needed += [*map(self.grasp_labels, objects), *map(self.collision_labels, chosen)]
        return [path for path in needed if not path.exists()]

    def require(self, scene_ids: Iterable[int], camera: str, frames: int = FRAMES, *, labels: bool = False) -> None:
        """Raise FileNotFoundError that counts the missing files and names the first."""
        missing = self.missing(scene_ids, camera, frames, labels=labels)
        if missing:
            raise FileNotFoundError(f"{self.root}: {len(missing)} files are missing, the first is {missing[0]}")
