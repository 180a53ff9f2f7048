"""Training data: views and their labeled grasps as images at the net's size and sparse heatmaps."""

from __future__ import annotations

import hashlib
import io
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass, fields
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from paperlab.lab.files import write_atomic
from paperlab.rgbd_grasp.dataset.reader import GraspNet
from paperlab.rgbd_grasp.dataset.view import View
from paperlab.rgbd_grasp.geometry.anchors import Symmetry
from paperlab.rgbd_grasp.geometry.checks import Bools, Floats, Ints
from paperlab.rgbd_grasp.geometry.grasp import GraspGroup
from paperlab.rgbd_grasp.labels.heatmap import heatmap_labels
from paperlab.rgbd_grasp.network.config import AvnConfig, Modality
from paperlab.rgbd_grasp.network.inputs import as_images, depth_image, normal_image, resized_rgb
from paperlab.rgbd_grasp.search.workspace import find_workspace

BEST_FRICTION = 0.1  # labels are the grasps of the best score only, as in the released code


@dataclass(frozen=True, eq=False)
class Samples:
    """N views at the size (H, W) of a net's input, with labels for C classes and a grid of cells.

    `positives` are flat indices into (C, rows, columns), those of sample i from `starts[i]` to `starts[i + 1]`.
    """

    rgb: NDArray[np.uint8]  # (N, H, W, 3)
    depth: NDArray[np.uint16]  # (N, H, W), min-max of each image
    normals: NDArray[np.uint8]  # (N, H, W, 3), or (0, H, W, 3) where nobody asked for them
    objects: Bools  # (N, rows, columns): cells with an object; for metrics, never for the net
    scenes: Ints  # (N,)
    positives: NDArray[np.int32]
    starts: NDArray[np.int64]  # (N + 1,)
    classes: int

    def __post_init__(self) -> None:
        if not len(self) or len(self.starts) != len(self) + 1 or self.starts[-1] != len(self.positives):
            raise ValueError(
                f"Samples: got {len(self)} images and starts of shape {self.starts.shape}; needs N and N + 1"
            )
        if len(self.normals) not in (0, len(self)):
            raise ValueError(f"normals: got {len(self.normals)} images, needs {len(self)}, or none")

    def __len__(self) -> int:
        return len(self.rgb)

    @property
    def heatmap_shape(self) -> tuple[int, int, int]:
        """Classes, rows and columns."""
        rows, columns = self.objects.shape[1:]
        return self.classes, rows, columns

    def images(self, chosen: Sequence[int] | Ints, modality: Modality, device: torch.device | str = "cpu") -> Tensor:
        """Return images (B, 3 or 6, H, W) of the chosen samples, from 0 to 1."""
        if "normals" in modality and not len(self.normals):
            raise ValueError("normals: these samples have none; collect them with normals=True")
        arrays: dict[str, NDArray[Any]] = {"rgb": self.rgb, "depth": self.depth, "normals": self.normals}
        parts = [as_images(arrays[name][chosen], device) for name in modality.split("_")]
        return parts[0] if len(parts) == 1 else torch.cat(parts, dim=1)

    def labels(self, chosen: Sequence[int] | Ints, device: torch.device | str = "cpu") -> Tensor:
        """Return the chosen samples' labels (B, C, rows, columns) as booleans, made dense on `device`."""
        size = int(np.prod(self.heatmap_shape))
        flat = [self.positives[self.starts[i] : self.starts[i + 1]] + np.int64(k * size) for k, i in enumerate(chosen)]
        dense = torch.zeros(len(flat) * size, dtype=torch.bool, device=device)
        dense[torch.from_numpy(np.concatenate(flat)).to(device)] = True
        return dense.view(len(flat), *self.heatmap_shape)

    def class_prior(self) -> Floats:
        """Return the share (C,) of cells in which each class is positive; classes never seen count half a cell."""
        classes, rows, columns = self.heatmap_shape
        counts = np.bincount(self.positives // (rows * columns), minlength=classes)
        return np.maximum(counts, 0.5) / (len(self) * rows * columns)

    def subset(self, chosen: Ints) -> Samples:
        """Return the chosen samples, in that order."""
        parts = [self.positives[self.starts[i] : self.starts[i + 1]] for i in chosen]
        starts = np.concatenate([[0], np.cumsum([len(p) for p in parts])]).astype(np.int64)
        normals = self.normals[chosen] if len(self.normals) else self.normals
        arrays = (self.rgb[chosen], self.depth[chosen], normals, self.objects[chosen], self.scenes[chosen])
        return Samples(*arrays, np.concatenate(parts), starts, self.classes)

    def split(self, held_out: Iterable[int]) -> tuple[Samples, Samples]:
        """Return the samples of all scenes but `held_out`, and those of `held_out`: whole scenes, never frames."""
        out = np.isin(self.scenes, list(held_out))
        if not 0 < out.sum() < len(out):
            raise ValueError(f"held_out: takes {out.sum()} of {len(out)} samples, needs some and not all")
        return self.subset(np.flatnonzero(~out)), self.subset(np.flatnonzero(out))

    def digest(self) -> str:
        """Return a hash of everything in here."""
        total = hashlib.sha256(str(self.classes).encode())
        for item in fields(self)[:-1]:
            array = np.ascontiguousarray(getattr(self, item.name))
            total.update(f"{item.name} {array.dtype} {array.shape}".encode() + array.tobytes())
        return total.hexdigest()

    def save(self, path: Path) -> Path:
        """Write the samples to an `.npz` file."""
        buffer = io.BytesIO()
        np.savez(buffer, **{item.name: getattr(self, item.name) for item in fields(self)})
        return write_atomic(path, buffer.getvalue())

    @classmethod
    def load(cls, path: Path) -> Samples:
        """Read samples; raises ValueError, naming the file, where there are none in it."""
        try:
            with np.load(path, allow_pickle=False) as file:
                parts: dict[str, Any] = {item.name: file[item.name] for item in fields(cls)}
        except (KeyError, ValueError, EOFError) as error:
            raise ValueError(f"{path}: {error}; needs a file that Samples.save wrote") from None
        return cls(**parts | {"classes": int(parts["classes"])})


def join(parts: Sequence[Samples]) -> Samples:
    """Return all samples of several lots, in order."""
    lengths = np.concatenate([np.diff(part.starts) for part in parts])
    arrays = {
        item.name: np.concatenate([getattr(part, item.name) for part in parts])
        for item in fields(Samples)
        if item.name not in ("starts", "classes")
    }
    return Samples(**arrays, starts=np.concatenate([[0], lengths.cumsum()]), classes=parts[0].classes)


def collect(
    pairs: Iterable[tuple[View, GraspGroup]],
    config: AvnConfig,
    *,
    normals: bool | None = None,
    symmetry: Symmetry = "canonical",
) -> Samples:
    """Return samples for nets of `config` from views and their labeled grasps, in the cameras' frames.

    Normals cost 0.1 s a view; by default they are made where the modality of `config` needs them.
    """
    normals = "normals" in config.modality if normals is None else normals
    rows: list[tuple[Any, ...]] = []
    for view, grasps in pairs:
        labels = heatmap_labels(grasps, view.camera, config.anchors, config.grid, symmetry=symmetry)
        rows.append(
            (
                resized_rgb(view.rgb, config.image),
                depth_image(view.depth_m, config.image),
                *([normal_image(view.depth_m, view.camera, config.image)] if normals else []),
                find_workspace("gt", config.grid, segmentation=view.segmentation).cells,
                view.scene_id,
                np.flatnonzero(labels).astype(np.int32),
            )
        )
    if not rows:
        raise ValueError("pairs: no view was given, needs at least one")
    *images, objects, scenes, positives = zip(*rows, strict=True)
    rgb, depth, *made = (np.stack(part) for part in images)
    starts = np.concatenate([[0], np.cumsum([len(p) for p in positives])]).astype(np.int64)
    return Samples(
        rgb=rgb,
        depth=depth,
        normals=made[0] if made else rgb[:0],
        objects=np.stack(objects),
        scenes=np.array(scenes),
        positives=np.concatenate(positives),
        starts=starts,
        classes=config.classes,
    )


def labeled_views(
    data: GraspNet, scene_ids: Iterable[int], grasps: Callable[[View], GraspGroup] | None = None, every: int = 1
) -> Iterator[tuple[View, GraspGroup]]:
    """Yield every `every`-th view of scenes in the data set's layout with its labeled grasps.

    `grasps` gives those of a view; by default they are the data set's labels of the best score.
    """
    find = grasps or (lambda view: data.grasps(view, BEST_FRICTION))
    for scene_id in scene_ids:
        for frame_id in range(0, data.frame_count(scene_id), every):
            view = data.view(scene_id, frame_id)
            yield view, find(view)
